//! The Live screen: running and recently finished requests.

use ratatui::layout::Rect;

use super::{SortOrder, visible_window};
use crate::{
    base::sanitize::{clean, display_width, truncate_middle},
    events::record::{AttemptRecord, RequestRecord, RequestState},
    tui::{
        app::{App, ListRow, RowId},
        curl,
        format::{self, FrameContext, UNKNOWN},
        screen::Screen,
        status_bar::requests_today,
        strings::{Texts, fill},
        theme::ThemeRole,
        widgets::{
            canvas::{Canvas, StyledSpan, span, spans_width},
            gauge,
            table::{self, Column, TableRows},
            wrap,
        },
    },
};

pub(super) const ORDERS: [SortOrder; 4] = [
    SortOrder { label: |t| &t.order.newest, column: None },
    SortOrder { label: |t| &t.order.slowest, column: Some(6) },
    SortOrder { label: |t| &t.order.most_output, column: Some(10) },
    SortOrder { label: |t| &t.order.costliest, column: Some(11) },
];

/// The number of requests used for shares and percentiles, and their maximum age.
const MAX_SAMPLE: usize = 100;
const MAX_SAMPLE_AGE_MS: u64 = 15 * 60 * 1_000;
/// Minimum number of samples for a percentile.
const MIN_P95_SAMPLES: usize = 20;

/// Running requests in order of start, followed by finished ones.
pub(super) fn visible(app: &App) -> Vec<&RequestRecord> {
    let Some(live) = app.live() else { return Vec::new() };
    let list = app.list_state_of(Screen::Live);
    let matches = |r: &&RequestRecord| list.filter.is_empty() || list.filter.matches_request(r);
    let mut finished: Vec<_> = live.finished().rev().filter(matches).collect();
    // By the time shown in their rows: the start.
    finished.sort_by_key(|r| std::cmp::Reverse(r.at));
    match list.sort {
        1 => finished.sort_by_key(|r| std::cmp::Reverse(r.duration_ms)),
        2 => finished.sort_by_key(|r| std::cmp::Reverse(r.usage.map(|u| u.output_total()))),
        3 => finished.sort_by_key(|r| std::cmp::Reverse(r.cost.and_then(|cost| cost.usd))),
        _ => {}
    }
    live.running.iter().filter(matches).chain(finished).collect()
}

pub(super) fn list_rows(app: &App) -> Vec<ListRow> {
    visible(app).into_iter().map(|r| ListRow { id: RowId::Request(r.id), height: 1 }).collect()
}

/// Height of the charts above the list, if they fit.
pub(super) fn chart_height(body: Rect) -> u16 {
    if body.height >= 14 && body.width >= 80 { 2 } else { 0 }
}

pub(super) fn draw(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    let now = app.live_now(now);
    let charts = chart_height(area);
    if charts > 0 {
        draw_charts(app, now, canvas, area);
        canvas.rule(area, area.y + 1);
    }
    let list = Rect { y: area.y + charts, height: area.height - charts, ..area };
    let rows = visible(app);
    if rows.is_empty() {
        return draw_empty(app, now, canvas, list);
    }
    let (visible_rows, selected, following) =
        visible_window(app, &rows, |r, id| RowId::Request(r.id) == *id);
    let sorted = ORDERS.get(app.list_state().sort).and_then(|order| order.column);
    let mut columns = COLUMNS;
    if area.width >= MIN_CLIENT_NAME_WIDTH {
        columns[CLIENT_COLUMN].min = 11;
    }
    table::draw(
        canvas,
        list,
        &columns,
        &TableRows { rows: visible_rows, selected, following, details: table::no_details, sorted },
        now,
    );
}

