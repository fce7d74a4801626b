//! A conversation as this dialect demands it: turns alternate, the user begins, results follow
//! their calls at once.

use std::{borrow::Cow, collections::HashMap};

use crate::{
    base::raw::RawJson,
    dialect::{
        anthropic::{blocks_read::WHOLE, media, names::Ids},
        losses::Losses,
    },
    ir::{
        block::{Block, BlockKind, CacheBreakpoint, Citation, SignatureKind, ToolCall, ToolResult},
        extras::Extras,
        op::Dialect,
        request::{ChatRequest, Role},
    },
};

const ME: Dialect = Dialect::Anthropic;

/// What the user says where a conversation begins without them, or says nothing at all; empty ones
/// are refused.
const OPENING: &str = "…";

#[derive(Debug, Default)]
pub(super) struct Conversation<'a> {
    pub system: Vec<Piece<'a>>,
    pub turns: Vec<Turn<'a>>,
}

#[derive(Debug)]
pub(super) struct Turn<'a> {
    pub assistant: bool,
    pub pieces: Vec<Piece<'a>>,
    pub extras: Vec<&'a Extras>,
}

#[derive(Debug)]
pub(super) struct Piece<'a> {
    pub what: What<'a>,
    pub cache: Option<&'a CacheBreakpoint>,
    pub extras: Option<&'a Extras>,
}

#[derive(Debug)]
pub(super) enum What<'a> {
    Call {
        id: String,
        call: &'a ToolCall,
    },
    /// A block of this dialect, as it stood.
    Foreign(&'a RawJson),
    Media {
        kind: &'static str,
        source: String,
        title: Option<&'a str>,
    },
    Redacted(&'a str),
    /// All that was given as result of one call; nothing where nobody gave any.
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

impl<'a> Piece<'a> {
    fn new(what: What<'a>, block: &'a Block) -> Self {
        Self { what, cache: block.cache.as_ref(), extras: Some(&block.extras) }
    }

    fn said(text: impl Into<Cow<'a, str>>) -> Self {
        Self { what: What::Text { text: text.into(), citations: &[] }, cache: None, extras: None }
    }

    fn is_thought(&self) -> bool {
        matches!(self.what, What::Thought { .. } | What::Redacted(_))
    }
}

impl Conversation<'_> {
    /// Whether the model, told to think within a budget, would refuse to go on: the turn that it is
    /// to go on with does not begin with its thought.
    pub(super) fn lacks_thought(&self) -> bool {
        let Some(last) = self.turns.iter().rposition(|turn| turn.assistant) else { return false };
        let answered = match self.turns.get(last + 1) {
            Some(user) => user.pieces.iter().any(|piece| matches!(piece.what, What::Result { .. })),
            // The assistant's words are to be continued.
            None => true,
        };
        answered && !self.turns[last].pieces.first().is_some_and(Piece::is_thought)
    }
}

/// Puts the request's messages into turns.
pub(super) fn arrange<'a>(
    request: &'a ChatRequest,
    seed: &'a str,
    lost: &mut Losses,
) -> Conversation<'a> {
    let mut reader = Arranger {
        conversation: Conversation::default(),
        results: HashMap::new(),
        given: 0,
        ids: Ids::new(seed),
        lost,
    };
    for block in &request.system {
        reader.system(block);
    }
    for message in &request.messages {
        if message.name.is_some() {
            reader.lost.add("messages.name");
        }
        match message.role {
            Role::System => reader.reminder(&message.blocks),
            role => {
                let assistant = role == Role::Assistant;
                for block in &message.blocks {
                    reader.block(assistant, block);
                }
                if !message.extras.is_empty() {
                    reader.turn(assistant).extras.push(&message.extras);
                }
            }
        }
    }
    let results = reader.results;
    let mut conversation = reader.conversation;
    conversation.turns = opened(merged(answered(conversation.turns, results)));
    conversation
}

