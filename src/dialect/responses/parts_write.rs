//! Writes the parts of messages and of results.

use crate::{
    base::json::writer,
    dialect::{
        losses::Losses,
        responses::{
            items_read::{DIALECT, ITEM_FIELD_PREFIX},
            schema,
        },
    },
    ir::{
        block::{Block, BlockKind, Media, MediaKind, MediaSource, TextBlock},
        request::Role,
    },
};

/// Writes a part of a message or of a result.
pub(super) fn write_part(role: Role, block: &Block, losses: &mut Losses) -> Option<String> {
    if block.cache.is_some() {
        losses.add("messages.cache_control");
    }
    if block.signature.is_some() {
        losses.add("reasoning.proof");
    }
    let same_dialect = block.extras.is_from(DIALECT);
    for (key, _) in block.extras.iter().filter(|_| !same_dialect) {
        losses.add(format!("messages.{key}"));
    }
    let more = |o: &mut writer::ObjectWriter<'_>| {
        for (key, value) in block
            .extras
            .iter()
            .filter(|(key, _)| same_dialect && !key.starts_with(ITEM_FIELD_PREFIX))
        {
            o.raw(key, value);
        }
    };
    match &block.kind {
        BlockKind::Text(text) => Some(writer::object(|o| {
            o.str("type", if role == Role::Assistant { "output_text" } else { "input_text" })
                .str("text", &text.text);
            if role == Role::Assistant {
                o.raw_text("annotations", &write_annotations(text));
            }
            more(o);
        })),
        BlockKind::Refusal(text) if role == Role::Assistant => Some(writer::object(|o| {
            o.str("type", "refusal").str("refusal", text);
            more(o);
        })),
        BlockKind::Refusal(text) => Some(writer::object(|o| {
            o.str("type", "input_text").str("text", text);
        })),
        BlockKind::Media(media) if role != Role::Assistant => write_media(media, &more, losses),
        BlockKind::Media(media) => {
            losses.add(format!("messages.{}", media_kind_name(media.kind)));
            None
        }
        BlockKind::Foreign { dialect: DIALECT, body } => Some(body.text().to_owned()),
        _ => None,
    }
}

fn write_media(
    media: &Media,
    more: &dyn Fn(&mut writer::ObjectWriter<'_>),
    losses: &mut Losses,
) -> Option<String> {
    let url = |data: &str, default_mime: &str| {
        format!("data:{};base64,{data}", media.mime.as_deref().unwrap_or(default_mime))
    };
    match (media.kind, &media.source) {
        (MediaKind::Video, _)
        | (MediaKind::Image | MediaKind::Audio, MediaSource::Text(_))
        | (MediaKind::Audio, MediaSource::Url(_) | MediaSource::FileId(_)) => {
            losses.add(format!("messages.{}", media_kind_name(media.kind)));
            None
        }
        (MediaKind::Image, source) => Some(writer::object(|o| {
            o.str("type", "input_image");
            match source {
                MediaSource::Base64(data) => o.str("image_url", &url(data, "image/png")),
                MediaSource::FileId(id) => o.str("file_id", id),
                MediaSource::Url(at) | MediaSource::Text(at) => o.str("image_url", at),
            };
            o.opt_str("detail", media.detail.as_deref());
            more(o);
        })),
        (MediaKind::Audio, MediaSource::Base64(data)) => Some(writer::object(|o| {
            o.str("type", "input_audio").object("input_audio", |o| {
                let format = media
                    .mime
                    .as_deref()
                    .and_then(|mime| mime.split_once('/'))
                    .map_or("wav", |(_, format)| format);
                let format = match format {
                    "mpeg" | "mp3" => "mp3",
                    "x-wav" | "wave" => "wav",
                    other => other,
                };
                o.str("data", data).str("format", format);
            });
            more(o);
        })),
        (MediaKind::Document | MediaKind::File, MediaSource::Text(text)) => {
            Some(writer::object(|o| {
                let text = media
                    .name
                    .as_ref()
                    .map_or_else(|| text.clone(), |name| format!("{name}:\n{text}"));
                o.str("type", "input_text").str("text", &text);
                more(o);
            }))
        }
        (MediaKind::Document | MediaKind::File, source) => Some(writer::object(|o| {
            o.str("type", "input_file");
            match source {
                MediaSource::Base64(data) => {
                    let default_name =
                        if media.mime.as_deref().is_some_and(|mime| mime.starts_with("text/")) {
                            "document.txt"
                        } else {
                            "document.pdf"
                        };
                    o.str("filename", media.name.as_deref().unwrap_or(default_name))
                        .str("file_data", &url(data, "application/pdf"));
                }
                MediaSource::FileId(id) => {
                    o.opt_str("filename", media.name.as_deref()).str("file_id", id);
                }
                MediaSource::Url(at) | MediaSource::Text(at) => {
                    o.opt_str("filename", media.name.as_deref()).str("file_url", at);
                }
            }
            o.opt_str("detail", media.detail.as_deref());
            more(o);
        })),
    }
}

/// Writes a text's citations as annotations of this API.
fn write_annotations(text: &TextBlock) -> String {
    writer::array(|a| {
        for citation in &text.citations {
            if let Some(json) = schema::write_annotation(citation, text.text.chars().count() as u64)
            {
                a.raw_text(&json);
            }
        }
    })
}

fn media_kind_name(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Image => "image",
        MediaKind::Audio => "audio",
        MediaKind::Document => "document",
        MediaKind::Video => "video",
        MediaKind::File => "file",
    }
}
