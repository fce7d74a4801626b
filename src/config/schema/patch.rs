//! `patch` of `[[upstream]]`: edits to request bodies.

use serde_json::{Value as Json, json};
use toml::de::DeValue;
use toml_edit::{InlineTable, Value};

use crate::config::{
    kinds::{KindDescription, List, Text, ValueKind},
    problem::Report,
    reader::{Node, TableReader, ValueError, text, truncate},
};

/// Edits to a JSON request body; pointers are RFC 6901.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patch {
    pub set: Vec<(String, Json)>,
    pub default: Vec<(String, Json)>,
    pub remove: Vec<String>,
}

impl Patch {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.default.is_empty() && self.remove.is_empty()
    }
}

/// A table with `set`, `default` and `remove`.
pub(super) struct Patches;

impl ValueKind for Patches {
    type Value = Patch;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<Patch> {
        let mut table = TableReader::from_node(path, node, report)?;
        let (set, default) =
            (read_edits(&mut table, "set", report), read_edits(&mut table, "default", report));
        let remove = table
            .take_node("remove")
            .and_then(|node| List(POINTER).read(&table.key_path("remove"), node, report));
        table.finish(report);
        Some(Patch { set, default, remove: remove.unwrap_or_default() })
    }

    fn write(&self, patch: &Patch) -> Option<Value> {
        let mut table = InlineTable::new();
        for (name, edits) in [("set", &patch.set), ("default", &patch.default)] {
            if !edits.is_empty() {
                let each = edits.iter().map(|(at, value)| (at.as_str(), json_to_toml(value)));
                table.insert(name, Value::InlineTable(each.collect()));
            }
        }
        if !patch.remove.is_empty() {
            table.insert("remove", Value::Array(patch.remove.iter().collect()));
        }
        (!table.is_empty()).then_some(Value::InlineTable(table))
    }

    fn describe(&self) -> KindDescription {
        let schema = json!({
            "type": "object",
            "properties": {
                "set": { "type": "object" },
                "default": { "type": "object" },
                "remove": { "type": "array", "items": { "type": "string" } },
            },
            "additionalProperties": false,
        });
        KindDescription::new("table of `set`, `default` and `remove`", schema)
    }
}

fn read_edits(
    table: &mut TableReader<'_>,
    name: &'static str,
    report: &mut Report,
) -> Vec<(String, Json)> {
    let Some(mut rows) = table.child(name, report) else { return Vec::new() };
    let mut out = Vec::new();
    for (pointer, node) in rows.remaining() {
        match check_pointer(&pointer.value) {
            Ok(()) => out.push((pointer.value, toml_to_json(node.get_ref()))),
            Err(fault) => report.error(&pointer.span, fault.title, fault.help),
        }
    }
    out
}

const POINTER: Text<String> = Text {
    type_name: "JSON pointer",
    read: |value| {
        let pointer = text(value)?;
        check_pointer(&pointer).map(|()| pointer)
    },
    write: |pointer| Some(pointer.clone()),
};

fn check_pointer(text: &str) -> Result<(), ValueError> {
    if text.starts_with('/') && text.len() > 1 {
        return Ok(());
    }
    Err(ValueError::with_help(
        format!("`{}` is not a JSON pointer", truncate(text)),
        "begin it with `/`, as in \"/parallel_tool_calls\"",
    ))
}

/// Converts a TOML value to JSON. Dates become strings, and floats without a JSON form become null.
fn toml_to_json(value: &DeValue<'_>) -> Json {
    match value {
        DeValue::String(text) => Json::String(text.clone().into_owned()),
        DeValue::Integer(number) => {
            i64::from_str_radix(&number.as_str().replace('_', ""), number.radix())
                .map_or(Json::Null, Json::from)
        }
        DeValue::Float(number) => {
            number.as_str().replace('_', "").parse::<f64>().map_or(Json::Null, Json::from)
        }
        DeValue::Boolean(flag) => Json::Bool(*flag),
        DeValue::Datetime(date) => Json::String(date.to_string()),
        DeValue::Array(items) => items.iter().map(|item| toml_to_json(item.get_ref())).collect(),
        DeValue::Table(rows) => rows
            .iter()
            .map(|(name, row)| (name.get_ref().clone().into_owned(), toml_to_json(row.get_ref())))
            .collect(),
    }
}

/// Converts JSON to TOML. TOML has no null, so null becomes an empty string.
fn json_to_toml(value: &Json) -> Value {
    match value {
        Json::Null => "".into(),
        Json::Bool(flag) => (*flag).into(),
        Json::Number(number) => {
            number.as_i64().map_or_else(|| number.as_f64().unwrap_or_default().into(), Value::from)
        }
        Json::String(text) => text.as_str().into(),
        Json::Array(items) => Value::Array(items.iter().map(json_to_toml).collect()),
        Json::Object(fields) => Value::InlineTable(
            fields.iter().map(|(name, value)| (name.as_str(), json_to_toml(value))).collect(),
        ),
    }
}
