//! How a request ends inside the relay: an answer that won, or an attempt that was lost.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::{halt::Cause, tally::Guard};
use crate::{
    dialect::{AnswerSummary, flow::ResponseStream},
    ir::fault::{Fault, TransportFault},
    routing::outcome::Outcome,
    upstream::body::UpstreamBody,
};

/// An answer to give the client.
pub enum Won {
    /// A complete body.
    Whole(Box<Whole>),
    /// An event stream that has shown its first content.
    Stream(Box<Committed>),
    /// A body that is only forwarded.
    Opaque(Box<Opaque>),
}

/// An answer that is complete.
pub struct Whole {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub summary: AnswerSummary,
    pub guard: Guard,
}

/// A stream past its first content: nothing is replayed from here on.
pub struct Committed {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Whole events that were held.
    pub ready: Vec<Bytes>,
    pub flow: ResponseStream,
    /// `None` once the upstream's body has ended.
    pub body: Option<UpstreamBody>,
    /// The terminal event is among them: the body's end is of no more interest.
    pub terminal: bool,
    /// What ended the stream already while it was held, after its first content.
    pub broke: Option<Broke>,
    pub guard: Guard,
    pub idle: Duration,
}

/// A body of no known grammar.
pub struct Opaque {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub first: Option<Bytes>,
    pub body: UpstreamBody,
    pub guard: Guard,
    pub idle: Duration,
}

/// What broke a stream after its first content.
#[derive(Debug)]
pub enum Broke {
    Said(Box<Fault>),
    Transport(TransportFault),
    /// A clean end without the terminal event.
    Truncated,
    Halted(Cause),
}

/// An attempt that did not win.
#[derive(Debug)]
pub struct Lost {
    pub outcome: Outcome,
    pub said: Said,
    /// Whether the same candidate may work a moment later.
    pub may_pass: bool,
}

/// What is told to the client if nothing else helps.
#[derive(Debug)]
pub enum Said {
    /// The upstream's own error; its body, where it may be shown as it is.
    Fault {
        fault: Fault,
        body: Option<Bytes>,
    },
    Transport(TransportFault),
}
