//! Loads the config: from text to settings, or to all problems at once.

use std::{net::SocketAddr, path::Path};

use toml::de::DeTable;

use super::{
    Environment, IdInterner, Problem, Settings, listen,
    problem::{ProblemSeverity, Report},
    resolve,
    schema::path_base::PathBase,
};
use crate::{base::fs, secrets::Reference};

/// The result of loading a config file.
#[derive(Clone, Debug)]
pub struct LoadResult {
    /// `None` if there is any error.
    pub settings: Option<Settings>,
    /// What could be read in spite of errors, for commands that remove them; `None` without one.
    pub readable: Option<Settings>,
    /// Errors and warnings, in the order of the file.
    pub problems: Vec<Problem>,
}

impl LoadResult {
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.level == ProblemSeverity::Error)
    }
}

/// Reads, checks and resolves the text of a config file. Reports all problems at once; an empty
/// text is valid.
#[must_use]
pub fn load(text: &str, path: &Path, env: &Environment, ids: &mut IdInterner) -> LoadResult {
    let mut report = Report::default();
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        report.error(&span, format!("not valid TOML: {}", error.message()), None);
    }
    let syntax_errors = report.findings.len();
    let home = env.get("HOME").map(Path::new);
    let path_base = PathBase { folder: path.parent().unwrap_or(Path::new(".")), home };
    let settings = resolve::read_settings(table.get_ref(), path_base, ids, &mut report);
    if syntax_errors > 0 {
        drop_follow_up_findings(&mut report, syntax_errors, text);
    }
    warn_if_exposed(&settings, path, &mut report);
    let (settings, readable) =
        if report.has_errors() { (None, Some(settings)) } else { (Some(settings), None) };
    LoadResult { settings, readable, problems: report.into_problems(text, path) }
}

/// Parses the value of `--listen`, in which port 0 is allowed: the addresses, and whether the IPv6
/// one may be omitted.
///
/// # Errors
///
/// A message: the problem, then after `; ` the allowed forms.
pub fn parse_listen(text: &str) -> Result<(Vec<SocketAddr>, bool), String> {
    listen::parse_addrs(text)
}

/// Behind a syntax error the rest of the file is guesswork: it may contain what is missing, and the
/// broken line itself is enough to report.
fn drop_follow_up_findings(report: &mut Report, syntax_errors: usize, text: &str) {
    let line =
        |at: usize| text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count();
    let lines: Vec<_> =
        report.findings[..syntax_errors].iter().map(|f| line(f.span.start)).collect();
    let mut index = 0;
    report.findings.retain(|f| {
        index += 1;
        index <= syntax_errors || !(f.missing || lines.contains(&line(f.span.start)))
    });
}

/// Warns about keys in a file that other users can read.
fn warn_if_exposed(settings: &Settings, path: &Path, report: &mut Report) {
    let literal = |reference: &Reference| matches!(reference, Reference::Literal(_));
    let any = settings
        .upstreams
        .iter()
        .flat_map(|upstream| &upstream.keys)
        .any(|key| literal(&key.reference))
        || settings.projects.iter().filter_map(|project| project.key.as_ref()).any(literal);
    if let Some(mode) = any.then(|| fs::mode_open_to_others(path)).flatten() {
        let help = format!("`chmod 600 {}`, or `aiproxy key adopt`", path.display());
        report.warn(
            &(0..0),
            format!("others can read this file (mode {mode}), and keys stand in it"),
            Some(help),
        );
    }
}
