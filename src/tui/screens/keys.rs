//! Which keys rest, why, and until when?

use ratatui::layout::Rect;

use super::{Order, window};
use crate::{
    base::{
        clean::{clean, display_width, truncate_middle},
        clock::UnixMillis,
    },
    control::{
        history::Totals,
        snapshot::{KeyStatus, KeyView, LimitRemaining, ModelScope},
    },
    tui::{
        app::{App, Entry, RowId},
        format::{self, Now, UNKNOWN},
        problem::name_of,
        said::said,
        text::{Texts, fill},
        theme::Role,
        widgets::{
            canvas::{Canvas, Span, span, spans_width},
            gauge,
            table::{self, Column, Rows, Under},
        },
    },
};

pub(super) const ORDERS: [Order; 3] = [
    Order { word: |t| &t.order.config, column: None },
    Order { word: |t| &t.order.state, column: Some(STATE) },
    Order { word: |t| &t.order.most_used, column: Some(5) },
];

/// A key, with what the ledger has of it today.
struct Row<'a> {
    key: &'a KeyView,
    today: Option<&'a Totals>,
    /// Whether there is a ledger that would know.
    counted: bool,
}

/// Models listed under a key.
const SCOPES: usize = 6;
const GAUGE: usize = 10;

fn visible(app: &App) -> Vec<&KeyView> {
    let Some(snapshot) = &app.snapshot else { return Vec::new() };
    let place = app.place_of(super::Screen::Keys);
    let mut rows: Vec<_> = snapshot
        .keys
        .iter()
        .filter(|k| place.filter.matches_names(&[&name_of(k), &k.account, word(k.state)]))
        .collect();
    match place.sort {
        1 => rows.sort_by_key(|k| rank(k.state)),
        2 => rows.sort_by_key(|k| std::cmp::Reverse(k.requests)),
        _ => {}
    }
    rows
}

fn rank(state: KeyStatus) -> u8 {
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

pub(super) fn entries(app: &App) -> Vec<Entry> {
    visible(app)
        .into_iter()
        .map(|k| Entry {
            id: RowId::Name(name_of(k)),
            height: 1 + u16::try_from(listed(k).len()).unwrap_or(0),
        })
        .collect()
}

pub(super) fn draw(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let rows = visible(app);
    if rows.is_empty() && app.snapshot.is_some() {
        let text = &now.text.keys;
        let text = if app.place().filter.is_empty() { &text.empty } else { &text.no_match };
        canvas.put(area.x + 3, area.y + 1, area.width.saturating_sub(4), text, Role::Dim);
        return;
    }
    let (shown, selected, following) = window(app, &rows, |k, id| RowId::Name(name_of(k)) == *id);
    let sums = app.sums.today.as_deref();
    let today = |key: &KeyView| {
        sums.and_then(|view| view.rows.iter().find(|row| row.name == name_of(key)))
            .map(|row| &row.totals)
    };
    let shown: Vec<Row<'_>> =
        shown.iter().map(|key| Row { key, today: today(key), counted: sums.is_some() }).collect();
    let shown: Vec<&Row<'_>> = shown.iter().collect();
    let sorted = ORDERS.get(app.place().sort).and_then(|order| order.column);
    // Columns that nobody has anything for leave their room to the others.
    let limited =
        app.snapshot.as_ref().is_some_and(|s| s.keys.iter().any(|key| !key.limits.is_empty()));
    let paid =
        app.snapshot.as_ref().is_some_and(|s| s.keys.iter().any(|key| key.balance.is_some()));
    let columns: Vec<_> = columns()
        .into_iter()
        .enumerate()
        .filter(|(at, _)| (limited || !LIMITS.contains(at)) && (paid || *at != BALANCE))
        .map(|(_, c)| c)
        .collect();
    table::draw(
        canvas,
        area,
        &columns,
        &Rows { rows: &shown, selected, following, below, sorted },
        now,
    );
}

/// Places of the columns that lines under a row keep to.
const STATE: usize = 2;
const UNTIL: usize = 3;
/// Places of the columns that show limits of providers.
const LIMITS: std::ops::RangeInclusive<usize> = 7..=8;
/// Place of the column that shows what is left at providers.
const BALANCE: usize = 9;

fn columns<'a>() -> [Column<Row<'a>>; 11] {
    [
        Column {
            title: |t| &t.col.key,
            min: 16,
            max: 36,
            right: false,
            leaves: 0,
            cell: |row, _, room| {
                vec![span(truncate_middle(&clean(&name_of(row.key)), room), Role::Text)]
            },
        },
        Column {
            title: |t| &t.col.fingerprint,
            min: 11,
            max: 12,
            right: false,
            leaves: 5,
            cell: |row, _, _| vec![known(&row.key.fingerprint)],
        },
        Column {
            title: |t| &t.col.state,
            min: 10,
            max: 12,
            right: false,
            leaves: 0,
            cell: |row, now, _| state(row.key.state, now.text),
        },
        Column {
            title: |t| &t.col.until,
            min: 26,
            max: 70,
            right: false,
            leaves: 0,
            cell: |row, now, _| why(row.key, now),
        },
        Column {
            title: |t| &t.col.run,
            min: 3,
            max: 4,
            right: true,
            leaves: 4,
            cell: |row, _, _| vec![number(u64::from(row.key.running))],
        },
        Column {
            title: |t| &t.col.tries,
            min: 5,
            max: 6,
            right: true,
            leaves: 6,
            cell: |row, _, _| vec![number(row.key.requests)],
        },
        Column {
            title: |t| &t.col.used,
            min: 6,
            max: 7,
            right: true,
            leaves: 3,
            cell: |row, _, _| vec![number(row.key.tokens)],
        },
        Column {
            title: |t| &t.col.rpm,
            min: 9,
            max: 11,
            right: true,
            leaves: 2,
            cell: |row, now, _| left_of(row.key, "requests", now),
        },
        Column {
            title: |t| &t.col.tpm,
            min: 9,
            max: 11,
            right: true,
            leaves: 1,
            cell: |row, now, _| left_of(row.key, "tokens", now),
        },
        Column {
            title: |t| &t.col.balance,
            min: 8,
            max: 12,
            right: true,
            leaves: 6,
            cell: |row, _, _| vec![balance(row.key)],
        },
        Column {
            title: |t| &t.col.today,
            min: 7,
            max: 8,
            right: true,
            leaves: 7,
            cell: |row, _, _| vec![today(row)],
        },
    ]
}

