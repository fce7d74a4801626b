//! Changes to the file's text, as commands and the dashboard ask for them. Comments, order and
//! formatting stay; what is taken out takes along what stands directly above it (a row) or behind
//! it (a key).

mod cut;
mod keylist;
mod row;

use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value};

use super::{Problem, check, keys};
use crate::base::near;

/// One change. `path` and `value` are as `config set` takes them: `timeouts.idle` `5m`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    AddKey {
        upstream: String,
        reference: String,
        label: Option<String>,
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
    /// A `[[model]]` row, or the alias of that name.
    RemoveModel {
        name: String,
    },
    RemoveProject {
        name: String,
    },
    RemoveUpstream {
        name: String,
    },
    /// The same key, kept elsewhere.
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

/// Why a change was not made. The file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// Somebody else changed the file, again and again.
    #[error("{0}: it is being changed by another program; try again")]
    Busy(std::path::PathBuf),
    #[error("{path}: {said}")]
    Io { path: std::path::PathBuf, said: String },
    /// The change names something that is not there, or is there already.
    #[error("{0}")]
    Place(String),
    /// The file with the change would not load; `source` is that text, no error of its own.
    #[error("{}", first(problems))]
    Refused { problems: Vec<Problem>, r#source: String },
    #[error(
        "the file is not valid TOML, so nothing can be changed in it; `aiproxy config edit` opens it"
    )]
    Syntax,
}

fn first(problems: &[Problem]) -> String {
    let errors: Vec<_> = problems.iter().filter(|p| p.level == super::Level::Error).collect();
    match errors.as_slice() {
        [] => "the config would not load".to_owned(),
        [one] => one.short(),
        [one, rest @ ..] => format!("{} (and {} more)", one.short(), rest.len()),
    }
}

/// The text with all changes made, in their order.
///
/// # Errors
///
/// [`EditError::Syntax`] and [`EditError::Place`]. Whether the result loads is for the caller to
/// see.
pub fn apply(text: &str, edits: &[Edit]) -> Result<String, EditError> {
    let mut text = text.to_owned();
    for edit in edits {
        text = one(&text, edit)?;
    }
    Ok(text)
}

fn one(text: &str, edit: &Edit) -> Result<String, EditError> {
    match edit {
        Edit::RemoveAlias { name } => return cut::key(text, &["aliases", name]),
        Edit::RemoveModel { name } => {
            let rows = cut::row(text, "model", name);
            return if rows.is_err() { cut::key(text, &["aliases", name]).or(rows) } else { rows };
        }
        Edit::RemoveProject { name } => return cut::row(text, "project", name),
        Edit::RemoveUpstream { name } => return cut::row(text, "upstream", name),
        Edit::Unset { path } => return unset(text, path),
        _ => {}
    }
    let mut doc = parse(text)?;
    match edit {
        Edit::AddKey { upstream, reference, label } => {
            keylist::add(row::find(&mut doc, "upstream", upstream)?, reference, label.as_deref())?;
        }
        Edit::AddModel { name, targets, strategy } => {
            let mut fields = vec![(
                "targets",
                Value::Array(targets.iter().map(String::as_str).collect::<Array>()),
            )];
            fields.extend(strategy.as_deref().map(|strategy| ("strategy", Value::from(strategy))));
            row::add(&mut doc, "model", name, fields)?;
        }
        Edit::AddProject { name, key } => {
            row::add(&mut doc, "project", name, vec![("key", Value::from(key.as_str()))])?
        }
        Edit::AddUpstream { name, preset, base_url, dialects } => {
            let mut fields = Vec::new();
            fields.extend(preset.as_deref().map(|preset| ("preset", Value::from(preset))));
            fields.extend(base_url.as_deref().map(|url| ("base_url", Value::from(url))));
            match dialects.as_slice() {
                [] => {}
                [one] => fields.push(("dialect", Value::from(one.as_str()))),
                many => fields.push((
                    "dialect",
                    Value::Array(many.iter().map(String::as_str).collect::<Array>()),
                )),
            }
            row::add(&mut doc, "upstream", name, fields)?;
        }
        Edit::ReplaceKeyReference { upstream, label, reference } => {
            keylist::replace(
                row::find(&mut doc, "upstream", upstream)?,
                upstream,
                label,
                reference,
            )?;
        }
        Edit::RemoveKey { upstream, label } => {
            keylist::remove(row::find(&mut doc, "upstream", upstream)?, upstream, label)?
        }
        Edit::Set { path, value } => set(&mut doc, path, value)?,
        Edit::SetAlias { name, target } => {
            let table = table_at(doc.as_table_mut(), "aliases")?;
            put(table, name, Value::from(target.as_str()));
        }
        Edit::SetKeyEnabled { upstream, label, enabled } => {
            keylist::enable(row::find(&mut doc, "upstream", upstream)?, upstream, label, *enabled)?;
        }
        Edit::SetModel { name, path, value } => {
            set_in(row::find(&mut doc, "model", name)?, "model", &segments(path)?, value)?
        }
        Edit::SetProject { name, path, value } => {
            set_in(row::find(&mut doc, "project", name)?, "project", &segments(path)?, value)?
        }
        Edit::SetUpstream { name, path, value } => {
            set_in(row::find(&mut doc, "upstream", name)?, "upstream", &segments(path)?, value)?;
        }
        Edit::SetUpstreamEnabled { name, enabled } => {
            let row = row::find(&mut doc, "upstream", name)?;
            // True is the default: a row that never said otherwise stays as it is.
            if row.contains_key("enabled") || !enabled {
                put(row, "enabled", Value::from(*enabled));
            }
        }
        Edit::RemoveAlias { .. }
        | Edit::RemoveModel { .. }
        | Edit::RemoveProject { .. }
        | Edit::RemoveUpstream { .. }
        | Edit::Unset { .. } => {}
    }
    Ok(doc.to_string())
}