struct Arranger<'a, 'l> {
    conversation: Conversation<'a>,
    /// What was given for each call, with its place among all results.
    results: HashMap<String, (usize, Piece<'a>)>,
    given: usize,
    ids: Ids<'a>,
    lost: &'l mut Losses,
}

impl<'a> Arranger<'a, '_> {
    fn turn(&mut self, assistant: bool) -> &mut Turn<'a> {
        let turns = &mut self.conversation.turns;
        if turns.last().is_none_or(|turn| turn.assistant != assistant) {
            turns.push(Turn { assistant, pieces: Vec::new(), extras: Vec::new() });
        }
        let last = turns.len() - 1;
        &mut turns[last]
    }

    fn system(&mut self, block: &'a Block) {
        match text_of(block) {
            Some(text) if text.trim().is_empty() => hand_over(&mut self.conversation.system, block),
            Some(text) => self
                .conversation
                .system
                .push(Piece::new(What::Text { text: text.into(), citations: &[] }, block)),
            None => self.lost.add("system.media"),
        }
    }

    /// Words of the system inside the conversation, where only user and assistant may speak;
    /// leading ones are its prompt.
    fn reminder(&mut self, blocks: &'a [Block]) {
        if self.conversation.turns.is_empty() {
            return blocks.iter().for_each(|block| self.system(block));
        }
        let mut words = String::new();
        for block in blocks {
            match text_of(block) {
                Some(text) => words.push_str(text),
                None => self.lost.add("system.media"),
            }
        }
        if !words.trim().is_empty() {
            let mut piece =
                Piece::said(format!("<system-message>\n{}\n</system-message>", words.trim()));
            piece.cache = blocks.last().and_then(|block| block.cache.as_ref());
            self.turn(false).pieces.push(piece);
        }
    }

    fn block(&mut self, assistant: bool, block: &'a Block) {
        let own = block.signature.as_ref().filter(|proof| proof.dialect == ME);
        if block.signature.is_some() && own.is_none() {
            self.lost.add("reasoning.proof");
        }
        if let Some(whole) = WHOLE.iter().find_map(|key| block.extras.get(ME, key)) {
            let piece = Piece { what: What::Foreign(whole), cache: None, extras: None };
            return self.turn(assistant).pieces.push(piece);
        }
        let what = match &block.kind {
            BlockKind::Text(text) if text.text.trim().is_empty() => {
                return hand_over(&mut self.turn(assistant).pieces, block);
            }
            BlockKind::Text(text) => {
                What::Text { text: Cow::Borrowed(&text.text), citations: &text.citations }
            }
            BlockKind::Refusal(text) if text.trim().is_empty() => return,
            BlockKind::Refusal(text) => What::Text { text: Cow::Borrowed(text), citations: &[] },
            BlockKind::Media(medium) if assistant => {
                return self.lost.add(media::name(medium.kind));
            }
            BlockKind::Media(medium) => {
                if medium.detail.as_deref().is_some_and(|detail| detail != "auto") {
                    self.lost.add("messages.image_url.detail");
                }
                match media::sent(medium) {
                    Ok((kind, source)) => {
                        What::Media { kind, source, title: medium.name.as_deref() }
                    }
                    Err(lost) => return self.lost.add(lost),
                }
            }
            BlockKind::Reasoning(thought) => {
                match own.map(|proof| (proof.kind, proof.value.as_str())) {
                    Some((SignatureKind::Signature, signature)) if assistant => {
                        What::Thought { text: &thought.text, signature }
                    }
                    Some((SignatureKind::Redacted, data)) if assistant => What::Redacted(data),
                    _ => return self.lost.add("reasoning"),
                }
            }
            BlockKind::ToolCall(call) => {
                let id = self.ids.call(&call.id);
                return self.turn(true).pieces.push(Piece::new(What::Call { id, call }, block));
            }
            BlockKind::ToolResult(result) => return self.result(result, block),
            BlockKind::Foreign { dialect: ME, body } => {
                let piece = Piece { what: What::Foreign(body), cache: None, extras: None };
                return self.turn(assistant).pieces.push(piece);
            }
            BlockKind::Foreign { body, .. } => return self.lost.add(foreign_name(body)),
        };
        self.turn(assistant).pieces.push(Piece::new(what, block));
    }

    fn result(&mut self, result: &'a ToolResult, block: &'a Block) {
        let Some(id) = self.ids.result(&result.call).map(str::to_owned) else {
            return self.orphan(result);
        };
        // Where it stood a turn of the user stands, though it may end up empty.
        self.turn(false);
        if result.is_error {
            self.pictures(result);
        }
        match self.results.get_mut(&id) {
            Some((_, Piece { what: What::Result { results, .. }, .. })) => results.push(result),
            _ => {
                let piece =
                    Piece::new(What::Result { id: id.clone(), results: vec![result] }, block);
                self.results.insert(id, (self.given, piece));
                self.given += 1;
            }
        }
    }

    /// The result of a call that is not in the conversation (any more) is told as text.
    fn orphan(&mut self, result: &'a ToolResult) {
        let of = result.name.as_deref().map(|name| format!(" of `{name}`")).unwrap_or_default();
        let mut words = format!("<tool-result>\nResult{of}, a call before this conversation:\n");
        let texts = result.content.iter().filter_map(text_of);
        texts.for_each(|text| words.push_str(text));
        words.push_str("\n</tool-result>");
        self.turn(false).pieces.push(Piece::said(words));
        self.pictures(result);
    }

    /// Media of a result that may hold only words: the user shows them.
    fn pictures(&mut self, result: &'a ToolResult) {
        for block in result.content.iter().filter(|block| matches!(block.kind, BlockKind::Media(_)))
        {
            self.block(false, block);
        }
    }
}

