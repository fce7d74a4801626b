//! An answer as it comes: blocks open, grow and close.

use crate::{
    base::json::raw::RawJson,
    ir::{
        block::{CallKind, Citation, Media, ReasoningSignature},
        op::Dialect,
        response::Finish,
        usage::Usage,
    },
};

/// One step of an answer. `Begin` first and once; then blocks, each opened, grown and closed,
/// several possibly at once; `End` last and once. Block numbers count up from 0 in the order of
/// opening and are never used again.
#[derive(Clone, Debug, PartialEq)]
pub enum ChatEvent {
    Begin {
        /// The upstream's id; empty where it gives none.
        id: String,
        model: String,
        created: Option<i64>,
        /// What is known of the input already.
        usage: Option<Usage>,
    },
    Open {
        block: u32,
        head: BlockStart,
    },
    Delta {
        block: u32,
        /// Text, reasoning, refusal, or a piece of a call's arguments.
        text: String,
    },
    /// The proof of a block; any time before its `Close`.
    Signature {
        block: u32,
        signature: ReasoningSignature,
    },
    Citation {
        block: u32,
        citation: Citation,
    },
    /// Elements of OpenAI's `logprobs.content`, a JSON array, belonging to the text just told.
    Logprobs(RawJson),
    Close {
        block: u32,
    },
    End {
        finish: Finish,
        usage: Option<Usage>,
        service_tier: Option<String>,
    },
}

/// What a block is, told when it opens.
#[derive(Clone, Debug, PartialEq)]
pub enum BlockStart {
    Text,
    Reasoning {
        summary: bool,
    },
    Refusal,
    ToolCall {
        id: String,
        name: String,
        form: CallKind,
    },
    /// Told whole; has no deltas.
    Media(Media),
    /// Told whole; has no deltas.
    Foreign {
        dialect: Dialect,
        body: RawJson,
    },
}
