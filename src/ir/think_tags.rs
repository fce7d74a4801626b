//! Turns `<think>…</think>` at the start of a response's text into reasoning. Tags may be split
//! anywhere and need no line break.

use crate::ir::{
    block::{Block, BlockKind, Reasoning, TextBlock},
    event::{BlockStart, ChatEvent},
    open_blocks::OpenBlocks,
    response::ChatResponse,
};

const OPEN_TAG: &str = "<think>";
const CLOSE_TAG: &str = "</think>";

/// Rewrites the events of a response. Only the first text is examined, and only before any other
/// content.
#[derive(Debug, Default)]
pub struct ThinkTagSplitter {
    state: ThinkState,
    /// Text that may still turn out to be a tag.
    pending: String,
    /// The block that is being split, by the reader's number, and the numbers of all blocks as
    /// emitted.
    source_block: Option<u32>,
    renumbered: Vec<(u32, u32)>,
    blocks: OpenBlocks,
    next_block: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ThinkState {
    /// No content yet except white space.
    #[default]
    Start,
    Inside,
    /// After the closing tag: white space before the answer is dropped.
    AfterCloseTag,
    Done,
}

impl ThinkTagSplitter {
    /// Takes an event and appends the events that it becomes.
    pub fn push(&mut self, event: ChatEvent, out: &mut Vec<ChatEvent>) {
        match event {
            ChatEvent::Open { block, head: BlockStart::Text }
                if self.state == ThinkState::Start && self.source_block.is_none() =>
            {
                self.source_block = Some(block);
            }
            ChatEvent::Delta { block, text } if self.source_block == Some(block) => {
                self.push_text(&text, out);
            }
            ChatEvent::Close { block } if self.source_block == Some(block) => {
                self.close_source(out);
            }
            ChatEvent::Open { block, head } => {
                self.close_source(out);
                self.state = ThinkState::Done;
                let number = self.allocate_block();
                self.renumbered.push((block, number));
                out.push(ChatEvent::Open { block: number, head });
            }
            ChatEvent::Delta { block, text } => {
                out.extend(self.renumber(block).map(|block| ChatEvent::Delta { block, text }));
            }
            ChatEvent::Signature { block, signature: proof } => {
                out.extend(
                    self.renumber(block)
                        .map(|block| ChatEvent::Signature { block, signature: proof }),
                );
            }
            ChatEvent::Phase { block, phase } => {
                out.extend(self.renumber(block).map(|block| ChatEvent::Phase { block, phase }));
            }
            ChatEvent::Citation { block, citation } => {
                out.extend(
                    self.renumber(block).map(|block| ChatEvent::Citation { block, citation }),
                );
            }
            ChatEvent::Close { block } => {
                out.extend(self.renumber(block).map(|block| ChatEvent::Close { block }));
            }
            ChatEvent::End { .. } => {
                self.close_source(out);
                out.push(event);
            }
            ChatEvent::Begin { .. } | ChatEvent::Logprobs(_) => out.push(event),
        }
    }

    fn allocate_block(&mut self) -> u32 {
        let next = self.next_block;
        self.next_block += 1;
        next
    }

    fn renumber(&self, block: u32) -> Option<u32> {
        if self.source_block == Some(block) {
            return self.blocks.current_prose();
        }
        self.renumbered.iter().find(|(source, _)| *source == block).map(|(_, number)| *number)
    }

    fn emit(&mut self, head: BlockStart, text: &str, out: &mut Vec<ChatEvent>) {
        let from = out.len();
        self.blocks.push_prose(head, text, out);
        self.next_block +=
            out[from..].iter().filter(|event| matches!(event, ChatEvent::Open { .. })).count()
                as u32;
    }

    fn push_text(&mut self, text: &str, out: &mut Vec<ChatEvent>) {
        if self.state == ThinkState::Done {
            return self.emit(BlockStart::Text, text, out);
        }
        self.pending.push_str(text);
        loop {
            match self.state {
                ThinkState::Start => {
                    let trimmed = self.pending.trim_start();
                    if trimmed.is_empty()
                        || trimmed.len() < OPEN_TAG.len() && OPEN_TAG.starts_with(trimmed)
                    {
                        return;
                    }
                    match trimmed.strip_prefix(OPEN_TAG) {
                        Some(rest) => {
                            self.pending = rest.to_owned();
                            self.state = ThinkState::Inside;
                        }
                        None => {
                            self.state = ThinkState::Done;
                            let pending = std::mem::take(&mut self.pending);
                            return self.emit(BlockStart::Text, &pending, out);
                        }
                    }
                }
                ThinkState::Inside => match self.find_close_tag() {
                    Some(at) => {
                        let rest = self.pending.split_off(at + CLOSE_TAG.len());
                        self.pending.truncate(at);
                        let thought = std::mem::replace(&mut self.pending, rest);
                        self.emit(BlockStart::Reasoning { summary: false }, &thought, out);
                        self.state = ThinkState::AfterCloseTag;
                    }
                    None => {
                        let keep = (1..CLOSE_TAG.len())
                            .rev()
                            .find(|n| self.pending.ends_with(&CLOSE_TAG[..*n]))
                            .unwrap_or(0);
                        let tail = self.pending.split_off(self.pending.len() - keep);
                        let thought = std::mem::replace(&mut self.pending, tail);
                        return self.emit(BlockStart::Reasoning { summary: false }, &thought, out);
                    }
                },
                ThinkState::AfterCloseTag => {
                    let rest = self.pending.trim_start().to_owned();
                    self.pending.clear();
                    if !rest.is_empty() {
                        self.state = ThinkState::Done;
                        self.emit(BlockStart::Text, &rest, out);
                    }
                    return;
                }
                ThinkState::Done => return,
            }
        }
    }

