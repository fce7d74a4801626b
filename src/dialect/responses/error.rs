//! aiproxy's errors in the Responses API; a stream that breaks ends in a failed response.

use bytes::Bytes;
use serde_json::json;

use crate::{
    base::json::reader::JsonRef,
    dialect::errors::sanitize::{self, MAX_SENT_CHARS},
    ir::fault::{ProxyError, ProxyErrorKind},
};

/// The error code of a response that failed for this reason.
pub(super) fn failure_code(kind: ProxyErrorKind) -> &'static str {
    match kind {
        ProxyErrorKind::RateLimited | ProxyErrorKind::OutOfCredit => "rate_limit_exceeded",
        ProxyErrorKind::BadRequest | ProxyErrorKind::UpstreamError => "invalid_prompt",
        _ => "server_error",
    }
}

/// Writes `response.failed` instead of `error`, because SDKs pass an `error` event to their users
/// as an ordinary event.
pub(super) fn failed_event(error: &ProxyError, request_id: &str, sequence: u32) -> Bytes {
    let event = json!({
        "type": "response.failed",
        "sequence_number": sequence,
        "response": {
            "id": format!("resp_{request_id}"),
            "object": "response",
            "created_at": 0,
            "status": "failed",
            "error": { "code": failure_code(error.kind), "message": sanitize::escape_controls(&error.message, MAX_SENT_CHARS) },
            "incomplete_details": null,
            "instructions": null,
            "metadata": {},
            "model": "",
            "output": [],
            "parallel_tool_calls": true,
            "temperature": null,
            "tool_choice": "auto",
            "tools": [],
            "top_p": null,
            "usage": null,
        },
    });
    format!("event: response.failed\ndata: {event}\n\n").into()
}

pub(super) fn wrong_type(location: &str, wanted: &str, got: JsonRef<'_>) -> ProxyError {
    bad_request(
        format!("Invalid type for '{location}': expected {wanted}, but got {}.", got.kind()),
        Some(location.to_owned()),
    )
    .code("invalid_type")
}

pub(super) fn missing_parameter(location: String) -> ProxyError {
    bad_request(format!("Missing required parameter: '{location}'."), Some(location))
        .code("missing_required_parameter")
}

pub(super) fn bad_request(message: String, param: Option<String>) -> ProxyError {
    let error = ProxyError::new(ProxyErrorKind::BadRequest, message);
    match param {
        Some(param) => error.param(param),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_stream_ends_in_a_failed_response() {
        let event = failed_event(&ProxyError::new(ProxyErrorKind::Timeout, "late"), "7", 12);
        let data = event.strip_prefix(b"event: response.failed\ndata: ").expect("named");
        let value: serde_json::Value = serde_json::from_slice(data).expect("json");
        assert_eq!(
            (&value["type"], &value["sequence_number"]),
            (&json!("response.failed"), &json!(12))
        );
        assert_eq!(value["response"]["error"], json!({"code":"server_error","message":"late"}));
    }
}
