//! The first line of the Usage screen: the totals of the period and the grouping.

use ratatui::layout::Rect;

use crate::{
    control::history::{GroupBy, UsageReport},
    tui::{
        app::App,
        format::{self, FrameContext, UNKNOWN},
        screens::usage::grouping::group_title,
        status_bar::cost_today,
        strings::fill,
        theme::ThemeRole,
        widgets::canvas::{Canvas, StyledSpan, span, spans_width},
    },
};

/// Today's totals, the time span and the grouping.
pub(super) fn draw_totals(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    let text = &now.text.usage;
    let span_name = match app.usage.days {
        1 => text.one_day.clone(),
        n => fill(&text.days, &[("n", &n.to_string())]),
    };
    let mut left = vec![
        span(format!("{} ", text.today), ThemeRole::Dim),
        span(cost_today(app).unwrap_or_else(|| UNKNOWN.to_owned()), ThemeRole::Accent),
        span(format!("   {span_name} "), ThemeRole::Dim),
    ];
    let right = grouping_spans(app.usage.by, now, area.width);
    let max_width = area.width.saturating_sub(spans_width(&right) + 2);
    if let Some(view) = app.usage.current_view() {
        left.push(span(view.total.displayed_cost().to_string(), ThemeRole::Accent));
        // Parts that do not fit are left out; no number is cut.
        for part in total_parts(view, now, area.width) {
            left.push(span(part, ThemeRole::Text));
            if spans_width(&left) > max_width {
                left.pop();
                break;
            }
        }
    }
    let end = canvas.spans(area.x + 1, area.y, max_width, &left);
    canvas.spans_right(end + 1, area.right(), area.y, &right);
}

/// Requests, tokens and cache hits of the period, the most important first.
fn total_parts(view: &UsageReport, now: FrameContext, max_width: u16) -> Vec<String> {
    let (sums, usage) = (&view.total, &view.total.usage);
    let requests = fill(&now.text.usage.requests, &[("n", &format::count(sums.requests))]);
    let (input, output) = (usage.input_total(), usage.output_total());
    let mut parts = vec![
        format!("  {requests}"),
        format!(" · {}→{}", format::count(input), format::count(output)),
    ];
    if input > 0 {
        let share = |tokens| format::share(tokens, input.max(20));
        let text = &now.text.top;
        let shows_affinity = sums.affinity_cache_read > 0 && max_width >= 110;
        let cache = if shows_affinity { &text.cache_won } else { &text.cache };
        let (cached, won) = (share(usage.cache_read), share(sums.affinity_cache_read));
        parts.push(format!(" · {}", fill(cache, &[("share", &cached), ("won", &won)])));
    }
    parts
}

/// The groupings with the current one in brackets, or only that one if space is short.
fn grouping_spans(current: GroupBy, now: FrameContext, max_width: u16) -> Vec<StyledSpan> {
    let mut spans = vec![span(format!("{} ", now.text.usage.by), ThemeRole::Dim)];
    for by in GroupBy::DASHBOARD {
        let word = group_title(by)(now.text).to_lowercase();
        if by == current {
            spans.push(span(format!("[{word}] "), ThemeRole::Accent));
        } else if max_width >= 110 {
            spans.push(span(format!("{word} "), ThemeRole::Dim));
        }
    }
    spans
}
