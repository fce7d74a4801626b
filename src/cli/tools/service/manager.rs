//! What every system that runs services can do.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::{
    base::fs::write_atomic,
    cli::error::{CliError, path_error},
};

use super::definition::Definition;

/// The state of the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RegisteredService {
    pub(super) installed: bool,
    /// Whether it starts at login.
    pub(super) enabled: bool,
    pub(super) running: bool,
    /// Whether it ended with an error.
    pub(super) failed: bool,
    pub(super) pid: Option<u32>,
}

/// A system that runs services of a user.
pub(super) trait ServiceManager {
    /// The text that `install` registers.
    fn render(&self, definition: &Definition) -> String;

    /// The file of the text; `None` if the system keeps it itself.
    fn file(&self) -> Result<Option<PathBuf>, CliError>;

    /// Checks whether it can be asked.
    ///
    /// # Errors
    ///
    /// Why not, and what to do instead.
    fn check(&self) -> Result<(), CliError>;

    /// Registers the service, to be started at login. Returns what is worth a note.
    ///
    /// # Errors
    ///
    /// A file cannot be written, or the system refuses.
    fn install(&self, definition: &Definition) -> Result<Option<String>, CliError>;

    /// Starts the service and waits until it runs.
    ///
    /// # Errors
    ///
    /// The system refuses, or the service does not start.
    fn start(&self) -> Result<(), CliError>;

    /// Stops the service and waits until it has ended.
    ///
    /// # Errors
    ///
    /// The system refuses.
    fn stop(&self) -> Result<(), CliError>;

    /// Returns the state.
    ///
    /// # Errors
    ///
    /// The system does not answer.
    fn state(&self) -> Result<RegisteredService, CliError>;

    /// Stops the service and removes its registration.
    ///
    /// # Errors
    ///
    /// The system refuses, or a file cannot be removed.
    fn uninstall(&self) -> Result<(), CliError>;

    /// Where the output of the service is shown.
    fn log_command(&self) -> &'static str;
}

/// Runs a program of the system and returns what it printed.
///
/// # Errors
///
/// It is not installed.
pub(super) fn call(program: &str, args: &[&str]) -> Result<Output, CliError> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    command.output().map_err(|error| CliError::failed(format!("{program}: {error}")))
}

/// Runs a program of the system, which must succeed.
///
/// # Errors
///
/// Its own message.
pub(super) fn call_ok(program: &str, args: &[&str]) -> Result<Output, CliError> {
    let output = call(program, args)?;
    if output.status.success() {
        return Ok(output);
    }
    let reply = String::from_utf8_lossy(&output.stderr);
    let reply = reply.lines().find(|line| !line.trim().is_empty()).unwrap_or("it failed").trim();
    Err(CliError::failed(format!("{program} {}: {reply}", args.join(" "))))
}

/// Writes the file of a service, with its folder. A file of another program stays.
///
/// # Errors
///
/// It has not the mark, or cannot be written.
pub(super) fn write_file(path: &Path, text: &str, mark: &str) -> Result<(), CliError> {
    if std::fs::read_to_string(path).is_ok_and(|old| !old.contains(mark)) {
        return Err(CliError::failed(format!("{} was not written by aiproxy", path.display()))
            .hint("move it elsewhere first"));
    }
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder).map_err(|error| path_error(folder, &error))?;
    write_atomic(path, text.as_bytes(), 0o644).map_err(|error| path_error(path, &error))
}

/// Removes the file of a service; one that is missing is fine.
///
/// # Errors
///
/// It cannot be removed.
pub(super) fn remove_file(path: &Path) -> Result<(), CliError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(path_error(path, &error)),
        _ => Ok(()),
    }
}
