//! What happened to this request, and why?

use ratatui::layout::Rect;

use super::live;
use crate::{
    base::{clean::clean, id::RequestId},
    events::record::{AttemptRecord, RequestRecord},
    tui::{
        app::App,
        format::{self, Now, UNKNOWN},
        theme::Role,
        widgets::canvas::{Canvas, Span, span},
    },
};

/// A line of the view.
enum Line {
    Spans(Vec<Span>),
    Title(&'static str),
}

pub(super) fn lines(app: &App, id: RequestId) -> usize {
    // Nothing that changes with the time adds lines.
    app.request(id).map_or(0, |r| all(r, Now { at: r.at, offset: 0 }, app.size.0).len() + 1)
}

pub(super) fn draw(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect, id: RequestId, scroll: u16) {
    let Some(r) = app.request(id) else {
        canvas.put(
            area.x + 1,
            area.y,
            area.width.saturating_sub(2),
            "This request is no longer among the newest 500. Esc goes back.",
            Role::Dim,
        );
        return;
    };
    head(r, now, canvas, area);
    for (line, y) in all(r, now, area.width).iter().skip(usize::from(scroll)).zip(area.y + 1..area.bottom()) {
        match line {
            Line::Spans(spans) => drop(canvas.spans(area.x + 3, y, area.width.saturating_sub(4), spans)),
            Line::Title(title) => canvas.titled_rule(area, y, title),
        }
    }
}

fn head(r: &RequestRecord, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let mut right = live::state(r, now, 20);
    right.push(span(format!(" · {} ", format::took(r.duration_ms.map_or_else(|| now.since(r.at), u64::from))), Role::Text));
    let from = canvas.spans_before(area.x + 8, area.right(), area.y, &right);
    let id = r.id.to_string();
    let id = if area.width < 100 { format!("…{}", &id[id.len() - 4..]) } else { id };
    let left =
        [span(format!("request {id}  "), Role::Dim), span(&*r.project, Role::Text), span(" · ", Role::Dim), span(&*r.asked, Role::Accent)];
    canvas.spans(area.x + 1, area.y, from.saturating_sub(area.x + 2), &left);
}

fn all(r: &RequestRecord, now: Now, columns: u16) -> Vec<Line> {
    let mut lines = vec![Line::Title("Way")];
    if let Some(reason) = &r.reason {
        lines.push(Line::Spans(vec![span("why here: ", Role::Dim), span(&**reason, Role::Text)]));
    }
    if r.attempts.is_empty() {
        lines.push(Line::Spans(vec![span("no attempt was made", Role::Dim)]));
    }
    let whole = r.duration_ms.map_or_else(|| now.since(r.at), u64::from).max(1);
    lines.extend(r.attempts.iter().map(|a| Line::Spans(attempt(a, whole, columns))));
    if let Some(error) = &r.error {
        lines.push(Line::Title("Error"));
        lines.extend(wrapped(error, usize::from(columns.saturating_sub(4))).map(|text| Line::Spans(vec![span(text, Role::Bad)])));
    }
    lines.push(Line::Title("Numbers"));
    lines.extend(
        numbers(r, now).into_iter().map(|(name, value)| Line::Spans(vec![span(format!("{name:<14}"), Role::Dim), span(value, Role::Text)])),
    );
    lines
}

/// One bar per attempt, all on one time axis: ▒ waits for the head, ░ streams.
fn attempt(a: &AttemptRecord, whole: u64, columns: u16) -> Vec<Span> {
    let room = u64::from((columns / 4).clamp(8, 48));
    let column = |ms: u32| u64::from(ms).min(whole) * room / whole;
    let (start, end) = (column(a.started_ms), a.ended_ms.map_or(room, column).max(column(a.started_ms) + 1).min(room));
    let start = start.min(end.saturating_sub(1));
    let head = a.head_ms.map_or(end, column).clamp(start, end);
    let part = |glyph: &str, n: u64| glyph.repeat(usize::try_from(n).unwrap_or(0));
    let bar = [part(" ", start), part("▒", head - start), part("░", end - head), part(" ", room - end)];
    let [before, waits, streams, after] = bar;
    let key = if a.key.is_empty() { String::new() } else { format!("/{}", a.key) };
    let (result, role) = match (&a.outcome, a.won, a.ended_ms) {
        (Some(outcome), _, _) => (outcome.to_string(), Role::Warn),
        (None, true, _) => (a.status.map_or_else(|| "answered".to_owned(), |s| s.to_string()), Role::Ok),
        (None, false, Some(_)) => (a.status.map_or_else(|| "ended".to_owned(), |s| s.to_string()), Role::Text),
        (None, false, None) => ("under way".to_owned(), Role::Accent),
    };
    let billed = if a.maybe_billed && !a.won { " · may be billed" } else { "" };
    vec![
        span(format!("{:>7} │{before}", format::took(u64::from(a.started_ms))), Role::Dim),
        span(waits, Role::Accent),
        span(streams, if a.outcome.is_some() { Role::Warn } else { Role::Ok }),
        span(format!("{after}│ "), Role::Dim),
        span(format!("{} {}{key} ", a.number, a.upstream), Role::Text),
        span(if columns < 100 { " ".to_owned() } else { format!("{}  ", a.model) }, Role::Dim),
        span(format!("{result}{billed}"), role),
    ]
}

fn numbers(r: &RequestRecord, now: Now) -> Vec<(&'static str, String)> {
    let unknown = || UNKNOWN.to_owned();
    let time = |ms: Option<u32>| ms.map_or_else(unknown, |ms| format::took(u64::from(ms)));
    let count = format::count;
    let speed = r.tokens_per_second(now.at).map_or_else(unknown, |rate| format!("{rate:.1} tok/s"));
    vec![
        (
            "began",
            format!("{} · {} {} · {}", format::clock(r.at, now), r.dialect, r.op, if r.stream { "streamed" } else { "in one piece" }),
        ),
        ("client", if r.client.is_empty() { unknown() } else { r.client.to_string() }),
        ("session", r.session.as_deref().map_or_else(unknown, str::to_owned)),
        ("first token", time(r.ttft_ms)),
        ("whole", time(r.duration_ms)),
        ("speed", speed),
        (
            "in",
            r.usage.map_or_else(unknown, |u| {
                let written = u.cache_write_5m.saturating_add(u.cache_write_1h);
                format!(
                    "{} = {} fresh + {} from the cache + {} written to it",
                    count(u.input_total()),
                    count(u.input),
                    count(u.cache_read),
                    count(written)
                )
            }),
        ),
        ("out", r.usage.map_or_else(unknown, |u| format!("{}, of which {} reasoning", count(u.output_total()), count(u.reasoning)))),
        ("bytes", format!("{} asked · {} answered · {} events", count(r.request_bytes), count(r.answer_bytes), count(r.events))),
        ("finish", r.finish.as_deref().map_or_else(unknown, str::to_owned)),
    ]
}

/// The text in lines of so many characters, at most eight of them.
fn wrapped(text: &str, room: usize) -> impl Iterator<Item = String> {
    let chars: Vec<char> = clean(text).chars().take(room.max(1) * 8).collect();
    chars.chunks(room.max(1)).map(|line| line.iter().collect()).collect::<Vec<String>>().into_iter()
}