/// What a foreign block is called among the losses: its own type.
pub(super) fn foreign_name(body: &RawJson) -> String {
    body.json()
        .get("type")
        .and_then(crate::base::json::JsonRef::str)
        .map_or_else(|| "messages.foreign".to_owned(), |kind| format!("messages.{kind}"))
}

pub(super) fn text_of(block: &Block) -> Option<&str> {
    match &block.kind {
        BlockKind::Text(text) => Some(&text.text),
        BlockKind::Refusal(text) => Some(text),
        _ => None,
    }
}

/// An empty block is left out; its breakpoint goes to the one before it.
fn hand_over<'a>(pieces: &mut [Piece<'a>], block: &'a Block) {
    if let Some(last) =
        pieces.last_mut().filter(|piece| piece.cache.is_none() && !piece.is_thought())
    {
        last.cache = block.cache.as_ref();
    }
}

/// Puts the results of each turn's calls at the front of the turn after it, and says of calls
/// without any that there is none.
fn answered<'a>(
    turns: Vec<Turn<'a>>,
    mut results: HashMap<String, (usize, Piece<'a>)>,
) -> Vec<Turn<'a>> {
    let mut out: Vec<Turn<'a>> = Vec::with_capacity(turns.len() + 1);
    let mut due: Vec<Piece<'a>> = Vec::new();
    for mut turn in turns {
        if !due.is_empty() {
            let pieces = std::mem::take(&mut due);
            if turn.assistant {
                out.push(Turn { assistant: false, pieces, extras: Vec::new() });
            } else {
                turn.pieces.splice(0..0, pieces);
            }
        }
        if turn.assistant {
            let mut found: Vec<(usize, Piece<'a>)> = Vec::new();
            for piece in &turn.pieces {
                if let What::Call { id, .. } = &piece.what {
                    let none = || {
                        (
                            usize::MAX,
                            Piece {
                                what: What::Result { id: id.clone(), results: Vec::new() },
                                cache: None,
                                extras: None,
                            },
                        )
                    };
                    found.push(results.remove(id).unwrap_or_else(none));
                }
            }
            found.sort_by_key(|(place, _)| *place);
            due = found.into_iter().map(|(_, piece)| piece).collect();
        }
        out.push(turn);
    }
    if !due.is_empty() {
        out.push(Turn { assistant: false, pieces: due, extras: Vec::new() });
    }
    out
}

/// Leaves out empty turns and joins neighbours of one speaker.
fn merged(turns: Vec<Turn<'_>>) -> Vec<Turn<'_>> {
    let mut out: Vec<Turn<'_>> = Vec::with_capacity(turns.len());
    for turn in turns.into_iter().filter(|turn| !turn.pieces.is_empty()) {
        match out.last_mut() {
            Some(last) if last.assistant == turn.assistant => {
                last.pieces.extend(turn.pieces);
                last.extras.extend(turn.extras);
            }
            _ => out.push(turn),
        }
    }
    out
}

/// The user begins; what the assistant is to go on with does not end in white space.
fn opened(mut turns: Vec<Turn<'_>>) -> Vec<Turn<'_>> {
    if turns.first().is_none_or(|turn| turn.assistant) {
        turns.insert(
            0,
            Turn { assistant: false, pieces: vec![Piece::said(OPENING)], extras: Vec::new() },
        );
    }
    if let Some(Turn { assistant: true, pieces, .. }) = turns.last_mut()
        && let Some(Piece { what: What::Text { text, .. }, .. }) = pieces.last_mut()
        && text.ends_with(char::is_whitespace)
    {
        *text = Cow::Owned(text.trim_end().to_owned());
    }
    turns
}
