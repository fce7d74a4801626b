//! Writes the parts that request contents and response content share.

use std::borrow::Cow;

use crate::{
    base::{
        data_url::{self, DataUrl},
        json::{
            reader,
            writer::{ArrayWriter, ObjectWriter},
        },
    },
    dialect::gemini::field_names,
    ir::{
        block::{CallKind, Media, MediaSource, ToolCall},
        tool,
    },
};

pub(super) fn write_text(
    o: &mut ObjectWriter<'_>,
    text: &str,
    thought: bool,
    signature: Option<&str>,
) {
    o.str("text", text);
    if thought {
        o.bool("thought", true);
    }
    o.opt_str("thoughtSignature", signature);
}

pub(super) fn write_function_call(
    o: &mut ObjectWriter<'_>,
    call: &ToolCall,
    name: &str,
    signature: Option<&str>,
) {
    o.object("functionCall", |o| {
        if !call.id.starts_with(field_names::GENERATED_ID_PREFIX) {
            o.str("id", &call.id);
        }
        o.str("name", name);
        write_args(o, &call.arguments, call.form);
    });
    o.opt_str("thoughtSignature", signature);
}

/// Writes the arguments as an object. Any other value becomes the member `input` of one.
fn write_args(o: &mut ObjectWriter<'_>, text: &str, form: CallKind) {
    if form == CallKind::Custom {
        o.raw_text("args", &tool::custom_arguments(text));
        return;
    }
    match reader::parse(text.as_bytes()) {
        Ok(json) if json.is_object() => o.json("args", json),
        Ok(json) => o.object("args", |o| {
            o.json("input", json);
        }),
        Err(_) if text.trim().is_empty() => o.object("args", |_| {}),
        Err(_) => o.object("args", |o| {
            o.str("input", text);
        }),
    };
}

/// Returns media in this dialect's form. `Err` names the loss if this dialect cannot carry it.
pub(super) fn to_media_part(media: &Media) -> Result<MediaPart<'_>, &'static str> {
    match &media.source {
        MediaSource::Base64(data) => Ok(MediaPart::Inline { mime: mime_type(media, data), data }),
        MediaSource::Text(text) => Ok(MediaPart::Text(match &media.name {
            Some(name) => Cow::Owned(format!("{name}:\n{text}")),
            None => Cow::Borrowed(text),
        })),
        MediaSource::Url(url) => match data_url::split(url) {
            Some(DataUrl { mime, data, .. }) => Ok(MediaPart::Inline {
                mime: mime
                    .map_or_else(|| mime_type(media, data), |mime| Cow::Owned(mime.to_owned())),
                data,
            }),
            None => Ok(MediaPart::File {
                mime: media.mime.as_deref().or_else(|| field_names::mime_of_name(url)),
                uri: url,
            }),
        },
        // A file id of another provider is not a URI.
        MediaSource::FileId(id) if id.contains("://") || id.starts_with("files/") => {
            Ok(MediaPart::File {
                mime: media.mime.as_deref().or_else(|| field_names::mime_of_name(id)),
                uri: id,
            })
        }
        MediaSource::FileId(_) => Err("messages.file_id"),
    }
}

pub(super) enum MediaPart<'a> {
    Inline {
        mime: Cow<'a, str>,
        data: &'a str,
    },
    /// A file by URI. Without a media type the provider detects it.
    File {
        mime: Option<&'a str>,
        uri: &'a str,
    },
    Text(Cow<'a, str>),
}

impl MediaPart<'_> {
    pub(super) fn write(&self, o: &mut ObjectWriter<'_>) {
        match self {
            Self::Inline { mime, data } => {
                o.object("inlineData", |o| {
                    o.str("mimeType", mime).str("data", data);
                });
            }
            Self::File { mime, uri } => {
                o.object("fileData", |o| {
                    o.opt_str("mimeType", *mime).str("fileUri", uri);
                });
            }
            Self::Text(text) => {
                o.str("text", text);
            }
        }
    }

    pub(super) fn push(&self, a: &mut ArrayWriter<'_>) {
        a.object(|o| self.write(o));
    }

    /// Whether a tool result may contain it as a part, at providers that support such parts.
    pub(super) fn fits_results(&self) -> bool {
        const ACCEPTED_MIME_TYPES: [&str; 5] =
            ["image/png", "image/jpeg", "image/webp", "application/pdf", "text/plain"];
        match self {
            Self::Inline { mime, .. } => ACCEPTED_MIME_TYPES.contains(&&**mime),
            Self::File { mime, .. } => mime.is_some_and(|mime| ACCEPTED_MIME_TYPES.contains(&mime)),
            Self::Text(_) => false,
        }
    }
}

fn mime_type<'a>(media: &'a Media, data: &str) -> Cow<'a, str> {
    use crate::ir::block::MediaKind as K;
    let known = media.mime.as_deref().filter(|mime| mime.contains('/'));
    let found = known
        .or_else(|| field_names::mime_of_data(data))
        .or_else(|| media.name.as_deref().and_then(field_names::mime_of_name));
    Cow::Borrowed(found.unwrap_or(match media.kind {
        K::Image => "image/jpeg",
        K::Audio => "audio/wav",
        K::Document => "application/pdf",
        K::Video => "video/mp4",
        K::File => "application/octet-stream",
    }))
}
