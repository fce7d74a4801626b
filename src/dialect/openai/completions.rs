//! Converts the legacy prompt-in, text-out endpoint to a conversation of one message, and log
//! probabilities to its form.

use crate::{
    base::json::{raw::RawJson, reader::JsonRef, writer},
    dialect::openai::error::invalid_param,
    ir::{
        block::Block,
        fault::ProxyError,
        request::{ChatMessage, Role},
    },
};

/// Returns the user message for a prompt (and for the text that is to follow the answer).
pub(super) fn read_prompt(json: JsonRef<'_>) -> Result<ChatMessage, ProxyError> {
    let prompt = json
        .get("prompt")
        .ok_or_else(|| invalid_param("prompt", "Missing required parameter: 'prompt'."))?;
    let first = if prompt.is_array() { prompt.items().next().unwrap_or(prompt) } else { prompt };
    let Some(text) = first.str() else {
        let what = if matches!(first.kind(), "number" | "array") {
            "arrays of tokens are not taken here"
        } else {
            "a text is expected"
        };
        return Err(invalid_param(
            "prompt",
            format!("Invalid type for 'prompt': {what}; send the prompt as a string."),
        ));
    };
    let suffix = json.get("suffix").and_then(JsonRef::str).filter(|suffix| !suffix.is_empty());
    let instruction = match suffix {
        None => text.into_owned(),
        Some(suffix) => format!(
            "Fill in the middle. Write exactly the text that stands between the prefix and the suffix below, so that prefix, your answer and \
             suffix joined are one whole. Answer with that text alone: no explanation, no code fence, nothing of the prefix or the suffix \
             repeated.\n\n<prefix>{text}</prefix>\n<suffix>{suffix}</suffix>"
        ),
    };
    Ok(ChatMessage::new(Role::User, vec![Block::text(instruction)]))
}

/// Writes the `logprobs` of a completion from the token array of a chat answer; `offset` is the
/// position of the text, in characters.
pub(super) fn write_logprobs(tokens: &RawJson, offset: &mut u64) -> String {
    let of = |token: JsonRef<'_>| {
        token.get("token").and_then(JsonRef::str).unwrap_or_default().into_owned()
    };
    let items = || tokens.json().items();
    writer::object(|o| {
        o.array("text_offset", |a| {
            for token in items() {
                a.num(*offset);
                *offset += of(token).chars().count() as u64;
            }
        });
        o.array("token_logprobs", |a| {
            items().for_each(|token| {
                a.raw_text(token.get("logprob").map_or("null", JsonRef::text));
            });
        });
        o.array("tokens", |a| {
            items().for_each(|token| {
                a.str(&of(token));
            });
        });
        o.array("top_logprobs", |a| {
            for token in items() {
                a.object(|o| {
                    for top in token.get("top_logprobs").into_iter().flat_map(JsonRef::items) {
                        // The writer adds the quotes of a key, so the quotes around a token's text
                        // are removed.
                        let name = RawJson::string(&of(top));
                        o.raw_text(
                            &name.text()[1..name.text().len() - 1],
                            top.get("logprob").map_or("null", JsonRef::text),
                        );
                    }
                });
            }
        });
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_become_one_message() {
        let read = |body: &str| read_prompt(RawJson::parse(body).expect("json").json());
        let read_text = |body: &str| match &read(body).expect("a prompt").blocks[0].kind {
            crate::ir::block::BlockKind::Text(text) => text.text.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(read_text(r#"{"prompt":"a\nb"}"#), "a\nb");
        assert_eq!(read_text(r#"{"prompt":["a","b"],"suffix":""}"#), "a");
        assert!(
            read_text(r#"{"prompt":"fn x() {","suffix":"}"}"#)
                .ends_with("<prefix>fn x() {</prefix>\n<suffix>}</suffix>")
        );
        for bad in [
            "{}",
            r#"{"prompt":[1,2]}"#,
            r#"{"prompt":[[1]]}"#,
            r#"{"prompt":[]}"#,
            r#"{"prompt":{}}"#,
        ] {
            assert_eq!(read(bad).expect_err(bad).param.as_deref(), Some("prompt"));
        }
    }

    #[test]
    fn log_probabilities_are_written_in_the_legacy_form() {
        let tokens = RawJson::parse(
            r#"[{"token":"é\"","logprob":-0.5,"bytes":[1],"top_logprobs":[{"token":"é\"","logprob":-0.5}]},{"token":"b"}]"#,
        );
        let mut offset = 3;
        assert_eq!(
            write_logprobs(&tokens.expect("json"), &mut offset),
            r#"{"text_offset":[3,5],"token_logprobs":[-0.5,null],"tokens":["é\"","b"],"top_logprobs":[{"é\"":-0.5},{}]}"#
        );
        assert_eq!(offset, 6);
    }
}
