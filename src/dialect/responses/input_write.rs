//! Writes messages as items, with every result after its call.

use crate::{
    base::json::{raw::RawJson, writer},
    dialect::{
        egress::TargetTraits,
        losses::Losses,
        responses::{
            items_read::{
                DIALECT, ITEM_FIELD_PREFIX, ITEM_NOTE, PART_NOTE, SEALED_ITEM_NOTE, write_members,
            },
            parts_write::write_part,
            tools::client_tools::ORIGINAL_ITEM_NOTE,
            tools::names::{ResponsesToolNames, to_valid_call_id},
        },
        results_by_call::ResultsByCall,
    },
    ir::{
        block::{
            Block, BlockKind, CallKind, PHASE_NOTE, Reasoning, SignatureKind, ToolCall, ToolResult,
        },
        extras::Extras,
        request::{ChatMessage, ChatRequest, Role},
        tool,
    },
};

/// The output that is written for a call whose result is missing.
const MISSING_RESULT_TEXT: &str = "No result was given for this call.";

/// Writes input items.
pub(super) struct InputItemsWriter<'a> {
    /// Each item as JSON text.
    pub(super) items: Vec<String>,
    request: &'a ChatRequest,
    names: &'a ResponsesToolNames<'a>,
    losses: &'a mut Losses,
    takes_reasoning: bool,
    developer_role: bool,
    results: ResultsByCall<'a>,
    /// Whether the request contains the whole conversation, so that a missing call or result can be
    /// detected.
    is_complete: bool,
}

impl<'a> InputItemsWriter<'a> {
    pub(super) fn new(
        request: &'a ChatRequest,
        names: &'a ResponsesToolNames<'a>,
        traits: &TargetTraits,
        losses: &'a mut Losses,
    ) -> Self {
        let is_item_reference = |block: &Block| matches!(&block.kind, BlockKind::Foreign { dialect: DIALECT, body } if body.json().get("type").is_some_and(|kind| kind.text() == "\"item_reference\""));
        let is_complete = request.extras.get(DIALECT, "conversation").is_none()
            && request.extras.get(DIALECT, "prompt").is_none()
            && !request.messages.iter().flat_map(|message| &message.blocks).any(is_item_reference);
        Self {
            items: Vec::new(),
            request,
            names,
            losses,
            takes_reasoning: traits.accepts_reasoning,
            developer_role: traits.developer_role,
            results: ResultsByCall::collect(&request.messages),
            is_complete,
        }
    }

    pub(super) fn write_all(&mut self) {
        let request = self.request;
        let from = request
            .system
            .iter()
            .position(|block| block.extras.get(DIALECT, ITEM_NOTE).is_some())
            .unwrap_or(request.system.len());
        self.write_runs(Role::System, &request.system[from..]);
        for (message, at) in request.messages.iter().zip(0..) {
            self.write_message(message, at);
        }
    }

    fn write_message(&mut self, message: &ChatMessage, at: usize) {
        if message.name.is_some() {
            self.losses.add("messages.name");
        }
        if !message.extras.is_from(DIALECT) {
            for (key, _) in message.extras.iter() {
                self.losses.add(format!("messages.{key}"));
            }
        }
        if message.blocks.is_empty() && message.extras.get(DIALECT, ITEM_NOTE).is_some() {
            self.items.push(self.message_item(message.role, &message.extras, &[], false));
        }
        let mut from = 0;
        let mut result_number = self.results.first_from(at);
        for (block, n) in message.blocks.iter().zip(0..) {
            let is_content = matches!(
                block.kind,
                BlockKind::Text(_) | BlockKind::Media(_) | BlockKind::Refusal(_)
            ) || block.extras.get(DIALECT, PART_NOTE).is_some();
            if is_content {
                continue;
            }
            self.write_runs(message.role, &message.blocks[from..n]);
            from = n + 1;
            match &block.kind {
                BlockKind::ToolCall(call) => self.write_call(call, block),
                BlockKind::ToolResult(result) => {
                    if self.results.take(result_number) {
                        self.write_unmatched_result(result, block);
                    }
                    result_number += 1;
                }
                BlockKind::Reasoning(thought) => self.write_reasoning(thought, block),
                BlockKind::Foreign { dialect: DIALECT, body } => {
                    self.items.push(body.text().to_owned());
                }
                BlockKind::Foreign { body, .. } => {
                    let json = body.json();
                    let kind = json.string_at("type");
                    let kind =
                        kind.or_else(|| json.members().next().map(|(key, _)| key.to_owned()));
                    self.losses.add(format!("messages.{}", kind.as_deref().unwrap_or("foreign")));
                }
                BlockKind::Text(_) | BlockKind::Media(_) | BlockKind::Refusal(_) => {}
            }
        }
        self.write_runs(message.role, &message.blocks[from..]);
        self.write_results(message, at);
    }

