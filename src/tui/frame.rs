//! Draws a frame: the status bar, the tabs, the worst problem, the screen and the keys that apply
//! here.

use ratatui::{buffer::Buffer, layout::Rect};

use crate::events::event::Severity;
use crate::tui::{
    app::{App, ConnState, Dialog},
    format::{self, FrameContext},
    keys::{KEY_BINDINGS, KeyAction},
    layout::{self, Layout, MIN_SIZE},
    problem::{self, StatusProblem},
    screen::Screen,
    screens, status_bar,
    strings::fill,
    theme::{Theme, ThemeRole},
    widgets::canvas::{Canvas, StyledSpan, span, spans_width},
};

/// Upper bound for the keys in the bottom line.
const MAX_FOOTER_KEYS: usize = 6;

/// The style of a frame, independent of its content.
#[derive(Clone, Copy, Debug)]
pub struct FrameStyle {
    pub theme: Theme,
    /// Whether the terminal supports more than ASCII.
    pub utf8: bool,
}

/// Draws everything from the given state and time, without changing the state.
pub fn draw(app: &App, now: FrameContext, style: &FrameStyle, buffer: &mut Buffer) {
    let area = buffer.area;
    let mut canvas = Canvas { buffer, theme: &style.theme };
    if area.width < MIN_SIZE.0 || area.height < MIN_SIZE.1 {
        draw_too_small(now, &mut canvas, area);
    } else {
        draw_full(app, now, &mut canvas, area);
    }
    if !style.utf8 {
        canvas.replace_non_ascii();
    }
}

fn draw_too_small(now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    let text = fill(&now.text.top.enlarge, &[("size", &format!("{}x{}", MIN_SIZE.0, MIN_SIZE.1))]);
    let x = area.width.saturating_sub(spans_width(&[span(text.as_str(), ThemeRole::Text)])) / 2;
    canvas.put(
        area.x + x,
        area.y + area.height.saturating_sub(1) / 2,
        area.width,
        &text,
        ThemeRole::Text,
    );
}

fn draw_full(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    let layout = Layout::compute(app, area.width, area.height, now);
    if layout.is_wide() {
        status_bar::draw_wide(app, now, canvas, layout.top);
        draw_tabs(app, now, canvas, layout.tabs);
    } else {
        status_bar::draw_narrow(app, now, canvas, layout.top);
    }
    if layout.problem.height > 0 {
        draw_problem(app, now, canvas, layout.problem);
    }
    canvas.rule(area, layout.body.y.saturating_sub(1));
    screens::draw(app, now, canvas, layout.body);
    canvas.rule(area, layout.foot.y.saturating_sub(1));
    if let ConnState::Disconnected { .. } = app.connection {
        canvas.fade(layout.top);
        canvas.fade(layout.body);
    }
    draw_footer(app, now, canvas, layout.foot);
}

fn draw_tabs(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    let tabs = layout::tab_positions(area.width, now.text);
    for (screen, label, x) in &tabs {
        let (digit, title) = label.split_at(2);
        let is_current = *screen == app.screen;
        let (number, word) = if is_current {
            (ThemeRole::Accent, ThemeRole::Accent)
        } else {
            (ThemeRole::Dim, ThemeRole::Text)
        };
        let next = canvas.put(area.x + x, area.y, 2, digit, number);
        canvas.put(next, area.y, area.width, title, word);
        if is_current {
            let wide = spans_width(&[span(label.as_str(), word)]);
            canvas.highlight(Rect {
                x: (area.x + x).saturating_sub(1),
                y: area.y,
                width: wide + 2,
                height: 1,
            });
        }
    }
    let after = tabs
        .last()
        .map_or(0, |(_, label, x)| x + spans_width(&[span(label.as_str(), ThemeRole::Text)]) + 2);
    let long = list_options(app, now, true);
    let fits = after.saturating_add(spans_width(&long)) <= area.width;
    let right = if fits { long } else { list_options(app, now, false) };
    canvas.spans_right(area.x + after, area.right(), area.y, &right);
}

