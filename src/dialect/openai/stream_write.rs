//! Writes an answer as chunks while it comes.

use crate::{
    base::{
        raw::RawJson,
        write::{self, ObjectWriter},
    },
    dialect::{
        Place, Shape, StreamWriter,
        openai::{completions, error, reasoning, response_write},
    },
    ir::{
        block::{CallKind, ReasoningSignature},
        event::{BlockStart, ChatEvent},
        fault::ProxyError,
        response::Finish,
        tool::custom_input,
        usage::Usage,
    },
};

pub(super) struct ChunkWriter {
    shape: Shape,
    legacy: bool,
    /// Where the answer has one already.
    id: Option<String>,
    /// What every chunk begins with, up to the value of `choices`; made when the answer begins.
    head: String,
    /// What every chunk ends with.
    tail: &'static str,
    blocks: Vec<Told>,
    calls: u32,
    images: u32,
    /// Characters of text so far, for sources.
    characters: u64,
    /// Characters of old log probabilities so far.
    offset: u64,
    thought: bool,
    refused: bool,
    json: String,
}

/// What a block is on its way out.
enum Told {
    Text {
        from: u64,
    },
    /// `apart`: other thoughts were told before.
    Thought {
        apart: bool,
    },
    Refusal,
    Call {
        index: u32,
        some: bool,
    },
    /// Free text that comes as an argument: told when it is whole.
    Bridged {
        index: u32,
        id: String,
        name: String,
        arguments: String,
    },
    FreeText {
        index: u32,
    },
    /// Nothing that has a place here.
    Hidden,
}

impl ChunkWriter {
    pub(super) fn new(shape: &Shape) -> Self {
        Self {
            shape: shape.clone(),
            id: None,
            legacy: response_write::legacy(shape),
            head: String::new(),
            tail: if shape.usage { ",\"usage\":null}\n\n" } else { "}\n\n" },
            blocks: Vec::new(),
            calls: 0,
            images: 0,
            characters: 0,
            offset: 0,
            thought: false,
            refused: false,
            json: String::new(),
        }
    }

    fn old(&self) -> bool {
        self.shape.place == Place::Completions
    }

    fn begin(&mut self, created: Option<i64>) {
        let head = write::object(|o| {
            o.str("id", self.id.as_deref().unwrap_or(&response_write::id(&self.shape)));
            o.str("object", if self.old() { "text_completion" } else { "chat.completion.chunk" });
            o.num("created", created.unwrap_or(self.shape.now)).str("model", &self.shape.model);
        });
        self.head = format!("data: {},\"choices\":", head.trim_end_matches('}'));
    }

