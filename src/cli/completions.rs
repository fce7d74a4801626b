//! Shell completions and man pages, generated from the command-line definition.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::cli::{
    error::{self, CliError, ExitStatus},
    output,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  aiproxy completions bash > ~/.local/share/bash-completion/completions/aiproxy
  aiproxy completions zsh > ~/.zfunc/_aiproxy
  aiproxy completions fish > ~/.config/fish/completions/aiproxy.fish";

#[derive(Clone, Debug, Args)]
pub struct CompletionArgs {
    /// Shell to complete in
    shell: Shell,
}

#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Folder for the pages, created if it is missing
    dir: PathBuf,
}

/// Prints the completions of a shell.
///
/// # Errors
///
/// Standard output is closed.
pub fn print_completions(
    args: &CompletionArgs,
    mut command: Command,
) -> Result<ExitStatus, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "aiproxy", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitStatus::Ok)
}

/// Writes one man page per command.
///
/// # Errors
///
/// The folder cannot be written.
pub fn write_man_pages(args: &ManArgs, command: Command) -> Result<ExitStatus, CliError> {
    std::fs::create_dir_all(&args.dir)
        .and_then(|()| clap_mangen::generate_to(command, &args.dir))
        .map_err(|e| error::path_error(&args.dir, &e))?;
    output::print_line(&format!("man pages written to {}", args.dir.display()))?;
    Ok(ExitStatus::Ok)
}
