//! One try of one candidate: sent, read as far as failover needs, classified.

use std::{borrow::Cow, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::Instant;

use super::{
    answer::{Committed, Lost, Opaque, Said, Whole, Won},
    body::{self, Limits},
    commit::{self, Unshown},
    prepare::prepare,
    rounds::Job,
    said::Said as Asked,
    small,
    tally::Guard,
    translated, unframe,
};
use crate::{
    config::{
        base_url,
        settings::{Settings, Upstream},
    },
    dialect::{Egress, Framing, flow::ResponseStream, passage::Passthrough, registry},
    ir::{
        fault::{Fault, FaultKind, TransportFault, TransportKind},
        op::Op,
    },
    routing::{
        candidate::{Candidate, Target},
        ending::AttemptEnd,
        health::AttemptTicket,
        outcome,
    },
    upstream::{
        body::UpstreamBody,
        headers, hints,
        send::{UpstreamRequest, UpstreamResponse},
    },
};

/// A stale pooled connection is replaced this often before it counts as a fault.
const STALE: u32 = 3;

/// Tries one candidate.
pub(super) async fn attempt(
    job: &mut Job,
    candidate: &Candidate,
    ticket: AttemptTicket,
    deadline: Instant,
) -> Result<Won, Lost> {
    let mut guard = Guard::new(&job.engine, ticket);
    match go(job, candidate, &guard, deadline).await {
        Ok(Got::Whole { status, headers, body, summary }) => {
            Ok(Won::Whole(Box::new(Whole { status, headers, body, summary, guard })))
        }
        Ok(Got::Stream { status, headers, shown, flow, body, idle }) => {
            let body = (!shown.ended).then_some(body);
            Ok(Won::Stream(Box::new(Committed {
                status,
                headers,
                ready: shown.ready,
                flow,
                body,
                terminal: shown.terminal,
                broke: shown.broke,
                guard,
                idle,
            })))
        }
        Ok(Got::Opaque { status, headers, first, body, idle }) => {
            Ok(Won::Opaque(Box::new(Opaque { status, headers, first, body, guard, idle })))
        }
        Err(said) => {
            let lost = classify(job, candidate, said);
            guard.close(AttemptEnd::Failed(&lost.outcome));
            Err(lost)
        }
    }
}

enum Got {
    Whole {
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
        summary: crate::dialect::AnswerSummary,
    },
    Stream {
        status: StatusCode,
        headers: HeaderMap,
        shown: commit::Shown,
        flow: ResponseStream,
        body: UpstreamBody,
        idle: Duration,
    },
    Opaque {
        status: StatusCode,
        headers: HeaderMap,
        first: Option<Bytes>,
        body: UpstreamBody,
        idle: Duration,
    },
}

/// What came instead of an answer, with the wait that its headers ask for.
struct Failed {
    said: Said,
    hint: Option<Duration>,
}

impl From<TransportFault> for Failed {
    fn from(fault: TransportFault) -> Self {
        Self { said: Said::Transport(fault), hint: None }
    }
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self { said: Said::Fault { fault, body: None }, hint: None }
    }
}

