//! Error words of the OpenAI family: status, type and code of every situation, and the body with
//! its four fields.

use serde_json::{Value, json};

use crate::{
    dialect::{
        status,
        words::{self, SENT},
    },
    ir::fault::{ProxyError, ProxyErrorKind},
};

/// How a situation is told.
pub(super) struct Told {
    pub status: u16,
    pub kind: &'static str,
    pub code: Option<&'static str>,
}

pub(super) fn told(error: &ProxyError) -> Told {
    const INVALID: &str = "invalid_request_error";
    let (own, kind, code) = match error.kind {
        ProxyErrorKind::BadRequest => (400, INVALID, None),
        ProxyErrorKind::Unauthorized => (401, INVALID, Some("invalid_api_key")),
        ProxyErrorKind::Forbidden => (403, INVALID, None),
        ProxyErrorKind::ModelNotFound => (404, INVALID, Some("model_not_found")),
        ProxyErrorKind::UnknownPath => (404, INVALID, Some("unknown_url")),
        ProxyErrorKind::MethodNotAllowed => (405, INVALID, Some("method_not_supported")),
        ProxyErrorKind::Conflict => (409, INVALID, None),
        ProxyErrorKind::TooLarge => (413, INVALID, None),
        ProxyErrorKind::UnsupportedMedia => (415, INVALID, None),
        ProxyErrorKind::UpgradeRequired => (426, INVALID, None),
        ProxyErrorKind::RateLimited => (429, "requests", Some("rate_limit_exceeded")),
        ProxyErrorKind::OutOfCredit => (429, "insufficient_quota", Some("insufficient_quota")),
        ProxyErrorKind::Internal => (500, "server_error", None),
        ProxyErrorKind::Upstream => (502, "server_error", Some("upstream_error")),
        ProxyErrorKind::UpstreamError => (400, INVALID, None),
        ProxyErrorKind::Overloaded => (503, "server_error", Some("overloaded")),
        ProxyErrorKind::Unavailable => (503, "server_error", Some("unavailable")),
        ProxyErrorKind::Timeout => (504, "server_error", Some("timeout")),
    };
    // Its SDKs know no 529.
    let status =
        error.status.map_or(own, |said| if said == 529 { 503 } else { status::passed(said) });
    let kind = match (error.kind, status) {
        (ProxyErrorKind::UpstreamError, 429) => "requests",
        (_, 500..) => "server_error",
        _ => kind,
    };
    Told { status, kind, code }
}

/// `{"error":{message,type,param,code}}`: the published schema wants all four, the last two text or
/// null.
pub(super) fn body(error: &ProxyError, told: &Told) -> Value {
    json!({ "error": {
        "message": words::escaped(&error.message, SENT),
        "type": told.kind,
        "param": error.param.as_deref(),
        "code": error.code.as_deref().or(told.code),
    } })
}
