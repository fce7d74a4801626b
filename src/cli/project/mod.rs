//! `aiproxy project`: manages client identities and the keys that clients send.

mod add;
mod edit;
pub(super) mod lookup;
mod show;

use clap::Subcommand;

use crate::cli::{
    context::CommandContext,
    error::{CliError, ExitStatus},
};

#[derive(Debug, Subcommand)]
pub enum ProjectCommand {
    /// Add a project and create its key
    #[command(after_help = add::EXAMPLES)]
    Add(add::AddProjectArgs),
    /// Print only the key of a project, for programs that run a command to get it
    Key {
        /// Project name
        #[arg(default_value = "default")]
        name: String,
    },
    /// List projects and their limits
    List,
    /// Show a project and the fingerprint of its key
    Show {
        /// Project name
        #[arg(default_value = "default")]
        name: String,
        /// Print the key itself
        #[arg(long)]
        reveal: bool,
    },
    /// Change settings of a project
    #[command(after_help = edit::EXAMPLES)]
    Set {
        /// Project name
        name: String,
        /// Settings, as in rpm=120
        #[arg(required = true, value_name = "KEY=VALUE")]
        values: Vec<String>,
    },
    /// Remove a project from the config and its key from the keyring
    Remove {
        /// Project name
        name: String,
    },
    /// Create a new key; the old one stops working immediately
    Rotate {
        /// Project name
        #[arg(default_value = "default")]
        name: String,
    },
}

/// Runs a `project` command.
///
/// # Errors
///
/// As the individual commands.
pub async fn run(ctx: &CommandContext, command: ProjectCommand) -> Result<ExitStatus, CliError> {
    match command {
        ProjectCommand::Add(args) => add::run(ctx, args).await,
        ProjectCommand::Key { name } => show::key(ctx, &name).await,
        ProjectCommand::List => show::list(ctx).await,
        ProjectCommand::Remove { name } => edit::remove(ctx, &name).await,
        ProjectCommand::Rotate { name } => edit::rotate(ctx, &name).await,
        ProjectCommand::Set { name, values } => edit::set(ctx, &name, &values).await,
        ProjectCommand::Show { name, reveal } => show::show(ctx, &name, reveal).await,
    }
}
