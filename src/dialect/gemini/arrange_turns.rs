//! Arranges a conversation into the order that the provider requires. User and model alternate, and
//! the results of a model turn's calls directly follow that turn.

use crate::{
    dialect::results_by_call::ResultsByCall,
    ir::{
        block::{Block, BlockKind, ToolResult},
        request::{ChatMessage, Role},
    },
};

/// The consecutive messages of one side.
pub(super) struct GeminiTurn<'a> {
    pub(super) is_model: bool,
    pub(super) items: Vec<GeminiTurnItem<'a>>,
}

pub(super) enum GeminiTurnItem<'a> {
    Block(&'a Block),
    /// The result of a call in the previous turn, with the name of that call.
    Result {
        block: &'a Block,
        result: &'a ToolResult,
        name: &'a str,
    },
    /// A call without a result.
    Unanswered {
        id: &'a str,
        name: &'a str,
    },
    /// A result whose call is not in the conversation.
    Orphan(&'a ToolResult),
}

/// Arranges the messages into turns. System messages are left out, because they are written
/// elsewhere.
pub(super) fn arrange_turns<'a>(messages: &'a [ChatMessage]) -> Vec<GeminiTurn<'a>> {
    let mut results = ResultsByCall::collect(messages);
    let mut turns: Vec<GeminiTurn<'a>> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        if message.role == Role::System || message.blocks.is_empty() {
            continue;
        }
        let model = message.role == Role::Assistant;
        if turns.last().is_none_or(|turn| turn.is_model != model) {
            let items = if model {
                Vec::new()
            } else {
                results_for(turns.last(), messages, at, &mut results)
            };
            turns.push(GeminiTurn { is_model: model, items });
        }
        let Some(turn) = turns.last_mut() else { continue };
        // The results are in the order of their blocks.
        let mut number = results.first_from(at);
        for block in &message.blocks {
            match &block.kind {
                BlockKind::ToolResult(result) => {
                    number += 1;
                    if results.take(number - 1) {
                        turn.items.push(GeminiTurnItem::Orphan(result));
                    }
                }
                _ => turn.items.push(GeminiTurnItem::Block(block)),
            }
        }
    }
    let items = results_for(turns.last(), messages, messages.len(), &mut results);
    if !items.is_empty() {
        turns.push(GeminiTurn { is_model: false, items });
    }
    turns.retain(|turn| !turn.items.is_empty());
    turns
}

/// The results of a model turn's calls, in the order of the calls. `from` is the index of the
/// message after that turn.
fn results_for<'a>(
    turn: Option<&GeminiTurn<'a>>,
    messages: &'a [ChatMessage],
    from: usize,
    results: &mut ResultsByCall<'a>,
) -> Vec<GeminiTurnItem<'a>> {
    let mut items = Vec::new();
    let until = messages
        .iter()
        .skip(from)
        .position(|message| message.role == Role::Assistant)
        .map_or(messages.len(), |at| from + at);
    for item in turn.filter(|turn| turn.is_model).into_iter().flat_map(|turn| &turn.items) {
        let GeminiTurnItem::Block(Block { kind: BlockKind::ToolCall(call), .. }) = item else {
            continue;
        };
        items.push(
            match results.take_between(&call.id, from, until).map(|number| results.get(number)) {
                Some(it) => {
                    GeminiTurnItem::Result { block: it.block, result: it.result, name: &call.name }
                }
                None => GeminiTurnItem::Unanswered { id: &call.id, name: &call.name },
            },
        );
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::block::ToolCall;

    fn call(id: &str) -> Block {
        Block::new(BlockKind::ToolCall(ToolCall {
            id: id.to_owned(),
            name: format!("f{id}"),
            ..ToolCall::default()
        }))
    }

    fn result(id: &str) -> Block {
        Block::new(BlockKind::ToolResult(ToolResult {
            call: id.to_owned(),
            ..ToolResult::default()
        }))
    }

    fn describe(messages: &[(Role, Vec<Block>)]) -> String {
        let messages: Vec<ChatMessage> =
            messages.iter().map(|(role, blocks)| ChatMessage::new(*role, blocks.clone())).collect();
        let turns = arrange_turns(&messages);
        let turn = |turn: &GeminiTurn<'_>| {
            let items = turn.items.iter().map(|item| match item {
                GeminiTurnItem::Block(Block { kind: BlockKind::ToolCall(call), .. }) => {
                    format!("call {}", call.id)
                }
                GeminiTurnItem::Block(_) => "text".to_owned(),
                GeminiTurnItem::Result { result, name, .. } => format!("{} of {name}", result.call),
                GeminiTurnItem::Unanswered { id, .. } => format!("none for {id}"),
                GeminiTurnItem::Orphan(result) => format!("orphan {}", result.call),
            });
            format!(
                "{}: {}",
                if turn.is_model { "model" } else { "user" },
                items.collect::<Vec<_>>().join(", ")
            )
        };
        turns.iter().map(turn).collect::<Vec<_>>().join("; ")
    }

    /// Results in an order that the provider refuses.
    #[test]
    fn results_follow_their_calls() {
        use Role::{Assistant as A, User as U};
        let text = || Block::text("t");
        for (messages, want) in [
            (
                vec![
                    (U, vec![text()]),
                    (A, vec![call("1"), call("2")]),
                    (U, vec![text(), result("2"), result("1")]),
                ],
                "user: text; model: call 1, call 2; user: 1 of f1, 2 of f2, text",
            ),
            (
                vec![
                    (A, vec![call("1")]),
                    (A, vec![call("2"), text()]),
                    (U, vec![result("1")]),
                    (U, vec![result("2")]),
                ],
                "model: call 1, call 2, text; user: 1 of f1, 2 of f2",
            ),
            (
                vec![
                    (A, vec![call("1")]),
                    (U, vec![text()]),
                    (A, vec![text()]),
                    (U, vec![result("1"), result("9")]),
                ],
                "model: call 1; user: 1 of f1, text; model: text; user: orphan 9",
            ),
            (
                vec![
                    (A, vec![call("1")]),
                    (U, vec![text()]),
                    (A, vec![call("1")]),
                    (U, vec![result("1")]),
                ],
                "model: call 1; user: none for 1, text; model: call 1; user: 1 of f1",
            ),
            (
                vec![(U, vec![text()]), (A, vec![call("1")])],
                "user: text; model: call 1; user: none for 1",
            ),
            (vec![(U, vec![result("1"), text()]), (U, vec![])], "user: orphan 1, text"),
        ] {
            assert_eq!(describe(&messages), want);
        }
    }
}
