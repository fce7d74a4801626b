//! Reasoning that a client's dialect cannot carry: kept here, and put back when the conversation goes on.
//!
//! Found again by the ids of an answer's tool calls (by their names and arguments, for clients that keep no ids), or by its
//! text where it called nothing. Bounded in bytes and time, per project.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    base::clock::Mono,
    ir::{
        block::{Block, BlockKind, ToolCall},
        request::{ChatRequest, Role},
        response::ChatResponse,
    },
};

const TTL: Duration = Duration::from_secs(6 * 3600);
const BYTES: usize = 32 << 20;
/// One answer's share; a larger one is not kept.
pub(super) const LARGEST: usize = 1 << 20;

/// The kept answers of all projects.
#[derive(Default)]
pub struct Continuity(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    by_key: HashMap<u64, Arc<Answer>>,
    /// In the order of arrival.
    order: VecDeque<(Mono, Vec<u64>, usize)>,
    bytes: usize,
}

/// What was proven of one answer: blocks with proofs, in their order; texts are kept only where they are reasoning.
struct Answer {
    blocks: Vec<Block>,
}

impl Continuity {
    /// Keeps an answer whose blocks bear proofs, and thoughts that led to calls: some providers want those back as well.
    pub fn keep(&self, project: &str, response: &ChatResponse, now: Mono) {
        let thought = |block: &Block| matches!(block.kind, BlockKind::Reasoning(_));
        let called = response.blocks.iter().any(|block| matches!(block.kind, BlockKind::ToolCall(_)));
        let kept = |block: &&Block| block.proof.is_some() || called && thought(block);
        if !response.blocks.iter().any(|block| kept(&block)) {
            return;
        }
        let keys = keys(project, &response.blocks);
        let blocks: Vec<Block> = response.blocks.iter().filter(kept).map(slim).collect();
        let bytes = blocks.iter().map(weight).sum::<usize>() + 64;
        if keys.is_empty() || bytes > LARGEST {
            return;
        }
        let answer = Arc::new(Answer { blocks });
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &keys {
            kept.by_key.insert(*key, Arc::clone(&answer));
        }
        kept.order.push_back((now, keys, bytes));
        kept.bytes += bytes;
        kept.trim(now);
    }

    /// Puts kept proofs back into the assistant's messages that lack them.
    pub fn restore(&self, project: &str, request: &mut ChatRequest, now: Mono) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.trim(now);
        if kept.by_key.is_empty() {
            return;
        }
        for message in request.messages.iter_mut().filter(|message| message.role == Role::Assistant) {
            let found = keys(project, &message.blocks).into_iter().find_map(|key| kept.by_key.get(&key).cloned());
            if let Some(answer) = found {
                put_back(&answer.blocks, &mut message.blocks);
            }
        }
    }
}

impl Kept {
    fn trim(&mut self, now: Mono) {
        while let Some((at, _, _)) = self.order.front() {
            if self.bytes <= BYTES && now.since(*at) < TTL {
                return;
            }
            let Some((_, keys, bytes)) = self.order.pop_front() else { return };
            self.bytes -= bytes;
            for key in keys {
                self.by_key.remove(&key);
            }
        }
    }
}

/// Under which names an answer is found again.
fn keys(project: &str, blocks: &[Block]) -> Vec<u64> {
    let hash = |kind: u8, text: &str| {
        let mut hasher = DefaultHasher::new();
        (project, kind, text).hash(&mut hasher);
        hasher.finish()
    };
    let calls = || {
        blocks.iter().filter_map(|block| match &block.kind {
            BlockKind::ToolCall(call) => Some(call),
            _ => None,
        })
    };
    let by_id = calls().map(|call| hash(0, &call.id));
    let by_words = calls().map(|call| hash(2, &words(call)));
    let keys: Vec<u64> = by_id.chain(by_words).collect();
    if !keys.is_empty() {
        return keys;
    }
    let text: String = blocks
        .iter()
        .filter_map(|block| match &block.kind {
            BlockKind::Text(text) => Some(text.text.trim()),
            _ => None,
        })
        .collect();
    if text.is_empty() { Vec::new() } else { vec![hash(1, &text)] }
}

/// A call without its id; JSON that means the same reads the same.
fn words(call: &ToolCall) -> String {
    let arguments =
        serde_json::from_str::<serde_json::Value>(&call.arguments).map_or_else(|_| call.arguments.clone(), |json| json.to_string());
    format!("{}\0{}", call.name, if call.arguments.trim().is_empty() { "{}" } else { &arguments })
}

/// A block without what the client sends back anyway.
fn slim(block: &Block) -> Block {
    let mut block = block.clone();
    if let BlockKind::Text(text) = &mut block.kind {
        text.citations.clear();
    }
    block
}

