//! Joins characters whose two surrogates (`\ud83c`, `\udf89`) are in two parts of a text, each part
//! a JSON string of its own.

use std::{borrow::Cow, sync::LazyLock};

use memchr::memmem;

/// Built once, because every event is searched for it.
static UNICODE_ESCAPE: LazyLock<memmem::Finder<'static>> =
    LazyLock::new(|| memmem::Finder::new(b"\\u"));

/// Length of an escape such as `\ud83c`.
const ESCAPE_BYTES: usize = 6;

/// Whether a string of this JSON text ends with a high surrogate.
#[must_use]
pub fn ends_with_high_surrogate(json: &[u8]) -> bool {
    lone_surrogates(json).any(|half| half.ends_string(json))
}

/// Moves a high surrogate at the end of a string to the start of the string in the following text
/// that begins with its low surrogate. A high surrogate without a low one stays where it is.
pub fn join_split_pairs(before: &mut Vec<u8>, after: &mut Vec<u8>) {
    let firsts: Vec<usize> = lone_surrogates(before)
        .filter(|half| half.ends_string(before))
        .map(|half| half.offset)
        .collect();
    let seconds: Vec<usize> = lone_surrogates(after)
        .filter(|half| half.starts_string(after))
        .map(|half| half.offset)
        .collect();
    for (first, second) in firsts.into_iter().zip(seconds).rev() {
        let escape: Vec<u8> = before.drain(first..first + ESCAPE_BYTES).collect();
        after.splice(second..second, escape);
    }
}

/// Returns the text with every lone surrogate replaced by U+FFFD, for readers that do not accept
/// surrogates.
#[must_use]
pub fn replace_lone(json: &str) -> Cow<'_, str> {
    let mut out = Cow::Borrowed(json);
    for half in lone_surrogates(json.as_bytes()) {
        // The replacement has the same length, so that offsets stay valid.
        out.to_mut().replace_range(half.offset..half.offset + ESCAPE_BYTES, "\\ufffd");
    }
    out
}

/// One surrogate: half a character.
struct Surrogate {
    offset: usize,
    is_high: bool,
}

impl Surrogate {
    fn ends_string(&self, json: &[u8]) -> bool {
        self.is_high && json.get(self.offset + ESCAPE_BYTES) == Some(&b'"')
    }

    fn starts_string(&self, json: &[u8]) -> bool {
        !self.is_high
            && self.offset > 0
            && json[self.offset - 1] == b'"'
            && !is_escaped(json, self.offset - 1)
    }
}

/// Whether the byte at this offset is the second one of an escape.
fn is_escaped(json: &[u8], at: usize) -> bool {
    json[..at].iter().rev().take_while(|&&b| b == b'\\').count() % 2 == 1
}

/// Iterates over the lone surrogates of a text. Most texts have no such escape at all.
fn lone_surrogates(json: &[u8]) -> impl Iterator<Item = Surrogate> {
    let mut from = 0;
    std::iter::from_fn(move || {
        while let Some(at) = UNICODE_ESCAPE.find(&json[from..]).map(|at| from + at) {
            from = at + 2;
            if is_escaped(json, at) {
                continue;
            }
            match code_unit(json, at) {
                Some(0xD800..0xDC00) => {
                    let next = at + ESCAPE_BYTES;
                    if json[next..].starts_with(b"\\u")
                        && matches!(code_unit(json, next), Some(0xDC00..0xE000))
                    {
                        from = next + ESCAPE_BYTES;
                        continue;
                    }
                    return Some(Surrogate { offset: at, is_high: true });
                }
                Some(0xDC00..0xE000) => return Some(Surrogate { offset: at, is_high: false }),
                _ => {}
            }
        }
        None
    })
}

/// Returns the code unit that an escape encodes.
fn code_unit(json: &[u8], at: usize) -> Option<u16> {
    let digits = std::str::from_utf8(json.get(at + 2..at + ESCAPE_BYTES)?).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(before: &str, after: &str) -> (String, String) {
        let (mut one, mut two) = (before.as_bytes().to_vec(), after.as_bytes().to_vec());
        join_split_pairs(&mut one, &mut two);
        (String::from_utf8(one).expect("text"), String::from_utf8(two).expect("text"))
    }

    #[test]
    fn split_surrogate_pair_is_joined_across_two_texts() {
        for (before, after, want) in [
            (
                r#"{"a":"x\ud83c"}"#,
                r#"{"a":"\udf89y"}"#,
                (r#"{"a":"x"}"#, r#"{"a":"\ud83c\udf89y"}"#),
            ),
            (
                r#"["\uD83C","\ud83d"]"#,
                r#"["\uDF89","\ude00"]"#,
                (r#"["",""]"#, r#"["\uD83C\uDF89","\ud83d\ude00"]"#),
            ),
            // No low surrogate; escapes that are not surrogates; surrogates inside a string.
            (r#"{"a":"\ud83c"}"#, r#"{"a":"y"}"#, (r#"{"a":"\ud83c"}"#, r#"{"a":"y"}"#)),
            (
                r#"{"a":"\\ud83c"}"#,
                r#"{"a":"\\udf89"}"#,
                (r#"{"a":"\\ud83c"}"#, r#"{"a":"\\udf89"}"#),
            ),
            (
                r#"{"a":"\ud83c"}"#,
                r#"{"a":"\"\udf89"}"#,
                (r#"{"a":"\ud83c"}"#, r#"{"a":"\"\udf89"}"#),
            ),
            (
                r#"{"a":"\ud83c\udf89"}"#,
                r#"{"a":"\udf89"}"#,
                (r#"{"a":"\ud83c\udf89"}"#, r#"{"a":"\udf89"}"#),
            ),
        ] {
            assert_eq!(
                joined(before, after),
                (want.0.to_owned(), want.1.to_owned()),
                "{before} {after}"
            );
        }
    }

    #[test]
    fn only_a_high_surrogate_at_the_end_is_incomplete() {
        for (json, want) in [
            (r#"{"a":"x\ud83c"}"#, true),
            (r#"{"a":"x\\\ud83c"}"#, true),
            (r#"{"a":"x\\ud83c"}"#, false),
            (r#"{"a":"\ud83cx"}"#, false),
            (r#"{"a":"\ud83c\udf89"}"#, false),
            (r#"{"a":"\udf89"}"#, false),
            (r#"{"a":"\u00e9"}"#, false),
            (r#"{"a":"\u"#, false),
            (r#""\ud83"#, false),
        ] {
            assert_eq!(ends_with_high_surrogate(json.as_bytes()), want, "{json}");
        }
    }

    #[test]
    fn lone_surrogate_becomes_a_replacement_character() {
        assert_eq!(
            replace_lone(r#"["a\ud83cb","\udf89","\ud83c\udf89","\\ud83c"]"#),
            r#"["a\ufffdb","\ufffd","\ud83c\udf89","\\ud83c"]"#
        );
        assert!(matches!(replace_lone(r#"["a\n"]"#), Cow::Borrowed(_)));
    }
}
