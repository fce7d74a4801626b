//! Writes the messages of a chat request: each with one text, its images and its calls.

use std::{borrow::Cow, collections::HashMap};

use crate::{
    base::{
        data_url,
        json::{
            raw::RawJson,
            writer::{ArrayWriter, ObjectWriter},
        },
    },
    dialect::{
        losses::Losses,
        ollama::{images, request_read::SYNTHETIC_ID_PREFIX},
    },
    ir::{
        block::{Block, BlockKind, CallKind, Media, MediaKind, MediaSource, ToolCall, ToolResult},
        extras::Extras,
        op::Dialect,
        request::{ChatMessage, ChatRequest, Role},
        tool,
    },
};

const DIALECT: Dialect = Dialect::Ollama;
/// Separates parts of a message that must become one text.
const PART_SEPARATOR: &str = "\n\n";
/// Stands for a conversation of which nothing can be written.
const UNSAID: &str = "Continue.";

pub(super) fn write_messages(a: &mut ArrayWriter<'_>, request: &ChatRequest, losses: &mut Losses) {
    if !request.system.is_empty() {
        losses
            .when(request.system.iter().any(|block| block.cache.is_some()), "system.cache_control");
        write_message(
            a,
            "system",
            None,
            &request.system.iter().collect::<Vec<_>>(),
            &Extras::default(),
            losses,
        );
    }
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut has_turns = false;
    let mut rest = request.messages.as_slice();
    while let Some(first) = rest.first() {
        let run = if first.role == Role::User {
            rest.iter().take_while(|message| message.role == Role::User).count()
        } else {
            1
        };
        let (now, later) = rest.split_at(run);
        rest = later;
        let blocks: Vec<&Block> = first.blocks.iter().collect();
        match first.role {
            Role::Assistant => {
                if says_nothing(request, &blocks, losses) {
                    continue;
                }
                for block in &first.blocks {
                    if let BlockKind::ToolCall(call) = &block.kind {
                        names.insert(&call.id, &call.name);
                    }
                }
                has_turns = true;
                write_assistant_message(a, first, losses);
            }
            Role::System => {
                write_message(a, "system", first.name.as_deref(), &blocks, &first.extras, losses);
            }
            Role::User => has_turns |= write_user_run(a, request, now, &names, losses),
        }
    }
    if !has_turns && !request.messages.is_empty() {
        a.object(|o| {
            o.str("role", "user").str("content", UNSAID);
        });
    }
}

/// Writes adjacent messages of the user: results come directly after the calls, before other
/// content. Returns whether anything was written.
fn write_user_run(
    a: &mut ArrayWriter<'_>,
    request: &ChatRequest,
    run: &[ChatMessage],
    names: &HashMap<&str, &str>,
    losses: &mut Losses,
) -> bool {
    let mut has_written = false;
    for block in run.iter().flat_map(|message| &message.blocks) {
        if let BlockKind::ToolResult(it) = &block.kind {
            has_written = true;
            write_tool_result(a, it, block, names.get(it.call.as_str()).copied(), losses);
        }
    }
    for message in run {
        let rest: Vec<&Block> = message
            .blocks
            .iter()
            .filter(|block| !matches!(block.kind, BlockKind::ToolResult(_)))
            .collect();
        let is_done = rest.is_empty() && !message.blocks.is_empty();
        if is_done || says_nothing(request, &rest, losses) {
            continue;
        }
        has_written = true;
        write_message(a, "user", message.name.as_deref(), &rest, &message.extras, losses);
    }
    has_written
}

