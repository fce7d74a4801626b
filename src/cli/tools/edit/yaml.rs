//! YAML: single top-level settings, and items of a list at the top or below a top-level key. Lines
//! are replaced as a whole; everything else stays.

use std::ops::Range;

use serde_json::Value;

use super::{EditFault, line_break, path::Step};

pub(super) fn parse(text: &str) -> Result<Value, EditFault> {
    if text.lines().all(|line| is_blank(line.trim_start())) {
        return Ok(Value::Null);
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let line = error
            .location()
            .map_or(1, |location| usize::try_from(location.line()).unwrap_or(usize::MAX).max(1));
        let why = error.to_string();
        EditFault::Syntax { line, why: why.lines().next().unwrap_or_default().to_owned() }
    })
}

pub(super) fn set(text: &str, at: &[Step], to: &Value) -> Result<String, EditFault> {
    let newline = line_break(text);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let new_lines = |block: &str| block.replace('\n', newline);
    match at {
        [] => Ok(new_lines(&render(to))),
        [Step::Key(name)] => {
            let entry = entry(&lines, name);
            let comment = match &entry {
                Some(range) if range.len() == 1 => comment_of(lines[range.start]),
                _ => "",
            };
            let block = new_lines(&format!("{name}: {}{comment}\n", scalar(to)));
            Ok(replace(&lines, entry.unwrap_or(lines.len()..lines.len()), &block, newline))
        }
        [step @ Step::Item(_)] => {
            let items = items(&lines, 0..lines.len());
            let found = items.iter().find(|range| is_item(&lines[(*range).clone()], step)).cloned();
            let block = new_lines(&item_text(to, step, 0));
            Ok(replace(&lines, found.unwrap_or(lines.len()..lines.len()), &block, newline))
        }
        [Step::Key(list), step @ Step::Item(_)] => {
            let Some(entry) = entry(&lines, list) else {
                let block = new_lines(&format!("{list}:\n{}", item_text(to, step, 2)));
                return Ok(replace(&lines, lines.len()..lines.len(), &block, newline));
            };
            let items = items(&lines, entry.start + 1..entry.end);
            let Some(first) = items.first() else {
                let block = new_lines(&format!("{list}:\n{}", item_text(to, step, 2)));
                return Ok(replace(&lines, entry, &block, newline));
            };
            let block = new_lines(&item_text(to, step, indentation(lines[first.start])));
            let found = items.iter().find(|range| is_item(&lines[(*range).clone()], step)).cloned();
            Ok(replace(&lines, found.unwrap_or(first.start..first.start), &block, newline))
        }
        _ => Err(unsupported()),
    }
}

pub(super) fn remove(text: &str, at: &[Step]) -> Result<String, EditFault> {
    let newline = line_break(text);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let range = match at {
        [] => return Ok(String::new()),
        [Step::Key(name)] => entry(&lines, name),
        [step @ Step::Item(_)] => items(&lines, 0..lines.len())
            .into_iter()
            .find(|range| is_item(&lines[range.clone()], step)),
        [Step::Key(list), step @ Step::Item(_)] => {
            let Some(entry) = entry(&lines, list) else { return Ok(text.to_owned()) };
            let items = items(&lines, entry.start + 1..entry.end);
            let found = items.iter().find(|range| is_item(&lines[(*range).clone()], step)).cloned();
            if found.is_some() && items.len() == 1 {
                return Ok(replace(&lines, entry, &format!("{list}: []{newline}"), newline));
            }
            found
        }
        _ => return Err(unsupported()),
    };
    Ok(match range {
        Some(range) => replace(&lines, range, "", newline),
        None => text.to_owned(),
    })
}

/// Writes a whole file.
pub(super) fn render(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            items.iter().map(|item| item_text(item, &Step::Key(String::new()), 0)).collect()
        }
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| match value {
                Value::Array(items) if items.iter().all(Value::is_object) => {
                    let items = items.iter().map(|i| item_text(i, &Step::Key(String::new()), 2));
                    format!("{name}:\n{}", items.collect::<String>())
                }
                other => format!("{name}: {}\n", scalar(other)),
            })
            .collect(),
        other => format!("{}\n", scalar(other)),
    }
}

fn unsupported() -> EditFault {
    EditFault::Unsupported("a setting has another form than the tool documents".to_owned())
}

/// Replaces lines; the line before gets its missing line break.
fn replace(lines: &[&str], range: Range<usize>, block: &str, newline: &str) -> String {
    let mut text = lines[..range.start].concat();
    if !block.is_empty() && !text.is_empty() && !text.ends_with('\n') {
        text.push_str(newline);
    }
    text.push_str(block);
    text + &lines[range.end..].concat()
}

fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#') || line == "---"
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// The lines of a top-level key with its value.
fn entry(lines: &[&str], name: &str) -> Option<Range<usize>> {
    let is_key = |line: &&str| {
        let rest = line.strip_prefix(name).or_else(|| {
            let quoted = line.strip_prefix(['"', '\''])?.strip_prefix(name)?;
            quoted.strip_prefix(['"', '\''])
        });
        rest.is_some_and(|rest| rest.trim_start().starts_with(':'))
    };
    let start = lines.iter().position(is_key)?;
    let continues = |line: &&&str| {
        is_blank(line) || line.starts_with([' ', '\t']) || line.starts_with("- ") || **line == "-"
    };
    let after = lines[start + 1..].iter().take_while(continues).count();
    Some(start..without_blank_end(lines, start + 1, start + 1 + after))
}

/// Blank lines and comments at the end belong to what follows.
fn without_blank_end(lines: &[&str], first: usize, mut end: usize) -> usize {
    while end > first && is_blank(lines[end - 1]) {
        end -= 1;
    }
    end
}

