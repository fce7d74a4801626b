//! Reads a request's input. Items become messages, and leading system messages become the system
//! prompt.

use std::collections::HashMap;

use crate::{
    base::json::{raw::RawJson, reader::JsonRef},
    dialect::responses::{
        error::{bad_request, missing_parameter, wrong_type},
        items_read::{
            self, DIALECT, ITEM_NOTE, SYNTHETIC_ID_PREFIX, call_kind, item_type, note_item_fields,
            read_part,
        },
        stored,
        tools::additional::ADDITIONAL_TOOLS,
        tools::client_tools::{self, ORIGINAL_ITEM_NOTE},
        tools::read::QualifiedNames,
    },
    ir::{
        block::{Block, BlockKind, CallKind, ToolResult},
        fault::ProxyError,
        request::{ChatMessage, Role},
        tool::Tool,
    },
};

/// Assembles messages from input items.
pub(super) struct InputItemsReader<'a> {
    qualified_names: QualifiedNames<'a>,
    compacts: bool,
    system: Vec<Block>,
    messages: Vec<ChatMessage>,
    /// The names of the calls so far, by their ids.
    call_names: HashMap<String, String>,
    /// The id of the provider's own search for tools whose result has not been read. Such a result
    /// has an id of its own and none of its call.
    open_search: Option<String>,
}

impl<'a> InputItemsReader<'a> {
    pub(super) fn new(tools: &'a [Tool]) -> Self {
        Self {
            qualified_names: QualifiedNames::new(tools),
            compacts: false,
            system: Vec::new(),
            messages: Vec::new(),
            call_names: HashMap::new(),
            open_search: None,
        }
    }

    /// Whether the answer is to be a summary of the conversation (`compaction_trigger`).
    pub(super) fn asks_for_compaction(&self) -> bool {
        self.compacts
    }

    pub(super) fn finish(self) -> (Vec<Block>, Vec<ChatMessage>) {
        (self.system, self.messages)
    }

    /// Adds plain-text input.
    pub(super) fn push_user_text(&mut self, text: &str) {
        self.messages.push(ChatMessage::new(Role::User, vec![Block::text(text)]));
    }

    /// # Errors
    ///
    /// Items that the API itself refuses, named by their position.
    pub(super) fn read_item(&mut self, item: JsonRef<'_>, at: usize) -> Result<(), ProxyError> {
        let location = |key: &str| format!("input[{at}]{key}");
        if !item.is_object() {
            return Err(wrong_type(&location(""), "an object", item));
        }
        let kind = item_type(item);
        match kind.as_str() {
            "message" => self.read_message(item, &location)?,
            "" if item.get("role").is_some() => self.read_message(item, &location)?,
            "function_call" | "custom_tool_call" => {
                self.read_call(item, call_kind(&kind).unwrap_or_default(), &location)?;
            }
            "function_call_output" | "custom_tool_call_output" => {
                self.read_result(item, &kind, &location)?;
            }
            "reasoning" => {
                let block = items_read::read_reasoning(item);
                let is_empty = block.signature.is_none()
                    && item.string_at("id").is_some_and(|id| id.starts_with(SYNTHETIC_ID_PREFIX))
                    && matches!(&block.kind, BlockKind::Reasoning(it) if it.text.is_empty());
                if !is_empty {
                    self.push_assistant_block(block);
                }
            }
            "compaction" | "compaction_summary" | "context_compaction" => {
                match item
                    .string_at("encrypted_content")
                    .as_deref()
                    .and_then(stored::read_compaction)
                {
                    Some(summary) => self.push_user_text(&summary),
                    None => self.push_assistant_block(foreign_item(item)),
                }
            }
            "compaction_trigger" => self.compacts = true,
            // Its tools are read as if they stood in `tools`.
            ADDITIONAL_TOOLS => {}
            _ if client_tools::of_call(&kind)
                .is_some_and(|_| client_tools::call_id(item).is_some()) =>
            {
                self.read_client_call(item, &kind);
            }
            _ if client_tools::of_output(&kind).is_some() => {
                if !self.read_client_result(item, &kind) {
                    self.push_result_block(foreign_item(item));
                }
            }
            _ if kind.ends_with("_output") || kind == "mcp_approval_response" => {
                self.push_result_block(foreign_item(item));
            }
            _ => self.push_assistant_block(foreign_item(item)),
        }
        Ok(())
    }

    fn read_message(
        &mut self,
        item: JsonRef<'_>,
        location: &dyn Fn(&str) -> String,
    ) -> Result<(), ProxyError> {
        let role = match item.string_at("role").as_deref() {
            Some("system" | "developer") => Role::System,
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some(other) => {
                let message = format!(
                    "Invalid value: '{other}'. Supported values are: 'assistant', 'system', 'developer', and 'user'."
                );
                return Err(bad_request(message, Some(location(".role"))).code("invalid_value"));
            }
            None => return Err(missing_parameter(location(".role"))),
        };
        let mut blocks: Vec<Block> = match item.get("content") {
            Some(text) if text.kind() == "string" => {
                vec![Block::text(text.str().unwrap_or_default())]
            }
            Some(list) if list.is_array() => list.items().map(read_part).collect(),
            Some(other) => {
                return Err(wrong_type(&location(".content"), "a string or an array", other));
            }
            None => return Err(missing_parameter(location(".content"))),
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
            note_item_fields(&mut first.extras, item, &["content"]);
        }
        match role {
            Role::System if self.messages.is_empty() && !blocks.is_empty() => {
                self.system.extend(blocks);
            }
            // Two adjacent messages stay separate, except around calls, whose results must follow
            // them.
            Role::Assistant if !adjacent && !blocks.is_empty() => {
                blocks.into_iter().for_each(|block| self.push_assistant_block(block));
            }
            _ => {
                let mut message = ChatMessage::new(role, blocks);
                if message.blocks.is_empty() {
                    note_item_fields(&mut message.extras, item, &["content"]);
                }
                self.messages.push(message);
            }
        }
        Ok(())
    }

