//! Makes foreign text safe to show in a terminal, and measures and cuts it in columns.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Maximum combining marks on one character: enough for every script, too few to reach into other
/// lines.
const MAX_COMBINING_MARKS: usize = 4;

/// Returns the text on one line and without terminal control sequences.
///
/// Control characters become `^[` or `\u{9b}`, and characters that change the reading direction
/// become `\u{202e}`. Line breaks and tabs become a space. Characters that have no width and only
/// mislead (zero width space, joiners, variation selectors, tags) are removed. Combining marks
/// stay, a few per character.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|b| (b' '..0x7f).contains(&b)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut marks = 0;
    for c in text.chars() {
        match c {
            '\t' | '\n' | '\r' | '\u{2028}' | '\u{2029}' => out.push(' '),
            '\0'..='\x1f' => out.extend(['^', char::from(c as u8 + b'@')]),
            '\x7f' => out.push_str("^?"),
            '\u{80}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => {
                out.push_str(&format!("\\u{{{:x}}}", u32::from(c)));
            }
            _ if is_invisible(c) => {}
            _ if c.width() == Some(0) => {
                if marks < MAX_COMBINING_MARKS {
                    marks += 1;
                    out.push(c);
                }
                continue;
            }
            _ => out.push(c),
        }
        marks = 0;
    }
    Cow::Owned(out)
}

fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{180b}'..='\u{180e}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2064}' | '\u{206a}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Returns the width of the text in columns.
#[must_use]
pub fn display_width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// Returns the text in at most `max_columns` columns; `…` replaces what is cut off at the end.
#[must_use]
pub fn truncate_end(text: &str, max_columns: usize) -> Cow<'_, str> {
    if display_width(text) <= max_columns {
        return Cow::Borrowed(text);
    }
    if max_columns == 0 {
        return Cow::Borrowed("");
    }
    Cow::Owned(format!("{}…", fitting_prefix(text, max_columns - 1)))
}

/// Returns the text in at most `max_columns` columns; `…` replaces what is cut out of the middle.
/// For names, whose ends differ.
#[must_use]
pub fn truncate_middle(text: &str, max_columns: usize) -> Cow<'_, str> {
    if display_width(text) <= max_columns {
        return Cow::Borrowed(text);
    }
    if max_columns < 6 {
        return truncate_end(text, max_columns);
    }
    let back = (max_columns - 1) * 2 / 5;
    Cow::Owned(format!(
        "{}…{}",
        fitting_prefix(text, max_columns - 1 - back),
        fitting_suffix(text, back)
    ))
}

/// Returns the longest prefix that fits. The widths of single characters never add up to less than
/// the width of the whole.
fn fitting_prefix(text: &str, max_columns: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(1);
        if used > max_columns {
            return &text[..at];
        }
    }
    text
}

/// Returns the longest suffix that fits.
fn fitting_suffix(text: &str, max_columns: usize) -> &str {
    let mut used = 0;
    let mut from = text.len();
    for (at, c) in text.char_indices().rev() {
        let wide = c.width().unwrap_or(1);
        if used + wide > max_columns {
            break;
        }
        used += wide;
        // A combining mark must not lose its base character.
        if wide > 0 {
            from = at;
        }
    }
    &text[from..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_sequences_are_escaped() {
        for (text, want) in [
            ("gpt-5-mini", "gpt-5-mini"),
            ("\x1b[31mred\x1b]0;title\x07", "^[[31mred^[]0;title^G"),
            ("a\0b\x7f", "a^@b^?"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("one\r\ntwo\tthree", "one  two three"),
            ("safe\u{202e}fdp.exe", "safe\\u{202e}fdp.exe"),
            ("a\u{200b}b\u{feff}c\u{e0041}", "abc"),
            ("cafe\u{301}", "cafe\u{301}"),
            ("通义-max", "通义-max"),
        ] {
            assert_eq!(clean(text), want, "{text:?}");
        }
        assert_eq!(
            clean(&format!("z{}", "\u{301}".repeat(1_000))).chars().count(),
            1 + MAX_COMBINING_MARKS
        );
    }

    #[test]
    fn names_are_truncated_in_the_middle_and_prose_at_the_end() {
        assert_eq!(truncate_middle("deepseek-ai/deepseek-r1", 15), "deepseek-…ek-r1");
        assert_eq!(truncate_middle("short", 15), "short");
        assert_eq!(truncate_end("connection refused", 10), "connectio…");
        assert_eq!(truncate_end("通义千问", 5), "通义…");
        assert_eq!(truncate_end("通义千问", 4), "通…");
        assert_eq!(truncate_end("abc", 0), "");
    }

    proptest! {
        #[test]
        fn cleaned_text_fits_its_width(text in "\\PC*|.*", room in 0_usize..40) {
            let text = clean(&text);
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert!(display_width(&truncate_end(&text, room)) <= room);
            prop_assert!(display_width(&truncate_middle(&text, room)) <= room);
        }
    }
}
