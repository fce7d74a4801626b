//! Decodes zstd data as it arrives, with a bounded window.

use std::io::Read;

use bytes::{Buf, Bytes, BytesMut};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// RFC 9659.
const MAX_ZSTD_WINDOW_BYTES: u64 = 8 << 20;

/// The decoder of one body, which may have several frames.
pub(super) struct ZstdDecoder {
    decoder: FrameDecoder,
    buffer: BytesMut,
    /// Set while a frame is being decoded; says whether it ends with a checksum.
    frame_checksum: Option<bool>,
    frame_count: u32,
}

impl Default for ZstdDecoder {
    fn default() -> Self {
        Self {
            decoder: FrameDecoder::new(),
            buffer: BytesMut::new(),
            frame_checksum: None,
            frame_count: 0,
        }
    }
}

/// The result of one step.
pub(super) enum ZstdStep {
    /// This many bytes were written.
    Bytes(usize),
    Ended,
    NeedsInput,
}

impl ZstdDecoder {
    /// Returns whether the data ended with a frame.
    pub(super) fn is_complete(&self) -> bool {
        self.frame_checksum.is_none() && self.frame_count > 0
    }

    /// Feeds the decoder one block at a time: it needs complete blocks, and would decode all its
    /// input before it returns output. It buffers one window of output until the frame ends.
    ///
    /// Consumes `input`. Returns `None` if the data is corrupt.
    pub(super) fn decode_step(
        &mut self,
        input: &mut Bytes,
        scratch: &mut [u8],
    ) -> Option<ZstdStep> {
        self.buffer.extend_from_slice(input);
        input.clear();
        loop {
            let written = self.decoder.read(scratch).ok()?;
            if written > 0 {
                return Some(ZstdStep::Bytes(written));
            }
            let Some(checksum) = self.frame_checksum else {
                match parse_zstd_header(&self.buffer) {
                    Ok(Some((length, checksum))) => {
                        self.decoder.init(&self.buffer[..length]).ok()?;
                        self.buffer.advance(length);
                        self.frame_checksum = Some(checksum);
                        self.frame_count += 1;
                        continue;
                    }
                    Ok(None) => return Some(ZstdStep::NeedsInput),
                    // Bytes after the last frame.
                    Err(()) if self.frame_count > 0 => return Some(ZstdStep::Ended),
                    Err(()) => return None,
                }
            };
            let [a, b, c, ..] = self.buffer[..] else { return Some(ZstdStep::NeedsInput) };
            let header = u32::from_le_bytes([a, b, c, 0]);
            let (last, kind, size) = (header & 1 == 1, header >> 1 & 3, (header >> 3) as usize);
            let length =
                3 + if kind == 1 { 1 } else { size } + if last && checksum { 4 } else { 0 };
            if kind == 3 || size > 128 * 1024 {
                return None;
            }
            if self.buffer.len() < length {
                return Some(ZstdStep::NeedsInput);
            }
            self.decoder
                .decode_blocks(&self.buffer[..length], BlockDecodingStrategy::UptoBlocks(1))
                .ok()?;
            self.buffer.advance(length);
            if last {
                self.frame_checksum = None;
            }
        }
    }
}

/// Returns the length of a zstd frame header (RFC 8878), and whether a checksum ends the frame.
/// Returns `None` while it is incomplete.
fn parse_zstd_header(bytes: &[u8]) -> Result<Option<(usize, bool)>, ()> {
    if bytes.iter().zip([0x28, 0xb5, 0x2f, 0xfd]).any(|(have, want)| *have != want) {
        return Err(());
    }
    let Some(&descriptor) = bytes.get(4) else { return Ok(None) };
    let single = descriptor & 0x20 != 0;
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size = match descriptor >> 6 {
        0 => usize::from(single),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    let length = 5 + usize::from(!single) + dictionary + size;
    let Some(header) = bytes.get(..length) else { return Ok(None) };
    let window = if single {
        let mut le = [0; 8];
        le[..size].copy_from_slice(&header[length - size..]);
        u64::from_le_bytes(le)
    } else {
        let base = 1_u64 << (10 + (header[5] >> 3));
        base + base / 8 * u64::from(header[5] & 7)
    };
    if window > MAX_ZSTD_WINDOW_BYTES { Err(()) } else { Ok(Some((length, descriptor & 4 != 0))) }
}
