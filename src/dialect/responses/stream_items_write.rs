//! Writes the items of a streamed answer, one after the other, from the blocks of the answer.

use crate::{
    base::json::writer,
    dialect::{
        ingress::ResponseSpec,
        responses::{
            items_read::DIALECT,
            items_write::{
                CallItem, ContentPart, EventWriter, MessageItem, OutputItem, ReasoningItem,
                append_element, write_location, write_message, write_summary_text,
            },
            schema, stored,
            tools::client_tools,
            tools::names::strip_namespace,
        },
    },
    ir::{
        block::{
            CallKind, Citation, Media, MediaKind, MediaSource, ReasoningSignature, SignatureKind,
        },
        event::BlockStart,
    },
};

/// The text of a summary that becomes one item.
#[derive(Default)]
struct Summary {
    text: String,
    is_open: bool,
}

/// Writes items, and retains them for the complete response at the end.
pub(super) struct ItemsWriter {
    id: String,
    custom_tools: Vec<String>,
    namespaced_tools: Vec<(String, String, String)>,
    client_tools: Vec<(String, String)>,
    compaction: Option<Summary>,
    pub(super) event_writer: EventWriter,
    pub(super) saw_refusal: bool,
    /// The finished items, as text.
    pub(super) output: String,
    /// The number of finished items.
    item_count: u64,
    open_item: OutputItem,
}

impl ItemsWriter {
    pub(super) fn new(shape: &ResponseSpec) -> Self {
        Self {
            id: shape.request_id.clone(),
            custom_tools: shape.custom_tools.clone(),
            namespaced_tools: shape.namespaced_tools.clone(),
            client_tools: shape.client_tools.clone(),
            compaction: shape.compaction.then(Summary::default),
            event_writer: EventWriter {
                next_sequence: 0,
                line: String::new(),
                suppress_output: false,
            },
            saw_refusal: false,
            output: String::new(),
            item_count: 0,
            open_item: OutputItem::None,
        }
    }

    fn item_id(&self, prefix: &str) -> String {
        format!("{prefix}{}_{}", self.id, self.item_count)
    }

    pub(super) fn open_block(&mut self, head: BlockStart, out: &mut Vec<u8>) {
        if let Some(summary) = &mut self.compaction {
            summary.is_open = matches!(head, BlockStart::Text);
            return;
        }
        match head {
            BlockStart::Text => self.open_part(false, out),
            BlockStart::Refusal => self.open_part(true, out),
            BlockStart::Reasoning { .. } => {
                self.close_item("completed", out);
                self.open_item = OutputItem::Reasoning(ReasoningItem {
                    id: None,
                    text: String::new(),
                    encrypted_content: None,
                    summary_started: false,
                });
            }
            BlockStart::ToolCall { id, name, form } => {
                self.close_item("completed", out);
                let bridged = form == CallKind::Function && self.custom_tools.contains(&name);
                let custom = bridged || form == CallKind::Custom;
                let kind = self.client_tools.iter().find(|(called, _)| *called == name);
                let client_tool = kind.and_then(|(_, kind)| client_tools::named(kind));
                let inside = self.namespaced_tools.iter().find(|(full, ..)| *full == name);
                let (space, name) = match inside {
                    Some((full, space, name)) if name.is_empty() => {
                        (Some(space.clone()), strip_namespace(space, full).to_owned())
                    }
                    Some((_, space, name)) => (Some(space.clone()), name.clone()),
                    None => (None, name),
                };
                let item = CallItem {
                    id: self.item_id(if custom { "ctc_" } else { "fc_" }),
                    call_id: id,
                    name,
                    namespace: space,
                    text: String::new(),
                    custom,
                    bridged,
                    client_tool,
                };
                let index = self.item_count;
                self.event_writer.emit("response.output_item.added", out, |o| {
                    o.num("output_index", index)
                        .object("item", |o| item.write_object(o, "in_progress", ""));
                });
                self.open_item = OutputItem::Call(item);
            }
            BlockStart::Media(media) => self.write_media(&media, out),
            BlockStart::Foreign { dialect: DIALECT, body } => {
                self.close_item("completed", out);
                self.write_complete_item(body.text(), out);
            }
            // Tools that another provider ran on its side have no item here.
            BlockStart::Foreign { .. } => self.close_item("completed", out),
        }
    }

    /// Writes an item that is already complete.
    fn write_complete_item(&mut self, item: &str, out: &mut Vec<u8>) {
        let index = self.item_count;
        for kind in ["response.output_item.added", "response.output_item.done"] {
            self.event_writer.emit(kind, out, |o| {
                o.num("output_index", index).raw_text("item", item);
            });
        }
        append_element(&mut self.output, item);
        self.item_count += 1;
    }

