//! Writes the blocks of an arranged conversation as content blocks.

use std::borrow::Cow;

use crate::{
    base::json::{reader, writer},
    dialect::{
        anthropic::{
            arrange_turns::{ArrangedBlock, ArrangedContent, ArrangedTurn, text_of},
            blocks_read::original_block,
            media,
            names::AnthropicToolNames,
        },
        losses::Losses,
    },
    ir::{
        block::{
            Block, BlockKind, CacheBreakpoint, CallKind, Citation, Media, ToolCall, ToolResult,
        },
        extras::Extras,
        op::Dialect,
        tool,
    },
};

const DIALECT: Dialect = Dialect::Anthropic;

/// The content of the result that is inserted for a call without one. The provider refuses a
/// conversation in which a call has no result.
const NO_RESULT_TEXT: &str = "No result was given for this call.";

/// Writes the system prompt as JSON.
pub(super) fn write_system(
    pieces: &[ArrangedBlock<'_>],
    names: &AnthropicToolNames,
    losses: &mut Losses,
) -> String {
    write_content(pieces, names, losses)
}

/// Writes a turn as JSON.
pub(super) fn write_turn(
    turn: &ArrangedTurn<'_>,
    names: &AnthropicToolNames,
    losses: &mut Losses,
) -> String {
    writer::object(|o| {
        o.str("role", if turn.is_assistant { "assistant" } else { "user" });
        o.raw_text("content", &write_content(&turn.blocks, names, losses));
        for extras in &turn.extras {
            extras.write(DIALECT, o, |key| losses.add(format!("messages.{key}")));
        }
    })
}

/// The arguments of a call, which must be an object. Any other value is wrapped in one.
pub(super) fn tool_input(call: &ToolCall) -> Cow<'_, str> {
    if call.form == CallKind::Custom {
        return tool::custom_arguments(&call.arguments).into();
    }
    to_json_object(&call.arguments)
}

/// Returns the text if it is a JSON object, else an object that contains it.
pub(super) fn to_json_object(arguments: &str) -> Cow<'_, str> {
    let text = arguments.trim();
    if matches!(text, "" | "null") {
        return Cow::Borrowed("{}");
    }
    match reader::parse(text.as_bytes()) {
        Ok(json) if json.is_object() => Cow::Borrowed(text),
        // Some languages write an object without members as an empty array.
        Ok(json) if json.is_array() && json.is_blank() => Cow::Borrowed("{}"),
        Ok(json) => match json
            .str()
            .filter(|inner| reader::parse(inner.as_bytes()).is_ok_and(reader::JsonRef::is_object))
        {
            Some(inner) => Cow::Owned(inner.into_owned()),
            None => writer::object(|o| {
                o.json("arguments", json);
            })
            .into(),
        },
        Err(_) => writer::object(|o| {
            o.str("arguments", arguments);
        })
        .into(),
    }
}

