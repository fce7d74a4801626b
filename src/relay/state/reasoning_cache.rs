//! Caches reasoning that a client's dialect cannot carry, and restores it when the conversation
//! continues.
//!
//! Entries are found by the ids of a response's tool calls, or by the calls' names and arguments
//! for clients that do not preserve ids. A response without calls is found by its text. All count
//! only together with what the user said before, because another conversation may have the same
//! short answer; for long ids, which are unique, what the user said last is enough. Bounded in bytes
//! and time, per project.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use crate::{
    base::{clock::Mono, sync::Mutex},
    ir::{
        block::{Block, BlockKind, TextBlock, ToolCall},
        extras::Extras,
        op::Dialect,
        request::{ChatMessage, ChatRequest, Role},
        response::ChatResponse,
    },
};

const TTL: Duration = Duration::from_secs(6 * 3600);
const MAX_BYTES: usize = 32 << 20;
/// Ids of calls from this length on are unique; shorter ones may be counted per conversation.
const UNIQUE_ID_LEN: usize = 16;
/// Maximum bytes of one response; a larger one is not cached.
pub(in crate::relay) const MAX_ENTRY_BYTES: usize = 1 << 20;

/// The cached responses of all projects.
#[derive(Default)]
pub struct ReasoningCache(Mutex<ReasoningCacheState>);

#[derive(Default)]
struct ReasoningCacheState {
    /// The newest entry of each dialect per key; clients that do not preserve ids send the same to
    /// several upstreams at once.
    by_key: HashMap<u64, Vec<Arc<StoredReasoning>>>,
    /// In the order of arrival.
    order: VecDeque<ReasoningEntry>,
    bytes: usize,
}

/// A cached response and its size.
struct ReasoningEntry {
    stored_at: Mono,
    keys: Vec<u64>,
    bytes: usize,
    reasoning: Arc<StoredReasoning>,
}

/// The signed blocks of one response, in order; text is cached only if it is reasoning.
struct StoredReasoning {
    /// The dialect that issued the signatures.
    dialect: Option<Dialect>,
    blocks: Vec<Block>,
}

impl ReasoningCache {
    /// Caches a response that has signed blocks, and reasoning that led to calls, because some
    /// providers require that as well.
    ///
    /// `turns` is the [`turns_hash`] of the request.
    pub fn insert(&self, project: &str, turns: TurnsHash, response: &ChatResponse, now: Mono) {
        let thought = |block: &Block| matches!(block.kind, BlockKind::Reasoning(_));
        let called =
            response.blocks.iter().any(|block| matches!(block.kind, BlockKind::ToolCall(_)));
        let is_stored = |block: &&Block| {
            block.signature.is_some() || called && thought(block) || block.phase().is_some()
        };
        if !response.blocks.iter().any(|block| is_stored(&block)) {
            return;
        }
        let keys = lookup_keys(project, turns, &response.blocks);
        let blocks: Vec<Block> =
            response.blocks.iter().filter(is_stored).map(strip_citations).collect();
        let bytes = blocks.iter().map(estimate_bytes).sum::<usize>() + 64;
        if keys.is_empty() || bytes > MAX_ENTRY_BYTES {
            return;
        }
        let dialect =
            blocks.iter().find_map(|block| block.signature.as_ref()).map(|proof| proof.dialect);
        let phase = blocks.iter().find_map(Block::phase);
        let dialect = dialect.or(phase.map(|_| Dialect::Responses));
        let answer = Arc::new(StoredReasoning { dialect, blocks });
        let mut state = self.0.lock();
        for key in &keys {
            let known = state.by_key.entry(*key).or_default();
            known.retain(|other| other.dialect != dialect);
            known.push(Arc::clone(&answer));
        }
        state.order.push_back(ReasoningEntry { stored_at: now, keys, bytes, reasoning: answer });
        state.bytes += bytes;
        state.evict(now);
    }

