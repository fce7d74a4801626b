//! Writes the arguments of a call to a tool that the client runs as the client's item has them.
//! Models that know these tools only as functions give them under other keys, one level deeper or
//! as a text.

use crate::{
    base::json::{raw::RawJson, reader::JsonRef, writer::ObjectWriter},
    ir::tool,
};

/// Keys under which models give a command.
const COMMAND_KEYS: [&str; 4] = ["commands", "command", "cmd", "input"];
/// How often arguments are looked for one level deeper.
const MAX_WRAPPERS: usize = 3;

/// Parses arguments; `None` if they are no object. An object whose only member is the object
/// itself, as such or as a text, is that member. `member` is the item's name for the arguments.
pub(super) fn parse(text: &str, member: &str) -> Option<RawJson> {
    let mut arguments = RawJson::parse(text)?;
    for _ in 0..MAX_WRAPPERS {
        let Some(inner) = only_member(&arguments, member) else { break };
        arguments = inner;
    }
    arguments.json().is_object().then_some(arguments)
}

/// The only member of an object, if it is an object itself and its key says no more.
fn only_member(arguments: &RawJson, name: &str) -> Option<RawJson> {
    let mut members = arguments.json().members();
    let (key, value) = members.next()?;
    if members.next().is_some() || ![name, "arguments", "args", "input"].contains(&key) {
        return None;
    }
    let inner = match value.str() {
        Some(text) => RawJson::parse(&text)?,
        None => RawJson::from_json(value),
    };
    inner.json().is_object().then_some(inner)
}

/// Writes the action of a `local_shell_call`: its command is a program with its arguments.
pub(super) fn write_local_shell(o: &mut ObjectWriter<'_>, arguments: JsonRef<'_>) {
    o.str("type", "exec");
    let command = command_key(arguments);
    for (key, value) in arguments.members() {
        match (value.str(), key) {
            (_, "type") => {}
            // A model may give one line where the client wants a list.
            (Some(line), key) if Some(key) == command => {
                o.array("command", |a| {
                    a.str("bash").str("-lc").str(&line);
                });
            }
            (None, key) if Some(key) == command => {
                o.json("command", value);
            }
            (_, "cwd" | "workdir") => {
                o.json("working_directory", value);
            }
            _ => {
                o.json(key, value);
            }
        }
    }
    if arguments.get("env").is_none() {
        o.object("env", |_| {});
    }
}

/// Writes the action of a `shell_call`: its commands are lines for the shell.
pub(super) fn write_shell(o: &mut ObjectWriter<'_>, arguments: JsonRef<'_>) {
    let command = command_key(arguments);
    for (key, value) in arguments.members() {
        let line = match value.str() {
            Some(line) => line.into_owned(),
            // A program with its arguments.
            None if key != "commands" => join_words(value),
            None => String::new(),
        };
        if Some(key) == command && !line.is_empty() {
            o.array("commands", |a| {
                a.str(&line);
            });
        } else {
            o.json(key, value);
        }
    }
}

/// Writes the operation of an `apply_patch_call`. A patch of one file in the form of the free-text
/// tool becomes the operation that it means; returns false if there is no such patch.
pub(super) fn write_patch(o: &mut ObjectWriter<'_>, text: &str) -> bool {
    let patch = tool::custom_input(text);
    let Some((kind, path, diff)) = read_patch(&patch) else { return false };
    o.str("type", kind).str("path", path);
    if kind != "delete_file" {
        o.str("diff", &diff);
    }
    true
}

