//! Answers to clients as they come.

use crate::{
    base::write::{self, ObjectWriter},
    dialect::{
        Shape, StreamWriter,
        anthropic::{
            blocks_read::UNSIGNED,
            blocks_write, error,
            response_write::{self, Seal},
        },
    },
    ir::{
        block::{CallKind, Citation, ReasoningSignature},
        event::{BlockStart, ChatEvent},
        fault::ProxyError,
        op::Dialect,
        response::Finish,
        sequence::BlockSerializer,
        usage::Usage,
    },
};

const ME: Dialect = Dialect::Anthropic;

pub(super) struct MessageWriter {
    shape: Shape,
    sequence: BlockSerializer,
    /// What may be told now; kept for its room.
    told: Vec<ChatEvent>,
    /// Likewise for the text of an event.
    text: String,
    begun: bool,
    /// Known of the input since the beginning.
    usage: Option<Usage>,
    refused: bool,
    /// The client's number of the next block; blocks that say nothing get none.
    index: u32,
    now: Now,
}

/// The block that is being told.
enum Now {
    Call {
        form: CallKind,
        arguments: Arguments,
    },
    /// Nothing, or a block that this dialect has no place for.
    Nothing,
    Text {
        open: bool,
    },
    Thought {
        open: bool,
        proof: Option<ReasoningSignature>,
    },
}

/// The arguments of a call have to become an object.
enum Arguments {
    /// They do.
    Flow,
    /// Not known yet, or none: told when they are whole.
    Held(String),
}

impl MessageWriter {
    pub(super) fn new(shape: &Shape) -> Self {
        Self {
            shape: shape.clone(),
            sequence: BlockSerializer::default(),
            told: Vec::new(),
            text: String::new(),
            begun: false,
            usage: None,
            refused: false,
            index: 0,
            now: Now::Nothing,
        }
    }

