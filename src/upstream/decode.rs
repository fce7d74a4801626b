//! Decodes content codings as bytes arrive, so that flushed data is forwarded at once; each step is
//! bounded.

use std::fmt;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use bytes::{Buf, Bytes, BytesMut};
use flate2::{Crc, Decompress, FlushDecompress, Status};
use http::{HeaderMap, header::CONTENT_ENCODING};

use crate::upstream::zstd::{ZstdDecoder, ZstdStep};

/// The supported codings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentCoding {
    Brotli,
    Deflate,
    Gzip,
    Zstd,
}

/// Why bytes cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    Corrupt(ContentCoding),
    /// The data ended before the end mark of the coding.
    Truncated(ContentCoding),
    /// More than one coding, or an unknown one.
    Unknown,
    /// The decoded data is larger than the limit.
    TooLarge,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt(coding) => write!(f, "the {} data is corrupt", coding.name()),
            Self::Truncated(coding) => write!(f, "the {} data is cut short", coding.name()),
            Self::Unknown => {
                f.write_str("the content coding is not known; gzip, deflate, br and zstd are")
            }
            Self::TooLarge => f.write_str("the body is too large once decoded"),
        }
    }
}

impl std::error::Error for DecodeError {}

impl ContentCoding {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Deflate => "deflate",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// Returns the coding of a body with these headers, or `None` if it is not encoded.
    ///
    /// # Errors
    ///
    /// `Unknown`, also for nested codings.
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, DecodeError> {
        let mut found = None;
        for value in headers.get_all(CONTENT_ENCODING) {
            for token in value.to_str().map_err(|_| DecodeError::Unknown)?.split(',').map(str::trim)
            {
                let coding = match token.to_ascii_lowercase().as_str() {
                    "" | "identity" => continue,
                    "br" => Self::Brotli,
                    "deflate" => Self::Deflate,
                    "gzip" | "x-gzip" => Self::Gzip,
                    "zstd" => Self::Zstd,
                    _ => return Err(DecodeError::Unknown),
                };
                if found.replace(coding).is_some() {
                    return Err(DecodeError::Unknown);
                }
            }
        }
        Ok(found)
    }
}

/// Decodes a complete body, to at most `limit` bytes.
///
/// # Errors
///
/// `Corrupt`, `Truncated` or `TooLarge`.
pub fn decode_all(coding: ContentCoding, body: &Bytes, limit: usize) -> Result<Bytes, DecodeError> {
    let mut decoder = Decoder::new(coding);
    let mut input = body.clone();
    let mut out = BytesMut::new();
    while let Some(piece) = decoder.decode_step(&mut input)? {
        if out.len() + piece.len() > limit {
            return Err(DecodeError::TooLarge);
        }
        out.extend_from_slice(&piece);
    }
    decoder.finish()?;
    Ok(out.freeze())
}

/// The decoder of one body.
pub struct Decoder {
    coding: ContentCoding,
    state: CodingState,
    scratch: Box<[u8]>,
    /// Whether any input arrived: an empty body is not corrupt.
    started: bool,
    /// The gzip members that have ended. After one, the next bytes may be another or garbage.
    gzip_members: u32,
}

/// The maximum output of one step.
const MAX_STEP_BYTES: usize = 16 * 1024;
/// The maximum number of gzip members; each costs some setup, however small it is. Files that are
/// compressed in blocks have one for every 64 KiB.
const MAX_GZIP_MEMBERS: u32 = 4_096;
/// The maximum size of a gzip header with its optional fields.
const MAX_GZIP_HEADER_BYTES: usize = 64 * 1024;
enum CodingState {
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
    /// Two bytes distinguish zlib from raw deflate, which some servers send.
    DeflateHead(BytesMut),
    Deflate(Decompress),
    /// The beginning of a header that came in pieces.
    GzipHead(BytesMut),
    Gzip(Decompress, Crc),
    GzipTail(BytesMut, Crc),
    Zstd(Box<ZstdDecoder>),
    /// The coding has ended; anything after it is dropped.
    Ended,
}

