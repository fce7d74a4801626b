//! Finds the `model` field of a multipart form without copying it.

use std::ops::Range;

use memchr::memmem;

/// The boundary of a `multipart/form-data` content type.
#[must_use]
pub fn boundary(content_type: &str) -> Option<&str> {
    let at = content_type.to_ascii_lowercase().find("boundary=")?;
    let rest = content_type.get(at + "boundary=".len()..)?;
    let text = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => rest.split(';').next()?.trim(),
    };
    (!text.is_empty() && text.len() <= 70).then_some(text)
}

/// Returns the span of the value of the field `name`; `None` if the form does not have the field or
/// is broken before it.
///
/// Parts are delimited as in RFC 2046, section 5.1.1; the field's own headers are searched for
/// `name="…"`.
#[must_use]
pub fn find_field(body: &[u8], boundary: &str, name: &str) -> Option<Range<usize>> {
    let delimiter = format!("--{boundary}");
    let finder = memmem::Finder::new(delimiter.as_bytes());
    let wanted = format!("name=\"{name}\"");
    let mut at = finder.find(body)? + delimiter.len();
    loop {
        let part = body.get(at..)?;
        if part.starts_with(b"--") {
            return None;
        }
        let head_end = memmem::find(part, b"\r\n\r\n")?;
        let (head, content_at) = (&part[..head_end], at + head_end + 4);
        let length = finder.find(body.get(content_at..)?)?;
        let end = content_at + length.checked_sub(2)?;
        let disposition = head
            .split(|&b| b == b'\n')
            .find(|line| line.to_ascii_lowercase().starts_with(b"content-disposition:"));
        // `filename="…"` also ends in `name="…"`: the byte before distinguishes them.
        let named = disposition.is_some_and(|line| {
            memmem::find_iter(line, wanted.as_bytes())
                .any(|p| p > 0 && matches!(line[p - 1], b' ' | b';'))
        });
        if named {
            return Some(content_at..end);
        }
        at = content_at + length + delimiter.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &[u8] = b"--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\nContent-Type: audio/wav\r\n\r\nRIFF--X\r\n\r\n--XX\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--XX--\r\n";

    #[test]
    fn the_model_of_a_form_is_found() {
        let span = find_field(FORM, "XX", "model").expect("a model field");
        assert_eq!(&FORM[span], b"whisper-1");
        assert_eq!(find_field(FORM, "XX", "language"), None);
        assert_eq!(find_field(b"--XX\r\nbroken", "XX", "model"), None);
    }

    #[test]
    fn boundaries_come_quoted_or_bare() {
        assert_eq!(boundary("multipart/form-data; boundary=abc"), Some("abc"));
        assert_eq!(boundary("multipart/form-data; Boundary=\"a b\"; x=1"), Some("a b"));
        assert_eq!(boundary("multipart/form-data"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let mut form = b"--XX\r\n".to_vec();
            form.extend(body);
            drop(find_field(&form, "XX", "model"));
        }
    }
}