/// Whether a message would be empty: items of other providers only, an interrupted turn with nothing
/// but thoughts, or an item of the Responses API without content, which that API takes. Ollama takes
/// an empty message for a prompt.
fn says_nothing(request: &ChatRequest, blocks: &[&Block], losses: &mut Losses) -> bool {
    if losses.add_if_all_foreign(DIALECT, blocks) {
        return true;
    }
    if !blocks.is_empty()
        && blocks.iter().all(|block| matches!(block.kind, BlockKind::Reasoning(_)))
    {
        losses.add("reasoning");
        return true;
    }
    request.extras.is_from(Dialect::Responses)
        && blocks
            .iter()
            .all(|block| matches!(&block.kind, BlockKind::Text(text) if text.text.is_empty()))
}

/// Writes a message of the system or the user.
fn write_message(
    a: &mut ArrayWriter<'_>,
    role: &str,
    name: Option<&str>,
    blocks: &[&Block],
    extras: &Extras,
    losses: &mut Losses,
) {
    let (content, images) = text_and_images(blocks, PART_SEPARATOR, losses);
    losses.when(name.is_some(), "messages.name");
    a.object(|o| {
        o.str("role", role).str("content", &content);
        write_string_array(o, "images", &images);
        extras.write(DIALECT, o, |key| losses.add(format!("messages.{key}")));
    });
}

fn write_assistant_message(a: &mut ArrayWriter<'_>, message: &ChatMessage, losses: &mut Losses) {
    let mut thinking: Vec<&str> = Vec::new();
    let (mut rest, mut calls): (Vec<&Block>, Vec<(&Block, &ToolCall)>) = (Vec::new(), Vec::new());
    for block in &message.blocks {
        match &block.kind {
            BlockKind::Reasoning(it) => {
                losses.when(block.signature.is_some(), "reasoning.proof");
                if !it.text.is_empty() {
                    thinking.push(&it.text);
                }
            }
            BlockKind::ToolCall(call) => calls.push((block, call)),
            _ => rest.push(block),
        }
    }
    let (content, images) = text_and_images(&rest, "", losses);
    losses.when(message.name.is_some(), "messages.name");
    a.object(|o| {
        o.str("role", "assistant").str("content", &content);
        if !thinking.is_empty() {
            o.str("thinking", &thinking.join(PART_SEPARATOR));
        }
        write_string_array(o, "images", &images);
        if !calls.is_empty() {
            o.array("tool_calls", |a| {
                for (block, call) in calls {
                    add_block_losses(block, losses);
                    a.object(|o| {
                        if !call.id.starts_with(SYNTHETIC_ID_PREFIX) {
                            o.str("id", &call.id);
                        }
                        o.object("function", |o| {
                            o.str("name", &call.name).raw_text(
                                "arguments",
                                &arguments_object(&call.arguments, call.form),
                            );
                        });
                        block.extras.write(DIALECT, o, |key| losses.add(format!("messages.{key}")));
                    });
                }
            });
        }
        message.extras.write(DIALECT, o, |key| losses.add(format!("messages.{key}")));
    });
}

fn write_tool_result(
    a: &mut ArrayWriter<'_>,
    result: &ToolResult,
    block: &Block,
    called: Option<&str>,
    losses: &mut Losses,
) {
    let (content, images) =
        text_and_images(&result.content.iter().collect::<Vec<_>>(), PART_SEPARATOR, losses);
    losses.when(result.is_error, "messages.is_error");
    add_block_losses(block, losses);
    a.object(|o| {
        o.str("role", "tool").str("content", &content);
        write_string_array(o, "images", &images);
        o.opt_str("tool_name", result.name.as_deref().or(called));
        if !result.call.starts_with(SYNTHETIC_ID_PREFIX) {
            o.str("tool_call_id", &result.call);
        }
        block.extras.write(DIALECT, o, |key| losses.add(format!("messages.{key}")));
    });
}

/// Returns the arguments as the object that Ollama requires; text that is not an object becomes its
/// only value.
pub(super) fn arguments_object(text: &str, form: CallKind) -> Cow<'_, str> {
    let trimmed = text.trim();
    if form == CallKind::Custom {
        return tool::custom_arguments(text).into();
    }
    if trimmed.is_empty() {
        return "{}".into();
    }
    let object = trimmed.starts_with('{') && RawJson::parse(trimmed).is_some();
    if object { trimmed.into() } else { tool::custom_arguments(text).into() }
}

