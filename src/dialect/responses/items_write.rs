//! Writes the items of an answer while it streams.

use crate::{
    base::json::writer,
    dialect::responses::{
        items_read::SYNTHETIC_ID_PREFIX, tools::client_tools::ResponsesClientTool,
    },
    ir::tool,
};

/// Writes numbered events.
pub(super) struct EventWriter {
    pub(super) next_sequence: u64,
    pub(super) line: String,
    /// Set if only the complete response is needed, so that no events are written.
    pub(super) suppress_output: bool,
}

/// The item that is being written.
pub(super) enum OutputItem {
    None,
    Call(CallItem),
    Message(MessageItem),
    Reasoning(ReasoningItem),
}

pub(super) struct CallItem {
    pub(super) id: String,
    pub(super) call_id: String,
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    pub(super) text: String,
    pub(super) custom: bool,
    /// A free-text tool's input arrives inside JSON arguments and is written once it is complete.
    pub(super) bridged: bool,
    /// A tool whose calls are items of a type of their own, without events for their arguments.
    pub(super) client_tool: Option<&'static ResponsesClientTool>,
}

pub(super) struct MessageItem {
    pub(super) id: String,
    pub(super) phase: Option<String>,
    /// The finished parts, as text.
    pub(super) parts: String,
    pub(super) part_count: u64,
    pub(super) open_part: Option<ContentPart>,
}

#[derive(Default)]
pub(super) struct ContentPart {
    pub(super) is_refusal: bool,
    pub(super) text: String,
    pub(super) annotations: String,
    pub(super) citation_count: u64,
    pub(super) logprobs: String,
}

pub(super) struct ReasoningItem {
    pub(super) id: Option<String>,
    pub(super) text: String,
    pub(super) encrypted_content: Option<String>,
    pub(super) summary_started: bool,
}

impl EventWriter {
    pub(super) fn emit(
        &mut self,
        kind: &str,
        out: &mut Vec<u8>,
        build: impl FnOnce(&mut writer::ObjectWriter<'_>),
    ) {
        if self.suppress_output {
            return;
        }
        self.line.clear();
        let number = self.next_sequence;
        writer::push_object(&mut self.line, |o| {
            o.str("type", kind).num("sequence_number", number);
            build(o);
        });
        self.next_sequence += 1;
        for piece in ["event: ", kind, "\ndata: "] {
            out.extend_from_slice(piece.as_bytes());
        }
        writer::push_single_line(out, &self.line);
        out.extend_from_slice(b"\n\n");
    }
}

/// Appends an element to the text of a list.
pub(super) fn append_element(list: &mut String, element: &str) {
    if !list.is_empty() {
        list.push(',');
    }
    list.push_str(element);
}

pub(super) fn write_location<'p, 'o>(
    o: &'p mut writer::ObjectWriter<'o>,
    id: &str,
    index: u64,
    part: u64,
) -> &'p mut writer::ObjectWriter<'o> {
    o.str("item_id", id).num("output_index", index).num("content_index", part)
}

pub(super) fn write_message(
    o: &mut writer::ObjectWriter<'_>,
    id: &str,
    phase: Option<&str>,
    status: &str,
    parts: &str,
) {
    o.str("id", id)
        .str("type", "message")
        .str("status", status)
        .str("role", "assistant")
        .opt_str("phase", phase)
        .raw_text("content", &format!("[{parts}]"));
}

pub(super) fn write_summary_text(o: &mut writer::ObjectWriter<'_>, text: &str) {
    o.str("type", "summary_text").str("text", text);
}

impl ContentPart {
    pub(super) fn write_object(&self, o: &mut writer::ObjectWriter<'_>) {
        if self.is_refusal {
            o.str("type", "refusal").str("refusal", &self.text);
        } else {
            o.str("type", "output_text").str("text", &self.text);
            o.raw_text("annotations", &format!("[{}]", self.annotations))
                .raw_text("logprobs", &format!("[{}]", self.logprobs));
        }
    }
}

impl CallItem {
    pub(super) fn event_type(&self, phase: &str) -> &'static str {
        match (self.custom, phase) {
            (true, "delta") => "response.custom_tool_call_input.delta",
            (true, _) => "response.custom_tool_call_input.done",
            (false, "delta") => "response.function_call_arguments.delta",
            (false, _) => "response.function_call_arguments.done",
        }
    }

    /// The final text, and whether it has already been written in deltas.
    pub(super) fn final_text(&self) -> (String, bool) {
        if self.bridged {
            return (tool::custom_input(&self.text), false);
        }
        if !self.custom && self.text.trim().is_empty() {
            ("{}".to_owned(), false)
        } else {
            (self.text.clone(), true)
        }
    }

    pub(super) fn write_object(&self, o: &mut writer::ObjectWriter<'_>, status: &str, text: &str) {
        if let Some(tool) = self.client_tool {
            o.str("id", &self.id).str("type", tool.call_type).str("status", status);
            o.str("call_id", &self.call_id);
            return tool.write_arguments(o, text);
        }
        o.str("id", &self.id)
            .str("type", if self.custom { "custom_tool_call" } else { "function_call" })
            .str("status", status);
        o.str("call_id", &self.call_id)
            .str("name", &self.name)
            .opt_str("namespace", self.namespace.as_deref());
        o.str(if self.custom { "input" } else { "arguments" }, text);
    }
}

impl ReasoningItem {
    /// Writes the start of the item, once.
    pub(super) fn ensure_added(
        &mut self,
        id: Option<String>,
        request: &str,
        index: u64,
        frames: &mut EventWriter,
        out: &mut Vec<u8>,
    ) {
        if self.id.is_some() {
            return;
        }
        let id = id.unwrap_or_else(|| format!("{SYNTHETIC_ID_PREFIX}{request}_{index}"));
        frames.emit("response.output_item.added", out, |o| {
            o.num("output_index", index).object("item", |o| {
                o.str("id", &id).str("type", "reasoning").array("summary", |_| {});
            });
        });
        self.id = Some(id);
    }

    pub(super) fn write_object(&self, o: &mut writer::ObjectWriter<'_>) {
        o.opt_str("id", self.id.as_deref()).str("type", "reasoning").array("summary", |a| {
            if !self.text.is_empty() {
                a.object(|o| write_summary_text(o, &self.text));
            }
        });
        o.opt_str("encrypted_content", self.encrypted_content.as_deref());
    }
}
