//! Answers: wire to common form, line by line; a whole answer is one line.

use std::borrow::Cow;

use crate::{
    base::json::{self, JsonError, JsonErrorKind, JsonRef},
    dialect::{
        Carry, StreamReader, Summary, fault,
        ollama::{answer, image, meter::usage, request_read::arguments},
        shape,
    },
    ir::{
        assemble::Assembler,
        block::{BlockKind, CallKind},
        blocks::OpenBlocks,
        event::{BlockStart, ChatEvent},
        extras::Extras,
        fault::Fault,
        op::Dialect,
        response::{ChatResponse, Finish, FinishKind},
    },
};

pub(super) struct LineReader {
    carry: Carry,
    blocks: OpenBlocks,
    calls: u64,
    lines: u32,
    begun: bool,
    done: bool,
    summary: Summary,
}

impl LineReader {
    pub(super) fn new(carry: &Carry) -> Self {
        Self {
            carry: carry.clone(),
            blocks: OpenBlocks::default(),
            calls: 0,
            lines: 0,
            begun: false,
            done: false,
            summary: Summary::default(),
        }
    }

    fn line(&mut self, line: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        let mut seen = Line::default();
        for (key, value) in line.members().filter(|(_, value)| value.kind() != "null") {
            match key {
                "model" => seen.model = Some(value),
                "created_at" => seen.created_at = Some(value),
                "message" => seen.message(value),
                "response" => seen.content = Some(value),
                "thinking" => seen.thinking = Some(value),
                "tool_calls" => seen.tool_calls = Some(value),
                "images" => seen.images = Some(value),
                "image" => seen.image = Some(value),
                "logprobs" => seen.logprobs = Some(value),
                "done" => seen.done = value.bool() == Some(true),
                "done_reason" => seen.done_reason = Some(value),
                _ => {}
            }
        }
        if !std::mem::replace(&mut self.begun, true) {
            let created = seen
                .created_at
                .and_then(JsonRef::str)
                .and_then(|at| at.parse::<jiff::Timestamp>().ok());
            self.summary.model = shape::name(seen.model);
            out.push(ChatEvent::Begin {
                id: String::new(),
                model: self.summary.model.clone().unwrap_or_default(),
                created: created.map(jiff::Timestamp::as_second),
                usage: None,
            });
        }
        let words = |value: Option<JsonRef<'_>>| {
            value.and_then(JsonRef::str).map(Cow::into_owned).unwrap_or_default()
        };
        self.blocks.push_prose(
            BlockStart::Reasoning { summary: false },
            &words(seen.thinking),
            out,
        );
        self.blocks.push_prose(BlockStart::Text, &words(seen.content), out);
        if let Some(list) = seen.logprobs.filter(|list| list.is_array() && !list.is_blank()) {
            out.push(ChatEvent::Logprobs(crate::base::raw::RawJson::from_json(list)));
        }
        for block in seen
            .images
            .into_iter()
            .flat_map(JsonRef::items)
            .chain(seen.image)
            .filter_map(image::read)
        {
            if let BlockKind::Media(media) = block.kind {
                self.blocks.push_complete(BlockStart::Media(media), None, out);
            }
        }
        for call in seen.tool_calls.into_iter().flat_map(JsonRef::items) {
            self.call(call, out);
        }
        if seen.done {
            self.end_with(shape::name(seen.done_reason), line, out);
        }
    }

    fn call(&mut self, call: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        let function = call.get("function").unwrap_or(call);
        let string = |from: JsonRef<'_>, key: &str| {
            from.get(key)
                .and_then(JsonRef::str)
                .map(Cow::into_owned)
                .filter(|text| !text.is_empty())
        };
        let (key, name) = (self.calls, string(function, "name").unwrap_or_default());
        self.calls += 1;
        let id = string(call, "id").unwrap_or_else(|| format!("call_{}_{key}", self.carry.seed));
        self.blocks.start_call(key, id, self.carry.name(&name).to_owned(), CallKind::Function, out);
        self.blocks.push_arguments(key, &arguments(function.get("arguments")), out);
    }

    fn end_with(&mut self, reason: Option<String>, line: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        self.blocks.close_all(out);
        let kind = match reason.as_deref() {
            Some("length") => FinishKind::Length,
            Some("filter" | "content_filter") => FinishKind::ContentFilter,
            Some("refusal") => FinishKind::Refusal,
            Some("pause") => FinishKind::Pause,
            _ if self.blocks.has_calls() => FinishKind::ToolCalls,
            _ => FinishKind::Stop,
        };
        self.summary.usage = usage(line);
        self.summary.finish = reason.clone().or_else(|| Some("stop".to_owned()));
        self.done = true;
        let finish = Finish { kind, raw_reason: reason, stop_sequence: None };
        out.push(ChatEvent::End { finish, usage: self.summary.usage, service_tier: None });
    }
}

#[derive(Default)]
struct Line<'a> {
    model: Option<JsonRef<'a>>,
    created_at: Option<JsonRef<'a>>,
    content: Option<JsonRef<'a>>,
    thinking: Option<JsonRef<'a>>,
    tool_calls: Option<JsonRef<'a>>,
    images: Option<JsonRef<'a>>,
    image: Option<JsonRef<'a>>,
    logprobs: Option<JsonRef<'a>>,
    done: bool,
    done_reason: Option<JsonRef<'a>>,
}

impl<'a> Line<'a> {
    fn message(&mut self, message: JsonRef<'a>) {
        for (key, value) in message.members().filter(|(_, value)| value.kind() != "null") {
            match key {
                "content" => self.content = Some(value),
                "thinking" => self.thinking = Some(value),
                "tool_calls" => self.tool_calls = Some(value),
                "images" => self.images = Some(value),
                _ => {}
            }
        }
    }
}

impl StreamReader for LineReader {
    fn event(
        &mut self,
        _name: &[u8],
        data: &[u8],
        out: &mut Vec<ChatEvent>,
    ) -> Result<(), Box<Fault>> {
        if self.done {
            return Ok(());
        }
        self.lines = self.lines.saturating_add(1);
        let bad = |bad: JsonError| Box::new(fault::bad_event(self.lines, bad, data));
        let line = json::parse(data).map_err(bad)?;
        if !line.is_object() {
            return Err(bad(JsonError { kind: JsonErrorKind::NotAnObject, offset: 0 }));
        }
        if fault::is_error(line) {
            return Err(Box::new(fault::told(None, line)));
        }
        self.line(line, out);
        Ok(())
    }

    fn end(&mut self, _out: &mut Vec<ChatEvent>) -> bool {
        self.done
    }

    fn summary(&self) -> Summary {
        self.summary.clone()
    }
}

/// A whole answer.
pub(super) fn whole(content_type: &str, body: &[u8], carry: &Carry) -> Result<ChatResponse, Fault> {
    answer::read(content_type, body)?;
    let json = shape::answer(content_type, body)?;
    let (mut reader, mut events, mut assembler) =
        (LineReader::new(carry), Vec::new(), Assembler::default());
    reader.line(json, &mut events);
    if !reader.done {
        reader.end_with(shape::name(json.get("done_reason")), json, &mut events);
    }
    events.iter().for_each(|event| assembler.feed(event));
    let mut response = assembler.finish().ok_or_else(shape::cut)?;
    response.extras = Extras::from_object(
        Dialect::Ollama,
        json,
        &[
            "model",
            "created_at",
            "message",
            "response",
            "thinking",
            "tool_calls",
            "images",
            "image",
            "logprobs",
            "done",
            "done_reason",
            "prompt_eval_count",
            "eval_count",
        ],
    );
    Ok(response)
}
