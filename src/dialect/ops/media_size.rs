//! Estimates the tokens of media from their size.

use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use crate::{
    base::data_url,
    ir::block::{Media, MediaKind, MediaSource},
};

/// Maximum tokens of an image; providers scale larger images down first.
const MAX_IMAGE_TOKENS: u64 = 1_700;
/// Pixels per token of the provider with the highest count for an image.
const PIXELS_PER_TOKEN: u64 = 750;
/// Some providers count at least this many tokens for the smallest image.
const MIN_IMAGE_TOKENS: u64 = 260;
/// A page of a document is read as text and as an image.
const TOKENS_PER_PAGE: u64 = 3_000;
/// The beginning of a file is enough to find the dimensions of an image.
const MAX_HEADER_BYTES: usize = 256 << 10;

const LENIENT_BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Estimates the tokens of an image, a recording or a document; the result is never far too low.
/// Returns `None` for text documents, which the tokenizer counts.
pub(in crate::dialect::ops) fn media_tokens(media: &Media) -> Option<u64> {
    let data = match &media.source {
        MediaSource::Text(_) => return None,
        MediaSource::Base64(data) => Some(data.as_str()),
        MediaSource::Url(url) => data_url::split(url).map(|parts| parts.data),
        MediaSource::FileId(_) => None,
    };
    let bytes = data.map(|data| data.len() as u64 / 4 * 3);
    Some(match media.kind {
        MediaKind::Image => {
            data.and_then(image_dimensions).map_or(MAX_IMAGE_TOKENS, |(width, height)| {
                let area = width.saturating_mul(height) / PIXELS_PER_TOKEN;
                area.saturating_add(MIN_IMAGE_TOKENS).min(MAX_IMAGE_TOKENS)
            })
        }
        // 32 tokens per second of audio; a second has at least 8 KB.
        MediaKind::Audio => bytes.map_or(2_000, |bytes| bytes / 250 + 100),
        // 300 tokens per second of video; a second has at least 100 KB.
        MediaKind::Video => bytes.map_or(20_000, |bytes| bytes / 330 + 300),
        MediaKind::Document | MediaKind::File => bytes.map_or(10 * TOKENS_PER_PAGE, |bytes| {
            // Pages of scanned documents have some 100 KB, pages of text much less.
            let pages = data.and_then(count_pdf_pages).unwrap_or(bytes / 30_000 + 1);
            pages.saturating_mul(TOKENS_PER_PAGE)
        }),
    })
}

/// Reads the width and height of an image from its beginning.
fn image_dimensions(data: &str) -> Option<(u64, u64)> {
    let head = data.get(..data.len().min(MAX_HEADER_BYTES / 3 * 4) / 4 * 4)?;
    let bytes = LENIENT_BASE64.decode(head).ok()?;
    let big = |at: usize, n: usize| {
        Some(bytes.get(at..at + n)?.iter().fold(0_u64, |sum, &b| sum << 8 | u64::from(b)))
    };
    let little = |at: usize, n: usize| {
        Some(bytes.get(at..at + n)?.iter().rev().fold(0_u64, |sum, &b| sum << 8 | u64::from(b)))
    };
    if bytes.starts_with(b"\x89PNG") {
        return Some((big(16, 4)?, big(20, 4)?));
    }
    if bytes.starts_with(b"GIF8") {
        return Some((little(6, 2)?, little(8, 2)?));
    }
    if bytes.starts_with(b"RIFF") && bytes.get(8..12)? == b"WEBP" {
        return match bytes.get(12..16)? {
            b"VP8X" => Some((little(24, 3)? + 1, little(27, 3)? + 1)),
            b"VP8L" => little(21, 4).map(|bits| ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)),
            _ => Some((little(26, 2)? & 0x3FFF, little(28, 2)? & 0x3FFF)),
        };
    }
    if bytes.starts_with(b"\xff\xd8") {
        // Walks the segments until the one that begins a frame.
        let mut at = 2;
        while big(at, 1)? == 0xFF {
            let kind = big(at + 1, 1)?;
            if matches!(kind, 0xC0..=0xCF) && !matches!(kind, 0xC4 | 0xC8 | 0xCC) {
                return Some((big(at + 7, 2)?, big(at + 5, 2)?));
            }
            at += if kind == 0xFF { 1 } else { 2 + usize::try_from(big(at + 2, 2)?).ok()? };
        }
    }
    None
}

/// Counts the pages that a PDF declares uncompressed; many PDFs do not.
fn count_pdf_pages(data: &str) -> Option<u64> {
    const PAGE_OBJECT: &[u8] = b"/Type/Page";
    let bytes = LENIENT_BASE64.decode(data).ok().filter(|bytes| bytes.starts_with(b"%PDF"))?;
    let (mut count, mut rest) = (0, bytes.as_slice());
    while let Some(at) = memchr::memmem::find(rest, b"/Type") {
        rest = &rest[at + 5..];
        let word = rest.trim_ascii_start();
        if word.starts_with(&PAGE_OBJECT[5..])
            && !word[5..].first().is_some_and(u8::is_ascii_alphanumeric)
        {
            count += 1;
        }
    }
    (count > 0).then_some(count)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn media(kind: MediaKind, bytes: &[u8]) -> Media {
        Media {
            kind,
            source: MediaSource::Base64(STANDARD.encode(bytes)),
            mime: None,
            name: None,
            detail: None,
        }
    }

    #[test]
    fn tokens_of_images_depend_on_their_size() {
        let png = [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", &[0, 0, 3, 0xE8, 0, 0, 1, 0xF4][..]].concat();
        let gif = b"GIF89a\xe8\x03\xf4\x01";
        let webp = b"RIFF\0\0\0\0WEBPVP8X\0\0\0\0\0\0\0\0\xe7\x03\0\xf3\x01\0";
        let jpeg = b"\xff\xd8\xff\xe0\0\x04ab\xff\xc0\0\x11\x08\x01\xf4\x03\xe8";
        for bytes in [&png[..], gif, webp, jpeg] {
            assert_eq!(media_tokens(&media(MediaKind::Image, bytes)), Some(500_000 / 750 + 260));
        }
        assert_eq!(media_tokens(&media(MediaKind::Image, b"\xff\xd8\xff")), Some(MAX_IMAGE_TOKENS));
        assert_eq!(media_tokens(&media(MediaKind::Image, b"")), Some(MAX_IMAGE_TOKENS));
    }

    #[test]
    fn tokens_of_documents_depend_on_their_pages() {
        assert_eq!(
            media_tokens(&media(MediaKind::Document, b"%PDF /Type /Page /Type/Pages /Type/Page>>")),
            Some(2 * TOKENS_PER_PAGE)
        );
        assert_eq!(
            media_tokens(&media(MediaKind::Document, &[b'x'; 40_000])),
            Some(2 * TOKENS_PER_PAGE)
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..60), begin in "(|GIF8|RIFF....WEBPVP8)") {
            let _tokens = media_tokens(&media(MediaKind::Image, &[begin.as_bytes(), &bytes].concat()));
            let _tokens = media_tokens(&media(MediaKind::Image, &[b"\xff\xd8\xff", &bytes[..]].concat()));
        }
    }
}
