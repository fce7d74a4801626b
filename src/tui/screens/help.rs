//! Which key does what? Made from the key table alone.

use ratatui::layout::Rect;

use crate::{
    base::clean::width,
    tui::{
        app::App,
        keys::{Act, TABLE},
        theme::Role,
        widgets::canvas::{Canvas, Span, span},
    },
};

/// From this width on there are two columns.
const TWO: u16 = 110;

pub(super) fn lines(app: &App) -> usize {
    let (screens, rest) = rows(app);
    if app.size.0 >= TWO { screens.len().max(rest.len()) } else { screens.len() + rest.len() + 1 }
}

pub(super) fn draw(app: &App, canvas: &mut Canvas<'_>, area: Rect, scroll: u16) {
    let (mut first, mut second) = rows(app);
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
fn rows(app: &App) -> (Vec<Vec<Span>>, Vec<Vec<Span>>) {
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
        )
    };
    let row = |label: &str, help: &str| {
        let pad = " ".repeat(11_usize.saturating_sub(width(label)));
        vec![span(format!("  {label}{pad}"), Role::Accent), span(help, Role::Text)]
    };
    let title = |text: String| vec![span(text, Role::Dim)];
    let mut here = vec![title(format!("On {}; Esc closes this page, q quits, j and k scroll", app.screen.title()))];
    here.extend(TABLE.iter().filter(|b| b.on(app.screen) && !everywhere(b.act) && !b.label.is_empty()).map(|b| row(b.label, b.help)));
    here.push(row("click", "select; twice opens; Shift-drag selects text"));
    let mut all = vec![title("Everywhere".to_owned())];
    all.extend(TABLE.iter().filter(|b| everywhere(b.act) && !b.label.is_empty()).map(|b| row(b.label, b.help)));
    (here, all)
}
