//! Reads the messages of a chat request.

use crate::{
    base::json::{raw::RawJson, reader::JsonRef},
    dialect::{
        call_index::CallIndex,
        openai::{error::invalid_param, parts_read, reasoning},
    },
    ir::{
        block::{Block, BlockKind, CallKind, Reasoning, TextBlock, ToolCall, ToolResult},
        extras::Extras,
        fault::ProxyError,
        op::Dialect,
        request::{ChatMessage, ChatRequest, Role},
    },
};

const DIALECT: Dialect = Dialect::Openai;

pub(super) fn read_messages(
    list: JsonRef<'_>,
    request: &mut ChatRequest,
) -> Result<(), ProxyError> {
    if !list.is_array() {
        return Err(invalid_param(
            "messages",
            format!(
                "Invalid type for 'messages': expected an array of objects, but got {}.",
                list.kind()
            ),
        ));
    }
    let mut reader = MessagesReader { request, calls: Vec::new(), index: CallIndex::default() };
    for (at, message) in list.items().enumerate() {
        if !message.is_object() {
            let text = format!(
                "Invalid type for 'messages[{at}]': expected an object, but got {}.",
                message.kind()
            );
            return Err(invalid_param(format!("messages[{at}]"), text));
        }
        let role = message.get("role").and_then(JsonRef::str).unwrap_or_default();
        match role.as_ref() {
            "assistant" => reader.read_assistant(message, at)?,
            "developer" | "system" => reader.read_system(message, at)?,
            "function" | "tool" => reader.read_result(message, at)?,
            "user" => reader.read_user(message, at)?,
            other => {
                let known = "'system', 'assistant', 'user', 'function', 'tool', and 'developer'";
                let text = format!(
                    "Invalid value: '{other}' for 'messages[{at}].role'. Supported values are: {known}."
                );
                return Err(invalid_param(format!("messages[{at}].role"), text));
            }
        }
    }
    if reader.request.messages.is_empty() && reader.request.system.is_empty() {
        return Err(invalid_param(
            "messages",
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array.",
        ));
    }
    Ok(())
}

struct MessagesReader<'r> {
    request: &'r mut ChatRequest,
    calls: Vec<KnownCall>,
    index: CallIndex,
}

/// A call of the assistant, to which a later result is matched.
struct KnownCall {
    name: String,
    kind: CallKind,
}

fn is_result(block: &Block) -> bool {
    matches!(block.kind, BlockKind::ToolResult(_))
}

/// Moves a cache mark on the whole message to its last block.
fn apply_cache_mark(message: JsonRef<'_>, extras: &mut Extras, blocks: &mut [Block]) {
    let mark = parts_read::read_cache_mark(message, extras);
    if let Some(last) = blocks.last_mut() {
        last.cache = last.cache.take().or(mark);
    }
}

