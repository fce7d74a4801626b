//! Writes answers from the common form, whole or line by line.

use std::{borrow::Cow, collections::VecDeque};

use bytes::Bytes;

use crate::{
    base::{
        data_url,
        json::{
            raw::RawJson,
            writer::{self, ObjectWriter},
        },
    },
    dialect::{
        ingress::{ChatEndpoint, ResponseSpec, StreamWriter},
        ollama::{self, images, messages_write::arguments_object},
    },
    ir::{
        block::{BlockKind, Media, MediaKind, MediaSource, ToolCall},
        event::{BlockStart, ChatEvent},
        extras::Extras,
        fault::ProxyError,
        op::Dialect,
        response::{ChatResponse, FinishKind},
        usage::Usage,
    },
};

/// The fields of every line.
struct LineHeader {
    is_generate: bool,
    model: String,
    created_at: String,
}

/// The content of one line.
#[derive(Default)]
struct LineContent<'s> {
    text: &'s str,
    thinking: &'s str,
    images: &'s [Cow<'s, str>],
    calls: &'s [(usize, &'s ToolCall)],
    logprobs: Option<&'s RawJson>,
}

impl LineHeader {
    fn new(shape: &ResponseSpec, created: Option<i64>) -> Self {
        let at = jiff::Timestamp::from_second(created.unwrap_or(shape.created)).unwrap_or_default();
        Self {
            is_generate: shape.endpoint == ChatEndpoint::Generate,
            model: shape.model.clone(),
            created_at: at.to_string(),
        }
    }

    fn to_line(
        &self,
        content: &LineContent<'_>,
        finish: impl FnOnce(&mut ObjectWriter<'_>),
    ) -> String {
        writer::object(|o| {
            o.str("model", &self.model).str("created_at", &self.created_at);
            if self.is_generate {
                o.str("response", content.text);
                write_content(o, content);
            } else {
                o.object("message", |o| {
                    o.str("role", "assistant").str("content", content.text);
                    write_content(o, content);
                });
            }
            o.opt_raw("logprobs", content.logprobs);
            finish(o);
        })
    }
}

fn write_content(o: &mut ObjectWriter<'_>, content: &LineContent<'_>) {
    if !content.thinking.is_empty() {
        o.str("thinking", content.thinking);
    }
    if !content.images.is_empty() {
        o.array("images", |a| {
            for data in content.images {
                a.str(data);
            }
        });
    }
    if !content.calls.is_empty() {
        o.array("tool_calls", |a| {
            for (index, call) in content.calls {
                a.object(|o| {
                    o.str("id", &call.id).object("function", |o| {
                        o.num("index", *index as u64).str("name", &call.name);
                        o.raw_text("arguments", &arguments_object(&call.arguments, call.form));
                    });
                });
            }
        });
    }
}

/// Writes the fields of the last line. Durations are known only from an Ollama upstream. Clients
/// divide by them, so an unknown duration is written as 1 ns instead of zero.
fn write_final_fields(
    o: &mut ObjectWriter<'_>,
    kind: FinishKind,
    usage: Option<Usage>,
    extras: &Extras,
) {
    let reason = match kind {
        FinishKind::Stop | FinishKind::ToolCalls => "stop",
        FinishKind::Length => "length",
        FinishKind::ContentFilter => "filter",
        FinishKind::Refusal => "refusal",
        FinishKind::Pause => "pause",
    };
    o.bool("done", true).str("done_reason", reason);
    for key in ["total_duration", "load_duration", "prompt_eval_duration", "eval_duration"] {
        match extras.get(Dialect::Ollama, key) {
            Some(span) => o.raw(key, span),
            None => o.num(key, 1),
        };
    }
    if let Some(usage) = usage {
        o.num("prompt_eval_count", usage.input_total()).num("eval_count", usage.output_total());
    }
    for (key, value) in extras.iter() {
        if !key.ends_with("_duration") && extras.is_from(Dialect::Ollama) {
            o.raw(key, value);
        }
    }
}

/// Returns the image's data if it is in the answer itself.
fn image_data(media: &Media) -> Option<Cow<'_, str>> {
    match (media.kind, &media.source) {
        (MediaKind::Image, MediaSource::Base64(data)) => Some(images::to_standard_base64(data)),
        (MediaKind::Image, MediaSource::Url(url)) => {
            data_url::split_base64(url).map(|parts| images::to_standard_base64(parts.data))
        }
        _ => None,
    }
}

