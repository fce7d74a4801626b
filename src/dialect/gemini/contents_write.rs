//! Writes a conversation as contents.

use std::borrow::Cow;

use crate::{
    base::write::{self, ArrayWriter, ObjectWriter},
    dialect::{
        Thinking, Traits,
        gemini::{
            part_write::{self, Carried},
            request_read::beneath,
            turns::{self, Item, Turn},
            wire,
        },
        losses::Losses,
    },
    ir::{
        block::{Block, BlockKind, Reasoning, ToolResult},
        op::Dialect,
        request::ChatMessage,
    },
};

/// What the provider documents for calls whose signature nobody has: ones that another model made,
/// or that a client forgot.
const UNSIGNED: &str = "skip_thought_signature_validator";
/// What the user says where somebody has to.
pub(super) const FILLER: &str = r#"{"role":"user","parts":[{"text":"Continue."}]}"#;
/// Names longer than this are refused.
const LONGEST_NAME: usize = 128;

pub(super) fn write(messages: &[ChatMessage], traits: &Traits, losses: &mut Losses) -> String {
    for message in messages {
        if message.name.is_some() {
            losses.add("messages.name");
        }
        for (key, _) in message
            .extras
            .iter()
            .filter(|(key, _)| message.extras.get(Dialect::Gemini, key).is_none())
        {
            losses.add(format!("messages.{key}"));
        }
    }
    let mut model_last = true;
    write::array(|contents| {
        for turn in turns::of(messages) {
            let parts = parts(&turn, traits, losses);
            if parts == "[]" {
                continue;
            }
            if turn.model && model_last && turn.items.iter().any(is_call) {
                // A call must follow something.
                contents.raw_text(FILLER);
            }
            model_last = turn.model;
            contents.object(|o| {
                o.str("role", if turn.model { "model" } else { "user" }).raw_text("parts", &parts);
            });
        }
    })
}

fn is_call(item: &Item<'_>) -> bool {
    matches!(item, Item::Block(Block { kind: BlockKind::ToolCall(_), .. }))
}

fn parts(turn: &Turn<'_>, traits: &Traits, losses: &mut Losses) -> String {
    // Models that think at levels refuse a turn whose first call bears no signature.
    let mut needed = turn.model && traits.thinking == Thinking::Effort;
    let mut beside: Vec<Carried<'_>> = Vec::new();
    write::array(|a| {
        let mut answered = turn.items.iter().any(|item| matches!(item, Item::Result { .. }));
        for item in &turn.items {
            let is_answer = matches!(item, Item::Result { .. } | Item::Unanswered { .. });
            if answered && !is_answer {
                answered = false;
                beside.drain(..).for_each(|media| media.push(a));
            }
            match item {
                Item::Block(block) => part(a, block, &mut needed, losses),
                Item::Result { block, result, name } => {
                    answer(a, block, result, name, traits, &mut beside, losses)
                }
                Item::Unanswered { id, name } => {
                    a.object(|o| {
                        o.object("functionResponse", |o| {
                            head(o, id, name);
                            o.object("response", |o| {
                                o.str("error", "no result was given for this call");
                            });
                        });
                    });
                }
                Item::Orphan(result) => {
                    let (text, media) = content(result, losses);
                    a.object(|o| {
                        o.str("text", &format!("Result of the tool call {}: {text}", result.call));
                    });
                    media.iter().for_each(|media| media.push(a));
                }
            }
        }
        beside.iter().for_each(|media| media.push(a));
    })
}

