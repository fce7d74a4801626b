//! Holds interleaved blocks back, for writers whose dialect tells them one after the other.

use std::collections::VecDeque;

use crate::ir::event::ChatEvent;

/// Lets one block through at a time; what belongs to others waits, in order, until it closes.
#[derive(Debug, Default)]
pub struct Sequence {
    open: Option<u32>,
    held: VecDeque<ChatEvent>,
}

impl Sequence {
    /// Takes an event and gives what may be told now. `End` lets everything through.
    pub fn push(&mut self, event: ChatEvent, told: &mut Vec<ChatEvent>) {
        if !self.held.is_empty() && matches!(event, ChatEvent::End { .. }) {
            self.open = None;
            while let Some(block) = self.held.iter().find_map(block) {
                let (now, later) =
                    self.held.drain(..).partition(|event| self::block(event) == Some(block));
                self.held = later;
                let now: VecDeque<ChatEvent> = now;
                told.extend(now);
            }
        }
        match (block(&event), self.open) {
            (Some(block), Some(open)) if block != open => self.held.push_back(event),
            (Some(block), _) => {
                let closes = matches!(event, ChatEvent::Close { .. });
                self.open = (!closes).then_some(block);
                told.push(event);
                if closes {
                    self.release(told);
                }
            }
            (None, _) => told.push(event),
        }
    }

    fn release(&mut self, told: &mut Vec<ChatEvent>) {
        for event in std::mem::take(&mut self.held) {
            self.push(event, told);
        }
    }
}

fn block(event: &ChatEvent) -> Option<u32> {
    match event {
        ChatEvent::Open { block, .. }
        | ChatEvent::Delta { block, .. }
        | ChatEvent::Proof { block, .. }
        | ChatEvent::Citation { block, .. }
        | ChatEvent::Close { block } => Some(*block),
        ChatEvent::Begin { .. } | ChatEvent::Logprobs(_) | ChatEvent::End { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::event::Head;

    #[test]
    fn interleaved_blocks_come_one_after_the_other() {
        let open = |block| ChatEvent::Open { block, head: Head::Text };
        let delta = |block| ChatEvent::Delta { block, text: block.to_string() };
        let close = |block| ChatEvent::Close { block };
        let (mut sequence, mut told) = (Sequence::default(), Vec::new());
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
            sequence.push(event, &mut told);
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
        assert_eq!(told, want);
    }
}
