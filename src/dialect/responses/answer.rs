//! Complete responses: read, told as a stream, put together from one.

use bytes::{Bytes, BytesMut};
use serde_json::{Map, Value, json};

use crate::{
    base::sse,
    dialect::{
        Summary, fault,
        responses::{meter::summary, response_read::failure},
        shape,
    },
    ir::fault::Fault,
};

pub(super) fn read(content_type: &str, body: &[u8]) -> Result<Summary, Fault> {
    let json = shape::answer(content_type, body)?;
    if shape::list(json, "output")?.items().any(|item| !item.is_object()) {
        return Err(fault::unexpected("an output item is no item"));
    }
    failure(json).map_or_else(|| Ok(summary(json)), Err)
}

/// The events that would have told this response, each text in one delta.
pub(super) fn as_stream(body: &[u8]) -> Result<Bytes, Fault> {
    read("", body)?;
    let whole = shape::tree("", body)?;
    let mut begun = whole.clone();
    begun.insert("status".to_owned(), "in_progress".into());
    begun.insert("output".to_owned(), json!([]));
    begun.insert("usage".to_owned(), Value::Null);
    begun.insert("incomplete_details".to_owned(), Value::Null);

    let mut events = Events::default();
    events.write("response.created", json!({ "response": begun }));
    events.write("response.in_progress", json!({ "response": begun }));
    for (index, item) in
        whole.get("output").and_then(Value::as_array).into_iter().flatten().enumerate()
    {
        events.item(index, item);
    }
    let last = match whole.get("status").and_then(Value::as_str) {
        Some("incomplete") => "response.incomplete",
        _ => "response.completed",
    };
    events.write(last, json!({ "response": whole }));
    Ok(events.out.freeze())
}

#[derive(Default)]
struct Events {
    out: BytesMut,
    sequence: u32,
}

