//! Reads JSON in place: one pass validates a text and reports its keys; a lazy reader works on the
//! validated text.
//!
//! The reader builds no tree, so odd numbers, lone surrogates and duplicate keys (the last one
//! wins) cost nothing and break nothing.

use std::borrow::Cow;

use crate::base::json::grammar::{
    self, JsonError, SPACE, check_utf8, is_blank, scan_string, scan_value,
};

/// Checks that the whole text is one JSON value in UTF-8.
///
/// # Errors
///
/// The first error in the text.
pub fn parse(text: &[u8]) -> Result<JsonRef<'_>, JsonError> {
    visit(text, |_, _, _| {})
}

/// Like [`parse`], and calls `key` with the depth (1 in the root object), the raw key and the text
/// from its value on.
///
/// # Errors
///
/// The first error in the text. `key` has already been called for the keys before it.
pub fn visit<'a>(
    text: &'a [u8],
    key: impl FnMut(usize, &'a [u8], &'a [u8]),
) -> Result<JsonRef<'a>, JsonError> {
    let valid = check_utf8(text)?;
    scan_value(text, &mut 0, key)?;
    Ok(JsonRef::from_validated(valid))
}

/// A value inside a text that [`parse`] has validated. Reads are lenient: an absent value or one of
/// another type is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonRef<'a>(&'a str);

impl<'a> JsonRef<'a> {
    /// Wraps a text that is already validated.
    pub(in crate::base) fn from_validated(text: &'a str) -> Self {
        Self(text.trim_matches(SPACE))
    }

    /// Returns the value's own text, without surrounding white space.
    #[must_use]
    pub fn text(self) -> &'a str {
        self.0
    }

    /// Returns the value's type in words.
    #[must_use]
    pub fn kind(self) -> &'static str {
        grammar::kind_name(self.text())
    }

    #[must_use]
    pub fn is_object(self) -> bool {
        self.text().starts_with('{')
    }

    #[must_use]
    pub fn is_array(self) -> bool {
        self.text().starts_with('[')
    }

    /// Whether the value counts as absent: null, empty text, empty array or empty object.
    #[must_use]
    pub fn is_blank(self) -> bool {
        is_blank(self.text().as_bytes())
    }

    /// Returns a member of an object if it is not null. Of duplicates, the last one wins.
    #[must_use]
    pub fn get(self, name: &str) -> Option<Self> {
        self.members()
            .filter(|(key, _)| *key == name)
            .last()
            .map(|(_, value)| value)
            .filter(|value| !value.0.starts_with('n'))
    }

    /// Returns a member reached through nested objects.
    #[must_use]
    pub fn member_at(self, path: &[&str]) -> Option<Self> {
        path.iter().try_fold(self, |value, name| value.get(name))
    }

    /// Iterates over the keys (raw, between their quotes) and values of an object; empty for other
    /// values.
    pub fn members(self) -> impl Iterator<Item = (&'a str, Self)> {
        let text = self.text();
        let mut i = if text.starts_with('{') { 1 } else { text.len() };
        std::iter::from_fn(move || {
            let b = text.as_bytes();
            let open = next_token(b, i)?;
            if b[open] != b'"' {
                return None;
            }
            let close = skip_value(b, open);
            let value = next_token(b, close)?;
            i = skip_value(b, value).max(value + 1);
            Some((text.get(open + 1..close.checked_sub(1)?)?, Self(text.get(value..i)?)))
        })
    }

    /// Iterates over the elements of an array; empty for other values.
    pub fn items(self) -> impl Iterator<Item = Self> {
        let text = self.text();
        let mut i = if text.starts_with('[') { 1 } else { text.len() };
        std::iter::from_fn(move || {
            let b = text.as_bytes();
            let value = next_token(b, i)?;
            if b[value] == b']' {
                return None;
            }
            i = skip_value(b, value).max(value + 1);
            Some(Self(text.get(value..i)?))
        })
    }

    /// Returns a string, unescaped; lone surrogates become U+FFFD.
    #[must_use]
    pub fn str(self) -> Option<Cow<'a, str>> {
        let inner = self.text().strip_prefix('"')?.strip_suffix('"')?;
        Some(if inner.contains('\\') { Cow::Owned(unescape(inner)) } else { Cow::Borrowed(inner) })
    }

    /// Returns a string as an owned text.
    #[must_use]
    pub fn string(self) -> Option<String> {
        self.str().map(Cow::into_owned)
    }

    /// Returns a member of an object if it is a string.
    #[must_use]
    pub fn string_at(self, name: &str) -> Option<String> {
        self.get(name)?.string()
    }

    /// Returns a member of an object if it is a string that is not empty.
    #[must_use]
    pub fn non_empty_at(self, name: &str) -> Option<String> {
        self.string_at(name).filter(|text| !text.is_empty())
    }

    /// Returns the strings of a list; a single string counts as a list of one.
    #[must_use]
    pub fn strings(self) -> Vec<String> {
        match self.string() {
            Some(one) => vec![one],
            None => self.items().filter_map(Self::string).collect(),
        }
    }

    /// Returns the text of a string, or the JSON of any other value.
    #[must_use]
    pub fn plain_text(self) -> String {
        self.string().unwrap_or_else(|| self.text().to_owned())
    }

    #[must_use]
    pub fn bool(self) -> Option<bool> {
        self.text().parse().ok()
    }

    /// Returns a whole number that is not negative. `3.0` counts; `1e300`, `-1` and `"3"` do not.
    #[must_use]
    pub fn u64(self) -> Option<u64> {
        let text = self.text();
        text.parse().ok().or_else(|| text.strip_suffix(".0")?.parse().ok())
    }

    #[must_use]
    pub fn i64(self) -> Option<i64> {
        self.text().parse().ok()
    }
}

