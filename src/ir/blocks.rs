//! Bookkeeping for readers of dialects that only send deltas: what opens a block, and what closes
//! it.

use crate::ir::{
    block::{CallForm, Proof},
    event::{ChatEvent, Head},
    progress::Progress,
};

/// The open blocks of a stream. Prose closes when something else begins; a call closes when
/// something else begins and its arguments are complete, so that interleaved calls stay open side
/// by side.
#[derive(Debug, Default)]
pub struct Blocks {
    next: u32,
    prose: Option<(u32, Head)>,
    calls: Vec<Call>,
}

#[derive(Debug)]
struct Call {
    /// The upstream's own number of the call.
    key: u64,
    block: u32,
    arguments: Progress,
    closed: bool,
}

impl Blocks {
    /// Text, reasoning or a refusal goes on; empty text opens nothing.
    pub fn prose(&mut self, head: Head, text: &str, out: &mut Vec<ChatEvent>) {
        if text.is_empty() {
            return;
        }
        let block = self.open_prose(head, out);
        out.push(ChatEvent::Delta { block, text: text.to_owned() });
    }

    /// The prose block of this kind, opened where it is not.
    pub fn open_prose(&mut self, head: Head, out: &mut Vec<ChatEvent>) -> u32 {
        match &self.prose {
            Some((block, open)) if *open == head => *block,
            _ => {
                self.settle(out);
                let block = self.open(head.clone(), out);
                self.prose = Some((block, head));
                block
            }
        }
    }

    /// The prose block that is open.
    #[must_use]
    pub fn current(&self) -> Option<u32> {
        self.prose.as_ref().map(|(block, _)| *block)
    }

    /// A proof for the open prose block of this kind; opens an empty one where there is none.
    pub fn proof(&mut self, head: Head, proof: Proof, out: &mut Vec<ChatEvent>) {
        let block = self.open_prose(head, out);
        out.push(ChatEvent::Proof { block, proof });
    }

    /// Whether the call has been opened.
    #[must_use]
    pub fn knows(&self, key: u64) -> bool {
        self.calls.iter().any(|call| call.key == key)
    }

    /// The block of a call, while it is open.
    #[must_use]
    pub fn open_call(&self, key: u64) -> Option<u32> {
        self.calls.iter().rfind(|call| call.key == key && !call.closed).map(|call| call.block)
    }

    /// Opens a call; returns its block.
    pub fn call(
        &mut self,
        key: u64,
        id: String,
        name: String,
        form: CallForm,
        out: &mut Vec<ChatEvent>,
    ) -> u32 {
        self.settle(out);
        let block = self.open(Head::ToolCall { id, name, form }, out);
        self.calls.push(Call { key, block, arguments: Progress::default(), closed: false });
        block
    }

    /// A piece of a call's arguments; what comes after complete arguments is not told.
    pub fn arguments(&mut self, key: u64, text: &str, out: &mut Vec<ChatEvent>) {
        let Some(call) = self.calls.iter_mut().rfind(|call| call.key == key && !call.closed) else {
            return;
        };
        if !text.is_empty() {
            call.arguments.feed(text);
            out.push(ChatEvent::Delta { block: call.block, text: text.to_owned() });
        }
    }

    /// A block that is told whole: opened and closed.
    pub fn whole(&mut self, head: Head, proof: Option<Proof>, out: &mut Vec<ChatEvent>) -> u32 {
        self.settle(out);
        let block = self.open(head, out);
        if let Some(proof) = proof {
            out.push(ChatEvent::Proof { block, proof });
        }
        out.push(ChatEvent::Close { block });
        block
    }

    /// Whether there was any call.
    #[must_use]
    pub fn called(&self) -> bool {
        !self.calls.is_empty()
    }

    /// Whether a call is open whose arguments are not complete.
    #[must_use]
    pub fn midway(&self) -> bool {
        self.calls.iter().any(|call| !call.closed && !call.arguments.complete())
    }

    /// Whether anything was ever opened.
    #[must_use]
    pub fn any(&self) -> bool {
        self.next > 0
    }

    /// Closes everything; the answer is complete.
    pub fn close(&mut self, out: &mut Vec<ChatEvent>) {
        self.close_prose(out);
        for call in self.calls.iter_mut().filter(|call| !call.closed) {
            call.closed = true;
            out.push(ChatEvent::Close { block: call.block });
        }
    }

    fn open(&mut self, head: Head, out: &mut Vec<ChatEvent>) -> u32 {
        let block = self.next;
        self.next += 1;
        out.push(ChatEvent::Open { block, head });
        block
    }

    fn close_prose(&mut self, out: &mut Vec<ChatEvent>) {
        if let Some((block, _)) = self.prose.take() {
            out.push(ChatEvent::Close { block });
        }
    }

    /// Something else begins.
    fn settle(&mut self, out: &mut Vec<ChatEvent>) {
        self.close_prose(out);
        for call in self.calls.iter_mut().filter(|call| !call.closed && call.arguments.complete()) {
            call.closed = true;
            out.push(ChatEvent::Close { block: call.block });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_close_when_complete_and_stay_open_when_interleaved() {
        let (mut blocks, mut out) = (Blocks::default(), Vec::new());
        blocks.prose(Head::Text, "a", &mut out);
        for (key, name) in [(0, "x"), (1, "y")] {
            blocks.call(key, name.to_owned(), name.to_owned(), CallForm::Function, &mut out);
            blocks.arguments(key, "{\"a\":", &mut out);
        }
        blocks.arguments(0, "\"}\\\"\"}", &mut out);
        blocks.arguments(1, "1}", &mut out);
        blocks.prose(Head::Text, "b", &mut out);
        blocks.close(&mut out);
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
