//! A frame: how things are, where the reader is, what is wrong, the screen, and the keys that
//! matter here.

use ratatui::{buffer::Buffer, layout::Rect};

use super::{
    app::{App, Dialog, Link},
    format::{self, Now},
    keys::{Act, TABLE},
    layout::{self, Layout, SMALLEST},
    problem, screens,
    text::fill,
    theme::{Role, Theme},
    top,
    widgets::canvas::{Canvas, Span, span, spans_width},
};
use crate::events::kind::Severity;

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
        too_small(now, &mut canvas, area);
    } else {
        whole(app, now, &mut canvas, area);
    }
    if !look.utf8 {
        canvas.ascii();
    }
}

fn too_small(now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let text = fill(&now.text.top.enlarge, &[("size", &format!("{}x{}", SMALLEST.0, SMALLEST.1))]);
    let x = area.width.saturating_sub(spans_width(&[span(text.as_str(), Role::Text)])) / 2;
    canvas.put(
        area.x + x,
        area.y + area.height.saturating_sub(1) / 2,
        area.width,
        &text,
        Role::Text,
    );
}

fn whole(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let layout = Layout::of(app, area.width, area.height, now);
    if layout.wide() {
        top::wide(app, now, canvas, layout.top);
        tabs(app, now, canvas, layout.tabs);
    } else {
        top::narrow(app, now, canvas, layout.top);
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

fn tabs(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let tabs = layout::tabs(area.width, now.text);
    for (screen, label, x) in &tabs {
        let (digit, title) = label.split_at(2);
        let here = *screen == app.screen;
        let (number, word) =
            if here { (Role::Accent, Role::Accent) } else { (Role::Dim, Role::Text) };
        let next = canvas.put(area.x + x, area.y, 2, digit, number);
        canvas.put(next, area.y, area.width, title, word);
        if here {
            let wide = spans_width(&[span(label.as_str(), word)]);
            canvas.select(Rect {
                x: (area.x + x).saturating_sub(1),
                y: area.y,
                width: wide + 2,
                height: 1,
            });
        }
    }
    let (text, place) = (&now.text.top, app.place());
    let mut right = Vec::new();
    if place.sort > 0 {
        let order =
            screens::orders(app.screen).get(place.sort).map_or("", |order| (order.word)(now.text));
        right.push(span(format!(" {} ", fill(&text.sorted, &[("order", order)])), Role::Dim));
    }
    if !place.filter.is_empty() && app.over.is_none() {
        right.push(span(
            format!(" {} ", fill(&text.filter, &[("text", place.filter.text())])),
            Role::Warn,
        ));
    }
    let after = tabs
        .last()
        .map_or(0, |(_, label, x)| x + spans_width(&[span(label.as_str(), Role::Text)]) + 2);
    canvas.spans_before(area.x + after, area.right(), area.y, &right);
}

fn wrong(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let (text, room) = (&now.text.top, area.width.saturating_sub(2));
    if let Link::Lost { why, retry_at } = &app.link {
        let spans = [
            span("✕ ", Role::Bad),
            span(fill(&text.lost, &[("span", &format::left(now.until(*retry_at)))]), Role::Bad),
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
        let more = problem.more.to_string();
        words.push(fill(if roomy { &text.more } else { &text.more_short }, &[("n", &more)]));
    }
    if app.screen != problem.screen {
        let (key, screen) =
            (problem.screen.digit().to_string(), problem.screen.word(now.text).to_lowercase());
        words.push(fill(
            if roomy { &text.shows } else { &text.shows_short },
            &[("key", &key), ("screen", &screen)],
        ));
    }
    // On lists of keys and upstreams `w` acts on the selected row.
    if problem.act.is_some()
        && app.over.is_none()
        && !matches!(app.screen, screens::Screen::Keys | screens::Screen::Upstreams)
    {
        words.push(if roomy { text.warms.clone() } else { text.warms_short.clone() });
    }
    let hint = if words.is_empty() {
        Vec::new()
    } else {
        vec![span(format!("  {}", words.join(" · ")), Role::Dim)]
    };
    let end = area.x + 1 + room.saturating_sub(spans_width(&hint));
    let x = canvas.spans(
        area.x + 1,
        area.y,
        end.saturating_sub(area.x + 1),
        &[span(glyph, problem.role), span(problem.text, problem.role)],
    );
    canvas.spans(x, area.y, area.right().saturating_sub(x), &hint);
}

fn foot(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let room = area.width.saturating_sub(2);
    let line = match (&app.dialog, &app.toast) {
        (Some(dialog), _) => question(app, dialog, now, usize::from(room)),
        (None, Some(toast)) if toast.until > now.at => {
            let (glyph, role) = match toast.level {
                Severity::Error => ("✕ ", Role::Bad),
                Severity::Info => ("● ", Role::Ok),
                Severity::Warn => ("▲ ", Role::Warn),
            };
            vec![
                span(glyph, role),
                span(
                    toast.text.clone(),
                    if toast.level == Severity::Info { Role::Text } else { role },
                ),
            ]
        }
        _ => footer(app, now, room),
    };
    canvas.spans(area.x + 1, area.y, room, &line);
}

/// The six keys that matter here, as many as there is room for, and always the way to all.
fn footer(app: &App, now: Now, room: u16) -> Vec<Span> {
    let piece =
        |label: &str, word: &str| [span(label, Role::Accent), span(format!(" {word}"), Role::Dim)];
    let mut pieces: Vec<[Span; 2]> = Vec::new();
    let mut help = None;
    for binding in TABLE.iter().filter(|binding| binding.here(app)) {
        let Some(word) = binding.foot.map(|word| word(now.text)) else { continue };
        if binding.act == Act::Help {
            help = Some(piece(binding.said(now.text), word));
        } else if pieces.len() < FOOT - 1 {
            pieces.push(piece(binding.said(now.text), word));
        }
    }
    let wide =
        |pieces: &[[Span; 2]]| pieces.iter().map(|piece| spans_width(piece) + 3).sum::<u16>();
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

fn question(app: &App, dialog: &Dialog, now: Now, room: usize) -> Vec<Span> {
    let text = &now.text.ask;
    // The end of a long line is where it is being typed.
    let typed = |line: &str| -> String {
        line.chars().skip(line.chars().count().saturating_sub(room / 2)).collect()
    };
    match dialog {
        Dialog::Ask { question, .. } => {
            vec![span(question.clone(), Role::Warn), span("  y/n", Role::Accent)]
        }
        Dialog::Copy { .. } => {
            let mut spans = vec![span(format!("{}  ", text.copy), Role::Dim)];
            for (key, word) in
                [("c", &text.copy_curl), ("i", &text.copy_id), ("b", &text.copy_answer)]
            {
                spans.push(span(key, Role::Accent));
                spans.push(span(format!(" {} · ", word.trim()), Role::Dim));
            }
            spans.push(span("Esc", Role::Accent));
            spans
        }
        Dialog::Filter { text: line, error, .. } => {
            let mut spans = vec![
                span("/ ", Role::Accent),
                span(typed(line), Role::Text),
                span("█", Role::Accent),
            ];
            spans.push(match error {
                Some(error) => span(format!("  {error}"), Role::Bad),
                None => span(format!("  {}", text.filter), Role::Dim),
            });
            spans
        }
        Dialog::Replay { model, .. } => vec![
            span(format!("{}: ", text.replay), Role::Warn),
            span(typed(model), Role::Text),
            span("█", Role::Accent),
            span(format!("  {}", text.keep), Role::Dim),
        ],
        Dialog::Stop => {
            let running = match app.snapshot.as_ref().map_or(0, |s| s.live.running.len()) {
                0 => text.running_none.clone(),
                1 => text.running_one.clone(),
                n => fill(&text.running_many, &[("n", &n.to_string())]),
            };
            vec![
                span(fill(&text.stop, &[("running", &running)]), Role::Warn),
                span("  y/n/Esc", Role::Accent),
            ]
        }
    }
}

#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;
