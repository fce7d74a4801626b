//! What goes on now, and what went on a moment ago?

use ratatui::layout::Rect;

use super::window;
use crate::{
    base::clean::{clean, cut_middle, width},
    events::record::{RequestRecord, State},
    tui::{
        app::{App, Entry, RowId},
        format::{self, Now, UNKNOWN},
        theme::Role,
        widgets::{
            canvas::{Canvas, Span, span, spans_width},
            gauge,
            table::{self, Column, Rows},
        },
    },
};

pub(super) const ORDERS: [&str; 3] = ["newest", "slowest", "most output"];

/// Requests that the shares and percentiles are about, and for how long.
const SAMPLE: usize = 100;
const SAMPLE_MS: u64 = 15 * 60 * 1_000;
/// Fewer make no percentile.
const ENOUGH: usize = 20;

/// Running requests in order of start, below them finished ones.
pub(super) fn visible(app: &App) -> Vec<&RequestRecord> {
    let Some(live) = app.live() else { return Vec::new() };
    let place = app.place_of(super::Screen::Live);
    let keeps = |r: &&RequestRecord| place.filter.is_empty() || place.filter.keeps_request(r);
    let mut finished: Vec<_> = live.recent.iter().rev().filter(keeps).collect();
    match place.sort {
        1 => finished.sort_by_key(|r| std::cmp::Reverse(r.duration_ms)),
        2 => finished.sort_by_key(|r| std::cmp::Reverse(r.usage.map(|u| u.output_total()))),
        _ => {}
    }
    live.running.iter().filter(keeps).chain(finished).collect()
}

pub(super) fn entries(app: &App) -> Vec<Entry> {
    visible(app).into_iter().map(|r| Entry { id: RowId::Request(r.id), height: 1 }).collect()
}

/// Lines of the charts above the list, where there is room for them.
pub(super) fn chart_height(body: Rect) -> u16 {
    if body.height >= 14 && body.width >= 80 { 2 } else { 0 }
}

pub(super) fn draw(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let now = app.live_now(now);
    let charts = chart_height(area);
    if charts > 0 {
        chart(app, now, canvas, area);
        canvas.rule(area, area.y + 1);
    }
    let list = Rect { y: area.y + charts, height: area.height - charts, ..area };
    let rows = visible(app);
    if rows.is_empty() {
        return empty(app, canvas, list);
    }
    let (shown, selected, following) = window(app, &rows, |r, id| RowId::Request(r.id) == *id);
    let sorted = [None, Some("AGE"), Some("IN→OUT")][app.place().sort.min(2)];
    table::draw(canvas, list, &COLUMNS, &Rows { rows: shown, selected, following, below: table::nothing_below, sorted }, now);
}

fn empty(app: &App, canvas: &mut Canvas<'_>, area: Rect) {
    let Some(snapshot) = &app.snapshot else { return };
    let room = area.width.saturating_sub(4);
    let y = area.y + u16::from(area.height > 2);
    if !app.place().filter.is_empty() {
        canvas.put(area.x + 3, y, room, "No request matches the filter. Esc clears it.", Role::Dim);
        return;
    }
    canvas.put(area.x + 3, y, room, "No requests yet. Try this (press y to copy it):", Role::Dim);
    let curl = super::curl(snapshot, super::first_model(snapshot));
    let mut rest = curl.as_str();
    let mut y = y + 2;
    while !rest.is_empty() && y < area.bottom() {
        let line: String = rest.chars().scan(0, |used, c| (*used < usize::from(room)).then(|| *used += 1).map(|()| c)).collect();
        canvas.put(area.x + 3, y, room, &line, Role::Text);
        rest = &rest[line.len()..];
        y += 1;
    }
}

