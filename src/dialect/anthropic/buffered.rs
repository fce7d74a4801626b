//! Complete messages: reading one, turning one into a stream, and assembling one from a stream.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use serde_json::{Map, Value, json};

use crate::{
    base::framing::sse,
    dialect::{
        anthropic::meter::MessageUsage, errors::read_error, event_json, json_body,
        meter::AnswerSummary,
    },
    ir::fault::Fault,
};

pub(super) fn read_summary(content_type: &str, body: &[u8]) -> Result<AnswerSummary, Fault> {
    let json = json_body::parse_response(content_type, body)?;
    if json_body::required_list(json, "content")?.items().any(|block| !block.is_object()) {
        return Err(read_error::unexpected_shape("a content block is no block"));
    }
    let mut counts = MessageUsage::default();
    if let Some(usage) = json.get("usage") {
        counts.update(usage);
    }
    Ok(AnswerSummary {
        usage: counts.usage(),
        finish_reason: json_body::clean_name(json.get("stop_reason")),
        model: json_body::clean_name(json.get("model")),
    })
}

/// The events of a stream that carries this message, with each block in one delta.
pub(super) fn synthesize_stream(body: &[u8]) -> Result<Bytes, Fault> {
    read_summary("", body)?;
    let mut message = json_body::parse_tree("", body)?;
    let blocks = message.insert("content".to_owned(), json!([]));
    let mut take = |key: &str| message.insert(key.to_owned(), Value::Null).unwrap_or(Value::Null);
    let (reason, sequence) = (take("stop_reason"), take("stop_sequence"));
    // The SDKs add up usage from the first event on and need the object.
    let usage = message
        .entry("usage")
        .or_insert_with(|| json!({ "input_tokens": 0, "output_tokens": 0 }))
        .clone();

    let mut out = BytesMut::new();
    let mut write = |name: &str, event: Value| {
        sse::write_event(&mut out, name.as_bytes(), event.to_string().as_bytes());
    };
    write("message_start", json!({ "type": "message_start", "message": message }));
    let blocks = match blocks {
        Some(Value::Array(blocks)) => blocks,
        _ => Vec::new(),
    };
    for (index, block) in blocks.into_iter().enumerate() {
        let (start, deltas) = split_into_deltas(block);
        write(
            "content_block_start",
            json!({ "type": "content_block_start", "index": index, "content_block": start }),
        );
        for delta in deltas {
            write(
                "content_block_delta",
                json!({ "type": "content_block_delta", "index": index, "delta": delta }),
            );
        }
        write("content_block_stop", json!({ "type": "content_block_stop", "index": index }));
    }
    write(
        "message_delta",
        json!({ "type": "message_delta", "delta": { "stop_reason": reason, "stop_sequence": sequence }, "usage": usage }),
    );
    write("message_stop", json!({ "type": "message_stop" }));
    Ok(out.freeze())
}

/// Splits a block into its start and the deltas that fill it.
fn split_into_deltas(mut block: Value) -> (Value, Vec<Value>) {
    let mut deltas = Vec::new();
    let kind = block.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some(fields) = block.as_object_mut() {
        match kind.as_str() {
            "text" => {
                if let Some(Value::String(text)) = fields.insert("text".to_owned(), "".into()) {
                    deltas.push(json!({ "type": "text_delta", "text": text }));
                }
                if let Some(Value::Array(citations)) = fields.remove("citations") {
                    deltas.extend(citations.into_iter().map(
                        |citation| json!({ "type": "citations_delta", "citation": citation }),
                    ));
                }
            }
            "thinking" => {
                if let Some(Value::String(text)) = fields.insert("thinking".to_owned(), "".into()) {
                    deltas.push(json!({ "type": "thinking_delta", "thinking": text }));
                }
                if let Some(Value::String(signature)) =
                    fields.insert("signature".to_owned(), "".into())
                {
                    deltas.push(json!({ "type": "signature_delta", "signature": signature }));
                }
            }
            "tool_use" | "server_tool_use" => {
                if let Some(input) = fields.insert("input".to_owned(), json!({})) {
                    deltas.push(
                        json!({ "type": "input_json_delta", "partial_json": input.to_string() }),
                    );
                }
            }
            _ => {}
        }
    }
    (block, deltas)
}

