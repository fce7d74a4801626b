//! Reads a whole answer.

use crate::{
    base::{json::JsonRef, raw::RawJson},
    dialect::{
        Carry, fault,
        responses::{
            items_read::{self, OWN, form, image, kind, mark, part, string},
            meter,
        },
        shape, tokens,
    },
    ir::{
        block::{Block, BlockKind},
        fault::Fault,
        response::{ChatResponse, Finish, FinishKind},
        usage::Usage,
    },
};

pub(super) fn read(content_type: &str, body: &[u8], carry: &Carry) -> Result<ChatResponse, Fault> {
    let json = shape::answer(content_type, body)?;
    if let Some(fault) = failure(json) {
        return Err(fault);
    }
    let mut blocks = Vec::new();
    match json.get("output") {
        Some(list) if list.is_array() => {
            let mut calls = 0;
            for item in list.items() {
                blocks.extend(output(item, carry, &mut calls));
            }
        }
        // Some tell nothing but the text.
        _ => match json.get("output_text").and_then(JsonRef::str) {
            Some(text) => blocks.push(Block::text(text)),
            None => {
                return Err(shape::list(json, "output")
                    .err()
                    .unwrap_or_else(|| fault::unexpected("no `output`")));
            }
        },
    }
    let logprobs: Vec<RawJson> =
        json.get("output").into_iter().flat_map(JsonRef::items).flat_map(logprobs).collect();
    let called = blocks.iter().any(|block| matches!(block.kind, BlockKind::ToolCall(_)));
    let refused = blocks.iter().any(|block| matches!(block.kind, BlockKind::Refusal(_)));
    Ok(ChatResponse {
        id: string(json, "id").unwrap_or_default(),
        model: string(json, "model").unwrap_or_default(),
        created: created(json),
        finish: finish(json, called, refused),
        usage: json.get("usage").and_then(usage),
        service_tier: string(json, "service_tier"),
        logprobs: joined(&logprobs),
        blocks,
        ..ChatResponse::default()
    })
}

/// The blocks that an output item is.
pub(super) fn output(item: JsonRef<'_>, carry: &Carry, calls: &mut u32) -> Vec<Block> {
    let kind = kind(item);
    if let Some(form) = form(&kind) {
        let mut call = items_read::call(item, form);
        call.id = call_id(call.id, carry, calls);
        call.name = name(item, &call.name, carry);
        let mut block = Block::new(BlockKind::ToolCall(call));
        mark(&mut block.extras, item, &["call_id", "name", "arguments", "input"]);
        return vec![block];
    }
    match kind.as_str() {
        "message" => {
            let mut blocks: Vec<Block> = match item.get("content") {
                Some(text) if text.kind() == "string" => {
                    vec![Block::text(text.str().unwrap_or_default())]
                }
                Some(list) => list.items().map(part).collect(),
                None => Vec::new(),
            };
            if let Some(first) = blocks.first_mut() {
                mark(&mut first.extras, item, &["content"]);
            }
            blocks
        }
        "reasoning" => {
            let block = items_read::reasoning(item);
            let said = block.signature.is_some()
                || matches!(&block.kind, BlockKind::Reasoning(it) if !it.text.is_empty());
            if said { vec![block] } else { Vec::new() }
        }
        "image_generation_call" if image(item).is_some() => {
            image(item).map(|media| Block::new(BlockKind::Media(media))).into_iter().collect()
        }
        "" if !item.is_object() => Vec::new(),
        _ => vec![Block::new(BlockKind::Foreign { dialect: OWN, body: RawJson::from_json(item) })],
    }
}

/// The call's id, made where there is none.
pub(super) fn call_id(told: String, carry: &Carry, calls: &mut u32) -> String {
    *calls += 1;
    if told.is_empty() { format!("call_{}_{}", carry.seed, *calls - 1) } else { told }
}

/// The called tool's name as the client knows it.
pub(super) fn name(item: JsonRef<'_>, sent: &str, carry: &Carry) -> String {
    let full = string(item, "namespace").map(|space| items_read::joined(&space, sent));
    // Tools that the provider found by itself stand in namespaces of which the client knows
    // nothing.
    full.filter(|full| carry.renamed.iter().any(|(known, _)| known == full))
        .unwrap_or_else(|| carry.name(sent).to_owned())
}

/// Elements of the log probabilities of an item's texts.
fn logprobs(item: JsonRef<'_>) -> Vec<RawJson> {
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

fn joined(list: &[RawJson]) -> Option<RawJson> {
    let all = crate::base::write::array(|a| {
        for one in list {
            a.raw(one);
        }
    });
    RawJson::parse(&all).filter(|_| !list.is_empty())
}

/// A response that has failed or was cancelled.
pub(super) fn failure(response: JsonRef<'_>) -> Option<Fault> {
    match string(response, "status").as_deref() {
        Some("failed") => Some(fault::told(None, response)),
        Some("cancelled") => Some(cancelled()),
        _ => None,
    }
}

pub(super) fn cancelled() -> Fault {
    fault::unexpected("the response was cancelled")
}

pub(super) fn created(response: JsonRef<'_>) -> Option<i64> {
    let at = response.get("created_at")?;
    // Some tell fractions.
    at.i64().or_else(|| at.text().split('.').next()?.parse().ok())
}

pub(super) fn finish(response: JsonRef<'_>, called: bool, refused: bool) -> Finish {
    let reason = response.member_at(&["incomplete_details", "reason"]).and_then(JsonRef::str);
    let kind = match (string(response, "status").as_deref(), reason.as_deref()) {
        (Some("incomplete"), Some("content_filter")) => FinishKind::ContentFilter,
        (Some("incomplete"), _) => FinishKind::Length,
        (Some("queued" | "in_progress"), _) => FinishKind::Pause,
        _ if called => FinishKind::ToolCalls,
        _ if refused => FinishKind::Refusal,
        _ => FinishKind::Stop,
    };
    Finish { kind, raw_reason: meter::summary(response).finish, stop_sequence: None }
}

pub(super) fn usage(usage: JsonRef<'_>) -> Option<Usage> {
    tokens::openai(usage)
}
