//! The temporary files of a run: a private folder that exists while the program runs.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{recipe::Recipe, values::Values};
use crate::{
    base::fs::{self, FileLock},
    cli::error::{CliError, path_error},
};

/// The folder of all runs, in the data dir.
const RUNS: &str = "run-tools";
/// Locked while a folder is made or old ones are removed.
const MAKING_LOCK: &str = "making.lock";
/// Locked in the folder of a run while the run lasts.
const RUN_LOCK: &str = ".lock";

/// Waits for the lock that lets only one command at a time make what all runs share.
///
/// # Errors
///
/// The data dir cannot be written.
pub(super) fn lock_runs(data: &Path) -> Result<FileLock, CliError> {
    let runs = data.join(RUNS);
    fs::create_private_dir(&runs)
        .and_then(|()| FileLock::acquire(&runs.join(MAKING_LOCK)))
        .map_err(|error| path_error(&runs, &error))
}

/// The folder of a run; removed when dropped, and after a crash by the next run.
pub(super) struct RunFolder {
    path: PathBuf,
    /// Released before the folder is removed, as some systems remove no open file.
    lock: Option<FileLock>,
}

impl RunFolder {
    /// Makes a new folder, and removes those of runs that crashed.
    ///
    /// # Errors
    ///
    /// The data dir cannot be written.
    pub(super) fn create(data: &Path) -> Result<Self, CliError> {
        let making = lock_runs(data)?;
        let runs = std::path::absolute(data.join(RUNS))
            .map_err(|error| path_error(&data.join(RUNS), &error))?;
        remove_abandoned(&runs);
        let mut salt = [0; 8];
        let made = getrandom::fill(&mut salt)
            .map_err(|error| io::Error::other(error.to_string()))
            .and_then(|()| {
                let name: String = salt.iter().map(|byte| format!("{byte:02x}")).collect();
                let path = runs.join(name);
                fs::create_private_dir(&path)?;
                let lock = Some(FileLock::acquire(&path.join(RUN_LOCK))?);
                Ok(Self { path, lock })
            });
        drop(making);
        made.map_err(|error| path_error(&runs, &error))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the files of a recipe, and links what else the program has in a folder of its own.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub(super) fn fill(&self, recipe: &Recipe, values: &Values<'_>) -> Result<(), CliError> {
        for file in &recipe.files {
            let text = match values.value(&file.to) {
                Some(serde_json::Value::String(text)) => format!("{text}\n"),
                Some(value) => format!("{value:#}\n"),
                None => continue,
            };
            let path = self.path.join(&file.path);
            fs::write_atomic(&path, text.as_bytes(), 0o600)
                .map_err(|error| path_error(&path, &error))?;
        }
        if let Some(folder) = recipe.links.as_deref().and_then(user_folder) {
            self.link_entries(&folder);
        }
        Ok(())
    }

    /// Links every entry of a folder that has no file here. What cannot be linked is missing, which
    /// is no reason not to run the program.
    fn link_entries(&self, folder: &Path) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let here = self.path.join(entry.file_name());
            if here.symlink_metadata().is_err() {
                drop(link(&entry.path(), &here));
            }
        }
    }
}

#[cfg(unix)]
fn link(to: &Path, here: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(to, here)
}

#[cfg(not(unix))]
fn link(to: &Path, here: &Path) -> io::Result<()> {
    if to.is_dir() {
        std::os::windows::fs::symlink_dir(to, here)
    } else {
        std::os::windows::fs::symlink_file(to, here)
    }
}

/// Reads `{VARIABLE:default}/rest`; the default is in the home folder.
fn user_folder(template: &str) -> Option<PathBuf> {
    let (variable, rest) = template.strip_prefix('{')?.split_once('}')?;
    let (variable, default) = variable.split_once(':')?;
    let moved = std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = moved.or_else(|| Some(std::env::home_dir()?.join(default)))?;
    Some(folder.join(rest.trim_start_matches('/')))
}

/// Removes the folders whose run has ended without removing them.
fn remove_abandoned(runs: &Path) {
    let Ok(entries) = std::fs::read_dir(runs) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        // Links to folders are no folders of runs.
        let is_folder = path.symlink_metadata().is_ok_and(|found| found.is_dir());
        if is_folder && matches!(FileLock::try_acquire(&path.join(RUN_LOCK)), Ok(Some(_))) {
            drop(std::fs::remove_dir_all(&path));
        }
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        drop(self.lock.take());
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::debug!(%error, "the folder of the run is left for the next one");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_a_crashed_run_goes_and_one_in_use_stays() {
        let data = tempfile::tempdir().unwrap();
        let first = RunFolder::create(data.path()).unwrap();
        let crashed = data.path().join(RUNS).join("0123");
        fs::create_private_dir(&crashed).unwrap();
        fs::write_atomic(&crashed.join("keys.json"), b"{}", 0o600).unwrap();

        let second = RunFolder::create(data.path()).unwrap();
        let (first_path, second_path) = (first.path().to_owned(), second.path().to_owned());
        assert!(!crashed.exists() && first_path.exists() && first_path != second_path);

        drop(first);
        assert!(!first_path.exists() && second_path.exists());
    }

    #[cfg(unix)]
    #[test]
    fn removing_a_folder_leaves_what_its_links_name() {
        let data = tempfile::tempdir().unwrap();
        let own = data.path().join("own");
        fs::create_private_dir(&own.join("logs")).unwrap();
        fs::write_atomic(&own.join("logs/1"), b"x", 0o600).unwrap();

        let run = RunFolder::create(data.path()).unwrap();
        run.link_entries(&own);
        assert!(run.path().join("logs/1").exists());
        drop(run);

        assert!(own.join("logs/1").exists());
    }
}
