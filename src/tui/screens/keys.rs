//! The Keys screen: which keys are cooling down, why, and until when.

use ratatui::layout::Rect;

use super::{SortOrder, visible_window};
use crate::{
    base::{
        clock::UnixMillis,
        sanitize::{clean, display_width, truncate_middle},
    },
    control::{
        history::Totals,
        snapshot::{KeyStatus, KeyView, LimitRemaining, ModelScope},
    },
    tui::{
        app::{App, ListRow, RowId},
        format::{self, FrameContext, UNKNOWN},
        problem::key_name,
        screen::Screen,
        strings::{Texts, fill},
        theme::ThemeRole,
        translate_message::translate_message,
        widgets::{
            canvas::{Canvas, StyledSpan, span, spans_width},
            gauge,
            table::{self, Column, RowDetail, TableRows},
        },
    },
};

pub(super) const ORDERS: [SortOrder; 3] = [
    SortOrder { label: |t| &t.order.config, column: None },
    SortOrder { label: |t| &t.order.state, column: Some(STATE_COLUMN) },
    SortOrder { label: |t| &t.order.most_used, column: Some(5) },
];

/// A key and its usage today according to the ledger.
struct KeyRow<'a> {
    key: &'a KeyView,
    today: Option<&'a Totals>,
    /// Whether there is a ledger to provide usage.
    has_ledger: bool,
}

/// Upper bound for models listed under a key.
const MAX_SCOPES: usize = 6;
const GAUGE_WIDTH: usize = 10;

