//! The Keys screen: which keys are cooling down, why, and until when.

use std::cmp::Reverse;

use crate::{
    base::{
        clock::UnixMillis,
        sanitize::{clean, display_width, truncate_middle},
    },
    control::{
        history::UsageReport,
        snapshot::{KeyStatus, KeyView, LimitRemaining, ModelScope},
    },
    tui::{
        app::{App, RowId},
        format::{self, FrameContext, UNKNOWN},
        problem::key_name,
        reason_words::ReasonWords,
        screen::Screen,
        screens::{
            cells,
            list::{self, List, ListColumn},
        },
        strings::{TextFn, Texts, fill},
        theme::ThemeRole,
        widgets::{
            canvas::{StyledSpan, span, spans_width},
            gauge,
            table::RowDetail,
        },
    },
};

/// Upper bound for models listed under a key.
const MAX_SCOPES: usize = 6;
/// Width of a full gauge: in narrow columns and in wide ones.
const GAUGE_WIDTHS: [usize; 2] = [5, 10];
/// Minimum width of a column for a wide gauge.
const MIN_WIDE_COLUMN: usize = 48;

pub(super) struct KeyList;

type Column<'a> = ListColumn<'a, KeyList>;

/// A key, and today's totals if there is a ledger.
pub(super) struct KeyRow<'a> {
    key: &'a KeyView,
    today: Option<&'a UsageReport>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyColumn {
    Key,
    Fingerprint,
    State,
    Until,
    Running,
    Tries,
    Used,
    /// What the provider's limit on requests leaves.
    Rpm,
    /// What the provider's limit on tokens leaves.
    Tpm,
    /// The balance at the provider.
    Balance,
    Today,
}

impl List for KeyList {
    type Column = KeyColumn;
    type Row<'a> = KeyRow<'a>;

    const DEFAULT_ORDER: (TextFn, Option<KeyColumn>) = (|t| &t.order.config, None);

    fn columns<'a>(app: &App) -> Vec<Column<'a>> {
        let keys = app.snapshot.as_ref().map_or(&[][..], |snapshot| &snapshot.keys);
        let limited = keys.iter().any(|key| !key.limits.is_empty());
        let paid = keys.iter().any(|key| key.balance.is_some());
        // Columns that are empty in every row leave their width to the others.
        let is_used = |column: &Column<'a>| match column.id {
            KeyColumn::Rpm | KeyColumn::Tpm => limited,
            KeyColumn::Balance => paid,
            _ => true,
        };
        all_columns().into_iter().filter(is_used).collect()
    }

    fn rows(app: &App) -> Vec<KeyRow<'_>> {
        let Some(snapshot) = &app.snapshot else { return Vec::new() };
        let filter = &app.list_state_of(Screen::Keys).filter;
        let matches =
            |k: &&KeyView| filter.matches_names(&[&key_name(k), &k.account, state_name(k.state)]);
        let today = app.usage.today.as_deref();
        snapshot.keys.iter().filter(matches).map(|key| KeyRow { key, today }).collect()
    }

    fn id(row: &KeyRow<'_>) -> RowId {
        RowId::Name(key_name(row.key))
    }

    fn detail_count(row: &KeyRow<'_>) -> usize {
        listed_scopes(row.key).len()
    }

    fn details(
        row: &KeyRow<'_>,
        now: FrameContext,
        under: &RowDetail<KeyColumn>,
    ) -> Vec<Vec<StyledSpan>> {
        scope_lines(row.key, now, under)
    }

    fn empty_text(app: &App, now: FrameContext) -> String {
        list::empty_text(app, &now.text.keys.empty, &now.text.keys.no_match)
    }
}

fn all_columns<'a>() -> [Column<'a>; 11] {
    use KeyColumn as Id;
    [
        Column::left(Id::Key, |t| &t.col.key, 16..=36)
            .cell(|row, _, max_width| cells::name(&key_name(row.key), max_width)),
        Column::left(Id::Fingerprint, |t| &t.col.fingerprint, 11..=12)
            .cell(|row, _, _| fingerprint_cell(row.key))
            .hidden(5),
        Column::left(Id::State, |t| &t.col.state, 10..=12)
            .cell(|row, now, _| state_cell(row.key.state, now.text))
            .sortable(|t| &t.order.state, |rows| rows.sort_by_key(|row| state_rank(row.key.state))),
        Column::left(Id::Until, |t| &t.col.until, 30..=70)
            .cell(|row, now, max_width| reason_cell(row.key, now, gauge_width(max_width))),
        Column::right(Id::Running, |t| &t.col.run, 3..=4)
            .cell(|row, _, _| cells::number(u64::from(row.key.running)))
            .hidden(4),
        Column::right(Id::Tries, |t| &t.col.tries, 5..=6)
            .cell(|row, _, _| cells::number(row.key.requests))
            .hidden(6)
            .sortable(
                |t| &t.order.most_used,
                |rows| {
                    rows.sort_by_key(|row| Reverse(row.key.requests));
                },
            ),
        Column::right(Id::Used, |t| &t.col.used, 6..=7)
            .cell(|row, _, _| cells::number(row.key.tokens))
            .hidden(3),
        Column::right(Id::Rpm, |t| &t.col.rpm, 9..=11)
            .cell(|row, now, _| remaining_cell(row.key, "requests", now))
            .hidden(2),
        Column::right(Id::Tpm, |t| &t.col.tpm, 9..=11)
            .cell(|row, now, _| remaining_cell(row.key, "tokens", now))
            .hidden(1),
        Column::right(Id::Balance, |t| &t.col.balance, 8..=12)
            .cell(|row, _, _| balance_cell(row.key))
            .hidden(6),
        Column::right(Id::Today, |t| &t.col.today, 7..=8)
            .cell(|row, _, _| today_cell(row))
            .hidden(7),
    ]
}

