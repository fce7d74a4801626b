//! The Models screen: the names that clients can request, and what each resolves to.

use ratatui::layout::Rect;

use super::{SortOrder, visible_window};
use crate::{
    base::sanitize::{clean, truncate_middle},
    control::snapshot::{KeyStatus, ModelView, Snapshot, UpstreamState},
    tui::{
        app::{App, ListRow, RowId},
        format::{FrameContext, UNKNOWN},
        screen::Screen,
        strings::fill,
        theme::ThemeRole,
        widgets::{
            canvas::{Canvas, StyledSpan, span},
            table::{self, Column, TableRows},
        },
    },
};

pub(super) const ORDERS: [SortOrder; 2] = [
    SortOrder { label: |t| &t.order.config, column: None },
    SortOrder { label: |t| &t.order.name, column: Some(0) },
];

/// A name and the state of its upstreams.
struct ModelRow<'a> {
    model: &'a ModelView,
    /// Number of targets that can be used now.
    ready_targets: usize,
}

fn visible(app: &App) -> Vec<&ModelView> {
    let Some(snapshot) = &app.snapshot else { return Vec::new() };
    let list = app.list_state_of(Screen::Models);
    let matches = |m: &&ModelView| {
        let names: Vec<&str> =
            [&m.name, &m.kind].into_iter().chain(&m.targets).map(String::as_str).collect();
        list.filter.matches_names(&names)
    };
    let mut rows: Vec<_> = snapshot.models.iter().filter(matches).collect();
    if list.sort == 1 {
        rows.sort_by(|a, b| a.name.cmp(&b.name));
    }
    rows
}

pub(super) fn list_rows(app: &App) -> Vec<ListRow> {
    visible(app)
        .into_iter()
        .map(|m| ListRow { id: RowId::Name(m.name.clone()), height: 1 })
        .collect()
}

pub(super) fn draw(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    let rows = visible(app);
    if rows.is_empty() && app.snapshot.is_some() {
        let text = &now.text.models;
        let text = if app.list_state().filter.is_empty() { &text.empty } else { &text.no_match };
        canvas.put(area.x + 3, area.y + 1, area.width.saturating_sub(4), text, ThemeRole::Dim);
        return;
    }
    let (visible_rows, selected, following) =
        visible_window(app, &rows, |m, id| RowId::Name(m.name.clone()) == *id);
    let Some(snapshot) = &app.snapshot else { return };
    // Compute details only for visible rows.
    let visible_rows: Vec<ModelRow<'_>> = visible_rows
        .iter()
        .take(usize::from(area.height))
        .map(|model| ModelRow { model, ready_targets: count_ready_targets(snapshot, model) })
        .collect();
    let visible_rows: Vec<&ModelRow<'_>> = visible_rows.iter().collect();
    let sorted = ORDERS.get(app.list_state().sort).and_then(|order| order.column);
    table::draw(
        canvas,
        area,
        &columns(),
        &TableRows { rows: &visible_rows, selected, following, details: table::no_details, sorted },
        now,
    );
}

/// Counts the targets whose upstream is up and has a key that is not cooling down for the model.
fn count_ready_targets(snapshot: &Snapshot, model: &ModelView) -> usize {
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

fn columns<'a>() -> [Column<ModelRow<'a>>; 5] {
    [
        Column {
            title: |t| &t.col.model,
            min: 18,
            max: 44,
            align_right: false,
            hide_order: 0,
            cell: |row, _, max_width| {
                vec![span(truncate_middle(&clean(&row.model.name), max_width), ThemeRole::Text)]
            },
        },
        Column {
            title: |t| &t.col.kind,
            min: 10,
            max: 11,
            align_right: false,
            hide_order: 1,
            cell: |row, now, _| vec![span(kind_text(row.model, now), ThemeRole::Dim)],
        },
        Column {
            title: |t| &t.col.health,
            min: 8,
            max: 10,
            align_right: false,
            hide_order: 3,
            cell: |row, now, _| health_cell(row, now),
        },
        Column {
            title: |t| &t.col.price,
            min: 11,
            max: 14,
            align_right: true,
            hide_order: 2,
            cell: |row, _, _| vec![price_cell(row.model)],
        },
        Column {
            title: |t| &t.col.targets,
            min: 16,
            max: 120,
            align_right: false,
            hide_order: 0,
            cell: |row, _, _| vec![span(targets_text(row.model), ThemeRole::Text)],
        },
    ]
}

/// The kind of name in the user's language; a kind that this dashboard does not know is shown
/// unchanged.
fn kind_text(model: &ModelView, now: FrameContext) -> String {
    let text = &now.text.models;
    match model.kind.as_str() {
        "alias" => text.alias.clone(),
        "configured" => text.configured.clone(),
        "discovered" => text.discovered.clone(),
        "logical" => text.logical.clone(),
        other => clean(other).into_owned(),
    }
}

fn health_cell(row: &ModelRow<'_>, now: FrameContext) -> Vec<StyledSpan> {
    let text = &now.text.models;
    let all = row.model.targets.len();
    match row.ready_targets {
        _ if all == 0 => vec![span(UNKNOWN, ThemeRole::Dim)],
        0 => vec![span("✕ ", ThemeRole::Error), span(text.none.clone(), ThemeRole::Error)],
        n if n == all => vec![span("● ", ThemeRole::Ok), span(text.ready.clone(), ThemeRole::Text)],
        n => {
            let message = fill(&text.some, &[("n", &n.to_string()), ("all", &all.to_string())]);
            vec![span("▲ ", ThemeRole::Warn), span(message, ThemeRole::Warn)]
        }
    }
}

fn price_cell(model: &ModelView) -> StyledSpan {
    match &model.price {
        Some(price) => {
            let output = price.output.as_deref().unwrap_or("0");
            let currency = if price.currency == "USD" {
                String::new()
            } else {
                format!(" {}", price.currency)
            };
            span(format!("{}→{output}{currency}", price.input), ThemeRole::Text)
        }
        None => span(UNKNOWN, ThemeRole::Dim),
    }
}

fn targets_text(m: &ModelView) -> String {
    if m.targets.is_empty() { UNKNOWN.to_owned() } else { m.targets.join(" · ") }
}