fn chart(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let bars = if area.width >= 110 { 16 } else { 8 };
    let per_minute = app.rates.requests_per_minute(now.at);
    let left = [
        span("req/min ", Role::Dim),
        span(gauge::bars(&app.rates.request_bars(now.at, bars)), Role::Accent),
        span(format!("{:>5}", format::count(per_minute)), Role::Text),
    ];
    let tokens = app.rates.tokens_per_second(now.at);
    let right = [
        span("out tok/s ", Role::Dim),
        span(gauge::bars(&app.rates.token_bars(now.at, bars / 2)), Role::Accent),
        span(format!("{:>5} ", format::count(tokens)), Role::Text),
    ];
    let middle = shares(app, now);
    let after = canvas.spans(area.x + 1, area.y, area.width, &left);
    let room = area.right().saturating_sub(after + 1);
    let (wide, last) = (spans_width(&middle), spans_width(&right));
    if wide + last + 6 <= room {
        canvas.spans_before(after, area.right(), area.y, &right);
        canvas.spans(after + (room - last - wide) / 2, area.y, wide, &middle);
    } else {
        canvas.spans(after + 4, area.y, room.saturating_sub(4), &middle);
    }
}

/// TTFT and errors of the last hundred, or of the last quarter of an hour where that is less.
fn shares(app: &App, now: Now) -> Vec<Span> {
    let Some(live) = app.live() else { return Vec::new() };
    let sample: Vec<_> = live.recent.iter().rev().take(SAMPLE).take_while(|r| now.since(r.at) <= SAMPLE_MS).collect();
    if sample.is_empty() {
        return Vec::new();
    }
    let mut ttft: Vec<u32> = sample.iter().filter_map(|r| r.ttft_ms).collect();
    ttft.sort_unstable();
    let rank = |share: usize, least: usize| match ttft.len() {
        n if n >= least => {
            ttft.get((n * share).div_ceil(100).saturating_sub(1)).map_or_else(|| UNKNOWN.to_owned(), |ms| format::took(u64::from(*ms)))
        }
        _ => UNKNOWN.to_owned(),
    };
    let failed = sample.iter().filter(|r| r.state == State::Failed).count();
    let errors = format::share(failed as u64, sample.len() as u64);
    vec![
        span(format!("last {}: TTFT p50 ", sample.len()), Role::Dim),
        span(rank(50, 1), Role::Text),
        span(" p95 ", Role::Dim),
        span(rank(95, ENOUGH), Role::Text),
        span("  errors ", Role::Dim),
        span(errors, if failed > 0 { Role::Warn } else { Role::Text }),
    ]
}

const COLUMNS: [Column<RequestRecord>; 11] = [
    Column { title: "TIME", min: 8, max: 8, right: false, leaves: 4, cell: |r, now, _| vec![span(format::clock(r.at, now), Role::Dim)] },
    Column { title: "CLIENT", min: 8, max: 16, right: false, leaves: 5, cell: |r, _, room| vec![span(client(r, room), Role::Text)] },
    Column { title: "MODEL", min: 18, max: 52, right: false, leaves: 0, cell: |r, _, room| vec![span(model(r, room), Role::Text)] },
    Column {
        title: "UPSTREAM",
        min: 10,
        max: 20,
        right: false,
        leaves: 0,
        cell: |r, _, room| vec![name(r.last().map(|a| &*a.upstream), room)],
    },
    Column { title: "KEY", min: 8, max: 20, right: false, leaves: 3, cell: |r, _, room| vec![name(r.last().map(|a| &*a.key), room)] },
    Column { title: "STATE", min: 11, max: 14, right: false, leaves: 0, cell: |r, now, room| state(r, now, room) },
    Column { title: "AGE", min: 4, max: 5, right: true, leaves: 6, cell: |r, now, _| vec![span(age(r, now), Role::Text)] },
    Column { title: "TRY", min: 3, max: 3, right: true, leaves: 7, cell: |r, _, _| tries(r) },
    Column {
        title: "TTFT",
        min: 6,
        max: 6,
        right: true,
        leaves: 8,
        cell: |r, _, _| vec![maybe(r.ttft_ms.map(|ms| format::took(u64::from(ms))))],
    },
    Column { title: "TOK/S", min: 6, max: 6, right: true, leaves: 2, cell: |r, now, _| vec![maybe(speed(r, now))] },
    Column { title: "IN→OUT", min: 11, max: 12, right: true, leaves: 1, cell: |r, _, _| vec![span(tokens(r), Role::Text)] },
];

/// The project, or the program where the project says nothing.
fn client(r: &RequestRecord, room: usize) -> String {
    let plain = r.project.is_empty() || &*r.project == "default";
    let name = if plain && !r.client.is_empty() { &r.client } else { &r.project };
    cut_middle(&clean(name), room).into_owned()
}

