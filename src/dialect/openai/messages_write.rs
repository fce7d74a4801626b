//! Writes a conversation so that every call is followed by its result, in whatever order they
//! arrived.

use crate::{
    base::json::writer::{ArrayWriter, ObjectWriter},
    dialect::{
        egress::TargetTraits,
        losses::Losses,
        openai::{
            assistant_parts::AssistantParts,
            names::{self, OpenaiToolNames},
            parts_write, reasoning, tools_write,
        },
        results_by_call::ResultsByCall,
    },
    ir::{
        block::{Block, BlockKind, CallKind, ToolCall, ToolResult},
        extras::Extras,
        op::Dialect,
        request::{ChatMessage, ChatRequest, Role},
        tool::{Tool, custom_arguments},
    },
};

const DIALECT: Dialect = Dialect::Openai;

/// Stands for the thoughts before a call whose thoughts are not known, because some models refuse
/// calls without them.
const MISSING_THOUGHTS: &str = "…";

pub(super) fn write_messages(
    request: &ChatRequest,
    traits: &TargetTraits,
    names: &OpenaiToolNames,
    a: &mut ArrayWriter<'_>,
    losses: &mut Losses,
) {
    let mut writer = MessagesWriter {
        request,
        traits,
        names,
        losses,
        results: ResultsByCall::collect(&request.messages),
        has_turns: false,
    };
    writer.write_system(a);
    for (at, message) in request.messages.iter().enumerate() {
        match message.role {
            Role::System => {
                writer.write_message(message, &message.blocks.iter().collect::<Vec<_>>(), a);
            }
            Role::User => writer.write_user(at, message, a),
            Role::Assistant => writer.write_assistant(at, message, a),
        }
    }
    if !writer.has_turns && !request.messages.is_empty() {
        a.object(|o| {
            o.str("role", "user").str("content", UNSAID);
        });
    }
}

/// Stands for a conversation of which nothing can be written, because providers refuse an empty one.
const UNSAID: &str = "Continue.";

struct MessagesWriter<'w> {
    request: &'w ChatRequest,
    traits: &'w TargetTraits,
    names: &'w OpenaiToolNames,
    losses: &'w mut Losses,
    results: ResultsByCall<'w>,
    has_turns: bool,
}