/// Assembles the events of a complete stream into one message.
pub(super) fn collect_stream(events: &[(Vec<u8>, Vec<u8>)]) -> Result<Bytes, Fault> {
    let mut message: Option<Map<String, Value>> = None;
    let mut blocks: Vec<(u64, Map<String, Value>, String)> = Vec::new();
    let mut positions: HashMap<u64, usize> = HashMap::new();
    let mut done = false;
    for (_, data) in events {
        if event_json::is_done(data) {
            continue;
        }
        let mut event = json_body::parse_event_tree(data)?;
        let index = event.get("index").and_then(Value::as_u64).unwrap_or(0);
        let kind = event.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        match (kind.as_str(), &mut message) {
            ("message_start", _) => message = event.remove("message").and_then(into_object),
            ("content_block_start", _) => {
                positions.entry(index).or_insert(blocks.len());
                blocks.push((
                    index,
                    event.remove("content_block").and_then(into_object).unwrap_or_default(),
                    String::new(),
                ));
            }
            ("content_block_delta", _) => {
                if let (Some(block), Some(delta)) = (
                    positions.get(&index).and_then(|position| blocks.get_mut(*position)),
                    event.remove("delta").and_then(into_object),
                ) {
                    apply_delta(block, delta);
                }
            }
            ("message_delta", Some(message)) => {
                message.extend(event.remove("delta").and_then(into_object).unwrap_or_default());
                let usage = message.entry("usage").or_insert_with(|| json!({}));
                if let (Some(usage), Some(new)) =
                    (usage.as_object_mut(), event.remove("usage").and_then(into_object))
                {
                    usage.extend(new.into_iter().filter(|(_, value)| !value.is_null()));
                }
                done |= message.get("stop_reason").is_some_and(|reason| !reason.is_null());
            }
            ("message_stop", _) => done = true,
            _ => {}
        }
    }
    let mut message = message.filter(|_| done).ok_or_else(json_body::truncated_stream_fault)?;
    if blocks.is_empty() && message.get("stop_reason").is_none_or(Value::is_null) {
        return Err(json_body::empty_stream_fault());
    }
    blocks.sort_by_key(|(index, ..)| *index);
    let blocks = blocks.into_iter().map(|(_, mut block, arguments)| {
        if !arguments.is_empty() {
            block.insert(
                "input".to_owned(),
                serde_json::from_str(&arguments).unwrap_or(Value::String(arguments)),
            );
        }
        Value::Object(block)
    });
    message.insert("content".to_owned(), blocks.collect());
    Ok(Value::Object(message).to_string().into())
}

fn apply_delta(
    (_, block, arguments): &mut (u64, Map<String, Value>, String),
    delta: Map<String, Value>,
) {
    for (key, value) in delta {
        match (key.as_str(), value) {
            ("type", _) => {}
            ("partial_json", Value::String(text)) => arguments.push_str(&text),
            ("citation", citation) => match block.entry("citations").or_insert_with(|| json!([])) {
                Value::Array(list) => list.push(citation),
                other => *other = json!([citation]),
            },
            (_, Value::String(text)) => {
                json_body::append_text(block.entry(key).or_insert(Value::Null), &text);
            }
            (_, value) => {
                block.insert(key, value);
            }
        }
    }
}

fn into_object(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = r#"{"id":"m","type":"message","role":"assistant","model":"c","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"hi"},{"type":"tool_use","id":"t","name":"n","input":{"a":1}}],"stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":4}}"#;

    #[test]
    fn message_written_as_a_stream_is_assembled_again() {
        let stream = synthesize_stream(MESSAGE.as_bytes()).expect("a message");
        let text = String::from_utf8_lossy(&stream).into_owned();
        let events: Vec<_> = text
            .split_terminator("\n\n")
            .map(|event| {
                let (name, data) = event.split_once("\ndata: ").expect("two lines");
                (name.trim_start_matches("event: ").as_bytes().to_vec(), data.as_bytes().to_vec())
            })
            .collect();
        let back: Value =
            serde_json::from_slice(&collect_stream(&events).expect("complete")).expect("json");
        assert_eq!(back, serde_json::from_str::<Value>(MESSAGE).expect("json"));
        assert!(collect_stream(&events[..events.len() - 2]).is_err());
    }

    #[test]
    fn invalid_answers_are_faults_and_empty_messages_are_not() {
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"content":"x"}"#,
            r#"{"content":[1]}"#,
            r#"{"type":"error","error":{"type":"api_error","message":"m"}}"#,
            "<html>",
        ] {
            assert!(read_summary("", bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(
            read_summary("", br#"{"content":[],"stop_reason":"refusal"}"#).map(|s| s.finish_reason),
            Ok(Some("refusal".to_owned()))
        );
    }
}
