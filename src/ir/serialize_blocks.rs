//! Serialises interleaved blocks, for writers whose dialect cannot interleave them.

use std::collections::VecDeque;

use crate::ir::event::ChatEvent;

/// Lets one block through at a time. Events of other blocks are buffered, in order, until it
/// closes.
#[derive(Debug, Default)]
pub struct BlockSerializer {
    open: Option<u32>,
    deferred: VecDeque<ChatEvent>,
}

impl BlockSerializer {
    /// Takes an event and appends the events that may be written now. `End` releases everything.
    pub fn push(&mut self, event: ChatEvent, out: &mut Vec<ChatEvent>) {
        if !self.deferred.is_empty() && matches!(event, ChatEvent::End { .. }) {
            self.open = None;
            while let Some(block) = self.deferred.iter().find_map(block_of) {
                let (now, later) =
                    self.deferred.drain(..).partition(|event| block_of(event) == Some(block));
                self.deferred = later;
                let now: VecDeque<ChatEvent> = now;
                out.extend(now);
            }
        }
        match (block_of(&event), self.open) {
            (Some(block), Some(open)) if block != open => self.deferred.push_back(event),
            (Some(block), _) => {
                let closes = matches!(event, ChatEvent::Close { .. });
                self.open = (!closes).then_some(block);
                out.push(event);
                if closes {
                    self.release(out);
                }
            }
            (None, _) => out.push(event),
        }
    }

    fn release(&mut self, out: &mut Vec<ChatEvent>) {
        for event in std::mem::take(&mut self.deferred) {
            self.push(event, out);
        }
    }
}

fn block_of(event: &ChatEvent) -> Option<u32> {
    match event {
        ChatEvent::Open { block, .. }
        | ChatEvent::Delta { block, .. }
        | ChatEvent::Signature { block, .. }
        | ChatEvent::Citation { block, .. }
        | ChatEvent::Phase { block, .. }
        | ChatEvent::Close { block } => Some(*block),
        ChatEvent::Begin { .. } | ChatEvent::Logprobs(_) | ChatEvent::End { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::event::BlockStart;

    #[test]
    fn interleaved_blocks_are_serialised() {
        let open = |block| ChatEvent::Open { block, head: BlockStart::Text };
        let delta = |block| ChatEvent::Delta { block, text: block.to_string() };
        let close = |block| ChatEvent::Close { block };
        let (mut sequence, mut out) = (BlockSerializer::default(), Vec::new());
        for event in [
            open(0),
            delta(0),
            open(1),
            delta(1),
            delta(0),
            open(2),
            close(1),
            delta(2),
            close(0),
            delta(2),
            close(2),
        ] {
            sequence.push(event, &mut out);
        }
        let want = [
            open(0),
            delta(0),
            delta(0),
            close(0),
            open(1),
            delta(1),
            close(1),
            open(2),
            delta(2),
            delta(2),
            close(2),
        ];
        assert_eq!(out, want);
    }
}
