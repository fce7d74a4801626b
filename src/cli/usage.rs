//! `aiproxy usage`: sums tokens and cost by model, project, upstream, key, client, session, day, hour or
//! minute.

use clap::{Args, builder::PossibleValuesParser};

use crate::{
    base::{
        clock::{Clock, SystemClock},
        money::NanoUsd,
    },
    cli::{
        context::CommandContext,
        error::{CliError, ExitStatus},
        ledger_source::LedgerSource,
        output::{
            self, Styler, TextRole, budget_format,
            table::{TableCell, TextTable},
        },
    },
    control::history::UsageQuery,
    ledger::{
        export,
        totals::{GroupBy, Totals, TotalsRow, UsageReport},
    },
};

pub(super) const EXAMPLES: &str = "\
IN is all input tokens, CACHED the part read from a prompt cache, OUT all output tokens, REASON
the part spent on reasoning. `~` marks an estimate, `≥` a lower bound, `–` an unknown cost. The
built-in upstream is not counted. If a proxy is running, its budgets are listed at the end.

Examples:
  aiproxy usage                       today, and the last 7 days
  aiproxy usage --by project --since 30d
  aiproxy usage --by day --since 2025-09-01
  aiproxy usage --by hour --since today
  aiproxy usage --by key --since 36h --tz UTC
  aiproxy usage --by model --csv > usage.csv";

/// Width of the longest bar.
const BAR_WIDTH: usize = 24;

