//! Reads answers into the common form, line by line; a whole answer is one line.

use crate::{
    base::json::{
        grammar::{JsonError, JsonErrorKind},
        reader::{self, JsonRef},
    },
    dialect::{
        egress::{AttemptContext, StreamReader},
        errors::read_error,
        json_body,
        meter::AnswerSummary,
        ollama::{buffered, images, meter::read_usage, request_read::read_arguments},
    },
    ir::{
        assemble::Assembler,
        block::{BlockKind, CallKind},
        event::{BlockStart, ChatEvent},
        extras::Extras,
        fault::Fault,
        op::Dialect,
        open_blocks::OpenBlocks,
        response::{ChatResponse, Finish, FinishKind},
    },
};

pub(super) struct LineReader {
    carry: AttemptContext,
    blocks: OpenBlocks,
    call_count: u64,
    line_count: u32,
    started: bool,
    done: bool,
    summary: AnswerSummary,
}

impl LineReader {
    pub(super) fn new(carry: &AttemptContext) -> Self {
        Self {
            carry: carry.clone(),
            blocks: OpenBlocks::default(),
            call_count: 0,
            line_count: 0,
            started: false,
            done: false,
            summary: AnswerSummary::default(),
        }
    }

    fn read_line(&mut self, line: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        let mut parsed = ParsedLine::default();
        for (key, value) in line.members().filter(|(_, value)| value.kind() != "null") {
            match key {
                "model" => parsed.model = Some(value),
                "created_at" => parsed.created_at = Some(value),
                "message" => parsed.read_message(value),
                "response" => parsed.content = Some(value),
                "thinking" => parsed.thinking = Some(value),
                "tool_calls" => parsed.tool_calls = Some(value),
                "images" => parsed.images = Some(value),
                "image" => parsed.image = Some(value),
                "logprobs" => parsed.logprobs = Some(value),
                "done" => parsed.done = value.bool() == Some(true),
                "done_reason" => parsed.done_reason = Some(value),
                _ => {}
            }
        }
        if !std::mem::replace(&mut self.started, true) {
            let created = parsed
                .created_at
                .and_then(JsonRef::str)
                .and_then(|at| at.parse::<jiff::Timestamp>().ok());
            self.summary.model = json_body::clean_name(parsed.model);
            out.push(ChatEvent::Begin {
                id: String::new(),
                model: self.summary.model.clone().unwrap_or_default(),
                created: created.map(jiff::Timestamp::as_second),
                usage: None,
            });
        }
        let text = |value: Option<JsonRef<'_>>| value.and_then(JsonRef::string).unwrap_or_default();
        self.blocks.push_prose(
            BlockStart::Reasoning { summary: false },
            &text(parsed.thinking),
            out,
        );
        self.blocks.push_prose(BlockStart::Text, &text(parsed.content), out);
        if let Some(list) = parsed.logprobs.filter(|list| list.is_array() && !list.is_blank()) {
            out.push(ChatEvent::Logprobs(crate::base::json::raw::RawJson::from_json(list)));
        }
        for block in parsed
            .images
            .into_iter()
            .flat_map(JsonRef::items)
            .chain(parsed.image)
            .filter_map(images::read_image)
        {
            if let BlockKind::Media(media) = block.kind {
                self.blocks.push_complete(BlockStart::Media(media), None, out);
            }
        }
        for call in parsed.tool_calls.into_iter().flat_map(JsonRef::items) {
            self.read_call(call, out);
        }
        if parsed.done {
            self.emit_end(json_body::clean_name(parsed.done_reason), line, out);
        }
    }

    fn read_call(&mut self, call: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        let function = call.get("function").unwrap_or(call);
        let string = |from: JsonRef<'_>, key: &str| from.non_empty_at(key);
        let (key, name) = (self.call_count, string(function, "name").unwrap_or_default());
        self.call_count += 1;
        let id =
            string(call, "id").unwrap_or_else(|| format!("call_{}_{key}", self.carry.call_id_seed));
        self.blocks.start_call(
            key,
            id,
            self.carry.client_tool_name(&name).to_owned(),
            CallKind::Function,
            out,
        );
        self.blocks.push_arguments(key, &read_arguments(function.get("arguments")), out);
    }

    fn emit_end(&mut self, reason: Option<String>, line: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        self.blocks.close_all(out);
        let kind = match reason.as_deref() {
            Some("length") => FinishKind::Length,
            Some("filter" | "content_filter") => FinishKind::ContentFilter,
            Some("refusal") => FinishKind::Refusal,
            Some("pause") => FinishKind::Pause,
            _ if self.blocks.has_calls() => FinishKind::ToolCalls,
            _ => FinishKind::Stop,
        };
        self.summary.usage = read_usage(line);
        self.summary.finish_reason = reason.clone().or_else(|| Some("stop".to_owned()));
        self.done = true;
        let finish = Finish { kind, raw_reason: reason, stop_sequence: None };
        out.push(ChatEvent::End { finish, usage: self.summary.usage, service_tier: None });
    }
}

#[derive(Default)]
struct ParsedLine<'a> {
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

impl<'a> ParsedLine<'a> {
    fn read_message(&mut self, message: JsonRef<'a>) {
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
    fn read_event(
        &mut self,
        _name: &[u8],
        data: &[u8],
        out: &mut Vec<ChatEvent>,
    ) -> Result<(), Box<Fault>> {
        if self.done {
            return Ok(());
        }
        self.line_count = self.line_count.saturating_add(1);
        let bad = |bad: JsonError| Box::new(read_error::invalid_event(self.line_count, bad, data));
        let line = reader::parse(data).map_err(bad)?;
        if !line.is_object() {
            return Err(bad(JsonError { kind: JsonErrorKind::NotAnObject, offset: 0 }));
        }
        if read_error::is_error(line) {
            return Err(Box::new(read_error::from_json(None, line)));
        }
        self.read_line(line, out);
        Ok(())
    }

    fn read_eof(&mut self, _out: &mut Vec<ChatEvent>) -> bool {
        self.done
    }

    fn summary(&self) -> AnswerSummary {
        self.summary.clone()
    }
}

/// Reads a whole answer.
pub(super) fn read_response(
    content_type: &str,
    body: &[u8],
    carry: &AttemptContext,
) -> Result<ChatResponse, Fault> {
    buffered::read_summary(content_type, body)?;
    let json = json_body::parse_response(content_type, body)?;
    let (mut reader, mut events, mut assembler) =
        (LineReader::new(carry), Vec::new(), Assembler::default());
    reader.read_line(json, &mut events);
    if !reader.done {
        reader.emit_end(json_body::clean_name(json.get("done_reason")), json, &mut events);
    }
    events.iter().for_each(|event| assembler.feed(event));
    let mut response = assembler.finish().ok_or_else(json_body::truncated_stream_fault)?;
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
