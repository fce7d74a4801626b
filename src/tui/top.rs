//! The top line: how things are, in numbers of today. Where there is no room, whole parts leave it;
//! no number is ever cut.

use ratatui::layout::Rect;

use super::{
    app::App,
    format::{self, Now},
    past,
    text::fill,
    theme::Role,
    widgets::canvas::{Canvas, Span, span, spans_width},
};
use crate::{control::history::Totals, events::live::LiveTotals};

/// Columns between the left side and the right one.
const GAP: u16 = 2;

/// When a part leaves: the last of these first. What has no word here stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Leaves {
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

struct Part {
    leaves: Leaves,
    /// What stands before it, where it is not the first of its side.
    gap: &'static str,
    said: Span,
}

fn part(leaves: Leaves, gap: &'static str, text: impl Into<String>, role: Role) -> Part {
    Part { leaves, gap, said: span(text, role) }
}

/// Where there are tabs: how things are has the line for itself.
pub(super) fn wide(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let text = &now.text.top;
    let mut left = paused(app, now);
    left.push(part(Leaves::Never, "  ", "aiproxy", Role::Accent));
    let Some(snapshot) = &app.snapshot else {
        left.push(part(Leaves::Never, "  ", text.connecting.clone(), Role::Dim));
        return show(canvas, area, left, Vec::new(), false);
    };
    let listen = snapshot.listen.first().map_or("", String::as_str);
    left.push(part(Leaves::Address, "  ", listen, Role::Text));
    let up = fill(&text.up, &[("span", &up(now.since(snapshot.started)))]);
    left.push(part(Leaves::Up, " · ", up, Role::Dim));
    if snapshot.draining {
        left.push(part(Leaves::Never, " · ", text.draining.clone(), Role::Warn));
    }
    show(canvas, area, left, numbers(app, now), false);
}

/// One line for both: where the reader is, and how things are.
pub(super) fn narrow(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let mut left = paused(app, now);
    left.push(part(Leaves::Never, "  ", app.screen.word(now.text), Role::Accent));
    left.push(part(Leaves::Name, "  ", "aiproxy", Role::Text));
    match &app.snapshot {
        Some(snapshot) => {
            let port = snapshot
                .listen
                .first()
                .and_then(|listen| listen.rsplit(':').next())
                .unwrap_or_default();
            left.push(part(Leaves::Address, " ", format!(":{port}"), Role::Dim));
        }
        None => left.push(part(Leaves::Never, "  ", now.text.top.connecting.clone(), Role::Dim)),
    }
    let right = if app.place().filter.is_empty() {
        numbers(app, now)
    } else {
        // What is shown matters more than what is not.
        vec![part(Leaves::Never, "", format!("/{}", app.place().filter.text()), Role::Warn)]
    };
    show(canvas, area, left, right, true);
}

/// A picture that stands still says so before everything else.
fn paused(app: &App, now: Now) -> Vec<Part> {
    app.paused
        .iter()
        .map(|_| part(Leaves::Never, "", format!("▸ {}", now.text.top.paused), Role::Warn))
        .collect()
}

/// Up to the minute, so that the line is quiet.
fn up(ms: u64) -> String {
    if ms < 60_000 {
        "<1m".to_owned()
    } else if ms < 3_600_000 {
        format!("{}m", ms / 60_000)
    } else {
        format::span(ms)
    }
}

