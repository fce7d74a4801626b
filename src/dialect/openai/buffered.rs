//! Reads complete chat and completion answers, turns them into a stream, and assembles them from
//! one.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use serde_json::{Map, Value, json};

use crate::{
    base::{
        framing::sse,
        json::reader::{self, JsonRef},
    },
    dialect::{
        errors::read_error, event_json, json_body, meter::AnswerSummary,
        openai::response_read::choice_error, usage_read,
    },
    ir::{fault::Fault, op::Op},
};

pub(super) fn read_summary(content_type: &str, body: &[u8]) -> Result<AnswerSummary, Fault> {
    if let Some(summary) = fast_path_summary(body) {
        return Ok(summary);
    }
    let json = json_body::parse_response(content_type, body)?;
    let choices = json_body::required_list(json, "choices")?;
    for choice in choices.items() {
        let content =
            choice.get("message").or_else(|| choice.get("text")).or_else(|| choice.get("delta"));
        if !choice.is_object()
            || content.is_some_and(|content| !matches!(content.kind(), "object" | "string"))
        {
            return Err(read_error::unexpected_shape("a choice is no choice"));
        }
        if let Some(fault) = choice_error(choice) {
            return Err(fault);
        }
    }
    let finish = choices
        .items()
        .next()
        .and_then(|choice| json_body::clean_name(choice.get("finish_reason")));
    Ok(AnswerSummary {
        usage: json.get("usage").and_then(usage_read::read_openai),
        finish_reason: finish,
        model: json_body::clean_name(json.get("model")),
    })
}

/// Summarizes an answer of the most common form, one choice with one kind of content, in the same
/// pass that validates the text. Returns `None` for any other form.
fn fast_path_summary(body: &[u8]) -> Option<AnswerSummary> {
    let (mut usage, mut model, mut choices, mut content, mut reason) =
        (None, None, None, None, None);
    let (mut inside, mut odd) = (false, false);
    let json = reader::visit(body, |depth, key, value| {
        let slot = match (depth, key) {
            (1, b"usage") => &mut usage,
            (1, b"model") => &mut model,
            (1, b"choices") => &mut choices,
            (1, b"error") | (3, b"error") if depth == 1 || inside => {
                odd = true;
                return;
            }
            (3, b"message" | b"text" | b"delta") if inside => &mut content,
            (3, b"finish_reason") if inside => {
                odd |= value.starts_with(b"\"error\"");
                &mut reason
            }
            _ => {
                inside &= depth > 1;
                return;
            }
        };
        inside = depth > 1 || key == b"choices";
        odd |= slot.replace(value).is_some();
    });
    let choice = choices?.strip_prefix(b"[")?.trim_ascii_start();
    let has_content = matches!(content?.first()?, b'{' | b'"');
    if odd || !has_content || choice.first() != Some(&b'{') || !json.ok()?.is_object() {
        return None;
    }
    Some(AnswerSummary {
        usage: usage
            .map(reader::value_at)
            .filter(|usage| usage.kind() != "null")
            .and_then(usage_read::read_openai),
        finish_reason: json_body::clean_name(reason.map(reader::value_at)),
        model: json_body::clean_name(model.map(reader::value_at)),
    })
}

