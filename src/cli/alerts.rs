//! `aiproxy alerts`: what stands, and a test of the ways out.

use clap::Subcommand;

use super::{
    Ctx,
    exit::{CliError, Exit},
    out::{self, Paint, Role},
    reach::Reach,
    status,
    table::{Cell, Table},
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
pub async fn run(ctx: &Ctx, command: AlertsCommand) -> Result<Exit, CliError> {
    let reach = Reach::find(ctx).await?;
    match command {
        AlertsCommand::List => {
            let alerts = reach.snapshot().await?.alerts;
            if ctx.global.json {
                out::json(&alerts.iter().map(status::alert_json).collect::<Vec<_>>())?;
                return Ok(Exit::Ok);
            }
            if alerts.is_empty() {
                out::line("nothing is wrong that alerts tell of")?;
                return Ok(Exit::Ok);
            }
            let now = SystemClock.unix();
            let mut table = Table::new(&["ALERT", "FOR", "WHAT"]);
            for standing in &alerts {
                let role =
                    if standing.alert.level == Severity::Error { Role::Bad } else { Role::Warn };
                table.row(vec![
                    Cell::new(role, standing.alert.kind.name()),
                    when::span(now.0 - standing.since.0).into(),
                    (&*standing.alert.text).into(),
                ]);
            }
            out::print(&table.show(Paint::stdout()))?;
            Ok(Exit::Ok)
        }
        AlertsCommand::Test => ctx.done(&reach.act(&Action::TestAlerts).await?),
    }
}
