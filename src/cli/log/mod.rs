//! `aiproxy log`: prints the history of requests and recent events, follows new ones, shows one
//! request in full, and exports.

pub(super) mod diff;
mod export;
pub(super) mod filter;
mod replay;
pub(super) mod show;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    base::{clock::UnixMillis, sanitize::clean},
    cli::{
        attach::RunningProxy,
        context::CommandContext,
        error::{CliError, ExitStatus},
        ledger_source::LedgerSource,
        output::{self, Styler, TextRole, time_format},
    },
    control::{
        client::StreamItem,
        history::{HistoryQuery, MAX_PAGE},
    },
    events::{
        event::{EventKind, Severity},
        filter::Filter,
        live::Live,
        log_line::LogLine,
        record::{RequestRecord, RequestState},
    },
    ledger::query::RequestDetail,
};

pub(super) const EXAMPLES: &str = "\
FILTER is the same as in the dashboard: words to search for, and any of
  model:gpt upstream:openai key:work project:ide client:aider op:chat state:failed level:warn
  id:01f2a             a prefix of a request id
  body:timeout         text in the stored request or answer (history only)
  status:5xx           the status that the client received
  '>2s' '<500ms'       duration
  'cost>0.01'          cost in dollars
All conditions must match. Quote words with `>` or `<`, which the shell takes as redirections.
With --json each line is one JSON object: {\"request\": …} or {\"event\": …}.

Examples:
  aiproxy log                         the last 50 requests and events
  aiproxy log 'status:5xx >2s'
  aiproxy log --follow project:ide
  aiproxy log --since today 'cost>0.10'
  aiproxy log show last               one request: attempts, times, tokens, reason of the route
  aiproxy log show last --body answer
  aiproxy log replay last --model groq:llama-3.3-70b
  aiproxy log export --since 30d --format csv > requests.csv";

#[derive(Debug, Args)]
pub struct LogArgs {
    #[command(subcommand)]
    command: Option<LogCommand>,
    /// Filter; shows everything if omitted
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// Continue with new requests and events
    #[arg(long, short)]
    follow: bool,
    /// Start: 7d, today, 36h, a date or a time
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// End, in the same forms; a day is included
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    until: Option<String>,
    /// Maximum number of past lines, up to 1000
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(..=1000))]
    limit: u32,
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// Export the history for other programs
    Export(export::ExportArgs),
    /// Send a request again, optionally to another model, and compare answers, tokens, cost and
    /// time
    Replay(replay::ReplayArgs),
    /// Show everything about one request
    Show {
        /// Request id, a unique prefix of it, or `last`
        id: String,
        /// Print only the request body or only the response body
        #[arg(long, value_enum)]
        body: Option<show::BodySide>,
    },
}

/// Prints the log.
///
/// # Errors
///
/// No proxy is running, the filter cannot be parsed, or there is no such request.
pub async fn run(ctx: &CommandContext, args: LogArgs) -> Result<ExitStatus, CliError> {
    let filter = filter::parse_filter(&args.filter)?;
    let styler = Styler::stdout();
    if let Some(LogCommand::Replay(args)) = args.command {
        return replay::run(ctx, args).await;
    }
    let ledger_source = LedgerSource::open(ctx).await?;
    match args.command {
        Some(LogCommand::Export(args)) => return export::run(&ledger_source, args).await,
        Some(LogCommand::Show { id, body }) => {
            return show_request(ctx, &ledger_source, &id, body, styler).await;
        }
        Some(LogCommand::Replay(_)) | None => {}
    }
    if args.follow && filter.body_texts().next().is_some() {
        return Err(CliError::usage(
            "`body:` searches what is stored, and --follow shows what is new",
        )
        .hint("leave out --follow"));
    }
    let printer = LogPrinter { filter, json: ctx.global.json, styler };
    let limit = args.limit as usize;
    let query = HistoryQuery {
        filter: printer.filter.text().to_owned(),
        since: args.since,
        until: args.until,
        before_id: None,
        limit: limit.clamp(1, MAX_PAGE),
    };
    let Some(proxy) = ledger_source.proxy() else {
        if args.follow {
            return Err(crate::cli::attach::not_running_error(ctx).await);
        }
        printer.print_history(
            &Live::default(),
            ledger_source.history(&query).await?.requests,
            limit,
        )?;
        return Ok(ExitStatus::Ok);
    };
    // Subscribe before the snapshot so that no event is missed.
    let mut events = if args.follow { Some(proxy.client.events().await?) } else { None };
    let mut live = proxy.snapshot().await?.live;
    let history = match ledger_source.history(&query).await {
        Ok(page) => page.requests,
        // An invalid query is an error. If the ledger cannot be read, the proxy's memory still
        // provides recent requests.
        Err(error) if query.since.is_some() || query.until.is_some() => return Err(error),
        Err(error) => {
            output::print_note(&format!(
                "note: showing only the requests in the proxy's memory: {error}"
            ));
            Vec::new()
        }
    };
    if query.until.is_some() {
        // What is in memory may be newer, and is in the ledger too.
        printer.print_history(&Live::default(), history, limit)?;
        return Ok(ExitStatus::Ok);
    }
    printer.print_history(&live, history, limit)?;
    while let Some(stream) = &mut events {
        let event = match stream.next().await? {
            StreamItem::Event(event) => event,
            StreamItem::Resync => {
                live = proxy.snapshot().await?.live;
                output::print_note("note: some events were missed");
                continue;
            }
        };
        if event.seq <= live.seq {
            continue;
        }
        live.apply(&event);
        match &event.kind {
            EventKind::Ended { id, .. } => {
                if let Some(record) = live
                    .recent
                    .back()
                    .filter(|record| record.id == *id && printer.filter.matches_request(record))
                {
                    printer.print_request(record)?;
                }
            }
            EventKind::Alert { .. }
            | EventKind::Config { .. }
            | EventKind::Health { .. }
            | EventKind::Notice { .. } => {
                if let Some(line) = live.lines.back() {
                    printer.print_event(line)?;
                }
            }
            _ => {}
        }
    }
    Ok(ExitStatus::Ok)
}