impl Decoder {
    #[must_use]
    pub fn new(coding: ContentCoding) -> Self {
        let state = match coding {
            ContentCoding::Brotli => CodingState::Brotli(Box::new(BrotliState::new_strict(
                StandardAlloc::default(),
                StandardAlloc::default(),
                StandardAlloc::default(),
            ))),
            ContentCoding::Deflate => CodingState::DeflateHead(BytesMut::new()),
            ContentCoding::Gzip => CodingState::GzipHead(BytesMut::new()),
            ContentCoding::Zstd => CodingState::Zstd(Box::default()),
        };
        Self {
            coding,
            state,
            scratch: vec![0; MAX_STEP_BYTES].into(),
            started: false,
            gzip_members: 0,
        }
    }

    /// Consumes `input` and returns the next decoded piece, at most 16 KiB. Returns `None` when
    /// `input` is used up and no output is left.
    ///
    /// # Errors
    ///
    /// `Corrupt`.
    pub fn decode_step(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, DecodeError> {
        self.started |= !input.is_empty();
        let corrupt = DecodeError::Corrupt(self.coding);
        loop {
            // The bytes written to `scratch`, and whether another round may write more.
            let (written, proceed) = match &mut self.state {
                CodingState::Ended => {
                    input.clear();
                    (0, false)
                }
                CodingState::DeflateHead(head) => {
                    let Some(inflate) = read_deflate_head(head, input) else { return Ok(None) };
                    self.state = CodingState::Deflate(inflate);
                    (0, true)
                }
                CodingState::Deflate(inflate) => {
                    let (written, ended) =
                        inflate_step(inflate, input, &mut self.scratch).ok_or(corrupt)?;
                    if ended {
                        self.state = CodingState::Ended;
                    }
                    (written, ended)
                }
                CodingState::GzipHead(head) => {
                    let next = read_gzip_head(head, self.gzip_members, input).ok_or(corrupt)?;
                    let Some(next) = next else { return Ok(None) };
                    self.state = next;
                    (0, true)
                }
                CodingState::Gzip(inflate, crc) => {
                    let (written, ended) =
                        inflate_step(inflate, input, &mut self.scratch).ok_or(corrupt)?;
                    crc.update(&self.scratch[..written]);
                    if ended {
                        self.state =
                            CodingState::GzipTail(BytesMut::with_capacity(8), std::mem::take(crc));
                    }
                    (written, ended)
                }
                CodingState::GzipTail(tail, crc) => {
                    fill_to(tail, input, 8);
                    let [a, b, c, d, e, f, g, h] = tail[..] else { return Ok(None) };
                    if u32::from_le_bytes([a, b, c, d]) != crc.sum()
                        || u32::from_le_bytes([e, f, g, h]) != crc.amount()
                    {
                        return Err(corrupt);
                    }
                    self.gzip_members += 1;
                    self.state = CodingState::GzipHead(BytesMut::new());
                    (0, true)
                }
                CodingState::Brotli(brotli) => {
                    let (result, written) = brotli_step(brotli, input, &mut self.scratch);
                    match result {
                        BrotliResult::ResultFailure => return Err(corrupt),
                        BrotliResult::ResultSuccess => self.state = CodingState::Ended,
                        BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
                    }
                    (written, !matches!(result, BrotliResult::NeedsMoreInput))
                }
                CodingState::Zstd(zstd) => {
                    match zstd.decode_step(input, &mut self.scratch).ok_or(corrupt)? {
                        ZstdStep::Bytes(written) => (written, true),
                        ZstdStep::NeedsInput => (0, false),
                        ZstdStep::Ended => {
                            self.state = CodingState::Ended;
                            (0, true)
                        }
                    }
                }
            };
            if written > 0 {
                return Ok(Some(Bytes::copy_from_slice(&self.scratch[..written])));
            }
            if !proceed {
                return Ok(None);
            }
        }
    }

    /// Checks that the coding is complete; called when the body has ended.
    ///
    /// # Errors
    ///
    /// `Truncated` if the coding has not ended.
    pub fn finish(&self) -> Result<(), DecodeError> {
        let ended = match &self.state {
            CodingState::Ended => true,
            CodingState::GzipHead(_) => self.gzip_members > 0,
            CodingState::Zstd(zstd) => zstd.is_complete(),
            _ => false,
        };
        if ended || !self.started { Ok(()) } else { Err(DecodeError::Truncated(self.coding)) }
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decoder({})", self.coding.name())
    }
}

/// Moves bytes until `head` contains `wanted` bytes.
fn fill_to(head: &mut BytesMut, input: &mut Bytes, wanted: usize) {
    let count = wanted.saturating_sub(head.len()).min(input.len());
    head.extend_from_slice(&input.split_to(count));
}

/// Detects the form of deflate data by its first two bytes, which stay in `input`.
fn read_deflate_head(head: &mut BytesMut, input: &mut Bytes) -> Option<Decompress> {
    fill_to(head, input, 2);
    let [first, second, ..] = head[..] else { return None };
    let zlib = first & 0x0f == 8 && u16::from_be_bytes([first, second]).is_multiple_of(31);
    *input = [&head[..], &input[..]].concat().into();
    Some(Decompress::new(zlib))
}

/// Runs one inflate step; returns the bytes written, and whether the deflate data has ended.
fn inflate_step(
    inflate: &mut Decompress,
    input: &mut Bytes,
    scratch: &mut [u8],
) -> Option<(usize, bool)> {
    let (read, written) = (inflate.total_in(), inflate.total_out());
    let status = inflate.decompress(input, scratch, FlushDecompress::None).ok()?;
    input.advance(usize::try_from(inflate.total_in() - read).ok()?);
    Some((usize::try_from(inflate.total_out() - written).ok()?, status == Status::StreamEnd))
}

/// Reads the header of a gzip member; returns the next state, or `None` while the header is
/// incomplete. The outer `None` means that the data is corrupt.
fn read_gzip_head(
    head: &mut BytesMut,
    members: u32,
    input: &mut Bytes,
) -> Option<Option<CodingState>> {
    let body = || Some(Some(CodingState::Gzip(Decompress::new(false), Crc::new())));
    if members >= MAX_GZIP_MEMBERS {
        return None;
    }
    // Nothing is copied, unless the header came in pieces.
    if let (true, Ok(Some(length))) = (head.is_empty(), gzip_header_len(input)) {
        input.advance(length);
        return body();
    }
    let missing = (MAX_GZIP_HEADER_BYTES + 1).saturating_sub(head.len()).min(input.len());
    head.extend_from_slice(&input.split_to(missing));
    match gzip_header_len(head) {
        Ok(Some(length)) => {
            head.advance(length);
            if !head.is_empty() {
                *input = [&head[..], &input[..]].concat().into();
            }
            body()
        }
        Ok(None) if head.len() <= MAX_GZIP_HEADER_BYTES => Some(None),
        // Bytes after the last member.
        _ if members > 0 => Some(Some(CodingState::Ended)),
        _ => None,
    }
}

/// Runs one Brotli step; returns its result and the bytes written.
fn brotli_step(
    brotli: &mut BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    input: &mut Bytes,
    scratch: &mut [u8],
) -> (BrotliResult, usize) {
    let (mut remaining, mut consumed, mut capacity, mut written, mut total) =
        (input.len(), 0, scratch.len(), 0, 0);
    let result = BrotliDecompressStream(
        &mut remaining,
        &mut consumed,
        input,
        &mut capacity,
        &mut written,
        scratch,
        &mut total,
        brotli,
    );
    input.advance(consumed);
    (result, written)
}

/// Returns the length of a gzip member's header (RFC 1952), or `None` while it is incomplete.
fn gzip_header_len(bytes: &[u8]) -> Result<Option<usize>, ()> {
    if bytes.iter().zip([0x1f, 0x8b, 8]).any(|(have, want)| *have != want) {
        return Err(());
    }
    let Some(&flags) = bytes.get(3) else { return Ok(None) };
    if flags & 0xe0 != 0 {
        return Err(());
    }
    let mut at = 10;
    if flags & 4 != 0 {
        let (Some(&low), Some(&high)) = (bytes.get(at), bytes.get(at + 1)) else { return Ok(None) };
        at += 2 + usize::from(u16::from_le_bytes([low, high]));
    }
    for flag in [8, 16] {
        if flags & flag != 0 {
            let Some(end) = bytes.get(at..).and_then(|rest| memchr::memchr(0, rest)) else {
                return Ok(None);
            };
            at += end + 1;
        }
    }
    if flags & 2 != 0 {
        at += 2;
    }
    Ok((bytes.len() >= at).then_some(at))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use flate2::{Compression, write};
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const TEXT: &[u8] = b"event one\nevent two\nevent three, the last\n";
    // `TEXT` as compressed by another program.
    const BROTLI: &str = "GykA+AV0Y/0lSbfWgemCiLYHiqhCkFLApeHwRhthv6uBXEgF";

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut out = write::GzEncoder::new(Vec::new(), Compression::default());
        out.write_all(data).expect("memory");
        out.finish().expect("memory")
    }

