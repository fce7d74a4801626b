//! `aiproxy mcp`: manages MCP servers.

mod add;
mod call;
mod edit;
mod import;
mod import_file;
mod list;
mod login;
mod lookup;
mod pipe;

use std::{ffi::OsString, path::PathBuf};

use clap::Subcommand;

use crate::{
    cli::{
        context::CommandContext,
        error::{CliError, ExitStatus},
    },
    mcp::wire::process,
};

#[derive(Debug, Subcommand)]
pub enum McpCommand {
    /// Add a server to the config
    #[command(after_help = add::EXAMPLES)]
    Add(add::AddServerArgs),
    /// List the servers, how they stand, and the number of their tools
    List,
    /// Show the row of a server, without secrets
    Show {
        /// Server name
        name: String,
    },
    /// Connect to a server, count its tools and measure the time
    Test {
        /// Server name
        name: String,
    },
    /// List the tools of a server, or of all
    Tools {
        /// Server name
        name: Option<String>,
    },
    /// Call a tool and print its result
    #[command(after_help = call::EXAMPLES)]
    Call {
        /// Server name
        name: String,
        /// Name of the tool, without prefix
        tool: String,
        /// Arguments of the tool
        #[arg(value_name = "JSON", default_value = "{}")]
        arguments: String,
    },
    /// Show what a server wrote to its standard error
    Logs {
        /// Server name
        name: String,
    },
    /// Log in at a server with OAuth, in the browser
    Login {
        /// Server name
        name: String,
    },
    /// Use a server again
    Enable {
        /// Server name
        name: String,
    },
    /// Keep a server in the config without using it
    Disable {
        /// Server name
        name: String,
    },
    /// Remove a server from the config
    Remove {
        /// Server name
        name: String,
    },
    /// Take over the servers of another tool's config file
    #[command(after_help = import::EXAMPLES)]
    Import {
        /// File with `mcpServers`, `servers` or `mcp_servers`
        file: PathBuf,
    },
    /// Serve the servers over standard input and output, for clients that start a program
    #[command(after_help = pipe::EXAMPLES)]
    Stdio(pipe::StdioArgs),
    /// Become a server's program; used by the proxy itself
    #[command(hide = true)]
    Child {
        /// Process of the proxy
        parent: u32,
        /// Program and arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

/// Runs an `mcp` command.
///
/// # Errors
///
/// As the individual commands.
pub async fn run(ctx: &CommandContext, command: McpCommand) -> Result<ExitStatus, CliError> {
    match command {
        McpCommand::Add(args) => add::run(ctx, args).await,
        McpCommand::Call { name, tool, arguments } => call::call(ctx, &name, tool, arguments).await,
        McpCommand::Child { parent, command } => become_child(parent, &command),
        McpCommand::Disable { name } => edit::set_enabled(ctx, &name, false).await,
        McpCommand::Enable { name } => edit::set_enabled(ctx, &name, true).await,
        McpCommand::Import { file } => import::run(ctx, &file).await,
        McpCommand::List => list::list(ctx).await,
        McpCommand::Login { name } => login::run(ctx, &name).await,
        McpCommand::Logs { name } => call::logs(ctx, &name).await,
        McpCommand::Remove { name } => edit::remove(ctx, &name).await,
        McpCommand::Show { name } => list::show(ctx, &name),
        McpCommand::Stdio(args) => pipe::run(ctx, args).await,
        McpCommand::Test { name } => call::test(ctx, &name).await,
        McpCommand::Tools { name } => call::tools(ctx, name.as_deref()).await,
    }
}

fn become_child(parent: u32, command: &[OsString]) -> Result<ExitStatus, CliError> {
    let Some((program, args)) = command.split_first() else {
        return Err(CliError::usage("a program is missing"));
    };
    let program = PathBuf::from(program);
    let error = process::become_child(parent, &program, args);
    Err(CliError::failed(format!("{}: {error}", program.display())))
}
