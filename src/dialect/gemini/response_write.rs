//! Writes a complete response.

use bytes::Bytes;

use crate::{
    base::json::writer,
    dialect::{
        gemini::{
            field_names, finish, part_write,
            response_parts::{self, PlacedCitation},
        },
        ingress::ResponseSpec,
    },
    ir::{
        block::{Block, BlockKind, Citation},
        op::Dialect,
        response::ChatResponse,
    },
};

pub(super) fn write_response(response: &ChatResponse, spec: &ResponseSpec) -> Bytes {
    let mut cited: Vec<PlacedCitation> = Vec::new();
    let mut text_bytes = 0;
    let body = writer::object(|o| {
        o.array("candidates", |a| {
            a.object(|o| {
                o.object("content", |o| {
                    o.array("parts", |a| {
                        let mut empty = true;
                        for block in &response.blocks {
                            if let BlockKind::Text(it) = &block.kind {
                                cited.extend(it.citations.iter().map(|citation| {
                                    place_citation(citation, &it.text, text_bytes)
                                }));
                                text_bytes += it.text.len() as u64;
                            }
                            let part = write_part(block);
                            if part != "{}" {
                                empty = false;
                                a.raw_text(&part);
                            }
                        }
                        if empty {
                            a.object(|o| part_write::write_text(o, "", false, None));
                        }
                    });
                    o.str("role", "model");
                });
                o.str(
                    "finishReason",
                    finish::finish_reason(&response.finish, response.blocks.iter().any(has_text)),
                )
                .num("index", 0);
                response_parts::write_grounding(o, &cited);
                if let Some(logprobs) = &response.logprobs {
                    response_parts::write_logprobs(o, logprobs);
                }
                response.extras.write(Dialect::Gemini, o, |_| {});
            });
        });
        response_parts::write_usage(o, response.usage);
        o.str("modelVersion", &spec.model).str("responseId", &spec.request_id);
    });
    body.into()
}

fn has_text(block: &Block) -> bool {
    match &block.kind {
        BlockKind::Text(it) => !it.text.is_empty(),
        BlockKind::Refusal(text) => !text.is_empty(),
        _ => false,
    }
}

fn write_part(block: &Block) -> String {
    let signature = field_names::own_signature(block.signature.as_ref());
    writer::object(|o| match &block.kind {
        BlockKind::Text(it) if it.text.is_empty() && signature.is_none() => {}
        BlockKind::Text(it) => part_write::write_text(o, &it.text, false, signature),
        BlockKind::Refusal(text) => part_write::write_text(o, text, false, None),
        BlockKind::Reasoning(it) if it.text.is_empty() && signature.is_none() => {}
        BlockKind::Reasoning(it) => part_write::write_text(o, &it.text, true, signature),
        BlockKind::ToolCall(call) => {
            part_write::write_function_call(o, call, &call.name, signature);
        }
        BlockKind::Media(media) => {
            if let Ok(carried) = part_write::to_media_part(media) {
                carried.write(o);
                o.opt_str("thoughtSignature", signature);
            }
        }
        BlockKind::Foreign { dialect: Dialect::Gemini, body } => {
            for (key, value) in body.json().members() {
                o.json(key, value);
            }
        }
        BlockKind::Foreign { .. } | BlockKind::ToolResult(_) => {}
    })
}

/// Returns the citation with its span in bytes of the whole text. `before` is the number of bytes
/// before this block.
fn place_citation(citation: &Citation, text: &str, before: u64) -> PlacedCitation {
    let byte = |character: u64| {
        let at = usize::try_from(character).ok()?;
        let end = text.len();
        text.char_indices()
            .map(|(byte, _)| byte)
            .chain([end])
            .nth(at)
            .map(|byte| byte as u64 + before)
    };
    let place = citation.span.and_then(|(start, end)| Some((byte(start)?, byte(end)?)));
    PlacedCitation { citation: citation.clone(), position: place }
}
