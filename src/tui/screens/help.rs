//! Which key does what? Made from the key table alone.

use ratatui::layout::Rect;

use crate::{
    base::clean::display_width,
    tui::{
        app::{App, Over},
        format::Now,
        keys::{Act, TABLE},
        text::fill,
        theme::Role,
        widgets::canvas::{Canvas, Span, span},
    },
};

/// From this width on there are two columns.
const TWO: u16 = 160;

pub(super) fn lines(app: &App, now: Now) -> usize {
    let (screens, rest) = rows(app, now);
    if app.size.0 >= TWO { screens.len().max(rest.len()) } else { screens.len() + rest.len() + 1 }
}

pub(super) fn draw(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect, scroll: u16) {
    let (mut first, mut second) = rows(app, now);
    let skip = usize::from(scroll);
    if area.width >= TWO {
        let half = area.width / 2;
        column(canvas, Rect { width: half, ..area }, &first, skip);
        column(canvas, Rect { x: area.x + half, width: area.width - half, ..area }, &second, skip);
        return;
    }
    first.push(Vec::new());
    first.append(&mut second);
    column(canvas, area, &first, skip);
}

fn column(canvas: &mut Canvas<'_>, area: Rect, rows: &[Vec<Span>], skip: usize) {
    for (row, y) in rows.iter().skip(skip).zip(area.y..area.bottom()) {
        canvas.spans(area.x + 1, y, area.width.saturating_sub(2), row);
    }
}

/// What holds on this screen, and what holds everywhere: moving, screens, leaving.
fn rows(app: &App, now: Now) -> (Vec<Vec<Span>>, Vec<Vec<Span>>) {
    let everywhere = |act: Act| {
        matches!(
            act,
            Act::Up
                | Act::Down
                | Act::Top
                | Act::Bottom
                | Act::PageUp
                | Act::PageDown
                | Act::Go(_)
                | Act::NextScreen
                | Act::PreviousScreen
                | Act::Quit
                | Act::Help
                | Act::Problems
        )
    };
    let row = |label: &str, help: &str| {
        let pad = " ".repeat(11_usize.saturating_sub(display_width(label)));
        vec![span(format!("  {label}{pad}"), Role::Accent), span(help, Role::Text)]
    };
    let text = &now.text.help;
    let screen = match &app.over {
        Some(Over::Help { under: Some(_), .. }) => now.text.screen.request.as_str(),
        _ => app.screen.word(now.text),
    };
    let mut here = vec![vec![span(fill(&text.here, &[("screen", screen)]), Role::Dim)]];
    for binding in TABLE.iter().filter(|b| b.under_help(app) && !everywhere(b.act)) {
        here.extend(binding.help.map(|help| row(binding.said(now.text), help(now.text))));
    }
    here.push(row(&now.text.key.click, &text.click));
    let mut all = vec![vec![span(text.everywhere.clone(), Role::Dim)]];
    for binding in TABLE.iter().filter(|b| everywhere(b.act)) {
        all.extend(binding.help.map(|help| row(binding.said(now.text), help(now.text))));
    }
    (here, all)
}
