//! What goes on now, and what went on a moment ago?

use ratatui::layout::Rect;

use super::{Order, window};
use crate::{
    base::clean::{clean, display_width, truncate_middle},
    events::record::{AttemptRecord, RequestRecord, RequestState},
    tui::{
        app::{App, Entry, RowId},
        curl,
        format::{self, Now, UNKNOWN},
        text::{Texts, fill},
        theme::Role,
        top::requests_today,
        widgets::{
            canvas::{Canvas, Span, span, spans_width},
            gauge, prose,
            table::{self, Column, Rows},
        },
    },
};

pub(super) const ORDERS: [Order; 4] = [
    Order { word: |t| &t.order.newest, column: None },
    Order { word: |t| &t.order.slowest, column: Some(6) },
    Order { word: |t| &t.order.most_output, column: Some(10) },
    Order { word: |t| &t.order.costliest, column: Some(11) },
];

/// Requests that the shares and percentiles are about, and for how long.
const SAMPLE: usize = 100;
const SAMPLE_MS: u64 = 15 * 60 * 1_000;
/// Fewer make no percentile.
const ENOUGH: usize = 20;

/// Running requests in order of start, below them finished ones.
pub(super) fn visible(app: &App) -> Vec<&RequestRecord> {
    let Some(live) = app.live() else { return Vec::new() };
    let place = app.place_of(super::Screen::Live);
    let keeps = |r: &&RequestRecord| place.filter.is_empty() || place.filter.matches_request(r);
    let mut finished: Vec<_> = live.finished().rev().filter(keeps).collect();
    // By the time that stands in their rows: that of their start.
    finished.sort_by_key(|r| std::cmp::Reverse(r.at));
    match place.sort {
        1 => finished.sort_by_key(|r| std::cmp::Reverse(r.duration_ms)),
        2 => finished.sort_by_key(|r| std::cmp::Reverse(r.usage.map(|u| u.output_total()))),
        3 => finished.sort_by_key(|r| std::cmp::Reverse(r.cost.and_then(|cost| cost.usd))),
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
        return empty(app, now, canvas, list);
    }
    let (shown, selected, following) = window(app, &rows, |r, id| RowId::Request(r.id) == *id);
    let sorted = ORDERS.get(app.place().sort).and_then(|order| order.column);
    let mut columns = COLUMNS;
    if area.width >= ROOMY {
        columns[CLIENT].min = 11;
    }
    table::draw(
        canvas,
        list,
        &columns,
        &Rows { rows: shown, selected, following, below: table::nothing_below, sorted },
        now,
    );
}

fn empty(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let Some(snapshot) = &app.snapshot else { return };
    let room = area.width.saturating_sub(4);
    let y = area.y + u16::from(area.height > 2);
    if !app.place().filter.is_empty() {
        canvas.put(area.x + 3, y, room, &now.text.live.no_match, Role::Dim);
        return;
    }
    if let Some(today) = requests_today(app).filter(|n| *n > 0) {
        let up = format::span(now.since(snapshot.started));
        let said = fill(&now.text.live.begun, &[("span", &up), ("n", &format::count(today))]);
        for (line, y) in prose::wrap(&said, usize::from(room), 3).iter().zip(y..area.bottom()) {
            canvas.put(area.x + 3, y, room, line, Role::Dim);
        }
        return;
    }
    canvas.put(area.x + 3, y, room, &now.text.live.empty, Role::Dim);
    let curl = curl::hello(snapshot, super::first_model(snapshot));
    let mut rest = curl.as_str();
    let mut y = y + 2;
    while !rest.is_empty() && y < area.bottom() {
        let line: String = rest
            .chars()
            .scan(0, |used, c| (*used < usize::from(room)).then(|| *used += 1).map(|()| c))
            .collect();
        canvas.put(area.x + 3, y, room, &line, Role::Text);
        rest = &rest[line.len()..];
        y += 1;
    }
}

