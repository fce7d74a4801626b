//! Undoes what `aiproxy connect` did.

use std::path::Path;

use super::{
    journal::{self, FileChange, Journal},
    own_config,
    plan::{file_mode, read_text, undo_text},
};
use crate::cli::{
    context::CommandContext,
    error::{CliError, ExitStatus, path_error},
    output,
};

/// Disconnects a tool: its files, its project and its key.
///
/// # Errors
///
/// A file cannot be restored; the others are, and the command can be repeated.
pub(super) async fn run(
    ctx: &CommandContext,
    tool: &str,
    data: &Path,
) -> Result<ExitStatus, CliError> {
    let lock = journal::lock(data)?;
    let Some(journal) = Journal::read(data, tool)? else {
        output::print_note(&format!("{tool} is not connected"));
        return Ok(ExitStatus::Ok);
    };
    let mut failed = None;
    for change in &journal.files {
        if let Err(error) = restore(change) {
            output::print_note(&format!("error: {}", error.text));
            failed = Some(error);
        }
    }
    if let Some(error) = failed {
        let text = format!("{tool} is not disconnected: {}", error.text);
        return Err(CliError { text, ..error });
    }
    for folder in journal.folders.iter().rev() {
        // A folder that the user put something into stays.
        drop(std::fs::remove_dir(folder));
    }
    own_config::remove(ctx, &journal, data).await?;
    Journal::remove(data, tool)?;
    drop(lock);
    output::print_line(&format!("{tool} is disconnected"))?;
    Ok(ExitStatus::Ok)
}

/// Brings the old bytes back, or takes out the edit alone if the file has changed since.
fn restore(change: &FileChange) -> Result<(), CliError> {
    drop(std::fs::remove_file(change.temporary()));
    let Some(current) = read_text(&change.real)? else { return Ok(()) };
    let is_unchanged = change.before.as_ref() == Some(&current);
    let restored = match () {
        () if is_unchanged => Some(current.clone()),
        () if change.is_written(&current) => change.before.clone(),
        () => undo_text(change, &current).map_err(|fault| {
            CliError::failed(format!("{}: {fault}", change.path.display()))
                .hint("repair the file, then disconnect again")
        })?,
    };
    let mode = change.mode.or_else(|| file_mode(&change.real));
    let done = match restored {
        None => std::fs::remove_file(&change.real),
        Some(text) if text == current && file_mode(&change.real) == mode => Ok(()),
        Some(text) => journal::replace_file(change, &text, mode),
    };
    done.map_err(|error| path_error(&change.path, &error))
}
