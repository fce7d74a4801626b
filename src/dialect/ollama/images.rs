//! Reads and writes images: bare base64 without a media type.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};

use crate::{
    base::{data_url, json::reader::JsonRef},
    ir::block::{Block, BlockKind, Media, MediaKind, MediaSource},
};

/// The base64 prefix of each image type.
const BASE64_PREFIXES: [(&str, &str); 6] = [
    ("iVBORw0KGgo", "image/png"),
    ("/9j/", "image/jpeg"),
    ("R0lGOD", "image/gif"),
    ("UklGR", "image/webp"),
    ("Qk", "image/bmp"),
    ("SUkq", "image/tiff"),
];

/// Reads an image of a message and detects its type from its first bytes.
pub(super) fn read_image(value: JsonRef<'_>) -> Option<Block> {
    let text = value.str()?;
    let (mime, data) =
        data_url::split_base64(&text).map_or((None, &*text), |parts| (parts.mime, parts.data));
    let guess =
        || BASE64_PREFIXES.iter().find(|(begin, _)| data.starts_with(begin)).map(|(_, mime)| *mime);
    Some(Block::new(BlockKind::Media(Media {
        kind: MediaKind::Image,
        mime: mime.or_else(guess).map(str::to_owned),
        source: MediaSource::Base64(data.to_owned()),
        name: None,
        detail: None,
    })))
}

/// Converts base64 into the only form that Ollama accepts: standard alphabet, padded. Returns
/// unreadable data unchanged, so that the upstream rejects it.
pub(super) fn to_standard_base64(data: &str) -> std::borrow::Cow<'_, str> {
    let is_standard = data.len().is_multiple_of(4)
        && !data.bytes().any(|b| matches!(b, b'-' | b'_' | b' ' | b'\t'));
    if is_standard {
        return data.into();
    }
    decode_base64(data).map_or_else(|| data.into(), |bytes| STANDARD.encode(bytes).into())
}

/// Decodes base64 in any alphabet, padded or not.
pub(super) fn decode_base64(data: &str) -> Option<Vec<u8>> {
    let plain: String = data
        .chars()
        .filter(|c| !c.is_ascii_whitespace() && *c != '=')
        .map(|c| match c {
            '-' => '+',
            '_' => '/',
            c => c,
        })
        .collect();
    STANDARD_NO_PAD.decode(plain).ok()
}
