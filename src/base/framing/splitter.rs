//! Cuts a body that arrives in chunks into its frames (events, lines, elements), and copies only
//! frames that span chunks.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// Maximum size of one frame.
pub const MAX_FRAME_BYTES: usize = 8 << 20;

/// Finds the end of a frame; a scanner with state about the current frame.
pub trait Delimiter {
    /// Scans further bytes of the current frame. Returns the length that completes it, or `None` if
    /// the frame continues.
    fn find_end(&mut self, bytes: &[u8]) -> Option<usize>;
}

/// One step of cutting.
#[derive(Debug, PartialEq, Eq)]
pub enum NextFrame {
    /// A frame that lies entirely in the chunk.
    Borrowed(Range<usize>),
    /// A frame that began in an earlier chunk.
    Joined(Bytes),
    /// The chunk is used up; an incomplete frame may be buffered.
    Incomplete,
    /// The frame is larger than [`MAX_FRAME_BYTES`]; nothing after it can be trusted.
    TooLong,
}

/// A splitter for one body.
#[derive(Debug, Default)]
pub struct DelimitedSplitter<E> {
    delimiter: E,
    buffer: BytesMut,
}

impl<E: Delimiter> DelimitedSplitter<E> {
    pub fn new(delimiter: E) -> Self {
        Self { delimiter, buffer: BytesMut::new() }
    }

    /// Returns the next frame of `chunk` from `at` on, and moves `at` behind it. Call it until it
    /// returns [`NextFrame::Incomplete`].
    pub fn next(&mut self, chunk: &[u8], at: &mut usize) -> NextFrame {
        let Some(rest) = chunk.get(*at..).filter(|rest| !rest.is_empty()) else {
            return NextFrame::Incomplete;
        };
        let Some(length) = self.delimiter.find_end(rest) else {
            *at = chunk.len();
            if self.buffer.len() + rest.len() > MAX_FRAME_BYTES {
                return NextFrame::TooLong;
            }
            self.buffer.extend_from_slice(rest);
            return NextFrame::Incomplete;
        };
        let start = *at;
        *at += length;
        if self.buffer.len() + length > MAX_FRAME_BYTES {
            return NextFrame::TooLong;
        }
        if self.buffer.is_empty() {
            return NextFrame::Borrowed(start..*at);
        }
        self.buffer.extend_from_slice(&rest[..length]);
        NextFrame::Joined(self.buffer.split().freeze())
    }

    /// Returns the buffered incomplete frame at the end of the body.
    pub fn remainder(&mut self) -> Bytes {
        self.buffer.split().freeze()
    }

    pub fn delimiter(&self) -> &E {
        &self.delimiter
    }
}
