//! Translates a stream between two dialects: reads the upstream's events into the common form and
//! writes them in the client's dialect.

use bytes::Bytes;

use crate::{
    base::{
        framing::{
            json_array, ndjson,
            splitter::{MAX_FRAME_BYTES, NextFrame},
            sse,
        },
        json::surrogates,
    },
    dialect::{
        AnswerSummary, Framing, StreamReader, StreamWriter,
        errors::read_error,
        passthrough::{FeedResult, StreamEnd},
        rescue_splice::{Continuation, RecordedText},
    },
    ir::{
        assemble::Assembler,
        event::ChatEvent,
        fault::{Fault, ProxyError},
        response::ChatResponse,
        think_tags,
        usage::Usage,
    },
};

/// Cuts an upstream's body into events and decodes them; the half that faces the upstream.
pub struct EventDecoder {
    splitter: EventDecoderSplitter,
    reader: Box<dyn StreamReader>,
    /// Splits `<think>` text from the answer before the events are used.
    think_splitter: Option<think_tags::ThinkTagSplitter>,
    /// An event that ended in the middle of a character and waits for the next one.
    pending_event: Option<Box<(Vec<u8>, Vec<u8>)>>,
    event_count: u32,
    is_first_frame: bool,
    state: EventDecoderState,
}

enum EventDecoderSplitter {
    JsonArray(json_array::ArraySplitter),
    Ndjson(ndjson::LineSplitter),
    Sse(sse::SseSplitter),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EventDecoderState {
    Done,
    Failed,
    Open,
}

impl EventDecoder {
    /// `think_split`: treats `<think>` text at the beginning of the answer as reasoning.
    #[must_use]
    pub fn new(framing: Framing, reader: Box<dyn StreamReader>, think_split: bool) -> Self {
        let splitter = match framing {
            Framing::JsonArray => {
                EventDecoderSplitter::JsonArray(json_array::ArraySplitter::default())
            }
            Framing::Ndjson => EventDecoderSplitter::Ndjson(ndjson::LineSplitter::default()),
            Framing::Sse => EventDecoderSplitter::Sse(sse::SseSplitter::default()),
        };
        let think_splitter = think_split.then(think_tags::ThinkTagSplitter::default);
        Self {
            splitter,
            reader,
            think_splitter,
            pending_event: None,
            event_count: 0,
            is_first_frame: true,
            state: EventDecoderState::Open,
        }
    }

    /// Reads a chunk of the upstream's body and appends its events. Buffers an unfinished event.
    pub fn feed(&mut self, chunk: &Bytes, events: &mut Vec<ChatEvent>) -> FeedResult {
        let mut step = FeedResult::default();
        let (mut at, mut units, mut pings) = (0, 0_u32, 0_u32);
        while self.state == EventDecoderState::Open {
            let piece = match &mut self.splitter {
                EventDecoderSplitter::JsonArray(splitter) => splitter.next(chunk, &mut at),
                EventDecoderSplitter::Ndjson(splitter) => splitter.next(chunk, &mut at),
                EventDecoderSplitter::Sse(splitter) => splitter.next(chunk, &mut at),
            };
            let events_before = step.events;
            match piece {
                NextFrame::Borrowed(span) => self.decode_frame(&chunk[span], events, &mut step),
                NextFrame::Joined(frame) => self.decode_frame(&frame, events, &mut step),
                NextFrame::Incomplete => break,
                NextFrame::TooLong => self.fail(
                    Box::new(read_error::oversized_event(
                        self.event_count.saturating_add(1),
                        MAX_FRAME_BYTES,
                    )),
                    &mut step,
                ),
            }
            units += 1;
            pings += u32::from(step.events == events_before);
        }
        step.pings_only = units > 0 && pings == units && step.error.is_none();
        step
    }

