//! Writes client responses as a stream.

use crate::{
    base::json::writer::{self, ObjectWriter},
    dialect::{
        anthropic::{
            blocks_read::PLACEHOLDER_SIGNATURE,
            blocks_write, error,
            response_write::{self, ReasoningSeal},
            web_search::ForeignSearch,
        },
        ingress::{ResponseSpec, StreamWriter},
    },
    ir::{
        block::{CallKind, Citation, ReasoningSignature},
        event::{BlockStart, ChatEvent},
        fault::ProxyError,
        op::Dialect,
        response::Finish,
        serialize_blocks::BlockSerializer,
        usage::Usage,
    },
};

const DIALECT: Dialect = Dialect::Anthropic;

pub(super) struct MessageStreamWriter {
    spec: ResponseSpec,
    sequence: BlockSerializer,
    /// Events that are ready to be written; retained to reuse the allocation.
    pending_events: Vec<ChatEvent>,
    /// The text of an event; retained to reuse the allocation.
    event_text: String,
    started: bool,
    /// The usage that was known at the start of the stream.
    initial_usage: Option<Usage>,
    /// The searches of another provider so far.
    search_count: u32,
    refused: bool,
    /// The client's number for the next block; empty blocks get no number.
    block_index: u32,
    current: CurrentBlock,
}

/// The block that is being written.
enum CurrentBlock {
    Call {
        form: CallKind,
        arguments: ArgumentsState,
    },
    /// No block, or one that this dialect cannot carry.
    None,
    Text {
        open: bool,
    },
    Thought {
        open: bool,
        signature: Option<ReasoningSignature>,
    },
}

/// The state of a call's arguments, which must become an object.
enum ArgumentsState {
    /// The arguments are an object and are streamed.
    Streaming,
    /// Unknown or not an object: the arguments are written once they are complete.
    Buffered(String),
}

impl MessageStreamWriter {
    pub(super) fn new(spec: &ResponseSpec) -> Self {
        Self {
            spec: spec.clone(),
            sequence: BlockSerializer::default(),
            pending_events: Vec::new(),
            event_text: String::new(),
            started: false,
            initial_usage: None,
            search_count: 0,
            refused: false,
            block_index: 0,
            current: CurrentBlock::None,
        }
    }

