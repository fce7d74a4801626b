//! Which keys rest, why, and until when?

use ratatui::layout::Rect;

use super::window;
use crate::{
    base::{
        clean::{clean, cut_middle, width},
        clock::UnixMillis,
    },
    control::snapshot::{KeyHealth, KeyView, ModelScope},
    tui::{
        app::{App, Entry, RowId},
        format::{self, Now, UNKNOWN},
        problem::name_of,
        theme::Role,
        widgets::{
            canvas::{Canvas, Span, span},
            gauge,
            table::{self, Column, Rows},
        },
    },
};

pub(super) const ORDERS: [&str; 3] = ["config", "state", "most used"];

/// Models listed under a key.
const SCOPES: usize = 6;
const GAUGE: usize = 10;

fn visible(app: &App) -> Vec<&KeyView> {
    let Some(snapshot) = &app.snapshot else { return Vec::new() };
    let place = app.place_of(super::Screen::Keys);
    let mut rows: Vec<_> = snapshot.keys.iter().filter(|k| place.filter.keeps_names(&[&name_of(k), &k.account, word(k.state)])).collect();
    match place.sort {
        1 => rows.sort_by_key(|k| rank(k.state)),
        2 => rows.sort_by_key(|k| std::cmp::Reverse(k.requests)),
        _ => {}
    }
    rows
}

fn rank(state: KeyHealth) -> u8 {
    match state {
        KeyHealth::Rejected => 0,
        KeyHealth::Missing => 1,
        KeyHealth::Cooling => 2,
        KeyHealth::Partly => 3,
        KeyHealth::Probing => 4,
        KeyHealth::Waiting => 5,
        KeyHealth::Ok => 6,
        KeyHealth::Disabled => 7,
    }
}

pub(super) fn entries(app: &App) -> Vec<Entry> {
    visible(app)
        .into_iter()
        .map(|k| Entry { id: RowId::Name(name_of(k)), height: 1 + u16::try_from(listed(k).len()).unwrap_or(0) })
        .collect()
}

pub(super) fn draw(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let rows = visible(app);
    if rows.is_empty() && app.snapshot.is_some() {
        let text = if app.place().filter.is_empty() {
            "No keys yet. `aiproxy key add UPSTREAM` adds one."
        } else {
            "No key matches the filter. Esc clears it."
        };
        canvas.put(area.x + 3, area.y + 1, area.width.saturating_sub(4), text, Role::Dim);
        return;
    }
    let (shown, selected, following) = window(app, &rows, |k, id| RowId::Name(name_of(k)) == *id);
    let sorted = [None, Some("STATE"), Some("REQ")][app.place().sort.min(2)];
    table::draw(canvas, area, &COLUMNS, &Rows { rows: shown, selected, following, below, sorted }, now);
}

const COLUMNS: [Column<KeyView>; 7] = [
    Column {
        title: "KEY",
        min: 16,
        max: 36,
        right: false,
        leaves: 0,
        cell: |k, _, room| vec![span(cut_middle(&clean(&name_of(k)), room), Role::Text)],
    },
    Column { title: "FINGERPRINT", min: 11, max: 12, right: false, leaves: 3, cell: |k, _, _| vec![known(&k.fingerprint)] },
    Column { title: "STATE", min: 10, max: 12, right: false, leaves: 0, cell: |k, _, _| state(k.state) },
    Column { title: "UNTIL / WHY", min: 26, max: 70, right: false, leaves: 0, cell: |k, now, _| why(k, now) },
    Column { title: "RUN", min: 3, max: 4, right: true, leaves: 2, cell: |k, _, _| vec![number(u64::from(k.running))] },
    Column { title: "REQ", min: 5, max: 6, right: true, leaves: 4, cell: |k, _, _| vec![number(k.requests)] },
    Column { title: "TOKENS", min: 6, max: 7, right: true, leaves: 1, cell: |k, _, _| vec![number(k.tokens)] },
];

fn word(state: KeyHealth) -> &'static str {
    match state {
        KeyHealth::Cooling => "cooling",
        KeyHealth::Disabled => "disabled",
        KeyHealth::Missing => "missing",
        KeyHealth::Ok => "ok",
        KeyHealth::Partly => "partly",
        KeyHealth::Probing => "probing",
        KeyHealth::Rejected => "rejected",
        KeyHealth::Waiting => "waiting",
    }
}

