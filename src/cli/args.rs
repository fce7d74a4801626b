//! The command-line arguments. Each command defines its own arguments in its module.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::{
    alerts, ask, completions, env, explain, key, log, model, project, route, upstream, usage,
};
use crate::cli::{config, error::CliError, lifecycle};
use crate::config::{
    discover::Environment,
    file::{self, Paths},
};

const ABOUT: &str = "The AI proxy on your laptop: every tool, every provider key, one localhost port, one live dashboard";

const AFTER: &str = "\
Start here:
  aiproxy serve               serve what environment and machine offer; works without any key
  aiproxy key add openai      store a key in the OS keyring and use it
  eval \"$(aiproxy env)\"       point the SDKs and tools of this shell at the proxy
  aiproxy tui                 the dashboard

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

/// Options that every command accepts, before or after its name.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Config file [default: config.toml in the platform's config dir, or AIPROXY_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Data dir [default: the platform's data dir, or AIPROXY_DATA_DIR]; commands use it to find
    /// the proxy
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Connect to the proxy at this URL; its control token comes from AIPROXY_TOKEN or --token-file
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// File with the control token for --url
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Skip confirmation prompts
    #[arg(long, short = 'y', global = true)]
    pub yes: bool,
}

impl GlobalArgs {
    /// Resolves the config file and the data dir.
    ///
    /// # Errors
    ///
    /// Neither a flag nor the environment names a location and there is no home directory, or the
    /// data dir is invalid.
    pub fn paths(&self) -> Result<Paths, CliError> {
        let paths = file::locate(
            self.config.as_deref(),
            self.data_dir.as_deref(),
            &Environment::from_process(),
        )
        .map_err(CliError::failed)?;
        if paths.data.is_file() {
            return Err(CliError::failed(format!(
                "{}: a file, not a folder",
                paths.data.display()
            ))
            .hint("--data-dir or AIPROXY_DATA_DIR names the folder for data"));
        }
        Ok(paths)
    }
}

impl GlobalArgs {
    /// The options that make another command use the same config and data, each preceded by a
    /// space. Empty if no option is needed.
    #[must_use]
    pub fn path_flags(&self, paths: &Paths) -> String {
        let flag = |name: &str, path: &std::path::Path| {
            format!(" {name} {}", shell_quote(&path.display().to_string()))
        };
        let config = self.config.as_ref().map(|_| flag("--config", &paths.config));
        let data = self.data_dir.as_ref().map(|_| flag("--data-dir", &paths.data));
        [config, data].into_iter().flatten().collect()
    }
}

/// Quotes a word for a POSIX shell.
fn shell_quote(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+@:,=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy in this terminal
    #[command(after_help = SERVE)]
    Serve(ServeArgs),
    /// Open the dashboard of the running proxy; start a proxy if none is running
    #[command(after_help = TUI)]
    Tui,
    /// Show the state of the proxy, config, upstreams, keys and requests
    #[command(after_help = STATUS)]
    Status,
    /// Stop the running proxy
    #[command(
        after_help = "Open requests may finish, for as long as `server.drain` says; --now cuts them."
    )]
    Stop(lifecycle::StopArgs),
    /// Stop the running proxy and start it again in this terminal
    #[command(after_help = RESTART)]
    Restart(lifecycle::RestartArgs),
    /// Apply the config file and read every key reference again
    #[command(after_help = RELOAD)]
    Reload,
    /// Print shell lines that point SDKs and tools at the proxy
    #[command(after_help = env::EXAMPLES)]
    Env(env::EnvArgs),
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
    /// Sum tokens and cost by model, project, upstream, key, client, session or day
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
}

const TUI: &str = "\
In the dashboard `?` shows all keys. Attached, `q` leaves it and the proxy goes on; started
here, `q` asks.";

const STATUS: &str = "\
Exit code 4 where no proxy runs. `aiproxy status --json` is made for scripts; its times are
RFC 3339.";

const RESTART: &str = "\
The proxy that was running ends as with `aiproxy stop`; the new one belongs to this terminal,
with this command's --config and --data-dir.";

const RELOAD: &str = "\
Saving the file does the same. A broken file changes nothing: exit code 3, and every problem is
printed.";

const SERVE: &str = "\
Without a config file it serves what it finds: keys in the environment (OPENAI_API_KEY, …),
local servers on their usual ports, and the built-in upstream `demo`.

Examples:
  aiproxy serve
  aiproxy serve --listen 127.0.0.1:9000
  aiproxy serve --tui
  aiproxy serve --demo             only the built-in upstream: nothing leaves this machine";

/// Arguments of `serve`.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    /// Listen on this address instead of the config's; repeatable. `8642` means loopback on IPv4
    /// and IPv6; port 0 picks a free port
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// Open the dashboard in this terminal
    #[arg(long)]
    pub tui: bool,
    /// Use only the built-in upstream `demo`; ignore the upstreams of config and environment
    #[arg(long)]
    pub demo: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    /// Calls `check` for a command and all its subcommands.
    fn each(command: &clap::Command, path: &str, check: &mut impl FnMut(&str, &clap::Command)) {
        let path = format!("{path} {}", command.get_name());
        check(&path, command);
        command.get_subcommands().for_each(|below| each(below, &path, check));
    }

    #[test]
    fn whatever_a_person_types_is_described() {
        each(&Cli::command(), "", &mut |path, command| {
            for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                assert!(arg.get_help().is_some(), "{path}: {}", arg.get_id());
            }
        });
    }

    #[test]
    fn what_stands_below_help_fits_a_terminal_of_100_columns() {
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
    fn other_commands_are_told_where_this_one_looks() {
        let global = GlobalArgs { data_dir: Some("d".into()), ..GlobalArgs::default() };
        let paths = Paths { config: "/c".into(), data: "/my data/it's".into(), explicit: false };
        assert_eq!(global.path_flags(&paths), r" --data-dir '/my data/it'\''s'");
        assert_eq!(
            GlobalArgs { config: Some("c".into()), ..GlobalArgs::default() }.path_flags(&paths),
            " --config /c"
        );
        assert_eq!(GlobalArgs::default().path_flags(&paths), "");
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for line in [
            &["aiproxy", "--config", "a", "key", "list", "--json"][..],
            &["aiproxy", "key", "list", "--json", "--config", "a"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert!(cli.global.json && cli.global.config == Some(PathBuf::from("a")), "{line:?}");
        }
    }
}
