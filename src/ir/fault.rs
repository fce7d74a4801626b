//! Failures, neutral of any dialect: upstream errors, transport faults, and the errors that aiproxy
//! sends to the client.

use std::{borrow::Cow, sync::Arc, time::Duration};

use crate::ir::reason::failure::FailureReason;

/// The kind of an upstream error. The dialect classifies it by status, code, type and text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// 400, 404 for a bad path, 413, 422, content policy: the request itself is wrong.
    BadRequest,
    /// 401, or a 400/403 whose body reports an invalid key.
    KeyRejected,
    /// 403: the key lacks permission.
    Forbidden,
    /// 402, insufficient_quota, billing: the account is out of money.
    Quota,
    /// The upstream does not have this model.
    ModelNotFound,
    /// 429 for a limited time.
    RateLimited,
    /// 429 whose text names the whole account (organisation, project).
    AccountLimited,
    /// 408, 425.
    Transient,
    /// 409.
    Conflict,
    /// 5xx and 529, an error object or HTML inside a 200, a response of unknown form.
    Server,
    /// A login page or redirect: something between aiproxy and the upstream answered.
    CaptivePortal,
}

/// An upstream error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    /// The HTTP status; for an error inside a 200, the status that corresponds to the error.
    pub status: u16,
    /// Plain text, at most 300 characters, no tags, no control characters; not yet redacted.
    pub message: String,
    /// The vendor's machine-readable code and type, if present.
    pub code: Option<String>,
    pub error_type: Option<String>,
    pub param: Option<String>,
    /// The delay that the body asks for (Gemini's RetryInfo); `upstream::retry_headers` reads the
    /// headers.
    pub retry_after: Option<Duration>,
}

/// A connection failure instead of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportFault {
    pub kind: TransportKind,
    /// Names host and port, but no secrets: "connection refused (api.example.com:443)".
    pub reason: Arc<FailureReason>,
    /// Whether the upstream may have read the request (so that it may be billed).
    pub may_be_received: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportKind {
    /// Connection refused, host unreachable, no route.
    Connect,
    ConnectTimeout,
    Dns,
    /// Certificate not trusted, handshake failed.
    Tls,
    /// A pooled connection was dead before the first response byte. The request can safely be sent
    /// again on a new one.
    Stale,
    /// Closed or reset after the request was sent, before the response head.
    Reset,
    /// Not an HTTP response, malformed head, head too large.
    InvalidHttp,
    /// The body broke: cut, reset, malformed chunk, corrupt encoding.
    BodyBroken,
    /// The response was larger than `max_response_bytes`.
    TooLarge,
    /// The first byte did not arrive in time.
    FirstByteTimeout,
    /// No data for too long inside the body.
    IdleTimeout,
    /// The whole request took longer than `total`.
    TotalTimeout,
    /// ENETUNREACH and similar: this machine has no network.
    NetworkDown,
}

/// An error that aiproxy sends to a client, before a dialect writes it.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyError {
    pub kind: ProxyErrorKind,
    /// The upstream's status if it passes through; else the dialect's default for the kind.
    pub status: Option<u16>,
    pub message: String,
    /// Replaces the default code of the kind.
    pub code: Option<Cow<'static, str>>,
    pub param: Option<Cow<'static, str>>,
    /// When a retry makes sense; becomes Retry-After (Gemini: RetryInfo).
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

/// The kinds of errors that aiproxy reports itself. Each dialect's `error.rs` in `dialect/` has
/// their statuses, types and codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyErrorKind {
    BadRequest,
    /// The client's credential is missing or wrong.
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
    /// A budget or the provider credit is spent.
    OutOfCredit,
    /// A bug in aiproxy.
    Internal,
    /// The upstream failed, is unreachable or sent an invalid response.
    Upstream,
    /// The upstream's own error with its own status (4xx passed through).
    UpstreamError,
    /// Too many requests in flight, or aiproxy is draining.
    Overloaded,
    /// No enabled upstream can serve the request: no key, or all keys disabled or rejected.
    Unavailable,
    Timeout,
}
