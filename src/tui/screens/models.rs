//! Which names may a client ask for, and what does each become?

use ratatui::layout::Rect;

use super::window;
use crate::{
    base::clean::{clean, cut_middle},
    control::snapshot::ModelView,
    tui::{
        app::{App, Entry, RowId},
        format::{Now, UNKNOWN},
        theme::Role,
        widgets::{
            canvas::{Canvas, span},
            table::{self, Column, Rows},
        },
    },
};

pub(super) const ORDERS: [&str; 2] = ["config", "name"];

fn visible(app: &App) -> Vec<&ModelView> {
    let Some(snapshot) = &app.snapshot else { return Vec::new() };
    let place = app.place_of(super::Screen::Models);
    let keeps = |m: &&ModelView| {
        let names: Vec<&str> = [&m.name, &m.kind].into_iter().chain(&m.targets).map(String::as_str).collect();
        place.filter.keeps_names(&names)
    };
    let mut rows: Vec<_> = snapshot.models.iter().filter(keeps).collect();
    if place.sort == 1 {
        rows.sort_by(|a, b| a.name.cmp(&b.name));
    }
    rows
}

pub(super) fn entries(app: &App) -> Vec<Entry> {
    visible(app).into_iter().map(|m| Entry { id: RowId::Name(m.name.clone()), height: 1 }).collect()
}

pub(super) fn draw(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let rows = visible(app);
    if rows.is_empty() && app.snapshot.is_some() {
        let text = if app.place().filter.is_empty() {
            "No models are known yet. `aiproxy model add` names one."
        } else {
            "No model matches the filter. Esc clears it."
        };
        canvas.put(area.x + 3, area.y + 1, area.width.saturating_sub(4), text, Role::Dim);
        return;
    }
    let (shown, selected, following) = window(app, &rows, |m, id| RowId::Name(m.name.clone()) == *id);
    let sorted = [None, Some("MODEL")][app.place().sort.min(1)];
    table::draw(canvas, area, &COLUMNS, &Rows { rows: shown, selected, following, below: table::nothing_below, sorted }, now);
}

const COLUMNS: [Column<ModelView>; 3] = [
    Column {
        title: "MODEL",
        min: 18,
        max: 44,
        right: false,
        leaves: 0,
        cell: |m, _, room| vec![span(cut_middle(&clean(&m.name), room), Role::Text)],
    },
    Column { title: "KIND", min: 10, max: 11, right: false, leaves: 1, cell: |m, _, _| vec![span(m.kind.clone(), Role::Dim)] },
    Column { title: "TRIED IN ORDER", min: 16, max: 120, right: false, leaves: 0, cell: |m, _, _| vec![span(targets(m), Role::Text)] },
];

fn targets(m: &ModelView) -> String {
    if m.targets.is_empty() { UNKNOWN.to_owned() } else { m.targets.join(" · ") }
}
