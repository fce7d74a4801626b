//! Writes a conversation as contents.

use std::borrow::Cow;

use crate::{
    base::json::writer::{self, ArrayWriter, ObjectWriter},
    dialect::{
        egress::{TargetTraits, Thinking},
        gemini::{
            arrange_turns::{self, GeminiTurn, GeminiTurnItem},
            field_names,
            part_write::{self, MediaPart},
            request_read::extras_with_prefix,
        },
        losses::Losses,
    },
    ir::{
        block::{Block, BlockKind, Reasoning, ToolResult},
        op::Dialect,
        request::ChatMessage,
    },
};

/// The provider's documented value for calls without a signature, for example if another model made
/// the call or the client dropped the signature.
const SKIP_SIGNATURE_VALIDATOR: &str = "skip_thought_signature_validator";
/// The user turn that is inserted if the provider requires one.
pub(super) const USER_FILLER_TURN: &str = r#"{"role":"user","parts":[{"text":"Continue."}]}"#;
/// The provider refuses longer names ("with a maximum length of 64").
const MAX_NAME_LEN: usize = 64;

pub(super) fn write_contents(
    messages: &[ChatMessage],
    traits: &TargetTraits,
    losses: &mut Losses,
) -> String {
    for message in messages {
        if message.name.is_some() {
            losses.add("messages.name");
        }
        for (key, _) in message.extras.iter_foreign_to(Dialect::Gemini) {
            losses.add(format!("messages.{key}"));
        }
    }
    let mut model_last = true;
    writer::array(|contents| {
        for turn in arrange_turns::arrange_turns(messages) {
            let parts = write_parts(&turn, traits, losses);
            if parts == "[]" {
                continue;
            }
            if turn.is_model && model_last && turn.items.iter().any(is_tool_call) {
                // A call must follow another turn.
                contents.raw_text(USER_FILLER_TURN);
            }
            model_last = turn.is_model;
            contents.object(|o| {
                o.str("role", if turn.is_model { "model" } else { "user" })
                    .raw_text("parts", &parts);
            });
        }
    })
}

fn is_tool_call(item: &GeminiTurnItem<'_>) -> bool {
    matches!(item, GeminiTurnItem::Block(Block { kind: BlockKind::ToolCall(_), .. }))
}

fn write_parts(turn: &GeminiTurn<'_>, traits: &TargetTraits, losses: &mut Losses) -> String {
    // Models with thinking levels refuse a turn whose first call has no signature. A model of which
    // nothing is known may be one of them.
    let is_unknown = traits.facts.thinking.is_none() && traits.thinking == Thinking::Unsupported;
    let may_have_levels = traits.thinking == Thinking::Effort || is_unknown;
    let mut needs_signature = turn.is_model && may_have_levels;
    let mut trailing_media: Vec<MediaPart<'_>> = Vec::new();
    writer::array(|a| {
        let mut in_results =
            turn.items.iter().any(|item| matches!(item, GeminiTurnItem::Result { .. }));
        for item in &turn.items {
            let is_answer =
                matches!(item, GeminiTurnItem::Result { .. } | GeminiTurnItem::Unanswered { .. });
            if in_results && !is_answer {
                in_results = false;
                trailing_media.drain(..).for_each(|media| media.push(a));
            }
            match item {
                GeminiTurnItem::Block(block) => write_part(a, block, &mut needs_signature, losses),
                GeminiTurnItem::Result { block, result, name } => write_function_response(
                    a,
                    block,
                    result,
                    name,
                    traits,
                    &mut trailing_media,
                    losses,
                ),
                GeminiTurnItem::Unanswered { id, name } => {
                    a.object(|o| {
                        o.object("functionResponse", |o| {
                            write_id_and_name(o, id, name);
                            o.object("response", |o| {
                                o.str("error", "no result was given for this call");
                            });
                        });
                    });
                }
                GeminiTurnItem::Orphan(result) => {
                    let (text, media) = result_text_and_media(result, losses);
                    a.object(|o| {
                        o.str("text", &format!("Result of the tool call {}: {text}", result.call));
                    });
                    media.iter().for_each(|media| media.push(a));
                }
            }
        }
        trailing_media.iter().for_each(|media| media.push(a));
    })
}