fn draw_empty(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    let Some(snapshot) = &app.snapshot else { return };
    let max_width = area.width.saturating_sub(4);
    let y = area.y + u16::from(area.height > 2);
    if !app.list_state().filter.is_empty() {
        canvas.put(area.x + 3, y, max_width, &now.text.live.no_match, ThemeRole::Dim);
        return;
    }
    if let Some(today) = requests_today(app).filter(|n| *n > 0) {
        let up = format::span(now.since(snapshot.started));
        let message = fill(&now.text.live.begun, &[("span", &up), ("n", &format::count(today))]);
        for (line, y) in
            wrap::wrap(&message, usize::from(max_width), 3).iter().zip(y..area.bottom())
        {
            canvas.put(area.x + 3, y, max_width, line, ThemeRole::Dim);
        }
        return;
    }
    canvas.put(area.x + 3, y, max_width, &now.text.live.empty, ThemeRole::Dim);
    let curl = curl::hello_command(snapshot, super::first_model(snapshot));
    let mut rest = curl.as_str();
    let mut y = y + 2;
    while !rest.is_empty() && y < area.bottom() {
        let line: String = rest
            .chars()
            .scan(0, |used, c| (*used < usize::from(max_width)).then(|| *used += 1).map(|()| c))
            .collect();
        canvas.put(area.x + 3, y, max_width, &line, ThemeRole::Text);
        rest = &rest[line.len()..];
        y += 1;
    }
}

fn draw_charts(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    let bars = if area.width >= 110 { 16 } else { 8 };
    let per_minute = app.rates.requests_per_minute(now.at);
    let text = &now.text.live;
    let left = [
        span(format!("{} ", text.per_minute), ThemeRole::Dim),
        span(gauge::bars(&app.rates.request_bars(now.at, bars)), ThemeRole::Accent),
        span(format!("{:>5}", format::count(per_minute)), ThemeRole::Text),
    ];
    let tokens = app.rates.tokens_per_second(now.at);
    let right = [
        span(format!("{} ", text.speed), ThemeRole::Dim),
        span(gauge::bars(&app.rates.token_bars(now.at, bars / 2)), ThemeRole::Accent),
        span(format!("{:>5} ", format::count(tokens)), ThemeRole::Text),
    ];
    let middle = ttft_and_errors(app, now);
    let after = canvas.spans(area.x + 1, area.y, area.width, &left);
    let max_width = area.right().saturating_sub(after + 1);
    let (wide, last) = (spans_width(&middle), spans_width(&right));
    if wide + last + 6 <= max_width {
        canvas.spans_right(after, area.right(), area.y, &right);
        canvas.spans(after + (max_width - last - wide) / 2, area.y, wide, &middle);
    } else {
        canvas.spans(after + 4, area.y, max_width.saturating_sub(4), &middle);
    }
}

/// TTFT and errors of the last 100 requests, or of the last 15 minutes if those are fewer.
fn ttft_and_errors(app: &App, now: FrameContext) -> Vec<StyledSpan> {
    let Some(live) = app.live() else { return Vec::new() };
    let sample: Vec<_> = live
        .recent
        .iter()
        .rev()
        .take(MAX_SAMPLE)
        .take_while(|r| now.since(r.at) <= MAX_SAMPLE_AGE_MS)
        .collect();
    if sample.is_empty() {
        return Vec::new();
    }
    let mut ttft: Vec<u32> = sample.iter().filter_map(|r| r.ttft_ms).collect();
    ttft.sort_unstable();
    let rank = |share: usize, min_samples: usize| match ttft.len() {
        n if n >= min_samples => ttft
            .get((n * share).div_ceil(100).saturating_sub(1))
            .map_or_else(|| UNKNOWN.to_owned(), |ms| format::duration(u64::from(*ms))),
        _ => UNKNOWN.to_owned(),
    };
    let text = &now.text.live;
    let failed = sample.iter().filter(|r| r.state == RequestState::Failed).count();
    let errors = format::share(failed as u64, sample.len() as u64);
    vec![
        span(
            format!("{} {} p50 ", fill(&text.last, &[("n", &sample.len().to_string())]), text.ttft),
            ThemeRole::Dim,
        ),
        span(rank(50, 1), ThemeRole::Text),
        span(" p95 ", ThemeRole::Dim),
        span(rank(95, MIN_P95_SAMPLES), ThemeRole::Text),
        span(format!("  {} ", text.errors), ThemeRole::Dim),
        span(errors, if failed > 0 { ThemeRole::Warn } else { ThemeRole::Text }),
    ]
}

/// Minimum width for client program names.
const MIN_CLIENT_NAME_WIDTH: u16 = 120;
/// The column of clients.
const CLIENT_COLUMN: usize = 1;

