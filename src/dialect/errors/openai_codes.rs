//! Maps aiproxy's errors to the OpenAI family's status, type and code, and writes the body with its
//! four fields.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    dialect::errors::{
        sanitize::{self, MAX_SENT_CHARS},
        status,
    },
    ir::fault::{ProxyError, ProxyErrorKind},
};

/// The status, type and code of an error.
pub(in crate::dialect) struct ErrorCode {
    pub status: u16,
    pub error_type: &'static str,
    pub code: Option<&'static str>,
}

pub(in crate::dialect) fn error_code(error: &ProxyError) -> ErrorCode {
    const INVALID_REQUEST: &str = "invalid_request_error";
    let (default_status, kind, code) = match error.kind {
        ProxyErrorKind::BadRequest => (400, INVALID_REQUEST, None),
        ProxyErrorKind::Unauthorized => (401, INVALID_REQUEST, Some("invalid_api_key")),
        ProxyErrorKind::Forbidden => (403, INVALID_REQUEST, None),
        ProxyErrorKind::ModelNotFound => (404, INVALID_REQUEST, Some("model_not_found")),
        ProxyErrorKind::UnknownPath => (404, INVALID_REQUEST, Some("unknown_url")),
        ProxyErrorKind::MethodNotAllowed => (405, INVALID_REQUEST, Some("method_not_supported")),
        ProxyErrorKind::Conflict => (409, INVALID_REQUEST, None),
        ProxyErrorKind::TooLarge => (413, INVALID_REQUEST, None),
        ProxyErrorKind::UnsupportedMedia => (415, INVALID_REQUEST, None),
        ProxyErrorKind::UpgradeRequired => (426, INVALID_REQUEST, None),
        ProxyErrorKind::RateLimited => (429, "requests", Some("rate_limit_exceeded")),
        ProxyErrorKind::OutOfCredit => (429, "insufficient_quota", Some("insufficient_quota")),
        ProxyErrorKind::Internal => (500, "server_error", None),
        ProxyErrorKind::Upstream => (502, "server_error", Some("upstream_error")),
        ProxyErrorKind::UpstreamError => (400, INVALID_REQUEST, None),
        ProxyErrorKind::Overloaded => (503, "server_error", Some("overloaded")),
        ProxyErrorKind::Unavailable => (503, "server_error", Some("unavailable")),
        ProxyErrorKind::Timeout => (504, "server_error", Some("timeout")),
    };
    // OpenAI's SDKs do not know status 529.
    let status = error.status.map_or(default_status, |upstream_status| {
        if upstream_status == 529 { 503 } else { status::client_status(upstream_status) }
    });
    let kind = match (error.kind, status) {
        (ProxyErrorKind::UpstreamError, 429) => "requests",
        (_, 500..) => "server_error",
        _ => kind,
    };
    ErrorCode { status, error_type: kind, code }
}

/// Writes the whole answer to a request that failed.
pub(in crate::dialect) fn write_error(error: &ProxyError) -> (StatusCode, Bytes) {
    let code = error_code(error);
    (status::status_code(code.status), error_body(error, &code).to_string().into())
}

/// Writes `{"error":{message,type,param,code}}`. The published schema requires all four; the last
/// two are text or null.
pub(in crate::dialect) fn error_body(error: &ProxyError, code: &ErrorCode) -> Value {
    json!({ "error": {
        "message": sanitize::escape_controls(&error.message, MAX_SENT_CHARS),
        "type": code.error_type,
        "param": error.param.as_deref(),
        "code": error.code.as_deref().or(code.code),
    } })
}
