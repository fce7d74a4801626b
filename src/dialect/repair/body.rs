//! Repairs a body that is passed through: fields are taken out, renamed or changed where they
//! stand, and every other byte stays.

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;

use crate::{
    base::json::{
        reader::{self, JsonRef},
        scan,
    },
    ir::{generation_settings::Effort, op::Dialect, repair::Repair},
};

/// Members of messages whose content is not the API's: what tools were called with and returned.
const OPAQUE_MEMBERS: [&str; 5] = ["args", "arguments", "enum", "input", "response"];
/// Objects whose keys the user chooses.
const NAMED_BY_USER: [&str; 4] = ["$defs", "definitions", "patternProperties", "properties"];

/// What a repair does to a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyRepair {
    Changed(Bytes),
    /// The body does not contain what the upstream refuses.
    Unchanged,
    /// The request has to be written from the common form.
    NeedsRewrite,
}

/// Applies a repair to the body of a request in its own dialect.
#[must_use]
pub fn repair_body(body: &Bytes, dialect: Dialect, repair: &Repair) -> BodyRepair {
    let Ok(root) = reader::parse(body) else { return BodyRepair::Unchanged };
    let edits = match repair {
        Repair::Drop { field } => names_in(dialect, field)
            .iter()
            .filter_map(|name| removal(body, root, name))
            .take(1)
            .collect(),
        Repair::DropInside { list, field } => {
            let mut edits = Vec::new();
            if let Some(list) = root.get(list) {
                remove_inside(body, list, field, false, &mut edits);
            }
            edits
        }
        Repair::Limit { field, max } => names_in(dialect, field)
            .iter()
            .filter_map(|name| root_value(root, name))
            .filter(|value| value.u64().is_some_and(|number| number > *max))
            .map(|value| (span(body, value.text()), Bytes::from(max.to_string())))
            .take(1)
            .collect(),
        Repair::Rename { field, to } => rename(body, root, field, to).into_iter().collect(),
        Repair::Role { to } => roles(body, root, to),
        Repair::Values { field, allowed } => match root_value(root, field) {
            Some(value) => match nearest(value, allowed) {
                Some(word) => vec![(span(body, value.text()), scan::json_string(&word))],
                None => removal(body, root, field).into_iter().collect(),
            },
            None => Vec::new(),
        },
        Repair::Adaptive
        | Repair::Endpoint { .. }
        | Repair::Prefill
        | Repair::Schema
        | Repair::SystemFirst
        | Repair::TextOnly
        | Repair::Thinks
        | Repair::ThoughtsBack => return BodyRepair::NeedsRewrite,
    };
    if edits.is_empty() {
        return BodyRepair::Unchanged;
    }
    BodyRepair::Changed(scan::splice(body, &edits))
}

/// The places in which a dialect has a field of this name.
fn names_in(dialect: Dialect, field: &str) -> Vec<Cow<'_, str>> {
    let mut names = vec![Cow::Borrowed(field)];
    match (dialect, field) {
        (Dialect::Gemini, "Penalty" | "penalty") => {
            names = vec![
                "generationConfig.presencePenalty".into(),
                "generationConfig.frequencyPenalty".into(),
            ];
        }
        (Dialect::Gemini, _) => names.push(format!("generationConfig.{field}").into()),
        (Dialect::Ollama, "reasoning") => names = vec!["think".into()],
        (Dialect::Ollama, _) => names.push(format!("options.{field}").into()),
        (Dialect::Openai, "reasoning") => names.push("reasoning_effort".into()),
        _ => {}
    }
    names
}

fn root_value<'a>(root: JsonRef<'a>, field: &str) -> Option<JsonRef<'a>> {
    field.split('.').try_fold(root, |json, step| json.get(step))
}

/// The range of a part of the body.
fn span(body: &[u8], part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - body.as_ptr() as usize;
    start..start + part.len()
}

/// Removes a member with its key and one comma.
fn removal(body: &[u8], root: JsonRef<'_>, field: &str) -> Option<(Range<usize>, Bytes)> {
    let (parent, name) = match field.rsplit_once('.') {
        Some((parent, name)) => (root_value(root, parent)?, name),
        None => (root, field),
    };
    let (key, value) = parent.members().find(|(key, _)| *key == name)?;
    removal_of(body, key, value)
}

/// Removes a member wherever it stands in a list. The names in `properties` are the user's own.
fn remove_inside(
    body: &[u8],
    json: JsonRef<'_>,
    field: &str,
    has_free_names: bool,
    edits: &mut Vec<(Range<usize>, Bytes)>,
) {
    for item in json.items() {
        remove_inside(body, item, field, false, edits);
    }
    let before = edits.len();
    for (key, value) in json.members() {
        if key == field && !has_free_names {
            // Two removals of one object would share a comma.
            if edits.len() == before {
                edits.extend(removal_of(body, key, value));
            }
        } else if !OPAQUE_MEMBERS.contains(&key) || has_free_names {
            remove_inside(body, value, field, NAMED_BY_USER.contains(&key), edits);
        }
    }
}

fn removal_of(body: &[u8], key: &str, value: JsonRef<'_>) -> Option<(Range<usize>, Bytes)> {
    // The key's quotes stand around it.
    let mut range = span(body, key).start - 1..span(body, value.text()).end;
    let after = body[range.end..].iter().position(|byte| !byte.is_ascii_whitespace())?;
    if body[range.end + after] == b',' {
        range.end += after + 1;
    } else {
        let before = body[..range.start].iter().rposition(|byte| !byte.is_ascii_whitespace())?;
        if body[before] == b',' {
            range.start = before;
        }
    }
    Some((range, Bytes::new()))
}

