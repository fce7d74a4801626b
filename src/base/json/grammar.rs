//! Checks the grammar of JSON in one pass that builds no values.

/// Maximum nesting depth of objects and arrays. Deeper texts are refused, as the JSON libraries of
/// clients do.
pub const MAX_DEPTH: usize = 128;

/// Why a text is not the expected JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonErrorKind {
    /// The text is JSON, but not the expected object.
    NotAnObject,
    Syntax,
    TooDeep,
    Utf8,
}

/// The position and kind of a JSON error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonError {
    pub kind: JsonErrorKind,
    pub offset: usize,
}

impl JsonError {
    /// Returns the error message with line and column: "expected value at line 1 column 5".
    #[must_use]
    pub fn describe(&self, text: &[u8]) -> String {
        match self.kind {
            JsonErrorKind::Utf8 => format!("invalid UTF-8 at byte {}", self.offset),
            JsonErrorKind::TooDeep => format!("nested deeper than {MAX_DEPTH} levels"),
            JsonErrorKind::NotAnObject => format!(
                "expected an object, got {}",
                kind_name(std::str::from_utf8(text).unwrap_or_default().trim_matches(SPACE))
            ),
            JsonErrorKind::Syntax => match serde_json::from_slice::<serde::de::IgnoredAny>(text) {
                Err(e) => e.to_string(),
                Ok(_) => format!("not JSON at byte {}", self.offset),
            },
        }
    }
}

/// Checks a text that is only forwarded, and calls `key` with the depth (1 in the root object), the
/// raw key and the text from its value on. Needs one pass, and a second one only if the text is not
/// all ASCII.
///
/// # Errors
///
/// An error in the text, not always the first. `key` may already have been called for keys before
/// it.
pub fn validate<'a>(
    text: &'a [u8],
    key: impl FnMut(usize, &'a [u8], &'a [u8]),
) -> Result<(), JsonError> {
    let mut seen = 0;
    scan_value(text, &mut seen, key)?;
    if seen & HIGH_BITS != 0 { check_utf8(text).map(drop) } else { Ok(()) }
}

pub(super) fn check_utf8(text: &[u8]) -> Result<&str, JsonError> {
    std::str::from_utf8(text)
        .map_err(|e| JsonError { kind: JsonErrorKind::Utf8, offset: e.valid_up_to() })
}

/// Checks the grammar alone. `seen` collects the bytes of strings, the only place where non-ASCII
/// bytes may occur.
pub(super) fn scan_value<'a>(
    text: &'a [u8],
    seen: &mut u64,
    mut key: impl FnMut(usize, &'a [u8], &'a [u8]),
) -> Result<(), JsonError> {
    let (mut i, mut depth, mut objects) = (0, 0_usize, 0_u128);
    'value: loop {
        i = skip_space(text, i);
        match text.get(i) {
            Some(b'"') => i = scan_string(text, i + 1, seen)?,
            Some(&open @ (b'{' | b'[')) => {
                if depth == MAX_DEPTH {
                    return Err(JsonError { kind: JsonErrorKind::TooDeep, offset: i });
                }
                let object = open == b'{';
                objects = objects << 1 | u128::from(object);
                depth += 1;
                i = skip_space(text, i + 1);
                if text.get(i) == Some(if object { &b'}' } else { &b']' }) {
                    objects >>= 1;
                    depth -= 1;
                    i += 1;
                } else {
                    if object {
                        i = scan_member(text, i, depth, seen, &mut key)?;
                    }
                    continue 'value;
                }
            }
            Some(b't') => i = scan_literal(text, i, b"true")?,
            Some(b'f') => i = scan_literal(text, i, b"false")?,
            Some(b'n') => i = scan_literal(text, i, b"null")?,
            _ => i = scan_number(text, i)?,
        }
        loop {
            i = skip_space(text, i);
            if depth == 0 {
                return if i == text.len() { Ok(()) } else { Err(syntax_error(i)) };
            }
            let object = objects & 1 == 1;
            match text.get(i) {
                Some(b',') => {
                    i += 1;
                    if object {
                        i = scan_member(text, i, depth, seen, &mut key)?;
                    }
                    continue 'value;
                }
                Some(b'}') if object => {}
                Some(b']') if !object => {}
                _ => return Err(syntax_error(i)),
            }
            objects >>= 1;
            depth -= 1;
            i += 1;
        }
    }
}

/// Whether the value that begins here is blank: null, empty text, empty array or empty object.
#[must_use]
pub fn is_blank(value: &[u8]) -> bool {
    match value {
        [b'n', ..] | [b'"', b'"', ..] | [b'[', b']', ..] | [b'{', b'}', ..] => true,
        [b'[', rest @ ..] => rest.get(skip_space(rest, 0)) == Some(&b']'),
        [b'{', rest @ ..] => rest.get(skip_space(rest, 0)) == Some(&b'}'),
        _ => false,
    }
}

