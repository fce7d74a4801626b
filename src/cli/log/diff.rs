//! Compares two texts line by line and writes the differences like `diff -u`.

/// Unchanged lines shown around a difference.
const CONTEXT_LINES: usize = 3;
/// Upper bound for comparisons; beyond it the whole text counts as different.
const MAX_COMPARISONS: usize = 4_000_000;

/// One line and the text it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DiffLine<'a> {
    Both(&'a str),
    Old(&'a str),
    New(&'a str),
}

/// The unified diff; empty if the texts are equal.
pub(super) fn unified_diff(old: &str, new: &str, names: (&str, &str)) -> String {
    let lines = diff_lines(&old.lines().collect::<Vec<_>>(), &new.lines().collect::<Vec<_>>());
    let changed = |line: &DiffLine<'_>| !matches!(line, DiffLine::Both(_));
    if !lines.iter().any(changed) {
        return String::new();
    }
    let mut out = format!("--- {}\n+++ {}\n", names.0, names.1);
    let (mut at, mut old_line, mut new_line) = (0, 1, 1);
    while at < lines.len() {
        let Some(first) = lines[at..].iter().position(changed).map(|n| at + n) else { break };
        let from = first.saturating_sub(CONTEXT_LINES).max(at);
        // Extend the hunk while the next difference is near.
        let mut end = first + 1;
        while let Some(next) = lines[end..].iter().take(2 * CONTEXT_LINES + 1).position(changed) {
            end += next + 1;
        }
        let to = (end + CONTEXT_LINES).min(lines.len());
        for line in &lines[at..from] {
            advance(line, &mut old_line, &mut new_line);
        }
        let hunk = &lines[from..to];
        let (old_count, new_count) = hunk.iter().fold((0, 0), |(old, new), line| match line {
            DiffLine::Both(_) => (old + 1, new + 1),
            DiffLine::Old(_) => (old + 1, new),
            DiffLine::New(_) => (old, new + 1),
        });
        // A range without lines is numbered by the line before it.
        let start = |line: usize, count: usize| if count == 0 { line - 1 } else { line };
        out.push_str(&format!(
            "@@ -{},{old_count} +{},{new_count} @@\n",
            start(old_line, old_count),
            start(new_line, new_count)
        ));
        for line in hunk {
            let (mark, text) = match line {
                DiffLine::Both(text) => (' ', text),
                DiffLine::Old(text) => ('-', text),
                DiffLine::New(text) => ('+', text),
            };
            out.push_str(&format!("{mark}{text}\n"));
            advance(line, &mut old_line, &mut new_line);
        }
        at = to;
    }
    out
}

fn advance(line: &DiffLine<'_>, old: &mut usize, new: &mut usize) {
    *old += usize::from(!matches!(line, DiffLine::New(_)));
    *new += usize::from(!matches!(line, DiffLine::Old(_)));
}

/// All lines in order, based on the longest common subsequence.
fn diff_lines<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<DiffLine<'a>> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let tail =
        old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    let mut out: Vec<DiffLine<'a>> = old[..head].iter().map(|line| DiffLine::Both(line)).collect();
    if a.len().saturating_mul(b.len()) > MAX_COMPARISONS {
        out.extend(a.iter().map(|line| DiffLine::Old(line)));
        out.extend(b.iter().map(|line| DiffLine::New(line)));
    } else {
        // length[i][j]: the longest common subsequence of a[i..] and b[j..].
        let width = b.len() + 1;
        let mut length = vec![0_u32; (a.len() + 1) * width];
        for i in (0..a.len()).rev() {
            for j in (0..b.len()).rev() {
                length[i * width + j] = if a[i] == b[j] {
                    length[(i + 1) * width + j + 1] + 1
                } else {
                    length[(i + 1) * width + j].max(length[i * width + j + 1])
                };
            }
        }
        let (mut i, mut j) = (0, 0);
        while i < a.len() || j < b.len() {
            if i < a.len() && j < b.len() && a[i] == b[j] {
                out.push(DiffLine::Both(a[i]));
                (i, j) = (i + 1, j + 1);
            } else if i < a.len()
                && (j == b.len() || length[(i + 1) * width + j] >= length[i * width + j + 1])
            {
                out.push(DiffLine::Old(a[i]));
                i += 1;
            } else {
                out.push(DiffLine::New(b[j]));
                j += 1;
            }
        }
    }
    out.extend(old[old.len() - tail..].iter().map(|line| DiffLine::Both(line)));
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn differences_have_the_format_of_diff() {
        for (old, new, want) in [
            ("a\nb\nc", "a\nb\nc", ""),
            ("", "", ""),
            ("a\nb\nc", "a\nx\nc", "--- 1\n+++ 2\n@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n"),
            ("", "a", "--- 1\n+++ 2\n@@ -0,0 +1,1 @@\n+a\n"),
            (
                "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12",
                "1\nx\n3\n4\n5\n6\n7\n8\n9\n10\n11\ny",
                "--- 1\n+++ 2\n@@ -1,5 +1,5 @@\n 1\n-2\n+x\n 3\n 4\n 5\n@@ -9,4 +9,4 @@\n 9\n 10\n 11\n-12\n+y\n",
            ),
        ] {
            assert_eq!(unified_diff(old, new, ("1", "2")), want);
        }
    }

    proptest! {
        #[test]
        fn both_texts_can_be_restored_from_the_lines(old in "[abc\n]{0,40}", new in "[abc\n]{0,40}") {
            let (a, b): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
            let all = diff_lines(&a, &b);
            let olds: Vec<_> = all.iter().filter_map(|line| match line { DiffLine::Both(text) | DiffLine::Old(text) => Some(*text), DiffLine::New(_) => None }).collect();
            let news: Vec<_> = all.iter().filter_map(|line| match line { DiffLine::Both(text) | DiffLine::New(text) => Some(*text), DiffLine::Old(_) => None }).collect();
            prop_assert_eq!((olds, news), (a, b));
            prop_assert_eq!(unified_diff(&old, &new, ("1", "2")).is_empty(), old.lines().eq(new.lines()));
        }
    }
}
