//! Which names may a client ask for, and what does each become?

use ratatui::layout::Rect;

use super::{Order, window};
use crate::{
    base::clean::{clean, truncate_middle},
    control::snapshot::{KeyStatus, ModelView, Snapshot, UpstreamState},
    tui::{
        app::{App, Entry, RowId},
        format::{Now, UNKNOWN},
        text::fill,
        theme::Role,
        widgets::{
            canvas::{Canvas, Span, span},
            table::{self, Column, Rows},
        },
    },
};

pub(super) const ORDERS: [Order; 2] = [
    Order { word: |t| &t.order.config, column: None },
    Order { word: |t| &t.order.name, column: Some(0) },
];

/// A name, with what is known of the upstreams behind it.
struct Row<'a> {
    model: &'a ModelView,
    /// Targets that can be asked now.
    ready: usize,
}

fn visible(app: &App) -> Vec<&ModelView> {
    let Some(snapshot) = &app.snapshot else { return Vec::new() };
    let place = app.place_of(super::Screen::Models);
    let keeps = |m: &&ModelView| {
        let names: Vec<&str> =
            [&m.name, &m.kind].into_iter().chain(&m.targets).map(String::as_str).collect();
        place.filter.matches_names(&names)
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
        let text = &now.text.models;
        let text = if app.place().filter.is_empty() { &text.empty } else { &text.no_match };
        canvas.put(area.x + 3, area.y + 1, area.width.saturating_sub(4), text, Role::Dim);
        return;
    }
    let (shown, selected, following) =
        window(app, &rows, |m, id| RowId::Name(m.name.clone()) == *id);
    let Some(snapshot) = &app.snapshot else { return };
    // Only what can be seen is looked up.
    let shown: Vec<Row<'_>> = shown
        .iter()
        .take(usize::from(area.height))
        .map(|model| Row { model, ready: ready(snapshot, model) })
        .collect();
    let shown: Vec<&Row<'_>> = shown.iter().collect();
    let sorted = ORDERS.get(app.place().sort).and_then(|order| order.column);
    table::draw(
        canvas,
        area,
        &columns(),
        &Rows { rows: &shown, selected, following, below: table::nothing_below, sorted },
        now,
    );
}

/// Targets whose upstream is up and has a key that is not resting for the model.
fn ready(snapshot: &Snapshot, model: &ModelView) -> usize {
    let is_ready = |target: &&String| {
        let (upstream, name) = target.split_once(':').unwrap_or((target, ""));
        let up = snapshot.upstreams.iter().any(|u| {
            u.name == upstream && matches!(u.state, UpstreamState::Healthy | UpstreamState::Probing)
        });
        let mut keys = snapshot.keys.iter().filter(|key| key.upstream == upstream).peekable();
        let keyless = keys.peek().is_none();
        let usable = |key: &crate::control::snapshot::KeyView| match key.state {
            KeyStatus::Ok | KeyStatus::Probing => true,
            KeyStatus::Partly => !key.scopes.iter().any(|scope| scope.model == name),
            _ => false,
        };
        up && (keyless || keys.any(usable))
    };
    model.targets.iter().filter(is_ready).count()
}

fn columns<'a>() -> [Column<Row<'a>>; 5] {
    [
        Column {
            title: |t| &t.col.model,
            min: 18,
            max: 44,
            right: false,
            leaves: 0,
            cell: |row, _, room| {
                vec![span(truncate_middle(&clean(&row.model.name), room), Role::Text)]
            },
        },
        Column {
            title: |t| &t.col.kind,
            min: 10,
            max: 11,
            right: false,
            leaves: 1,
            cell: |row, now, _| vec![span(kind(row.model, now), Role::Dim)],
        },
        Column {
            title: |t| &t.col.health,
            min: 8,
            max: 10,
            right: false,
            leaves: 3,
            cell: |row, now, _| health(row, now),
        },
        Column {
            title: |t| &t.col.price,
            min: 11,
            max: 14,
            right: true,
            leaves: 2,
            cell: |row, _, _| vec![price(row.model)],
        },
        Column {
            title: |t| &t.col.targets,
            min: 16,
            max: 120,
            right: false,
            leaves: 0,
            cell: |row, _, _| vec![span(targets(row.model), Role::Text)],
        },
    ]
}

/// What kind of name it is, in the reader's language; a kind that this dashboard does not know yet
/// as it is told.
fn kind(model: &ModelView, now: Now) -> String {
    let text = &now.text.models;
    match model.kind.as_str() {
        "alias" => text.alias.clone(),
        "configured" => text.configured.clone(),
        "discovered" => text.discovered.clone(),
        "logical" => text.logical.clone(),
        other => clean(other).into_owned(),
    }
}

fn health(row: &Row<'_>, now: Now) -> Vec<Span> {
    let text = &now.text.models;
    let all = row.model.targets.len();
    match row.ready {
        _ if all == 0 => vec![span(UNKNOWN, Role::Dim)],
        0 => vec![span("✕ ", Role::Bad), span(text.none.clone(), Role::Bad)],
        n if n == all => vec![span("● ", Role::Ok), span(text.ready.clone(), Role::Text)],
        n => {
            let said = fill(&text.some, &[("n", &n.to_string()), ("all", &all.to_string())]);
            vec![span("▲ ", Role::Warn), span(said, Role::Warn)]
        }
    }
}

fn price(model: &ModelView) -> Span {
    match &model.price {
        Some(price) => {
            let output = price.output.as_deref().unwrap_or("0");
            let currency = if price.currency == "USD" {
                String::new()
            } else {
                format!(" {}", price.currency)
            };
            span(format!("{}→{output}{currency}", price.input), Role::Text)
        }
        None => span(UNKNOWN, Role::Dim),
    }
}

fn targets(m: &ModelView) -> String {
    if m.targets.is_empty() { UNKNOWN.to_owned() } else { m.targets.join(" · ") }
}