    /// Ends the body. The last event may lack its blank line, and the stream its terminator.
    pub fn finish(&mut self, events: &mut Vec<ChatEvent>) -> (StreamEnd, FeedResult) {
        let mut step = FeedResult::default();
        if self.state == EventDecoderState::Open {
            let rest = match &mut self.splitter {
                EventDecoderSplitter::JsonArray(splitter) => splitter.remainder(),
                EventDecoderSplitter::Ndjson(splitter) => splitter.remainder(),
                EventDecoderSplitter::Sse(splitter) => splitter.remainder(),
            };
            let is_complete = match &self.splitter {
                // Only a complete last event counts; half an event is the truncation itself.
                EventDecoderSplitter::Sse(_) => {
                    let data = sse::read_event(rest.strip_prefix(sse::BOM).unwrap_or(&rest))
                        .data
                        .into_owned();
                    data.trim_ascii() == b"[DONE]"
                        || crate::base::json::reader::parse(&data).is_ok()
                }
                EventDecoderSplitter::Ndjson(_) => {
                    crate::base::json::reader::parse(ndjson::line_content(&rest)).is_ok()
                }
                EventDecoderSplitter::JsonArray(_) => false,
            };
            if is_complete {
                self.decode_frame(&rest, events, &mut step);
            }
            if let (false, EventDecoderSplitter::Sse(_)) = (is_complete, &self.splitter)
                && let Some(fault) = read_error::trailing_error(&rest)
            {
                step.error = Some(Box::new(fault));
            }
            if let Some(pending) =
                self.pending_event.take().filter(|_| self.state == EventDecoderState::Open)
            {
                self.dispatch(&pending.0, &pending.1, events, &mut step);
            }
        }
        if self.state == EventDecoderState::Open {
            let from = events.len();
            if self.reader.read_eof(events) {
                self.state = EventDecoderState::Done;
            }
            self.split_think_tags(events, from);
        }
        if self.state == EventDecoderState::Done {
            return (StreamEnd::Complete, FeedResult { error: None, ..step });
        }
        (StreamEnd::Truncated, step)
    }

    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.state == EventDecoderState::Done
    }

    #[must_use]
    pub fn summary(&self) -> AnswerSummary {
        self.reader.summary()
    }

    fn decode_frame(&mut self, frame: &[u8], events: &mut Vec<ChatEvent>, step: &mut FeedResult) {
        let first = std::mem::take(&mut self.is_first_frame);
        match &self.splitter {
            EventDecoderSplitter::Sse(_) => {
                let block = sse::read_event(if first {
                    frame.strip_prefix(sse::BOM).unwrap_or(frame)
                } else {
                    frame
                });
                if !block.data.trim_ascii().is_empty() {
                    self.decode_event(block.name, &block.data, events, step);
                }
            }
            EventDecoderSplitter::Ndjson(_) => {
                let line = ndjson::line_content(frame);
                if !line.is_empty() {
                    self.decode_event(b"", line, events, step);
                }
            }
            EventDecoderSplitter::JsonArray(_) => {
                let element = json_array::element_content(frame, first);
                if !element.is_empty() {
                    self.decode_event(b"", element, events, step);
                }
            }
        }
    }

    fn decode_event(
        &mut self,
        name: &[u8],
        data: &[u8],
        events: &mut Vec<ChatEvent>,
        step: &mut FeedResult,
    ) {
        let joined = self.pending_event.take().map(|pending| {
            let (name, mut before) = *pending;
            let mut after = data.to_vec();
            surrogates::join_split_pairs(&mut before, &mut after);
            self.dispatch(&name, &before, events, step);
            after
        });
        let data = joined.as_deref().unwrap_or(data);
        if self.state != EventDecoderState::Open {
            return;
        }
        if surrogates::ends_with_high_surrogate(data) {
            self.pending_event = Some(Box::new((name.to_vec(), data.to_vec())));
            step.events += 1;
            return;
        }
        self.dispatch(name, data, events, step);
    }

