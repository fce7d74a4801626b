//! `<think>…</think>` at the start of an answer's text becomes reasoning: tags cut anywhere, no
//! line break needed.

use crate::ir::{
    block::{Block, BlockKind, Reasoning, Text},
    blocks::Blocks,
    event::{ChatEvent, Head},
    response::ChatResponse,
};

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// Rewrites the events of an answer. Only its first text is looked at, and only before anything
/// else was said.
#[derive(Debug, Default)]
pub struct Split {
    stage: Stage,
    /// What may still turn out to be a tag.
    held: String,
    /// The block that is being split, as the reader numbers it, and all blocks as they are told.
    source: Option<u32>,
    told: Vec<(u32, u32)>,
    blocks: Blocks,
    shift: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Nothing was said but white space.
    #[default]
    Start,
    Inside,
    /// After the closing tag: white space before the answer is dropped.
    Gap,
    Over,
}

impl Split {
    /// Takes an event and appends what it becomes.
    pub fn push(&mut self, event: ChatEvent, out: &mut Vec<ChatEvent>) {
        match event {
            ChatEvent::Open { block, head: Head::Text }
                if self.stage == Stage::Start && self.source.is_none() =>
            {
                self.source = Some(block);
            }
            ChatEvent::Delta { block, text } if self.source == Some(block) => self.text(&text, out),
            ChatEvent::Close { block } if self.source == Some(block) => self.close(out),
            ChatEvent::Open { block, head } => {
                self.close(out);
                self.stage = Stage::Over;
                let told = self.next();
                self.told.push((block, told));
                out.push(ChatEvent::Open { block: told, head });
            }
            ChatEvent::Delta { block, text } => {
                out.extend(self.number(block).map(|block| ChatEvent::Delta { block, text }));
            }
            ChatEvent::Proof { block, proof } => {
                out.extend(self.number(block).map(|block| ChatEvent::Proof { block, proof }));
            }
            ChatEvent::Citation { block, citation } => {
                out.extend(self.number(block).map(|block| ChatEvent::Citation { block, citation }));
            }
            ChatEvent::Close { block } => {
                out.extend(self.number(block).map(|block| ChatEvent::Close { block }))
            }
            ChatEvent::End { .. } => {
                self.close(out);
                out.push(event);
            }
            ChatEvent::Begin { .. } | ChatEvent::Logprobs(_) => out.push(event),
        }
    }

    fn next(&mut self) -> u32 {
        let next = self.shift;
        self.shift += 1;
        next
    }

    fn number(&self, block: u32) -> Option<u32> {
        if self.source == Some(block) {
            return self.blocks.current();
        }
        self.told.iter().find(|(source, _)| *source == block).map(|(_, told)| *told)
    }

    fn say(&mut self, head: Head, text: &str, out: &mut Vec<ChatEvent>) {
        let from = out.len();
        self.blocks.prose(head, text, out);
        self.shift +=
            out[from..].iter().filter(|event| matches!(event, ChatEvent::Open { .. })).count()
                as u32;
    }

    fn text(&mut self, text: &str, out: &mut Vec<ChatEvent>) {
        if self.stage == Stage::Over {
            return self.say(Head::Text, text, out);
        }
        self.held.push_str(text);
        loop {
            match self.stage {
                Stage::Start => {
                    let begun = self.held.trim_start();
                    if begun.is_empty() || begun.len() < OPEN.len() && OPEN.starts_with(begun) {
                        return;
                    }
                    match begun.strip_prefix(OPEN) {
                        Some(rest) => {
                            self.held = rest.to_owned();
                            self.stage = Stage::Inside;
                        }
                        None => {
                            self.stage = Stage::Over;
                            let held = std::mem::take(&mut self.held);
                            return self.say(Head::Text, &held, out);
                        }
                    }
                }
                Stage::Inside => match self.find_close() {
                    Some(at) => {
                        let rest = self.held.split_off(at + CLOSE.len());
                        self.held.truncate(at);
                        let thought = std::mem::replace(&mut self.held, rest);
                        self.say(Head::Reasoning { summary: false }, &thought, out);
                        self.stage = Stage::Gap;
                    }
                    None => {
                        let keep = (1..CLOSE.len())
                            .rev()
                            .find(|n| self.held.ends_with(&CLOSE[..*n]))
                            .unwrap_or(0);
                        let tail = self.held.split_off(self.held.len() - keep);
                        let thought = std::mem::replace(&mut self.held, tail);
                        return self.say(Head::Reasoning { summary: false }, &thought, out);
                    }
                },
                Stage::Gap => {
                    let rest = self.held.trim_start().to_owned();
                    self.held.clear();
                    if !rest.is_empty() {
                        self.stage = Stage::Over;
                        self.say(Head::Text, &rest, out);
                    }
                    return;
                }
                Stage::Over => return,
            }
        }
    }

