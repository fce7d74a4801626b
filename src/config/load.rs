//! From text to settings, or to every problem at once.

use std::{net::SocketAddr, path::Path};

use toml::de::DeTable;

use super::{
    Environment, Ids, Problem, Settings, listen,
    problem::{Level, Report},
    resolve::{self, Ground},
    schema,
};
use crate::{base::disk, secrets::Reference};

/// What a config file comes to.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// `None` where there is any error.
    pub settings: Option<Settings>,
    /// Errors and warnings, in the order of the file.
    pub problems: Vec<Problem>,
}

impl Loaded {
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.level == Level::Error)
    }
}

/// Reads, checks and resolves the text of a config file. Problems are all reported at once; an
/// empty text is valid.
#[must_use]
pub fn load(text: &str, path: &Path, env: &Environment, ids: &mut Ids) -> Loaded {
    let mut report = Report::default();
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        report.error(&span, format!("not valid TOML: {}", error.message()), None);
    }
    let broken = report.findings.len();
    let written = schema::read(table.get_ref(), &mut report);
    let home = env.get("HOME").map(Path::new);
    let ground = Ground { folder: path.parent().unwrap_or(Path::new(".")), home };
    let settings = resolve::settings(written, &ground, ids, &mut report);
    if broken > 0 {
        only_what_is_there(&mut report, broken, text);
    }
    exposed(&settings, path, &mut report);
    let fine = !report.has_errors();
    Loaded { settings: fine.then_some(settings), problems: report.into_problems(text, path) }
}

/// Reads the value of `--listen`, where port 0 is allowed: addresses, and whether the IPv6 one may
/// be left out.
///
/// # Errors
///
/// A sentence: what is wrong, then after `; ` the forms that are allowed.
pub fn parse_listen(text: &str) -> Result<(Vec<SocketAddr>, bool), String> {
    listen::parse_all(text)
}

/// Where the file is broken its rest is guesswork: what is missing may stand there, and the broken
/// line itself says enough.
fn only_what_is_there(report: &mut Report, broken: usize, text: &str) {
    let line =
        |at: usize| text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count();
    let lines: Vec<_> = report.findings[..broken].iter().map(|f| line(f.span.start)).collect();
    let mut index = 0;
    report.findings.retain(|f| {
        index += 1;
        index <= broken || !(f.absent || lines.contains(&line(f.span.start)))
    });
}

/// Keys that stand in a file which others can read.
fn exposed(settings: &Settings, path: &Path, report: &mut Report) {
    let literal = |reference: &Reference| matches!(reference, Reference::Literal(_));
    let any = settings
        .upstreams
        .iter()
        .flat_map(|upstream| &upstream.keys)
        .any(|key| literal(&key.reference))
        || settings.projects.iter().filter_map(|project| project.key.as_ref()).any(literal);
    if let Some(mode) = any.then(|| disk::mode_open_to_others(path)).flatten() {
        let help = format!("`chmod 600 {}`, or `aiproxy key adopt`", path.display());
        report.warn(
            &(0..0),
            format!("others can read this file (mode {mode}), and keys stand in it"),
            Some(help),
        );
    }
}
