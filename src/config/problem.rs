//! Problems of a config file: position, line and remedy. Keys written into the file are never
//! shown.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use annotate_snippets::{AnnotationKind, Level as Shown, Renderer, Snippet};
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::config::redact_toml;

/// People do not read more than this.
const MAX_PROBLEMS: usize = 100;

/// Whether a file with this problem can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProblemSeverity {
    Error,
    Warning,
}

/// One problem of the config, with its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub level: ProblemSeverity,
    pub path: PathBuf,
    /// Counts from 1; 0 if the problem is the file as a whole.
    pub line: usize,
    /// In characters, from 1; 0 if the problem is the file as a whole.
    pub column: usize,
    /// Byte range in the loaded text.
    pub span: Range<usize>,
    pub title: String,
    pub help: Option<String>,
}

impl Problem {
    /// A problem of the file as a whole: missing, unreadable, too large.
    #[must_use]
    pub fn of_file(
        level: ProblemSeverity,
        path: &Path,
        title: String,
        help: Option<String>,
    ) -> Self {
        Self { level, path: path.to_owned(), line: 0, column: 0, span: 0..0, title, help }
    }

    /// Returns one line: ``config.toml:12:3: unknown key `base_ulr`; did you mean `base_url`?``
    #[must_use]
    pub fn one_line(&self) -> String {
        let help = self.help.as_deref().map(|help| format!("; {help}")).unwrap_or_default();
        let name = self.path.display();
        if self.line == 0 {
            return format!("{name}: {}{help}", self.title);
        }
        format!("{name}:{}:{}: {}{help}", self.line, self.column, self.title)
    }
}

/// A problem without a line number yet; the readers collect these.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) level: ProblemSeverity,
    pub(super) span: Range<usize>,
    pub(super) title: String,
    pub(super) help: Option<String>,
    /// The other position, if two contradict each other.
    pub(super) first: Option<Range<usize>>,
    /// Something is missing. Dropped if the file could not be read to its end.
    pub(super) missing: bool,
}

/// All findings of one load.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) findings: Vec<Finding>,
}

impl Report {
    pub(super) fn error(
        &mut self,
        span: &Range<usize>,
        title: impl Into<String>,
        help: Option<String>,
    ) {
        self.add(ProblemSeverity::Error, span, title.into(), help);
    }

    pub(super) fn warn(
        &mut self,
        span: &Range<usize>,
        title: impl Into<String>,
        help: Option<String>,
    ) {
        self.add(ProblemSeverity::Warning, span, title.into(), help);
    }

    /// Adds an error with two positions: the later one is reported, and the message names the
    /// first.
    pub(super) fn duplicate(
        &mut self,
        span: &Range<usize>,
        first: &Range<usize>,
        title: impl Into<String>,
        help: Option<String>,
    ) {
        let (title, level) = (title.into(), ProblemSeverity::Error);
        self.findings.push(Finding {
            level,
            span: span.clone(),
            title,
            help,
            first: Some(first.clone()),
            missing: false,
        });
    }

    /// Adds an error for something missing.
    pub(super) fn missing(
        &mut self,
        span: &Range<usize>,
        title: impl Into<String>,
        help: Option<String>,
    ) {
        let (title, level) = (title.into(), ProblemSeverity::Error);
        self.findings.push(Finding {
            level,
            span: span.clone(),
            title,
            help,
            first: None,
            missing: true,
        });
    }

    fn add(
        &mut self,
        level: ProblemSeverity,
        span: &Range<usize>,
        title: String,
        help: Option<String>,
    ) {
        self.findings.push(Finding {
            level,
            span: span.clone(),
            title,
            help,
            first: None,
            missing: false,
        });
    }

    pub(super) fn has_errors(&self) -> bool {
        self.findings.iter().any(|f| f.level == ProblemSeverity::Error)
    }