fn write_part(
    a: &mut ArrayWriter<'_>,
    block: &Block,
    needs_signature: &mut bool,
    losses: &mut Losses,
) {
    add_cache_loss(block, losses);
    let signature = field_names::own_signature(block.signature.as_ref());
    if block.signature.is_some() && signature.is_none() {
        losses.add("reasoning.proof");
    }
    match &block.kind {
        BlockKind::Text(it) => {
            if !it.citations.is_empty() {
                losses.add("messages.citations");
            }
            if !it.text.is_empty() || signature.is_some() {
                write_with_extras(a, block, losses, |o| {
                    part_write::write_text(o, &it.text, false, signature);
                });
            }
        }
        BlockKind::Refusal(text) if !text.is_empty() => {
            write_with_extras(a, block, losses, |o| part_write::write_text(o, text, false, None));
        }
        BlockKind::Reasoning(Reasoning { text, .. }) => {
            if !text.is_empty() || signature.is_some() {
                write_with_extras(a, block, losses, |o| {
                    part_write::write_text(o, text, true, signature);
                });
            }
        }
        BlockKind::ToolCall(call) => {
            let signature =
                signature.or_else(|| needs_signature.then_some(SKIP_SIGNATURE_VALIDATOR));
            *needs_signature = false;
            write_with_extras(a, block, losses, |o| {
                part_write::write_function_call(o, call, &to_valid_name(&call.name), signature);
            });
        }
        BlockKind::Media(media) => {
            if media.detail.as_deref().is_some_and(|detail| detail != "auto") {
                losses.add("messages.image_url.detail");
            }
            if media.name.is_some()
                && !matches!(media.source, crate::ir::block::MediaSource::Text(_))
            {
                losses.add("messages.filename");
            }
            match part_write::to_media_part(media) {
                Ok(carried) => write_with_extras(a, block, losses, |o| {
                    carried.write(o);
                    o.opt_str("thoughtSignature", signature);
                }),
                Err(lost) => losses.add(lost),
            }
        }
        BlockKind::Foreign { dialect: Dialect::Gemini, body } => {
            a.raw(body);
        }
        BlockKind::Foreign { body, .. } => {
            losses.add_foreign_block(body.json());
        }
        BlockKind::Refusal(_) | BlockKind::ToolResult(_) => {}
    }
}

/// Writes a part together with the extras of its own dialect.
fn write_with_extras(
    a: &mut ArrayWriter<'_>,
    block: &Block,
    losses: &mut Losses,
    build: impl FnOnce(&mut ObjectWriter<'_>),
) {
    a.object(|o| {
        build(o);
        block.extras.write(Dialect::Gemini, o, |key| losses.add(format!("messages.{key}")));
    });
}

fn add_cache_loss(block: &Block, losses: &mut Losses) {
    if block.cache.is_some() {
        losses.add("messages.cache_control");
    }
}

fn write_id_and_name(o: &mut ObjectWriter<'_>, id: &str, name: &str) {
    if !id.starts_with(field_names::GENERATED_ID_PREFIX) {
        o.str("id", id);
    }
    o.str("name", &to_valid_name(name));
}

fn write_function_response<'a>(
    a: &mut ArrayWriter<'_>,
    block: &'a Block,
    result: &'a ToolResult,
    name: &str,
    traits: &TargetTraits,
    trailing_media: &mut Vec<MediaPart<'a>>,
    losses: &mut Losses,
) {
    add_cache_loss(block, losses);
    let (text, media) = result_text_and_media(result, losses);
    // Models with thinking levels accept media inside results; for others the media follow the
    // results.
    let (within, outside): (Vec<_>, Vec<_>) = media
        .into_iter()
        .partition(|media| traits.thinking == Thinking::Effort && media.fits_results());
    trailing_media.extend(outside);
    a.object(|o| {
        o.object("functionResponse", |o| {
            write_id_and_name(o, &result.call, name);
            o.object("response", |o| {
                o.str(if result.is_error { "error" } else { "output" }, &text);
            });
            if !within.is_empty() {
                o.array("parts", |a| within.iter().for_each(|media| media.push(a)));
            }
            for (key, value) in extras_with_prefix(&block.extras, "functionResponse.") {
                o.raw(key, value);
            }
        });
        for (key, _) in block.extras.iter_foreign_to(Dialect::Gemini) {
            losses.add(format!("messages.{key}"));
        }
    });
}

/// A result's text and its media.
fn result_text_and_media<'a>(
    result: &'a ToolResult,
    losses: &mut Losses,
) -> (String, Vec<MediaPart<'a>>) {
    let (mut text, mut media) = (String::new(), Vec::new());
    let mut append = |more: &str| {
        if !text.is_empty() && !more.is_empty() {
            text.push('\n');
        }
        text.push_str(more);
    };
    for block in &result.content {
        add_cache_loss(block, losses);
        match &block.kind {
            BlockKind::Text(it) => append(&it.text),
            BlockKind::Refusal(it) => append(it),
            BlockKind::Reasoning(it) => append(&it.text),
            BlockKind::Media(it) => match part_write::to_media_part(it) {
                Ok(MediaPart::Text(text)) => append(&text),
                Ok(carried) => media.push(carried),
                Err(lost) => losses.add(lost),
            },
            // Sealed content can be read only by the provider that made it.
            BlockKind::Foreign { body, .. } if body.json().get("encrypted_content").is_some() => {
                losses.add("messages.foreign");
            }
            BlockKind::Foreign { body, .. } => append(body.text()),
            BlockKind::ToolCall(_) | BlockKind::ToolResult(_) => {}
        }
    }
    (text, media)
}

/// Returns a function name that the provider accepts. A changed name ends in a hash, so that it
/// stays unique.
pub(super) fn to_valid_name(name: &str) -> Cow<'_, str> {
    let is_valid_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    let has_valid_start =
        |name: &str| name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if has_valid_start(name) && name.len() <= MAX_NAME_LEN && name.chars().all(is_valid_char) {
        return Cow::Borrowed(name);
    }
    let mut out: String = name
        .chars()
        .map(|c| if is_valid_char(c) { c } else { '_' })
        .take(MAX_NAME_LEN - 10)
        .collect();
    if !has_valid_start(&out) {
        out.insert(0, '_');
    }
    out.push_str(&format!("_{:08x}", field_names::stable_hash(&[name]) >> 32));
    Cow::Owned(out)
}
