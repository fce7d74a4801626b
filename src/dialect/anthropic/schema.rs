//! Rewrites JSON Schemas as little as this dialect requires, and preserves the order of properties.
//!
//! Any schema whose root is an object may describe the arguments of a tool. Enforced schemas
//! (strict tools, structured output) must use a subset: every object is closed, numbers, strings
//! and lists have no bounds, and few formats are allowed. Bounds move into the description, so that
//! the model still reads them.

use std::{collections::HashSet, fmt::Write as _};

use crate::{
    base::json::{raw::RawJson, reader::JsonRef, writer},
    dialect::schema_references::SchemaReferences,
};

/// The schema for a tool without arguments.
pub(super) const EMPTY_SCHEMA: &str = r#"{"type":"object","properties":{}}"#;

/// How a schema fits into the enforced subset.
#[derive(Debug, PartialEq)]
pub(super) enum SchemaFit {
    /// The schema fits. Open objects were closed.
    Exact(String),
    /// The schema fits after some constraints were moved into descriptions.
    Relaxed(String),
    /// The subset cannot express the schema: open objects, recursion, tuples.
    Unsupported,
}

/// Returns a schema whose root is an object without alternatives, which are merged into one object.
/// The flag says whether the meaning changed.
pub(super) fn ensure_object_root(schema: &RawJson) -> (String, bool) {
    let json = schema.json();
    if !json.is_object() {
        return (EMPTY_SCHEMA.to_owned(), false);
    }
    let branching = ["anyOf", "oneOf", "allOf"].iter().any(|key| json.get(key).is_some());
    let object = json.get("type").and_then(JsonRef::str).as_deref() == Some("object");
    if object && !branching {
        return (json.text().to_owned(), false);
    }
    let text = writer::object(|o| {
        o.str("type", "object");
        if branching {
            merge_alternatives(json, o);
        }
        for (key, value) in json.members() {
            let handled = matches!(key, "type")
                || branching
                    && matches!(key, "anyOf" | "oneOf" | "allOf" | "properties" | "required");
            if !handled {
                o.json(key, value);
            }
        }
    });
    (text, branching)
}

/// Writes the properties of an object and of all its alternatives. A property is required if every
/// alternative requires it.
fn merge_alternatives(root: JsonRef<'_>, o: &mut writer::ObjectWriter<'_>) {
    let branches = |key: &str| -> Vec<JsonRef<'_>> {
        root.get(key)
            .into_iter()
            .flat_map(JsonRef::items)
            .map(|branch| resolve_reference(root, branch))
            .collect()
    };
    let all: Vec<JsonRef<'_>> = branches("allOf");
    let any: Vec<JsonRef<'_>> = branches("anyOf").into_iter().chain(branches("oneOf")).collect();
    let mut seen = HashSet::new();
    o.object("properties", |o| {
        for node in std::iter::once(&root).chain(&all).chain(&any) {
            for (key, value) in node.get("properties").into_iter().flat_map(JsonRef::members) {
                if seen.insert(key) {
                    o.json(key, value);
                }
            }
        }
    });
    let required = |node: &JsonRef<'_>| -> Vec<String> {
        node.get("required")
            .into_iter()
            .flat_map(JsonRef::items)
            .map(|name| name.text().to_owned())
            .collect()
    };
    let mut names: Vec<String> = std::iter::once(&root).chain(&all).flat_map(required).collect();
    if let Some((first, others)) = any.split_first() {
        let mut common: HashSet<String> = required(first).into_iter().collect();
        for node in others {
            let here: HashSet<String> = required(node).into_iter().collect();
            common.retain(|name| here.contains(name));
        }
        names.extend(common);
    }
    names.sort();
    names.dedup();
    if !names.is_empty() {
        o.raw_text("required", &format!("[{}]", names.join(",")));
    }
}

/// Returns a branch, or the schema inside the root to which it refers.
fn resolve_reference<'a>(root: JsonRef<'a>, branch: JsonRef<'a>) -> JsonRef<'a> {
    let path = branch.get("$ref").and_then(JsonRef::str);
    let target = path
        .as_deref()
        .and_then(|path| path.strip_prefix("#/"))
        .and_then(|path| path.split('/').try_fold(root, |at, key| at.get(key)));
    target.unwrap_or(branch)
}

/// Converts the schema to the enforced subset. `title` and `description` are added if the schema
/// has none.
pub(super) fn to_strict_subset(
    schema: &str,
    title: Option<&str>,
    description: Option<&str>,
) -> SchemaFit {
    let Some(raw) = RawJson::parse(schema) else { return SchemaFit::Unsupported };
    let json = raw.json();
    if is_recursive(json) {
        return SchemaFit::Unsupported;
    }
    let mut writer = SubsetWriter { relaxed: false };
    let Some(mut text) = writer.write_node(json) else { return SchemaFit::Unsupported };
    for (key, value) in [("title", title), ("description", description)] {
        if let Some(value) = value.filter(|_| json.get(key).is_none() && text.len() > 2) {
            text.pop();
            text.push_str(&format!(",\"{key}\":"));
            writer::push_string(&mut text, value);
            text.push('}');
        }
    }
    if writer.relaxed { SchemaFit::Relaxed(text) } else { SchemaFit::Exact(text) }
}

