//! The `keys` of one upstream: a list of references, each a string or a table.

use toml_edit::{Array, InlineTable, Item, TableLike, Value};

use crate::config::edit::{EditError, not_found, row, set_value as insert};
use crate::{config::schema::upstream_key::key_label, secrets::Reference};

/// Adds a key; an identical reference is left unchanged.
pub(super) fn add_key(
    upstream: &mut dyn TableLike,
    reference: &str,
    label: Option<&str>,
) -> Result<(), EditError> {
    let keys = key_list(upstream)?;
    if keys.iter().any(|key| reference_of(key) == Some(reference)) {
        return Ok(());
    }
    let default_label =
        Reference::parse(reference).ok().and_then(|reference| reference.default_label());
    let value = match label.filter(|label| default_label.as_deref() != Some(*label)) {
        None => Value::from(reference),
        Some(label) => {
            let mut table = InlineTable::new();
            table.insert("ref", reference.into());
            table.insert("label", label.into());
            Value::InlineTable(table)
        }
    };
    row::push_value(keys, value);
    Ok(())
}

/// Removes a key; comments of the list stay.
pub(super) fn remove_key(
    upstream: &mut dyn TableLike,
    name: &str,
    label: &str,
) -> Result<(), EditError> {
    let keys = key_list(upstream)?;
    let at = position(keys, name, label)?;
    let removed = keys.remove(at);
    let before = removed.decor().prefix().and_then(|p| p.as_str()).unwrap_or_default();
    let after = removed.decor().suffix().and_then(|p| p.as_str()).unwrap_or_default();
    let comments =
        [before, after].into_iter().filter(|text| text.contains('#')).collect::<String>();
    match keys.get_mut(at) {
        Some(next) if !comments.is_empty() => {
            let prefix = next.decor().prefix().and_then(|p| p.as_str()).unwrap_or_default();
            let prefix = join_comments(&comments, prefix);
            next.decor_mut().set_prefix(prefix);
        }
        None if !comments.is_empty() => {
            let trailing = join_comments(&comments, keys.trailing().as_str().unwrap_or_default());
            keys.set_trailing(trailing);
        }
        // The first value of a one-line list has no space before it.
        Some(next) if at == 0 && !before.contains('\n') => next.decor_mut().set_prefix(before),
        Some(_) | None => {}
    }
    if keys.is_empty() && !keys.trailing().as_str().is_some_and(|text| text.contains('#')) {
        keys.set_trailing("");
        keys.set_trailing_comma(false);
    }
    Ok(())
}

/// Joins comments and the text after them, which starts on its own line because a comment ends with
/// its line.
fn join_comments(comment_text: &str, next: &str) -> String {
    let comments = comment_text.trim_end();
    let own_line =
        next.find(|c: char| !c.is_whitespace()).map_or(next, |at| &next[..at]).contains('\n');
    if own_line {
        return format!("{comments}{next}");
    }
    let indent = comment_text[comments.len()..].rsplit('\n').next().unwrap_or_default();
    format!("{comments}\n{indent}{}", next.trim_start())
}

/// Replaces the reference of a key; its label stays the same.
pub(super) fn replace_reference(
    upstream: &mut dyn TableLike,
    name: &str,
    label: &str,
    reference: &str,
) -> Result<(), EditError> {
    let keys = key_list(upstream)?;
    let at = position(keys, name, label)?;
    let default_label =
        Reference::parse(reference).ok().and_then(|reference| reference.default_label());
    let Some(key) = keys.get_mut(at) else { return Ok(()) };
    if key.is_str() && default_label.as_deref() == Some(label) {
        replace_value(key, Value::from(reference));
        return Ok(());
    }
    let table = to_inline_table(key);
    insert(table, "ref", reference.into());
    if default_label.as_deref() != Some(label) {
        insert(table, "label", label.into());
    }
    Ok(())
}

pub(super) fn set_enabled(
    upstream: &mut dyn TableLike,
    name: &str,
    label: &str,
    enabled: bool,
) -> Result<(), EditError> {
    let keys = key_list(upstream)?;
    let at = position(keys, name, label)?;
    let Some(key) = keys.get_mut(at) else { return Ok(()) };
    if !enabled {
        insert(to_inline_table(key), "enabled", false.into());
    } else if let Some(table) = key.as_inline_table_mut() {
        remove_field(table, "enabled");
    }
    Ok(())
}

