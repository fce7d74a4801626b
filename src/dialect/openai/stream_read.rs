//! Reads an answer's chunks: deltas of the first choice, in whatever fields the provider uses.

use crate::{
    base::json::{
        raw::RawJson,
        reader::{self, JsonErrorKind, JsonRef},
    },
    dialect::{
        egress::{AttemptContext, StreamReader},
        errors::read_error,
        json_body,
        meter::AnswerSummary,
        openai::{
            parts_read,
            reasoning::{self, ReasoningDetails},
            response_read::{self, OpenaiCallIds},
        },
        usage_read,
    },
    ir::{
        block::{BlockKind, CallKind, Citation, ReasoningSignature},
        event::{BlockStart, ChatEvent},
        fault::Fault,
        open_blocks::OpenBlocks,
        partial_json::PartialJson,
        usage::Usage,
    },
};

const REASONING: BlockStart = BlockStart::Reasoning { summary: false };

pub(super) struct ChunkReader {
    context: AttemptContext,
    event_count: u32,
    started: bool,
    ended: bool,
    blocks: OpenBlocks,
    call_ids: OpenaiCallIds,
    calls: Vec<ChunkCall>,
    /// The field that the reasoning is read from; other fields repeat it.
    reasoning_field: Option<&'static str>,
    reasoning_details: ReasoningDetails,
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

/// A call that has begun.
struct ChunkCall {
    /// The provider's index of the call.
    index: Option<u64>,
    id: String,
    /// The parts of the call that arrived before it was opened.
    pending: Option<OpenaiPendingCall>,
}

/// A call before its arguments begin. Its name may arrive in pieces and is complete only then.
#[derive(Default)]
struct OpenaiPendingCall {
    name: String,
    kind: CallKind,
    arguments: String,
    proof: Option<ReasoningSignature>,
}

impl OpenaiPendingCall {
    /// Merges a name: some providers repeat it with every piece, others send it in pieces.
    fn merge_name(&mut self, more: &str) {
        if more.starts_with(&self.name) {
            more.clone_into(&mut self.name);
        } else {
            self.name.push_str(more);
        }
    }

    fn is_complete(&self) -> bool {
        let mut progress = PartialJson::default();
        progress.feed(&self.arguments);
        !self.name.is_empty() && progress.is_complete()
    }
}

/// Index for `function_call`, which has none on the wire.
const FUNCTION_CALL_INDEX: u64 = u64::MAX;

impl ChunkReader {
    pub(super) fn new(context: &AttemptContext) -> Self {
        Self {
            context: context.clone(),
            event_count: 0,
            started: false,
            ended: false,
            blocks: OpenBlocks::default(),
            call_ids: OpenaiCallIds::new(&context.call_id_seed),
            calls: Vec::new(),
            reasoning_field: None,
            reasoning_details: ReasoningDetails::default(),
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
            let root_text = |key: &str| {
                root.and_then(|root| response_read::non_empty_text(root.get(key)))
                    .unwrap_or_default()
            };
            let created = root.and_then(|root| root.get("created")?.i64()).filter(|&at| at > 0);
            out.push(ChatEvent::Begin {
                id: root_text("id"),
                model: root_text("model"),
                created,
                usage: None,
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
                    self.service_tier = response_read::non_empty_text(Some(value));
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
                "stop_reason" => self.stop_sequence = response_read::non_empty_text(Some(value)),
                "error" => failed = true,
                _ => {}
            }
        }
        if (failed || self.finish_reason.as_deref() == Some("error"))
            && let Some(fault) = response_read::choice_error(choice)
        {
            return Err(Box::new(fault));
        }
        // A message next to the deltas repeats all of them.
        let delta = delta.filter(|delta| !delta.is_blank());
        self.has_deltas |= delta.is_some();
        if let Some(delta) = delta.or(message.filter(|_| !self.has_deltas)) {
            self.read_delta(delta, out);
        }
        if let Some(text) = text {
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
            self.flush_signature(out);
            self.refused = true;
            self.blocks.push_prose(BlockStart::Refusal, &words, out);
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
            self.read_call_part(
                Some(FUNCTION_CALL_INDEX),
                None,
                CallKind::Function,
                call,
                None,
                out,
            );
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
                self.blocks.push_prose(REASONING, &words, out);
            }
        }
        if let Some(details) = details {
            let words = reasoning::details_text(details);
            if !words.is_empty()
                && *self.reasoning_field.get_or_insert(DETAILS_FIELD) == DETAILS_FIELD
            {
                self.blocks.push_prose(REASONING, &words, out);
            }
            self.reasoning_details.feed(details);
        }
    }

    /// Adds the signature to the finished reasoning before another block begins.
    fn flush_signature(&mut self, out: &mut Vec<ChatEvent>) {
        if let Some(proof) = self.reasoning_details.take_signature() {
            self.blocks.push_signature(REASONING, proof, out);
        }
    }

    fn emit_text(&mut self, text: &str, out: &mut Vec<ChatEvent>) {
        if text.is_empty() {
            return;
        }
        self.open_named_calls(self.calls.len(), out);
        self.flush_signature(out);
        self.blocks.push_prose(BlockStart::Text, text, out);
        self.text_block = self.blocks.current_prose();
    }

    /// Returns the open text block.
    fn open_text_block(&self) -> Option<u32> {
        self.text_block.filter(|_| self.text_block == self.blocks.current_prose())
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
                    self.blocks.push_prose(REASONING, &thought.text, out);
                }
                BlockKind::Refusal(words) => {
                    self.blocks.push_prose(BlockStart::Refusal, &words, out);
                }
                BlockKind::Media(media) => {
                    self.blocks.push_complete(BlockStart::Media(media), None, out);
                }
                BlockKind::Foreign { dialect, body } => {
                    self.blocks.push_complete(BlockStart::Foreign { dialect, body }, None, out);
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
            self.flush_signature(out);
            self.blocks.push_complete(BlockStart::Media(media), None, out);
        }
    }

