//! Writes an answer as it comes: items one after the other, and at the end all of them once more.

use crate::{
    base::write,
    dialect::{
        Shape, StreamWriter,
        responses::{
            error,
            items_read::OWN,
            items_write::{
                Call, Frames, Item, Part, Speech, Thought, append, message, place, summary_text,
            },
            names::inner,
            schema::{self, Envelope, State},
        },
        words::{self, SENT},
    },
    ir::{
        block::{
            CallKind, Citation, Media, MediaKind, MediaSource, ReasoningSignature, SignatureKind,
        },
        event::{BlockStart, ChatEvent},
        fault::ProxyError,
        response::{Finish, FinishKind},
        sequence::BlockSerializer,
        usage::Usage,
    },
};

pub(super) struct Writer {
    id: String,
    custom: Vec<String>,
    namespaced: Vec<(String, String, String)>,
    envelope: Envelope,
    sequence: BlockSerializer,
    turn: Vec<ChatEvent>,
    frames: Frames,
    begun: bool,
    refused: bool,
    usage: Option<Usage>,
    /// The items that are complete, as text.
    output: String,
    /// How many there are.
    count: u64,
    item: Item,
}

impl Writer {
    pub(super) fn new(shape: &Shape) -> Self {
        Self {
            id: shape.id.clone(),
            custom: shape.custom.clone(),
            namespaced: shape.namespaced.clone(),
            envelope: Envelope::new(shape),
            sequence: BlockSerializer::default(),
            turn: Vec::new(),
            frames: Frames { number: 0, line: String::new(), quiet: false },
            begun: false,
            refused: false,
            usage: None,
            output: String::new(),
            count: 0,
            item: Item::None,
        }
    }

    /// The whole response that these events are.
    pub(super) fn whole(shape: &Shape, events: Vec<ChatEvent>) -> String {
        let mut writer = Self::new(shape);
        writer.frames.quiet = true;
        let (mut out, mut end) = (Vec::new(), None);
        for event in events {
            match event {
                ChatEvent::End { finish, usage, service_tier } => {
                    end = Some((finish, usage, service_tier))
                }
                event => writer.tell(event, &mut out),
            }
        }
        let (finish, usage, tier) = end.unwrap_or_default();
        writer.settle(item_word(&finish), &mut out);
        let usage = usage.or(writer.usage);
        let word = schema::word(&finish, writer.refused);
        let state =
            State::Ended { finish: &finish, word, usage: usage.as_ref(), tier: tier.as_deref() };
        write::object(|o| writer.envelope.object(o, &state, &writer.output))
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        for kind in ["response.created", "response.in_progress"] {
            let envelope = &self.envelope;
            self.frames.emit(kind, out, |o| {
                o.object("response", |o| envelope.object(o, &State::Running, ""));
            });
        }
    }

    fn item_id(&self, prefix: &str) -> String {
        format!("{prefix}{}_{}", self.id, self.count)
    }

    fn tell(&mut self, event: ChatEvent, out: &mut Vec<u8>) {
        match event {
            ChatEvent::Begin { created, usage, .. } => {
                self.envelope.created(created);
                self.usage = usage;
                self.begin(out);
            }
            ChatEvent::Open { head, .. } => self.open(head, out),
            ChatEvent::Delta { text, .. } => self.delta(&text, out),
            ChatEvent::Signature { signature: proof, .. } => self.proof(proof, out),
            ChatEvent::Citation { citation, .. } => self.cite(&citation, out),
            ChatEvent::Logprobs(list) => self.logprobs(list.text(), out),
            ChatEvent::Close { .. } => match &self.item {
                Item::Message(_) => self.part_done(out),
                Item::Reasoning(_) => self.settle("completed", out),
                // How a call ended is known by what follows it.
                Item::Call(_) | Item::None => {}
            },
            ChatEvent::End { finish, usage, service_tier } => {
                self.end(&finish, usage, service_tier.as_deref(), out)
            }
        }
    }

    fn open(&mut self, head: BlockStart, out: &mut Vec<u8>) {
        self.begin(out);
        match head {
            BlockStart::Text => self.part(false, out),
            BlockStart::Refusal => self.part(true, out),
            BlockStart::Reasoning { .. } => {
                self.settle("completed", out);
                self.item = Item::Reasoning(Thought {
                    id: None,
                    text: String::new(),
                    proof: None,
                    summarised: false,
                });
            }
            BlockStart::ToolCall { id, name, form } => {
                self.settle("completed", out);
                let bridged = form == CallKind::Function && self.custom.contains(&name);
                let custom = bridged || form == CallKind::Custom;
                let inside = self.namespaced.iter().find(|(full, ..)| *full == name);
                let (space, name) = match inside {
                    Some((full, space, name)) if name.is_empty() => {
                        (Some(space.clone()), inner(space, full).to_owned())
                    }
                    Some((_, space, name)) => (Some(space.clone()), name.clone()),
                    None => (None, name),
                };
                let item = Call {
                    id: self.item_id(if custom { "ctc_" } else { "fc_" }),
                    call: id,
                    name,
                    space,
                    text: String::new(),
                    custom,
                    bridged,
                };
                let index = self.count;
                self.frames.emit("response.output_item.added", out, |o| {
                    o.num("output_index", index)
                        .object("item", |o| item.object(o, "in_progress", ""));
                });
                self.item = Item::Call(item);
            }
            BlockStart::Media(media) => self.media(&media, out),
            BlockStart::Foreign { dialect: OWN, body } => {
                self.settle("completed", out);
                self.told_whole(body.text(), out);
            }
            // What another provider ran on its own side has no item here.
            BlockStart::Foreign { .. } => self.settle("completed", out),
        }
    }

