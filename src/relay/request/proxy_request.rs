//! What the relay knows of a request without parsing it.

use std::{
    net::IpAddr,
    ops::Range,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};

use crate::relay::{
    engine::{BufferReservation, Engine},
    request::preferences::RoutingPreferences,
};
use crate::{
    base::{
        clock::{Mono, UnixMillis},
        id::RequestId,
    },
    config::settings::{KeyId, Project, UpstreamId},
    dialect::Framing,
    ir::op::{Dialect, Op},
};

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    pub project: Arc<Project>,
    /// The client program, from User-Agent.
    pub program: Arc<str>,
    pub addr: IpAddr,
}

/// What the path said: enough to read the body.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub dialect: Dialect,
    pub op: Op,
    /// Below the upstream's base URL, begins with `/`; `{model}` stands where the path holds the
    /// model.
    pub path: String,
    pub model: ModelLocation,
    pub stream: StreamMode,
}

/// Where the model's name stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelLocation {
    Body,
    /// Decoded from the path.
    Path(String),
    /// The upstream is named in the path and nothing is resolved (`/u/UPSTREAM/…`).
    Upstream(String),
}

/// How a client asks for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamMode {
    /// `"stream": true`; the flag is what absence means.
    Body {
        default: bool,
    },
    Always(Framing),
    Never,
}

/// A request, read.
pub struct ProxyRequest {
    pub id: RequestId,
    /// The request that this one repeats.
    pub replay_of: Option<RequestId>,
    pub at: UnixMillis,
    pub received: Mono,
    pub endpoint: Endpoint,
    pub caller: Caller,
    pub method: Method,
    pub query: Option<String>,
    /// What of them may go to an upstream.
    pub headers: HeaderMap,
    /// Decoded, whole.
    pub body: Bytes,
    /// The body as it came, with its coding, where it was compressed.
    pub encoded_body: Option<(Bytes, HeaderValue)>,
    /// Where the model's name stands in `body`, JSON quotes included for JSON.
    pub model_span: Option<Range<usize>>,
    /// Whether the span is in a form rather than in JSON.
    pub is_multipart: bool,
    pub requested_model: Arc<str>,
    pub stream: bool,
    /// Only `Accept` asks for the stream; the upstream has to be told in the body.
    pub add_stream: bool,
    pub framing: Framing,
    /// Whether the client asked for usage in the stream.
    pub include_usage: bool,
    /// Span of `stream_options` in the body.
    pub stream_options: Option<Range<usize>>,
    /// Where a field can be added to the JSON object: its closing brace, and whether it is empty.
    pub object_end: Option<(usize, bool)>,
    pub session: Option<Arc<str>>,
    /// Estimated input tokens.
    pub estimate: u64,
    /// The most output tokens that the client wants.
    pub max_tokens: Option<u64>,
    /// The service tier that the client asks for, on which the price may depend.
    pub tier: Option<Box<str>>,
    /// How long the client says it will wait.
    pub client_timeout: Option<Duration>,
    /// `x-aiproxy-upstream` of the client: only this one.
    pub pinned_upstream: Option<Arc<str>>,
    /// Whose request the body is; another dialect's than the path says where a body was taken for
    /// what it looks like.
    pub body_dialect: Dialect,
    /// The response that the request goes on from (`previous_response_id`).
    pub previous_response_id: Option<Box<str>>,
    /// The body cannot pass as it is: it names or holds what only we understand.
    pub must_rewrite: bool,
    /// Only this upstream, only this key: what the request names lives there.
    pub owner: Option<(UpstreamId, Option<KeyId>)>,
    /// `x-aiproxy-strict: 1`: nothing may be lost in translation.
    pub strict: bool,
    /// What it wishes of routing, taken out of the body.
    pub preferences: Option<Box<RoutingPreferences>>,
    pub buffer_reservation: BufferReservation,
}

/// The empty text, shared.
pub(in crate::relay) fn empty_str() -> Arc<str> {
    static NOTHING: OnceLock<Arc<str>> = OnceLock::new();
    Arc::clone(NOTHING.get_or_init(|| Arc::from("")))
}

impl ProxyRequest {
    /// The most output tokens that the client allows; 0 where no answer of tokens is to come.
    #[must_use]
    pub fn output_limit(&self) -> u64 {
        if matches!(self.endpoint.op, Op::Chat | Op::Completions) {
            self.max_tokens.unwrap_or(u64::MAX)
        } else {
            0
        }
    }

    /// The same request for another attempt beside this one; what is held for its body stays with
    /// this one.
    pub(in crate::relay) fn clone_for_hedge(&self, engine: &Arc<Engine>) -> Box<Self> {
        Box::new(Self {
            id: self.id,
            replay_of: self.replay_of,
            at: self.at,
            received: self.received,
            endpoint: self.endpoint.clone(),
            caller: self.caller.clone(),
            method: self.method.clone(),
            query: self.query.clone(),
            headers: self.headers.clone(),
            body: self.body.clone(),
            encoded_body: self.encoded_body.clone(),
            model_span: self.model_span.clone(),
            is_multipart: self.is_multipart,
            requested_model: Arc::clone(&self.requested_model),
            stream: self.stream,
            add_stream: self.add_stream,
            framing: self.framing,
            include_usage: self.include_usage,
            stream_options: self.stream_options.clone(),
            object_end: self.object_end,
            session: self.session.clone(),
            estimate: self.estimate,
            max_tokens: self.max_tokens,
            client_timeout: self.client_timeout,
            pinned_upstream: self.pinned_upstream.clone(),
            body_dialect: self.body_dialect,
            previous_response_id: self.previous_response_id.clone(),
            must_rewrite: self.must_rewrite,
            owner: self.owner,
            strict: self.strict,
            preferences: None,
            tier: self.tier.clone(),
            buffer_reservation: BufferReservation::empty(engine),
        })
    }

    /// Nothing is sent again from here on: what was kept for that is let go.
    pub fn drop_body(&mut self) {
        self.body = Bytes::new();
        self.encoded_body = None;
        self.headers = HeaderMap::new();
        self.buffer_reservation.release();
    }
}