    fn dispatch(
        &mut self,
        name: &[u8],
        data: &[u8],
        events: &mut Vec<ChatEvent>,
        step: &mut FeedResult,
    ) {
        self.event_count = self.event_count.saturating_add(1);
        let from = events.len();
        let result = self.reader.read_event(name, data, events);
        self.split_think_tags(events, from);
        if name != b"ping" {
            step.events += 1;
        }
        for event in &events[from..] {
            match event {
                ChatEvent::Open { .. } | ChatEvent::Delta { .. } | ChatEvent::Signature { .. } => {
                    step.has_content = true;
                }
                ChatEvent::End { .. } => {
                    step.terminal = true;
                    self.state = EventDecoderState::Done;
                }
                _ => {}
            }
        }
        if let Err(fault) = result {
            self.fail(fault, step);
        }
    }

    fn split_think_tags(&mut self, said: &mut Vec<ChatEvent>, from: usize) {
        if let Some(think) = &mut self.think_splitter {
            let events: Vec<ChatEvent> = said.drain(from..).collect();
            for event in events {
                think.push(event, said);
            }
        }
    }

    fn fail(&mut self, fault: Box<Fault>, step: &mut FeedResult) {
        self.state = EventDecoderState::Failed;
        step.error = Some(fault);
    }
}

/// A stream that is translated from one dialect into another.
pub struct Translator {
    decoder: EventDecoder,
    /// Writes the client's stream; without a writer, events are buffered.
    writer: Option<Box<dyn StreamWriter>>,
    /// Records the answer's text if another upstream may have to continue it.
    recorded: Option<Box<RecordedText>>,
    /// Appends the events to an answer that was interrupted.
    continuation: Option<Box<Continuation>>,
    events: Vec<ChatEvent>,
    content_events: u32,
    trailing_error: Option<Box<Fault>>,
    /// The summary of an answer that arrived in one piece.
    summary: Option<AnswerSummary>,
    /// Assembles the answer if it is stored for later turns.
    assembler: Option<Assembler>,
    /// Number of bytes that the assembler may still add.
    remaining_capacity: usize,
}

impl Translator {
    /// Returns a translator. If `retention_limit` is above zero, it also assembles the answer for
    /// [`take_response`](Self::take_response), while the answer's texts have at most that many
    /// bytes.
    #[must_use]
    pub fn new(
        decoder: EventDecoder,
        writer: Box<dyn StreamWriter>,
        retention_limit: usize,
    ) -> Self {
        Self {
            writer: Some(writer),
            assembler: (retention_limit > 0).then(Assembler::default),
            remaining_capacity: retention_limit,
            ..Self::without_writer(decoder)
        }
    }

    /// Returns a translator that only reads. It buffers its events for the answer that it will
    /// continue.
    #[must_use]
    pub fn without_writer(decoder: EventDecoder) -> Self {
        let events = Vec::new();
        Self {
            decoder,
            writer: None,
            recorded: None,
            continuation: None,
            events,
            content_events: 0,
            trailing_error: None,
            summary: None,
            assembler: None,
            remaining_capacity: 0,
        }
    }

    /// Starts to record the answer's text. Call it before the stream begins.
    pub fn start_recording(&mut self) {
        self.recorded = Some(Box::default());
    }

    pub(super) fn recorded(&self) -> Option<&RecordedText> {
        self.recorded.as_deref()
    }

    /// Continues an answer that was passed through, with the events that `rest` has buffered.
    /// `writer` writes as if it had written the whole answer.
    pub(super) fn continue_passthrough(
        recorded: RecordedText,
        mut writer: Box<dyn StreamWriter>,
        events: u32,
        rest: Self,
        prior_usage: Usage,
        out: &mut Vec<Bytes>,
    ) -> Self {
        let mut past = Vec::new();
        for event in recorded.to_events() {
            writer.write_event(event, &mut past);
        }
        let seam = Some(Box::new(recorded.continuation(prior_usage)));
        let mut translator = Self {
            writer: Some(writer),
            recorded: Some(Box::new(recorded)),
            continuation: seam,
            content_events: events,
            ..rest
        };
        translator.write_events(out);
        translator
    }

