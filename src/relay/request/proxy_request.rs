//! A client's request with the fields that the relay reads without parsing it.

use std::{
    borrow::Cow,
    net::IpAddr,
    ops::Range,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};

use crate::relay::request::preferences::RoutingPreferences;
use crate::{
    base::{
        clock::{Mono, UnixMillis},
        id::RequestId,
    },
    config::settings::{KeyId, Project, UpstreamId},
    dialect::Framing,
    ir::op::{Dialect, Op},
};

/// The sender of a request.
#[derive(Clone, Debug)]
pub struct Caller {
    pub project: Arc<Project>,
    /// The client program, from User-Agent.
    pub program: Arc<str>,
    pub addr: IpAddr,
}

/// What the path determines: enough to read the body.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub dialect: Dialect,
    pub op: Op,
    /// Relative to the upstream's base URL, starts with `/`; `{model}` replaces the model's name.
    pub path: Cow<'static, str>,
    pub model: ModelLocation,
    pub stream: StreamMode,
}

/// Where the model's name is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelLocation {
    Body,
    /// Decoded from the path.
    Path(String),
    /// Nowhere: what is asked for belongs to an upstream of the dialect, not to a model (files,
    /// batches), or the API has a default model.
    AnyUpstream,
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

/// A request whose body was read.
#[derive(Clone)]
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
    /// The client's headers that may be sent to an upstream.
    pub headers: HeaderMap,
    /// The whole body, decoded.
    pub body: Bytes,
    /// The compressed original body with its coding, if the client compressed it.
    pub encoded_body: Option<(Bytes, HeaderValue)>,
    /// Span of the model's name in `body`, with its quotes in JSON.
    pub model_span: Option<Range<usize>>,
    /// Whether the span is in a form rather than in JSON.
    pub is_multipart: bool,
    pub requested_model: Arc<str>,
    pub stream: bool,
    /// Only `Accept` asks for the stream, so the upstream's body needs the flag.
    pub add_stream: bool,
    pub framing: Framing,
    /// Whether the client asked for usage in the stream.
    pub include_usage: bool,
    /// Span of `stream_options` in the body.
    pub stream_options: Option<Range<usize>>,
    /// Where a field can be added to the JSON object: its closing brace, and whether it is empty.
    pub object_end: Option<(usize, bool)>,
    pub session: Option<Arc<str>>,
    /// The end user that the request names, if it is recorded.
    pub user: Option<Arc<str>>,
    /// Whether the client's address is recorded.
    pub records_caller: bool,
    /// Estimated input tokens.
    pub estimate: u64,
    /// The maximum output tokens that the client requests.
    pub max_tokens: Option<u64>,
    /// The service tier that the client requests; the price may depend on it.
    pub tier: Option<Box<str>>,
    /// The client's own timeout, as its headers report it.
    pub client_timeout: Option<Duration>,
    /// The client's `x-aiproxy-upstream`: use only this upstream.
    pub pinned_upstream: Option<Arc<str>>,
    /// The dialect of the body; differs from the path's if the body was recognized as another
    /// dialect's.
    pub body_dialect: Dialect,
    /// The response that the request continues (`previous_response_id`).
    pub previous_response_id: Option<Box<str>>,
    /// The body cannot pass unchanged, because it contains ids or data that only aiproxy
    /// understands.
    pub must_rewrite: bool,
    /// Use only this upstream and key: they own what the request refers to.
    pub owner: Option<(UpstreamId, Option<KeyId>)>,
    /// `x-aiproxy-strict: 1`: nothing may be lost in translation.
    pub strict: bool,
    /// Its routing preferences, removed from the body.
    pub preferences: Option<Box<RoutingPreferences>>,
}

/// Returns the empty string, shared.
pub(in crate::relay) fn empty_str() -> &'static Arc<str> {
    static EMPTY: OnceLock<Arc<str>> = OnceLock::new();
    EMPTY.get_or_init(|| Arc::from(""))
}

impl ProxyRequest {
    /// Returns the maximum output tokens that the client allows; 0 if the response has no output
    /// tokens.
    #[must_use]
    pub fn output_limit(&self) -> u64 {
        if matches!(self.endpoint.op, Op::Chat | Op::Completions) {
            self.max_tokens.unwrap_or(u64::MAX)
        } else {
            0
        }
    }

    /// Drops what was stored for further attempts, because there will be none.
    pub fn drop_body(&mut self) {
        self.body = Bytes::new();
        self.encoded_body = None;
        self.headers = HeaderMap::new();
    }
}
