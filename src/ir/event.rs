//! A response as a stream: blocks open, grow and close.

use crate::{
    base::json::raw::RawJson,
    ir::{
        block::{CallKind, Citation, Media, ReasoningSignature},
        op::Dialect,
        response::Finish,
        usage::Usage,
    },
};

/// One step of a response. `Begin` comes first and once. Blocks follow, each opened, grown and
/// closed, possibly several at once. `End` comes last and once. Block numbers count up from 0 in
/// the order of opening and are never reused.
#[derive(Clone, Debug, PartialEq)]
pub enum ChatEvent {
    Begin {
        /// The upstream's id; empty if absent.
        id: String,
        model: String,
        created: Option<i64>,
        /// The usage known so far, such as the input.
        usage: Option<Usage>,
    },
    Open {
        block: u32,
        head: BlockStart,
    },
    Delta {
        block: u32,
        /// Text, reasoning, refusal, or a part of a call's arguments.
        text: String,
    },
    /// The signature of a block; any time before its `Close`.
    Signature {
        block: u32,
        signature: ReasoningSignature,
    },
    /// The phase of a text (`commentary`, `final_answer`), which the provider wants back with the
    /// next turn (Responses); before its first delta.
    Phase {
        block: u32,
        phase: String,
    },
    Citation {
        block: u32,
        citation: Citation,
    },
    /// Elements of OpenAI's `logprobs.content`, a JSON array, for the preceding text.
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

/// The kind of a block, sent when it opens.
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
    /// Complete at once; has no deltas.
    Media(Media),
    /// Complete at once; has no deltas.
    Foreign {
        dialect: Dialect,
        body: RawJson,
    },
}
