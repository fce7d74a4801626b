//! Reads an answer's chunks: deltas of the first choice, in whatever fields the provider uses.

use crate::{
    base::json::{raw::RawJson, reader::JsonRef},
    dialect::{
        egress::{AttemptContext, StreamReader},
        errors::read_error,
        event_json, json_body,
        meter::AnswerSummary,
        openai::{
            parts_read, reasoning, response_read,
            stream_calls::{AnswerBlocks, CallPart, ChunkCalls, FUNCTION_CALL_INDEX, REASONING},
        },
        usage_read,
    },
    ir::{
        block::{BlockKind, CallKind, Citation},
        event::{BlockStart, ChatEvent},
        fault::Fault,
        usage::Usage,
    },
};

pub(super) struct ChunkReader {
    event_count: u32,
    started: bool,
    ended: bool,
    answer: AnswerBlocks,
    calls: ChunkCalls,
    /// The field that the reasoning is read from; other fields repeat it.
    reasoning_field: Option<&'static str>,
    /// Citations that wait for a text block.
    pending_citations: Vec<Citation>,
    listed_citations: Vec<Citation>,
    has_citations: bool,
    text_block: Option<u32>,
    /// Whether chunks had deltas; some providers send messages instead.
    has_deltas: bool,
    refused: bool,
    finish_reason: Option<String>,
    stop_sequence: Option<String>,
    usage: Option<Usage>,
    service_tier: Option<String>,
    model: Option<String>,
}

impl ChunkReader {
    pub(super) fn new(context: &AttemptContext) -> Self {
        Self {
            event_count: 0,
            started: false,
            ended: false,
            answer: AnswerBlocks::default(),
            calls: ChunkCalls::new(context),
            reasoning_field: None,
            pending_citations: Vec::new(),
            listed_citations: Vec::new(),
            has_citations: false,
            text_block: None,
            has_deltas: false,
            refused: false,
            finish_reason: None,
            stop_sequence: None,
            usage: None,
            service_tier: None,
            model: None,
        }
    }

    fn emit_begin(&mut self, root: Option<JsonRef<'_>>, out: &mut Vec<ChatEvent>) {
        if !std::mem::replace(&mut self.started, true) {
            let root_text =
                |key: &str| root.and_then(|root| root.non_empty_at(key)).unwrap_or_default();
            let created = root.and_then(|root| root.get("created")?.i64()).filter(|&at| at > 0);
            out.push(ChatEvent::Begin {
                id: root_text("id"),
                model: root_text("model"),
                created,
                // A count of zero is not known yet.
                usage: root
                    .and_then(|root| usage_read::read_openai(root.get("usage")?))
                    .filter(|usage| usage.input_total() > 0),
            });
        }
    }

    fn read_chunk(
        &mut self,
        json: JsonRef<'_>,
        out: &mut Vec<ChatEvent>,
    ) -> Result<(), Box<Fault>> {
        let mut choices = None;
        for (key, value) in json.members() {
            match key {
                "choices" => choices = Some(value),
                // Usage is cumulative if several chunks report it.
                "usage" if value.is_object() => {
                    self.usage = usage_read::read_openai(value).or(self.usage);
                }
                "service_tier" if self.service_tier.is_none() => {
                    self.service_tier = value.string().filter(|text| !text.is_empty());
                }
                "model" if self.model.is_none() => self.model = json_body::clean_name(Some(value)),
                "error" if matches!(value.kind(), "object" | "string") && !value.is_blank() => {
                    return Err(Box::new(read_error::from_json(None, json)));
                }
                "__type" if !value.is_blank() => {
                    return Err(Box::new(read_error::from_json(None, json)));
                }
                "object" | "type" if value.text() == "\"error\"" => {
                    return Err(Box::new(read_error::from_json(None, json)));
                }
                "citations" | "search_results" if !value.is_blank() => {
                    self.listed_citations = response_read::read_listed_citations(json);
                }
                _ => {}
            }
        }
        let Some(choices) = choices else { return Ok(()) };
        for choice in choices.items().filter(|choice| choice.is_object()) {
            if choice.get("index").and_then(JsonRef::u64).unwrap_or(0) == 0 {
                self.emit_begin(Some(json), out);
                self.read_choice(choice, out)?;
            }
        }
        Ok(())
    }

