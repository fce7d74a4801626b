//! The result of a request inside the relay: a winning response or a failed attempt.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::relay::{record::attempt_guard::AttemptGuard, state::cancellations::CancelReason};
use crate::{
    dialect::{AnswerSummary, response_stream::ResponseStream},
    ir::fault::{Fault, TransportFault},
    routing::outcome::Outcome,
    upstream::body::UpstreamBody,
};

/// A response for the client.
pub enum AttemptResponse {
    /// A complete body.
    Full(Box<FullResponse>),
    /// An event stream that has shown its first content.
    Stream(Box<StreamResponse>),
    /// A body that is forwarded without parsing.
    Raw(Box<RawResponse>),
}

/// A complete response.
pub struct FullResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub summary: AnswerSummary,
    pub guard: AttemptGuard,
}

/// A stream past its first content; no attempt is repeated from here on.
pub struct StreamResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Whole events that were buffered.
    pub buffered_frames: Vec<Bytes>,
    pub stream: ResponseStream,
    /// `None` once the upstream's body has ended.
    pub body: Option<UpstreamBody>,
    /// The terminal event is among the buffered frames, so the rest of the body does not matter.
    pub terminal_seen: bool,
    /// What ended the stream while it was buffered, after its first content.
    pub failure: Option<StreamFailure>,
    pub guard: AttemptGuard,
    pub idle_timeout: Duration,
}

/// A body in an unknown format.
pub struct RawResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: UpstreamBody,
    pub guard: AttemptGuard,
    pub idle_timeout: Duration,
}

/// What broke a stream after its first content.
#[derive(Debug)]
pub enum StreamFailure {
    Upstream(Box<Fault>),
    Transport(TransportFault),
    /// A clean end without the terminal event.
    Truncated,
    Cancelled(CancelReason),
}

/// A failed attempt.
#[derive(Debug)]
pub struct AttemptFailure {
    pub outcome: Outcome,
    pub source: FailureSource,
    /// Whether the same candidate may work a moment later.
    pub may_recover: bool,
}

/// The error for the client if no other attempt wins.
#[derive(Debug)]
pub enum FailureSource {
    /// The upstream's own error, with its body if that may be shown unchanged.
    Upstream {
        fault: Fault,
        body: Option<Bytes>,
    },
    Transport(TransportFault),
}