impl<'w> MessagesWriter<'w> {
    fn system_role(&self) -> &'static str {
        if self.traits.developer_role { "developer" } else { "system" }
    }

    /// Writes system messages of this dialect unchanged, and the system prompt of another dialect
    /// as one message.
    fn write_system(&mut self, a: &mut ArrayWriter<'_>) {
        let blocks = &self.request.system;
        let heads = |block: &Block| block.extras.get(DIALECT, "system").is_some();
        let mut from = 0;
        while from < blocks.len() {
            let until =
                blocks[from + 1..].iter().position(heads).map_or(blocks.len(), |n| from + 1 + n);
            let group: Vec<&Block> = blocks[from..until].iter().collect();
            let head = group[0].extras.get(DIALECT, "system");
            let role = self.system_role();
            a.object(|o| {
                o.str("role", role);
                let Some(head) = head else { return write_joined_text(&group, o, self.losses) };
                let rest = head.json().members().filter(|(key, _)| *key != "role");
                rest.for_each(|(key, value)| {
                    o.json(key, value);
                });
                let in_head =
                    |extras: &Extras| extras.iter().all(|(key, _)| head.json().get(key).is_some());
                match group.as_slice() {
                    [Block { kind: BlockKind::Text(text), extras, .. }]
                        if in_head(extras) && extras.get(DIALECT, "cache_control").is_none() =>
                    {
                        o.str("content", &text.text);
                    }
                    _ => parts_write::write_content(
                        &group,
                        head.json().get("cache_control").is_some(),
                        o,
                        self.losses,
                    ),
                }
            });
            from = until;
        }
    }

    /// Writes a message of a user or of the system.
    fn write_message(&mut self, message: &ChatMessage, blocks: &[&Block], a: &mut ArrayWriter<'_>) {
        let role = if message.role == Role::System { self.system_role() } else { "user" };
        self.has_turns = true;
        a.object(|o| {
            o.str("role", role).opt_str("name", message.name.as_deref());
            parts_write::write_content(
                blocks,
                message.extras.get(DIALECT, "cache_control").is_some(),
                o,
                self.losses,
            );
            message.extras.write(DIALECT, o, |key| self.losses.add(format!("messages.{key}")));
        });
    }

    /// Writes a user's message. Results were already written after their calls; results without a
    /// call become text.
    fn write_user(&mut self, at: usize, message: &'w ChatMessage, a: &mut ArrayWriter<'_>) {
        let mut orphans = Vec::new();
        let mut remaining = Vec::with_capacity(message.blocks.len());
        // The results are in the order of their blocks.
        let mut number = self.results.first_from(at);
        for block in &message.blocks {
            match &block.kind {
                BlockKind::ToolResult(result) => {
                    number += 1;
                    if self.results.take(number - 1) {
                        let what = result
                            .name
                            .as_deref()
                            .map_or_else(String::new, |name| format!(" ({name})"));
                        orphans.push(Block::text(format!(
                            "Result of tool call {}{what}: {}",
                            result.call,
                            result_text(result, self.losses)
                        )));
                        orphans
                            .extend(result.content.iter().filter(|block| is_media(block)).cloned());
                    }
                }
                _ => remaining.push(block),
            }
        }
        if !message.blocks.is_empty() && remaining.is_empty() && orphans.is_empty() {
            return;
        }
        if orphans.is_empty()
            && (self.is_blank_item(&remaining)
                || self.losses.add_if_all_foreign(DIALECT, &remaining))
        {
            return;
        }
        self.write_message(message, &orphans.iter().chain(remaining).collect::<Vec<_>>(), a);
    }

    /// Whether this is an item of the Responses API without content, which that API takes.
    fn is_blank_item(&self, blocks: &[&Block]) -> bool {
        self.request.extras.is_from(Dialect::Responses)
            && blocks
                .iter()
                .all(|block| matches!(&block.kind, BlockKind::Text(text) if text.text.is_empty()))
    }

    fn write_assistant(&mut self, at: usize, message: &ChatMessage, a: &mut ArrayWriter<'_>) {
        let blocks = &message.blocks;
        let calls: Vec<&ToolCall> = blocks
            .iter()
            .filter_map(|block| match &block.kind {
                BlockKind::ToolCall(call) => Some(call),
                _ => None,
            })
            .collect();
        let marked = message.extras.get(DIALECT, "cache_control").is_some();
        let mut parts = AssistantParts::default();
        let accepts_reasoning =
            self.traits.accepts_reasoning || self.traits.facts.thoughts_back == Some(true);
        for block in blocks {
            parts.collect(block, marked, accepts_reasoning, self.losses);
        }
        if !blocks.is_empty() && parts.is_empty() && calls.is_empty() && message.extras.is_empty() {
            return;
        }
        // An interrupted turn with nothing but thoughts says nothing that goes on from it.
        if parts.is_thought_only() && calls.is_empty() {
            self.losses.add("reasoning");
            return;
        }
        if self.is_blank_item(&blocks.iter().collect::<Vec<_>>()) {
            return;
        }
        self.has_turns = true;
        a.object(|o| {
            o.str("role", "assistant").opt_str("name", message.name.as_deref());
            match (parts.text.is_empty(), parts.needs_list) {
                (_, true) => {
                    parts_write::write_content(&parts.parts, true, o, &mut Losses::default());
                }
                (true, false) if !calls.is_empty() || !parts.refusal.is_empty() => {
                    o.null("content");
                }
                (_, false) => {
                    o.str("content", &parts.text);
                }
            }
            if !parts.refusal.is_empty() {
                o.str("refusal", &parts.refusal);
            }
            parts.reasoning_fields.iter().for_each(|(key, value)| {
                o.raw(key, value);
            });
            if !parts.reasoning.is_empty() {
                o.str("reasoning_content", &parts.reasoning);
            } else if self.traits.facts.thoughts_back == Some(true)
                && !calls.is_empty()
                && parts.reasoning_fields.iter().all(|(key, _)| *key != "reasoning_content")
            {
                o.str("reasoning_content", MISSING_THOUGHTS);
            }
            o.opt_raw(
                "reasoning_details",
                reasoning::join_details(&parts.reasoning_details).as_ref(),
            );
            o.opt_raw("extra_content", parts_write::extra_content(blocks).as_ref());
            if !calls.is_empty() {
                o.array("tool_calls", |a| {
                    for block in blocks {
                        if let BlockKind::ToolCall(call) = &block.kind {
                            self.write_call(block, call, a);
                        }
                    }
                });
            }
            message.extras.write(DIALECT, o, |key| self.losses.add(format!("messages.{key}")));
        });
        self.write_results(at, &calls, a);
    }

    fn write_call(&mut self, block: &Block, call: &ToolCall, a: &mut ArrayWriter<'_>) {
        let native = |tool: &Tool| matches!(tool, Tool::Custom(tool) if tool.name == call.name && tools_write::is_native(tool));
        a.object(|o| {
            o.str("id", &names::to_valid_id(&call.id));
            if call.form == CallKind::Custom && self.request.tools.iter().any(native) {
                o.str("type", "custom").object("custom", |o| {
                    o.str("name", self.names.sent_name(&call.name)).str("input", &call.arguments);
                });
            } else {
                o.str("type", "function").object("function", |o| {
                    o.str("name", self.names.sent_name(&call.name));
                    match call.form {
                        CallKind::Custom => {
                            o.str("arguments", &custom_arguments(&call.arguments));
                        }
                        CallKind::Function if call.arguments.trim().is_empty() => {
                            o.str("arguments", "{}");
                        }
                        CallKind::Function => {
                            o.str("arguments", &call.arguments);
                        }
                    }
                });
            }
            o.opt_raw(
                "extra_content",
                reasoning::to_extra_content(block.signature.as_ref()).as_ref(),
            );
            block.extras.write(DIALECT, o, |key| self.losses.add(format!("messages.{key}")));
        });
    }

    /// Writes the results of a message's calls, in the order in which they arrived. Their content
    /// other than text follows as a user message.
    fn write_results(&mut self, at: usize, calls: &[&ToolCall], a: &mut ArrayWriter<'_>) {
        let (mut due, mut open) = (Vec::new(), Vec::new());
        for call in calls {
            match self.results.take_after(&call.id, at) {
                Some(number) => due.push(number),
                None => open.push(call.id.as_str()),
            }
        }
        due.sort_unstable();
        let mut shown: Vec<Block> = Vec::new();
        for number in due {
            let found = self.results.get(number);
            let (block, result) = (found.block, found.result);
            self.write_result(block, result, a);
            if result.content.iter().any(is_media) {
                let what =
                    result.name.as_deref().map_or_else(String::new, |name| format!(" ({name})"));
                shown.push(Block::text(format!(
                    "Shown by tool call {}{what}:",
                    names::to_valid_id(&result.call)
                )));
                shown.extend(result.content.iter().filter(|block| is_media(block)).cloned());
            }
        }
        for id in open {
            a.object(|o| {
                o.str("role", "tool")
                    .str("tool_call_id", &names::to_valid_id(id))
                    .str("content", "No result was given for this call.");
            });
        }
        if !shown.is_empty() {
            self.write_message(
                &ChatMessage::new(Role::User, Vec::new()),
                &shown.iter().collect::<Vec<_>>(),
                a,
            );
        }
    }

    fn write_result(&mut self, block: &Block, result: &ToolResult, a: &mut ArrayWriter<'_>) {
        let marked = block.extras.get(DIALECT, "cache_control").is_some();
        parts_write::add_block_losses(block, marked, self.losses);
        a.object(|o| {
            o.str("role", "tool").str("tool_call_id", &names::to_valid_id(&result.call));
            let texts: Vec<&Block> = result
                .content
                .iter()
                .filter(|block| matches!(block.kind, BlockKind::Text(_)))
                .collect();
            if !result.is_error
                && texts.len() == result.content.len()
                && texts.iter().any(|text| parts_write::has_native_fields(&text.extras))
            {
                parts_write::write_content(&texts, marked, o, self.losses);
            } else {
                texts
                    .iter()
                    .for_each(|text| parts_write::add_block_losses(text, marked, self.losses));
                o.str("content", &result_text(result, self.losses));
            }
            block.extras.write(DIALECT, o, |key| self.losses.add(format!("messages.{key}")));
        });
    }
}

