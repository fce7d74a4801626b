//! Writes messages as items, with every result behind its call.

use crate::{
    base::{raw::RawJson, write},
    dialect::{
        Traits,
        losses::Losses,
        responses::{
            items_read::{ITEM, ITEM_FIELD, OWN, PART, SEALED, members},
            names::{Names, call_id},
            parts_write::part,
        },
    },
    ir::{
        block::{Block, BlockKind, CallKind, Reasoning, SignatureKind, ToolCall, ToolResult},
        extras::Extras,
        request::{ChatMessage, ChatRequest, Role},
        tool,
    },
};

/// Said where a call's result is nowhere.
const NO_RESULT: &str = "No result was given for this call.";

/// Items being written.
pub(super) struct Items<'a> {
    /// Each as JSON text.
    pub(super) list: Vec<String>,
    request: &'a ChatRequest,
    names: &'a Names<'a>,
    losses: &'a mut Losses,
    takes_reasoning: bool,
    developer: bool,
    /// Results that were written: message, block.
    answered: Vec<(usize, usize)>,
    /// Whether the conversation is all here, so that a missing half can be told.
    whole: bool,
}

impl<'a> Items<'a> {
    pub(super) fn new(
        request: &'a ChatRequest,
        names: &'a Names<'a>,
        traits: &Traits,
        losses: &'a mut Losses,
    ) -> Self {
        let elsewhere = |block: &Block| matches!(&block.kind, BlockKind::Foreign { dialect: OWN, body } if body.json().get("type").is_some_and(|kind| kind.text() == "\"item_reference\""));
        let whole = request.extras.get(OWN, "conversation").is_none()
            && request.extras.get(OWN, "prompt").is_none()
            && !request.messages.iter().flat_map(|message| &message.blocks).any(elsewhere);
        Self {
            list: Vec::new(),
            request,
            names,
            losses,
            takes_reasoning: traits.takes_reasoning,
            developer: traits.developer_role,
            answered: Vec::new(),
            whole,
        }
    }

    pub(super) fn all(&mut self) {
        let request = self.request;
        let from = request
            .system
            .iter()
            .position(|block| block.extras.get(OWN, ITEM).is_some())
            .unwrap_or(request.system.len());
        self.runs(Role::System, &request.system[from..]);
        for (message, at) in request.messages.iter().zip(0..) {
            self.message(message, at);
        }
    }

    fn message(&mut self, message: &ChatMessage, at: usize) {
        if message.name.is_some() {
            self.losses.add("messages.name");
        }
        if !message.extras.is_from(OWN) {
            for (key, _) in message.extras.iter() {
                self.losses.add(format!("messages.{key}"));
            }
        }
        if message.blocks.is_empty() && message.extras.get(OWN, ITEM).is_some() {
            self.list.push(self.said(message.role, &message.extras, &[], false));
        }
        let mut from = 0;
        for (block, n) in message.blocks.iter().zip(0..) {
            let speech = matches!(
                block.kind,
                BlockKind::Text(_) | BlockKind::Media(_) | BlockKind::Refusal(_)
            ) || block.extras.get(OWN, PART).is_some();
            if speech {
                continue;
            }
            self.runs(message.role, &message.blocks[from..n]);
            from = n + 1;
            match &block.kind {
                BlockKind::ToolCall(call) => self.call(call, block),
                BlockKind::ToolResult(result) => self.late(result, block, at, n),
                BlockKind::Reasoning(thought) => self.reasoning(thought, block),
                BlockKind::Foreign { dialect: OWN, body } => self.list.push(body.text().to_owned()),
                BlockKind::Foreign { body, .. } => {
                    let json = body.json();
                    let kind = json.get("type").and_then(|kind| Some(kind.str()?.into_owned()));
                    let kind =
                        kind.or_else(|| json.members().next().map(|(key, _)| key.to_owned()));
                    self.losses.add(format!("messages.{}", kind.as_deref().unwrap_or("foreign")));
                }
                BlockKind::Text(_) | BlockKind::Media(_) | BlockKind::Refusal(_) => {}
            }
        }
        self.runs(message.role, &message.blocks[from..]);
        self.results(message, at);
    }

