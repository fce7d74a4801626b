//! The commands: parses the command line, runs each command and prints text or JSON.

pub mod alerts;
pub mod args;
pub mod ask;
pub mod attach;
pub mod client_key;
pub mod completions;
pub mod config;
pub mod context;
pub mod env;
pub mod error;
pub mod explain;
pub mod expose;
pub mod key;
mod ledger_source;
pub mod lifecycle;
pub mod log;
pub mod mcp;
pub mod model;
mod model_facts;
pub mod output;
pub mod project;
pub mod prompt;
pub mod route;
pub mod serve;
pub mod status;
pub mod tools;
pub mod tui;
pub mod upstream;
pub mod usage;

use clap::CommandFactory;

use crate::{base::sanitize::clean, cli::context::CommandContext};

pub use args::{Cli, Command};
pub use error::{CliError, ExitStatus};

/// Runs the parsed command line.
///
/// # Errors
///
/// The failure, to be printed by [`report_error`].
pub async fn run(cli: Cli) -> Result<ExitStatus, CliError> {
    let ctx = CommandContext { global: cli.global };
    let Some(command) = cli.command else {
        output::print(&Cli::command().render_help().to_string())?;
        return Ok(ExitStatus::Ok);
    };
    // Boxed so that the size of the largest command's future does not apply to all of them.
    match command {
        Command::Alerts(command) => Box::pin(alerts::run(&ctx, command)).await,
        Command::Ask(args) => Box::pin(ask::run(&ctx, args)).await,
        Command::Completions(args) => completions::print_completions(&args, Cli::command()),
        Command::Config(command) => Box::pin(config::run(&ctx, command)).await,
        Command::Doctor => Box::pin(tools::doctor::run(&ctx)).await,
        Command::Explain(args) => Box::pin(explain::run(&ctx, args)).await,
        Command::Env(args) => Box::pin(env::run(&ctx, args)).await,
        Command::Import(args) => Box::pin(tools::import::run(&ctx, args)).await,
        Command::Key(command) => Box::pin(key::run(&ctx, command)).await,
        Command::Log(args) => Box::pin(log::run(&ctx, args)).await,
        Command::Man(args) => completions::write_man_pages(&args, Cli::command()),
        Command::Mcp(command) => Box::pin(mcp::run(&ctx, command)).await,
        Command::Model(command) => Box::pin(model::run(&ctx, command)).await,
        Command::Project(command) => Box::pin(project::run(&ctx, command)).await,
        Command::Reload => Box::pin(lifecycle::reload(&ctx)).await,
        Command::Restart(args) => Box::pin(lifecycle::restart(&ctx, args)).await,
        Command::Route(args) => Box::pin(route::run(&ctx, args)).await,
        Command::Connect(args) => Box::pin(tools::connect::run(&ctx, args)).await,
        Command::Disconnect(args) => Box::pin(tools::connect::disconnect(&ctx, args)).await,
        Command::Run(args) => Box::pin(tools::run::run(&ctx, args)).await,
        Command::Serve(args) => Box::pin(serve::serve(&ctx.global, args)).await,
        Command::Service(command) => Box::pin(tools::service::run(&ctx, command)).await,
        Command::Status => Box::pin(status::run(&ctx)).await,
        Command::Stop(args) => Box::pin(lifecycle::stop(&ctx, args)).await,
        Command::Tui => Box::pin(tui::run(&ctx)).await,
        Command::Upstream(command) => Box::pin(upstream::run(&ctx, command)).await,
        Command::Usage(args) => Box::pin(usage::run(&ctx, args)).await,
    }
}

/// Answers a shell's completion script; returns whether the process was called by one.
#[must_use]
pub fn answer_completion_request() -> bool {
    completions::answer_request(std::env::args_os(), Cli::command())
}

/// Prints help, the version or an error of the arguments; returns the exit code. An error repeats
/// the arguments, which a script may have from elsewhere, so nothing in them reaches the terminal
/// as a control sequence.
#[must_use]
pub fn report_usage(error: &clap::Error) -> i32 {
    let unprintable = |arg: std::ffi::OsString| {
        arg.to_str().is_none_or(|text| matches!(clean(text), std::borrow::Cow::Owned(_)))
    };
    if error.use_stderr() && std::env::args_os().any(unprintable) {
        let message = error.to_string();
        let lines: Vec<_> = message.lines().map(clean).collect();
        output::print_note(&lines.join("\n"));
        return error.exit_code();
    }
    // A closed pipe is not an error for help.
    let is_closed_pipe = |e: std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
    if error.print().map_or_else(is_closed_pipe, |()| true) { error.exit_code() } else { 1 }
}

/// Prints on stderr why a command failed.
pub fn report_error(error: &CliError) {
    if error.text.is_empty() {
        return;
    }
    let styler = output::Styler::stderr();
    let text: Vec<_> = error.text.lines().map(clean).collect();
    output::print_note(&format!(
        "{} {}",
        styler.style(output::TextRole::Error, "error:"),
        text.join("\n")
    ));
    for hint in error.hint.iter().flat_map(|hint| hint.lines()) {
        output::print_note(&format!("  {}", clean(hint)));
    }
}
