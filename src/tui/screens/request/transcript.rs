//! The transcript of a request: the conversation, the growing answer, the headers.

use crate::{
    base::id::RequestId,
    control::request_transcript::{PartKind, Speaker, TranscriptPart},
    events::record::RequestRecord,
    tui::{
        app::App,
        format::{self, FrameContext},
        strings::fill,
        theme::ThemeRole,
        widgets::{
            canvas::{StyledSpan, span},
            wrap,
        },
    },
};

/// Upper bound for the lines of one part of a conversation; other tools suit longer text better.
const MAX_PART_LINES: usize = 200;
/// Upper bound for the lines of an explanation.
const MAX_EXPLAIN_LINES: usize = 2_000;
/// Longer system messages are collapsed to one line, because users usually look for the question.
const MAX_EXPANDED_CHARS: u64 = 200;
/// Upper bound for the lines of an answer; the newest are shown.
const MAX_ANSWER_LINES: usize = 5_000;

pub(super) fn conversation(
    app: &App,
    r: &RequestRecord,
    now: FrameContext,
    unfolded: bool,
    max_width: usize,
) -> Vec<Vec<StyledSpan>> {
    let text = &now.text.request;
    let Some(story) = app.transcript_of(r.id) else { return single_line(&now.text.usage.loading) };
    if story.conversation.is_empty() {
        return single_line(if story.bodies_stored { &text.nothing_said } else { &text.not_kept });
    }
    let mut lines = Vec::new();
    for part in &story.conversation {
        let (speaker, role) = match part.speaker {
            Speaker::Assistant => (text.assistant.as_str(), ThemeRole::Ok),
            Speaker::Gap => ("…", ThemeRole::Dim),
            Speaker::Raw => (text.raw.as_str(), ThemeRole::Dim),
            Speaker::System => (text.system.as_str(), ThemeRole::Dim),
            Speaker::Tool => (text.tool.as_str(), ThemeRole::Warn),
            Speaker::User => (text.user.as_str(), ThemeRole::Accent),
        };
        let mut head = vec![span(speaker.to_owned(), role)];
        head.extend(kind_label(part, now).unwrap_or_default());
        if part.speaker == Speaker::System && part.chars > MAX_EXPANDED_CHARS && !unfolded {
            head.push(span(
                format!("  {}", fill(&text.folded, &[("n", &format::count(part.chars))])),
                ThemeRole::Dim,
            ));
            lines.push(head);
            continue;
        }
        lines.push(head);
        push_body(part, now, max_width, ThemeRole::Text, &mut lines);
    }
    lines
}

pub(super) fn answer(
    app: &App,
    r: &RequestRecord,
    now: FrameContext,
    max_width: usize,
) -> Vec<Vec<StyledSpan>> {
    let text = &now.text.request;
    let Some(story) = app.transcript_of(r.id) else { return single_line(&now.text.usage.loading) };
    let mut lines = Vec::new();
    for part in &story.answer {
        match part.kind {
            PartKind::Text if part.speaker != Speaker::Gap => {}
            _ => lines.push(
                kind_label(part, now)
                    .unwrap_or_else(|| vec![span(text.missing.clone(), ThemeRole::Dim)]),
            ),
        }
        let role = if part.kind == PartKind::Thinking { ThemeRole::Dim } else { ThemeRole::Text };
        push_body(part, now, max_width, role, &mut lines);
    }
    if lines.is_empty() {
        return single_line(match (r.is_running(), story.bodies_stored || r.answer_bytes == 0) {
            (true, _) if r.answer_bytes > 0 => &text.listening,
            (true, _) => &text.waiting_text,
            (false, true) => &text.nothing_said,
            (false, false) => &text.not_kept,
        });
    }
    if r.is_running()
        && let Some(last) = lines.last_mut()
    {
        last.push(span("▌", ThemeRole::Accent));
    }
    let skip = lines.len().saturating_sub(MAX_ANSWER_LINES);
    lines.drain(..skip);
    lines
}

