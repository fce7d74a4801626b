//! The command-line arguments. Each command defines its own arguments in its module.

use clap::{Parser, Subcommand};

use crate::cli::{
    alerts, ask, completions, config,
    context::GlobalArgs,
    env, explain, key, lifecycle, log, mcp, model, project, route,
    serve::{self, args::ServeArgs},
    tools::{connect, doctor, import, run, service},
    upstream, usage,
};

const ABOUT: &str = "The AI proxy on your laptop: every tool, every provider key, one localhost port, one live dashboard";

const AFTER: &str = "\
Start here:
  aiproxy serve               run the proxy; needs no config and no key
  aiproxy key add openai      store a key in the OS keyring and use it
  eval \"$(aiproxy env)\"       point the SDKs and tools of this shell at the proxy
  aiproxy run claude-code     start a tool that uses the proxy
  aiproxy tui                 open the dashboard

Exit codes: 0 ok, 1 failed, 2 usage, 3 config error, 4 proxy not reachable.
Environment: AIPROXY_CONFIG, AIPROXY_DATA_DIR, AIPROXY_TOKEN, AIPROXY_KEYS_PASSPHRASE_FILE,
NO_COLOR, VISUAL, EDITOR.";

/// The parsed command line.
#[derive(Debug, Parser)]
#[command(name = "aiproxy", version, about = ABOUT, after_help = AFTER)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy in this terminal
    #[command(after_help = serve::args::EXAMPLES)]
    Serve(ServeArgs),
    /// Open the dashboard of the running proxy; start a proxy if none is running
    #[command(after_help = TUI)]
    Tui,
    /// Show the state of the proxy, config, upstreams, keys and requests
    #[command(after_help = STATUS)]
    Status,
    /// Stop the running proxy
    #[command(
        after_help = "Running requests may finish within the time `server.drain`; --now aborts them."
    )]
    Stop(lifecycle::StopArgs),
    /// Stop the running proxy and start it again, as a service if it was one
    #[command(after_help = RESTART)]
    Restart(lifecycle::RestartArgs),
    /// Run the proxy as a service that starts at login
    #[command(subcommand)]
    Service(service::ServiceCommand),
    /// Apply the config file and read every key reference again
    #[command(after_help = RELOAD)]
    Reload,
    /// Print shell commands that point SDKs and tools at the proxy
    #[command(after_help = env::EXAMPLES)]
    Env(env::EnvArgs),
    /// Point a tool's own files at the proxy
    #[command(after_help = connect::EXAMPLES)]
    Connect(connect::ConnectArgs),
    /// Undo `connect` exactly
    Disconnect(connect::DisconnectArgs),
    /// Start a coding tool that uses the proxy; its own files stay as they are
    #[command(after_help = run::EXAMPLES)]
    Run(run::RunArgs),
    /// Manage provider keys: add, list, test, cool, warm, …
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Manage upstreams: provider endpoints
    #[command(subcommand)]
    Upstream(upstream::UpstreamCommand),
    /// Manage models: the names that clients can request
    #[command(subcommand)]
    Model(model::ModelCommand),
    /// Manage projects: client identities and their keys
    #[command(subcommand)]
    Project(project::ProjectCommand),
    /// Manage MCP servers: add, list, test, call their tools
    #[command(subcommand)]
    Mcp(mcp::McpCommand),
    /// Take over the config of another proxy or router
    #[command(after_help = import::EXAMPLES)]
    Import(import::ImportArgs),
    /// Check everything that can be in the way, and name the command that mends it
    #[command(after_help = doctor::EXAMPLES)]
    Doctor,
    /// Show, check and change the config file
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// List active alerts and test their delivery
    #[command(subcommand)]
    Alerts(alerts::AlertsCommand),
    /// Explain which upstream would serve a model, and why the others would not
    #[command(after_help = route::EXAMPLES)]
    Route(route::RouteArgs),
    /// Show recent requests and events, or one request in full
    #[command(after_help = log::EXAMPLES, args_conflicts_with_subcommands = true)]
    Log(log::LogArgs),
    /// Sum tokens and cost by model, project, upstream, key, client, session or time
    #[command(after_help = usage::EXAMPLES)]
    Usage(usage::UsageArgs),
    /// Explain one request: its attempts, its cost and how to fix a failure
    #[command(after_help = explain::EXAMPLES)]
    Explain(explain::ExplainArgs),
    /// Ask a model through the proxy and stream its answer
    #[command(after_help = ask::EXAMPLES)]
    Ask(ask::AskArgs),
    /// Print shell completions
    #[command(after_help = completions::EXAMPLES)]
    Completions(completions::CompletionArgs),
    /// Write the man pages into a folder
    Man(completions::ManArgs),
}

impl Command {
    /// Returns whether this command runs a proxy in its own process and needs a multi-threaded
    /// runtime.
    #[must_use]
    pub fn runs_proxy(&self) -> bool {
        matches!(self, Self::Serve(_) | Self::Restart(_) | Self::Tui)
    }

    /// Returns whether this command runs another program, to which its signals and limits belong.
    #[must_use]
    pub fn runs_program(&self) -> bool {
        matches!(self, Self::Run(_))
    }
}

const TUI: &str = "\
Press `?` in the dashboard for the key bindings. If the proxy was already running, `q` closes
only the dashboard; if this command started the proxy, `q` asks whether to stop it.";

const STATUS: &str = "\
Exits with code 4 if no proxy is running. In scripts, use `aiproxy status --json`; its times
are RFC 3339.";

const RESTART: &str = "\
Stops the running proxy as `aiproxy stop` does. A proxy that runs as a service is started as
one; any other runs in this terminal, with the --config and --data-dir of this command.";

const RELOAD: &str = "\
The proxy also reloads when the file is saved. An invalid file changes nothing: the command
prints every problem and exits with code 3.";

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_definition_is_valid() {
        Cli::command().debug_assert();
    }

    /// Calls `check` for a command and all its subcommands.
    fn each(command: &clap::Command, path: &str, check: &mut impl FnMut(&str, &clap::Command)) {
        let path = format!("{path} {}", command.get_name());
        check(&path, command);
        command.get_subcommands().for_each(|subcommand| each(subcommand, &path, check));
    }

    #[test]
    fn every_argument_has_a_help_text() {
        each(&Cli::command(), "", &mut |path, command| {
            for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                assert!(arg.get_help().is_some(), "{path}: {}", arg.get_id());
            }
        });
    }

    #[test]
    fn examples_in_help_fit_100_columns() {
        each(&Cli::command(), "", &mut |path, command| {
            for line in command
                .get_after_help()
                .map(ToString::to_string)
                .iter()
                .flat_map(|text| text.lines())
            {
                assert!(unicode_width::UnicodeWidthStr::width(line) <= 96, "{path}: {line}");
            }
        });
    }

    #[test]
    fn global_options_are_accepted_before_and_after_the_command() {
        for line in [
            &["aiproxy", "--config", "a", "key", "list", "--json"][..],
            &["aiproxy", "key", "list", "--json", "--config", "a"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert!(cli.global.json && cli.global.config == Some(PathBuf::from("a")), "{line:?}");
        }
    }
}