    /// Restores cached signatures in the assistant's messages that lack them. If several entries
    /// match, prefers those of dialect `to`, then those without a signature, then the newest.
    pub fn restore(
        &self,
        project: &str,
        request: &mut ChatRequest,
        to: Option<Dialect>,
        now: Mono,
    ) {
        let mut state = self.0.lock();
        state.evict(now);
        if state.by_key.is_empty() {
            return;
        }
        let mut turns = TurnsHasher::default();
        for message in &mut request.messages {
            if message.role != Role::Assistant {
                turns.add(message);
                continue;
            }
            let pick = |known: &Vec<Arc<StoredReasoning>>| {
                let same_dialect =
                    known.iter().find(|answer| answer.dialect.is_some() && answer.dialect == to);
                same_dialect
                    .or_else(|| known.iter().find(|answer| answer.dialect.is_none()))
                    .or(known.last())
                    .cloned()
            };
            let found = lookup_keys(project, turns.finish(), &message.blocks)
                .into_iter()
                .find_map(|key| state.by_key.get(&key).and_then(pick));
            if let Some(answer) = found {
                reinsert(&answer.blocks, &mut message.blocks);
            }
        }
    }
}

impl ReasoningCacheState {
    fn evict(&mut self, now: Mono) {
        while let Some(first) = self.order.front() {
            if self.bytes <= MAX_BYTES && now.since(first.stored_at) < TTL {
                return;
            }
            let Some(ReasoningEntry { keys, bytes, reasoning: answer, .. }) =
                self.order.pop_front()
            else {
                return;
            };
            self.bytes -= bytes;
            for key in keys {
                let Some(known) = self.by_key.get_mut(&key) else { continue };
                // A newer entry with the same key stays.
                known.retain(|other| !Arc::ptr_eq(other, &answer));
                if known.is_empty() {
                    self.by_key.remove(&key);
                }
            }
        }
    }
}

/// What the user said in a conversation, as hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnsHash {
    /// Everything.
    all: u64,
    /// The beginning of what was said last. It stays when a client leaves out earlier turns.
    last: u64,
}

/// Hashes what the user said in a conversation.
#[must_use]
pub fn turns_hash(request: &ChatRequest) -> TurnsHash {
    let mut turns = TurnsHasher::default();
    request.messages.iter().for_each(|message| turns.add(message));
    turns.finish()
}

#[derive(Default)]
struct TurnsHasher {
    all: DefaultHasher,
    last: u64,
}

impl TurnsHasher {
    fn add(&mut self, message: &ChatMessage) {
        if message.role != Role::User {
            return;
        }
        let mut is_first = true;
        for block in &message.blocks {
            if let BlockKind::Text(text) = &block.kind {
                let text = text.text.trim();
                text.hash(&mut self.all);
                if std::mem::take(&mut is_first) {
                    let mut last = DefaultHasher::new();
                    text.hash(&mut last);
                    self.last = last.finish();
                }
            }
        }
    }

    fn finish(&self) -> TurnsHash {
        TurnsHash { all: self.all.finish(), last: self.last }
    }
}

/// Returns the keys by which a response is found again. `turns` is the hash of what the user said
/// before it.
fn lookup_keys(project: &str, turns: TurnsHash, blocks: &[Block]) -> Vec<u64> {
    let hash = |kind: u8, text: &str| {
        let mut hasher = DefaultHasher::new();
        let is_unique = kind == 0 && text.len() >= UNIQUE_ID_LEN;
        let turns = if is_unique { turns.last } else { turns.all };
        (project, turns, kind, text).hash(&mut hasher);
        hasher.finish()
    };
    let calls = || {
        blocks.iter().filter_map(|block| match &block.kind {
            BlockKind::ToolCall(call) => Some(call),
            _ => None,
        })
    };
    let by_id = calls().map(|call| hash(0, &call.id));
    let by_words = calls().map(|call| hash(2, &call_without_id(call)));
    let keys: Vec<u64> = by_id.chain(by_words).collect();
    if !keys.is_empty() {
        return keys;
    }
    let text: String = blocks
        .iter()
        .filter_map(|block| match &block.kind {
            BlockKind::Text(text) => Some(text.text.split_whitespace()),
            _ => None,
        })
        .flatten()
        .collect();
    if text.is_empty() { Vec::new() } else { vec![hash(1, &text)] }
}

