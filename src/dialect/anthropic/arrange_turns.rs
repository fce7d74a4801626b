//! Arranges a conversation into the turns that this dialect requires. Turns alternate, the user
//! begins, and each result directly follows its call.

use std::{borrow::Cow, collections::HashMap};

use crate::{
    base::json::raw::RawJson,
    dialect::{
        anthropic::{blocks_read::original_block, media, names::AnthropicRequestCallIds},
        losses::Losses,
    },
    ir::{
        block::{Block, BlockKind, CacheBreakpoint, Citation, SignatureKind, ToolCall, ToolResult},
        extras::Extras,
        op::Dialect,
        request::{ChatRequest, Role},
    },
};

const DIALECT: Dialect = Dialect::Anthropic;

/// The user text that is inserted if a conversation does not begin with the user or if a user turn
/// is empty. The provider refuses empty text.
const USER_FILLER_TEXT: &str = "…";

#[derive(Debug, Default)]
pub(super) struct ArrangedConversation<'a> {
    pub system: Vec<ArrangedBlock<'a>>,
    pub turns: Vec<ArrangedTurn<'a>>,
}

#[derive(Debug)]
pub(super) struct ArrangedTurn<'a> {
    pub is_assistant: bool,
    pub blocks: Vec<ArrangedBlock<'a>>,
    pub extras: Vec<&'a Extras>,
}

#[derive(Debug)]
pub(super) struct ArrangedBlock<'a> {
    pub content: ArrangedContent<'a>,
    pub cache: Option<&'a CacheBreakpoint>,
    pub extras: Option<&'a Extras>,
}

#[derive(Debug)]
pub(super) enum ArrangedContent<'a> {
    Call {
        id: String,
        call: &'a ToolCall,
    },
    /// A block of this dialect, unchanged.
    Foreign(&'a RawJson),
    Media {
        kind: &'static str,
        source: String,
        title: Option<&'a str>,
    },
    Redacted(&'a str),
    /// All results given for one call; empty if the conversation has none.
    Result {
        id: String,
        results: Vec<&'a ToolResult>,
    },
    Text {
        text: Cow<'a, str>,
        citations: &'a [Citation],
    },
    Thought {
        text: &'a str,
        signature: &'a str,
    },
}

impl<'a> ArrangedBlock<'a> {
    fn new(content: ArrangedContent<'a>, block: &'a Block) -> Self {
        Self { content, cache: block.cache.as_ref(), extras: Some(&block.extras) }
    }

    fn from_text(text: impl Into<Cow<'a, str>>) -> Self {
        Self {
            content: ArrangedContent::Text { text: text.into(), citations: &[] },
            cache: None,
            extras: None,
        }
    }

    fn is_thought(&self) -> bool {
        matches!(self.content, ArrangedContent::Thought { .. } | ArrangedContent::Redacted(_))
    }
}

impl ArrangedConversation<'_> {
    /// Whether the provider would refuse to continue the last assistant turn while thinking within
    /// a budget, because that turn does not begin with its reasoning.
    pub(super) fn missing_reasoning(&self) -> bool {
        let Some(last) = self.turns.iter().rposition(|turn| turn.is_assistant) else {
            return false;
        };
        let answered = match self.turns.get(last + 1) {
            Some(user) => user
                .blocks
                .iter()
                .any(|piece| matches!(piece.content, ArrangedContent::Result { .. })),
            // The assistant turn is last, so the model continues it.
            None => true,
        };
        answered && !self.turns[last].blocks.first().is_some_and(ArrangedBlock::is_thought)
    }
}

/// Arranges the request's messages into turns.
pub(super) fn arrange_turns<'a>(
    request: &'a ChatRequest,
    seed: &'a str,
    lost: &mut Losses,
) -> ArrangedConversation<'a> {
    let mut arranger = TurnArranger {
        conversation: ArrangedConversation::default(),
        results: HashMap::new(),
        result_count: 0,
        call_ids: AnthropicRequestCallIds::new(seed),
        losses: lost,
    };
    for block in &request.system {
        arranger.add_system_block(block);
    }
    for message in &request.messages {
        if message.name.is_some() {
            arranger.losses.add("messages.name");
        }
        match message.role {
            Role::System => arranger.add_system_message(&message.blocks),
            role => {
                let assistant = role == Role::Assistant;
                for block in &message.blocks {
                    arranger.add_block(assistant, block);
                }
                if !message.extras.is_empty() {
                    arranger.turn_mut(assistant).extras.push(&message.extras);
                }
            }
        }
    }
    let results = arranger.results;
    let mut conversation = arranger.conversation;
    conversation.turns = normalize_ends(merge_turns(place_results(conversation.turns, results)));
    conversation
}