    fn frame(&mut self, out: &mut Vec<u8>, name: &str, build: impl FnOnce(&mut ObjectWriter<'_>)) {
        self.text.clear();
        write::push_object(&mut self.text, |o| {
            o.str("type", name);
            build(o);
        });
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\ndata: ");
        write::push_single_line(out, &self.text);
        out.extend_from_slice(b"\n\n");
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let (id, model, usage) =
            (response_write::id(&self.shape), self.shape.model.clone(), self.usage);
        self.frame(out, "message_start", |o| {
            o.object("message", |o| {
                o.str("id", &id)
                    .str("type", "message")
                    .str("role", "assistant")
                    .str("model", &model)
                    .array("content", |_| {});
                o.null("stop_reason").null("stop_sequence");
                o.object("usage", |o| response_write::usage(o, usage.as_ref(), None));
            });
        });
    }

    fn start(&mut self, out: &mut Vec<u8>, block: impl FnOnce(&mut ObjectWriter<'_>)) {
        let index = self.index;
        self.frame(out, "content_block_start", |o| {
            o.num("index", index).object("content_block", block);
        });
    }

    fn delta(&mut self, out: &mut Vec<u8>, kind: &str, build: impl FnOnce(&mut ObjectWriter<'_>)) {
        let index = self.index;
        self.frame(out, "content_block_delta", |o| {
            o.num("index", index).object("delta", |o| {
                o.str("type", kind);
                build(o);
            });
        });
    }

    fn stop(&mut self, out: &mut Vec<u8>) {
        let index = self.index;
        self.frame(out, "content_block_stop", |o| {
            o.num("index", index);
        });
        self.index += 1;
    }

    fn arguments(&mut self, out: &mut Vec<u8>, json: &str) {
        self.delta(out, "input_json_delta", |o| {
            o.str("partial_json", json);
        });
    }

    fn open(&mut self, head: BlockStart, out: &mut Vec<u8>) {
        self.now = match head {
            BlockStart::Text => Now::Text { open: false },
            BlockStart::Refusal => {
                self.refused = true;
                Now::Text { open: false }
            }
            BlockStart::Reasoning { .. } => Now::Thought { open: false, proof: None },
            BlockStart::ToolCall { id, name, form } => {
                self.start(out, |o| {
                    o.str("type", "tool_use")
                        .str("id", &id)
                        .str("name", &name)
                        .object("input", |_| {});
                });
                let arguments = match form {
                    CallKind::Function => Arguments::Held(String::new()),
                    CallKind::Custom => {
                        self.arguments(out, "{\"input\":\"");
                        Arguments::Flow
                    }
                };
                Now::Call { form, arguments }
            }
            BlockStart::Foreign { dialect: ME, body } => {
                let index = self.index;
                self.frame(out, "content_block_start", |o| {
                    o.num("index", index).raw("content_block", &body);
                });
                self.stop(out);
                Now::Nothing
            }
            BlockStart::Foreign { .. } | BlockStart::Media(_) => Now::Nothing,
        };
    }

    fn open_text(&mut self, out: &mut Vec<u8>) {
        if let Now::Text { open } = &mut self.now
            && !std::mem::replace(open, true)
        {
            self.start(out, |o| {
                o.str("type", "text").str("text", "");
            });
        }
    }

    fn open_thought(&mut self, out: &mut Vec<u8>) {
        if let Now::Thought { open, .. } = &mut self.now
            && !std::mem::replace(open, true)
        {
            self.start(out, |o| {
                o.str("type", "thinking").str("thinking", "").str("signature", "");
            });
        }
    }

    fn grow(&mut self, text: &str, out: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        match &mut self.now {
            Now::Nothing => {}
            Now::Text { .. } => {
                self.open_text(out);
                self.delta(out, "text_delta", |o| {
                    o.str("text", text);
                });
            }
            Now::Thought { .. } => {
                self.open_thought(out);
                self.delta(out, "thinking_delta", |o| {
                    o.str("thinking", text);
                });
            }
            Now::Call { form: CallKind::Custom, .. } => {
                let mut quoted = String::with_capacity(text.len() + 2);
                write::push_string(&mut quoted, text);
                self.arguments(out, &quoted[1..quoted.len() - 1]);
            }
            Now::Call { arguments, .. } => match arguments {
                Arguments::Flow => self.arguments(out, text),
                Arguments::Held(held) => {
                    held.push_str(text);
                    if begins_object(held) {
                        let held = std::mem::take(held);
                        *arguments = Arguments::Flow;
                        self.arguments(out, &held);
                    }
                }
            },
        }
    }

    fn cite(&mut self, citation: &Citation, out: &mut Vec<u8>) {
        let Some(json) =
            response_write::citation(citation).filter(|_| matches!(self.now, Now::Text { .. }))
        else {
            return;
        };
        self.open_text(out);
        self.delta(out, "citations_delta", |o| {
            o.raw_text("citation", &json);
        });
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        match std::mem::replace(&mut self.now, Now::Nothing) {
            Now::Nothing | Now::Text { open: false } => {}
            Now::Text { open: true } => self.stop(out),
            Now::Thought { open, proof } => self.close_thought(open, proof.as_ref(), out),
            Now::Call { form, arguments } => {
                match (form, arguments) {
                    (CallKind::Custom, _) => self.arguments(out, "\"}"),
                    (CallKind::Function, Arguments::Held(held)) => {
                        self.arguments(out, &blocks_write::object(&held))
                    }
                    (CallKind::Function, Arguments::Flow) => {}
                }
                self.stop(out);
            }
        }
    }

    fn close_thought(&mut self, open: bool, proof: Option<&ReasoningSignature>, out: &mut Vec<u8>) {
        match response_write::seal(proof) {
            Seal::Redacted(data) => {
                if open {
                    // Words came before: they end unsigned, the sealed part follows.
                    self.sign(UNSIGNED, out);
                }
                self.start(out, |o| {
                    o.str("type", "redacted_thinking").str("data", data);
                });
                self.stop(out);
            }
            Seal::Signature(UNSIGNED) if !open => {}
            Seal::Signature(signature) => {
                if !open {
                    self.now = Now::Thought { open: false, proof: None };
                    self.open_thought(out);
                    self.now = Now::Nothing;
                }
                self.sign(signature, out);
            }
        }
    }

    fn sign(&mut self, signature: &str, out: &mut Vec<u8>) {
        self.delta(out, "signature_delta", |o| {
            o.str("signature", signature);
        });
        self.stop(out);
    }

    fn end(&mut self, finish: &Finish, usage: Option<Usage>, out: &mut Vec<u8>) {
        let counts = usage.or(self.usage).unwrap_or_default();
        let refused = self.refused;
        self.frame(out, "message_delta", |o| {
            o.object("delta", |o| response_write::stop(o, finish, refused));
            o.object("usage", |o| response_write::totals(o, &counts));
        });
        self.frame(out, "message_stop", |_| {});
    }

    fn tell(&mut self, event: ChatEvent, out: &mut Vec<u8>) {
        if let ChatEvent::Begin { usage, .. } = &event {
            self.usage = *usage;
        }
        self.begin(out);
        match event {
            ChatEvent::Begin { .. } | ChatEvent::Logprobs(_) => {}
            ChatEvent::Open { head, .. } => self.open(head, out),
            ChatEvent::Delta { text, .. } => self.grow(&text, out),
            ChatEvent::Signature { signature: proof, .. } => {
                if let Now::Thought { proof: place, .. } = &mut self.now {
                    *place = Some(proof);
                }
            }
            ChatEvent::Citation { citation, .. } => self.cite(&citation, out),
            ChatEvent::Close { .. } => self.close(out),
            ChatEvent::End { finish, usage, .. } => self.end(&finish, usage, out),
        }
    }
}

/// Whether this is the beginning of a JSON object, and not only of something like one.
fn begins_object(text: &str) -> bool {
    let inside = text.trim_start().strip_prefix('{').map(str::trim_start);
    inside.is_some_and(|inside| inside.starts_with(['"', '}']))
}

impl StreamWriter for MessageWriter {
    fn event(&mut self, event: ChatEvent, out: &mut Vec<u8>) {
        let mut told = std::mem::take(&mut self.told);
        self.sequence.push(event, &mut told);
        for event in told.drain(..) {
            self.tell(event, out);
        }
        self.told = told;
    }

    fn error(&mut self, error: &ProxyError, request_id: &str, out: &mut Vec<u8>) {
        // The name of the event is enough for clients, whatever was told before and even before the
        // first event.
        out.extend_from_slice(&error::event(error, request_id));
    }
}