    /// Returns where the reasoning ends in the pending text; drops line breaks before its first
    /// word.
    fn find_close_tag(&mut self) -> Option<usize> {
        if self.blocks.current_prose().is_none() {
            let breaks = self.pending.len() - self.pending.trim_start_matches(['\n', '\r']).len();
            self.pending.drain(..breaks);
        }
        self.pending.find(CLOSE_TAG)
    }

    fn close_source(&mut self, out: &mut Vec<ChatEvent>) {
        if self.source_block.is_none() {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        match self.state {
            ThinkState::Start | ThinkState::Done => self.emit(BlockStart::Text, &pending, out),
            ThinkState::Inside => {
                self.emit(BlockStart::Reasoning { summary: false }, &pending, out);
            }
            ThinkState::AfterCloseTag => {}
        }
        self.blocks.close_all(out);
        self.state = ThinkState::Done;
        self.source_block = None;
    }
}

/// Does the same for a complete response.
pub fn split_response(response: &mut ChatResponse) {
    let Some(at) =
        response.blocks.iter().position(|block| !matches!(block.kind, BlockKind::Foreign { .. }))
    else {
        return;
    };
    let BlockKind::Text(text) = &mut response.blocks[at].kind else { return };
    let Some(inside) = text.text.trim_start().strip_prefix(OPEN_TAG) else { return };
    let (thought, rest) = inside.split_once(CLOSE_TAG).unwrap_or((inside, ""));
    let thought = thought.trim_start_matches(['\n', '\r']).to_owned();
    let rest = TextBlock {
        text: rest.trim_start().to_owned(),
        citations: std::mem::take(&mut text.citations),
    };
    let mut blocks =
        vec![Block::new(BlockKind::Reasoning(Reasoning { text: thought, summary: false }))];
    if !rest.text.is_empty() {
        blocks.push(Block { kind: BlockKind::Text(rest), ..response.blocks[at].clone() });
    }
    response.blocks.splice(at..=at, blocks);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::assemble::{Assembler, to_events};

    fn text_response(text: &str) -> ChatResponse {
        ChatResponse { blocks: vec![Block::text(text)], ..ChatResponse::default() }
    }

    fn reasoning_and_text(response: &ChatResponse) -> (String, String) {
        let (mut thought, mut visible) = (String::new(), String::new());
        for block in &response.blocks {
            match &block.kind {
                BlockKind::Reasoning(it) => thought.push_str(&it.text),
                BlockKind::Text(it) => visible.push_str(&it.text),
                _ => {}
            }
        }
        (thought, visible)
    }

    #[test]
    fn thoughts_are_separated_from_text_at_any_cut() {
        for (text, thought, rest) in [
            ("<think>\nhm < 3</think>\n\nyes", "hm < 3", "yes"),
            ("<think></think>yes", "", "yes"),
            ("yes <think>no</think>", "", "yes <think>no</think>"),
            ("<thin", "", "<thin"),
            ("<think>never closed </thi", "never closed </thi", ""),
            ("  plain", "", "  plain"),
        ] {
            let mut response = text_response(text);
            split_response(&mut response);
            assert_eq!(
                reasoning_and_text(&response),
                (thought.to_owned(), rest.to_owned()),
                "{text}"
            );
            for cut in 0..text.len() {
                let (mut splitter, mut out) = (ThinkTagSplitter::default(), Vec::new());
                for event in to_events(&text_response("")) {
                    if let ChatEvent::Close { .. } = event {
                        for piece in [&text[..cut], &text[cut..]] {
                            splitter.push(
                                ChatEvent::Delta { block: 0, text: piece.to_owned() },
                                &mut out,
                            );
                        }
                    }
                    splitter.push(event, &mut out);
                }
                crate::ir::validate::validate_events(&out).expect("well formed");
                let mut assembler = Assembler::default();
                out.iter().for_each(|event| assembler.feed(event));
                let (got, visible) = reasoning_and_text(&assembler.finish().expect("complete"));
                assert_eq!((got.as_str(), visible.as_str()), (thought, rest), "{text} at {cut}");
            }
        }
    }
}