struct TurnArranger<'a, 'l> {
    conversation: ArrangedConversation<'a>,
    /// The results given for each call, with their position among all results.
    results: HashMap<String, (usize, ArrangedBlock<'a>)>,
    result_count: usize,
    call_ids: AnthropicRequestCallIds<'a>,
    losses: &'l mut Losses,
}

impl<'a> TurnArranger<'a, '_> {
    fn turn_mut(&mut self, assistant: bool) -> &mut ArrangedTurn<'a> {
        let turns = &mut self.conversation.turns;
        if turns.last().is_none_or(|turn| turn.is_assistant != assistant) {
            turns.push(ArrangedTurn {
                is_assistant: assistant,
                blocks: Vec::new(),
                extras: Vec::new(),
            });
        }
        let last = turns.len() - 1;
        &mut turns[last]
    }

    fn add_system_block(&mut self, block: &'a Block) {
        match text_of(block) {
            Some(text) if text.trim().is_empty() => {
                move_cache_mark(&mut self.conversation.system, block);
            }
            Some(text) => self.conversation.system.push(ArrangedBlock::new(
                ArrangedContent::Text { text: text.into(), citations: &[] },
                block,
            )),
            None => self.losses.add("system.media"),
        }
    }

    /// Adds a system message. Leading ones become the system prompt. Later ones become user text,
    /// because only user and assistant may speak inside the conversation.
    fn add_system_message(&mut self, blocks: &'a [Block]) {
        if self.conversation.turns.is_empty() {
            return blocks.iter().for_each(|block| self.add_system_block(block));
        }
        let mut joined = String::new();
        for block in blocks {
            match text_of(block) {
                Some(text) => joined.push_str(text),
                None => self.losses.add("system.media"),
            }
        }
        if !joined.trim().is_empty() {
            let mut piece = ArrangedBlock::from_text(format!(
                "<system-message>\n{}\n</system-message>",
                joined.trim()
            ));
            piece.cache = blocks.last().and_then(|block| block.cache.as_ref());
            self.turn_mut(false).blocks.push(piece);
        }
    }

    fn add_block(&mut self, assistant: bool, block: &'a Block) {
        let own_signature = block.signature.as_ref().filter(|proof| proof.dialect == DIALECT);
        if block.signature.is_some() && own_signature.is_none() {
            self.losses.add("reasoning.proof");
        }
        if let Some(original) = original_block(block) {
            let piece = ArrangedBlock {
                content: ArrangedContent::Foreign(original),
                cache: None,
                extras: None,
            };
            return self.turn_mut(assistant).blocks.push(piece);
        }
        let content = match &block.kind {
            BlockKind::Text(text) if text.text.trim().is_empty() => {
                return move_cache_mark(&mut self.turn_mut(assistant).blocks, block);
            }
            BlockKind::Text(text) => ArrangedContent::Text {
                text: Cow::Borrowed(&text.text),
                citations: &text.citations,
            },
            BlockKind::Refusal(text) if text.trim().is_empty() => return,
            BlockKind::Refusal(text) => {
                ArrangedContent::Text { text: Cow::Borrowed(text), citations: &[] }
            }
            BlockKind::Media(medium) if assistant => {
                return self.losses.add(media::loss_name(medium.kind));
            }
            BlockKind::Media(medium) => {
                if medium.detail.as_deref().is_some_and(|detail| detail != "auto") {
                    self.losses.add("messages.image_url.detail");
                }
                match media::write_source(medium) {
                    Ok((kind, source)) => {
                        ArrangedContent::Media { kind, source, title: medium.name.as_deref() }
                    }
                    Err(lost) => return self.losses.add(lost),
                }
            }
            BlockKind::Reasoning(thought) => {
                match own_signature.map(|proof| (proof.kind, proof.value.as_str())) {
                    Some((SignatureKind::Signature, signature)) if assistant => {
                        ArrangedContent::Thought { text: &thought.text, signature }
                    }
                    Some((SignatureKind::Redacted, data)) if assistant => {
                        ArrangedContent::Redacted(data)
                    }
                    _ => return self.losses.add("reasoning"),
                }
            }
            BlockKind::ToolCall(call) => {
                let id = self.call_ids.id_for_call(&call.id);
                return self
                    .turn_mut(true)
                    .blocks
                    .push(ArrangedBlock::new(ArrangedContent::Call { id, call }, block));
            }
            BlockKind::ToolResult(result) => return self.add_result(result, block),
            BlockKind::Foreign { dialect: DIALECT, body } => {
                let piece = ArrangedBlock {
                    content: ArrangedContent::Foreign(body),
                    cache: None,
                    extras: None,
                };
                return self.turn_mut(assistant).blocks.push(piece);
            }
            BlockKind::Foreign { body, .. } => return self.losses.add_foreign_block(body.json()),
        };
        self.turn_mut(assistant).blocks.push(ArrangedBlock::new(content, block));
    }

    fn add_result(&mut self, result: &'a ToolResult, block: &'a Block) {
        let Some(id) = self.call_ids.id_for_result(&result.call).map(str::to_owned) else {
            return self.add_orphan_result(result);
        };
        // The result ends the assistant's turn, so a user turn starts here even if it stays empty.
        self.turn_mut(false);
        if result.is_error {
            self.add_result_media(result);
        }
        match self.results.get_mut(&id) {
            Some((_, ArrangedBlock { content: ArrangedContent::Result { results, .. }, .. })) => {
                results.push(result);
            }
            _ => {
                let piece = ArrangedBlock::new(
                    ArrangedContent::Result { id: id.clone(), results: vec![result] },
                    block,
                );
                self.results.insert(id, (self.result_count, piece));
                self.result_count += 1;
            }
        }
    }

    /// Writes a result as text if its call is not in the conversation (any more).
    fn add_orphan_result(&mut self, result: &'a ToolResult) {
        let of = result.name.as_deref().map(|name| format!(" of `{name}`")).unwrap_or_default();
        let mut message = format!("<tool-result>\nResult{of}, a call before this conversation:\n");
        let texts = result.content.iter().filter_map(text_of);
        texts.for_each(|text| message.push_str(text));
        message.push_str("\n</tool-result>");
        self.turn_mut(false).blocks.push(ArrangedBlock::from_text(message));
        self.add_result_media(result);
    }

    /// Adds the media of a result that may contain only text, as user content.
    fn add_result_media(&mut self, result: &'a ToolResult) {
        for block in result.content.iter().filter(|block| matches!(block.kind, BlockKind::Media(_)))
        {
            self.add_block(false, block);
        }
    }
}