fn state(state: KeyHealth) -> Vec<Span> {
    let (glyph, role) = match state {
        KeyHealth::Cooling | KeyHealth::Partly => ("▲", Role::Warn),
        KeyHealth::Disabled => ("○", Role::Dim),
        KeyHealth::Missing | KeyHealth::Rejected => ("✕", Role::Bad),
        KeyHealth::Ok => ("●", Role::Ok),
        KeyHealth::Probing | KeyHealth::Waiting => ("◐", Role::Accent),
    };
    let calm = if state == KeyHealth::Ok { Role::Text } else { role };
    vec![span(format!("{glyph} "), role), span(word(state), calm)]
}

/// The models listed under a key; a single one stands in its row.
fn listed(k: &KeyView) -> &[ModelScope] {
    if k.scopes.len() == 1 && k.state == KeyHealth::Partly { &[] } else { &k.scopes[..k.scopes.len().min(SCOPES)] }
}

/// The first of its models to come back speaks for a key that only some of them rest on.
fn why_partly(k: &KeyView, now: Now) -> Option<Vec<Span>> {
    let first = k.scopes.iter().min_by_key(|scope| scope.until.map_or(i64::MAX, |until| until.0))?;
    let mut spans = countdown(first.since, first.until, first.hinted, now);
    let cause = first.cause.as_ref().map_or_else(String::new, |cause| format!(": {cause}"));
    let text = match k.scopes.len() {
        1 => format!("{} {}{cause}", word(first.state), first.model),
        n => format!("{n} models rest"),
    };
    spans.push(span(text, Role::Dim));
    Some(spans)
}

fn why(k: &KeyView, now: Now) -> Vec<Span> {
    if let Some(spans) = (k.state == KeyHealth::Partly).then(|| why_partly(k, now)).flatten() {
        return spans;
    }
    let mut spans = countdown(k.since, k.until, k.hinted, now);
    let text = match (k.state, &k.cause) {
        (_, Some(cause)) => cause.clone(),
        (KeyHealth::Missing, None) => format!("{} gives nothing", k.reference),
        (KeyHealth::Waiting, None) => "its secret is being read".to_owned(),
        (KeyHealth::Probing, None) => "one request let through".to_owned(),
        _ if spans.is_empty() => UNKNOWN.to_owned(),
        _ => String::new(),
    };
    spans.push(span(text, Role::Dim));
    spans
}

/// What is left of a wait, as a gauge and a number; our own belief, rather than a vendor's word, has a `~`.
fn countdown(since: Option<UnixMillis>, until: Option<UnixMillis>, hinted: bool, now: Now) -> Vec<Span> {
    let Some(until) = until.filter(|until| until.0 > now.at.0) else { return Vec::new() };
    let left = now.until(until);
    let whole = since.and_then(|since| u64::try_from(until.0.saturating_sub(since.0)).ok()).unwrap_or(left);
    let about = if hinted { "" } else { "~" };
    vec![
        span(gauge::gauge(left, whole, GAUGE), Role::Warn),
        span(format!(" {:>6}  ", format!("{about}{}", format::left(left))), Role::Text),
    ]
}

fn below(k: &KeyView, now: Now, room: usize) -> Vec<Vec<Span>> {
    let line = |scope: &ModelScope| {
        let wide = (room / 4).clamp(8, 28);
        let name = cut_middle(&clean(&scope.model), wide).into_owned();
        let pad = " ".repeat(wide + 2 - width(&name).min(wide));
        let mut spans = vec![span(format!("{name}{pad}"), Role::Text)];
        spans.extend(state(scope.state));
        spans.push(span("  ", Role::Text));
        spans.extend(countdown(scope.since, scope.until, scope.hinted, now));
        spans.push(span(scope.cause.clone().unwrap_or_default(), Role::Dim));
        spans
    };
    listed(k).iter().map(line).collect()
}

fn known(text: &str) -> Span {
    if text.is_empty() { span(UNKNOWN, Role::Dim) } else { span(text, Role::Dim) }
}

fn number(n: u64) -> Span {
    span(format::count(n), if n == 0 { Role::Dim } else { Role::Text })
}
