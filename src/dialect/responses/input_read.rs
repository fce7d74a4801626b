//! Reads a request's input: items become messages, the leading system messages stand before them.

use crate::{
    base::{json::JsonRef, raw::RawJson},
    dialect::responses::{
        items_read::{self, ITEM, MADE, OWN, form, kind, mark, part, string},
        request_read::{refused, wrong},
        stored, tools_read,
    },
    ir::{
        block::{Block, BlockKind, CallKind, ToolResult},
        fault::ProxyError,
        request::{ChatMessage, Role},
        tool::Tool,
    },
};

/// Messages being put together.
pub(super) struct Input<'a> {
    tools: &'a [Tool],
    system: Vec<Block>,
    messages: Vec<ChatMessage>,
    /// Ids and names of the calls so far.
    calls: Vec<(String, String)>,
}

impl<'a> Input<'a> {
    pub(super) fn new(tools: &'a [Tool]) -> Self {
        Self { tools, system: Vec::new(), messages: Vec::new(), calls: Vec::new() }
    }

    pub(super) fn finish(self) -> (Vec<Block>, Vec<ChatMessage>) {
        (self.system, self.messages)
    }

    /// Input that is plain text.
    pub(super) fn said(&mut self, text: &str) {
        self.messages.push(ChatMessage::new(Role::User, vec![Block::text(text)]));
    }

    /// # Errors
    ///
    /// Items that the API itself refuses, by their place.
    pub(super) fn item(&mut self, item: JsonRef<'_>, at: usize) -> Result<(), ProxyError> {
        let place = |key: &str| format!("input[{at}]{key}");
        if !item.is_object() {
            return Err(wrong(&place(""), "an object", item));
        }
        let kind = kind(item);
        match kind.as_str() {
            "message" => self.message(item, &place)?,
            "" if item.get("role").is_some() => self.message(item, &place)?,
            "function_call" | "custom_tool_call" => {
                self.call(item, form(&kind).unwrap_or_default(), &place)?
            }
            "function_call_output" | "custom_tool_call_output" => {
                self.result(item, &kind, &place)?
            }
            "reasoning" => {
                let block = items_read::reasoning(item);
                let nothing = block.signature.is_none()
                    && string(item, "id").is_some_and(|id| id.starts_with(MADE))
                    && matches!(&block.kind, BlockKind::Reasoning(it) if it.text.is_empty());
                if !nothing {
                    self.assistant(block);
                }
            }
            "compaction" | "compaction_summary" => {
                match string(item, "encrypted_content").as_deref().and_then(stored::summary) {
                    Some(summary) => self.said(&summary),
                    None => self.assistant(foreign(item)),
                }
            }
            _ if kind.ends_with("_output")
                || matches!(kind.as_str(), "mcp_approval_response" | "additional_tools") =>
            {
                self.beside(foreign(item));
            }
            _ => self.assistant(foreign(item)),
        }
        Ok(())
    }

    fn message(
        &mut self,
        item: JsonRef<'_>,
        place: &dyn Fn(&str) -> String,
    ) -> Result<(), ProxyError> {
        let role = match string(item, "role").as_deref() {
            Some("system" | "developer") => Role::System,
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some(other) => {
                let message = format!(
                    "Invalid value: '{other}'. Supported values are: 'assistant', 'system', 'developer', and 'user'."
                );
                return Err(refused(message, Some(place(".role"))).code("invalid_value"));
            }
            None => return Err(missing(place(".role"))),
        };
        let mut blocks: Vec<Block> = match item.get("content") {
            Some(text) if text.kind() == "string" => {
                vec![Block::text(text.str().unwrap_or_default())]
            }
            Some(list) if list.is_array() => list.items().map(part).collect(),
            Some(other) => return Err(wrong(&place(".content"), "a string or an array", other)),
            None => return Err(missing(place(".content"))),
        };
        let adjacent = self.messages.last().is_some_and(|last| {
            last.role == Role::Assistant
                && matches!(
                    last.blocks.last().map(|b| &b.kind),
                    Some(BlockKind::Text(_) | BlockKind::Refusal(_) | BlockKind::Media(_))
                )
                && !last.blocks.iter().any(|block| matches!(block.kind, BlockKind::ToolCall(_)))
        });
        if let Some(first) = blocks.first_mut() {
            mark(&mut first.extras, item, &["content"]);
        }
        match role {
            Role::System if self.messages.is_empty() && !blocks.is_empty() => {
                self.system.extend(blocks)
            }
            // Two messages said one after the other stay two, except around calls, whose results
            // must follow them.
            Role::Assistant if !adjacent && !blocks.is_empty() => {
                blocks.into_iter().for_each(|block| self.assistant(block))
            }
            _ => {
                let mut message = ChatMessage::new(role, blocks);
                if message.blocks.is_empty() {
                    mark(&mut message.extras, item, &["content"]);
                }
                self.messages.push(message);
            }
        }
        Ok(())
    }

