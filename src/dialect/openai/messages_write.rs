//! Writes a conversation so that every call is followed by its result, whatever the order it came
//! in.

use crate::{
    base::{
        raw::RawJson,
        write::{ArrayWriter, ObjectWriter},
    },
    dialect::{
        Traits,
        losses::Losses,
        openai::{names, names::Names, parts_write, reasoning, tools_write},
    },
    ir::{
        block::{Block, BlockKind, CallKind, ToolCall, ToolResult},
        extras::Extras,
        op::Dialect,
        request::{ChatMessage, ChatRequest, Role},
        tool::{Tool, custom_arguments},
    },
};

const OWN: Dialect = Dialect::Openai;

pub(super) fn write(
    request: &ChatRequest,
    traits: &Traits,
    names: &Names,
    a: &mut ArrayWriter<'_>,
    losses: &mut Losses,
) {
    let mut writer = Writer { request, traits, names, losses, results: results(&request.messages) };
    writer.system(a);
    for (at, message) in request.messages.iter().enumerate() {
        match message.role {
            Role::System => writer.told(message, &message.blocks.iter().collect::<Vec<_>>(), a),
            Role::User => writer.user(message, a),
            Role::Assistant => writer.assistant(at, message, a),
        }
    }
}

struct Writer<'w> {
    request: &'w ChatRequest,
    traits: &'w Traits,
    names: &'w Names,
    losses: &'w mut Losses,
    results: Vec<Found<'w>>,
}

/// A result, the message it stands in, and whether it has been written.
struct Found<'w> {
    at: usize,
    block: &'w Block,
    result: &'w ToolResult,
    written: bool,
}

fn results(messages: &[ChatMessage]) -> Vec<Found<'_>> {
    let all = messages
        .iter()
        .enumerate()
        .flat_map(|(at, message)| message.blocks.iter().map(move |block| (at, block)));
    all.filter_map(|(at, block)| match &block.kind {
        BlockKind::ToolResult(result) => Some(Found { at, block, result, written: false }),
        _ => None,
    })
    .collect()
}

