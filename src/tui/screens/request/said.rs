//! What was said in a request: the conversation, the answer as it grows, the headers.

use crate::{
    base::id::RequestId,
    control::story::{PartKind, Speaker, TranscriptPart},
    events::record::RequestRecord,
    tui::{
        app::App,
        format::{self, Now},
        text::fill,
        theme::Role,
        widgets::{
            canvas::{Span, span},
            prose,
        },
    },
};

/// Lines of one part of a conversation; what is longer is better read elsewhere.
const PART: usize = 200;
/// Lines of an account.
const ACCOUNT: usize = 2_000;
/// System messages of more characters are one line until they are opened: the question is what is
/// looked for.
const FOLDED: u64 = 200;
/// Lines of an answer: the newest.
const ANSWER: usize = 5_000;

pub(super) fn conversation(
    app: &App,
    r: &RequestRecord,
    now: Now,
    unfolded: bool,
    room: usize,
) -> Vec<Vec<Span>> {
    let text = &now.text.request;
    let Some(story) = app.told(r.id) else { return one(&now.text.usage.loading) };
    if story.conversation.is_empty() {
        return one(if story.bodies_stored { &text.nothing_said } else { &text.not_kept });
    }
    let mut lines = Vec::new();
    for part in &story.conversation {
        let (who, role) = match part.speaker {
            Speaker::Assistant => (text.assistant.as_str(), Role::Ok),
            Speaker::Gap => ("…", Role::Dim),
            Speaker::Raw => (text.raw.as_str(), Role::Dim),
            Speaker::System => (text.system.as_str(), Role::Dim),
            Speaker::Tool => (text.tool.as_str(), Role::Warn),
            Speaker::User => (text.user.as_str(), Role::Accent),
        };
        let mut head = vec![span(who.to_owned(), role)];
        head.extend(kind(part, now).unwrap_or_default());
        if part.speaker == Speaker::System && part.chars > FOLDED && !unfolded {
            head.push(span(
                format!("  {}", fill(&text.folded, &[("n", &format::count(part.chars))])),
                Role::Dim,
            ));
            lines.push(head);
            continue;
        }
        lines.push(head);
        body(part, now, room, Role::Text, &mut lines);
    }
    lines
}

pub(super) fn answer(app: &App, r: &RequestRecord, now: Now, room: usize) -> Vec<Vec<Span>> {
    let text = &now.text.request;
    let Some(story) = app.told(r.id) else { return one(&now.text.usage.loading) };
    let mut lines = Vec::new();
    for part in &story.answer {
        match part.kind {
            PartKind::Text if part.speaker != Speaker::Gap => {}
            _ => lines.push(
                kind(part, now).unwrap_or_else(|| vec![span(text.missing.clone(), Role::Dim)]),
            ),
        }
        let role = if part.kind == PartKind::Thinking { Role::Dim } else { Role::Text };
        body(part, now, room, role, &mut lines);
    }
    if lines.is_empty() {
        return one(match (r.is_running(), story.bodies_stored || r.answer_bytes == 0) {
            (true, _) if r.answer_bytes > 0 => &text.listening,
            (true, _) => &text.waiting_text,
            (false, true) => &text.nothing_said,
            (false, false) => &text.not_kept,
        });
    }
    if r.is_running()
        && let Some(last) = lines.last_mut()
    {
        last.push(span("▌", Role::Accent));
    }
    let skip = lines.len().saturating_sub(ANSWER);
    lines.drain(..skip);
    lines
}

pub(super) fn headers(app: &App, id: RequestId, now: Now, room: usize) -> Vec<Vec<Span>> {
    let text = &now.text.request;
    let Some(story) = app.told(id) else { return one(&now.text.usage.loading) };
    if story.request_headers.is_empty() && story.response_headers.is_empty() {
        return one(&text.no_headers);
    }
    let mut lines = Vec::new();
    for (title, headers) in [
        (&text.asked_headers, &story.request_headers),
        (&text.answered_headers, &story.response_headers),
    ] {
        if headers.is_empty() {
            continue;
        }
        lines.push(vec![span(title.clone(), Role::Dim)]);
        for (name, value) in headers {
            let line = format!("{name}: {value}");
            for (at, piece) in prose::wrap(&line, room.saturating_sub(2), 8).into_iter().enumerate()
            {
                match piece.split_once(": ").filter(|_| at == 0) {
                    Some((name, value)) => {
                        lines.push(vec![
                            span(format!("  {name}: "), Role::Accent),
                            span(value.to_owned(), Role::Text),
                        ]);
                    }
                    None => lines.push(vec![span(format!("  {piece}"), Role::Text)]),
                }
            }
        }
    }
    lines
}

/// The text of `aiproxy explain`.
pub(super) fn account(app: &App, r: &RequestRecord, now: Now, room: usize) -> Vec<Vec<Span>> {
    if r.is_running() {
        return one(&now.text.request.running_account);
    }
    match app
        .account
        .as_ref()
        .filter(|account| account.id == r.id)
        .and_then(|account| account.said.as_ref())
    {
        None => one(&now.text.usage.loading),
        Some(Ok(text)) => prose::wrap(text, room, ACCOUNT)
            .into_iter()
            .map(|line| vec![span(line, Role::Text)])
            .collect(),
        Some(Err(why)) => prose::wrap(why, room, PART)
            .into_iter()
            .map(|line| vec![span(line, Role::Warn)])
            .collect(),
    }
}

fn one(text: &str) -> Vec<Vec<Span>> {
    vec![vec![span(text, Role::Dim)]]
}

/// What kind of part it is, where it is no plain text.
fn kind(part: &TranscriptPart, now: Now) -> Option<Vec<Span>> {
    let text = &now.text.request;
    let word = match part.kind {
        PartKind::Call => &text.call,
        PartKind::Media => &text.media,
        PartKind::Refusal => &text.refusal,
        PartKind::Result => &text.result,
        PartKind::Text => return None,
        PartKind::Thinking => &text.thinking,
    };
    let mut spans = vec![span(format!("  {word}"), Role::Dim)];
    if !part.name.is_empty() {
        spans.push(span(format!(" {}", part.name), Role::Accent));
    }
    Some(spans)
}

fn body(part: &TranscriptPart, now: Now, room: usize, role: Role, lines: &mut Vec<Vec<Span>>) {
    let indent = if part.kind == PartKind::Text { 0 } else { 2 };
    let most = if part.speaker == Speaker::Assistant { ANSWER } else { PART };
    let text = if part.kind == PartKind::Media && part.text.is_empty() {
        format!("{} B", format::count(part.chars))
    } else {
        part.text.clone()
    };
    for line in prose::wrap(&text, room.saturating_sub(indent), most) {
        lines.push(vec![span(format!("{}{line}", " ".repeat(indent)), role)]);
    }
    let shown = text.chars().count() as u64;
    if part.chars > shown && part.kind != PartKind::Media && part.speaker != Speaker::Assistant {
        lines.push(vec![span(
            fill(&now.text.request.more, &[("n", &format::count(part.chars))]),
            Role::Dim,
        )]);
    }
}
