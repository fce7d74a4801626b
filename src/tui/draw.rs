//! A frame: how things are, where the reader is, what is wrong, the screen, and the keys that matter here.

use ratatui::{buffer::Buffer, layout::Rect};

use super::{
    app::{App, Dialog, Link},
    format::{self, Now},
    keys::{Act, TABLE},
    layout::{self, Layout, SMALLEST},
    problem, screens,
    theme::{Role, Theme},
    widgets::canvas::{Canvas, Span, span, spans_width},
};
use crate::events::kind::Level;

/// Keys in the bottom line.
const FOOT: usize = 6;

/// How a frame looks, apart from what it says.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub theme: Theme,
    /// The terminal shows more than ASCII.
    pub utf8: bool,
}

/// Draws everything. Looks at the state and the time it is given, and changes nothing.
pub fn draw(app: &App, now: Now, look: &Look, buffer: &mut Buffer) {
    let area = buffer.area;
    let mut canvas = Canvas { buffer, theme: &look.theme };
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        too_small(&mut canvas, area);
    } else {
        whole(app, now, &mut canvas, area);
    }
    if !look.utf8 {
        canvas.ascii();
    }
}

fn too_small(canvas: &mut Canvas<'_>, area: Rect) {
    let text = format!("enlarge to {}x{}", SMALLEST.0, SMALLEST.1);
    let x = area.width.saturating_sub(text.len() as u16) / 2;
    canvas.put(area.x + x, area.y + area.height.saturating_sub(1) / 2, area.width, &text, Role::Text);
}

fn whole(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let layout = Layout::of(app, area.width, area.height, now);
    if layout.wide() {
        top(app, now, canvas, layout.top);
        tabs(app, canvas, layout.tabs);
    } else {
        narrow_top(app, canvas, layout.top);
    }
    if layout.problem.height > 0 {
        wrong(app, now, canvas, layout.problem);
    }
    canvas.rule(area, layout.body.y.saturating_sub(1));
    screens::draw(app, now, canvas, layout.body);
    canvas.rule(area, layout.foot.y.saturating_sub(1));
    if let Link::Lost { .. } = app.link {
        canvas.fade(layout.top);
        canvas.fade(layout.body);
    }
    foot(app, now, canvas, layout.foot);
}