    fn read_choice(
        &mut self,
        choice: JsonRef<'_>,
        out: &mut Vec<ChatEvent>,
    ) -> Result<(), Box<Fault>> {
        let (mut delta, mut message, mut text, mut logprobs, mut failed) =
            (None, None, None, None, false);
        for (key, value) in choice.members().filter(|(_, value)| value.kind() != "null") {
            match key {
                "delta" => delta = Some(value),
                "message" => message = Some(value),
                "text" => text = value.str(),
                "logprobs" => {
                    logprobs =
                        value.get("content").filter(|list| list.is_array() && !list.is_blank());
                }
                "finish_reason" => {
                    self.finish_reason =
                        json_body::clean_name(Some(value)).or(self.finish_reason.take());
                }
                "stop_reason" => {
                    self.stop_sequence = value.string().filter(|text| !text.is_empty());
                }
                "error" => failed = true,
                _ => {}
            }
        }
        if (failed || self.finish_reason.as_deref().is_some_and(response_read::is_failure))
            && let Some(fault) = response_read::choice_error(choice)
        {
            return Err(Box::new(fault));
        }
        // A message next to the deltas repeats all of them.
        let delta = delta.filter(|delta| !delta.is_blank());
        self.has_deltas |= delta.is_some();
        // Some servers repeat the delta's text in the field of the older API.
        let is_repeated = delta
            .is_some_and(|delta| delta.get("content").is_some_and(|content| !content.is_blank()));
        if let Some(delta) = delta.or(message.filter(|_| !self.has_deltas)) {
            self.read_delta(delta, out);
        }
        if let Some(text) = text.filter(|_| !is_repeated) {
            self.emit_text(&text, out);
        }
        if let Some(list) = logprobs {
            out.push(ChatEvent::Logprobs(RawJson::from_json(list)));
        }
        Ok(())
    }