fn parse(text: &str) -> Result<DocumentMut, EditError> {
    text.parse::<DocumentMut>().map_err(|_| EditError::Syntax)
}

/// Sets a value at a path from the top.
fn set(doc: &mut DocumentMut, path: &str, value: &str) -> Result<(), EditError> {
    let names = segments(path)?;
    match names.as_slice() {
        [table, rest @ ..] if table == "aliases" && !rest.is_empty() => {
            let target = value
                .parse::<Value>()
                .ok()
                .filter(Value::is_str)
                .unwrap_or_else(|| Value::from(value));
            let name = rest.join(".");
            put(table_at(doc.as_table_mut(), "aliases")?, &name, target);
            Ok(())
        }
        [kind, rest @ ..] if row::KINDS.contains(&kind.as_str()) => {
            let (name, below) = row::named(doc, kind, rest)?;
            set_in(row::find(doc, kind, &name)?, kind, &below, value)
        }
        _ => set_in(doc.as_table_mut(), "", &names, value),
    }
}

/// Sets a value at a path from a table, making the tables on the way.
fn set_in(
    table: &mut dyn TableLike,
    place: &str,
    path: &[String],
    value: &str,
) -> Result<(), EditError> {
    let (last, way) = path
        .split_last()
        .ok_or_else(|| EditError::Place(format!("`{place}` needs the name of a key")))?;
    let mut at = table;
    for name in way {
        at = table_at(at, name)?;
    }
    if at.get(last).is_some_and(|item| item.is_array_of_tables() || item.is_table()) {
        return Err(EditError::Place(format!(
            "`{}` is a table; name one of its keys",
            path.join(".")
        )));
    }
    let known = keys::find(
        &[place, &path.join(".")]
            .iter()
            .filter(|p| !p.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join("."),
    );
    put(at, last, read_value(value, known.is_some_and(|key| key.kind.is_text())));
    Ok(())
}

/// A TOML value where the text is one, else the text. Where the key takes text only, `1` and `true`
/// are text too.
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

/// Puts a value under a key: the old one's surroundings, such as the comment behind it, stay.
fn put(table: &mut dyn TableLike, name: &str, mut value: Value) {
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

/// The table under a key, made where it is missing.
fn table_at<'a>(
    table: &'a mut dyn TableLike,
    name: &str,
) -> Result<&'a mut dyn TableLike, EditError> {
    let inline = table.get("name").is_some();
    let item = table.entry(name).or_insert_with(|| {
        // In a row a table of its own line would swallow the keys that follow it in the file.
        if inline {
            Item::Value(Value::InlineTable(toml_edit::InlineTable::new()))
        } else {
            Item::Table(Table::new())
        }
    });
    item.as_table_like_mut().ok_or_else(|| EditError::Place(format!("`{name}` is not a table")))
}

fn unset(text: &str, path: &str) -> Result<String, EditError> {
    let names = segments(path)?;
    match names.as_slice() {
        [table, rest @ ..] if table == "aliases" && !rest.is_empty() => {
            cut::key(text, &["aliases", &rest.join(".")])
        }
        [kind, rest @ ..] if row::KINDS.contains(&kind.as_str()) => {
            let mut doc = parse(text)?;
            let (name, below) = row::named(&mut doc, kind, rest)?;
            if below.is_empty() {
                return cut::row(text, kind, &name);
            }
            cut::key_of_row(text, kind, &name, &below)
        }
        names => cut::key(text, &names.iter().map(String::as_str).collect::<Vec<_>>()),
    }
}

/// Cuts `a.b."c.d"` at its dots.
fn segments(path: &str) -> Result<Vec<String>, EditError> {
    let bad = || {
        EditError::Place(format!(
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
    if quote.is_some() || out.iter().any(String::is_empty) { Err(bad()) } else { Ok(out) }
}

/// That something is not there, with what is near.
fn nothing<'a>(kind: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> EditError {
    let near = near::nearest(name, known)
        .map(|near| format!("; did you mean `{near}`?"))
        .unwrap_or_default();
    let demo = if kind == "upstream" && name == check::DEMO { " (it is built in)" } else { "" };
    EditError::Place(format!("there is no {kind} `{name}` in the file{demo}{near}"))
}
