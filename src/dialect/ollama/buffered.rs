//! Reads complete chat and generate answers, turns them into a stream, and assembles them from one.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::{
    base::json::reader::JsonRef,
    dialect::{errors::read_error, json_body, meter::AnswerSummary, ollama::meter::read_usage},
    ir::fault::Fault,
};

pub(super) fn read_summary(content_type: &str, body: &[u8]) -> Result<AnswerSummary, Fault> {
    let json = json_body::parse_response(content_type, body)?;
    match (json.get("message"), json.get("response")) {
        (Some(message), _) if message.is_object() => {}
        (None, Some(response)) if response.kind() == "string" => {}
        _ => return Err(read_error::unexpected_shape("neither `message` nor `response`")),
    }
    Ok(summarize(json))
}

pub(super) fn read_embedding_summary(
    content_type: &str,
    body: &[u8],
) -> Result<AnswerSummary, Fault> {
    json_body::parse_response(content_type, body).map(summarize)
}

fn summarize(json: JsonRef<'_>) -> AnswerSummary {
    AnswerSummary {
        usage: read_usage(json),
        finish_reason: json_body::clean_name(json.get("done_reason")),
        model: json_body::clean_name(json.get("model")),
    }
}

/// Turns a whole answer into a stream of one line.
pub(super) fn synthesize_stream(body: &[u8]) -> Result<Bytes, Fault> {
    read_summary("", body)?;
    let mut answer = json_body::parse_tree("", body)?;
    answer.insert("done".to_owned(), true.into());
    Ok(format!("{}\n", Value::Object(answer)).into())
}

/// Assembles one answer from the lines of a complete stream: joins the texts and takes every other
/// field from the last line.
pub(super) fn collect_stream(events: &[(Vec<u8>, Vec<u8>)]) -> Result<Bytes, Fault> {
    let mut answer = Map::new();
    for (_, data) in events {
        for (key, value) in json_body::parse_event_tree(data)? {
            match (key.as_str(), value) {
                ("response" | "thinking", Value::String(text)) => {
                    json_body::append_text(answer.entry(key).or_insert(Value::Null), &text);
                }
                ("message", Value::Object(part)) => {
                    if let Some(message) =
                        answer.entry(key).or_insert_with(|| json!({})).as_object_mut()
                    {
                        merge_message(message, part);
                    }
                }
                (_, value) => {
                    answer.insert(key, value);
                }
            }
        }
    }
    if answer.get("done") == Some(&Value::Bool(true)) {
        Ok(Value::Object(answer).to_string().into())
    } else {
        Err(json_body::truncated_stream_fault())
    }
}

fn merge_message(message: &mut Map<String, Value>, part: Map<String, Value>) {
    for (key, value) in part {
        match (message.get_mut(&key), value) {
            (Some(Value::Array(old)), Value::Array(new)) => old.extend(new),
            (Some(old), Value::String(text)) if key != "role" => json_body::append_text(old, &text),
            (_, value) => {
                message.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_one_answer() {
        let events: Vec<_> = [
            r#"{"model":"m","message":{"role":"assistant","content":"a"},"done":false}"#,
            r#"{"model":"m","message":{"role":"assistant","content":"b"},"done":false}"#,
            r#"{"model":"m","message":{"role":"assistant","content":""},"done":true,"eval_count":2}"#,
        ]
        .iter()
        .map(|data| (Vec::new(), data.as_bytes().to_vec()))
        .collect();
        let got: Value =
            serde_json::from_slice(&collect_stream(&events).expect("complete")).expect("json");
        assert_eq!(
            got,
            json!({"model":"m","message":{"role":"assistant","content":"ab"},"done":true,"eval_count":2})
        );
        assert!(collect_stream(&events[..2]).is_err());
        assert!(read_summary("", b"{}").is_err());
        assert!(read_summary("", br#"{"response":"x","done":true}"#).is_ok());
    }
}