    /// Messages that stand one after the other.
    fn runs(&mut self, role: Role, mut blocks: &[Block]) {
        while !blocks.is_empty() {
            let next = blocks
                .iter()
                .skip(1)
                .position(|block| block.extras.get(OWN, ITEM).is_some())
                .map_or(blocks.len(), |at| at + 1);
            let (run, rest) = blocks.split_at(next);
            self.run(role, run);
            blocks = rest;
        }
    }

    fn run(&mut self, role: Role, blocks: &[Block]) {
        let extras = &blocks[0].extras;
        let own = extras.get(OWN, ITEM).is_some();
        let mut parts: Vec<String> = Vec::new();
        for block in blocks {
            // Other APIs do not mind empty texts, or make some themselves.
            if !own && matches!(&block.kind, BlockKind::Text(text) if text.text.is_empty()) {
                continue;
            }
            parts.extend(part(role, block, self.losses));
        }
        let plain = match blocks {
            [Block { kind: BlockKind::Text(text), extras, .. }]
                if text.citations.is_empty()
                    && extras
                        .iter()
                        .all(|(key, _)| key.starts_with(ITEM_FIELD) || !extras.is_from(OWN)) =>
            {
                Some(text)
            }
            _ => None,
        };
        // What an API has said comes back in parts; what was only written as if is plain.
        let plain = plain
            .filter(|_| extras.get(OWN, ITEM).is_none_or(|item| item.json().get("id").is_none()));
        if let (Some(text), false) = (plain, parts.is_empty()) {
            parts = vec![quoted(&text.text)];
            let item = self.said(role, extras, &parts, true);
            self.list.push(item);
        } else if !parts.is_empty() || own {
            let item = self.said(role, extras, &parts, false);
            self.list.push(item);
        }
    }

