//! Compares two texts line by line and writes the differences like `diff -u`.

use similar::{Algorithm, DiffOp, DiffTag, capture_diff_slices, group_diff_ops};

/// Unchanged lines shown around a difference.
const CONTEXT_LINES: usize = 3;
/// Upper bound for comparisons; beyond it the whole text counts as different.
const MAX_COMPARISONS: usize = 4_000_000;

/// The unified diff; empty if the texts are equal.
pub(in crate::cli) fn unified_diff(old: &str, new: &str, names: (&str, &str)) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    if old == new {
        return String::new();
    }
    let mut out = format!("--- {}\n+++ {}\n", names.0, names.1);
    for hunk in group_diff_ops(diff_ops(&old, &new), CONTEXT_LINES) {
        let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else { continue };
        // A range without lines is numbered by the line before it.
        let range = |from: usize, to: usize| {
            format!("{},{}", if from == to { from } else { from + 1 }, to - from)
        };
        out.push_str(&format!(
            "@@ -{} +{} @@\n",
            range(first.old_range().start, last.old_range().end),
            range(first.new_range().start, last.new_range().end)
        ));
        let mut push_lines = |mark: char, lines: &[&str]| {
            for line in lines {
                out.push_str(&format!("{mark}{line}\n"));
            }
        };
        for op in hunk {
            if op.tag() == DiffTag::Equal {
                push_lines(' ', &old[op.old_range()]);
            } else {
                push_lines('-', &old[op.old_range()]);
                push_lines('+', &new[op.new_range()]);
            }
        }
    }
    out
}

/// Returns the steps from one text to the other.
fn diff_ops(old: &[&str], new: &[&str]) -> Vec<DiffOp> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let tail =
        old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (old_len, new_len) = (old.len() - head - tail, new.len() - head - tail);
    if old_len.saturating_mul(new_len) <= MAX_COMPARISONS {
        return capture_diff_slices(Algorithm::Myers, old, new);
    }
    vec![
        DiffOp::Equal { old_index: 0, new_index: 0, len: head },
        DiffOp::Replace { old_index: head, old_len, new_index: head, new_len },
        DiffOp::Equal { old_index: head + old_len, new_index: head + new_len, len: tail },
    ]
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
        fn diff_lines_restore_both_texts(old in "[abc\n]{0,40}", new in "[abc\n]{0,40}") {
            let (a, b): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
            let (mut olds, mut news) = (Vec::new(), Vec::new());
            for op in diff_ops(&a, &b) {
                let (tag, from, to) = op.as_tag_tuple();
                olds.extend_from_slice(&a[from.clone()]);
                news.extend_from_slice(if tag == DiffTag::Equal { &a[from] } else { &b[to] });
            }
            prop_assert_eq!((olds, news), (a, b));
            prop_assert_eq!(unified_diff(&old, &new, ("1", "2")).is_empty(), old.lines().eq(new.lines()));
        }
    }
}
