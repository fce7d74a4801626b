//! JSON lines: one value on each.

use super::cut::{self, Edge};

/// A splitter into lines, line ends included.
pub type Splitter = cut::Splitter<Lines>;

/// Ends every unit after its line feed.
#[derive(Debug, Default)]
pub struct Lines;

impl Edge for Lines {
    fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        memchr::memchr(b'\n', bytes).map(|at| at + 1)
    }
}

/// The line's content: without its end and the space around it; empty for a blank line.
#[must_use]
pub fn content(line: &[u8]) -> &[u8] {
    line.trim_ascii()
}