fn chart(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let bars = if area.width >= 110 { 16 } else { 8 };
    let per_minute = app.rates.requests_per_minute(now.at);
    let text = &now.text.live;
    let left = [
        span(format!("{} ", text.per_minute), Role::Dim),
        span(gauge::bars(&app.rates.request_bars(now.at, bars)), Role::Accent),
        span(format!("{:>5}", format::count(per_minute)), Role::Text),
    ];
    let tokens = app.rates.tokens_per_second(now.at);
    let right = [
        span(format!("{} ", text.speed), Role::Dim),
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
    let sample: Vec<_> = live
        .recent
        .iter()
        .rev()
        .take(SAMPLE)
        .take_while(|r| now.since(r.at) <= SAMPLE_MS)
        .collect();
    if sample.is_empty() {
        return Vec::new();
    }
    let mut ttft: Vec<u32> = sample.iter().filter_map(|r| r.ttft_ms).collect();
    ttft.sort_unstable();
    let rank = |share: usize, least: usize| match ttft.len() {
        n if n >= least => ttft
            .get((n * share).div_ceil(100).saturating_sub(1))
            .map_or_else(|| UNKNOWN.to_owned(), |ms| format::took(u64::from(*ms))),
        _ => UNKNOWN.to_owned(),
    };
    let text = &now.text.live;
    let failed = sample.iter().filter(|r| r.state == RequestState::Failed).count();
    let errors = format::share(failed as u64, sample.len() as u64);
    vec![
        span(
            format!("{} {} p50 ", fill(&text.last, &[("n", &sample.len().to_string())]), text.ttft),
            Role::Dim,
        ),
        span(rank(50, 1), Role::Text),
        span(" p95 ", Role::Dim),
        span(rank(95, ENOUGH), Role::Text),
        span(format!("  {} ", text.errors), Role::Dim),
        span(errors, if failed > 0 { Role::Warn } else { Role::Text }),
    ]
}

/// From this width on, programs have room for their names.
const ROOMY: u16 = 120;
/// Place of the column of clients.
const CLIENT: usize = 1;

const COLUMNS: [Column<RequestRecord>; 12] = [
    Column {
        title: |t| &t.col.time,
        min: 8,
        max: 8,
        right: false,
        leaves: 5,
        cell: |r, now, _| vec![span(format::clock(r.at, now), Role::Dim)],
    },
    Column {
        title: |t| &t.col.client,
        min: 8,
        max: 16,
        right: false,
        leaves: 6,
        cell: |r, _, room| vec![span(client(r, room), Role::Text)],
    },
    Column {
        title: |t| &t.col.model,
        min: 18,
        max: 52,
        right: false,
        leaves: 0,
        cell: |r, _, room| vec![span(model(r, room), Role::Text)],
    },
    Column {
        title: |t| &t.col.upstream,
        min: 10,
        max: 20,
        right: false,
        leaves: 0,
        cell: |r, _, room| vec![name(r.serving_attempt().map(|a| &*a.upstream), room)],
    },
    Column {
        title: |t| &t.col.key,
        min: 8,
        max: 20,
        right: false,
        leaves: 4,
        cell: |r, _, room| vec![name(r.serving_attempt().map(|a| &*a.key), room)],
    },
    Column {
        title: |t| &t.col.state,
        min: 11,
        max: 14,
        right: false,
        leaves: 0,
        cell: |r, now, room| state(r, now, room),
    },
    Column {
        title: |t| &t.col.age,
        min: 4,
        max: 5,
        right: true,
        leaves: 7,
        cell: |r, now, _| vec![span(age(r, now), Role::Text)],
    },
    Column {
        title: |t| &t.col.try_,
        min: 3,
        max: 3,
        right: true,
        leaves: 8,
        cell: |r, _, _| tries(r),
    },
    Column {
        title: |t| &t.col.ttft,
        min: 6,
        max: 6,
        right: true,
        leaves: 9,
        cell: |r, _, _| vec![maybe(r.ttft_ms.map(|ms| format::took(u64::from(ms))))],
    },
    Column {
        title: |t| &t.col.speed,
        min: 6,
        max: 6,
        right: true,
        leaves: 3,
        cell: |r, now, _| vec![maybe(speed(r, now))],
    },
    Column {
        title: |t| &t.col.tokens,
        min: 11,
        max: 12,
        right: true,
        leaves: 2,
        cell: |r, _, _| vec![span(tokens(r), Role::Text)],
    },
    Column {
        title: |t| &t.col.cost,
        min: 7,
        max: 8,
        right: true,
        leaves: 1,
        cell: |r, _, _| vec![cost(r)],
    },
];

/// The project, or the program where the project says nothing.
fn client(r: &RequestRecord, room: usize) -> String {
    let plain = r.project.is_empty() || &*r.project == "default";
    let name = if plain && !r.client.is_empty() { &r.client } else { &r.project };
    truncate_middle(&clean(name), room).into_owned()
}

/// `asked → resolved` where they differ; the resolved part goes first when room is short.
fn model(r: &RequestRecord, room: usize) -> String {
    let asked = clean(&r.requested_model);
    // Who names an upstream with the model asks for nothing else.
    let same = |at: &AttemptRecord| {
        asked.strip_prefix(&*at.upstream).and_then(|rest| rest.strip_prefix('/'))
            == Some(&*at.model)
    };
    let resolved = r
        .serving_attempt()
        .filter(|at| !same(at))
        .map(|a| clean(&a.model))
        .filter(|model| !model.is_empty() && *model != asked);
    if let Some(resolved) = resolved {
        let left = room.saturating_sub(display_width(&asked) + 3);
        if left >= 6.min(display_width(&resolved)) {
            return format!("{asked} → {}", truncate_middle(&resolved, left));
        }
    }
    truncate_middle(&asked, room).into_owned()
}

fn name(name: Option<&str>, room: usize) -> Span {
    match name.filter(|name| !name.is_empty()) {
        Some(name) => span(truncate_middle(&clean(name), room), Role::Text),
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
    let text = now.text;
    let say = &text.state;
    match r.state {
        RequestState::Queued => vec![span("○ ", Role::Warn), span(say.queued.clone(), Role::Warn)],
        RequestState::Waiting => {
            vec![span(format!("{turn} "), Role::Accent), span(say.waiting.clone(), Role::Text)]
        }
        RequestState::Streaming => {
            vec![span(format!("{turn} "), Role::Accent), span(say.streaming.clone(), Role::Text)]
        }
        RequestState::Done => {
            let (long, short) = (format!(" {}", say.retried), format!(" {}", say.retried_short));
            let lost = r.cache_miss.as_ref().is_some_and(|lost| !lost.is_benign);
            let cache = format!(" {}", say.cache_lost);
            let words: &[&str] = match (lost, r.attempts.len() > 1) {
                (true, _) => &[&cache, ""],
                (false, true) => &[&long, &short, ""],
                (false, false) => &[""],
            };
            let glyph = if lost { span("▲ ", Role::Warn) } else { span("● ", Role::Ok) };
            vec![
                glyph,
                span(fitting(status.as_deref().unwrap_or(&say.done), words, room), Role::Text),
            ]
        }
        RequestState::Failed => {
            let said = match &status {
                Some(status) => {
                    fitting(status, &[&format!(" {}", fault(r.status, text)), ""], room)
                }
                None => fault(None, text).to_owned(),
            };
            vec![span("✕ ", Role::Bad), span(said, Role::Bad)]
        }
        RequestState::ClientGone => vec![span("○ ", Role::Dim), span(say.left.clone(), Role::Dim)],
    }
}

/// The longest of the words that fits behind the status and its glyph.
fn fitting(status: &str, words: &[&str], room: usize) -> String {
    let word = words
        .iter()
        .find(|word| display_width(status) + display_width(word) + 2 <= room)
        .copied()
        .unwrap_or_default();
    format!("{status}{word}")
}

fn fault(status: Option<u16>, text: &Texts) -> &str {
    let text = &text.state;
    match status {
        None | Some(..400) => &text.broke,
        Some(401 | 403) => &text.denied,
        Some(404) => &text.unknown,
        Some(429) => &text.limited,
        Some(502) => &text.down,
        Some(504) => &text.timeout,
        Some(400..500) => &text.refused,
        Some(_) => &text.error,
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
    Some(if rate < 99.95 {
        format!("{about}{rate:.1}")
    } else {
        format!("{about}{}", format::count(rate as u64))
    })
}

fn cost(r: &RequestRecord) -> Span {
    match r.cost {
        Some(cost) if cost.usd.is_some() => span(cost.to_string(), Role::Text),
        _ => span(UNKNOWN, Role::Dim),
    }
}

pub(super) fn tokens(r: &RequestRecord) -> String {
    match r.usage {
        Some(usage) => format!(
            "{}→{}",
            format::count(usage.input_total()),
            format::count(usage.output_total())
        ),
        None if r.events > 0 => format!("{UNKNOWN}→~{}", format::count(r.events)),
        None => UNKNOWN.to_owned(),
    }
}
