//! `aiproxy model list`: the models that clients can request, with what is known of each.

use serde_json::{Value, json};

use crate::{
    cli::{
        context::CommandContext,
        error::{CliError, ExitStatus},
        model::{
            catalog::ModelCatalog,
            filter::{CommonFacts, ListedModel, ModelFilter},
        },
        output::{
            self, Styler, TextRole,
            table::{TableCell, TextTable},
        },
    },
    control::snapshot::PriceView,
};

pub(super) const EXAMPLES: &str = "\
A name with several targets can do what all of them can do. Prices are those of the first
target, for a million tokens. Facts that are not known are left empty and match no option.

Examples:
  aiproxy model list
  aiproxy model list 'claude-*'
  aiproxy model list --upstream openrouter --tools --max-price 0.50
  aiproxy model list --vision --context 200k --json";

/// Lists the models that match the filter.
pub(super) async fn run(
    ctx: &CommandContext,
    filter: &ModelFilter,
) -> Result<ExitStatus, CliError> {
    let catalog = ModelCatalog::read(ctx).await?;
    let rows = filter.apply(&catalog)?;
    if ctx.global.json {
        output::print_json(&rows.iter().map(row_json).collect::<Vec<_>>())?;
    } else if !rows.is_empty() {
        output::print(&table(&rows, Styler::stdout()))?;
    } else if filter.is_empty() {
        output::print_line("no models yet; `aiproxy model add NAME TARGET…` adds one")?;
    } else {
        output::print_note("no model matches; `aiproxy model list` shows all");
    }
    Ok(ExitStatus::Ok)
}

fn row_json(row: &ListedModel<'_>) -> Value {
    let mut out = serde_json::to_value(row.view).unwrap_or_else(|_| json!({}));
    let facts = serde_json::to_value(row.facts).unwrap_or_default();
    if let (Some(out), Value::Object(facts)) = (out.as_object_mut(), facts) {
        out.extend(facts);
    }
    out
}

fn table(rows: &[ListedModel<'_>], styler: Styler) -> String {
    let mut table =
        TextTable::new(&["MODEL", "KIND", "CONTEXT", "OUTPUT", "CAN", "PRICE", "TARGETS"]);
    for ListedModel { view, facts } in rows {
        table.row(vec![
            (&view.name).into(),
            TableCell::new(TextRole::Dim, &view.kind),
            facts.context.map(tokens).unwrap_or_default().into(),
            facts.max_output.map(tokens).unwrap_or_default().into(),
            abilities(facts).into(),
            view.price.as_ref().map(price).unwrap_or_default().into(),
            view.targets.join(", ").into(),
        ]);
    }
    table.render(styler)
}

fn abilities(facts: &CommonFacts) -> String {
    let all = [("vision", facts.vision), ("tools", facts.tools), ("reasoning", facts.reasoning)];
    let known = all.iter().filter(|(_, can)| *can == Some(true)).map(|(name, _)| *name);
    known.collect::<Vec<_>>().join(" ")
}

/// `1.25→10`, in the currency of the table if that is not the dollar.
fn price(price: &PriceView) -> String {
    let output = price.output.as_deref().unwrap_or("?");
    let currency =
        if price.currency == "USD" { String::new() } else { format!(" {}", price.currency) };
    format!("{}→{output}{currency}", price.input)
}

/// A number of tokens as `128k` or `1.05M`.
pub(super) fn tokens(count: u64) -> String {
    let scaled = |unit: u64, digits: usize| {
        let text = format!("{:.digits$}", count as f64 / unit as f64);
        if digits == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
    };
    match count {
        0..1_000 => count.to_string(),
        1_000..999_500 => format!("{}k", scaled(1_000, 0)),
        _ => format!("{}M", scaled(1_000_000, 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_prices_are_short() {
        for (count, want) in [
            (512, "512"),
            (8_192, "8k"),
            (131_072, "131k"),
            (400_000, "400k"),
            (1_000_000, "1M"),
            (1_048_576, "1.05M"),
            (10_000_000, "10M"),
        ] {
            assert_eq!(tokens(count), want);
        }
        let one = |currency: &str, output: Option<&str>| {
            price(&PriceView {
                currency: currency.to_owned(),
                input: "2".to_owned(),
                output: output.map(str::to_owned),
            })
        };
        assert_eq!((one("USD", Some("8")), one("CNY", None)), ("2→8".into(), "2→? CNY".into()));
    }

    #[test]
    fn only_known_abilities_are_named() {
        let facts = CommonFacts {
            vision: Some(true),
            tools: Some(false),
            reasoning: None,
            ..CommonFacts::default()
        };
        assert_eq!(abilities(&facts), "vision");
    }
}
