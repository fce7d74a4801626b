//! Runs one attempt at one candidate: sends it, reads as far as failover needs, classifies the
//! result.

pub mod build_request;
pub mod collect_events;
pub mod encode;
pub mod first_content;
pub mod other_ops;
pub mod parse_request;
pub mod read_body;
pub mod result;
pub mod translate;

use std::{borrow::Cow, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::Instant;

use crate::relay::{
    attempt::{
        build_request::build_request,
        first_content::NoContent,
        read_body::BodyLimits,
        result::{
            AttemptFailure, AttemptResponse, FailureSource, FullResponse, RawResponse,
            StreamResponse,
        },
    },
    context::RequestContext,
    record::attempt_guard::{self, AttemptGuard},
    request::parsed::ParsedRequest as Asked,
};
use crate::{
    config::{
        base_url,
        settings::{Settings, Upstream},
    },
    dialect::{
        Egress, Framing, passthrough::Passthrough, registry, response_stream::ResponseStream,
    },
    ir::{
        fault::{Fault, FaultKind, TransportFault, TransportKind},
        op::Op,
    },
    routing::{
        candidate::{Candidate, Target},
        health::{attempt::AttemptTicket, record::AttemptEnd},
        outcome,
    },
    upstream::{
        body::UpstreamBody,
        client::{UpstreamRequest, UpstreamResponse},
        headers, retry_headers,
    },
};

/// A stale pooled connection is replaced at most this often before it counts as a fault.
const MAX_STALE_RETRIES: u32 = 3;

/// Runs one attempt at one candidate.
pub(super) async fn attempt_candidate(
    context: &mut RequestContext,
    candidate: &Candidate,
    ticket: AttemptTicket,
    deadline: Instant,
) -> Result<AttemptResponse, AttemptFailure> {
    let mut guard = AttemptGuard::new(&context.engine, ticket);
    match run_attempt(context, candidate, &guard, deadline).await {
        Ok(ReadResponse::Full { status, headers, body, summary }) => {
            Ok(AttemptResponse::Full(Box::new(FullResponse {
                status,
                headers,
                body,
                summary,
                guard,
            })))
        }
        Ok(ReadResponse::Stream {
            status,
            headers,
            first_content: shown,
            stream: flow,
            body,
            idle_timeout: idle,
        }) => {
            let body = (!shown.ended).then_some(body);
            Ok(AttemptResponse::Stream(Box::new(StreamResponse {
                status,
                headers,
                buffered_frames: shown.buffered_frames,
                stream: flow,
                body,
                terminal_seen: shown.terminal_seen,
                failure: shown.failure,
                guard,
                idle_timeout: idle,
            })))
        }
        Ok(ReadResponse::Raw { status, headers, first_chunk: first, body, idle_timeout: idle }) => {
            Ok(AttemptResponse::Raw(Box::new(RawResponse {
                status,
                headers,
                first_chunk: first,
                body,
                guard,
                idle_timeout: idle,
            })))
        }
        Err(error) => {
            let failure = classify_failure(context, candidate, error);
            guard.finish(AttemptEnd::Failed(&failure.outcome));
            Err(failure)
        }
    }
}

enum ReadResponse {
    Full {
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
        summary: crate::dialect::AnswerSummary,
    },
    Stream {
        status: StatusCode,
        headers: HeaderMap,
        first_content: first_content::FirstContent,
        stream: ResponseStream,
        body: UpstreamBody,
        idle_timeout: Duration,
    },
    Raw {
        status: StatusCode,
        headers: HeaderMap,
        first_chunk: Option<Bytes>,
        body: UpstreamBody,
        idle_timeout: Duration,
    },
}

/// The error of an attempt, with the wait that the response headers ask for.
struct AttemptError {
    source: FailureSource,
    retry_after: Option<Duration>,
}

impl From<TransportFault> for AttemptError {
    fn from(fault: TransportFault) -> Self {
        Self { source: FailureSource::Transport(fault), retry_after: None }
    }
}

impl From<Fault> for AttemptError {
    fn from(fault: Fault) -> Self {
        Self { source: FailureSource::Upstream { fault, body: None }, retry_after: None }
    }
}

async fn run_attempt(
    context: &mut RequestContext,
    candidate: &Candidate,
    guard: &AttemptGuard,
    deadline: Instant,
) -> Result<ReadResponse, AttemptError> {
    let target = Arc::clone(&candidate.target);
    let deadlines = AttemptDeadlines::new(context, &target, deadline);
    let answer = send_request(context, candidate, &target, &deadlines).await?;
    attempt_guard::record_reachable(&context.engine, &target.upstream);
    let egress = registry::egress(target.dialect);
    let status = answer.status;
    let raw = context.request.endpoint.op == Op::Raw;
    let passes = status.is_success() || raw && forwards_status(status);
    guard.record_rate_limits(&retry_headers::read_rate_limits(
        &answer.headers,
        context.engine.clock.unix(),
    ));
    if !passes {
        return Err(read_error_response(context, egress, answer).await);
    }
    guard.record(AttemptEnd::Head2xx);

    let mut out = answer.headers;
    let content_type = out.get(header::CONTENT_TYPE).cloned();
    let content_type = content_type.as_ref().and_then(|v| v.to_str().ok()).unwrap_or("");
    headers::filter_response_headers(&mut out);
    let mut body = answer.body;
    if raw || is_media(content_type, context.request.endpoint.op) {
        return Ok(ReadResponse::Raw {
            status,
            headers: out,
            first_chunk: None,
            body,
            idle_timeout: deadlines.idle_timeout,
        });
    }

    let first = first_chunk(&mut body, &deadlines, context.request.stream).await?;
    if first.is_none() && status != StatusCode::OK {
        let message = format!("HTTP {} without an answer", status.as_u16());
        return Err(TransportFault {
            kind: TransportKind::InvalidHttp,
            message,
            may_be_received: true,
        }
        .into());
    }
    // Clients expect this status; some treat 206 and the like as failures.
    let status = StatusCode::OK;
    if context.attempt_context.is_some() {
        let head = UpstreamHead {
            status,
            headers: out,
            content_type: content_type.to_owned(),
            first_chunk: first,
            body,
        };
        return translate_response(context, &target, head, &deadlines).await;
    }
    let framing = if context.request.stream { context.request.framing } else { Framing::Sse };
    let shape = sniff_body(first.as_deref().unwrap_or_default(), framing, content_type);
    let settings = Arc::clone(&context.generation.settings);
    match (context.request.stream, shape) {
        (true, BodyKind::Events(framing)) => {
            let mut flow = ResponseStream::Passthrough(Box::new(Passthrough::new(
                context.request.endpoint.dialect,
                context.request.endpoint.op,
                framing,
                context.hide_usage,
            )));
            if context.rescue_targets.is_some() {
                flow.start_recording();
            }
            let shown = first_content::wait_for_first_content(
                &mut flow,
                &mut body,
                first,
                deadlines.first_byte_deadline,
                deadlines.first_byte_timeout,
            )
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
                    Ok(ReadResponse::Stream {
                        status,
                        headers: out,
                        first_content: shown,
                        stream: flow,
                        body,
                        idle_timeout: deadlines.idle_timeout,
                    })
                }
                Err(NoContent::Upstream(fault)) => Err((*fault).into()),
                Err(NoContent::Transport(fault)) => Err(fault.into()),
            }
        }
        (false, BodyKind::Events(framing)) => {
            let text = read_body::read_to_end(
                first,
                &mut body,
                &deadlines.body_limits(&settings),
                &mut context.request.buffer_reservation,
            )
            .await?;
            let events = collect_events::collect_events(&text, framing)
                .ok_or_else(|| unreadable_stream(&target.upstream))?;
            let answer = egress.collect_stream(context.request.endpoint.op, &events)?;
            out.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let summary =
                egress.read_summary(context.request.endpoint.op, "application/json", &answer)?;
            Ok(ReadResponse::Full { status, headers: out, body: answer, summary })
        }
        (stream, BodyKind::Document) => {
            let text = read_body::read_to_end(
                first,
                &mut body,
                &deadlines.body_limits(&settings),
                &mut context.request.buffer_reservation,
            )
            .await?;
            let frames = match stream.then(|| {
                egress.synthesize_stream(
                    context.request.endpoint.op,
                    &text,
                    context.request.framing,
                )
            }) {
                Some(Ok(frames)) => frames,
                failed => {
                    let summary =
                        egress.read_summary(context.request.endpoint.op, content_type, &text)?;
                    return match failed {
                        Some(Err(fault)) => Err(fault.into()),
                        _ => Ok(ReadResponse::Full { status, headers: out, body: text, summary }),
                    };
                }
            };
            let mut passage = Box::new(Passthrough::new(
                context.request.endpoint.dialect,
                context.request.endpoint.op,
                context.request.framing,
                false,
            ));
            let mut ready = Vec::new();
            passage.feed(frames, &mut ready);
            passage.finish(&mut ready);
            out.insert(header::CONTENT_TYPE, stream_content_type(context.request.framing));
            let shown = first_content::FirstContent {
                buffered_frames: ready,
                ended: true,
                terminal_seen: true,
                failure: None,
            };
            let flow = ResponseStream::Passthrough(passage);
            Ok(ReadResponse::Stream {
                status,
                headers: out,
                first_content: shown,
                stream: flow,
                body,
                idle_timeout: deadlines.idle_timeout,
            })
        }
    }
}

