//! The elements of one JSON array that comes in chunks.

use super::cut::{self, Edge};

/// A splitter into elements, each with the punctuation before it; the closing bracket is a unit of
/// its own.
pub type Splitter = cut::Splitter<Elements>;

/// Follows brackets and strings, no more: whether an element is JSON is for others to say.
#[derive(Debug, Default)]
pub struct Elements {
    /// Brackets open inside the element.
    depth: usize,
    text: Text,
    /// The array's own bracket has been seen.
    inside: bool,
    /// A number or word is being read, which ends where something else begins.
    bare: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Text {
    #[default]
    No,
    Yes,
    Escaped,
}

impl Edge for Elements {
    fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut i = 0;
        while i < bytes.len() {
            match self.text {
                Text::Escaped => self.text = Text::Yes,
                Text::Yes => {
                    i += memchr::memchr2(b'"', b'\\', &bytes[i..])?;
                    self.text = if bytes[i] == b'\\' { Text::Escaped } else { Text::No };
                    if self.text == Text::No && self.depth == 0 {
                        return Some(i + 1);
                    }
                }
                Text::No => match bytes[i] {
                    _ if self.bare
                        && matches!(bytes[i], b',' | b']' | b' ' | b'\n' | b'\r' | b'\t') =>
                    {
                        self.bare = false;
                        return Some(i);
                    }
                    b'"' => self.text = Text::Yes,
                    b'[' if !self.inside && self.depth == 0 => self.inside = true,
                    b'{' | b'[' => self.depth += 1,
                    b']' if self.depth == 0 => {
                        self.inside = false;
                        return Some(i + 1);
                    }
                    b'}' | b']' => {
                        self.depth = self.depth.saturating_sub(1);
                        if self.depth == 0 {
                            return Some(i + 1);
                        }
                    }
                    b' ' | b'\n' | b'\r' | b'\t' | b',' => {}
                    _ => self.bare = self.depth == 0,
                },
            }
            i += 1;
        }
        None
    }
}

/// The element itself: without the punctuation before it; empty where there is none.
#[must_use]
pub fn content(unit: &[u8], first: bool) -> &[u8] {
    let trim =
        |unit: &'_ [u8]| unit.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(unit.len());
    let mut unit = &unit[trim(unit)..];
    if let Some(rest) =
        unit.strip_prefix(b",").or_else(|| if first { unit.strip_prefix(b"[") } else { None })
    {
        unit = &rest[trim(rest)..];
    }
    if unit == b"]" { &[] } else { unit }
}
