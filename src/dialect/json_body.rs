//! Checks that JSON answers of all dialects are valid, are objects, and are not errors.

use serde_json::{Map, Value};

use crate::{
    base::json::{
        reader::{self, JsonRef},
        surrogates,
    },
    dialect::{
        errors::{read_error, sanitize},
        meter::AnswerSummary,
        usage_read,
    },
    ir::fault::Fault,
};

/// Parses a body of any type as JSON.
pub(super) fn parse<'a>(content_type: &str, body: &'a [u8]) -> Result<JsonRef<'a>, Fault> {
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    reader::parse(text).map_err(|_| read_error::from_body(200, content_type, body))
}

/// Returns an answer's root after checking that it is valid JSON, an object, and without an error
/// inside.
pub(super) fn parse_response<'a>(content_type: &str, body: &'a [u8]) -> Result<JsonRef<'a>, Fault> {
    let json = parse(content_type, body)?;
    if read_error::is_error(json) {
        return Err(read_error::from_json(None, json));
    }
    if json.is_object() { Ok(json) } else { Err(read_error::unexpected_shape(json.kind())) }
}

/// Summarizes an answer of an operation that no dialect reads: accepts any valid JSON and reads its
/// usage.
pub(super) fn generic_summary(content_type: &str, body: &[u8]) -> Result<AnswerSummary, Fault> {
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let json = reader::parse(text).map_err(|_| read_error::from_body(200, content_type, body))?;
    if read_error::is_error(json) {
        return Err(read_error::from_json(None, json));
    }
    Ok(AnswerSummary {
        usage: json.get("usage").and_then(usage_read::read_openai),
        finish_reason: None,
        model: clean_name(json.get("model")),
    })
}

/// Returns a required list; null counts as absent.
pub(super) fn required_list<'a>(json: JsonRef<'a>, key: &str) -> Result<JsonRef<'a>, Fault> {
    match json.get(key) {
        Some(list) if list.is_array() => Ok(list),
        Some(other) => Err(read_error::unexpected_shape(&format!("`{key}` is {}", other.kind()))),
        None => Err(read_error::unexpected_shape(&format!("no `{key}`"))),
    }
}

/// Sanitizes a name or reason from an upstream before it is stored.
pub(super) fn clean_name(json: Option<JsonRef<'_>>) -> Option<String> {
    const MAX_CHARS: usize = 200;
    let json = json?;
    let text = json
        .str()
        .unwrap_or_else(|| if json.kind() == "number" { json.text().into() } else { "".into() });
    Some(sanitize::one_line(&text, MAX_CHARS)).filter(|text| !text.is_empty())
}

/// Parses an answer as a tree, for the rare case that another framing is needed.
pub(super) fn parse_tree(content_type: &str, body: &[u8]) -> Result<Map<String, Value>, Fault> {
    let json = parse_response(content_type, body)?;
    let tree = serde_json::from_str(json.text())
        .or_else(|_| serde_json::from_str(&surrogates::replace_lone(json.text())));
    match tree {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(read_error::unexpected_shape("numbers or characters out of range")),
    }
}

/// Parses an event as a tree.
pub(super) fn parse_event_tree(data: &[u8]) -> Result<Map<String, Value>, Fault> {
    parse_tree("", data)
}

/// Returns the fault for a stream that ended before its answer was complete.
pub(crate) fn truncated_stream_fault() -> Fault {
    read_error::unexpected_shape("the stream ended before the answer was complete")
}

/// Returns the fault for a stream that ended without content and without a reason, even if it sent
/// its terminator.
pub(super) fn empty_stream_fault() -> Fault {
    read_error::unexpected_shape("the stream ended before any content")
}

/// Appends text to the text in `slot`.
pub(super) fn append_text(slot: &mut Value, more: &str) {
    match slot {
        Value::String(text) => text.push_str(more),
        other => *other = Value::String(more.to_owned()),
    }
}
