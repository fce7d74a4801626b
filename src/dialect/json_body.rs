//! What JSON answers of all dialects have in common: they are whole, they are objects, and they are
//! no errors.

use serde_json::{Map, Value};

use crate::{
    base::json::{
        reader::{self, JsonRef},
        surrogates,
    },
    dialect::{
        AnswerSummary,
        errors::{read_error, sanitize},
        usage_read,
    },
    ir::fault::Fault,
};

/// Whatever the body says, proven to be JSON.
pub(super) fn parse<'a>(content_type: &str, body: &'a [u8]) -> Result<JsonRef<'a>, Fault> {
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    reader::parse(text).map_err(|_| read_error::from_body(200, content_type, body))
}

/// An answer's root, proven: valid JSON, an object, no error inside.
pub(super) fn parse_response<'a>(content_type: &str, body: &'a [u8]) -> Result<JsonRef<'a>, Fault> {
    let json = parse(content_type, body)?;
    if read_error::is_error(json) {
        return Err(read_error::from_json(None, json));
    }
    if json.is_object() { Ok(json) } else { Err(read_error::unexpected_shape(json.kind())) }
}

/// The answer of an operation that no dialect looks into: whatever is valid, with its usage.
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

/// A list that has to be there; null counts as absent.
pub(super) fn required_list<'a>(json: JsonRef<'a>, key: &str) -> Result<JsonRef<'a>, Fault> {
    match json.get(key) {
        Some(list) if list.is_array() => Ok(list),
        Some(other) => Err(read_error::unexpected_shape(&format!("`{key}` is {}", other.kind()))),
        None => Err(read_error::unexpected_shape(&format!("no `{key}`"))),
    }
}

/// A name or reason that an upstream gave, made fit to be kept.
pub(super) fn clean_name(json: Option<JsonRef<'_>>) -> Option<String> {
    const MAX_CHARS: usize = 200;
    let json = json?;
    let text = json
        .str()
        .unwrap_or_else(|| if json.kind() == "number" { json.text().into() } else { "".into() });
    Some(sanitize::one_line(&text, MAX_CHARS)).filter(|text| !text.is_empty())
}

/// An answer as a tree, for the rare case that it must be told in another framing.
pub(super) fn parse_tree(content_type: &str, body: &[u8]) -> Result<Map<String, Value>, Fault> {
    let json = parse_response(content_type, body)?;
    let tree = serde_json::from_str(json.text())
        .or_else(|_| serde_json::from_str(&surrogates::replace_lone(json.text())));
    match tree {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(read_error::unexpected_shape("numbers or characters out of range")),
    }
}

/// An event as a tree.
pub(super) fn parse_event_tree(data: &[u8]) -> Result<Map<String, Value>, Fault> {
    parse_tree("", data)
}

/// The stream ended before its answer was whole.
pub(crate) fn truncated_stream_fault() -> Fault {
    read_error::unexpected_shape("the stream ended before the answer was complete")
}

/// The stream ended, by its own word even, without content and without a reason.
pub(super) fn empty_stream_fault() -> Fault {
    read_error::unexpected_shape("the stream ended before any content")
}

/// Appends a text to the text that is there.
pub(super) fn append_text(slot: &mut Value, more: &str) {
    match slot {
        Value::String(text) => text.push_str(more),
        other => *other = Value::String(more.to_owned()),
    }
}
