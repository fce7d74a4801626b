//! `aiproxy log export`: the history for other programs.

use clap::{Args, ValueEnum};

use crate::{
    cli::{
        books::Books,
        exit::{CliError, Exit},
        out,
    },
    control::history::{HistoryQuery, MAX_PAGE},
    ledger::export,
};

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// What to export; everything without
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// One JSON object a line, or CSV for spreadsheets
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
    /// Since when: 7d, today, 36h, a date or a time
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// With what was sent and answered (JSON only)
    #[arg(long)]
    bodies: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Csv,
    Jsonl,
}

/// Prints every request that the filter keeps, the newest first, a page at a time.
pub(super) async fn run(books: &Books, args: ExportArgs) -> Result<Exit, CliError> {
    if args.bodies && args.format == Format::Csv {
        return Err(CliError::usage("--bodies needs --format jsonl"));
    }
    let filter = super::filter::read(&args.filter)?;
    if args.format == Format::Csv {
        out::print(&export::csv_header())?;
    }
    let mut question = HistoryQuery {
        filter: filter.text().to_owned(),
        since: args.since,
        before_id: None,
        limit: MAX_PAGE,
    };
    loop {
        let page = books.history(&question).await?;
        for record in &page.requests {
            match args.format {
                Format::Csv => out::print(&export::csv_row(record))?,
                Format::Jsonl if args.bodies => {
                    out::json_line(&books.full(&record.id.to_string()).await?)?
                }
                Format::Jsonl => out::json_line(record)?,
            }
        }
        match page.next {
            Some(next) => question.before_id = Some(next),
            None => return Ok(Exit::Ok),
        }
    }
}