pub(super) fn write_response(response: &ChatResponse, shape: &ResponseSpec) -> Bytes {
    let (mut text, mut thinking) = (String::new(), String::new());
    let (mut images, mut calls) = (Vec::new(), Vec::new());
    for block in &response.blocks {
        match &block.kind {
            BlockKind::Text(it) => text.push_str(&it.text),
            BlockKind::Refusal(words) => text.push_str(words),
            BlockKind::Reasoning(it) => thinking.push_str(&it.text),
            BlockKind::Media(media) => images.extend(image_data(media)),
            BlockKind::ToolCall(call) => calls.push((calls.len(), call)),
            BlockKind::ToolResult(_) | BlockKind::Foreign { .. } => {}
        }
    }
    let content = LineContent {
        text: &text,
        thinking: &thinking,
        images: &images,
        calls: &calls,
        logprobs: response.logprobs.as_ref(),
    };
    let header = LineHeader::new(shape, response.created);
    let mut line = Vec::new();
    writer::push_single_line(
        &mut line,
        &header.to_line(&content, |o| {
            write_final_fields(o, response.finish.kind, response.usage, &response.extras);
        }),
    );
    line.into()
}

pub(super) struct LineWriter {
    shape: ResponseSpec,
    header: Option<LineHeader>,
    blocks: Vec<OllamaBlockKind>,
    /// Calls are written whole, in the order in which they began.
    pending_calls: VecDeque<OllamaPendingCall>,
    emitted_calls: usize,
    usage: Option<Usage>,
}

#[derive(Clone, Copy)]
enum OllamaBlockKind {
    Call,
    Text,
    Thinking,
    /// A block that this dialect cannot express.
    Omitted,
}

struct OllamaPendingCall {
    block: u32,
    call: ToolCall,
    complete: bool,
}

impl LineWriter {
    pub(super) fn new(shape: &ResponseSpec) -> Self {
        Self {
            shape: shape.clone(),
            header: None,
            blocks: Vec::new(),
            pending_calls: VecDeque::new(),
            emitted_calls: 0,
            usage: None,
        }
    }

    fn write_line(&mut self, content: &LineContent<'_>, out: &mut Vec<u8>) {
        let header = self.header.get_or_insert_with(|| LineHeader::new(&self.shape, None));
        let line = header.to_line(content, |o| {
            o.bool("done", false);
        });
        writer::push_single_line(out, &line);
        out.push(b'\n');
    }

    fn write_complete_calls(&mut self, out: &mut Vec<u8>) {
        while let Some(OllamaPendingCall { call, .. }) =
            self.pending_calls.pop_front_if(|call| call.complete)
        {
            let index = self.emitted_calls;
            self.emitted_calls += 1;
            self.write_line(
                &LineContent { calls: &[(index, &call)], ..LineContent::default() },
                out,
            );
        }
    }

    fn open_block(&mut self, block: u32, head: BlockStart, out: &mut Vec<u8>) {
        let kind = match head {
            BlockStart::Text | BlockStart::Refusal => OllamaBlockKind::Text,
            BlockStart::Reasoning { .. } => OllamaBlockKind::Thinking,
            BlockStart::ToolCall { id, name, form } => {
                let call = ToolCall { id, name, arguments: String::new(), form };
                self.pending_calls.push_back(OllamaPendingCall { block, call, complete: false });
                OllamaBlockKind::Call
            }
            BlockStart::Media(media) => {
                if let Some(data) = image_data(&media) {
                    self.write_line(
                        &LineContent { images: &[data], ..LineContent::default() },
                        out,
                    );
                }
                OllamaBlockKind::Omitted
            }
            BlockStart::Foreign { .. } => OllamaBlockKind::Omitted,
        };
        self.blocks.push(kind);
    }
}

