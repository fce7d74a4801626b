//! Turns schemas of OpenAPI into plain JSON Schema that every vendor of models accepts: references
//! only into `$defs`, no cycles, no words of OpenAPI, plain names of properties.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::document::Document;
use crate::mcp::names;

/// Levels of one schema; deeper parts accept anything.
const MAX_DEPTH: usize = 24;
/// Definitions of one tool.
const MAX_DEFINITIONS: usize = 300;
const MAX_NAME: usize = 64;

/// Words that only OpenAPI knows, or that say nothing about a value.
const DROPPED: &[&str] = &[
    "example",
    "examples",
    "nullable",
    "discriminator",
    "xml",
    "externalDocs",
    "$schema",
    "$id",
    "$anchor",
    "$dynamicRef",
    "$dynamicAnchor",
    "$comment",
    "definitions",
    "$defs",
    "if",
    "then",
    "else",
    "dependentSchemas",
    "unevaluatedProperties",
    "collectionFormat",
    "allowEmptyValue",
];

/// Converts the schemas of one tool.
pub(super) struct SchemaWriter<'a> {
    document: &'a Document,
    definitions: BTreeMap<String, Value>,
    /// Names of definitions, by reference.
    names: BTreeMap<String, String>,
    /// References that are being converted.
    open: Vec<String>,
    /// Names of properties that were replaced, with their own.
    pub(super) renamed: BTreeMap<String, String>,
}

impl<'a> SchemaWriter<'a> {
    pub(super) fn new(document: &'a Document) -> Self {
        Self {
            document,
            definitions: BTreeMap::new(),
            names: BTreeMap::new(),
            open: Vec::new(),
            renamed: BTreeMap::new(),
        }
    }

    /// Converts a schema.
    pub(super) fn convert(&mut self, schema: &Value, depth: usize) -> Value {
        let Some(object) = schema.as_object() else {
            return if schema.is_boolean() { schema.clone() } else { json!({}) };
        };
        if depth > MAX_DEPTH {
            return json!({});
        }
        if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
            return self.reference(reference, object.get("description"), depth);
        }
        let mut out = Map::new();
        for (key, value) in object {
            if DROPPED.contains(&key.as_str()) || key.starts_with("x-") {
                continue;
            }
            let converted = match key.as_str() {
                "properties" | "patternProperties" => self.properties(value, depth),
                "items"
                | "additionalProperties"
                | "not"
                | "contains"
                | "propertyNames"
                | "additionalItems" => match value {
                    Value::Array(all) => {
                        all.first().map_or_else(|| json!({}), |one| self.convert(one, depth + 1))
                    }
                    other => self.convert(other, depth + 1),
                },
                "oneOf" | "anyOf" | "allOf" | "prefixItems" => {
                    let all = value.as_array().into_iter().flatten();
                    Value::Array(all.map(|one| self.convert(one, depth + 1)).collect())
                }
                // An old form of required parameters.
                "required" if !value.is_array() => continue,
                "required" => {
                    let names = value.as_array().into_iter().flatten().filter_map(Value::as_str);
                    Value::Array(names.map(|name| self.safe_name(name).into()).collect())
                }
                "type" if value == "file" => "string".into(),
                _ => value.clone(),
            };
            out.insert(key.clone(), converted);
        }
        fit_bounds(&mut out);
        keep_required(&mut out);
        let is_array = out.get("type").is_some_and(|kind| {
            kind == "array" || kind.as_array().is_some_and(|all| all.contains(&json!("array")))
        });
        if is_array && !out.contains_key("items") && !out.contains_key("prefixItems") {
            out.insert("items".to_owned(), json!({}));
        }
        if object.get("nullable") == Some(&Value::Bool(true)) {
            allow_null(&mut out);
        }
        Value::Object(out)
    }

    fn properties(&mut self, value: &Value, depth: usize) -> Value {
        let mut out = Map::new();
        for (name, schema) in value.as_object().into_iter().flatten() {
            let safe = self.safe_name(name);
            let mut converted = self.convert(schema, depth + 1);
            if safe != *name {
                describe_name(&mut converted, name);
            }
            out.insert(safe, converted);
        }
        Value::Object(out)
    }

    /// Returns the name that a property has in the schema.
    pub(super) fn safe_name(&mut self, name: &str) -> String {
        let safe = plain_property(name);
        if safe != name {
            match self.renamed.get(&safe) {
                Some(known) if known != name => {
                    let other = format!("{}_{}", cut(&safe, 50), names::short_hash(&[name]));
                    self.renamed.insert(other.clone(), name.to_owned());
                    return other;
                }
                _ => drop(self.renamed.insert(safe.clone(), name.to_owned())),
            }
        }
        safe
    }

    fn reference(&mut self, reference: &str, description: Option<&Value>, depth: usize) -> Value {
        let cut = |why: &str| match description {
            Some(text) => json!({ "description": text }),
            None => json!({ "description": why }),
        };
        if self.open.iter().any(|open| open == reference) {
            let name = reference.rsplit('/').next().unwrap_or_default();
            return cut(&format!("another {name}"));
        }
        let document = self.document;
        let Some(target) = document.find(reference) else {
            return cut("any value");
        };
        if !self.names.contains_key(reference) {
            if self.definitions.len() >= MAX_DEFINITIONS || depth > MAX_DEPTH {
                return cut("any value");
            }
            self.open.push(reference.to_owned());
            let converted = self.convert(target, depth + 1);
            self.open.pop();
            let last = reference.rsplit('/').next().unwrap_or_default();
            let mut name = plain_property(last);
            if self.definitions.contains_key(&name) {
                name = format!("{}_{}", self::cut(&name, 50), names::short_hash(&[reference]));
            }
            self.definitions.insert(name.clone(), converted);
            self.names.insert(reference.to_owned(), name);
        }
        let name = self.names.get(reference).cloned().unwrap_or_default();
        json!({ "$ref": format!("#/$defs/{name}") })
    }

    /// Returns the definitions that the schemas refer to.
    pub(super) fn definitions(self) -> BTreeMap<String, Value> {
        self.definitions
    }
}

