//! Writes complete responses for clients, and the parts that streams share with them.

use bytes::Bytes;

use crate::{
    base::json::writer::{self, ArrayWriter, ObjectWriter},
    dialect::{
        anthropic::{blocks_read::PLACEHOLDER_SIGNATURE, blocks_write, web_search::ForeignSearch},
        ingress::ResponseSpec,
    },
    ir::{
        block::{Block, BlockKind, CallKind, Citation, ReasoningSignature, SignatureKind},
        op::Dialect,
        response::{ChatResponse, Finish, FinishKind},
        tool,
        usage::Usage,
    },
};

const DIALECT: Dialect = Dialect::Anthropic;

pub(super) fn write_response(response: &ChatResponse, spec: &ResponseSpec) -> Bytes {
    let refused = response.blocks.iter().any(|block| matches!(block.kind, BlockKind::Refusal(_)));
    let body = writer::object(|o| {
        o.str("id", &message_id(spec))
            .str("type", "message")
            .str("role", "assistant")
            .str("model", &spec.model);
        let mut searches = 0;
        o.array("content", |a| {
            for block in &response.blocks {
                match foreign_search(block) {
                    Some(mut search) => {
                        search.add_cited(response.blocks.iter().flat_map(citations));
                        for text in search.blocks(&spec.request_id, searches) {
                            a.raw_text(&text);
                        }
                        searches += 1;
                    }
                    None => write_block(a, block),
                }
            }
        });
        write_stop_reason(o, &response.finish, refused);
        o.object("usage", |o| {
            write_usage(o, response.usage.as_ref(), response.service_tier.as_deref());
            write_searches(o, searches);
            let rest = response.extras.get(DIALECT, "usage");
            for (key, value) in rest.into_iter().flat_map(|rest| rest.json().members()) {
                o.json(key, value);
            }
        });
        for (key, raw) in response.extras.iter().filter(|(key, _)| *key != "usage") {
            if response.extras.is_from(DIALECT) {
                o.raw(key, raw);
            }
        }
    });
    body.into()
}

/// Returns the search of another provider that this block is.
fn foreign_search(block: &Block) -> Option<ForeignSearch> {
    match &block.kind {
        BlockKind::Foreign { dialect, body } => ForeignSearch::read(*dialect, body.json()),
        _ => None,
    }
}

fn citations(block: &Block) -> &[Citation] {
    match &block.kind {
        BlockKind::Text(text) => &text.citations,
        _ => &[],
    }
}

/// Writes the number of searches, which clients show.
pub(super) fn write_searches(o: &mut ObjectWriter<'_>, count: u32) {
    if count > 0 {
        o.object("server_tool_use", |o| {
            o.num("web_search_requests", count);
        });
    }
}

/// Returns the response id in this dialect's form.
pub(super) fn message_id(spec: &ResponseSpec) -> String {
    format!("msg_{}", spec.request_id)
}

/// Writes the fields `stop_reason` and `stop_sequence`.
pub(super) fn write_stop_reason(o: &mut ObjectWriter<'_>, finish: &Finish, refused: bool) {
    let sequence = finish.stop_sequence.as_deref();
    let reason = match finish.kind {
        FinishKind::Stop if refused => "refusal",
        FinishKind::Stop if sequence.is_some() => "stop_sequence",
        FinishKind::Stop => "end_turn",
        FinishKind::ToolCalls => "tool_use",
        FinishKind::Length
            if finish.raw_reason.as_deref() == Some("model_context_window_exceeded") =>
        {
            "model_context_window_exceeded"
        }
        FinishKind::Length => "max_tokens",
        FinishKind::ContentFilter | FinishKind::Refusal => "refusal",
        FinishKind::Pause => "pause_turn",
    };
    o.str("stop_reason", reason);
    match sequence.filter(|_| reason == "stop_sequence") {
        Some(sequence) => o.str("stop_sequence", sequence),
        None => o.null("stop_sequence"),
    };
}

/// Writes the members of `usage`. The counts are required, so an unknown one is 0. The input count
/// excludes cached tokens.
pub(super) fn write_usage(o: &mut ObjectWriter<'_>, usage: Option<&Usage>, tier: Option<&str>) {
    let counts = usage.copied().unwrap_or_default();
    write_totals(o, &counts);
    o.object("cache_creation", |o| {
        o.num("ephemeral_5m_input_tokens", counts.cache_write_5m)
            .num("ephemeral_1h_input_tokens", counts.cache_write_1h);
    });
    let tier = tier.map(|tier| if tier == "default" { "standard" } else { tier });
    o.opt_str(
        "service_tier",
        tier.filter(|tier| matches!(*tier, "standard" | "priority" | "batch")),
    );
}