/// References that lead from one definition to the next beyond this number count as recursion.
const MAX_REFERENCE_CHAIN: usize = 64;

/// Whether a definition refers back to itself, or a reference points outside the schema.
fn is_recursive(root: JsonRef<'_>) -> bool {
    let mut search = CycleSearch {
        references: SchemaReferences::new(root),
        chain: Vec::new(),
        checked: HashSet::new(),
    };
    search.finds_cycle(root)
}

struct CycleSearch<'a> {
    references: SchemaReferences<'a>,
    /// The references that lead to the current definition.
    chain: Vec<String>,
    checked: HashSet<String>,
}

impl<'a> CycleSearch<'a> {
    fn finds_cycle(&mut self, json: JsonRef<'a>) -> bool {
        let mut paths = Vec::new();
        collect_references(json, &mut paths);
        for path in paths {
            if self.checked.contains(&path) {
                continue;
            }
            if self.chain.len() >= MAX_REFERENCE_CHAIN || self.chain.contains(&path) {
                return true;
            }
            let Some(target) = self.references.resolve(&path) else { return true };
            self.chain.push(path.clone());
            if self.finds_cycle(target) {
                return true;
            }
            self.chain.pop();
            self.checked.insert(path);
        }
        false
    }
}

fn collect_references(json: JsonRef<'_>, out: &mut Vec<String>) {
    if let Some(path) = json.get("$ref").and_then(JsonRef::str) {
        out.push(path.into_owned());
    }
    for inner in json
        .members()
        .filter(|(key, _)| !matches!(*key, "$defs" | "definitions"))
        .map(|(_, value)| value)
        .chain(json.items())
    {
        collect_references(inner, out);
    }
}

/// Whether an object with this schema may refuse members that the schema does not name.
fn can_be_closed(json: JsonRef<'_>) -> bool {
    let is_open = |open: JsonRef<'_>| open.is_object() && !open.is_blank();
    // An object without properties would always be empty if it were closed.
    json.get("properties").is_some() && !json.get("additionalProperties").is_some_and(is_open)
}

/// Returns the description with the keywords that became words.
fn full_description(description: Option<&str>, words: &str) -> Option<String> {
    match (description, words) {
        (None, "") => None,
        (None | Some(""), words) if !words.is_empty() => Some(format!("({words})")),
        (description, "") => description.map(str::to_owned),
        (description, words) => Some(format!("{} ({words})", description.unwrap_or_default())),
    }
}

struct SubsetWriter {
    relaxed: bool,
}

const SUPPORTED_FORMATS: [&str; 10] =
    ["date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"];

impl SubsetWriter {
    /// Returns the node in the subset, or `None` if the subset cannot express it.
    fn write_node(&mut self, json: JsonRef<'_>) -> Option<String> {
        let has = |key: &str| json.get(key).is_some();
        if !json.is_object()
            || !["type", "anyOf", "oneOf", "allOf", "$ref", "enum", "const"]
                .iter()
                .any(|key| has(key))
        {
            return None;
        }
        let kinds: Vec<_> = match json.get("type") {
            Some(kind) if kind.is_array() => kind.items().filter_map(JsonRef::str).collect(),
            kind => kind.and_then(JsonRef::str).into_iter().collect(),
        };
        let object = kinds.iter().any(|kind| kind == "object");
        if object && !can_be_closed(json) {
            return None;
        }
        let mut words = String::new();
        let mut out = String::from("{");
        let mut member = |key: &str, value: &str| {
            if out.len() > 1 {
                out.push(',');
            }
            // Writing to a String cannot fail.
            write!(out, "\"{key}\":{value}").unwrap_or_default();
        };
        let mut description = None;
        for (key, value) in json.members() {
            match key {
                "description" => description = value.str(),
                "additionalProperties" if object => {}
                "properties" | "$defs" | "definitions" => member(key, &self.write_members(value)?),
                "items" => member(key, &self.write_node(value)?),
                "anyOf" | "allOf" => member(key, &self.write_list(value)?),
                "oneOf" if has("anyOf") => return None,
                "oneOf" => member("anyOf", &self.write_list(value)?),
                "enum" if value.items().any(|it| it.is_object() || it.is_array()) => return None,
                "patternProperties" | "prefixItems" => return None,
                "minItems" if matches!(value.u64(), Some(0 | 1)) => member(key, value.text()),
                "format"
                    if value.str().is_some_and(|format| SUPPORTED_FORMATS.contains(&&*format)) =>
                {
                    member(key, value.text());
                }
                "type" | "enum" | "const" | "$ref" | "title" | "default" | "required" => {
                    member(key, value.text());
                }
                // These keywords do not constrain values.
                "$schema" | "$id" | "$comment" | "examples" | "deprecated" | "readOnly"
                | "writeOnly" => {}
                _ if value.kind() == "null" => {}
                _ => {
                    self.relaxed = true;
                    let comma = if words.is_empty() { "" } else { ", " };
                    write!(words, "{comma}{key}: {}", value.text()).unwrap_or_default();
                }
            }
        }
        if object {
            member("additionalProperties", "false");
        }
        if let Some(full) = full_description(description.as_deref(), &words) {
            let mut quoted = String::new();
            writer::push_string(&mut quoted, &full);
            member("description", &quoted);
        }
        out.push('}');
        Some(out)
    }

