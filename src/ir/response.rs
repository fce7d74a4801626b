//! A complete response.

use crate::{
    base::json::raw::RawJson,
    ir::{block::Block, extras::Extras, usage::Usage},
};

/// One response: the first choice, if a dialect returns several.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatResponse {
    /// The upstream's own id; empty if absent.
    pub id: String,
    /// The model that the response names.
    pub model: String,
    /// Unix seconds, if reported.
    pub created: Option<i64>,
    pub blocks: Vec<Block>,
    pub finish: Finish,
    pub usage: Option<Usage>,
    pub service_tier: Option<String>,
    /// The token array of OpenAI's `logprobs.content`.
    pub logprobs: Option<RawJson>,
    pub extras: Extras,
}

/// Why a response ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finish {
    pub kind: FinishKind,
    /// The upstream's own term.
    pub raw_reason: Option<String>,
    /// The stop sequence that was met, if reported.
    pub stop_sequence: Option<String>,
}

/// `Stop` and `ToolCalls` are the same finish in two forms: readers use `ToolCalls` exactly if
/// there are calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FinishKind {
    #[default]
    Stop,
    Length,
    ToolCalls,
    /// A content filter of the provider.
    ContentFilter,
    Refusal,
    /// The provider paused a long turn; the client sends it back to continue.
    Pause,
}
