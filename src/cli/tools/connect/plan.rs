//! Plans the edit of each file of a tool; changes nothing.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{
    facts::{SettingFact, ToolFile},
    journal::{FileChange, digest},
};
use crate::cli::{
    error::{CliError, path_error},
    tools::{
        edit::{self, EditFault, path::Step},
        run::values::Values,
    },
};

/// The readers of a file that contains a key.
const PRIVATE_MODE: u32 = 0o600;

/// A planned edit.
pub(super) struct FilePlan {
    pub(super) change: FileChange,
    /// The text of the file now; `None` if it does not exist.
    pub(super) current: Option<String>,
    pub(super) text: String,
    /// The mode to write it with; `None` is that of a new file.
    pub(super) mode: Option<u32>,
    pub(super) has_key: bool,
}

impl FilePlan {
    /// Returns whether the file has to be written.
    pub(super) fn is_change(&self) -> bool {
        self.current.as_ref() != Some(&self.text)
    }
}

/// Plans the edit of one file. `known` is its earlier edit.
///
/// # Errors
///
/// The file cannot be read, is not valid, or has a form that cannot be edited.
pub(super) fn plan_file(
    file: &ToolFile,
    path: PathBuf,
    values: &Values<'_>,
    known: Option<&FileChange>,
) -> Result<FilePlan, CliError> {
    let real = behind_links(&path);
    let current = read_text(&path)?;
    let mode_now = file_mode(&real);
    let (base, base_mode) = match (known, &current) {
        (Some(known), Some(text)) if known.is_written(text) => (known.before.clone(), known.mode),
        (Some(known), Some(text)) => {
            (undo_text(known, text).map_err(|fault| file_error(&path, &fault))?, known.mode)
        }
        (_, current) => (current.clone(), mode_now),
    };
    let text = base.as_deref().unwrap_or_default();
    let form = TextForm::of(text);
    let plain = form.to_plain(text);
    let wanted =
        wanted_settings(file, &plain, values, known).map_err(|fault| file_error(&path, &fault))?;
    let settings: Vec<(Vec<Step>, Value, bool)> = wanted
        .iter()
        .map(|(fact, value)| (fact.at.clone(), value.clone(), fact.own || fact.has_key()))
        .collect();
    let (edited, mut made) =
        edit::apply(file.format, &plain, &settings).map_err(|fault| file_error(&path, &fault))?;
    for (setting, (fact, _)) in made.iter_mut().zip(&wanted) {
        if fact.has_key() {
            // The journal has no keys; such a value is undone whatever it is then.
            setting.to = Value::Null;
        }
    }
    let text = form.apply(&edited);
    let mode = if file.key { Some(PRIVATE_MODE) } else { base_mode };
    let mut written = known.map(|known| known.written.clone()).unwrap_or_default();
    let hash = digest(&text);
    if !written.contains(&hash) {
        written.push(hash);
    }
    let change = FileChange {
        path,
        real,
        format: file.format,
        before: base,
        mode: base_mode,
        after: (!file.key).then(|| text.clone()),
        written,
        settings: made,
    };
    Ok(FilePlan { change, current, text, mode, has_key: file.key })
}

/// Returns the settings to make. A setting with an unknown value is left out.
fn wanted_settings<'f>(
    file: &'f ToolFile,
    text: &str,
    values: &Values<'_>,
    known: Option<&FileChange>,
) -> Result<Vec<(&'f SettingFact, Value)>, EditFault> {
    let present = file.format.parse(text)?;
    let facts = file.set.iter().filter(|fact| {
        let is_kept =
            fact.keep && !present.is_null() && edit::path::get(&present, &fact.at).is_some();
        !is_kept && !fact.is_left_out(values.model)
    });
    // A value that the tool changes itself, such as a time, stays as it was made first.
    let made_before = |fact: &SettingFact| {
        let mut settings = known.iter().flat_map(|known| &known.settings);
        let made = settings.find(|made| fact.own && made.at == fact.at && !made.to.is_null())?;
        Some(made.to.clone())
    };
    let value = |fact: &SettingFact| made_before(fact).or_else(|| values.value(&fact.to));
    Ok(facts.filter_map(|fact| Some((fact, value(fact)?))).collect())
}

/// Returns the text without the edit; `None` if nothing else is in the file.
///
/// # Errors
///
/// The file is not valid any more.
pub(super) fn undo_text(change: &FileChange, current: &str) -> Result<Option<String>, EditFault> {
    let form = TextForm::of(current);
    let plain = |text: &str| TextForm::of(text).to_plain(text);
    let before = change.before.as_deref().map(plain);
    let after = change.after.as_deref().map(plain);
    let undone = edit::undo(
        change.format,
        &change.settings,
        before.as_deref(),
        // Without it only the meaning is compared.
        after.as_deref().or(before.as_deref()).unwrap_or_default(),
        &form.to_plain(current),
    )?;
    Ok(undone.map(|text| form.apply(&text)))
}

/// What editors keep of a text file besides its lines.
#[derive(Clone, Copy)]
struct TextForm {
    has_mark: bool,
    /// Every line ends in CR LF.
    has_crlf: bool,
}

const BYTE_ORDER_MARK: char = '\u{feff}';

impl TextForm {
    fn of(text: &str) -> Self {
        let breaks = text.matches('\n').count();
        Self {
            has_mark: text.starts_with(BYTE_ORDER_MARK),
            has_crlf: breaks > 0 && text.matches("\r\n").count() == breaks,
        }
    }

    fn to_plain(self, text: &str) -> String {
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        if self.has_crlf { text.replace("\r\n", "\n") } else { text.to_owned() }
    }

    fn apply(self, text: &str) -> String {
        let text = if self.has_crlf { text.replace('\n', "\r\n") } else { text.to_owned() };
        if self.has_mark { format!("{BYTE_ORDER_MARK}{text}") } else { text }
    }
}

/// Returns the file that a path leads to, also if that file does not exist.
fn behind_links(path: &Path) -> PathBuf {
    if let Ok(real) = std::fs::canonicalize(path) {
        return real;
    }
    match std::fs::read_link(path) {
        Ok(target) => path.parent().map_or(target.clone(), |folder| folder.join(&target)),
        Err(_) => path.to_owned(),
    }
}

/// Reads a file; `None` if it does not exist.
///
/// # Errors
///
/// The file cannot be read, or is no text.
pub(super) fn read_text(path: &Path) -> Result<Option<String>, CliError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(path_error(path, &error)),
    }
}

#[cfg(unix)]
pub(super) fn file_mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).ok().map(|found| found.permissions().mode() & 0o7777)
}

#[cfg(not(unix))]
pub(super) fn file_mode(_: &Path) -> Option<u32> {
    None
}

/// The error of a file that cannot be edited.
fn file_error(path: &Path, fault: &EditFault) -> CliError {
    let path = path.display();
    match fault {
        EditFault::Syntax { line, why } => CliError::config(format!("{path}:{line}: {why}"))
            .hint("repair the file, then connect again; nothing was changed"),
        EditFault::Unsupported(why) => CliError::failed(format!("{path}: {why}"))
            .hint("--print shows the settings to make by hand; nothing was changed"),
    }
}