    /// Writes blocks as adjacent messages, one for each noted item and each phase.
    fn write_runs(&mut self, role: Role, mut blocks: &[Block]) {
        while let Some(first) = blocks.first() {
            let phase = first.phase();
            let begins = |block: &Block| {
                block.extras.get(DIALECT, ITEM_NOTE).is_some()
                    || block.phase().is_some_and(|other| Some(other) != phase)
            };
            let next = blocks.iter().skip(1).position(begins).map_or(blocks.len(), |at| at + 1);
            let (run, rest) = blocks.split_at(next);
            self.write_run(role, run);
            blocks = rest;
        }
    }

    fn write_run(&mut self, role: Role, blocks: &[Block]) {
        let extras = &blocks[0].extras;
        let has_item = extras.get(DIALECT, ITEM_NOTE).is_some();
        let mut parts: Vec<String> = Vec::new();
        for block in blocks {
            // Other APIs accept empty texts or produce them themselves.
            if !has_item && matches!(&block.kind, BlockKind::Text(text) if text.text.is_empty()) {
                continue;
            }
            parts.extend(write_part(role, block, self.losses));
        }
        let plain = match blocks {
            [Block { kind: BlockKind::Text(text), extras, .. }]
                if text.citations.is_empty()
                    && extras.iter().all(|(key, _)| {
                        key.starts_with(ITEM_FIELD_PREFIX) || !extras.is_from(DIALECT)
                    }) =>
            {
                Some(text)
            }
            _ => None,
        };
        // A message that an API returned goes back as parts. One that the client wrote itself
        // becomes plain text.
        let plain = plain.filter(|_| {
            extras.get(DIALECT, ITEM_NOTE).is_none_or(|item| item.json().get("id").is_none())
        });
        if let (Some(text), false) = (plain, parts.is_empty()) {
            parts = vec![json_string(&text.text)];
            let item = self.message_item(role, extras, &parts, true);
            self.items.push(item);
        } else if !parts.is_empty() || has_item {
            let item = self.message_item(role, extras, &parts, false);
            self.items.push(item);
        }
    }

    fn message_item(&self, role: Role, extras: &Extras, content: &[String], plain: bool) -> String {
        writer::object(|o| {
            let item = extras.get(DIALECT, ITEM_NOTE);
            match item {
                Some(item) => write_members(o, item, &["role"]),
                None => {
                    o.str("type", "message");
                }
            }
            let original_role = item.and_then(|item| item.json().string_at("role"));
            let role = match role {
                Role::Assistant => "assistant",
                Role::User => "user",
                Role::System if self.developer_role => "developer",
                Role::System => "system",
            };
            o.str("role", original_role.as_deref().unwrap_or(role));
            write_item_fields(o, extras);
            match content {
                [text] if plain => {
                    o.raw_text("content", text);
                }
                parts => {
                    o.array("content", |a| {
                        for part in parts {
                            a.raw_text(part);
                        }
                    });
                }
            }
        })
    }

    fn write_call(&mut self, call: &ToolCall, block: &Block) {
        self.add_block_losses(block);
        if let Some(original) = block.extras.get(DIALECT, ORIGINAL_ITEM_NOTE) {
            self.items.push(original.text().to_owned());
            return;
        }
        let custom = call.form == CallKind::Custom || self.names.is_custom(&call.name);
        let item = writer::object(|o| {
            o.str("type", if custom { "custom_tool_call" } else { "function_call" });
            let item = block.extras.get(DIALECT, ITEM_NOTE);
            if let Some(item) = item {
                write_members(o, item, &["type", "namespace"]);
            }
            o.str("call_id", &to_valid_call_id(&call.id))
                .str("name", self.names.wire_name(&call.name));
            match (
                self.names.namespace(&call.name),
                item.and_then(|item| item.json().get("namespace")),
            ) {
                (Some(space), _) => {
                    o.str("namespace", space);
                }
                (None, Some(space)) => {
                    o.json("namespace", space);
                }
                (None, None) => {}
            }
            match call.form {
                CallKind::Custom => o.str("input", &call.arguments),
                CallKind::Function if custom => {
                    o.str("input", &tool::custom_input(&call.arguments))
                }
                CallKind::Function if call.arguments.trim().is_empty() => o.str("arguments", "{}"),
                CallKind::Function => o.str("arguments", &call.arguments),
            };
            write_item_fields(o, &block.extras);
        });
        self.items.push(item);
    }

    /// Writes the results of an assistant's calls, in the order in which they were given.
    fn write_results(&mut self, message: &ChatMessage, at: usize) {
        let (mut found, mut open) = (Vec::new(), Vec::new());
        for block in &message.blocks {
            let BlockKind::ToolCall(call) = &block.kind else { continue };
            let custom = call.form == CallKind::Custom || self.names.is_custom(&call.name);
            match self.results.take_after(&call.id, at) {
                Some(number) => found.push((number, custom)),
                None => open.push(call),
            }
        }
        found.sort_unstable();
        for (number, custom) in found {
            let placed = self.results.get(number);
            let (block, result) = (placed.block, placed.result);
            self.write_result(result, block, custom);
        }
        for call in open.into_iter().filter(|_| self.is_complete) {
            let custom = call.form == CallKind::Custom || self.names.is_custom(&call.name);
            self.items.push(writer::object(|o| {
                o.str(
                    "type",
                    if custom { "custom_tool_call_output" } else { "function_call_output" },
                );
                o.str("call_id", &to_valid_call_id(&call.id)).str("output", MISSING_RESULT_TEXT);
            }));
        }
    }

