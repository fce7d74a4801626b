//! Passes a stream through in its own dialect: forwards whole events as slices of the chunks they
//! arrived in.
//!
//! Rewrites events that are known to break clients of the dialect. Detects errors, truncation and
//! the end of the stream.

mod sse_repair;

/// Whether bytes are UTF-8, as event streams are (HTML standard, 9.2.5).
fn is_text(bytes: &[u8]) -> bool {
    bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()
}

/// Replaces what is not UTF-8.
fn to_text(bytes: &[u8]) -> Bytes {
    Bytes::from(String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests;

use bytes::{Bytes, BytesMut};

use crate::{
    base::{
        framing::{
            FrameSplitter, Framing, json_array, ndjson,
            splitter::{MAX_FRAME_BYTES, NextFrame},
            sse,
        },
        json::reader,
    },
    dialect::{
        egress::AttemptContext,
        errors::read_error,
        event_decoder::{EventDecoder, FeedResult, FeedState, StreamEnd},
        event_json,
        meter::{AnswerSummary, Meter, MeterEvent},
        passthrough::sse_repair::{FrameAction, FramingRules, is_readable_error},
        registry,
        rescue_splice::StreamRecorder,
    },
    ir::{
        fault::{Fault, ProxyError},
        op::{Dialect, Op},
    },
};

/// One stream that is passed through.
pub struct Passthrough {
    dialect: Dialect,
    framing: Framing,
    rules: FramingRules,
    splitter: FrameSplitter,
    meter: Box<dyn Meter>,
    hide_usage: bool,
    event_count: u32,
    content_events: u32,
    /// Number of forwarded events.
    forwarded: u32,
    state: FeedState,
    array_state: ArrayState,
    /// The upstream's own error event, if clients of the dialect can read it.
    upstream_error_frame: Option<Bytes>,
    /// The error after the last event, if the stream ended too early.
    trailing_error: Option<Box<Fault>>,
    /// The data to forward in place of the event that was just read.
    replacement: Option<Vec<u8>>,
    /// Records the answer's text if another upstream may have to continue it.
    recorder: Option<Box<StreamRecorder>>,
}

/// Progress through a JSON array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ArrayState {
    #[default]
    NotStarted,
    /// A single value in place of an array.
    BareValue,
    Closed,
    Open,
}

impl Passthrough {
    /// Returns a passthrough at the beginning of its stream. `hide_usage`: removes the upstream's
    /// usage chunk, because the client did not request it.
    #[must_use]
    pub fn new(dialect: Dialect, op: Op, framing: Framing, hide_usage: bool) -> Self {
        Self {
            dialect,
            framing,
            rules: FramingRules::for_dialect(dialect),
            splitter: FrameSplitter::new(framing),
            meter: registry::egress(dialect).meter(op),
            hide_usage,
            event_count: 0,
            content_events: 0,
            forwarded: 0,
            state: FeedState::Open,
            array_state: ArrayState::NotStarted,
            upstream_error_frame: None,
            trailing_error: None,
            replacement: None,
            recorder: None,
        }
    }

    /// Starts to record the answer's text. Call it before the stream begins.
    pub(super) fn start_recording(&mut self) {
        let reader = registry::egress(self.dialect).stream_reader(&AttemptContext::default());
        self.recorder =
            Some(Box::new(StreamRecorder::new(EventDecoder::new(self.framing, reader, false))));
    }

    pub(super) fn recorder(&self) -> Option<&StreamRecorder> {
        self.recorder.as_deref()
    }

    pub(super) fn take_recorder(&mut self) -> Option<StreamRecorder> {
        self.recorder.take().map(|recorder| *recorder)
    }

    /// Reads a chunk of the upstream's body and appends the bytes to forward to `out`. Buffers an
    /// unfinished event.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a chunk of only clean events leaves as itself"
    )]
    pub fn feed(&mut self, chunk: Bytes, out: &mut Vec<Bytes>) -> FeedResult {
        if let Some(recorder) = &mut self.recorder {
            recorder.feed(&chunk);
        }
        let mut step = FeedResult::default();
        let (mut at, mut run_start, mut frames_end, mut units, mut pings) = (0, 0, 0, 0_u32, 0_u32);
        while self.state == FeedState::Open {
            let piece = self.splitter.next(&chunk, &mut at);
            let events_before = step.events;
            match piece {
                NextFrame::Borrowed(span) => {
                    match self.process_frame(&chunk[span.clone()], &mut step) {
                        FrameAction::Keep => {}
                        FrameAction::Drop => {
                            push_slice(&chunk, run_start, frames_end, out);
                            run_start = span.end;
                        }
                        FrameAction::KeepFrom(skip) => {
                            push_slice(&chunk, run_start, frames_end, out);
                            run_start = span.start + skip;
                        }
                        FrameAction::PrependLine(line) => {
                            push_slice(&chunk, run_start, frames_end, out);
                            out.push(line);
                            run_start = span.start;
                        }
                        FrameAction::Replace(frame) => {
                            push_slice(&chunk, run_start, frames_end, out);
                            out.push(frame);
                            run_start = span.end;
                        }
                    }
                    frames_end = span.end;
                }
                NextFrame::Joined(frame) => {
                    match self.process_frame(&frame, &mut step) {
                        FrameAction::Keep => out.push(frame),
                        FrameAction::Drop => {}
                        FrameAction::KeepFrom(skip) => out.push(frame.slice(skip..)),
                        FrameAction::PrependLine(line) => out.extend([line, frame]),
                        FrameAction::Replace(other) => out.push(other),
                    }
                    (run_start, frames_end) = (at, at);
                }
                NextFrame::Incomplete => break,
                NextFrame::TooLong => self.fail(
                    read_error::oversized_event(
                        self.event_count.saturating_add(1),
                        MAX_FRAME_BYTES,
                    ),
                    &mut step,
                ),
            }
            units += 1;
            pings += u32::from(step.events == events_before);
        }
        push_slice(&chunk, run_start, frames_end, out);
        step.pings_only = units > 0 && pings == units && step.error.is_none();
        step
    }

    /// Ends the upstream's body. The last event may lack its blank line, and the stream its
    /// terminator.
    pub fn finish(&mut self, out: &mut Vec<Bytes>) -> StreamEnd {
        if let Some(recorder) = &mut self.recorder {
            recorder.finish();
        }
        if self.state == FeedState::Open {
            let rest = self.splitter.remainder();
            self.process_remainder(&rest, out);
            if self.state == FeedState::Open
                && self.framing == Framing::Sse
                && !self.meter.is_complete()
            {
                self.trailing_error = read_error::trailing_error(&rest).map(Box::new);
            }
        }
        if self.state == FeedState::Open && self.meter.is_complete() {
            if let Some(terminator) = self.meter.missing_terminator() {
                out.push(Bytes::from_static(terminator));
            }
            if self.array_state == ArrayState::Open {
                out.push(Bytes::from_static(b"]"));
                self.array_state = ArrayState::Closed;
            }
            self.state = FeedState::Done;
        }
        if self.state == FeedState::Done { StreamEnd::Complete } else { StreamEnd::Truncated }
    }

    /// Returns whether the stream has ended by its grammar.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.state == FeedState::Done || self.state == FeedState::Open && self.meter.is_complete()
    }

    #[must_use]
    pub fn summary(&self) -> AnswerSummary {
        self.meter.summary()
    }

    /// Returns the answer's id if clients of the dialect can request the answer later.
    #[must_use]
    pub fn response_id(&self) -> Option<&str> {
        self.meter.response_id()
    }

    /// Returns the error that the upstream sent when its body ended too early.
    pub fn take_trailing_error(&mut self) -> Option<Box<Fault>> {
        self.trailing_error.take()
    }

    /// Returns the number of events with content.
    #[must_use]
    pub fn content_events(&self) -> u32 {
        self.content_events
    }

    /// Returns the upstream's own error event, framed, if clients of the dialect can read it. The
    /// caller must still redact secrets.
    #[must_use]
    pub fn upstream_error_frame(&self) -> Option<&Bytes> {
        self.upstream_error_frame.as_ref()
    }

    /// Returns aiproxy's error as the last event of this stream, in a form that fits the events
    /// forwarded so far.
    #[must_use]
    pub fn error_frame(&self, error: &ProxyError, request_id: &str) -> Bytes {
        if matches!(self.array_state, ArrayState::Closed | ArrayState::BareValue) {
            return Bytes::new();
        }
        registry::ingress(self.dialect).stream_error_after(
            error,
            request_id,
            self.framing,
            self.forwarded,
        )
    }

    fn process_frame(&mut self, frame: &[u8], step: &mut FeedResult) -> FrameAction {
        match self.framing {
            Framing::JsonArray => self.process_element(frame, step),
            Framing::Ndjson => {
                let line = ndjson::line_content(frame);
                if line.is_empty() || self.observe(b"", line, step) {
                    FrameAction::Keep
                } else {
                    FrameAction::Drop
                }
            }
            Framing::Sse => self.process_sse(frame, step),
        }
    }

    fn process_sse(&mut self, frame: &[u8], step: &mut FeedResult) -> FrameAction {
        let skip =
            if self.event_count == 0 && frame.starts_with(sse::BOM) { sse::BOM.len() } else { 0 };
        let block = sse::read_event(&frame[skip..]);
        if block.data.trim_ascii().is_empty() {
            return match skip {
                _ if self.rules.forbids_empty(block.format) => FrameAction::Drop,
                _ if !is_text(frame) => FrameAction::Replace(to_text(&frame[skip..])),
                0 => FrameAction::Keep,
                skip => FrameAction::KeepFrom(skip),
            };
        }
        if !self.observe(block.name, &block.data, step) {
            return FrameAction::Drop;
        }
        let name = self.rules.event_name(&block);
        let replacement = self.replacement.take();
        let padded = self.state == FeedState::Done
            && block.data.len() < 20
            && self.dialect == Dialect::Openai
            && *block.data != *b"[DONE]";
        if replacement.is_some() || padded {
            // OpenAI's SDKs recognize the last event of a chat stream only by its exact bytes.
            let data = replacement.as_deref().unwrap_or_else(|| block.data.trim_ascii());
            let mut out = BytesMut::new();
            sse::write_event(&mut out, &name, data);
            return FrameAction::Replace(out.freeze());
        }
        match self.rules.repair(frame, skip, &block, &name) {
            FrameAction::Keep if !is_text(frame) => FrameAction::Replace(to_text(frame)),
            action => action,
        }
    }

    fn process_element(&mut self, frame: &[u8], step: &mut FeedResult) -> FrameAction {
        if matches!(self.array_state, ArrayState::Closed) {
            return FrameAction::Drop;
        }
        let first = self.array_state == ArrayState::NotStarted;
        let array = !first || frame.trim_ascii_start().starts_with(b"[");
        let element = json_array::element_content(frame, first);
        if element.is_empty() && !self.meter.is_complete() {
            // The array is closed, but the answer is cut short. Drops the closing bracket so that
            // an error can still be appended to the array.
            return FrameAction::Drop;
        }
        if element.is_empty() {
            self.array_state = ArrayState::Closed;
            return FrameAction::Keep;
        }
        if !self.observe(b"", element, step) {
            return FrameAction::Drop;
        }
        if first {
            self.array_state = if array { ArrayState::Open } else { ArrayState::BareValue };
        }
        FrameAction::Keep
    }

    /// Passes an event to the meter and returns whether it may be forwarded.
    fn observe(&mut self, name: &[u8], data: &[u8], step: &mut FeedResult) -> bool {
        self.event_count = self.event_count.saturating_add(1);
        step.events += 1;
        match self.meter.observe(name, data) {
            MeterEvent::Content => {
                step.has_content = true;
                self.content_events = self.content_events.saturating_add(1);
            }
            MeterEvent::Metadata => {}
            MeterEvent::Replace(data) => self.replacement = Some(data),
            MeterEvent::Ping => step.events -= 1,
            MeterEvent::Terminal => {
                step.terminal = true;
                self.state = FeedState::Done;
            }
            MeterEvent::Drop => return false,
            MeterEvent::UsageOnly if self.hide_usage => return false,
            MeterEvent::UsageOnly => {}
            MeterEvent::Invalid(bad) => {
                self.fail(read_error::invalid_event(self.event_count, bad, data), step);
                return false;
            }
            MeterEvent::Error(fault) => {
                self.state = FeedState::Failed;
                if self.framing == Framing::Sse && is_readable_error(self.dialect, name, data) {
                    let mut frame = BytesMut::new();
                    sse::write_event(&mut frame, name, data);
                    self.upstream_error_frame = Some(frame.freeze());
                }
                step.error = Some(fault);
                return false;
            }
        }
        self.forwarded = self.forwarded.saturating_add(1);
        true
    }

    fn fail(&mut self, fault: Fault, step: &mut FeedResult) {
        self.state = FeedState::Failed;
        step.error = Some(Box::new(fault));
    }

    /// Processes an event without its terminator at the end of the body, if its data is complete.
    fn process_remainder(&mut self, rest: &Bytes, out: &mut Vec<Bytes>) {
        let mut step = FeedResult::default();
        let is_whole = |data: &[u8]| event_json::is_done(data) || reader::parse(data).is_ok();
        match self.framing {
            Framing::Sse => {
                let skip = if self.event_count == 0 && rest.starts_with(sse::BOM) {
                    sse::BOM.len()
                } else {
                    0
                };
                let block = sse::read_event(&rest[skip..]);
                if block.data.trim_ascii().is_empty() || !is_whole(&block.data) {
                    return;
                }
                let mut frame = BytesMut::new();
                sse::write_event(&mut frame, block.name, &block.data);
                let frame = frame.freeze();
                match self.process_sse(&frame, &mut step) {
                    FrameAction::Keep | FrameAction::KeepFrom(_) => out.push(frame),
                    FrameAction::PrependLine(line) => out.extend([line, frame]),
                    FrameAction::Replace(other) => out.push(other),
                    FrameAction::Drop => {}
                }
            }
            Framing::Ndjson => {
                let line = ndjson::line_content(rest);
                if line.is_empty() || is_whole(line) && self.observe(b"", line, &mut step) {
                    out.extend((!rest.is_empty()).then(|| rest.clone()));
                }
            }
            // Elements need no terminator, so only white space after the array can be left over.
            Framing::JsonArray => {
                if rest.trim_ascii().is_empty()
                    && !rest.is_empty()
                    && matches!(self.array_state, ArrayState::Closed | ArrayState::BareValue)
                {
                    out.push(rest.clone());
                }
            }
        }
    }
}

/// Forwards a range of unchanged frames; a range that covers the whole chunk shares the chunk.
fn push_slice(chunk: &Bytes, from: usize, to: usize, out: &mut Vec<Bytes>) {
    if from < to {
        out.push(if from == 0 && to == chunk.len() {
            chunk.clone()
        } else {
            chunk.slice(from..to)
        });
    }
}