fn state_rank(state: KeyStatus) -> u8 {
    match state {
        KeyStatus::Rejected => 0,
        KeyStatus::Missing => 1,
        KeyStatus::Cooling => 2,
        KeyStatus::Partly => 3,
        KeyStatus::Probing => 4,
        KeyStatus::Waiting => 5,
        KeyStatus::Ok => 6,
        KeyStatus::Disabled => 7,
    }
}

fn fingerprint_cell(k: &KeyView) -> Vec<StyledSpan> {
    if k.fingerprint.is_empty() {
        return cells::unknown();
    }
    vec![span(k.fingerprint.as_str(), ThemeRole::Dim)]
}

/// The cost of the key's requests today.
fn today_cell(row: &KeyRow<'_>) -> Vec<StyledSpan> {
    let Some(today) = row.today else { return cells::unknown() };
    let name = key_name(row.key);
    match today.rows.iter().find(|sums| sums.name == name) {
        Some(sums) => vec![span(sums.totals.displayed_cost().to_string(), ThemeRole::Text)],
        None => vec![span("$0", ThemeRole::Dim)],
    }
}

fn balance_cell(k: &KeyView) -> Vec<StyledSpan> {
    let Some(balance) = &k.balance else { return cells::unknown() };
    vec![span(balance.text.clone(), if balance.low { ThemeRole::Warn } else { ThemeRole::Text })]
}

/// What is left of a limit that the provider reports; the scarcest if models have separate limits.
fn remaining_cell(k: &KeyView, what: &str, now: FrameContext) -> Vec<StyledSpan> {
    let share = |limit: &LimitRemaining| {
        limit.remaining.saturating_mul(1_000) / limit.limit.unwrap_or(u64::MAX).max(1)
    };
    let known = k.limits.iter().filter(|limit| limit.kind.ends_with(what) && limit.until > now.at);
    let Some(limit) = known.min_by_key(|limit| share(limit)) else {
        return cells::unknown();
    };
    let role =
        if limit.remaining == 0 || share(limit) < 100 { ThemeRole::Warn } else { ThemeRole::Text };
    let all = limit.limit.map_or_else(String::new, |all| format!("/{}", format::count(all)));
    vec![span(format!("{}{all}", format::count(limit.remaining)), role)]
}

fn state_name(state: KeyStatus) -> &'static str {
    match state {
        KeyStatus::Cooling => "cooling",
        KeyStatus::Disabled => "disabled",
        KeyStatus::Missing => "missing",
        KeyStatus::Ok => "ok",
        KeyStatus::Partly => "partly",
        KeyStatus::Probing => "probing",
        KeyStatus::Rejected => "rejected",
        KeyStatus::Waiting => "waiting",
    }
}

fn state_text(state: KeyStatus, text: &Texts) -> &str {
    let text = &text.state;
    match state {
        KeyStatus::Cooling => &text.cooling,
        KeyStatus::Disabled => &text.disabled,
        KeyStatus::Missing => &text.missing,
        KeyStatus::Ok => &text.ok,
        KeyStatus::Partly => &text.partly,
        KeyStatus::Probing => &text.probing,
        KeyStatus::Rejected => &text.rejected,
        KeyStatus::Waiting => &text.key_waiting,
    }
}

fn state_cell(state: KeyStatus, text: &Texts) -> Vec<StyledSpan> {
    let (glyph, role) = match state {
        KeyStatus::Cooling | KeyStatus::Partly => ("▲", ThemeRole::Warn),
        KeyStatus::Disabled => ("○", ThemeRole::Dim),
        KeyStatus::Missing | KeyStatus::Rejected => ("✕", ThemeRole::Error),
        KeyStatus::Ok => ("●", ThemeRole::Ok),
        KeyStatus::Probing | KeyStatus::Waiting => ("◐", ThemeRole::Accent),
    };
    let calm = if state == KeyStatus::Ok { ThemeRole::Text } else { role };
    vec![span(format!("{glyph} "), role), span(state_text(state, text), calm)]
}

