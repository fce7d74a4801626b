//! The line of charts above the list: requests per minute, waiting times and speed.

use ratatui::layout::Rect;

use crate::{
    events::record::RequestState,
    tui::{
        app::App,
        format::{self, FrameContext, UNKNOWN},
        strings::fill,
        theme::ThemeRole,
        widgets::{
            canvas::{Canvas, StyledSpan, span, spans_width},
            gauge,
        },
    },
};

/// The number of requests used for shares and percentiles, and their maximum age.
const MAX_SAMPLE: usize = 100;
const MAX_SAMPLE_AGE_MS: u64 = 15 * 60 * 1_000;
/// Minimum number of samples for a percentile.
const MIN_P95_SAMPLES: usize = 20;

/// Height of the charts above the list, if they fit.
pub(in crate::tui::screens) fn chart_height(body: Rect) -> u16 {
    if body.height >= 14 && body.width >= 80 { 2 } else { 0 }
}

pub(super) fn draw_charts(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
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