/// Shows one request, from the running proxy or from the ledger.
async fn show_request(
    ctx: &CommandContext,
    ledger_source: &LedgerSource,
    id: &str,
    body: Option<show::BodySide>,
    styler: Styler,
) -> Result<ExitStatus, CliError> {
    let running = match ledger_source.proxy() {
        Some(proxy) => find_running(proxy, id).await?,
        None => None,
    };
    let full = match running {
        Some(record) => RequestDetail {
            record,
            bills: Vec::new(),
            bodies: Vec::new(),
            demo: false,
            replay_of: None,
        },
        None => ledger_source.request_detail(id).await?,
    };
    if let Some(which) = body {
        let text = show::body_text(&full, which).ok_or_else(|| {
            CliError::failed("this body was not stored")
                .hint("`bodies` under [ledger] selects what is stored; the oldest bodies are deleted first")
        })?;
        output::print(&text)?;
    } else if ctx.global.json {
        let mut value = serde_json::to_value(&full.record)
            .map_err(|e| CliError::failed(format!("JSON: {e}")))?;
        if let Some(fields) = value.as_object_mut() {
            fields.insert("parts".to_owned(), json!(full.bills));
            fields.insert("bodies".to_owned(), json!(full.bodies));
        }
        output::print_json(&value)?;
    } else {
        let mut text = show::request_page(&full.record, styler);
        if !full.record.attempts.is_empty() {
            text.push_str(&format!("\n{}", show::waterfall(&full.record, styler)));
        }
        output::print(&text)?;
    }
    Ok(ExitStatus::Ok)
}

async fn find_running(proxy: &RunningProxy, id: &str) -> Result<Option<RequestRecord>, CliError> {
    let live = proxy.snapshot().await?.live;
    Ok(live.find(id).filter(|record| record.is_running()).cloned())
}

struct LogPrinter {
    filter: Filter,
    json: bool,
    styler: Styler,
}

/// One entry of the log.
enum LogEntry<'a> {
    Event(&'a LogLine),
    Request(&'a RequestRecord),
}

impl LogEntry<'_> {
    fn at(&self) -> UnixMillis {
        match self {
            Self::Event(line) => line.at,
            Self::Request(record) => {
                UnixMillis(record.at.0 + i64::from(record.duration_ms.unwrap_or_default()))
            }
        }
    }
}

impl LogPrinter {
    /// Prints the newest past entries, oldest first: requests that the ledger found, and those that
    /// are only in the proxy's memory so far.
    fn print_history(
        &self,
        live: &Live,
        mut history: Vec<RequestRecord>,
        limit: usize,
    ) -> Result<(), CliError> {
        let known: std::collections::HashSet<_> = history.iter().map(|record| record.id).collect();
        let is_new = |record: &&RequestRecord| {
            !known.contains(&record.id) && self.filter.matches_request(record)
        };
        history.extend(live.finished().filter(is_new).cloned());
        // Omit events that repeat a request's own row.
        let events = live
            .lines
            .iter()
            .filter(|line| line.id.is_none() && self.filter.matches_line(line, None))
            .map(LogEntry::Event);
        let requests = history.iter().map(LogEntry::Request);
        let mut entries: Vec<_> = events.chain(requests).collect();
        entries.sort_by_key(LogEntry::at);
        if entries.is_empty() && limit > 0 && !self.json {
            output::print_note(&filter::no_match_message(&self.filter));
        }
        for entry in entries.iter().skip(entries.len().saturating_sub(limit)) {
            match entry {
                LogEntry::Event(line) => self.print_event(line)?,
                LogEntry::Request(record) => self.print_request(record)?,
            }
        }
        Ok(())
    }

