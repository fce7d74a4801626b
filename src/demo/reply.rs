//! Delivers a settled answer: at once or piece by piece, whole or cut.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};

use super::{id, json::Json, script::Said};
use crate::{
    base::clock::UnixMillis,
    ir::{
        fault::{TransportFault, TransportKind},
        op::Dialect,
    },
};

pub(super) const SSE: &str = "text/event-stream; charset=utf-8";
pub(super) const NDJSON: &str = "application/x-ndjson";
const JSON: &str = "application/json; charset=utf-8";

/// A non-streaming answer waits as long as its stream would have taken, but no longer than this.
const PATIENCE: Duration = Duration::from_secs(2);

/// A whole answer, with its timing.
pub(super) struct Reply {
    status: StatusCode,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    head_after: Duration,
    pieces: Vec<Piece>,
    cut: bool,
}

/// Bytes of a body, and how long they take after the piece before.
pub(super) struct Piece {
    after: Duration,
    bytes: Bytes,
}

impl Piece {
    /// Comes with what is before it.
    pub(super) fn now(text: String) -> Self {
        Self { after: Duration::ZERO, bytes: text.into() }
    }

    pub(super) fn after(after: Duration, text: String) -> Self {
        Self { after, bytes: text.into() }
    }
}

impl Reply {
    /// A JSON answer without any delay.
    pub(super) fn json(body: Json) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: JSON,
            headers: Vec::new(),
            head_after: Duration::ZERO,
            pieces: vec![Piece::now(body.into_text())],
            cut: false,
        }
    }

    /// What was said, as one JSON answer.
    pub(super) fn whole(said: &Said, body: Json) -> Self {
        let mut reply = Self::json(body);
        reply.head_after = said.duration().min(PATIENCE);
        if said.cut {
            let text = &reply.pieces[0].bytes;
            reply.pieces =
                vec![Piece { after: Duration::ZERO, bytes: text.slice(..text.len() / 2) }];
            reply.cut = true;
        }
        reply
    }

    /// What was said, as a stream.
    pub(super) fn stream(said: &Said, content_type: &'static str, mut pieces: Vec<Piece>) -> Self {
        if said.cut {
            pieces.truncate(pieces.len().div_ceil(2));
        }
        Self {
            status: StatusCode::OK,
            content_type,
            headers: Vec::new(),
            head_after: Duration::ZERO,
            pieces,
            cut: said.cut,
        }
    }

    pub(super) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    pub(super) fn retry_after(mut self, seconds: Option<u64>) -> Self {
        self.headers.extend(seconds.map(|seconds| ("retry-after", seconds.to_string())));
        self
    }

    /// The request id that the dialect's providers send.
    pub(super) fn with_id(mut self, dialect: Dialect, now: UnixMillis, number: u64) -> Self {
        let name = match dialect {
            Dialect::Anthropic => "request-id",
            Dialect::Openai | Dialect::Responses => "x-request-id",
            Dialect::Gemini | Dialect::Ollama => return self,
        };
        self.headers.push((name, id("req_", now, number)));
        self
    }

    /// How long head and body take together.
    #[cfg(test)]
    pub(super) fn duration(&self) -> Duration {
        self.head_after + self.pieces.iter().map(|piece| piece.after).sum::<Duration>()
    }

    /// Waits for the head; the body waits by itself.
    pub(super) async fn deliver(self) -> Response<UnsyncBoxBody<Bytes, TransportFault>> {
        if !self.head_after.is_zero() {
            tokio::time::sleep(self.head_after).await;
        }
        let body = match (self.cut, self.pieces.len()) {
            (false, 1) if self.pieces[0].after.is_zero() => whole(self.pieces),
            _ => paced(self.pieces, self.cut),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        for (name, value) in self.headers {
            // Made of digits and letters above; a value that were none would only be missing.
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

fn whole(pieces: Vec<Piece>) -> UnsyncBoxBody<Bytes, TransportFault> {
    let bytes = pieces.into_iter().next().map(|piece| piece.bytes).unwrap_or_default();
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn paced(pieces: Vec<Piece>, cut: bool) -> UnsyncBoxBody<Bytes, TransportFault> {
    let fault = cut.then(|| TransportFault {
        kind: TransportKind::BodyBroken,
        message: "demo cut the answer, as it was asked to".to_owned(),
        may_be_received: true,
    });
    let frames =
        stream::unfold((pieces.into_iter(), fault), |(mut pieces, mut fault)| async move {
            match pieces.next() {
                Some(piece) => {
                    if !piece.after.is_zero() {
                        tokio::time::sleep(piece.after).await;
                    }
                    Some((Ok(Frame::data(piece.bytes)), (pieces, fault)))
                }
                None => fault.take().map(|broken| (Err(broken), (pieces, fault))),
            }
        });
    StreamBody::new(frames).boxed_unsync()
}