    fn zlib(data: &[u8]) -> Vec<u8> {
        let mut out = write::ZlibEncoder::new(Vec::new(), Compression::default());
        out.write_all(data).expect("memory");
        out.finish().expect("memory")
    }

    fn raw(data: &[u8]) -> Vec<u8> {
        let mut out = write::DeflateEncoder::new(Vec::new(), Compression::default());
        out.write_all(data).expect("memory");
        out.finish().expect("memory")
    }

    fn zstd(data: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn brotli() -> Vec<u8> {
        BASE64_STANDARD.decode(BROTLI).expect("base64")
    }

    /// Decodes data fed in pieces of `size`, as from a socket.
    fn pieces(coding: ContentCoding, data: &[u8], size: usize) -> Result<Vec<u8>, DecodeError> {
        let mut decoder = Decoder::new(coding);
        let mut out = Vec::new();
        for piece in data.chunks(size) {
            let mut piece = Bytes::copy_from_slice(piece);
            while let Some(bytes) = decoder.decode_step(&mut piece)? {
                out.extend_from_slice(&bytes);
            }
        }
        decoder.finish().map(|()| out)
    }

    #[test]
    fn every_coding_decodes_equally_at_any_cut() {
        for (coding, data) in [
            (ContentCoding::Gzip, gzip(TEXT)),
            (ContentCoding::Deflate, zlib(TEXT)),
            (ContentCoding::Deflate, raw(TEXT)),
            (ContentCoding::Brotli, brotli()),
            (ContentCoding::Zstd, zstd(TEXT)),
        ] {
            for size in [1, 2, 3, 7, 1_000] {
                assert_eq!(
                    pieces(coding, &data, size).as_deref(),
                    Ok(TEXT),
                    "{coding:?} by {size}"
                );
            }
        }
    }

    #[test]
    fn flushed_data_is_decoded_at_once() {
        let mut encoder = write::GzEncoder::new(Vec::new(), Compression::default());
        let mut decoder = Decoder::new(ContentCoding::Gzip);
        for event in ["data: one\n\n", "data: two\n\n", "data: three\n\n"] {
            encoder.write_all(event.as_bytes()).expect("memory");
            encoder.flush().expect("memory");
            let mut sent = Bytes::from(std::mem::take(encoder.get_mut()));
            assert_eq!(
                decoder.decode_step(&mut sent),
                Ok(Some(Bytes::from_static(event.as_bytes())))
            );
            assert_eq!(decoder.decode_step(&mut sent), Ok(None));
        }
    }

    #[test]
    fn cut_input_is_truncated_and_changed_input_is_corrupt() {
        for (coding, data) in [
            (ContentCoding::Gzip, gzip(TEXT)),
            (ContentCoding::Deflate, zlib(TEXT)),
            (ContentCoding::Brotli, brotli()),
            (ContentCoding::Zstd, zstd(TEXT)),
        ] {
            let cut = pieces(coding, &data[..data.len() - 3], 5);
            assert_eq!(cut, Err(DecodeError::Truncated(coding)));
            assert_eq!(pieces(coding, b"", 1), Ok(Vec::new()));
        }
        for coding in [ContentCoding::Gzip, ContentCoding::Zstd] {
            assert_eq!(pieces(coding, TEXT, 5), Err(DecodeError::Corrupt(coding)));
        }
        let mut wrong = gzip(TEXT);
        let crc = wrong.len() - 8;
        wrong[crc] ^= 1;
        assert_eq!(
            pieces(ContentCoding::Gzip, &wrong, 99),
            Err(DecodeError::Corrupt(ContentCoding::Gzip))
        );
    }

    #[test]
    fn bytes_after_the_end_are_tolerated_and_a_second_member_is_read() {
        let garbage = [gzip(TEXT), b"trailing garbage".to_vec()].concat();
        let twice = [gzip(TEXT), gzip(b"more")].concat();
        for size in [1, 4, 1_000] {
            assert_eq!(pieces(ContentCoding::Gzip, &garbage, size).as_deref(), Ok(TEXT));
            assert_eq!(pieces(ContentCoding::Gzip, &twice, size), Ok([TEXT, b"more"].concat()));
            assert_eq!(
                pieces(ContentCoding::Zstd, &[zstd(TEXT), zstd(b"more")].concat(), size),
                Ok([TEXT, b"more"].concat())
            );
        }
    }

    #[test]
    fn many_gzip_members_are_refused() {
        let member = gzip(b"");
        let few = pieces(ContentCoding::Gzip, &member.repeat(100), 7);
        assert_eq!(few, Ok(Vec::new()));
        let all = Bytes::from(member.repeat(50_000));
        assert_eq!(
            decode_all(ContentCoding::Gzip, &all, 1 << 20),
            Err(DecodeError::Corrupt(ContentCoding::Gzip))
        );
    }

    #[test]
    fn decompression_bomb_is_stopped_at_the_limit() {
        let zeros = vec![0; 8 << 20];
        for (coding, data) in
            [(ContentCoding::Gzip, gzip(&zeros)), (ContentCoding::Zstd, zstd(&zeros))]
        {
            assert_eq!(decode_all(coding, &data.into(), 1 << 20), Err(DecodeError::TooLarge));
        }
    }

    #[test]
    fn content_coding_is_read_from_the_header_and_two_are_refused() {
        for (value, expected) in [
            ("gzip", Ok(Some(ContentCoding::Gzip))),
            (" X-Gzip ", Ok(Some(ContentCoding::Gzip))),
            ("identity", Ok(None)),
            ("br, identity", Ok(Some(ContentCoding::Brotli))),
            ("gzip, gzip", Err(DecodeError::Unknown)),
            ("snappy", Err(DecodeError::Unknown)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_ENCODING, HeaderValue::from_str(value).expect("a value"));
            assert_eq!(ContentCoding::from_headers(&headers), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..400), which in 0..4_usize, size in 1..50_usize) {
            let coding = [ContentCoding::Gzip, ContentCoding::Deflate, ContentCoding::Brotli, ContentCoding::Zstd][which];
            let prefix: &[u8] = [&b"\x1f\x8b\x08\0\0\0\0\0\0\0"[..], b"\x78\x9c", b"", b"\x28\xb5\x2f\xfd"][which];
            drop(pieces(coding, &[prefix, &data].concat(), size));
        }

        #[test]
        fn any_text_round_trips_at_any_cut(data in proptest::collection::vec(any::<u8>(), 0..5_000), size in 1..700_usize) {
            prop_assert_eq!(pieces(ContentCoding::Gzip, &gzip(&data), size), Ok(data.clone()));
            prop_assert_eq!(pieces(ContentCoding::Zstd, &zstd(&data), size), Ok(data));
        }
    }
}
