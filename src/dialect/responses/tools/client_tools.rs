//! Tools that this API defines and the client runs: shells, patches and the search for further
//! tools. Other dialects offer them as functions of the same name; the calls come back to the
//! client as items of their own types (OpenAI's guides to each tool).

use std::borrow::Cow;

use crate::{
    base::json::{raw::RawJson, reader::JsonRef, writer},
    dialect::responses::{
        items_read::{self, DIALECT, item_type},
        tools::client_arguments,
    },
    ir::{
        block::{Block, BlockKind, CallKind, ToolCall},
        extras::Extras,
        tool::{FunctionTool, ORIGINAL_TOOL_NOTE, Tool},
    },
};

/// The note on a call or result: the item as the client wrote it.
pub(in crate::dialect::responses) const ORIGINAL_ITEM_NOTE: &str = "original";
/// The note on a tool that the client's search found: it is part of the result of the search.
pub(in crate::dialect::responses) const FOUND_TOOL_NOTE: &str = "found";

/// A tool that the client runs.
#[derive(Debug)]
pub(in crate::dialect::responses) struct ResponsesClientTool {
    /// The type of the tool, and the name of its function elsewhere.
    pub(in crate::dialect::responses) name: &'static str,
    pub(in crate::dialect::responses) call_type: &'static str,
    pub(in crate::dialect::responses) output_type: &'static str,
    /// The member of a call with its arguments.
    arguments: &'static str,
    description: &'static str,
    schema: &'static str,
}

const CLIENT_TOOLS: [ResponsesClientTool; 5] = [
    ResponsesClientTool {
        name: "local_shell",
        call_type: "local_shell_call",
        output_type: "local_shell_call_output",
        arguments: "action",
        description: "Runs a command on the user's machine and returns its output.",
        schema: r#"{"type":"object","properties":{"command":{"type":"array","items":{"type":"string"},"description":"The program and its arguments."},"working_directory":{"type":"string"},"timeout_ms":{"type":"integer"},"env":{"type":"object","additionalProperties":{"type":"string"}}},"required":["command"]}"#,
    },
    ResponsesClientTool {
        name: "shell",
        call_type: "shell_call",
        output_type: "shell_call_output",
        arguments: "action",
        description: "Runs shell commands on the user's machine and returns their output.",
        schema: r#"{"type":"object","properties":{"commands":{"type":"array","items":{"type":"string"},"description":"The commands, each a line for the shell."},"timeout_ms":{"type":"integer"},"max_output_length":{"type":"integer"}},"required":["commands"]}"#,
    },
    ResponsesClientTool {
        name: "apply_patch",
        call_type: "apply_patch_call",
        output_type: "apply_patch_call_output",
        arguments: "operation",
        description: "Creates, updates or deletes a file of the user's project.",
        schema: r#"{"type":"object","properties":{"type":{"type":"string","enum":["create_file","update_file","delete_file"]},"path":{"type":"string"},"diff":{"type":"string","description":"For create_file and update_file: the change as a V4A diff."}},"required":["type","path"]}"#,
    },
    ResponsesClientTool {
        name: "computer_use_preview",
        call_type: "computer_call",
        output_type: "computer_call_output",
        arguments: "action",
        description: "Controls the screen, the mouse and the keyboard of a computer.",
        schema: r#"{"type":"object","properties":{"type":{"type":"string","enum":["click","double_click","drag","keypress","move","screenshot","scroll","type","wait"]},"x":{"type":"integer"},"y":{"type":"integer"},"button":{"type":"string","enum":["left","right","wheel","back","forward"]},"scroll_x":{"type":"integer"},"scroll_y":{"type":"integer"},"path":{"type":"array","items":{"type":"object","properties":{"x":{"type":"integer"},"y":{"type":"integer"}}}},"keys":{"type":"array","items":{"type":"string"}},"text":{"type":"string"}},"required":["type"]}"#,
    },
    ResponsesClientTool {
        name: "tool_search",
        call_type: "tool_search_call",
        output_type: "tool_search_output",
        arguments: "arguments",
        description: "Searches for further tools. Those that it finds can be called from then on.",
        schema: r#"{"type":"object","properties":{"query":{"type":"string"}},"required":["query"]}"#,
    },
];

/// The tool with this type or function name.
pub(in crate::dialect::responses) fn named(name: &str) -> Option<&'static ResponsesClientTool> {
    CLIENT_TOOLS.iter().find(|tool| tool.name == name)
}

/// The tool whose calls are items of this type.
pub(in crate::dialect::responses) fn of_call(kind: &str) -> Option<&'static ResponsesClientTool> {
    CLIENT_TOOLS.iter().find(|tool| tool.call_type == kind)
}

