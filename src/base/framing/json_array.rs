//! Cuts a JSON array that arrives in chunks into its elements.

use crate::base::framing::splitter::{self, Delimiter};

/// Splits into elements, each with the punctuation before it. The closing bracket is a frame of its
/// own.
pub type ArraySplitter = splitter::DelimitedSplitter<ArrayDelimiter>;

/// Follows brackets and strings only. It does not check whether an element is JSON.
#[derive(Debug, Default)]
pub struct ArrayDelimiter {
    /// Open brackets inside the element.
    depth: usize,
    string_state: StringState,
    /// The array's own bracket has been seen.
    in_array: bool,
    /// The scanner is inside a number or word, which ends at the first other byte.
    in_literal: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum StringState {
    #[default]
    Outside,
    Inside,
    Escaped,
}

impl Delimiter for ArrayDelimiter {
    fn find_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut i = 0;
        while i < bytes.len() {
            match self.string_state {
                StringState::Escaped => self.string_state = StringState::Inside,
                StringState::Inside => {
                    i += memchr::memchr2(b'"', b'\\', &bytes[i..])?;
                    self.string_state =
                        if bytes[i] == b'\\' { StringState::Escaped } else { StringState::Outside };
                    if self.string_state == StringState::Outside && self.depth == 0 {
                        return Some(i + 1);
                    }
                }
                StringState::Outside => match bytes[i] {
                    _ if self.in_literal
                        && matches!(bytes[i], b',' | b']' | b' ' | b'\n' | b'\r' | b'\t') =>
                    {
                        self.in_literal = false;
                        return Some(i);
                    }
                    b'"' => self.string_state = StringState::Inside,
                    b'[' if !self.in_array && self.depth == 0 => self.in_array = true,
                    b'{' | b'[' => self.depth += 1,
                    b']' if self.depth == 0 => {
                        self.in_array = false;
                        return Some(i + 1);
                    }
                    b'}' | b']' => {
                        self.depth = self.depth.saturating_sub(1);
                        if self.depth == 0 {
                            return Some(i + 1);
                        }
                    }
                    b' ' | b'\n' | b'\r' | b'\t' | b',' => {}
                    _ => self.in_literal = self.depth == 0,
                },
            }
            i += 1;
        }
        None
    }
}

/// Returns the element without the punctuation before it; empty if absent.
#[must_use]
pub fn element_content(unit: &[u8], first: bool) -> &[u8] {
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
