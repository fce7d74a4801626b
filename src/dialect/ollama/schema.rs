//! Repairs the JSON Schema of a tool's arguments for Ollama's server, which reads an object whose
//! properties are objects.
//!
//! The server skips unknown keywords but rejects the whole request if a keyword has a wrong type:
//! properties that are `true` or `false`, a `required` that is not a list. Those are rewritten;
//! everything else stays unchanged.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::base::json::{raw::RawJson, reader::JsonRef};

const NO_PARAMETERS: &str = r#"{"type":"object","properties":{}}"#;

/// Returns the parameters of a function; without a schema, those of a function without arguments.
pub(super) fn tool_parameters(schema: Option<&RawJson>) -> Cow<'_, str> {
    let Some(schema) = schema.filter(|schema| schema.json().is_object()) else {
        return NO_PARAMETERS.into();
    };
    let json = schema.json();
    let is_object_schema =
        json.get("type").is_some_and(|kind| kind.str().as_deref() == Some("object"))
            && json.get("properties").is_some_and(JsonRef::is_object);
    if is_object_schema && is_accepted(json, true) {
        return schema.text().into();
    }
    let mut value = schema.to_value();
    if let Value::Object(map) = &mut value {
        // The root's type is a plain string; in nested schemas it may be a list.
        if !map.get("type").is_some_and(|kind| kind == "object") {
            map.insert("type".to_owned(), "object".into());
        }
        repair_object(map);
        if !map.get("properties").is_some_and(Value::is_object) {
            map.insert("properties".to_owned(), Value::Object(Map::new()));
        }
    }
    value.to_string().into()
}

fn is_accepted(schema: JsonRef<'_>, root: bool) -> bool {
    schema.members().all(|(key, value)| match key {
        "properties" => {
            value.is_object()
                && value.members().all(|(_, inner)| inner.is_object() && is_accepted(inner, false))
        }
        "required" | "enum" => value.is_array(),
        "description" => value.kind() == "string",
        "anyOf" if !root => {
            value.is_array()
                && value.items().all(|inner| inner.is_object() && is_accepted(inner, false))
        }
        "type" if !root => matches!(value.kind(), "string" | "array"),
        _ => true,
    })
}

fn repair_object(schema: &mut Map<String, Value>) {
    schema.retain(|key, value| match &**key {
        "required" | "enum" | "anyOf" => value.is_array(),
        "properties" => value.is_object(),
        "description" => value.is_string(),
        "type" => value.is_string() || value.is_array(),
        _ => true,
    });
    let properties = schema
        .get_mut("properties")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flat_map(|map| map.values_mut());
    for inner in properties {
        repair_schema(inner);
    }
    for inner in schema.get_mut("anyOf").and_then(Value::as_array_mut).into_iter().flatten() {
        repair_schema(inner);
    }
}

/// `true` allows anything, as `{}` does; `false` can only be expressed in a description.
fn repair_schema(schema: &mut Value) {
    match schema {
        Value::Object(map) => repair_object(map),
        Value::Bool(false) => *schema = serde_json::json!({ "not": {} }),
        other => *other = Value::Object(Map::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unsupported_schemas_are_rewritten() {
        for (schema, want) in [
            (None, NO_PARAMETERS),
            (Some("{}"), r#"{"properties":{},"type":"object"}"#),
            (
                Some(
                    r#"{"type":"object","properties":{"a":{"type":["string","null"]}},"additionalProperties":false,"x":1.10}"#,
                ),
                r#"{"type":"object","properties":{"a":{"type":["string","null"]}},"additionalProperties":false,"x":1.10}"#,
            ),
            (
                Some(
                    r#"{"type":"object","properties":{"a":true,"b":false,"c":{"properties":{"d":true}}},"required":null}"#,
                ),
                r#"{"properties":{"a":{},"b":{"not":{}},"c":{"properties":{"d":{}}}},"type":"object"}"#,
            ),
        ] {
            let raw = schema.map(|text| RawJson::parse(text).expect("json"));
            assert_eq!(tool_parameters(raw.as_ref()), want);
        }
    }
}
