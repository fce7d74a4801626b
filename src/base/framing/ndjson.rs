//! NDJSON: one JSON value per line.

use crate::base::framing::splitter::{self, Delimiter};

/// Splits into lines, line ends included.
pub type LineSplitter = splitter::DelimitedSplitter<LineDelimiter>;

/// Ends every frame after its line feed.
#[derive(Debug, Default)]
pub struct LineDelimiter;

impl Delimiter for LineDelimiter {
    fn find_end(&mut self, bytes: &[u8]) -> Option<usize> {
        memchr::memchr(b'\n', bytes).map(|at| at + 1)
    }
}

/// Returns the line without its end and surrounding white space; empty for a blank line.
#[must_use]
pub fn line_content(line: &[u8]) -> &[u8] {
    line.trim_ascii()
}