/// Formats a call without its id; equivalent JSON gives the same text.
fn call_without_id(call: &ToolCall) -> String {
    let arguments = serde_json::from_str::<serde_json::Value>(&call.arguments)
        .map_or_else(|_| call.arguments.clone(), |json| json.to_string());
    format!("{}\0{}", call.name, if call.arguments.trim().is_empty() { "{}" } else { &arguments })
}

/// Returns a block without what the client sends back anyway.
fn strip_citations(block: &Block) -> Block {
    let mut block = block.clone();
    if let BlockKind::Text(text) = &mut block.kind {
        text.citations.clear();
        let phase = block.phase();
        block.extras = Extras::default();
        if let Some(phase) = phase {
            block.set_phase(&phase);
        }
    }
    block
}

fn estimate_bytes(block: &Block) -> usize {
    let proof = block.signature.as_ref().map_or(0, |proof| proof.value.len());
    let text = match &block.kind {
        BlockKind::Text(text) => text.text.len(),
        BlockKind::Reasoning(reasoning) => reasoning.text.len(),
        BlockKind::ToolCall(call) => call.id.len() + call.name.len() + call.arguments.len(),
        BlockKind::Foreign { body, .. } => body.text().len(),
        _ => 0,
    };
    proof + text + 200
}

fn reinsert(stored: &[Block], blocks: &mut Vec<Block>) {
    let mut reasoning = Vec::new();
    for block in stored {
        match &block.kind {
            BlockKind::Reasoning(_)
                if blocks.iter().any(|existing| {
                    *existing == *block
                        || existing.signature.is_some() && existing.signature == block.signature
                }) => {}
            BlockKind::Reasoning(_) => reasoning.push(block.clone()),
            BlockKind::ToolCall(call) => {
                let same = |existing: &ToolCall| {
                    existing.id == call.id || call_without_id(existing) == call_without_id(call)
                };
                let same = blocks.iter_mut().find(
                    |existing| matches!(&existing.kind, BlockKind::ToolCall(own) if same(own)),
                );
                if let Some(existing) = same.filter(|existing| existing.signature.is_none()) {
                    existing.signature.clone_from(&block.signature);
                }
            }
            BlockKind::Text(text) => {
                if block.phase().is_some() {
                    split_text(text, blocks);
                }
                let same = blocks.iter_mut().find(|existing| matches!(&existing.kind, BlockKind::Text(own) if own.text.trim() == text.text.trim()));
                let Some(existing) = same else { continue };
                if existing.signature.is_none() {
                    existing.signature.clone_from(&block.signature);
                }
                if let Some(phase) = block.phase() {
                    existing.set_phase(&phase);
                }
            }
            _ => {}
        }
    }
    if !reasoning.is_empty() {
        // The client's copy of the reasoning has no signature.
        blocks.retain(|existing| {
            !(matches!(existing.kind, BlockKind::Reasoning(_)) && existing.signature.is_none())
        });
        blocks.splice(0..0, reasoning);
    }
}

