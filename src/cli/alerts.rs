//! `aiproxy alerts`: lists active alerts and tests the alert channels.

use clap::Subcommand;

use crate::{
    base::clock::{Clock, SystemClock},
    cli::{
        attach::RunningProxy,
        context::CommandContext,
        error::{CliError, ExitStatus},
        output::{
            self, Styler, TextRole,
            table::{TableCell, TextTable},
            time_format,
        },
        status,
    },
    control::action::Action,
    events::event::Severity,
};

/// The `alerts` commands.
#[derive(Debug, Subcommand)]
pub enum AlertsCommand {
    /// List active alerts
    List,
    /// Send a test alert to every channel in `[alerts]` and report each result
    Test,
}

/// Runs an `alerts` command.
///
/// # Errors
///
/// No proxy is running, or the test alert was not delivered.
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
                output::print_line("no active alerts")?;
                return Ok(ExitStatus::Ok);
            }
            let now = SystemClock.unix();
            let mut table = TextTable::new(&["ALERT", "FOR", "MESSAGE"]);
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