fn command_key(arguments: JsonRef<'_>) -> Option<&'static str> {
    COMMAND_KEYS.into_iter().find(|key| arguments.get(key).is_some())
}

/// Joins a program and its arguments to a line that a shell takes apart again.
fn join_words(words: JsonRef<'_>) -> String {
    let is_plain = |word: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
        !word.is_empty() && word.chars().all(plain)
    };
    let quoted = words.items().filter_map(JsonRef::string).map(|word| match is_plain(&word) {
        true => word,
        false => format!("'{}'", word.replace('\'', r"'\''")),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// The kind, path and diff of a patch that changes one file and does not move it.
fn read_patch(patch: &str) -> Option<(&'static str, &str, String)> {
    const HEADS: [(&str, &str); 3] = [
        ("*** Add File: ", "create_file"),
        ("*** Update File: ", "update_file"),
        ("*** Delete File: ", "delete_file"),
    ];
    let mut lines = patch.trim().lines();
    lines.next().filter(|line| line.trim_end() == "*** Begin Patch")?;
    let head = lines.next()?;
    let (path, kind) =
        HEADS.iter().find_map(|(mark, kind)| Some((head.strip_prefix(mark)?.trim(), *kind)))?;
    let mut diff = Vec::new();
    for line in lines {
        match line.trim_end() {
            "*** End Patch" => return Some((kind, path, diff.join("\n"))),
            "*** End of File" => {}
            _ if line.starts_with("*** ") => return None,
            _ => diff.push(line),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::json::writer;

    #[test]
    fn wrapped_arguments_are_unwrapped() {
        for text in [
            r#"{"path":"a"}"#,
            r#"{"operation":{"path":"a"}}"#,
            r#"{"operation":"{\"path\":\"a\"}"}"#,
            r#"{"input":{"operation":{"path":"a"}}}"#,
        ] {
            let found = parse(text, "operation").expect("an object");
            assert_eq!(found.json().string_at("path").as_deref(), Some("a"), "{text}");
        }
        assert!(parse("[1]", "operation").is_none() && parse("ls", "operation").is_none());
    }

    #[test]
    fn commands_are_written_in_the_form_of_the_client() {
        let local = |text: &str| {
            let arguments = parse(text, "action").expect("an object");
            writer::object(|o| write_local_shell(o, arguments.json()))
        };
        let line = r#"{"type":"exec","command":["bash","-lc","ls -l"],"env":{}}"#;
        for text in [r#"{"command":"ls -l"}"#, r#"{"cmd":"ls -l"}"#, r#"{"input":"ls -l"}"#] {
            assert_eq!(local(text), line);
        }
        assert_eq!(
            local(r#"{"cmd":["ls"],"workdir":"/"}"#),
            r#"{"type":"exec","command":["ls"],"working_directory":"/","env":{}}"#
        );
        let shell = |text: &str| {
            let arguments = parse(text, "action").expect("an object");
            writer::object(|o| write_shell(o, arguments.json()))
        };
        assert_eq!(shell(r#"{"commands":["a","b"]}"#), r#"{"commands":["a","b"]}"#);
        assert_eq!(shell(r#"{"cmd":"ls -l"}"#), r#"{"commands":["ls -l"]}"#);
        assert_eq!(
            shell(r#"{"command":["echo","it's"],"timeout_ms":5}"#),
            r#"{"commands":["echo 'it'\\''s'"],"timeout_ms":5}"#
        );
    }

    #[test]
    fn patch_of_one_file_becomes_an_operation() {
        let patch = |body: &str| {
            let text = format!("*** Begin Patch\n{body}\n*** End Patch");
            let mut is_patch = false;
            let text = writer::object(|o| {
                is_patch = write_patch(
                    o,
                    &writer::object(|o| {
                        o.str("patch", &text);
                    }),
                );
            });
            is_patch.then_some(text)
        };
        assert_eq!(
            patch("*** Update File: a\n@@\n-x\n+y").as_deref(),
            Some(r#"{"type":"update_file","path":"a","diff":"@@\n-x\n+y"}"#)
        );
        assert_eq!(
            patch("*** Delete File: a").as_deref(),
            Some(r#"{"type":"delete_file","path":"a"}"#)
        );
        for other in
            ["*** Delete File: a\n*** Delete File: b", "*** Update File: a\n*** Move to: b", "x"]
        {
            assert_eq!(patch(other), None, "{other}");
        }
    }
}
