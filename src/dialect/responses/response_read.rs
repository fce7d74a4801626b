//! Reads a complete response.

use crate::{
    base::json::{raw::RawJson, reader::JsonRef},
    dialect::{
        egress::AttemptContext,
        errors::read_error,
        json_body,
        responses::{
            items_read::{
                self, DIALECT, call_kind, item_type, note_item_fields, read_image, read_part,
            },
            outcome::{self, response_failure},
        },
        usage_read,
    },
    ir::{
        block::{Block, BlockKind},
        fault::Fault,
        response::{ChatResponse, Finish, FinishKind},
        usage::Usage,
    },
};

pub(super) fn read_response(
    content_type: &str,
    body: &[u8],
    carry: &AttemptContext,
) -> Result<ChatResponse, Fault> {
    let json = json_body::parse_response(content_type, body)?;
    if let Some(fault) = response_failure(json) {
        return Err(fault);
    }
    let mut blocks = Vec::new();
    match json.get("output") {
        Some(list) if list.is_array() => {
            let mut calls = 0;
            for item in list.items() {
                blocks.extend(read_output_item(item, carry, &mut calls));
            }
        }
        // Some upstreams send only the text.
        _ => match json.get("output_text").and_then(JsonRef::str) {
            Some(text) => blocks.push(Block::text(text)),
            None => {
                return Err(json_body::required_list(json, "output")
                    .err()
                    .unwrap_or_else(|| read_error::unexpected_shape("no `output`")));
            }
        },
    }
    let logprobs: Vec<RawJson> =
        json.get("output").into_iter().flat_map(JsonRef::items).flat_map(item_logprobs).collect();
    let called = blocks.iter().any(|block| matches!(block.kind, BlockKind::ToolCall(_)));
    let refused = blocks.iter().any(|block| matches!(block.kind, BlockKind::Refusal(_)));
    Ok(ChatResponse {
        id: json.string_at("id").unwrap_or_default(),
        model: json.string_at("model").unwrap_or_default(),
        created: created_at(json),
        finish: read_finish(json, called, refused),
        usage: json.get("usage").and_then(read_usage),
        service_tier: json.string_at("service_tier"),
        logprobs: join_logprobs(&logprobs),
        blocks,
        ..ChatResponse::default()
    })
}

/// Reads an output item as blocks.
pub(super) fn read_output_item(
    item: JsonRef<'_>,
    carry: &AttemptContext,
    calls: &mut u32,
) -> Vec<Block> {
    let kind = item_type(item);
    if let Some(form) = call_kind(&kind) {
        let mut call = items_read::read_call(item, form);
        call.id = ensure_call_id(call.id, carry, calls);
        call.name = client_tool_name(item, &call.name, carry);
        let mut block = Block::new(BlockKind::ToolCall(call));
        note_item_fields(&mut block.extras, item, &["call_id", "name", "arguments", "input"]);
        return vec![block];
    }
    match kind.as_str() {
        "message" => {
            let mut blocks: Vec<Block> = match item.get("content") {
                Some(text) if text.kind() == "string" => {
                    vec![Block::text(text.str().unwrap_or_default())]
                }
                Some(list) => list.items().map(read_part).collect(),
                None => Vec::new(),
            };
            if let Some(first) = blocks.first_mut() {
                note_item_fields(&mut first.extras, item, &["content"]);
            }
            blocks
        }
        "reasoning" => {
            let block = items_read::read_reasoning(item);
            let has_content = block.signature.is_some()
                || matches!(&block.kind, BlockKind::Reasoning(it) if !it.text.is_empty());
            if has_content { vec![block] } else { Vec::new() }
        }
        "image_generation_call" if read_image(item).is_some() => {
            read_image(item).map(|media| Block::new(BlockKind::Media(media))).into_iter().collect()
        }
        "" if !item.is_object() => Vec::new(),
        _ => vec![Block::new(BlockKind::Foreign {
            dialect: DIALECT,
            body: RawJson::from_json(item),
        })],
    }
}

/// The call's id, generated if the item has no id.
pub(super) fn ensure_call_id(
    upstream_id: String,
    carry: &AttemptContext,
    calls: &mut u32,
) -> String {
    *calls += 1;
    if upstream_id.is_empty() {
        format!("call_{}_{}", carry.call_id_seed, *calls - 1)
    } else {
        upstream_id
    }
}

/// The called tool's name, as the client knows it.
pub(super) fn client_tool_name(item: JsonRef<'_>, sent: &str, carry: &AttemptContext) -> String {
    let full = item.string_at("namespace").map(|space| items_read::qualified_name(&space, sent));
    // Tools that the provider found itself are in namespaces that the client does not know.
    full.filter(|full| carry.renamed_tools.iter().any(|(known, _)| known == full))
        .unwrap_or_else(|| carry.client_tool_name(sent).to_owned())
}

/// The elements of the log probabilities of an item's texts.
fn item_logprobs(item: JsonRef<'_>) -> Vec<RawJson> {
    let parts = item.get("content").into_iter().flat_map(JsonRef::items);
    parts
        .flat_map(|part| {
            part.get("logprobs")
                .into_iter()
                .flat_map(JsonRef::items)
                .map(RawJson::from_json)
                .collect::<Vec<_>>()
        })
        .collect()
}

fn join_logprobs(list: &[RawJson]) -> Option<RawJson> {
    let all = crate::base::json::writer::array(|a| {
        for one in list {
            a.raw(one);
        }
    });
    RawJson::parse(&all).filter(|_| !list.is_empty())
}

pub(super) fn created_at(response: JsonRef<'_>) -> Option<i64> {
    let at = response.get("created_at")?;
    // Some upstreams send fractions.
    at.i64().or_else(|| at.text().split('.').next()?.parse().ok())
}

pub(super) fn read_finish(response: JsonRef<'_>, called: bool, refused: bool) -> Finish {
    let reason = response.member_at(&["incomplete_details", "reason"]).and_then(JsonRef::str);
    let kind = match (response.string_at("status").as_deref(), reason.as_deref()) {
        (Some("incomplete"), Some("content_filter")) => FinishKind::ContentFilter,
        (Some("incomplete"), _) => FinishKind::Length,
        (Some("queued" | "in_progress"), _) => FinishKind::Pause,
        _ if called => FinishKind::ToolCalls,
        _ if refused => FinishKind::Refusal,
        _ => FinishKind::Stop,
    };
    Finish {
        kind,
        raw_reason: outcome::response_summary(response).finish_reason,
        stop_sequence: None,
    }
}

pub(super) fn read_usage(usage: JsonRef<'_>) -> Option<Usage> {
    usage_read::read_openai(usage)
}
