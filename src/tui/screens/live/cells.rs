//! The contents of a request's cells.

use crate::{
    base::sanitize::{clean, display_width, truncate_middle},
    events::record::{AttemptRecord, RequestRecord, RequestState},
    tui::{
        format::{self, FrameContext, UNKNOWN},
        strings::Texts,
        theme::ThemeRole,
        widgets::canvas::{StyledSpan, span},
    },
};

/// The project, or the program if the request has no project of its own.
pub(super) fn client_text(r: &RequestRecord, max_width: usize) -> String {
    let plain = r.project.is_empty() || &*r.project == "default";
    let name = if plain && !r.client.is_empty() { &r.client } else { &r.project };
    truncate_middle(&clean(name), max_width).into_owned()
}

/// `requested → resolved` if they differ; the resolved part is cut first if space is short.
pub(super) fn model_text(r: &RequestRecord, max_width: usize) -> String {
    let requested = clean(&r.requested_model);
    // A request that names an upstream with the model asks for no other model.
    let same = |at: &AttemptRecord| {
        requested.strip_prefix(&*at.upstream).and_then(|rest| rest.strip_prefix('/'))
            == Some(&*at.model)
    };
    let resolved = r
        .serving_attempt()
        .filter(|at| !same(at))
        .map(|a| clean(&a.model))
        .filter(|model| !model.is_empty() && *model != requested);
    if let Some(resolved) = resolved {
        let left = max_width.saturating_sub(display_width(&requested) + 3);
        if left >= 6.min(display_width(&resolved)) {
            return format!("{requested} → {}", truncate_middle(&resolved, left));
        }
    }
    truncate_middle(&requested, max_width).into_owned()
}

/// A glyph and a word with the same meaning.
pub(in crate::tui::screens) fn state_cell(
    r: &RequestRecord,
    now: FrameContext,
    max_width: usize,
) -> Vec<StyledSpan> {
    const SPINNER: [&str; 4] = ["◐", "◓", "◑", "◒"];
    let spinner = SPINNER[usize::try_from(now.at.0.div_euclid(1_000).rem_euclid(4)).unwrap_or(0)];
    let status = r.status.map(|s| s.to_string());
    let text = now.text;
    let state_texts = &text.state;
    match r.state {
        RequestState::Queued => {
            vec![span("○ ", ThemeRole::Warn), span(state_texts.queued.clone(), ThemeRole::Warn)]
        }
        RequestState::Waiting => {
            vec![
                span(format!("{spinner} "), ThemeRole::Accent),
                span(state_texts.waiting.clone(), ThemeRole::Text),
            ]
        }
        RequestState::Streaming => {
            vec![
                span(format!("{spinner} "), ThemeRole::Accent),
                span(state_texts.streaming.clone(), ThemeRole::Text),
            ]
        }
        RequestState::Done => {
            let (long, short) =
                (format!(" {}", state_texts.retried), format!(" {}", state_texts.retried_short));
            let lost = r.cache_miss.as_ref().is_some_and(|lost| !lost.is_benign);
            let cache = format!(" {}", state_texts.cache_lost);
            let words: &[&str] = match (lost, r.attempts.len() > 1) {
                (true, _) => &[&cache, ""],
                (false, true) => &[&long, &short, ""],
                (false, false) => &[""],
            };
            let glyph =
                if lost { span("▲ ", ThemeRole::Warn) } else { span("● ", ThemeRole::Ok) };
            vec![
                glyph,
                span(
                    longest_fitting(
                        status.as_deref().unwrap_or(&state_texts.done),
                        words,
                        max_width,
                    ),
                    ThemeRole::Text,
                ),
            ]
        }
        RequestState::Failed => {
            let message = match &status {
                Some(status) => longest_fitting(
                    status,
                    &[&format!(" {}", fault_text(r.status, text)), ""],
                    max_width,
                ),
                None => fault_text(None, text).to_owned(),
            };
            vec![span("✕ ", ThemeRole::Error), span(message, ThemeRole::Error)]
        }
        RequestState::ClientGone => {
            vec![span("○ ", ThemeRole::Dim), span(state_texts.left.clone(), ThemeRole::Dim)]
        }
    }
}

/// The longest of the words that fits after the status and its glyph.
fn longest_fitting(status: &str, words: &[&str], max_width: usize) -> String {
    let word = words
        .iter()
        .find(|word| display_width(status) + display_width(word) + 2 <= max_width)
        .copied()
        .unwrap_or_default();
    format!("{status}{word}")
}

fn fault_text(status: Option<u16>, text: &Texts) -> &str {
    let text = &text.state;
    match status {
        None | Some(..400) => &text.broke,
        Some(401 | 403) => &text.denied,
        Some(404) => &text.unknown,
        Some(429) => &text.limited,
        Some(502) => &text.down,
        Some(504) => &text.timeout,
        Some(400..500) => &text.refused,
        Some(_) => &text.error,
    }
}

pub(super) fn age_text(r: &RequestRecord, now: FrameContext) -> String {
    match r.duration_ms {
        Some(ms @ 0..100) => format!("{ms}ms"),
        Some(ms @ 100..9_950) => format!("{:.1}s", f64::from(ms) / 1_000.0),
        Some(ms) => format::age(u64::from(ms)),
        None => format::age(now.since(r.at)),
    }
}

pub(super) fn attempts_cell(r: &RequestRecord) -> Vec<StyledSpan> {
    let role = if r.attempts.len() > 1 { ThemeRole::Warn } else { ThemeRole::Text };
    vec![span(r.attempts.len().min(999).to_string(), role)]
}

pub(super) fn speed_text(r: &RequestRecord, now: FrameContext) -> Option<String> {
    let rate = r.tokens_per_second(now.at)?;
    // Events approximate tokens until there is a token count.
    let about = if r.usage.is_none() { "~" } else { "" };
    Some(if rate < 99.95 {
        format!("{about}{rate:.1}")
    } else {
        format!("{about}{}", format::count(rate as u64))
    })
}

pub(super) fn cost_text(r: &RequestRecord) -> Option<String> {
    r.cost.filter(|cost| cost.usd.is_some()).map(|cost| cost.to_string())
}

pub(in crate::tui::screens) fn tokens_text(r: &RequestRecord) -> String {
    match r.usage {
        Some(usage) => format!(
            "{}→{}",
            format::count(usage.input_total()),
            format::count(usage.output_total())
        ),
        None if r.events > 0 => format!("{UNKNOWN}→~{}", format::count(r.events)),
        None => UNKNOWN.to_owned(),
    }
}
