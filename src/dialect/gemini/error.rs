//! Writes aiproxy's errors in Gemini's format.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    base::framing::Framing,
    dialect::errors::{
        sanitize::{self, MAX_SENT_CHARS},
        status,
    },
    ir::fault::{ProxyError, ProxyErrorKind},
};

pub(super) fn write_error(error: &ProxyError, request_id: &str) -> (StatusCode, Bytes) {
    (status::status_code(status_of(error)), error_body(error, request_id).to_string().into())
}

/// Writes the error as the last event. `error` must be its first key, or the SDKs ignore it.
pub(super) fn error_event(
    error: &ProxyError,
    request_id: &str,
    framing: Framing,
    events: u32,
) -> Bytes {
    let body = error_body(error, request_id);
    match framing {
        Framing::JsonArray if events > 0 => format!(",\n{body}]").into(),
        Framing::JsonArray => format!("[{body}]").into(),
        Framing::Ndjson => format!("{body}\n").into(),
        Framing::Sse => format!("data: {body}\n\n").into(),
    }
}

/// `code` is the HTTP status as a number. This dialect has no Retry-After, so a detail carries the
/// delay.
fn error_body(error: &ProxyError, request_id: &str) -> Value {
    let status = status_of(error);
    let mut details = vec![
        json!({ "@type": "type.googleapis.com/google.rpc.RequestInfo", "requestId": request_id }),
    ];
    if let Some(code) = &error.code {
        details.push(json!({ "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": code.to_uppercase(), "domain": "aiproxy" }));
    }
    if let Some(span) = error.retry_after {
        details.push(
            json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": format!("{}s", span.as_millis().div_ceil(1000)) }),
        );
    }
    json!({ "error": { "code": status, "message": sanitize::escape_controls(&error.message, MAX_SENT_CHARS), "status": status_name(status), "details": details } })
}

fn status_of(error: &ProxyError) -> u16 {
    let default_status = match error.kind {
        ProxyErrorKind::BadRequest | ProxyErrorKind::TooLarge | ProxyErrorKind::UpstreamError => {
            400
        }
        ProxyErrorKind::Unauthorized => 401,
        ProxyErrorKind::Forbidden => 403,
        ProxyErrorKind::ModelNotFound | ProxyErrorKind::UnknownPath => 404,
        ProxyErrorKind::MethodNotAllowed => 405,
        ProxyErrorKind::Conflict => 409,
        ProxyErrorKind::UnsupportedMedia => 415,
        ProxyErrorKind::UpgradeRequired => 426,
        ProxyErrorKind::RateLimited | ProxyErrorKind::OutOfCredit => 429,
        ProxyErrorKind::Internal => 500,
        ProxyErrorKind::Upstream | ProxyErrorKind::Overloaded | ProxyErrorKind::Unavailable => 503,
        ProxyErrorKind::Timeout => 504,
    };
    match error.status.map_or(default_status, status::client_status) {
        // Google's APIs have neither status.
        502 | 529 => 503,
        status => status,
    }
}

fn status_name(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHENTICATED",
        402 => "FAILED_PRECONDITION",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        408 | 504 => "DEADLINE_EXCEEDED",
        405 | 501 => "UNIMPLEMENTED",
        503 => "UNAVAILABLE",
        _ if status >= 500 => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn error_bodies_have_the_status_twice_and_the_retry_delay() {
        let error = ProxyError::new(ProxyErrorKind::RateLimited, "m")
            .retry_after(Some(Duration::from_millis(1200)));
        let (status, body) = write_error(&error, "r");
        let body: Value = serde_json::from_slice(&body).expect("json");
        assert_eq!(status, 429);
        assert_eq!(
            (&body["error"]["code"], &body["error"]["status"]),
            (&json!(429), &json!("RESOURCE_EXHAUSTED"))
        );
        assert_eq!(body["error"]["details"][1]["retryDelay"], "2s");
    }

    #[test]
    fn error_statuses_are_known_to_google() {
        for (kind, given, want) in [
            (ProxyErrorKind::Upstream, None, 503),
            (ProxyErrorKind::Upstream, Some(502), 503),
            (ProxyErrorKind::Upstream, Some(529), 503),
            (ProxyErrorKind::Upstream, Some(524), 504),
            (ProxyErrorKind::Upstream, Some(500), 500),
            (ProxyErrorKind::TooLarge, None, 400),
            (ProxyErrorKind::OutOfCredit, None, 429),
        ] {
            let mut error = ProxyError::new(kind, "m");
            error.status = given;
            assert_eq!(write_error(&error, "r").0, want, "{kind:?} {given:?}");
        }
    }

    #[test]
    fn error_event_matches_its_framing() {
        let error = ProxyError::new(ProxyErrorKind::Internal, "m");
        assert!(error_event(&error, "r", Framing::Sse, 3).starts_with(b"data: {\"error\":"));
        for (events, open) in [(0, ""), (2, "[{},{}")] {
            let whole = format!(
                "{open}{}",
                String::from_utf8_lossy(&error_event(&error, "r", Framing::JsonArray, events))
            );
            let list: Vec<Value> = serde_json::from_str(&whole).expect("an array");
            assert_eq!(list.last().expect("one")["error"]["code"], 500);
        }
    }
}
