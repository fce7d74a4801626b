//! Turns the content blocks of a streamed message into blocks of the common form.

use serde_json::{Map, Value};

use std::collections::BTreeMap;

use crate::{
    base::json::{raw::RawJson, reader::JsonRef},
    dialect::{
        answer_call_ids::AnswerCallIds, anthropic::blocks_read, egress::AttemptContext, json_body,
    },
    ir::{
        block::{CallKind, ReasoningSignature, SignatureKind},
        event::{BlockStart, ChatEvent},
        op::Dialect,
    },
};

const DIALECT: Dialect = Dialect::Anthropic;

/// The blocks of a message so far.
pub(super) struct StreamedBlocks {
    context: AttemptContext,
    call_ids: AnswerCallIds,
    /// The number of the next emitted block.
    next_block: u32,
    /// The open blocks by the upstream's numbers.
    open_blocks: BTreeMap<u64, BlockState>,
}

/// A block that is not finished.
enum BlockState {
    /// A tool call. `input` comes from the block's start; it is used if no argument delta follows.
    Call {
        block: u32,
        input: String,
        has_delta: bool,
    },
    /// A foreign block, emitted once it is complete: its body, and the pieces of its `input`.
    Foreign {
        body: Map<String, Value>,
        raw: RawJson,
        input: String,
        has_delta: bool,
    },
    /// A text block, opened when its first text arrives.
    Text {
        block: Option<u32>,
    },
    Thought {
        block: Option<u32>,
        signature: String,
    },
}

