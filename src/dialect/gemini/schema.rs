//! Converts JSON Schema to the subset that the provider accepts.
//!
//! Upstream requests use the full-schema fields (`parametersJsonSchema`, `responseJsonSchema`).
//! Their documentation lists `$id $defs $ref $anchor type format title description enum items
//! prefixItems minItems maxItems minimum maximum anyOf oneOf properties additionalProperties
//! required propertyOrdering`. The provider's own schema type also supports `default example
//! pattern minLength maxLength minProperties maxProperties nullable`. The converter changes no more
//! than necessary:
//!
//! - `$ref` is replaced by its target (the provider refuses a reference with siblings, or to a
//!   missing definition). If a schema contains itself, the inner one is cut to its bare type, which
//!   is the loss `tools.schema.$ref`;
//! - `allOf` is folded into the schema around it, `const` becomes a one-element `enum`,
//!   `exclusiveMinimum` and `-Maximum` become inclusive, a list in `items` becomes `prefixItems`,
//!   the schemas `true` and `false` become `{}`;
//! - `enum` retains only strings and numbers, `required` retains only existing names, and the root
//!   gets the type `object`;
//! - other keywords are dropped: those that constrain are losses (`tools.schema.uniqueItems`),
//!   annotations (`$schema`, `$comment`, `examples`, `deprecated`, `readOnly`, `writeOnly`, `$id`,
//!   `$anchor`) are not.

use std::{borrow::Cow, collections::HashSet};

use crate::{
    base::json::{
        raw::RawJson,
        reader::JsonRef,
        writer::{self, ArrayWriter, ObjectWriter},
    },
    dialect::{losses::Losses, schema_references::SchemaReferences},
};

/// How much a schema may grow by expanded references, in bytes. Beyond that, references are cut.
const MAX_EXPANDED_BYTES: usize = 1 << 20;
/// The maximum nesting depth of schemas; deeper ones are left out.
const MAX_LEVELS: u32 = 60;

/// Converts JSON Schema to the subset that the provider accepts. Dropped constraints are added to
/// `losses` with the given `prefix`.
pub(super) fn from_json_schema(
    schema: JsonRef<'_>,
    prefix: &'static str,
    losses: &mut Losses,
) -> RawJson {
    let mut converter = SchemaConverter {
        references: SchemaReferences::new(schema),
        expanded_bytes: 0,
        level: 0,
        prefix,
        losses,
    };
    let mut out = String::with_capacity(schema.text().len() + 32);
    converter.write_schema(&mut out, schema, &mut Vec::new(), true);
    RawJson::parse(&out).unwrap_or_else(|| RawJson::from_json(schema))
}

struct SchemaConverter<'a, 'l> {
    references: SchemaReferences<'a>,
    expanded_bytes: usize,
    level: u32,
    prefix: &'static str,
    losses: &'l mut Losses,
}

/// The members of a schema with its references and `allOf` folded in. The schema's own members come
/// first, before those of its references.
struct MergedSchema<'a> {
    members: Vec<(Cow<'a, str>, JsonRef<'a>)>,
    references: Vec<Cow<'a, str>>,
    cut: bool,
}

impl<'a> MergedSchema<'a> {
    /// Returns the first value of a keyword.
    fn first(&self, keyword: &str) -> Option<JsonRef<'a>> {
        self.members.iter().find(|(key, _)| key == keyword).map(|(_, value)| *value)
    }
}

/// Writes the texts and numbers of an `enum`.
fn write_enum(o: &mut ObjectWriter<'_>, value: JsonRef<'_>) {
    let supported = || value.items().filter(|value| matches!(value.kind(), "string" | "number"));
    if supported().next().is_some() {
        o.array("enum", |a| {
            supported().for_each(|value| {
                a.raw_text(value.text());
            });
        });
    }
}

/// Writes an exclusive bound as an inclusive one.
fn write_bound(o: &mut ObjectWriter<'_>, key: &str, value: JsonRef<'_>, merged: &MergedSchema<'_>) {
    let (inclusive, step) =
        if key == "exclusiveMinimum" { ("minimum", 1) } else { ("maximum", -1) };
    if merged.first(inclusive).is_some() || value.kind() != "number" {
        return;
    }
    let integer = merged.first("type").and_then(JsonRef::str).as_deref() == Some("integer");
    match value.i64().filter(|_| integer).and_then(|n| n.checked_add(step)) {
        Some(n) => o.num(inclusive, n),
        None => o.json(inclusive, value),
    };
}

