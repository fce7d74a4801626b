//! Complete chat and generate answers: read, told as a stream, put together from one.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::{
    base::json::JsonRef,
    dialect::{Summary, fault, ollama::meter::usage, shape},
    ir::fault::Fault,
};

pub(super) fn read(content_type: &str, body: &[u8]) -> Result<Summary, Fault> {
    let json = shape::answer(content_type, body)?;
    match (json.get("message"), json.get("response")) {
        (Some(message), _) if message.is_object() => {}
        (None, Some(response)) if response.kind() == "string" => {}
        _ => return Err(fault::unexpected("neither `message` nor `response`")),
    }
    Ok(summary(json))
}

pub(super) fn read_embedding(content_type: &str, body: &[u8]) -> Result<Summary, Fault> {
    shape::answer(content_type, body).map(summary)
}

fn summary(json: JsonRef<'_>) -> Summary {
    Summary {
        usage: usage(json),
        finish: shape::name(json.get("done_reason")),
        model: shape::name(json.get("model")),
    }
}

/// One line that is the whole answer.
pub(super) fn as_stream(body: &[u8]) -> Result<Bytes, Fault> {
    read("", body)?;
    let mut answer = shape::tree("", body)?;
    answer.insert("done".to_owned(), true.into());
    Ok(format!("{}\n", Value::Object(answer)).into())
}

/// The lines of a complete stream as one answer: texts joined, everything else as the last line
/// says.
pub(super) fn as_answer(events: &[(Vec<u8>, Vec<u8>)]) -> Result<Bytes, Fault> {
    let mut answer = Map::new();
    for (_, data) in events {
        for (key, value) in shape::event(data)? {
            match (key.as_str(), value) {
                ("response" | "thinking", Value::String(text)) => {
                    shape::append(answer.entry(key).or_insert(Value::Null), &text)
                }
                ("message", Value::Object(part)) => {
                    if let Some(message) =
                        answer.entry(key).or_insert_with(|| json!({})).as_object_mut()
                    {
                        merge(message, part);
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
        Err(shape::cut())
    }
}

fn merge(message: &mut Map<String, Value>, part: Map<String, Value>) {
    for (key, value) in part {
        match (message.get_mut(&key), value) {
            (Some(Value::Array(old)), Value::Array(new)) => old.extend(new),
            (Some(old), Value::String(text)) if key != "role" => shape::append(old, &text),
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
            serde_json::from_slice(&as_answer(&events).expect("complete")).expect("json");
        assert_eq!(
            got,
            json!({"model":"m","message":{"role":"assistant","content":"ab"},"done":true,"eval_count":2})
        );
        assert!(as_answer(&events[..2]).is_err());
        assert!(read("", b"{}").is_err());
        assert!(read("", br#"{"response":"x","done":true}"#).is_ok());
    }
}