    /// Where the thought ends in what is held; line breaks before its first word are dropped.
    fn find_close(&mut self) -> Option<usize> {
        if self.blocks.current().is_none() {
            let breaks = self.held.len() - self.held.trim_start_matches(['\n', '\r']).len();
            self.held.drain(..breaks);
        }
        self.held.find(CLOSE)
    }

    fn close(&mut self, out: &mut Vec<ChatEvent>) {
        if self.source.is_none() {
            return;
        }
        let held = std::mem::take(&mut self.held);
        match self.stage {
            Stage::Start | Stage::Over => self.say(Head::Text, &held, out),
            Stage::Inside => self.say(Head::Reasoning { summary: false }, &held, out),
            Stage::Gap => {}
        }
        self.blocks.close(out);
        self.stage = Stage::Over;
        self.source = None;
    }
}

/// Does the same to an answer that came whole.
pub fn split(response: &mut ChatResponse) {
    let Some(at) =
        response.blocks.iter().position(|block| !matches!(block.kind, BlockKind::Foreign { .. }))
    else {
        return;
    };
    let BlockKind::Text(text) = &mut response.blocks[at].kind else { return };
    let Some(inside) = text.text.trim_start().strip_prefix(OPEN) else { return };
    let (thought, rest) = inside.split_once(CLOSE).unwrap_or((inside, ""));
    let thought = thought.trim_start_matches(['\n', '\r']).to_owned();
    let rest =
        Text { text: rest.trim_start().to_owned(), citations: std::mem::take(&mut text.citations) };
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
    use crate::ir::assemble::{Assembler, events};

    fn whole(text: &str) -> ChatResponse {
        ChatResponse { blocks: vec![Block::text(text)], ..ChatResponse::default() }
    }

    fn said(response: &ChatResponse) -> (String, String) {
        let (mut thought, mut told) = (String::new(), String::new());
        for block in &response.blocks {
            match &block.kind {
                BlockKind::Reasoning(it) => thought.push_str(&it.text),
                BlockKind::Text(it) => told.push_str(&it.text),
                _ => {}
            }
        }
        (thought, told)
    }

    #[test]
    fn thoughts_are_told_from_text_wherever_the_stream_is_cut() {
        for (text, thought, rest) in [
            ("<think>\nhm < 3</think>\n\nyes", "hm < 3", "yes"),
            ("<think></think>yes", "", "yes"),
            ("yes <think>no</think>", "", "yes <think>no</think>"),
            ("<thin", "", "<thin"),
            ("<think>never closed </thi", "never closed </thi", ""),
            ("  plain", "", "  plain"),
        ] {
            let mut response = whole(text);
            split(&mut response);
            assert_eq!(said(&response), (thought.to_owned(), rest.to_owned()), "{text}");
            for cut in 0..text.len() {
                let (mut splitter, mut out) = (Split::default(), Vec::new());
                for event in events(&whole("")) {
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
                crate::ir::grammar::check(&out).expect("well formed");
                let mut assembler = Assembler::default();
                out.iter().for_each(|event| assembler.feed(event));
                let (got, told) = said(&assembler.finish().expect("complete"));
                assert_eq!((got.as_str(), told.as_str()), (thought, rest), "{text} at {cut}");
            }
        }
    }
}
