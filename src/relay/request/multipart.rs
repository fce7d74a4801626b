//! Finds the `model` field of a multipart form without copying it. A form in which another reader
//! could find another model is refused, as a JSON body with two `model` keys is.

use std::{borrow::Cow, ops::Range};

use memchr::memmem;
use percent_encoding::percent_decode_str;

/// Why a form is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    #[error("its parts are not separated as RFC 2046 section 5.1.1 says")]
    Broken,
    #[error("the headers of a part are written so that readers disagree about them")]
    Ambiguous,
    #[error("it has two fields of that name")]
    Repeated,
}

/// The boundary of a `multipart/form-data` content type.
#[must_use]
pub fn boundary(content_type: &str) -> Option<&str> {
    let lower = content_type.to_ascii_lowercase();
    let at = lower.find("boundary=")?;
    // Readers disagree about which of two counts.
    if lower[at + 1..].contains("boundary=") || lower.contains("boundary*") {
        return None;
    }
    let rest = content_type.get(at + "boundary=".len()..)?;
    let text = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => rest.split(';').next()?.trim(),
    };
    (!text.is_empty() && text.len() <= 70).then_some(text)
}

/// Returns the span of the value of the field `name`; `None` if the form does not have it. Reads
/// the form once.
///
/// # Errors
///
/// The form is broken, has the field twice, or names a field in a way that some readers take for
/// `name` and others do not: other case, escapes, `name*`, folded headers, bare line feeds.
pub fn find_field(
    body: &[u8],
    boundary: &str,
    name: &str,
) -> Result<Option<Range<usize>>, FormError> {
    let delimiter = format!("--{boundary}");
    let finder = memmem::Finder::new(delimiter.as_bytes());
    let mut at = if body.starts_with(b"\r\n") { 2 } else { 0 };
    if !body[at..].starts_with(delimiter.as_bytes()) {
        return Err(FormError::Broken);
    }
    at += delimiter.len();
    let mut found = None;
    loop {
        let part = body.get(at..).ok_or(FormError::Broken)?;
        if let Some(after) = part.strip_prefix(b"--") {
            // What follows the last delimiter is read by some.
            let empty = after.iter().all(u8::is_ascii_whitespace);
            return if empty { Ok(found) } else { Err(FormError::Broken) };
        }
        let part = part.strip_prefix(b"\r\n").ok_or(FormError::Broken)?;
        let head_at = at + 2;
        let (head_length, gap) = if part.starts_with(b"\r\n") {
            (0, 2)
        } else {
            (memmem::find(part, b"\r\n\r\n").ok_or(FormError::Broken)?, 4)
        };
        let content_at = head_at + head_length + gap;
        let end = content_end(body, content_at, &finder)?;
        if is_named(&part[..head_length], name)? {
            if found.is_some() {
                return Err(FormError::Repeated);
            }
            found = Some(content_at..end);
        }
        at = end + 2 + delimiter.len();
    }
}

/// Where a part's content ends: before the line break of the next delimiter.
fn content_end(body: &[u8], from: usize, finder: &memmem::Finder<'_>) -> Result<usize, FormError> {
    let rest = body.get(from..).ok_or(FormError::Broken)?;
    for position in finder.find_iter(rest) {
        let at = from + position;
        let line_end = body.get(..at).is_some_and(|before| before.ends_with(b"\r\n"));
        if line_end && at >= from + 2 {
            return Ok(at - 2);
        }
        // A delimiter behind a bare line feed, or directly behind the headers, is one for some.
        if at == from || body[at - 1] == b'\n' || body[at - 1] == b'\r' {
            return Err(FormError::Broken);
        }
    }
    Err(FormError::Broken)
}

/// Returns whether the headers of a part give it exactly this name.
fn is_named(head: &[u8], wanted: &str) -> Result<bool, FormError> {
    let mut name: Option<Cow<'_, str>> = None;
    for line in head.split(|&b| b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = std::str::from_utf8(line).map_err(|_| FormError::Ambiguous)?;
        let folded = line.starts_with([' ', '\t']);
        if folded || line.contains(['\r', '\0']) {
            return Err(FormError::Ambiguous);
        }
        let (header, value) = line.split_once(':').unwrap_or((line, ""));
        if !header.trim().eq_ignore_ascii_case("content-disposition") {
            continue;
        }
        if name.is_some() || header.trim() != header {
            return Err(FormError::Ambiguous);
        }
        name = Some(field_name(value)?);
    }
    // A line feed without a carriage return ends the headers for some readers.
    if memmem::find(head, b"\n\n").is_some() || memmem::find(head, b"\n\r\n").is_some() {
        return Err(FormError::Ambiguous);
    }
    let Some(name) = name else { return Ok(false) };
    if *name == *wanted {
        return Ok(true);
    }
    let decoded = percent_decode_str(&name).decode_utf8_lossy();
    let plain: String = decoded.chars().filter(|c| !matches!(c, '\\' | '"' | '\'')).collect();
    let plain = plain.trim_matches(|c: char| c.is_whitespace() || c.is_control());
    if plain.eq_ignore_ascii_case(wanted) { Err(FormError::Ambiguous) } else { Ok(false) }
}