impl<'a> SchemaConverter<'a, '_> {
    fn add_loss(&mut self, keyword: &str) {
        self.losses.add(format!("{}.{keyword}", self.prefix));
    }

    fn write_schema(
        &mut self,
        out: &mut String,
        schema: JsonRef<'a>,
        within: &mut Vec<Cow<'a, str>>,
        root: bool,
    ) {
        let mut merged = MergedSchema {
            members: Vec::new(),
            references: Vec::new(),
            cut: self.level > MAX_LEVELS,
        };
        if !merged.cut {
            self.merge(schema, within, &mut merged, 0);
        }
        if merged.cut {
            self.add_loss("$ref");
        }
        self.level += 1;
        let depth = within.len();
        within.append(&mut merged.references);
        writer::push_object(out, |o| {
            if root && merged.first("type").is_none() {
                o.str("type", "object");
            }
            let mut written = HashSet::new();
            for (key, value) in &merged.members {
                if !written.insert(key) {
                    continue;
                }
                self.write_keyword(o, key, *value, &merged, within);
            }
        });
        within.truncate(depth);
        self.level -= 1;
    }

    /// Writes one keyword of a schema; `merged` are all of its keywords.
    fn write_keyword(
        &mut self,
        o: &mut ObjectWriter<'_>,
        key: &str,
        value: JsonRef<'a>,
        merged: &MergedSchema<'a>,
        within: &mut Vec<Cow<'a, str>>,
    ) {
        match key {
            "properties" if merged.cut => {}
            "properties" => self.write_properties(o, merged, within),
            "required" => {
                self.write_required(o, &merged.members, merged.first("properties").is_some());
            }
            "items" if merged.cut => {}
            "items" if value.is_array() => {
                self.write_list(o, "prefixItems", value, within);
            }
            "items" => {
                o.raw_text("items", &self.schema_text(value, within));
            }
            "additionalProperties" if value.is_object() => {
                o.raw_text("additionalProperties", &self.schema_text(value, within));
            }
            "anyOf" | "oneOf" | "prefixItems" if merged.cut => {}
            "anyOf" | "oneOf" | "prefixItems" => self.write_list(o, key, value, within),
            "const"
                if merged.first("enum").is_none()
                    && matches!(value.kind(), "string" | "number") =>
            {
                o.array("enum", |a| {
                    a.raw_text(value.text());
                });
            }
            "enum" => write_enum(o, value),
            "exclusiveMinimum" | "exclusiveMaximum" => write_bound(o, key, value, merged),
            "type"
            | "format"
            | "title"
            | "description"
            | "minItems"
            | "maxItems"
            | "minimum"
            | "maximum"
            | "additionalProperties"
            | "propertyOrdering"
            | "default"
            | "example"
            | "pattern"
            | "minLength"
            | "maxLength"
            | "minProperties"
            | "maxProperties"
            | "nullable" => {
                o.json(key, value);
            }
            "$schema" | "$id" | "$anchor" | "$comment" | "$vocabulary" | "$defs"
            | "definitions" | "examples" | "deprecated" | "readOnly" | "writeOnly" | "const"
            | "contentMediaType" | "contentEncoding" | "id" | "strict" => {}
            key if key.starts_with("x-") => {}
            key => self.add_loss(key),
        }
    }

    fn write_properties(
        &mut self,
        o: &mut ObjectWriter<'_>,
        merged: &MergedSchema<'a>,
        within: &mut Vec<Cow<'a, str>>,
    ) {
        let named = merged.members.iter().filter(|(key, _)| key == "properties");
        o.object("properties", |o| {
            let mut written = HashSet::new();
            for (name, value) in named.flat_map(|(_, value)| value.members()) {
                if written.insert(name) {
                    o.raw_text(name, &self.schema_text(value, within));
                }
            }
        });
    }

    fn schema_text(&mut self, schema: JsonRef<'a>, within: &mut Vec<Cow<'a, str>>) -> String {
        let mut out = String::with_capacity(schema.text().len());
        self.write_schema(&mut out, schema, within, false);
        out
    }

    fn write_list(
        &mut self,
        o: &mut ObjectWriter<'_>,
        key: &str,
        schemas: JsonRef<'a>,
        within: &mut Vec<Cow<'a, str>>,
    ) {
        o.array(key, |a: &mut ArrayWriter<'_>| {
            for schema in schemas.items() {
                a.raw_text(&self.schema_text(schema, within));
            }
        });
    }

    fn write_required(
        &self,
        o: &mut ObjectWriter<'_>,
        members: &[(Cow<'a, str>, JsonRef<'a>)],
        known: bool,
    ) {
        let properties: HashSet<&str> = members
            .iter()
            .filter(|(key, _)| key == "properties")
            .flat_map(|(_, value)| value.members())
            .map(|(key, _)| key)
            .collect();
        let (mut written, mut seen) = (Vec::new(), HashSet::new());
        for name in
            members.iter().filter(|(key, _)| key == "required").flat_map(|(_, value)| value.items())
        {
            let text = name.text();
            let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            if inner.is_some_and(|inner| !known || properties.contains(inner)) && seen.insert(text)
            {
                written.push(text);
            }
        }
        if !written.is_empty() {
            o.array("required", |a| {
                written.iter().for_each(|name| {
                    a.raw_text(name);
                });
            });
        }
    }

    fn merge(
        &mut self,
        schema: JsonRef<'a>,
        within: &[Cow<'a, str>],
        merged: &mut MergedSchema<'a>,
        depth: u32,
    ) {
        let own_members = schema
            .members()
            .filter(|(key, value)| !matches!(*key, "$ref" | "allOf") && value.kind() != "null");
        merged.members.extend(own_members.map(|(key, value)| (Cow::Borrowed(key), value)));
        if let Some(reference) = schema.get("$ref").and_then(JsonRef::str) {
            let known = within.contains(&reference) || merged.references.contains(&reference);
            match self.references.resolve(&reference) {
                Some(target) if known || self.expanded_bytes > MAX_EXPANDED_BYTES || depth > 20 => {
                    merged.cut = true;
                    let bare = target
                        .members()
                        .filter(|(key, _)| matches!(*key, "type" | "title" | "description"));
                    merged.members.extend(bare.map(|(key, value)| (Cow::Borrowed(key), value)));
                }
                Some(target) => {
                    self.expanded_bytes += target.text().len();
                    merged.references.push(reference);
                    self.merge(target, within, merged, depth + 1);
                }
                None => self.add_loss("$ref"),
            }
        }
        for part in schema.get("allOf").into_iter().flat_map(JsonRef::items) {
            if depth > 20 {
                merged.cut = true;
            } else {
                self.merge(part, within, merged, depth + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn convert(schema: &Value) -> (Value, Vec<String>) {
        let (raw, mut losses) = (RawJson::from(schema), Losses::default());
        let got = from_json_schema(raw.json(), "tools.schema", &mut losses).to_value();
        (got, losses.into_vec().into_iter().map(|loss| loss.0.into_owned()).collect())
    }

    /// Tool schemas that the provider refuses.
    #[test]
    fn references_are_replaced_and_recursion_is_cut() {
        let (got, losses) = convert(&json!({
            "$schema": "x", "type": "object",
            "properties": {"a": {"$ref": "#/$defs/A", "description": "mine"}, "n": {"$ref": "#/definitions/Node"}, "lost": {"$ref": "#/$defs/none"}},
            "$defs": {"A": {"type": "string", "description": "theirs", "minLength": 1}},
            "definitions": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/definitions/Node"}, "a": {"$ref": "#/$defs/A"}}}}
        }));
        let a = json!({"type": "string", "description": "theirs", "minLength": 1});
        assert_eq!(
            got,
            json!({"type": "object", "properties": {
                "a": {"type": "string", "description": "mine", "minLength": 1},
                "n": {"type": "object", "properties": {"next": {"type": "object"}, "a": a}},
                "lost": {}
            }})
        );
        assert_eq!(losses, ["tools.schema.$ref"]);
    }

    #[test]
    fn keywords_are_rewritten_or_lost() {
        let (got, losses) = convert(&json!({
            "properties": {
                "c": {"const": "x"}, "n": {"type": "integer", "exclusiveMinimum": 0, "multipleOf": 2}, "f": {"type": "number", "exclusiveMaximum": 1.5},
                "t": {"type": "array", "items": [{"type": "string"}, true], "uniqueItems": true},
                "e": {"enum": ["a", null, 1, true]}, "k": {"type": ["string", "null"], "pattern": "^a", "x-note": 1},
                "all": {"allOf": [{"type": "object", "properties": {"p": {"type": "string"}}, "required": ["p"]}, {"properties": {"q": {}}, "required": ["q", "z"]}]}
            },
            "required": ["c", "gone"], "additionalProperties": false, "if": {}
        }));
        assert_eq!(
            got,
            json!({"type": "object", "properties": {
                "c": {"enum": ["x"]}, "n": {"type": "integer", "minimum": 1}, "f": {"type": "number", "maximum": 1.5},
                "t": {"type": "array", "prefixItems": [{"type": "string"}, {}]},
                "e": {"enum": ["a", 1]}, "k": {"type": ["string", "null"], "pattern": "^a"},
                "all": {"type": "object", "properties": {"p": {"type": "string"}, "q": {}}, "required": ["p", "q"]}
            }, "required": ["c"], "additionalProperties": false})
        );
        let mut losses = losses;
        losses.sort();
        assert_eq!(
            losses,
            ["tools.schema.if", "tools.schema.multipleOf", "tools.schema.uniqueItems"]
        );
    }

    #[test]
    fn exploding_schemas_are_bounded() {
        let mut defs = serde_json::Map::new();
        for n in 0..40 {
            let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
            defs.insert(
                format!("d{n}"),
                json!({"type": "object", "properties": {"a": next, "b": next, "c": next}}),
            );
        }
        defs.insert("d40".to_owned(), json!({"type": "string"}));
        let (got, losses) = convert(
            &json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": defs}),
        );
        assert!(got.to_string().len() < 4 * MAX_EXPANDED_BYTES);
        assert_eq!(losses, ["tools.schema.$ref"]);
        assert_eq!(convert(&json!({"$ref": "#"})).0["type"], "object");
    }
}
