//! Reads a successful response: as far as failover needs it, and in the form that the client expects.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::relay::{
    attempt::{
        classify::AttemptError,
        collect_events,
        deadlines::AttemptDeadlines,
        first_content::{self, FirstContent, NoContent},
        other_ops, read_body,
        result::{AttemptResponse, FullResponse, RawResponse, StreamResponse},
        translate,
    },
    context::RequestContext,
    record::attempt_guard::AttemptGuard,
    request::parsed::ParsedRequest,
};
use crate::{
    config::settings::Upstream,
    dialect::{
        AnswerSummary, Framing, passthrough::Passthrough, registry,
        response_stream::ResponseStream, stored,
    },
    ir::{
        fault::{TransportFault, TransportKind},
        op::Op,
        reason::failure::FailureReason,
    },
    routing::candidate::Target,
    upstream::{body::UpstreamBody, client::UpstreamResponse, headers},
};

/// The head of a response and the body that was not read yet.
pub(super) struct UpstreamHead {
    status: StatusCode,
    headers: HeaderMap,
    content_type: Option<HeaderValue>,
    body: UpstreamBody,
}

impl UpstreamHead {
    pub(super) fn new(response: UpstreamResponse) -> Self {
        let UpstreamResponse { status, headers: mut map, body, .. } = response;
        let content_type = map.get(header::CONTENT_TYPE).cloned();
        headers::filter_response_headers(&mut map);
        Self { status, headers: map, content_type, body }
    }

    fn content_type(&self) -> &str {
        self.content_type.as_ref().and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// Returns whether the body is audio, an image or the like, which is forwarded from the first
    /// byte.
    pub(super) fn is_media(&self, op: Op) -> bool {
        if !matches!(op, Op::Audio | Op::Image) {
            return false;
        }
        let essence = self.content_type().split(';').next().unwrap_or("").trim();
        let essence = essence.to_ascii_lowercase();
        !(essence.is_empty() || essence.contains("json"))
    }

    /// Returns the response whose body is forwarded without parsing.
    pub(super) fn into_raw(self, deadlines: &AttemptDeadlines) -> ReadResponse {
        let content = ReadContent::Raw(self.body);
        let (status, headers) = (self.status, self.headers);
        ReadResponse { status, headers, idle_timeout: deadlines.idle_timeout, content }
    }
}

/// A response as far as it was read; not yet bound to its attempt.
pub(super) struct ReadResponse {
    status: StatusCode,
    headers: HeaderMap,
    idle_timeout: Duration,
    content: ReadContent,
}

enum ReadContent {
    Full { body: Bytes, summary: AnswerSummary },
    Stream { first_content: FirstContent, stream: ResponseStream, body: UpstreamBody },
    Raw(UpstreamBody),
}

impl ReadResponse {
    /// Binds the response to the guard of its attempt.
    pub(super) fn with_guard(self, guard: AttemptGuard) -> AttemptResponse {
        let Self { status, headers, idle_timeout, content } = self;
        match content {
            ReadContent::Full { body, summary } => AttemptResponse::Full(Box::new(FullResponse {
                status,
                headers,
                body,
                summary,
                guard,
            })),
            ReadContent::Stream { first_content: first, stream, body } => {
                AttemptResponse::Stream(Box::new(StreamResponse {
                    status,
                    headers,
                    buffered_frames: first.buffered_frames,
                    stream,
                    body: (!first.ended).then_some(body),
                    terminal_seen: first.terminal_seen,
                    failure: first.failure,
                    guard,
                    idle_timeout,
                }))
            }
            ReadContent::Raw(body) => AttemptResponse::Raw(Box::new(RawResponse {
                status,
                headers,
                body,
                guard,
                idle_timeout,
            })),
        }
    }
}

/// What was read of a body.
pub(super) enum ReadBody {
    /// An event stream that has shown its first content.
    Stream { framing: Framing, stream: ResponseStream, first_content: FirstContent },
    /// A complete body.
    Complete { kind: BodyKind, text: Bytes },
}

impl ReadBody {
    /// Returns the bytes that have to be interpreted at once.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Stream { .. } => 0,
            Self::Complete { text, .. } => text.len(),
        }
    }
}

