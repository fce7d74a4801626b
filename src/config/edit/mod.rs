//! Edits the file's text for commands and the dashboard. Comments, order and formatting stay.
//! Removing a row also removes the comment directly above it, and removing a key the comment behind
//! it.

mod key_list;
pub mod lines;
mod remove;
mod row;

use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value};

use crate::base::suggest;
use crate::config::{Problem, keys, schema::targets};

/// One change. `path` and `value` have the form of `config set`: `timeouts.idle` `5m`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    AddKey {
        upstream: String,
        reference: String,
        label: Option<String>,
    },
    /// A `[[mcp]]` row with these keys; the values are TOML.
    AddMcp {
        name: String,
        fields: Vec<(&'static str, String)>,
    },
    AddModel {
        name: String,
        targets: Vec<String>,
        strategy: Option<String>,
    },
    AddProject {
        name: String,
        key: String,
    },
    AddUpstream {
        name: String,
        preset: Option<String>,
        base_url: Option<String>,
        dialects: Vec<String>,
    },
    RemoveAlias {
        name: String,
    },
    RemoveKey {
        upstream: String,
        label: String,
    },
    RemoveMcp {
        name: String,
    },
    /// A `[[model]]` row, or the alias with that name.
    RemoveModel {
        name: String,
    },
    RemoveProject {
        name: String,
    },
    RemoveUpstream {
        name: String,
    },
    /// The same key with a new reference.
    ReplaceKeyReference {
        upstream: String,
        label: String,
        reference: String,
    },
    Set {
        path: String,
        value: String,
    },
    SetAlias {
        name: String,
        target: String,
    },
    SetKeyEnabled {
        upstream: String,
        label: String,
        enabled: bool,
    },
    SetModel {
        name: String,
        path: String,
        value: String,
    },
    SetProject {
        name: String,
        path: String,
        value: String,
    },
    SetUpstream {
        name: String,
        path: String,
        value: String,
    },
    SetUpstreamEnabled {
        name: String,
        enabled: bool,
    },
    Unset {
        path: String,
    },
}

/// Why a change was not made. The file is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// Another program changed the file again and again.
    #[error("{0}: it is being changed by another program; try again")]
    Busy(std::path::PathBuf),
    #[error("{path}: {message}")]
    Io { path: std::path::PathBuf, message: String },
    /// The file cannot be replaced, for this reason.
    #[error("{}: the config file is read-only: {}", .0.path.display(), .0.reason)]
    ReadOnly(Box<ReadOnlyFile>),
    /// The change names an item that is missing, or one that exists already.
    #[error("{0}")]
    BadPath(String),
    /// The file with the change would not load; `source` is that text, not an error.
    #[error("{}", first_error(problems))]
    Invalid { problems: Vec<Problem>, r#source: String },
    #[error(
        "the file is not valid TOML, so nothing can be changed in it; `aiproxy config edit` opens it"
    )]
    Syntax,
}

/// A config file that cannot be replaced, and the change that it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadOnlyFile {
    pub path: std::path::PathBuf,
    /// Why it cannot be replaced.
    pub reason: String,
    /// What to do so that it can be changed.
    pub remedy: String,
    /// The first line that would change, from 1; 0 if nothing is to be changed.
    pub line: usize,
    /// The new text of the lines that would change, without keys; empty if lines only go.
    pub lines: String,
}

fn first_error(problems: &[Problem]) -> String {
    let errors: Vec<_> =
        problems.iter().filter(|p| p.level == crate::config::ProblemSeverity::Error).collect();
    match errors.as_slice() {
        [] => "the config would not load".to_owned(),
        [one] => one.one_line(),
        [one, rest @ ..] => format!("{} (and {} more)", one.one_line(), rest.len()),
    }
}

/// Applies all changes to the text, in their order. Line ends and a byte order mark stay.
///
/// # Errors
///
/// [`EditError::Syntax`] and [`EditError::BadPath`]. The caller must check whether the result
/// loads.
pub fn apply_edits(text: &str, edits: &[Edit]) -> Result<String, EditError> {
    lines::edit_plain(text, |mut text| {
        for edit in edits {
            text = apply_edit(&text, edit)?;
        }
        Ok(text)
    })
}

