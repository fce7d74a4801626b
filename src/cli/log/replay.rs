//! `aiproxy log replay ID`: sends a request again, optionally to another model, and shows what
//! differs.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::{
    base::{id::RequestId, sanitize::clean},
    cli::{
        attach::RunningProxy,
        context::CommandContext,
        error::{CliError, ExitStatus},
        log::diff,
        output::{
            self, Styler, TextRole,
            table::{TableCell, TextTable},
            time_format,
        },
    },
    control::{
        action::{Action, ActionReply},
        client::StreamItem,
        request_transcript::{self, PartKind, RequestTranscript, TranscriptPart},
    },
    events::{
        event::EventKind,
        record::{RequestRecord, RequestState},
    },
    ledger::query::RequestDetail,
};

/// Number of polls for the new answer and the delay between them.
const MAX_ANSWER_POLLS: u32 = 10;
const ANSWER_POLL_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// Request id, a unique prefix of it, or `last`
    id: String,
    /// Model to use instead of the original one
    #[arg(long, short, value_name = "MODEL")]
    model: Option<String>,
}

/// Sends the request again, waits for the answer and compares the two.
///
/// # Errors
///
/// No proxy is running, the request was not stored completely, or the second request failed (after
/// the comparison).
pub(super) async fn run(ctx: &CommandContext, args: ReplayArgs) -> Result<ExitStatus, CliError> {
    let proxy = RunningProxy::connect(ctx).await?;
    // Resolve `last` once, before the replay becomes the last request.
    let first: RequestDetail = proxy
        .client
        .get_json(&format!("/aiproxy/v1/requests/{}/full", check_id(&args.id)?))
        .await?;
    let first = first.record;
    // Subscribe before sending the request so that its end is not missed.
    let mut events = proxy.client.events().await?;
    let action = Action::Replay { id: first.id.to_string(), model: args.model };
    let id = match proxy.client.send_action(&action).await? {
        ActionReply { ok: true, id: Some(id), .. } => id,
        ActionReply { text, .. } => return Err(CliError::failed(text.to_string())),
    };
    if output::stderr_is_terminal() {
        output::print_note(&format!("replayed as {id}; waiting for the answer"));
    }
    loop {
        match events.next().await? {
            StreamItem::Event(event) if matches!(&event.kind, EventKind::Ended { id: ended, .. } if *ended == id) =>
            {
                break;
            }
            StreamItem::Event(_) => {}
            StreamItem::Resync => {
                let now: RequestRecord =
                    proxy.client.get_json(&format!("/aiproxy/v1/requests/{id}")).await?;
                if !now.is_running() {
                    break;
                }
            }
        }
    }
    let (before, mut after) =
        (fetch_transcript(&proxy, first.id).await?, fetch_transcript(&proxy, id).await?);
    // The end event arrives shortly before the answer reaches the ledger.
    for _ in 0..MAX_ANSWER_POLLS {
        if after.bodies_stored || !before.bodies_stored {
            break;
        }
        tokio::time::sleep(ANSWER_POLL_INTERVAL).await;
        after = fetch_transcript(&proxy, id).await?;
    }
    let again = after
        .record
        .as_deref()
        .cloned()
        .ok_or_else(|| CliError::failed(format!("request {id} is gone")))?;
    let (old, new) = (answer_text(&before.answer), answer_text(&after.answer));
    let names = (
        format!("{} {}", first.id, served_model(&first)),
        format!("{} {}", again.id, served_model(&again)),
    );
    let difference = diff::unified_diff(&old, &new, (&names.0, &names.1));
    if ctx.global.json {
        output::print_json(&json!({
            "first": { "request": first, "answer": old },
            "again": { "request": again, "answer": new },
            "same": (!old.is_empty() || !new.is_empty()).then_some(old == new),
            "diff": difference,
        }))?;
    } else {
        let styler = Styler::stdout();
        output::print(&comparison_table(&first, &again, styler))?;
        output::print_line("")?;
        if !before.bodies_stored {
            output::print_line("the first answer was not stored; the new answer is:")?;
            output::print(&styled_diff(&new, styler))?;
        } else if old.is_empty() && new.is_empty() {
            output::print_line(&clean(&no_answer_reason(&first, &again)))?;
        } else if difference.is_empty() {
            output::print_line("the answers are identical")?;
        } else {
            output::print(&styled_diff(&difference, styler))?;
        }
    }
    Ok(if again.state == RequestState::Done { ExitStatus::Ok } else { ExitStatus::Failed })
}

/// Why there is no answer to compare.
fn no_answer_reason(first: &RequestRecord, again: &RequestRecord) -> String {
    let why = |r: &RequestRecord| r.error.as_deref().unwrap_or("it contains no text").to_owned();
    match (first.state, again.state) {
        (RequestState::Failed, RequestState::Failed) if why(first) == why(again) => {
            format!("both failed with the same error: {}", why(first))
        }
        (RequestState::Failed, RequestState::Failed) => {
            format!("both failed; first: {}; again: {}", why(first), why(again))
        }
        _ => "neither answer contains text".to_owned(),
    }
}

/// Checks that an id can be used in a path.
fn check_id(id: &str) -> Result<&str, CliError> {
    if id == "last" || (!id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit())) {
        return Ok(id);
    }
    Err(CliError::failed(format!("no request `{}` in the ledger", clean(id)))
        .hint("`aiproxy log` lists the ids; `last` is the newest finished request"))
}