/// Writes a chunk with the role, one with the whole content, one with the finish and the usage, and
/// `[DONE]`.
pub(super) fn synthesize_stream(op: Op, body: &[u8]) -> Result<Bytes, Fault> {
    read_summary("", body)?;
    let mut answer = json_body::parse_tree("", body)?;
    let choices = answer.remove("choices");
    let usage = answer.remove("usage");
    let chat = op == Op::Chat;
    answer.insert(
        "object".to_owned(),
        if chat { "chat.completion.chunk" } else { "text_completion" }.into(),
    );

    let mut out = BytesMut::new();
    let mut write = |choices: Value, usage: Option<&Value>| {
        let mut chunk = answer.clone();
        chunk.insert("choices".to_owned(), choices);
        if let Some(usage) = usage {
            chunk.insert("usage".to_owned(), usage.clone());
        }
        sse::write_event(&mut out, b"", Value::Object(chunk).to_string().as_bytes());
    };
    let choices = match choices {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for (at, choice) in choices.into_iter().enumerate() {
        let Value::Object(mut choice) = choice else { continue };
        let index = choice.get("index").cloned().unwrap_or_else(|| at.into());
        let finish = choice.insert("finish_reason".to_owned(), Value::Null).unwrap_or(Value::Null);
        choice.insert("index".to_owned(), index.clone());
        if chat {
            let mut delta = choice.remove("message").unwrap_or_else(|| json!({}));
            if let Some(calls) = delta.get_mut("tool_calls").and_then(Value::as_array_mut) {
                for (n, call) in calls.iter_mut().enumerate() {
                    if let Some(call) = call.as_object_mut() {
                        call.entry("index").or_insert_with(|| n.into());
                    }
                }
            }
            choice.insert("delta".to_owned(), delta);
            last.push(
                json!({ "index": index, "delta": {}, "logprobs": null, "finish_reason": finish }),
            );
        } else {
            last.push(
                json!({ "index": index, "text": "", "logprobs": null, "finish_reason": finish }),
            );
        }
        first.push(Value::Object(choice));
    }
    write(first.into(), None);
    write(last.into(), usage.as_ref());
    sse::write_event(&mut out, b"", b"[DONE]");
    Ok(out.freeze())
}

/// Assembles one answer from the chunks of a complete stream.
pub(super) fn collect_stream(op: Op, events: &[(Vec<u8>, Vec<u8>)]) -> Result<Bytes, Fault> {
    let mut answer = Map::new();
    let mut choices: Vec<Map<String, Value>> = Vec::new();
    // Per choice; found by the choice's index, so that many choices and calls take linear time.
    let mut calls: Vec<CallPositions> = Vec::new();
    let mut positions: HashMap<u64, usize> = HashMap::new();
    let mut done = false;
    for (_, data) in events {
        if event_json::is_done(data) {
            done = true;
            continue;
        }
        let json = json_body::parse_response("", data)?;
        if let Some(fault) =
            json.get("choices").into_iter().flat_map(JsonRef::items).find_map(choice_error)
        {
            return Err(fault);
        }
        let mut chunk = json_body::parse_event_tree(data)?;
        let parts = chunk.remove("choices");
        for (key, value) in chunk {
            if !value.is_null() || !answer.contains_key(&key) {
                answer.insert(key, value);
            }
        }
        let Some(Value::Array(parts)) = parts else { continue };
        for (at, part) in parts.into_iter().enumerate() {
            let Value::Object(part) = part else {
                return Err(read_error::unexpected_shape("a choice is no choice"));
            };
            let index = part.get("index").and_then(Value::as_u64).unwrap_or(at as u64);
            let position = *positions.entry(index).or_insert_with(|| {
                choices.push(Map::from_iter([
                    ("index".to_owned(), index.into()),
                    ("finish_reason".to_owned(), Value::Null),
                ]));
                calls.push(CallPositions::new());
                choices.len() - 1
            });
            merge_choice(&mut choices[position], &mut calls[position], part);
        }
    }
    if let Some(fault) = unfinished_fault(&choices, done) {
        return Err(fault);
    }
    for choice in &mut choices {
        if op == Op::Chat {
            let message = choice.entry("message").or_insert_with(|| json!({}));
            if let Some(message) = message.as_object_mut() {
                message.entry("role").or_insert_with(|| "assistant".into());
                message.entry("content").or_insert(Value::Null);
                if let Some(calls) = message.get_mut("tool_calls").and_then(Value::as_array_mut) {
                    calls.iter_mut().filter_map(Value::as_object_mut).for_each(|call| {
                        call.remove("index");
                    });
                }
            }
        } else {
            choice.entry("text").or_insert_with(|| "".into());
        }
    }
    choices.sort_by_key(|choice| choice.get("index").and_then(Value::as_u64));
    answer.insert(
        "object".to_owned(),
        if op == Op::Chat { "chat.completion" } else { "text_completion" }.into(),
    );
    answer.insert("choices".to_owned(), choices.into_iter().map(Value::Object).collect());
    Ok(Value::Object(answer).to_string().into())
}

/// Returns the fault of an incomplete answer. `done`: the stream sent its terminator, which is
/// enough after text, but neither in the middle of a call nor without content.
fn unfinished_fault(choices: &[Map<String, Value>], done: bool) -> Option<Fault> {
    let reason = |choice: &Map<String, Value>| {
        choice.get("finish_reason").and_then(Value::as_str).is_some_and(|reason| !reason.is_empty())
    };
    if !choices.is_empty() && choices.iter().all(reason) {
        return None;
    }
    if !done {
        return Some(json_body::truncated_stream_fault());
    }
    let message = |choice| Map::get(choice, "message");
    let is_non_empty = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    };
    let has_content = |choice| {
        let fields = message(choice).and_then(Value::as_object).into_iter().flatten();
        fields.filter(|(key, _)| *key != "role").any(|(_, value)| is_non_empty(value))
            || choice.get("text").is_some_and(is_non_empty)
    };
    if !choices.iter().any(|choice| reason(choice) || has_content(choice)) {
        return Some(json_body::empty_stream_fault());
    }
    let mut calls =
        choices.iter().filter(|choice| !reason(choice)).filter_map(message).flat_map(|message| {
            let listed = message.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
            listed
                .filter_map(|call| call.get("function").or_else(|| call.get("custom")))
                .chain(message.get("function_call"))
        });
    let is_complete = |call: &Value| match call.get("arguments") {
        Some(Value::String(text)) => reader::parse(text.as_bytes()).is_ok(),
        other => other.is_some_and(is_non_empty),
    };
    (!calls.all(is_complete)).then(json_body::truncated_stream_fault)
}