/// The `name` of a Content-Disposition; empty if it has none.
fn field_name(disposition: &str) -> Result<Cow<'_, str>, FormError> {
    let mut name = None;
    let mut rest = disposition.split_once(';').map_or("", |(_, rest)| rest);
    while !rest.trim().is_empty() {
        let (key, after) = match rest.find(['=', ';']) {
            Some(at) if rest[at..].starts_with('=') => (&rest[..at], &rest[at + 1..]),
            Some(at) => {
                rest = &rest[at + 1..];
                continue;
            }
            None => break,
        };
        let key = key.trim();
        let after = after.trim_start();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => read_quoted(quoted).ok_or(FormError::Ambiguous)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (Cow::Borrowed(after[..end].trim()), &after[end..])
            }
        };
        if key
            .trim_end_matches(|c: char| c == '*' || c.is_ascii_digit())
            .eq_ignore_ascii_case("name")
        {
            if key.len() > "name".len() || name.is_some() {
                return Err(FormError::Ambiguous);
            }
            name = Some(value);
        }
        let next = next.trim_start();
        if !next.is_empty() && !next.starts_with(';') {
            return Err(FormError::Ambiguous);
        }
        rest = next.get(1..).unwrap_or("");
    }
    Ok(name.unwrap_or(Cow::Borrowed("")))
}

/// Reads a quoted text behind its first quote; returns the text and what follows.
fn read_quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = text.find(['"', '\\'])?;
    if text[end..].starts_with('"') {
        return Some((Cow::Borrowed(&text[..end]), &text[end + 1..]));
    }
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((Cow::Owned(value), &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &[u8] = b"--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\nContent-Type: audio/wav\r\n\r\nRIFF--X\r\n\r\n--XX\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--XX--\r\n";

    #[test]
    fn model_of_a_multipart_form_is_found() {
        let span = find_field(FORM, "XX", "model").expect("a good form").expect("a model field");
        assert_eq!(&FORM[span], b"whisper-1");
        assert_eq!(find_field(FORM, "XX", "language"), Ok(None));
        assert_eq!(find_field(b"--XX\r\nbroken", "XX", "model"), Err(FormError::Broken));
        let bare =
            b"--XX\r\ncontent-disposition: form-data; filename=a; Name=model\r\n\r\nx\r\n--XX--";
        let span = find_field(bare, "XX", "model").expect("a good form").expect("a model field");
        assert_eq!(&bare[span], b"x");
    }

    #[test]
    fn form_with_a_second_model_is_refused() {
        let d = "Content-Disposition: form-data; ";
        for hidden in [
            format!("{d}name=\"model\""),
            format!("{d}name=model"),
            format!("{d}name*=utf-8''model"),
            format!("{d}name*0=mo; name*1=del"),
            format!("{d}NAME=\"model\""),
            format!("{d}name=\"Model\""),
            format!("{d}name=\"mod\\el\""),
            format!("{d}name=\"mod%65l\""),
            format!("{d}name=\" model \""),
            format!("{d}name=\"x\"; name=\"model\""),
            "Content-Disposition: form-data;\r\n name=\"model\"".to_owned(),
            format!("X: y\n{d}name=\"x\"\n\nmodel"),
            format!("{d}name=\"x\"\r\n{d}name=\"model\""),
            "Content-Disposition : form-data; name=\"model\"".to_owned(),
        ] {
            let form = format!(
                "--XX\r\n{hidden}\r\n\r\ndear\r\n--XX\r\n{d}name=\"model\"\r\n\r\ncheap\r\n--XX--\r\n"
            );
            assert!(find_field(form.as_bytes(), "XX", "model").is_err(), "{hidden}");
        }
        for form in [
            "preamble\r\n--XX\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nx\r\n--XX--",
            "--XX\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nx\r\n--XX--\r\n--XX\r\nmore",
            "--XX\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nx\n--XX\r\nA: b\r\n\r\ny\r\n--XX--",
            "--XX\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nx\r\n--XXY\r\n--XX--",
            "--XX\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nx",
        ] {
            assert!(find_field(form.as_bytes(), "XX", "model").is_err(), "{form}");
        }
    }

    #[test]
    fn boundaries_may_be_quoted_or_bare() {
        assert_eq!(boundary("multipart/form-data; boundary=abc"), Some("abc"));
        assert_eq!(boundary("multipart/form-data; Boundary=\"a b\"; x=1"), Some("a b"));
        assert_eq!(boundary("multipart/form-data"), None);
        assert_eq!(boundary("multipart/form-data; boundary=a; boundary=b"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_body_is_read_without_panic(body in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let mut form = b"--XX\r\n".to_vec();
            form.extend(body);
            let _span = find_field(&form, "XX", "model");
        }
    }
}
