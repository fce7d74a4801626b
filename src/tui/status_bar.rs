//! The status bar: state and today's numbers. If space is short, whole parts are hidden; no number
//! is ever cut.

use ratatui::layout::Rect;

use crate::tui::{
    app::App,
    format::{self, FrameContext},
    history,
    strings::fill,
    theme::ThemeRole,
    widgets::canvas::{Canvas, StyledSpan, span, spans_width},
};
use crate::{control::history::Totals, events::live::LiveTotals};

/// Minimum gap between the left and the right side, in columns.
const GAP: u16 = 2;

/// The order in which parts are hidden, starting with the last variant. `Never` parts always stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum HideOrder {
    Never,
    Running,
    Requests,
    Cost,
    Address,
    Failed,
    Name,
    Up,
    Tokens,
    Cache,
    Demo,
    Affinity,
}

struct StatusPart {
    hide_order: HideOrder,
    /// The gap before the part, unless it is the first of its side.
    gap: &'static str,
    span: StyledSpan,
}

fn status_part(
    leaves: HideOrder,
    gap: &'static str,
    text: impl Into<String>,
    role: ThemeRole,
) -> StatusPart {
    StatusPart { hide_order: leaves, gap, span: span(text, role) }
}

/// For terminals with a tab line, where the status bar has a line of its own.
pub(super) fn draw_wide(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    let text = &now.text.top;
    let mut left = paused_part(app, now);
    left.push(status_part(HideOrder::Never, "  ", "aiproxy", ThemeRole::Accent));
    let Some(snapshot) = &app.snapshot else {
        left.push(status_part(HideOrder::Never, "  ", text.connecting.clone(), ThemeRole::Dim));
        return draw_sides(canvas, area, left, Vec::new(), false);
    };
    let listen = snapshot.listen.first().map_or("", String::as_str);
    left.push(status_part(HideOrder::Address, "  ", listen, ThemeRole::Text));
    let up = fill(&text.up, &[("span", &format_uptime(now.since(snapshot.started)))]);
    left.push(status_part(HideOrder::Up, " · ", up, ThemeRole::Dim));
    if snapshot.draining {
        left.push(status_part(HideOrder::Never, " · ", text.draining.clone(), ThemeRole::Warn));
    }
    draw_sides(canvas, area, left, number_parts(app, now), false);
}

/// For narrow terminals: one line for the current screen and the status.
pub(super) fn draw_narrow(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    let mut left = paused_part(app, now);
    left.push(status_part(HideOrder::Never, "  ", app.screen.label(now.text), ThemeRole::Accent));
    left.push(status_part(HideOrder::Name, "  ", "aiproxy", ThemeRole::Text));
    match &app.snapshot {
        Some(snapshot) => {
            let port = snapshot
                .listen
                .first()
                .and_then(|listen| listen.rsplit(':').next())
                .unwrap_or_default();
            left.push(status_part(HideOrder::Address, " ", format!(":{port}"), ThemeRole::Dim));
        }
        None => left.push(status_part(
            HideOrder::Never,
            "  ",
            now.text.top.connecting.clone(),
            ThemeRole::Dim,
        )),
    }
    let right = if app.list_state().filter.is_empty() {
        number_parts(app, now)
    } else {
        // The current screen is more important than the other screens.
        vec![status_part(
            HideOrder::Never,
            "",
            format!("/{}", app.list_state().filter.text()),
            ThemeRole::Warn,
        )]
    };
    draw_sides(canvas, area, left, right, true);
}

/// A frozen view is indicated before everything else.
fn paused_part(app: &App, now: FrameContext) -> Vec<StatusPart> {
    app.paused
        .iter()
        .map(|_| {
            status_part(HideOrder::Never, "", format!("▸ {}", now.text.top.paused), ThemeRole::Warn)
        })
        .collect()
}

/// Precise to the minute, so that the line rarely changes.
fn format_uptime(ms: u64) -> String {
    if ms < 60_000 {
        "<1m".to_owned()
    } else if ms < 3_600_000 {
        format!("{}m", ms / 60_000)
    } else {
        format::span(ms)
    }
}