fn visible(app: &App) -> Vec<&KeyView> {
    let Some(snapshot) = &app.snapshot else { return Vec::new() };
    let list = app.list_state_of(Screen::Keys);
    let mut rows: Vec<_> = snapshot
        .keys
        .iter()
        .filter(|k| list.filter.matches_names(&[&key_name(k), &k.account, state_name(k.state)]))
        .collect();
    match list.sort {
        1 => rows.sort_by_key(|k| state_rank(k.state)),
        2 => rows.sort_by_key(|k| std::cmp::Reverse(k.requests)),
        _ => {}
    }
    rows
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

pub(super) fn list_rows(app: &App) -> Vec<ListRow> {
    visible(app)
        .into_iter()
        .map(|k| ListRow {
            id: RowId::Name(key_name(k)),
            height: 1 + u16::try_from(listed_scopes(k).len()).unwrap_or(0),
        })
        .collect()
}

pub(super) fn draw(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    let rows = visible(app);
    if rows.is_empty() && app.snapshot.is_some() {
        let text = &now.text.keys;
        let text = if app.list_state().filter.is_empty() { &text.empty } else { &text.no_match };
        canvas.put(area.x + 3, area.y + 1, area.width.saturating_sub(4), text, ThemeRole::Dim);
        return;
    }
    let (visible_rows, selected, following) =
        visible_window(app, &rows, |k, id| RowId::Name(key_name(k)) == *id);
    let sums = app.usage.today.as_deref();
    let today = |key: &KeyView| {
        sums.and_then(|view| view.rows.iter().find(|row| row.name == key_name(key)))
            .map(|row| &row.totals)
    };
    let visible_rows: Vec<KeyRow<'_>> = visible_rows
        .iter()
        .map(|key| KeyRow { key, today: today(key), has_ledger: sums.is_some() })
        .collect();
    let visible_rows: Vec<&KeyRow<'_>> = visible_rows.iter().collect();
    let sorted = ORDERS.get(app.list_state().sort).and_then(|order| order.column);
    // Columns that are empty in every row leave their width to the others.
    let limited =
        app.snapshot.as_ref().is_some_and(|s| s.keys.iter().any(|key| !key.limits.is_empty()));
    let paid =
        app.snapshot.as_ref().is_some_and(|s| s.keys.iter().any(|key| key.balance.is_some()));
    let columns: Vec<_> = columns()
        .into_iter()
        .enumerate()
        .filter(|(at, _)| {
            (limited || !LIMIT_COLUMNS.contains(at)) && (paid || *at != BALANCE_COLUMN)
        })
        .map(|(_, c)| c)
        .collect();
    table::draw(
        canvas,
        area,
        &columns,
        &TableRows { rows: &visible_rows, selected, following, details: scope_lines, sorted },
        now,
    );
}

/// The columns that detail lines align with.
const STATE_COLUMN: usize = 2;
const UNTIL_COLUMN: usize = 3;
/// The columns with provider limits.
const LIMIT_COLUMNS: std::ops::RangeInclusive<usize> = 7..=8;
/// The column with the balance at the provider.
const BALANCE_COLUMN: usize = 9;

fn columns<'a>() -> [Column<KeyRow<'a>>; 11] {
    [
        Column {
            title: |t| &t.col.key,
            min: 16,
            max: 36,
            align_right: false,
            hide_order: 0,
            cell: |row, _, max_width| {
                vec![span(truncate_middle(&clean(&key_name(row.key)), max_width), ThemeRole::Text)]
            },
        },
        Column {
            title: |t| &t.col.fingerprint,
            min: 11,
            max: 12,
            align_right: false,
            hide_order: 5,
            cell: |row, _, _| vec![fingerprint_cell(&row.key.fingerprint)],
        },
        Column {
            title: |t| &t.col.state,
            min: 10,
            max: 12,
            align_right: false,
            hide_order: 0,
            cell: |row, now, _| state_cell(row.key.state, now.text),
        },
        Column {
            title: |t| &t.col.until,
            min: 26,
            max: 70,
            align_right: false,
            hide_order: 0,
            cell: |row, now, _| reason_cell(row.key, now),
        },
        Column {
            title: |t| &t.col.run,
            min: 3,
            max: 4,
            align_right: true,
            hide_order: 4,
            cell: |row, _, _| vec![number_cell(u64::from(row.key.running))],
        },
        Column {
            title: |t| &t.col.tries,
            min: 5,
            max: 6,
            align_right: true,
            hide_order: 6,
            cell: |row, _, _| vec![number_cell(row.key.requests)],
        },
        Column {
            title: |t| &t.col.used,
            min: 6,
            max: 7,
            align_right: true,
            hide_order: 3,
            cell: |row, _, _| vec![number_cell(row.key.tokens)],
        },
        Column {
            title: |t| &t.col.rpm,
            min: 9,
            max: 11,
            align_right: true,
            hide_order: 2,
            cell: |row, now, _| remaining_cell(row.key, "requests", now),
        },
        Column {
            title: |t| &t.col.tpm,
            min: 9,
            max: 11,
            align_right: true,
            hide_order: 1,
            cell: |row, now, _| remaining_cell(row.key, "tokens", now),
        },
        Column {
            title: |t| &t.col.balance,
            min: 8,
            max: 12,
            align_right: true,
            hide_order: 6,
            cell: |row, _, _| vec![balance_cell(row.key)],
        },
        Column {
            title: |t| &t.col.today,
            min: 7,
            max: 8,
            align_right: true,
            hide_order: 7,
            cell: |row, _, _| vec![today_cell(row)],
        },
    ]
}

fn today_cell(row: &KeyRow<'_>) -> StyledSpan {
    match row.today {
        Some(sums) => span(sums.displayed_cost().to_string(), ThemeRole::Text),
        None if row.has_ledger => span("$0", ThemeRole::Dim),
        None => span(UNKNOWN, ThemeRole::Dim),
    }
}

fn balance_cell(k: &KeyView) -> StyledSpan {
    match &k.balance {
        Some(balance) => {
            span(balance.text.clone(), if balance.low { ThemeRole::Warn } else { ThemeRole::Text })
        }
        None => span(UNKNOWN, ThemeRole::Dim),
    }
}

