//! Collects the fields of an assistant's message, block by block.

use crate::{
    base::json::raw::RawJson,
    dialect::{
        losses::Losses,
        openai::{parts_write, reasoning},
    },
    ir::{
        block::{Block, BlockKind},
        op::Dialect,
    },
};

const DIALECT: Dialect = Dialect::Openai;

/// The fields of an assistant's message, collected block by block.
#[derive(Default)]
pub(super) struct AssistantParts<'b> {
    pub(super) text: String,
    pub(super) refusal: String,
    pub(super) reasoning: String,
    pub(super) reasoning_details: Vec<RawJson>,
    /// Reasoning in its original fields.
    pub(super) reasoning_fields: Vec<(&'static str, RawJson)>,
    pub(super) parts: Vec<&'b Block>,
    /// Whether the content must be a list.
    pub(super) needs_list: bool,
}

impl<'b> AssistantParts<'b> {
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
            && self.refusal.is_empty()
            && self.reasoning.is_empty()
            && self.reasoning_details.is_empty()
            && self.reasoning_fields.is_empty()
            && self.parts.is_empty()
    }

    /// Whether there are only thoughts, and not in fields of this dialect.
    pub(super) fn is_thought_only(&self) -> bool {
        !self.reasoning.is_empty()
            && self.text.is_empty()
            && self.refusal.is_empty()
            && self.reasoning_details.is_empty()
            && self.reasoning_fields.is_empty()
            && self.parts.is_empty()
    }

    /// Adds a block; calls are written separately. `marked`: the message itself has the
    /// mark of a cache breakpoint.
    pub(super) fn collect(
        &mut self,
        block: &'b Block,
        marked: bool,
        accepts_reasoning: bool,
        losses: &mut Losses,
    ) {
        match &block.kind {
            BlockKind::Text(text) => {
                parts_write::add_block_losses(block, marked, losses);
                self.text.push_str(&text.text);
                self.parts.push(block);
                self.needs_list |= parts_write::has_native_fields(&block.extras);
                parts_write::add_foreign_losses(&block.extras, losses);
            }
            BlockKind::Refusal(words) => self.refusal.push_str(words),
            BlockKind::Reasoning(thought) => {
                if block.extras.get(DIALECT, "thinking").is_some() {
                    self.parts.push(block);
                    self.needs_list = true;
                    return;
                }
                let foreign =
                    block.signature.as_ref().is_some_and(|proof| proof.dialect != DIALECT);
                let details = reasoning::to_details(block.signature.as_ref());
                let fields = reasoning::TEXT_FIELDS.iter().chain(&["reasoning_details"]);
                let spelled: Vec<_> = fields
                    .filter_map(|key| Some((*key, block.extras.get(DIALECT, key)?)))
                    .collect();
                let within = details
                    .as_ref()
                    .is_some_and(|details| !reasoning::details_text(details.json()).is_empty());
                if spelled.is_empty() && !within && !thought.text.is_empty() {
                    match (accepts_reasoning, foreign) {
                        (true, _) => self.reasoning.push_str(&thought.text),
                        (false, true) => losses.add("reasoning.proof"),
                        (false, false) => losses.add("reasoning"),
                    }
                } else if foreign && thought.text.is_empty() {
                    losses.add("reasoning.proof");
                }
                for (key, value) in spelled {
                    if self.reasoning_fields.iter().all(|(known, _)| *known != key) {
                        self.reasoning_fields.push((key, value.clone()));
                    }
                }
                self.reasoning_details.extend(details);
            }
            BlockKind::Foreign { dialect: Dialect::Openai, .. } => {
                self.parts.push(block);
                self.needs_list = true;
            }
            BlockKind::Foreign { .. } => losses.add("messages.server_tools"),
            // An assistant's message can contain only text.
            BlockKind::Media(_) => losses.add("messages.assistant_media"),
            BlockKind::ToolResult(_) => {}
            BlockKind::ToolCall(_) => parts_write::add_block_losses(block, marked, losses),
        }
    }
}
