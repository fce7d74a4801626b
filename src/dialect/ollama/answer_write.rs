//! Answers: common form to wire, whole or line by line.

use std::{borrow::Cow, collections::VecDeque};

use bytes::Bytes;

use crate::{
    base::{
        raw::RawJson,
        write::{self, ObjectWriter},
    },
    dialect::{
        Place, Shape, StreamWriter,
        ollama::{self, image, request_write::arguments},
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

/// What stands on every line.
struct Frame {
    generate: bool,
    model: String,
    created_at: String,
}

/// What one line says of the answer.
#[derive(Default)]
struct Said<'s> {
    text: &'s str,
    thinking: &'s str,
    images: &'s [Cow<'s, str>],
    calls: &'s [(usize, &'s ToolCall)],
    logprobs: Option<&'s RawJson>,
}

impl Frame {
    fn new(shape: &Shape, created: Option<i64>) -> Self {
        let at = jiff::Timestamp::from_second(created.unwrap_or(shape.now)).unwrap_or_default();
        Self {
            generate: shape.place == Place::Generate,
            model: shape.model.clone(),
            created_at: at.to_string(),
        }
    }

    fn write(&self, said: &Said<'_>, finish: impl FnOnce(&mut ObjectWriter<'_>)) -> String {
        write::object(|o| {
            o.str("model", &self.model).str("created_at", &self.created_at);
            if self.generate {
                o.str("response", said.text);
                rest(o, said);
            } else {
                o.object("message", |o| {
                    o.str("role", "assistant").str("content", said.text);
                    rest(o, said);
                });
            }
            o.opt_raw("logprobs", said.logprobs);
            finish(o);
        })
    }
}

fn rest(o: &mut ObjectWriter<'_>, said: &Said<'_>) {
    if !said.thinking.is_empty() {
        o.str("thinking", said.thinking);
    }
    if !said.images.is_empty() {
        o.array("images", |a| {
            for data in said.images {
                a.str(data);
            }
        });
    }
    if !said.calls.is_empty() {
        o.array("tool_calls", |a| {
            for (index, call) in said.calls {
                a.object(|o| {
                    o.str("id", &call.id).object("function", |o| {
                        o.num("index", *index as u64).str("name", &call.name);
                        o.raw_text("arguments", &arguments(&call.arguments, call.form));
                    });
                });
            }
        });
    }
}

/// The last line's own fields. What the answer took is known only where its server told it. Clients
/// divide by it, so the unknown is told as the shortest time there is, not as zero.
fn ending(o: &mut ObjectWriter<'_>, kind: FinishKind, usage: Option<Usage>, extras: &Extras) {
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
        if !key.ends_with("_duration") && extras.get(Dialect::Ollama, key).is_some() {
            o.raw(key, value);
        }
    }
}

/// The picture, where it is one that can be told.
fn picture(media: &Media) -> Option<Cow<'_, str>> {
    match (media.kind, &media.source) {
        (MediaKind::Image, MediaSource::Base64(data)) => Some(image::standard(data)),
        (MediaKind::Image, MediaSource::Url(url)) => {
            image::data_url(url).map(|(_, data)| image::standard(data))
        }
        _ => None,
    }
}

pub(super) fn whole(response: &ChatResponse, shape: &Shape) -> Bytes {
    let (mut text, mut thinking) = (String::new(), String::new());
    let (mut images, mut calls) = (Vec::new(), Vec::new());
    for block in &response.blocks {
        match &block.kind {
            BlockKind::Text(it) => text.push_str(&it.text),
            BlockKind::Refusal(words) => text.push_str(words),
            BlockKind::Reasoning(it) => thinking.push_str(&it.text),
            BlockKind::Media(media) => images.extend(picture(media)),
            BlockKind::ToolCall(call) => calls.push((calls.len(), call)),
            BlockKind::ToolResult(_) | BlockKind::Foreign { .. } => {}
        }
    }
    let said = Said {
        text: &text,
        thinking: &thinking,
        images: &images,
        calls: &calls,
        logprobs: response.logprobs.as_ref(),
    };
    let frame = Frame::new(shape, response.created);
    let mut line = Vec::new();
    write::push_single_line(
        &mut line,
        &frame.write(&said, |o| ending(o, response.finish.kind, response.usage, &response.extras)),
    );
    line.into()
}

pub(super) struct LineWriter {
    shape: Shape,
    frame: Option<Frame>,
    blocks: Vec<Kind>,
    /// Calls are told whole, in the order in which they were begun.
    calls: VecDeque<Call>,
    told: usize,
    usage: Option<Usage>,
}

#[derive(Clone, Copy)]
enum Kind {
    Call,
    Text,
    Thinking,
    /// Cannot be told.
    Silent,
}