/// Writes a single plain text as a string, and everything else as a list of blocks.
fn write_content(
    pieces: &[ArrangedBlock<'_>],
    names: &AnthropicToolNames,
    losses: &mut Losses,
) -> String {
    if let [
        ArrangedBlock {
            content: ArrangedContent::Text { text, citations: [] },
            cache: None,
            extras,
        },
    ] = pieces
        && extras.is_none_or(Extras::is_empty)
    {
        let mut out = String::with_capacity(text.len() + 2);
        writer::push_string(&mut out, text);
        return out;
    }
    writer::array(|a| pieces.iter().for_each(|it| write_block(a, it, names, losses)))
}

fn write_block(
    a: &mut writer::ArrayWriter<'_>,
    piece: &ArrangedBlock<'_>,
    names: &AnthropicToolNames,
    losses: &mut Losses,
) {
    if let ArrangedContent::Foreign(body) = &piece.content {
        a.raw(body);
        return;
    }
    a.object(|o| {
        match &piece.content {
            ArrangedContent::Call { id, call } => {
                o.str("type", "tool_use")
                    .str("id", id)
                    .str("name", names.wire_name(&call.name))
                    .raw_text("input", &tool_input(call));
            }
            ArrangedContent::Foreign(_) => {}
            ArrangedContent::Media { kind, source, title } => {
                o.str("type", kind).raw_text("source", source);
                if *kind == "document" {
                    o.opt_str("title", *title);
                }
            }
            ArrangedContent::Redacted(data) => {
                o.str("type", "redacted_thinking").str("data", data);
            }
            ArrangedContent::Result { id, results } => {
                o.str("type", "tool_result").str("tool_use_id", id);
                write_tool_result(o, results, losses);
            }
            ArrangedContent::Text { text, citations } => {
                o.str("type", "text").str("text", text);
                write_citations(o, citations, losses);
            }
            ArrangedContent::Thought { text, signature } => {
                o.str("type", "thinking").str("thinking", text).str("signature", signature);
            }
        }
        write_cache_and_extras(o, piece.cache, piece.extras, losses);
    });
}

fn write_cache_and_extras(
    o: &mut writer::ObjectWriter<'_>,
    cache: Option<&CacheBreakpoint>,
    extras: Option<&Extras>,
    losses: &mut Losses,
) {
    o.opt_raw("cache_control", cache.map(|mark| &mark.raw));
    if let Some(extras) = extras {
        extras.write(DIALECT, o, |key| losses.add(format!("messages.{key}")));
    }
}

/// Writes only this dialect's own citations: they contain an index that others lack.
fn write_citations(o: &mut writer::ObjectWriter<'_>, citations: &[Citation], losses: &mut Losses) {
    let native: Vec<_> = citations
        .iter()
        .filter_map(|it| it.raw.as_ref().filter(|(dialect, _)| *dialect == DIALECT))
        .collect();
    if native.len() < citations.len() {
        losses.add("messages.citations");
    }
    if !native.is_empty() {
        o.array("citations", |a| {
            for (_, raw) in native {
                a.raw(raw);
            }
        });
    }
}

fn write_tool_result(
    o: &mut writer::ObjectWriter<'_>,
    results: &[&ToolResult],
    losses: &mut Losses,
) {
    if results.is_empty() {
        o.str("content", NO_RESULT_TEXT).bool("is_error", true);
        return;
    }
    // The result of a failed call may contain only text; its other content follows the results.
    let failed = results.iter().any(|result| result.is_error);
    let mut only_text = None;
    let mut count = 0;
    let blocks = writer::array(|a| {
        for block in results.iter().flat_map(|result| &result.content) {
            if let Some(original) = original_block(block).filter(|_| !failed) {
                a.raw(original);
                (count, only_text) = (count + 1, None);
                continue;
            }
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
                            write_citations(o, &text.citations, losses);
                        }
                        write_cache_and_extras(
                            o,
                            block.cache.as_ref(),
                            Some(&block.extras),
                            losses,
                        );
                    });
                }
                BlockKind::Media(_) if failed => continue,
                BlockKind::Media(medium) => {
                    if !write_result_media(a, block, medium, losses) {
                        continue;
                    }
                    only_text = None;
                }
                BlockKind::Foreign { dialect: DIALECT, body } if !failed => {
                    a.raw(body);
                    only_text = None;
                }
                BlockKind::Foreign { body, .. } => {
                    losses.add_foreign_block(body.json());
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

/// Writes the media of a result. Returns false if this dialect cannot express it.
fn write_result_media(
    a: &mut writer::ArrayWriter<'_>,
    block: &Block,
    medium: &Media,
    losses: &mut Losses,
) -> bool {
    match media::write_source(medium) {
        Ok((kind, source)) => {
            a.object(|o| {
                o.str("type", kind).raw_text("source", &source);
                if kind == "document" {
                    o.opt_str("title", medium.name.as_deref());
                }
                write_cache_and_extras(o, block.cache.as_ref(), Some(&block.extras), losses);
            });
            true
        }
        Err(name) => {
            losses.add(name);
            false
        }
    }
}
