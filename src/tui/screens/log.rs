//! What happened?

use ratatui::layout::Rect;

use super::window;
use crate::{
    base::id::RequestId,
    events::{kind::Level, live::Line},
    tui::{
        app::{App, Entry, RowId},
        format::{self, Now},
        theme::Role,
        widgets::{
            canvas::{Canvas, Span, span},
            table::{self, Column, Rows},
        },
    },
};

pub(super) const ORDERS: [&str; 2] = ["newest", "oldest"];

fn visible(app: &App) -> Vec<&Line> {
    let Some(live) = app.live() else { return Vec::new() };
    let place = app.place_of(super::Screen::Log);
    let keeps = |line: &&Line| place.filter.is_empty() || place.filter.keeps_line(line, line.id.and_then(|id| app.request(id)));
    if place.sort == 1 { live.lines.iter().filter(keeps).collect() } else { live.lines.iter().rev().filter(keeps).collect() }
}

fn id_of(line: &Line) -> RowId {
    // FNV-1a: tells lines of one millisecond apart.
    let sum = line.text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    RowId::Line(line.at, sum)
}

pub(super) fn entries(app: &App) -> Vec<Entry> {
    visible(app).into_iter().map(|line| Entry { id: id_of(line), height: 1 }).collect()
}

pub(super) fn request_of(app: &App, row: &RowId) -> Option<RequestId> {
    visible(app).into_iter().find(|line| id_of(line) == *row)?.id
}

pub(super) fn draw(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let rows = visible(app);
    if rows.is_empty() && app.snapshot.is_some() {
        let text = if app.place().filter.is_empty() { "Nothing happened yet." } else { "No line matches the filter. Esc clears it." };
        canvas.put(area.x + 3, area.y + 1, area.width.saturating_sub(4), text, Role::Dim);
        return;
    }
    let (shown, selected, following) = window(app, &rows, |line, id| id_of(line) == *id);
    table::draw(canvas, area, &COLUMNS, &Rows { rows: shown, selected, following, below: table::nothing_below, sorted: Some("TIME") }, now);
}

const COLUMNS: [Column<Line>; 3] = [
    Column {
        title: "TIME",
        min: 8,
        max: 8,
        right: false,
        leaves: 0,
        cell: |line, now, _| vec![span(format::clock(line.at, now), Role::Dim)],
    },
    Column { title: "LEVEL", min: 7, max: 7, right: false, leaves: 1, cell: |line, _, _| level(line) },
    Column { title: "WHAT", min: 20, max: 400, right: false, leaves: 0, cell: |line, _, _| vec![span(&*line.text, role(line))] },
];

fn role(line: &Line) -> Role {
    if line.level == Level::Error { Role::Bad } else { Role::Text }
}

fn level(line: &Line) -> Vec<Span> {
    match line.level {
        Level::Error => vec![span("✕ error", Role::Bad)],
        Level::Info => vec![span("  info", Role::Dim)],
        Level::Warn => vec![span("▲ warn", Role::Warn)],
    }
}