    /// Continues this answer with another one, `rest`, which was decoded without a writer until
    /// now; appends its content to `out`.
    pub(super) fn resume(&mut self, rest: Self, prior_usage: Usage, out: &mut Vec<Bytes>) {
        self.continuation =
            self.recorded.as_ref().map(|recorded| Box::new(recorded.continuation(prior_usage)));
        (self.decoder, self.summary, self.events) = (rest.decoder, rest.summary, rest.events);
        self.write_events(out);
    }

    /// Reads a chunk of the upstream's body and appends the client's bytes to `out`.
    pub fn feed(&mut self, chunk: &Bytes, out: &mut Vec<Bytes>) -> FeedResult {
        let step = self.decoder.feed(chunk, &mut self.events);
        self.write_events(out);
        step
    }

    /// Writes an answer that arrived in one piece.
    pub fn write_complete(
        &mut self,
        events: Vec<ChatEvent>,
        summary: AnswerSummary,
        out: &mut Vec<Bytes>,
    ) {
        self.decoder.state = EventDecoderState::Done;
        self.summary = Some(summary);
        self.events.extend(events);
        self.write_events(out);
    }

    /// Ends the upstream's body.
    pub fn finish(&mut self, out: &mut Vec<Bytes>) -> StreamEnd {
        let (stream_end, step) = self.decoder.finish(&mut self.events);
        self.trailing_error = step.error;
        self.write_events(out);
        stream_end
    }

