//! The help page: all key bindings, generated from the key table.

use ratatui::layout::Rect;

use crate::{
    base::sanitize::display_width,
    tui::{
        app::{App, Overlay},
        format::FrameContext,
        keys::{KEY_BINDINGS, KeyAction},
        strings::fill,
        theme::ThemeRole,
        widgets::canvas::{Canvas, StyledSpan, span},
    },
};

/// Minimum width for two columns.
const MIN_TWO_COLUMN_WIDTH: u16 = 160;

pub(super) fn line_count(app: &App, now: FrameContext) -> usize {
    let (screens, rest) = rows(app, now);
    if app.size.0 >= MIN_TWO_COLUMN_WIDTH {
        screens.len().max(rest.len())
    } else {
        screens.len() + rest.len() + 1
    }
}

pub(super) fn draw(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect, scroll: u16) {
    let (mut first, mut second) = rows(app, now);
    let skip = usize::from(scroll);
    if area.width >= MIN_TWO_COLUMN_WIDTH {
        let half = area.width / 2;
        draw_column(canvas, Rect { width: half, ..area }, &first, skip);
        draw_column(
            canvas,
            Rect { x: area.x + half, width: area.width - half, ..area },
            &second,
            skip,
        );
        return;
    }
    first.push(Vec::new());
    first.append(&mut second);
    draw_column(canvas, area, &first, skip);
}

fn draw_column(canvas: &mut Canvas<'_>, area: Rect, rows: &[Vec<StyledSpan>], skip: usize) {
    for (row, y) in rows.iter().skip(skip).zip(area.y..area.bottom()) {
        canvas.spans(area.x + 1, y, area.width.saturating_sub(2), row);
    }
}

/// The bindings of this screen, and the global ones: moving, screens, leaving.
fn rows(app: &App, now: FrameContext) -> (Vec<Vec<StyledSpan>>, Vec<Vec<StyledSpan>>) {
    let everywhere = |action: KeyAction| {
        matches!(
            action,
            KeyAction::Up
                | KeyAction::Down
                | KeyAction::Top
                | KeyAction::Bottom
                | KeyAction::PageUp
                | KeyAction::PageDown
                | KeyAction::GoTo(_)
                | KeyAction::NextScreen
                | KeyAction::PreviousScreen
                | KeyAction::Quit
                | KeyAction::Help
                | KeyAction::Problems
        )
    };
    let row = |label: &str, help: &str| {
        let pad = " ".repeat(11_usize.saturating_sub(display_width(label)));
        vec![span(format!("  {label}{pad}"), ThemeRole::Accent), span(help, ThemeRole::Text)]
    };
    let text = &now.text.help;
    let screen = match &app.overlay {
        Some(Overlay::Help { request_view: Some(_), .. }) => now.text.screen.request.as_str(),
        _ => app.screen.label(now.text),
    };
    let mut here = vec![vec![span(fill(&text.here, &[("screen", screen)]), ThemeRole::Dim)]];
    for binding in
        KEY_BINDINGS.iter().filter(|b| b.applies_under_help(app) && !everywhere(b.action))
    {
        here.extend(binding.help.map(|help| row(binding.label_text(now.text), help(now.text))));
    }
    here.push(row(&now.text.key.click, &text.click));
    let mut all = vec![vec![span(text.everywhere.clone(), ThemeRole::Dim)]];
    for binding in KEY_BINDINGS.iter().filter(|b| everywhere(b.action)) {
        all.extend(binding.help.map(|help| row(binding.label_text(now.text), help(now.text))));
    }
    (here, all)
}
