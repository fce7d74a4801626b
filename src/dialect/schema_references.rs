//! Resolves the references inside a JSON Schema without a scan for each of them.

use std::collections::HashMap;

use crate::base::json::{reader::JsonRef, writer};

/// The definitions of one schema.
pub(super) struct SchemaReferences<'a> {
    root: JsonRef<'a>,
    /// The members of each object that a reference looked into, by its path.
    members: HashMap<String, HashMap<&'a str, JsonRef<'a>>>,
}

impl<'a> SchemaReferences<'a> {
    pub(super) fn new(root: JsonRef<'a>) -> Self {
        Self { root, members: HashMap::new() }
    }

    /// Returns the target of a reference into the same document (RFC 6901, as a URI fragment).
    pub(super) fn resolve(&mut self, reference: &str) -> Option<JsonRef<'a>> {
        let pointer = reference.strip_prefix('#')?;
        let Some((parent, last)) = pointer.rsplit_once('/') else { return Some(self.root) };
        if let Some(members) = self.members.get(parent) {
            return members.get(&*escape_key(&unescape_step(last))).copied();
        }
        let parent_json = parent.split('/').skip(1).try_fold(self.root, child)?;
        if parent_json.is_array() {
            return child(parent_json, last);
        }
        let mut members = HashMap::new();
        for (key, value) in parent_json.members() {
            members.entry(key).or_insert(value);
        }
        let found = members.get(&*escape_key(&unescape_step(last))).copied();
        self.members.insert(parent.to_owned(), members);
        found
    }
}

fn child<'a>(json: JsonRef<'a>, step: &str) -> Option<JsonRef<'a>> {
    let step = unescape_step(step);
    match step.parse::<usize>() {
        Ok(at) if json.is_array() => json.items().nth(at),
        _ => json.get(&escape_key(&step)),
    }
}

fn unescape_step(step: &str) -> String {
    let step = step.replace("~1", "/").replace("~0", "~");
    percent_encoding::percent_decode_str(&step).decode_utf8_lossy().into_owned()
}

/// Escapes a key as it appears between its quotes.
fn escape_key(key: &str) -> String {
    let mut out = String::new();
    writer::push_string(&mut out, key);
    out[1..out.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::json::raw::RawJson;

    #[test]
    fn schema_references_are_resolved() {
        let schema = RawJson::parse(r#"{"$defs":{"a/b":{"n":1},"c":[{"n":2}]}}"#).unwrap();
        let mut references = SchemaReferences::new(schema.json());
        for (reference, want) in [
            ("#/$defs/a~1b", Some(r#"{"n":1}"#)),
            ("#/$defs/a%2Fb", Some(r#"{"n":1}"#)),
            ("#/$defs/c/0", Some(r#"{"n":2}"#)),
            ("#/$defs/none", None),
            ("https://example.com", None),
        ] {
            assert_eq!(references.resolve(reference).map(JsonRef::text), want, "{reference}");
        }
    }
}