impl<'w> Writer<'w> {
    fn system_role(&self) -> &'static str {
        if self.traits.developer_role { "developer" } else { "system" }
    }

    /// Messages of this dialect come back as they were; what others say before the conversation is
    /// one message.
    fn system(&mut self, a: &mut ArrayWriter<'_>) {
        let blocks = &self.request.system;
        let heads = |block: &Block| block.extras.get(OWN, "system").is_some();
        let mut from = 0;
        while from < blocks.len() {
            let until =
                blocks[from + 1..].iter().position(heads).map_or(blocks.len(), |n| from + 1 + n);
            let group: Vec<&Block> = blocks[from..until].iter().collect();
            let head = group[0].extras.get(OWN, "system");
            let role = self.system_role();
            a.object(|o| {
                o.str("role", role);
                let Some(head) = head else { return joined(&group, o, self.losses) };
                let rest = head.json().members().filter(|(key, _)| *key != "role");
                rest.for_each(|(key, value)| {
                    o.json(key, value);
                });
                let beside =
                    |extras: &Extras| extras.iter().all(|(key, _)| head.json().get(key).is_some());
                match group.as_slice() {
                    [Block { kind: BlockKind::Text(text), extras, .. }]
                        if beside(extras) && extras.get(OWN, "cache_control").is_none() =>
                    {
                        o.str("content", &text.text);
                    }
                    _ => parts_write::content(
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

    /// A message of a user or of the system, as it stands.
    fn told(&mut self, message: &ChatMessage, blocks: &[&Block], a: &mut ArrayWriter<'_>) {
        let role = if message.role == Role::System { self.system_role() } else { "user" };
        a.object(|o| {
            o.str("role", role).opt_str("name", message.name.as_deref());
            parts_write::content(
                blocks,
                message.extras.get(OWN, "cache_control").is_some(),
                o,
                self.losses,
            );
            message.extras.write(OWN, o, |key| self.losses.add(format!("messages.{key}")));
        });
    }

    /// Results have been written after their calls; those of no call are told as text.
    fn user(&mut self, message: &'w ChatMessage, a: &mut ArrayWriter<'_>) {
        let mut orphans = Vec::new();
        let mut own = Vec::with_capacity(message.blocks.len());
        for block in &message.blocks {
            match &block.kind {
                BlockKind::ToolResult(result) => {
                    let found = self
                        .results
                        .iter_mut()
                        .find(|found| std::ptr::eq(found.block, block))
                        .filter(|found| !found.written);
                    if let Some(found) = found {
                        found.written = true;
                        let what = result
                            .name
                            .as_deref()
                            .map_or_else(String::new, |name| format!(" ({name})"));
                        orphans.push(Block::text(format!(
                            "Result of tool call {}{what}: {}",
                            result.call,
                            words(result, self.losses)
                        )));
                        orphans
                            .extend(result.content.iter().filter(|block| is_media(block)).cloned());
                    }
                }
                _ => own.push(block),
            }
        }
        if !message.blocks.is_empty() && own.is_empty() && orphans.is_empty() {
            return;
        }
        self.told(message, &orphans.iter().chain(own).collect::<Vec<_>>(), a);
    }

    fn assistant(&mut self, at: usize, message: &ChatMessage, a: &mut ArrayWriter<'_>) {
        let blocks = &message.blocks;
        let calls: Vec<&ToolCall> = blocks
            .iter()
            .filter_map(|block| match &block.kind {
                BlockKind::ToolCall(call) => Some(call),
                _ => None,
            })
            .collect();
        let marked = message.extras.get(OWN, "cache_control").is_some();
        let mut said = Said::default();
        for block in blocks {
            self.said(block, marked, &mut said);
        }
        if !blocks.is_empty() && said.is_empty() && calls.is_empty() && message.extras.is_empty() {
            return;
        }
        a.object(|o| {
            o.str("role", "assistant").opt_str("name", message.name.as_deref());
            match (said.text.is_empty(), said.as_parts) {
                (_, true) => parts_write::content(&said.parts, true, o, &mut Losses::default()),
                (true, false) if !calls.is_empty() || !said.refusal.is_empty() => {
                    o.null("content");
                }
                (_, false) => {
                    o.str("content", &said.text);
                }
            }
            if !said.refusal.is_empty() {
                o.str("refusal", &said.refusal);
            }
            said.spelled.iter().for_each(|(key, value)| {
                o.raw(key, value);
            });
            if !said.thought.is_empty() {
                o.str("reasoning_content", &said.thought);
            }
            o.opt_raw("reasoning_details", reasoning::joined(&said.details).as_ref());
            o.opt_raw("extra_content", parts_write::extra_content(blocks).as_ref());
            if !calls.is_empty() {
                o.array("tool_calls", |a| {
                    for block in blocks {
                        if let BlockKind::ToolCall(call) = &block.kind {
                            self.call(block, call, a);
                        }
                    }
                });
            }
            message.extras.write(OWN, o, |key| self.losses.add(format!("messages.{key}")));
        });
        self.answers(at, &calls, a);
    }

    /// What a block adds to an assistant's message; calls are written by themselves.
    fn said<'b>(&mut self, block: &'b Block, marked: bool, said: &mut Said<'b>) {
        match &block.kind {
            BlockKind::Text(text) => {
                parts_write::beside(block, marked, self.losses);
                said.text.push_str(&text.text);
                said.parts.push(block);
                said.as_parts |= parts_write::ours(&block.extras);
                parts_write::foreign(&block.extras, self.losses);
            }
            BlockKind::Refusal(words) => said.refusal.push_str(words),
            BlockKind::Reasoning(thought) => {
                if block.extras.get(OWN, "thinking").is_some() {
                    said.parts.push(block);
                    said.as_parts = true;
                    return;
                }
                let foreign = block.signature.as_ref().is_some_and(|proof| proof.dialect != OWN);
                let details = reasoning::as_details(block.signature.as_ref());
                let fields = reasoning::FIELDS.iter().chain(&["reasoning_details"]);
                let spelled: Vec<_> =
                    fields.filter_map(|key| Some((*key, block.extras.get(OWN, key)?))).collect();
                let within = details
                    .as_ref()
                    .is_some_and(|details| !reasoning::words(details.json()).is_empty());
                if spelled.is_empty() && !within && !thought.text.is_empty() {
                    match (self.traits.takes_reasoning, foreign) {
                        (true, _) => said.thought.push_str(&thought.text),
                        (false, true) => self.losses.add("reasoning.proof"),
                        (false, false) => self.losses.add("reasoning"),
                    }
                } else if foreign && thought.text.is_empty() {
                    self.losses.add("reasoning.proof");
                }
                for (key, value) in spelled {
                    if said.spelled.iter().all(|(known, _)| *known != key) {
                        said.spelled.push((key, value.clone()));
                    }
                }
                said.details.extend(details);
            }
            BlockKind::Foreign { dialect: Dialect::Openai, .. } => {
                said.parts.push(block);
                said.as_parts = true;
            }
            BlockKind::Foreign { .. } => self.losses.add("messages.server_tools"),
            // An assistant's messages hold nothing but text.
            BlockKind::Media(_) => self.losses.add("messages.assistant_media"),
            BlockKind::ToolResult(_) => {}
            BlockKind::ToolCall(_) => parts_write::beside(block, marked, self.losses),
        }
    }

    fn call(&mut self, block: &Block, call: &ToolCall, a: &mut ArrayWriter<'_>) {
        let native = |tool: &Tool| matches!(tool, Tool::Custom(tool) if tool.name == call.name && tools_write::native(tool));
        a.object(|o| {
            o.str("id", &names::id(&call.id));
            if call.form == CallKind::Custom && self.request.tools.iter().any(native) {
                o.str("type", "custom").object("custom", |o| {
                    o.str("name", self.names.sent(&call.name)).str("input", &call.arguments);
                });
            } else {
                o.str("type", "function").object("function", |o| {
                    o.str("name", self.names.sent(&call.name));
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
            o.opt_raw("extra_content", reasoning::as_beside(block.signature.as_ref()).as_ref());
            block.extras.write(OWN, o, |key| self.losses.add(format!("messages.{key}")));
        });
    }

    /// The results of a message's calls, in the order in which they came; what they show besides
    /// text follows as the user's.
    fn answers(&mut self, at: usize, calls: &[&ToolCall], a: &mut ArrayWriter<'_>) {
        let mut open: Vec<&str> = calls.iter().map(|call| call.id.as_str()).collect();
        let mut shown: Vec<Block> = Vec::new();
        for n in 0..self.results.len() {
            let found = &mut self.results[n];
            let Some(call) = open
                .iter()
                .position(|id| *id == found.result.call)
                .filter(|_| !found.written && found.at > at)
            else {
                continue;
            };
            open.remove(call);
            found.written = true;
            let (block, result) = (found.block, found.result);
            self.answer(block, result, a);
            if result.content.iter().any(is_media) {
                let what =
                    result.name.as_deref().map_or_else(String::new, |name| format!(" ({name})"));
                shown.push(Block::text(format!(
                    "Shown by tool call {}{what}:",
                    names::id(&result.call)
                )));
                shown.extend(result.content.iter().filter(|block| is_media(block)).cloned());
            }
        }
        for id in open {
            a.object(|o| {
                o.str("role", "tool")
                    .str("tool_call_id", &names::id(id))
                    .str("content", "No result was given for this call.");
            });
        }
        if !shown.is_empty() {
            self.told(
                &ChatMessage::new(Role::User, Vec::new()),
                &shown.iter().collect::<Vec<_>>(),
                a,
            );
        }
    }

    fn answer(&mut self, block: &Block, result: &ToolResult, a: &mut ArrayWriter<'_>) {
        let marked = block.extras.get(OWN, "cache_control").is_some();
        parts_write::beside(block, marked, self.losses);
        a.object(|o| {
            o.str("role", "tool").str("tool_call_id", &names::id(&result.call));
            let texts: Vec<&Block> = result
                .content
                .iter()
                .filter(|block| matches!(block.kind, BlockKind::Text(_)))
                .collect();
            if !result.is_error
                && texts.len() == result.content.len()
                && texts.iter().any(|text| parts_write::ours(&text.extras))
            {
                parts_write::content(&texts, marked, o, self.losses);
            } else {
                texts.iter().for_each(|text| parts_write::beside(text, marked, self.losses));
                o.str("content", &words(result, self.losses));
            }
            block.extras.write(OWN, o, |key| self.losses.add(format!("messages.{key}")));
        });
    }
}

/// An assistant's message as it comes together.
#[derive(Default)]
struct Said<'b> {
    text: String,
    refusal: String,
    thought: String,
    details: Vec<RawJson>,
    /// Reasoning in the spelling it came in.
    spelled: Vec<(&'static str, RawJson)>,
    parts: Vec<&'b Block>,
    /// Whether the content must be a list.
    as_parts: bool,
}

impl Said<'_> {
    fn is_empty(&self) -> bool {
        self.text.is_empty()
            && self.refusal.is_empty()
            && self.thought.is_empty()
            && self.details.is_empty()
            && self.spelled.is_empty()
            && self.parts.is_empty()
    }
}

fn is_media(block: &Block) -> bool {
    matches!(block.kind, BlockKind::Media(_))
}

/// A result as one text.
fn words(result: &ToolResult, losses: &mut Losses) -> String {
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

/// The texts as one: many providers take no list here.
fn joined(blocks: &[&Block], o: &mut ObjectWriter<'_>, losses: &mut Losses) {
    let mut text = String::new();
    for block in blocks {
        parts_write::beside(block, false, losses);
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
