//! Reads content: a text, or a list of parts.

use crate::{
    base::{
        data_url,
        json::{raw::RawJson, reader::JsonRef},
    },
    dialect::openai::{error::invalid_param, reasoning},
    ir::{
        block::{
            Block, BlockKind, CacheBreakpoint, Media, MediaKind, MediaSource, Reasoning, TextBlock,
        },
        extras::Extras,
        fault::ProxyError,
        op::Dialect,
    },
};

const DIALECT: Dialect = Dialect::Openai;

/// Reads the blocks of a content; `at` is the index of the message.
pub(super) fn read_content(
    value: Option<JsonRef<'_>>,
    at: usize,
) -> Result<Vec<Block>, ProxyError> {
    let Some(value) = value else { return Ok(Vec::new()) };
    match value.kind() {
        "string" => {
            Ok(value.str().map(|text| Block::text(text.into_owned())).into_iter().collect())
        }
        "array" => Ok(value.items().map(read_part).collect()),
        "object" => Ok(vec![read_part(value)]),
        kind => Err(invalid_param(
            format!("messages[{at}].content"),
            format!(
                "Invalid type for 'messages[{at}].content': expected a string or an array of content parts, but got {kind}."
            ),
        )),
    }
}

/// Reads a cache mark of a message, part or tool, and also stores its original form.
pub(super) fn read_cache_mark(object: JsonRef<'_>, extras: &mut Extras) -> Option<CacheBreakpoint> {
    let raw = RawJson::from_json(object.get("cache_control").filter(|mark| mark.is_object())?);
    extras.push_equivalent(DIALECT, "cache_control", raw.clone());
    Some(CacheBreakpoint { raw })
}

/// Reads a URL. Splits a data URL, and returns the media type if the URL contains one.
pub(super) fn parse_source(url: &str) -> (MediaSource, Option<String>) {
    match data_url::split_base64(url) {
        Some(parts) => (MediaSource::Base64(parts.data.to_owned()), parts.mime.map(str::to_owned)),
        None => (MediaSource::Url(url.to_owned()), None),
    }
}

fn read_part(part: JsonRef<'_>) -> Block {
    if let Some(text) = part.str() {
        return Block::text(text);
    }
    let Some((kind, known)) = read_known_part(part) else {
        return Block::new(BlockKind::Foreign { dialect: DIALECT, body: RawJson::from_json(part) });
    };
    let mut block = Block::new(kind);
    block.extras = Extras::from_object(DIALECT, part, &["type", "cache_control", known]);
    block.cache = read_cache_mark(part, &mut block.extras);
    if let BlockKind::Reasoning(_) = block.kind {
        block.extras = Extras::default();
        block.extras.push_equivalent(DIALECT, "thinking", RawJson::from_json(part));
    }
    block
}

/// Reads a part of a known type. Returns its block and the name of the field that contains it.
fn read_known_part(part: JsonRef<'_>) -> Option<(BlockKind, &'static str)> {
    let text = JsonRef::string;
    let kind = part.get("type").and_then(JsonRef::str);
    match kind.as_deref() {
        Some("text" | "input_text" | "output_text") | None => {
            let parsed = TextBlock { text: text(part.get("text")?)?, citations: Vec::new() };
            Some((BlockKind::Text(parsed), "text"))
        }
        Some("image_url" | "input_image") => {
            let image = part.get("image_url")?;
            let (source, mime) = parse_source(&image.str().or_else(|| image.get("url")?.str())?);
            let detail = image.get("detail").or_else(|| part.get("detail")).and_then(text);
            Some((media_block(MediaKind::Image, source, mime, None, detail), "image_url"))
        }
        Some("video_url") => {
            let video = part.get("video_url")?;
            let (source, mime) = parse_source(&video.str().or_else(|| video.get("url")?.str())?);
            Some((media_block(MediaKind::Video, source, mime, None, None), "video_url"))
        }
        Some("input_audio") => {
            let audio = part.get("input_audio")?;
            let data = audio.get("data")?.str()?;
            let (source, mime) = if data.starts_with("data:") {
                parse_source(&data)
            } else {
                (MediaSource::Base64(data.into_owned()), None)
            };
            let mime = audio
                .get("format")
                .and_then(JsonRef::str)
                .map(|format| audio_mime(&format))
                .or(mime);
            Some((media_block(MediaKind::Audio, source, mime, None, None), "input_audio"))
        }
        Some("file" | "input_file") => {
            let file = part.get("file").unwrap_or(part);
            let name = file.get("filename").and_then(text);
            let (source, mime) = match (
                file.get("file_data").and_then(JsonRef::str),
                file.get("file_id").and_then(text),
            ) {
                (Some(data), _) if data.starts_with("data:") || data.contains("://") => {
                    parse_source(&data)
                }
                (Some(data), _) => (MediaSource::Base64(data.into_owned()), None),
                (None, id) => (MediaSource::FileId(id?), None),
            };
            let pdf =
                || name.as_deref().is_some_and(|name| name.to_ascii_lowercase().ends_with(".pdf"));
            let mime = mime.or_else(|| pdf().then(|| "application/pdf".to_owned()));
            let document = mime
                .as_deref()
                .is_none_or(|mime| mime == "application/pdf" || mime.starts_with("text/"));
            Some((
                media_block(
                    if document { MediaKind::Document } else { MediaKind::File },
                    source,
                    mime,
                    name,
                    None,
                ),
                "file",
            ))
        }
        Some("refusal") => Some((BlockKind::Refusal(text(part.get("refusal")?)?), "refusal")),
        Some("thinking") => {
            let thinking_text = reasoning::field_text(part.get("thinking")?)?.into_owned();
            Some((
                BlockKind::Reasoning(Reasoning { text: thinking_text, summary: false }),
                "thinking",
            ))
        }
        Some(_) => None,
    }
}

fn media_block(
    kind: MediaKind,
    source: MediaSource,
    mime: Option<String>,
    name: Option<String>,
    detail: Option<String>,
) -> BlockKind {
    BlockKind::Media(Media { kind, source, mime, name, detail })
}

fn audio_mime(format: &str) -> String {
    format!("audio/{}", if format == "mp3" { "mpeg" } else { format })
}
