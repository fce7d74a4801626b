//! The Config screen: the active config and the problems of the file.

use ratatui::layout::Rect;

use crate::{
    base::sanitize::display_width,
    events::{event::Severity, log_line::LogLine, log_message::LogMessage},
    tui::{
        app::App,
        format::{self, FrameContext},
        reason_words::ReasonWords,
        strings::fill,
        theme::ThemeRole,
        widgets::canvas::{Canvas, StyledSpan, span},
    },
};

/// Width of the names, in columns.
const NAME_WIDTH: usize = 14;

pub(super) fn draw(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    for (line, y) in lines(app, now).iter().zip(area.y..area.bottom()) {
        canvas.spans(area.x + 1, y, area.width.saturating_sub(2), line);
    }
}

fn lines(app: &App, now: FrameContext) -> Vec<Vec<StyledSpan>> {
    let Some(snapshot) = &app.snapshot else { return Vec::new() };
    let (config, text) = (&snapshot.config, &now.text.config);
    let (time, span_ago) =
        (format::date_time(config.applied, now), format::span(now.since(config.applied)));
    let mut lines = vec![
        fact_line(&text.file, config.path.clone().unwrap_or_else(|| text.none.clone())),
        fact_line(&text.applied, fill(&text.ago, &[("time", &time), ("span", &span_ago)])),
        fact_line(&text.listens, snapshot.listen.join(" ")),
        fact_line(&text.projects, snapshot.projects.join(" ")),
        fact_line(&text.version, format!("{} · pid {}", snapshot.version, snapshot.pid)),
    ];
    match &snapshot.ledger {
        Some(ledger) => {
            let mut parts = vec![ledger.path.clone()];
            let number = |text: &str, n: u64| fill(text, &[("n", &format::count(n))]);
            let lost = ledger.lost_requests.saturating_add(ledger.unrecorded);
            parts.extend((lost > 0).then(|| number(&text.ledger_lost, lost)));
            parts.extend(
                (ledger.skipped_bodies > 0)
                    .then(|| number(&text.ledger_skipped, ledger.skipped_bodies)),
            );
            parts.extend(
                (ledger.waiting_requests > 0 && ledger.problem.is_some())
                    .then(|| number(&text.ledger_waits, ledger.waiting_requests)),
            );
            parts.extend(ledger.problem.clone());
            lines.push(fact_line(&text.ledger, parts.join(" · ")));
        }
        None => lines.push(fact_line(&text.ledger, text.ledger_none.clone())),
    }
    let is_reload = |line: &&LogLine| matches!(line.text.message(), LogMessage::Reload { .. });
    if let Some(last) = snapshot.live.lines.iter().rev().find(is_reload) {
        let mut spans = fact_line(&text.reload, format!("{}  ", format::date_time(last.at, now)));
        spans.push(span(
            last.text.message().words(now.text),
            if last.level == Severity::Error { ThemeRole::Error } else { ThemeRole::Text },
        ));
        lines.push(spans);
    }
    lines.push(Vec::new());
    if config.needs_restart {
        lines.push(vec![span("▲ ", ThemeRole::Warn), span(text.restart.clone(), ThemeRole::Warn)]);
    }
    if config.problems.is_empty() {
        let status = if config.path.is_some() { &text.fine } else { &text.defaults };
        lines.push(vec![span("● ", ThemeRole::Ok), span(status.clone(), ThemeRole::Text)]);
    } else {
        lines.push(vec![span("✕ ", ThemeRole::Error), span(text.broken.clone(), ThemeRole::Error)]);
        match config.annotated.is_empty() {
            true => lines.extend(text_lines(&config.problems, ThemeRole::Text)),
            false => {
                lines.extend(text_lines(std::slice::from_ref(&config.annotated), ThemeRole::Text));
            }
        }
    }
    if !config.warnings.is_empty() {
        lines.push(Vec::new());
        lines.push(vec![span("▲ ", ThemeRole::Warn), span(text.warnings.clone(), ThemeRole::Warn)]);
        lines.extend(text_lines(&config.warnings, ThemeRole::Text));
    }
    lines
}

fn fact_line(name: &str, value: String) -> Vec<StyledSpan> {
    let pad = " ".repeat(NAME_WIDTH.saturating_sub(display_width(name)));
    vec![span(format!("  {name}{pad}"), ThemeRole::Dim), span(value, ThemeRole::Text)]
}

/// A problem may have several lines: the location, the offending text and a hint.
fn text_lines(texts: &[String], role: ThemeRole) -> impl Iterator<Item = Vec<StyledSpan>> {
    texts
        .iter()
        .flat_map(|text| text.lines())
        .map(move |line| vec![span(format!("  {line}"), role)])
}