fn rename(body: &[u8], root: JsonRef<'_>, field: &str, to: &str) -> Option<(Range<usize>, Bytes)> {
    if root.get(to).is_some() {
        return removal(body, root, field);
    }
    let (key, _) = root.members().find(|(key, _)| *key == field)?;
    Some((span(body, key), Bytes::copy_from_slice(to.as_bytes())))
}

/// Gives instructions the other role.
fn roles(body: &[u8], root: JsonRef<'_>, to: &str) -> Vec<(Range<usize>, Bytes)> {
    let from = if to == "system" { "developer" } else { "system" };
    let lists = ["messages", "input"].into_iter().filter_map(|key| root.get(key));
    lists
        .flat_map(JsonRef::items)
        .filter_map(|message| message.get("role"))
        .filter(|role| role.str().as_deref() == Some(from))
        .map(|role| (span(body, role.text()), scan::json_string(to)))
        .collect()
}

/// The allowed word that is nearest to an amount of thinking; `None` if the value is no such word.
fn nearest(value: JsonRef<'_>, allowed: &[String]) -> Option<String> {
    let rank = |effort: Effort| {
        Effort::NAMES_AND_VALUES.iter().position(|(_, known)| *known == effort).unwrap_or_default()
    };
    let wanted = rank(Effort::parse(&value.str()?)?);
    allowed
        .iter()
        .filter_map(|word| Some((rank(Effort::parse(word)?).abs_diff(wanted), word)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repaired(body: &str, dialect: Dialect, repair: &Repair) -> Option<String> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        match repair_body(&body, dialect, repair) {
            BodyRepair::Changed(bytes) => Some(String::from_utf8(bytes.to_vec()).expect("text")),
            BodyRepair::Unchanged | BodyRepair::NeedsRewrite => None,
        }
    }

    #[test]
    fn only_the_refused_field_is_removed() {
        let drop = |field: &str| Repair::Drop { field: field.to_owned() };
        for (body, field, want) in [
            (r#"{"a":1, "temperature" : 0.5 ,"b":2}"#, "temperature", r#"{"a":1, "b":2}"#),
            (r#"{"a":1, "temperature":0.5 }"#, "temperature", r#"{"a":1 }"#),
            (r#"{"temperature":0.5}"#, "temperature", "{}"),
            (r#"{"o":{"x":1,"y":[2]},"b":2}"#, "o.y", r#"{"o":{"x":1},"b":2}"#),
        ] {
            let got = repaired(body, Dialect::Openai, &drop(field));
            assert_eq!(got.as_deref(), Some(want), "{body}");
        }
        assert_eq!(repaired(r#"{"a":1}"#, Dialect::Openai, &drop("b")), None);
        assert_eq!(
            repaired(r#"{"generationConfig":{"topK":1}}"#, Dialect::Gemini, &drop("topK"))
                .as_deref(),
            Some(r#"{"generationConfig":{}}"#)
        );
    }

    #[test]
    fn members_are_removed_from_every_list_item() {
        let inside = |list: &str, field: &str| Repair::DropInside {
            list: list.to_owned(),
            field: field.to_owned(),
        };
        for (body, list, field, want) in [
            (
                r#"{"messages":[{"role":"user","content":[{"cache_control":{"a":1},"text":"a"},{"text":"b","cache_control":null}]},{"cache_control":1}],"cache_control":2}"#,
                "messages",
                "cache_control",
                r#"{"messages":[{"role":"user","content":[{"text":"a"},{"text":"b"}]},{}],"cache_control":2}"#,
            ),
            (
                r#"{"tools":[{"function":{"strict":true,"parameters":{"properties":{"strict":{"type":"string","strict":1}}}}}]}"#,
                "tools",
                "strict",
                r#"{"tools":[{"function":{"parameters":{"properties":{"strict":{"type":"string"}}}}}]}"#,
            ),
            (
                r#"{"messages":[{"content":[{"type":"tool_use","input":{"note":1},"note":2}]}]}"#,
                "messages",
                "note",
                r#"{"messages":[{"content":[{"type":"tool_use","input":{"note":1}}]}]}"#,
            ),
        ] {
            let got = repaired(body, Dialect::Openai, &inside(list, field));
            assert_eq!(got.as_deref(), Some(want), "{body}");
        }
        assert_eq!(repaired(r#"{"tools":{}}"#, Dialect::Openai, &inside("tools", "x")), None);
    }

    #[test]
    fn renamed_fields_roles_and_values_are_edited_in_place() {
        let rename = Repair::Rename { field: "max_tokens".to_owned(), to: "max_out".to_owned() };
        assert_eq!(
            repaired(r#"{"max_tokens": 5,"a":1}"#, Dialect::Openai, &rename).as_deref(),
            Some(r#"{"max_out": 5,"a":1}"#)
        );
        let role = Repair::Role { to: "system".to_owned() };
        assert_eq!(
            repaired(
                r#"{"messages":[{"role":"developer","content":"developer"},{"role":"user"}]}"#,
                Dialect::Openai,
                &role
            )
            .as_deref(),
            Some(r#"{"messages":[{"role":"system","content":"developer"},{"role":"user"}]}"#)
        );
        let values = Repair::Values {
            field: "reasoning_effort".to_owned(),
            allowed: vec!["low".to_owned(), "high".to_owned()],
        };
        assert_eq!(
            repaired(r#"{"reasoning_effort":"xhigh"}"#, Dialect::Openai, &values).as_deref(),
            Some(r#"{"reasoning_effort":"high"}"#)
        );
    }
}
