//! `budget`: how much may be spent, for a project, an upstream, a key or all of it.

use toml::de::DeValue;

use crate::{
    base::money::NanoUsd,
    config::{
        problem::Report,
        read::{self, Node, Table, number, word},
        settings::{Budget, Per, Unpriced},
    },
};

const FORM: &str = "write { usd = 5.0, per = \"day\" }; per is day, week, month or total";
/// Dollars.
const MOST: f64 = 1e6;

/// One table, or a list of them with different periods.
pub(super) fn read(row: &mut Table<'_>, report: &mut Report) -> Vec<Budget> {
    let Some(node) = row.node("budget") else { return Vec::new() };
    let path = row.path_of("budget");
    let each: Vec<(Budget, read::Span)> = match node.get_ref() {
        DeValue::Array(items) => {
            items.iter().filter_map(|item| Some((one(&path, item, report)?, item.span()))).collect()
        }
        _ => one(&path, node, report).map(|budget| (budget, node.span())).into_iter().collect(),
    };
    let mut out: Vec<Budget> = Vec::new();
    for (budget, span) in each {
        if out.iter().any(|known| known.per == budget.per) {
            report.error(
                &span,
                format!("`{path}` has two sums per {}", budget.per.name()),
                Some("leave the larger one out".to_owned()),
            );
        } else {
            out.push(budget);
        }
    }
    out
}

fn one(path: &str, node: &Node<'_>, report: &mut Report) -> Option<Budget> {
    let DeValue::Table(_) = node.get_ref() else {
        let title = format!("`{path}` must be a table, not {}", read::kind(node.get_ref()));
        report.error(&node.span(), title, Some(FORM.to_owned()));
        return None;
    };
    let mut table = Table::of(path, node, report)?;
    let before = report.findings.len();
    let usd = table.take("usd", report, number(0.0, MOST));
    let per = table.take("per", report, word(&Per::ALL));
    let unpriced = table.or("unpriced", report, Unpriced::default(), word(&Unpriced::ALL));
    if report.findings.len() == before {
        for (name, lacks) in [("usd", usd.is_none()), ("per", per.is_none())] {
            if lacks {
                report.absent(
                    &table.span,
                    format!("`{path}` without `{name}`"),
                    Some(FORM.to_owned()),
                );
            }
        }
    }
    table.end(report);
    Some(Budget { usd: NanoUsd::from_dollars(usd?.value)?, per: per?.value, unpriced })
}