#[derive(Clone, Debug, Args)]
pub struct UsageArgs {
    /// Group by
    #[arg(long, value_name = "GROUP", default_value = GroupBy::default().name(),
        value_parser = PossibleValuesParser::new(GroupBy::ALL.map(GroupBy::name)))]
    by: String,
    /// Start: 7d, today, 36h, a date or a time [default: today and 7d]
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Time zone for days [default: the ledger's]
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
    /// Print CSV instead of a table
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

/// Prints the sums.
///
/// # Errors
///
/// No ledger, or an invalid time or zone.
pub async fn run(ctx: &CommandContext, args: UsageArgs) -> Result<ExitStatus, CliError> {
    let by = GroupBy::parse(&args.by).unwrap_or_default();
    let ledger_source = LedgerSource::open(ctx).await?;
    let query = |since: &str| UsageQuery {
        by,
        since: since.to_owned(),
        tz: args.tz.clone().unwrap_or_default(),
    };
    let view = ledger_source.usage(&query(args.since.as_deref().unwrap_or("7d"))).await?;
    let snapshot = match ledger_source.proxy() {
        Some(proxy) => Some(proxy.snapshot().await?),
        None => None,
    };
    let budgets = snapshot.as_ref().map_or(&[][..], |snapshot| &snapshot.budgets);
    if ctx.global.json {
        let mut report =
            serde_json::to_value(&view).map_err(|e| CliError::failed(e.to_string()))?;
        report["budgets"] = budgets.iter().map(budget_format::budget_json).collect();
        output::print_json(&report)?;
        return Ok(ExitStatus::Ok);
    }
    if args.csv {
        output::print(&csv_text(&view))?;
        return Ok(ExitStatus::Ok);
    }
    let styler = Styler::stdout();
    if args.since.is_none() {
        let today = ledger_source.usage(&query("today")).await?;
        output::print(&totals_line("today", &today.total, styler))?;
    }
    let name = if args.since.is_none() { "7 days" } else { "total" };
    output::print(&usage_page(name, &view, styler))?;
    if !budgets.is_empty() {
        output::print(&format!(
            "\n{}",
            budget_format::render_table(
                &budgets.iter().collect::<Vec<_>>(),
                SystemClock.unix(),
                styler
            )
        ))?;
    }
    Ok(ExitStatus::Ok)
}

fn totals_line(name: &str, sums: &Totals, styler: Styler) -> String {
    let u = &sums.usage;
    let by_affinity = if sums.affinity_cache_read > 0 {
        format!(", {} by affinity", format_count(sums.affinity_cache_read))
    } else {
        String::new()
    };
    let cached = if u.cache_read > 0 {
        format!(" ({} cached{by_affinity})", format_count(u.cache_read))
    } else {
        String::new()
    };
    let failed = if sums.failed > 0 { format!(", {} failed", sums.failed) } else { String::new() };
    format!(
        "{:<8}{}  {} requests{failed}, {}{cached} → {} tokens\n",
        name,
        styler.style(TextRole::Strong, &format!("{:>9}", sums.displayed_cost())),
        sums.requests,
        format_count(u.input_total()),
        format_count(u.output_total())
    )
}

fn usage_page(name: &str, view: &UsageReport, styler: Styler) -> String {
    let demo_note = match view.demo.requests {
        0 => String::new(),
        count => styler
            .dim(&format!("\nnot counted: {count} requests to the built-in upstream `demo`\n")),
    };
    if view.rows.is_empty() {
        return format!(
            "{}no requests since {}\n{demo_note}",
            totals_line(name, &view.total, styler),
            start_time_text(view)
        );
    }
    let mut text = totals_line(name, &view.total, styler);
    text.push_str(&styler.dim(&format!(
        "        since {}, days in {}\n\n",
        start_time_text(view),
        view.tz
    )));
    let max_cost = view.rows.iter().map(|row| row.totals.cost).max().unwrap_or_default();
    let max_tokens = view.rows.iter().map(|row| total_tokens(&row.totals)).max().unwrap_or(0);
    let head = match view.by {
        GroupBy::Client => "CLIENT",
        GroupBy::Day => "DAY",
        GroupBy::Hour => "HOUR",
        GroupBy::Key => "KEY",
        GroupBy::Minute => "MINUTE",
        GroupBy::Model => "MODEL",
        GroupBy::Project => "PROJECT",
        GroupBy::Session => "SESSION",
        GroupBy::Upstream => "UPSTREAM",
    };
    // Sort by tokens if nothing has a price.
    let by_cost = !max_cost.is_zero();
    let mut table =
        TextTable::new(&[head, "REQ", "FAILED", "IN", "CACHED", "OUT", "REASON", "COST", "SHARE"]);
    for row in &view.rows {
        let share = if by_cost {
            row.totals.cost.0 as f64 / max_cost.0 as f64
        } else {
            total_tokens(&row.totals) as f64 / max_tokens.max(1) as f64
        };
        table.row(row_cells(row, bar(share)));
    }
    text.push_str(&table.render(styler));
    if !view.by.is_time() && view.days.len() > 1 {
        text.push('\n');
        let max_cost =
            view.days.iter().map(|day| day.totals.cost).max().unwrap_or_default().max(NanoUsd(1));
        for day in &view.days {
            let share = day.totals.cost.0 as f64 / max_cost.0 as f64;
            text.push_str(&format!(
                "{}  {:>9}  {}\n",
                styler.dim(&day.name),
                day.totals.displayed_cost(),
                bar(share)
            ));
        }
    }
    text.push_str(&demo_note);
    text
}

fn row_cells(row: &TotalsRow, bar: String) -> Vec<TableCell> {
    let (sums, u) = (&row.totals, &row.totals.usage);
    let unless_zero = |n: u64, text: String| if n > 0 { text } else { String::new() };
    let cached = format!(
        "{} {}%",
        format_count(u.cache_read),
        u.cache_read.saturating_mul(100) / u.input_total().max(1)
    );
    vec![
        if row.name.is_empty() {
            TableCell::new(TextRole::Dim, "(none)")
        } else {
            (&row.name).into()
        },
        sums.requests.to_string().into(),
        TableCell::new(TextRole::Error, unless_zero(sums.failed, sums.failed.to_string())),
        format_count(u.input_total()).into(),
        unless_zero(u.cache_read, cached).into(),
        format_count(u.output_total()).into(),
        unless_zero(u.reasoning, format_count(u.reasoning)).into(),
        TableCell::new(TextRole::Strong, sums.displayed_cost().to_string()),
        TableCell::new(TextRole::Dim, bar),
    ]
}

fn total_tokens(sums: &Totals) -> u64 {
    sums.usage.input_total().saturating_add(sums.usage.output_total())
}

fn start_time_text(view: &UsageReport) -> String {
    let at = jiff::Timestamp::from_millisecond(view.from.0).unwrap_or_default();
    let zone = jiff::tz::TimeZone::get(&view.tz).unwrap_or(jiff::tz::TimeZone::system());
    at.to_zoned(zone).strftime("%Y-%m-%d %H:%M").to_string()
}

/// A bar in eighths of a column.
fn bar(share: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * (BAR_WIDTH * 8) as f64).round() as usize;
    // A nonzero share is always visible.
    let eighths = if share > 0.0 { eighths.max(1) } else { 0 };
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

/// `999`, `1.2k`, `1.21M`.
fn format_count(n: u64) -> String {
    match n {
        0..1_000 => n.to_string(),
        1_000..99_950 => format!("{:.1}k", n as f64 / 1e3),
        99_950..999_500 => format!("{:.0}k", n as f64 / 1e3),
        999_500..99_950_000 => format!("{:.2}M", n as f64 / 1e6),
        _ => format!("{:.0}M", n as f64 / 1e6),
    }
}

fn csv_text(view: &UsageReport) -> String {
    let mut text = format!(
        "{},requests,failed,attempts,input,cache_read,cache_write_5m,cache_write_1h,output,reasoning,audio_in,audio_out,image_in,image_out,searches,cost_usd,unpriced,estimated,at_least\r\n",
        view.by.name()
    );
    for TotalsRow { name, totals: sums } in &view.rows {
        let u = &sums.usage;
        let numbers = [
            sums.requests,
            sums.failed,
            sums.attempts,
            u.input,
            u.cache_read,
            u.cache_write_5m,
            u.cache_write_1h,
            u.output,
            u.reasoning,
            u.audio_in,
            u.audio_out,
            u.image_in,
            u.image_out,
            u.searches,
        ];
        let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        let cost = sums
            .displayed_cost()
            .usd
            .map(|usd| crate::base::money::format_nanos(usd.0))
            .unwrap_or_default();
        let last = [sums.unpriced, sums.estimated, sums.at_least].map(|n| n.to_string()).join(",");
        text.push_str(&format!(
            "{},{},{cost},{last}\r\n",
            export::csv_cell(name),
            numbers.join(",")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::clock::UnixMillis, ir::usage::Usage};

    fn view() -> UsageReport {
        let sums = |requests, input, cache_read, cost, unpriced| Totals {
            requests,
            attempts: requests,
            usage: Usage { input, cache_read, output: 100, reasoning: 20, ..Usage::default() },
            cost: NanoUsd(cost),
            unpriced,
            ..Totals::default()
        };
        let rows = vec![
            TotalsRow {
                name: "claude-sonnet-4-5".into(),
                totals: sums(122, 200_000, 900_000, 1_310_000_000, 0),
            },
            TotalsRow { name: "=cheap".into(), totals: sums(2, 10, 0, 400_000, 0) },
            TotalsRow { name: "mystery".into(), totals: sums(3, 50, 0, 0, 3) },
        ];
        let day =
            |name: &str, cost| TotalsRow { name: name.into(), totals: sums(1, 1, 0, cost, 0) };
        UsageReport {
            rates: Vec::new(),
            by: GroupBy::Model,
            from: UnixMillis(1_700_000_000_000),
            until: UnixMillis(1_700_100_000_000),
            tz: "UTC".into(),
            rows,
            total: sums(127, 200_060, 900_000, 1_310_400_000, 3),
            days: vec![day("2023-11-14", 1_000_000_000), day("2023-11-15", 310_400_000)],
            demo: Totals::default(),
        }
    }

    #[test]
    fn unknown_cost_is_never_shown_as_zero() {
        let text = usage_page("7 days", &view(), Styler::plain());
        let row = |name: &str| {
            text.lines()
                .find(|line| line.starts_with(name))
                .unwrap_or_else(|| panic!("{name} in {text}"))
                .to_owned()
        };
        assert!(
            row("claude").contains("1.10M")
                && row("claude").contains("900k 81%")
                && row("claude").contains("$1.310"),
            "{text}"
        );
        assert!(row("=cheap").contains("<$0.001") && row("=cheap").contains('▏'), "{text}");
        assert!(row("mystery").contains('–') && !row("mystery").contains('$'), "{text}");
        assert!(row("7 days").contains("≥$1.310"), "{text}");
        assert!(text.contains("\n        since 2023-11-14 22:13, days in UTC\n"), "{text}");
        assert!(row("2023-11-14").contains("████████████████████████"), "{text}");
    }

    #[test]
    fn csv_cells_are_never_formulas() {
        let text = csv_text(&view());
        assert_eq!(text.lines().count(), 4);
        assert!(text.contains("\r\n\"'=cheap\",2,0,2,10,0,0,0,100,20,"), "{text}");
        assert!(text.contains("mystery,3,0,3,50,0,0,0,100,20,0,0,0,0,0,,3,0,0\r\n"), "{text}");
    }

    #[test]
    fn empty_period_is_reported() {
        let empty =
            UsageReport { rows: Vec::new(), days: Vec::new(), total: Totals::default(), ..view() };
        assert!(
            usage_page("total", &empty, Styler::plain()).contains("no requests since 2023-11-14")
        );

        let demo_only = UsageReport { demo: Totals { requests: 7, ..Totals::default() }, ..empty };
        assert!(
            usage_page("total", &demo_only, Styler::plain())
                .ends_with("not counted: 7 requests to the built-in upstream `demo`\n")
        );
    }
}