fn today(row: &Row<'_>) -> Span {
    match row.today {
        Some(sums) => span(sums.displayed_cost().to_string(), Role::Text),
        None if row.counted => span("$0", Role::Dim),
        None => span(UNKNOWN, Role::Dim),
    }
}

fn balance(k: &KeyView) -> Span {
    match &k.balance {
        Some(balance) => {
            span(balance.text.clone(), if balance.low { Role::Warn } else { Role::Text })
        }
        None => span(UNKNOWN, Role::Dim),
    }
}

/// What is left of a limit that the provider told of: the scarcest, where models have limits of
/// their own.
fn left_of(k: &KeyView, what: &str, now: Now) -> Vec<Span> {
    let share = |limit: &LimitRemaining| {
        limit.remaining.saturating_mul(1_000) / limit.limit.unwrap_or(u64::MAX).max(1)
    };
    let known = k.limits.iter().filter(|limit| limit.kind.ends_with(what) && limit.until > now.at);
    let Some(limit) = known.min_by_key(|limit| share(limit)) else {
        return vec![span(UNKNOWN, Role::Dim)];
    };
    let role = if limit.remaining == 0 || share(limit) < 100 { Role::Warn } else { Role::Text };
    let all = limit.limit.map_or_else(String::new, |all| format!("/{}", format::count(all)));
    vec![span(format!("{}{all}", format::count(limit.remaining)), role)]
}

fn word(state: KeyStatus) -> &'static str {
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

