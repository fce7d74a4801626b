//! Paths to settings, and changes to parsed files by such paths.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One step from a container to a value inside it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub(in crate::cli::tools) enum Step {
    /// The field of an object.
    Key(String),
    /// The item of a list whose field has this value; one pair.
    Item(BTreeMap<String, String>),
}

impl Step {
    /// The field and its value that identify the item of a list.
    pub(super) fn item(&self) -> Option<(&str, &str)> {
        match self {
            Self::Key(_) => None,
            Self::Item(pairs) => {
                pairs.iter().next().map(|(field, value)| (field.as_str(), value.as_str()))
            }
        }
    }

    /// Returns whether a list's item is the one that this step names.
    pub(super) fn matches(&self, item: &Value) -> bool {
        self.item().is_some_and(|(field, value)| {
            item.get(field).and_then(Value::as_str).is_some_and(|found| found == value)
        })
    }
}

/// Returns the value at a path.
pub(in crate::cli::tools) fn get<'a>(root: &'a Value, path: &[Step]) -> Option<&'a Value> {
    path.iter().try_fold(root, |at, step| match step {
        Step::Key(name) => at.get(name),
        Step::Item(_) => at.as_array()?.iter().find(|item| step.matches(item)),
    })
}

/// Sets the value at a path and creates the containers that are missing. A container of another
/// kind is replaced.
pub(super) fn set(root: &mut Value, path: &[Step], value: Value) {
    let Some((step, rest)) = path.split_first() else {
        *root = value;
        return;
    };
    match step {
        Step::Key(name) => {
            if !root.is_object() {
                *root = Value::Object(Map::new());
            }
            if let Some(fields) = root.as_object_mut() {
                set(fields.entry(name.as_str()).or_insert(Value::Null), rest, value);
            }
        }
        Step::Item(_) => {
            if !root.is_array() {
                *root = Value::Array(Vec::new());
            }
            if let Some(items) = root.as_array_mut() {
                match items.iter_mut().find(|item| step.matches(item)) {
                    Some(item) => set(item, rest, value),
                    None => {
                        let mut item = Value::Null;
                        set(&mut item, rest, value);
                        items.push(item);
                    }
                }
            }
        }
    }
}

/// Removes the value at a path; returns whether there was one.
pub(super) fn remove(root: &mut Value, path: &[Step]) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    let parent = parents.iter().try_fold(root, |at, step| match step {
        Step::Key(name) => at.get_mut(name),
        Step::Item(_) => at.as_array_mut()?.iter_mut().find(|item| step.matches(item)),
    });
    match (last, parent) {
        (Step::Key(name), Some(Value::Object(fields))) => fields.remove(name).is_some(),
        (Step::Item(_), Some(Value::Array(items))) => {
            let before = items.len();
            items.retain(|item| !last.matches(item));
            items.len() < before
        }
        _ => false,
    }
}

/// Returns whether a container holds nothing.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Null => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn steps(path: &Value) -> Vec<Step> {
        serde_json::from_value(path.clone()).unwrap()
    }

    #[test]
    fn values_are_set_found_and_removed_by_their_path() {
        let mut root = json!({ "a": 1, "list": [{ "name": "x" }] });
        let (deep, item) =
            (steps(&json!(["b", "c"])), steps(&json!(["list", { "name": "y" }, "url"])));
        set(&mut root, &deep, json!(2));
        set(&mut root, &item[..2], json!({ "name": "y" }));
        set(&mut root, &item, json!("u"));
        assert_eq!(
            root,
            json!({ "a": 1, "b": { "c": 2 }, "list": [{ "name": "x" }, { "name": "y", "url": "u" }] })
        );
        assert_eq!(get(&root, &item), Some(&json!("u")));
        assert!(remove(&mut root, &item[..2]) && remove(&mut root, &deep));
        assert!(!remove(&mut root, &deep));
        assert_eq!(root, json!({ "a": 1, "b": {}, "list": [{ "name": "x" }] }));
    }
}
