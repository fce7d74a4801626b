//! `[[model]]` and `[aliases]` as written.

use std::time::Duration;

use toml::de::DeValue;

use super::{
    row_name,
    upstream::{TimeoutsPart, timeouts_part},
};
use crate::{
    base::pattern::Pattern,
    config::{
        problem::Report,
        read::{self, At, Fault, Node, Table, count, duration, flag, number, text, word},
        settings::{After, Sticky, Strategy},
    },
};

pub(in crate::config) struct Model {
    pub(in crate::config) name: At<Pattern>,
    pub(in crate::config) targets: Vec<Target>,
    pub(in crate::config) strategy: Option<Strategy>,
    pub(in crate::config) sticky: Option<Sticky>,
    pub(in crate::config) sticky_ttl: Option<Duration>,
    pub(in crate::config) hedge: Option<Hedge>,
    pub(in crate::config) rescue: bool,
    pub(in crate::config) timeouts: TimeoutsPart,
}

pub(in crate::config) struct Hedge {
    pub(in crate::config) after: After,
    pub(in crate::config) max_share: f64,
    pub(in crate::config) max_tokens: u64,
}

pub(in crate::config) enum Target {
    /// `"nvidia:vendor/model"` or `"gpt-4o"`
    Text(At<String>),
    Table {
        upstream: Option<At<String>>,
        model: At<String>,
        priority: Option<u32>,
        weight: Option<f64>,
    },
}

pub(in crate::config) struct Alias {
    pub(in crate::config) name: At<Pattern>,
    pub(in crate::config) target: At<String>,
}

pub(super) fn read(mut row: Table<'_>, report: &mut Report) -> Option<Model> {
    let name = row_name(&mut row, "model", report, |value| {
        let written = text(value)?;
        pattern(&written).map(|_| written)
    });
    let before = report.findings.len();
    let targets = targets(&mut row, report);
    if targets.is_empty() && report.findings.len() == before {
        let help = "write targets = [\"UPSTREAM:MODEL\"]".to_owned();
        report.absent(
            &row.span,
            format!("`{}` has no targets", row.path_of("targets")),
            Some(help),
        );
    }
    let strategy = row.take("strategy", report, super::strategy).map(|at| at.value);
    let timeouts =
        row.table("timeouts", report).map(|table| timeouts_part(table, report)).unwrap_or_default();
    let sticky = row.take("sticky", report, word(&Sticky::ALL)).map(|at| at.value);
    let span = duration(Duration::from_secs(1), Duration::from_secs(30 * 86_400));
    let sticky_ttl = row.take("sticky_ttl", report, span).map(|at| at.value);
    let hedge = row.table("hedge", report).map(|table| hedge(table, report));
    let rescue = row.or("rescue", report, false, flag);
    row.end(report);
    let name = name?;
    Some(Model {
        name: At::new(pattern(&name.value).ok()?, name.span),
        targets,
        strategy,
        sticky,
        sticky_ttl,
        hedge,
        rescue,
        timeouts,
    })
}

/// `{ after = "p95", max_share = 0.05, max_tokens = 20000 }`; each has its default.
fn hedge(mut table: Table<'_>, report: &mut Report) -> Hedge {
    let span = duration(Duration::from_millis(10), Duration::from_secs(3_600));
    let after = table.or("after", report, After::default(), |value| match value.as_str() {
        Some("p95") => Ok(After::P95),
        _ => span(value)
            .map(After::Span)
            .map_err(|fault| Fault::with(fault.title, "\"p95\", or a duration such as \"2s\"")),
    });
    let max_share = table.or("max_share", report, 0.05, number(0.0, 1.0));
    let max_tokens = table.or("max_tokens", report, 20_000, count(1, u32::MAX));
    table.end(report);
    Hedge { after, max_share, max_tokens: u64::from(max_tokens) }
}

fn targets(row: &mut Table<'_>, report: &mut Report) -> Vec<Target> {
    let Some(node) = row.node("targets") else { return Vec::new() };
    let path = row.path_of("targets");
    match node.get_ref() {
        DeValue::Array(items) => {
            items.iter().filter_map(|item| target(&path, item, report)).collect()
        }
        _ => target(&path, node, report).into_iter().collect(),
    }
}

fn target(path: &str, node: &Node<'_>, report: &mut Report) -> Option<Target> {
    let DeValue::Table(_) = node.get_ref() else {
        return read::one(path, node, report, &filled).map(Target::Text);
    };
    let mut table = Table::of(path, node, report)?;
    let before = report.findings.len();
    let model = table.take("model", report, filled);
    if model.is_none() && report.findings.len() == before {
        report.absent(&table.span, format!("`{path}`: a target without `model`"), None);
    }
    let upstream = table.take("upstream", report, filled);
    let priority = table.take("priority", report, count(0, 1_000_000)).map(|at| at.value);
    let weight = table.take("weight", report, number(0.001, 1e6)).map(|at| at.value);
    table.end(report);
    Some(Target::Table { upstream, model: model?, priority, weight })
}

fn filled(value: &DeValue<'_>) -> Result<String, Fault> {
    let written = text(value)?;
    if written.trim().is_empty() || written.contains(char::is_control) {
        return Err(Fault::new("an empty name"));
    }
    Ok(written)
}

fn pattern(written: &str) -> Result<Pattern, Fault> {
    if written.is_empty() || written.starts_with('!') {
        return Err(Fault::with(
            "a model's name is a name or a pattern",
            "exclusions (`!`) belong into `models` of an upstream",
        ));
    }
    Pattern::parse(written).map_err(|sentence| {
        Fault::new(format!("`{}` is no regular expression: {sentence}", read::clip(written)))
    })
}

pub(super) fn aliases(mut table: Table<'_>, report: &mut Report) -> Vec<Alias> {
    let mut out = Vec::new();
    for (name, node) in table.rest() {
        let path = table.path_of(&name.value);
        let target = read::one(&path, node, report, &filled);
        match (pattern(&name.value), target) {
            (Ok(pattern), Some(target)) => {
                out.push(Alias { name: At::new(pattern, name.span), target })
            }
            (Err(fault), _) => {
                report.error(&name.span, format!("`{path}`: {}", fault.title), fault.help)
            }
            (Ok(_), None) => {}
        }
    }
    out
}