    fn write_media(&mut self, media: &Media, out: &mut Vec<u8>) {
        match (media.kind, &media.source) {
            (MediaKind::Image, MediaSource::Base64(data)) => {
                self.close_item("completed", out);
                let id = self.item_id("ig_");
                let item = writer::object(|o| {
                    o.str("id", &id)
                        .str("type", "image_generation_call")
                        .str("status", "completed")
                        .str("result", data);
                    o.opt_str(
                        "output_format",
                        media.mime.as_deref().and_then(|mime| mime.strip_prefix("image/")),
                    );
                });
                self.write_complete_item(&item, out);
            }
            (_, MediaSource::Url(url)) => {
                self.open_part(false, out);
                self.write_delta(&format!("![]({url})"), out);
            }
            // Other media has no item here.
            _ => {}
        }
    }

    /// Opens a part of a message, and the message if none is open.
    fn open_part(&mut self, refusal: bool, out: &mut Vec<u8>) {
        self.saw_refusal |= refusal;
        self.close_part(out);
        if !matches!(self.open_item, OutputItem::Message(_)) {
            self.close_item("completed", out);
            let index = self.item_count;
            let id = self.item_id("msg_");
            self.event_writer.emit("response.output_item.added", out, |o| {
                o.num("output_index", index)
                    .object("item", |o| write_message(o, &id, None, "in_progress", ""));
            });
            self.open_item = OutputItem::Message(MessageItem {
                id,
                phase: None,
                parts: String::new(),
                part_count: 0,
                open_part: None,
            });
        }
        let index = self.item_count;
        if let OutputItem::Message(message_item) = &mut self.open_item {
            let part = ContentPart { is_refusal: refusal, ..ContentPart::default() };
            self.event_writer.emit("response.content_part.added", out, |o| {
                write_location(o, &message_item.id, index, message_item.part_count)
                    .object("part", |o| part.write_object(o));
            });
            message_item.open_part = Some(part);
        }
    }

    pub(super) fn write_delta(&mut self, text: &str, out: &mut Vec<u8>) {
        if let Some(summary) = self.compaction.as_mut().filter(|summary| summary.is_open) {
            summary.text.push_str(text);
        }
        let index = self.item_count;
        match &mut self.open_item {
            OutputItem::Message(MessageItem {
                id,
                part_count: count,
                open_part: Some(part),
                ..
            }) => {
                part.text.push_str(text);
                let kind = if part.is_refusal {
                    "response.refusal.delta"
                } else {
                    "response.output_text.delta"
                };
                let refusal = part.is_refusal;
                self.event_writer.emit(kind, out, |o| {
                    write_location(o, id, index, *count).str("delta", text);
                    if !refusal {
                        o.array("logprobs", |_| {});
                    }
                });
            }
            OutputItem::Call(call) => {
                call.text.push_str(text);
                if !call.bridged && call.client_tool.is_none() {
                    self.event_writer.emit(call.event_type("delta"), out, |o| {
                        o.str("item_id", &call.id).num("output_index", index).str("delta", text);
                    });
                }
            }
            OutputItem::Reasoning(thought) => {
                thought.ensure_added(None, &self.id, index, &mut self.event_writer, out);
                let id = thought.id.as_deref().unwrap_or_default();
                if !std::mem::replace(&mut thought.summary_started, true) {
                    self.event_writer.emit("response.reasoning_summary_part.added", out, |o| {
                        o.str("item_id", id).num("output_index", index).num("summary_index", 0);
                        o.object("part", |o| write_summary_text(o, ""));
                    });
                }
                thought.text.push_str(text);
                self.event_writer.emit("response.reasoning_summary_text.delta", out, |o| {
                    o.str("item_id", id)
                        .num("output_index", index)
                        .num("summary_index", 0)
                        .str("delta", text);
                });
            }
            OutputItem::Message(_) | OutputItem::None => {}
        }
    }

    pub(super) fn set_phase(&mut self, phase: String) {
        if let OutputItem::Message(message) = &mut self.open_item {
            message.phase = Some(phase);
        }
    }

    pub(super) fn set_signature(&mut self, proof: ReasoningSignature, out: &mut Vec<u8>) {
        let index = self.item_count;
        if let OutputItem::Reasoning(thought) = &mut self.open_item
            && proof.dialect == DIALECT
            && proof.kind == SignatureKind::Encrypted
        {
            thought.ensure_added(proof.id, &self.id, index, &mut self.event_writer, out);
            thought.encrypted_content = Some(proof.value);
        }
    }

    pub(super) fn write_citation(&mut self, citation: &Citation, out: &mut Vec<u8>) {
        let index = self.item_count;
        let OutputItem::Message(MessageItem {
            id, part_count: count, open_part: Some(part), ..
        }) = &mut self.open_item
        else {
            return;
        };
        let Some(annotation) = schema::write_annotation(citation, part.text.chars().count() as u64)
        else {
            return;
        };
        append_element(&mut part.annotations, &annotation);
        let number = part.citation_count;
        part.citation_count += 1;
        self.event_writer.emit("response.output_text.annotation.added", out, |o| {
            write_location(o, id, index, *count)
                .num("annotation_index", number)
                .raw_text("annotation", &annotation);
        });
    }