    fn write_result(&mut self, result: &ToolResult, block: &Block, custom: bool) {
        self.add_block_losses(block);
        if let Some(original) = block.extras.get(DIALECT, ORIGINAL_ITEM_NOTE) {
            self.items.push(original.text().to_owned());
            return;
        }
        if result.is_error {
            self.losses.add("messages.is_error");
        }
        let plain = match result.content.as_slice() {
            [] => Some(""),
            [Block { kind: BlockKind::Text(text), extras, cache, .. }] if extras.is_empty() => {
                if cache.is_some() {
                    self.losses.add("messages.cache_control");
                }
                Some(text.text.as_str())
            }
            _ => None,
        };
        let parts: Vec<String> = if plain.is_some() {
            Vec::new()
        } else {
            result
                .content
                .iter()
                .filter_map(|block| write_part(Role::User, block, self.losses))
                .collect()
        };
        self.items.push(writer::object(|o| {
            o.str("type", if custom { "custom_tool_call_output" } else { "function_call_output" });
            if let Some(item) = block.extras.get(DIALECT, ITEM_NOTE) {
                write_members(o, item, &["type"]);
            }
            o.str("call_id", &to_valid_call_id(&result.call));
            match plain {
                Some(text) => o.str("output", text),
                None => o.array("output", |a| {
                    for part in &parts {
                        a.raw_text(part);
                    }
                }),
            };
            write_item_fields(o, &block.extras);
        }));
    }

    /// Writes a result that was not written after its call. If its call is missing, the result
    /// becomes text.
    fn write_unmatched_result(&mut self, result: &ToolResult, block: &Block) {
        if !self.is_complete {
            return self.write_result(result, block, result.form == CallKind::Custom);
        }
        let head = json_string(&format!("Result of the tool call {}:", result.call));
        let mut parts = vec![format!(r#"{{"type":"input_text","text":{head}}}"#)];
        for block in &result.content {
            parts.extend(write_part(Role::User, block, self.losses));
        }
        let item = self.message_item(Role::User, &Extras::default(), &parts, false);
        self.items.push(item);
    }

    fn write_reasoning(&mut self, thought: &Reasoning, block: &Block) {
        let signature = block
            .signature
            .as_ref()
            .filter(|proof| proof.dialect == DIALECT && proof.kind == SignatureKind::Encrypted);
        let item = block
            .extras
            .get(DIALECT, if signature.is_some() { SEALED_ITEM_NOTE } else { ITEM_NOTE });
        if let Some(item) = item {
            self.items.push(writer::object(|o| {
                write_members(o, item, &[]);
                o.opt_str("encrypted_content", signature.map(|proof| proof.value.as_str()));
            }));
        } else if let Some(proof) = signature {
            self.items.push(writer::object(|o| {
                o.str("type", "reasoning").opt_str("id", proof.id.as_deref());
                o.array("summary", |a| {
                    if !thought.text.is_empty() {
                        a.object(|o| {
                            o.str("type", "summary_text").str("text", &thought.text);
                        });
                    }
                });
                o.str("encrypted_content", &proof.value);
            }));
        } else if self.takes_reasoning && !thought.text.is_empty() {
            if block.signature.is_some() {
                self.losses.add("reasoning.proof");
            }
            self.items.push(writer::object(|o| {
                o.str("type", "reasoning").array("summary", |_| {}).array("content", |a| {
                    a.object(|o| {
                        o.str("type", "reasoning_text").str("text", &thought.text);
                    });
                });
            }));
        } else {
            self.losses.add(if block.signature.is_some() {
                "reasoning.proof"
            } else {
                "reasoning"
            });
        }
    }

    /// Adds losses for the fields of a block that its item cannot carry.
    fn add_block_losses(&mut self, block: &Block) {
        if block.cache.is_some() {
            self.losses.add("messages.cache_control");
        }
        if block.signature.is_some() {
            self.losses.add("reasoning.proof");
        }
        if !block.extras.is_from(DIALECT) {
            for (key, _) in block.extras.iter() {
                self.losses.add(format!("messages.{key}"));
            }
        }
    }
}

fn write_item_fields(o: &mut writer::ObjectWriter<'_>, extras: &Extras) {
    if extras.is_from(DIALECT) {
        if extras.iter().all(|(key, _)| key != PHASE_NOTE) {
            o.opt_raw("phase", extras.get(DIALECT, PHASE_NOTE));
        }
        for (key, value) in extras
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(ITEM_FIELD_PREFIX)?, value)))
        {
            o.raw(key, value);
        }
    }
}

fn json_string(text: &str) -> String {
    RawJson::string(text).text().to_owned()
}
