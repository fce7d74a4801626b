//! Writes aiproxy's errors in Anthropic's format.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    dialect::{
        anthropic::context_overflow,
        errors::{
            sanitize::{self, MAX_SENT_CHARS},
            status,
        },
    },
    ir::fault::{ProxyError, ProxyErrorKind},
};

pub(super) fn write_error(error: &ProxyError, request_id: &str) -> (StatusCode, Bytes) {
    let status = status_of(error);
    (status::status_code(status), error_body(error, status, request_id).to_string().into())
}

/// Writes an error event. The event name is required: without it the SDKs ignore the event.
pub(super) fn error_event(error: &ProxyError, request_id: &str) -> Bytes {
    format!("event: error\ndata: {}\n\n", error_body(error, status_of(error), request_id)).into()
}

fn error_body(error: &ProxyError, status: u16, request_id: &str) -> Value {
    let message = context_overflow::reword(error).unwrap_or_else(|| error.message.clone());
    let mut fields = json!({ "type": error_type(status), "message": sanitize::escape_controls(&message, MAX_SENT_CHARS) });
    if let Some(code) = &error.code {
        fields["details"] = json!({ "error_code": code });
    }
    json!({ "type": "error", "error": fields, "request_id": request_id })
}

fn status_of(error: &ProxyError) -> u16 {
    if context_overflow::is_context_overflow(error) {
        return 400;
    }
    error.status.map_or_else(
        || match error.kind {
            ProxyErrorKind::BadRequest | ProxyErrorKind::UpstreamError => 400,
            ProxyErrorKind::Unauthorized => 401,
            ProxyErrorKind::OutOfCredit => 402,
            ProxyErrorKind::Forbidden => 403,
            ProxyErrorKind::ModelNotFound | ProxyErrorKind::UnknownPath => 404,
            ProxyErrorKind::MethodNotAllowed => 405,
            ProxyErrorKind::Conflict => 409,
            ProxyErrorKind::TooLarge => 413,
            ProxyErrorKind::UnsupportedMedia => 415,
            ProxyErrorKind::UpgradeRequired => 426,
            ProxyErrorKind::RateLimited => 429,
            ProxyErrorKind::Internal => 500,
            ProxyErrorKind::Upstream => 502,
            ProxyErrorKind::Unavailable => 503,
            ProxyErrorKind::Timeout => 504,
            ProxyErrorKind::Overloaded => 529,
        },
        status::client_status,
    )
}

fn error_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        408 | 504 => "timeout_error",
        529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_bodies_have_type_and_request_id() {
        let (status, body) =
            write_error(&ProxyError::new(ProxyErrorKind::ModelNotFound, "model: x"), "r1");
        assert_eq!(status, 404);
        assert_eq!(
            body,
            r#"{"error":{"message":"model: x","type":"not_found_error"},"request_id":"r1","type":"error"}"#
        );
        assert!(error_event(&ProxyError::new(ProxyErrorKind::Overloaded, "m"), "r1").starts_with(
            b"event: error\ndata: {\"error\":{\"message\":\"m\",\"type\":\"overloaded_error\"}"
        ));
    }

    #[test]
    fn context_overflow_uses_the_phrase_that_clients_match() {
        let mut error = ProxyError::new(
            ProxyErrorKind::UpstreamError,
            "This model's maximum context length is 10 tokens.",
        )
        .status(413);
        error.code = Some("context_length_exceeded".into());
        let (status, body) = write_error(&error, "r");
        assert_eq!(status, 400);
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(text.contains(r#""message":"prompt is too long: This model's maximum"#), "{text}");
        assert!(text.contains(r#""type":"invalid_request_error""#), "{text}");
    }

    #[test]
    fn statuses_are_known_to_the_vendor_sdks() {
        for (kind, given, want) in [
            (ProxyErrorKind::Overloaded, None, 529),
            (ProxyErrorKind::OutOfCredit, None, 402),
            (ProxyErrorKind::Upstream, Some(529), 529),
            (ProxyErrorKind::Upstream, Some(522), 504),
            (ProxyErrorKind::Timeout, None, 504),
        ] {
            let mut error = ProxyError::new(kind, "m");
            error.status = given;
            assert_eq!(write_error(&error, "r").0, want, "{kind:?} {given:?}");
        }
    }
}