fn is_media(block: &Block) -> bool {
    matches!(block.kind, BlockKind::Media(_))
}

/// Returns a result as one text.
fn result_text(result: &ToolResult, losses: &mut Losses) -> String {
    let mut text = String::new();
    for block in &result.content {
        match &block.kind {
            BlockKind::Text(part) => {
                if !text.is_empty() {
                    text.push('\n');
                }
                text.push_str(&part.text);
            }
            BlockKind::Media(_) => {}
            _ => losses.add("messages.tool_result"),
        }
    }
    if text.is_empty() && result.content.iter().any(is_media) {
        text.push_str("The result is shown in the message that follows.");
    }
    if result.is_error && !text.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("error")) {
        text.insert_str(0, "Error: ");
    }
    text
}

/// Writes the texts as one, because many providers do not accept a list here.
fn write_joined_text(blocks: &[&Block], o: &mut ObjectWriter<'_>, losses: &mut Losses) {
    let mut text = String::new();
    for block in blocks {
        parts_write::add_block_losses(block, false, losses);
        match &block.kind {
            BlockKind::Text(part) => {
                if !text.is_empty() {
                    text.push_str("\n\n");
                }
                text.push_str(&part.text);
            }
            _ => losses.add("system.media"),
        }
        block.extras.iter().for_each(|(key, _)| losses.add(format!("system.{key}")));
    }
    o.str("content", &text);
}
