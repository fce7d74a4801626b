//! Decodes an upstream's body: cuts it into events and reads each one into the common form.

use bytes::Bytes;

use crate::{
    base::{
        framing::{
            FrameSplitter, Framing, json_array, ndjson,
            splitter::{MAX_FRAME_BYTES, NextFrame},
            sse,
        },
        json::{reader, surrogates},
    },
    dialect::{egress::StreamReader, errors::read_error, event_json, meter::AnswerSummary},
    ir::{event::ChatEvent, fault::Fault, think_tags},
};

/// Cuts an upstream's body into events and decodes them; the half that faces the upstream.
pub struct EventDecoder {
    framing: Framing,
    splitter: FrameSplitter,
    reader: Box<dyn StreamReader>,
    /// Splits `<think>` text from the answer before the events are used.
    think_splitter: Option<think_tags::ThinkTagSplitter>,
    /// An event that ended in the middle of a character and waits for the next one.
    pending_event: Option<Box<(Vec<u8>, Vec<u8>)>>,
    event_count: u32,
    is_first_frame: bool,
    state: FeedState,
}

impl EventDecoder {
    /// `think_split`: treats `<think>` text at the beginning of the answer as reasoning.
    #[must_use]
    pub fn new(framing: Framing, reader: Box<dyn StreamReader>, think_split: bool) -> Self {
        let think_splitter = think_split.then(think_tags::ThinkTagSplitter::default);
        Self {
            framing,
            splitter: FrameSplitter::new(framing),
            reader,
            think_splitter,
            pending_event: None,
            event_count: 0,
            is_first_frame: true,
            state: FeedState::Open,
        }
    }

    /// Reads a chunk of the upstream's body and appends its events. Buffers an unfinished event.
    pub fn feed(&mut self, chunk: &Bytes, events: &mut Vec<ChatEvent>) -> FeedResult {
        let mut step = FeedResult::default();
        let (mut at, mut units, mut pings) = (0, 0_u32, 0_u32);
        while self.state == FeedState::Open {
            let piece = self.splitter.next(chunk, &mut at);
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
        if self.state == FeedState::Open {
            let rest = self.splitter.remainder();
            let is_complete = match self.framing {
                // Only a complete last event counts; half an event is the truncation itself.
                Framing::Sse => {
                    let data = sse::read_event(rest.strip_prefix(sse::BOM).unwrap_or(&rest))
                        .data
                        .into_owned();
                    event_json::is_done(&data) || reader::parse(&data).is_ok()
                }
                Framing::Ndjson => reader::parse(ndjson::line_content(&rest)).is_ok(),
                Framing::JsonArray => false,
            };
            if is_complete {
                self.decode_frame(&rest, events, &mut step);
            }
            if !is_complete
                && self.framing == Framing::Sse
                && let Some(fault) = read_error::trailing_error(&rest)
            {
                step.error = Some(Box::new(fault));
            }
            if let Some(pending) =
                self.pending_event.take().filter(|_| self.state == FeedState::Open)
            {
                self.dispatch(&pending.0, &pending.1, events, &mut step);
            }
        }
        if self.state == FeedState::Open {
            let from = events.len();
            if self.reader.read_eof(events) {
                self.state = FeedState::Done;
            }
            self.split_think_tags(events, from);
        }
        if self.state == FeedState::Done {
            return (StreamEnd::Complete, FeedResult { error: None, ..step });
        }
        (StreamEnd::Truncated, step)
    }

    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.state == FeedState::Done
    }

    /// Ends the stream: its answer arrived in one piece and needs no decoding.
    pub(super) fn set_complete(&mut self) {
        self.state = FeedState::Done;
    }

    #[must_use]
    pub fn summary(&self) -> AnswerSummary {
        self.reader.summary()
    }

    fn decode_frame(&mut self, frame: &[u8], events: &mut Vec<ChatEvent>, step: &mut FeedResult) {
        let first = std::mem::take(&mut self.is_first_frame);
        match self.framing {
            Framing::Sse => {
                let block = sse::read_event(if first {
                    frame.strip_prefix(sse::BOM).unwrap_or(frame)
                } else {
                    frame
                });
                if !block.data.trim_ascii().is_empty() {
                    self.decode_event(block.name, &block.data, events, step);
                }
            }
            Framing::Ndjson => {
                let line = ndjson::line_content(frame);
                if !line.is_empty() {
                    self.decode_event(b"", line, events, step);
                }
            }
            Framing::JsonArray => {
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
        if self.state != FeedState::Open {
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
                    self.state = FeedState::Done;
                }
                _ => {}
            }
        }
        if let Err(fault) = result {
            self.fail(fault, step);
        }
    }

    fn split_think_tags(&mut self, reply: &mut Vec<ChatEvent>, from: usize) {
        if let Some(think) = &mut self.think_splitter {
            let events: Vec<ChatEvent> = reply.drain(from..).collect();
            for event in events {
                think.push(event, reply);
            }
        }
    }

    fn fail(&mut self, fault: Box<Fault>, step: &mut FeedResult) {
        self.state = FeedState::Failed;
        step.error = Some(fault);
    }
}

/// The result of reading one chunk.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FeedResult {
    /// Number of completed events, without pings.
    pub events: u32,
    /// Whether any of them contained content.
    pub has_content: bool,
    /// Whether the chunk completed events and all of them were keep-alives: the upstream is alive
    /// but makes no progress.
    pub pings_only: bool,
    /// Whether the terminal event was among them; nothing more is forwarded after it.
    pub terminal: bool,
    /// The upstream's error event, or the fault of an invalid event; nothing more is forwarded
    /// after it.
    pub error: Option<Box<Fault>>,
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    Complete,
    /// The body ended without its terminal event, or after an error.
    Truncated,
}

/// Whether a stream can still be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FeedState {
    Done,
    Failed,
    Open,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dialect::{egress::AttemptContext, registry},
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
    fn character_split_across_events_is_joined_in_every_dialect() {
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