    fn write_members(&mut self, json: JsonRef<'_>) -> Option<String> {
        let mut nodes = Vec::new();
        for (key, value) in json.members() {
            nodes.push((key, self.write_node(value)?));
        }
        Some(writer::object(|o| {
            for (key, node) in &nodes {
                o.raw_text(key, node);
            }
        }))
    }

    fn write_list(&mut self, json: JsonRef<'_>) -> Option<String> {
        let nodes: Option<Vec<String>> = json.items().map(|node| self.write_node(node)).collect();
        Some(format!("[{}]", nodes?.join(",")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subset_of(schema: &str) -> SchemaFit {
        to_strict_subset(schema, None, None)
    }

    #[test]
    fn objects_are_closed_and_bounds_move_to_descriptions() {
        let given = r#"{"$schema":"x","type":"object","properties":{"b":{"type":"integer","minimum":1,"description":"How many"},"a":{"type":"array","items":{"type":"object","properties":{"u":{"type":"string","format":"uri"}}},"maxItems":3}},"required":["b"]}"#;
        let want = r#"{"type":"object","properties":{"b":{"type":"integer","description":"How many (minimum: 1)"},"a":{"type":"array","items":{"type":"object","properties":{"u":{"type":"string","format":"uri"}},"additionalProperties":false},"description":"(maxItems: 3)"}},"required":["b"],"additionalProperties":false}"#;
        assert_eq!(subset_of(given), SchemaFit::Relaxed(want.to_owned()));
        assert_eq!(
            to_strict_subset(
                r#"{"oneOf":[{"type":"string"},{"enum":[1,null]}]}"#,
                Some("t"),
                Some("d")
            ),
            SchemaFit::Exact(
                r#"{"anyOf":[{"type":"string"},{"enum":[1,null]}],"title":"t","description":"d"}"#
                    .to_owned()
            )
        );
    }

    #[test]
    fn unenforceable_schemas_are_unsupported() {
        for schema in [
            "{}",
            "true",
            "nonsense",
            r#"{"type":"object"}"#,
            r#"{"type":"object","properties":{"m":{"type":"object","additionalProperties":{"type":"string"}}}}"#,
            r##"{"$ref":"#/$defs/n","$defs":{"n":{"type":"object","properties":{"next":{"$ref":"#/$defs/n"}}}}}"##,
            r##"{"type":"object","properties":{"me":{"$ref":"#"}}}"##,
            r#"{"type":"array","prefixItems":[{"type":"string"}]}"#,
            r#"{"enum":[{"a":1}]}"#,
        ] {
            assert_eq!(subset_of(schema), SchemaFit::Unsupported, "{schema}");
        }
        let shared = r##"{"type":"object","properties":{"a":{"$ref":"#/$defs/n"},"b":{"$ref":"#/$defs/n"}},"$defs":{"n":{"type":"string"}},"additionalProperties":false}"##;
        assert!(matches!(subset_of(shared), SchemaFit::Exact(_)));
    }

    #[test]
    fn tool_schema_has_an_object_at_its_root() {
        let rooted = |schema: &str| ensure_object_root(&RawJson::parse(schema).expect("json"));
        for same in
            [EMPTY_SCHEMA, r#"{"type":"object","properties":{"a":{"anyOf":[{"type":"null"}]}}}"#]
        {
            assert_eq!(rooted(same), (same.to_owned(), false));
        }
        assert_eq!(rooted("null"), (EMPTY_SCHEMA.to_owned(), false));
        assert_eq!(
            rooted(r#"{"properties":{}}"#),
            (r#"{"type":"object","properties":{}}"#.to_owned(), false)
        );
        let union = r##"{"anyOf":[{"type":"object","properties":{"a":{"type":"string"},"c":{"type":"null"}},"required":["a","c"]},{"$ref":"#/$defs/b"}],"$defs":{"b":{"properties":{"b":{"type":"string"},"c":{"type":"null"}},"required":["c","b"]}}}"##;
        assert_eq!(
            rooted(union),
            (
                r#"{"type":"object","properties":{"a":{"type":"string"},"c":{"type":"null"},"b":{"type":"string"}},"required":["c"],"$defs":{"b":{"properties":{"b":{"type":"string"},"c":{"type":"null"}},"required":["c","b"]}}}"#
                    .to_owned(),
                true
            )
        );
    }
}
