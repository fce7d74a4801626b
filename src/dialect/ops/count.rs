//! Reads and writes token counts: each dialect's request for a count, and its answer.

use std::borrow::Cow;

use bytes::Bytes;

use crate::dialect::ops::{EncodedOpRequest, parse_object};
use crate::{
    base::json::{reader::JsonRef, writer},
    dialect::{json_body, usage_read},
    ir::{
        fault::{Fault, ProxyError},
        op::Dialect,
    },
};

/// Returns the conversation inside a client's count request, in the form that its dialect's reader
/// expects.
///
/// # Errors
///
/// If the body is not a JSON object.
pub fn unwrap_conversation(dialect: Dialect, body: &[u8]) -> Result<Cow<'_, [u8]>, ProxyError> {
    let root = parse_object(body)?;
    let wrapped = root
        .get("generateContentRequest")
        .filter(|inner| dialect == Dialect::Gemini && inner.is_object());
    Ok(wrapped.map_or(Cow::Borrowed(body), |inner| Cow::Borrowed(inner.text().as_bytes())))
}

/// Writes the count request for a generation request that is already in the upstream's dialect;
/// `None` if the dialect has no such request.
#[must_use]
pub fn write_request(dialect: Dialect, generation: &[u8], model: &str) -> Option<EncodedOpRequest> {
    let root = parse_object(generation).ok()?;
    // Count endpoints reject fields that are not part of the input.
    let (path, fields): (_, &[&str]) = match dialect {
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
    let body = writer::object(|o| {
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
        for (key, value) in root.members().filter(|(key, _)| fields.contains(key)) {
            o.json(key, value);
        }
    });
    Some(EncodedOpRequest { path, body: body.into(), losses: Vec::new() })
}

/// Reads the count in an upstream's answer.
///
/// # Errors
///
/// The fault, if there is no count.
pub fn read_response(content_type: &str, body: &[u8]) -> Result<u64, Fault> {
    let root = json_body::parse_response(content_type, body)?;
    let paths: [&[&str]; 4] = [&["input_tokens"], &["totalTokens"], &["total_tokens"], &["count"]];
    // Gemini omits a count of zero.
    let none =
        || root.members().all(|(_, value): (_, JsonRef<'_>)| value.kind() != "number").then_some(0);
    paths
        .iter()
        .find_map(|path| usage_read::count_at(root, path))
        .or_else(|| root.get("promptTokensDetails").and_then(|_| none()))
        .ok_or_else(|| crate::dialect::errors::read_error::unexpected_shape("no count of tokens"))
}

/// Writes the answer to a client of this dialect.
#[must_use]
pub fn write_response(dialect: Dialect, count: u64) -> Bytes {
    let body = writer::object(|o| {
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
    use crate::dialect::tests::recorded;

    #[test]
    fn token_counts_are_written_and_read_in_every_dialect() {
        for dialect in [Dialect::Anthropic, Dialect::Gemini, Dialect::Responses] {
            assert_eq!(read_response("", &write_response(dialect, 7)), Ok(7));
        }
        assert_eq!(write_response(Dialect::Anthropic, 7), r#"{"input_tokens":7}"#);
        assert_eq!(read_response("", br#"{"promptTokensDetails":[]}"#), Ok(0));
        assert!(read_response("", b"{}").is_err());
        assert!(read_response("", br#"{"error":{"message":"no"}}"#).is_err());
    }

    #[test]
    fn count_requests_contain_only_the_input() {
        let body = |dialect, generation: &str| {
            write_request(dialect, generation.as_bytes(), "m")
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
        let inner =
            unwrap_conversation(Dialect::Gemini, br#"{"generateContentRequest":{"contents":[]}}"#)
                .expect("an object");
        assert_eq!(&*inner, br#"{"contents":[]}"#);
    }

    #[test]
    fn recorded_counts_are_read() {
        for exchange in recorded::load_exchanges(&[
            "anthropic.count_tokens",
            "gemini.countTokens",
            "openai.responses.input_tokens",
        ]) {
            let count = read_response("application/json", exchange.response.as_bytes());
            assert_eq!(
                count.is_ok_and(|count| count > 0),
                exchange.status == 200,
                "{}",
                exchange.id
            );
        }
    }
}
