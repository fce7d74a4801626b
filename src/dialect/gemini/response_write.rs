//! Writes an answer that is given whole.

use bytes::Bytes;

use crate::{
    base::write,
    dialect::{
        Shape,
        gemini::{
            answer_write::{self, Placed},
            finish, part_write, wire,
        },
    },
    ir::{
        block::{Block, BlockKind, Citation},
        op::Dialect,
        response::ChatResponse,
    },
};

pub(super) fn write(response: &ChatResponse, shape: &Shape) -> Bytes {
    let mut cited: Vec<Placed> = Vec::new();
    let mut told = 0;
    let body = write::object(|o| {
        o.array("candidates", |a| {
            a.object(|o| {
                o.object("content", |o| {
                    o.array("parts", |a| {
                        let mut empty = true;
                        for block in &response.blocks {
                            if let BlockKind::Text(it) = &block.kind {
                                cited.extend(
                                    it.citations
                                        .iter()
                                        .map(|citation| placed(citation, &it.text, told)),
                                );
                                told += it.text.len() as u64;
                            }
                            let part = part(block);
                            if part != "{}" {
                                empty = false;
                                a.raw_text(&part);
                            }
                        }
                        if empty {
                            a.object(|o| part_write::text(o, "", false, None));
                        }
                    });
                    o.str("role", "model");
                });
                o.str(
                    "finishReason",
                    finish::word(&response.finish, response.blocks.iter().any(speaks)),
                )
                .num("index", 0);
                answer_write::grounding(o, &cited);
                if let Some(logprobs) = &response.logprobs {
                    answer_write::logprobs(o, logprobs);
                }
                response.extras.write(Dialect::Gemini, o, |_| {});
            });
        });
        answer_write::usage(o, response.usage, response.service_tier.as_deref());
        o.str("modelVersion", &shape.model).str("responseId", &shape.id);
    });
    body.into()
}

fn speaks(block: &Block) -> bool {
    match &block.kind {
        BlockKind::Text(it) => !it.text.is_empty(),
        BlockKind::Refusal(text) => !text.is_empty(),
        _ => false,
    }
}

fn part(block: &Block) -> String {
    let signature = wire::own(block.signature.as_ref());
    write::object(|o| match &block.kind {
        BlockKind::Text(it) if it.text.is_empty() && signature.is_none() => {}
        BlockKind::Text(it) => part_write::text(o, &it.text, false, signature),
        BlockKind::Refusal(text) => part_write::text(o, text, false, None),
        BlockKind::Reasoning(it) if it.text.is_empty() && signature.is_none() => {}
        BlockKind::Reasoning(it) => part_write::text(o, &it.text, true, signature),
        BlockKind::ToolCall(call) => part_write::call(o, call, &call.name, signature),
        BlockKind::Media(media) => {
            if let Ok(carried) = part_write::media(media) {
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

/// Places are told in bytes of all the text; `before` stands before this block's.
fn placed(citation: &Citation, text: &str, before: u64) -> Placed {
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
    Placed { citation: citation.clone(), place }
}
