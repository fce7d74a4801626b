//! Edits the files of other programs: comments, layout and unknown settings stay.
//!
//! Each format changes the text itself. Every result is parsed again and compared with the same
//! change of the parsed value, so that no edit can damage a file.

mod dotenv;
mod jsonc;
mod merge;
pub(super) mod path;
mod toml;
mod yaml;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use path::Step;

/// The syntax of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FileSyntax {
    /// `NAME=value` lines.
    Dotenv,
    /// JSON with comments and trailing commas.
    Jsonc,
    /// One value without its line break.
    Text,
    Toml,
    Yaml,
}

/// A setting that was made, and what there was before.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(super) struct Setting {
    pub at: Vec<Step>,
    pub to: Value,
    /// `None` if there was nothing.
    pub before: Option<Value>,
    /// The number of steps whose containers existed before.
    pub existing: usize,
    /// The program itself changes the value, so that any value is undone.
    pub own: bool,
}

/// Why a file cannot be edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EditFault {
    #[error("line {line}: {why}")]
    Syntax { line: usize, why: String },
    /// The file is valid but has a form that this program does not change.
    #[error("{0}")]
    Unsupported(String),
}

impl FileSyntax {
    /// Parses a file; an empty one is `null`.
    pub(super) fn parse(self, text: &str) -> Result<Value, EditFault> {
        match self {
            Self::Dotenv => Ok(dotenv::parse(text)),
            Self::Jsonc => jsonc::parse(text),
            Self::Text if text.trim().is_empty() => Ok(Value::Null),
            Self::Text => Ok(text.trim_end_matches(['\r', '\n']).into()),
            Self::Toml => toml::parse(text),
            Self::Yaml => yaml::parse(text),
        }
    }

    /// Sets one value in the text.
    fn set(self, text: &str, at: &[Step], to: &Value) -> Result<String, EditFault> {
        match self {
            Self::Dotenv => Ok(dotenv::set(text, at, to)),
            Self::Jsonc => jsonc::set(text, at, to),
            Self::Text => Ok(format!("{}\n", plain_text(to))),
            Self::Toml => toml::set(text, at, to),
            Self::Yaml => yaml::set(text, at, to),
        }
    }

    /// Removes one value from the text.
    fn remove(self, text: &str, at: &[Step]) -> Result<String, EditFault> {
        match self {
            Self::Dotenv => Ok(dotenv::remove(text, at)),
            Self::Jsonc => jsonc::remove(text, at),
            Self::Text => Ok(String::new()),
            Self::Toml => toml::remove(text, at),
            Self::Yaml => yaml::remove(text, at),
        }
    }
}

/// Makes the settings in a text; returns the new text and what there was before.
///
/// # Errors
///
/// The text has a syntax error, or a form that cannot be edited.
pub(super) fn apply(
    format: FileSyntax,
    text: &str,
    wanted: &[(Vec<Step>, Value, bool)],
) -> Result<(String, Vec<Setting>), EditFault> {
    let mut value = format.parse(text)?;
    let (mut text, mut made) = (text.to_owned(), Vec::new());
    for (at, to, own) in wanted {
        let before = path::get(&value, at).filter(|_| !value.is_null()).cloned();
        let existing =
            (0..=at.len()).rev().find(|n| path::get(&value, &at[..*n]).is_some()).unwrap_or(0);
        let setting =
            Setting { at: at.clone(), to: to.clone(), before: before.clone(), existing, own: *own };
        if before.as_ref() != Some(to) {
            text = format.set(&text, at, to)?;
            path::set(&mut value, at, to.clone());
            check(format, &text, &value)?;
        }
        made.push(setting);
    }
    Ok((text, made))
}

/// Compares what a text means with what it should mean.
fn check(format: FileSyntax, text: &str, want: &Value) -> Result<(), EditFault> {
    if format.parse(text)? == *want {
        return Ok(());
    }
    Err(EditFault::Unsupported("this file has a form that cannot be edited safely".to_owned()))
}

/// Undoes settings in a text that may have changed since. `before` and `after` are the texts of the
/// edit. Returns the text without the edit; `None` if nothing but the edit was in the file.
///
/// # Errors
///
/// As [`apply`].
pub(super) fn undo(
    format: FileSyntax,
    settings: &[Setting],
    before: Option<&str>,
    after: &str,
    current: &str,
) -> Result<Option<String>, EditFault> {
    if current == after {
        return Ok(before.map(str::to_owned));
    }
    let mut value = format.parse(current)?;
    let mut text = current.to_owned();
    for setting in settings.iter().rev() {
        undo_one(format, setting, &mut value, &mut text)?;
    }
    if before.is_none() && path::is_empty(&value) {
        return Ok(None);
    }
    // The edit's own text taken out again keeps the layout of what the user had. It counts only if
    // it means the same.
    let merged = merge::without_edit(before.unwrap_or_default(), after, current)
        .filter(|merged| format.parse(merged).as_ref() == Ok(&value));
    Ok(Some(merged.unwrap_or(text)))
}

/// Undoes one setting, unless the user changed it since.
fn undo_one(
    format: FileSyntax,
    setting: &Setting,
    value: &mut Value,
    text: &mut String,
) -> Result<(), EditFault> {
    let Some(now) = path::get(value, &setting.at).cloned() else { return Ok(()) };
    let restored = if setting.own || now == setting.to {
        setting.before.clone()
    } else {
        without_ours(&now, &setting.to, setting.before.as_ref())
    };
    if restored.as_ref() == Some(&now) {
        return Ok(());
    }
    if let Some(restored) = restored {
        *text = format.set(text, &setting.at, &restored)?;
        path::set(value, &setting.at, restored);
        return check(format, text, value);
    }
    *text = format.remove(text, &setting.at)?;
    if setting.at.is_empty() {
        *value = Value::Null;
        return Ok(());
    }
    path::remove(value, &setting.at);
    // The containers that the edit made go with its last value in them.
    for depth in (setting.existing.max(1)..setting.at.len()).rev() {
        let at = &setting.at[..depth];
        if path::get(value, at).is_some_and(path::is_empty) {
            *text = format.remove(text, at)?;
            path::remove(value, at);
        }
    }
    check(format, text, value)
}

/// What remains of a changed object without the fields of the edit; other values stay as the user
/// changed them.
fn without_ours(now: &Value, ours: &Value, before: Option<&Value>) -> Option<Value> {
    let (Value::Object(now), Value::Object(ours)) = (now, ours) else { return Some(now.clone()) };
    let mut rest = now.clone();
    for (name, to) in ours {
        let Some(found) = now.get(name) else { continue };
        let old = before.and_then(|before| before.get(name));
        let kept = if found == to { old.cloned() } else { without_ours(found, to, old) };
        match kept {
            Some(kept) => rest.insert(name.clone(), kept),
            None => rest.remove(name),
        };
    }
    (!rest.is_empty()).then_some(Value::Object(rest))
}

/// A scalar as the text of a file without quotes.
fn plain_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The line of a byte position, from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

/// The line break of a text: that of its first line.
fn line_break(text: &str) -> &'static str {
    match text.find('\n') {
        Some(at) if text[..at].ends_with('\r') => "\r\n",
        _ => "\n",
    }
}