/// The models listed under a key; a single model is shown in the key's row.
fn listed_scopes(k: &KeyView) -> &[ModelScope] {
    if k.scopes.len() == 1 && k.state == KeyStatus::Partly {
        &[]
    } else {
        &k.scopes[..k.scopes.len().min(MAX_SCOPES)]
    }
}

/// The width of a full gauge in a column of this width.
fn gauge_width(column_width: usize) -> usize {
    GAUGE_WIDTHS[usize::from(column_width >= MIN_WIDE_COLUMN)]
}

/// If only some models are cooling down, shows the one that returns first.
fn partly_reason(k: &KeyView, now: FrameContext, gauge_width: usize) -> Option<Vec<StyledSpan>> {
    let first =
        k.scopes.iter().min_by_key(|scope| scope.until.map_or(i64::MAX, |until| until.0))?;
    let mut spans = countdown(first.since, first.until, first.from_provider, gauge_width, now);
    let cause = first.cause.as_ref().map_or_else(String::new, |cause| {
        format!(": {}", cause.without_model(&first.model).words(now.text))
    });
    let text = match k.scopes.len() {
        1 => format!("{}{cause}", first.model),
        n => fill(&now.text.keys.rest, &[("n", &n.to_string())]),
    };
    spans.push(span(text, ThemeRole::Dim));
    Some(spans)
}

fn reason_cell(k: &KeyView, now: FrameContext, gauge_width: usize) -> Vec<StyledSpan> {
    if k.state == KeyStatus::Partly
        && let Some(spans) = partly_reason(k, now, gauge_width)
    {
        return spans;
    }
    let words = &now.text.keys;
    let mut spans = countdown(k.since, k.until, k.from_provider, gauge_width, now);
    let text = match (k.state, &k.cause) {
        (_, Some(cause)) => cause.words(now.text),
        (KeyStatus::Missing, None) => fill(&words.gives_nothing, &[("reference", &k.reference)]),
        (KeyStatus::Waiting, None) => words.being_read.clone(),
        (KeyStatus::Probing, None) => words.let_through.clone(),
        _ if spans.is_empty() => UNKNOWN.to_owned(),
        _ => String::new(),
    };
    spans.push(span(text, ThemeRole::Dim));
    spans
}

/// The rest of a wait as a gauge and a number. An estimate by aiproxy, rather than the provider's
/// value, has a `~`.
fn countdown(
    since: Option<UnixMillis>,
    until: Option<UnixMillis>,
    hinted: bool,
    gauge_width: usize,
    now: FrameContext,
) -> Vec<StyledSpan> {
    let Some(until) = until.filter(|until| until.0 > now.at.0) else { return Vec::new() };
    let left = now.until(until);
    let total =
        since.and_then(|since| u64::try_from(until.0.saturating_sub(since.0)).ok()).unwrap_or(left);
    let about = if hinted { "" } else { "~" };
    vec![
        span(gauge::gauge(left, total, gauge_width), ThemeRole::Warn),
        span(format!(" {:>6}  ", format!("{about}{}", format::remaining(left))), ThemeRole::Text),
    ]
}

/// The models that are cooling down, each with its state and wait in the key's columns.
fn scope_lines(
    key: &KeyView,
    now: FrameContext,
    under: &RowDetail<KeyColumn>,
) -> Vec<Vec<StyledSpan>> {
    let (Some((states, _)), Some((waits, wait_width))) =
        (under.column(KeyColumn::State), under.column(KeyColumn::Until))
    else {
        return Vec::new();
    };
    let gauge_width = gauge_width(wait_width);
    let line = |scope: &ModelScope| {
        let name = truncate_middle(&clean(&scope.model), states.saturating_sub(1)).into_owned();
        let pad = |from: usize, to: usize| " ".repeat(to.saturating_sub(from));
        let mut spans =
            vec![span(format!("{name}{}", pad(display_width(&name), states)), ThemeRole::Text)];
        let state = state_cell(scope.state, now.text);
        let wide = usize::from(spans_width(&state));
        spans.extend(state);
        spans.push(span(pad(states + wide, waits), ThemeRole::Text));
        spans.extend(countdown(scope.since, scope.until, scope.from_provider, gauge_width, now));
        spans.push(span(
            scope.cause.as_deref().map_or_else(String::new, |cause| {
                cause.without_model(&scope.model).words(now.text)
            }),
            ThemeRole::Dim,
        ));
        spans
    };
    listed_scopes(key).iter().map(line).collect()
}
