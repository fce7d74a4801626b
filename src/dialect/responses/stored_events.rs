//! Streams a stored response: the events that its stream had, with each text in one piece
//! (`GET /v1/responses/{id}?stream=true`).

use bytes::Bytes;
use serde_json::{Map, Value, json};

/// Returns the events of a complete response, framed, after the event `after`. `None` if the body
/// is no response.
#[must_use]
pub fn stored_events(body: &[u8], after: Option<u64>) -> Option<Bytes> {
    let response: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let mut events = StoredEvents { next: 0, after, out: String::with_capacity(body.len() * 3) };
    let mut begun = response.clone();
    begun.insert("status".to_owned(), "in_progress".into());
    begun.insert("output".to_owned(), json!([]));
    begun.insert("usage".to_owned(), Value::Null);
    let begun = Value::Object(begun);
    events.push("response.created", json!({ "response": begun }));
    events.push("response.in_progress", json!({ "response": begun }));
    let items = response.get("output").and_then(Value::as_array);
    for (item, index) in items.into_iter().flatten().zip(0_u64..) {
        events.push_item(item, index);
    }
    let kind = match response.get("status").and_then(Value::as_str) {
        Some("failed") => "response.failed",
        Some("incomplete") => "response.incomplete",
        _ => "response.completed",
    };
    events.push(kind, json!({ "response": response }));
    Some(events.out.into())
}

struct StoredEvents {
    next: u64,
    after: Option<u64>,
    out: String,
}

impl StoredEvents {
    fn push(&mut self, kind: &str, mut event: Value) {
        let number = self.next;
        self.next += 1;
        if self.after.is_some_and(|after| number <= after) {
            return;
        }
        event["type"] = kind.into();
        event["sequence_number"] = number.into();
        self.out.push_str(&format!("event: {kind}\ndata: {event}\n\n"));
    }

    fn push_item(&mut self, item: &Value, index: u64) {
        let mut begun = item.clone();
        for (key, empty) in [("content", json!([])), ("arguments", "".into()), ("input", "".into())]
        {
            if begun.get(key).is_some() {
                begun[key] = empty;
            }
        }
        if begun.get("status").is_some() {
            begun["status"] = "in_progress".into();
        }
        self.push("response.output_item.added", json!({ "output_index": index, "item": begun }));
        let place = |event: Value| {
            let mut event = event;
            event["item_id"] = item["id"].clone();
            event["output_index"] = index.into();
            event
        };
        let parts = item["content"].as_array().filter(|_| item["type"] == "message");
        for (part, number) in parts.into_iter().flatten().zip(0_u64..) {
            self.push_part(part, &|mut event| {
                event["content_index"] = number.into();
                place(event)
            });
        }
        for (kind, key, prefix) in [
            ("function_call", "arguments", "response.function_call_arguments"),
            ("custom_tool_call", "input", "response.custom_tool_call_input"),
        ] {
            if item["type"] == kind {
                let text = &item[key];
                self.push(&format!("{prefix}.delta"), place(json!({ "delta": text })));
                self.push(&format!("{prefix}.done"), place(json!({ key: text })));
            }
        }
        self.push("response.output_item.done", json!({ "output_index": index, "item": item }));
    }

    fn push_part(&mut self, part: &Value, place: &dyn Fn(Value) -> Value) {
        let (key, prefix) = match part["type"].as_str() {
            Some("refusal") => ("refusal", "response.refusal"),
            _ => ("text", "response.output_text"),
        };
        let mut begun = part.clone();
        begun[key] = "".into();
        self.push("response.content_part.added", place(json!({ "part": begun })));
        let (mut delta, mut done) = (json!({ "delta": part[key] }), json!({ key: part[key] }));
        if key == "text" {
            (delta["logprobs"], done["logprobs"]) = (json!([]), json!([]));
        }
        self.push(&format!("{prefix}.delta"), place(delta));
        self.push(&format!("{prefix}.done"), place(done));
        self.push("response.content_part.done", place(json!({ "part": part })));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(body: &Value, after: Option<u64>) -> Vec<String> {
        let bytes = stored_events(body.to_string().as_bytes(), after).expect("a response");
        String::from_utf8_lossy(&bytes)
            .lines()
            .filter_map(|line| line.strip_prefix("event: response.").map(str::to_owned))
            .collect()
    }

    #[test]
    fn stored_response_replays_the_events_of_its_stream() {
        let body = json!({ "id": "resp_1", "status": "completed", "output": [
            { "id": "msg_1", "type": "message", "status": "completed", "content": [{ "type": "output_text", "text": "hi" }] },
            { "id": "fc_1", "type": "function_call", "arguments": "{}" },
        ]});
        assert_eq!(
            kinds(&body, None),
            [
                "created",
                "in_progress",
                "output_item.added",
                "content_part.added",
                "output_text.delta",
                "output_text.done",
                "content_part.done",
                "output_item.done",
                "output_item.added",
                "function_call_arguments.delta",
                "function_call_arguments.done",
                "output_item.done",
                "completed",
            ]
        );
        assert_eq!(kinds(&body, Some(10)), ["output_item.done", "completed"]);
        assert_eq!(stored_events(b"[]", None), None);
    }
}
