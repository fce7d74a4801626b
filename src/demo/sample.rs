//! Generates a value that fits a JSON schema, for tool call arguments and structured answers.

use serde_json::{Map, Value, json};

/// Schemas nested deeper than this get `null`.
const MAX_DEPTH: usize = 12;

/// Generates an object for the schema of a tool's parameters; `{}` if the schema is empty.
pub(super) fn sample_arguments(schema: &Value) -> Value {
    match sample_value(schema) {
        object @ Value::Object(_) => object,
        _ => Value::Object(Map::new()),
    }
}

/// Generates a value that fits types, enums, required fields and lower bounds. Understands Gemini's
/// upper-case types and `$ref`s into the same schema.
pub(super) fn sample_value(schema: &Value) -> Value {
    generate_value(schema, schema, "", MAX_DEPTH)
}

fn generate_value(root: &Value, schema: &Value, name: &str, depth: usize) -> Value {
    if depth == 0 {
        return Value::Null;
    }
    if let Some(target) =
        schema["$ref"].as_str().and_then(|path| root.pointer(path.strip_prefix('#')?))
    {
        return generate_value(root, target, name, depth - 1);
    }
    for given in [&schema["const"], &schema["default"], &schema["enum"][0], &schema["examples"][0]]
    {
        if !given.is_null() {
            return given.clone();
        }
    }
    for choices in ["anyOf", "oneOf", "allOf"] {
        if !schema[choices][0].is_null() {
            return generate_value(root, &schema[choices][0], name, depth - 1);
        }
    }
    let kind = schema["type"]
        .as_str()
        .or_else(|| schema["type"][0].as_str())
        .unwrap_or_default()
        .to_ascii_lowercase();
    match kind.as_str() {
        "string" => Value::String(sample_string(schema, name)),
        "integer" => json!(schema["minimum"].as_i64().unwrap_or(1)),
        "number" => json!(schema["minimum"].as_f64().unwrap_or(1.5)),
        "boolean" => Value::Bool(true),
        "array" => {
            let count = schema["minItems"].as_u64().unwrap_or(1).clamp(1, 8);
            (0..count).map(|_| generate_value(root, &schema["items"], name, depth - 1)).collect()
        }
        "null" => Value::Null,
        _ if kind == "object" || schema["properties"].is_object() => {
            generate_fields(root, schema, depth)
        }
        _ => Value::Null,
    }
}

/// Generates the required fields, or all fields if none is required.
fn generate_fields(root: &Value, schema: &Value, depth: usize) -> Value {
    let Some(properties) = schema["properties"].as_object() else {
        return Value::Object(Map::new());
    };
    let required: Vec<_> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let wanted = |key: &str| required.is_empty() || required.contains(&key);
    let chosen = properties.iter().filter(|(key, _)| wanted(key)).take(64);
    chosen
        .map(|(key, schema)| (key.clone(), generate_value(root, schema, key, depth - 1)))
        .collect::<Map<_, _>>()
        .into()
}

fn sample_string(schema: &Value, name: &str) -> String {
    let mut text = match schema["format"].as_str().unwrap_or_default() {
        "date" => "2026-01-31",
        "date-time" => "2026-01-31T12:00:00Z",
        "email" => "demo@example.com",
        "time" => "12:00:00Z",
        "uri" | "url" => "https://example.com/",
        "uuid" => "00000000-0000-4000-8000-000000000000",
        _ if matches!(name, "city" | "location" | "place") => "Paris",
        _ => "demo",
    }
    .to_owned();
    let min_length = schema["minLength"].as_u64().unwrap_or(0).min(1_024);
    while (text.len() as u64) < min_length {
        text.push('x');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_fit_their_schema() {
        for (schema, want) in [
            (
                json!({"type": "object", "properties": {"city": {"type": "string"}}}),
                json!({"city": "Paris"}),
            ),
            (
                json!({"type": "OBJECT", "required": ["n"], "properties": {"n": {"type": "INTEGER", "minimum": 3}, "o": {"type": "STRING"}}}),
                json!({"n": 3}),
            ),
            (
                json!({"properties": {"unit": {"enum": ["c", "f"]}, "deep": {"type": ["array", "null"], "items": {"type": "boolean"}}}}),
                json!({"unit": "c", "deep": [true]}),
            ),
            (
                json!({"type": "object", "properties": {"p": {"$ref": "#/$defs/P"}}, "$defs": {"P": {"type": "object", "properties": {"x": {"type": "number"}}}}}),
                json!({"p": {"x": 1.5}}),
            ),
            (json!(null), json!({})),
            (json!({"type": "string"}), json!({})),
        ] {
            assert_eq!(sample_arguments(&schema), want, "{schema}");
        }
    }

    #[test]
    fn recursive_schema_terminates() {
        let schema = json!({"type": "object", "properties": {"next": {"$ref": "#"}}});

        assert!(sample_arguments(&schema).is_object());
    }
}
