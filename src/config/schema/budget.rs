//! `budget`: the spending limit of a project, an upstream, a key or everything.

use toml::de::DeValue;

use crate::{
    base::money::NanoUsd,
    config::{
        problem::Report,
        reader::{self, Node, TableReader, number, one_of},
        settings::{Budget, Period, UnpricedPolicy},
    },
};

const BUDGET_HELP: &str = "write { usd = 5.0, per = \"day\" }; per is day, week, month or total";
/// Maximum dollars of a budget.
const MAX_DOLLARS: f64 = 1e6;

/// Reads one table, or a list of tables with different periods.
pub(super) fn read_budgets(row: &mut TableReader<'_>, report: &mut Report) -> Vec<Budget> {
    let Some(node) = row.take_node("budget") else { return Vec::new() };
    let path = row.key_path("budget");
    let each: Vec<(Budget, reader::SourceSpan)> = match node.get_ref() {
        DeValue::Array(items) => items
            .iter()
            .filter_map(|item| Some((read_budget(&path, item, report)?, item.span())))
            .collect(),
        _ => read_budget(&path, node, report)
            .map(|budget| (budget, node.span()))
            .into_iter()
            .collect(),
    };
    let mut out: Vec<Budget> = Vec::new();
    for (budget, span) in each {
        if out.iter().any(|known| known.period == budget.period) {
            report.error(
                &span,
                format!("`{path}` has two sums per {}", budget.period.name()),
                Some("leave the larger one out".to_owned()),
            );
        } else {
            out.push(budget);
        }
    }
    out
}

fn read_budget(path: &str, node: &Node<'_>, report: &mut Report) -> Option<Budget> {
    let DeValue::Table(_) = node.get_ref() else {
        let title = format!("`{path}` must be a table, not {}", reader::type_name(node.get_ref()));
        report.error(&node.span(), title, Some(BUDGET_HELP.to_owned()));
        return None;
    };
    let mut table = TableReader::from_node(path, node, report)?;
    let before = report.findings.len();
    let usd = table.read("usd", report, number(0.0, MAX_DOLLARS));
    let per = table.read("per", report, one_of(Period::ALL));
    let unpriced =
        table.read_or("unpriced", report, UnpricedPolicy::default(), one_of(UnpricedPolicy::ALL));
    if report.findings.len() == before {
        for (name, lacks) in [("usd", usd.is_none()), ("per", per.is_none())] {
            if lacks {
                report.missing(
                    &table.span,
                    format!("`{path}` without `{name}`"),
                    Some(BUDGET_HELP.to_owned()),
                );
            }
        }
    }
    table.finish(report);
    Some(Budget { usd: NanoUsd::from_dollars(usd?.value)?, period: per?.value, unpriced })
}