/// A response of another dialect, as far as it was read.
struct UpstreamHead {
    status: StatusCode,
    headers: HeaderMap,
    content_type: String,
    first_chunk: Option<Bytes>,
    body: UpstreamBody,
}

/// Reads a response of another dialect and writes it in the client's.
async fn translate_response(
    context: &mut RequestContext,
    target: &Target,
    head: UpstreamHead,
    deadlines: &AttemptDeadlines,
) -> Result<ReadResponse, AttemptError> {
    let UpstreamHead { status, headers, content_type, first_chunk: first, mut body } = head;
    let framing = registry::egress(target.dialect).chat_framing();
    let shape = sniff_body(first.as_deref().unwrap_or_default(), framing, &content_type);
    let kind = if context.request.stream {
        stream_content_type(context.request.framing)
    } else {
        HeaderValue::from_static("application/json")
    };
    let headers = translate::response_headers(&headers, kind);
    if let (true, BodyKind::Events(framing)) = (context.request.stream, &shape) {
        let mut flow = translate::response_stream(context, target, *framing);
        let shown = first_content::wait_for_first_content(
            &mut flow,
            &mut body,
            first,
            deadlines.first_byte_deadline,
            deadlines.first_byte_timeout,
        )
        .await;
        return match shown {
            Ok(shown) => Ok(ReadResponse::Stream {
                status,
                headers,
                first_content: shown,
                stream: flow,
                body,
                idle_timeout: deadlines.idle_timeout,
            }),
            Err(NoContent::Upstream(fault)) => Err((*fault).into()),
            Err(NoContent::Transport(fault)) => Err(fault.into()),
        };
    }
    let settings = Arc::clone(&context.generation.settings);
    let text = read_body::read_to_end(
        first,
        &mut body,
        &deadlines.body_limits(&settings),
        &mut context.request.buffer_reservation,
    )
    .await?;
    if !matches!(context.parsed, Some(Asked::Chat(_) | Asked::Compact { .. })) {
        let (body, summary) = other_ops::translate_response(context, &content_type, &text)?;
        return Ok(ReadResponse::Full { status, headers, body, summary });
    }
    let response = match shape {
        BodyKind::Events(framing) => translate::from_events(context, target, framing, &text)?,
        BodyKind::Document => translate::read_response(context, target, &content_type, &text)?,
    };
    if context.request.stream {
        let mut ready = Vec::new();
        let flow = translate::as_stream(context, target, &response, &mut ready);
        let shown = first_content::FirstContent {
            buffered_frames: ready,
            ended: true,
            terminal_seen: true,
            failure: None,
        };
        return Ok(ReadResponse::Stream {
            status,
            headers,
            first_content: shown,
            stream: flow,
            body,
            idle_timeout: deadlines.idle_timeout,
        });
    }
    translate::store_response(context, &response);
    let summary = translate::summarize(&response);
    Ok(ReadResponse::Full {
        status,
        headers,
        body: translate::write_response(context, &response),
        summary,
    })
}

