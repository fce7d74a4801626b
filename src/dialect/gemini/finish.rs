//! Why an answer ended, in the provider's words and in ours.

use crate::{
    dialect::fault,
    ir::{
        fault::Fault,
        response::{Finish, FinishKind},
    },
};

/// What a finish reason stands for; `None` where it is the model's failure and no answer.
pub(super) fn kind_of(reason: &str) -> Option<FinishKind> {
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
        // STOP, OTHER, and words that are yet to come.
        _ => FinishKind::Stop,
    })
}

/// The fault that such a failure is, with the provider's message where it gave one.
pub(super) fn failure(reason: &str, message: Option<&str>) -> Fault {
    let mut fault = fault::unexpected(reason);
    let told = message.map(str::trim).filter(|message| !message.is_empty());
    fault.message = match told {
        Some(message) => crate::dialect::words::plain(
            &format!("{message} ({reason})"),
            crate::dialect::words::MESSAGE,
        ),
        None => format!("the model's answer failed ({reason})"),
    };
    fault.error_type = Some(reason.to_owned());
    fault
}

/// The finish reason that clients are told; the provider's own where it means the same.
/// `words`: the answer holds text.
pub(super) fn word(finish: &Finish, words: bool) -> &str {
    let kind = if finish.kind == FinishKind::ToolCalls { FinishKind::Stop } else { finish.kind };
    let usual = match kind {
        // A refusal's words are told as text; one without words must not look like an empty answer.
        FinishKind::Refusal if !words => "SAFETY",
        FinishKind::Stop | FinishKind::ToolCalls | FinishKind::Pause | FinishKind::Refusal => {
            "STOP"
        }
        FinishKind::Length => "MAX_TOKENS",
        FinishKind::ContentFilter => "SAFETY",
    };
    const OWN: [&str; 9] = [
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
        .filter(|said| OWN.contains(said) && kind_of(said) == Some(kind))
        .unwrap_or(usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_without_words_says_why_there_are_none() {
        let finish =
            |kind| Finish { kind, raw_reason: Some("refusal".to_owned()), stop_sequence: None };
        for (kind, words, want) in [
            (FinishKind::Refusal, true, "STOP"),
            (FinishKind::Refusal, false, "SAFETY"),
            (FinishKind::Stop, false, "STOP"),
            (FinishKind::ContentFilter, true, "SAFETY"),
        ] {
            assert_eq!(word(&finish(kind), words), want, "{kind:?} {words}");
        }
    }
}