impl MessagesReader<'_> {
    /// Reads a leading system message into the system prompt. Its fields other than the content are
    /// stored with its first block.
    fn read_system(&mut self, message: JsonRef<'_>, at: usize) -> Result<(), ProxyError> {
        let mut blocks = parts_read::read_content(message.get("content"), at)?;
        let extras =
            Extras::from_object(DIALECT, message, &["role", "content", "name", "cache_control"]);
        if !self.request.messages.is_empty() {
            let mut parsed = ChatMessage {
                role: Role::System,
                blocks,
                name: message.non_empty_at("name"),
                extras,
            };
            apply_cache_mark(message, &mut parsed.extras, &mut parsed.blocks);
            self.request.messages.push(parsed);
            return Ok(());
        }
        apply_cache_mark(message, &mut Extras::default(), &mut blocks);
        if let Some(first) = blocks.first_mut() {
            extras.iter().for_each(|(key, value)| first.extras.push(DIALECT, key, value.clone()));
            let head = RawJson::object(|o| {
                let rest = message
                    .members()
                    .filter(|(key, value)| *key != "content" && value.kind() != "null");
                rest.for_each(|(key, value)| {
                    o.json(key, value);
                });
            });
            first.extras.push_equivalent(DIALECT, "system", head);
        }
        self.request.system.append(&mut blocks);
        Ok(())
    }

    fn read_user(&mut self, message: JsonRef<'_>, at: usize) -> Result<(), ProxyError> {
        if message.get("content").is_none() {
            let text = format!(
                "Invalid value for 'messages[{at}].content': expected a string or an array of content parts, got null."
            );
            return Err(invalid_param(format!("messages[{at}].content"), text));
        }
        let mut parsed =
            ChatMessage::new(Role::User, parts_read::read_content(message.get("content"), at)?);
        parsed.name = message.non_empty_at("name");
        parsed.extras =
            Extras::from_object(DIALECT, message, &["role", "content", "name", "cache_control"]);
        apply_cache_mark(message, &mut parsed.extras, &mut parsed.blocks);
        self.request.messages.push(parsed);
        Ok(())
    }

    fn read_assistant(&mut self, message: JsonRef<'_>, at: usize) -> Result<(), ProxyError> {
        const KNOWN_FIELDS: [&str; 14] = [
            "role",
            "content",
            "name",
            "refusal",
            "tool_calls",
            "function_call",
            "reasoning_content",
            "reasoning",
            "reasoning_text",
            "reasoning_details",
            "annotations",
            "cache_control",
            "extra_content",
            "thought_signature",
        ];
        let mut extras = Extras::from_object(DIALECT, message, &KNOWN_FIELDS);
        for key in ["annotations", "thought_signature"] {
            if let Some(value) = message.get(key) {
                extras.push_equivalent(DIALECT, key, RawJson::from_json(value));
            }
        }
        let mut blocks = Vec::new();
        read_reasoning(message, &mut blocks, &mut extras);
        let content = parts_read::read_content(message.get("content"), at)?;
        blocks.extend(content.into_iter().filter(
            |block| !matches!(&block.kind, BlockKind::Text(TextBlock { text, .. }) if text.is_empty()),
        ));
        if let Some(proof) = reasoning::read_extra_content(message) {
            match blocks.iter_mut().rfind(|block| matches!(block.kind, BlockKind::Text(_))) {
                Some(block) => block.signature = Some(proof),
                None => extras.push_equivalent(
                    DIALECT,
                    "extra_content",
                    RawJson::parse(&proof.value).unwrap_or_else(|| RawJson::from(true)),
                ),
            }
        }
        blocks.extend(
            message.non_empty_at("refusal").map(|words| Block::new(BlockKind::Refusal(words))),
        );
        for call in message.get("tool_calls").into_iter().flat_map(JsonRef::items) {
            blocks.push(self.read_call(call, at)?);
        }
        if let Some(call) =
            message.get("function_call").filter(|call| call.non_empty_at("name").is_some())
        {
            blocks.push(self.add_call(None, call, "arguments", CallKind::Function));
        }
        apply_cache_mark(message, &mut extras, &mut blocks);
        self.request.messages.push(ChatMessage {
            role: Role::Assistant,
            blocks,
            name: message.non_empty_at("name"),
            extras,
        });
        Ok(())
    }

    fn read_call(&mut self, call: JsonRef<'_>, at: usize) -> Result<Block, ProxyError> {
        let id = call.non_empty_at("id");
        let mut block = match (call.get("function"), call.get("custom")) {
            (Some(function), _) => self.add_call(id, function, "arguments", CallKind::Function),
            (None, Some(custom)) => self.add_call(id, custom, "input", CallKind::Custom),
            (None, None) => {
                let param = format!("messages[{at}].tool_calls");
                return Err(invalid_param(
                    param,
                    format!("Missing required parameter: 'messages[{at}].tool_calls[].function'."),
                ));
            }
        };
        block.extras = Extras::from_object(
            DIALECT,
            call,
            &["id", "type", "index", "function", "custom", "extra_content"],
        );
        block.signature = reasoning::read_extra_content(call);
        Ok(block)
    }

    fn add_call(
        &mut self,
        id: Option<String>,
        inside: JsonRef<'_>,
        field: &str,
        form: CallKind,
    ) -> Block {
        let id = id.unwrap_or_else(|| format!("call_{}", self.calls.len()));
        let name = inside.string_at("name").unwrap_or_default();
        let arguments = inside.get(field).map(|value| value.plain_text()).unwrap_or_default();
        self.index.push(&id, &name);
        self.calls.push(KnownCall { name: name.clone(), kind: form });
        Block::new(BlockKind::ToolCall(ToolCall { id, name, arguments, form }))
    }

    /// Reads a result; consecutive results become one message.
    fn read_result(&mut self, message: JsonRef<'_>, at: usize) -> Result<(), ProxyError> {
        let (id, name) = (message.non_empty_at("tool_call_id"), message.non_empty_at("name"));
        let call = match (&id, &name) {
            (Some(id), _) => self.index.latest_with_id(id),
            (None, Some(name)) => self.index.first_open_of(name),
            (None, None) => self.index.first_open(),
        };
        let mut result = ToolResult {
            content: parts_read::read_content(message.get("content"), at)?,
            ..ToolResult::default()
        };
        result.name.clone_from(&name);
        if let Some(number) = call {
            let call = &self.calls[number];
            self.index.close(number).clone_into(&mut result.call);
            result.form = call.kind;
            result.name = name.clone().or_else(|| Some(call.name.clone()));
        }
        if result.call.is_empty() {
            result.call = id.unwrap_or_else(|| format!("call_{}", self.calls.len()));
        }
        let mut block = Block::new(BlockKind::ToolResult(result));
        block.extras = Extras::from_object(
            DIALECT,
            message,
            &["role", "content", "tool_call_id", "name", "cache_control"],
        );
        if let Some(name) = name.filter(|_| message.get("tool_call_id").is_some()) {
            block.extras.push_equivalent(DIALECT, "name", RawJson::string(&name));
        }
        let mut extras = std::mem::take(&mut block.extras);
        apply_cache_mark(message, &mut extras, std::slice::from_mut(&mut block));
        block.extras = extras;
        match self.request.messages.last_mut() {
            Some(last)
                if last.role == Role::User
                    && last.blocks.first().is_some_and(is_result)
                    && last.blocks.last().is_some_and(is_result) =>
            {
                last.blocks.push(block);
            }
            _ => self.request.messages.push(ChatMessage::new(Role::User, vec![block])),
        }
        Ok(())
    }
}