    fn read_call(
        &mut self,
        item: JsonRef<'_>,
        form: CallKind,
        location: &dyn Fn(&str) -> String,
    ) -> Result<(), ProxyError> {
        let mut call = items_read::read_call(item, form);
        if call.id.is_empty() {
            return Err(missing_parameter(location(".call_id")));
        }
        if call.name.is_empty() {
            return Err(missing_parameter(location(".name")));
        }
        if let Some(namespace) = item.string_at("namespace")
            && let Some(known) = self.qualified_names.find(&namespace, &call.name)
        {
            known.clone_into(&mut call.name);
        }
        self.call_names.insert(call.id.clone(), call.name.clone());
        let mut block = Block::new(BlockKind::ToolCall(call));
        note_item_fields(&mut block.extras, item, &["call_id", "name", "arguments", "input"]);
        self.push_assistant_block(block);
        Ok(())
    }

    /// Reads a call of a tool that this API defines and the client runs.
    fn read_client_call(&mut self, item: JsonRef<'_>, kind: &str) {
        let Some(tool) = client_tools::of_call(kind) else { return };
        let mut call = tool.read_call(item);
        self.qualified_names.of_type(tool.name).clone_into(&mut call.name);
        self.call_names.insert(call.id.clone(), call.name.clone());
        if item.non_empty_at("call_id").is_none() {
            self.open_search = (tool.name == "tool_search").then(|| call.id.clone());
        }
        let mut block = Block::new(BlockKind::ToolCall(call));
        block.extras.push_dialect_only(DIALECT, ORIGINAL_ITEM_NOTE, RawJson::from_json(item));
        self.push_assistant_block(block);
    }

    /// Returns false if the call of the result is unknown.
    fn read_client_result(&mut self, item: JsonRef<'_>, kind: &str) -> bool {
        let Some(tool) = client_tools::of_output(kind) else { return false };
        let call = match item.non_empty_at("call_id") {
            None if tool.name == "tool_search" => self.open_search.take(),
            _ => client_tools::call_id(item),
        };
        let Some(call) = call else { return false };
        let (content, is_error) = tool.read_output(item);
        let mut block = Block::new(BlockKind::ToolResult(ToolResult {
            call,
            name: Some(self.qualified_names.of_type(tool.name).to_owned()),
            content,
            is_error,
            form: CallKind::Function,
        }));
        block.extras.push_dialect_only(DIALECT, ORIGINAL_ITEM_NOTE, RawJson::from_json(item));
        self.push_result_block(block);
        true
    }

    fn read_result(
        &mut self,
        item: JsonRef<'_>,
        kind: &str,
        location: &dyn Fn(&str) -> String,
    ) -> Result<(), ProxyError> {
        let Some(call) = item.string_at("call_id") else {
            return Err(missing_parameter(location(".call_id")));
        };
        let content = match item.get("output") {
            Some(list) if list.is_array() => list.items().map(read_part).collect(),
            Some(output) => {
                let text = output.plain_text();
                if text.is_empty() { Vec::new() } else { vec![Block::text(text)] }
            }
            None => Vec::new(),
        };
        let name = self.call_names.get(&call).cloned();
        let form =
            if kind == "function_call_output" { CallKind::Function } else { CallKind::Custom };
        let mut block = Block::new(BlockKind::ToolResult(ToolResult {
            call,
            name,
            content,
            is_error: false,
            form,
        }));
        note_item_fields(&mut block.extras, item, &["call_id", "output"]);
        self.push_result_block(block);
        Ok(())
    }

    /// Adds a block to the current assistant message.
    fn push_assistant_block(&mut self, block: Block) {
        match self.messages.last_mut() {
            Some(last) if last.role == Role::Assistant && !last.blocks.is_empty() => {
                last.blocks.push(block);
            }
            _ => self.messages.push(ChatMessage::new(Role::Assistant, vec![block])),
        }
    }

    /// Adds a result to the current message of results.
    fn push_result_block(&mut self, block: Block) {
        let is_result = |block: &Block| match &block.kind {
            BlockKind::ToolResult(_) => true,
            BlockKind::Foreign { .. } => block.extras.get(DIALECT, ITEM_NOTE).is_some(),
            _ => false,
        };
        match self.messages.last_mut() {
            Some(last)
                if last.role == Role::User
                    && last.blocks.first().is_some_and(is_result)
                    && last.blocks.last().is_some_and(is_result) =>
            {
                last.blocks.push(block);
            }
            _ => self.messages.push(ChatMessage::new(Role::User, vec![block])),
        }
    }
}

fn foreign_item(item: JsonRef<'_>) -> Block {
    let mut block =
        Block::new(BlockKind::Foreign { dialect: DIALECT, body: RawJson::from_json(item) });
    block.extras.push_dialect_only(DIALECT, ITEM_NOTE, RawJson::object(|_| {}));
    block
}
