//! Maps finish reasons between the provider's names and the IR.

use crate::{
    dialect::errors::read_error,
    ir::{
        fault::Fault,
        response::{Finish, FinishKind},
    },
};

/// Maps a finish reason; `None` if it means that the model failed.
pub(super) fn finish_kind(reason: &str) -> Option<FinishKind> {
    Some(match reason {
        "MAX_TOKENS" => FinishKind::Length,
        "SAFETY"
        | "RECITATION"
        | "LANGUAGE"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "IMAGE_SAFETY"
        | "IMAGE_RECITATION"
        | "IMAGE_PROHIBITED_CONTENT"
        | "MODEL_ARMOR"
        | "JAILBREAK" => FinishKind::ContentFilter,
        "MALFORMED_FUNCTION_CALL"
        | "UNEXPECTED_TOOL_CALL"
        | "TOO_MANY_TOOL_CALLS"
        | "MISSING_THOUGHT_SIGNATURE"
        | "MALFORMED_RESPONSE" => {
            return None;
        }
        // STOP, OTHER, and reasons that this version does not know.
        _ => FinishKind::Stop,
    })
}

/// The fault for a failed finish reason, with the provider's message if there is one.
pub(super) fn finish_fault(reason: &str, message: Option<&str>) -> Fault {
    let mut fault = read_error::unexpected_shape(reason);
    let given = message.map(str::trim).filter(|message| !message.is_empty());
    fault.message = match given {
        Some(message) => crate::dialect::errors::sanitize::one_line(
            &format!("{message} ({reason})"),
            crate::dialect::errors::sanitize::MAX_MESSAGE_CHARS,
        ),
        None => format!("the model's answer failed ({reason})"),
    };
    fault.error_type = Some(reason.to_owned());
    fault
}

/// The finish reason for clients, which is the provider's own if it means the same. `has_text` says
/// whether the answer contains text.
pub(super) fn finish_reason(finish: &Finish, has_text: bool) -> &str {
    let kind = if finish.kind == FinishKind::ToolCalls { FinishKind::Stop } else { finish.kind };
    let default_reason = match kind {
        // A refusal in words is written as text. One without, or one by which the provider withheld
        // the rest of the answer, must not look like a natural end.
        FinishKind::Refusal if !has_text || finish.raw_reason.as_deref() == Some("refusal") => {
            "SAFETY"
        }
        FinishKind::Stop | FinishKind::ToolCalls | FinishKind::Pause | FinishKind::Refusal => {
            "STOP"
        }
        FinishKind::Length => "MAX_TOKENS",
        FinishKind::ContentFilter => "SAFETY",
    };
    const NATIVE_REASONS: [&str; 9] = [
        "OTHER",
        "RECITATION",
        "LANGUAGE",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "IMAGE_RECITATION",
        "STOP",
    ];
    finish
        .raw_reason
        .as_deref()
        .filter(|reason| NATIVE_REASONS.contains(reason) && finish_kind(reason) == Some(kind))
        .unwrap_or(default_reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_without_text_finishes_with_safety() {
        for (kind, reason, has_text, want) in [
            (FinishKind::Refusal, "stop", true, "STOP"),
            (FinishKind::Refusal, "stop", false, "SAFETY"),
            (FinishKind::Refusal, "refusal", true, "SAFETY"),
            (FinishKind::Stop, "refusal", false, "STOP"),
            (FinishKind::ContentFilter, "refusal", true, "SAFETY"),
        ] {
            let finish = Finish { kind, raw_reason: Some(reason.to_owned()), stop_sequence: None };
            assert_eq!(finish_reason(&finish, has_text), want, "{kind:?} {reason} {has_text}");
        }
    }
}
