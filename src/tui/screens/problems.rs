//! The list of all current problems, worst first.

use ratatui::layout::Rect;

use crate::tui::{
    app::App,
    format::FrameContext,
    problem,
    strings::fill,
    theme::ThemeRole,
    widgets::{
        canvas::{Canvas, StyledSpan, span},
        wrap,
    },
};

/// Upper bound for the lines of one problem.
const MAX_LINES_PER_PROBLEM: usize = 6;

pub(super) fn draw(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect, scroll: u16) {
    for (line, y) in
        lines(app, now, area.width).iter().skip(usize::from(scroll)).zip(area.y..area.bottom())
    {
        canvas.spans(area.x + 1, y, area.width.saturating_sub(2), line);
    }
}

pub(super) fn lines(app: &App, now: FrameContext, columns: u16) -> Vec<Vec<StyledSpan>> {
    let all = problem::ranked_problems(app, now);
    let text = &now.text.wrong;
    if all.is_empty() {
        return vec![vec![span(text.none.clone(), ThemeRole::Dim)]];
    }
    let mut lines =
        vec![vec![span(fill(&text.list, &[("n", &all.len().to_string())]), ThemeRole::Dim)]];
    let max_width = usize::from(columns.saturating_sub(6));
    for problem in &all {
        let glyph = if problem.role == ThemeRole::Error { "✕ " } else { "▲ " };
        for (at, line) in
            wrap::wrap(&problem.text, max_width, MAX_LINES_PER_PROBLEM).into_iter().enumerate()
        {
            lines.push(vec![
                span(if at == 0 { glyph } else { "  " }, problem.role),
                span(line, problem.role),
            ]);
        }
        let (key, screen) =
            (problem.screen.digit().to_string(), problem.screen.label(now.text).to_lowercase());
        lines.push(vec![span(
            format!("  {}", fill(&now.text.top.shows, &[("key", &key), ("screen", &screen)])),
            ThemeRole::Dim,
        )]);
    }
    lines
}