/// Where the last call with an index is in a choice's list. The keys are JSON, because indexes are
/// compared as they were sent.
type CallPositions = HashMap<String, usize>;

fn merge_choice(
    choice: &mut Map<String, Value>,
    known_calls: &mut CallPositions,
    mut part: Map<String, Value>,
) {
    for key in ["delta", "message"] {
        let Some(Value::Object(delta)) = part.get_mut(key) else { continue };
        let Some(Value::Array(parts)) = delta.remove("tool_calls") else { continue };
        let message = choice.entry("message").or_insert_with(|| json!({}));
        if let Some(message) = message.as_object_mut() {
            let calls = message.entry("tool_calls").or_insert(Value::Null);
            merge_calls(calls, known_calls, parts);
        }
    }
    for (key, value) in part {
        match (key.as_str(), value) {
            (_, Value::Null) | ("index", _) => {}
            ("delta" | "message", Value::Object(delta)) => {
                let message = choice.entry("message").or_insert_with(|| json!({}));
                if let Some(message) = message.as_object_mut() {
                    merge_delta(message, delta);
                }
            }
            ("text", Value::String(text)) => {
                json_body::append_text(choice.entry("text").or_insert(Value::Null), &text);
            }
            ("logprobs", Value::Object(new)) => {
                match choice.get_mut("logprobs").and_then(Value::as_object_mut) {
                    Some(old) => merge_delta(old, new),
                    None => {
                        choice.insert(key, Value::Object(new));
                    }
                }
            }
            (_, value) => {
                choice.insert(key, value);
            }
        }
    }
}

/// Merges a delta: appends to texts, names and lists; ids and types are set once.
fn merge_delta(message: &mut Map<String, Value>, delta: Map<String, Value>) {
    for (key, value) in delta {
        let slot = message.entry(key.clone()).or_insert(Value::Null);
        match (key.as_str(), slot, value) {
            (_, _, Value::Null) => {}
            // Some providers repeat the name with every piece, others send it in pieces.
            ("name", Value::String(name), Value::String(more)) => {
                if more.starts_with(&*name) {
                    *name = more;
                } else {
                    name.push_str(&more);
                }
            }
            ("role" | "id" | "type" | "name", slot, value) => {
                if slot.as_str().unwrap_or_default().is_empty() {
                    *slot = value;
                }
            }
            (_, Value::Object(old), Value::Object(new)) => merge_delta(old, new),
            (_, Value::Array(old), Value::Array(new)) => old.extend(new),
            (_, slot @ Value::String(_), Value::String(new)) => json_body::append_text(slot, &new),
            (_, slot, value) => *slot = value,
        }
    }
}

