//! Writes content: as a text if that is lossless, else as a list of parts.

use crate::{
    base::json::writer::{ArrayWriter, ObjectWriter},
    dialect::{losses::Losses, openai::reasoning},
    ir::{
        block::{Block, BlockKind, Media, MediaKind, MediaSource},
        extras::Extras,
        op::Dialect,
    },
};

const DIALECT: Dialect = Dialect::Openai;

/// Writes `content`; `marked`: the whole message has a cache mark in this dialect's form.
pub(super) fn write_content(
    blocks: &[&Block],
    marked: bool,
    o: &mut ObjectWriter<'_>,
    losses: &mut Losses,
) {
    match blocks {
        [] => {
            o.str("content", "");
        }
        [Block { kind: BlockKind::Text(text), extras, .. }] if !has_native_fields(extras) => {
            add_block_losses(blocks[0], marked, losses);
            add_foreign_losses(extras, losses);
            o.str("content", &text.text);
        }
        _ => {
            o.array("content", |a| {
                for block in blocks {
                    write_part(block, marked, a, losses);
                }
            });
        }
    }
}

/// Whether a part has fields of this dialect, so that it must be written as a part.
pub(super) fn has_native_fields(extras: &Extras) -> bool {
    extras.get(DIALECT, "cache_control").is_some()
        || (extras.is_from(DIALECT) && extras.iter().next().is_some())
}

/// Adds the fields that only another dialect has to the losses.
pub(super) fn add_foreign_losses(extras: &Extras, losses: &mut Losses) {
    for (key, _) in extras.iter().filter(|(key, _)| extras.get(DIALECT, key).is_none()) {
        losses.add(format!("messages.{key}"));
    }
}

/// Adds the losses of a block's attributes (cache mark, signature, citations).
pub(super) fn add_block_losses(block: &Block, marked: bool, losses: &mut Losses) {
    if block.cache.is_some() && !marked && block.extras.get(DIALECT, "cache_control").is_none() {
        losses.add("messages.cache_control");
    }
    if block.signature.as_ref().is_some_and(|proof| proof.dialect != DIALECT) {
        losses.add("reasoning.proof");
    }
    if let BlockKind::Text(text) = &block.kind
        && !text.citations.is_empty()
    {
        losses.add("messages.citations");
    }
}

/// Writes one part; a block that has no part is a loss.
pub(super) fn write_part(
    block: &Block,
    marked: bool,
    a: &mut ArrayWriter<'_>,
    losses: &mut Losses,
) {
    add_block_losses(block, marked, losses);
    match &block.kind {
        BlockKind::Text(text) => {
            a.object(|o| {
                o.str("type", "text").str("text", &text.text);
                write_native_fields(block, o, losses);
            });
        }
        BlockKind::Media(media) => write_media(block, media, a, losses),
        BlockKind::Refusal(words) => {
            a.object(|o| {
                o.str("type", "refusal").str("refusal", words);
                write_native_fields(block, o, losses);
            });
        }
        BlockKind::Foreign { dialect: Dialect::Openai, body } => {
            a.raw(body);
        }
        BlockKind::Foreign { .. } => losses.add("messages.server_tools"),
        BlockKind::Reasoning(_) => match block.extras.get(DIALECT, "thinking") {
            Some(part) => {
                a.raw(part);
            }
            None => losses.add("reasoning"),
        },
        BlockKind::ToolCall(_) | BlockKind::ToolResult(_) => losses.add("messages.tools"),
    }
}

fn write_native_fields(block: &Block, o: &mut ObjectWriter<'_>, losses: &mut Losses) {
    // The message itself contains the system message's fields other than the content.
    let head = block.extras.get(DIALECT, "system").map(crate::base::json::raw::RawJson::json);
    let outside = |key: &str| key == "system" || head.is_some_and(|head| head.get(key).is_some());
    block.extras.write_except(outside, DIALECT, o, |key| losses.add(format!("messages.{key}")));
}

fn write_media(block: &Block, media: &Media, a: &mut ArrayWriter<'_>, losses: &mut Losses) {
    let mime = || media.mime.as_deref();
    let data_url = |data: &str, default_mime: &str| {
        format!("data:{};base64,{data}", mime().unwrap_or(default_mime))
    };
    match (media.kind, &media.source) {
        (_, MediaSource::Text(text)) => {
            let titled_text = media
                .name
                .as_ref()
                .map_or_else(|| text.clone(), |name| format!("{name}:\n\n{text}"));
            a.object(|o| {
                o.str("type", "text").str("text", &titled_text);
                write_native_fields(block, o, losses);
            });
        }
        (_, MediaSource::FileId(id)) => {
            a.object(|o| {
                o.str("type", "file").object("file", |o| {
                    o.str("file_id", id);
                });
                write_native_fields(block, o, losses);
            });
        }
        (MediaKind::Image | MediaKind::Video, source) => {
            let (kind, default_mime) = if media.kind == MediaKind::Image {
                ("image_url", "image/png")
            } else {
                ("video_url", "video/mp4")
            };
            let url = match source {
                MediaSource::Base64(data) => data_url(data, default_mime),
                MediaSource::Url(url) | MediaSource::FileId(url) | MediaSource::Text(url) => {
                    url.clone()
                }
            };
            a.object(|o| {
                o.str("type", kind).object(kind, |o| {
                    o.str("url", &url).opt_str("detail", media.detail.as_deref());
                });
                write_native_fields(block, o, losses);
            });
        }
        (MediaKind::Audio, MediaSource::Base64(data)) => {
            let format = audio_format(mime());
            a.object(|o| {
                o.str("type", "input_audio").object("input_audio", |o| {
                    o.str("data", data).str("format", format);
                });
                write_native_fields(block, o, losses);
            });
        }
        (MediaKind::Document | MediaKind::File, MediaSource::Base64(data)) => {
            let name = media.name.clone().unwrap_or_else(|| file_name(mime()));
            a.object(|o| {
                o.str("type", "file").object("file", |o| {
                    o.str("filename", &name).str("file_data", &data_url(data, "application/pdf"));
                });
                write_native_fields(block, o, losses);
            });
        }
        // Providers of this dialect fetch only images.
        (MediaKind::Audio | MediaKind::Document | MediaKind::File, MediaSource::Url(url)) => {
            losses.add("messages.document_url");
            a.object(|o| {
                o.str("type", "text").str("text", url);
            });
        }
    }
}

/// Returns the name of an audio format.
fn audio_format(mime: Option<&str>) -> &str {
    match mime.and_then(|mime| mime.strip_prefix("audio/")).unwrap_or("wav") {
        "mpeg" | "mpga" => "mp3",
        "wave" | "x-wav" | "vnd.wave" => "wav",
        other => other,
    }
}

/// Returns the name of a file that has none.
fn file_name(mime: Option<&str>) -> String {
    let mime = mime.unwrap_or("application/pdf");
    let extension =
        mime.rsplit('/').next().filter(|extension| extension.len() <= 5).unwrap_or("bin");
    format!("document.{}", if extension == "plain" { "txt" } else { extension })
}

/// Returns the signature of an assistant's text in this dialect's form.
pub(super) fn extra_content(blocks: &[Block]) -> Option<crate::base::json::raw::RawJson> {
    blocks
        .iter()
        .filter(|block| matches!(block.kind, BlockKind::Text(_)))
        .find_map(|block| reasoning::to_extra_content(block.signature.as_ref()))
}
