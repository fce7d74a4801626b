//! The Log screen: recent entries from events, older requests from the ledger.

use ratatui::layout::Rect;

use super::{SortOrder, visible_window};
use crate::{
    base::{clock::UnixMillis, id::RequestId},
    events::{
        event::Severity,
        log_line::{self, LogLine, write_summary},
        record::RequestRecord,
    },
    tui::{
        app::{App, Dialog, ListRow, RowId},
        format::{self, FrameContext},
        screen::Screen,
        strings::Texts,
        theme::ThemeRole,
        translate_message::translate_message,
        widgets::{
            canvas::{Canvas, StyledSpan, span},
            table::{self, Column, TableRows},
        },
    },
};

pub(super) const ORDERS: [SortOrder; 2] = [
    SortOrder { label: |t| &t.order.newest, column: Some(0) },
    SortOrder { label: |t| &t.order.oldest, column: Some(0) },
];

/// A row of the log: an event, or a past request.
#[derive(Clone, Copy)]
enum LogRow<'a> {
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

/// The rows, newest first. The ledger has already filtered the past ones.
fn visible(app: &App) -> Vec<LogRow<'_>> {
    let Some(live) = app.live() else { return Vec::new() };
    let list = app.list_state_of(Screen::Log);
    let matches = |line: &&LogLine| {
        list.filter.is_empty()
            || list.filter.matches_line(line, line.id.and_then(|id| app.request(id)))
    };
    let events = live.lines.iter().rev().filter(matches).map(LogRow::Event);
    let past =
        if app.history.filter == list.filter.text() { app.history.rows.as_slice() } else { &[] };
    let mut rows: Vec<_> = events.chain(past.iter().map(LogRow::Request)).collect();
    if list.sort == 1 {
        rows.reverse();
    }
    rows
}

pub(super) fn list_rows(app: &App) -> Vec<ListRow> {
    visible(app).into_iter().map(|row| ListRow { id: row.id(), height: 1 }).collect()
}

pub(super) fn request_of(app: &App, row: &RowId) -> Option<RequestId> {
    match visible(app).into_iter().find(|line| line.id() == *row)? {
        LogRow::Event(line) => line.id,
        LogRow::Request(r) => Some(r.id),
    }
}

pub(super) fn draw(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    let rows = visible(app);
    if rows.is_empty() && app.snapshot.is_some() {
        let text = &now.text.log;
        let text = match app.list_state().filter.is_empty() {
            _ if is_typing_filter(app) => &text.typing,
            _ if app.is_loading_history() => &text.reading,
            true => &text.empty,
            false => &text.no_match,
        };
        canvas.put(area.x + 3, area.y + 1, area.width.saturating_sub(4), text, ThemeRole::Dim);
        return;
    }
    let references: Vec<&LogRow<'_>> = rows.iter().collect();
    let (visible_rows, selected, following) =
        visible_window(app, &references, |row, id| row.id() == *id);
    let sorted = ORDERS.get(app.list_state().sort).and_then(|order| order.column);
    table::draw(
        canvas,
        area,
        &columns(),
        &TableRows { rows: visible_rows, selected, following, details: table::no_details, sorted },
        now,
    );
}

/// Whether a filter is being typed; the ledger is not queried until it is complete.
fn is_typing_filter(app: &App) -> bool {
    let ledger = app.snapshot.as_ref().is_some_and(|snapshot| snapshot.ledger.is_some());
    ledger && matches!(app.dialog, Some(Dialog::Filter { .. }))
}

fn columns<'a>() -> [Column<LogRow<'a>>; 3] {
    [
        Column {
            title: |t| &t.col.time,
            min: 8,
            max: 11,
            align_right: false,
            hide_order: 0,
            cell: |row, now, max_width| {
                let moment = if max_width >= 11 {
                    format::date_time(row.at(), now)
                } else {
                    format::clock(row.at(), now)
                };
                vec![span(moment, ThemeRole::Dim)]
            },
        },
        Column {
            title: |t| &t.col.level,
            min: 7,
            max: 7,
            align_right: false,
            hide_order: 1,
            cell: |row, now, _| level_cell(row, now.text),
        },
        Column {
            title: |t| &t.col.what,
            min: 20,
            max: 400,
            align_right: false,
            hide_order: 0,
            cell: |row, now, _| text_cell(row, now),
        },
    ]
}

fn text_cell(row: &LogRow<'_>, now: FrameContext) -> Vec<StyledSpan> {
    match row {
        LogRow::Event(line) => {
            vec![span(translate_message(&line.text, now), level_role(line.level))]
        }
        LogRow::Request(r) => {
            let mut text = String::new();
            write_summary(r, &mut text);
            let mut spans = vec![span(
                translate_message(&text, now),
                level_role(log_line::request_severity(r)),
            )];
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
