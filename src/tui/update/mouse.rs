//! Handles the mouse: selects and opens rows, scrolls, and opens tabs and problems.

use ratatui::crossterm::event::{MouseButton, MouseEvent, MouseEventKind};

use crate::tui::{
    app::{App, ConnState},
    effect::Effect,
    format::FrameContext,
    layout::{self, Layout},
    screens,
    update::{
        navigation::{go_to_screen, open_row, scroll},
        overlay::toggle_problems,
    },
};

const DOUBLE_CLICK_MS: i64 = 400;

pub(super) fn on_mouse(app: &mut App, mouse: MouseEvent, now: FrameContext) -> Vec<Effect> {
    match mouse.kind {
        MouseEventKind::ScrollDown => scroll(app, 3, now),
        MouseEventKind::ScrollUp => scroll(app, -3, now),
        MouseEventKind::Down(MouseButton::Left) if app.dialog.is_none() => {
            return on_click(app, mouse, now);
        }
        _ => {}
    }
    Vec::new()
}

fn on_click(app: &mut App, mouse: MouseEvent, now: FrameContext) -> Vec<Effect> {
    let (columns, rows) = app.size;
    let layout = Layout::compute(app, columns, rows, now);
    if layout.is_wide() && mouse.row == layout.tabs.y {
        return layout::tab_at(mouse.column, columns, now.text)
            .map_or_else(Vec::new, |screen| go_to_screen(app, screen, now));
    }
    if layout.problem.height > 0
        && mouse.row == layout.problem.y
        && app.connection == ConnState::Connected
    {
        toggle_problems(app);
        return Vec::new();
    }
    if app.overlay.is_some() {
        return Vec::new();
    }
    let Some(id) = screens::row_at(app, layout.body, mouse.row) else { return Vec::new() };
    let again = app
        .clicked
        .as_ref()
        .is_some_and(|(before, at)| *before == id && now.at.0 - at.0 <= DOUBLE_CLICK_MS);
    app.clicked = (!again).then(|| (id.clone(), now.at));
    app.select(id);
    if again { open_row(app, now) } else { Vec::new() }
}