    fn write_frame(
        &mut self,
        out: &mut Vec<u8>,
        name: &str,
        build: impl FnOnce(&mut ObjectWriter<'_>),
    ) {
        self.event_text.clear();
        writer::push_object(&mut self.event_text, |o| {
            o.str("type", name);
            build(o);
        });
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\ndata: ");
        writer::push_single_line(out, &self.event_text);
        out.extend_from_slice(b"\n\n");
    }

    fn write_message_start(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let (id, model, usage) =
            (response_write::message_id(&self.spec), self.spec.model.clone(), self.initial_usage);
        self.write_frame(out, "message_start", |o| {
            o.object("message", |o| {
                o.str("id", &id)
                    .str("type", "message")
                    .str("role", "assistant")
                    .str("model", &model)
                    .array("content", |_| {});
                o.null("stop_reason").null("stop_sequence");
                o.object("usage", |o| response_write::write_usage(o, usage.as_ref(), None));
            });
        });
    }

    fn write_block_start(&mut self, out: &mut Vec<u8>, block: impl FnOnce(&mut ObjectWriter<'_>)) {
        let index = self.block_index;
        self.write_frame(out, "content_block_start", |o| {
            o.num("index", index).object("content_block", block);
        });
    }

    fn write_delta(
        &mut self,
        out: &mut Vec<u8>,
        kind: &str,
        build: impl FnOnce(&mut ObjectWriter<'_>),
    ) {
        let index = self.block_index;
        self.write_frame(out, "content_block_delta", |o| {
            o.num("index", index).object("delta", |o| {
                o.str("type", kind);
                build(o);
            });
        });
    }

    fn write_block_stop(&mut self, out: &mut Vec<u8>) {
        let index = self.block_index;
        self.write_frame(out, "content_block_stop", |o| {
            o.num("index", index);
        });
        self.block_index += 1;
    }

    fn write_arguments_delta(&mut self, out: &mut Vec<u8>, json: &str) {
        self.write_delta(out, "input_json_delta", |o| {
            o.str("partial_json", json);
        });
    }

    fn open_block(&mut self, head: BlockStart, out: &mut Vec<u8>) {
        self.current = match head {
            BlockStart::Text => CurrentBlock::Text { open: false },
            BlockStart::Refusal => {
                self.refused = true;
                CurrentBlock::Text { open: false }
            }
            BlockStart::Reasoning { .. } => CurrentBlock::Thought { open: false, signature: None },
            BlockStart::ToolCall { id, name, form } => {
                self.write_block_start(out, |o| {
                    o.str("type", "tool_use")
                        .str("id", &id)
                        .str("name", &name)
                        .object("input", |_| {});
                });
                let arguments = match form {
                    CallKind::Function => ArgumentsState::Buffered(String::new()),
                    CallKind::Custom => {
                        self.write_arguments_delta(out, "{\"input\":\"");
                        ArgumentsState::Streaming
                    }
                };
                CurrentBlock::Call { form, arguments }
            }
            BlockStart::Foreign { dialect: DIALECT, body } => {
                let index = self.block_index;
                self.write_frame(out, "content_block_start", |o| {
                    o.num("index", index).raw("content_block", &body);
                });
                self.write_block_stop(out);
                CurrentBlock::None
            }
            BlockStart::Foreign { dialect, body } => {
                if let Some(search) = ForeignSearch::read(dialect, body.json()) {
                    let blocks = search.blocks(&self.spec.request_id, self.search_count);
                    for block in blocks {
                        let index = self.block_index;
                        self.write_frame(out, "content_block_start", |o| {
                            o.num("index", index).raw_text("content_block", &block);
                        });
                        self.write_block_stop(out);
                    }
                    self.search_count += 1;
                }
                CurrentBlock::None
            }
            BlockStart::Media(_) => CurrentBlock::None,
        };
    }

    fn open_text(&mut self, out: &mut Vec<u8>) {
        if let CurrentBlock::Text { open } = &mut self.current
            && !std::mem::replace(open, true)
        {
            self.write_block_start(out, |o| {
                o.str("type", "text").str("text", "");
            });
        }
    }

    fn open_thought(&mut self, out: &mut Vec<u8>) {
        if let CurrentBlock::Thought { open, .. } = &mut self.current
            && !std::mem::replace(open, true)
        {
            self.write_block_start(out, |o| {
                o.str("type", "thinking").str("thinking", "").str("signature", "");
            });
        }
    }

    fn append_text(&mut self, text: &str, out: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        match &mut self.current {
            CurrentBlock::None => {}
            CurrentBlock::Text { .. } => {
                self.open_text(out);
                self.write_delta(out, "text_delta", |o| {
                    o.str("text", text);
                });
            }
            CurrentBlock::Thought { .. } => {
                self.open_thought(out);
                self.write_delta(out, "thinking_delta", |o| {
                    o.str("thinking", text);
                });
            }
            CurrentBlock::Call { form: CallKind::Custom, .. } => {
                let mut quoted = String::with_capacity(text.len() + 2);
                writer::push_string(&mut quoted, text);
                self.write_arguments_delta(out, &quoted[1..quoted.len() - 1]);
            }
            CurrentBlock::Call { arguments, .. } => match arguments {
                ArgumentsState::Streaming => self.write_arguments_delta(out, text),
                ArgumentsState::Buffered(buffer) => {
                    buffer.push_str(text);
                    if starts_object(buffer) {
                        let buffered = std::mem::take(buffer);
                        *arguments = ArgumentsState::Streaming;
                        self.write_arguments_delta(out, &buffered);
                    }
                }
            },
        }
    }

    fn write_citation(&mut self, citation: &Citation, out: &mut Vec<u8>) {
        let Some(json) = response_write::write_citation(citation)
            .filter(|_| matches!(self.current, CurrentBlock::Text { .. }))
        else {
            return;
        };
        self.open_text(out);
        self.write_delta(out, "citations_delta", |o| {
            o.raw_text("citation", &json);
        });
    }

    fn close_block(&mut self, out: &mut Vec<u8>) {
        match std::mem::replace(&mut self.current, CurrentBlock::None) {
            CurrentBlock::None | CurrentBlock::Text { open: false } => {}
            CurrentBlock::Text { open: true } => self.write_block_stop(out),
            CurrentBlock::Thought { open, signature: proof } => {
                self.close_thought(open, proof.as_ref(), out);
            }
            CurrentBlock::Call { form, arguments } => {
                match (form, arguments) {
                    (CallKind::Custom, _) => self.write_arguments_delta(out, "\"}"),
                    (CallKind::Function, ArgumentsState::Buffered(buffer)) => {
                        self.write_arguments_delta(out, &blocks_write::to_json_object(&buffer));
                    }
                    (CallKind::Function, ArgumentsState::Streaming) => {}
                }
                self.write_block_stop(out);
            }
        }
    }

    fn close_thought(&mut self, open: bool, proof: Option<&ReasoningSignature>, out: &mut Vec<u8>) {
        match response_write::reasoning_seal(proof) {
            ReasoningSeal::Redacted(data) => {
                if open {
                    // Text came before: its block ends unsigned, and the redacted part follows.
                    self.write_signature(PLACEHOLDER_SIGNATURE, out);
                }
                self.write_block_start(out, |o| {
                    o.str("type", "redacted_thinking").str("data", data);
                });
                self.write_block_stop(out);
            }
            ReasoningSeal::Signature(PLACEHOLDER_SIGNATURE) if !open => {}
            ReasoningSeal::Signature(signature) => {
                if !open {
                    self.current = CurrentBlock::Thought { open: false, signature: None };
                    self.open_thought(out);
                    self.current = CurrentBlock::None;
                }
                self.write_signature(signature, out);
            }
        }
    }

    fn write_signature(&mut self, signature: &str, out: &mut Vec<u8>) {
        self.write_delta(out, "signature_delta", |o| {
            o.str("signature", signature);
        });
        self.write_block_stop(out);
    }

    fn write_end(&mut self, finish: &Finish, usage: Option<Usage>, out: &mut Vec<u8>) {
        let counts = usage.or(self.initial_usage).unwrap_or_default();
        let (refused, searches) = (self.refused, self.search_count);
        self.write_frame(out, "message_delta", |o| {
            o.object("delta", |o| response_write::write_stop_reason(o, finish, refused));
            o.object("usage", |o| {
                response_write::write_totals(o, &counts);
                response_write::write_searches(o, searches);
            });
        });
        self.write_frame(out, "message_stop", |_| {});
    }

    fn write_chat_event(&mut self, event: ChatEvent, out: &mut Vec<u8>) {
        if let ChatEvent::Begin { usage, .. } = &event {
            self.initial_usage = *usage;
        }
        self.write_message_start(out);
        match event {
            // Clients get the phase back with the next turn, from where it is kept.
            ChatEvent::Begin { .. } | ChatEvent::Logprobs(_) | ChatEvent::Phase { .. } => {}
            ChatEvent::Open { head, .. } => self.open_block(head, out),
            ChatEvent::Delta { text, .. } => self.append_text(&text, out),
            ChatEvent::Signature { signature: proof, .. } => {
                if let CurrentBlock::Thought { signature: slot, .. } = &mut self.current {
                    *slot = Some(proof);
                }
            }
            ChatEvent::Citation { citation, .. } => self.write_citation(&citation, out),
            ChatEvent::Close { .. } => self.close_block(out),
            ChatEvent::End { finish, usage, .. } => self.write_end(&finish, usage, out),
        }
    }
}

/// Whether the text begins a JSON object, and not only something similar.
fn starts_object(text: &str) -> bool {
    let inside = text.trim_start().strip_prefix('{').map(str::trim_start);
    inside.is_some_and(|inside| inside.starts_with(['"', '}']))
}

impl StreamWriter for MessageStreamWriter {
    fn write_event(&mut self, event: ChatEvent, out: &mut Vec<u8>) {
        let mut pending = std::mem::take(&mut self.pending_events);
        self.sequence.push(event, &mut pending);
        for event in pending.drain(..) {
            self.write_chat_event(event, out);
        }
        self.pending_events = pending;
    }

    fn write_error(&mut self, error: &ProxyError, request_id: &str, out: &mut Vec<u8>) {
        // Clients recognise the error by the event name alone, at any point of the stream and even
        // before the first event.
        out.extend_from_slice(&error::error_event(error, request_id));
    }
}