/// Adds the own name of a property to its description.
pub(super) fn describe_name(schema: &mut Value, name: &str) {
    if let Value::Bool(_) = schema {
        *schema = json!({});
    }
    if let Some(object) = schema.as_object_mut() {
        let note = format!("`{name}` in the API");
        let text = object.get("description").and_then(Value::as_str);
        let text = text.map_or_else(|| note.clone(), |text| format!("{text} ({note})"));
        object.insert("description".to_owned(), text.into());
    }
}

fn plain_property(name: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') { c } else { '_' }
    };
    let safe: String = name.chars().map(plain).collect();
    match safe.len() {
        0 => "_".to_owned(),
        1..=MAX_NAME => safe,
        _ => format!("{}_{}", cut(&safe, 50), names::short_hash(&[name])),
    }
}

fn cut(text: &str, length: usize) -> &str {
    text.get(..length).unwrap_or(text)
}

/// Bounds of older drafts were flags beside `minimum` and `maximum`.
fn fit_bounds(schema: &mut Map<String, Value>) {
    for (flag, bound) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
        match schema.get(flag) {
            Some(Value::Bool(true)) => {
                let value = schema.remove(bound);
                schema.remove(flag);
                schema.extend(value.map(|value| (flag.to_owned(), value)));
            }
            Some(Value::Bool(false)) => drop(schema.remove(flag)),
            _ => {}
        }
    }
}

/// Only properties that are there can be required, unless they come from elsewhere.
fn keep_required(schema: &mut Map<String, Value>) {
    if ["allOf", "oneOf", "anyOf"].iter().any(|key| schema.contains_key(*key)) {
        return;
    }
    let Some(Value::Object(properties)) = schema.get("properties").cloned() else {
        schema.remove("required");
        return;
    };
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.retain(|name| name.as_str().is_some_and(|name| properties.contains_key(name)));
    }
}

fn allow_null(schema: &mut Map<String, Value>) {
    match schema.get_mut("type") {
        Some(kind @ Value::String(_)) => *kind = json!([kind.clone(), "null"]),
        Some(Value::Array(kinds)) if !kinds.contains(&json!("null")) => kinds.push("null".into()),
        _ => {}
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum")
        && !values.contains(&Value::Null)
    {
        values.push(Value::Null);
    }
}
