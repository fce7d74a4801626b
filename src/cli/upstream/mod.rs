//! `aiproxy upstream`: manages the provider endpoints of the config and shows discovered ones.

mod actions;
mod add;
mod edit;
mod list;
pub(super) mod lookup;
mod show;

use std::time::Duration;

use clap::Subcommand;

use crate::{
    base::units,
    cli::{
        context::CommandContext,
        error::{CliError, ExitStatus},
    },
    control::action::Action,
};

#[derive(Debug, Subcommand)]
pub enum UpstreamCommand {
    /// Add an upstream to the config
    #[command(after_help = add::EXAMPLES)]
    Add(add::AddUpstreamArgs),
    /// List upstreams from the config and discovered ones
    List,
    /// Show everything about an upstream
    Show {
        /// Upstream name
        name: String,
    },
    /// Change settings of an upstream
    #[command(after_help = edit::EXAMPLES)]
    Set {
        /// Upstream name
        name: String,
        /// Settings, as in priority=5
        #[arg(required = true, value_name = "KEY=VALUE")]
        values: Vec<String>,
    },
    /// Remove an upstream from the config; its stored keys are not deleted
    Remove {
        /// Upstream name
        name: String,
    },
    /// Enable an upstream
    Enable {
        /// Upstream name
        name: String,
    },
    /// Disable an upstream
    Disable {
        /// Upstream name
        name: String,
    },
    /// Test an upstream with each of its keys
    Test {
        /// Upstream name
        name: String,
    },
    /// Put an upstream on cooldown
    Cool {
        /// Upstream name
        name: String,
        /// Duration: 30s, 10m, 1h [default: 10m]
        #[arg(long = "for", value_name = "SPAN", value_parser = units::parse_duration)]
        span: Option<Duration>,
    },
    /// End the cooldowns of an upstream and its keys
    Warm {
        /// Upstream name
        name: String,
    },
    /// List the provider presets
    Presets,
}

/// Runs an `upstream` command.
///
/// # Errors
///
/// As the individual commands.
pub async fn run(ctx: &CommandContext, command: UpstreamCommand) -> Result<ExitStatus, CliError> {
    match command {
        UpstreamCommand::Add(args) => Box::pin(add::run(ctx, args)).await,
        UpstreamCommand::Cool { name, span } => {
            let for_ms = span.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
            actions::send(ctx, &name, |upstream| Action::CoolUpstream { upstream, for_ms }).await
        }
        UpstreamCommand::Disable { name } => edit::set_enabled(ctx, &name, false).await,
        UpstreamCommand::Enable { name } => edit::set_enabled(ctx, &name, true).await,
        UpstreamCommand::List => list::run(ctx).await,
        UpstreamCommand::Presets => list::presets(ctx),
        UpstreamCommand::Remove { name } => edit::remove(ctx, &name).await,
        UpstreamCommand::Set { name, values } => edit::set(ctx, &name, &values).await,
        UpstreamCommand::Show { name } => show::run(ctx, &name).await,
        UpstreamCommand::Test { name } => actions::test(ctx, &name).await,
        UpstreamCommand::Warm { name } => {
            actions::send(ctx, &name, |upstream| Action::WarmUpstream { upstream }).await
        }
    }
}