/// Reads the assistant's reasoning from any field that contains it, and stores the fields in their
/// original form.
fn read_reasoning(message: JsonRef<'_>, blocks: &mut Vec<Block>, extras: &mut Extras) {
    let text_fields =
        || reasoning::TEXT_FIELDS.iter().filter_map(|key| Some((*key, message.get(key)?)));
    let details = message.get("reasoning_details").filter(|details| details.is_array());
    let plain = text_fields()
        .filter_map(|(_, value)| reasoning::field_text(value))
        .find(|text| !text.is_empty());
    let text = plain
        .map(std::borrow::Cow::into_owned)
        .or_else(|| details.map(reasoning::details_text))
        .unwrap_or_default();
    let sealed = details.filter(|details| reasoning::has_seal(*details));
    let mut spelled = Extras::default();
    text_fields()
        .for_each(|(key, value)| spelled.push_equivalent(DIALECT, key, RawJson::from_json(value)));
    if let Some(details) = details.filter(|_| sealed.is_none()) {
        spelled.push_equivalent(DIALECT, "reasoning_details", RawJson::from_json(details));
    }
    if text.is_empty() && sealed.is_none() {
        for key in reasoning::TEXT_FIELDS.iter().chain(&["reasoning_details"]) {
            spelled
                .get(DIALECT, key)
                .into_iter()
                .for_each(|value| extras.push_equivalent(DIALECT, key, value.clone()));
        }
        return;
    }
    let mut block = Block::new(BlockKind::Reasoning(Reasoning { text, summary: false }));
    block.signature = sealed.map(|details| reasoning::details_signature(details.text()));
    block.extras = spelled;
    blocks.push(block);
}
