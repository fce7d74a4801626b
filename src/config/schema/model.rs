//! `[[model]]` and `[aliases]` as written.

use std::time::Duration;

use toml::de::DeValue;

use super::{
    read_row_name,
    upstream::{PartialTimeouts, read_partial_timeouts},
};
use crate::{
    base::pattern::Pattern,
    config::{
        problem::Report,
        reader::{
            self, Located, Node, TableReader, ValueError, count, duration, flag, number, one_of,
            text,
        },
        settings::{Affinity, HedgeDelay, Strategy},
    },
};

pub(in crate::config) struct RawModel {
    pub(in crate::config) name: Located<Pattern>,
    pub(in crate::config) targets: Vec<RawTarget>,
    pub(in crate::config) strategy: Option<Strategy>,
    pub(in crate::config) sticky: Option<Affinity>,
    pub(in crate::config) sticky_ttl: Option<Duration>,
    pub(in crate::config) hedge: Option<RawHedge>,
    pub(in crate::config) rescue: bool,
    pub(in crate::config) timeouts: PartialTimeouts,
}

pub(in crate::config) struct RawHedge {
    pub(in crate::config) after: HedgeDelay,
    pub(in crate::config) max_share: f64,
    pub(in crate::config) max_tokens: u64,
}

pub(in crate::config) enum RawTarget {
    /// `"nvidia:vendor/model"` or `"gpt-4o"`
    Name(Located<String>),
    Table {
        upstream: Option<Located<String>>,
        model: Located<String>,
        priority: Option<u32>,
        weight: Option<f64>,
    },
}

pub(in crate::config) struct RawAlias {
    pub(in crate::config) name: Located<Pattern>,
    pub(in crate::config) target: Located<String>,
}

pub(super) fn read_model(mut row: TableReader<'_>, report: &mut Report) -> Option<RawModel> {
    let name = read_row_name(&mut row, "model", report, |value| {
        let written = text(value)?;
        parse_pattern(&written).map(|_| written)
    });
    let before = report.findings.len();
    let targets = read_targets(&mut row, report);
    if targets.is_empty() && report.findings.len() == before {
        let help = "write targets = [\"UPSTREAM:MODEL\"]".to_owned();
        report.missing(
            &row.span,
            format!("`{}` has no targets", row.key_path("targets")),
            Some(help),
        );
    }
    let strategy = row.read("strategy", report, one_of(Strategy::ALL)).map(|at| at.value);
    let timeouts = row
        .child("timeouts", report)
        .map(|table| read_partial_timeouts(table, report))
        .unwrap_or_default();
    let sticky = row.read("sticky", report, one_of(Affinity::ALL)).map(|at| at.value);
    let span = duration(Duration::from_secs(1), Duration::from_secs(30 * 86_400));
    let sticky_ttl = row.read("sticky_ttl", report, span).map(|at| at.value);
    let hedge = row.child("hedge", report).map(|table| read_hedge(table, report));
    let rescue = row.read_or("rescue", report, false, flag);
    row.finish(report);
    let name = name?;
    Some(RawModel {
        name: Located::new(parse_pattern(&name.value).ok()?, name.span),
        targets,
        strategy,
        sticky,
        sticky_ttl,
        hedge,
        rescue,
        timeouts,
    })
}

/// Reads `{ after = "p95", max_share = 0.05, max_tokens = 20000 }`; each key has a default.
fn read_hedge(mut table: TableReader<'_>, report: &mut Report) -> RawHedge {
    let span = duration(Duration::from_millis(10), Duration::from_secs(3_600));
    let after =
        table.read_or("after", report, HedgeDelay::default(), |value| match value.as_str() {
            Some("p95") => Ok(HedgeDelay::P95),
            _ => span(value).map(HedgeDelay::Fixed).map_err(|fault| {
                ValueError::with_help(fault.title, "\"p95\", or a duration such as \"2s\"")
            }),
        });
    let max_share = table.read_or("max_share", report, 0.05, number(0.0, 1.0));
    let max_tokens = table.read_or("max_tokens", report, 20_000, count(1, u32::MAX));
    table.finish(report);
    RawHedge { after, max_share, max_tokens: u64::from(max_tokens) }
}

fn read_targets(row: &mut TableReader<'_>, report: &mut Report) -> Vec<RawTarget> {
    let Some(node) = row.take_node("targets") else { return Vec::new() };
    let path = row.key_path("targets");
    match node.get_ref() {
        DeValue::Array(items) => {
            items.iter().filter_map(|item| read_target(&path, item, report)).collect()
        }
        _ => read_target(&path, node, report).into_iter().collect(),
    }
}

fn read_target(path: &str, node: &Node<'_>, report: &mut Report) -> Option<RawTarget> {
    let DeValue::Table(_) = node.get_ref() else {
        return reader::read_value(path, node, report, &read_nonempty).map(RawTarget::Name);
    };
    let mut table = TableReader::from_node(path, node, report)?;
    let before = report.findings.len();
    let model = table.read("model", report, read_nonempty);
    if model.is_none() && report.findings.len() == before {
        report.missing(&table.span, format!("`{path}`: a target without `model`"), None);
    }
    let upstream = table.read("upstream", report, read_nonempty);
    let priority = table.read("priority", report, count(0, 1_000_000)).map(|at| at.value);
    let weight = table.read("weight", report, number(0.001, 1e6)).map(|at| at.value);
    table.finish(report);
    Some(RawTarget::Table { upstream, model: model?, priority, weight })
}

fn read_nonempty(value: &DeValue<'_>) -> Result<String, ValueError> {
    let written = text(value)?;
    if written.trim().is_empty() || written.contains(char::is_control) {
        return Err(ValueError::new("an empty name"));
    }
    Ok(written)
}

fn parse_pattern(written: &str) -> Result<Pattern, ValueError> {
    if written.is_empty() || written.starts_with('!') {
        return Err(ValueError::with_help(
            "a model's name is a name or a pattern",
            "exclusions (`!`) belong into `models` of an upstream",
        ));
    }
    Pattern::parse(written).map_err(|sentence| {
        ValueError::new(format!(
            "`{}` is no regular expression: {sentence}",
            reader::truncate(written)
        ))
    })
}

pub(super) fn read_aliases(mut table: TableReader<'_>, report: &mut Report) -> Vec<RawAlias> {
    let mut out = Vec::new();
    for (name, node) in table.remaining() {
        let path = table.key_path(&name.value);
        let target = reader::read_value(&path, node, report, &read_nonempty);
        match (parse_pattern(&name.value), target) {
            (Ok(pattern), Some(target)) => {
                out.push(RawAlias { name: Located::new(pattern, name.span), target });
            }
            (Err(fault), _) => {
                report.error(&name.span, format!("`{path}`: {}", fault.title), fault.help);
            }
            (Ok(_), None) => {}
        }
    }
    out
}