/// The lines of each item of a list.
fn items(lines: &[&str], within: Range<usize>) -> Vec<Range<usize>> {
    let is_dash = |line: &str| line.trim_start().starts_with("- ") || line.trim() == "-";
    let Some(first) = lines[within.clone()].iter().position(|line| !is_blank(line)) else {
        return Vec::new();
    };
    let first = within.start + first;
    let indent = indentation(lines[first]);
    let is_start = |at: &usize| is_dash(lines[*at]) && indentation(lines[*at]) == indent;
    let starts: Vec<usize> = (first..within.end).filter(is_start).collect();
    starts
        .iter()
        .enumerate()
        .map(|(n, start)| {
            let end = starts.get(n + 1).copied().unwrap_or(within.end);
            *start..without_blank_end(lines, start + 1, end)
        })
        .collect()
}

fn is_item(lines: &[&str], step: &Step) -> bool {
    let indent = lines.first().map_or(0, |line| indentation(line));
    let text: String = lines
        .iter()
        .map(|line| line.get(indent.min(indentation(line))..).unwrap_or(line))
        .collect();
    match serde_saphyr::from_str::<Value>(&text) {
        Ok(Value::Array(items)) => items.first().is_some_and(|item| step.matches(item)),
        _ => false,
    }
}

/// An object as an item of a list; the field that names it comes first.
fn item_text(value: &Value, step: &Step, indent: usize) -> String {
    let Value::Object(fields) = value else {
        return format!("{:indent$}- {}\n", "", scalar(value));
    };
    let first = step.item().map(|(field, _)| field).unwrap_or("name");
    let (mut named, others): (Vec<_>, Vec<_>) =
        fields.iter().partition(|(name, _)| name.as_str() == first);
    named.extend(others);
    named
        .iter()
        .enumerate()
        .map(|(n, (name, value))| {
            let dash = if n == 0 { "- " } else { "  " };
            format!("{:indent$}{dash}{name}: {}\n", "", scalar(value))
        })
        .collect()
}

/// The comment behind the value of a line, with the blanks before it.
fn comment_of(line: &str) -> &str {
    let line = line.trim_end_matches(['\r', '\n']);
    let (mut quote, mut last) = (None, ' ');
    for (at, c) in line.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == '#' && last.is_whitespace() => {
                return &line[line[..at].trim_end().len()..];
            }
            None => {}
        }
        last = c;
    }
    ""
}

/// A value in one line.
fn scalar(value: &Value) -> String {
    let Value::String(text) = value else { return value.to_string() };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@{}$ ".contains(c);
    let is_text = || serde_saphyr::from_str::<Value>(text).is_ok_and(|found| found == *value);
    if !text.is_empty()
        && text.chars().all(is_plain)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/' || c == '$')
        && !text.contains(": ")
        && !text.ends_with(':')
        && is_text()
    {
        return text.clone();
    }
    // A JSON string is a YAML string.
    value.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn steps(path: &Value) -> Vec<Step> {
        serde_json::from_value(path.clone()).unwrap()
    }

    #[test]
    fn top_level_settings_are_single_lines() {
        let text = "# mine\ndark: true\n\nread:\n    - A.md   # ours\n";
        let at = steps(&json!(["model"]));
        let got = set(text, &at, &json!("openai/m:1")).unwrap();
        assert_eq!(got, format!("{text}model: openai/m:1\n"));
        assert_eq!(remove(&got, &at).unwrap(), text);
        assert_eq!(
            set("model: gpt   # mine\nx: 1\n", &at, &json!("no")).unwrap(),
            "model: \"no\"   # mine\nx: 1\n"
        );
        assert_eq!(
            remove(&got, &steps(&json!(["read"]))).unwrap(),
            "# mine\ndark: true\n\nmodel: openai/m:1\n"
        );
    }

    #[test]
    fn items_are_replaced_and_appended() {
        let at = steps(&json!([{ "model_id": "ours" }]));
        let text = "# mine\r\n- model_id: local\r\n  x:   1   # odd";
        let got = set(text, &at, &json!({ "model_id": "ours", "api": "http://a/v1" })).unwrap();
        assert_eq!(got, format!("{text}\r\n- model_id: ours\r\n  api: http://a/v1\r\n"));
        let other = set(&got, &at, &json!({ "model_id": "ours" })).unwrap();
        assert_eq!(other, format!("{text}\r\n- model_id: ours\r\n"));
        assert_eq!(remove(&other, &at).unwrap(), format!("{text}\r\n"));
    }

    #[test]
    fn items_below_a_key_come_first() {
        let at = steps(&json!(["models", { "name": "ours" }]));
        let text = "name: x\nmodels:\n  # theirs\n  - name: theirs\n    n: 1\nend: 1\n";
        let got = set(text, &at, &json!({ "name": "ours", "roles": ["a"] })).unwrap();
        assert_eq!(
            got,
            "name: x\nmodels:\n  # theirs\n  - name: ours\n    roles: [\"a\"]\n  - name: theirs\n    n: 1\nend: 1\n"
        );
        assert_eq!(remove(&got, &at).unwrap(), text);
        for start in ["", "models: []\n"] {
            let got = set(start, &at, &json!({ "name": "ours" })).unwrap();
            assert_eq!(got, "models:\n  - name: ours\n");
            assert_eq!(remove(&got, &at).unwrap(), "models: []\n");
        }
    }

    #[test]
    fn syntax_error_names_its_line() {
        let text = "# mine\ndark: true\nread:\n  - a\n - b: [\n";
        assert!(
            matches!(parse(text), Err(EditFault::Syntax { line: 5..=6, .. })),
            "{:?}",
            parse(text)
        );
    }
}
