//! Locates, reads and edits the config file, without losing concurrent changes.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Environment, IdInterner, LoadResult, Problem, ProblemSeverity,
    edit::{self, Edit},
    load::load,
    write,
};
use crate::base::fs::{self, FileLock};
use crate::config::validate;

pub use super::edit::EditError;

/// Maximum size; no person wrote a larger file.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Locations of the config file and the data folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    pub config: PathBuf,
    /// The config file was given explicitly, so it must exist.
    pub explicit: bool,
    pub data: PathBuf,
}

/// Locates config file and data folder: from the flags, else from AIPROXY_CONFIG and
/// AIPROXY_DATA_DIR, else in the platform's default folders.
///
/// # Errors
///
/// A message, if there is no home folder and not both were given.
pub fn locate(
    config: Option<&Path>,
    data: Option<&Path>,
    env: &Environment,
) -> Result<Paths, String> {
    let variable = |name| env.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = config.map(Path::to_owned).or_else(|| variable("AIPROXY_CONFIG"));
    let data = data.map(Path::to_owned).or_else(|| variable("AIPROXY_DATA_DIR"));
    let explicit = config.is_some();
    let absolute =
        |path: PathBuf| std::path::absolute(&path).map_err(|e| format!("{}: {e}", path.display()));
    let home = || {
        directories::ProjectDirs::from("", "", "aiproxy")
            .ok_or("no home folder was found (HOME is not set); name the places with --config FILE and --data-dir DIR")
    };
    Ok(Paths {
        config: absolute(match config {
            Some(path) => path,
            None => home()?.config_dir().join("config.toml"),
        })?,
        data: absolute(match data {
            Some(path) => path,
            None => home()?.data_dir().to_owned(),
        })?,
        explicit,
    })
}

/// Reads the text of the config file; `None` if there is no file.
///
/// # Errors
///
/// A problem of the file as a whole: a folder, unreadable, too large, not UTF-8.
pub fn read_config(path: &Path) -> Result<Option<String>, Problem> {
    let file_problem = |title: &str, help: Option<&str>| {
        Problem::of_file(ProblemSeverity::Error, path, title.to_owned(), help.map(str::to_owned))
    };
    let found = match std::fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let dangling = std::fs::symlink_metadata(path).is_ok();
            return if dangling {
                Err(file_problem("a link to a file that is not there", None))
            } else {
                Ok(None)
            };
        }
        Err(e) => return Err(file_problem(&validate::io_error_text(&e), None)),
        Ok(found) => found,
    };
    if found.is_dir() {
        return Err(file_problem(
            "a folder, not a file",
            Some("name the file in it: `--config FOLDER/config.toml`"),
        ));
    }
    if found.len() > MAX_CONFIG_BYTES {
        return Err(file_problem(
            "larger than the 1MiB a config may have",
            Some("is it another file?"),
        ));
    }
    let bytes = match std::fs::read(path) {
        Ok(bytes) if bytes.len() as u64 > MAX_CONFIG_BYTES => {
            return Err(file_problem("larger than the 1MiB a config may have", None));
        }
        Ok(bytes) => bytes,
        Err(e) => {
            return Err(file_problem(
                &validate::io_error_text(&e),
                Some("check who owns it and its mode"),
            ));
        }
    };
    String::from_utf8(bytes).map(Some).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let before = &e.as_bytes()[..at];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let begin = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(&before[begin..]).chars().count() + 1;
        let help = Some("save the file as UTF-8".to_owned());
        Problem {
            line,
            column,
            span: at..at,
            ..Problem::of_file(ProblemSeverity::Error, path, "not UTF-8 text".to_owned(), help)
        }
    })
}

/// Edits the file: under a lock, on its current text, and only if the result loads, or has fewer
/// errors than before. Follows a link and replaces its target; creates a missing file with 0600.
///
/// # Errors
///
/// See [`EditError`]; the file is then unchanged.
pub fn edit_config(
    path: &Path,
    env: &Environment,
    edits: &[Edit],
) -> Result<LoadResult, EditError> {
    let planned = plan_edit(path, env, edits)?;
    if planned.is_unchanged() {
        return Ok(planned.loaded);
    }
    let io = |e: &io::Error| EditError::Io {
        path: path.to_owned(),
        message: validate::io_error_text(e),
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        fs::create_private_dir(folder).map_err(|e| io(&e))?;
    }
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let _lock = lock_config(&target)?;
    // If an editor saves in between, the second read detects it, and the edits are applied to the
    // new text.
    for _ in 0..5 {
        let planned = plan_edit(path, env, edits)?;
        if planned.is_unchanged() {
            return Ok(planned.loaded);
        }
        let now = read_config(path).map_err(unreadable)?;
        if now == planned.before {
            write::replace(&target, &planned.text).map_err(|e| io(&e))?;
            return Ok(planned.loaded);
        }
    }
    Err(EditError::Busy(path.to_owned()))
}

/// Checks that [`edit_config`] could make these changes now, and makes none.
///
/// # Errors
///
/// The same as [`edit_config`].
pub fn check_edit(path: &Path, env: &Environment, edits: &[Edit]) -> Result<(), EditError> {
    plan_edit(path, env, edits).map(drop)
}

/// The text with the changes, and what it loads to.
struct PlannedEdit {
    before: Option<String>,
    text: String,
    loaded: LoadResult,
}

impl PlannedEdit {
    fn is_unchanged(&self) -> bool {
        self.before.as_deref() == Some(self.text.as_str())
    }
}

fn plan_edit(path: &Path, env: &Environment, edits: &[Edit]) -> Result<PlannedEdit, EditError> {
    let before = read_config(path).map_err(unreadable)?;
    let source = before.as_deref().unwrap_or_default();
    let text = edit::apply_edits(source, edits)?;
    let loaded = load(&text, path, env, &mut IdInterner::default());
    if loaded.has_errors() {
        let errors_before = load(source, path, env, &mut IdInterner::default());
        if !is_repair(&errors_before, &loaded) {
            return Err(EditError::Invalid { problems: loaded.problems, source: text });
        }
    }
    let planned = PlannedEdit { before, text, loaded };
    if !planned.is_unchanged() {
        let source = planned.before.as_deref().unwrap_or_default();
        write::check_writable(path, source, &planned.text)?;
    }
    Ok(planned)
}

fn unreadable(problem: Problem) -> EditError {
    EditError::Invalid { problems: vec![problem], source: String::new() }
}

/// Returns whether a change removes errors and adds none.
fn is_repair(before: &LoadResult, after: &LoadResult) -> bool {
    let titles = |loaded: &LoadResult| {
        let errors = loaded.problems.iter().filter(|p| p.level == ProblemSeverity::Error);
        errors.map(|problem| problem.title.clone()).collect::<Vec<_>>()
    };
    let mut known = titles(before);
    let remain = titles(after).iter().all(|title| {
        known.iter().position(|known| known == title).map(|at| known.swap_remove(at)).is_some()
    });
    remain && !known.is_empty()
}

/// The lock is a separate file, because the config file itself is replaced. Half a minute is longer
/// than any edit takes.
fn lock_config(target: &Path) -> Result<FileLock, EditError> {
    let name =
        target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let lock_path = target.with_file_name(format!(".{name}.lock"));
    for _ in 0..1_500 {
        match FileLock::try_acquire(&lock_path) {
            Ok(Some(lock)) => return Ok(lock),
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
            Err(e) => {
                return Err(EditError::Io {
                    message: validate::io_error_text(&e),
                    path: lock_path,
                });
            }
        }
    }
    Err(EditError::Busy(target.to_owned()))
}