/// Draws both sides without the parts that do not fit. The right side is at the end of the line or
/// next to the left.
fn draw_sides(
    canvas: &mut Canvas<'_>,
    area: Rect,
    mut left: Vec<StatusPart>,
    mut right: Vec<StatusPart>,
    together: bool,
) {
    let max_width = area.width.saturating_sub(2);
    loop {
        let (begin, end) = (join_parts(&left), join_parts(&right));
        let wide = spans_width(&begin).saturating_add(GAP).saturating_add(spans_width(&end));
        let last_hidden =
            left.iter().chain(&right).map(|part| part.hide_order).max().unwrap_or(HideOrder::Never);
        if wide <= max_width || last_hidden == HideOrder::Never {
            let x = canvas.spans(area.x + 1, area.y, max_width, &begin);
            if together {
                canvas.spans(
                    x.saturating_add(GAP),
                    area.y,
                    area.right().saturating_sub(x.saturating_add(GAP + 1)),
                    &end,
                );
            } else {
                canvas.spans_right(
                    x.saturating_add(GAP),
                    area.right().saturating_sub(1),
                    area.y,
                    &end,
                );
            }
            return;
        }
        left.retain(|part| part.hide_order != last_hidden);
        right.retain(|part| part.hide_order != last_hidden);
    }
}

fn join_parts(parts: &[StatusPart]) -> Vec<StyledSpan> {
    let mut spans = Vec::with_capacity(2 * parts.len());
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            spans.push(span(part.gap, ThemeRole::Dim));
        }
        spans.push(part.span.clone());
    }
    spans
}

/// Running requests and today's totals from the ledger. Without a ledger, the totals since the
/// start, labelled as such.
fn number_parts(app: &App, now: FrameContext) -> Vec<StatusPart> {
    let (text, mut parts) = (&now.text.top, Vec::new());
    let Some(live) = app.live() else { return parts };
    let mut add = |leaves, text: String, role| parts.push(status_part(leaves, " · ", text, role));
    let number = |text: &str, n: u64| fill(text, &[("n", &format::count(n))]);
    let running = live.running.len() as u64;
    add(
        HideOrder::Running,
        number(&text.running, running),
        if running > 0 { ThemeRole::Accent } else { ThemeRole::Dim },
    );
    let (sums, demo, requests) = match today_totals(app) {
        Some((sums, demo)) => (sums, demo, &text.today),
        None if app.usage.is_loading_today(app.snapshot.as_deref()) => return parts,
        None => (since_start(app), 0, &text.since_start),
    };
    add(HideOrder::Requests, number(requests, sums.requests), ThemeRole::Text);
    if sums.failed > 0 {
        add(HideOrder::Failed, number(&text.failed, sums.failed), ThemeRole::Warn);
    }
    if demo > 0 {
        add(HideOrder::Demo, number(&text.demo, demo), ThemeRole::Dim);
    }
    let input = sums.usage.input_total();
    let tokens = input.saturating_add(sums.usage.output_total());
    add(HideOrder::Tokens, number(&text.tokens, tokens), ThemeRole::Text);
    add(HideOrder::Cost, sums.displayed_cost().to_string(), ThemeRole::Text);
    if input > 0 && sums.requests >= 20 {
        let share = |tokens| format::share(tokens, input.max(20));
        add(
            HideOrder::Cache,
            fill(&text.cache, &[("share", &share(sums.usage.cache_read))]),
            ThemeRole::Text,
        );
        if sums.affinity_cache_read > 0 {
            parts.push(status_part(
                HideOrder::Affinity,
                "",
                fill(&text.won, &[("won", &share(sums.affinity_cache_read))]),
                ThemeRole::Text,
            ));
        }
    }
    parts
}

/// Today's totals from the ledger plus requests that ended since, and the number of requests to the
/// built-in upstream.
fn today_totals(app: &App) -> Option<(Totals, u64)> {
    let today = app.usage.today.as_ref()?;
    let mut sums = today.total;
    sums.add(&app.usage.delta);
    Some((sums, today.demo.requests.saturating_add(app.usage.demo_delta)))
}

/// Today's requests, including those to the built-in upstream, as far as the ledger provides them.
pub(super) fn requests_today(app: &App) -> Option<u64> {
    today_totals(app).map(|(sums, demo)| sums.requests.saturating_add(demo))
}

/// Today's cost, as far as the ledger provides it.
pub(super) fn cost_today(app: &App) -> Option<String> {
    today_totals(app).map(|(sums, _)| sums.displayed_cost().to_string())
}

/// Totals since the proxy started.
fn since_start(app: &App) -> Totals {
    let totals = app.live().map(|live| live.totals).unwrap_or_default();
    history::totals_delta(&totals, &LiveTotals::default())
}
