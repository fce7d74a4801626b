//! `aiproxy explain ID`: explains one request in full, including how its cost was computed.

use clap::Args;

use crate::{
    base::{money, sanitize::clean},
    cli::{
        context::CommandContext,
        error::{CliError, ExitStatus},
        ledger_source::LedgerSource,
        log::show,
        output::{
            self, Styler, TextRole,
            table::{TableCell, TextTable},
            time_format,
        },
    },
    events::{
        ledger_queue::{AttemptBill, ExchangeSide},
        record::{AttemptRecord, RequestRecord, RequestState},
    },
    ir::{
        cost::{AppliedPrice, CostSource, Precision, PriceClass},
        usage::Usage,
    },
    ledger::query::RequestDetail,
};

pub(super) const EXAMPLES: &str = "\
ID is a request id, a unique prefix of one, or `last`. Responses contain it as `x-request-id`;
`aiproxy log` lists the ids.

Examples:
  aiproxy explain last
  aiproxy explain 018f3a
  aiproxy explain last --json";

#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// Request id, a unique prefix of it, or `last`
    id: String,
}

/// Prints the explanation.
///
/// # Errors
///
/// No such request, or no ledger.
pub async fn run(ctx: &CommandContext, args: ExplainArgs) -> Result<ExitStatus, CliError> {
    let full = LedgerSource::open(ctx).await?.request_detail(&args.id).await?;
    if ctx.global.json {
        output::print_json(&full)?;
    } else {
        output::print(&render(&full, Styler::stdout()))?;
    }
    Ok(ExitStatus::Ok)
}

/// The explanation without colours, for callers other than the terminal.
#[must_use]
pub fn render_plain(full: &RequestDetail) -> String {
    render(full, Styler::plain())
}

fn render(full: &RequestDetail, styler: Styler) -> String {
    let r = &full.record;
    let mut text = show::request_page(r, styler);
    if let Some(of) = full.replay_of {
        text.push_str(&format!("replay   of {of}\n"));
    }
    if full.demo {
        text.push_str("demo     answered by the built-in upstream; not counted in totals\n");
    }
    if !r.attempts.is_empty() {
        text.push_str(&format!("\n{}\n{}", styler.bold("Attempts"), show::waterfall(r, styler)));
    }
    text.push_str(&format!("\n{}\n", styler.bold("Cost")));
    for attempt in &r.attempts {
        let part = full.bills.iter().find(|part| part.number == attempt.number);
        text.push_str(&bill_text(attempt, part, r.attempts.len() > 1, styler));
    }
    match r.cost {
        Some(cost) => {
            text.push_str(&format!(
                "  {} {}\n",
                styler.style(TextRole::Strong, &cost.to_string()),
                precision_note(cost.precision, cost.usd.is_some())
            ));
        }
        None => text.push_str("  –\n"),
    }
    text.push_str(&format!("\n{}\n", styler.bold("Stored bodies")));
    if full.bodies.is_empty() {
        text.push_str(
            "  none (turned off by `bodies` under [ledger], or deleted after their time)\n",
        );
    }
    for body in &full.bodies {
        let (name, side) = match body.side {
            ExchangeSide::Request => ("request", "request"),
            ExchangeSide::Answer => ("answer", "answer"),
        };
        let how = if body.head.is_empty() && body.total > 0 {
            "not text, so only its size was stored".to_owned()
        } else if body.is_complete() {
            format!("`aiproxy log show {} --body {side}` prints it", r.id)
        } else {
            format!("`aiproxy log show {} --body {side}` prints its beginning and end", r.id)
        };
        text.push_str(&format!("  {name:<9}{} bytes, {}; {how}\n", body.total, clean(&body.media)));
    }
    let suggestions = suggestions(full);
    if !suggestions.is_empty() {
        text.push_str(&format!("\n{}\n", styler.bold("What to do")));
        for line in suggestions {
            text.push_str(&format!("  {line}\n"));
        }
    }
    text
}

