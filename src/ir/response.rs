//! An answer, whole.

use crate::{
    base::json::raw::RawJson,
    ir::{block::Block, extras::Extras, usage::Usage},
};

/// One answer: the first choice, where a dialect gives several.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatResponse {
    /// The upstream's own id; empty where it gives none.
    pub id: String,
    /// The model that answered, as it says.
    pub model: String,
    /// Unix seconds, where told.
    pub created: Option<i64>,
    pub blocks: Vec<Block>,
    pub finish: Finish,
    pub usage: Option<Usage>,
    pub service_tier: Option<String>,
    /// The token array of OpenAI's `logprobs.content`.
    pub logprobs: Option<RawJson>,
    pub extras: Extras,
}

/// Why an answer ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finish {
    pub kind: FinishKind,
    /// The upstream's own word.
    pub raw_reason: Option<String>,
    /// The stop sequence that was met, where told.
    pub stop_sequence: Option<String>,
}

/// `Stop` and `ToolCalls` are one finish said two ways: readers say `ToolCalls` exactly where there
/// are calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FinishKind {
    #[default]
    Stop,
    Length,
    ToolCalls,
    /// A filter of the provider.
    ContentFilter,
    Refusal,
    /// The provider paused a long turn; the client sends it back to go on.
    Pause,
}
