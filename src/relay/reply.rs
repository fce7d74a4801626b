//! Answers to the client: heads, errors in its dialect, the body type.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body::{Body, Frame, SizeHint};

use super::{
    late::Late,
    pump::{Forward, Pump},
    rounds::Job,
    translated,
};
use crate::{
    base::id::RequestId,
    dialect::registry,
    ir::{fault::ProxyError, op::Dialect},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const ANTHROPIC_ID: HeaderName = HeaderName::from_static("request-id");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const UPSTREAM: HeaderName = HeaderName::from_static("x-aiproxy-upstream");
const MODEL: HeaderName = HeaderName::from_static("x-aiproxy-model");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-aiproxy-attempts");
const LOSSES: HeaderName = HeaderName::from_static("x-aiproxy-losses");
const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// Above this wait an SDK must not sleep by itself.
const LONG_WAIT: Duration = Duration::from_secs(60);

/// The body of any answer of ours.
pub enum ReplyBody {
    Whole(Option<Bytes>),
    Pump(Box<Pump>),
    Forward(Box<Forward>),
    Late(Box<Late>),
    Events(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

/// The upstream's body broke while it was only forwarded: the connection is all that can tell the
/// client.
#[derive(Debug, thiserror::Error)]
#[error("the upstream's answer broke off")]
pub struct BrokeOff;

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BrokeOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        match self.get_mut() {
            Self::Whole(bytes) => {
                Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b))))
            }
            Self::Pump(pump) => pump.poll(cx).map(|bytes| bytes.map(|b| Ok(Frame::data(b)))),
            Self::Forward(forward) => {
                forward.poll(cx).map(|bytes| bytes.map(|b| b.map(Frame::data)))
            }
            Self::Late(late) => late.poll(cx).map(|bytes| bytes.map(|b| Ok(Frame::data(b)))),
            Self::Events(events) => {
                events.as_mut().poll_next(cx).map(|bytes| bytes.map(|b| Ok(Frame::data(b))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            _ => SizeHint::default(),
        }
    }
}

/// A complete body of ours.
#[must_use]
pub fn whole(
    status: http::StatusCode,
    content_type: &'static str,
    id: RequestId,
    body: Bytes,
) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::Whole(Some(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    stamp(response.headers_mut(), id);
    response
}

/// An error in the client's dialect.
#[must_use]
pub fn error(dialect: Dialect, id: RequestId, error: &ProxyError) -> Response<ReplyBody> {
    let text = id.to_string();
    let (status, body) = registry::ingress(dialect).write_error(error, &text);
    let mut response = whole(status, "application/json", id, body);
    let headers = response.headers_mut();
    if let Some(wait) = error.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil() as u64));
    }
    let long = error.retry_after.is_some_and(|wait| wait > LONG_WAIT);
    if let Some(yes) = error.should_retry.or(long.then_some(false)) {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static(if yes { "true" } else { "false" }));
    }
    if dialect == Dialect::Anthropic
        && let Ok(value) = HeaderValue::from_str(&text)
    {
        headers.insert(ANTHROPIC_ID, value);
    }
    response
}

/// Marks an answer with its request id, and keeps browsers from guessing.
pub fn stamp(headers: &mut HeaderMap, id: RequestId) {
    if let Ok(value) = HeaderValue::from_bytes(&id.hex_digits()) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(NOSNIFF, HeaderValue::from_static("nosniff"));
}

/// Names what served the request.
pub(super) fn mark(headers: &mut HeaderMap, job: &Job) {
    stamp(headers, job.ask.id);
    for (name, value) in [(UPSTREAM, job.tally.upstream()), (MODEL, &job.tally.model)] {
        if !value.is_empty()
            && let Ok(value) = HeaderValue::from_str(value)
        {
            headers.insert(name, value);
        }
    }
    let attempts = match job.tally.attempts() {
        1 => HeaderValue::from_static("1"),
        more => HeaderValue::from(more),
    };
    headers.insert(ATTEMPTS, attempts);
    if let Some(admission) = &job.tally.admission {
        admission.mark(headers);
    }
    if !job.losses.is_empty()
        && let Ok(value) = HeaderValue::from_str(&translated::names(&job.losses))
    {
        headers.insert(LOSSES, value);
    }
}