    /// An item that is told whole.
    fn told_whole(&mut self, item: &str, out: &mut Vec<u8>) {
        let index = self.count;
        for kind in ["response.output_item.added", "response.output_item.done"] {
            self.frames.emit(kind, out, |o| {
                o.num("output_index", index).raw_text("item", item);
            });
        }
        append(&mut self.output, item);
        self.count += 1;
    }

    fn media(&mut self, media: &Media, out: &mut Vec<u8>) {
        match (media.kind, &media.source) {
            (MediaKind::Image, MediaSource::Base64(data)) => {
                self.settle("completed", out);
                let id = self.item_id("ig_");
                let item = write::object(|o| {
                    o.str("id", &id)
                        .str("type", "image_generation_call")
                        .str("status", "completed")
                        .str("result", data);
                    o.opt_str(
                        "output_format",
                        media.mime.as_deref().and_then(|mime| mime.strip_prefix("image/")),
                    );
                });
                self.told_whole(&item, out);
            }
            (_, MediaSource::Url(url)) => {
                self.part(false, out);
                self.delta(&format!("![]({url})"), out);
            }
            // There is no item for it.
            _ => {}
        }
    }

    /// Opens a part of a message, and the message where none is open.
    fn part(&mut self, refusal: bool, out: &mut Vec<u8>) {
        self.refused |= refusal;
        self.part_done(out);
        if !matches!(self.item, Item::Message(_)) {
            self.settle("completed", out);
            let index = self.count;
            let id = self.item_id("msg_");
            self.frames.emit("response.output_item.added", out, |o| {
                o.num("output_index", index).object("item", |o| message(o, &id, "in_progress", ""));
            });
            self.item = Item::Message(Speech { id, parts: String::new(), count: 0, open: None });
        }
        let index = self.count;
        if let Item::Message(speech) = &mut self.item {
            let part = Part { refusal, ..Part::default() };
            self.frames.emit("response.content_part.added", out, |o| {
                place(o, &speech.id, index, speech.count).object("part", |o| part.object(o));
            });
            speech.open = Some(part);
        }
    }

    fn delta(&mut self, text: &str, out: &mut Vec<u8>) {
        let index = self.count;
        match &mut self.item {
            Item::Message(Speech { id, count, open: Some(part), .. }) => {
                part.text.push_str(text);
                let kind = if part.refusal {
                    "response.refusal.delta"
                } else {
                    "response.output_text.delta"
                };
                let refusal = part.refusal;
                self.frames.emit(kind, out, |o| {
                    place(o, id, index, *count).str("delta", text);
                    if !refusal {
                        o.array("logprobs", |_| {});
                    }
                });
            }
            Item::Call(call) => {
                call.text.push_str(text);
                if !call.bridged {
                    self.frames.emit(call.kind("delta"), out, |o| {
                        o.str("item_id", &call.id).num("output_index", index).str("delta", text);
                    });
                }
            }
            Item::Reasoning(thought) => {
                thought.begin(None, &self.id, index, &mut self.frames, out);
                let id = thought.id.as_deref().unwrap_or_default();
                if !std::mem::replace(&mut thought.summarised, true) {
                    self.frames.emit("response.reasoning_summary_part.added", out, |o| {
                        o.str("item_id", id).num("output_index", index).num("summary_index", 0);
                        o.object("part", |o| summary_text(o, ""));
                    });
                }
                thought.text.push_str(text);
                self.frames.emit("response.reasoning_summary_text.delta", out, |o| {
                    o.str("item_id", id)
                        .num("output_index", index)
                        .num("summary_index", 0)
                        .str("delta", text);
                });
            }
            Item::Message(_) | Item::None => {}
        }
    }

    fn proof(&mut self, proof: ReasoningSignature, out: &mut Vec<u8>) {
        let index = self.count;
        if let Item::Reasoning(thought) = &mut self.item
            && proof.dialect == OWN
            && proof.kind == SignatureKind::Encrypted
        {
            thought.begin(proof.id, &self.id, index, &mut self.frames, out);
            thought.proof = Some(proof.value);
        }
    }

    fn cite(&mut self, citation: &Citation, out: &mut Vec<u8>) {
        let index = self.count;
        let Item::Message(Speech { id, count, open: Some(part), .. }) = &mut self.item else {
            return;
        };
        let Some(annotation) = schema::annotation(citation, part.text.chars().count() as u64)
        else {
            return;
        };
        append(&mut part.annotations, &annotation);
        let number = part.cited;
        part.cited += 1;
        self.frames.emit("response.output_text.annotation.added", out, |o| {
            place(o, id, index, *count)
                .num("annotation_index", number)
                .raw_text("annotation", &annotation);
        });
    }

