//! Which config runs, and what is wrong with the file?

use ratatui::layout::Rect;

use crate::{
    base::clean::display_width,
    events::kind::Severity,
    tui::{
        app::App,
        format::{self, Now},
        said::said,
        text::fill,
        theme::Role,
        widgets::canvas::{Canvas, Span, span},
    },
};

/// Columns of the names.
const NAMES: usize = 14;

pub(super) fn draw(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    for (line, y) in lines(app, now).iter().zip(area.y..area.bottom()) {
        canvas.spans(area.x + 1, y, area.width.saturating_sub(2), line);
    }
}

fn lines(app: &App, now: Now) -> Vec<Vec<Span>> {
    let Some(snapshot) = &app.snapshot else { return Vec::new() };
    let (config, text) = (&snapshot.config, &now.text.config);
    let (time, span_ago) =
        (format::moment(config.applied, now), format::span(now.since(config.applied)));
    let mut lines = vec![
        fact(&text.file, config.path.clone().unwrap_or_else(|| text.none.clone())),
        fact(&text.applied, fill(&text.ago, &[("time", &time), ("span", &span_ago)])),
        fact(&text.listens, snapshot.listen.join(" ")),
        fact(&text.projects, snapshot.projects.join(" ")),
        fact(&text.version, format!("{} · pid {}", snapshot.version, snapshot.pid)),
    ];
    match &snapshot.ledger {
        Some(ledger) => {
            let mut said = vec![ledger.path.clone()];
            let number = |text: &str, n: u64| fill(text, &[("n", &format::count(n))]);
            let lost = ledger.lost_requests.saturating_add(ledger.unrecorded);
            said.extend((lost > 0).then(|| number(&text.ledger_lost, lost)));
            said.extend(
                (ledger.skipped_bodies > 0)
                    .then(|| number(&text.ledger_skipped, ledger.skipped_bodies)),
            );
            said.extend(
                (ledger.waiting_requests > 0 && ledger.problem.is_some())
                    .then(|| number(&text.ledger_waits, ledger.waiting_requests)),
            );
            said.extend(ledger.problem.clone());
            lines.push(fact(&text.ledger, said.join(" · ")));
        }
        None => lines.push(fact(&text.ledger, text.ledger_none.clone())),
    }
    // The events of reloads begin with these words.
    let reloads =
        |text: &str| text.starts_with("config applied") || text.starts_with("config not applied");
    if let Some(last) = snapshot.live.lines.iter().rev().find(|line| reloads(&line.text)) {
        let mut spans = fact(&text.reload, format!("{}  ", format::moment(last.at, now)));
        spans.push(span(
            said(&last.text, now),
            if last.level == Severity::Error { Role::Bad } else { Role::Text },
        ));
        lines.push(spans);
    }
    lines.push(Vec::new());
    if config.needs_restart {
        lines.push(vec![span("▲ ", Role::Warn), span(text.restart.clone(), Role::Warn)]);
    }
    if config.problems.is_empty() {
        let fine = if config.path.is_some() { &text.fine } else { &text.defaults };
        lines.push(vec![span("● ", Role::Ok), span(fine.clone(), Role::Text)]);
    } else {
        lines.push(vec![span("✕ ", Role::Bad), span(text.broken.clone(), Role::Bad)]);
        match config.annotated.is_empty() {
            true => lines.extend(prose(&config.problems, Role::Text)),
            false => lines.extend(prose(std::slice::from_ref(&config.annotated), Role::Text)),
        }
    }
    if !config.warnings.is_empty() {
        lines.push(Vec::new());
        lines.push(vec![span("▲ ", Role::Warn), span(text.warnings.clone(), Role::Warn)]);
        lines.extend(prose(&config.warnings, Role::Text));
    }
    lines
}

fn fact(name: &str, value: String) -> Vec<Span> {
    let pad = " ".repeat(NAMES.saturating_sub(display_width(name)));
    vec![span(format!("  {name}{pad}"), Role::Dim), span(value, Role::Text)]
}

/// A problem may have several lines: the place, the offending text, what to do.
fn prose(texts: &[String], role: Role) -> impl Iterator<Item = Vec<Span>> {
    texts
        .iter()
        .flat_map(|text| text.lines())
        .map(move |line| vec![span(format!("  {line}"), role)])
}
