//! From text to settings, or to every problem at once.

use std::{net::SocketAddr, path::Path};

use toml::de::DeTable;

use super::{
    Environment, IdInterner, Problem, Settings, listen,
    problem::{ProblemSeverity, Report},
    resolve::{self, PathBase},
    schema,
};
use crate::{base::fs, secrets::Reference};

/// What a config file comes to.
#[derive(Clone, Debug)]
pub struct LoadResult {
    /// `None` where there is any error.
    pub settings: Option<Settings>,
    /// Errors and warnings, in the order of the file.
    pub problems: Vec<Problem>,
}

impl LoadResult {
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.level == ProblemSeverity::Error)
    }
}

/// Reads, checks and resolves the text of a config file. Problems are all reported at once; an
/// empty text is valid.
#[must_use]
pub fn load(text: &str, path: &Path, env: &Environment, ids: &mut IdInterner) -> LoadResult {
    let mut report = Report::default();
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        report.error(&span, format!("not valid TOML: {}", error.message()), None);
    }
    let syntax_errors = report.findings.len();
    let raw = schema::read_config(table.get_ref(), &mut report);
    let home = env.get("HOME").map(Path::new);
    let path_base = PathBase { folder: path.parent().unwrap_or(Path::new(".")), home };
    let settings = resolve::resolve_settings(raw, &path_base, ids, &mut report);
    if syntax_errors > 0 {
        drop_follow_up_findings(&mut report, syntax_errors, text);
    }
    warn_if_exposed(&settings, path, &mut report);
    let valid = !report.has_errors();
    LoadResult { settings: valid.then_some(settings), problems: report.into_problems(text, path) }
}

/// Reads the value of `--listen`, where port 0 is allowed: addresses, and whether the IPv6 one may
/// be left out.
///
/// # Errors
///
/// A sentence: what is wrong, then after `; ` the forms that are allowed.
pub fn parse_listen(text: &str) -> Result<(Vec<SocketAddr>, bool), String> {
    listen::parse_addrs(text)
}

/// Where the file is broken its rest is guesswork: what is missing may stand there, and the broken
/// line itself says enough.
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

/// Keys that stand in a file which others can read.
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
