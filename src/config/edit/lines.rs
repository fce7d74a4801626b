//! Lines of a text: keeps their ends and the byte order mark through an edit, which works on plain
//! text, and finds those that an edit changed.

/// Edits a text as if it had neither a byte order mark nor CRLF, and gives both back afterwards.
///
/// # Errors
///
/// The error of `edit`.
pub(super) fn edit_plain<E>(
    text: &str,
    edit: impl FnOnce(String) -> Result<String, E>,
) -> Result<String, E> {
    let (mark, body) = text.strip_prefix(MARK).map_or(("", text), |body| (MARK, body));
    let edited = edit(body.replace("\r\n", "\n"))?;
    Ok(format!("{mark}{}", restore_ends(body, &edited)))
}

/// Returns the number of the first changed line, from 1, and the new text of the changed lines.
#[must_use]
pub fn changed_lines(before: &str, after: &str) -> (usize, String) {
    let (old, new) = (lines(before), lines(after));
    let (top, bottom) = count_equal(&old, &new);
    (top + 1, new[top..new.len() - bottom].concat())
}

/// Returns the edited text with the line ends of the text before: unchanged lines keep their own,
/// new ones get those of most lines.
fn restore_ends(before: &str, edited: &str) -> String {
    if !before.contains("\r\n") {
        return edited.to_owned();
    }
    let (old, new) = (lines(before), lines(edited));
    let (top, bottom) = count_equal(&old, &new);
    let with_crlf = old.iter().filter(|line| line.ends_with("\r\n")).count();
    let usual = if with_crlf * 2 >= old.len() { "\r\n" } else { "\n" };
    let mut out = String::with_capacity(edited.len() + new.len());
    out.extend(old[..top].iter().copied());
    for line in &new[top..new.len() - bottom] {
        let (content, has_end) = split_end(line);
        out.push_str(content);
        out.push_str(if has_end { usual } else { "" });
    }
    out.extend(old[old.len() - bottom..].iter().copied());
    out
}

fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

/// Returns how many lines are equal at the top and, below those, at the bottom.
fn count_equal(old: &[&str], new: &[&str]) -> (usize, usize) {
    let is_equal = |(old, new): &(&&str, &&str)| split_end(old) == split_end(new);
    let top = old.iter().zip(new).take_while(is_equal).count();
    let bottom = old[top..].iter().rev().zip(new[top..].iter().rev()).take_while(is_equal).count();
    (top, bottom)
}

/// Returns a line without its end, and whether it has one.
fn split_end(line: &str) -> (&str, bool) {
    match line.strip_suffix('\n') {
        Some(content) => (content.strip_suffix('\r').unwrap_or(content), true),
        None => (line, false),
    }
}

const MARK: &str = "\u{feff}";

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(text: &str, from: &str, to: &str) -> String {
        edit_plain(text, |plain| {
            assert!(!plain.contains(['\r', '\u{feff}']), "{plain:?}");
            Ok::<_, ()>(plain.replace(from, to))
        })
        .expect("edited")
    }

    #[test]
    fn line_endings_and_byte_order_mark_are_preserved() {
        for (text, want) in [
            ("a\nb\nc", "a\nx\ny\nc"),
            ("a\r\nb\r\nc\r\n", "a\r\nx\r\ny\r\nc\r\n"),
            ("\u{feff}a\r\nb\r\nc", "\u{feff}a\r\nx\r\ny\r\nc"),
            ("\u{feff}a\nb\nc\n", "\u{feff}a\nx\ny\nc\n"),
            // A mixed file: lines that are not concerned keep what they have.
            ("a\nb\r\nc\r\nd\n", "a\nx\r\ny\r\nc\r\nd\n"),
            ("a\nb\nc\nd\r\n", "a\nx\ny\nc\nd\r\n"),
        ] {
            assert_eq!(edit(text, "b", "x\ny"), want, "{text:?}");
        }
        assert_eq!(edit("a\r\nb\r\nc\r\n", "b\n", ""), "a\r\nc\r\n");
        assert_eq!(edit("a\r\nb\r\n", "none", ""), "a\r\nb\r\n");
        assert_eq!(edit("", "", "a\n"), "a\n");
    }

    #[test]
    fn changed_lines_are_found_with_their_number() {
        assert_eq!(changed_lines("a\nb\nc\n", "a\nx\ny\nc\n"), (2, "x\ny\n".to_owned()));
        assert_eq!(changed_lines("", "a\n"), (1, "a\n".to_owned()));
        assert_eq!(changed_lines("a\na\n", "a\n"), (2, String::new()));
    }

    proptest::proptest! {
        #[test]
        fn edit_without_a_change_preserves_every_byte(text in "\u{feff}?([ab]{0,2}\r?\n){0,6}[ab]{0,2}") {
            let kept = edit_plain(&text, Ok::<_, ()>);
            proptest::prop_assert_eq!(kept, Ok(text));
        }
    }
}
