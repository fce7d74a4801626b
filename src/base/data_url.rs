//! Splits `data:` URLs.

/// The parts of a `data:` URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataUrl<'a> {
    /// The media type without its parameters, if the URL contains one.
    pub mime: Option<&'a str>,
    pub is_base64: bool,
    pub data: &'a str,
}

/// Splits a `data:` URL; `None` for any other text.
#[must_use]
pub fn split(url: &str) -> Option<DataUrl<'_>> {
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    Some(DataUrl {
        mime: head.split(';').next().filter(|mime| !mime.is_empty()),
        is_base64: head.ends_with(";base64"),
        data,
    })
}

/// Like [`split`], only for data in base64.
#[must_use]
pub fn split_base64(url: &str) -> Option<DataUrl<'_>> {
    split(url).filter(|parts| parts.is_base64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mime_type_encoding_and_data_are_split() {
        for (url, want) in [
            ("data:image/png;base64,AA==", Some((Some("image/png"), true, "AA=="))),
            ("data:text/plain;charset=utf-8;base64,AA", Some((Some("text/plain"), true, "AA"))),
            ("data:;base64,A,B", Some((None, true, "A,B"))),
            ("data:text/plain,a%20b", Some((Some("text/plain"), false, "a%20b"))),
            ("data:image/png;base64", None),
            ("https://example.com/a,b", None),
        ] {
            let parts = split(url).map(|parts| (parts.mime, parts.is_base64, parts.data));
            assert_eq!(parts, want, "{url}");
            assert_eq!(split_base64(url).is_some(), want.is_some_and(|parts| parts.1), "{url}");
        }
    }
}