impl StreamWriter for LineWriter {
    fn write_event(&mut self, event: ChatEvent, out: &mut Vec<u8>) {
        match event {
            ChatEvent::Begin { created, usage, .. } => {
                self.header = Some(LineHeader::new(&self.shape, created));
                self.usage = usage;
            }
            ChatEvent::Open { block, head } => self.open_block(block, head, out),
            ChatEvent::Delta { block, text } => match self.blocks.get(block as usize) {
                Some(OllamaBlockKind::Text) => {
                    self.write_line(&LineContent { text: &text, ..LineContent::default() }, out);
                }
                Some(OllamaBlockKind::Thinking) => {
                    self.write_line(
                        &LineContent { thinking: &text, ..LineContent::default() },
                        out,
                    );
                }
                Some(OllamaBlockKind::Call) => {
                    if let Some(call) = pending_call(&mut self.pending_calls, block) {
                        call.call.arguments.push_str(&text);
                    }
                }
                Some(OllamaBlockKind::Omitted) | None => {}
            },
            ChatEvent::Logprobs(list) => self
                .write_line(&LineContent { logprobs: Some(&list), ..LineContent::default() }, out),
            ChatEvent::Close { block } => {
                if let Some(call) = pending_call(&mut self.pending_calls, block) {
                    call.complete = true;
                    self.write_complete_calls(out);
                }
            }
            ChatEvent::End { finish, usage, .. } => {
                self.pending_calls.iter_mut().for_each(|call| call.complete = true);
                self.write_complete_calls(out);
                let usage = usage.or(self.usage);
                let header = self.header.get_or_insert_with(|| LineHeader::new(&self.shape, None));
                let line = header.to_line(&LineContent::default(), |o| {
                    write_final_fields(o, finish.kind, usage, &Extras::default());
                });
                writer::push_single_line(out, &line);
                out.push(b'\n');
            }
            ChatEvent::Signature { .. } | ChatEvent::Citation { .. } | ChatEvent::Phase { .. } => {}
        }
    }

    fn write_error(&mut self, error: &ProxyError, _request_id: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(ollama::error_body(error).as_bytes());
        out.push(b'\n');
    }
}

/// Writes the answer to a request that loads a model (or unloads it), as official clients send
/// before a conversation.
pub(in crate::dialect) fn write_preload_response(shape: &ResponseSpec, unload: bool) -> Bytes {
    let header = LineHeader::new(shape, None);
    let line = header.to_line(&LineContent::default(), |o| {
        o.bool("done", true).str("done_reason", if unload { "unload" } else { "load" });
    });
    line.into()
}

/// Finds a call; calls begin in the order of their blocks.
fn pending_call(
    calls: &mut VecDeque<OllamaPendingCall>,
    block: u32,
) -> Option<&mut OllamaPendingCall> {
    let at = calls.binary_search_by_key(&block, |call| call.block).ok()?;
    calls.get_mut(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::block::CallKind;

    #[test]
    fn custom_call_is_written_as_an_object() {
        assert_eq!(arguments_object("*** Begin", CallKind::Custom), r#"{"input":"*** Begin"}"#);
        assert_eq!(arguments_object(" {\"a\":1.0} ", CallKind::Function), "{\"a\":1.0}");
        assert_eq!(arguments_object("", CallKind::Function), "{}");
        assert_eq!(arguments_object("{\"a\":", CallKind::Function), r#"{"input":"{\"a\":"}"#);
    }
}
