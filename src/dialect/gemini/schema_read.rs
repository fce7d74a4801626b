//! Converts this dialect's own kind of schema to JSON Schema.

use crate::{
    base::json::{raw::RawJson, reader::JsonRef, writer},
    dialect::gemini::field_names,
};

/// Converts this dialect's own kind of schema to JSON Schema.
pub(super) fn to_json_schema(schema: JsonRef<'_>) -> RawJson {
    let mut out = String::with_capacity(schema.text().len());
    write_json_schema(&mut out, schema);
    RawJson::parse(&out).unwrap_or_else(|| RawJson::from_json(schema))
}

fn write_json_schema(out: &mut String, schema: JsonRef<'_>) {
    if !schema.is_object() {
        out.push_str(schema.text());
        return;
    }
    let nullable = field_names::member(schema, "nullable").and_then(JsonRef::bool) == Some(true);
    writer::push_object(out, |o| {
        for (key, value) in field_names::members(schema) {
            match &*key {
                "type" => {
                    let word = field_names::enum_word(value, field_names::SCHEMA_TYPES)
                        .map(|word| word.to_ascii_lowercase());
                    match word.as_deref() {
                        Some("type_unspecified") => {}
                        Some(word) if nullable && word != "null" => {
                            o.array("type", |a| {
                                a.str(word).str("null");
                            });
                        }
                        Some(word) => {
                            o.str("type", word);
                        }
                        None => {
                            o.json("type", value);
                        }
                    }
                }
                "properties" | "$defs" | "defs" | "definitions" => {
                    o.object(&key, |o| {
                        for (name, value) in value.members() {
                            o.raw_text(name, &json_schema_text(value));
                        }
                    });
                }
                "anyOf" | "oneOf" | "allOf" | "prefixItems" => {
                    o.array(&key, |a| {
                        for value in value.items() {
                            a.raw_text(&json_schema_text(value));
                        }
                        if nullable
                            && key == "anyOf"
                            && field_names::member(schema, "type").is_none()
                        {
                            a.raw_text(r#"{"type":"null"}"#);
                        }
                    });
                }
                "items" | "additionalProperties" | "not" => {
                    o.raw_text(&key, &json_schema_text(value));
                }
                "enum" if nullable => {
                    o.array("enum", |a| {
                        for value in value.items().filter(|value| value.kind() != "null") {
                            a.raw_text(value.text());
                        }
                        a.raw_text("null");
                    });
                }
                "example" => {
                    o.array("examples", |a| {
                        a.raw_text(value.text());
                    });
                }
                // Counts are 64-bit numbers, which the wire format may put into quotes.
                "minItems" | "maxItems" | "minLength" | "maxLength" | "minProperties"
                | "maxProperties" => {
                    let unquoted = value.str().filter(|text| text.parse::<u64>().is_ok());
                    o.raw_text(&key, unquoted.as_deref().unwrap_or(value.text()));
                }
                "nullable" | "propertyOrdering" => {}
                "format" if value.str().as_deref() == Some("enum") => {}
                _ => {
                    o.json(&key, value);
                }
            }
        }
    });
}

fn json_schema_text(schema: JsonRef<'_>) -> String {
    let mut out = String::with_capacity(schema.text().len());
    write_json_schema(&mut out, schema);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn gemini_schemas_become_json_schema() {
        for (given, want) in [
            (
                json!({"type":"OBJECT","properties":{"type":{"type":"STRING","nullable":true,"format":"enum","enum":["A"]}},"required":["type"],"propertyOrdering":["type"]}),
                json!({"type":"object","properties":{"type":{"type":["string","null"],"enum":["A",null]}},"required":["type"]}),
            ),
            (
                json!({"type":6,"properties":{"a_b":{"type":5,"items":{"type":3,"format":"int64"},"min_items":"1"}}}),
                json!({"type":"object","properties":{"a_b":{"type":"array","items":{"type":"integer","format":"int64"},"minItems":1}}}),
            ),
            (
                json!({"any_of":[{"type":"STRING"}],"nullable":true,"example":3}),
                json!({"anyOf":[{"type":"string"},{"type":"null"}],"examples":[3]}),
            ),
        ] {
            assert_eq!(to_json_schema(RawJson::from(&given).json()).to_value(), want);
        }
    }
}
