//! Formats the facts about one thing as `name  value` lines.

use serde_json::Value;

use crate::base::{pattern::Patterns, sanitize::clean};

/// Formats JSON facts as `name  value` lines; omits empty and absent values.
pub(in crate::cli) fn facts_text(facts: &Value) -> String {
    let mut text = String::new();
    let mut rows: Vec<_> = facts.as_object().into_iter().flatten().collect();
    // The name first, then alphabetical order.
    rows.sort_by_key(|(name, _)| *name != "name");
    for (name, value) in rows {
        let lines = match value {
            Value::Null => continue,
            Value::String(s) if s.is_empty() => continue,
            Value::String(s) => vec![s.clone()],
            Value::Array(items) if items.is_empty() => continue,
            Value::Array(items) if items.iter().all(Value::is_string) => {
                vec![items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")]
            }
            Value::Array(items) => items.iter().map(json_one_line).collect(),
            Value::Object(map) if map.is_empty() => continue,
            Value::Object(_) => vec![json_one_line(value)],
            Value::Bool(_) | Value::Number(_) => vec![value.to_string()],
        };
        for (at, line) in lines.iter().enumerate() {
            let name = if at == 0 { name.as_str() } else { "" };
            text.push_str(&format!("{name:<16}{}\n", clean(line)));
        }
    }
    text
}

fn json_one_line(value: &Value) -> String {
    let Some(map) = value.as_object() else { return value.to_string() };
    let part = |(name, value): (&String, &Value)| match value {
        Value::Null => None,
        Value::String(text) => Some(format!("{name} {text}")),
        other => Some(format!("{name} {other}")),
    };
    map.iter().filter_map(part).collect::<Vec<_>>().join(" · ")
}

/// The patterns as they are written in the config.
pub(in crate::cli) fn pattern_texts(patterns: &Patterns) -> Vec<String> {
    patterns
        .include
        .iter()
        .map(|p| p.text().to_owned())
        .chain(patterns.exclude.iter().map(|p| format!("!{}", p.text())))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn facts_are_one_per_line_and_empty_ones_are_omitted() {
        let text = facts_text(&json!({
            "name": "box", "preset": null, "rename": {}, "models": ["a", "b-*"], "priority": 10,
            "keys": [{"label": "one", "reference": "env:A"}, {"label": "two", "reference": "env:B"}],
        }));
        assert!(
            text.contains("name            box\n") && text.contains("models          a, b-*\n"),
            "{text}"
        );
        assert!(
            text.contains("keys            label one · reference env:A\n                label two"),
            "{text}"
        );
        assert!(!text.contains("preset") && !text.contains("rename"), "{text}");
    }
}