/// Writes the counts that also appear at the end of a stream.
pub(super) fn write_totals(o: &mut ObjectWriter<'_>, counts: &Usage) {
    o.num("input_tokens", counts.uncached_input());
    o.num(
        "cache_creation_input_tokens",
        counts.cache_write_5m.saturating_add(counts.cache_write_1h),
    );
    o.num("cache_read_input_tokens", counts.cache_read);
    o.num("output_tokens", counts.output_total());
    if counts.reasoning > 0 {
        o.object("output_tokens_details", |o| {
            o.num("thinking_tokens", counts.reasoning);
        });
    }
}

/// Writes a citation verbatim if it comes from this dialect. One with a web source becomes a search
/// result.
pub(super) fn write_citation(citation: &Citation) -> Option<String> {
    match (&citation.raw, &citation.url) {
        (Some((DIALECT, raw)), _) => Some(raw.text().to_owned()),
        (_, Some(url)) => Some(writer::object(|o| {
            o.str("type", "web_search_result_location").str("url", url);
            match &citation.title {
                Some(title) => o.str("title", title),
                None => o.null("title"),
            };
            o.str("cited_text", citation.cited_text.as_deref().unwrap_or_default())
                .str("encrypted_index", "");
        })),
        _ => None,
    }
}

/// The form in which clients of this dialect receive a reasoning signature.
pub(super) enum ReasoningSeal<'p> {
    /// The encrypted reasoning itself.
    Redacted(&'p str),
    Signature(&'p str),
}

pub(super) fn reasoning_seal(proof: Option<&ReasoningSignature>) -> ReasoningSeal<'_> {
    match proof
        .filter(|proof| proof.dialect == DIALECT)
        .map(|proof| (proof.kind, proof.value.as_str()))
    {
        Some((SignatureKind::Redacted, data)) => ReasoningSeal::Redacted(data),
        Some((SignatureKind::Signature, value)) => ReasoningSeal::Signature(value),
        _ => ReasoningSeal::Signature(PLACEHOLDER_SIGNATURE),
    }
}

/// Writes a block. Blocks that this dialect's responses cannot carry (images, foreign blocks) are
/// left out.
fn write_block(a: &mut ArrayWriter<'_>, block: &Block) {
    match &block.kind {
        BlockKind::Text(text) if text.text.is_empty() && text.citations.is_empty() => {}
        BlockKind::Text(text) => {
            a.object(|o| {
                o.str("type", "text").str("text", &text.text);
                let citations: Vec<String> =
                    text.citations.iter().filter_map(write_citation).collect();
                if !citations.is_empty() {
                    o.raw_text("citations", &format!("[{}]", citations.join(",")));
                }
                write_extras(o, block);
            });
        }
        BlockKind::Refusal(text) if text.is_empty() => {}
        BlockKind::Refusal(text) => {
            a.object(|o| {
                o.str("type", "text").str("text", text);
            });
        }
        BlockKind::Reasoning(thought) => match reasoning_seal(block.signature.as_ref()) {
            ReasoningSeal::Redacted(data) => {
                a.object(|o| {
                    o.str("type", "redacted_thinking").str("data", data);
                });
            }
            ReasoningSeal::Signature(PLACEHOLDER_SIGNATURE) if thought.text.is_empty() => {}
            ReasoningSeal::Signature(signature) => {
                a.object(|o| {
                    o.str("type", "thinking")
                        .str("thinking", &thought.text)
                        .str("signature", signature);
                });
            }
        },
        BlockKind::ToolCall(call) => {
            let input = match call.form {
                CallKind::Custom => tool::custom_arguments(&call.arguments).into(),
                CallKind::Function => blocks_write::to_json_object(&call.arguments),
            };
            a.object(|o| {
                o.str("type", "tool_use")
                    .str("id", &call.id)
                    .str("name", &call.name)
                    .raw_text("input", &input);
                write_extras(o, block);
            });
        }
        BlockKind::Foreign { dialect: DIALECT, body } => {
            a.raw(body);
        }
        BlockKind::Foreign { .. } | BlockKind::Media(_) | BlockKind::ToolResult(_) => {}
    }
}

fn write_extras(o: &mut ObjectWriter<'_>, block: &Block) {
    block.extras.write(DIALECT, o, |_| {});
}
