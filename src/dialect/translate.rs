//! Translates a stream between two dialects: reads the upstream's events into the common form and
//! writes them in the client's dialect.

use bytes::Bytes;

use crate::{
    dialect::{
        event_decoder::{EventDecoder, FeedResult, StreamEnd},
        ingress::StreamWriter,
        meter::AnswerSummary,
        rescue_splice::{Continuation, RecordedText},
    },
    ir::{
        assemble::Assembler,
        event::ChatEvent,
        fault::{Fault, ProxyError},
        response::ChatResponse,
        usage::Usage,
    },
};

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
        self.decoder.set_complete();
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
