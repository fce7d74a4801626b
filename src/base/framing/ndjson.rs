//! JSON lines: one value on each.

use crate::base::framing::splitter::{self, Delimiter};

/// A splitter into lines, line ends included.
pub type LineSplitter = splitter::FrameSplitter<LineDelimiter>;

/// Ends every unit after its line feed.
#[derive(Debug, Default)]
pub struct LineDelimiter;

impl Delimiter for LineDelimiter {
    fn find_end(&mut self, bytes: &[u8]) -> Option<usize> {
        memchr::memchr(b'\n', bytes).map(|at| at + 1)
    }
}

/// The line's content: without its end and the space around it; empty for a blank line.
#[must_use]
pub fn line_content(line: &[u8]) -> &[u8] {
    line.trim_ascii()
}
