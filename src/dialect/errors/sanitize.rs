//! Makes text from upstreams safe to display: bounded, without tags and control characters, on one
//! line if required.

/// Maximum length of a vendor's message that aiproxy stores, in characters.
pub(in crate::dialect) const MAX_MESSAGE_CHARS: usize = 300;
/// Maximum length of a message that aiproxy sends, in characters.
pub(in crate::dialect) const MAX_SENT_CHARS: usize = 1500;

/// Whether a character controls a terminal or the direction of text.
fn is_control_char(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Returns one line of plain text. Runs of white space become one space; control characters are
/// removed.
#[must_use]
pub(in crate::dialect) fn one_line(text: &str, max: usize) -> String {
    if text.len() <= max && text.bytes().all(|b| b.is_ascii_graphic()) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len().min(max * 4));
    let (mut count, mut gap) = (0, false);
    for c in text.chars() {
        if c.is_whitespace() || c.is_control() {
            gap = true;
        } else if !is_control_char(c) {
            if count >= max {
                out.push('…');
                break;
            }
            if gap && count > 0 {
                out.push(' ');
                count += 1;
            }
            gap = false;
            out.push(c);
            count += 1;
        }
    }
    out
}

/// Returns the text with control characters escaped (`\u001b`), except line feeds and tabs.
#[must_use]
pub(in crate::dialect) fn escape_controls(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max * 4));
    for (count, c) in text.chars().enumerate() {
        if count >= max {
            out.push('…');
            break;
        }
        if is_control_char(c) && c != '\n' && c != '\t' {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

/// Returns the beginning of unreadable bytes, escaped, on one line.
#[must_use]
pub(in crate::dialect) fn excerpt(bytes: &[u8]) -> String {
    const MAX_CHARS: usize = 120;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_CHARS * 4)]);
    let line: String = text
        .chars()
        .take(MAX_CHARS + 1)
        .map(|c| if c == '\n' || c == '\t' { ' ' } else { c })
        .collect();
    let mut out = String::new();
    for (count, c) in escape_controls(&line, MAX_CHARS + 1).chars().enumerate() {
        if count >= MAX_CHARS {
            out.push('…');
            break;
        }
        out.push(c);
    }
    out
}

/// Returns the readable part of an HTML page: its title, else its text.
#[must_use]
pub(in crate::dialect) fn html_text(page: &str) -> String {
    // 64 KiB are more than any message needs; the rest of an endless page is not worth reading.
    let page = truncate(page, 64 << 10);
    let lower = page.to_ascii_lowercase();
    let title = lower.find("<title").and_then(|at| {
        let from = at + page[at..].find('>')? + 1;
        let to = from + lower[from..].find("</title")?;
        Some(one_line(&strip_tags(&page[from..to]), MAX_MESSAGE_CHARS))
    });
    title
        .filter(|title| !title.is_empty())
        .unwrap_or_else(|| one_line(&strip_tags(page), MAX_MESSAGE_CHARS))
}

/// Returns the text of markup other than HTML, such as XML.
#[must_use]
pub(in crate::dialect) fn markup_text(text: &str) -> String {
    one_line(&strip_tags(truncate(text, 64 << 10)), MAX_MESSAGE_CHARS)
}

/// Returns the text outside of tags, scripts and styles. Decodes the most common entities, but
/// never angle brackets.
fn strip_tags(page: &str) -> String {
    let lower = page.to_ascii_lowercase();
    let mut out = String::new();
    let mut at = 0;
    while let Some(open) = page[at..].find('<').map(|i| at + i) {
        out.push_str(&page[at..open]);
        out.push(' ');
        let tag = &lower[open..];
        let end = [("<script", "</script"), ("<style", "</style"), ("<!--", "-->")]
            .iter()
            .find(|(begin, _)| tag.starts_with(begin));
        let from = end.map_or(Some(open), |(_, end)| tag.find(end).map(|i| open + i));
        at = from
            .and_then(|from| page[from..].find('>').map(|i| from + i + 1))
            .unwrap_or(page.len());
    }
    out.push_str(&page[at..]);
    for (entity, text) in [
        ("&nbsp;", " "),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&apos;", "'"),
        ("&lt;", " "),
        ("&gt;", " "),
        ("&amp;", "&"),
    ] {
        out = out.replace(entity, text);
    }
    out
}

/// Cuts a text to at most `max` bytes, between characters.
fn truncate(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_sanitised() {
        assert_eq!(one_line(" a\n\tb\u{1b}[2J \u{202e}c ", 20), "a b [2J c");
        assert_eq!(one_line("abcdef", 3), "abc…");
        assert_eq!(escape_controls("a\u{1b}\n\u{202e}b", 20), "a\\u001b\n\\u202eb");
        assert_eq!(excerpt(b"{\"a\":\n\xff}"), "{\"a\": \u{fffd}}");
        assert_eq!(excerpt(&[b'x'; 500]).chars().count(), 121);
    }

    #[test]
    fn html_pages_are_read_as_text() {
        assert_eq!(
            html_text("<html><head><TITLE>502 &amp; more</TITLE></head><body>x</body></html>"),
            "502 & more"
        );
        assert_eq!(
            html_text(
                "<p>Please <b>log in</b><script>alert('<x>')</script><style>a{}</style><!-- > --> now"
            ),
            "Please log in now"
        );
        assert_eq!(html_text("<"), "");
    }
}
