//! Writes images and documents as this dialect accepts them.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    base::{data_url, json::writer},
    ir::block::{Media, MediaKind, MediaSource},
};

/// Returns the block type and its `source`, a JSON object. `Err` names the loss if this dialect
/// cannot carry the media.
pub(super) fn write_source(media: &Media) -> Result<(&'static str, String), &'static str> {
    let lost = loss_name(media.kind);
    let mime = mime_type(media);
    let image = match media.kind {
        MediaKind::Image => true,
        MediaKind::Audio | MediaKind::Video => return Err(lost),
        MediaKind::Document | MediaKind::File => mime.starts_with("image/"),
    };
    let kind = if image { "image" } else { "document" };
    let source = match &media.source {
        MediaSource::Base64(data) => {
            let data = to_standard_base64(data);
            match &*mime {
                _ if image => base64_source(&mime, &data),
                "application/pdf" => base64_source(&mime, &data),
                _ if is_text(&mime) => text_source(&decode_text(&data).ok_or(lost)?),
                _ => return Err(lost),
            }
        }
        MediaSource::Url(url) => match data_url::split_base64(url) {
            Some(parts) => {
                let mime = Some(parts.mime.unwrap_or_default().to_owned());
                let source = MediaSource::Base64(parts.data.to_owned());
                return write_source(&Media { mime, source, ..media.clone() });
            }
            None => writer::object(|o| {
                o.str("type", "url").str("url", url);
            }),
        },
        // Files are stored at their provider; ids of other providers have a different form.
        MediaSource::FileId(id) if id.starts_with("file_") => writer::object(|o| {
            o.str("type", "file").str("file_id", id);
        }),
        MediaSource::FileId(_) => return Err("messages.file_id"),
        MediaSource::Text(text) if text.trim().is_empty() => return Err(lost),
        MediaSource::Text(text) => text_source(text),
    };
    Ok((kind, source))
}

/// The loss name of a media kind.
pub(super) fn loss_name(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Image => "messages.image",
        MediaKind::Audio => "messages.audio",
        MediaKind::Document => "messages.document",
        MediaKind::Video => "messages.video",
        MediaKind::File => "messages.file",
    }
}

fn base64_source(mime: &str, data: &str) -> String {
    writer::object(|o| {
        o.str("type", "base64").str("media_type", mime).str("data", data);
    })
}

fn text_source(text: &str) -> String {
    writer::object(|o| {
        o.str("type", "text").str("media_type", "text/plain").str("data", text);
    })
}

fn is_text(mime: &str) -> bool {
    mime.starts_with("text/")
        || matches!(
            mime,
            "application/json" | "application/xml" | "application/yaml" | "application/x-yaml"
        )
}

fn decode_text(data: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(data).ok()?).ok().filter(|text| !text.trim().is_empty())
}

/// Converts to base64 in the standard alphabet. Some clients send the URL-safe alphabet or line
/// breaks.
fn to_standard_base64(data: &str) -> Cow<'_, str> {
    if data.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=')) {
        return Cow::Borrowed(data);
    }
    let chars = data.chars().filter(|c| !c.is_ascii_whitespace());
    chars
        .map(|c| match c {
            '-' => '+',
            '_' => '/',
            c => c,
        })
        .collect::<String>()
        .into()
}

/// The declared media type, else the one detected from the first bytes.
fn mime_type(media: &Media) -> Cow<'_, str> {
    if let Some(mime) = media.mime.as_deref().filter(|mime| !mime.is_empty()) {
        let plain = mime.split(';').next().unwrap_or(mime).trim();
        return if plain == "image/jpg" {
            Cow::Borrowed("image/jpeg")
        } else {
            Cow::Borrowed(plain)
        };
    }
    let MediaSource::Base64(data) = &media.source else { return Cow::Borrowed("") };
    let prefixes = [
        ("iVBOR", "image/png"),
        ("/9j/", "image/jpeg"),
        ("_9j_", "image/jpeg"),
        ("R0lG", "image/gif"),
        ("UklG", "image/webp"),
        ("JVBER", "application/pdf"),
    ];
    let detected =
        prefixes.iter().find(|(begin, _)| data.starts_with(begin)).map(|(_, mime)| *mime);
    Cow::Borrowed(detected.unwrap_or(if media.kind == MediaKind::Image {
        "image/png"
    } else {
        "text/plain"
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_become_the_matching_source_type() {
        let media = |kind, source, mime: Option<&str>| Media {
            kind,
            source,
            mime: mime.map(str::to_owned),
            name: None,
            detail: None,
        };
        let base64 = |data: &str| MediaSource::Base64(data.to_owned());
        let (image, document) = (MediaKind::Image, MediaKind::Document);
        for (given, want) in [
            (
                media(image, base64("iVBORw0"), None),
                Ok(("image", r#"{"type":"base64","media_type":"image/png","data":"iVBORw0"}"#)),
            ),
            (
                media(image, base64("a-_b\n"), Some("image/jpg")),
                Ok(("image", r#"{"type":"base64","media_type":"image/jpeg","data":"a+/b"}"#)),
            ),
            (
                media(image, MediaSource::Url("https://x/y".to_owned()), None),
                Ok(("image", r#"{"type":"url","url":"https://x/y"}"#)),
            ),
            (
                media(image, MediaSource::Url("data:image/gif;base64,R0lG".to_owned()), None),
                Ok(("image", r#"{"type":"base64","media_type":"image/gif","data":"R0lG"}"#)),
            ),
            (
                media(MediaKind::File, base64("JVBERi0"), None),
                Ok((
                    "document",
                    r#"{"type":"base64","media_type":"application/pdf","data":"JVBERi0"}"#,
                )),
            ),
            (
                media(document, base64("aGk="), Some("text/csv")),
                Ok(("document", r#"{"type":"text","media_type":"text/plain","data":"hi"}"#)),
            ),
            (media(document, base64("aGk="), Some("application/zip")), Err("messages.document")),
            (media(image, MediaSource::FileId("file-1".to_owned()), None), Err("messages.file_id")),
            (
                media(image, MediaSource::FileId("file_1".to_owned()), None),
                Ok(("image", r#"{"type":"file","file_id":"file_1"}"#)),
            ),
            (media(MediaKind::Audio, base64("aGk="), None), Err("messages.audio")),
        ] {
            assert_eq!(
                write_source(&given)
                    .as_ref()
                    .map(|(kind, source)| (*kind, source.as_str()))
                    .map_err(|lost| *lost),
                want,
                "{given:?}"
            );
        }
    }
}