    /// Returns the error that the upstream sent when its body ended too early.
    pub fn take_trailing_error(&mut self) -> Option<Box<Fault>> {
        self.trailing_error.take()
    }

    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.decoder.is_complete()
    }

    #[must_use]
    pub fn summary(&self) -> AnswerSummary {
        self.summary.clone().unwrap_or_else(|| self.decoder.summary())
    }

    /// Returns the number of content events written.
    #[must_use]
    pub fn content_events(&self) -> u32 {
        self.content_events
    }

    /// Returns aiproxy's error as the last event of this stream.
    pub fn error_frame(&mut self, error: &ProxyError, request_id: &str) -> Bytes {
        let mut out = Vec::new();
        if let Some(writer) = &mut self.writer {
            writer.write_error(error, request_id, &mut out);
        }
        out.into()
    }

    /// Returns the assembled answer, once it is complete.
    pub fn take_response(&mut self) -> Option<ChatResponse> {
        self.assembler.take().and_then(Assembler::finish)
    }

    /// Stops assembling an answer above the limit; the client still gets the whole answer.
    fn feed_assembler(&mut self, event: &ChatEvent) {
        let Some(assembler) = &mut self.assembler else { return };
        if let ChatEvent::Delta { text, .. } = event {
            match self.remaining_capacity.checked_sub(text.len()) {
                Some(remaining) => self.remaining_capacity = remaining,
                None => {
                    self.assembler = None;
                    return;
                }
            }
        }
        assembler.feed(event);
    }

    fn write_events(&mut self, out: &mut Vec<Bytes>) {
        if self.events.is_empty() {
            return;
        }
        let Some(mut writer) = self.writer.take() else { return };
        let mut bytes = Vec::new();
        let mut events = std::mem::take(&mut self.events);
        if let Some(continuation) = &mut self.continuation {
            let mut joined = Vec::with_capacity(events.len());
            events.drain(..).for_each(|event| continuation.append_event(event, &mut joined));
            events = joined;
        }
        for event in events.drain(..) {
            if matches!(event, ChatEvent::Delta { .. }) {
                self.content_events = self.content_events.saturating_add(1);
            }
            if let Some(recorded) = &mut self.recorded {
                recorded.record(&event);
            }
            self.feed_assembler(&event);
            writer.write_event(event, &mut bytes);
        }
        self.writer = Some(writer);
        // Reuses the buffer's capacity.
        self.events = events;
        if !bytes.is_empty() {
            out.push(Bytes::from(bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dialect::{AttemptContext, registry},
        ir::op::Dialect,
    };

    /// Returns the whole text of a stream that arrives in chunks of this size.
    fn text(dialect: Dialect, framing: Framing, body: &str, size: usize) -> String {
        let mut decoder = EventDecoder::new(
            framing,
            registry::egress(dialect).stream_reader(&AttemptContext::default()),
            false,
        );
        let mut events = Vec::new();
        for chunk in body.as_bytes().chunks(size) {
            assert_eq!(
                decoder.feed(&Bytes::copy_from_slice(chunk), &mut events).error,
                None,
                "{body}"
            );
        }
        assert_eq!(decoder.finish(&mut events).0, StreamEnd::Complete, "{body}");
        events
            .iter()
            .map(|event| if let ChatEvent::Delta { text, .. } = event { text.as_str() } else { "" })
            .collect()
    }

    #[test]
    fn a_character_in_two_pieces_is_one_in_every_dialect() {
        let anthropic = |text: &str| {
            format!(
                "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n"
            )
        };
        let openai = |key: &str, text: &str| {
            format!("data: {{\"choices\":[{{\"delta\":{{\"{key}\":\"{text}\"}}}}]}}\n\n")
        };
        let gemini = |text: &str| {
            format!(
                "data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"{text}\"}}]}}}}]}}\n\n"
            )
        };
        let responses = |text: &str| {
            format!(
                "data: {{\"type\":\"response.output_text.delta\",\"output_index\":0,\"content_index\":0,\"delta\":\"{text}\"}}\n\n"
            )
        };
        let ollama =
            |text: &str| format!("{{\"message\":{{\"content\":\"{text}\"}},\"done\":false}}\n");
        let (first, second) = ("a\\ud83c", "\\udf89b");
        for (dialect, framing, two, end) in [
            (
                Dialect::Openai,
                Framing::Sse,
                [openai("content", first), openai("content", second)],
                "data: [DONE]\n\n",
            ),
            (
                Dialect::Openai,
                Framing::Sse,
                [openai("reasoning", first), openai("reasoning", second)],
                "data: [DONE]\n\n",
            ),
            (
                Dialect::Anthropic,
                Framing::Sse,
                [anthropic(first), anthropic(second)],
                "data: {\"type\":\"message_stop\"}\n\n",
            ),
            (
                Dialect::Gemini,
                Framing::Sse,
                [gemini(first), gemini(second)],
                "data: {\"candidates\":[{\"finishReason\":\"STOP\"}]}\n\n",
            ),
            (
                Dialect::Responses,
                Framing::Sse,
                [responses(first), responses(second)],
                "data: {\"type\":\"response.completed\",\"response\":{\"status\":\"completed\"}}\n\n",
            ),
            (
                Dialect::Ollama,
                Framing::Ndjson,
                [ollama(first), ollama(second)],
                "{\"done\":true}\n",
            ),
        ] {
            let [one, two] = two;
            for size in [1, 7, 4096] {
                assert_eq!(
                    text(dialect, framing, &format!("{one}{two}{end}"), size),
                    "a\u{1f389}b",
                    "{dialect:?} in {size}"
                );
            }
            assert_eq!(
                text(dialect, framing, &format!("{one}{end}"), 4096),
                "a\u{fffd}",
                "{dialect:?}"
            );
        }
        let arguments = |text: &str| {
            format!(
                "data: {{\"choices\":[{{\"delta\":{{\"tool_calls\":[{{\"index\":0,\"function\":{{\"name\":\"f\",\"arguments\":\"{text}\"}}}}]}}}}]}}\n\n"
            )
        };
        let body = format!(
            "{}{}data: [DONE]\n\n",
            arguments("{\\\"a\\\":\\\"\\ud83c"),
            arguments("\\udf89\\\"}")
        );
        assert_eq!(text(Dialect::Openai, Framing::Sse, &body, 4096), "{\"a\":\"\u{1f389}\"}");
    }
}
