//! Writes an answer as a stream of chunks.

use crate::{
    base::json::{
        raw::RawJson,
        writer::{self, ObjectWriter},
    },
    dialect::{
        ingress::{ChatEndpoint, ResponseSpec, StreamWriter},
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
    spec: ResponseSpec,
    legacy_functions: bool,
    /// The id, if the answer already has one.
    response_id: Option<String>,
    /// The beginning of every chunk, up to the value of `choices`; built when the answer begins.
    chunk_head: String,
    /// The end of every chunk.
    chunk_tail: &'static str,
    blocks: Vec<ChunkBlock>,
    call_count: u32,
    image_count: u32,
    /// Number of text characters so far, for the positions of citations.
    text_chars: u64,
    /// Number of characters in legacy log probabilities so far.
    logprobs_offset: u64,
    has_reasoning: bool,
    has_refusal: bool,
    json_buffer: String,
}

/// The output form of a block.
enum ChunkBlock {
    Text {
        start: u64,
    },
    /// `needs_separator`: other reasoning was written before.
    Reasoning {
        needs_separator: bool,
    },
    Refusal,
    Call {
        index: u32,
        has_arguments: bool,
    },
    /// Free text inside a JSON argument; written when it is complete.
    Bridged {
        index: u32,
        id: String,
        name: String,
        arguments: String,
    },
    FreeText {
        index: u32,
    },
    /// A block that this dialect cannot express.
    Hidden,
}

impl ChunkWriter {
    pub(super) fn new(spec: &ResponseSpec) -> Self {
        Self {
            spec: spec.clone(),
            response_id: None,
            legacy_functions: response_write::uses_legacy_functions(spec),
            chunk_head: String::new(),
            chunk_tail: if spec.include_usage { ",\"usage\":null}\n\n" } else { "}\n\n" },
            blocks: Vec::new(),
            call_count: 0,
            image_count: 0,
            text_chars: 0,
            logprobs_offset: 0,
            has_reasoning: false,
            has_refusal: false,
            json_buffer: String::new(),
        }
    }

    fn is_completions(&self) -> bool {
        self.spec.endpoint == ChatEndpoint::Completions
    }

    fn set_chunk_head(&mut self, created: Option<i64>) {
        let head = writer::object(|o| {
            o.str(
                "id",
                self.response_id.as_deref().unwrap_or(&response_write::response_id(&self.spec)),
            );
            o.str(
                "object",
                if self.is_completions() { "text_completion" } else { "chat.completion.chunk" },
            );
            o.num("created", created.unwrap_or(self.spec.created)).str("model", &self.spec.model);
        });
        self.chunk_head = format!("data: {},\"choices\":", head.trim_end_matches('}'));
    }

    /// Writes a chunk whose choice has only a delta.
    fn write_delta(&mut self, out: &mut Vec<u8>, build: impl FnOnce(&mut ObjectWriter<'_>)) {
        self.json_buffer.clear();
        writer::push_object(&mut self.json_buffer, build);
        out.extend_from_slice(self.chunk_head.as_bytes());
        out.extend_from_slice(b"[{\"index\":0,\"delta\":");
        writer::push_single_line(out, &self.json_buffer);
        out.extend_from_slice(b",\"logprobs\":null,\"finish_reason\":null}]");
        out.extend_from_slice(self.chunk_tail.as_bytes());
    }

    /// Writes a chunk whose choice has more than a delta.
    fn write_choice(&mut self, out: &mut Vec<u8>, build: impl FnOnce(&mut ObjectWriter<'_>)) {
        self.json_buffer.clear();
        writer::push_object(&mut self.json_buffer, |o| {
            o.num("index", 0);
            build(o);
        });
        out.extend_from_slice(self.chunk_head.as_bytes());
        out.push(b'[');
        writer::push_single_line(out, &self.json_buffer);
        out.push(b']');
        out.extend_from_slice(self.chunk_tail.as_bytes());
    }

    fn write_text(&mut self, text: &str, out: &mut Vec<u8>) {
        self.write_choice(out, |o| {
            o.str("text", text).null("logprobs").null("finish_reason");
        });
    }

    fn open_block(&mut self, head: BlockStart, out: &mut Vec<u8>) {
        let chunk_block = match head {
            BlockStart::Text => ChunkBlock::Text { start: self.text_chars },
            BlockStart::Reasoning { .. } => {
                ChunkBlock::Reasoning { needs_separator: self.has_reasoning }
            }
            BlockStart::Refusal => ChunkBlock::Refusal,
            BlockStart::ToolCall { .. }
                if self.is_completions() || self.legacy_functions && self.call_count > 0 =>
            {
                ChunkBlock::Hidden
            }
            BlockStart::ToolCall { id, name, form } => self.open_call(id, name, form, out),
            BlockStart::Media(media) => {
                if !self.is_completions() && media.kind == crate::ir::block::MediaKind::Image {
                    let at = self.image_count;
                    self.image_count += 1;
                    self.write_delta(out, |o| {
                        o.array("images", |a| response_write::write_image(&media, at, a));
                    });
                }
                ChunkBlock::Hidden
            }
            BlockStart::Foreign { .. } => ChunkBlock::Hidden,
        };
        self.blocks.push(chunk_block);
    }

    fn open_call(
        &mut self,
        id: String,
        name: String,
        form: CallKind,
        out: &mut Vec<u8>,
    ) -> ChunkBlock {
        let index = self.call_count;
        self.call_count += 1;
        if form == CallKind::Function && self.spec.custom_tools.contains(&name) {
            return ChunkBlock::Bridged { index, id, name, arguments: String::new() };
        }
        if self.legacy_functions {
            self.write_delta(out, |o| {
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
            self.write_call(index, out, |o| {
                o.str("id", &id).str("type", kind).object(kind, |o| {
                    o.str("name", &name).str(field, "");
                });
            });
        }
        if form == CallKind::Custom {
            ChunkBlock::FreeText { index }
        } else {
            ChunkBlock::Call { index, has_arguments: false }
        }
    }

    fn write_call(
        &mut self,
        index: u32,
        out: &mut Vec<u8>,
        build: impl FnOnce(&mut ObjectWriter<'_>),
    ) {
        self.write_delta(out, |o| {
            o.array("tool_calls", |a| {
                a.object(|o| {
                    o.num("index", index);
                    build(o);
                });
            });
        });
    }

    fn write_arguments(&mut self, index: u32, text: &str, out: &mut Vec<u8>) {
        if self.legacy_functions {
            self.write_delta(out, |o| {
                o.object("function_call", |o| {
                    o.str("arguments", text);
                });
            });
        } else {
            self.write_call(index, out, |o| {
                o.object("function", |o| {
                    o.str("arguments", text);
                });
            });
        }
    }

    fn write_block_delta(&mut self, block: u32, text: &str, out: &mut Vec<u8>) {
        let old = self.is_completions();
        match self.blocks.get_mut(block as usize) {
            Some(ChunkBlock::Text { .. }) => {
                self.text_chars += text.chars().count() as u64;
                if old {
                    self.write_text(text, out);
                } else {
                    self.write_delta(out, |o| {
                        o.str("content", text);
                    });
                }
            }
            Some(ChunkBlock::Reasoning { needs_separator: apart }) if !old => {
                let apart = std::mem::take(apart);
                self.has_reasoning = true;
                if apart {
                    self.write_delta(out, |o| {
                        o.str("reasoning_content", "\n\n");
                    });
                }
                self.write_delta(out, |o| {
                    o.str("reasoning_content", text);
                });
            }
            Some(ChunkBlock::Refusal) => {
                self.has_refusal = true;
                if old {
                    self.write_text(text, out);
                } else {
                    self.write_delta(out, |o| {
                        o.str("refusal", text);
                    });
                }
            }
            Some(ChunkBlock::Call { index, has_arguments: some }) => {
                *some |= !text.trim().is_empty();
                let index = *index;
                self.write_arguments(index, text, out);
            }
            Some(ChunkBlock::Bridged { arguments, .. }) => arguments.push_str(text),
            Some(ChunkBlock::FreeText { index }) => {
                let index = *index;
                self.write_call(index, out, |o| {
                    o.object("custom", |o| {
                        o.str("input", text);
                    });
                });
            }
            Some(ChunkBlock::Hidden | ChunkBlock::Reasoning { .. }) | None => {}
        }
    }

    fn close_block(&mut self, block: u32, out: &mut Vec<u8>) {
        let Some(chunk_block) = self.blocks.get_mut(block as usize) else { return };
        match std::mem::replace(chunk_block, ChunkBlock::Hidden) {
            ChunkBlock::Call { index, has_arguments: false } => {
                self.write_arguments(index, "{}", out);
            }
            ChunkBlock::Bridged { index, id, name, arguments } => {
                let input = custom_input(&arguments);
                self.write_call(index, out, |o| {
                    o.str("id", &id).str("type", "custom").object("custom", |o| {
                        o.str("name", &name).str("input", &input);
                    });
                });
            }
            _ => {}
        }
    }

    fn write_signature(&mut self, block: u32, proof: &ReasoningSignature, out: &mut Vec<u8>) {
        if self.is_completions() {
            return;
        }
        if let Some(details) = reasoning::to_details(Some(proof)) {
            self.write_delta(out, |o| {
                o.raw("reasoning_details", &details);
            });
        } else if let Some(extra) = reasoning::to_extra_content(Some(proof)) {
            match self.blocks.get(block as usize) {
                Some(ChunkBlock::Call { index, .. } | ChunkBlock::FreeText { index })
                    if !self.legacy_functions =>
                {
                    let index = *index;
                    self.write_call(index, out, |o| {
                        o.raw("extra_content", &extra);
                    });
                }
                Some(ChunkBlock::Text { .. }) => self.write_delta(out, |o| {
                    o.raw("extra_content", &extra);
                }),
                _ => {}
            }
        }
    }

    fn write_logprobs(&mut self, tokens: &RawJson, out: &mut Vec<u8>) {
        if self.is_completions() {
            let written = completions::write_logprobs(tokens, &mut self.logprobs_offset);
            self.write_choice(out, |o| {
                o.str("text", "").raw_text("logprobs", &written).null("finish_reason");
            });
        } else {
            self.write_choice(out, |o| {
                o.object("delta", |_| {});
                response_write::write_logprobs(Some(tokens), o);
                o.null("finish_reason");
            });
        }
    }

    fn write_end(&mut self, finish: &Finish, usage: Option<Usage>, out: &mut Vec<u8>) {
        let word = response_write::finish_reason(
            finish.kind,
            self.has_refusal,
            self.legacy_functions,
            self.spec.endpoint,
        );
        let old = self.is_completions();
        self.write_choice(out, |o| {
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
        if self.spec.include_usage {
            let usage_json =
                writer::object(|o| response_write::write_usage(&usage.unwrap_or_default(), o));
            out.extend_from_slice(self.chunk_head.as_bytes());
            out.extend_from_slice(b"[],\"usage\":");
            out.extend_from_slice(usage_json.as_bytes());
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

impl StreamWriter for ChunkWriter {
    fn set_id(&mut self, id: &str) {
        self.response_id = Some(id.to_owned());
    }

    fn write_event(&mut self, event: ChatEvent, out: &mut Vec<u8>) {
        match event {
            ChatEvent::Begin { created, .. } => {
                self.set_chunk_head(created);
                if !self.is_completions() {
                    self.write_delta(out, |o| {
                        o.str("role", "assistant").str("content", "");
                    });
                }
            }
            ChatEvent::Open { head, .. } => self.open_block(head, out),
            ChatEvent::Delta { block, text } => self.write_block_delta(block, &text, out),
            ChatEvent::Phase { .. } => {}
            ChatEvent::Signature { block, signature: proof } => {
                self.write_signature(block, &proof, out);
            }
            ChatEvent::Citation { block, citation } => {
                if let Some(ChunkBlock::Text { start: from }) = self.blocks.get(block as usize)
                    && !self.is_completions()
                {
                    let (from, length) = (*from, self.text_chars - *from);
                    self.write_delta(out, |o| {
                        o.array("annotations", |a| {
                            response_write::write_annotation(&citation, from, length, a);
                        });
                    });
                }
            }
            ChatEvent::Logprobs(tokens) => self.write_logprobs(&tokens, out),
            ChatEvent::Close { block } => self.close_block(block, out),
            // Clients of this dialect do not read a changed service tier at the end of the stream.
            ChatEvent::End { finish, usage, .. } => self.write_end(&finish, usage, out),
        }
    }

    fn write_error(&mut self, error: &ProxyError, _request_id: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(&error::write_error_event(error));
    }
}
