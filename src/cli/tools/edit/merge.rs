//! Takes an edit out of a text that was changed afterwards, and keeps every other byte.

use std::ops::Range;

use similar::{Algorithm, DiffOp, capture_diff_slices};

/// Bounds the search for the differences of two large files, in words.
const MAX_TOKENS: usize = 50_000;

/// Undoes the step from `before` to `after` in `current`, which was made from `after`. `None` if
/// what the edit wrote was changed itself, or the texts are very long.
pub(super) fn without_edit(before: &str, after: &str, current: &str) -> Option<String> {
    if [before, after, current].into_iter().any(|text| tokens(text).len() > MAX_TOKENS) {
        return None;
    }
    let unchanged = unchanged_ranges(after, current);
    let mut result = String::with_capacity(current.len());
    let mut copied = 0;
    for (range, replacement) in differences(after, before) {
        let at = map_range(&unchanged, &range)?;
        if at.start < copied {
            return None;
        }
        result.push_str(&current[copied..at.start]);
        result.push_str(replacement);
        copied = at.end;
    }
    result.push_str(&current[copied..]);
    Some(result)
}

/// Splits a text into words, runs of blanks, and single other characters.
fn tokens(text: &str) -> Vec<&str> {
    let kind = |c: char| match c {
        _ if c.is_alphanumeric() || c == '_' => 1,
        ' ' | '\t' => 2,
        _ => 0,
    };
    let mut tokens = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some((start, c)) = chars.next() {
        let mut end = start + c.len_utf8();
        while kind(c) != 0 {
            let Some(&(at, next)) = chars.peek().filter(|(_, next)| kind(*next) == kind(c)) else {
                break;
            };
            end = at + next.len_utf8();
            chars.next();
        }
        tokens.push(&text[start..end]);
    }
    tokens
}

/// The byte position at which each token begins, and the end of the text.
fn starts(tokens: &[&str]) -> Vec<usize> {
    let mut starts = vec![0];
    let mut at = 0;
    for token in tokens {
        at += token.len();
        starts.push(at);
    }
    starts
}

fn compare(old: &[&str], new: &[&str]) -> Vec<DiffOp> {
    capture_diff_slices(Algorithm::Myers, old, new)
}

/// The ranges of `old` that differ, with what `new` has in their place.
fn differences<'a>(old: &str, new: &'a str) -> Vec<(Range<usize>, &'a str)> {
    let (old, tokens_new) = (tokens(old), tokens(new));
    let (old_starts, new_starts) = (starts(&old), starts(&tokens_new));
    compare(&old, &tokens_new)
        .iter()
        .filter(|op| !matches!(op, DiffOp::Equal { .. }))
        .map(|op| {
            let (from, to) = (op.old_range(), op.new_range());
            (
                old_starts[from.start]..old_starts[from.end],
                &new[new_starts[to.start]..new_starts[to.end]],
            )
        })
        .collect()
}

/// The byte ranges that two texts have in common: where each begins in both, and its length.
fn unchanged_ranges(old: &str, new: &str) -> Vec<(usize, usize, usize)> {
    let (old, new) = (tokens(old), tokens(new));
    let (old_starts, new_starts) = (starts(&old), starts(&new));
    compare(&old, &new)
        .iter()
        .filter_map(|op| match *op {
            DiffOp::Equal { old_index, new_index, len } => Some((
                old_starts[old_index],
                new_starts[new_index],
                old_starts[old_index + len] - old_starts[old_index],
            )),
            _ => None,
        })
        .collect()
}

/// Where a range of the old text is in the new one; `None` if it was changed.
fn map_range(unchanged: &[(usize, usize, usize)], range: &Range<usize>) -> Option<Range<usize>> {
    unchanged
        .iter()
        .find(|(old, _, len)| *old <= range.start && range.end <= old + len)
        .map(|(old, new, _)| range.start - old + new..range.end - old + new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_edit_is_taken_out() {
        let before = "{\n  \"a\" : 1, // mine\n  \"b\": [1,2]\n}\n";
        let after = "{\n  \"a\" : 1, // mine\n  \"b\": [1,2],\n  \"ours\": \"x\"\n}\n";
        let current = "{\n  \"a\" : 5, // mine\n  \"b\": [1,2],\n  \"ours\": \"x\"\n}\n";
        let want = before.replace(": 1,", ": 5,");
        assert_eq!(without_edit(before, after, current), Some(want));
    }

    #[test]
    fn values_that_the_edit_replaced_come_back() {
        let (before, after) = ("m = \"theirs\" # note\nx = 1\n", "m = \"ours\" # note\nx = 1\n");
        assert_eq!(
            without_edit(before, after, "m = \"ours\" # note\nx = 2\n").as_deref(),
            Some("m = \"theirs\" # note\nx = 2\n")
        );
        assert_eq!(without_edit(before, after, "m = \"other\" # note\nx = 2\n"), None);
    }

    #[test]
    fn an_empty_text_has_no_edit() {
        assert_eq!(without_edit("", "", "").as_deref(), Some(""));
        assert_eq!(without_edit("", "ours\n", "ours\nmore\n").as_deref(), Some("more\n"));
    }
}