/// `asked → resolved` where they differ; the resolved part goes first when room is short.
fn model(r: &RequestRecord, room: usize) -> String {
    let asked = clean(&r.asked);
    let resolved = r.last().map(|a| clean(&a.model)).filter(|model| !model.is_empty() && *model != asked);
    if let Some(resolved) = resolved {
        let left = room.saturating_sub(width(&asked) + 3);
        if left >= 6.min(width(&resolved)) {
            return format!("{asked} → {}", cut_middle(&resolved, left));
        }
    }
    cut_middle(&asked, room).into_owned()
}

fn name(name: Option<&str>, room: usize) -> Span {
    match name.filter(|name| !name.is_empty()) {
        Some(name) => span(cut_middle(&clean(name), room), Role::Text),
        None => span(UNKNOWN, Role::Dim),
    }
}

fn maybe(text: Option<String>) -> Span {
    text.map_or_else(|| span(UNKNOWN, Role::Dim), |text| span(text, Role::Text))
}

/// A glyph and a word; both say the same.
pub(super) fn state(r: &RequestRecord, now: Now, room: usize) -> Vec<Span> {
    const TURN: [&str; 4] = ["◐", "◓", "◑", "◒"];
    let turn = TURN[usize::try_from(now.at.0.div_euclid(1_000).rem_euclid(4)).unwrap_or(0)];
    let status = r.status.map(|s| s.to_string());
    match r.state {
        State::Queued => vec![span("○ ", Role::Warn), span("queued", Role::Warn)],
        State::Waiting => vec![span(format!("{turn} "), Role::Accent), span("waiting", Role::Text)],
        State::Streaming => vec![span(format!("{turn} "), Role::Accent), span("streaming", Role::Text)],
        State::Done => {
            let words: &[&str] = if r.attempts.len() > 1 { &[" retried", " retr.", ""] } else { &[""] };
            vec![span("● ", Role::Ok), span(fitting(status.as_deref().unwrap_or("done"), words, room), Role::Text)]
        }
        State::Failed => {
            let text = match &status {
                Some(status) => fitting(status, &[&format!(" {}", fault(r.status)), ""], room),
                None => fault(None).to_owned(),
            };
            vec![span("✕ ", Role::Bad), span(text, Role::Bad)]
        }
        State::Left => vec![span("○ ", Role::Dim), span("left", Role::Dim)],
    }
}

/// The longest of the words that fits behind the status and its glyph.
fn fitting(status: &str, words: &[&str], room: usize) -> String {
    let word = words.iter().find(|word| status.len() + word.len() + 2 <= room).copied().unwrap_or_default();
    format!("{status}{word}")
}

fn fault(status: Option<u16>) -> &'static str {
    match status {
        None | Some(..400) => "broke",
        Some(401 | 403) => "denied",
        Some(404) => "unknown",
        Some(429) => "limited",
        Some(502) => "down",
        Some(504) => "timeout",
        Some(400..500) => "refused",
        Some(_) => "error",
    }
}

fn age(r: &RequestRecord, now: Now) -> String {
    match r.duration_ms {
        Some(ms @ 0..100) => format!("{ms}ms"),
        Some(ms @ 100..9_950) => format!("{:.1}s", f64::from(ms) / 1_000.0),
        Some(ms) => format::age(u64::from(ms)),
        None => format::age(now.since(r.at)),
    }
}

fn tries(r: &RequestRecord) -> Vec<Span> {
    let role = if r.attempts.len() > 1 { Role::Warn } else { Role::Text };
    vec![span(r.attempts.len().min(999).to_string(), role)]
}

fn speed(r: &RequestRecord, now: Now) -> Option<String> {
    let rate = r.tokens_per_second(now.at)?;
    // Events stand for tokens while there is no count of tokens.
    let about = if r.usage.is_none() { "~" } else { "" };
    Some(if rate < 99.95 { format!("{about}{rate:.1}") } else { format!("{about}{}", format::count(rate as u64)) })
}

fn tokens(r: &RequestRecord) -> String {
    match r.usage {
        Some(usage) => format!("{}→{}", format::count(usage.input_total()), format::count(usage.output_total())),
        None if r.events > 0 => format!("{UNKNOWN}→~{}", format::count(r.events)),
        None => UNKNOWN.to_owned(),
    }
}