    fn read_delta(&mut self, delta: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        let (mut content, mut refusal, mut calls, mut call, mut sources, mut proof, mut odd) =
            (None, None, None, None, None, None, false);
        let mut thoughts: [Option<JsonRef<'_>>; 3] = [None; 3];
        let mut details = None;
        for (key, value) in delta.members().filter(|(_, value)| !value.is_blank()) {
            match key {
                "content" => content = Some(value),
                "refusal" => refusal = value.str(),
                "tool_calls" => calls = Some(value),
                "function_call" => call = Some(value),
                "reasoning_details" if value.is_array() => details = Some(value),
                "annotations" => sources = Some(value),
                "extra_content" => proof = reasoning::read_extra_content(delta),
                "images" | "audio" => odd = true,
                _ => {
                    if let Some(at) = reasoning::TEXT_FIELDS.iter().position(|name| *name == key) {
                        thoughts[at] = Some(value);
                    }
                }
            }
        }
        self.read_reasoning(thoughts, details, out);
        match content {
            Some(list) if list.is_array() => self.read_parts(list, out),
            Some(text) => self.emit_text(&text.str().unwrap_or_default(), out),
            None => {}
        }
        if let Some((proof, block)) = proof.zip(self.open_text_block()) {
            out.push(ChatEvent::Signature { block, signature: proof });
        }
        if odd {
            self.read_media(delta, out);
        }
        if let Some(words) = refusal {
            self.answer.flush_signature(out);
            self.refused = true;
            self.answer.blocks.push_prose(BlockStart::Refusal, &words, out);
        }
        for one in
            sources.into_iter().flat_map(JsonRef::items).filter_map(response_read::read_annotation)
        {
            self.has_citations = true;
            self.pending_citations.push(one);
        }
        self.flush_citations(out);
        for call in calls.into_iter().flat_map(JsonRef::items) {
            self.read_call(call, out);
        }
        if let Some(call) = call {
            let part = CallPart {
                index: Some(FUNCTION_CALL_INDEX),
                id: None,
                form: CallKind::Function,
                inside: call,
                proof: None,
            };
            self.calls.read(part, &mut self.answer, out);
        }
    }

    fn read_reasoning(
        &mut self,
        fields: [Option<JsonRef<'_>>; 3],
        details: Option<JsonRef<'_>>,
        out: &mut Vec<ChatEvent>,
    ) {
        const DETAILS_FIELD: &str = "reasoning_details";
        for (field, value) in reasoning::TEXT_FIELDS.into_iter().zip(fields) {
            let words = value.and_then(reasoning::field_text).filter(|words| !words.is_empty());
            if let Some(words) =
                words.filter(|_| *self.reasoning_field.get_or_insert(field) == field)
            {
                self.answer.blocks.push_prose(REASONING, &words, out);
            }
        }
        if let Some(details) = details {
            let words = reasoning::details_text(details);
            if !words.is_empty()
                && *self.reasoning_field.get_or_insert(DETAILS_FIELD) == DETAILS_FIELD
            {
                self.answer.blocks.push_prose(REASONING, &words, out);
            }
            self.answer.reasoning_details.feed(details);
        }
    }

    fn emit_text(&mut self, text: &str, out: &mut Vec<ChatEvent>) {
        if text.is_empty() {
            return;
        }
        self.calls.open_named(&mut self.answer, out);
        self.answer.flush_signature(out);
        self.answer.blocks.push_prose(BlockStart::Text, text, out);
        self.text_block = self.answer.blocks.current_prose();
    }

    /// Returns the open text block.
    fn open_text_block(&self) -> Option<u32> {
        self.text_block.filter(|_| self.text_block == self.answer.blocks.current_prose())
    }

    fn flush_citations(&mut self, out: &mut Vec<ChatEvent>) {
        if let Some(block) = self.open_text_block() {
            out.extend(
                self.pending_citations
                    .drain(..)
                    .map(|citation| ChatEvent::Citation { block, citation }),
            );
        }
    }

    /// Reads content that is a list of parts.
    fn read_parts(&mut self, list: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        for block in parts_read::read_content(Some(list), 0).unwrap_or_default() {
            match block.kind {
                BlockKind::Text(text) => self.emit_text(&text.text, out),
                BlockKind::Reasoning(thought) => {
                    self.answer.blocks.push_prose(REASONING, &thought.text, out);
                }
                BlockKind::Refusal(words) => {
                    self.answer.blocks.push_prose(BlockStart::Refusal, &words, out);
                }
                BlockKind::Media(media) => {
                    self.answer.blocks.push_complete(BlockStart::Media(media), None, out);
                }
                BlockKind::Foreign { dialect, body } => {
                    self.answer.blocks.push_complete(
                        BlockStart::Foreign { dialect, body },
                        None,
                        out,
                    );
                }
                BlockKind::ToolCall(_) | BlockKind::ToolResult(_) => {}
            }
        }
    }

    /// Reads images outside of the content, and the transcript of audio as text.
    fn read_media(&mut self, delta: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        if let Some(words) = delta.member_at(&["audio", "transcript"]).and_then(JsonRef::str) {
            self.emit_text(&words, out);
        }
        for media in response_read::read_images(delta) {
            self.answer.flush_signature(out);
            self.answer.blocks.push_complete(BlockStart::Media(media), None, out);
        }
    }

    fn read_call(&mut self, call: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        let Some((form, inside)) = response_read::call_body(call) else { return };
        let part = CallPart {
            index: call.get("index").and_then(JsonRef::u64),
            id: call.non_empty_at("id"),
            form,
            inside,
            proof: reasoning::read_extra_content(call),
        };
        self.calls.read(part, &mut self.answer, out);
    }

    /// Checks a stream that ends without a finish reason. Such an end is complete after text, but
    /// neither in the middle of a call nor without content.
    fn check_complete(&self) -> Result<(), Box<Fault>> {
        if self.answer.blocks.has_incomplete_call() || self.calls.has_incomplete() {
            return Err(Box::new(json_body::truncated_stream_fault()));
        }
        if !self.answer.blocks.has_blocks() && self.calls.is_empty() {
            return Err(Box::new(json_body::empty_stream_fault()));
        }
        Ok(())
    }

    fn emit_end(&mut self, out: &mut Vec<ChatEvent>) {
        self.emit_begin(None, out);
        self.calls.open_all(&mut self.answer, out);
        self.answer.flush_signature(out);
        if !self.has_citations {
            self.pending_citations = std::mem::take(&mut self.listed_citations);
        }
        self.flush_citations(out);
        self.answer.blocks.close_all(out);
        let mut finish = response_read::read_finish(
            self.finish_reason.clone(),
            self.answer.blocks.has_calls(),
            self.refused,
        );
        finish.stop_sequence = self.stop_sequence.take();
        out.push(ChatEvent::End {
            finish,
            usage: self.usage,
            service_tier: self.service_tier.clone(),
        });
        self.ended = true;
    }
}

impl StreamReader for ChunkReader {
    fn read_event(
        &mut self,
        name: &[u8],
        data: &[u8],
        out: &mut Vec<ChatEvent>,
    ) -> Result<(), Box<Fault>> {
        if self.ended {
            return Ok(());
        }
        self.event_count = self.event_count.saturating_add(1);
        if event_json::is_done(data) {
            if self.finish_reason.is_none() {
                self.check_complete()?;
            }
            self.emit_end(out);
            return Ok(());
        }
        let json = event_json::read(name, data, self.event_count)?;
        if name == b"error" {
            return Err(Box::new(read_error::from_json(None, json)));
        }
        self.read_chunk(json, out)
    }

    fn read_eof(&mut self, out: &mut Vec<ChatEvent>) -> bool {
        if !self.ended && self.finish_reason.is_some() {
            self.emit_end(out);
        }
        self.ended
    }

    fn summary(&self) -> AnswerSummary {
        AnswerSummary {
            usage: self.usage,
            finish_reason: self.finish_reason.clone(),
            model: self.model.clone(),
        }
    }
}