/// The kind of a body.
pub(super) enum BodyKind {
    Events(Framing),
    Document,
}

/// Reads a stream up to its first content, and any other body to its end. `head` stays usable for
/// [`interpret`].
pub(super) async fn read_body(
    context: &mut RequestContext,
    target: &Target,
    head: &mut UpstreamHead,
    deadlines: &AttemptDeadlines,
) -> Result<ReadBody, AttemptError> {
    let wants_stream = context.request.stream;
    let first = first_chunk(&mut head.body, deadlines, wants_stream).await?;
    if first.is_none() && head.status != StatusCode::OK {
        return Err(empty_response_fault(head.status).into());
    }
    // Clients expect this status; some treat 206 and the like as failures.
    head.status = StatusCode::OK;
    let is_translated = context.attempt_context.is_some();
    let framing = if is_translated {
        registry::egress(target.dialect).chat_framing()
    } else if wants_stream {
        context.request.framing
    } else {
        Framing::Sse
    };
    let kind = sniff_body(first.as_deref().unwrap_or_default(), framing, head.content_type());
    if let (true, &BodyKind::Events(framing)) = (wants_stream, &kind) {
        let mut stream = if is_translated {
            translate::response_stream(context, target, framing)
        } else {
            unchanged_stream(context, framing)
        };
        let first_content = first_content::wait_for_first_content(
            &mut stream,
            &mut head.body,
            first,
            deadlines.first_byte_deadline,
            deadlines.first_byte_timeout,
        )
        .await
        .map_err(|error| match error {
            NoContent::Upstream(fault) => AttemptError::from(*fault),
            NoContent::Transport(fault) => fault.into(),
        })?;
        return Ok(ReadBody::Stream { framing, stream, first_content });
    }
    let limits = deadlines.body_limits(&context.generation.settings);
    let reservation = &mut context.buffer_reservation;
    let text = read_body::read_to_end(first, &mut head.body, &limits, reservation).await?;
    Ok(ReadBody::Complete { kind, text })
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

fn empty_response_fault(status: StatusCode) -> TransportFault {
    let message = format!("HTTP {} without an answer", status.as_u16());
    TransportFault {
        kind: TransportKind::InvalidHttp,
        reason: FailureReason::text(message).into(),
        may_be_received: true,
    }
}

/// Returns the stream that passes a response of the client's dialect unchanged.
fn unchanged_stream(context: &RequestContext, framing: Framing) -> ResponseStream {
    let mut stream = ResponseStream::Passthrough(Box::new(Passthrough::new(
        context.request.endpoint.dialect,
        context.request.endpoint.op,
        framing,
        context.hide_usage,
    )));
    if context.rescue_targets.is_some() {
        stream.start_recording();
    }
    stream
}

/// Returns the response in the form that the client expects.
pub(super) fn interpret(
    context: &RequestContext,
    target: &Target,
    head: UpstreamHead,
    body: ReadBody,
    deadlines: &AttemptDeadlines,
) -> Result<ReadResponse, Box<AttemptError>> {
    let is_translated = context.attempt_context.is_some();
    let mut headers = if is_translated {
        let content_type = if context.request.stream {
            stream_content_type(context.request.framing)
        } else {
            HeaderValue::from_static("application/json")
        };
        translate::response_headers(&head.headers, content_type)
    } else {
        head.headers
    };
    let content_type =
        head.content_type.as_ref().and_then(|value| value.to_str().ok()).unwrap_or("");
    let content = match body {
        ReadBody::Stream { framing, stream, first_content } => {
            if !is_translated
                && framing == Framing::Sse
                && !content_type.to_ascii_lowercase().contains("event-stream")
            {
                headers.insert(header::CONTENT_TYPE, stream_content_type(Framing::Sse));
            }
            ReadContent::Stream { first_content, stream, body: head.body }
        }
        ReadBody::Complete { kind, text } if is_translated => {
            translate_text(context, target, content_type, (kind, text), head.body)?
        }
        ReadBody::Complete { kind, text } => {
            unchanged_text(context, target, content_type, (kind, text), head.body, &mut headers)?
        }
    };
    let idle_timeout = deadlines.idle_timeout;
    Ok(ReadResponse { status: head.status, headers, idle_timeout, content })
}

/// Interprets a complete body of the client's dialect. A client that wants the other form, stream
/// or document, gets that.
fn unchanged_text(
    context: &RequestContext,
    target: &Target,
    content_type: &str,
    (kind, text): (BodyKind, Bytes),
    body: UpstreamBody,
    headers: &mut HeaderMap,
) -> Result<ReadContent, Box<AttemptError>> {
    let (egress, request) = (registry::egress(target.dialect), &context.request);
    let (op, dialect) = (request.endpoint.op, request.endpoint.dialect);
    match kind {
        BodyKind::Events(framing) => {
            let events = collect_events::collect_events(&text, framing)
                .ok_or_else(|| unreadable_stream(&target.upstream))?;
            let answer = egress.collect_stream(op, &events)?;
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let summary = egress.read_summary(op, "application/json", &answer)?;
            Ok(ReadContent::Full { body: answer, summary })
        }
        BodyKind::Document if request.stream => {
            let frames = match egress.synthesize_stream(op, &text, request.framing) {
                Ok(frames) => frames,
                Err(fault) => {
                    // An error inside the body is the better explanation.
                    egress.read_summary(op, content_type, &text)?;
                    return Err(fault.into());
                }
            };
            let mut passthrough = Box::new(Passthrough::new(dialect, op, request.framing, false));
            let mut ready = Vec::new();
            passthrough.feed(frames, &mut ready);
            passthrough.finish(&mut ready);
            headers.insert(header::CONTENT_TYPE, stream_content_type(request.framing));
            let stream = ResponseStream::Passthrough(passthrough);
            Ok(ReadContent::Stream { first_content: complete_stream(ready), stream, body })
        }
        BodyKind::Document => {
            let summary = egress.read_summary(op, content_type, &text)?;
            Ok(ReadContent::Full { body: text, summary })
        }
    }
}

/// Translates a complete body of another dialect.
fn translate_text(
    context: &RequestContext,
    target: &Target,
    content_type: &str,
    (kind, text): (BodyKind, Bytes),
    body: UpstreamBody,
) -> Result<ReadContent, Box<AttemptError>> {
    if !matches!(context.parsed, Some(ParsedRequest::Chat(_) | ParsedRequest::Compact { .. })) {
        let (body, summary) = other_ops::translate_response(context, content_type, &text)?;
        return Ok(ReadContent::Full { body, summary });
    }
    let response = match kind {
        BodyKind::Events(framing) => translate::from_events(context, target, framing, &text)?,
        BodyKind::Document => translate::read_response(context, target, content_type, &text)?,
    };
    if translate::is_summary_missing(context, &response) {
        return Err(stored::missing_summary_fault().into());
    }
    if context.request.stream {
        let mut ready = Vec::new();
        let stream = translate::as_stream(context, target, &response, &mut ready);
        return Ok(ReadContent::Stream { first_content: complete_stream(ready), stream, body });
    }
    translate::store_response(context, &response);
    let summary = translate::summarize(&response);
    Ok(ReadContent::Full { body: translate::write_response(context, &response), summary })
}

/// Returns the state of a stream whose frames are all there.
fn complete_stream(buffered_frames: Vec<Bytes>) -> FirstContent {
    FirstContent { buffered_frames, ended: true, terminal_seen: true, failure: None }
}

fn unreadable_stream(upstream: &Upstream) -> TransportFault {
    let message = format!("{} answered with a stream that cannot be read", upstream.name);
    TransportFault {
        kind: TransportKind::InvalidHttp,
        reason: FailureReason::text(message).into(),
        may_be_received: true,
    }
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
