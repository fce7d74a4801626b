//! Shows one request in full: its client, its attempts over time, and how it ended.

use clap::ValueEnum;

use crate::{
    base::sanitize::clean,
    cli::output::{
        Styler, TextRole,
        table::{TableCell, TextTable},
        time_format,
    },
    events::{
        ledger_queue::ExchangeSide,
        record::{AttemptRecord, AttemptRole, RequestRecord, RequestState},
    },
    ir::usage::Usage,
    ledger::query::RequestDetail,
};

/// The request body or the response body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum BodySide {
    Answer,
    Request,
}

/// A body as it was stored, with a marker for a gap in the middle.
pub(in crate::cli) fn body_text(full: &RequestDetail, which: BodySide) -> Option<String> {
    let side =
        if which == BodySide::Request { ExchangeSide::Request } else { ExchangeSide::Answer };
    let body = full.bodies.iter().find(|body| body.side == side)?;
    if body.head.is_empty() && body.total > 0 {
        return None;
    }
    let left_out = body.total.saturating_sub((body.head.len() + body.tail.len()) as u64);
    let gap = if body.tail.is_empty() {
        String::new()
    } else {
        format!("\n… about {left_out} bytes were not stored …\n")
    };
    // Model output must not contain control characters for the terminal; line breaks are preserved.
    let text = format!("{}{gap}{}", body.head, body.tail);
    Some(
        text.split_inclusive('\n')
            .map(|line| {
                format!(
                    "{}{}",
                    clean(line.trim_end_matches('\n')),
                    if line.ends_with('\n') { "\n" } else { "" }
                )
            })
            .collect::<String>()
            + "\n",
    )
}

/// Columns of the time axis.
const AXIS_WIDTH: u32 = 40;