pub(super) fn text_of(block: &Block) -> Option<&str> {
    match &block.kind {
        BlockKind::Text(text) => Some(&text.text),
        BlockKind::Refusal(text) => Some(text),
        _ => None,
    }
}

/// Moves the cache breakpoint of an empty block, which is left out, to the block before it.
fn move_cache_mark<'a>(pieces: &mut [ArrangedBlock<'a>], block: &'a Block) {
    if let Some(last) =
        pieces.last_mut().filter(|piece| piece.cache.is_none() && !piece.is_thought())
    {
        last.cache = block.cache.as_ref();
    }
}

/// Moves the results of each turn's calls to the front of the next turn. A call without a result
/// gets a placeholder.
fn place_results<'a>(
    turns: Vec<ArrangedTurn<'a>>,
    mut results: HashMap<String, (usize, ArrangedBlock<'a>)>,
) -> Vec<ArrangedTurn<'a>> {
    let mut out: Vec<ArrangedTurn<'a>> = Vec::with_capacity(turns.len() + 1);
    let mut due: Vec<ArrangedBlock<'a>> = Vec::new();
    for mut turn in turns {
        if !due.is_empty() {
            let pieces = std::mem::take(&mut due);
            if turn.is_assistant {
                out.push(ArrangedTurn { is_assistant: false, blocks: pieces, extras: Vec::new() });
            } else {
                turn.blocks.splice(0..0, pieces);
            }
        }
        if turn.is_assistant {
            let mut found: Vec<(usize, ArrangedBlock<'a>)> = Vec::new();
            for piece in &turn.blocks {
                if let ArrangedContent::Call { id, .. } = &piece.content {
                    let none = || {
                        (
                            usize::MAX,
                            ArrangedBlock {
                                content: ArrangedContent::Result {
                                    id: id.clone(),
                                    results: Vec::new(),
                                },
                                cache: None,
                                extras: None,
                            },
                        )
                    };
                    found.push(results.remove(id).unwrap_or_else(none));
                }
            }
            found.sort_by_key(|(order, _)| *order);
            due = found.into_iter().map(|(_, piece)| piece).collect();
        }
        out.push(turn);
    }
    if !due.is_empty() {
        out.push(ArrangedTurn { is_assistant: false, blocks: due, extras: Vec::new() });
    }
    out
}

/// Removes empty turns and joins adjacent turns of one role.
fn merge_turns(turns: Vec<ArrangedTurn<'_>>) -> Vec<ArrangedTurn<'_>> {
    let mut out: Vec<ArrangedTurn<'_>> = Vec::with_capacity(turns.len());
    for turn in turns.into_iter().filter(|turn| !turn.blocks.is_empty()) {
        match out.last_mut() {
            Some(last) if last.is_assistant == turn.is_assistant => {
                last.blocks.extend(turn.blocks);
                last.extras.extend(turn.extras);
            }
            _ => out.push(turn),
        }
    }
    out
}

/// Makes the first turn a user turn, and trims trailing white space from an assistant turn that the
/// model is to continue.
fn normalize_ends(mut turns: Vec<ArrangedTurn<'_>>) -> Vec<ArrangedTurn<'_>> {
    if turns.first().is_none_or(|turn| turn.is_assistant) {
        turns.insert(
            0,
            ArrangedTurn {
                is_assistant: false,
                blocks: vec![ArrangedBlock::from_text(USER_FILLER_TEXT)],
                extras: Vec::new(),
            },
        );
    }
    if let Some(ArrangedTurn { is_assistant: true, blocks: pieces, .. }) = turns.last_mut()
        && let Some(ArrangedBlock { content: ArrangedContent::Text { text, .. }, .. }) =
            pieces.last_mut()
        && text.ends_with(char::is_whitespace)
    {
        *text = Cow::Owned(text.trim_end().to_owned());
    }
    turns
}