async fn go(
    job: &mut Job,
    candidate: &Candidate,
    guard: &Guard,
    deadline: Instant,
) -> Result<Got, Failed> {
    let target = Arc::clone(&candidate.target);
    let clocks = Clocks::of(job, &target, deadline);
    let answer = send(job, candidate, &target, &clocks).await?;
    job.engine.answered(&target.upstream);
    let egress = registry::egress(target.dialect);
    let status = answer.status;
    let raw = job.ask.endpoint.op == Op::Raw;
    let passes = status.is_success() || raw && passes_raw(status);
    guard.hear(&hints::read_rate_limits(&answer.headers, job.engine.clock.unix()));
    if !passes {
        return Err(refused(job, egress, answer).await);
    }
    guard.note(AttemptEnd::Head2xx);

    let mut out = answer.headers;
    let content_type = out.get(header::CONTENT_TYPE).cloned();
    let content_type = content_type.as_ref().and_then(|v| v.to_str().ok()).unwrap_or("");
    headers::filter_response_headers(&mut out);
    let mut body = answer.body;
    if raw || is_media(content_type, job.ask.endpoint.op) {
        return Ok(Got::Opaque { status, headers: out, first: None, body, idle: clocks.idle });
    }

    let first = first_chunk(&mut body, &clocks, job.ask.stream).await?;
    if first.is_none() && status != StatusCode::OK {
        let message = format!("HTTP {} without an answer", status.as_u16());
        return Err(TransportFault {
            kind: TransportKind::InvalidHttp,
            message,
            may_be_received: true,
        }
        .into());
    }
    // Clients know an answer by this status; some take 206 and the like for failures.
    let status = StatusCode::OK;
    if job.carry.is_some() {
        let came =
            Came { status, headers: out, content_type: content_type.to_owned(), first, body };
        return translate(job, &target, came, &clocks).await;
    }
    let framing = if job.ask.stream { job.ask.framing } else { Framing::Sse };
    let shape = shape(first.as_deref().unwrap_or_default(), framing, content_type);
    let settings = Arc::clone(&job.generation.settings);
    match (job.ask.stream, shape) {
        (true, Shape::Events(framing)) => {
            let mut flow = ResponseStream::Passthrough(Box::new(Passthrough::new(
                job.ask.endpoint.dialect,
                job.ask.endpoint.op,
                framing,
                job.hide_usage,
            )));
            if job.spares.is_some() {
                flow.start_recording();
            }
            let shown =
                commit::hold(&mut flow, &mut body, first, clocks.first_byte_at, clocks.first_byte)
                    .await;
            match shown {
                Ok(shown) => {
                    if framing == Framing::Sse
                        && !content_type.to_ascii_lowercase().contains("event-stream")
                    {
                        out.insert(
                            header::CONTENT_TYPE,
                            HeaderValue::from_static("text/event-stream"),
                        );
                    }
                    Ok(Got::Stream { status, headers: out, shown, flow, body, idle: clocks.idle })
                }
                Err(Unshown::Said(fault)) => Err((*fault).into()),
                Err(Unshown::Transport(fault)) => Err(fault.into()),
            }
        }
        (false, Shape::Events(framing)) => {
            let text =
                body::whole(first, &mut body, &clocks.whole(&settings), &mut job.ask.held).await?;
            let events =
                unframe::events(&text, framing).ok_or_else(|| unreadable(&target.upstream))?;
            let answer = egress.collect_stream(job.ask.endpoint.op, &events)?;
            out.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let summary = egress.read_summary(job.ask.endpoint.op, "application/json", &answer)?;
            Ok(Got::Whole { status, headers: out, body: answer, summary })
        }
        (stream, Shape::Document) => {
            let text =
                body::whole(first, &mut body, &clocks.whole(&settings), &mut job.ask.held).await?;
            let told = match stream
                .then(|| egress.synthesize_stream(job.ask.endpoint.op, &text, job.ask.framing))
            {
                Some(Ok(told)) => told,
                failed => {
                    let summary = egress.read_summary(job.ask.endpoint.op, content_type, &text)?;
                    return match failed {
                        Some(Err(fault)) => Err(fault.into()),
                        _ => Ok(Got::Whole { status, headers: out, body: text, summary }),
                    };
                }
            };
            let mut passage = Box::new(Passthrough::new(
                job.ask.endpoint.dialect,
                job.ask.endpoint.op,
                job.ask.framing,
                false,
            ));
            let mut ready = Vec::new();
            passage.feed(told, &mut ready);
            passage.finish(&mut ready);
            out.insert(header::CONTENT_TYPE, stream_type(job.ask.framing));
            let shown = commit::Shown { ready, ended: true, terminal: true, broke: None };
            let flow = ResponseStream::Passthrough(passage);
            Ok(Got::Stream { status, headers: out, shown, flow, body, idle: clocks.idle })
        }
    }
}

/// An answer of another dialect, as far as it was read.
struct Came {
    status: StatusCode,
    headers: HeaderMap,
    content_type: String,
    first: Option<Bytes>,
    body: UpstreamBody,
}

/// Reads an answer of another dialect and tells it in the client's.
async fn translate(
    job: &mut Job,
    target: &Target,
    came: Came,
    clocks: &Clocks,
) -> Result<Got, Failed> {
    let Came { status, headers, content_type, first, mut body } = came;
    let framing = registry::egress(target.dialect).chat_framing();
    let shape = shape(first.as_deref().unwrap_or_default(), framing, &content_type);
    let kind = if job.ask.stream {
        stream_type(job.ask.framing)
    } else {
        HeaderValue::from_static("application/json")
    };
    let headers = translated::headers(&headers, kind);
    if let (true, Shape::Events(framing)) = (job.ask.stream, &shape) {
        let mut flow = translated::flow(job, target, *framing);
        let shown =
            commit::hold(&mut flow, &mut body, first, clocks.first_byte_at, clocks.first_byte)
                .await;
        return match shown {
            Ok(shown) => Ok(Got::Stream { status, headers, shown, flow, body, idle: clocks.idle }),
            Err(Unshown::Said(fault)) => Err((*fault).into()),
            Err(Unshown::Transport(fault)) => Err(fault.into()),
        };
    }
    let settings = Arc::clone(&job.generation.settings);
    let text = body::whole(first, &mut body, &clocks.whole(&settings), &mut job.ask.held).await?;
    if !matches!(job.said, Some(Asked::Chat(_) | Asked::Compact { .. })) {
        let (body, summary) = small::answer(job, &content_type, &text)?;
        return Ok(Got::Whole { status, headers, body, summary });
    }
    let response = match shape {
        Shape::Events(framing) => translated::gathered(job, target, framing, &text)?,
        Shape::Document => translated::response(job, target, &content_type, &text)?,
    };
    if job.ask.stream {
        let mut ready = Vec::new();
        let flow = translated::told(job, target, &response, &mut ready);
        let shown = commit::Shown { ready, ended: true, terminal: true, broke: None };
        return Ok(Got::Stream { status, headers, shown, flow, body, idle: clocks.idle });
    }
    translated::remember(job, &response);
    let summary = translated::summary(&response);
    Ok(Got::Whole { status, headers, body: translated::written(job, &response), summary })
}

