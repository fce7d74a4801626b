//! The Models screen: the names that clients can request, and what each resolves to.

use crate::{
    base::sanitize::clean,
    control::snapshot::{KeyStatus, KeyView, ModelView, Snapshot, UpstreamState},
    tui::{
        app::{App, RowId},
        format::{FrameContext, UNKNOWN},
        screen::Screen,
        screens::{
            cells,
            list::{self, List, ListColumn},
        },
        strings::{TextFn, fill},
        theme::ThemeRole,
        widgets::canvas::{StyledSpan, span},
    },
};

pub(super) struct ModelList;

type Column<'a> = ListColumn<'a, ModelList>;

/// A name, and the snapshot with the state of its upstreams.
pub(super) struct ModelRow<'a> {
    model: &'a ModelView,
    snapshot: &'a Snapshot,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ModelColumn {
    Model,
    Kind,
    Health,
    Price,
    Targets,
}

impl List for ModelList {
    type Column = ModelColumn;
    type Row<'a> = ModelRow<'a>;

    const DEFAULT_ORDER: (TextFn, Option<ModelColumn>) = (|t| &t.order.config, None);

    fn columns<'a>(_: &App) -> Vec<Column<'a>> {
        use ModelColumn as Id;
        vec![
            Column::left(Id::Model, |t| &t.col.model, 18..=44)
                .cell(|row, _, max_width| cells::name(&row.model.name, max_width))
                .sortable(
                    |t| &t.order.name,
                    |rows| {
                        rows.sort_by(|a, b| a.model.name.cmp(&b.model.name));
                    },
                ),
            Column::left(Id::Kind, |t| &t.col.kind, 10..=11)
                .cell(|row, now, _| vec![span(kind_text(row.model, now), ThemeRole::Dim)])
                .hidden(1),
            Column::left(Id::Health, |t| &t.col.health, 8..=10)
                .cell(|row, now, _| health_cell(row, now))
                .hidden(3),
            Column::right(Id::Price, |t| &t.col.price, 11..=14)
                .cell(|row, _, _| cells::optional(price_text(row.model)))
                .hidden(2),
            Column::left(Id::Targets, |t| &t.col.targets, 16..=120)
                .cell(|row, _, _| vec![span(targets_text(row.model), ThemeRole::Text)]),
        ]
    }

    fn rows(app: &App) -> Vec<ModelRow<'_>> {
        let Some(snapshot) = app.snapshot.as_deref() else { return Vec::new() };
        let filter = &app.list_state_of(Screen::Models).filter;
        let matches = |m: &&ModelView| {
            let names: Vec<&str> =
                [&m.name, &m.kind].into_iter().chain(&m.targets).map(String::as_str).collect();
            filter.matches_names(&names)
        };
        let models = snapshot.models.iter().filter(matches);
        models.map(|model| ModelRow { model, snapshot }).collect()
    }

    fn id(row: &ModelRow<'_>) -> RowId {
        RowId::Name(row.model.name.clone())
    }

    fn empty_text(app: &App, now: FrameContext) -> String {
        list::empty_text(app, &now.text.models.empty, &now.text.models.no_match)
    }
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
        let usable = |key: &KeyView| match key.state {
            KeyStatus::Ok | KeyStatus::Probing => true,
            KeyStatus::Partly => !key.scopes.iter().any(|scope| scope.model == name),
            _ => false,
        };
        up && (keyless || keys.any(usable))
    };
    model.targets.iter().filter(is_ready).count()
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
    match count_ready_targets(row.snapshot, row.model) {
        _ if all == 0 => cells::unknown(),
        0 => vec![span("✕ ", ThemeRole::Error), span(text.none.clone(), ThemeRole::Error)],
        n if n == all => vec![span("● ", ThemeRole::Ok), span(text.ready.clone(), ThemeRole::Text)],
        n => {
            let message = fill(&text.some, &[("n", &n.to_string()), ("all", &all.to_string())]);
            vec![span("▲ ", ThemeRole::Warn), span(message, ThemeRole::Warn)]
        }
    }
}

fn price_text(model: &ModelView) -> Option<String> {
    let price = model.price.as_ref()?;
    let output = price.output.as_deref().unwrap_or("0");
    let currency =
        if price.currency == "USD" { String::new() } else { format!(" {}", price.currency) };
    Some(format!("{}→{output}{currency}", price.input))
}

fn targets_text(m: &ModelView) -> String {
    if m.targets.is_empty() { UNKNOWN.to_owned() } else { m.targets.join(" · ") }
}
