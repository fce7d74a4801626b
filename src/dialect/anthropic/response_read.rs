//! Answers of upstreams that came whole.

use crate::{
    base::{json::JsonRef, raw::RawJson},
    dialect::{
        Carry,
        anthropic::{blocks_read, meter::Counts},
        fault, shape,
    },
    ir::{
        block::{Block, BlockKind},
        extras::Extras,
        fault::Fault,
        op::Dialect,
        response::{ChatResponse, Finish, FinishKind},
    },
};

const ME: Dialect = Dialect::Anthropic;

/// Fields of usage that the common counts hold.
const COUNTED: [&str; 7] = [
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cache_creation",
    "output_tokens_details",
    "service_tier",
];

pub(super) fn read(content_type: &str, body: &[u8], carry: &Carry) -> Result<ChatResponse, Fault> {
    let json = shape::answer(content_type, body)?;
    let content = json.get("content");
    if content.is_none_or(|content| !content.is_array() && content.str().is_none())
        && json.get("stop_reason").is_none()
    {
        shape::list(json, "content")?;
    }
    let mut blocks = blocks_read::content(content);
    let mut calls = Calls::new(carry);
    for block in &mut blocks {
        if let BlockKind::ToolCall(call) = &mut block.kind {
            call.id = calls.id(&call.id);
            call.name = carry.name(&call.name).to_owned();
        }
    }
    // An empty text says nothing; it stands where all was thought or called.
    blocks.retain(|block| !is_empty(block));
    let usage = json.get("usage");
    let mut counts = Counts::default();
    if let Some(usage) = usage {
        counts.take(usage);
    }
    let mut extras = Extras::from_object(
        ME,
        json,
        &["id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"],
    );
    if let Some(usage) = usage {
        let rest = Extras::from_object(ME, usage, &COUNTED);
        if !rest.is_empty() {
            extras.push(ME, "usage", RawJson::object(|o| rest.write(ME, o, |_| {})));
        }
    }
    Ok(ChatResponse {
        id: blocks_read::string(json, "id").unwrap_or_default(),
        model: shape::name(json.get("model")).unwrap_or_default(),
        created: None,
        blocks,
        finish: finish(
            shape::name(json.get("stop_reason")),
            blocks_read::string(json, "stop_sequence"),
            calls.any(),
        ),
        usage: counts.usage(),
        service_tier: usage.and_then(|usage| tier(usage)),
        logprobs: None,
        extras,
    })
}

/// Why it ended; tool calls are told by the calls.
pub(super) fn finish(said: Option<String>, sequence: Option<String>, called: bool) -> Finish {
    let kind = match said.as_deref() {
        Some("max_tokens" | "model_context_window_exceeded" | "length") => FinishKind::Length,
        Some("refusal") => FinishKind::Refusal,
        Some("pause_turn") => FinishKind::Pause,
        Some("content_filter" | "sensitive") => FinishKind::ContentFilter,
        _ if called => FinishKind::ToolCalls,
        _ => FinishKind::Stop,
    };
    Finish {
        kind,
        raw_reason: said,
        stop_sequence: sequence.filter(|sequence| !sequence.is_empty()),
    }
}

/// The service tier in the words of all dialects.
pub(super) fn tier(usage: JsonRef<'_>) -> Option<String> {
    shape::name(usage.get("service_tier"))
        .map(|tier| if tier == "standard" { "default".to_owned() } else { tier })
}

fn is_empty(block: &Block) -> bool {
    matches!(&block.kind, BlockKind::Text(text) if text.text.is_empty() && text.citations.is_empty())
}

/// Ids of an answer's calls: there, and each once.
#[derive(Debug)]
pub(super) struct Calls {
    seed: String,
    told: Vec<String>,
}

impl Calls {
    pub(super) fn new(carry: &Carry) -> Self {
        Self { seed: carry.seed.clone(), told: Vec::new() }
    }

    pub(super) fn id(&mut self, told: &str) -> String {
        let id = if told.is_empty() || self.told.iter().any(|id| id == told) {
            format!("call_{}_{}", self.seed, self.told.len())
        } else {
            told.to_owned()
        };
        self.told.push(id.clone());
        id
    }

    pub(super) fn any(&self) -> bool {
        !self.told.is_empty()
    }
}

/// An unknown shape of content, in the middle of a stream.
pub(super) fn not_an_event(kind: &str) -> Fault {
    fault::unexpected(&format!("an event is {kind}"))
}
