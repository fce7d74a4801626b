//! `aiproxy log export`: exports the history for other programs.

use clap::{Args, ValueEnum};

use crate::{
    cli::{
        error::{CliError, ExitStatus},
        ledger_source::LedgerSource,
        output,
    },
    control::history::{HistoryQuery, MAX_PAGE},
    ledger::export,
};

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Filter; exports everything if omitted
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// One JSON object per line, or CSV for spreadsheets
    #[arg(long, value_enum, default_value_t = ExportFormat::Jsonl)]
    format: ExportFormat,
    /// Start: 7d, today, 36h, a date or a time
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// End, in the same forms; a day is included
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Include request and response bodies (JSON only)
    #[arg(long)]
    bodies: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    Csv,
    Jsonl,
}

/// Prints every request that matches the filter, newest first, one page at a time.
pub(super) async fn run(
    ledger_source: &LedgerSource,
    args: ExportArgs,
) -> Result<ExitStatus, CliError> {
    if args.bodies && args.format == ExportFormat::Csv {
        return Err(CliError::usage("--bodies needs --format jsonl"));
    }
    let filter = super::filter::parse_filter(&args.filter)?;
    if args.format == ExportFormat::Csv {
        output::print(&export::csv_header())?;
    }
    let mut query = HistoryQuery {
        filter: filter.text().to_owned(),
        since: args.since,
        until: args.until,
        before_id: None,
        limit: MAX_PAGE,
    };
    loop {
        let page = ledger_source.history(&query).await?;
        for record in &page.requests {
            match args.format {
                ExportFormat::Csv => output::print(&export::csv_row(record))?,
                ExportFormat::Jsonl if args.bodies => output::print_json_line(
                    &ledger_source.request_detail(&record.id.to_string()).await?,
                )?,
                ExportFormat::Jsonl => output::print_json_line(record)?,
            }
        }
        match page.next {
            Some(next) => query.before_id = Some(next),
            None => return Ok(ExitStatus::Ok),
        }
    }
}
