//! TOML, by the same library that edits the own config.

use std::collections::HashMap;

use serde_json::Value;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike, Value as TomlValue};

use super::{EditFault, line_of, path::Step};

pub(super) fn parse(text: &str) -> Result<Value, EditFault> {
    let value: Value = ::toml::from_str(text).map_err(|error| EditFault::Syntax {
        line: error.span().map_or(1, |span| line_of(text, span.start)),
        why: error.message().to_owned(),
    })?;
    Ok(if super::path::is_empty(&value) { Value::Null } else { value })
}

/// Edits a text with `\n` line breaks, because the library writes these.
fn edit(
    text: &str,
    change: impl FnOnce(&mut DocumentMut) -> Result<(), EditFault>,
) -> Result<String, EditFault> {
    let has_crlf = text.contains("\r\n");
    let source = if has_crlf { text.replace("\r\n", "\n") } else { text.to_owned() };
    let mut doc: DocumentMut = source.parse().map_err(|error: toml_edit::TomlError| {
        let line = error.span().map_or(1, |span| line_of(&source, span.start));
        EditFault::Syntax { line, why: error.message().to_owned() }
    })?;
    change(&mut doc)?;
    let edited = doc.to_string();
    Ok(if has_crlf { with_line_ends_of(text, &edited) } else { edited })
}

/// Gives each line the line end that it has in the old text; a new line gets that of the first.
fn with_line_ends_of(old: &str, edited: &str) -> String {
    let ends: HashMap<&str, &str> = old
        .split_inclusive('\n')
        .map(|line| {
            let content = line.trim_end_matches(['\r', '\n']);
            (content, &line[content.len()..])
        })
        .filter(|(_, end)| !end.is_empty())
        .collect();
    let usual = super::line_break(old);
    edited
        .split_inclusive('\n')
        .map(|line| match line.strip_suffix('\n') {
            Some(content) => {
                let end = ends.get(content).copied().unwrap_or(usual);
                format!("{content}{end}")
            }
            None => line.to_owned(),
        })
        .collect()
}

pub(super) fn set(text: &str, at: &[Step], to: &Value) -> Result<String, EditFault> {
    edit(text, |doc| {
        let is_first = doc.as_table().is_empty();
        let names = names(at)?;
        let Some((last, parents)) = names.split_last() else {
            return Err(unsupported());
        };
        let mut table: &mut dyn TableLike = doc.as_table_mut();
        for name in parents {
            table = table
                .entry(name)
                .or_insert_with(|| {
                    let mut made = Table::new();
                    made.set_implicit(true);
                    Item::Table(made)
                })
                .as_table_like_mut()
                .ok_or_else(unsupported)?;
        }
        let decor = table.get(last).and_then(Item::as_value).map(|value| value.decor().clone());
        let mut item = item(to);
        match &mut item {
            Item::Value(value) => {
                if let Some(decor) = decor {
                    *value.decor_mut() = decor;
                }
            }
            Item::Table(table) if !is_first => table.decor_mut().set_prefix("\n"),
            _ => {}
        }
        table.insert(last, item);
        Ok(())
    })
}

pub(super) fn remove(text: &str, at: &[Step]) -> Result<String, EditFault> {
    edit(text, |doc| {
        let names = names(at)?;
        let Some((last, parents)) = names.split_last() else { return Err(unsupported()) };
        let mut table: &mut dyn TableLike = doc.as_table_mut();
        for name in parents {
            let Some(next) = table.get_mut(name).and_then(Item::as_table_like_mut) else {
                return Ok(());
            };
            table = next;
        }
        table.remove(last);
        Ok(())
    })
}

fn unsupported() -> EditFault {
    EditFault::Unsupported("a setting has another form than the tool documents".to_owned())
}

fn names(at: &[Step]) -> Result<Vec<&str>, EditFault> {
    at.iter()
        .map(|step| match step {
            Step::Key(name) => Ok(name.as_str()),
            Step::Item(_) => Err(unsupported()),
        })
        .collect()
}

/// An object becomes a table with its own header.
fn item(value: &Value) -> Item {
    match value {
        Value::Object(fields) => {
            let mut table = Table::new();
            for (name, value) in fields.iter().filter(|(_, value)| !value.is_object()) {
                table.insert(name, item(value));
            }
            for (name, value) in fields.iter().filter(|(_, value)| value.is_object()) {
                let mut inner = item(value);
                if let Some(inner) = inner.as_table_mut() {
                    inner.decor_mut().set_prefix("\n");
                }
                table.insert(name, inner);
            }
            Item::Table(table)
        }
        other => Item::Value(toml_value(other)),
    }
}

fn toml_value(value: &Value) -> TomlValue {
    match value {
        Value::Array(items) => TomlValue::Array(items.iter().map(toml_value).collect::<Array>()),
        Value::Bool(on) => (*on).into(),
        Value::Null => "".into(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64().unwrap_or_default().into(),
        },
        Value::Object(fields) => {
            let mut table = InlineTable::new();
            for (name, value) in fields {
                table.insert(name, toml_value(value));
            }
            TomlValue::InlineTable(table)
        }
        Value::String(text) => text.as_str().into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn steps(path: &[&str]) -> Vec<Step> {
        path.iter().map(|name| Step::Key((*name).to_owned())).collect()
    }

    #[test]
    fn mixed_line_ends_stay_as_they_are() {
        let text = "a = 1\nb = 2\r\nc = 3\n";
        let edited = set(text, &steps(&["d"]), &json!("x")).unwrap();
        assert_eq!(edited, format!("{text}d = \"x\"\n"));
        assert_eq!(remove(&edited, &steps(&["d"])).unwrap(), text);
    }

    #[test]
    fn comments_stay_and_new_tables_come_last() {
        let text = "# mine\r\nx   = 'low'   # odd\r\n\r\n[servers.files]   # a server\r\ny = 1\r\n";
        let at = steps(&["providers", "aiproxy"]);
        let got = set(text, &at, &json!({ "n": 1, "auth": { "args": ["a"] } })).unwrap();
        assert_eq!(
            got,
            format!(
                "{text}\r\n[providers.aiproxy]\r\nn = 1\r\n\r\n[providers.aiproxy.auth]\r\nargs = [\"a\"]\r\n"
            )
        );
        let replaced = set("m = \"a\" # mine\n", &steps(&["m"]), &json!("b")).unwrap();
        assert_eq!(replaced, "m = \"b\" # mine\n");
        assert_eq!(parse(&remove(&got, &steps(&["providers"])).unwrap()), parse(text));
    }

    #[test]
    fn syntax_error_names_its_line() {
        let text = "# mine\na = 'low'\n[servers.files\nb = 'npx'\n";
        assert!(matches!(parse(text), Err(EditFault::Syntax { line: 3, .. })), "{:?}", parse(text));
    }
}
