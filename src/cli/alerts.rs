//! `aiproxy alerts`: what stands, and a test of the ways out.

use clap::Subcommand;

use super::{
    CommandContext, status,
    table::{TableCell, TextTable},
};
use crate::cli::{
    attach::RunningProxy,
    error::{CliError, ExitStatus},
    output::{self, Styler, TextRole},
    time_format,
};
use crate::{
    base::clock::{Clock, SystemClock},
    control::action::Action,
    events::event::Severity,
};

/// What to do with alerts.
#[derive(Debug, Subcommand)]
pub enum AlertsCommand {
    /// Show the troubles that stand
    List,
    /// Send a test every way that `[alerts]` names, and say what came of it
    Test,
}

/// Lists or tests.
///
/// # Errors
///
/// No proxy runs; a test that was not taken.
pub async fn run(ctx: &CommandContext, command: AlertsCommand) -> Result<ExitStatus, CliError> {
    let proxy = RunningProxy::connect(ctx).await?;
    match command {
        AlertsCommand::List => {
            let alerts = proxy.snapshot().await?.alerts;
            if ctx.global.json {
                output::print_json(&alerts.iter().map(status::alert_json).collect::<Vec<_>>())?;
                return Ok(ExitStatus::Ok);
            }
            if alerts.is_empty() {
                output::print_line("nothing is wrong that alerts tell of")?;
                return Ok(ExitStatus::Ok);
            }
            let now = SystemClock.unix();
            let mut table = TextTable::new(&["ALERT", "FOR", "WHAT"]);
            for active in &alerts {
                let role = if active.alert.level == Severity::Error {
                    TextRole::Error
                } else {
                    TextRole::Warn
                };
                table.row(vec![
                    TableCell::new(role, active.alert.kind.name()),
                    time_format::span(now.0 - active.since.0).into(),
                    (&*active.alert.text).into(),
                ]);
            }
            output::print(&table.render(Styler::stdout()))?;
            Ok(ExitStatus::Ok)
        }
        AlertsCommand::Test => ctx.print_result(&proxy.send_action(&Action::TestAlerts).await?),
    }
}
