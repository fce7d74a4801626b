//! `aiproxy service`: the proxy as a service of the user, which starts at login.

mod definition;
mod launchd;
mod manager;
mod systemd;
mod windows_task;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    base::fs::create_private_dir,
    cli::{
        context::CommandContext,
        error::{CliError, ExitStatus, path_error},
        output, prompt,
    },
    control::rundir::RunDir,
};

use definition::Definition;
use manager::{RegisteredService, ServiceManager};

const INSTALL: &str = "\
Registers the proxy with the config and data dir of this command: a user service of systemd, an
agent of launchd, a task of Windows. It starts at login; `aiproxy service start` starts it now.
A service has no variables of a shell: keys in `env:NAME` belong into a file `env` next to the
config, or better into the keyring (`aiproxy key add`).";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Start the proxy at each login from now on
    #[command(after_help = INSTALL)]
    Install(InstallArgs),
    /// Start the service now
    Start,
    /// Stop the service until the next login
    Stop,
    /// Show whether the service is installed and runs; exits with code 4 if it does not run
    Status,
    /// Stop the service and remove it; config and data stay
    Uninstall,
}

#[derive(Debug, Args)]
pub struct InstallArgs {
    /// Print what would be registered, and change nothing
    #[arg(long)]
    print: bool,
}

/// Runs a subcommand.
///
/// # Errors
///
/// The system has no services for users, or refuses.
pub async fn run(ctx: &CommandContext, command: ServiceCommand) -> Result<ExitStatus, CliError> {
    let manager = manager();
    match command {
        ServiceCommand::Install(args) => install(ctx, manager, &args),
        ServiceCommand::Start => start(ctx, manager),
        ServiceCommand::Stop => stop(ctx, manager),
        ServiceCommand::Status => status(ctx, manager),
        ServiceCommand::Uninstall => uninstall(ctx, manager).await,
    }
}

/// Whether the service runs as this process.
pub(in crate::cli) fn is_process(pid: u32) -> bool {
    let manager = manager();
    manager.check().is_ok()
        && manager.state().is_ok_and(|state| state.running && state.pid == Some(pid))
}

/// Starts the service after its process was stopped.
///
/// # Errors
///
/// As `aiproxy service start`.
pub(in crate::cli) fn start_again(ctx: &CommandContext) -> Result<ExitStatus, CliError> {
    start(ctx, manager())
}

fn manager() -> &'static dyn ServiceManager {
    if cfg!(target_os = "macos") {
        &launchd::Launchd
    } else if cfg!(windows) {
        &windows_task::WindowsTask
    } else {
        &systemd::Systemd
    }
}

fn install(
    ctx: &CommandContext,
    manager: &dyn ServiceManager,
    args: &InstallArgs,
) -> Result<ExitStatus, CliError> {
    if args.print {
        let text = manager.render(&Definition::of(ctx)?);
        output::print(&text)?;
        return Ok(ExitStatus::Ok);
    }
    manager.check()?;
    let definition = Definition::of(ctx)?;
    // A folder that is missing when the service starts stays read-only for it.
    for folder in definition.writable.iter().filter(|folder| !folder.exists()) {
        create_private_dir(folder).map_err(|error| path_error(folder, &error))?;
    }
    let note = manager.install(&definition)?;
    for note in note.into_iter().chain(key_note(&definition)) {
        output::print_note(&format!("note: {note}"));
    }
    let place = match manager.file()? {
        Some(path) => format!(" ({})", path.display()),
        None => String::new(),
    };
    let next = if manager.state().is_ok_and(|state| state.running) {
        "it runs; `aiproxy service stop` and `start` apply a change of the service itself"
    } else {
        "`aiproxy service start` starts it now"
    };
    ctx.print_result(&format!("installed{place}; it starts at each login; {next}"))
}