fn bill_text(
    attempt: &AttemptRecord,
    part: Option<&AttemptBill>,
    number_attempts: bool,
    styler: Styler,
) -> String {
    let mut text = String::new();
    if number_attempts {
        text.push_str(&format!("  attempt {} at {}\n", attempt.number, clean(&attempt.upstream)));
    }
    let Some(part) = part else { return text + "  cost unknown\n" };
    let bill = &part.bill;
    if let (Some(usage), Some(price)) = (&part.usage, &bill.price) {
        text.push_str(&price_table(usage, price, styler));
        text.push_str(&format!(
            "  price {}{}",
            clean(&price.name),
            if price.condition.is_empty() {
                String::new()
            } else {
                format!(" ({})", clean(&price.condition))
            }
        ));
        let from = match bill.source {
            CostSource::Config => ", from [prices] of the config".to_owned(),
            _ if price.page.is_empty() => String::new(),
            _ => format!(", {} of {}", clean(&price.page), clean(&price.date)),
        };
        text.push_str(&format!("{from}\n"));
    }
    let sum = match (bill.cost, bill.source) {
        (None, _) => match &part.usage {
            Some(usage) => format!(
                "no known price for {} at {}: {} tokens in, {} out",
                clean(&attempt.model),
                clean(&attempt.upstream),
                usage.input_total(),
                usage.output_total()
            ),
            None => "unknown: the provider reported neither tokens nor cost".to_owned(),
        },
        (Some(_), CostSource::Free) => "free: rejected, or not charged".to_owned(),
        (Some(_), CostSource::Local) => "free: it ran on this machine".to_owned(),
        (Some(cost), CostSource::Reported) => match bill.computed {
            Some(computed) => format!(
                "{}, as reported by the provider; {} by the table above",
                cost.format_exact(),
                computed.format_exact()
            ),
            None => format!("{}, as reported by the provider", cost.format_exact()),
        },
        (Some(cost), _) => match bill.reported {
            Some(reported) => {
                format!(
                    "{} (`prices_win`); the provider reported {}",
                    cost.format_exact(),
                    reported.format_exact()
                )
            }
            None => format!("{}{}", bill.precision.prefix(), cost.format_exact()),
        },
    };
    text.push_str(&format!("  {sum}\n"));
    text
}

fn price_table(usage: &Usage, price: &AppliedPrice, styler: Styler) -> String {
    let mut table = TextTable::new(&["  CLASS", "COUNT", "PRICE", "PER", "SUM"]);
    for class in PriceClass::ALL {
        let (count, rate) = (class.count(usage), price.rates.effective(class));
        if count == 0 || (class == PriceClass::Request && rate == 0) {
            continue;
        }
        let sum = i128::from(count) * i128::from(rate) / i128::from(class.priced_units());
        let sum = i64::try_from(sum).unwrap_or(i64::MAX);
        let per = match class.priced_units() {
            1 => "request",
            1_000 => "1,000",
            _ => "1M tokens",
        };
        let note = if price.rates.explicit(class).is_none() { " (no separate price)" } else { "" };
        table.row(vec![
            format!("  {}", class.name()).into(),
            count.to_string().into(),
            format!("{} {}", money::format_nanos(rate), price.currency).into(),
            per.into(),
            TableCell::from(format!("{} {}{note}", money::format_nanos(sum), price.currency)),
        ]);
    }
    let mut text = if table.is_empty() { String::new() } else { table.render(styler) };
    if *price.currency != *"USD" {
        text.push_str(&format!(
            "  1 {} is ${}\n",
            clean(&price.currency),
            money::format_nanos(price.nano_usd_per_unit)
        ));
    }
    text
}

fn precision_note(precision: Precision, known: bool) -> &'static str {
    match (precision, known) {
        (_, false) => "unknown",
        (Precision::Exact, _) => "total",
        (Precision::Estimate, _) => {
            "total, estimated: the answer ended before its tokens were reported"
        }
        (Precision::AtLeast, _) => {
            "or more: an attempt may have continued upstream, or has no known price"
        }
    }
}

