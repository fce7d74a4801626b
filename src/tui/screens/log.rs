//! What happened? The newest from events, what was before from the ledger.

use ratatui::layout::Rect;

use super::{Order, window};
use crate::{
    base::{clock::UnixMillis, id::RequestId},
    events::{
        kind::Severity,
        line::{self, LogLine, write_summary},
        record::RequestRecord,
    },
    tui::{
        app::{App, Dialog, Entry, RowId},
        format::{self, Now},
        said::said,
        text::Texts,
        theme::Role,
        widgets::{
            canvas::{Canvas, Span, span},
            table::{self, Column, Rows},
        },
    },
};

pub(super) const ORDERS: [Order; 2] = [
    Order { word: |t| &t.order.newest, column: Some(0) },
    Order { word: |t| &t.order.oldest, column: Some(0) },
];

/// A line of the log: an event, or a request of the past.
#[derive(Clone, Copy)]
enum Row<'a> {
    Event(&'a LogLine),
    Past(&'a RequestRecord),
}

impl Row<'_> {
    fn at(&self) -> UnixMillis {
        match self {
            Self::Event(line) => line.at,
            Self::Past(r) => r.at,
        }
    }

    fn id(&self) -> RowId {
        match self {
            Self::Event(line) => {
                // FNV-1a: tells lines of one millisecond apart.
                let sum = line.text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
                    (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
                });
                RowId::Line(line.at, sum)
            }
            Self::Past(r) => RowId::Request(r.id),
        }
    }
}

/// The newest first; those of the past were filtered where they came from.
fn visible(app: &App) -> Vec<Row<'_>> {
    let Some(live) = app.live() else { return Vec::new() };
    let place = app.place_of(super::Screen::Log);
    let keeps = |line: &&LogLine| {
        place.filter.is_empty()
            || place.filter.matches_line(line, line.id.and_then(|id| app.request(id)))
    };
    let events = live.lines.iter().rev().filter(keeps).map(Row::Event);
    let past = if app.past.filter == place.filter.text() { app.past.rows.as_slice() } else { &[] };
    let mut rows: Vec<_> = events.chain(past.iter().map(Row::Past)).collect();
    if place.sort == 1 {
        rows.reverse();
    }
    rows
}

pub(super) fn entries(app: &App) -> Vec<Entry> {
    visible(app).into_iter().map(|row| Entry { id: row.id(), height: 1 }).collect()
}

pub(super) fn request_of(app: &App, row: &RowId) -> Option<RequestId> {
    match visible(app).into_iter().find(|line| line.id() == *row)? {
        Row::Event(line) => line.id,
        Row::Past(r) => Some(r.id),
    }
}

pub(super) fn draw(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let rows = visible(app);
    if rows.is_empty() && app.snapshot.is_some() {
        let text = &now.text.log;
        let text = match app.place().filter.is_empty() {
            _ if typing(app) => &text.typing,
            _ if app.past_awaited() => &text.reading,
            true => &text.empty,
            false => &text.no_match,
        };
        canvas.put(area.x + 3, area.y + 1, area.width.saturating_sub(4), text, Role::Dim);
        return;
    }
    let references: Vec<&Row<'_>> = rows.iter().collect();
    let (shown, selected, following) = window(app, &references, |row, id| row.id() == *id);
    let sorted = ORDERS.get(app.place().sort).and_then(|order| order.column);
    table::draw(
        canvas,
        area,
        &columns(),
        &Rows { rows: shown, selected, following, below: table::nothing_below, sorted },
        now,
    );
}

/// Whether a filter is being typed, for which the ledger is not asked yet.
fn typing(app: &App) -> bool {
    let ledger = app.snapshot.as_ref().is_some_and(|snapshot| snapshot.ledger.is_some());
    ledger && matches!(app.dialog, Some(Dialog::Filter { .. }))
}

fn columns<'a>() -> [Column<Row<'a>>; 3] {
    [
        Column {
            title: |t| &t.col.time,
            min: 8,
            max: 11,
            right: false,
            leaves: 0,
            cell: |row, now, room| {
                let moment = if room >= 11 {
                    format::moment(row.at(), now)
                } else {
                    format::clock(row.at(), now)
                };
                vec![span(moment, Role::Dim)]
            },
        },
        Column {
            title: |t| &t.col.level,
            min: 7,
            max: 7,
            right: false,
            leaves: 1,
            cell: |row, now, _| level(row, now.text),
        },
        Column {
            title: |t| &t.col.what,
            min: 20,
            max: 400,
            right: false,
            leaves: 0,
            cell: |row, now, _| what(row, now),
        },
    ]
}

fn what(row: &Row<'_>, now: Now) -> Vec<Span> {
    match row {
        Row::Event(line) => vec![span(said(&line.text, now), role(line.level))],
        Row::Past(r) => {
            let mut text = String::new();
            write_summary(r, &mut text);
            let mut spans = vec![span(said(&text, now), role(line::request_severity(r)))];
            if let Some(cost) = r.cost.filter(|cost| cost.usd.is_some_and(|usd| !usd.is_zero())) {
                spans.push(span(format!("  {cost}"), Role::Dim));
            }
            spans
        }
    }
}

fn role(level: Severity) -> Role {
    if level == Severity::Error { Role::Bad } else { Role::Text }
}

fn level(row: &Row<'_>, text: &Texts) -> Vec<Span> {
    let level = match row {
        Row::Event(line) => line.level,
        Row::Past(r) => line::request_severity(r),
    };
    let text = &text.state;
    match level {
        Severity::Error => vec![span(format!("✕ {}", text.error), Role::Bad)],
        Severity::Info => vec![span(format!("  {}", text.info), Role::Dim)],
        Severity::Warn => vec![span(format!("▲ {}", text.warn), Role::Warn)],
    }
}