/// The note that keys of this shell are missing in the service.
fn key_note(definition: &Definition) -> Option<String> {
    if definition.key_variables.is_empty() || definition.variables_file.exists() {
        return None;
    }
    Some(format!(
        "the service has no variables of this shell: write {} as NAME=value lines into {} (mode 600), \
         or store the keys in the keyring with `aiproxy key add`",
        definition.key_variables.join(", "),
        definition.variables_file.display()
    ))
}

fn not_installed() -> CliError {
    CliError::failed("the service is not installed").hint("`aiproxy service install` installs it")
}

fn start(ctx: &CommandContext, manager: &dyn ServiceManager) -> Result<ExitStatus, CliError> {
    manager.check()?;
    let state = manager.state()?;
    if !state.installed {
        return Err(not_installed());
    }
    if state.running {
        return ctx.print_result(&format!("{} already", describe(&state)));
    }
    if let Some(other) = RunDir::find_running(&ctx.global.paths()?.data) {
        return Err(CliError::failed(format!(
            "a proxy runs already outside the service (pid {})",
            other.pid
        ))
        .hint("`aiproxy stop` ends it, then start the service"));
    }
    manager.start().map_err(|error| {
        error.hint(format!(
            "`{}` shows why; `aiproxy doctor` checks the rest",
            manager.log_command()
        ))
    })?;
    ctx.print_result(&format!("started: {}", describe(&manager.state()?)))
}

fn stop(ctx: &CommandContext, manager: &dyn ServiceManager) -> Result<ExitStatus, CliError> {
    manager.check()?;
    let state = manager.state()?;
    if !state.installed && !state.running {
        return Err(not_installed());
    }
    if !state.running {
        return ctx.print_result("the service is not running");
    }
    manager.stop()?;
    ctx.print_result("stopped; it starts again at the next login")
}

fn status(ctx: &CommandContext, manager: &dyn ServiceManager) -> Result<ExitStatus, CliError> {
    manager.check()?;
    let state = manager.state()?;
    let file = manager.file()?.filter(|_| state.installed);
    if ctx.global.json {
        output::print_json_line(&json!({
            "installed": state.installed,
            "enabled": state.enabled,
            "running": state.running,
            "failed": state.failed,
            "pid": state.pid,
            "file": file,
        }))?;
    } else {
        output::print_line(&describe(&state))?;
        if state.failed {
            output::print_note(&format!("`{}` shows why", manager.log_command()));
        }
    }
    Ok(if state.running { ExitStatus::Ok } else { ExitStatus::Unreachable })
}

fn describe(state: &RegisteredService) -> String {
    if !state.installed && !state.running {
        return "the service is not installed; `aiproxy service install` installs it".to_owned();
    }
    let login = if state.enabled { "it starts at login" } else { "it does not start at login" };
    match (state.running, state.pid) {
        (true, Some(pid)) => format!("the service is running (pid {pid}); {login}"),
        (true, None) => format!("the service is running; {login}"),
        _ if state.failed => format!("the service is not running: it failed; {login}"),
        _ => format!("the service is not running; {login}"),
    }
}

async fn uninstall(
    ctx: &CommandContext,
    manager: &dyn ServiceManager,
) -> Result<ExitStatus, CliError> {
    manager.check()?;
    let state = manager.state()?;
    if !state.installed && !state.running {
        return ctx.print_result("the service is not installed; nothing was changed");
    }
    prompt::confirm(ctx, "stop the service and remove it?").await?;
    manager.uninstall()?;
    ctx.print_result("the service is removed; config and data stay")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_a_message() {
        let installed =
            || RegisteredService { installed: true, enabled: true, ..Default::default() };
        let running = RegisteredService { running: true, pid: Some(7), ..installed() };
        let failed = RegisteredService { failed: true, ..installed() };
        for (state, words) in [
            (RegisteredService::default(), "not installed"),
            (installed(), "not running; it starts at login"),
            (running, "running (pid 7)"),
            (failed, "it failed"),
        ] {
            assert!(describe(&state).contains(words), "{words}: {}", describe(&state));
        }
    }
}