/// Returns the next byte that is not a space, comma or colon.
fn next_token(text: &[u8], mut i: usize) -> Option<usize> {
    while let b' ' | b'\n' | b'\r' | b'\t' | b',' | b':' = text.get(i)? {
        i += 1;
    }
    Some(i)
}

/// Moves from a value's first byte to after its last. Correct on validated text, and never out of
/// bounds on any other text.
fn skip_value(text: &[u8], mut i: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(&b) = text.get(i) {
        match b {
            b'"' => {
                i = scan_string(text, i + 1, &mut 0).unwrap_or(text.len());
                if depth == 0 {
                    return i;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                if depth <= 1 {
                    return i + depth;
                }
                depth -= 1;
            }
            b',' | b' ' | b'\n' | b'\r' | b'\t' if depth == 0 => return i,
            _ => {}
        }
        i += 1;
    }
    text.len()
}

/// Returns the first value of a text that begins with one. The rest must follow it as it would
/// follow a member.
#[must_use]
pub fn first_value(text: &[u8]) -> &str {
    std::str::from_utf8(&text[..skip_value(text, 0)]).unwrap_or_default()
}

/// Returns the value at the start of a validated text, as [`visit`] passes it to `key`.
#[must_use]
pub fn value_at(text: &[u8]) -> JsonRef<'_> {
    JsonRef(first_value(text))
}

