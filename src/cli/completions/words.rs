//! The words of a bash command line, and candidates in the form that bash inserts.

/// The words of a line up to the cursor.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct BashLine {
    /// Without quotes; the last one is the word under the cursor and may be empty.
    pub(super) words: Vec<String>,
    /// Whether the cursor is inside quotes.
    pub(super) is_quoted: bool,
}

/// Splits a line as bash does, as far as names and options need it: quotes and backslashes, but no
/// expansions.
pub(super) fn split(line: &str) -> BashLine {
    let mut out = BashLine::default();
    let mut word = String::new();
    let (mut quote, mut has_word) = (None, false);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('"') | None, '\\') => {
                word.extend(chars.next());
                has_word = true;
            }
            (None, '"' | '\'') => {
                quote = Some(c);
                has_word = true;
            }
            (None, c) if c.is_whitespace() => {
                if std::mem::take(&mut has_word) {
                    out.words.push(std::mem::take(&mut word));
                }
            }
            _ => {
                word.push(c);
                has_word = true;
            }
        }
    }
    out.words.push(word);
    out.is_quoted = quote.is_some();
    out
}

/// Returns the part of a candidate that bash inserts. Readline breaks words at more characters than
/// blanks, and replaces only what follows the last of them.
pub(super) fn insertion(candidate: &str, line: &BashLine, word_breaks: &str) -> String {
    if line.is_quoted {
        return candidate.to_owned();
    }
    let typed = line.words.last().map_or(0, String::len);
    let breaks = |c: char| word_breaks.contains(c) && !c.is_whitespace() && !"\"'".contains(c);
    let start = candidate
        .get(..typed)
        .and_then(|typed| typed.char_indices().rfind(|(_, c)| breaks(*c)))
        .map_or(0, |(at, c)| at + c.len_utf8());
    let plain = |c: char| c.is_alphanumeric() || "/._-+@:,=%~".contains(c);
    candidate[start..]
        .chars()
        .flat_map(|c| if plain(c) { [None, Some(c)] } else { [Some('\\'), Some(c)] })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_are_removed() {
        for (line, words, is_quoted) in [
            ("aiproxy key ", &["aiproxy", "key", ""][..], false),
            ("aiproxy  a\\ b 'c d'e \"f", &["aiproxy", "a b", "c de", "f"], true),
            ("aiproxy '' x", &["aiproxy", "", "x"], false),
            ("", &[""], false),
        ] {
            let words = words.iter().map(|&word| word.to_owned()).collect();
            assert_eq!(split(line), BashLine { words, is_quoted }, "{line}");
        }
    }

    #[test]
    fn only_the_part_after_the_last_word_break_is_inserted() {
        let breaks = " \t\n\"'@><=;|&(:";
        for (line, candidate, want) in [
            ("x box:ll", "box:llama", "llama"),
            ("x bo", "box:llama", "box:llama"),
            ("x --preset=op", "--preset=openai", "openai"),
            ("x \"box:ll", "box:llama", "box:llama"),
            ("x cl", "claude-*", "claude-\\*"),
            ("x ü:", "ü:a b", "a\\ b"),
        ] {
            assert_eq!(insertion(candidate, &split(line), breaks), want, "{line}");
        }
        assert_eq!(insertion("box:llama", &split("x box:ll"), " \t\n"), "box:llama");
    }
}
