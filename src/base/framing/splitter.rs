//! Cuts a body that comes in chunks into its units (events, lines, elements), copying only those
//! that span chunks.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// The most bytes that one unit may have.
pub const MAX_FRAME_BYTES: usize = 8 << 20;

/// Where units end; a scanner that remembers what it has seen of the current one.
pub trait Delimiter {
    /// Looks at further bytes of the current unit: the length that completes it, or `None` where it
    /// goes on.
    fn find_end(&mut self, bytes: &[u8]) -> Option<usize>;
}

/// One step of cutting.
#[derive(Debug, PartialEq, Eq)]
pub enum NextFrame {
    /// A unit that lies whole in the chunk.
    Borrowed(Range<usize>),
    /// A unit that began in an earlier chunk.
    Joined(Bytes),
    /// The chunk is used up; an unfinished unit may wait.
    Incomplete,
    /// The unit is larger than [`LIMIT`]; nothing after it can be trusted.
    TooLong,
}

/// A splitter for one body.
#[derive(Debug, Default)]
pub struct FrameSplitter<E> {
    delimiter: E,
    buffer: BytesMut,
}

impl<E: Delimiter> FrameSplitter<E> {
    pub fn new(delimiter: E) -> Self {
        Self { delimiter, buffer: BytesMut::new() }
    }

    /// The next unit of `chunk` from `at` on; moves `at` behind it. To be called until it says
    /// `More`.
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

    /// What waits unfinished, at the end of the body.
    pub fn remainder(&mut self) -> Bytes {
        self.buffer.split().freeze()
    }

    pub fn delimiter(&self) -> &E {
        &self.delimiter
    }
}