fn say(state: KeyStatus, text: &Texts) -> &str {
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

fn state(state: KeyStatus, text: &Texts) -> Vec<Span> {
    let (glyph, role) = match state {
        KeyStatus::Cooling | KeyStatus::Partly => ("▲", Role::Warn),
        KeyStatus::Disabled => ("○", Role::Dim),
        KeyStatus::Missing | KeyStatus::Rejected => ("✕", Role::Bad),
        KeyStatus::Ok => ("●", Role::Ok),
        KeyStatus::Probing | KeyStatus::Waiting => ("◐", Role::Accent),
    };
    let calm = if state == KeyStatus::Ok { Role::Text } else { role };
    vec![span(format!("{glyph} "), role), span(say(state, text), calm)]
}

/// The models listed under a key; a single one stands in its row.
fn listed(k: &KeyView) -> &[ModelScope] {
    if k.scopes.len() == 1 && k.state == KeyStatus::Partly {
        &[]
    } else {
        &k.scopes[..k.scopes.len().min(SCOPES)]
    }
}

/// The first of its models to come back speaks for a key that only some of them rest on.
fn why_partly(k: &KeyView, now: Now) -> Option<Vec<Span>> {
    let first =
        k.scopes.iter().min_by_key(|scope| scope.until.map_or(i64::MAX, |until| until.0))?;
    let mut spans = countdown(first.since, first.until, first.from_provider, now);
    let cause =
        first.cause.as_ref().map_or_else(String::new, |cause| format!(": {}", said(cause, now)));
    let text = match k.scopes.len() {
        1 => format!("{}{cause}", first.model),
        n => fill(&now.text.keys.rest, &[("n", &n.to_string())]),
    };
    spans.push(span(text, Role::Dim));
    Some(spans)
}

fn why(k: &KeyView, now: Now) -> Vec<Span> {
    if let Some(spans) = (k.state == KeyStatus::Partly).then(|| why_partly(k, now)).flatten() {
        return spans;
    }
    let words = &now.text.keys;
    let mut spans = countdown(k.since, k.until, k.from_provider, now);
    let text = match (k.state, &k.cause) {
        (_, Some(cause)) => said(cause, now).into_owned(),
        (KeyStatus::Missing, None) => fill(&words.gives_nothing, &[("reference", &k.reference)]),
        (KeyStatus::Waiting, None) => words.being_read.clone(),
        (KeyStatus::Probing, None) => words.let_through.clone(),
        _ if spans.is_empty() => UNKNOWN.to_owned(),
        _ => String::new(),
    };
    spans.push(span(text, Role::Dim));
    spans
}

/// What is left of a wait, as a gauge and a number; our own belief, rather than a vendor's word,
/// has a `~`.
fn countdown(
    since: Option<UnixMillis>,
    until: Option<UnixMillis>,
    hinted: bool,
    now: Now,
) -> Vec<Span> {
    let Some(until) = until.filter(|until| until.0 > now.at.0) else { return Vec::new() };
    let left = now.until(until);
    let whole =
        since.and_then(|since| u64::try_from(until.0.saturating_sub(since.0)).ok()).unwrap_or(left);
    let about = if hinted { "" } else { "~" };
    vec![
        span(gauge::gauge(left, whole, GAUGE), Role::Warn),
        span(format!(" {:>6}  ", format!("{about}{}", format::left(left))), Role::Text),
    ]
}

/// The models that rest: each has its state and its wait in the columns of its key.
fn below<'a>(row: &Row<'a>, now: Now, under: &Under<'_, Row<'a>>) -> Vec<Vec<Span>> {
    let (Some(states), Some(waits)) = (under.begins(STATE), under.begins(UNTIL)) else {
        return Vec::new();
    };
    let line = |scope: &ModelScope| {
        let name = truncate_middle(&clean(&scope.model), states.saturating_sub(1)).into_owned();
        let pad = |from: usize, to: usize| " ".repeat(to.saturating_sub(from));
        let mut spans =
            vec![span(format!("{name}{}", pad(display_width(&name), states)), Role::Text)];
        let state = state(scope.state, now.text);
        let wide = usize::from(spans_width(&state));
        spans.extend(state);
        spans.push(span(pad(states + wide, waits), Role::Text));
        spans.extend(countdown(scope.since, scope.until, scope.from_provider, now));
        spans.push(span(
            scope.cause.as_deref().map_or_else(String::new, |cause| said(cause, now).into_owned()),
            Role::Dim,
        ));
        spans
    };
    listed(row.key).iter().map(line).collect()
}

fn known(text: &str) -> Span {
    if text.is_empty() { span(UNKNOWN, Role::Dim) } else { span(text, Role::Dim) }
}

fn number(n: u64) -> Span {
    span(format::count(n), if n == 0 { Role::Dim } else { Role::Text })
}
