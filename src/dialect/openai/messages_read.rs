//! Reads a conversation.

use crate::{
    base::{json::JsonRef, raw::RawJson},
    dialect::openai::{parts_read, reasoning, request_read::refuse},
    ir::{
        block::{Block, BlockKind, CallKind, Reasoning, TextBlock, ToolCall, ToolResult},
        extras::Extras,
        fault::ProxyError,
        op::Dialect,
        request::{ChatMessage, ChatRequest, Role},
    },
};

const OWN: Dialect = Dialect::Openai;

pub(super) fn read(list: JsonRef<'_>, request: &mut ChatRequest) -> Result<(), ProxyError> {
    if !list.is_array() {
        return Err(refuse(
            "messages",
            format!(
                "Invalid type for 'messages': expected an array of objects, but got {}.",
                list.kind()
            ),
        ));
    }
    let mut reader = Reader { request, calls: Vec::new() };
    for (at, message) in list.items().enumerate() {
        if !message.is_object() {
            let text = format!(
                "Invalid type for 'messages[{at}]': expected an object, but got {}.",
                message.kind()
            );
            return Err(refuse(format!("messages[{at}]"), text));
        }
        let role = message.get("role").and_then(JsonRef::str).unwrap_or_default();
        match role.as_ref() {
            "assistant" => reader.assistant(message, at)?,
            "developer" | "system" => reader.system(message, at)?,
            "function" | "tool" => reader.result(message, at)?,
            "user" => reader.user(message, at)?,
            other => {
                let known = "'system', 'assistant', 'user', 'function', 'tool', and 'developer'";
                let text = format!(
                    "Invalid value: '{other}' for 'messages[{at}].role'. Supported values are: {known}."
                );
                return Err(refuse(format!("messages[{at}].role"), text));
            }
        }
    }
    if reader.request.messages.is_empty() && reader.request.system.is_empty() {
        return Err(refuse(
            "messages",
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array.",
        ));
    }
    Ok(())
}

struct Reader<'r> {
    request: &'r mut ChatRequest,
    calls: Vec<Called>,
}

/// A call that was made, so that its result is known by it.
struct Called {
    id: String,
    name: String,
    form: CallKind,
    answered: bool,
}

fn text(value: JsonRef<'_>) -> Option<String> {
    value.str().map(std::borrow::Cow::into_owned)
}

/// A field's text where there is some.
fn some(message: JsonRef<'_>, key: &str) -> Option<String> {
    message.get(key).and_then(text).filter(|text| !text.is_empty())
}

/// Marks the last block where the whole message is marked.
fn mark(message: JsonRef<'_>, extras: &mut Extras, blocks: &mut [Block]) {
    let mark = parts_read::mark(message, extras);
    if let Some(last) = blocks.last_mut() {
        last.cache = last.cache.take().or(mark);
    }
}

