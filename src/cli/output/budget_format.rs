//! Formats budgets for commands: the amount spent, the limit and the end of the period.

use serde_json::{Value, json};

use crate::{
    base::clock::UnixMillis,
    cli::output::{
        Styler, TextRole,
        table::{TableCell, TextTable},
        time_format,
    },
    control::snapshot::BudgetView,
};

/// Width of a full bar, in columns.
const BAR_WIDTH: u64 = 20;

/// Formats budgets as a table; empty if there are none.
pub(in crate::cli) fn render_table(
    budgets: &[&BudgetView],
    now: UnixMillis,
    styler: Styler,
) -> String {
    if budgets.is_empty() {
        return String::new();
    }
    let mut table =
        TextTable::new(&["BUDGET", "PER", "SPENT", "LIMIT", "USED", "", "ENDS IN", "NOTE"]);
    for budget in budgets {
        let role = match budget.percent {
            100.. => TextRole::Error,
            80.. => TextRole::Warn,
            _ => TextRole::Success,
        };
        let mut notes = Vec::new();
        if !budget.reserved.is_zero() {
            notes.push(format!("{} reserved by running requests", budget.reserved.format_short()));
        }
        if budget.unpriced > 0 {
            notes.push(format!("{} attempts without a known price", budget.unpriced));
        }
        table.row(vec![
            (&budget.holder).into(),
            budget.per.name().into(),
            TableCell::new(TextRole::Strong, budget.spent.format_short()),
            budget.usd.format_short().into(),
            TableCell::new(role, format!("{} %", budget.percent)),
            TableCell::new(role, bar(budget.percent)),
            time_format::remaining(budget.until, now).into(),
            TableCell::new(TextRole::Dim, notes.join(", ")),
        ]);
    }
    table.render(styler)
}

/// `████████████████│░░░│`: a bar with marks at 80 % and 100 %.
fn bar(percent: u64) -> String {
    let full = (percent.min(100) * BAR_WIDTH).div_ceil(100);
    let cell = |at: u64| match at {
        _ if at < full => '█',
        16 => '│',
        _ => '░',
    };
    (0..BAR_WIDTH).map(cell).chain(['│']).collect()
}

/// The JSON of one budget, the same in every listing.
pub(in crate::cli) fn budget_json(budget: &BudgetView) -> Value {
    json!({
        "of": budget.holder,
        "per": budget.per,
        "usd": budget.usd.dollars(),
        "spent": budget.spent.dollars(),
        "reserved": budget.reserved.dollars(),
        "percent": budget.percent,
        "unpriced": budget.unpriced,
        "from": budget.from.to_string(),
        "until": budget.until.map(|until| until.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::money::NanoUsd, config::settings::Period};

    #[test]
    fn bar_has_marks_and_never_exceeds_its_width() {
        for (percent, want) in [
            (0, "░░░░░░░░░░░░░░░░│░░░│"),
            (1, "█░░░░░░░░░░░░░░░│░░░│"),
            (80, "████████████████│░░░│"),
            (100, "████████████████████│"),
            (u64::MAX / 100, "████████████████████│"),
        ] {
            assert_eq!(bar(percent), want, "{percent}");
        }
    }

    #[test]
    fn row_has_spent_amount_limit_and_end() {
        let budget = BudgetView {
            holder: "project ide".to_owned(),
            per: Period::Day,
            usd: NanoUsd(5_000_000_000),
            spent: NanoUsd(4_100_000_000),
            reserved: NanoUsd(20_000_000),
            percent: 82,
            unpriced: 2,
            from: UnixMillis(0),
            until: Some(UnixMillis(3_600_000)),
        };
        let text = render_table(&[&budget], UnixMillis(0), Styler::plain());
        for part in [
            "project ide",
            "$4.10",
            "$5",
            "82 %",
            "1h00m",
            "$0.020 reserved",
            "2 attempts without a known price",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(budget_json(&budget)["spent"], 4.1);
        assert_eq!(render_table(&[], UnixMillis(0), Styler::plain()), "");
    }
}
