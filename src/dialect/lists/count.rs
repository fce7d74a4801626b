//! Counts of tokens: how each dialect asks for one, and how it says it.

use std::borrow::Cow;

use bytes::Bytes;

use super::{Written, object};
use crate::{
    base::{json::JsonRef, write},
    dialect::{shape, tokens},
    ir::{
        fault::{Fault, ProxyError},
        op::Dialect,
    },
};

/// The conversation inside a client's question, in the form in which its dialect's reader takes it.
///
/// # Errors
///
/// What is no JSON object.
pub fn conversation(dialect: Dialect, body: &[u8]) -> Result<Cow<'_, [u8]>, ProxyError> {
    let root = object(body)?;
    let wrapped = root
        .get("generateContentRequest")
        .filter(|inner| dialect == Dialect::Gemini && inner.is_object());
    Ok(wrapped.map_or(Cow::Borrowed(body), |inner| Cow::Borrowed(inner.text().as_bytes())))
}

/// The question to an upstream about a generation request that was written for it; `None` where its
/// dialect has none.
#[must_use]
pub fn question(dialect: Dialect, generation: &[u8], model: &str) -> Option<Written> {
    let root = object(generation).ok()?;
    // What is no part of the input is refused where only the input is asked about.
    let (path, kept): (_, &[&str]) = match dialect {
        Dialect::Anthropic => (
            "/messages/count_tokens",
            &[
                "model",
                "messages",
                "system",
                "tools",
                "tool_choice",
                "thinking",
                "output_config",
                "output_format",
                "mcp_servers",
            ],
        ),
        Dialect::Gemini => ("/models/{model}:countTokens", &[]),
        Dialect::Responses => (
            "/responses/input_tokens",
            &[
                "model",
                "input",
                "instructions",
                "tools",
                "tool_choice",
                "text",
                "reasoning",
                "conversation",
                "previous_response_id",
                "parallel_tool_calls",
                "truncation",
            ],
        ),
        Dialect::Ollama | Dialect::Openai => return None,
    };
    let body = write::object(|o| {
        if dialect == Dialect::Gemini {
            o.object("generateContentRequest", |o| {
                o.str(
                    "model",
                    &format!("models/{}", model.strip_prefix("models/").unwrap_or(model)),
                );
                for (key, value) in root.members().filter(|(key, _)| *key != "model") {
                    o.json(key, value);
                }
            });
            return;
        }
        for (key, value) in root.members().filter(|(key, _)| kept.contains(key)) {
            o.json(key, value);
        }
    });
    Some(Written { path, body: body.into(), losses: Vec::new() })
}

/// The number in an upstream's answer.
///
/// # Errors
///
/// The fault, when there is none.
pub fn read(content_type: &str, body: &[u8]) -> Result<u64, Fault> {
    let root = shape::answer(content_type, body)?;
    let places: [&[&str]; 4] = [&["input_tokens"], &["totalTokens"], &["total_tokens"], &["count"]];
    // Gemini leaves out a count of zero.
    let none =
        || root.members().all(|(_, value): (_, JsonRef<'_>)| value.kind() != "number").then_some(0);
    places
        .iter()
        .find_map(|path| tokens::count(root, path))
        .or_else(|| root.get("promptTokensDetails").and_then(|_| none()))
        .ok_or_else(|| crate::dialect::fault::unexpected("no count of tokens"))
}

/// The answer to a client of this dialect.
#[must_use]
pub fn write(dialect: Dialect, count: u64) -> Bytes {
    let body = write::object(|o| {
        match dialect {
            Dialect::Gemini => o.num("totalTokens", count).array("promptTokensDetails", |a| {
                a.object(|o| {
                    o.str("modality", "TEXT").num("tokenCount", count);
                });
            }),
            Dialect::Anthropic => o.num("input_tokens", count),
            Dialect::Ollama | Dialect::Openai | Dialect::Responses => {
                o.str("object", "response.input_tokens").num("input_tokens", count)
            }
        };
    });
    body.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::recorded;

    #[test]
    fn counts_are_told_and_read_in_every_dialect() {
        for dialect in [Dialect::Anthropic, Dialect::Gemini, Dialect::Responses] {
            assert_eq!(read("", &write(dialect, 7)), Ok(7));
        }
        assert_eq!(write(Dialect::Anthropic, 7), r#"{"input_tokens":7}"#);
        assert_eq!(read("", br#"{"promptTokensDetails":[]}"#), Ok(0));
        assert!(read("", b"{}").is_err());
        assert!(read("", br#"{"error":{"message":"no"}}"#).is_err());
    }

    #[test]
    fn questions_hold_the_input_only() {
        let body = |dialect, generation: &str| {
            question(dialect, generation.as_bytes(), "m")
                .map(|written| String::from_utf8(written.body.to_vec()).expect("text"))
        };
        assert_eq!(
            body(
                Dialect::Anthropic,
                r#"{"model":"m","max_tokens":5,"stream":true,"messages":[1]}"#
            )
            .as_deref(),
            Some(r#"{"model":"m","messages":[1]}"#)
        );
        assert_eq!(
            body(Dialect::Gemini, r#"{"contents":[1],"tools":[2]}"#).as_deref(),
            Some(r#"{"generateContentRequest":{"model":"models/m","contents":[1],"tools":[2]}}"#)
        );
        assert_eq!(body(Dialect::Openai, "{}"), None);
        let inner = conversation(Dialect::Gemini, br#"{"generateContentRequest":{"contents":[]}}"#)
            .expect("an object");
        assert_eq!(&*inner, br#"{"contents":[]}"#);
    }

    #[test]
    fn recorded_counts_are_read() {
        for exchange in recorded::of(&[
            "anthropic.count_tokens",
            "gemini.countTokens",
            "openai.responses.input_tokens",
        ]) {
            let count = read("application/json", exchange.response.as_bytes());
            assert_eq!(
                count.is_ok_and(|count| count > 0),
                exchange.status == 200,
                "{}",
                exchange.id
            );
        }
    }
}