/// The clocks of one attempt.
struct Clocks {
    first_byte: Duration,
    first_byte_at: Instant,
    idle: Duration,
    /// A non-streaming attempt ends here.
    end: Instant,
    /// What that is of the whole, in words.
    share: &'static str,
}

impl Clocks {
    fn of(job: &Job, target: &Target, deadline: Instant) -> Self {
        let timeouts = &target.upstream.timeouts;
        let now = Instant::now();
        let first_byte = job.overrides.first_byte.unwrap_or(timeouts.first_byte);
        let total = job.overrides.total.unwrap_or(timeouts.total);
        // Without a stream an attempt may take half of the whole: a repetition still fits in, and
        // one that hangs is known for it before the client has given up.
        let half = now + total / 2;
        let (end, share) =
            if half < deadline { (half, "half of `total`") } else { (deadline, "`total`") };
        Self {
            share,
            first_byte,
            first_byte_at: if job.ask.stream { now + first_byte } else { end },
            idle: job.overrides.idle.unwrap_or(timeouts.idle),
            end,
        }
    }

    fn whole(&self, settings: &Settings) -> Limits {
        Limits {
            bytes: settings.server.max_response_bytes,
            held: settings.server.max_buffered.unwrap_or(u64::MAX),
            deadline: self.end.max(self.first_byte_at),
            idle: self.idle,
            share: self.share,
        }
    }

    fn late(&self, stream: bool) -> TransportFault {
        if stream {
            return commit::late(self.first_byte);
        }
        let message =
            format!("no answer came in time ({} under [timeouts] for this attempt)", self.share);
        TransportFault { kind: TransportKind::TotalTimeout, message, may_be_received: true }
    }
}

async fn send(
    job: &mut Job,
    candidate: &Candidate,
    target: &Target,
    clocks: &Clocks,
) -> Result<UpstreamResponse, Failed> {
    let Some(end) = target.upstream.endpoint(target.dialect) else {
        let message =
            format!("upstream {} does not speak {}", target.upstream.name, target.dialect);
        return Err(TransportFault {
            kind: TransportKind::Connect,
            message,
            may_be_received: false,
        }
        .into());
    };
    let mut stale = 0;
    loop {
        // Made anew for each sending: that is rare, and a copy for every first one would cost all
        // of them.
        job.carry = None;
        job.losses.clear();
        let prepared = if translated::needed(&job.ask, target) {
            translated::prepare(job, target).unwrap_or_else(|| prepare(&job.ask, target))
        } else {
            prepare(&job.ask, target)
        };
        job.hide_usage = prepared.hide_usage;
        let mut end = Cow::Borrowed(end);
        if prepared.at_host {
            let host = base_url::origin_of(&end.base_url).to_owned();
            end.to_mut().base_url = host;
        }
        let call = UpstreamRequest {
            upstream: &target.upstream,
            endpoint: &end,
            key: (!target.upstream.keys.is_empty()).then_some(candidate.key),
            method: job.ask.method.clone(),
            path: &prepared.path,
            query: prepared.query.as_deref(),
            headers: prepared.headers,
            body: prepared.body,
        };
        match body::within(clocks.first_byte_at, pin!(job.engine.gateway.send(call))).await {
            Some(Ok(answer)) => return Ok(answer),
            Some(Err(fault)) if fault.kind == TransportKind::Stale && stale < STALE => stale += 1,
            Some(Err(fault)) => return Err(fault.into()),
            None => return Err(clocks.late(job.ask.stream).into()),
        }
    }
}

fn unreadable(upstream: &Upstream) -> TransportFault {
    let message = format!("{} answered with a stream that cannot be read", upstream.name);
    TransportFault { kind: TransportKind::InvalidHttp, message, may_be_received: true }
}

/// Reads an error answer.
async fn refused(job: &Job, egress: &'static dyn Egress, answer: UpstreamResponse) -> Failed {
    let status = answer.status.as_u16();
    let hint = hints::read_retry_hints(answer.status, &answer.headers, job.engine.clock.unix())
        .retry_after;
    let content_type = answer
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("")
        .to_owned();
    let body = body::error_body(answer.body).await;
    let fault = egress.read_error(status, &content_type, &body);
    Failed { said: Said::Fault { fault, body: Some(body) }, hint }
}