    fn said(&self, role: Role, extras: &Extras, content: &[String], plain: bool) -> String {
        write::object(|o| {
            let item = extras.get(OWN, ITEM);
            match item {
                Some(item) => members(o, item, &["role"]),
                None => {
                    o.str("type", "message");
                }
            }
            let told = item.and_then(|item| Some(item.json().get("role")?.str()?.into_owned()));
            let role = match role {
                Role::Assistant => "assistant",
                Role::User => "user",
                Role::System if self.developer => "developer",
                Role::System => "system",
            };
            o.str("role", told.as_deref().unwrap_or(role));
            item_fields(o, extras);
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

    fn call(&mut self, call: &ToolCall, block: &Block) {
        self.lose(block);
        let custom = call.form == CallKind::Custom || self.names.is_custom(&call.name);
        let item = write::object(|o| {
            o.str("type", if custom { "custom_tool_call" } else { "function_call" });
            let item = block.extras.get(OWN, ITEM);
            if let Some(item) = item {
                members(o, item, &["type", "namespace"]);
            }
            o.str("call_id", &call_id(&call.id)).str("name", self.names.sent(&call.name));
            match (self.names.space(&call.name), item.and_then(|item| item.json().get("namespace")))
            {
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
            item_fields(o, &block.extras);
        });
        self.list.push(item);
    }

    /// The results of an assistant's calls, in the order in which they were given.
    fn results(&mut self, message: &ChatMessage, at: usize) {
        let request = self.request;
        let mut found: Vec<(usize, usize, &Block, &ToolResult, bool)> = Vec::new();
        let mut open: Vec<&ToolCall> = Vec::new();
        for block in &message.blocks {
            let BlockKind::ToolCall(call) = &block.kind else { continue };
            let custom = call.form == CallKind::Custom || self.names.is_custom(&call.name);
            let later =
                request.messages.iter().enumerate().skip(at + 1).flat_map(|(m, message)| {
                    message.blocks.iter().enumerate().map(move |(n, block)| (m, n, block))
                });
            let result = later.into_iter().find_map(|(m, n, block)| match &block.kind {
                BlockKind::ToolResult(result)
                    if result.call == call.id && !self.answered.contains(&(m, n)) =>
                {
                    Some((m, n, block, result, custom))
                }
                _ => None,
            });
            match result {
                Some(result) => {
                    self.answered.push((result.0, result.1));
                    found.push(result);
                }
                None => open.push(call),
            }
        }
        found.sort_by_key(|(m, n, ..)| (*m, *n));
        for (_, _, block, result, custom) in found {
            self.result(result, block, custom);
        }
        for call in open.into_iter().filter(|_| self.whole) {
            let custom = call.form == CallKind::Custom || self.names.is_custom(&call.name);
            self.list.push(write::object(|o| {
                o.str(
                    "type",
                    if custom { "custom_tool_call_output" } else { "function_call_output" },
                );
                o.str("call_id", &call_id(&call.id)).str("output", NO_RESULT);
            }));
        }
    }

    fn result(&mut self, result: &ToolResult, block: &Block, custom: bool) {
        self.lose(block);
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
            result.content.iter().filter_map(|block| part(Role::User, block, self.losses)).collect()
        };
        self.list.push(write::object(|o| {
            o.str("type", if custom { "custom_tool_call_output" } else { "function_call_output" });
            if let Some(item) = block.extras.get(OWN, ITEM) {
                members(o, item, &["type"]);
            }
            o.str("call_id", &call_id(&result.call));
            match plain {
                Some(text) => o.str("output", text),
                None => o.array("output", |a| {
                    for part in &parts {
                        a.raw_text(part);
                    }
                }),
            };
            item_fields(o, &block.extras);
        }));
    }

    /// A result where it stands: said already behind its call, or without a call and so only text.
    fn late(&mut self, result: &ToolResult, block: &Block, at: usize, n: usize) {
        if self.answered.contains(&(at, n)) {
            return;
        }
        if !self.whole {
            return self.result(result, block, result.form == CallKind::Custom);
        }
        let head = quoted(&format!("Result of the tool call {}:", result.call));
        let mut parts = vec![format!(r#"{{"type":"input_text","text":{head}}}"#)];
        for block in &result.content {
            parts.extend(part(Role::User, block, self.losses));
        }
        let item = self.said(Role::User, &Extras::default(), &parts, false);
        self.list.push(item);
    }

    fn reasoning(&mut self, thought: &Reasoning, block: &Block) {
        let mine = block
            .signature
            .as_ref()
            .filter(|proof| proof.dialect == OWN && proof.kind == SignatureKind::Encrypted);
        let kept = block.extras.get(OWN, if mine.is_some() { SEALED } else { ITEM });
        if let Some(kept) = kept {
            self.list.push(write::object(|o| {
                members(o, kept, &[]);
                o.opt_str("encrypted_content", mine.map(|proof| proof.value.as_str()));
            }));
        } else if let Some(proof) = mine {
            self.list.push(write::object(|o| {
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
            self.list.push(write::object(|o| {
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

    /// Names what stands at a whole block and has no place.
    fn lose(&mut self, block: &Block) {
        if block.cache.is_some() {
            self.losses.add("messages.cache_control");
        }
        if block.signature.is_some() {
            self.losses.add("reasoning.proof");
        }
        if !block.extras.is_from(OWN) {
            for (key, _) in block.extras.iter() {
                self.losses.add(format!("messages.{key}"));
            }
        }
    }
}

fn item_fields(o: &mut write::ObjectWriter<'_>, extras: &Extras) {
    if extras.is_from(OWN) {
        for (key, value) in
            extras.iter().filter_map(|(key, value)| Some((key.strip_prefix(ITEM_FIELD)?, value)))
        {
            o.raw(key, value);
        }
    }
}

fn quoted(text: &str) -> String {
    RawJson::string(text).text().to_owned()
}
