//! `aiproxy alerts`: what stands, and a test of the ways out.

use clap::Subcommand;

use super::{
    CommandContext,
    exit::{CliError, ExitStatus},
    out::{self, Styler, TextRole},
    reach::RunningProxy,
    status,
    table::{TableCell, TextTable},
    when,
};
use crate::{
    base::clock::{Clock, SystemClock},
    control::action::Action,
    events::kind::Severity,
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
                out::print_json(&alerts.iter().map(status::alert_json).collect::<Vec<_>>())?;
                return Ok(ExitStatus::Ok);
            }
            if alerts.is_empty() {
                out::print_line("nothing is wrong that alerts tell of")?;
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
                    when::span(now.0 - active.since.0).into(),
                    (&*active.alert.text).into(),
                ]);
            }
            out::print(&table.render(Styler::stdout()))?;
            Ok(ExitStatus::Ok)
        }
        AlertsCommand::Test => ctx.print_result(&proxy.send_action(&Action::TestAlerts).await?),
    }
}
