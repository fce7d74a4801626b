//! Finds `.` and `..` in paths, in every spelling that some server normalises.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Servers and the proxies before them may decode a path more than once.
const MAX_DECODINGS: usize = 4;

/// Returns whether a path, or a name that becomes a part of one, has a segment `.` or `..`. Slash
/// and backslash separate segments, percent-encoding is undone as often as it occurs, and what
/// follows a semicolon is a parameter (`..;x`), which some servers cut off.
#[must_use]
pub fn has_dot_segment(path: &str) -> bool {
    if !path.contains(['.', '%']) {
        return false;
    }
    let mut text = Cow::Borrowed(path);
    for _ in 0..MAX_DECODINGS {
        if text.split(['/', '\\', '?', '#']).any(is_dot_segment) {
            return true;
        }
        if !text.contains('%') {
            return false;
        }
        let decoded = percent_decode_str(&text).decode_utf8_lossy().into_owned();
        if *decoded == *text {
            return false;
        }
        text = Cow::Owned(decoded);
    }
    // Encoded more often than any client does.
    true
}

fn is_dot_segment(segment: &str) -> bool {
    let name = segment.split(';').next().unwrap_or(segment);
    // Some servers trim white space and cut a name at NUL.
    let name = name.split('\0').next().unwrap_or(name);
    matches!(name.trim_matches(|c: char| c.is_whitespace() || c.is_control()), "." | "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_segments_are_found_in_every_encoding() {
        for path in [
            "/..",
            "../x",
            "/a/../b",
            "/./x",
            "/%2e%2e/x",
            "/.%2e/x",
            "/%2E./x",
            "/..%2fx",
            "/..%5cx",
            "/..\\x",
            "/..;/x",
            "/..;a=b/x",
            "/%252e%252e/x",
            "/..%252fx",
            "/..%00/x",
            "a/%2e%2e%2fb",
            "/..%3b/x",
            "/.. /x",
            "/..%20/x",
            "/%25252e%25252e/x",
        ] {
            assert!(has_dot_segment(path), "{path}");
        }
        for path in [
            "/v1/files",
            "/a.b/c..d",
            "/...",
            "/models/gpt-4.1",
            "/x%2fy",
            "/a%20b.txt",
            "/100%",
            "/.well-known/x",
            "/a;b/c",
            "claude-3.5",
            "",
        ] {
            assert!(!has_dot_segment(path), "{path}");
        }
    }
}
