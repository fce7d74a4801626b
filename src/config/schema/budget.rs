//! `budget`: the spending limit of a project, an upstream, a key or everything.

use toml::de::DeValue;
use toml_edit::{Array, Value};

use crate::{
    base::money::NanoUsd,
    config::{
        choices::{Period, UnpricedPolicy},
        kinds::{KindDescription, Number, ValueKind, Words},
        problem::Report,
        reader::{self, Node, TableReader},
        table::{ConfigTable, config, inline_table, table_schema},
    },
};

const BUDGET_HELP: &str = "write { usd = 5.0, per = \"day\" }; per is day, week, month or total";
/// Maximum dollars of a budget.
const MAX_DOLLARS: f64 = 1e6;

config! {
    /// Spending limit per period: one table, or a list of tables with different periods (`[[budget]]`).
    /// At the top of the file it is the limit of all projects together.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Budget in "budget" {
        /// Dollars that may be spent
        usd: NanoUsd = NanoUsd(0), Dollars, required;
        /// Period of the limit; weeks begin on Monday, in the ledger's time zone
        period as "per": Period = Period::Day, Words(Period::ALL), required;
        /// Requests without a known price: reported once per model, or refused
        unpriced: UnpricedPolicy = UnpricedPolicy::Warn, Words(UnpricedPolicy::ALL);
    }
}

struct Dollars;

impl ValueKind for Dollars {
    type Value = NanoUsd;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<NanoUsd> {
        NanoUsd::from_dollars(Number(0.0, MAX_DOLLARS).read(path, node, report)?)
    }

    fn write(&self, value: &NanoUsd) -> Option<Value> {
        Some(value.dollars().into())
    }

    fn describe(&self) -> KindDescription {
        Number(0.0, MAX_DOLLARS).describe()
    }
}

/// One budget, or a list of budgets with different periods.
pub(in crate::config) struct BudgetRows;

impl ValueKind for BudgetRows {
    type Value = Vec<Budget>;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<Vec<Budget>> {
        let items = match node.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            _ => vec![node],
        };
        let mut out: Vec<Budget> = Vec::new();
        for item in items {
            let Some(budget) = read_budget(path, item, report) else { continue };
            if out.iter().any(|known| known.period == budget.period) {
                report.error(
                    &item.span(),
                    format!("`{path}` has two sums per {}", budget.period.name()),
                    Some("leave the larger one out".to_owned()),
                );
            } else {
                out.push(budget);
            }
        }
        Some(out)
    }

    fn write(&self, budgets: &Vec<Budget>) -> Option<Value> {
        match budgets.as_slice() {
            [] => None,
            [one] => Some(inline_table(one)),
            several => Some(Value::Array(several.iter().map(inline_table).collect::<Array>())),
        }
    }

    fn describe(&self) -> KindDescription {
        KindDescription::new("budget", table_schema(&Budget::keys())).one_or_many()
    }
}

fn read_budget(path: &str, node: &Node<'_>, report: &mut Report) -> Option<Budget> {
    let DeValue::Table(_) = node.get_ref() else {
        let title = format!("`{path}` must be a table, not {}", reader::type_name(node.get_ref()));
        report.error(&node.span(), title, Some(BUDGET_HELP.to_owned()));
        return None;
    };
    let mut table = TableReader::from_node(path, node, report)?;
    let before = report.findings.len();
    let budget = Budget::read_keys(&mut table, Budget::default(), report);
    let complete = report.findings.len() == before;
    let spans = table.finish(report);
    for name in ["usd", "per"] {
        if spans.get(name).is_none() && complete {
            report.missing(
                &spans.table,
                format!("`{path}` without `{name}`"),
                Some(BUDGET_HELP.to_owned()),
            );
        }
    }
    (complete && spans.get("usd").is_some() && spans.get("per").is_some()).then_some(budget)
}