/// The tool whose results are items of this type.
pub(in crate::dialect::responses) fn of_output(kind: &str) -> Option<&'static ResponsesClientTool> {
    CLIENT_TOOLS.iter().find(|tool| tool.output_type == kind)
}

/// The type by which the client defined a tool that it runs.
pub(in crate::dialect::responses) fn original_type(tool: &Tool) -> Option<String> {
    let Tool::Function(tool) = tool else { return None };
    tool.extras.get(DIALECT, ORIGINAL_TOOL_NOTE)?.json().string_at("type")
}

/// Reads a tool as a function; `None` if the provider runs it.
pub(in crate::dialect::responses) fn read_tool(json: JsonRef<'_>) -> Option<FunctionTool> {
    let known = named(&item_type(json))?;
    if known.name == "tool_search" && json.string_at("execution").as_deref() != Some("client") {
        return None;
    }
    let mut extras = Extras::default();
    extras.push_dialect_only(DIALECT, ORIGINAL_TOOL_NOTE, RawJson::from_json(json));
    let schema = json.get("parameters").filter(|schema| schema.is_object());
    Some(FunctionTool {
        name: known.name.to_owned(),
        description: json
            .non_empty_at("description")
            .or_else(|| Some(known.description.to_owned())),
        schema: schema.map(RawJson::from_json).or_else(|| RawJson::parse(known.schema)),
        extras,
        ..FunctionTool::default()
    })
}

/// The id that joins a call and its result.
pub(in crate::dialect::responses) fn call_id(item: JsonRef<'_>) -> Option<String> {
    item.non_empty_at("call_id").or_else(|| item.non_empty_at("id"))
}

impl ResponsesClientTool {
    /// Reads a call; its id is empty if the item has none.
    pub(in crate::dialect::responses) fn read_call(&self, item: JsonRef<'_>) -> ToolCall {
        let arguments = match item.get(self.arguments) {
            Some(action) if action.is_object() && self.name == "local_shell" => {
                writer::object(|o| {
                    for (key, value) in action.members().filter(|(key, _)| *key != "type") {
                        o.json(key, value);
                    }
                })
            }
            Some(arguments) => arguments.plain_text(),
            None => "{}".to_owned(),
        };
        ToolCall {
            id: call_id(item).unwrap_or_default(),
            name: self.name.to_owned(),
            arguments,
            form: CallKind::Function,
        }
    }

    /// Reads the content of a result as text and media; the flag says whether the call failed.
    pub(in crate::dialect::responses) fn read_output(
        &self,
        item: JsonRef<'_>,
    ) -> (Vec<Block>, bool) {
        if self.name == "tool_search" {
            return (vec![Block::text(found_tools_text(item))], false);
        }
        let failed = item.string_at("status").as_deref() == Some("failed");
        let content = match item.get("output") {
            Some(list) if list.is_array() => list.items().flat_map(read_output_part).collect(),
            Some(output) if output.is_object() => vec![items_read::read_part(output)],
            Some(output) => vec![Block::text(output.plain_text())],
            None => Vec::new(),
        };
        let is_blank =
            |block: &Block| matches!(&block.kind, BlockKind::Text(it) if it.text.is_empty());
        if content.iter().all(is_blank) {
            let words = if failed { "(failed without output)" } else { "(no output)" };
            return (vec![Block::text(words)], failed);
        }
        (content, failed)
    }

    /// Writes the members of a call item that hold its arguments.
    pub(in crate::dialect::responses) fn write_arguments(
        &self,
        o: &mut writer::ObjectWriter<'_>,
        text: &str,
    ) {
        match self.name {
            "tool_search" => {
                o.str("execution", "client");
            }
            "computer_use_preview" => {
                o.array("pending_safety_checks", |_| {});
            }
            _ => {}
        }
        let parsed = client_arguments::parse(text, self.arguments);
        o.object(self.arguments, |o| match (self.name, parsed.as_ref().map(RawJson::json)) {
            ("apply_patch", json)
                if json.is_none_or(|json| json.get("type").is_none())
                    && client_arguments::write_patch(o, text) => {}
            ("local_shell", Some(json)) => client_arguments::write_local_shell(o, json),
            ("shell", Some(json)) => client_arguments::write_shell(o, json),
            (_, Some(json)) => {
                for (key, value) in json.members() {
                    o.json(key, value);
                }
            }
            (_, None) => {
                o.str("input", text);
            }
        });
    }
}