fn suggestions(full: &RequestDetail) -> Vec<String> {
    let r: &RequestRecord = &full.record;
    let mut lines = Vec::new();
    let last = r.serving_attempt();
    if let (RequestState::Failed, Some(error)) = (r.state, &r.error) {
        lines.push(format!("the client received: {}", clean(error)));
    }
    if r.state == RequestState::Failed {
        match (r.status, last) {
            (Some(401 | 403), Some(a)) => lines.push(format!(
                "`aiproxy key test {}/{}` shows whether the key works",
                a.upstream, a.key
            )),
            (Some(404), _) => {
                lines.push("`aiproxy model list` shows the known names".to_owned());
            }
            (Some(429), _) => {
                lines.push("`aiproxy key list` shows which keys are cooling and until when; `aiproxy key warm KEY` ends a cooldown".to_owned());
            }
            (Some(500..=599), Some(a)) => lines
                .push(format!("`aiproxy upstream test {}` shows whether it responds", a.upstream)),
            _ => {}
        }
        lines.push(format!(
            "`aiproxy route {}` shows where the request would go now",
            clean(&r.requested_model)
        ));
    }
    for (attempt, part) in r
        .attempts
        .iter()
        .filter_map(|a| Some((a, full.bills.iter().find(|part| part.number == a.number)?)))
    {
        if part.bill.source == CostSource::Unknown && part.usage.is_some() {
            lines.push(format!(
                "to set a price, add `[prices.\"{}/{}\"]` with `input` and `output` to the config",
                clean(&attempt.upstream),
                clean(&attempt.model)
            ));
        }
    }
    if let Some(slow) = r.ttft_ms.filter(|ms| *ms > 10_000) {
        lines.push(format!(
            "the first token took {}; `aiproxy upstream list` shows how the others do",
            time_format::seconds(slow)
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        base::money::{NanoUsd, to_nanos},
        ir::cost::{Bill, Cost, PriceRates},
        ledger::bodies::BodyView,
    };

    fn full() -> RequestDetail {
        let mut record = crate::cli::log::tests::record();
        let mut rates = PriceRates::default();
        rates.set(PriceClass::Input, to_nanos(3.0));
        rates.set(PriceClass::Output, to_nanos(15.0));
        let price = AppliedPrice {
            name: "anthropic/claude-sonnet-4-5".into(),
            condition: "".into(),
            rates,
            currency: "USD".into(),
            nano_usd_per_unit: 1_000_000_000,
            page: "https://example.com/pricing".into(),
            date: "2025-12-20".into(),
        };
        let usage = Usage { input: 1_000, output: 200, reasoning: 10, ..Usage::default() };
        let cost = price.cost(&usage);
        record.cost = Some(Cost { usd: Some(cost), precision: Precision::Exact });
        let bill = Bill {
            cost: Some(cost),
            source: CostSource::Builtin,
            computed: Some(cost),
            price: Some(Arc::new(price)),
            ..Bill::default()
        };
        let free = Bill { cost: Some(NanoUsd::ZERO), source: CostSource::Free, ..Bill::default() };
        RequestDetail {
            record,
            bills: vec![
                AttemptBill { number: 1, reported_model: None, usage: None, bill: free },
                AttemptBill { number: 2, reported_model: None, usage: Some(usage), bill },
            ],
            bodies: vec![BodyView {
                side: ExchangeSide::Request,
                media: "application/json".into(),
                total: 7,
                head: "{\"a\":1}".into(),
                tail: String::new(),
            }],
            demo: false,
            replay_of: None,
        }
    }

    #[test]
    fn cost_is_shown_step_by_step() {
        let text = render(&full(), Styler::plain());
        for part in [
            "attempt 1 at office",
            "free: rejected",
            "0.003 USD",
            "0.00015 USD (no separate price)",
            "price anthropic/claude-sonnet-4-5, https://example.com/pricing of 2025-12-20",
            "$0.00615",
            "total",
            "7 bytes, application/json",
            "▒",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn unknown_price_is_shown_with_the_setting_for_it() {
        let mut unknown = full();
        unknown.bills[1].bill = Bill::default();
        unknown.record.cost = Some(Cost::default());
        let text = render(&unknown, Styler::plain());
        assert!(
            text.contains("no known price for big-model at office")
                && text.contains("[prices.\"office/big-model\"]"),
            "{text}"
        );
    }
}