    fn call(
        &mut self,
        item: JsonRef<'_>,
        form: CallKind,
        place: &dyn Fn(&str) -> String,
    ) -> Result<(), ProxyError> {
        let mut call = items_read::call(item, form);
        if call.id.is_empty() {
            return Err(missing(place(".call_id")));
        }
        if call.name.is_empty() {
            return Err(missing(place(".name")));
        }
        call.name = tools_read::known(string(item, "namespace").as_deref(), call.name, self.tools);
        self.calls.push((call.id.clone(), call.name.clone()));
        let mut block = Block::new(BlockKind::ToolCall(call));
        mark(&mut block.extras, item, &["call_id", "name", "arguments", "input"]);
        self.assistant(block);
        Ok(())
    }

    fn result(
        &mut self,
        item: JsonRef<'_>,
        kind: &str,
        place: &dyn Fn(&str) -> String,
    ) -> Result<(), ProxyError> {
        let Some(call) = string(item, "call_id") else { return Err(missing(place(".call_id"))) };
        let content = match item.get("output") {
            Some(list) if list.is_array() => list.items().map(part).collect(),
            Some(said) => {
                let text =
                    said.str().map_or_else(|| said.text().to_owned(), std::borrow::Cow::into_owned);
                if text.is_empty() { Vec::new() } else { vec![Block::text(text)] }
            }
            None => Vec::new(),
        };
        let name = self.calls.iter().rfind(|(id, _)| *id == call).map(|(_, name)| name.clone());
        let form =
            if kind == "function_call_output" { CallKind::Function } else { CallKind::Custom };
        let mut block = Block::new(BlockKind::ToolResult(ToolResult {
            call,
            name,
            content,
            is_error: false,
            form,
        }));
        mark(&mut block.extras, item, &["call_id", "output"]);
        self.beside(block);
        Ok(())
    }

    /// One more block of what the assistant is saying.
    fn assistant(&mut self, block: Block) {
        match self.messages.last_mut() {
            Some(last) if last.role == Role::Assistant && !last.blocks.is_empty() => {
                last.blocks.push(block)
            }
            _ => self.messages.push(ChatMessage::new(Role::Assistant, vec![block])),
        }
    }

    /// One more result for the assistant.
    fn beside(&mut self, block: Block) {
        let is_result = |block: &Block| match &block.kind {
            BlockKind::ToolResult(_) => true,
            BlockKind::Foreign { .. } => block.extras.get(OWN, ITEM).is_some(),
            _ => false,
        };
        match self.messages.last_mut() {
            Some(last)
                if last.role == Role::User
                    && !last.blocks.is_empty()
                    && last.blocks.iter().all(is_result) =>
            {
                last.blocks.push(block);
            }
            _ => self.messages.push(ChatMessage::new(Role::User, vec![block])),
        }
    }
}

fn foreign(item: JsonRef<'_>) -> Block {
    let mut block = Block::new(BlockKind::Foreign { dialect: OWN, body: RawJson::from_json(item) });
    block.extras.push_dialect_only(OWN, ITEM, RawJson::object(|_| {}));
    block
}

fn missing(place: String) -> ProxyError {
    refused(format!("Missing required parameter: '{place}'."), Some(place))
        .code("missing_required_parameter")
}