impl Reader<'_> {
    /// A leading system message stands before the conversation; what it says besides its content is
    /// kept with its first block.
    fn system(&mut self, message: JsonRef<'_>, at: usize) -> Result<(), ProxyError> {
        let mut blocks = parts_read::content(message.get("content"), at)?;
        let extras =
            Extras::from_object(OWN, message, &["role", "content", "name", "cache_control"]);
        if !self.request.messages.is_empty() {
            let mut told =
                ChatMessage { role: Role::System, blocks, name: some(message, "name"), extras };
            mark(message, &mut told.extras, &mut told.blocks);
            self.request.messages.push(told);
            return Ok(());
        }
        mark(message, &mut Extras::default(), &mut blocks);
        if let Some(first) = blocks.first_mut() {
            extras.iter().for_each(|(key, value)| first.extras.push(OWN, key, value.clone()));
            let head = RawJson::object(|o| {
                let rest = message
                    .members()
                    .filter(|(key, value)| *key != "content" && value.kind() != "null");
                rest.for_each(|(key, value)| {
                    o.json(key, value);
                });
            });
            first.extras.push_equivalent(OWN, "system", head);
        }
        self.request.system.append(&mut blocks);
        Ok(())
    }

    fn user(&mut self, message: JsonRef<'_>, at: usize) -> Result<(), ProxyError> {
        if message.get("content").is_none() {
            let text = format!(
                "Invalid value for 'messages[{at}].content': expected a string or an array of content parts, got null."
            );
            return Err(refuse(format!("messages[{at}].content"), text));
        }
        let mut told =
            ChatMessage::new(Role::User, parts_read::content(message.get("content"), at)?);
        told.name = some(message, "name");
        told.extras =
            Extras::from_object(OWN, message, &["role", "content", "name", "cache_control"]);
        mark(message, &mut told.extras, &mut told.blocks);
        self.request.messages.push(told);
        Ok(())
    }

    fn assistant(&mut self, message: JsonRef<'_>, at: usize) -> Result<(), ProxyError> {
        const KNOWN: [&str; 14] = [
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
        let mut extras = Extras::from_object(OWN, message, &KNOWN);
        for key in ["annotations", "thought_signature"] {
            if let Some(value) = message.get(key) {
                extras.push_equivalent(OWN, key, RawJson::from_json(value));
            }
        }
        let mut blocks = Vec::new();
        thought(message, &mut blocks, &mut extras);
        let said = parts_read::content(message.get("content"), at)?;
        blocks.extend(said.into_iter().filter(
            |block| !matches!(&block.kind, BlockKind::Text(TextBlock { text, .. }) if text.is_empty()),
        ));
        if let Some(proof) = reasoning::beside(message) {
            match blocks.iter_mut().rfind(|block| matches!(block.kind, BlockKind::Text(_))) {
                Some(block) => block.signature = Some(proof),
                None => extras.push_equivalent(
                    OWN,
                    "extra_content",
                    RawJson::parse(&proof.value).unwrap_or_else(|| RawJson::from(true)),
                ),
            }
        }
        blocks.extend(some(message, "refusal").map(|words| Block::new(BlockKind::Refusal(words))));
        for call in message.get("tool_calls").into_iter().flat_map(JsonRef::items) {
            blocks.push(self.call(call, at)?);
        }
        if let Some(call) =
            message.get("function_call").filter(|call| some(*call, "name").is_some())
        {
            blocks.push(self.called(None, call, "arguments", CallKind::Function));
        }
        mark(message, &mut extras, &mut blocks);
        self.request.messages.push(ChatMessage {
            role: Role::Assistant,
            blocks,
            name: some(message, "name"),
            extras,
        });
        Ok(())
    }

    fn call(&mut self, call: JsonRef<'_>, at: usize) -> Result<Block, ProxyError> {
        let id = some(call, "id");
        let mut block = match (call.get("function"), call.get("custom")) {
            (Some(function), _) => self.called(id, function, "arguments", CallKind::Function),
            (None, Some(custom)) => self.called(id, custom, "input", CallKind::Custom),
            (None, None) => {
                let param = format!("messages[{at}].tool_calls");
                return Err(refuse(
                    param,
                    format!("Missing required parameter: 'messages[{at}].tool_calls[].function'."),
                ));
            }
        };
        block.extras = Extras::from_object(
            OWN,
            call,
            &["id", "type", "index", "function", "custom", "extra_content"],
        );
        block.signature = reasoning::beside(call);
        Ok(block)
    }

    fn called(
        &mut self,
        id: Option<String>,
        inside: JsonRef<'_>,
        field: &str,
        form: CallKind,
    ) -> Block {
        let id = id.unwrap_or_else(|| format!("call_{}", self.calls.len()));
        let name = inside.get("name").and_then(text).unwrap_or_default();
        let arguments = inside
            .get(field)
            .map(|told| text(told).unwrap_or_else(|| told.text().to_owned()))
            .unwrap_or_default();
        self.calls.push(Called { id: id.clone(), name: name.clone(), form, answered: false });
        Block::new(BlockKind::ToolCall(ToolCall { id, name, arguments, form }))
    }

    /// Results that follow each other are one message.
    fn result(&mut self, message: JsonRef<'_>, at: usize) -> Result<(), ProxyError> {
        let (id, name) = (some(message, "tool_call_id"), some(message, "name"));
        let open = |call: &&mut Called| !call.answered;
        let call = match (&id, &name) {
            (Some(id), _) => self.calls.iter_mut().rfind(|call| call.id == *id),
            (None, Some(name)) => {
                self.calls.iter_mut().filter(open).find(|call| call.name == *name)
            }
            (None, None) => self.calls.iter_mut().find(open),
        };
        let mut result = ToolResult {
            content: parts_read::content(message.get("content"), at)?,
            ..ToolResult::default()
        };
        result.name.clone_from(&name);
        if let Some(call) = call {
            call.answered = true;
            result.call.clone_from(&call.id);
            result.form = call.form;
            result.name = name.clone().or_else(|| Some(call.name.clone()));
        }
        if result.call.is_empty() {
            result.call = id.unwrap_or_else(|| format!("call_{}", self.calls.len()));
        }
        let mut block = Block::new(BlockKind::ToolResult(result));
        block.extras = Extras::from_object(
            OWN,
            message,
            &["role", "content", "tool_call_id", "name", "cache_control"],
        );
        if let Some(name) = name.filter(|_| message.get("tool_call_id").is_some()) {
            block.extras.push_equivalent(OWN, "name", RawJson::string(&name));
        }
        let mut extras = std::mem::take(&mut block.extras);
        mark(message, &mut extras, std::slice::from_mut(&mut block));
        block.extras = extras;
        match self.request.messages.last_mut() {
            Some(last)
                if last.role == Role::User
                    && !last.blocks.is_empty()
                    && last.blocks.iter().all(|b| matches!(b.kind, BlockKind::ToolResult(_))) =>
            {
                last.blocks.push(block);
            }
            _ => self.request.messages.push(ChatMessage::new(Role::User, vec![block])),
        }
        Ok(())
    }
}

/// What the assistant thought, from whichever places tell it; those are kept in their own spelling.
fn thought(message: JsonRef<'_>, blocks: &mut Vec<Block>, extras: &mut Extras) {
    let told = || reasoning::FIELDS.iter().filter_map(|key| Some((*key, message.get(key)?)));
    let details = message.get("reasoning_details").filter(|details| details.is_array());
    let plain =
        told().filter_map(|(_, value)| reasoning::plain(value)).find(|text| !text.is_empty());
    let text = plain
        .map(std::borrow::Cow::into_owned)
        .or_else(|| details.map(reasoning::words))
        .unwrap_or_default();
    let sealed = details.filter(|details| reasoning::sealed(*details));
    let mut spelled = Extras::default();
    told().for_each(|(key, value)| spelled.push_equivalent(OWN, key, RawJson::from_json(value)));
    if let Some(details) = details.filter(|_| sealed.is_none()) {
        spelled.push_equivalent(OWN, "reasoning_details", RawJson::from_json(details));
    }
    if text.is_empty() && sealed.is_none() {
        for key in reasoning::FIELDS.iter().chain(&["reasoning_details"]) {
            spelled
                .get(OWN, key)
                .into_iter()
                .for_each(|value| extras.push_equivalent(OWN, key, value.clone()));
        }
        return;
    }
    let mut block = Block::new(BlockKind::Reasoning(Reasoning { text, summary: false }));
    block.signature = sealed.map(|details| reasoning::proof(details.text()));
    block.extras = spelled;
    blocks.push(block);
}
