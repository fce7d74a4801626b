//! Wraps text to a width in columns, and arranges spans on lines.

use unicode_width::UnicodeWidthChar;

use crate::tui::widgets::canvas::{StyledSpan, span, spans_width};
use crate::{base::sanitize::clean, tui::theme::ThemeRole};

/// Wraps sanitized text into at most `max_lines` lines of at most `max_width` columns. Breaks at
/// line breaks, else between words, else anywhere.
#[must_use]
pub fn wrap(text: &str, max_width: usize, max_lines: usize) -> Vec<String> {
    let max_width = max_width.max(1);
    let mut lines = Vec::new();
    for line in text.split('\n') {
        if lines.len() >= max_lines {
            break;
        }
        let line = line.strip_suffix('\r').unwrap_or(line).replace('\t', "    ");
        wrap_line(&clean(&line), max_width, max_lines, &mut lines);
    }
    lines.truncate(max_lines);
    // A trailing line break adds no empty line.
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

fn wrap_line(line: &str, max_width: usize, max_lines: usize, lines: &mut Vec<String>) {
    let (mut from, mut used, mut space) = (0, 0, None);
    for (at, c) in line.char_indices() {
        let wide = c.width().unwrap_or(1);
        if used + wide > max_width && at > from {
            // Move a whole word to the next line, unless this line would be nearly empty.
            let cut = space
                .filter(|space| *space > from && line[*space..at].len() < max_width / 2)
                .unwrap_or(at);
            lines.push(line[from..cut].trim_end().to_owned());
            if lines.len() >= max_lines {
                return;
            }
            // Drop the space at a line break.
            from = if cut == at && c == ' ' { at + 1 } else { cut };
            if from > at {
                (used, space) = (0, None);
                continue;
            }
            used = line[from..at].chars().map(|c| c.width().unwrap_or(1)).sum();
            space = None;
        }
        used += wide;
        if c == ' ' {
            space = Some(at + 1);
        }
    }
    lines.push(line[from..].to_owned());
}

/// Arranges spans one after the other, with a gap between them, on as many lines as needed.
#[must_use]
pub fn flow(
    pieces: impl Iterator<Item = Vec<StyledSpan>>,
    max_width: usize,
) -> Vec<Vec<StyledSpan>> {
    let mut lines: Vec<Vec<StyledSpan>> = Vec::new();
    let mut used = 0;
    for piece in pieces {
        let wide = usize::from(spans_width(&piece));
        match lines.last_mut().filter(|_| used + 3 + wide <= max_width) {
            Some(line) => {
                line.push(span("   ", ThemeRole::Dim));
                line.extend(piece);
                used += 3 + wide;
            }
            None => {
                lines.push(piece);
                used = wide;
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::sanitize::display_width;

    #[test]
    fn lines_break_between_words_and_wide_characters_count_twice() {
        for (text, want) in [
            ("one two three", vec!["one two", "three"]),
            ("abcdefghijkl", vec!["abcdefgh", "ijkl"]),
            ("a\n\nb\n", vec!["a", "", "b"]),
            ("通义千问一二三", vec!["通义千问", "一二三"]),
            ("a\tb\r\nc", vec!["a    b", "c"]),
            ("\x1b[31m", vec!["^[[31m"]),
            ("", vec![]),
        ] {
            assert_eq!(wrap(text, 8, 10), want, "{text:?}");
        }
        assert_eq!(wrap("a b c d e f", 1, 3), ["a", "b", "c"]);
    }

    #[test]
    fn pieces_are_wrapped_into_lines() {
        let piece = |text: &str| vec![span(text, ThemeRole::Text)];
        let lines = flow([piece("aaaa"), piece("bbbb"), piece("cccc")].into_iter(), 12);
        assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), [3, 1]);
    }

    proptest! {
        #[test]
        fn no_line_exceeds_its_width(text in "[a-z 通\u{301}👩\n]{0,200}", room in 2_usize..40) {
            for line in wrap(&text, room, 1_000) {
                prop_assert!(display_width(&line) <= room, "{line:?}");
            }
        }
    }
}