async fn fetch_transcript(
    proxy: &RunningProxy,
    id: RequestId,
) -> Result<RequestTranscript, CliError> {
    Ok(proxy
        .client
        .get_json(&request_transcript::transcript_path(
            id,
            request_transcript::TranscriptQuery { only_answer: true, raw: false },
        ))
        .await?)
}

/// The answer as lines of text.
fn answer_text(parts: &[TranscriptPart]) -> String {
    let mut text = String::new();
    for part in parts {
        match part.kind {
            PartKind::Call => text.push_str(&format!("[tool call {}] {}", part.name, part.text)),
            PartKind::Thinking => text.push_str(&format!("[thinking] {}", part.text)),
            PartKind::Media => text.push_str(&format!("[{}] {}", part.name, part.text)),
            PartKind::Refusal | PartKind::Result | PartKind::Text => text.push_str(&part.text),
        }
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    text
}

fn served_model(r: &RequestRecord) -> String {
    r.serving_attempt().map_or_else(|| r.requested_model.to_string(), |last| last.model.to_string())
}

/// The numbers of both requests, side by side.
fn comparison_table(first: &RequestRecord, again: &RequestRecord, styler: Styler) -> String {
    let mut table = TextTable::new(&["", "FIRST", "AGAIN", "DIFFERENCE"]);
    let none = || "–".to_owned();
    let mut row = |name: &str, of: &dyn Fn(&RequestRecord) -> String, difference: String| {
        table.row(vec![
            TableCell::new(TextRole::Dim, name),
            of(first).into(),
            of(again).into(),
            difference.into(),
        ]);
    };
    row("request", &|r| r.id.to_string(), String::new());
    row("model", &served_model, String::new());
    let upstream_key = |r: &RequestRecord| match r.serving_attempt() {
        Some(last) if last.key.is_empty() => last.upstream.to_string(),
        Some(last) => format!("{}/{}", last.upstream, last.key),
        None => none(),
    };
    row("upstream", &upstream_key, String::new());
    row("status", &|r| r.status.map_or_else(none, |status| status.to_string()), String::new());
    row("finish", &|r| r.finish.as_deref().unwrap_or("–").to_owned(), String::new());
    let duration = |r: &RequestRecord| r.duration_ms;
    row(
        "duration",
        &|r| duration(r).map_or_else(none, time_format::seconds),
        percent_change(duration(first).map(f64::from), duration(again).map(f64::from)),
    );
    let ttft = |r: &RequestRecord| r.ttft_ms;
    row(
        "first token",
        &|r| ttft(r).map_or_else(none, time_format::seconds),
        percent_change(ttft(first).map(f64::from), ttft(again).map(f64::from)),
    );
    let input = |r: &RequestRecord| r.usage.map(|usage| usage.input_total());
    let output = |r: &RequestRecord| r.usage.map(|usage| usage.output_total());
    let number = |n: Option<u64>| n.map_or_else(none, |n| n.to_string());
    row(
        "tokens in",
        &|r| number(input(r)),
        percent_change(input(first).map(|n| n as f64), input(again).map(|n| n as f64)),
    );
    row(
        "tokens out",
        &|r| number(output(r)),
        percent_change(output(first).map(|n| n as f64), output(again).map(|n| n as f64)),
    );
    let usd = |r: &RequestRecord| r.cost.and_then(|cost| cost.usd).map(|usd| usd.dollars());
    row(
        "cost",
        &|r| r.cost.map_or_else(none, |cost| cost.to_string()),
        percent_change(usd(first), usd(again)),
    );
    table.render(styler)
}

/// The change in percent, if both values are known.
fn percent_change(first: Option<f64>, again: Option<f64>) -> String {
    match (first, again) {
        (Some(first), Some(again)) if first > 0.0 => {
            let percent = ((again / first - 1.0) * 100.0).round();
            if percent == 0.0 { "same".to_owned() } else { format!("{percent:+.0} %") }
        }
        _ => String::new(),
    }
}

/// Sanitizes the diff for a terminal and colours its differences.
fn styled_diff(text: &str, styler: Styler) -> String {
    let role = |line: &str| match line.as_bytes().first() {
        Some(b'+') => TextRole::Success,
        Some(b'-') => TextRole::Error,
        Some(b'@') => TextRole::Dim,
        _ => TextRole::Plain,
    };
    text.lines().map(|line| format!("{}\n", styler.style(role(line), &clean(line)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::log::tests::record;

    #[test]
    fn both_requests_are_compared_side_by_side() {
        let first = record();
        let again = RequestRecord {
            duration_ms: Some(1_250),
            usage: first.usage.map(|usage| crate::ir::usage::Usage { output: 60, ..usage }),
            ..record()
        };
        let text = comparison_table(&first, &again, Styler::plain());
        for line in [
            "duration",
            "2.50s",
            "1.25s",
            "-50 %",
            "tokens out",
            "+50 %",
            "tokens in",
            "same",
            "office/spare",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn two_failures_are_not_reported_as_equal_answers() {
        let failed = |error: &str| RequestRecord {
            state: RequestState::Failed,
            error: Some(error.into()),
            ..record()
        };
        assert_eq!(
            no_answer_reason(&failed("503"), &failed("503")),
            "both failed with the same error: 503"
        );
        assert_eq!(
            no_answer_reason(&failed("503"), &failed("429")),
            "both failed; first: 503; again: 429"
        );
        assert_eq!(no_answer_reason(&record(), &record()), "neither answer contains text");
    }
}