const COLUMNS: [Column<RequestRecord>; 12] = [
    Column {
        title: |t| &t.col.time,
        min: 8,
        max: 8,
        align_right: false,
        hide_order: 5,
        cell: |r, now, _| vec![span(format::clock(r.at, now), ThemeRole::Dim)],
    },
    Column {
        title: |t| &t.col.client,
        min: 8,
        max: 16,
        align_right: false,
        hide_order: 6,
        cell: |r, _, max_width| vec![span(client_text(r, max_width), ThemeRole::Text)],
    },
    Column {
        title: |t| &t.col.model,
        min: 18,
        max: 52,
        align_right: false,
        hide_order: 0,
        cell: |r, _, max_width| vec![span(model_text(r, max_width), ThemeRole::Text)],
    },
    Column {
        title: |t| &t.col.upstream,
        min: 10,
        max: 20,
        align_right: false,
        hide_order: 0,
        cell: |r, _, max_width| {
            vec![name_cell(r.serving_attempt().map(|a| &*a.upstream), max_width)]
        },
    },
    Column {
        title: |t| &t.col.key,
        min: 8,
        max: 20,
        align_right: false,
        hide_order: 4,
        cell: |r, _, max_width| vec![name_cell(r.serving_attempt().map(|a| &*a.key), max_width)],
    },
    Column {
        title: |t| &t.col.state,
        min: 11,
        max: 14,
        align_right: false,
        hide_order: 0,
        cell: |r, now, max_width| state_cell(r, now, max_width),
    },
    Column {
        title: |t| &t.col.age,
        min: 4,
        max: 5,
        align_right: true,
        hide_order: 7,
        cell: |r, now, _| vec![span(age_text(r, now), ThemeRole::Text)],
    },
    Column {
        title: |t| &t.col.try_,
        min: 3,
        max: 3,
        align_right: true,
        hide_order: 8,
        cell: |r, _, _| attempts_cell(r),
    },
    Column {
        title: |t| &t.col.ttft,
        min: 6,
        max: 6,
        align_right: true,
        hide_order: 9,
        cell: |r, _, _| vec![optional_cell(r.ttft_ms.map(|ms| format::duration(u64::from(ms))))],
    },
    Column {
        title: |t| &t.col.speed,
        min: 6,
        max: 6,
        align_right: true,
        hide_order: 3,
        cell: |r, now, _| vec![optional_cell(speed_text(r, now))],
    },
    Column {
        title: |t| &t.col.tokens,
        min: 11,
        max: 12,
        align_right: true,
        hide_order: 2,
        cell: |r, _, _| vec![span(tokens_text(r), ThemeRole::Text)],
    },
    Column {
        title: |t| &t.col.cost,
        min: 7,
        max: 8,
        align_right: true,
        hide_order: 1,
        cell: |r, _, _| vec![cost_cell(r)],
    },
];

/// The project, or the program if the request has no project of its own.
fn client_text(r: &RequestRecord, max_width: usize) -> String {
    let plain = r.project.is_empty() || &*r.project == "default";
    let name = if plain && !r.client.is_empty() { &r.client } else { &r.project };
    truncate_middle(&clean(name), max_width).into_owned()
}

/// `requested → resolved` if they differ; the resolved part is cut first if space is short.
fn model_text(r: &RequestRecord, max_width: usize) -> String {
    let requested = clean(&r.requested_model);
    // A request that names an upstream with the model asks for no other model.
    let same = |at: &AttemptRecord| {
        requested.strip_prefix(&*at.upstream).and_then(|rest| rest.strip_prefix('/'))
            == Some(&*at.model)
    };
    let resolved = r
        .serving_attempt()
        .filter(|at| !same(at))
        .map(|a| clean(&a.model))
        .filter(|model| !model.is_empty() && *model != requested);
    if let Some(resolved) = resolved {
        let left = max_width.saturating_sub(display_width(&requested) + 3);
        if left >= 6.min(display_width(&resolved)) {
            return format!("{requested} → {}", truncate_middle(&resolved, left));
        }
    }
    truncate_middle(&requested, max_width).into_owned()
}

fn name_cell(name: Option<&str>, max_width: usize) -> StyledSpan {
    match name.filter(|name| !name.is_empty()) {
        Some(name) => span(truncate_middle(&clean(name), max_width), ThemeRole::Text),
        None => span(UNKNOWN, ThemeRole::Dim),
    }
}

fn optional_cell(text: Option<String>) -> StyledSpan {
    text.map_or_else(|| span(UNKNOWN, ThemeRole::Dim), |text| span(text, ThemeRole::Text))
}

