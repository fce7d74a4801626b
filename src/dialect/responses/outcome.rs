//! Reads how a response object ended: its summary, or the fault if it failed.

use crate::{
    base::json::reader::JsonRef,
    dialect::{errors::read_error, json_body, meter::AnswerSummary, usage_read},
    ir::fault::Fault,
};

/// The usage, status and model of a response object. An incomplete response gives the reason
/// instead of the status.
pub(super) fn response_summary(response: JsonRef<'_>) -> AnswerSummary {
    let status = json_body::clean_name(response.get("status"));
    let reason = json_body::clean_name(response.member_at(&["incomplete_details", "reason"]));
    AnswerSummary {
        usage: response.get("usage").and_then(usage_read::read_openai),
        finish_reason: reason.or(status),
        model: json_body::clean_name(response.get("model")),
    }
}

/// The fault of a response that failed or was cancelled.
pub(super) fn response_failure(response: JsonRef<'_>) -> Option<Fault> {
    match response.string_at("status").as_deref() {
        Some("failed") => Some(read_error::from_json(None, response)),
        Some("cancelled") => Some(cancelled_fault()),
        _ => None,
    }
}

pub(super) fn cancelled_fault() -> Fault {
    read_error::unexpected_shape("the response was cancelled")
}