/// The deadlines of one attempt.
struct AttemptDeadlines {
    first_byte_timeout: Duration,
    first_byte_deadline: Instant,
    idle_timeout: Duration,
    /// A non-streaming attempt ends here.
    total_deadline: Instant,
    /// Names the deadline's share of the total timeout.
    deadline_label: &'static str,
}

impl AttemptDeadlines {
    fn new(context: &RequestContext, target: &Target, deadline: Instant) -> Self {
        let timeouts = &target.upstream.timeouts;
        let now = Instant::now();
        let first_byte_timeout = context.overrides.first_byte.unwrap_or(timeouts.first_byte);
        let total = context.overrides.total.unwrap_or(timeouts.total);
        // A non-streaming attempt may take half of the total timeout. A hanging attempt then fails
        // while there is still time for another before the client times out.
        let half = now + total / 2;
        let (total_deadline, deadline_label) =
            if half < deadline { (half, "half of `total`") } else { (deadline, "`total`") };
        Self {
            deadline_label,
            first_byte_timeout,
            first_byte_deadline: if context.request.stream {
                now + first_byte_timeout
            } else {
                total_deadline
            },
            idle_timeout: context.overrides.idle.unwrap_or(timeouts.idle),
            total_deadline,
        }
    }

    fn body_limits(&self, settings: &Settings) -> BodyLimits {
        BodyLimits {
            max_bytes: settings.server.max_response_bytes,
            buffer_limit: settings.server.max_buffered.unwrap_or(u64::MAX),
            deadline: self.total_deadline.max(self.first_byte_deadline),
            idle_timeout: self.idle_timeout,
            deadline_label: self.deadline_label,
        }
    }