/// What is left of a limit that the provider reports; the scarcest if models have separate limits.
fn remaining_cell(k: &KeyView, what: &str, now: FrameContext) -> Vec<StyledSpan> {
    let share = |limit: &LimitRemaining| {
        limit.remaining.saturating_mul(1_000) / limit.limit.unwrap_or(u64::MAX).max(1)
    };
    let known = k.limits.iter().filter(|limit| limit.kind.ends_with(what) && limit.until > now.at);
    let Some(limit) = known.min_by_key(|limit| share(limit)) else {
        return vec![span(UNKNOWN, ThemeRole::Dim)];
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

/// If only some models are cooling down, shows the one that returns first.
fn partly_reason(k: &KeyView, now: FrameContext) -> Option<Vec<StyledSpan>> {
    let first =
        k.scopes.iter().min_by_key(|scope| scope.until.map_or(i64::MAX, |until| until.0))?;
    let mut spans = countdown(first.since, first.until, first.from_provider, now);
    let cause = first
        .cause
        .as_ref()
        .map_or_else(String::new, |cause| format!(": {}", translate_message(cause, now)));
    let text = match k.scopes.len() {
        1 => format!("{}{cause}", first.model),
        n => fill(&now.text.keys.rest, &[("n", &n.to_string())]),
    };
    spans.push(span(text, ThemeRole::Dim));
    Some(spans)
}

fn reason_cell(k: &KeyView, now: FrameContext) -> Vec<StyledSpan> {
    if let Some(spans) = (k.state == KeyStatus::Partly).then(|| partly_reason(k, now)).flatten() {
        return spans;
    }
    let words = &now.text.keys;
    let mut spans = countdown(k.since, k.until, k.from_provider, now);
    let text = match (k.state, &k.cause) {
        (_, Some(cause)) => translate_message(cause, now).into_owned(),
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
    now: FrameContext,
) -> Vec<StyledSpan> {
    let Some(until) = until.filter(|until| until.0 > now.at.0) else { return Vec::new() };
    let left = now.until(until);
    let total =
        since.and_then(|since| u64::try_from(until.0.saturating_sub(since.0)).ok()).unwrap_or(left);
    let about = if hinted { "" } else { "~" };
    vec![
        span(gauge::gauge(left, total, GAUGE_WIDTH), ThemeRole::Warn),
        span(format!(" {:>6}  ", format!("{about}{}", format::remaining(left))), ThemeRole::Text),
    ]
}

/// The models that are cooling down, each with its state and wait in the key's columns.
fn scope_lines<'a>(
    row: &KeyRow<'a>,
    now: FrameContext,
    under: &RowDetail<'_, KeyRow<'a>>,
) -> Vec<Vec<StyledSpan>> {
    let (Some(states), Some(waits)) =
        (under.column_start(STATE_COLUMN), under.column_start(UNTIL_COLUMN))
    else {
        return Vec::new();
    };
    let line = |scope: &ModelScope| {
        let name = truncate_middle(&clean(&scope.model), states.saturating_sub(1)).into_owned();
        let pad = |from: usize, to: usize| " ".repeat(to.saturating_sub(from));
        let mut spans =
            vec![span(format!("{name}{}", pad(display_width(&name), states)), ThemeRole::Text)];
        let state = state_cell(scope.state, now.text);
        let wide = usize::from(spans_width(&state));
        spans.extend(state);
        spans.push(span(pad(states + wide, waits), ThemeRole::Text));
        spans.extend(countdown(scope.since, scope.until, scope.from_provider, now));
        spans.push(span(
            scope
                .cause
                .as_deref()
                .map_or_else(String::new, |cause| translate_message(cause, now).into_owned()),
            ThemeRole::Dim,
        ));
        spans
    };
    listed_scopes(row.key).iter().map(line).collect()
}

fn fingerprint_cell(text: &str) -> StyledSpan {
    if text.is_empty() { span(UNKNOWN, ThemeRole::Dim) } else { span(text, ThemeRole::Dim) }
}

fn number_cell(n: u64) -> StyledSpan {
    span(format::count(n), if n == 0 { ThemeRole::Dim } else { ThemeRole::Text })
}
