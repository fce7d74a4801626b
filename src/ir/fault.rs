//! What went wrong, neutral of any dialect: what an upstream said, what the transport did, what we
//! tell the client.

use std::{borrow::Cow, time::Duration};

/// What kind of refusal an upstream's error is, read from status, code, type and text by its
/// dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// 400, 404 for a bad path, 413, 422, content policy: the request itself.
    BadRequest,
    /// 401, or a 400/403 that says the key is not valid.
    KeyRejected,
    /// 403: this key may not do this.
    Forbidden,
    /// 402, insufficient_quota, billing: the account is out of money.
    Quota,
    /// The upstream does not have this model.
    ModelNotFound,
    /// 429 for a while.
    RateLimited,
    /// 429 whose text says that the whole account (organisation, project) is limited.
    AccountLimited,
    /// 408, 425.
    Transient,
    /// 409.
    Conflict,
    /// 5xx and 529, an error object or HTML inside a 200, an answer of no known shape.
    Server,
    /// A login page: something between us and the upstream answered, or a redirect.
    CaptivePortal,
}

/// An upstream's own words about a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    /// The HTTP status; for an error inside a 200 the status that the error stands for.
    pub status: u16,
    /// Plain text, at most 300 characters, no tags, no control characters; not yet redacted.
    pub message: String,
    /// The vendor's machine-readable code and type, where it gave them.
    pub code: Option<String>,
    pub error_type: Option<String>,
    pub param: Option<String>,
    /// How long the body asks us to wait (Gemini's RetryInfo); headers are read by
    /// `upstream::hints`.
    pub retry_after: Option<Duration>,
}

/// What the connection did instead of answering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportFault {
    pub kind: TransportKind,
    /// One sentence that names host and port, without secrets: "connection refused
    /// (api.example.com:443)".
    pub message: String,
    /// Whether the request may have been read by the upstream (so that it may be billed).
    pub may_be_received: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportKind {
    /// Refused, unreachable, no route.
    Connect,
    ConnectTimeout,
    Dns,
    /// Certificate not trusted, handshake failed.
    Tls,
    /// A pooled connection turned out dead before one byte of answer; safe to send again on a fresh
    /// one.
    Stale,
    /// Closed or reset after the request was sent, before the head.
    Reset,
    /// Not an HTTP response, malformed head, head too large.
    InvalidHttp,
    /// The body broke: cut, reset, malformed chunk, corrupt coding.
    BodyBroken,
    /// The answer was larger than `max_response_bytes`.
    TooLarge,
    /// The first byte did not come in time.
    FirstByteTimeout,
    /// Silence inside the body.
    IdleTimeout,
    /// The whole request took longer than `total`.
    TotalTimeout,
    /// ENETUNREACH and the like: our own side has no network.
    NetworkDown,
}

/// What we tell a client, before it is put into its dialect.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyError {
    pub kind: ProxyErrorKind,
    /// The upstream's status where it passes through; else the dialect's usual one for the kind.
    pub status: Option<u16>,
    pub message: String,
    /// Replaces the kind's usual code.
    pub code: Option<Cow<'static, str>>,
    pub param: Option<Cow<'static, str>>,
    /// When trying again makes sense; becomes Retry-After (Gemini: RetryInfo).
    pub retry_after: Option<Duration>,
    /// Becomes `x-should-retry`.
    pub should_retry: Option<bool>,
}

impl ProxyError {
    #[must_use]
    pub fn new(kind: ProxyErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            status: None,
            message: message.into(),
            code: None,
            param: None,
            retry_after: None,
            should_retry: None,
        }
    }

    #[must_use]
    pub fn code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.code = Some(code.into());
        self
    }

    #[must_use]
    pub fn param(mut self, param: impl Into<Cow<'static, str>>) -> Self {
        self.param = Some(param.into());
        self
    }

    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    #[must_use]
    pub fn retry_after(mut self, span: Option<Duration>) -> Self {
        self.retry_after = span;
        self
    }

    #[must_use]
    pub fn should_retry(mut self, yes: bool) -> Self {
        self.should_retry = Some(yes);
        self
    }
}

/// The situations of our own errors (statuses, types and codes per dialect stand in
/// `dialect/*/error.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyErrorKind {
    BadRequest,
    /// The client's own token is missing or wrong.
    Unauthorized,
    /// Host, Origin, subnet or model not allowed.
    Forbidden,
    ModelNotFound,
    UnknownPath,
    MethodNotAllowed,
    Conflict,
    TooLarge,
    UnsupportedMedia,
    UpgradeRequired,
    RateLimited,
    /// Budget or provider credit is spent.
    OutOfCredit,
    /// A bug of ours.
    Internal,
    /// The upstream failed, is unreachable or answered garbage.
    Upstream,
    /// The upstream's own words with its own status (4xx passed through).
    UpstreamError,
    /// Too many requests in flight, draining.
    Overloaded,
    /// Nothing enabled could serve this: no key, all disabled or rejected.
    Unavailable,
    Timeout,
}