/// Returns the text of the string that begins here, as far as it is complete; `None` if it is not a
/// string.
#[must_use]
pub fn string_prefix(text: &[u8]) -> Option<String> {
    let inside = text.strip_prefix(b"\"")?;
    let end = scan_string(text, 1, &mut 0).map_or(inside.len(), |end| end - 2);
    Some(unescape(&String::from_utf8_lossy(&inside[..end])).trim_end_matches('\u{FFFD}').to_owned())
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(c) = rest.chars().next() else { break };
        rest = &rest[c.len_utf8()..];
        match c {
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'u' => {
                let mut unit = || {
                    let unit = rest.get(..4).and_then(|hex| u32::from_str_radix(hex, 16).ok())?;
                    rest = &rest[4..];
                    Some(unit)
                };
                let mut point = unit().unwrap_or(0xFFFD);
                if (0xD800..0xDC00).contains(&point)
                    && let Some(low) = rest
                        .strip_prefix("\\u")
                        .and_then(|r| u32::from_str_radix(r.get(..4)?, 16).ok())
                    && (0xDC00..0xE000).contains(&low)
                {
                    point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
                    rest = &rest[6..];
                }
                out.push(char::from_u32(point).unwrap_or('\u{FFFD}'));
            }
            other => out.push(other),
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::json::grammar::{JsonErrorKind, MAX_DEPTH, validate};

    fn is_json(text: &[u8]) -> bool {
        std::str::from_utf8(text).is_ok()
            && serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
    }

    #[test]
    fn validity_agrees_with_serde_json() {
        for text in [
            "{}",
            "[]",
            " {\"a\" : [1, -0.5e+3, \"x\\u00e9\\n\"]} ",
            "null",
            "\"\"",
            "0",
            "-0",
            "01",
            "1.",
            "1e",
            ".5",
            "+1",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "[1,]",
            "[1 2]",
            "{,}",
            "tru",
            "nullx",
            "\"a\nb\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "{\"a\":1}{",
            "",
            " ",
            "[}",
            "{\"a\":[1}",
            "NaN",
            "1E400",
            "\"\\ud800\"",
            "{\"x\": [}",
            "\"0123456\u{7f}9\"",
            "\"abcdefg\"",
            "\"abcdefgh\\\"\"",
        ] {
            assert_eq!(parse(text.as_bytes()).is_ok(), is_json(text.as_bytes()), "{text:?}");
        }
        assert_eq!(parse(b"\"\xff\"").map_err(|b| b.kind), Err(JsonErrorKind::Utf8));
    }

    #[test]
    fn unterminated_string_is_read_to_its_end() {
        for (text, want) in [
            (&b"\"a\\nb\", 1"[..], Some("a\nb")),
            (b"\"a\\u00e9 b", Some("a\u{e9} b")),
            (b"\"a\xc3", Some("a")),
            (b"\"a\\", Some("a")),
            (b"1", None),
            (b"", None),
        ] {
            assert_eq!(string_prefix(text).as_deref(), want, "{text:?}");
        }
    }

    #[test]
    fn depth_is_limited_and_the_error_names_the_limit() {
        let nest = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(nest(MAX_DEPTH).as_bytes()).is_ok());
        let deep = nest(MAX_DEPTH + 1);
        let bad = parse(deep.as_bytes()).expect_err("too deep");
        assert_eq!(bad.describe(deep.as_bytes()), "nested deeper than 128 levels");
        assert_eq!(
            parse(b"{\"a\": }").expect_err("no value").describe(b"{\"a\": }"),
            "expected value at line 1 column 7"
        );
    }

    #[test]
    fn keys_are_visited_with_depth_and_value() {
        let mut seen = Vec::new();
        visit(br#"{"a":1,"b":[{"c":null}],"d":{"e":"f"}}"#, |depth, key, value| {
            seen.push((depth, String::from_utf8_lossy(key).into_owned(), value[0]));
        })
        .expect("good");
        let want = [(1, "a", b'1'), (1, "b", b'['), (3, "c", b'n'), (1, "d", b'{'), (2, "e", b'"')];
        assert_eq!(seen, want.map(|(d, k, v)| (d, k.to_owned(), v)));
    }

    #[test]
    fn values_are_read_leniently_and_the_last_duplicate_counts() {
        let json = parse(br#" {"a":1, "n":null,"s":"x\u00e9\ud83d\ude00\ud800\"","l":[1, "two",{"k":[]} ],"a":2.0,"big":18446744073709551616,"neg":-1} "#).expect("good");
        assert_eq!(json.get("a").and_then(JsonRef::u64), Some(2));
        assert_eq!(json.get("n"), None);
        assert_eq!(json.get("s").and_then(JsonRef::str).as_deref(), Some("xé😀\u{fffd}\""));
        assert_eq!(
            json.get("l").map(|l| l.items().map(JsonRef::kind).collect::<Vec<_>>()),
            Some(vec!["number", "string", "object"])
        );
        assert_eq!(json.get("big").and_then(JsonRef::u64), None);
        assert_eq!(json.get("neg").and_then(JsonRef::u64), None);
        assert_eq!(json.member_at(&["l", "x"]), None);
        assert!(
            is_blank(b"[ ]")
                && is_blank(b"{}")
                && is_blank(b"null")
                && !is_blank(b"0")
                && !is_blank(b"\"a\"")
        );
    }

    proptest! {
        #[test]
        fn validity_of_any_bytes_agrees_with_serde_json(text in proptest::collection::vec(prop_oneof![
            Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'), Just(b'\\'), Just(b','), Just(b':'), Just(b'1'), Just(b'0'), Just(b'-'),
            Just(b'.'), Just(b'e'), Just(b' '), Just(b'n'), Just(b'u'), Just(b'\n'), any::<u8>()], 0..40)) {
            prop_assert_eq!(parse(&text).is_ok(), is_json(&text));
            prop_assert_eq!(validate(&text, |_, _, _| {}).is_ok(), is_json(&text));
        }

        #[test]
        fn invalid_utf8_is_found_at_any_position(text in ".{0,200}", at in 0_usize..200, byte in 0x80_u8..) {
            let mut json = serde_json::to_vec(&text).expect("a string");
            prop_assert_eq!(validate(&json, |_, _, _| {}), Ok(()));
            json.insert(1 + at % (json.len() - 1), byte);
            prop_assert_eq!(validate(&json, |_, _, _| {}).is_ok(), is_json(&json));
        }

        #[test]
        fn any_string_round_trips(text in ".{0,60}", ascii in any::<bool>()) {
            let mut json = serde_json::to_string(&text).expect("a string");
            if ascii {
                json = json.chars().map(|c| if c.is_ascii() { c.to_string() } else {
                    c.encode_utf16(&mut [0; 2]).iter().map(|u| format!("\\u{u:04x}")).collect() }).collect();
            }
            prop_assert_eq!(parse(json.as_bytes()).expect("good").str().expect("string"), text);
        }

        #[test]
        fn unvalidated_text_is_read_without_panic(text in "[\\[\\]{}\",:\\\\a1 ]{0,30}") {
            let json = JsonRef::from_validated(&text);
            for (_, value) in json.members() {
                drop(value.str());
            }
            prop_assert!(json.items().count() <= text.len());
        }
    }
}
