//! The pieces of a conversation as content blocks.

use std::borrow::Cow;

use crate::{
    base::{json, write},
    dialect::{
        anthropic::{
            media,
            names::Names,
            turns::{Piece, Turn, What, foreign_name, text_of},
        },
        losses::Losses,
    },
    ir::{
        block::{BlockKind, CacheBreakpoint, CallKind, Citation, ToolCall, ToolResult},
        extras::Extras,
        op::Dialect,
        tool,
    },
};

const ME: Dialect = Dialect::Anthropic;

/// What a call is told that nobody gave a result for; without any result the provider refuses the
/// conversation.
const NO_RESULT: &str = "No result was given for this call.";

/// The system prompt, as JSON.
pub(super) fn system(pieces: &[Piece<'_>], names: &Names, lost: &mut Losses) -> String {
    said(pieces, names, lost)
}

/// A turn, as JSON.
pub(super) fn turn(turn: &Turn<'_>, names: &Names, lost: &mut Losses) -> String {
    write::object(|o| {
        o.str("role", if turn.assistant { "assistant" } else { "user" });
        o.raw_text("content", &said(&turn.pieces, names, lost));
        for extras in &turn.extras {
            extras.write(ME, o, |key| lost.add(format!("messages.{key}")));
        }
    })
}

/// The arguments of a call, which have to be an object; whatever else they are is put into one.
pub(super) fn input(call: &ToolCall) -> Cow<'_, str> {
    if call.form == CallKind::Custom {
        return tool::custom_arguments(&call.arguments).into();
    }
    object(&call.arguments)
}

/// The text where it is a JSON object, else an object that holds it.
pub(super) fn object(arguments: &str) -> Cow<'_, str> {
    let text = arguments.trim();
    if matches!(text, "" | "null") {
        return Cow::Borrowed("{}");
    }
    match json::parse(text.as_bytes()) {
        Ok(json) if json.is_object() => Cow::Borrowed(text),
        // Some languages write an object without members so.
        Ok(json) if json.is_array() && json.is_blank() => Cow::Borrowed("{}"),
        Ok(json) => match json
            .str()
            .filter(|inner| json::parse(inner.as_bytes()).is_ok_and(json::JsonRef::is_object))
        {
            Some(inner) => Cow::Owned(inner.into_owned()),
            None => write::object(|o| {
                o.json("arguments", json);
            })
            .into(),
        },
        Err(_) => write::object(|o| {
            o.str("arguments", arguments);
        })
        .into(),
    }
}

/// A lone plain text stands as text, all else as a list of blocks.
fn said(pieces: &[Piece<'_>], names: &Names, lost: &mut Losses) -> String {
    if let [Piece { what: What::Text { text, citations: [] }, cache: None, extras }] = pieces
        && extras.is_none_or(Extras::is_empty)
    {
        let mut out = String::with_capacity(text.len() + 2);
        write::push_string(&mut out, text);
        return out;
    }
    write::array(|a| pieces.iter().for_each(|it| piece(a, it, names, lost)))
}

fn piece(a: &mut write::ArrayWriter<'_>, piece: &Piece<'_>, names: &Names, lost: &mut Losses) {
    if let What::Foreign(body) = &piece.what {
        a.raw(body);
        return;
    }
    a.object(|o| {
        match &piece.what {
            What::Call { id, call } => {
                o.str("type", "tool_use")
                    .str("id", id)
                    .str("name", names.sent(&call.name))
                    .raw_text("input", &input(call));
            }
            What::Foreign(_) => {}
            What::Media { kind, source, title } => {
                o.str("type", kind).raw_text("source", source);
                if *kind == "document" {
                    o.opt_str("title", *title);
                }
            }
            What::Redacted(data) => {
                o.str("type", "redacted_thinking").str("data", data);
            }
            What::Result { id, results } => {
                o.str("type", "tool_result").str("tool_use_id", id);
                result(o, results, lost);
            }
            What::Text { text, citations } => {
                o.str("type", "text").str("text", text);
                self::citations(o, citations, lost);
            }
            What::Thought { text, signature } => {
                o.str("type", "thinking").str("thinking", text).str("signature", signature);
            }
        }
        finish(o, piece.cache, piece.extras, lost);
    });
}

fn finish(
    o: &mut write::ObjectWriter<'_>,
    cache: Option<&CacheBreakpoint>,
    extras: Option<&Extras>,
    lost: &mut Losses,
) {
    o.opt_raw("cache_control", cache.map(|mark| &mark.raw));
    if let Some(extras) = extras {
        extras.write(ME, o, |key| lost.add(format!("messages.{key}")));
    }
}

/// Only its own citations are taken back: they hold an index that others lack.
fn citations(o: &mut write::ObjectWriter<'_>, citations: &[Citation], lost: &mut Losses) {
    let own: Vec<_> = citations
        .iter()
        .filter_map(|it| it.raw.as_ref().filter(|(dialect, _)| *dialect == ME))
        .collect();
    if own.len() < citations.len() {
        lost.add("messages.citations");
    }
    if !own.is_empty() {
        o.array("citations", |a| {
            for (_, raw) in own {
                a.raw(raw);
            }
        });
    }
}

fn result(o: &mut write::ObjectWriter<'_>, results: &[&ToolResult], lost: &mut Losses) {
    if results.is_empty() {
        o.str("content", NO_RESULT).bool("is_error", true);
        return;
    }
    // A failed call may only say words; what else it gave stands after the results.
    let failed = results.iter().any(|result| result.is_error);
    let mut only_text = None;
    let mut count = 0;
    let blocks = write::array(|a| {
        for block in results.iter().flat_map(|result| &result.content) {
            match &block.kind {
                BlockKind::Text(_) | BlockKind::Refusal(_) => {
                    let text = text_of(block).unwrap_or_default();
                    if text.trim().is_empty() {
                        continue;
                    }
                    only_text = (count == 0 && block.cache.is_none() && block.extras.is_empty())
                        .then_some(text);
                    a.object(|o| {
                        o.str("type", "text").str("text", text);
                        if let BlockKind::Text(text) = &block.kind {
                            citations(o, &text.citations, lost);
                        }
                        finish(o, block.cache.as_ref(), Some(&block.extras), lost);
                    });
                }
                BlockKind::Media(_) if failed => continue,
                BlockKind::Media(medium) => {
                    if let Some(whole) =
                        super::blocks_read::WHOLE.iter().find_map(|key| block.extras.get(ME, key))
                    {
                        a.raw(whole);
                    } else {
                        match media::sent(medium) {
                            Ok((kind, source)) => {
                                a.object(|o| {
                                    o.str("type", kind).raw_text("source", &source);
                                    if kind == "document" {
                                        o.opt_str("title", medium.name.as_deref());
                                    }
                                    finish(o, block.cache.as_ref(), Some(&block.extras), lost);
                                });
                            }
                            Err(name) => {
                                lost.add(name);
                                continue;
                            }
                        }
                    }
                    only_text = None;
                }
                BlockKind::Foreign { dialect: ME, body } if !failed => {
                    a.raw(body);
                    only_text = None;
                }
                BlockKind::Foreign { body, .. } => {
                    lost.add(foreign_name(body));
                    continue;
                }
                BlockKind::Reasoning(_) | BlockKind::ToolCall(_) | BlockKind::ToolResult(_) => {
                    continue;
                }
            }
            count += 1;
        }
    });
    match only_text {
        Some(text) if count == 1 => {
            o.str("content", text);
        }
        _ if count > 0 => {
            o.raw_text("content", &blocks);
        }
        _ => {}
    }
    if failed {
        o.bool("is_error", true);
    }
}