    fn no_answer_fault(&self, stream: bool) -> TransportFault {
        if stream {
            return first_content::first_byte_timeout(self.first_byte_timeout);
        }
        let message = format!(
            "no answer came in time ({} under [timeouts] for this attempt)",
            self.deadline_label
        );
        TransportFault { kind: TransportKind::TotalTimeout, message, may_be_received: true }
    }
}

async fn send_request(
    context: &mut RequestContext,
    candidate: &Candidate,
    target: &Target,
    deadlines: &AttemptDeadlines,
) -> Result<UpstreamResponse, AttemptError> {
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
        // Built again for each sending. Resending is rare, and a copy for every first sending would
        // cost every request.
        context.attempt_context = None;
        context.losses.clear();
        let prepared = if translate::is_needed(&context.request, target) {
            translate::build_request(context, target)
                .unwrap_or_else(|| build_request(&context.request, target))
        } else {
            build_request(&context.request, target)
        };
        context.hide_usage = prepared.hide_usage;
        let mut end = Cow::Borrowed(end);
        if prepared.from_origin {
            let host = base_url::origin_of(&end.base_url).to_owned();
            end.to_mut().base_url = host;
        }
        let call = UpstreamRequest {
            upstream: &target.upstream,
            endpoint: &end,
            key: (!target.upstream.keys.is_empty()).then_some(candidate.key),
            method: context.request.method.clone(),
            path: &prepared.path,
            query: prepared.query.as_deref(),
            headers: prepared.headers,
            body: prepared.body,
        };
        match read_body::timeout_with_grace(
            deadlines.first_byte_deadline,
            pin!(context.engine.upstream_client.send(call)),
        )
        .await
        {
            Some(Ok(answer)) => return Ok(answer),
            Some(Err(fault)) if fault.kind == TransportKind::Stale && stale < MAX_STALE_RETRIES => {
                stale += 1;
            }
            Some(Err(fault)) => return Err(fault.into()),
            None => return Err(deadlines.no_answer_fault(context.request.stream).into()),
        }
    }
}

fn unreadable_stream(upstream: &Upstream) -> TransportFault {
    let message = format!("{} answered with a stream that cannot be read", upstream.name);
    TransportFault { kind: TransportKind::InvalidHttp, message, may_be_received: true }
}

/// Reads an error response.
async fn read_error_response(
    context: &RequestContext,
    egress: &'static dyn Egress,
    answer: UpstreamResponse,
) -> AttemptError {
    let status = answer.status.as_u16();
    let hint = retry_headers::read_retry_hints(
        answer.status,
        &answer.headers,
        context.engine.clock.unix(),
    )
    .retry_after;
    let content_type = answer
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("")
        .to_owned();
    let body = read_body::read_error_body(answer.body).await;
    let fault = egress.read_error(status, &content_type, &body);
    AttemptError { source: FailureSource::Upstream { fault, body: Some(body) }, retry_after: hint }
}

