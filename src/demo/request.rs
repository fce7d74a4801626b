//! The parts of a chat request that the demo uses, independent of any dialect.

use serde_json::Value;

use crate::{
    base::json::raw::RawJson,
    ir::{
        block::{Block, BlockKind},
        generation_settings::ResponseFormat,
        op::Dialect,
        request::{ChatMessage, ChatRequest, Role},
        tool::{Tool, ToolChoice},
    },
};

/// Limit for the stored part of the last message, in bytes; also limits the answer of `echo`.
const MAX_PROMPT_BYTES: usize = 32 * 1024;
const MAX_STOP_SEQUENCES: usize = 16;

/// The signature that marks reasoning as the demo's; opaque to clients.
pub(super) const THOUGHT_SIGNATURE: &str = "ZGVtby10aG91Z2h0LXByb29mLTEyMzQ1Njc4OTA=";

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
    /// Takes the parts that the demo uses from a chat request.
    pub(super) fn from_chat(chat: &ChatRequest, dialect: Dialect, input_tokens: u64) -> Self {
        let settings = &chat.settings;
        let mut request = Self {
            tools: chat.tools.iter().filter_map(DemoTool::from_tool).collect(),
            // `required` needs no handling, because `tools` always calls a tool.
            tool_choice: match &chat.tool_choice {
                Some(ToolChoice::None) => DemoToolChoice::None,
                Some(ToolChoice::Named(name)) => DemoToolChoice::Named(name.clone()),
                Some(ToolChoice::Allowed { names, required: true }) => {
                    names.first().cloned().map_or(DemoToolChoice::Auto, DemoToolChoice::Named)
                }
                _ => DemoToolChoice::Auto,
            },
            json_schema: match &settings.format {
                Some(ResponseFormat::Schema { schema, .. }) => Some(schema.to_value()),
                Some(ResponseFormat::Json) => Some(Value::Null),
                Some(ResponseFormat::Text) | None => None,
            },
            stop_sequences: settings.stop.iter().take(MAX_STOP_SEQUENCES).cloned().collect(),
            max_tokens: settings.max_tokens,
            input_tokens,
            has_valid_signature: chat
                .messages
                .iter()
                .any(|message| returns_reasoning(message, dialect)),
            ..Self::default()
        };
        request.stop_sequences.retain(|stop| !stop.is_empty());
        for message in chat.messages.iter().filter(|message| message.role == Role::User) {
            let result = message.blocks.iter().rev().find_map(|block| match &block.kind {
                BlockKind::ToolResult(result) => Some(result),
                _ => None,
            });
            match result {
                Some(result) => {
                    let text = truncated(text_of(&result.content), MAX_PROMPT_BYTES);
                    request.tool_result = Some(text);
                }
                // A later message clears the result of a tool.
                None => {
                    request.prompt = truncated(text_of(&message.blocks), MAX_PROMPT_BYTES);
                    request.tool_result = None;
                }
            }
        }
        request
    }
}

impl DemoTool {
    /// The provider's built-in tools have no schema, so the demo cannot call them.
    fn from_tool(tool: &Tool) -> Option<Self> {
        let Tool::Function(tool) = tool else { return None };
        let schema = tool.schema.as_ref().map_or(Value::Null, RawJson::to_value);
        Some(Self { name: tool.name.clone(), schema })
    }
}

/// Returns whether a message brings the demo's reasoning back: with its signature, or next to a
/// call in dialects without signatures.
fn returns_reasoning(message: &ChatMessage, dialect: Dialect) -> bool {
    let has = |test: fn(&BlockKind) -> bool| message.blocks.iter().any(|block| test(&block.kind));
    match dialect {
        Dialect::Ollama | Dialect::Openai => {
            has(|kind| matches!(kind, BlockKind::ToolCall(_)))
                && has(|kind| matches!(kind, BlockKind::Reasoning(it) if !it.text.is_empty()))
        }
        Dialect::Anthropic | Dialect::Gemini | Dialect::Responses => message
            .blocks
            .iter()
            .filter_map(|block| block.signature.as_ref())
            .any(|signature| signature.value == THOUGHT_SIGNATURE),
    }
}

/// Returns the text of blocks.
fn text_of(blocks: &[Block]) -> String {
    let texts = blocks.iter().filter_map(|block| match &block.kind {
        BlockKind::Text(it) => Some(it.text.as_str()),
        _ => None,
    });
    texts.collect()
}

/// Counts the tokens of all text in these values, at four bytes per token; media are not counted.
pub(super) fn count_tokens<'v>(values: impl Iterator<Item = &'v Value>) -> u64 {
    values.map(text_bytes).sum::<u64>().div_ceil(4)
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
fn truncated(mut text: String, limit: usize) -> String {
    text.truncate(text.floor_char_boundary(limit));
    text
}
