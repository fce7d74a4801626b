//! Recognizes the kind of a file by its bytes; its name may be wrong.

/// The kind of a file, as far as a model can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FileContent {
    /// The format, as in `mp3`.
    Audio(&'static str),
    /// The media type, as in `image/png`.
    Image(&'static str),
    Pdf,
    Text(String),
    Unknown,
}

/// First bytes that identify a format. Each contains a byte that text does not contain, or is
/// defined by its format to come first.
const IMAGE_STARTS: [(&[u8], &str); 6] = [
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
];
const AUDIO_STARTS: [(&[u8], &str); 6] = [
    (b"ID3", "mp3"),
    (b"\xff\xfb", "mp3"),
    (b"\xff\xf3", "mp3"),
    (b"\xff\xf2", "mp3"),
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
];
/// Brands of the ISO container, which also holds videos.
const IMAGE_BRANDS: [(&[u8], &str); 5] = [
    (b"avif", "image/avif"),
    (b"heic", "image/heic"),
    (b"heix", "image/heic"),
    (b"mif1", "image/heif"),
    (b"msf1", "image/heif"),
];

/// Recognizes what a file contains.
pub(super) fn recognize(bytes: &[u8]) -> FileContent {
    let find = |starts: &[(&[u8], &'static str)], bytes: &[u8]| {
        starts.iter().find(|(start, _)| bytes.starts_with(start)).map(|(_, kind)| *kind)
    };
    if let Some(mime) = find(&IMAGE_STARTS, bytes) {
        return FileContent::Image(mime);
    }
    match (bytes.get(..4), bytes.get(8..12)) {
        (Some(b"RIFF"), Some(b"WEBP")) => return FileContent::Image("image/webp"),
        (Some(b"RIFF"), Some(b"WAVE")) => return FileContent::Audio("wav"),
        _ => {}
    }
    if bytes.get(4..8) == Some(b"ftyp") {
        let brand = bytes.get(8..12).unwrap_or_default();
        return find(&IMAGE_BRANDS, brand).map_or(FileContent::Unknown, FileContent::Image);
    }
    if bytes.starts_with(b"%PDF-") {
        return FileContent::Pdf;
    }
    let audio = find(&AUDIO_STARTS, bytes);
    let is_bitmap = bytes.starts_with(b"BM");
    // `BM` and `ID3` are also letters that a text may begin with.
    match (decode_text(bytes), audio) {
        (Some(text), _) => FileContent::Text(text),
        (None, Some(format)) => FileContent::Audio(format),
        (None, None) if is_bitmap => FileContent::Image("image/bmp"),
        (None, None) => FileContent::Unknown,
    }
}

/// Decodes UTF-8 with or without a byte order mark, and UTF-16 with one.
fn decode_text(bytes: &[u8]) -> Option<String> {
    let utf16 = |decode: fn([u8; 2]) -> u16| {
        let units: Vec<u16> =
            bytes[2..].chunks_exact(2).map(|pair| decode([pair[0], pair[1]])).collect();
        String::from_utf16(&units).ok().filter(|_| bytes.len().is_multiple_of(2))
    };
    let text = match bytes.get(..2) {
        Some(b"\xff\xfe") => utf16(u16::from_le_bytes)?,
        Some(b"\xfe\xff") => utf16(u16::from_be_bytes)?,
        _ => {
            let text = std::str::from_utf8(bytes).ok()?;
            text.strip_prefix('\u{feff}').unwrap_or(text).to_owned()
        }
    };
    (!text.contains('\0')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_type_is_detected_from_the_bytes() {
        let cases: [(&[u8], FileContent); 12] = [
            (b"\x89PNG\r\n\x1a\n....", FileContent::Image("image/png")),
            (b"GIF89a\x01\0\x01\0", FileContent::Image("image/gif")),
            (b"\xff\xd8\xff\xe0..JFIF", FileContent::Image("image/jpeg")),
            (b"RIFF\x10\0\0\0WEBPVP8 ", FileContent::Image("image/webp")),
            (b"RIFF\x10\0\0\0WAVEfmt ", FileContent::Audio("wav")),
            (b"\0\0\0\x1cftypheic\0\0", FileContent::Image("image/heic")),
            (b"\0\0\0\x1cftypmp42\0\0", FileContent::Unknown),
            (b"BM\x36\0\0\0", FileContent::Image("image/bmp")),
            (b"ID3\x04\0\0", FileContent::Audio("mp3")),
            (b"%PDF-1.7\n", FileContent::Pdf),
            (b"\x7fELF\x02\x01\x01\0", FileContent::Unknown),
            (b"", FileContent::Text(String::new())),
        ];
        for (bytes, want) in cases {
            assert_eq!(recognize(bytes), want, "{bytes:?}");
        }
    }

    #[test]
    fn text_in_any_unicode_encoding_is_text() {
        for bytes in [
            &b"BMW \xc3\xbc"[..],
            b"\xef\xbb\xbfBMW \xc3\xbc",
            b"\xff\xfeB\0M\0W\0 \0\xfc\0",
            b"\xfe\xff\0B\0M\0W\0 \0\xfc",
        ] {
            assert_eq!(recognize(bytes), FileContent::Text("BMW ü".to_owned()));
        }
        assert_eq!(recognize(b"ID3 tags"), FileContent::Text("ID3 tags".to_owned()));
        assert_eq!(recognize(b"<svg/>"), FileContent::Text("<svg/>".to_owned()));
    }
}