/// The chosen order and the filter of the current list.
fn list_options(app: &App, now: FrameContext, is_long: bool) -> Vec<StyledSpan> {
    let (text, list) = (&now.text.top, app.list_state());
    let mut options = Vec::new();
    if list.sort > 0 {
        let order = screens::orders(app).get(list.sort).map_or("", |label| label(now.text));
        let order =
            if is_long { fill(&text.sorted, &[("order", order)]) } else { order.to_owned() };
        options.push(span(format!(" {order} "), ThemeRole::Dim));
    }
    if !list.filter.is_empty() && app.overlay.is_none() {
        let filter = list.filter.text();
        let filter =
            if is_long { fill(&text.filter, &[("text", filter)]) } else { format!("/{filter}") };
        options.push(span(format!(" {filter} "), ThemeRole::Warn));
    }
    options
}

fn draw_problem(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    let (text, max_width) = (&now.text.top, area.width.saturating_sub(2));
    if let ConnState::Disconnected { reason: why, retry_at } = &app.connection {
        let spans = [
            span("✕ ", ThemeRole::Error),
            span(
                fill(&text.lost, &[("span", &format::remaining(now.until(*retry_at)))]),
                ThemeRole::Error,
            ),
            span(format!("  {why}"), ThemeRole::Dim),
        ];
        canvas.spans(area.x + 1, area.y, max_width, &spans);
        return;
    }
    let Some(problem) = problem::worst_problem(app, now) else { return };
    let glyph = if problem.role == ThemeRole::Error { "✕ " } else { "▲ " };
    let spans = [span(glyph, problem.role), span(problem.text.as_str(), problem.role)];
    // Short hints, if the text would have to be cut for the long ones.
    let long = problem_hint(app, &problem, now, true);
    let is_long = spans_width(&spans).saturating_add(spans_width(&long)) <= max_width;
    let hint = if is_long { long } else { problem_hint(app, &problem, now, false) };
    let text_width = max_width.saturating_sub(spans_width(&hint));
    let x = canvas.spans(area.x + 1, area.y, text_width, &spans);
    canvas.spans(x, area.y, area.right().saturating_sub(x), &hint);
}

/// How many other problems there are, which screen shows more, and the key that acts on this one.
fn problem_hint(
    app: &App,
    problem: &StatusProblem,
    now: FrameContext,
    is_long: bool,
) -> Vec<StyledSpan> {
    let text = &now.text.top;
    let mut words = Vec::new();
    if problem.more > 0 {
        let words_for = if is_long { &text.more } else { &text.more_short };
        words.push(fill(words_for, &[("n", &problem.more.to_string())]));
    }
    if app.screen != problem.screen {
        let (key, screen) =
            (problem.screen.digit().to_string(), problem.screen.label(now.text).to_lowercase());
        let words_for = if is_long { &text.shows } else { &text.shows_short };
        words.push(fill(words_for, &[("key", &key), ("screen", &screen)]));
    }
    // On lists of keys and upstreams, `w` acts on the selected row.
    if problem.action.is_some()
        && app.overlay.is_none()
        && !matches!(app.screen, Screen::Keys | Screen::Upstreams)
    {
        words.push(if is_long { text.warms.clone() } else { text.warms_short.clone() });
    }
    if words.is_empty() {
        return Vec::new();
    }
    vec![span(format!("  {}", words.join(" · ")), ThemeRole::Dim)]
}

fn draw_footer(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    let max_width = area.width.saturating_sub(2);
    let line = match (&app.dialog, &app.toast) {
        (Some(dialog), _) => dialog_line(app, dialog, now, usize::from(max_width)),
        (None, Some(toast)) if toast.until > now.at => {
            let (glyph, role) = match toast.level {
                Severity::Error => ("✕ ", ThemeRole::Error),
                Severity::Info => ("● ", ThemeRole::Ok),
                Severity::Warn => ("▲ ", ThemeRole::Warn),
            };
            vec![
                span(glyph, role),
                span(
                    toast.text.clone(),
                    if toast.level == Severity::Info { ThemeRole::Text } else { role },
                ),
            ]
        }
        _ => footer_keys(app, now, max_width),
    };
    canvas.spans(area.x + 1, area.y, max_width, &line);
}