    fn read_call(&mut self, call: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        let Some((form, inside)) = response_read::call_body(call) else { return };
        let id = response_read::non_empty_text(call.get("id"));
        self.read_call_part(
            call.get("index").and_then(JsonRef::u64),
            id,
            form,
            inside,
            reasoning::read_extra_content(call),
            out,
        );
    }

    fn read_call_part(
        &mut self,
        index: Option<u64>,
        id: Option<String>,
        form: CallKind,
        inside: JsonRef<'_>,
        proof: Option<ReasoningSignature>,
        out: &mut Vec<ChatEvent>,
    ) {
        let name = inside.get("name").and_then(JsonRef::str).filter(|name| !name.is_empty());
        let arguments = response_read::call_arguments(form, inside).unwrap_or_default();
        // Some providers reuse or omit the index; then a name with a new id is another call.
        let known = match (index, &id) {
            (Some(_), _) => self.calls.iter().rposition(|call| call.index == index),
            (None, Some(id)) => self.calls.iter().rposition(|call| call.id == *id),
            (None, None) if name.is_none() => self.calls.len().checked_sub(1),
            (None, None) => None,
        };
        let unnamed =
            |call: &ChunkCall| call.pending.as_ref().is_some_and(|pending| pending.name.is_empty());
        let same = |call: &ChunkCall| {
            name.is_none() || unnamed(call) || id.as_ref().is_none_or(|id| call.id == *id)
        };
        let at = known.filter(|at| same(&self.calls[*at])).unwrap_or_else(|| {
            let id = self.call_ids.assign(id);
            self.calls.push(ChunkCall { index, id, pending: Some(OpenaiPendingCall::default()) });
            self.calls.len() - 1
        });
        if let Some(pending) = &mut self.calls[at].pending {
            if let Some(name) = &name {
                pending.merge_name(name);
                pending.kind = form;
            }
            pending.arguments.push_str(&arguments);
            pending.proof = proof.or(pending.proof.take());
            if !pending.name.is_empty() && !pending.arguments.is_empty() {
                self.open_call(at, out);
            }
            return;
        }
        out.extend(
            proof
                .zip(self.blocks.call_block(at as u64))
                .map(|(proof, block)| ChatEvent::Signature { block, signature: proof }),
        );
        self.blocks.push_arguments(at as u64, &arguments, out);
    }

    /// Opens a call, after those that began before it.
    fn open_call(&mut self, at: usize, out: &mut Vec<ChatEvent>) {
        self.open_named_calls(at, out);
        self.open_pending_call(at, out);
    }

    /// Opens the first `count` calls, if their names are known.
    fn open_named_calls(&mut self, count: usize, out: &mut Vec<ChatEvent>) {
        for at in 0..count {
            if self.calls[at].pending.as_ref().is_some_and(|pending| !pending.name.is_empty()) {
                self.open_pending_call(at, out);
            }
        }
    }

    fn open_pending_call(&mut self, at: usize, out: &mut Vec<ChatEvent>) {
        self.flush_signature(out);
        let Some(pending) = self.calls[at].pending.take() else { return };
        let (id, name) =
            (self.calls[at].id.clone(), self.context.client_tool_name(&pending.name).to_owned());
        let block = self.blocks.start_call(at as u64, id, name, pending.kind, out);
        out.extend(pending.proof.map(|proof| ChatEvent::Signature { block, signature: proof }));
        self.blocks.push_arguments(at as u64, &pending.arguments, out);
    }

    /// Checks a stream that ends without a finish reason. Such an end is complete after text, but
    /// neither in the middle of a call nor without content.
    fn check_complete(&self) -> Result<(), Box<Fault>> {
        if self.blocks.has_incomplete_call()
            || self
                .calls
                .iter()
                .any(|call| call.pending.as_ref().is_some_and(|pending| !pending.is_complete()))
        {
            return Err(Box::new(json_body::truncated_stream_fault()));
        }
        if !self.blocks.has_blocks() && self.calls.is_empty() {
            return Err(Box::new(json_body::empty_stream_fault()));
        }
        Ok(())
    }

    fn emit_end(&mut self, out: &mut Vec<ChatEvent>) {
        self.emit_begin(None, out);
        for at in 0..self.calls.len() {
            // The call's name or arguments never arrived; the parts that did arrive are not lost.
            self.open_pending_call(at, out);
        }
        self.flush_signature(out);
        if !self.has_citations {
            self.pending_citations = std::mem::take(&mut self.listed_citations);
        }
        self.flush_citations(out);
        self.blocks.close_all(out);
        let mut finish = response_read::read_finish(
            self.finish_reason.clone(),
            self.blocks.has_calls(),
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
        if data.len() < 20 && data.trim_ascii() == b"[DONE]" {
            if self.finish_reason.is_none() {
                self.check_complete()?;
            }
            self.emit_end(out);
            return Ok(());
        }
        let json = match reader::parse(data) {
            Ok(json) if json.is_object() => json,
            Ok(list) if read_error::is_error(list) => {
                return Err(Box::new(read_error::from_json(None, list)));
            }
            Ok(_) => {
                return Err(Box::new(read_error::invalid_event(
                    self.event_count,
                    reader::JsonError { kind: JsonErrorKind::NotAnObject, offset: 0 },
                    data,
                )));
            }
            Err(_) if name == b"error" && !data.starts_with(b"{") => {
                return Err(Box::new(read_error::from_text(data)));
            }
            Err(bad) => {
                return Err(Box::new(read_error::invalid_event(self.event_count, bad, data)));
            }
        };
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
