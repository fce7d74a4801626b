//! Tools that this API defines and the client runs: the shell, the text editor, the memory and the
//! computer. Their input schemas are documented, so that other dialects offer them as functions of
//! the same name (Anthropic's pages of each tool).

use crate::{
    base::json::{raw::RawJson, reader::JsonRef},
    dialect::anthropic::blocks_read,
    ir::{extras::Extras, op::Dialect, tool::FunctionTool},
};

/// The note on such a tool: the tool as the client wrote it.
pub(super) const ORIGINAL_TOOL_NOTE: &str = "original";

struct AnthropicClientTool {
    /// The type without its date.
    kind: &'static str,
    /// The name if the client gives none.
    name: &'static str,
    description: &'static str,
    schema: &'static str,
}

const CLIENT_TOOLS: [AnthropicClientTool; 4] = [
    AnthropicClientTool {
        kind: "bash_",
        name: "bash",
        description: "Runs a command in a bash session that keeps its state, and returns the output.",
        schema: r#"{"type":"object","properties":{"command":{"type":"string","description":"The command to run. Required unless `restart` is true."},"restart":{"type":"boolean","description":"Restart the session instead."}}}"#,
    },
    AnthropicClientTool {
        kind: "text_editor_",
        name: "str_replace_based_edit_tool",
        description: "Views, creates and edits text files.",
        schema: r#"{"type":"object","properties":{"command":{"type":"string","enum":["view","create","str_replace","insert"]},"path":{"type":"string","description":"Absolute path of the file or folder."},"view_range":{"type":"array","items":{"type":"integer"},"description":"For `view`: first and last line, from 1; -1 is the end."},"file_text":{"type":"string","description":"For `create`: the whole text."},"old_str":{"type":"string","description":"For `str_replace`: the text to replace, which must be unique in the file."},"new_str":{"type":"string","description":"For `str_replace`: the new text."},"insert_line":{"type":"integer","description":"For `insert`: the line after which the text is inserted; 0 is the beginning."},"insert_text":{"type":"string","description":"For `insert`: the text to insert."}},"required":["command","path"]}"#,
    },
    AnthropicClientTool {
        kind: "memory_",
        name: "memory",
        description: "Reads and writes files below /memories, which stay between conversations.",
        schema: r#"{"type":"object","properties":{"command":{"type":"string","enum":["view","create","str_replace","insert","delete","rename"]},"path":{"type":"string","description":"Path below /memories; all commands but `rename`."},"view_range":{"type":"array","items":{"type":"integer"},"description":"For `view`: first and last line."},"file_text":{"type":"string","description":"For `create`: the whole text."},"old_str":{"type":"string","description":"For `str_replace`: the text to replace."},"new_str":{"type":"string","description":"For `str_replace`: the new text."},"insert_line":{"type":"integer","description":"For `insert`: the line after which the text is inserted."},"insert_text":{"type":"string","description":"For `insert`: the text to insert."},"old_path":{"type":"string","description":"For `rename`: the present path."},"new_path":{"type":"string","description":"For `rename`: the new path."}},"required":["command"]}"#,
    },
    AnthropicClientTool {
        kind: "computer_",
        name: "computer",
        description: "Controls the screen, the mouse and the keyboard of a computer.",
        schema: r#"{"type":"object","properties":{"action":{"type":"string","enum":["key","type","mouse_move","left_click","left_click_drag","right_click","middle_click","double_click","triple_click","left_mouse_down","left_mouse_up","scroll","hold_key","wait","screenshot","cursor_position","zoom"]},"coordinate":{"type":"array","items":{"type":"integer"},"description":"x and y in pixels from the top left."},"start_coordinate":{"type":"array","items":{"type":"integer"},"description":"For `left_click_drag`: where it begins."},"region":{"type":"array","items":{"type":"integer"},"description":"For `zoom`: x and y of two corners."},"text":{"type":"string","description":"The text to type, or the keys to press."},"scroll_direction":{"type":"string","enum":["up","down","left","right"]},"scroll_amount":{"type":"integer"},"duration":{"type":"number","description":"Seconds, for `hold_key` and `wait`."}},"required":["action"]}"#,
    },
];

/// Reads a tool of such a type as a function; `None` if it is another tool.
pub(super) fn read(json: JsonRef<'_>, kind: &str) -> Option<FunctionTool> {
    let known = CLIENT_TOOLS.iter().find(|tool| kind.starts_with(tool.kind))?;
    let mut description = known.description.to_owned();
    let display = |key: &str| json.get(key).and_then(JsonRef::u64);
    if let (Some(width), Some(height)) = (display("display_width_px"), display("display_height_px"))
    {
        description.push_str(&format!(" The screen has {width} × {height} pixels."));
    }
    let mut extras = Extras::default();
    extras.push_dialect_only(Dialect::Anthropic, ORIGINAL_TOOL_NOTE, RawJson::from_json(json));
    Some(FunctionTool {
        name: json.non_empty_at("name").unwrap_or_else(|| known.name.to_owned()),
        description: Some(description),
        schema: RawJson::parse(known.schema),
        strict: None,
        namespace: None,
        cache: blocks_read::read_cache_control(json),
        extras,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_tool_becomes_a_function_with_its_documented_input() {
        for (kind, name, field) in [
            ("bash_20250124", "bash", "command"),
            ("text_editor_20250728", "str_replace_based_edit_tool", "old_str"),
            ("memory_20250818", "memory", "new_path"),
            ("computer_20251124", "computer", "coordinate"),
        ] {
            let text = format!(r#"{{"type":"{kind}","display_width_px":9,"display_height_px":7}}"#);
            let tool = RawJson::parse(&text).and_then(|raw| read(raw.json(), kind)).unwrap();
            assert_eq!(tool.name, name);
            assert!(tool.schema.as_ref().unwrap().text().contains(field), "{kind}");
            assert!(tool.description.unwrap().contains("9 × 7"), "{kind}");
            assert_eq!(tool.extras.get(Dialect::Anthropic, "original").unwrap().text(), text);
        }
        assert_eq!(read(RawJson::object(|_| {}).json(), "web_search_20250305"), None);
    }
}
