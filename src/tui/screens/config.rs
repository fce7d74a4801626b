//! Which config runs, and what is wrong with the file?

use ratatui::layout::Rect;

use crate::tui::{
    app::App,
    format::{self, Now},
    theme::Role,
    widgets::canvas::{Canvas, Span, span},
};

pub(super) fn draw(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    for (line, y) in lines(app, now).iter().zip(area.y..area.bottom()) {
        canvas.spans(area.x + 1, y, area.width.saturating_sub(2), line);
    }
}

fn lines(app: &App, now: Now) -> Vec<Vec<Span>> {
    let Some(snapshot) = &app.snapshot else { return Vec::new() };
    let config = &snapshot.config;
    let mut lines = vec![
        fact("file", config.path.clone().unwrap_or_else(|| "none; `aiproxy config init` writes one".to_owned())),
        fact("applied", format!("{} ({} ago)", format::clock(config.applied, now), format::span(now.since(config.applied)))),
        fact("listens at", snapshot.listen.join(" ")),
        fact("projects", snapshot.projects.join(" ")),
        fact("version", format!("{} · pid {}", snapshot.version, snapshot.pid)),
        Vec::new(),
    ];
    if config.needs_restart {
        lines.push(vec![span("▲ ", Role::Warn), span("`listen` changed; `aiproxy restart` applies it", Role::Warn)]);
    }
    if config.problems.is_empty() {
        lines.push(vec![span("● ", Role::Ok), span("no problems: the file is valid and is what runs", Role::Text)]);
    } else {
        lines.push(vec![span("✕ ", Role::Bad), span("the file is not applied; the config from before goes on. Problems:", Role::Bad)]);
        lines.extend(prose(&config.problems, Role::Text));
    }
    if !config.warnings.is_empty() {
        lines.push(Vec::new());
        lines.push(vec![span("▲ ", Role::Warn), span("warnings", Role::Warn)]);
        lines.extend(prose(&config.warnings, Role::Text));
    }
    lines
}

fn fact(name: &str, value: String) -> Vec<Span> {
    vec![span(format!("  {name:<12}"), Role::Dim), span(value, Role::Text)]
}

/// A problem may have several lines: the place, the offending text, what to do.
fn prose(texts: &[String], role: Role) -> impl Iterator<Item = Vec<Span>> {
    texts.iter().flat_map(|text| text.lines()).map(move |line| vec![span(format!("  {line}"), role)])
}
