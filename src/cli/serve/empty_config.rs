//! Protects a running proxy from a config file that is empty or gone for a moment. Editors, version
//! control and sync tools truncate a file before they write it, or remove it and make it again.

use std::path::Path;

use crate::config::{Problem, ProblemSeverity};

/// Returns whether a file states nothing: absent, empty, or with comments only.
#[must_use]
pub(super) fn is_blank(text: Option<&str>) -> bool {
    text.is_none_or(|text| {
        text.trim_start_matches('\u{feff}')
            .lines()
            .map(str::trim)
            .all(|line| line.is_empty() || line.starts_with('#'))
    })
}

/// The problem of a file that had content and states nothing any more.
#[must_use]
pub(super) fn problem(path: &Path, text: Option<&str>) -> Problem {
    let title = match text {
        None => "the config file is gone",
        Some(_) => "the config file is empty",
    };
    let help = "if that is meant, `aiproxy reload` applies it";
    Problem::of_file(ProblemSeverity::Error, path, title.to_owned(), Some(help.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_without_statements_is_blank() {
        for text in [None, Some(""), Some("\u{feff}"), Some(" \r\n# a comment\n\t# more\n")] {
            assert!(is_blank(text), "{text:?}");
        }
        for text in ["a = 1", "# x\n[server]", "half a tab"] {
            assert!(!is_blank(Some(text)), "{text:?}");
        }
    }
}