fn apply_edit(text: &str, edit: &Edit) -> Result<String, EditError> {
    match edit {
        Edit::AddKey { upstream, reference, label } => in_row(text, "upstream", upstream, |row| {
            key_list::add_key(row, reference, label.as_deref())
        }),
        Edit::AddMcp { name, fields } => {
            let each = fields.iter().map(|(key, value)| (*key, read_value(value, false)));
            let fields = each.collect();
            in_document(text, |doc| row::add_row(doc, "mcp", name, fields))
        }
        Edit::AddModel { name, targets, strategy } => {
            let mut fields = vec![("targets", list_value(targets))];
            fields.extend(strategy.as_deref().map(|strategy| ("strategy", Value::from(strategy))));
            in_document(text, |doc| row::add_row(doc, "model", name, fields))
        }
        Edit::AddProject { name, key } => {
            let fields = vec![("key", Value::from(key.as_str()))];
            in_document(text, |doc| row::add_row(doc, "project", name, fields))
        }
        Edit::AddUpstream { name, preset, base_url, dialects } => {
            let fields = upstream_fields(preset.as_deref(), base_url.as_deref(), dialects);
            in_document(text, |doc| row::add_row(doc, "upstream", name, fields))
        }
        Edit::RemoveAlias { name } => remove::remove_key(text, &["aliases", name]),
        Edit::RemoveKey { upstream, label } => {
            in_row(text, "upstream", upstream, |row| key_list::remove_key(row, upstream, label))
        }
        Edit::RemoveMcp { name } => remove::remove_row(text, "mcp", name),
        Edit::RemoveModel { name } => {
            let rows = remove::remove_row(text, "model", name);
            if rows.is_err() { remove::remove_key(text, &["aliases", name]).or(rows) } else { rows }
        }
        Edit::RemoveProject { name } => remove::remove_row(text, "project", name),
        Edit::RemoveUpstream { name } => remove::remove_row(text, "upstream", name),
        Edit::ReplaceKeyReference { upstream, label, reference } => {
            in_row(text, "upstream", upstream, |row| {
                key_list::replace_reference(row, upstream, label, reference)
            })
        }
        Edit::Set { path, value } => in_document(text, |doc| set_path(doc, path, value)),
        Edit::SetAlias { name, target } => in_document(text, |doc| {
            set_value(subtable(doc.as_table_mut(), "aliases")?, name, target.as_str().into());
            Ok(())
        }),
        Edit::SetKeyEnabled { upstream, label, enabled } => {
            in_row(text, "upstream", upstream, |row| {
                key_list::set_enabled(row, upstream, label, *enabled)
            })
        }
        Edit::SetModel { name, path, value } => set_in_row(text, "model", name, path, value),
        Edit::SetProject { name, path, value } => set_in_row(text, "project", name, path, value),
        Edit::SetUpstream { name, path, value } => set_in_row(text, "upstream", name, path, value),
        Edit::SetUpstreamEnabled { name, enabled } => in_row(text, "upstream", name, |row| {
            // True is the default: a row without the key stays unchanged.
            if row.contains_key("enabled") || !enabled {
                set_value(row, "enabled", Value::from(*enabled));
            }
            Ok(())
        }),
        Edit::Unset { path } => unset_path(text, path),
    }
}

/// Changes the document of a text.
fn in_document(
    text: &str,
    change: impl FnOnce(&mut DocumentMut) -> Result<(), EditError>,
) -> Result<String, EditError> {
    let mut doc = parse(text)?;
    change(&mut doc)?;
    Ok(doc.to_string())
}

/// Changes one row of `[[kind]]`.
fn in_row(
    text: &str,
    kind: &str,
    name: &str,
    change: impl FnOnce(&mut dyn TableLike) -> Result<(), EditError>,
) -> Result<String, EditError> {
    in_document(text, |doc| change(row::find_row(doc, kind, name)?))
}

/// Sets a value of one row by its path in it.
fn set_in_row(
    text: &str,
    kind: &str,
    name: &str,
    path: &str,
    value: &str,
) -> Result<String, EditError> {
    in_row(text, kind, name, |row| set_in_table(row, kind, &split_path(path)?, value))
}

/// The keys of a new upstream. A single dialect is a text, and several are a list.
fn upstream_fields(
    preset: Option<&str>,
    base_url: Option<&str>,
    dialects: &[String],
) -> Vec<(&'static str, Value)> {
    let mut fields = Vec::new();
    fields.extend(preset.map(|preset| ("preset", Value::from(preset))));
    fields.extend(base_url.map(|url| ("base_url", Value::from(url))));
    match dialects {
        [] => {}
        [one] => fields.push(("dialect", Value::from(one.as_str()))),
        many => fields.push(("dialect", list_value(many))),
    }
    fields
}

fn list_value(texts: &[String]) -> Value {
    Value::Array(texts.iter().map(String::as_str).collect::<Array>())
}

/// Returns whether a text is TOML, so that changes to it are possible.
#[must_use]
pub fn is_toml(text: &str) -> bool {
    parse(text.trim_start_matches('\u{feff}')).is_ok()
}

fn parse(text: &str) -> Result<DocumentMut, EditError> {
    text.parse::<DocumentMut>().map_err(|_| EditError::Syntax)
}

/// Sets a value by its full path.
fn set_path(doc: &mut DocumentMut, path: &str, value: &str) -> Result<(), EditError> {
    let names = split_path(path)?;
    match names.as_slice() {
        [table, rest @ ..] if table == "aliases" && !rest.is_empty() => {
            let target = value
                .parse::<Value>()
                .ok()
                .filter(Value::is_str)
                .unwrap_or_else(|| Value::from(value));
            let name = rest.join(".");
            set_value(subtable(doc.as_table_mut(), "aliases")?, &name, target);
            Ok(())
        }
        [kind, rest @ ..] if row::KINDS.contains(&kind.as_str()) => {
            let (name, key_path) = row::split_row_path(doc, kind, rest)?;
            set_in_table(row::find_row(doc, kind, &name)?, kind, &key_path, value)
        }
        _ => set_in_table(doc.as_table_mut(), "", &names, value),
    }
}