impl StreamedBlocks {
    pub(super) fn new(context: &AttemptContext) -> Self {
        Self {
            context: context.clone(),
            call_ids: AnswerCallIds::new(&context.call_id_seed),
            next_block: 0,
            open_blocks: BTreeMap::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.next_block == 0 && self.open_blocks.is_empty()
    }

    pub(super) fn has_calls(&self) -> bool {
        self.call_ids.count() > 0
    }

    /// Returns the upstream's number of the block that was opened last.
    pub(super) fn last_index(&self) -> Option<u64> {
        self.open_blocks.last_key_value().map(|(index, _)| *index)
    }

    pub(super) fn start_block(&mut self, index: u64, block: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        // If a number repeats, the stop of the first block was lost.
        self.stop_block(index, out);
        let text = |key: &str| block.get(key).and_then(JsonRef::str).unwrap_or_default();
        let what = match &*text("type") {
            "text" => BlockState::Text { block: None },
            "thinking" => {
                BlockState::Thought { block: None, signature: text("signature").into_owned() }
            }
            "redacted_thinking" => {
                let proof = ReasoningSignature {
                    dialect: DIALECT,
                    kind: SignatureKind::Redacted,
                    value: text("data").into_owned(),
                    id: None,
                };
                let number =
                    open_block(&mut self.next_block, BlockStart::Reasoning { summary: false }, out);
                out.push(ChatEvent::Signature { block: number, signature: proof });
                out.push(ChatEvent::Close { block: number });
                return;
            }
            "tool_use" => {
                let id = self.call_ids.assign(Some(&text("id")));
                let name = self.context.client_tool_name(&text("name")).to_owned();
                let number = open_block(
                    &mut self.next_block,
                    BlockStart::ToolCall { id, name, form: CallKind::Function },
                    out,
                );
                let input = block.get("input").filter(|input| !input.is_blank());
                BlockState::Call {
                    block: number,
                    input: blocks_read::read_arguments(input),
                    has_delta: false,
                }
            }
            _ => {
                let body = match serde_json::from_str(block.text()) {
                    Ok(Value::Object(body)) => body,
                    _ => Map::new(),
                };
                BlockState::Foreign {
                    body,
                    raw: RawJson::from_json(block),
                    input: String::new(),
                    has_delta: false,
                }
            }
        };
        self.open_blocks.insert(index, what);
        match &*text("type") {
            "text" => {
                self.apply_delta(index, BlockDelta::Text(&text("text")), out);
                for citation in block.get("citations").into_iter().flat_map(JsonRef::items) {
                    self.apply_delta(index, BlockDelta::Citation(citation), out);
                }
            }
            "thinking" => self.apply_delta(index, BlockDelta::Thought(&text("thinking")), out),
            _ => {}
        }
    }

    pub(super) fn read_delta(&mut self, index: u64, delta: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        if matches!(self.open_blocks.get(&index), Some(BlockState::Foreign { .. })) {
            return self.apply_delta(index, BlockDelta::Foreign(delta), out);
        }
        for (key, value) in delta.members() {
            match (key, value.str()) {
                ("text", Some(text)) => self.apply_delta(index, BlockDelta::Text(&text), out),
                ("thinking", Some(text)) => {
                    self.apply_delta(index, BlockDelta::Thought(&text), out);
                }
                ("partial_json", Some(text)) => {
                    self.apply_delta(index, BlockDelta::Arguments(&text), out);
                }
                ("partial_json", None) if value.is_object() => {
                    self.apply_delta(index, BlockDelta::Arguments(value.text()), out);
                }
                ("signature", Some(text)) => {
                    self.apply_delta(index, BlockDelta::Signature(&text), out);
                }
                ("citation", None) if value.is_object() => {
                    self.apply_delta(index, BlockDelta::Citation(value), out);
                }
                _ => {}
            }
        }
    }

    fn apply_delta(&mut self, index: u64, block_delta: BlockDelta<'_>, out: &mut Vec<ChatEvent>) {
        if matches!(
            block_delta,
            BlockDelta::Text("") | BlockDelta::Thought("") | BlockDelta::Arguments("")
        ) {
            return;
        }
        // The block was not opened, or it was opened as another kind.
        if !self.open_blocks.get(&index).is_some_and(|state| block_delta.fits(state)) {
            let what = match block_delta {
                BlockDelta::Text(_) | BlockDelta::Citation(_) => BlockState::Text { block: None },
                BlockDelta::Thought(_) | BlockDelta::Signature(_) => {
                    BlockState::Thought { block: None, signature: String::new() }
                }
                BlockDelta::Arguments(_) | BlockDelta::Foreign(_) => return,
            };
            self.stop_block(index, out);
            self.open_blocks.insert(index, what);
        }
        let next = &mut self.next_block;
        let Some(state) = self.open_blocks.get_mut(&index) else { return };
        match (state, block_delta) {
            (BlockState::Text { block }, BlockDelta::Text(text)) => {
                let block = *block.get_or_insert_with(|| open_block(next, BlockStart::Text, out));
                out.push(ChatEvent::Delta { block, text: text.to_owned() });
            }
            (BlockState::Text { block }, BlockDelta::Citation(citation)) => {
                let block = *block.get_or_insert_with(|| open_block(next, BlockStart::Text, out));
                out.push(ChatEvent::Citation {
                    block,
                    citation: blocks_read::read_citation(citation),
                });
            }
            (BlockState::Thought { block, .. }, BlockDelta::Thought(text)) => {
                let block = *block.get_or_insert_with(|| {
                    open_block(next, BlockStart::Reasoning { summary: false }, out)
                });
                out.push(ChatEvent::Delta { block, text: text.to_owned() });
            }
            (BlockState::Thought { signature, .. }, BlockDelta::Signature(more)) => {
                signature.push_str(more);
            }
            (BlockState::Call { block, has_delta: grown, .. }, BlockDelta::Arguments(text)) => {
                *grown = true;
                out.push(ChatEvent::Delta { block: *block, text: text.to_owned() });
            }
            (
                BlockState::Foreign { body, input, has_delta: grown, .. },
                BlockDelta::Foreign(delta),
            ) => {
                *grown = true;
                merge_foreign_delta(body, input, delta);
            }
            _ => {}
        }
    }

    /// Finishes the block and emits what was buffered.
    pub(super) fn stop_block(&mut self, index: u64, out: &mut Vec<ChatEvent>) {
        if let Some(state) = self.open_blocks.remove(&index) {
            self.close_block(state, out);
        }
    }

    fn close_block(&mut self, state: BlockState, out: &mut Vec<ChatEvent>) {
        let block = match state {
            BlockState::Text { block } => block,
            BlockState::Thought { block, signature } => {
                let proof = blocks_read::read_signature(&signature);
                let block = if proof.is_some() && block.is_none() {
                    Some(open_block(
                        &mut self.next_block,
                        BlockStart::Reasoning { summary: false },
                        out,
                    ))
                } else {
                    block
                };
                if let (Some(block), Some(proof)) = (block, proof) {
                    out.push(ChatEvent::Signature { block, signature: proof });
                }
                block
            }
            BlockState::Call { block, input, has_delta: grown } => {
                if !grown && !input.is_empty() {
                    out.push(ChatEvent::Delta { block, text: input });
                }
                Some(block)
            }
            BlockState::Foreign { mut body, mut raw, input, has_delta: grown } => {
                if grown {
                    if !input.is_empty() {
                        body.insert(
                            "input".to_owned(),
                            serde_json::from_str(&input).unwrap_or(Value::String(input)),
                        );
                    }
                    raw = RawJson::from(&Value::Object(body));
                }
                Some(open_block(
                    &mut self.next_block,
                    BlockStart::Foreign { dialect: DIALECT, body: raw },
                    out,
                ))
            }
        };
        out.extend(block.map(|block| ChatEvent::Close { block }));
    }

    pub(super) fn close_all(&mut self, out: &mut Vec<ChatEvent>) {
        for state in std::mem::take(&mut self.open_blocks).into_values() {
            self.close_block(state, out);
        }
    }
}

/// An addition to a block.
#[derive(Clone, Copy)]
enum BlockDelta<'a> {
    Arguments(&'a str),
    Citation(JsonRef<'a>),
    /// A delta of a foreign block.
    Foreign(JsonRef<'a>),
    Signature(&'a str),
    Text(&'a str),
    Thought(&'a str),
}

impl BlockDelta<'_> {
    fn fits(self, state: &BlockState) -> bool {
        matches!(
            (state, self),
            (BlockState::Call { .. }, Self::Arguments(_))
                | (BlockState::Foreign { .. }, Self::Foreign(_))
                | (BlockState::Text { .. }, Self::Text(_) | Self::Citation(_))
                | (BlockState::Thought { .. }, Self::Thought(_) | Self::Signature(_))
        )
    }
}

fn open_block(next: &mut u32, head: BlockStart, out: &mut Vec<ChatEvent>) -> u32 {
    let block = *next;
    *next += 1;
    out.push(ChatEvent::Open { block, head });
    block
}

/// Merges a delta into a foreign block. Texts and lists of citations grow; every other member is
/// replaced.
fn merge_foreign_delta(body: &mut Map<String, Value>, input: &mut String, delta: JsonRef<'_>) {
    for (key, value) in delta.members() {
        match (key, value.str()) {
            ("type", _) => {}
            ("partial_json", Some(text)) => input.push_str(&text),
            (_, Some(text)) => {
                json_body::append_text(body.entry(key).or_insert(Value::Null), &text);
            }
            _ => {
                body.insert(key.to_owned(), RawJson::from_json(value).to_value());
            }
        }
    }
}
