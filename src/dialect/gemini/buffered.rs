//! Complete generateContent responses: reading one, turning one into a stream, and assembling one
//! from a stream.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use serde_json::{Map, Value, json};

use crate::{
    base::{
        framing::{Framing, sse},
        json::reader::JsonRef,
    },
    dialect::{
        errors::read_error,
        event_json,
        gemini::meter::{read_finish_reason, read_usage},
        json_body,
        meter::AnswerSummary,
    },
    ir::fault::Fault,
};

pub(super) fn read_summary(content_type: &str, body: &[u8]) -> Result<AnswerSummary, Fault> {
    if let Some(list) = chunk_list(content_type, body)? {
        check_complete(list)?;
    }
    let json = json_body::parse_response(content_type, body)?;
    // The response to a blocked prompt has only the reason and no candidates.
    if json.get("promptFeedback").is_none() || json.get("candidates").is_some() {
        for candidate in json_body::required_list(json, "candidates")?.items() {
            let parts = candidate.member_at(&["content", "parts"]);
            if !candidate.is_object() || parts.is_some_and(|parts| !parts.is_array()) {
                return Err(read_error::unexpected_shape("a candidate is no candidate"));
            }
        }
    }
    Ok(AnswerSummary {
        usage: json.get("usageMetadata").and_then(read_usage),
        finish_reason: read_finish_reason(json),
        model: json_body::clean_name(json.get("modelVersion")),
    })
}

/// Returns the list of chunks if the upstream streamed the answer as a JSON array instead of
/// events.
pub(super) fn chunk_list<'a>(
    content_type: &str,
    body: &'a [u8],
) -> Result<Option<JsonRef<'a>>, Fault> {
    let json = json_body::parse(content_type, body)?;
    Ok(Some(json)
        .filter(|json| json.is_array() && json.items().next().is_some_and(JsonRef::is_object)))
}

/// Checks that the chunks form a complete answer.
fn check_complete(chunks: JsonRef<'_>) -> Result<(), Fault> {
    if let Some(error) = chunks.items().find(|chunk| read_error::is_error(*chunk)) {
        return Err(read_error::from_json(None, error));
    }
    chunks
        .items()
        .find_map(read_finish_reason)
        .map(drop)
        .ok_or_else(json_body::truncated_stream_fault)
}

/// Returns the whole response as one event, or each chunk of a list as its own event.
pub(super) fn synthesize_stream(body: &[u8], framing: Framing) -> Result<Bytes, Fault> {
    let chunks: Vec<JsonRef<'_>> = match chunk_list("", body)? {
        Some(list) => {
            check_complete(list)?;
            list.items().collect()
        }
        None => {
            read_summary("", body)?;
            vec![json_body::parse_response("", body)?]
        }
    };
    // Line breaks in JSON occur only between tokens.
    let lines = chunks
        .iter()
        .map(|json| json.text().chars().filter(|c| !matches!(c, '\n' | '\r')).collect::<String>());
    Ok(match framing {
        Framing::JsonArray => format!("[{}]", lines.collect::<Vec<_>>().join(",")).into(),
        Framing::Ndjson => lines.map(|line| line + "\n").collect::<String>().into(),
        Framing::Sse => {
            let mut out = BytesMut::new();
            lines.for_each(|line| sse::write_event(&mut out, b"", line.as_bytes()));
            out.freeze()
        }
    })
}

