//! Tracks open blocks for readers of dialects that only send deltas.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::ir::{
    block::{CallKind, ReasoningSignature},
    event::{BlockStart, ChatEvent},
    partial_json::PartialJson,
};

/// The open blocks of a stream. Prose closes when something else begins. A call closes when
/// something else begins and its arguments are complete, so interleaved calls stay open
/// concurrently.
#[derive(Debug, Default)]
pub struct OpenBlocks {
    next_block: u32,
    prose: Option<(u32, BlockStart)>,
    /// The open calls by their blocks, which grow in the order of the calls.
    calls: BTreeMap<u32, OpenCall>,
    /// The block of the latest call with each of the upstream's numbers.
    by_key: HashMap<u64, u32>,
    /// The open calls whose arguments are complete.
    complete: BTreeSet<u32>,
}

#[derive(Debug)]
struct OpenCall {
    arguments: PartialJson,
}

impl OpenBlocks {
    /// Continues text, reasoning or a refusal; empty text opens nothing.
    pub fn push_prose(&mut self, head: BlockStart, text: &str, out: &mut Vec<ChatEvent>) {
        if text.is_empty() {
            return;
        }
        let block = self.open_prose(head, out);
        out.push(ChatEvent::Delta { block, text: text.to_owned() });
    }

    /// Returns the prose block of this kind; opens it if needed.
    pub fn open_prose(&mut self, head: BlockStart, out: &mut Vec<ChatEvent>) -> u32 {
        match &self.prose {
            Some((block, open)) if *open == head => *block,
            _ => {
                self.close_complete(out);
                let block = self.open_block(head.clone(), out);
                self.prose = Some((block, head));
                block
            }
        }
    }

    /// Returns the open prose block.
    #[must_use]
    pub fn current_prose(&self) -> Option<u32> {
        self.prose.as_ref().map(|(block, _)| *block)
    }

    /// Adds a signature to the open prose block of this kind; opens an empty one if none is open.
    pub fn push_signature(
        &mut self,
        head: BlockStart,
        proof: ReasoningSignature,
        out: &mut Vec<ChatEvent>,
    ) {
        let block = self.open_prose(head, out);
        out.push(ChatEvent::Signature { block, signature: proof });
    }

    /// Whether the call has been opened.
    #[must_use]
    pub fn has_call(&self, key: u64) -> bool {
        self.by_key.contains_key(&key)
    }

    /// Returns the block of a call while it is open.
    #[must_use]
    pub fn call_block(&self, key: u64) -> Option<u32> {
        self.by_key.get(&key).copied().filter(|block| self.calls.contains_key(block))
    }

    /// Opens a call; returns its block.
    pub fn start_call(
        &mut self,
        key: u64,
        id: String,
        name: String,
        form: CallKind,
        out: &mut Vec<ChatEvent>,
    ) -> u32 {
        self.close_complete(out);
        let block = self.open_block(BlockStart::ToolCall { id, name, form }, out);
        let call = OpenCall { arguments: PartialJson::default() };
        if call.arguments.is_complete() {
            self.complete.insert(block);
        }
        self.calls.insert(block, call);
        self.by_key.insert(key, block);
        block
    }

    /// Appends to a call's arguments; drops text after complete arguments.
    pub fn push_arguments(&mut self, key: u64, text: &str, out: &mut Vec<ChatEvent>) {
        let Some(&block) = self.by_key.get(&key) else { return };
        let Some(call) = self.calls.get_mut(&block).filter(|_| !text.is_empty()) else { return };
        call.arguments.feed(text);
        if call.arguments.is_complete() {
            self.complete.insert(block);
        } else {
            self.complete.remove(&block);
        }
        out.push(ChatEvent::Delta { block, text: text.to_owned() });
    }

    /// Emits a complete block: opened and closed at once.
    pub fn push_complete(
        &mut self,
        head: BlockStart,
        proof: Option<ReasoningSignature>,
        out: &mut Vec<ChatEvent>,
    ) -> u32 {
        self.close_complete(out);
        let block = self.open_block(head, out);
        if let Some(proof) = proof {
            out.push(ChatEvent::Signature { block, signature: proof });
        }
        out.push(ChatEvent::Close { block });
        block
    }

    /// Whether there was any call.
    #[must_use]
    pub fn has_calls(&self) -> bool {
        !self.by_key.is_empty()
    }

    /// Whether an open call has incomplete arguments.
    #[must_use]
    pub fn has_incomplete_call(&self) -> bool {
        self.complete.len() < self.calls.len()
    }

    /// Whether any block was ever opened.
    #[must_use]
    pub fn has_blocks(&self) -> bool {
        self.next_block > 0
    }

    /// Closes all blocks; the response is complete.
    pub fn close_all(&mut self, out: &mut Vec<ChatEvent>) {
        self.close_prose(out);
        self.complete.clear();
        let open = std::mem::take(&mut self.calls);
        out.extend(open.into_keys().map(|block| ChatEvent::Close { block }));
    }

    fn open_block(&mut self, head: BlockStart, out: &mut Vec<ChatEvent>) -> u32 {
        let block = self.next_block;
        self.next_block += 1;
        out.push(ChatEvent::Open { block, head });
        block
    }

    fn close_prose(&mut self, out: &mut Vec<ChatEvent>) {
        if let Some((block, _)) = self.prose.take() {
            out.push(ChatEvent::Close { block });
        }
    }

    /// Closes complete blocks because something else begins.
    fn close_complete(&mut self, out: &mut Vec<ChatEvent>) {
        self.close_prose(out);
        for block in std::mem::take(&mut self.complete) {
            self.calls.remove(&block);
            out.push(ChatEvent::Close { block });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_close_when_complete_and_stay_open_when_interleaved() {
        let (mut blocks, mut out) = (OpenBlocks::default(), Vec::new());
        blocks.push_prose(BlockStart::Text, "a", &mut out);
        for (key, name) in [(0, "x"), (1, "y")] {
            blocks.start_call(key, name.to_owned(), name.to_owned(), CallKind::Function, &mut out);
            blocks.push_arguments(key, "{\"a\":", &mut out);
        }
        blocks.push_arguments(0, "\"}\\\"\"}", &mut out);
        blocks.push_arguments(1, "1}", &mut out);
        blocks.push_prose(BlockStart::Text, "b", &mut out);
        blocks.close_all(&mut out);
        let shape: Vec<String> = out
            .iter()
            .map(|event| match event {
                ChatEvent::Open { block, .. } => format!("open {block}"),
                ChatEvent::Delta { block, .. } => format!("delta {block}"),
                ChatEvent::Close { block } => format!("close {block}"),
                _ => String::new(),
            })
            .collect();
        assert_eq!(
            shape.join(", "),
            "open 0, delta 0, close 0, open 1, delta 1, open 2, delta 2, delta 1, delta 2, close 1, close 2, open 3, delta 3, close 3"
        );
    }
}