impl Events {
    fn write(&mut self, kind: &str, mut event: Value) {
        event["type"] = kind.into();
        event["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        sse::write_event(&mut self.out, kind.as_bytes(), event.to_string().as_bytes());
    }

    fn item(&mut self, index: usize, item: &Value) {
        let id = item.get("id").cloned().unwrap_or_else(|| "".into());
        let kind = item.get("type").and_then(Value::as_str).unwrap_or_default();
        let mut begun = item.clone();
        if begun.get("status").is_some() {
            begun["status"] = "in_progress".into();
        }
        let told = match kind {
            "message" => Some(("content", json!([]))),
            "function_call" => Some(("arguments", json!(""))),
            _ => None,
        };
        if let (Some((key, value)), Some(begun)) = (told, begun.as_object_mut()) {
            begun.insert(key.to_owned(), value);
        }
        self.write("response.output_item.added", json!({ "output_index": index, "item": begun }));
        match kind {
            "message" => {
                for (n, part) in
                    item.get("content").and_then(Value::as_array).into_iter().flatten().enumerate()
                {
                    self.part(&id, index, n, part);
                }
            }
            "function_call" => {
                let arguments = item.get("arguments").cloned().unwrap_or_else(|| "".into());
                self.write(
                    "response.function_call_arguments.delta",
                    json!({ "item_id": id, "output_index": index, "delta": arguments }),
                );
                let name = item.get("name").cloned().unwrap_or_default();
                self.write(
                    "response.function_call_arguments.done",
                    json!({ "item_id": id, "output_index": index, "arguments": arguments, "name": name }),
                );
            }
            _ => {}
        }
        self.write("response.output_item.done", json!({ "output_index": index, "item": item }));
    }

    fn part(&mut self, id: &Value, index: usize, n: usize, part: &Value) {
        let place = |mut event: Value| {
            event["item_id"] = id.clone();
            event["output_index"] = index.into();
            event["content_index"] = n.into();
            event
        };
        let (key, kind) = match part.get("type").and_then(Value::as_str) {
            Some("output_text") => ("text", "response.output_text"),
            Some("refusal") => ("refusal", "response.refusal"),
            _ => ("", ""),
        };
        let mut begun = part.clone();
        if let (false, Some(begun)) = (key.is_empty(), begun.as_object_mut()) {
            begun.insert(key.to_owned(), "".into());
        }
        self.write("response.content_part.added", place(json!({ "part": begun })));
        if let Some(text) = part.get(key).filter(|_| !key.is_empty()) {
            self.write(&format!("{kind}.delta"), place(json!({ "delta": text, "logprobs": [] })));
            self.write(&format!("{kind}.done"), place(json!({ key: text, "logprobs": [] })));
        }
        self.write("response.content_part.done", place(json!({ "part": part })));
    }
}

/// The response of the terminal event; its output from the items that were done, where it has none
/// itself.
pub(super) fn as_answer(events: &[(Vec<u8>, Vec<u8>)]) -> Result<Bytes, Fault> {
    let mut items: Vec<(u64, Value)> = Vec::new();
    for (_, data) in events {
        if data.trim_ascii() == b"[DONE]" {
            continue;
        }
        let mut event: Map<String, Value> = shape::event(data)?;
        let kind = event.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        match kind.as_str() {
            "response.output_item.done" => {
                let index =
                    event.get("output_index").and_then(Value::as_u64).unwrap_or(items.len() as u64);
                items.extend(event.remove("item").map(|item| (index, item)));
            }
            "response.failed" => {
                let response = event.remove("response").unwrap_or_default().to_string();
                return Err(crate::base::json::parse(response.as_bytes())
                    .map_or_else(|_| shape::cut(), |json| fault::told(None, json)));
            }
            "response.completed" | "response.incomplete" => {
                let Some(Value::Object(mut response)) = event.remove("response") else {
                    return Err(fault::unexpected("no `response`"));
                };
                if response.get("output").and_then(Value::as_array).is_none_or(Vec::is_empty) {
                    items.sort_by_key(|(index, _)| *index);
                    response.insert(
                        "output".to_owned(),
                        items.into_iter().map(|(_, item)| item).collect(),
                    );
                }
                return Ok(Value::Object(response).to_string().into());
            }
            _ => {}
        }
    }
    Err(shape::cut())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESPONSE: &str = r#"{"id":"r","object":"response","status":"completed","error":null,"model":"m","output":[{"id":"i","type":"message","role":"assistant","status":"completed","content":[{"type":"output_text","text":"hi","annotations":[]}]},{"id":"f","type":"function_call","call_id":"c","name":"n","arguments":"{}","status":"completed"}],"usage":{"input_tokens":1,"output_tokens":2}}"#;

    #[test]
    fn a_response_told_as_a_stream_comes_back() {
        let stream = as_stream(RESPONSE.as_bytes()).expect("a response");
        let text = String::from_utf8_lossy(&stream).into_owned();
        let events: Vec<_> = text
            .split_terminator("\n\n")
            .map(|event| {
                (Vec::new(), event.split_once("\ndata: ").expect("two lines").1.as_bytes().to_vec())
            })
            .collect();
        let back: Value =
            serde_json::from_slice(&as_answer(&events).expect("complete")).expect("json");
        assert_eq!(back, serde_json::from_str::<Value>(RESPONSE).expect("json"));
        assert!(text.contains(r#""delta":"hi""#));
        assert!(as_answer(&events[..events.len() - 1]).is_err());
    }

    #[test]
    fn wrong_shapes_are_faults() {
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"output":"x"}"#,
            r#"{"output":[1]}"#,
            r#"{"output":[],"error":{"message":"m"}}"#,
            r#"{"output":[],"status":"failed"}"#,
            r#"{"output":[],"status":"cancelled"}"#,
        ] {
            assert!(read("", bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(
            read("", RESPONSE.as_bytes()).map(|s| s.finish),
            Ok(Some("completed".to_owned()))
        );
    }
}