pub(super) fn headers(
    app: &App,
    id: RequestId,
    now: FrameContext,
    max_width: usize,
) -> Vec<Vec<StyledSpan>> {
    let text = &now.text.request;
    let Some(story) = app.transcript_of(id) else { return single_line(&now.text.usage.loading) };
    if story.request_headers.is_empty() && story.response_headers.is_empty() {
        return single_line(&text.no_headers);
    }
    let mut lines = Vec::new();
    for (title, headers) in [
        (&text.asked_headers, &story.request_headers),
        (&text.answered_headers, &story.response_headers),
    ] {
        if headers.is_empty() {
            continue;
        }
        lines.push(vec![span(title.clone(), ThemeRole::Dim)]);
        for (name, value) in headers {
            let line = format!("{name}: {value}");
            for (at, piece) in
                wrap::wrap(&line, max_width.saturating_sub(2), 8).into_iter().enumerate()
            {
                match piece.split_once(": ").filter(|_| at == 0) {
                    Some((name, value)) => {
                        lines.push(vec![
                            span(format!("  {name}: "), ThemeRole::Accent),
                            span(value.to_owned(), ThemeRole::Text),
                        ]);
                    }
                    None => lines.push(vec![span(format!("  {piece}"), ThemeRole::Text)]),
                }
            }
        }
    }
    lines
}

/// The text of `aiproxy explain`.
pub(super) fn explain(
    app: &App,
    r: &RequestRecord,
    now: FrameContext,
    max_width: usize,
) -> Vec<Vec<StyledSpan>> {
    if r.is_running() {
        return single_line(&now.text.request.running_account);
    }
    match app
        .explain
        .as_ref()
        .filter(|account| account.id == r.id)
        .and_then(|account| account.text.as_ref())
    {
        None => single_line(&now.text.usage.loading),
        Some(Ok(text)) => wrap::wrap(text, max_width, MAX_EXPLAIN_LINES)
            .into_iter()
            .map(|line| vec![span(line, ThemeRole::Text)])
            .collect(),
        Some(Err(why)) => wrap::wrap(why, max_width, MAX_PART_LINES)
            .into_iter()
            .map(|line| vec![span(line, ThemeRole::Warn)])
            .collect(),
    }
}

fn single_line(text: &str) -> Vec<Vec<StyledSpan>> {
    vec![vec![span(text, ThemeRole::Dim)]]
}

/// The kind of part, unless it is plain text.
fn kind_label(part: &TranscriptPart, now: FrameContext) -> Option<Vec<StyledSpan>> {
    let text = &now.text.request;
    let word = match part.kind {
        PartKind::Call => &text.call,
        PartKind::Media => &text.media,
        PartKind::Refusal => &text.refusal,
        PartKind::Result => &text.result,
        PartKind::Text => return None,
        PartKind::Thinking => &text.thinking,
    };
    let mut spans = vec![span(format!("  {word}"), ThemeRole::Dim)];
    if !part.name.is_empty() {
        spans.push(span(format!(" {}", part.name), ThemeRole::Accent));
    }
    Some(spans)
}

fn push_body(
    part: &TranscriptPart,
    now: FrameContext,
    max_width: usize,
    role: ThemeRole,
    lines: &mut Vec<Vec<StyledSpan>>,
) {
    let indent = if part.kind == PartKind::Text { 0 } else { 2 };
    let max_lines =
        if part.speaker == Speaker::Assistant { MAX_ANSWER_LINES } else { MAX_PART_LINES };
    let text = if part.kind == PartKind::Media && part.text.is_empty() {
        format!("{} B", format::count(part.chars))
    } else {
        part.text.clone()
    };
    for line in wrap::wrap(&text, max_width.saturating_sub(indent), max_lines) {
        lines.push(vec![span(format!("{}{line}", " ".repeat(indent)), role)]);
    }
    let char_count = text.chars().count() as u64;
    if part.chars > char_count && part.kind != PartKind::Media && part.speaker != Speaker::Assistant
    {
        lines.push(vec![span(
            fill(&now.text.request.more, &[("n", &format::count(part.chars))]),
            ThemeRole::Dim,
        )]);
    }
}