/// A glyph and a word with the same meaning.
pub(super) fn state_cell(
    r: &RequestRecord,
    now: FrameContext,
    max_width: usize,
) -> Vec<StyledSpan> {
    const SPINNER: [&str; 4] = ["◐", "◓", "◑", "◒"];
    let spinner = SPINNER[usize::try_from(now.at.0.div_euclid(1_000).rem_euclid(4)).unwrap_or(0)];
    let status = r.status.map(|s| s.to_string());
    let text = now.text;
    let state_texts = &text.state;
    match r.state {
        RequestState::Queued => {
            vec![span("○ ", ThemeRole::Warn), span(state_texts.queued.clone(), ThemeRole::Warn)]
        }
        RequestState::Waiting => {
            vec![
                span(format!("{spinner} "), ThemeRole::Accent),
                span(state_texts.waiting.clone(), ThemeRole::Text),
            ]
        }
        RequestState::Streaming => {
            vec![
                span(format!("{spinner} "), ThemeRole::Accent),
                span(state_texts.streaming.clone(), ThemeRole::Text),
            ]
        }
        RequestState::Done => {
            let (long, short) =
                (format!(" {}", state_texts.retried), format!(" {}", state_texts.retried_short));
            let lost = r.cache_miss.as_ref().is_some_and(|lost| !lost.is_benign);
            let cache = format!(" {}", state_texts.cache_lost);
            let words: &[&str] = match (lost, r.attempts.len() > 1) {
                (true, _) => &[&cache, ""],
                (false, true) => &[&long, &short, ""],
                (false, false) => &[""],
            };
            let glyph =
                if lost { span("▲ ", ThemeRole::Warn) } else { span("● ", ThemeRole::Ok) };
            vec![
                glyph,
                span(
                    longest_fitting(
                        status.as_deref().unwrap_or(&state_texts.done),
                        words,
                        max_width,
                    ),
                    ThemeRole::Text,
                ),
            ]
        }
        RequestState::Failed => {
            let message = match &status {
                Some(status) => longest_fitting(
                    status,
                    &[&format!(" {}", fault_text(r.status, text)), ""],
                    max_width,
                ),
                None => fault_text(None, text).to_owned(),
            };
            vec![span("✕ ", ThemeRole::Error), span(message, ThemeRole::Error)]
        }
        RequestState::ClientGone => {
            vec![span("○ ", ThemeRole::Dim), span(state_texts.left.clone(), ThemeRole::Dim)]
        }
    }
}

/// The longest of the words that fits after the status and its glyph.
fn longest_fitting(status: &str, words: &[&str], max_width: usize) -> String {
    let word = words
        .iter()
        .find(|word| display_width(status) + display_width(word) + 2 <= max_width)
        .copied()
        .unwrap_or_default();
    format!("{status}{word}")
}

fn fault_text(status: Option<u16>, text: &Texts) -> &str {
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

fn age_text(r: &RequestRecord, now: FrameContext) -> String {
    match r.duration_ms {
        Some(ms @ 0..100) => format!("{ms}ms"),
        Some(ms @ 100..9_950) => format!("{:.1}s", f64::from(ms) / 1_000.0),
        Some(ms) => format::age(u64::from(ms)),
        None => format::age(now.since(r.at)),
    }
}

fn attempts_cell(r: &RequestRecord) -> Vec<StyledSpan> {
    let role = if r.attempts.len() > 1 { ThemeRole::Warn } else { ThemeRole::Text };
    vec![span(r.attempts.len().min(999).to_string(), role)]
}

fn speed_text(r: &RequestRecord, now: FrameContext) -> Option<String> {
    let rate = r.tokens_per_second(now.at)?;
    // Events approximate tokens until there is a token count.
    let about = if r.usage.is_none() { "~" } else { "" };
    Some(if rate < 99.95 {
        format!("{about}{rate:.1}")
    } else {
        format!("{about}{}", format::count(rate as u64))
    })
}

fn cost_cell(r: &RequestRecord) -> StyledSpan {
    match r.cost {
        Some(cost) if cost.usd.is_some() => span(cost.to_string(), ThemeRole::Text),
        _ => span(UNKNOWN, ThemeRole::Dim),
    }
}

pub(super) fn tokens_text(r: &RequestRecord) -> String {
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
