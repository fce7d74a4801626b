//! Builds responses to the client: heads, errors in its dialect, the body type.

pub mod keepalive;
pub mod raw;
pub mod rescue;
pub mod stream;

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body::{Body, Frame, SizeHint};

use crate::relay::{
    attempt::parse_request,
    context::ActiveRequest,
    request::control_headers::PINNED_UPSTREAM_HEADER,
    response::{
        keepalive::KeepAliveBody,
        raw::{BodyAborted, RawBody},
        stream::StreamBody,
    },
};
use crate::{
    base::id::RequestId,
    dialect::registry,
    ir::{fault::ProxyError, op::Dialect},
};

const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");
const ANTHROPIC_ID_HEADER: HeaderName = HeaderName::from_static("request-id");
const SHOULD_RETRY_HEADER: HeaderName = HeaderName::from_static("x-should-retry");
const UPSTREAM_HEADER: HeaderName = PINNED_UPSTREAM_HEADER;
const MODEL_HEADER: HeaderName = HeaderName::from_static("x-aiproxy-model");
const ATTEMPTS_HEADER: HeaderName = HeaderName::from_static("x-aiproxy-attempts");
const LOSSES_HEADER: HeaderName = HeaderName::from_static("x-aiproxy-losses");
const BUFFERING_HEADER: HeaderName = HeaderName::from_static("x-accel-buffering");
const CONTENT_TYPE_OPTIONS_HEADER: HeaderName = HeaderName::from_static("x-content-type-options");

/// Above this wait an SDK must not sleep on its own.
const MAX_SDK_WAIT: Duration = Duration::from_secs(60);

/// The body of any response to a client.
pub enum ResponseBody {
    Full(Option<Bytes>),
    Stream(Box<StreamBody>),
    Raw(Box<RawBody>),
    KeepAlive(Box<KeepAliveBody>),
    Events(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyAborted;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyAborted>>> {
        match self.get_mut() {
            Self::Full(bytes) => {
                Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b))))
            }
            Self::Stream(pump) => pump.poll(cx).map(|bytes| bytes.map(|b| Ok(Frame::data(b)))),
            Self::Raw(forward) => forward.poll(cx).map(|bytes| bytes.map(|b| b.map(Frame::data))),
            Self::KeepAlive(late) => late.poll(cx).map(|bytes| bytes.map(|b| Ok(Frame::data(b)))),
            Self::Events(events) => {
                events.as_mut().poll_next(cx).map(|bytes| bytes.map(|b| Ok(Frame::data(b))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            _ => SizeHint::default(),
        }
    }
}

/// Builds a response with a complete local body.
#[must_use]
pub fn full_response(
    status: http::StatusCode,
    content_type: &'static str,
    id: RequestId,
    body: Bytes,
) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Full(Some(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    set_request_id(response.headers_mut(), id);
    response
}

/// Builds an error in the client's dialect.
#[must_use]
pub fn error_response(
    dialect: Dialect,
    id: RequestId,
    error: &ProxyError,
) -> Response<ResponseBody> {
    let text = id.to_string();
    let (status, body) = registry::ingress(dialect).write_error(error, &text);
    let mut response = full_response(status, "application/json", id, body);
    let headers = response.headers_mut();
    if let Some(wait) = error.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil() as u64));
    }
    let long = error.retry_after.is_some_and(|wait| wait > MAX_SDK_WAIT);
    if let Some(yes) = error.should_retry.or(long.then_some(false)) {
        headers.insert(
            SHOULD_RETRY_HEADER,
            HeaderValue::from_static(if yes { "true" } else { "false" }),
        );
    }
    if dialect == Dialect::Anthropic
        && let Ok(value) = HeaderValue::from_str(&text)
    {
        headers.insert(ANTHROPIC_ID_HEADER, value);
    }
    response
}

/// Sets the request id, and forbids browsers to guess the content type.
pub fn set_request_id(headers: &mut HeaderMap, id: RequestId) {
    if let Ok(value) = HeaderValue::from_bytes(&id.hex_digits()) {
        headers.insert(REQUEST_ID_HEADER, value);
    }
    headers.insert(CONTENT_TYPE_OPTIONS_HEADER, HeaderValue::from_static("nosniff"));
}

/// Asks reverse proxies to send the response on as it arrives.
pub(super) fn set_unbuffered(headers: &mut HeaderMap) {
    headers.insert(BUFFERING_HEADER, HeaderValue::from_static("no"));
}

/// Sets the headers that name the upstream and model of the response.
pub(super) fn set_proxy_headers(headers: &mut HeaderMap, active: &ActiveRequest) {
    set_request_id(headers, active.context.request.id);
    for (name, value) in
        [(UPSTREAM_HEADER, active.recorder.upstream()), (MODEL_HEADER, active.recorder.model())]
    {
        if !value.is_empty()
            && let Ok(value) = HeaderValue::from_str(value)
        {
            headers.insert(name, value);
        }
    }
    let attempts = match active.recorder.attempts() {
        1 => HeaderValue::from_static("1"),
        more => HeaderValue::from(more),
    };
    headers.insert(ATTEMPTS_HEADER, attempts);
    if let Some(admission) = &active.recorder.admission {
        admission.set_rate_limit_headers(headers, active.context.engine.clock.mono());
    }
    if !active.context.losses.is_empty()
        && let Ok(value) =
            HeaderValue::from_str(&parse_request::loss_header(&active.context.losses))
    {
        headers.insert(LOSSES_HEADER, value);
    }
}
