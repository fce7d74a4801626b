//! The Log screen: recent entries from events, older requests from the ledger.

use crate::{
    base::{clock::UnixMillis, id::RequestId},
    events::{
        event::Severity,
        log_line::{self, LogLine},
        log_message::RequestSummary,
        record::RequestRecord,
    },
    tui::{
        app::{App, Dialog, RowId},
        format::{self, FrameContext},
        reason_words::ReasonWords,
        screen::Screen,
        screens::list::{self, List, ListColumn},
        strings::{TextFn, Texts},
        theme::ThemeRole,
        widgets::canvas::{StyledSpan, span},
    },
};

pub(super) struct LogList;

type Column<'a> = ListColumn<'a, LogList>;

/// A row of the log: an event, or a past request.
#[derive(Clone, Copy)]
pub(super) enum LogRow<'a> {
    Event(&'a LogLine),
    Request(&'a RequestRecord),
}

impl LogRow<'_> {
    fn at(&self) -> UnixMillis {
        match self {
            Self::Event(line) => line.at,
            Self::Request(r) => r.at,
        }
    }

    fn id(&self) -> RowId {
        match self {
            Self::Event(line) => {
                // FNV-1a, to distinguish lines of the same millisecond.
                let sum = line.text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
                    (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
                });
                RowId::Line(line.at, sum)
            }
            Self::Request(r) => RowId::Request(r.id),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LogColumn {
    Time,
    Level,
    What,
}

impl List for LogList {
    type Column = LogColumn;
    type Row<'a> = LogRow<'a>;

    const DEFAULT_ORDER: (TextFn, Option<LogColumn>) = (|t| &t.order.newest, Some(LogColumn::Time));

    fn columns<'a>(_: &App) -> Vec<Column<'a>> {
        use LogColumn as Id;
        vec![
            Column::left(Id::Time, |t| &t.col.time, 8..=11)
                .cell(|row, now, max_width| {
                    vec![span(time_text(row.at(), now, max_width), ThemeRole::Dim)]
                })
                .sortable(|t| &t.order.oldest, |rows| rows.reverse()),
            Column::left(Id::Level, |t| &t.col.level, 7..=7)
                .cell(|row, now, _| level_cell(row, now.text))
                .hidden(1),
            Column::left(Id::What, |t| &t.col.what, 20..=400)
                .cell(|row, now, _| text_cell(row, now)),
        ]
    }

    /// Newest first. The ledger has already filtered the past rows.
    fn rows(app: &App) -> Vec<LogRow<'_>> {
        let Some(live) = app.live() else { return Vec::new() };
        let filter = &app.list_state_of(Screen::Log).filter;
        let matches = |line: &&LogLine| {
            filter.is_empty() || filter.matches_line(line, line.id.and_then(|id| app.request(id)))
        };
        let events = live.lines.iter().rev().filter(matches).map(LogRow::Event);
        let past =
            if app.history.filter == filter.text() { app.history.rows.as_slice() } else { &[] };
        events.chain(past.iter().map(LogRow::Request)).collect()
    }

    fn id(row: &LogRow<'_>) -> RowId {
        row.id()
    }

    fn empty_text(app: &App, now: FrameContext) -> String {
        let text = &now.text.log;
        if is_typing_filter(app) {
            text.typing.clone()
        } else if app.is_loading_history() {
            text.reading.clone()
        } else {
            list::empty_text(app, &text.empty, &text.no_match)
        }
    }
}

/// The request that a row is about.
pub(super) fn request_of(app: &App, row: &RowId) -> Option<RequestId> {
    match LogList::rows(app).into_iter().find(|line| line.id() == *row)? {
        LogRow::Event(line) => line.id,
        LogRow::Request(r) => Some(r.id),
    }
}

/// Whether a filter is being typed; the ledger is not queried until it is complete.
fn is_typing_filter(app: &App) -> bool {
    let ledger = app.snapshot.as_ref().is_some_and(|snapshot| snapshot.ledger.is_some());
    ledger && matches!(app.dialog, Some(Dialog::Filter { .. }))
}

fn time_text(at: UnixMillis, now: FrameContext, max_width: usize) -> String {
    if max_width >= 11 { format::date_time(at, now) } else { format::clock(at, now) }
}

fn text_cell(row: &LogRow<'_>, now: FrameContext) -> Vec<StyledSpan> {
    match row {
        LogRow::Event(line) => {
            vec![span(line.text.message().words(now.text), level_role(line.level))]
        }
        LogRow::Request(r) => {
            let role = level_role(log_line::request_severity(r));
            let mut spans = vec![span(RequestSummary::new(r).words(now.text), role)];
            if let Some(cost) = r.cost.filter(|cost| cost.usd.is_some_and(|usd| !usd.is_zero())) {
                spans.push(span(format!("  {cost}"), ThemeRole::Dim));
            }
            spans
        }
    }
}

fn level_role(level: Severity) -> ThemeRole {
    if level == Severity::Error { ThemeRole::Error } else { ThemeRole::Text }
}

fn level_cell(row: &LogRow<'_>, text: &Texts) -> Vec<StyledSpan> {
    let level = match row {
        LogRow::Event(line) => line.level,
        LogRow::Request(r) => log_line::request_severity(r),
    };
    let text = &text.state;
    match level {
        Severity::Error => vec![span(format!("✕ {}", text.error), ThemeRole::Error)],
        Severity::Info => vec![span(format!("  {}", text.info), ThemeRole::Dim)],
        Severity::Warn => vec![span(format!("▲ {}", text.warn), ThemeRole::Warn)],
    }
}