/// Assembles the chunks of a complete stream into one response. Adjacent texts become one part.
pub(super) fn collect_stream(events: &[(Vec<u8>, Vec<u8>)]) -> Result<Bytes, Fault> {
    let mut answer = Map::new();
    let mut candidates: Vec<Map<String, Value>> = Vec::new();
    let mut positions: HashMap<u64, usize> = HashMap::new();
    let mut done = false;
    for (_, data) in events {
        if event_json::is_done(data) {
            continue;
        }
        done |= json_body::parse_response("", data)
            .ok()
            .is_some_and(|json: JsonRef<'_>| read_finish_reason(json).is_some());
        let mut chunk = json_body::parse_event_tree(data)?;
        if let Some(Value::Array(parts)) = chunk.remove("candidates") {
            for (at, part) in parts.into_iter().enumerate() {
                let Value::Object(part) = part else {
                    return Err(read_error::unexpected_shape("a candidate is no candidate"));
                };
                let index = part.get("index").and_then(Value::as_u64).unwrap_or(at as u64);
                match positions.get(&index) {
                    Some(position) => merge_candidate(&mut candidates[*position], part),
                    None => {
                        positions.insert(index, candidates.len());
                        candidates.push(part);
                    }
                }
            }
        }
        answer.extend(chunk);
    }
    if !done {
        return Err(json_body::truncated_stream_fault());
    }
    answer.insert("candidates".to_owned(), candidates.into_iter().map(Value::Object).collect());
    Ok(Value::Object(answer).to_string().into())
}

fn merge_candidate(candidate: &mut Map<String, Value>, part: Map<String, Value>) {
    for (key, value) in part {
        if key != "content" {
            candidate.insert(key, value);
            continue;
        }
        let content = candidate.entry(key).or_insert_with(|| json!({ "role": "model" }));
        let Some(content) = content.as_object_mut() else { continue };
        let Value::Object(mut new) = value else { continue };
        let parts = new.remove("parts");
        content.extend(new);
        if let (Value::Array(old), Some(Value::Array(new))) =
            (content.entry("parts").or_insert_with(|| json!([])), parts)
        {
            for part in new {
                push_part(old, part);
            }
        }
    }
}

fn push_part(parts: &mut Vec<Value>, part: Value) {
    // Only plain texts of one kind are joined: a signature belongs to its own part.
    let plain = |part: &Value| {
        part.as_object().is_some_and(|p| {
            p.contains_key("text") && p.keys().all(|k| k == "text" || k == "thought")
        })
    };
    if let (Some(last), Some(text)) = (parts.last_mut(), part.get("text").and_then(Value::as_str))
        && plain(last)
        && plain(&part)
        && last.get("thought") == part.get("thought")
    {
        json_body::append_text(&mut last["text"], text);
        return;
    }
    parts.push(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_become_one_answer() {
        let events: Vec<_> = [
            r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"a","thought":true}]},"index":0}],"modelVersion":"g"}"#,
            r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"b"}]},"index":0}]}"#,
            r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"c"},{"functionCall":{"name":"f"}}]},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":1}}"#,
        ]
        .iter()
        .map(|data| (Vec::new(), data.as_bytes().to_vec()))
        .collect();
        let got: Value =
            serde_json::from_slice(&collect_stream(&events).expect("complete")).expect("json");
        let parts =
            json!([{"text":"a","thought":true},{"text":"bc"},{"functionCall":{"name":"f"}}]);
        assert_eq!(
            got,
            json!({"candidates":[{"content":{"role":"model","parts":parts},"finishReason":"STOP","index":0}],"modelVersion":"g","usageMetadata":{"promptTokenCount":1}})
        );
        assert!(collect_stream(&events[..2]).is_err());
    }

    #[test]
    fn whole_answer_becomes_one_event() {
        let body = b"{\n \"candidates\": []\r\n}";
        assert_eq!(
            synthesize_stream(body, Framing::Sse).expect("an answer"),
            "data: { \"candidates\": []}\n\n"
        );
        assert_eq!(
            synthesize_stream(body, Framing::JsonArray).expect("an answer"),
            "[{ \"candidates\": []}]"
        );
    }

    #[test]
    fn complete_list_of_chunks_becomes_events() {
        let list =
            b"[{\n\"candidates\":[]},\r\n{\"candidates\":[{\"finishReason\":\"STOP\"}]}\n]\n";
        let want =
            "data: {\"candidates\":[]}\n\ndata: {\"candidates\":[{\"finishReason\":\"STOP\"}]}\n\n";
        assert_eq!(synthesize_stream(list, Framing::Sse).expect("an answer"), want);
        let cut = br#"[{"candidates":[{"content":{"parts":[{"text":"x"}]}}]}]"#;
        assert_eq!(
            (synthesize_stream(cut, Framing::Sse), read_summary("", cut)),
            (Err(json_body::truncated_stream_fault()), Err(json_body::truncated_stream_fault()))
        );
        let failed = br#"[{"candidates":[]},{"error":{"code":503,"message":"evil","status":"UNAVAILABLE"}}]"#;
        for fault in
            [synthesize_stream(failed, Framing::Sse).map(drop), read_summary("", failed).map(drop)]
        {
            assert_eq!(
                fault.map_err(|fault| (fault.status, fault.message)),
                Err((503, "evil".to_owned()))
            );
        }
    }

    #[test]
    fn invalid_answers_are_faults_and_blocked_prompts_are_not() {
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"candidates":{}}"#,
            r#"{"candidates":[{"content":{"parts":"x"}}]}"#,
            r#"{"error":{"code":500,"message":"m"}}"#,
        ] {
            assert!(read_summary("", bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(
            read_summary("", br#"{"promptFeedback":{"blockReason":"SAFETY"}}"#)
                .map(|s| s.finish_reason),
            Ok(Some("SAFETY".to_owned()))
        );
    }
}