/// One bar per attempt on a shared axis: ▒ waits for the head, ░ streams.
pub(in crate::cli) fn waterfall(r: &RequestRecord, styler: Styler) -> String {
    let end = r
        .attempts
        .iter()
        .filter_map(|a| a.ended_ms.or(a.head_ms))
        .chain(r.duration_ms)
        .max()
        .unwrap_or(1)
        .max(1);
    let column = |ms: u32| {
        u32::try_from(u64::from(ms) * u64::from(AXIS_WIDTH) / u64::from(end))
            .unwrap_or(AXIS_WIDTH)
            .min(AXIS_WIDTH) as usize
    };
    let mut text = String::new();
    for a in &r.attempts {
        let ended = a.ended_ms.unwrap_or(end);
        let head = a.head_ms.unwrap_or(ended).clamp(a.started_ms, ended.max(a.started_ms));
        let (from, mid) = (column(a.started_ms), column(head));
        let to = column(ended).max(from + 1);
        let waits = (mid.max(from + usize::from(mid == from && to == from + 1)) - from)
            .max(usize::from(a.head_ms.is_none()));
        let waits = waits.min(to - from);
        let bar =
            format!("{}{}{}", " ".repeat(from), "▒".repeat(waits), "░".repeat(to - from - waits));
        let key = if a.key.is_empty() { String::new() } else { format!("/{}", a.key) };
        let how = match (&a.outcome, a.won, a.status) {
            (Some(outcome), ..) => styler.style(TextRole::Warn, &clean(&outcome.to_string())),
            (None, true, status) => styler.style(
                TextRole::Success,
                &status.map_or_else(|| "answered".to_owned(), |s| s.to_string()),
            ),
            (None, false, _) => "not finished".to_owned(),
        };
        let line = format!(
            "{:>6} │{bar:<width$}│ {} {}{}{}  {how}",
            time_format::seconds(a.started_ms),
            a.number,
            clean(&a.upstream),
            clean(&key),
            task_suffix(a),
            width = AXIS_WIDTH as usize
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The purpose of an attempt, unless it is simply to answer.
fn task_suffix(a: &AttemptRecord) -> String {
    if a.role == AttemptRole::Primary { String::new() } else { format!(" ({})", a.role.name()) }
}

/// A page of text about the request.
pub(in crate::cli) fn request_page(r: &RequestRecord, styler: Styler) -> String {
    let (role, state) = match r.state {
        RequestState::Done => (TextRole::Success, "done"),
        RequestState::Failed => (TextRole::Error, "failed"),
        RequestState::ClientGone => (TextRole::Dim, "the client disconnected"),
        RequestState::Queued => (TextRole::Warn, "queued"),
        RequestState::Streaming => (TextRole::Plain, "streaming"),
        RequestState::Waiting => (TextRole::Plain, "waiting for the upstream"),
    };
    let mut lines = vec![
        ("request", r.id.to_string()),
        ("at", r.at.to_string()),
        ("project", format!("{}, client {}", r.project, r.client)),
        (
            "model",
            format!(
                "{} ({} {}{}), {} bytes",
                r.requested_model,
                r.dialect,
                r.op,
                if r.stream { ", stream" } else { "" },
                r.request_bytes
            ),
        ),
        ("state", state.to_owned()),
    ];
    let mut add = |name, value: Option<String>| lines.extend(value.map(|value| (name, value)));
    add("session", r.session.as_deref().map(str::to_owned));
    add("user", r.user.as_deref().map(str::to_owned));
    add("address", r.ip.map(|ip| ip.to_canonical().to_string()));
    add("status", r.status.map(|s| s.to_string()));
    add("finish", r.finish.as_deref().map(str::to_owned));
    add(
        "duration",
        r.duration_ms.map(|ms| {
            format!(
                "{}, first token after {}",
                time_format::seconds(ms),
                r.ttft_ms.map_or_else(|| "–".to_owned(), time_format::seconds)
            )
        }),
    );
    add(
        "tokens",
        r.usage.map(|u| {
            format!(
                "{} in ({} cached), {} out ({} reasoning)",
                u.input_total(),
                u.cache_read,
                u.output_total(),
                u.reasoning
            )
        }),
    );
    let by_affinity = if r.affinity_cached_tokens() > 0 {
        ", because it went to the account of its conversation"
    } else {
        ""
    };
    let share = |u: &Usage| u.cache_read.saturating_mul(100) / u.input_total().max(1);
    add(
        "cached",
        r.usage
            .filter(|u| u.cache_read > 0)
            .map(|u| format!("{} % of the input{by_affinity}", share(&u))),
    );
    add("cache", r.cache_miss.as_ref().map(|miss| miss.to_string()));
    add("cost", r.cost.map(|cost| cost.to_string()));
    add("answer", (r.answer_bytes > 0).then(|| format!("{} bytes", r.answer_bytes)));
    add("route", r.reason.as_ref().map(ToString::to_string));
    add("error", r.error.as_deref().map(str::to_owned));
    let mut text = String::new();
    for (name, value) in lines {
        let role = if name == "state" || name == "error" { role } else { TextRole::Plain };
        text.push_str(&format!("{:<9}{}\n", name, styler.style(role, &clean(&value))));
    }
    if !r.attempts.is_empty() {
        text.push('\n');
        text.push_str(&attempts_table(&r.attempts, styler));
    }
    text
}

fn attempts_table(attempts: &[AttemptRecord], styler: Styler) -> String {
    let mut table = TextTable::new(&[
        "TRY",
        "UPSTREAM",
        "KEY",
        "FINGERPRINT",
        "MODEL",
        "START",
        "HEAD",
        "END",
        "STATUS",
        "OUTCOME",
    ]);
    let ms = |ms: Option<u32>| ms.map_or_else(|| "–".to_owned(), time_format::seconds);
    for a in attempts {
        let outcome = match (&a.outcome, a.won) {
            (Some(outcome), _) if a.maybe_billed => {
                TableCell::new(TextRole::Warn, format!("{outcome} (may have been billed)"))
            }
            (Some(outcome), _) => TableCell::new(TextRole::Warn, outcome.to_string()),
            (None, true) => TableCell::new(TextRole::Success, "answered"),
            (None, false) => TableCell::new(
                TextRole::Plain,
                if a.ended_ms.is_some() { "not finished" } else { "running" },
            ),
        };
        table.row(vec![
            format!("{}{}", a.number, task_suffix(a)).into(),
            (&a.upstream).into(),
            (&a.key).into(),
            (&a.fingerprint).into(),
            (&a.model).into(),
            time_format::seconds(a.started_ms).into(),
            ms(a.head_ms).into(),
            ms(a.ended_ms).into(),
            a.status.map_or_else(|| "–".to_owned(), |s| s.to_string()).into(),
            outcome,
        ]);
    }
    table.render(styler)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attempt_is_listed_with_its_outcome() {
        let text = request_page(&super::super::tests::record(), Styler::plain());
        for part in [
            "smart (openai chat, stream)",
            "2.50s, first token after 0.41s",
            "429 for big-model",
            "answered",
            "spare",
            "88 in (0 cached)",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn attempts_share_one_time_axis() {
        let text = waterfall(&super::super::tests::record(), Styler::plain());
        let bars: Vec<&str> = text.lines().map(|line| line.split('│').nth(1).unwrap()).collect();
        assert_eq!(bars.len(), 2);
        assert!(bars.iter().all(|bar| bar.chars().count() == AXIS_WIDTH as usize), "{text}");
        assert!(bars[0].trim().starts_with('▒'), "{text}");
        assert!(bars[1].starts_with("  "), "{text}");
        assert!(text.contains("429 for big-model"), "{text}");
    }
}