async fn first_chunk(
    body: &mut UpstreamBody,
    deadlines: &AttemptDeadlines,
    stream: bool,
) -> Result<Option<Bytes>, AttemptError> {
    match read_body::timeout_with_grace(
        deadlines.first_byte_deadline,
        pin!(read_body::next_chunk(body)),
    )
    .await
    {
        Some(None) => Ok(None),
        Some(Some(Ok(data))) => Ok(Some(data)),
        Some(Some(Err(fault))) => Err(fault.into()),
        None => Err(deadlines.no_answer_fault(stream).into()),
    }
}

enum BodyKind {
    Events(Framing),
    Document,
}

/// Detects the kind of body from its first bytes, because Content-Type is often wrong.
fn sniff_body(first: &[u8], framing: Framing, content_type: &str) -> BodyKind {
    let bytes = first.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(first);
    match bytes.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'{') if framing == Framing::Ndjson => BodyKind::Events(Framing::Ndjson),
        Some(b'[') if framing == Framing::JsonArray => BodyKind::Events(Framing::JsonArray),
        Some(b'{' | b'[' | b'<' | b'"' | b'n' | b'0'..=b'9' | b'-') => BodyKind::Document,
        Some(b'd' | b'e' | b'i' | b'r' | b':') => BodyKind::Events(Framing::Sse),
        _ if content_type.to_ascii_lowercase().contains("event-stream") => {
            BodyKind::Events(Framing::Sse)
        }
        _ => BodyKind::Document,
    }
}

fn stream_content_type(framing: Framing) -> HeaderValue {
    HeaderValue::from_static(match framing {
        Framing::Sse => "text/event-stream",
        Framing::Ndjson => "application/x-ndjson",
        Framing::JsonArray => "application/json",
    })
}

/// Returns whether the response is audio, an image or the like, which is forwarded from the first
/// byte.
fn is_media(content_type: &str, op: Op) -> bool {
    if !matches!(op, Op::Audio | Op::Image) {
        return false;
    }
    let essence = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    !(essence.is_empty() || essence.contains("json"))
}

/// Returns whether a raw request gets the upstream's own response. Statuses about aiproxy's key or
/// its limits are not forwarded.
fn forwards_status(status: StatusCode) -> bool {
    !matches!(status.as_u16(), 401 | 402 | 429) && !status.is_server_error()
}

fn classify_failure(
    context: &RequestContext,
    candidate: &Candidate,
    failed: AttemptError,
) -> AttemptFailure {
    let upstream = &candidate.target.upstream;
    match failed.source {
        FailureSource::Upstream { fault, body } => {
            let retryable = is_retryable_status(context, upstream, fault.status);
            let hint = failed.retry_after.filter(|hint| !hint.is_zero());
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
                return AttemptFailure {
                    outcome,
                    source: FailureSource::Upstream { fault, body },
                    may_recover: may_pass,
                };
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
            AttemptFailure {
                outcome,
                source: FailureSource::Upstream { fault, body },
                may_recover: may_pass,
            }
        }
        FailureSource::Transport(fault) => {
            let mut outcome = outcome::classify_transport(&fault);
            if attempt_guard::record_unreachable(&context.engine, upstream, &fault) {
                outcome = outcome::classify_transport(&TransportFault {
                    kind: TransportKind::NetworkDown,
                    ..fault.clone()
                });
            }
            if context.request.stream {
                outcome.maybe_billed = false;
            }
            if context.request.endpoint.op == Op::Raw && fault.may_be_received {
                // The upstream may have created a file or a batch already, so never send this
                // twice.
                outcome.retry = outcome::Retry::No;
            }
            let may_pass = !matches!(fault.kind, TransportKind::TooLarge | TransportKind::Tls);
            AttemptFailure {
                outcome,
                source: FailureSource::Transport(fault),
                may_recover: may_pass,
            }
        }
    }
}

fn is_retryable_status(context: &RequestContext, upstream: &Upstream, status: u16) -> bool {
    let set =
        upstream.retry_statuses.as_ref().unwrap_or(&context.generation.settings.retry.statuses);
    set.contains(status) && context.request.endpoint.op != Op::Raw
}
