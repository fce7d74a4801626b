//! The items of an answer while they are being told.

use crate::{base::write, dialect::responses::items_read::MADE, ir::tool};

/// Events on their way out.
pub(super) struct Frames {
    pub(super) number: u64,
    pub(super) line: String,
    /// Nobody listens: only the whole answer is wanted.
    pub(super) quiet: bool,
}

/// The item that is being told.
pub(super) enum Item {
    None,
    Call(Call),
    Message(Speech),
    Reasoning(Thought),
}

pub(super) struct Call {
    pub(super) id: String,
    pub(super) call: String,
    pub(super) name: String,
    pub(super) space: Option<String>,
    pub(super) text: String,
    pub(super) custom: bool,
    /// A free-text tool's input is inside of JSON arguments and told when it is whole.
    pub(super) bridged: bool,
}

pub(super) struct Speech {
    pub(super) id: String,
    /// The parts that are complete, as text.
    pub(super) parts: String,
    pub(super) count: u64,
    pub(super) open: Option<Part>,
}

#[derive(Default)]
pub(super) struct Part {
    pub(super) refusal: bool,
    pub(super) text: String,
    pub(super) annotations: String,
    pub(super) cited: u64,
    pub(super) logprobs: String,
}

pub(super) struct Thought {
    pub(super) id: Option<String>,
    pub(super) text: String,
    pub(super) proof: Option<String>,
    pub(super) summarised: bool,
}

impl Frames {
    pub(super) fn emit(
        &mut self,
        kind: &str,
        out: &mut Vec<u8>,
        build: impl FnOnce(&mut write::ObjectWriter<'_>),
    ) {
        if self.quiet {
            return;
        }
        self.line.clear();
        let number = self.number;
        write::push_object(&mut self.line, |o| {
            o.str("type", kind).num("sequence_number", number);
            build(o);
        });
        self.number += 1;
        for piece in ["event: ", kind, "\ndata: "] {
            out.extend_from_slice(piece.as_bytes());
        }
        write::push_single_line(out, &self.line);
        out.extend_from_slice(b"\n\n");
    }
}

/// Appends an element to the text of a list.
pub(super) fn append(list: &mut String, element: &str) {
    if !list.is_empty() {
        list.push(',');
    }
    list.push_str(element);
}

pub(super) fn place<'p, 'o>(
    o: &'p mut write::ObjectWriter<'o>,
    id: &str,
    index: u64,
    part: u64,
) -> &'p mut write::ObjectWriter<'o> {
    o.str("item_id", id).num("output_index", index).num("content_index", part)
}

pub(super) fn message(o: &mut write::ObjectWriter<'_>, id: &str, word: &str, parts: &str) {
    o.str("id", id)
        .str("type", "message")
        .str("status", word)
        .str("role", "assistant")
        .raw_text("content", &format!("[{parts}]"));
}

pub(super) fn summary_text(o: &mut write::ObjectWriter<'_>, text: &str) {
    o.str("type", "summary_text").str("text", text);
}

impl Part {
    pub(super) fn object(&self, o: &mut write::ObjectWriter<'_>) {
        if self.refusal {
            o.str("type", "refusal").str("refusal", &self.text);
        } else {
            o.str("type", "output_text").str("text", &self.text);
            o.raw_text("annotations", &format!("[{}]", self.annotations))
                .raw_text("logprobs", &format!("[{}]", self.logprobs));
        }
    }
}

impl Call {
    pub(super) fn kind(&self, what: &str) -> &'static str {
        match (self.custom, what) {
            (true, "delta") => "response.custom_tool_call_input.delta",
            (true, _) => "response.custom_tool_call_input.done",
            (false, "delta") => "response.function_call_arguments.delta",
            (false, _) => "response.function_call_arguments.done",
        }
    }

    /// What was said, and whether it has been told piece by piece.
    pub(super) fn said(&self) -> (String, bool) {
        if self.bridged {
            return (tool::custom_input(&self.text), false);
        }
        if !self.custom && self.text.trim().is_empty() {
            ("{}".to_owned(), false)
        } else {
            (self.text.clone(), true)
        }
    }

    pub(super) fn object(&self, o: &mut write::ObjectWriter<'_>, word: &str, said: &str) {
        o.str("id", &self.id)
            .str("type", if self.custom { "custom_tool_call" } else { "function_call" })
            .str("status", word);
        o.str("call_id", &self.call)
            .str("name", &self.name)
            .opt_str("namespace", self.space.as_deref());
        o.str(if self.custom { "input" } else { "arguments" }, said);
    }
}

impl Thought {
    /// Tells the item's beginning, once.
    pub(super) fn begin(
        &mut self,
        id: Option<String>,
        request: &str,
        index: u64,
        frames: &mut Frames,
        out: &mut Vec<u8>,
    ) {
        if self.id.is_some() {
            return;
        }
        let id = id.unwrap_or_else(|| format!("{MADE}{request}_{index}"));
        frames.emit("response.output_item.added", out, |o| {
            o.num("output_index", index).object("item", |o| {
                o.str("id", &id).str("type", "reasoning").array("summary", |_| {});
            });
        });
        self.id = Some(id);
    }

    pub(super) fn object(&self, o: &mut write::ObjectWriter<'_>) {
        o.opt_str("id", self.id.as_deref()).str("type", "reasoning").array("summary", |a| {
            if !self.text.is_empty() {
                a.object(|o| summary_text(o, &self.text));
            }
        });
        o.opt_str("encrypted_content", self.proof.as_deref());
    }
}