fn weight(block: &Block) -> usize {
    let proof = block.proof.as_ref().map_or(0, |proof| proof.value.len());
    let text = match &block.kind {
        BlockKind::Text(text) => text.text.len(),
        BlockKind::Reasoning(reasoning) => reasoning.text.len(),
        BlockKind::ToolCall(call) => call.id.len() + call.name.len() + call.arguments.len(),
        BlockKind::Foreign { body, .. } => body.text().len(),
        _ => 0,
    };
    proof + text + 200
}

fn put_back(kept: &[Block], blocks: &mut Vec<Block>) {
    let mut reasoning = Vec::new();
    for block in kept {
        match &block.kind {
            BlockKind::Reasoning(_) if blocks.iter().any(|own| *own == *block || own.proof.is_some() && own.proof == block.proof) => {}
            BlockKind::Reasoning(_) => reasoning.push(block.clone()),
            BlockKind::ToolCall(call) => {
                let same = |own: &ToolCall| own.id == call.id || words(own) == words(call);
                let same = blocks.iter_mut().find(|own| matches!(&own.kind, BlockKind::ToolCall(own) if same(own)));
                if let Some(own) = same.filter(|own| own.proof.is_none()) {
                    own.proof.clone_from(&block.proof);
                }
            }
            BlockKind::Text(text) => {
                let same = blocks.iter_mut().find(|own| matches!(&own.kind, BlockKind::Text(own) if own.text.trim() == text.text.trim()));
                if let Some(own) = same.filter(|own| own.proof.is_none()) {
                    own.proof.clone_from(&block.proof);
                }
            }
            _ => {}
        }
    }
    if !reasoning.is_empty() {
        // What the client sends of it is a copy without its proof.
        blocks.retain(|own| !(matches!(own.kind, BlockKind::Reasoning(_)) && own.proof.is_none()));
        blocks.splice(0..0, reasoning);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{
        block::{Proof, ProofKind, Reasoning},
        op::Dialect,
        request::Message,
    };

    fn proof(value: &str) -> Option<Proof> {
        Some(Proof { dialect: Dialect::Anthropic, kind: ProofKind::Signature, value: value.to_owned(), id: None })
    }

    fn thought(text: &str, signed: bool) -> Block {
        let kind = BlockKind::Reasoning(Reasoning { text: text.to_owned(), summary: false });
        Block { proof: signed.then(|| proof("sig")).flatten(), ..Block::new(kind) }
    }

    fn call(id: &str) -> Block {
        Block::new(BlockKind::ToolCall(ToolCall { id: id.to_owned(), name: format!("tool of {id}"), ..ToolCall::default() }))
    }

    fn turn(blocks: Vec<Block>) -> ChatRequest {
        ChatRequest { messages: vec![Message::new(Role::Assistant, blocks)], ..ChatRequest::default() }
    }

    #[test]
    fn proofs_come_back_by_call_id_or_by_text_and_only_in_their_project() {
        let kept = Continuity::default();
        let now = Mono::default();
        kept.keep("a", &ChatResponse { blocks: vec![thought("hm", true), call("c1"), call("c2")], ..ChatResponse::default() }, now);
        kept.keep("a", &ChatResponse { blocks: vec![thought("ah", true), Block::text("yes ")], ..ChatResponse::default() }, now);

        let mut request = turn(vec![thought("hm", false), call("c2")]);
        kept.restore("a", &mut request, now);
        assert_eq!(request.messages[0].blocks, [thought("hm", true), call("c2")]);
        let mut again = request.clone();
        kept.restore("a", &mut again, now);
        assert_eq!(again, request, "once is enough");

        let mut other = call("made up");
        if let BlockKind::ToolCall(call) = &mut other.kind {
            call.name = "tool of c2".to_owned();
        }
        let mut request = turn(vec![other.clone()]);
        kept.restore("a", &mut request, now);
        assert_eq!(request.messages[0].blocks, [thought("hm", true), other], "by name and arguments");

        let mut request = turn(vec![Block::text("yes")]);
        kept.restore("a", &mut request, now);
        assert_eq!(request.messages[0].blocks, [thought("ah", true), Block::text("yes")]);

        let mut request = turn(vec![call("c1")]);
        kept.restore("b", &mut request, now);
        assert_eq!(request, turn(vec![call("c1")]), "another project");
        let mut request = turn(vec![call("c1")]);
        kept.restore("a", &mut request, now + TTL);
        assert_eq!(request, turn(vec![call("c1")]), "too late");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let kept = Continuity::default();
        for n in 0..200 {
            let mut block = thought(&"x".repeat(1 << 19), true);
            block.proof = proof(&n.to_string());
            kept.keep("a", &ChatResponse { blocks: vec![block, call(&n.to_string())], ..ChatResponse::default() }, Mono::default());
        }
        let inside = kept.0.lock().expect("not poisoned");
        assert!(inside.bytes <= BYTES && inside.by_key.len() < 160 && inside.order.len() < 80);
    }
}