/// A part of a shell's output, or of a message.
fn read_output_part(part: JsonRef<'_>) -> Vec<Block> {
    if part.get("stdout").is_none() && part.get("stderr").is_none() {
        return vec![items_read::read_part(part)];
    }
    let mut text = part.string_at("stdout").unwrap_or_default();
    if let Some(errors) = part.non_empty_at("stderr") {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&errors);
    }
    let code = part.member_at(&["outcome", "exit_code"]).and_then(JsonRef::i64);
    let ending: Cow<'_, str> =
        match (part.member_at(&["outcome", "type"]).and_then(JsonRef::str), code) {
            (Some(kind), _) if &*kind == "timeout" => "(timed out)".into(),
            (_, Some(code)) if code != 0 => format!("(exit code {code})").into(),
            _ => "".into(),
        };
    if !ending.is_empty() {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&ending);
    }
    vec![Block::text(text)]
}

/// The names and descriptions of the tools that a search found.
fn found_tools_text(item: JsonRef<'_>) -> String {
    let mut lines = Vec::new();
    let mut add = |namespace: Option<&str>, tool: JsonRef<'_>| {
        let Some(name) = tool.non_empty_at("name") else { return };
        let name = namespace
            .map_or_else(|| name.clone(), |space| items_read::qualified_name(space, &name));
        match tool.non_empty_at("description") {
            Some(description) => lines.push(format!("- {name}: {description}")),
            None => lines.push(format!("- {name}")),
        }
    };
    for tool in item.get("tools").into_iter().flat_map(JsonRef::items) {
        if item_type(tool) == "namespace" {
            let space = tool.string_at("name").unwrap_or_default();
            for inner in tool.get("tools").into_iter().flat_map(JsonRef::items) {
                add(Some(&space), inner);
            }
        } else {
            add(None, tool);
        }
    }
    if lines.is_empty() {
        "No tools were found.".to_owned()
    } else {
        format!("Found these tools, which can be called now:\n{}", lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> RawJson {
        RawJson::parse(text).expect("valid JSON")
    }

    fn output_text(item: &str) -> String {
        let item = raw(item);
        let (blocks, _) =
            of_output(&item_type(item.json())).expect("a known type").read_output(item.json());
        match &blocks[..] {
            [Block { kind: BlockKind::Text(text), .. }] => text.text.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn calls_are_read_and_written_in_their_own_form() {
        for item in [
            r#"{"type":"local_shell_call","call_id":"c","action":{"type":"exec","command":["ls"],"env":{}}}"#,
            r#"{"type":"shell_call","call_id":"c","action":{"commands":["ls"]}}"#,
            r#"{"type":"apply_patch_call","call_id":"c","operation":{"type":"delete_file","path":"a"}}"#,
            r#"{"type":"computer_call","call_id":"c","pending_safety_checks":[],"action":{"type":"wait"}}"#,
            r#"{"type":"tool_search_call","call_id":"c","execution":"client","arguments":{"query":"x"}}"#,
        ] {
            let item = raw(item);
            let tool = of_call(&item_type(item.json())).expect("a known type");
            let call = tool.read_call(item.json());
            assert_eq!((call.id.as_str(), call.name.as_str()), ("c", tool.name));
            let written = writer::object(|o| {
                o.str("type", tool.call_type).str("call_id", "c");
                tool.write_arguments(o, &call.arguments);
            });
            assert_eq!(written, item.text());
        }
        let line = writer::object(|o| {
            named("shell").expect("a tool").write_arguments(o, r#"{"command":"ls -l"}"#);
        });
        assert_eq!(line, r#"{"action":{"commands":["ls -l"]}}"#);
    }

    #[test]
    fn results_are_read_as_text() {
        assert_eq!(output_text(r#"{"type":"local_shell_call_output","output":"x"}"#), "x");
        assert_eq!(
            output_text(
                r#"{"type":"shell_call_output","output":[{"stdout":"a","stderr":"b","outcome":{"type":"exit","exit_code":2}}]}"#
            ),
            "a\nb\n(exit code 2)"
        );
        assert_eq!(
            output_text(r#"{"type":"tool_search_output","tools":[]}"#),
            "No tools were found."
        );
        assert!(
            output_text(r#"{"type":"tool_search_output","tools":[{"type":"namespace","name":"cal","tools":[{"type":"function","name":"add"}]}]}"#)
                .ends_with("- cal__add")
        );
    }

    #[test]
    fn search_run_by_the_provider_is_not_a_function() {
        assert!(read_tool(raw(r#"{"type":"tool_search"}"#).json()).is_none());
        let tool = read_tool(raw(r#"{"type":"tool_search","execution":"client"}"#).json());
        assert_eq!(tool.expect("a function").name, "tool_search");
    }
}