/// Both sides without the parts that there is no room for; the right one stands at the end of the
/// line, or next to the left.
fn show(
    canvas: &mut Canvas<'_>,
    area: Rect,
    mut left: Vec<Part>,
    mut right: Vec<Part>,
    together: bool,
) {
    let room = area.width.saturating_sub(2);
    loop {
        let (begin, end) = (pieces(&left), pieces(&right));
        let wide = spans_width(&begin).saturating_add(GAP).saturating_add(spans_width(&end));
        let most = left.iter().chain(&right).map(|part| part.leaves).max().unwrap_or(Leaves::Never);
        if wide <= room || most == Leaves::Never {
            let x = canvas.spans(area.x + 1, area.y, room, &begin);
            if together {
                canvas.spans(
                    x.saturating_add(GAP),
                    area.y,
                    area.right().saturating_sub(x.saturating_add(GAP + 1)),
                    &end,
                );
            } else {
                canvas.spans_before(
                    x.saturating_add(GAP),
                    area.right().saturating_sub(1),
                    area.y,
                    &end,
                );
            }
            return;
        }
        left.retain(|part| part.leaves != most);
        right.retain(|part| part.leaves != most);
    }
}

fn pieces(parts: &[Part]) -> Vec<Span> {
    let mut spans = Vec::with_capacity(2 * parts.len());
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            spans.push(span(part.gap, Role::Dim));
        }
        spans.push(part.said.clone());
    }
    spans
}

/// What runs, and what there was today as the ledger has it; without a ledger, since the start, and
/// it says so.
fn numbers(app: &App, now: Now) -> Vec<Part> {
    let (text, mut parts) = (&now.text.top, Vec::new());
    let Some(live) = app.live() else { return parts };
    let mut add = |leaves, text: String, role| parts.push(part(leaves, " · ", text, role));
    let number = |text: &str, n: u64| fill(text, &[("n", &format::count(n))]);
    let running = live.running.len() as u64;
    add(
        Leaves::Running,
        number(&text.running, running),
        if running > 0 { Role::Accent } else { Role::Dim },
    );
    let (sums, demo, requests) = match today(app) {
        Some((sums, demo)) => (sums, demo, &text.today),
        None if app.sums.awaited(app.snapshot.as_deref()) => return parts,
        None => (since_start(app), 0, &text.since_start),
    };
    add(Leaves::Requests, number(requests, sums.requests), Role::Text);
    if sums.failed > 0 {
        add(Leaves::Failed, number(&text.failed, sums.failed), Role::Warn);
    }
    if demo > 0 {
        add(Leaves::Demo, number(&text.demo, demo), Role::Dim);
    }
    let input = sums.usage.input_total();
    let tokens = input.saturating_add(sums.usage.output_total());
    add(Leaves::Tokens, number(&text.tokens, tokens), Role::Text);
    add(Leaves::Cost, sums.displayed_cost().to_string(), Role::Text);
    if input > 0 && sums.requests >= 20 {
        let share = |tokens| format::share(tokens, input.max(20));
        add(
            Leaves::Cache,
            fill(&text.cache, &[("share", &share(sums.usage.cache_read))]),
            Role::Text,
        );
        if sums.affinity_cache_read > 0 {
            parts.push(part(
                Leaves::Affinity,
                "",
                fill(&text.won, &[("won", &share(sums.affinity_cache_read))]),
                Role::Text,
            ));
        }
    }
    parts
}

/// What the ledger has of today, and what ended since it was asked; beside it, requests to the
/// built-in upstream.
fn today(app: &App) -> Option<(Totals, u64)> {
    let today = app.sums.today.as_ref()?;
    let mut sums = today.total;
    sums.add(&app.sums.since);
    Some((sums, today.demo.requests.saturating_add(app.sums.since_demo)))
}

/// Today's requests, those to the built-in upstream too, as far as the ledger tells.
pub(super) fn requests_today(app: &App) -> Option<u64> {
    today(app).map(|(sums, demo)| sums.requests.saturating_add(demo))
}

/// What today cost, as far as the ledger tells.
pub(super) fn cost_today(app: &App) -> Option<String> {
    today(app).map(|(sums, _)| sums.displayed_cost().to_string())
}

/// What was counted since the proxy started.
fn since_start(app: &App) -> Totals {
    let totals = app.live().map(|live| live.totals).unwrap_or_default();
    past::counted(&totals, &LiveTotals::default())
}