    /// A chunk of the choice: its delta, and nothing else to tell.
    fn delta(&mut self, out: &mut Vec<u8>, build: impl FnOnce(&mut ObjectWriter<'_>)) {
        self.json.clear();
        write::push_object(&mut self.json, build);
        out.extend_from_slice(self.head.as_bytes());
        out.extend_from_slice(b"[{\"index\":0,\"delta\":");
        write::push_single_line(out, &self.json);
        out.extend_from_slice(b",\"logprobs\":null,\"finish_reason\":null}]");
        out.extend_from_slice(self.tail.as_bytes());
    }

    /// A chunk whose choice is more than a delta.
    fn choice(&mut self, out: &mut Vec<u8>, build: impl FnOnce(&mut ObjectWriter<'_>)) {
        self.json.clear();
        write::push_object(&mut self.json, |o| {
            o.num("index", 0);
            build(o);
        });
        out.extend_from_slice(self.head.as_bytes());
        out.push(b'[');
        write::push_single_line(out, &self.json);
        out.push(b']');
        out.extend_from_slice(self.tail.as_bytes());
    }

    fn text(&mut self, text: &str, out: &mut Vec<u8>) {
        self.choice(out, |o| {
            o.str("text", text).null("logprobs").null("finish_reason");
        });
    }

    fn open(&mut self, head: BlockStart, out: &mut Vec<u8>) {
        let told = match head {
            BlockStart::Text => Told::Text { from: self.characters },
            BlockStart::Reasoning { .. } => Told::Thought { apart: self.thought },
            BlockStart::Refusal => Told::Refusal,
            BlockStart::ToolCall { .. } if self.old() || self.legacy && self.calls > 0 => {
                Told::Hidden
            }
            BlockStart::ToolCall { id, name, form } => self.open_call(id, name, form, out),
            BlockStart::Media(media) => {
                if !self.old() && media.kind == crate::ir::block::MediaKind::Image {
                    let at = self.images;
                    self.images += 1;
                    self.delta(out, |o| {
                        o.array("images", |a| response_write::image(&media, at, a));
                    });
                }
                Told::Hidden
            }
            BlockStart::Foreign { .. } => Told::Hidden,
        };
        self.blocks.push(told);
    }

    fn open_call(&mut self, id: String, name: String, form: CallKind, out: &mut Vec<u8>) -> Told {
        let index = self.calls;
        self.calls += 1;
        if form == CallKind::Function && self.shape.custom.contains(&name) {
            return Told::Bridged { index, id, name, arguments: String::new() };
        }
        if self.legacy {
            self.delta(out, |o| {
                o.object("function_call", |o| {
                    o.str("name", &name).str("arguments", "");
                });
            });
        } else {
            let (kind, field) = if form == CallKind::Custom {
                ("custom", "input")
            } else {
                ("function", "arguments")
            };
            self.call(index, out, |o| {
                o.str("id", &id).str("type", kind).object(kind, |o| {
                    o.str("name", &name).str(field, "");
                });
            });
        }
        if form == CallKind::Custom {
            Told::FreeText { index }
        } else {
            Told::Call { index, some: false }
        }
    }

    fn call(&mut self, index: u32, out: &mut Vec<u8>, build: impl FnOnce(&mut ObjectWriter<'_>)) {
        self.delta(out, |o| {
            o.array("tool_calls", |a| {
                a.object(|o| {
                    o.num("index", index);
                    build(o);
                });
            });
        });
    }

    fn arguments(&mut self, index: u32, text: &str, out: &mut Vec<u8>) {
        if self.legacy {
            self.delta(out, |o| {
                o.object("function_call", |o| {
                    o.str("arguments", text);
                });
            });
        } else {
            self.call(index, out, |o| {
                o.object("function", |o| {
                    o.str("arguments", text);
                });
            });
        }
    }

    fn grow(&mut self, block: u32, text: &str, out: &mut Vec<u8>) {
        let old = self.old();
        match self.blocks.get_mut(block as usize) {
            Some(Told::Text { .. }) => {
                self.characters += text.chars().count() as u64;
                if old {
                    self.text(text, out);
                } else {
                    self.delta(out, |o| {
                        o.str("content", text);
                    });
                }
            }
            Some(Told::Thought { apart }) if !old => {
                let apart = std::mem::take(apart);
                self.thought = true;
                if apart {
                    self.delta(out, |o| {
                        o.str("reasoning_content", "\n\n");
                    });
                }
                self.delta(out, |o| {
                    o.str("reasoning_content", text);
                });
            }
            Some(Told::Refusal) => {
                self.refused = true;
                if old {
                    self.text(text, out);
                } else {
                    self.delta(out, |o| {
                        o.str("refusal", text);
                    });
                }
            }
            Some(Told::Call { index, some }) => {
                *some |= !text.trim().is_empty();
                let index = *index;
                self.arguments(index, text, out);
            }
            Some(Told::Bridged { arguments, .. }) => arguments.push_str(text),
            Some(Told::FreeText { index }) => {
                let index = *index;
                self.call(index, out, |o| {
                    o.object("custom", |o| {
                        o.str("input", text);
                    });
                });
            }
            Some(Told::Hidden | Told::Thought { .. }) | None => {}
        }
    }

    fn close(&mut self, block: u32, out: &mut Vec<u8>) {
        let Some(told) = self.blocks.get_mut(block as usize) else { return };
        match std::mem::replace(told, Told::Hidden) {
            Told::Call { index, some: false } => self.arguments(index, "{}", out),
            Told::Bridged { index, id, name, arguments } => {
                let input = custom_input(&arguments);
                self.call(index, out, |o| {
                    o.str("id", &id).str("type", "custom").object("custom", |o| {
                        o.str("name", &name).str("input", &input);
                    });
                });
            }
            _ => {}
        }
    }

    fn proof(&mut self, block: u32, proof: &ReasoningSignature, out: &mut Vec<u8>) {
        if self.old() {
            return;
        }
        if let Some(details) = reasoning::as_details(Some(proof)) {
            self.delta(out, |o| {
                o.raw("reasoning_details", &details);
            });
        } else if let Some(extra) = reasoning::as_beside(Some(proof)) {
            match self.blocks.get(block as usize) {
                Some(Told::Call { index, .. } | Told::FreeText { index }) if !self.legacy => {
                    let index = *index;
                    self.call(index, out, |o| {
                        o.raw("extra_content", &extra);
                    });
                }
                Some(Told::Text { .. }) => self.delta(out, |o| {
                    o.raw("extra_content", &extra);
                }),
                _ => {}
            }
        }
    }

    fn logprobs(&mut self, tokens: &RawJson, out: &mut Vec<u8>) {
        if self.old() {
            let told = completions::logprobs(tokens, &mut self.offset);
            self.choice(out, |o| {
                o.str("text", "").raw_text("logprobs", &told).null("finish_reason");
            });
        } else {
            self.choice(out, |o| {
                o.object("delta", |_| {});
                response_write::logprobs(Some(tokens), o);
                o.null("finish_reason");
            });
        }
    }

    fn end(&mut self, finish: &Finish, usage: Option<Usage>, out: &mut Vec<u8>) {
        let word =
            response_write::finish_word(finish.kind, self.refused, self.legacy, self.shape.place);
        let old = self.old();
        self.choice(out, |o| {
            if old {
                {
                    o.str("text", "");
                }
            } else {
                {
                    o.object("delta", |_| {});
                }
            }
            o.null("logprobs").str("finish_reason", word);
        });
        if self.shape.usage {
            let told = write::object(|o| response_write::usage(&usage.unwrap_or_default(), o));
            out.extend_from_slice(self.head.as_bytes());
            out.extend_from_slice(b"[],\"usage\":");
            out.extend_from_slice(told.as_bytes());
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

impl StreamWriter for ChunkWriter {
    fn bears(&mut self, id: &str) {
        self.id = Some(id.to_owned());
    }

    fn event(&mut self, event: ChatEvent, out: &mut Vec<u8>) {
        match event {
            ChatEvent::Begin { created, .. } => {
                self.begin(created);
                if !self.old() {
                    self.delta(out, |o| {
                        o.str("role", "assistant").str("content", "");
                    });
                }
            }
            ChatEvent::Open { head, .. } => self.open(head, out),
            ChatEvent::Delta { block, text } => self.grow(block, &text, out),
            ChatEvent::Signature { block, signature: proof } => self.proof(block, &proof, out),
            ChatEvent::Citation { block, citation } => {
                if let Some(Told::Text { from }) = self.blocks.get(block as usize)
                    && !self.old()
                {
                    let (from, length) = (*from, self.characters - *from);
                    self.delta(out, |o| {
                        o.array("annotations", |a| {
                            response_write::annotation(&citation, from, length, a)
                        });
                    });
                }
            }
            ChatEvent::Logprobs(tokens) => self.logprobs(&tokens, out),
            ChatEvent::Close { block } => self.close(block, out),
            // A tier that changed is no news to anybody who reads chunks.
            ChatEvent::End { finish, usage, .. } => self.end(&finish, usage, out),
        }
    }

    fn error(&mut self, error: &ProxyError, _request_id: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(&error::event(error));
    }
}