    fn print_request(&self, record: &RequestRecord) -> Result<(), CliError> {
        if self.json {
            return output::print_json_line(&json!({ "request": record }));
        }
        output::print_line(&request_line(record, self.styler))
    }

    fn print_event(&self, line: &LogLine) -> Result<(), CliError> {
        if !self.filter.matches_line(line, None) {
            return Ok(());
        }
        if self.json {
            return output::print_json_line(&json!({ "event": line }));
        }
        let role = match line.level {
            Severity::Error => TextRole::Error,
            Severity::Info => TextRole::Dim,
            Severity::Warn => TextRole::Warn,
        };
        output::print_line(&format!(
            "{} {}",
            time_format::date_time(line.at),
            self.styler.style(role, &clean(&line.text))
        ))
    }
}

/// One request on one line.
fn request_line(record: &RequestRecord, styler: Styler) -> String {
    let status = record.status.map_or_else(|| "–".to_owned(), |s| s.to_string());
    let (role, state) = match record.state {
        RequestState::Done => (TextRole::Success, status),
        // It failed after the response head had been sent.
        RequestState::Failed if record.status.is_some_and(|status| status < 400) => {
            (TextRole::Error, format!("{status} broke"))
        }
        RequestState::Failed => (TextRole::Error, status),
        RequestState::ClientGone => (TextRole::Dim, "left".to_owned()),
        RequestState::Queued | RequestState::Streaming | RequestState::Waiting => {
            (TextRole::Plain, "running".to_owned())
        }
    };
    let mut parts =
        vec![time_format::date_time(record.at), record.id.to_string(), styler.style(role, &state)];
    parts.push(format!("{} {}", clean(&record.project), clean(&record.client)));
    parts.push(match record.serving_attempt() {
        Some(last) if last.model != record.requested_model => {
            format!("{} → {}", clean(&record.requested_model), clean(&last.model))
        }
        _ => clean(&record.requested_model).into_owned(),
    });
    if let Some(last) = record.serving_attempt() {
        parts.push(match &*last.key {
            "" => clean(&last.upstream).into_owned(),
            key => format!("{}/{}", clean(&last.upstream), clean(key)),
        });
    }
    if record.attempts.len() > 1 {
        parts.push(format!("{} tries", record.attempts.len()));
    }
    if let Some(ms) = record.duration_ms {
        parts.push(time_format::seconds(ms));
    }
    if let Some(usage) = record.usage {
        parts.push(format!("{}→{} tok", usage.input_total(), usage.output_total()));
    }
    if let Some(cost) = record.cost.filter(|cost| cost.usd.is_none_or(|usd| !usd.is_zero())) {
        parts.push(cost.to_string());
    }
    if let Some(error) = &record.error {
        parts.push(styler.style(TextRole::Error, &clean(error)));
    }
    parts.join("  ")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ir::reason::failure::FailureReason;
    use crate::ir::reason::route::RouteReason;
    use crate::{
        base::id::RequestId,
        events::record::AttemptRecord,
        ir::{
            op::{Dialect, Op},
            usage::Usage,
        },
    };

    pub(in crate::cli) fn record() -> RequestRecord {
        let at = UnixMillis(1_700_000_000_000);
        let attempt = |number, key: &str, outcome: Option<&str>| AttemptRecord {
            number,
            role: crate::events::record::AttemptRole::Primary,
            has_affinity: false,
            upstream: "office".into(),
            key: key.into(),
            fingerprint: "sk-…12ab".into(),
            model: "big-model".into(),
            started_ms: number * 100,
            head_ms: Some(number * 100 + 50),
            ended_ms: Some(number * 100 + 90),
            status: Some(if outcome.is_some() { 429 } else { 200 }),
            outcome: outcome.map(|text| FailureReason::text(text).into()),
            won: outcome.is_none(),
            maybe_billed: false,
        };
        RequestRecord {
            cache_miss: None,
            id: RequestId::new(at),
            at,
            project: "ide".into(),
            client: "aider".into(),
            dialect: Dialect::Openai,
            op: Op::Chat,
            requested_model: "smart".into(),
            stream: true,
            session: None,
            user: None,
            ip: None,
            request_bytes: 1234,
            state: RequestState::Done,
            attempts: vec![
                attempt(1, "main", Some("429 for big-model, cooling 60s")),
                attempt(2, "spare", None),
            ],
            reason: Some(RouteReason::text("spare is next").into()),
            ttft_ms: Some(412),
            duration_ms: Some(2_500),
            status: Some(200),
            usage: Some(Usage { input: 88, output: 40, ..Usage::default() }),
            cost: None,
            finish: Some("stop".into()),
            answer_bytes: 999,
            events: 40,
            error: None,
        }
    }

    #[test]
    fn request_is_printed_as_one_line() {
        let text = request_line(&record(), Styler::plain());
        for part in [
            "ide aider",
            "smart → big-model",
            "office/spare",
            "2 tries",
            "2.50s",
            "88→40 tok",
            "200",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert_eq!(text.lines().count(), 1);
    }
}