/// Up to six keys that apply here, as many as fit, and always the key for help.
fn footer_keys(app: &App, now: FrameContext, max_width: u16) -> Vec<StyledSpan> {
    let piece = |label: &str, word: &str| {
        [span(label, ThemeRole::Accent), span(format!(" {word}"), ThemeRole::Dim)]
    };
    let mut pieces: Vec<[StyledSpan; 2]> = Vec::new();
    let mut help = None;
    for binding in KEY_BINDINGS.iter().filter(|binding| binding.applies(app)) {
        let Some(word) = binding.foot.map(|word| word(now.text)) else { continue };
        if binding.action == KeyAction::Help {
            help = Some(piece(binding.label_text(now.text), word));
        } else if pieces.len() < MAX_FOOTER_KEYS - 1 {
            pieces.push(piece(binding.label_text(now.text), word));
        }
    }
    let wide =
        |pieces: &[[StyledSpan; 2]]| pieces.iter().map(|piece| spans_width(piece) + 3).sum::<u16>();
    let help_width = help.as_ref().map_or(0, |help| spans_width(help));
    while wide(&pieces) + help_width > max_width && !pieces.is_empty() {
        pieces.pop();
    }
    pieces.extend(help);
    let mut line = Vec::new();
    for (at, piece) in pieces.into_iter().enumerate() {
        if at > 0 {
            line.push(span(" · ", ThemeRole::Dim));
        }
        line.extend(piece);
    }
    line
}

fn dialog_line(app: &App, dialog: &Dialog, now: FrameContext, max_width: usize) -> Vec<StyledSpan> {
    let text = &now.text.ask;
    // Typing happens at the end of a long line, so the end stays visible.
    let typed = |line: &str| -> String {
        line.chars().skip(line.chars().count().saturating_sub(max_width / 2)).collect()
    };
    match dialog {
        Dialog::Confirm { question, .. } => {
            vec![span(question.clone(), ThemeRole::Warn), span("  y/n", ThemeRole::Accent)]
        }
        Dialog::Copy { .. } => {
            let mut spans = vec![span(format!("{}  ", text.copy), ThemeRole::Dim)];
            for (key, word) in
                [("c", &text.copy_curl), ("i", &text.copy_id), ("b", &text.copy_answer)]
            {
                spans.push(span(key, ThemeRole::Accent));
                spans.push(span(format!(" {} · ", word.trim()), ThemeRole::Dim));
            }
            spans.push(span("Esc", ThemeRole::Accent));
            spans
        }
        Dialog::Filter { text: line, error, .. } => {
            let mut spans = vec![
                span("/ ", ThemeRole::Accent),
                span(typed(line), ThemeRole::Text),
                span("█", ThemeRole::Accent),
            ];
            spans.push(match error {
                Some(error) => span(format!("  {error}"), ThemeRole::Error),
                None => span(format!("  {}", text.filter), ThemeRole::Dim),
            });
            spans
        }
        Dialog::Replay { model, .. } => vec![
            span(format!("{}: ", text.replay), ThemeRole::Warn),
            span(typed(model), ThemeRole::Text),
            span("█", ThemeRole::Accent),
            span(format!("  {}", text.keep), ThemeRole::Dim),
        ],
        Dialog::Stop => {
            let running = match app.snapshot.as_ref().map_or(0, |s| s.live.running.len()) {
                0 => text.running_none.clone(),
                1 => text.running_one.clone(),
                n => fill(&text.running_many, &[("n", &n.to_string())]),
            };
            vec![
                span(fill(&text.stop, &[("running", &running)]), ThemeRole::Warn),
                span("  y/n/Esc", ThemeRole::Accent),
            ]
        }
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
