//! Computes the areas of a frame, for both drawing and mouse input.

use ratatui::layout::Rect;

use crate::{
    base::sanitize::display_width,
    tui::{
        app::{App, ConnState},
        format::FrameContext,
        problem,
        screen::Screen,
        strings::Texts,
    },
};

/// Below this size a frame only asks for a larger terminal.
pub const MIN_SIZE: (u16, u16) = (40, 10);
/// Below this width the status bar and the tabs share one line.
const MIN_WIDE_COLUMNS: u16 = 80;
/// Below this width the tabs are closer together.
const MIN_ROOMY_COLUMNS: u16 = 100;

/// The areas of a frame from the top; an absent area has height 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub top: Rect,
    pub tabs: Rect,
    pub problem: Rect,
    pub body: Rect,
    pub foot: Rect,
}

impl Layout {
    /// Computes the areas for this size and state.
    #[must_use]
    pub fn compute(app: &App, columns: u16, rows: u16, now: FrameContext) -> Self {
        let line = |y: u16, height: u16| {
            Rect::new(0, y.min(rows), columns, height.min(rows.saturating_sub(y)))
        };
        let tabs = u16::from(columns >= MIN_WIDE_COLUMNS);
        let problem_line = u16::from(
            matches!(app.connection, ConnState::Disconnected { .. })
                || problem::worst_problem(app, now).is_some(),
        );
        let head = 1 + tabs + problem_line;
        // One rule above the body and one below it.
        let body = rows.saturating_sub(head + 3);
        Self {
            top: line(0, 1),
            tabs: line(1, tabs),
            problem: line(1 + tabs, problem_line),
            body: line(head + 1, body),
            foot: line(rows.saturating_sub(1), 1),
        }
    }

    #[must_use]
    pub fn is_wide(&self) -> bool {
        self.tabs.height > 0
    }
}

/// Each tab's label, with its start column.
#[must_use]
pub fn tab_positions(columns: u16, text: &Texts) -> Vec<(Screen, String, u16)> {
    let gap = if columns < MIN_ROOMY_COLUMNS { 2 } else { 3 };
    let mut x = 1;
    let mut tabs = Vec::new();
    for screen in Screen::ALL {
        let label = format!("{} {}", screen.digit(), screen.label(text));
        let wide = u16::try_from(display_width(&label)).unwrap_or(u16::MAX);
        if x + wide >= columns {
            break;
        }
        tabs.push((screen, label, x));
        x += wide + gap;
    }
    tabs
}

/// The tab at a column.
#[must_use]
pub fn tab_at(column: u16, columns: u16, text: &Texts) -> Option<Screen> {
    tab_positions(columns, text)
        .into_iter()
        .rev()
        .find(|(_, label, x)| column >= *x && usize::from(column - x) < display_width(label))
        .map(|(screen, ..)| screen)
}
