//! How a request ends inside the relay: an answer that won, or an attempt that was lost.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::relay::{record::recorder::AttemptGuard, state::cancellations::CancelReason};
use crate::{
    dialect::{AnswerSummary, response_stream::ResponseStream},
    ir::fault::{Fault, TransportFault},
    routing::outcome::Outcome,
    upstream::body::UpstreamBody,
};

/// An answer to give the client.
pub enum AttemptResponse {
    /// A complete body.
    Full(Box<FullResponse>),
    /// An event stream that has shown its first content.
    Stream(Box<StreamResponse>),
    /// A body that is only forwarded.
    Raw(Box<RawResponse>),
}

/// An answer that is complete.
pub struct FullResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub summary: AnswerSummary,
    pub guard: AttemptGuard,
}

/// A stream past its first content: nothing is replayed from here on.
pub struct StreamResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Whole events that were held.
    pub buffered_frames: Vec<Bytes>,
    pub stream: ResponseStream,
    /// `None` once the upstream's body has ended.
    pub body: Option<UpstreamBody>,
    /// The terminal event is among them: the body's end is of no more interest.
    pub terminal_seen: bool,
    /// What ended the stream already while it was held, after its first content.
    pub failure: Option<StreamFailure>,
    pub guard: AttemptGuard,
    pub idle_timeout: Duration,
}

/// A body of no known grammar.
pub struct RawResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub first_chunk: Option<Bytes>,
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

/// An attempt that did not win.
#[derive(Debug)]
pub struct AttemptFailure {
    pub outcome: Outcome,
    pub source: FailureSource,
    /// Whether the same candidate may work a moment later.
    pub may_recover: bool,
}

/// What is told to the client if nothing else helps.
#[derive(Debug)]
pub enum FailureSource {
    /// The upstream's own error; its body, where it may be shown as it is.
    Upstream {
        fault: Fault,
        body: Option<Bytes>,
    },
    Transport(TransportFault),
}