/// Sets a value by a path inside a table, and creates the tables on the way.
fn set_in_table(
    table: &mut dyn TableLike,
    prefix: &str,
    path: &[String],
    value: &str,
) -> Result<(), EditError> {
    let (last, parents) = path
        .split_last()
        .ok_or_else(|| EditError::BadPath(format!("`{prefix}` needs the name of a key")))?;
    let mut at = table;
    for name in parents {
        at = subtable(at, name)?;
    }
    if at.get(last).is_some_and(|item| item.is_array_of_tables() || item.is_table()) {
        return Err(EditError::BadPath(format!(
            "`{}` is a table; name one of its keys",
            path.join(".")
        )));
    }
    let known = keys::find(
        &[prefix, &path.join(".")]
            .iter()
            .filter(|p| !p.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join("."),
    );
    set_value(at, last, read_value(value, known.is_some_and(|key| key.kind.is_text)));
    Ok(())
}

/// Parses the text as a TOML value, or takes it as a string if it is not TOML. If the key only
/// takes text, `1` and `true` are strings too.
fn read_value(text: &str, only_text: bool) -> Value {
    match text.trim().parse::<Value>() {
        Ok(value)
            if !only_text || value.is_str() || value.is_array() || value.is_inline_table() =>
        {
            value.decorated(" ", "")
        }
        _ => Value::from(text),
    }
}

/// Sets a value; the decor of the old value, such as the comment behind it, stays.
fn set_value(table: &mut dyn TableLike, name: &str, mut value: Value) {
    match table.get_mut(name).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => {
            value.decor_mut().clear();
            // The space before the brace of an inline table stays there.
            if let Some((_, item)) = table.iter_mut().last()
                && let Some(last) = item.as_value_mut()
                && let Some(space) = last
                    .decor()
                    .suffix()
                    .filter(|space| space.as_str().is_some_and(|s| s.chars().all(|c| c == ' ')))
                    .cloned()
            {
                last.decor_mut().set_suffix("");
                value.decor_mut().set_prefix(" ");
                value.decor_mut().set_suffix(space);
            }
            table.insert(name, Item::Value(value));
        }
    }
}

/// Returns the table under a key, and creates it if it is missing.
fn subtable<'a>(
    table: &'a mut dyn TableLike,
    name: &str,
) -> Result<&'a mut dyn TableLike, EditError> {
    let inline = table.get("name").is_some();
    let item = table.entry(name).or_insert_with(|| {
        // In a row, a table with its own header would swallow the keys that follow it in the file.
        if inline {
            Item::Value(Value::InlineTable(toml_edit::InlineTable::new()))
        } else {
            Item::Table(Table::new())
        }
    });
    item.as_table_like_mut().ok_or_else(|| EditError::BadPath(format!("`{name}` is not a table")))
}

fn unset_path(text: &str, path: &str) -> Result<String, EditError> {
    let names = split_path(path)?;
    match names.as_slice() {
        [table, rest @ ..] if table == "aliases" && !rest.is_empty() => {
            remove::remove_key(text, &["aliases", &rest.join(".")])
        }
        [kind, rest @ ..] if row::KINDS.contains(&kind.as_str()) => {
            let mut doc = parse(text)?;
            let (name, key_path) = row::split_row_path(&mut doc, kind, rest)?;
            if key_path.is_empty() {
                return remove::remove_row(text, kind, &name);
            }
            remove::remove_row_key(text, kind, &name, &key_path)
        }
        names => remove::remove_key(text, &names.iter().map(String::as_str).collect::<Vec<_>>()),
    }
}

/// Splits `a.b."c.d"` at its dots.
fn split_path(path: &str) -> Result<Vec<String>, EditError> {
    let invalid = || {
        EditError::BadPath(format!(
            "`{path}` is not the path of a key; write it like `timeouts.idle` or `upstream.NAME.priority`"
        ))
    };
    let (mut out, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in path.trim().chars() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(q), c) if c == q => quote = None,
            (None, '.') => out.push(std::mem::take(&mut word)),
            (_, c) => word.push(c),
        }
    }
    out.push(word);
    if quote.is_some() || out.iter().any(String::is_empty) { Err(invalid()) } else { Ok(out) }
}

/// Returns the error for a missing item, with similar names.
fn not_found<'a>(kind: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> EditError {
    let near = suggest::nearest(name, known)
        .map(|near| format!("; did you mean `{near}`?"))
        .unwrap_or_default();
    let demo =
        if kind == "upstream" && name == targets::DEMO_NAME { " (it is built in)" } else { "" };
    EditError::BadPath(format!("there is no {kind} `{name}` in the file{demo}{near}"))
}
