//! Rewords the error for a conversation that is too long, so that clients of this dialect know to
//! shorten it.

use crate::ir::fault::{ProxyError, ProxyErrorKind};

/// The phrase by which clients recognise the error. The actual and the allowed token count follow
/// it.
const TOO_LONG_PHRASE: &str = "prompt is too long";

/// The phrases that upstreams of all dialects use, in lower case.
const UPSTREAM_PHRASES: [&str; 12] = [
    "maximum context length",
    "exceeds the context window",
    "exceed the context window",
    "exceeds the model's context",
    "exceeds the available context size",
    "context window exceeded",
    "context length exceeded",
    "context_length_exceeded",
    "input token count",
    "input tokens exceed",
    "exceeds the maximum number of tokens",
    TOO_LONG_PHRASE,
];

/// Phrases that precede the limit in a message.
const LIMIT_PHRASES: [&str; 7] =
    ["maximum", "limit", "context length", "context size", "context window", "allowed", "up to"];

/// Whether the error means that the conversation is too long.
pub(super) fn is_context_overflow(error: &ProxyError) -> bool {
    let fits = matches!(
        error.kind,
        ProxyErrorKind::BadRequest | ProxyErrorKind::TooLarge | ProxyErrorKind::UpstreamError
    );
    let message = error.message.to_lowercase();
    let refused = error.status.is_none_or(|status| matches!(status, 400 | 413 | 422));
    fits && refused
        && (error.code.as_deref().is_some_and(|code| {
            matches!(code, "context_length_exceeded" | "context_window_exceeded")
        }) || UPSTREAM_PHRASES.iter().any(|phrase| message.contains(phrase)))
}

/// Returns the message in that wording, with the token counts if they are known, followed by the
/// upstream's message.
pub(super) fn reword(error: &ProxyError) -> Option<String> {
    if !is_context_overflow(error) || error.message.contains(TOO_LONG_PHRASE) {
        return None;
    }
    Some(match token_counts(&error.message.to_lowercase()) {
        Some((there, most)) => {
            format!("{TOO_LONG_PHRASE}: {there} tokens > {most} maximum: {}", error.message)
        }
        None => format!("{TOO_LONG_PHRASE}: {}", error.message),
    })
}

/// The actual and the allowed token count. The limit is the number that follows a limit phrase; the
/// actual count is the largest number above it.
fn token_counts(message: &str) -> Option<(u64, u64)> {
    let numbers = find_numbers(message);
    let follows_limit_phrase = |at: usize| {
        let from =
            message.char_indices().map(|(i, _)| i).rev().find(|i| *i + 45 <= at).unwrap_or(0);
        LIMIT_PHRASES.iter().any(|phrase| message[from..at].contains(phrase))
    };
    let limit = numbers
        .iter()
        .find(|(at, _)| follows_limit_phrase(*at))
        .or_else(|| numbers.iter().min_by_key(|(_, number)| *number))?
        .1;
    let used = numbers.iter().map(|(_, number)| *number).max().filter(|there| *there > limit)?;
    Some((used, limit))
}

/// The counts in a text, each with its byte offset. Versions, years and similar numbers are too
/// small to be counts.
fn find_numbers(message: &str) -> Vec<(usize, u64)> {
    const MIN_TOKEN_COUNT: u64 = 256;
    let mut out = Vec::new();
    let mut rest = 0;
    while let Some(at) = message[rest..].find(|c: char| c.is_ascii_digit()).map(|at| rest + at) {
        let end = message[at..]
            .find(|c: char| !c.is_ascii_digit() && c != ',' && c != '_')
            .map_or(message.len(), |end| at + end);
        let digits: String = message[at..end].chars().filter(char::is_ascii_digit).collect();
        out.extend(
            digits
                .parse()
                .ok()
                .filter(|number| *number >= MIN_TOKEN_COUNT)
                .map(|number| (at, number)),
        );
        rest = end;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_counts_are_parsed_from_every_vendor_message() {
        for (message, want) in [
            (
                "This model's maximum context length is 128000 tokens. However, your messages resulted in 150001 tokens.",
                Some("prompt is too long: 150001 tokens > 128000 maximum"),
            ),
            (
                "This model's maximum context length is 8192 tokens, however you requested 10000 tokens (6000 in the messages, 4000 in the completion).",
                Some("prompt is too long: 10000 tokens > 8192 maximum"),
            ),
            (
                "Input tokens exceed the configured limit of 272,000 tokens. Your messages resulted in 300,000 tokens.",
                Some("prompt is too long: 300000 tokens > 272000 maximum"),
            ),
            (
                "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
                Some("prompt is too long: 1200000 tokens > 1048576 maximum"),
            ),
            (
                "the request exceeds the available context size (4096 tokens), try increasing it",
                Some("prompt is too long: the request exceeds"),
            ),
            (
                "Your input exceeds the context window of this model.",
                Some("prompt is too long: Your input exceeds"),
            ),
            ("prompt is too long: 5 tokens > 4 maximum", None),
            ("max_tokens is too large: 5000", None),
        ] {
            let error = ProxyError::new(ProxyErrorKind::UpstreamError, message).status(400);
            let worded = reword(&error);
            assert_eq!(worded.is_some(), want.is_some(), "{message}");
            if let (Some(worded), Some(want)) = (worded, want) {
                assert!(worded.starts_with(want) && worded.ends_with(message), "{worded}");
            }
        }
        assert!(!is_context_overflow(
            &ProxyError::new(ProxyErrorKind::RateLimited, "maximum context length").status(429)
        ));
    }
}