fn top(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let mut left = vec![span("aiproxy", Role::Accent)];
    let mut right = Vec::new();
    if let Some(snapshot) = &app.snapshot {
        let listen = snapshot.listen.first().map_or("", String::as_str);
        left.push(span(format!("  {listen}"), Role::Text));
        left.push(span(format!(" · up {}", up(now.since(snapshot.started))), Role::Dim));
        if snapshot.draining {
            left.push(span(" · draining", Role::Warn));
        }
        right = totals(app, area.width >= 100);
    } else {
        left.push(span("  connecting…", Role::Dim));
    }
    if app.paused.is_some() {
        left.push(span("  ▸ paused", Role::Warn));
    }
    let from = canvas.spans_before(area.x + 9, area.right().saturating_sub(1), area.y, &right);
    canvas.spans(area.x + 1, area.y, from.saturating_sub(area.x + 2), &left);
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

/// What runs, and the sums since the start.
fn totals(app: &App, long: bool) -> Vec<Span> {
    let Some(live) = app.live() else { return Vec::new() };
    let totals = live.totals;
    let running = live.running.len() as u64;
    let mut spans = vec![span(format!("{} running", format::count(running)), if running > 0 { Role::Accent } else { Role::Dim })];
    spans.push(span(format!(" · {} requests", format::count(totals.requests)), Role::Text));
    if totals.failed > 0 {
        spans.push(span(format!(" · {} failed", format::count(totals.failed)), Role::Warn));
    }
    if long {
        spans.push(span(format!(" · {} tok", format::count(totals.input.saturating_add(totals.output))), Role::Text));
        if totals.input > 0 && totals.requests >= 20 {
            spans.push(span(format!(" · cache {}", format::share(totals.cached, totals.input.max(20))), Role::Text));
        }
    }
    spans
}

fn tabs(app: &App, canvas: &mut Canvas<'_>, area: Rect) {
    for (screen, label, x) in layout::tabs(area.width) {
        let (digit, title) = label.split_at(2);
        let here = screen == app.screen;
        let (number, word) = if here { (Role::Accent, Role::Accent) } else { (Role::Dim, Role::Text) };
        let next = canvas.put(area.x + x, area.y, 2, digit, number);
        canvas.put(next, area.y, area.width, title, word);
        if here {
            canvas.select(Rect { x: (area.x + x).saturating_sub(1), y: area.y, width: label.len() as u16 + 2, height: 1 });
        }
    }
    let place = app.place();
    let mut right = Vec::new();
    if place.sort > 0 {
        right.push(span(format!(" sorted by {} ", screens::orders(app.screen)[place.sort]), Role::Dim));
    }
    if !place.filter.is_empty() && app.over.is_none() {
        right.push(span(format!(" filter: {} ", place.filter.text()), Role::Warn));
    }
    let after = layout::tabs(area.width).last().map_or(0, |(_, label, x)| x + label.len() as u16 + 2);
    canvas.spans_before(area.x + after, area.right(), area.y, &right);
}

/// One line for both on a narrow terminal.
fn narrow_top(app: &App, canvas: &mut Canvas<'_>, area: Rect) {
    let mut spans = vec![span(app.screen.title(), Role::Accent), span("  aiproxy", Role::Text)];
    if let Some(snapshot) = &app.snapshot {
        let port = snapshot.listen.first().and_then(|listen| listen.rsplit(':').next()).unwrap_or_default();
        spans.push(span(format!(" :{port}  "), Role::Dim));
        spans.extend(totals(app, false));
    } else {
        spans.push(span("  connecting…", Role::Dim));
    }
    if app.paused.is_some() {
        spans.push(span(" paused", Role::Warn));
    }
    if !app.place().filter.is_empty() {
        spans.push(span(format!("  /{}", app.place().filter.text()), Role::Warn));
    }
    canvas.spans(area.x + 1, area.y, area.width.saturating_sub(2), &spans);
}

fn wrong(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let room = area.width.saturating_sub(2);
    if let Link::Lost { why, retry_at } = &app.link {
        let spans = [
            span("✕ ", Role::Bad),
            span(format!("connection lost, trying again ({})", format::left(now.until(*retry_at))), Role::Bad),
            span(format!("  {why}"), Role::Dim),
        ];
        canvas.spans(area.x + 1, area.y, room, &spans);
        return;
    }
    let Some(problem) = problem::worst(app, now) else { return };
    let glyph = if problem.role == Role::Bad { "✕ " } else { "▲ " };
    let mut words = Vec::new();
    let roomy = area.width >= 100;
    if problem.more > 0 {
        words.push(format!("+{}{}", problem.more, if roomy { " more" } else { "" }));
    }
    if app.screen != problem.screen {
        let what = if roomy { format!(" shows {}", problem.screen.title().to_lowercase()) } else { " shows".to_owned() };
        words.push(format!("{}{what}", problem.screen.digit()));
    }
    // On lists of keys and upstreams `w` acts on the selected row.
    if problem.act.is_some() && app.over.is_none() && !matches!(app.screen, screens::Screen::Keys | screens::Screen::Upstreams) {
        words.push(if roomy { "w warms it" } else { "w warms" }.to_owned());
    }
    let hint = if words.is_empty() { Vec::new() } else { vec![span(format!("  {}", words.join(" · ")), Role::Dim)] };
    let end = area.x + 1 + room.saturating_sub(spans_width(&hint));
    let x =
        canvas.spans(area.x + 1, area.y, end.saturating_sub(area.x + 1), &[span(glyph, problem.role), span(problem.text, problem.role)]);
    canvas.spans(x, area.y, area.right().saturating_sub(x), &hint);
}

fn foot(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let room = area.width.saturating_sub(2);
    let line = match (&app.dialog, &app.toast) {
        (Some(dialog), _) => question(app, dialog, usize::from(room)),
        (None, Some(toast)) if toast.until > now.at => {
            let (glyph, role) = match toast.level {
                Level::Error => ("✕ ", Role::Bad),
                Level::Info => ("● ", Role::Ok),
                Level::Warn => ("▲ ", Role::Warn),
            };
            vec![span(glyph, role), span(toast.text.clone(), if toast.level == Level::Info { Role::Text } else { role })]
        }
        _ => footer(app, room),
    };
    canvas.spans(area.x + 1, area.y, room, &line);
}

/// The six keys that matter here, as many as there is room for, and always the way to all.
fn footer(app: &App, room: u16) -> Vec<Span> {
    let piece = |label: &str, word: &str| [span(label, Role::Accent), span(format!(" {word}"), Role::Dim)];
    let mut pieces: Vec<[Span; 2]> = Vec::new();
    let mut help = None;
    for binding in TABLE.iter().filter(|binding| binding.here(app)) {
        let Some(word) = binding.foot else { continue };
        if binding.act == Act::Help {
            help = Some(piece(binding.label, word));
        } else if pieces.len() < FOOT - 1 {
            pieces.push(piece(binding.label, word));
        }
    }
    let wide = |pieces: &[[Span; 2]]| pieces.iter().map(|piece| spans_width(piece) + 3).sum::<u16>();
    let kept = help.as_ref().map_or(0, |help| spans_width(help));
    while wide(&pieces) + kept > room && !pieces.is_empty() {
        pieces.pop();
    }
    pieces.extend(help);
    let mut line = Vec::new();
    for (at, piece) in pieces.into_iter().enumerate() {
        if at > 0 {
            line.push(span(" · ", Role::Dim));
        }
        line.extend(piece);
    }
    line
}

fn question(app: &App, dialog: &Dialog, room: usize) -> Vec<Span> {
    match dialog {
        Dialog::Ask { question, .. } => vec![span(question.clone(), Role::Warn), span("  y/n", Role::Accent)],
        Dialog::Copy { .. } => {
            vec![
                span("copy  ", Role::Dim),
                span("c", Role::Accent),
                span(" curl · ", Role::Dim),
                span("i", Role::Accent),
                span(" id · ", Role::Dim),
                span("Esc", Role::Accent),
            ]
        }
        Dialog::Filter { text, error, .. } => {
            // The end of a long filter is where it is being typed.
            let skip = text.chars().count().saturating_sub(room / 2);
            let shown: String = text.chars().skip(skip).collect();
            let mut spans = vec![span("/ ", Role::Accent), span(shown, Role::Text), span("█", Role::Accent)];
            spans.push(match error {
                Some(error) => span(format!("  {error}"), Role::Bad),
                None => span("  Enter keeps · Esc drops · words model: project: status:5xx key: >2s", Role::Dim),
            });
            spans
        }
        Dialog::Stop => {
            let running = app.snapshot.as_ref().map_or(0, |s| s.live.running.len());
            let are = match running {
                0 => "nothing is running".to_owned(),
                1 => "1 request is running".to_owned(),
                n => format!("{n} requests are running"),
            };
            vec![span(format!("stop the proxy too? {are}"), Role::Warn), span("  y/n/Esc", Role::Accent)]
        }
    }
}

#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;
