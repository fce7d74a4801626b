//! Delivers a decided answer: at once or piece by piece, complete or cut.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};

use crate::demo::{answers::DemoAnswer, call::format_id};
use crate::{
    base::{clock::UnixMillis, framing::Framing},
    ir::{
        fault::{TransportFault, TransportKind},
        op::Dialect,
        reason::failure::FailureReason,
    },
};

const SSE: &str = "text/event-stream; charset=utf-8";
const NDJSON: &str = "application/x-ndjson";
const JSON: &str = "application/json; charset=utf-8";

/// A non-streaming answer is delayed as long as its stream would take, up to this limit.
const MAX_HEAD_DELAY: Duration = Duration::from_secs(2);

/// A complete answer with its timing.
pub(super) struct DemoReply {
    status: StatusCode,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    head_delay: Duration,
    pieces: Vec<BodyPiece>,
    cut: bool,
}

/// Bytes of a body, and the delay after the previous piece.
pub(super) struct BodyPiece {
    delay: Duration,
    bytes: Bytes,
}

impl BodyPiece {
    pub(super) fn delayed(delay: Duration, bytes: Bytes) -> Self {
        Self { delay, bytes }
    }
}

impl DemoReply {
    /// Creates a JSON answer without any delay.
    pub(super) fn json(body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: JSON,
            headers: Vec::new(),
            head_delay: Duration::ZERO,
            pieces: vec![BodyPiece::delayed(Duration::ZERO, body.into())],
            cut: false,
        }
    }

    /// Creates a non-streaming JSON answer.
    pub(super) fn full(answer: &DemoAnswer, body: Bytes) -> Self {
        let mut reply = Self::json(body);
        reply.head_delay = answer.duration().min(MAX_HEAD_DELAY);
        if answer.cut {
            let text = &reply.pieces[0].bytes;
            reply.pieces =
                vec![BodyPiece { delay: Duration::ZERO, bytes: text.slice(..text.len() / 2) }];
            reply.cut = true;
        }
        reply
    }

    /// Creates a streaming answer.
    pub(super) fn streaming(
        answer: &DemoAnswer,
        framing: Framing,
        mut pieces: Vec<BodyPiece>,
    ) -> Self {
        if answer.cut {
            pieces.truncate(pieces.len().div_ceil(2));
        }
        Self {
            status: StatusCode::OK,
            content_type: match framing {
                Framing::JsonArray => JSON,
                Framing::Ndjson => NDJSON,
                Framing::Sse => SSE,
            },
            headers: Vec::new(),
            head_delay: Duration::ZERO,
            pieces,
            cut: answer.cut,
        }
    }

    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    pub(super) fn with_retry_after(mut self, seconds: Option<u64>) -> Self {
        self.headers.extend(seconds.map(|seconds| ("retry-after", seconds.to_string())));
        self
    }

    /// Adds the request id header that the dialect's providers send.
    pub(super) fn with_request_id(
        mut self,
        dialect: Dialect,
        now: UnixMillis,
        number: u64,
    ) -> Self {
        let name = match dialect {
            Dialect::Anthropic => "request-id",
            Dialect::Openai | Dialect::Responses => "x-request-id",
            Dialect::Gemini | Dialect::Ollama => return self,
        };
        self.headers.push((name, format_id("req_", now, number)));
        self
    }

    /// Returns the total duration of head and body.
    #[cfg(test)]
    pub(super) fn duration(&self) -> Duration {
        self.head_delay + self.pieces.iter().map(|piece| piece.delay).sum::<Duration>()
    }

    /// Waits before the head; the body has its own delays.
    pub(super) async fn into_response(self) -> Response<UnsyncBoxBody<Bytes, TransportFault>> {
        if !self.head_delay.is_zero() {
            tokio::time::sleep(self.head_delay).await;
        }
        let body = match (self.cut, self.pieces.len()) {
            (false, 1) if self.pieces[0].delay.is_zero() => full_body(self.pieces),
            _ => paced_body(self.pieces, self.cut),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        for (name, value) in self.headers {
            // The value consists of digits and letters; an invalid value would only leave the
            // header out.
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

fn full_body(pieces: Vec<BodyPiece>) -> UnsyncBoxBody<Bytes, TransportFault> {
    let bytes = pieces.into_iter().next().map(|piece| piece.bytes).unwrap_or_default();
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn paced_body(pieces: Vec<BodyPiece>, cut: bool) -> UnsyncBoxBody<Bytes, TransportFault> {
    let fault = cut.then(|| TransportFault {
        kind: TransportKind::BodyBroken,
        reason: FailureReason::text("demo cut the answer, as it was asked to").into(),
        may_be_received: true,
    });
    let frames =
        stream::unfold((pieces.into_iter(), fault), |(mut pieces, mut fault)| async move {
            match pieces.next() {
                Some(piece) => {
                    if !piece.delay.is_zero() {
                        tokio::time::sleep(piece.delay).await;
                    }
                    Some((Ok(Frame::data(piece.bytes)), (pieces, fault)))
                }
                None => fault.take().map(|broken| (Err(broken), (pieces, fault))),
            }
        });
    StreamBody::new(frames).boxed_unsync()
}
