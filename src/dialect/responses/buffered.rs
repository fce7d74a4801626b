//! Complete responses: reading one, turning one into a stream, and assembling one from a stream.

use bytes::{Bytes, BytesMut};
use serde_json::{Map, Value, json};

use crate::{
    base::framing::sse,
    dialect::{
        errors::read_error,
        event_json, json_body,
        meter::AnswerSummary,
        responses::outcome::{response_failure, response_summary},
    },
    ir::fault::Fault,
};

pub(super) fn read_summary(content_type: &str, body: &[u8]) -> Result<AnswerSummary, Fault> {
    let json = json_body::parse_response(content_type, body)?;
    if json_body::required_list(json, "output")?.items().any(|item| !item.is_object()) {
        return Err(read_error::unexpected_shape("an output item is no item"));
    }
    response_failure(json).map_or_else(|| Ok(response_summary(json)), Err)
}

/// The events of a stream that carries this response, with each text in one delta.
pub(super) fn synthesize_stream(body: &[u8]) -> Result<Bytes, Fault> {
    read_summary("", body)?;
    let response = json_body::parse_tree("", body)?;
    let mut initial = response.clone();
    initial.insert("status".to_owned(), "in_progress".into());
    initial.insert("output".to_owned(), json!([]));
    initial.insert("usage".to_owned(), Value::Null);
    initial.insert("incomplete_details".to_owned(), Value::Null);

    let mut events = EventSynthesizer::default();
    events.write_event("response.created", json!({ "response": initial }));
    events.write_event("response.in_progress", json!({ "response": initial }));
    for (index, item) in
        response.get("output").and_then(Value::as_array).into_iter().flatten().enumerate()
    {
        events.write_item(index, item);
    }
    let last = match response.get("status").and_then(Value::as_str) {
        Some("incomplete") => "response.incomplete",
        _ => "response.completed",
    };
    events.write_event(last, json!({ "response": response }));
    Ok(events.out.freeze())
}

#[derive(Default)]
struct EventSynthesizer {
    out: BytesMut,
    next_sequence: u32,
}

impl EventSynthesizer {
    fn write_event(&mut self, kind: &str, mut event: Value) {
        event["type"] = kind.into();
        event["sequence_number"] = self.next_sequence.into();
        self.next_sequence += 1;
        sse::write_event(&mut self.out, kind.as_bytes(), event.to_string().as_bytes());
    }

    fn write_item(&mut self, index: usize, item: &Value) {
        let id = item.get("id").cloned().unwrap_or_else(|| "".into());
        let kind = item.get("type").and_then(Value::as_str).unwrap_or_default();
        let mut initial = item.clone();
        if initial.get("status").is_some() {
            initial["status"] = "in_progress".into();
        }
        let emptied = match kind {
            "message" => Some(("content", json!([]))),
            "function_call" => Some(("arguments", json!(""))),
            _ => None,
        };
        if let (Some((key, value)), Some(fields)) = (emptied, initial.as_object_mut()) {
            fields.insert(key.to_owned(), value);
        }
        self.write_event(
            "response.output_item.added",
            json!({ "output_index": index, "item": initial }),
        );
        match kind {
            "message" => {
                for (n, part) in
                    item.get("content").and_then(Value::as_array).into_iter().flatten().enumerate()
                {
                    self.write_part(&id, index, n, part);
                }
            }
            "function_call" => {
                let arguments = item.get("arguments").cloned().unwrap_or_else(|| "".into());
                self.write_event(
                    "response.function_call_arguments.delta",
                    json!({ "item_id": id, "output_index": index, "delta": arguments }),
                );
                let name = item.get("name").cloned().unwrap_or_default();
                self.write_event(
                    "response.function_call_arguments.done",
                    json!({ "item_id": id, "output_index": index, "arguments": arguments, "name": name }),
                );
            }
            _ => {}
        }
        self.write_event(
            "response.output_item.done",
            json!({ "output_index": index, "item": item }),
        );
    }

    fn write_part(&mut self, id: &Value, index: usize, n: usize, part: &Value) {
        let with_location = |mut event: Value| {
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
        let mut initial = part.clone();
        if let (false, Some(fields)) = (key.is_empty(), initial.as_object_mut()) {
            fields.insert(key.to_owned(), "".into());
        }
        self.write_event("response.content_part.added", with_location(json!({ "part": initial })));
        if let Some(text) = part.get(key).filter(|_| !key.is_empty()) {
            self.write_event(
                &format!("{kind}.delta"),
                with_location(json!({ "delta": text, "logprobs": [] })),
            );
            self.write_event(
                &format!("{kind}.done"),
                with_location(json!({ key: text, "logprobs": [] })),
            );
        }
        self.write_event("response.content_part.done", with_location(json!({ "part": part })));
    }
}

/// Returns the response of the terminal event. If its output is empty, the finished items fill it.
pub(super) fn collect_stream(events: &[(Vec<u8>, Vec<u8>)]) -> Result<Bytes, Fault> {
    let mut items: Vec<(u64, Value)> = Vec::new();
    for (_, data) in events {
        if event_json::is_done(data) {
            continue;
        }
        let mut event: Map<String, Value> = json_body::parse_event_tree(data)?;
        let kind = event.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        match kind.as_str() {
            "response.output_item.done" => {
                let index =
                    event.get("output_index").and_then(Value::as_u64).unwrap_or(items.len() as u64);
                items.extend(event.remove("item").map(|item| (index, item)));
            }
            "response.failed" => {
                let response = event.remove("response").unwrap_or_default().to_string();
                return Err(crate::base::json::reader::parse(response.as_bytes()).map_or_else(
                    |_| json_body::truncated_stream_fault(),
                    |json| read_error::from_json(None, json),
                ));
            }
            "response.completed" | "response.incomplete" => {
                let Some(Value::Object(mut response)) = event.remove("response") else {
                    return Err(read_error::unexpected_shape("no `response`"));
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
    Err(json_body::truncated_stream_fault())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE_RESPONSE: &str = r#"{"id":"r","object":"response","status":"completed","error":null,"model":"m","output":[{"id":"i","type":"message","role":"assistant","status":"completed","content":[{"type":"output_text","text":"hi","annotations":[]}]},{"id":"f","type":"function_call","call_id":"c","name":"n","arguments":"{}","status":"completed"}],"usage":{"input_tokens":1,"output_tokens":2}}"#;

    #[test]
    fn streamed_response_is_assembled() {
        let stream = synthesize_stream(SAMPLE_RESPONSE.as_bytes()).expect("a response");
        let text = String::from_utf8_lossy(&stream).into_owned();
        let events: Vec<_> = text
            .split_terminator("\n\n")
            .map(|event| {
                (Vec::new(), event.split_once("\ndata: ").expect("two lines").1.as_bytes().to_vec())
            })
            .collect();
        let back: Value =
            serde_json::from_slice(&collect_stream(&events).expect("complete")).expect("json");
        assert_eq!(back, serde_json::from_str::<Value>(SAMPLE_RESPONSE).expect("json"));
        assert!(text.contains(r#""delta":"hi""#));
        assert!(collect_stream(&events[..events.len() - 1]).is_err());
    }

    #[test]
    fn invalid_answers_are_faults() {
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
            assert!(read_summary("", bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(
            read_summary("", SAMPLE_RESPONSE.as_bytes()).map(|s| s.finish_reason),
            Ok(Some("completed".to_owned()))
        );
    }
}
