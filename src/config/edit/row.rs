//! Finds rows of `[[upstream]]`, `[[model]]` and `[[project]]` by name, and adds rows.

use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value};

use super::{EditError, not_found};

pub(super) const KINDS: [&str; 4] = ["upstream", "model", "project", "mcp"];

/// Returns the row with this name, whether it is a `[[table]]` or in an inline list.
pub(super) fn find_row<'a>(
    doc: &'a mut DocumentMut,
    kind: &str,
    name: &str,
) -> Result<&'a mut dyn TableLike, EditError> {
    let missing = {
        let known = row_names(doc, kind);
        not_found(kind, name, known.iter().map(String::as_str))
    };
    let fits = |table: &dyn TableLike| table.get("name").and_then(Item::as_str) == Some(name);
    let found: Option<&mut dyn TableLike> = match doc.get_mut(kind) {
        Some(Item::ArrayOfTables(rows)) => {
            rows.iter_mut().find(|row| fits(*row)).map(|row| row as &mut dyn TableLike)
        }
        Some(Item::Value(Value::Array(rows))) => rows
            .iter_mut()
            .filter_map(Value::as_inline_table_mut)
            .find(|row| fits(*row))
            .map(|row| row as &mut dyn TableLike),
        _ => None,
    };
    found.ok_or(missing)
}

/// Returns the names of all rows of a kind.
pub(super) fn row_names(doc: &DocumentMut, kind: &str) -> Vec<String> {
    let name = |table: &dyn TableLike| table.get("name").and_then(Item::as_str).map(str::to_owned);
    match doc.get(kind) {
        Some(Item::ArrayOfTables(rows)) => rows.iter().filter_map(|row| name(row)).collect(),
        Some(Item::Value(Value::Array(rows))) => {
            rows.iter().filter_map(Value::as_inline_table).filter_map(|row| name(row)).collect()
        }
        _ => Vec::new(),
    }
}

/// Splits `NAME.key.key` into the row's name, which may contain dots, and the rest.
pub(super) fn split_row_path(
    doc: &mut DocumentMut,
    kind: &str,
    path: &[String],
) -> Result<(String, Vec<String>), EditError> {
    let known = row_names(doc, kind);
    for length in (1..=path.len()).rev() {
        let name = path[..length].join(".");
        if known.contains(&name) {
            return Ok((name, path[length..].to_vec()));
        }
    }
    match path.first() {
        Some(name) => Err(not_found(kind, name, known.iter().map(String::as_str))),
        None => Err(EditError::BadPath(format!("`{kind}` needs a name: `{kind}.NAME.key`"))),
    }
}

/// Adds a row after the last one of its kind.
pub(super) fn add_row(
    doc: &mut DocumentMut,
    kind: &'static str,
    name: &str,
    fields: Vec<(&str, Value)>,
) -> Result<(), EditError> {
    if row_names(doc, kind).iter().any(|known| known == name) {
        return Err(EditError::BadPath(format!("there is a {kind} `{name}` already")));
    }
    let fields = [("name", Value::from(name))].into_iter().chain(fields);
    let first = doc.as_table().is_empty();
    let rows = doc.entry(kind).or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    match rows {
        Item::ArrayOfTables(rows) => {
            let mut table = Table::new();
            for (key, value) in fields {
                table.insert(key, Item::Value(value));
            }
            table.decor_mut().set_prefix(if first { "" } else { "\n" });
            rows.push(table);
        }
        Item::Value(Value::Array(rows)) => {
            let mut table = InlineTable::new();
            for (key, value) in fields {
                table.insert(key, value);
            }
            push_value(rows, Value::InlineTable(table));
        }
        _ => return Err(EditError::BadPath(format!("`{kind}` is not a list of tables"))),
    }
    Ok(())
}

/// Adds a value to a list: on its own line if the others have their own, and after the last one's
/// comment.
pub(super) fn push_value(list: &mut Array, mut value: Value) {
    let lead =
        list.iter().last().and_then(|last| last.decor().prefix()?.as_str()).map(str::to_owned);
    let tail = list.trailing().as_str().unwrap_or_default().to_owned();
    match lead {
        Some(lead) if lead.contains('\n') && list.trailing_comma() => {
            let indent = &lead[lead.rfind('\n').unwrap_or(0)..];
            let (comment, close) = tail
                .rsplit_once('\n')
                .map_or((tail.as_str(), ""), |(comment, close)| (comment, close));
            value.decor_mut().set_prefix(format!("{comment}{indent}"));
            value.decor_mut().set_suffix("");
            list.push_formatted(value);
            list.set_trailing(format!("\n{close}"));
            list.set_trailing_comma(true);
        }
        Some(lead) if lead.contains('\n') => {
            value.decor_mut().set_prefix(&lead[lead.rfind('\n').unwrap_or(0)..]);
            // A comment behind a last value without a comma must not swallow the comma that now
            // follows it.
            let close = list.iter_mut().last().map(|last| {
                let suffix =
                    last.decor().suffix().and_then(|s| s.as_str()).unwrap_or_default().to_owned();
                last.decor_mut().set_suffix("");
                suffix
            });
            let close = close.unwrap_or_default();
            let (comment, end) = close
                .rsplit_once('\n')
                .map_or(("", close.as_str()), |(comment, end)| (comment, end));
            let prefix = format!(
                "{comment}{}",
                value.decor().prefix().and_then(|p| p.as_str()).unwrap_or_default()
            );
            value.decor_mut().set_prefix(prefix);
            value.decor_mut().set_suffix(if close.contains('\n') {
                format!("\n{end}")
            } else {
                close.clone()
            });
            list.push_formatted(value);
        }
        Some(_) => {
            value.decor_mut().set_prefix(" ");
            value.decor_mut().set_suffix("");
            list.push_formatted(value);
        }
        None => {
            value.decor_mut().clear();
            list.push(value);
        }
    }
}
