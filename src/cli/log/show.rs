//! One request in full: who asked, what was tried when, and how it ended.

use crate::{
    base::clean::clean,
    cli::{
        out::{Paint, Role},
        table::{Cell, Table},
        when,
    },
    events::record::{AttemptRecord, RequestRecord, State},
};

/// The request as a page of text.
pub(super) fn request(r: &RequestRecord, paint: Paint) -> String {
    let (role, state) = match r.state {
        State::Done => (Role::Good, "done"),
        State::Failed => (Role::Bad, "failed"),
        State::Left => (Role::Dim, "the client left"),
        State::Queued => (Role::Warn, "queued"),
        State::Streaming => (Role::Plain, "streaming"),
        State::Waiting => (Role::Plain, "waiting for the upstream"),
    };
    let mut lines = vec![
        ("request", r.id.to_string()),
        ("at", r.at.to_string()),
        ("project", format!("{}, client {}", r.project, r.client)),
        ("asked", format!("{} ({} {}{}), {} bytes", r.asked, r.dialect, r.op, if r.stream { ", stream" } else { "" }, r.request_bytes)),
        ("state", state.to_owned()),
    ];
    let mut add = |name, value: Option<String>| lines.extend(value.map(|value| (name, value)));
    add("session", r.session.as_deref().map(str::to_owned));
    add("status", r.status.map(|s| s.to_string()));
    add("finish", r.finish.as_deref().map(str::to_owned));
    add(
        "took",
        r.duration_ms
            .map(|ms| format!("{}, first token after {}", when::seconds(ms), r.ttft_ms.map_or_else(|| "–".to_owned(), when::seconds))),
    );
    add(
        "tokens",
        r.usage.map(|u| format!("{} in ({} cached), {} out ({} reasoning)", u.input_total(), u.cache_read, u.output_total(), u.reasoning)),
    );
    add("answer", (r.answer_bytes > 0).then(|| format!("{} bytes", r.answer_bytes)));
    add("route", r.reason.as_deref().map(str::to_owned));
    add("error", r.error.as_deref().map(str::to_owned));
    let mut text = String::new();
    for (name, value) in lines {
        let role = if name == "state" || name == "error" { role } else { Role::Plain };
        text.push_str(&format!("{:<9}{}\n", name, paint.paint(role, &clean(&value))));
    }
    if !r.attempts.is_empty() {
        text.push('\n');
        text.push_str(&attempts(&r.attempts, paint));
    }
    text
}

fn attempts(attempts: &[AttemptRecord], paint: Paint) -> String {
    let mut table = Table::new(&["TRY", "UPSTREAM", "KEY", "FINGERPRINT", "MODEL", "START", "HEAD", "END", "STATUS", "OUTCOME"]);
    let ms = |ms: Option<u32>| ms.map_or_else(|| "–".to_owned(), when::seconds);
    for a in attempts {
        let outcome = match (&a.outcome, a.won) {
            (Some(outcome), _) if a.maybe_billed => Cell::new(Role::Warn, format!("{outcome} (may have been billed)")),
            (Some(outcome), _) => Cell::new(Role::Warn, outcome),
            (None, true) => Cell::new(Role::Good, "answered"),
            (None, false) => Cell::new(Role::Plain, "running"),
        };
        table.row(vec![
            a.number.to_string().into(),
            (&a.upstream).into(),
            (&a.key).into(),
            (&a.fingerprint).into(),
            (&a.model).into(),
            when::seconds(a.started_ms).into(),
            ms(a.head_ms).into(),
            ms(a.ended_ms).into(),
            a.status.map_or_else(|| "–".to_owned(), |s| s.to_string()).into(),
            outcome,
        ]);
    }
    table.show(paint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attempt_stands_there_with_its_outcome() {
        let text = request(&super::super::tests::record(), Paint::none());
        for part in
            ["smart (openai chat, stream)", "2.50s, first token after 0.41s", "429 for big-model", "answered", "spare", "88 in (0 cached)"]
        {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