/// Returns the list; converts a single value, or creates the list if it is missing.
fn key_list(upstream: &mut dyn TableLike) -> Result<&mut Array, EditError> {
    let item = upstream.entry("keys").or_insert_with(|| Item::Value(Value::Array(Array::new())));
    if let Some(value) = item.as_value_mut()
        && (value.is_str() || value.is_inline_table())
    {
        let mut list = Array::new();
        let mut single = value.clone();
        single.decor_mut().clear();
        list.push_formatted(single);
        replace_value(value, Value::Array(list));
    }
    item.as_array_mut().ok_or_else(|| EditError::BadPath("`keys` is not a list".to_owned()))
}

fn reference_of(key: &Value) -> Option<&str> {
    key.as_str().or_else(|| key.as_inline_table()?.get("ref")?.as_str())
}

fn position(keys: &Array, name: &str, label: &str) -> Result<usize, EditError> {
    let mut literals = 0;
    let labels: Vec<String> = keys
        .iter()
        .map(|key| {
            let written = key.as_inline_table().and_then(|table| table.get("label")?.as_str());
            let reference = reference_of(key).and_then(|text| Reference::parse(text).ok());
            reference
                .map(|reference| key_label(written, &reference, &mut literals))
                .unwrap_or_default()
        })
        .collect();
    labels.iter().position(|known| known == label).ok_or_else(|| {
        let known: Vec<_> = labels.iter().map(|known| format!("{name}/{known}")).collect();
        not_found("key", &format!("{name}/{label}"), known.iter().map(String::as_str))
    })
}

fn to_inline_table(key: &mut Value) -> &mut InlineTable {
    if !key.is_inline_table() {
        let mut table = InlineTable::new();
        if let Some(reference) = key.as_str() {
            table.insert("ref", reference.into());
        }
        replace_value(key, Value::InlineTable(table));
    }
    match key {
        Value::InlineTable(table) => table,
        _ => unreachable!("it was made a table above"),
    }
}

/// Removes a field; the space before the brace stays.
fn remove_field(table: &mut InlineTable, name: &str) {
    let last = table.iter().last().is_some_and(|(last, _)| last == name);
    let Some(removed) = table.remove(name) else { return };
    if let (true, Some((_, now)), Some(space)) =
        (last, table.iter_mut().last(), removed.decor().suffix())
    {
        now.decor_mut().set_suffix(space.clone());
    }
}

fn replace_value(target: &mut Value, mut value: Value) {
    *value.decor_mut() = target.decor().clone();
    *target = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disabling_and_enabling_a_key_restores_the_text() {
        for row in [
            "keys = [{ ref = \"env:A\", label = \"old\" }, \"env:B\"]\n",
            "keys = [{ref = \"env:A\", label = \"old\"}]\n",
            "keys = [{ label = \"old\", ref = \"env:A\"  }] # mine\n",
        ] {
            let mut doc: toml_edit::DocumentMut = row.parse().unwrap();
            set_enabled(doc.as_table_mut(), "one", "old", false).unwrap();
            let off = doc.to_string();
            assert!(off.contains(", enabled = false") && !off.contains(" ,"), "{off}");
            assert_eq!(off.replace(", enabled = false", ""), row, "{off}");
            set_enabled(doc.as_table_mut(), "one", "old", true).unwrap();
            assert_eq!(doc.to_string(), row);
        }
    }

    #[test]
    fn setting_is_inserted_into_an_inline_table_with_its_style() {
        let row = "budget = { usd = 5, per = \"day\" }\nidle = 1 # mine\n";
        let mut doc: toml_edit::DocumentMut = row.parse().unwrap();
        insert(doc["budget"].as_table_like_mut().unwrap(), "unpriced", "refuse".into());
        insert(doc.as_table_mut(), "next", 2.into());
        assert_eq!(
            doc.to_string(),
            "budget = { usd = 5, per = \"day\", unpriced = \"refuse\" }\nidle = 1 # mine\nnext = 2\n"
        );
    }
}