fn part(a: &mut ArrayWriter<'_>, block: &Block, needed: &mut bool, losses: &mut Losses) {
    marks(block, losses);
    let signature = wire::own(block.signature.as_ref());
    if block.signature.is_some() && signature.is_none() {
        losses.add("reasoning.proof");
    }
    match &block.kind {
        BlockKind::Text(it) => {
            if !it.citations.is_empty() {
                losses.add("messages.citations");
            }
            if !it.text.is_empty() || signature.is_some() {
                whole(a, block, losses, |o| part_write::text(o, &it.text, false, signature));
            }
        }
        BlockKind::Refusal(text) if !text.is_empty() => {
            whole(a, block, losses, |o| part_write::text(o, text, false, None))
        }
        BlockKind::Reasoning(Reasoning { text, .. }) => {
            if !text.is_empty() || signature.is_some() {
                whole(a, block, losses, |o| part_write::text(o, text, true, signature));
            }
        }
        BlockKind::ToolCall(call) => {
            let signature = signature.or_else(|| needed.then_some(UNSIGNED));
            *needed = false;
            whole(a, block, losses, |o| part_write::call(o, call, &fit(&call.name), signature));
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
            match part_write::media(media) {
                Ok(carried) => whole(a, block, losses, |o| {
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
            let kind = body.json().get("type").and_then(|kind| kind.str().map(Cow::into_owned));
            losses.add(format!("messages.{}", kind.as_deref().unwrap_or("foreign")));
        }
        BlockKind::Refusal(_) | BlockKind::ToolResult(_) => {}
    }
}

/// A part, with what its own dialect said of it besides.
fn whole(
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

fn marks(block: &Block, losses: &mut Losses) {
    if block.cache.is_some() {
        losses.add("messages.cache_control");
    }
}

fn head(o: &mut ObjectWriter<'_>, id: &str, name: &str) {
    if !id.starts_with(wire::MADE) {
        o.str("id", id);
    }
    o.str("name", &fit(name));
}

fn answer<'a>(
    a: &mut ArrayWriter<'_>,
    block: &'a Block,
    result: &'a ToolResult,
    name: &str,
    traits: &Traits,
    beside: &mut Vec<Carried<'a>>,
    losses: &mut Losses,
) {
    marks(block, losses);
    let (text, media) = content(result, losses);
    // Models that think at levels see media inside results; to others they are shown beside.
    let (within, outside): (Vec<_>, Vec<_>) = media
        .into_iter()
        .partition(|media| traits.thinking == Thinking::Effort && media.fits_results());
    beside.extend(outside);
    a.object(|o| {
        o.object("functionResponse", |o| {
            head(o, &result.call, name);
            o.object("response", |o| {
                o.str(if result.is_error { "error" } else { "output" }, &text);
            });
            if !within.is_empty() {
                o.array("parts", |a| within.iter().for_each(|media| media.push(a)));
            }
            for (key, value) in beneath(&block.extras, "functionResponse.") {
                o.raw(key, value);
            }
        });
        for (key, _) in
            block.extras.iter().filter(|(key, _)| block.extras.get(Dialect::Gemini, key).is_none())
        {
            losses.add(format!("messages.{key}"));
        }
    });
}

/// A result's text, and the media beside it.
fn content<'a>(result: &'a ToolResult, losses: &mut Losses) -> (String, Vec<Carried<'a>>) {
    let (mut text, mut media) = (String::new(), Vec::new());
    let mut say = |more: &str| {
        if !text.is_empty() && !more.is_empty() {
            text.push('\n');
        }
        text.push_str(more);
    };
    for block in &result.content {
        marks(block, losses);
        match &block.kind {
            BlockKind::Text(it) => say(&it.text),
            BlockKind::Refusal(it) => say(it),
            BlockKind::Reasoning(it) => say(&it.text),
            BlockKind::Media(it) => match part_write::media(it) {
                Ok(Carried::Text(text)) => say(&text),
                Ok(carried) => media.push(carried),
                Err(lost) => losses.add(lost),
            },
            BlockKind::Foreign { body, .. } => say(body.text()),
            BlockKind::ToolCall(_) | BlockKind::ToolResult(_) => {}
        }
    }
    (text, media)
}

/// A function's name as the provider takes it; unique, because what was changed is told apart by a
/// number.
pub(super) fn fit(name: &str) -> Cow<'_, str> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    let begins = |name: &str| name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if begins(name) && name.len() <= LONGEST_NAME && name.chars().all(good) {
        return Cow::Borrowed(name);
    }
    let mut out: String =
        name.chars().map(|c| if good(c) { c } else { '_' }).take(LONGEST_NAME - 10).collect();
    if !begins(&out) {
        out.insert(0, '_');
    }
    out.push_str(&format!("_{:08x}", wire::hash(&[name]) >> 32));
    Cow::Owned(out)
}