struct Call {
    block: u32,
    call: ToolCall,
    whole: bool,
}

impl LineWriter {
    pub(super) fn new(shape: &Shape) -> Self {
        Self {
            shape: shape.clone(),
            frame: None,
            blocks: Vec::new(),
            calls: VecDeque::new(),
            told: 0,
            usage: None,
        }
    }

    fn line(&mut self, said: &Said<'_>, out: &mut Vec<u8>) {
        let frame = self.frame.get_or_insert_with(|| Frame::new(&self.shape, None));
        let line = frame.write(said, |o| {
            o.bool("done", false);
        });
        write::push_single_line(out, &line);
        out.push(b'\n');
    }

    fn tell_calls(&mut self, out: &mut Vec<u8>) {
        while let Some(Call { call, .. }) = self.calls.pop_front_if(|call| call.whole) {
            let index = self.told;
            self.told += 1;
            self.line(&Said { calls: &[(index, &call)], ..Said::default() }, out);
        }
    }

    fn open(&mut self, block: u32, head: BlockStart, out: &mut Vec<u8>) {
        let kind = match head {
            BlockStart::Text | BlockStart::Refusal => Kind::Text,
            BlockStart::Reasoning { .. } => Kind::Thinking,
            BlockStart::ToolCall { id, name, form } => {
                let call = ToolCall { id, name, arguments: String::new(), form };
                self.calls.push_back(Call { block, call, whole: false });
                Kind::Call
            }
            BlockStart::Media(media) => {
                if let Some(data) = picture(&media) {
                    self.line(&Said { images: &[data], ..Said::default() }, out);
                }
                Kind::Silent
            }
            BlockStart::Foreign { .. } => Kind::Silent,
        };
        self.blocks.push(kind);
    }
}

impl StreamWriter for LineWriter {
    fn event(&mut self, event: ChatEvent, out: &mut Vec<u8>) {
        match event {
            ChatEvent::Begin { created, usage, .. } => {
                self.frame = Some(Frame::new(&self.shape, created));
                self.usage = usage;
            }
            ChatEvent::Open { block, head } => self.open(block, head, out),
            ChatEvent::Delta { block, text } => match self.blocks.get(block as usize) {
                Some(Kind::Text) => self.line(&Said { text: &text, ..Said::default() }, out),
                Some(Kind::Thinking) => {
                    self.line(&Said { thinking: &text, ..Said::default() }, out)
                }
                Some(Kind::Call) => {
                    if let Some(call) = self.calls.iter_mut().find(|call| call.block == block) {
                        call.call.arguments.push_str(&text);
                    }
                }
                Some(Kind::Silent) | None => {}
            },
            ChatEvent::Logprobs(list) => {
                self.line(&Said { logprobs: Some(&list), ..Said::default() }, out)
            }
            ChatEvent::Close { block } => {
                if let Some(call) = self.calls.iter_mut().find(|call| call.block == block) {
                    call.whole = true;
                    self.tell_calls(out);
                }
            }
            ChatEvent::End { finish, usage, .. } => {
                self.calls.iter_mut().for_each(|call| call.whole = true);
                self.tell_calls(out);
                let usage = usage.or(self.usage);
                let frame = self.frame.get_or_insert_with(|| Frame::new(&self.shape, None));
                let line = frame
                    .write(&Said::default(), |o| ending(o, finish.kind, usage, &Extras::default()));
                write::push_single_line(out, &line);
                out.push(b'\n');
            }
            ChatEvent::Signature { .. } | ChatEvent::Citation { .. } => {}
        }
    }

    fn error(&mut self, error: &ProxyError, _request_id: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(ollama::body(error).as_bytes());
        out.push(b'\n');
    }
}

/// The answer to a request that has nothing to answer: such a request loads a model (or unloads
/// it), as official clients do before a conversation.
pub(in crate::dialect) fn loaded(shape: &Shape, unload: bool) -> Bytes {
    let frame = Frame::new(shape, None);
    let line = frame.write(&Said::default(), |o| {
        o.bool("done", true).str("done_reason", if unload { "unload" } else { "load" });
    });
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::block::CallKind;

    #[test]
    fn a_custom_call_is_told_as_an_object() {
        assert_eq!(arguments("*** Begin", CallKind::Custom), r#"{"input":"*** Begin"}"#);
        assert_eq!(arguments(" {\"a\":1.0} ", CallKind::Function), "{\"a\":1.0}");
        assert_eq!(arguments("", CallKind::Function), "{}");
        assert_eq!(arguments("{\"a\":", CallKind::Function), r#"{"input":"{\"a\":"}"#);
    }
}