    /// Returns the problems in the order of the file.
    pub(super) fn into_problems(self, text: &str, path: &Path) -> Vec<Problem> {
        let mut findings = self.findings;
        findings.sort_by_key(|f| (f.span.start, f.level));
        // A file of another format gives one problem for every line.
        findings.truncate(MAX_PROBLEMS);
        findings
            .into_iter()
            .map(|f| {
                let (line, column) = line_column(text, f.span.start);
                let title = match f.first {
                    Some(first) => {
                        format!("{} (first at line {})", f.title, line_column(text, first.start).0)
                    }
                    None => f.title,
                };
                Problem {
                    level: f.level,
                    path: path.to_owned(),
                    line,
                    column,
                    span: f.span,
                    title,
                    help: f.help,
                }
            })
            .collect()
    }
}

/// Returns line and column, from 1; a byte order mark has no column.
fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..char_floor(text, offset)];
    let line = before.bytes().filter(|&b| b == b'\n').count() + 1;
    let begin = before.rfind('\n').map_or(0, |at| at + 1);
    (line, before[begin..].chars().filter(|c| *c != '\u{feff}').count() + 1)
}

fn char_floor(text: &str, offset: usize) -> usize {
    (0..=offset.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// Renders the problems for a person: each with its line, a marked position, and the remedy.
/// Literal keys in the lines are masked.
#[must_use]
pub fn render(problems: &[Problem], source: &str, coloured: bool) -> String {
    static CONTROL: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"[\x00-\x08\x0b-\x1f\x7f]").ok());
    let renderer = if coloured { Renderer::styled() } else { Renderer::plain() };
    // The masked text has the same number of bytes, so every span remains valid.
    let masked = redact_toml::mask_secrets(source);
    let shown = match CONTROL.as_ref() {
        Some(control) => control.replace_all(&masked, " "),
        None => masked.as_str().into(),
    };
    let mut out = String::new();
    for problem in problems {
        let title = match problem.level {
            ProblemSeverity::Error => Shown::ERROR,
            ProblemSeverity::Warning => Shown::WARNING,
        }
        .primary_title(problem.title.as_str());
        let path = problem.path.to_string_lossy();
        let help = problem.help.as_deref().map(|help| Shown::HELP.message(help));
        let group = if problem.line == 0 {
            title.element(annotate_snippets::Origin::path(path.as_ref()))
        } else {
            // The first line is enough: a span over a whole table would show all of it.
            let start = char_floor(&shown, problem.span.start);
            let line_end = shown[start..].find('\n').map_or(shown.len(), |at| start + at);
            let end = char_floor(&shown, problem.span.end).clamp(start, line_end);
            let snippet = Snippet::source(shown.as_ref()).path(path.as_ref());
            title.element(snippet.annotation(AnnotationKind::Primary.span(start..end)))
        };
        let group = help.into_iter().fold(group, annotate_snippets::Group::element);
        out.push_str(&renderer.render(&[group]));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_without_the_byte_order_mark() {
        let text = "\u{feff}a = 1\nbé = 2\n";
        assert_eq!(line_column(text, 3), (1, 1));
        assert_eq!(line_column(text, text.find('2').expect("there")), (2, 6));
        assert_eq!(line_column(text, 999), (3, 1));
    }

    #[test]
    fn rendered_problem_has_location_line_and_fix_but_no_key() {
        let source =
            "[[upstream]]\nname = \"a\"\nbase_ulr = \"x\"\nkeys = [\"sk-secret-value\", 5]\n";
        let mut report = Report::default();
        let at = source.find("base_ulr").expect("there");
        report.error(
            &(at..at + 8),
            "unknown key `base_ulr`",
            Some("did you mean `base_url`?".to_owned()),
        );
        let at = source.find(", 5").expect("there") + 2;
        report.warn(&(at..at + 1), "a number", None);
        let problems = report.into_problems(source, Path::new("config.toml"));

        let text = render(&problems, source, false);

        assert!(
            text.contains("config.toml:3:1") && text.contains("did you mean `base_url`?"),
            "{text}"
        );
        assert!(text.contains("keys = [") && !text.contains("secret-value"), "{text}");
        assert_eq!(
            problems[0].one_line(),
            "config.toml:3:1: unknown key `base_ulr`; did you mean `base_url`?"
        );
    }
}