    /// They belong to text that has gone out already, so they follow with none.
    fn logprobs(&mut self, list: &str, out: &mut Vec<u8>) {
        let index = self.count;
        let Item::Message(Speech { id, count, open: Some(part), .. }) = &mut self.item else {
            return;
        };
        let inside =
            list.trim().trim_start_matches('[').strip_suffix(']').unwrap_or_default().trim();
        if part.refusal || inside.is_empty() {
            return;
        }
        append(&mut part.logprobs, inside);
        self.frames.emit("response.output_text.delta", out, |o| {
            place(o, id, index, *count).str("delta", "").raw_text("logprobs", list);
        });
    }

    fn part_done(&mut self, out: &mut Vec<u8>) {
        let index = self.count;
        let Item::Message(speech) = &mut self.item else { return };
        let Some(part) = speech.open.take() else { return };
        let (id, number) = (&speech.id, speech.count);
        let kind = if part.refusal { "response.refusal.done" } else { "response.output_text.done" };
        self.frames.emit(kind, out, |o| {
            place(o, id, index, number)
                .str(if part.refusal { "refusal" } else { "text" }, &part.text);
            if !part.refusal {
                o.raw_text("logprobs", &format!("[{}]", part.logprobs));
            }
        });
        let text = write::object(|o| part.object(o));
        self.frames.emit("response.content_part.done", out, |o| {
            place(o, id, index, number).raw_text("part", &text);
        });
        append(&mut speech.parts, &text);
        speech.count += 1;
    }

    /// Ends the open item.
    fn settle(&mut self, word: &str, out: &mut Vec<u8>) {
        self.part_done(out);
        let index = self.count;
        let item = match std::mem::replace(&mut self.item, Item::None) {
            Item::None => return,
            Item::Message(speech) => write::object(|o| message(o, &speech.id, word, &speech.parts)),
            Item::Call(call) => {
                let (whole, told) = call.said();
                if !told && !whole.is_empty() {
                    self.frames.emit(call.kind("delta"), out, |o| {
                        o.str("item_id", &call.id).num("output_index", index).str("delta", &whole);
                    });
                }
                self.frames.emit(call.kind("done"), out, |o| {
                    o.str("item_id", &call.id).num("output_index", index);
                    o.str(if call.custom { "input" } else { "arguments" }, &whole);
                    if !call.custom {
                        o.str("name", &call.name);
                    }
                });
                write::object(|o| call.object(o, word, &whole))
            }
            Item::Reasoning(thought) => {
                // A thought without words and proof is none.
                let Some(id) = &thought.id else { return };
                if thought.summarised {
                    self.frames.emit("response.reasoning_summary_text.done", out, |o| {
                        o.str("item_id", id)
                            .num("output_index", index)
                            .num("summary_index", 0)
                            .str("text", &thought.text);
                    });
                    self.frames.emit("response.reasoning_summary_part.done", out, |o| {
                        o.str("item_id", id).num("output_index", index).num("summary_index", 0);
                        o.object("part", |o| summary_text(o, &thought.text));
                    });
                }
                write::object(|o| thought.object(o))
            }
        };
        self.frames.emit("response.output_item.done", out, |o| {
            o.num("output_index", index).raw_text("item", &item);
        });
        append(&mut self.output, &item);
        self.count += 1;
    }

    fn end(
        &mut self,
        finish: &Finish,
        usage: Option<Usage>,
        tier: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        self.begin(out);
        self.settle(item_word(finish), out);
        let usage = usage.or(self.usage);
        let word = schema::word(finish, self.refused);
        let kind = if word == "incomplete" { "response.incomplete" } else { "response.completed" };
        let (envelope, output) = (&self.envelope, &self.output);
        self.frames.emit(kind, out, |o| {
            o.object("response", |o| {
                envelope.object(
                    o,
                    &State::Ended { finish, word, usage: usage.as_ref(), tier },
                    output,
                )
            });
        });
    }
}

impl StreamWriter for Writer {
    fn event(&mut self, event: ChatEvent, out: &mut Vec<u8>) {
        let mut turn = std::mem::take(&mut self.turn);
        self.sequence.push(event, &mut turn);
        for event in turn.drain(..) {
            self.tell(event, out);
        }
        self.turn = turn;
    }

    fn error(&mut self, error: &ProxyError, _request_id: &str, out: &mut Vec<u8>) {
        let message = words::escaped(&error.message, SENT);
        let (envelope, output) = (&self.envelope, &self.output);
        self.frames.emit("response.failed", out, |o| {
            let state = State::Failed { code: error::code(error.kind), message: &message };
            o.object("response", |o| envelope.object(o, &state, output));
        });
    }
}

/// How the last item has ended.
fn item_word(finish: &Finish) -> &'static str {
    if matches!(finish.kind, FinishKind::Length | FinishKind::ContentFilter) {
        "incomplete"
    } else {
        "completed"
    }
}