/// Reads a key and the colon after it; returns the offset of the value.
#[inline]
fn scan_member<'a>(
    text: &'a [u8],
    at: usize,
    depth: usize,
    seen: &mut u64,
    key: &mut impl FnMut(usize, &'a [u8], &'a [u8]),
) -> Result<usize, JsonError> {
    let open = skip_space(text, at);
    if text.get(open) != Some(&b'"') {
        return Err(syntax_error(open));
    }
    let close = scan_string(text, open + 1, seen)?;
    let colon = skip_space(text, close);
    if text.get(colon) != Some(&b':') {
        return Err(syntax_error(colon));
    }
    let value = skip_space(text, colon + 1);
    key(depth, &text[open + 1..close - 1], &text[value..]);
    Ok(value)
}

fn syntax_error(offset: usize) -> JsonError {
    JsonError { kind: JsonErrorKind::Syntax, offset }
}

#[inline]
fn skip_space(text: &[u8], mut i: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = text.get(i) {
        i += 1;
    }
    i
}

fn scan_literal(text: &[u8], at: usize, word: &[u8]) -> Result<usize, JsonError> {
    if text[at..].starts_with(word) { Ok(at + word.len()) } else { Err(syntax_error(at)) }
}

/// Moves from after the opening quote to after the closing one.
#[inline]
pub(super) fn scan_string(text: &[u8], mut i: usize, seen: &mut u64) -> Result<usize, JsonError> {
    loop {
        i = scan_plain_run(text, i, seen);
        match text.get(i) {
            Some(b'"') => return Ok(i + 1),
            Some(b'\\') => match text.get(i + 1) {
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => i += 2,
                Some(b'u')
                    if text.len() >= i + 6
                        && text[i + 2..i + 6].iter().all(u8::is_ascii_hexdigit) =>
                {
                    i += 6;
                }
                _ => return Err(syntax_error(i)),
            },
            _ => return Err(syntax_error(i)),
        }
    }
}

/// Finds the next quote, backslash or control character, eight bytes at a time and 64 at a time in
/// long texts.
#[inline]
fn scan_plain_run(text: &[u8], mut i: usize, seen: &mut u64) -> usize {
    // Most strings are short: the wide scan only pays if this one is not.
    let long = i + WIDE_BYTES / 2;
    while let Some(eight) = text.get(i..i + 8).and_then(|s| <[u8; 8]>::try_from(s).ok()) {
        let w = u64::from_le_bytes(eight);
        let control = w.wrapping_sub(ONES * 0x20) & !w;
        let quote = w ^ (ONES * u64::from(b'"'));
        let slash = w ^ (ONES * u64::from(b'\\'));
        // A borrow can only mark bytes above a true hit, so the lowest mark is always right.
        let hits =
            (control | (quote.wrapping_sub(ONES) & !quote) | (slash.wrapping_sub(ONES) & !slash))
                & HIGH_BITS;
        // Bytes after the hit may be counted as well. This costs a second check at most.
        *seen |= w;
        if hits != 0 {
            return i + (hits.trailing_zeros() / 8) as usize;
        }
        i += 8;
        if i >= long {
            while let Some(high) = text.get(i..i + WIDE_BYTES).and_then(plain_bits) {
                *seen |= u64::from(high);
                i += WIDE_BYTES;
            }
        }
    }
    while let Some(&b) = text.get(i).filter(|&&b| b >= 0x20 && b != b'"' && b != b'\\') {
        *seen |= u64::from(b);
        i += 1;
    }
    i
}

const ONES: u64 = u64::MAX / 255;

/// The highest bit of each of eight bytes, which ASCII never sets.
const HIGH_BITS: u64 = ONES << 7;

/// Bytes scanned together in a long text.
const WIDE_BYTES: usize = 64;

/// Returns all bits of these bytes OR-ed together if no byte ends or escapes the string. The loop
/// has no early exit, so that the compiler vectorises it.
#[inline]
fn plain_bits(wide: &[u8]) -> Option<u8> {
    let hits = wide
        .iter()
        .fold(0, |hits, &b| hits | u8::from(b < 0x20) | u8::from(b == b'"') | u8::from(b == b'\\'));
    (hits == 0).then(|| wide.iter().fold(0, |bits, &b| bits | b))
}

fn scan_number(text: &[u8], mut i: usize) -> Result<usize, JsonError> {
    let digits = |mut i: usize| {
        let from = i;
        while text.get(i).is_some_and(u8::is_ascii_digit) {
            i += 1;
        }
        if i > from { Ok(i) } else { Err(syntax_error(i)) }
    };
    if text.get(i) == Some(&b'-') {
        i += 1;
    }
    i = if text.get(i) == Some(&b'0') { i + 1 } else { digits(i)? };
    if text.get(i) == Some(&b'.') {
        i = digits(i + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(i) {
        i += 1;
        if let Some(b'+' | b'-') = text.get(i) {
            i += 1;
        }
        i = digits(i)?;
    }
    Ok(i)
}

/// The white space of JSON.
pub(super) const SPACE: [char; 4] = [' ', '\n', '\r', '\t'];

/// Returns the type, in words, of a value without white space before it.
pub(super) fn kind_name(value: &str) -> &'static str {
    match value.as_bytes().first() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        Some(_) => "number",
        None => "nothing",
    }
}
