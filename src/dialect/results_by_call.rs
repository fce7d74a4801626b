//! The tool results of a conversation, matched to their calls without a scan for each call.

use std::collections::{HashMap, VecDeque};

use crate::ir::{
    block::{Block, BlockKind, ToolResult},
    request::ChatMessage,
};

/// All results in the order of the conversation. Each can be taken once.
pub(super) struct ResultsByCall<'a> {
    all: Vec<PlacedResult<'a>>,
    /// The results of each call, in their order; some may be taken already.
    by_call: HashMap<&'a str, VecDeque<usize>>,
    /// The last message with a call of each id.
    last_call: HashMap<&'a str, usize>,
}

/// A result and the index of its message.
pub(super) struct PlacedResult<'a> {
    pub(super) message: usize,
    pub(super) block: &'a Block,
    pub(super) result: &'a ToolResult,
    is_taken: bool,
}

impl<'a> ResultsByCall<'a> {
    pub(super) fn collect(messages: &'a [ChatMessage]) -> Self {
        let mut results =
            Self { all: Vec::new(), by_call: HashMap::new(), last_call: HashMap::new() };
        let blocks = messages
            .iter()
            .enumerate()
            .flat_map(|(at, message)| message.blocks.iter().map(move |block| (at, block)));
        for (message, block) in blocks {
            match &block.kind {
                BlockKind::ToolResult(result) => {
                    let number = results.all.len();
                    results.by_call.entry(&result.call).or_default().push_back(number);
                    results.all.push(PlacedResult { message, block, result, is_taken: false });
                }
                BlockKind::ToolCall(call) => {
                    results.last_call.insert(&call.id, message);
                }
                _ => {}
            }
        }
        results
    }

    pub(super) fn get(&self, number: usize) -> &PlacedResult<'a> {
        &self.all[number]
    }

    /// Returns the number of the first result in a message or after it. The results of a message
    /// have consecutive numbers.
    pub(super) fn first_from(&self, message: usize) -> usize {
        self.all.partition_point(|result| result.message < message)
    }

    /// Takes a result; returns whether it was not taken before.
    pub(super) fn take(&mut self, number: usize) -> bool {
        !std::mem::replace(&mut self.all[number].is_taken, true)
    }

    /// Takes the first result of a call after a message. Calls are asked for in the order of their
    /// messages.
    pub(super) fn take_after(&mut self, call: &str, message: usize) -> Option<usize> {
        let number = self.first_of(call, message + 1)?;
        self.take(number);
        Some(number)
    }

    /// Takes the result of a call in a turn that ends before message `from`: one before the next
    /// turn of the model, which begins at message `until`, or a later one unless the id is called
    /// again. Calls are asked for in the order of their messages.
    pub(super) fn take_between(&mut self, call: &str, from: usize, until: usize) -> Option<usize> {
        let number = self.first_of(call, from)?;
        let is_near = self.all[number].message < until;
        let is_called_again = self.last_call.get(call).is_some_and(|message| *message >= until);
        if !is_near && is_called_again {
            return None;
        }
        self.take(number);
        Some(number)
    }

    fn first_of(&mut self, call: &str, from: usize) -> Option<usize> {
        let waiting = self.by_call.get_mut(call)?;
        // What is taken, or came before this turn, is of no use to later turns either.
        while waiting
            .front()
            .is_some_and(|number| self.all[*number].is_taken || self.all[*number].message < from)
        {
            waiting.pop_front();
        }
        waiting.front().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{block::ToolCall, request::Role};

    #[test]
    fn each_result_is_assigned_once_to_its_turn() {
        let call = |id: &str| {
            Block::new(BlockKind::ToolCall(ToolCall { id: id.to_owned(), ..ToolCall::default() }))
        };
        let result = |id: &str| {
            Block::new(BlockKind::ToolResult(ToolResult {
                call: id.to_owned(),
                ..ToolResult::default()
            }))
        };
        let messages = [
            ChatMessage::new(Role::User, vec![result("a")]),
            ChatMessage::new(Role::Assistant, vec![call("a"), call("b")]),
            ChatMessage::new(Role::User, vec![result("a")]),
            ChatMessage::new(Role::Assistant, vec![call("a")]),
            ChatMessage::new(Role::User, vec![result("a"), result("b")]),
        ];
        let mut results = ResultsByCall::collect(&messages);
        assert_eq!(results.first_from(4), 2);
        assert_eq!(results.take_between("a", 2, 3), Some(1));
        assert_eq!(results.take_between("b", 2, 3), Some(3));
        assert_eq!(results.take_after("a", 3), Some(2));
        assert_eq!(results.take_after("a", 3), None);
        assert!(results.take(0) && !results.take(0));

        let mut again = ResultsByCall::collect(&messages[1..4]);
        again.take(0);
        assert_eq!(again.take_between("a", 1, 2), None);
    }
}