fn merge_calls(slot: &mut Value, positions: &mut CallPositions, parts: Vec<Value>) {
    if !slot.is_array() {
        *slot = json!([]);
        positions.clear();
    }
    let Some(calls) = slot.as_array_mut() else { return };
    for part in parts {
        let Value::Object(mut part) = part else { continue };
        // Some vendors omit the index: a part with an id begins a call, a part without one
        // continues the last call.
        let index = part.get("index").map(Value::to_string);
        let known = match &index {
            Some(index) => {
                let known = positions.get(index).copied().filter(|known| *known < calls.len());
                known.filter(|known| !starts_new_call(&calls[*known], &part))
            }
            None if part.get("id").is_some_and(|id| !id.is_null()) => None,
            None => calls.len().checked_sub(1),
        };
        match known.and_then(|known| calls[known].as_object_mut()) {
            Some(call) => {
                part.remove("index");
                merge_delta(call, part);
            }
            None => {
                positions.extend(index.map(|index| (index, calls.len())));
                calls.push(Value::Object(part));
            }
        }
    }
}

/// Some providers reuse an index; then a name with a new id is another call.
fn starts_new_call(call: &Value, part: &Map<String, Value>) -> bool {
    let name = |call: Option<&Value>| {
        call.and_then(|inside| inside.get("name")?.as_str()).is_some_and(|name| !name.is_empty())
    };
    let non_empty = |id: Option<&Value>| {
        id.and_then(Value::as_str).filter(|id| !id.is_empty()).map(str::to_owned)
    };
    let named = name(call.get("function").or_else(|| call.get("custom")));
    let names = name(part.get("function").or_else(|| part.get("custom")));
    named
        && names
        && non_empty(part.get("id"))
            .is_some_and(|id| non_empty(call.get("id")).as_ref() != Some(&id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]},"logprobs":null,"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#;

    fn events(stream: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let text = String::from_utf8_lossy(stream);
        text.split_terminator("\n\n")
            .map(|event| (Vec::new(), event.trim_start_matches("data: ").as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn streamed_answer_is_assembled() {
        let stream = synthesize_stream(Op::Chat, ANSWER.as_bytes()).expect("an answer");
        let back = collect_stream(Op::Chat, &events(&stream)).expect("complete");
        let (mut want, got): (Value, Value) = (
            serde_json::from_str(ANSWER).expect("json"),
            serde_json::from_slice(&back).expect("json"),
        );
        want["choices"][0].as_object_mut().expect("a choice").remove("logprobs");
        assert_eq!(got, want);
    }

    #[test]
    fn pieces_are_joined() {
        let events: Vec<_> = [
            r#"{"id":"c","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"a"},"finish_reason":null}]}"#,
            r#"{"id":"c","choices":[{"index":0,"delta":{"content":"b","reasoning_content":"r"}}]}"#,
            r#"{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"x","type":"function","function":{"name":"f","arguments":""}}]}}]}"#,
            r#"{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"k\""}}]}}]}"#,
            r#"{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}}]}"#,
            r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#,
            r#"{"id":"c","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#,
        ]
        .iter()
        .map(|data| (Vec::new(), data.as_bytes().to_vec()))
        .collect();
        let got: Value =
            serde_json::from_slice(&collect_stream(Op::Chat, &events).expect("complete"))
                .expect("json");
        assert_eq!(
            got,
            json!({"id":"c","model":"m","object":"chat.completion","usage":{"prompt_tokens":1,"completion_tokens":1},"choices":[{"index":0,"finish_reason":"tool_calls","message":{
                "role":"assistant","content":"ab","reasoning_content":"r","tool_calls":[{"id":"x","type":"function","function":{"name":"f","arguments":"{\"k\":1}"}}]}}]})
        );
        assert!(collect_stream(Op::Chat, &events[..4]).is_err());
    }

    fn gathered(chunks: &[&str]) -> Result<Value, Fault> {
        let events: Vec<_> =
            chunks.iter().map(|data| (Vec::new(), data.as_bytes().to_vec())).collect();
        collect_stream(Op::Chat, &events)
            .map(|answer| serde_json::from_slice(&answer).expect("json"))
    }

    #[test]
    fn missing_finish_reason_is_complete_after_text_but_not_in_a_call() {
        let call = |arguments: &str| {
            let call = json!({ "index": 0, "id": "c", "type": "function", "function": { "name": "f", "arguments": arguments } });
            json!({ "choices": [{ "index": 0, "delta": { "tool_calls": [call] } }] }).to_string()
        };
        let text = r#"{"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":""}]}"#;
        let role = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;
        let stop = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
        let (half, whole) = (call("{\"city\": \"Z"), call("{\"city\": \"Z\"}"));
        for (chunks, good) in [
            (&[text, "[DONE]"][..], true),
            (&[text], false),
            (&[&half, "[DONE]"], false),
            (&[&whole, "[DONE]"], true),
            (&[&whole], false),
            (&["[DONE]"], false),
            (&[role, "[DONE]"], false),
            (&[role, stop], true),
            (
                &[
                    role,
                    r#"{"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}"#,
                    "[DONE]",
                ],
                false,
            ),
        ] {
            assert_eq!(gathered(chunks).is_ok(), good, "{chunks:?}");
        }
    }

    #[test]
    fn reused_index_is_a_new_call_and_split_names_are_joined() {
        let part = |call: Value| {
            json!({ "choices": [{ "index": 0, "delta": { "tool_calls": [call] } }] }).to_string()
        };
        let got = gathered(&[
            &part(
                json!({ "index": 0, "id": "a", "function": { "name": "get_", "arguments": "" } }),
            ),
            &part(
                json!({ "index": 0, "function": { "name": "weather", "arguments": "{\"city\":" } }),
            ),
            &part(json!({ "index": 0, "function": { "arguments": "\"A\"}" } })),
            &part(json!({ "index": 0, "id": "b", "function": { "name": "f", "arguments": "{" } })),
            &part(json!({ "index": 0, "id": "b", "function": { "name": "f", "arguments": "}" } })),
            r#"{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#,
        ]);
        let calls = got.expect("complete")["choices"][0]["message"]["tool_calls"].clone();
        assert_eq!(
            calls,
            json!([{ "id": "a", "function": { "name": "get_weather", "arguments": "{\"city\":\"A\"}" } }, { "id": "b", "function": { "name": "f", "arguments": "{}" } }])
        );
    }

    #[test]
    fn error_in_a_choice_fails_the_answer() {
        for (choice, message) in [
            (
                r#"{"message":{"content":""},"error":{"message":"evil","code":502},"finish_reason":"error"}"#,
                "evil",
            ),
            (r#"{"message":{"content":"x"},"error":"evil"}"#, "evil"),
            (
                r#"{"message":{"content":""},"finish_reason":"error"}"#,
                "provider answered with an unexpected shape (the provider ended the answer with an error)",
            ),
        ] {
            let body = format!(r#"{{"id":"c","choices":[{choice}]}}"#);
            assert_eq!(
                read_summary("", body.as_bytes()).map_err(|fault| fault.message),
                Err(message.to_owned()),
                "{choice}"
            );
        }
        assert!(
            read_summary(
                "",
                br#"{"choices":[{"message":{"content":""},"error":null,"finish_reason":"stop"}]}"#
            )
            .is_ok()
        );
    }

    #[test]
    fn invalid_answers_are_faults_and_empty_answers_are_not() {
        for bad in [
            "",
            "null",
            "\"x\"",
            "[]",
            "{}",
            r#"{"choices":"x"}"#,
            r#"{"choices":[1]}"#,
            r#"{"choices":[]} x"#,
            r#"{"choices":[]}{}"#,
            r#"{"choices":null}"#,
            "{\"choices\":[],\"x\":\"\u{0}\"}",
        ] {
            assert!(read_summary("application/json", bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(read_summary("", b"{\"choices\":[],\"x\":\"\xff\"}").is_err());
        assert_eq!(
            read_summary("", br#"{"choices":[],"model":"m"}"#).map(|s| s.model),
            Ok(Some("m".to_owned()))
        );
        assert_eq!(
            read_summary(
                "",
                br#"{"choices":[{"message":{"content":null},"finish_reason":"stop"}]}"#
            )
            .map(|s| s.finish_reason),
            Ok(Some("stop".to_owned()))
        );
    }
}