fn write_string_array(o: &mut ObjectWriter<'_>, key: &str, texts: &[Cow<'_, str>]) {
    if !texts.is_empty() {
        o.array(key, |a| {
            for text in texts {
                a.str(text);
            }
        });
    }
}

fn add_block_losses(block: &Block, losses: &mut Losses) {
    losses.when(block.cache.is_some(), "messages.cache_control");
    losses.when(block.signature.is_some(), "reasoning.proof");
}

/// Returns the text and the images of a message.
fn text_and_images<'b>(
    blocks: &[&'b Block],
    gap: &str,
    losses: &mut Losses,
) -> (String, Vec<Cow<'b, str>>) {
    let (mut text, mut images) = (String::new(), Vec::new());
    for block in blocks {
        add_block_losses(block, losses);
        block.extras.iter().for_each(|(key, _)| losses.add(format!("messages.{key}")));
        let mut push_text = |words: &str| {
            if !words.is_empty() {
                if !text.is_empty() {
                    text.push_str(gap);
                }
                text.push_str(words);
            }
        };
        match &block.kind {
            BlockKind::Text(it) => {
                losses.when(!it.citations.is_empty(), "messages.citations");
                push_text(&it.text);
            }
            BlockKind::Refusal(words) => push_text(words),
            BlockKind::Media(media) => add_media(media, &mut images, &mut push_text, losses),
            BlockKind::Foreign { body, .. } => {
                losses.add_foreign_block(body.json());
            }
            // The caller has already written these blocks if their position is valid.
            BlockKind::Reasoning(_) | BlockKind::ToolCall(_) | BlockKind::ToolResult(_) => {
                losses.add("messages.misplaced");
            }
        }
    }
    (text, images)
}

/// Adds images as they are and text documents as text; other media are losses.
fn add_media<'b>(
    media: &'b Media,
    images: &mut Vec<Cow<'b, str>>,
    push_text: &mut impl FnMut(&str),
    losses: &mut Losses,
) {
    losses.when(
        media.kind == MediaKind::Image && media.detail.as_deref().is_some_and(|d| d != "auto"),
        "messages.image_url.detail",
    );
    match (media.kind, &media.source) {
        (MediaKind::Image, MediaSource::Base64(data)) => {
            images.push(images::to_standard_base64(data));
        }
        (MediaKind::Image, MediaSource::Url(url)) => match data_url::split_base64(url) {
            Some(parts) => images.push(images::to_standard_base64(parts.data)),
            None => {
                losses.add("messages.image_url");
                push_text(&format!("[image: {url}]"));
            }
        },
        (_, MediaSource::Text(text)) => add_document(media, text, push_text),
        (MediaKind::Document | MediaKind::File, MediaSource::Base64(data))
            if media.mime.as_deref().is_some_and(is_text_mime) =>
        {
            match images::decode_base64(data).and_then(|bytes| String::from_utf8(bytes).ok()) {
                Some(text) => add_document(media, &text, push_text),
                None => losses.add("messages.document"),
            }
        }
        (MediaKind::Image, _) => losses.add("messages.image"),
        (MediaKind::Audio, _) => losses.add("messages.audio"),
        (MediaKind::Document, _) => losses.add("messages.document"),
        (MediaKind::Video, _) => losses.add("messages.video"),
        (MediaKind::File, _) => losses.add("messages.file"),
    }
}

fn add_document(media: &Media, text: &str, push_text: &mut impl FnMut(&str)) {
    match &media.name {
        Some(name) => push_text(&format!("{name}:\n{text}")),
        None => push_text(text),
    }
}

fn is_text_mime(mime: &str) -> bool {
    mime.starts_with("text/")
        || matches!(mime, "application/json" | "application/xml" | "application/yaml")
}
