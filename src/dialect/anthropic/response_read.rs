//! Reads complete upstream responses.

use crate::{
    base::json::{raw::RawJson, reader::JsonRef},
    dialect::{
        answer_call_ids::AnswerCallIds,
        anthropic::{blocks_read, meter::MessageUsage},
        egress::AttemptContext,
        errors::read_error,
        json_body,
    },
    ir::{
        block::{Block, BlockKind},
        extras::Extras,
        fault::Fault,
        op::Dialect,
        response::{ChatResponse, Finish, FinishKind},
    },
};

const DIALECT: Dialect = Dialect::Anthropic;

/// The usage fields that the common counts cover.
const COUNTED_USAGE_FIELDS: [&str; 7] = [
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cache_creation",
    "output_tokens_details",
    "service_tier",
];

pub(super) fn read_response(
    content_type: &str,
    body: &[u8],
    context: &AttemptContext,
) -> Result<ChatResponse, Fault> {
    let json = json_body::parse_response(content_type, body)?;
    let content = json.get("content");
    if content.is_none_or(|content| !content.is_array() && content.str().is_none())
        && json.get("stop_reason").is_none()
    {
        json_body::required_list(json, "content")?;
    }
    let mut blocks = blocks_read::read_answer(content);
    let mut call_ids = AnswerCallIds::new(&context.call_id_seed);
    for block in &mut blocks {
        if let BlockKind::ToolCall(call) = &mut block.kind {
            call.id = call_ids.assign(Some(&call.id));
            call.name = context.client_tool_name(&call.name).to_owned();
        }
    }
    // An empty text carries nothing; it appears if the model only reasoned or called tools.
    blocks.retain(|block| !is_empty_text(block));
    let usage = json.get("usage");
    let mut counts = MessageUsage::default();
    if let Some(usage) = usage {
        counts.update(usage);
    }
    let mut extras = Extras::from_object(
        DIALECT,
        json,
        &["id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"],
    );
    if let Some(usage) = usage {
        let rest = Extras::from_object(DIALECT, usage, &COUNTED_USAGE_FIELDS);
        if !rest.is_empty() {
            extras.push(DIALECT, "usage", RawJson::object(|o| rest.write(DIALECT, o, |_| {})));
        }
    }
    Ok(ChatResponse {
        id: json.string_at("id").unwrap_or_default(),
        model: json_body::clean_name(json.get("model")).unwrap_or_default(),
        created: None,
        blocks,
        finish: read_finish(
            json_body::clean_name(json.get("stop_reason")),
            json.string_at("stop_sequence"),
            call_ids.count() > 0,
        ),
        usage: counts.usage(),
        service_tier: usage.and_then(|usage| read_service_tier(usage)),
        logprobs: None,
        extras,
    })
}

/// Reads why the answer ended. Tool calls are recognised by the calls themselves.
pub(super) fn read_finish(reply: Option<String>, sequence: Option<String>, called: bool) -> Finish {
    let kind = match reply.as_deref() {
        Some("max_tokens" | "model_context_window_exceeded" | "length") => FinishKind::Length,
        Some("refusal") => FinishKind::Refusal,
        Some("pause_turn") => FinishKind::Pause,
        Some("content_filter" | "sensitive") => FinishKind::ContentFilter,
        _ if called => FinishKind::ToolCalls,
        _ => FinishKind::Stop,
    };
    Finish {
        kind,
        raw_reason: reply,
        stop_sequence: sequence.filter(|sequence| !sequence.is_empty()),
    }
}

/// Reads the service tier, in the names that all dialects share.
pub(super) fn read_service_tier(usage: JsonRef<'_>) -> Option<String> {
    json_body::clean_name(usage.get("service_tier"))
        .map(|tier| if tier == "standard" { "default".to_owned() } else { tier })
}

fn is_empty_text(block: &Block) -> bool {
    matches!(&block.kind, BlockKind::Text(text) if text.text.is_empty() && text.citations.is_empty())
}

/// The fault for content of an unknown shape in the middle of a stream.
pub(super) fn invalid_event(kind: &str) -> Fault {
    read_error::unexpected_shape(&format!("an event is {kind}"))
}