    /// Writes log probabilities. Their text has already been written, so they follow in a delta
    /// without text.
    pub(super) fn write_logprobs(&mut self, list: &str, out: &mut Vec<u8>) {
        let index = self.item_count;
        let OutputItem::Message(MessageItem {
            id, part_count: count, open_part: Some(part), ..
        }) = &mut self.open_item
        else {
            return;
        };
        let inside =
            list.trim().trim_start_matches('[').strip_suffix(']').unwrap_or_default().trim();
        if part.is_refusal || inside.is_empty() {
            return;
        }
        append_element(&mut part.logprobs, inside);
        self.event_writer.emit("response.output_text.delta", out, |o| {
            write_location(o, id, index, *count).str("delta", "").raw_text("logprobs", list);
        });
    }

    pub(super) fn close_part(&mut self, out: &mut Vec<u8>) {
        let index = self.item_count;
        let OutputItem::Message(message_item) = &mut self.open_item else { return };
        let Some(part) = message_item.open_part.take() else { return };
        let (id, number) = (&message_item.id, message_item.part_count);
        let kind =
            if part.is_refusal { "response.refusal.done" } else { "response.output_text.done" };
        self.event_writer.emit(kind, out, |o| {
            write_location(o, id, index, number)
                .str(if part.is_refusal { "refusal" } else { "text" }, &part.text);
            if !part.is_refusal {
                o.raw_text("logprobs", &format!("[{}]", part.logprobs));
            }
        });
        let text = writer::object(|o| part.write_object(o));
        self.event_writer.emit("response.content_part.done", out, |o| {
            write_location(o, id, index, number).raw_text("part", &text);
        });
        append_element(&mut message_item.parts, &text);
        message_item.part_count += 1;
    }

    /// Ends the open item.
    pub(super) fn close_item(&mut self, status: &str, out: &mut Vec<u8>) {
        self.close_part(out);
        let index = self.item_count;
        let item = match std::mem::replace(&mut self.open_item, OutputItem::None) {
            OutputItem::None => return,
            OutputItem::Message(message_item) => {
                let MessageItem { id, phase, parts, .. } = &message_item;
                writer::object(|o| write_message(o, id, phase.as_deref(), status, parts))
            }
            OutputItem::Call(call) => {
                let (text, streamed) = call.final_text();
                if call.client_tool.is_some() {
                    let item = writer::object(|o| call.write_object(o, status, &text));
                    return self.finish_item(&item, out);
                }
                if !streamed && !text.is_empty() {
                    self.event_writer.emit(call.event_type("delta"), out, |o| {
                        o.str("item_id", &call.id).num("output_index", index).str("delta", &text);
                    });
                }
                self.event_writer.emit(call.event_type("done"), out, |o| {
                    o.str("item_id", &call.id).num("output_index", index);
                    o.str(if call.custom { "input" } else { "arguments" }, &text);
                    if !call.custom {
                        o.str("name", &call.name);
                    }
                });
                writer::object(|o| call.write_object(o, status, &text))
            }
            OutputItem::Reasoning(thought) => {
                // Reasoning without text and signature is not an item.
                let Some(id) = &thought.id else { return };
                if thought.summary_started {
                    self.event_writer.emit("response.reasoning_summary_text.done", out, |o| {
                        o.str("item_id", id)
                            .num("output_index", index)
                            .num("summary_index", 0)
                            .str("text", &thought.text);
                    });
                    self.event_writer.emit("response.reasoning_summary_part.done", out, |o| {
                        o.str("item_id", id).num("output_index", index).num("summary_index", 0);
                        o.object("part", |o| write_summary_text(o, &thought.text));
                    });
                }
                writer::object(|o| thought.write_object(o))
            }
        };
        self.finish_item(&item, out);
    }

    fn finish_item(&mut self, item: &str, out: &mut Vec<u8>) {
        let index = self.item_count;
        self.event_writer.emit("response.output_item.done", out, |o| {
            o.num("output_index", index).raw_text("item", item);
        });
        append_element(&mut self.output, item);
        self.item_count += 1;
    }

    /// Whether the answer is to be a compaction, and no text has come for it.
    pub(super) fn is_summary_missing(&self) -> bool {
        self.compaction.as_ref().is_some_and(|summary| summary.text.trim().is_empty())
    }

    /// Ends the last item; the answer is complete.
    pub(super) fn close_last_item(&mut self, status: &str, out: &mut Vec<u8>) {
        self.close_item(status, out);
        if let Some(summary) = self.compaction.take() {
            let item = stored::compaction_item(&self.item_id("cmp_"), &summary.text);
            self.write_complete_item(&item, out);
        }
    }

    /// Ends the open block.
    pub(super) fn close_block(&mut self, out: &mut Vec<u8>) {
        match &self.open_item {
            OutputItem::Message(_) => self.close_part(out),
            OutputItem::Reasoning(_) => self.close_item("completed", out),
            // The event that follows a call decides how the call ended.
            OutputItem::Call(_) | OutputItem::None => {}
        }
    }
}
