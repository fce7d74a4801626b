//! `NAME=value` lines, as tools read them from `.env` files.

use serde_json::{Map, Value};

use super::{line_break, path::Step, plain_text};

/// Parses the lines; the last one with a name counts. A file without any is `null`.
pub(super) fn parse(text: &str) -> Value {
    let fields: Map<String, Value> = text
        .lines()
        .filter_map(assignment)
        .map(|(name, value)| (name.to_owned(), unquoted(value).into()))
        .collect();
    if fields.is_empty() { Value::Null } else { Value::Object(fields) }
}

/// Sets a variable in its line, or in a new last line. The empty path sets all of an object.
pub(super) fn set(text: &str, at: &[Step], to: &Value) -> String {
    let Some(Step::Key(name)) = at.first() else {
        let fields = to.as_object().into_iter().flatten();
        return fields.map(|(name, value)| line(name, value) + "\n").collect();
    };
    let newline = line_break(text);
    let mut found = false;
    let mut result = String::with_capacity(text.len() + 64);
    for whole in text.split_inclusive('\n') {
        if assignment(whole).is_some_and(|(known, _)| known == name) {
            if !found {
                let end = &whole[whole.trim_end_matches(['\r', '\n']).len()..];
                result.push_str(&line(name, to));
                result.push_str(end);
            }
            found = true;
        } else {
            result.push_str(whole);
        }
    }
    if !found {
        if !result.is_empty() && !result.ends_with('\n') {
            result.push_str(newline);
        }
        result.push_str(&line(name, to));
        result.push_str(newline);
    }
    result
}

/// Removes the lines of a variable.
pub(super) fn remove(text: &str, at: &[Step]) -> String {
    let Some(Step::Key(name)) = at.first() else { return String::new() };
    text.split_inclusive('\n')
        .filter(|line| assignment(line).is_none_or(|(known, _)| known != name))
        .collect()
}

fn line(name: &str, value: &Value) -> String {
    let text = plain_text(value);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:,=~%".contains(c);
    if text.chars().all(is_plain) {
        format!("{name}={text}")
    } else {
        format!("{name}=\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

/// The name and the value of a line, if it is an assignment.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    let (name, value) = line.split_once('=')?;
    let name = name.trim_end();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    (!name.is_empty() && name.chars().all(is_name)).then_some((name, value.trim()))
}

fn unquoted(value: &str) -> String {
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return if quote == '"' {
                inner.replace("\\\"", "\"").replace("\\\\", "\\")
            } else {
                inner.to_owned()
            };
        }
    }
    // A comment begins behind a blank.
    value.split_once(" #").map_or(value, |(value, _)| value.trim_end()).to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn other_lines_stay_and_the_last_line_break_may_be_missing() {
        let at = [Step::Key("KEY".to_owned())];
        let text = "# mine\r\nexport A='x y'\r\nB = 1 # one";
        let set_text = set(text, &at, &json!("http://127.0.0.1:1/v1"));
        assert_eq!(set_text, format!("{text}\r\nKEY=http://127.0.0.1:1/v1\r\n"));
        assert_eq!(
            parse(&set_text),
            json!({ "A": "x y", "B": "1", "KEY": "http://127.0.0.1:1/v1" })
        );
        assert_eq!(set("KEY=old\nZ=1\n", &at, &json!("new")), "KEY=new\nZ=1\n");
        assert_eq!(remove("KEY=old\nZ=1\n", &at), "Z=1\n");
    }
}