/// Makes this text a block of its own if a block begins with it: clients whose messages have one
/// text join those of several messages.
fn split_text(part: &TextBlock, blocks: &mut Vec<Block>) {
    let part = part.text.as_str();
    let begins = |block: &Block| {
        block.signature.is_none()
            && matches!(&block.kind, BlockKind::Text(whole) if whole.citations.is_empty()
                && whole.text.len() > part.len() && whole.text.starts_with(part))
    };
    let Some(at) = blocks.iter().position(begins).filter(|_| !part.trim().is_empty()) else {
        return;
    };
    if let BlockKind::Text(whole) = &mut blocks[at].kind {
        let rest = whole.text.split_off(part.len());
        if !rest.trim().is_empty() {
            blocks.insert(at + 1, Block::text(rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::block::{Reasoning, ReasoningSignature, SignatureKind};

    fn proof(value: &str) -> Option<ReasoningSignature> {
        Some(ReasoningSignature {
            dialect: Dialect::Anthropic,
            kind: SignatureKind::Signature,
            value: value.to_owned(),
            id: None,
        })
    }

    fn thought(text: &str, signed: bool) -> Block {
        let kind = BlockKind::Reasoning(Reasoning { text: text.to_owned(), summary: false });
        Block { signature: signed.then(|| proof("sig")).flatten(), ..Block::new(kind) }
    }

    fn call(id: &str) -> Block {
        Block::new(BlockKind::ToolCall(ToolCall {
            id: id.to_owned(),
            name: format!("tool of {id}"),
            ..ToolCall::default()
        }))
    }

    fn no_turns() -> TurnsHash {
        turns_hash(&ChatRequest::default())
    }

    #[test]
    fn equal_short_answer_in_another_conversation_has_no_reasoning() {
        let kept = ReasoningCache::default();
        let reply = |text: &str| ChatMessage::new(Role::User, vec![Block::text(text)]);
        let first = ChatRequest { messages: vec![reply("apples")], ..ChatRequest::default() };
        let blocks = vec![thought("hm", true), Block::text("yes"), call("c1")];
        let answer = ChatResponse { blocks, ..ChatResponse::default() };
        kept.insert("a", turns_hash(&first), &answer, Mono::default());
        for (text, is_found) in [("pears", false), ("apples", true)] {
            let answered = ChatMessage::new(Role::Assistant, vec![Block::text("yes"), call("c1")]);
            let mut request =
                ChatRequest { messages: vec![reply(text), answered], ..ChatRequest::default() };
            kept.restore("a", &mut request, None, Mono::default());
            assert_eq!(request.messages[1].blocks.len() == 3, is_found, "{text}");
        }
    }

    #[test]
    fn phase_of_a_text_is_restored() {
        let kept = ReasoningCache::default();
        let mut text = Block::text("Looking.");
        text.set_phase("commentary");
        let answer = ChatResponse { blocks: vec![text, call("c1")], ..ChatResponse::default() };
        kept.insert("a", no_turns(), &answer, Mono::default());
        let mut request = turn(vec![Block::text("Looking."), call("c1")]);
        kept.restore("a", &mut request, None, Mono::default());
        assert_eq!(request.messages[0].blocks[0].phase().as_deref(), Some("commentary"));
    }

    #[test]
    fn phases_are_restored_when_the_client_joins_messages() {
        let kept = ReasoningCache::default();
        let (mut first, mut last) = (Block::text("Looking.\n"), Block::text("Done."));
        first.set_phase("commentary");
        last.set_phase("final_answer");
        let answer = ChatResponse { blocks: vec![first, last], ..ChatResponse::default() };
        kept.insert("a", no_turns(), &answer, Mono::default());
        let mut request = turn(vec![Block::text("Looking.\nDone.")]);
        kept.restore("a", &mut request, None, Mono::default());
        let phases: Vec<_> = request.messages[0].blocks.iter().map(Block::phase).collect();
        assert_eq!(phases, [Some("commentary".to_owned()), Some("final_answer".to_owned())]);
    }

    #[test]
    fn long_call_id_is_valid_only_in_its_conversation() {
        let kept = ReasoningCache::default();
        let reply = |text: &str| ChatMessage::new(Role::User, vec![Block::text(text)]);
        let id = "toolu_01A09q90qw90lq917835lq9";
        let before = |texts: &[&str]| ChatRequest {
            messages: texts.iter().map(|text| reply(text)).collect(),
            ..ChatRequest::default()
        };
        let answer =
            ChatResponse { blocks: vec![thought("hm", true), call(id)], ..ChatResponse::default() };
        kept.insert("a", turns_hash(&before(&["old", "apples"])), &answer, Mono::default());
        for (texts, is_found) in
            [(vec!["old", "apples"], true), (vec!["apples"], true), (vec!["old", "pears"], false)]
        {
            let mut request = before(&texts);
            request.messages.push(ChatMessage::new(Role::Assistant, vec![call(id)]));
            kept.restore("a", &mut request, None, Mono::default());
            let found = request.messages.last().map_or(0, |message| message.blocks.len());
            assert_eq!(found == 2, is_found, "{texts:?}");
        }
    }

    fn turn(blocks: Vec<Block>) -> ChatRequest {
        ChatRequest {
            messages: vec![ChatMessage::new(Role::Assistant, blocks)],
            ..ChatRequest::default()
        }
    }

    #[test]
    fn signatures_are_found_by_call_id_or_text_within_the_project() {
        let kept = ReasoningCache::default();
        let now = Mono::default();
        kept.insert(
            "a",
            no_turns(),
            &ChatResponse {
                blocks: vec![thought("hm", true), call("c1"), call("c2")],
                ..ChatResponse::default()
            },
            now,
        );
        kept.insert(
            "a",
            no_turns(),
            &ChatResponse {
                blocks: vec![thought("ah", true), Block::text("yes ")],
                ..ChatResponse::default()
            },
            now,
        );

        let mut request = turn(vec![thought("hm", false), call("c2")]);
        kept.restore("a", &mut request, None, now);
        assert_eq!(request.messages[0].blocks, [thought("hm", true), call("c2")]);
        let mut again = request.clone();
        kept.restore("a", &mut again, None, now);
        assert_eq!(again, request, "once is enough");

        let mut other = call("made up");
        if let BlockKind::ToolCall(call) = &mut other.kind {
            call.name = "tool of c2".to_owned();
        }
        let mut request = turn(vec![other.clone()]);
        kept.restore("a", &mut request, None, now);
        assert_eq!(
            request.messages[0].blocks,
            [thought("hm", true), other],
            "by name and arguments"
        );

        let mut request = turn(vec![Block::text("yes")]);
        kept.restore("a", &mut request, None, now);
        assert_eq!(request.messages[0].blocks, [thought("ah", true), Block::text("yes")]);

        let mut request = turn(vec![call("c1")]);
        kept.restore("b", &mut request, None, now);
        assert_eq!(request, turn(vec![call("c1")]), "another project");
        let mut request = turn(vec![call("c1")]);
        kept.restore("a", &mut request, None, now + TTL);
        assert_eq!(request, turn(vec![call("c1")]), "too late");
    }

    #[test]
    fn equal_call_at_two_upstreams_caches_both_signatures() {
        let kept = ReasoningCache::default();
        let answer = |dialect, value: &str| {
            let mut thought = thought("hm", true);
            thought.signature = Some(ReasoningSignature {
                dialect,
                kind: SignatureKind::Signature,
                value: value.to_owned(),
                id: None,
            });
            ChatResponse { blocks: vec![thought, call("")], ..ChatResponse::default() }
        };
        kept.insert("a", no_turns(), &answer(Dialect::Anthropic, "first"), Mono::default());
        kept.insert("a", no_turns(), &answer(Dialect::Gemini, "other"), Mono::default());
        kept.insert("a", no_turns(), &answer(Dialect::Anthropic, "second"), Mono::default());

        for (to, want) in [
            (Some(Dialect::Anthropic), "second"),
            (Some(Dialect::Gemini), "other"),
            (None, "second"),
        ] {
            let mut request = turn(vec![call("")]);
            kept.restore("a", &mut request, to, Mono::default());
            assert_eq!(
                request.messages[0].blocks[0].signature.as_ref().map(|proof| proof.value.as_str()),
                Some(want),
                "{to:?}"
            );
        }
    }

    #[test]
    fn reasoning_cache_is_bounded() {
        let kept = ReasoningCache::default();
        for n in 0..200 {
            let mut block = thought(&"x".repeat(1 << 19), true);
            block.signature = proof(&n.to_string());
            kept.insert(
                "a",
                no_turns(),
                &ChatResponse {
                    blocks: vec![block, call(&n.to_string())],
                    ..ChatResponse::default()
                },
                Mono::default(),
            );
        }
        let inside = kept.0.lock();
        assert!(inside.bytes <= MAX_BYTES && inside.by_key.len() < 160 && inside.order.len() < 80);
    }
}