async fn first_chunk(
    body: &mut UpstreamBody,
    clocks: &Clocks,
    stream: bool,
) -> Result<Option<Bytes>, Failed> {
    match body::within(clocks.first_byte_at, pin!(body::chunk(body))).await {
        Some(None) => Ok(None),
        Some(Some(Ok(data))) => Ok(Some(data)),
        Some(Some(Err(fault))) => Err(fault.into()),
        None => Err(clocks.late(stream).into()),
    }
}

enum Shape {
    Events(Framing),
    Document,
}

/// Looks at the first bytes rather than at the Content-Type, which is often wrong.
fn shape(first: &[u8], framing: Framing, content_type: &str) -> Shape {
    let bytes = first.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(first);
    match bytes.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'{') if framing == Framing::Ndjson => Shape::Events(Framing::Ndjson),
        Some(b'[') if framing == Framing::JsonArray => Shape::Events(Framing::JsonArray),
        Some(b'{' | b'[' | b'<' | b'"' | b'n' | b'0'..=b'9' | b'-') => Shape::Document,
        Some(b'd' | b'e' | b'i' | b'r' | b':') => Shape::Events(Framing::Sse),
        _ if content_type.to_ascii_lowercase().contains("event-stream") => {
            Shape::Events(Framing::Sse)
        }
        _ => Shape::Document,
    }
}

fn stream_type(framing: Framing) -> HeaderValue {
    HeaderValue::from_static(match framing {
        Framing::Sse => "text/event-stream",
        Framing::Ndjson => "application/x-ndjson",
        Framing::JsonArray => "application/json",
    })
}

/// Audio, images and the like: forwarded from the first byte.
fn is_media(content_type: &str, op: Op) -> bool {
    if !matches!(op, Op::Audio | Op::Image) {
        return false;
    }
    let essence = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    !(essence.is_empty() || essence.contains("json"))
}

/// Raw requests see the upstream's own answers, but for those that speak of our key or of its
/// limits.
fn passes_raw(status: StatusCode) -> bool {
    !matches!(status.as_u16(), 401 | 402 | 429) && !status.is_server_error()
}

fn classify(job: &Job, candidate: &Candidate, failed: Failed) -> Lost {
    let upstream = &candidate.target.upstream;
    match failed.said {
        Said::Fault { fault, body } => {
            let retryable = retries(job, upstream, fault.status);
            let hint = failed.hint.filter(|hint| !hint.is_zero());
            let mut fault = fault;
            let rule = match &upstream.rules[..] {
                [] => None,
                rules => {
                    let text = body
                        .as_deref()
                        .map(String::from_utf8_lossy)
                        .unwrap_or_else(|| Cow::Borrowed(&*fault.message));
                    outcome::find_rule(rules, fault.status, &text)
                }
            };
            if let Some(rule) = rule {
                let outcome = outcome::classify_by_rule(rule, &mut fault, hint);
                let may_pass = outcome.retry != outcome::Retry::No;
                return Lost { outcome, said: Said::Fault { fault, body }, may_pass };
            }
            let mut outcome = outcome::classify_fault(&fault, hint, retryable);
            if fault.kind == FaultKind::RateLimited
                && !matches!(outcome.cause.split_once(' '), Some((_, said)) if !said.is_empty())
            {
                outcome.cause = format!("{} for {}", fault.status, candidate.target.model).into();
            }
            let may_pass = matches!(
                fault.kind,
                FaultKind::RateLimited
                    | FaultKind::AccountLimited
                    | FaultKind::Transient
                    | FaultKind::Server
                    | FaultKind::Conflict
            );
            Lost { outcome, said: Said::Fault { fault, body }, may_pass }
        }
        Said::Transport(fault) => {
            let mut outcome = outcome::classify_transport(&fault);
            if job.engine.unreachable(upstream, &fault) {
                outcome = outcome::classify_transport(&TransportFault {
                    kind: TransportKind::NetworkDown,
                    ..fault.clone()
                });
            }
            if job.ask.stream {
                outcome.maybe_billed = false;
            }
            if job.ask.endpoint.op == Op::Raw && fault.may_be_received {
                // A file or a batch may have been made already: never twice.
                outcome.retry = outcome::Retry::No;
            }
            let may_pass = !matches!(fault.kind, TransportKind::TooLarge | TransportKind::Tls);
            Lost { outcome, said: Said::Transport(fault), may_pass }
        }
    }
}

fn retries(job: &Job, upstream: &Upstream, status: u16) -> bool {
    let set = upstream.retry_statuses.as_ref().unwrap_or(&job.generation.settings.retry.statuses);
    set.contains(status) && job.ask.endpoint.op != Op::Raw
}
