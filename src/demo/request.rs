//! The parts of a chat request that the demo uses, independent of any dialect.

use serde_json::Value;

/// Limit for the stored part of the last message, in bytes; also limits the answer of `echo`.
const MAX_PROMPT_BYTES: usize = 32 * 1024;

/// One chat request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct DemoRequest {
    /// Text of the last user message.
    pub(super) prompt: String,
    /// The tool's result, if the conversation ends with one.
    pub(super) tool_result: Option<String>,
    pub(super) tools: Vec<DemoTool>,
    pub(super) tool_choice: DemoToolChoice,
    /// The answer must be JSON of this schema, or any JSON (`Value::Null`).
    pub(super) json_schema: Option<Value>,
    pub(super) stop_sequences: Vec<String>,
    /// Maximum length of the answer, in tokens.
    pub(super) max_tokens: Option<u64>,
    /// Number of input tokens.
    pub(super) input_tokens: u64,
    pub(super) stream: bool,
    /// The conversation contains the reasoning of `think` with its valid signature.
    pub(super) has_valid_signature: bool,
}

/// A function that the model may call.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DemoTool {
    pub(super) name: String,
    pub(super) schema: Value,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum DemoToolChoice {
    #[default]
    Auto,
    None,
    Named(String),
}

impl DemoRequest {
    /// Stores the text of a user message. A later message replaces it, and it clears an earlier
    /// tool result.
    pub(super) fn set_prompt(&mut self, text: String) {
        self.prompt = truncated(text, MAX_PROMPT_BYTES);
        self.tool_result = None;
    }

    /// Stores the result of a tool.
    pub(super) fn set_tool_result(&mut self, text: String) {
        self.tool_result = Some(truncated(text, MAX_PROMPT_BYTES));
    }

    /// Reads a stop field: a string or a list of them.
    pub(super) fn read_stop_sequences(&mut self, value: &Value) {
        let many = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let all = many.iter().chain(std::iter::once(value)).filter_map(Value::as_str);
        self.stop_sequences =
            all.filter(|text| !text.is_empty()).take(16).map(str::to_owned).collect();
    }
}

/// Returns the text of a content field: a string, an object with `text`, or a list of those.
pub(super) fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(text_of).collect(),
        Value::Object(part) => {
            part.get("text").and_then(Value::as_str).unwrap_or_default().to_owned()
        }
        _ => String::new(),
    }
}

/// Counts the tokens of all text in these values, at four bytes per token; media are not counted.
pub(super) fn count_tokens(values: &[&Value]) -> u64 {
    values.iter().map(|value| text_bytes(value)).sum::<u64>().div_ceil(4)
}

/// Counts the tokens of a text.
pub(super) fn text_tokens(text: &str) -> u64 {
    (text.len() as u64).div_ceil(4)
}

fn text_bytes(value: &Value) -> u64 {
    const MEDIA_FIELDS: [&str; 6] = ["data", "file_data", "image_url", "images", "type", "url"];
    match value {
        Value::String(text) => text.len() as u64,
        Value::Array(items) => items.iter().map(text_bytes).sum(),
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| !MEDIA_FIELDS.contains(&key.as_str()))
            .map(|(key, value)| key.len() as u64 / 2 + text_bytes(value))
            .sum(),
        _ => 1,
    }
}

/// Truncates a text to at most `limit` bytes.
pub(super) fn truncated(mut text: String, limit: usize) -> String {
    text.truncate(text.floor_char_boundary(limit));
    text
}
