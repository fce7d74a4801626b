//! Passes a stream through in its own dialect: whole events only, as the slices of the chunks they
//! came in.
//!
//! What clients of the dialect are known to choke on is re-framed on the way; errors, cuts and the
//! end are found.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use crate::{
    base::{
        cut::{MAX_FRAME_BYTES, NextFrame},
        elements,
        json::{self, JsonRef},
        ndjson, sse,
    },
    dialect::{
        Carry, Framing, Heed, Meter, Summary, fault, registry, resume::Tap, translate::Reading,
    },
    ir::{
        fault::{Fault, ProxyError},
        op::{Dialect, Op},
    },
};

/// One stream on its way.
pub struct Passage {
    dialect: Dialect,
    framing: Framing,
    rules: Rules,
    cutter: Cutter,
    meter: Box<dyn Meter>,
    hide_usage: bool,
    events: u32,
    content_events: u32,
    /// Events that were forwarded.
    passed: u32,
    state: State,
    array: Array,
    /// The upstream's own error event, where clients of the dialect can read it.
    own_error: Option<Bytes>,
    /// What stood behind the last event, where the stream ended too early.
    parting: Option<Box<Fault>>,
    /// What leaves in place of the event that was just read.
    amended: Option<Vec<u8>>,
    /// Keeps what was said, where another might have to go on from it.
    tap: Option<Box<Tap>>,
}

/// What one chunk brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Events that were completed, pings not counted.
    pub events: u32,
    /// Some of them were content.
    pub content: bool,
    /// Something was completed, and all of it was keep-alives: the upstream lives, but gets no
    /// further.
    pub pings_only: bool,
    /// The terminal event was among them; nothing more will be forwarded.
    pub terminal: bool,
    /// The upstream's error event, or an event that is none; nothing more will be forwarded.
    pub error: Option<Box<Fault>>,
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Complete,
    /// Without its terminal event, or after an error.
    Truncated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Done,
    Failed,
    Open,
}

/// What is known of a JSON array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Array {
    #[default]
    Before,
    /// A single value stands where an array should.
    Bare,
    Closed,
    Open,
}

enum Cutter {
    Array(elements::ArraySplitter),
    Lines(ndjson::LineSplitter),
    Sse(sse::SseSplitter),
}

/// How a dialect's event stream has to look.
#[derive(Clone, Copy)]
struct Rules {
    /// Every event bears its `type` as its name.
    named: bool,
    /// Its SDKs take `id` and `retry` for the beginning of an event.
    no_ids: bool,
    /// Its SDKs read nothing but `data: ` lines, one for each event.
    data_only: bool,
}

impl Rules {
    const fn of(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Anthropic => Self { named: true, no_ids: false, data_only: false },
            Dialect::Gemini | Dialect::Ollama => {
                Self { named: false, no_ids: true, data_only: true }
            }
            Dialect::Openai => Self { named: false, no_ids: true, data_only: false },
            Dialect::Responses => Self { named: true, no_ids: true, data_only: false },
        }
    }
}

/// What becomes of one unit.
enum Fate {
    Drop,
    Keep,
    /// Without its first bytes.
    KeepFrom(usize),
    /// After a line of ours.
    KeepAfter(Bytes),
    Replace(Bytes),
}

impl Passage {
    /// A stream from its beginning. `hide_usage`: the client did not ask for the usage chunk that
    /// the upstream sends.
    #[must_use]
    pub fn new(dialect: Dialect, op: Op, framing: Framing, hide_usage: bool) -> Self {
        let cutter = match framing {
            Framing::JsonArray => Cutter::Array(elements::ArraySplitter::default()),
            Framing::Ndjson => Cutter::Lines(ndjson::LineSplitter::default()),
            Framing::Sse => Cutter::Sse(sse::SseSplitter::default()),
        };
        Self {
            dialect,
            framing,
            rules: Rules::of(dialect),
            cutter,
            meter: registry::egress(dialect).meter(op),
            hide_usage,
            events: 0,
            content_events: 0,
            passed: 0,
            state: State::Open,
            array: Array::Before,
            own_error: None,
            parting: None,
            amended: None,
            tap: None,
        }
    }

    /// From here on what is said is kept; to be asked for before the stream begins.
    pub(super) fn listen(&mut self) {
        let reader = registry::egress(self.dialect).stream_reader(&Carry::default());
        self.tap = Some(Box::new(Tap::new(Reading::new(self.framing, reader, false))));
    }

    pub(super) fn tap(&self) -> Option<&Tap> {
        self.tap.as_deref()
    }

    pub(super) fn take_tap(&mut self) -> Option<Tap> {
        self.tap.take().map(|tap| *tap)
    }

    /// Takes a chunk of the upstream's body; what may be forwarded of it goes to `out`, an
    /// unfinished event waits.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a chunk of only clean events leaves as itself"
    )]
    pub fn feed(&mut self, chunk: Bytes, out: &mut Vec<Bytes>) -> Step {
        if let Some(tap) = &mut self.tap {
            tap.feed(&chunk);
        }
        let mut step = Step::default();
        let (mut at, mut run, mut whole, mut units, mut pings) = (0, 0, 0, 0_u32, 0_u32);
        while self.state == State::Open {
            let piece = match &mut self.cutter {
                Cutter::Array(splitter) => splitter.next(&chunk, &mut at),
                Cutter::Lines(splitter) => splitter.next(&chunk, &mut at),
                Cutter::Sse(splitter) => splitter.next(&chunk, &mut at),
            };
            let before = step.events;
            match piece {
                NextFrame::Borrowed(span) => {
                    match self.judge(&chunk[span.clone()], &mut step) {
                        Fate::Keep => {}
                        Fate::Drop => {
                            forward(&chunk, run, whole, out);
                            run = span.end;
                        }
                        Fate::KeepFrom(skip) => {
                            forward(&chunk, run, whole, out);
                            run = span.start + skip;
                        }
                        Fate::KeepAfter(line) => {
                            forward(&chunk, run, whole, out);
                            out.push(line);
                            run = span.start;
                        }
                        Fate::Replace(unit) => {
                            forward(&chunk, run, whole, out);
                            out.push(unit);
                            run = span.end;
                        }
                    }
                    whole = span.end;
                }
                NextFrame::Joined(unit) => {
                    match self.judge(&unit, &mut step) {
                        Fate::Keep => out.push(unit),
                        Fate::Drop => {}
                        Fate::KeepFrom(skip) => out.push(unit.slice(skip..)),
                        Fate::KeepAfter(line) => out.extend([line, unit]),
                        Fate::Replace(other) => out.push(other),
                    }
                    (run, whole) = (at, at);
                }
                NextFrame::Incomplete => break,
                NextFrame::TooLong => self.fail(
                    fault::long_event(self.events.saturating_add(1), MAX_FRAME_BYTES),
                    &mut step,
                ),
            }
            units += 1;
            pings += u32::from(step.events == before);
        }
        forward(&chunk, run, whole, out);
        step.pings_only = units > 0 && pings == units && step.error.is_none();
        step
    }

    /// The upstream's body has ended: the last event may lack its blank line, the stream its
    /// terminator.
    pub fn end(&mut self, out: &mut Vec<Bytes>) -> Ending {
        if let Some(tap) = &mut self.tap {
            tap.end();
        }
        if self.state == State::Open {
            let rest = match &mut self.cutter {
                Cutter::Array(splitter) => splitter.remainder(),
                Cutter::Lines(splitter) => splitter.remainder(),
                Cutter::Sse(splitter) => splitter.remainder(),
            };
            self.last(&rest, out);
            if self.state == State::Open && self.framing == Framing::Sse && !self.meter.complete() {
                self.parting = fault::parting(&rest).map(Box::new);
            }
        }
        if self.state == State::Open && self.meter.complete() {
            if let Some(terminator) = self.meter.terminator() {
                out.push(Bytes::from_static(terminator));
            }
            if self.array == Array::Open {
                out.push(Bytes::from_static(b"]"));
                self.array = Array::Closed;
            }
            self.state = State::Done;
        }
        if self.state == State::Done { Ending::Complete } else { Ending::Truncated }
    }

    /// Whether the stream has ended by its grammar.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.state == State::Done || self.state == State::Open && self.meter.complete()
    }

    #[must_use]
    pub fn summary(&self) -> Summary {
        self.meter.summary()
    }

    /// The answer's id, where its dialect can be asked for it later.
    #[must_use]
    pub fn answer_id(&self) -> Option<&str> {
        self.meter.answer_id()
    }

    /// The upstream's last words, where it ended too early and said why.
    pub fn parting(&mut self) -> Option<Box<Fault>> {
        self.parting.take()
    }

    /// Events that were content.
    #[must_use]
    pub fn content_events(&self) -> u32 {
        self.content_events
    }

    /// The upstream's own error event, framed, where clients of the dialect can read it; not yet
    /// searched for secrets.
    #[must_use]
    pub fn own_error(&self) -> Option<&Bytes> {
        self.own_error.as_ref()
    }

    /// Our error as the last thing of this stream, fitting what has been forwarded of it.
    #[must_use]
    pub fn error_tail(&self, error: &ProxyError, request_id: &str) -> Bytes {
        if matches!(self.array, Array::Closed | Array::Bare) {
            return Bytes::new();
        }
        registry::ingress(self.dialect).stream_error_after(
            error,
            request_id,
            self.framing,
            self.passed,
        )
    }

    fn judge(&mut self, unit: &[u8], step: &mut Step) -> Fate {
        match self.framing {
            Framing::JsonArray => self.judge_element(unit, step),
            Framing::Ndjson => {
                let line = ndjson::line_content(unit);
                if line.is_empty() || self.heed(b"", line, step) { Fate::Keep } else { Fate::Drop }
            }
            Framing::Sse => self.judge_block(unit, step),
        }
    }

    fn judge_block(&mut self, unit: &[u8], step: &mut Step) -> Fate {
        let skip = if self.events == 0 && unit.starts_with(sse::BOM) { sse::BOM.len() } else { 0 };
        let block = sse::read_event(&unit[skip..]);
        let form = block.format;
        if block.data.trim_ascii().is_empty() {
            // No event, but some decoders make one of it.
            let odd = form.data_lines > 0
                || form.has_event_name
                || form.has_id_or_retry
                || form.has_lone_cr
                || self.rules.data_only && (form.has_comment || form.has_unknown_field);
            return match skip {
                _ if odd => Fate::Drop,
                0 => Fate::Keep,
                skip => Fate::KeepFrom(skip),
            };
        }
        if !self.heed(block.name, &block.data, step) {
            return Fate::Drop;
        }
        let rules = self.rules;
        let name: Cow<'_, [u8]> = match (rules.named, form.has_event_name) {
            (true, false) => type_of(&block.data),
            _ => Cow::Borrowed(block.name),
        };
        let amended = self.amended.take();
        let padded = self.state == State::Done
            && block.data.len() < 20
            && self.dialect == Dialect::Openai
            && *block.data != *b"[DONE]";
        if amended.is_some() || padded {
            // Its SDKs know the last event of a chat stream only by its letters.
            let data = amended.as_deref().unwrap_or_else(|| block.data.trim_ascii());
            let mut out = BytesMut::new();
            sse::write_event(&mut out, &name, data);
            return Fate::Replace(out.freeze());
        }
        let strange = form.has_event_name
            || form.has_comment
            || form.has_unknown_field
            || form.lacks_space
            || form.data_lines > 1;
        if form.has_lone_cr || rules.no_ids && form.has_id_or_retry || rules.data_only && strange {
            let mut out = BytesMut::new();
            if rules.data_only && form.data_lines > 1 {
                // A line feed inside JSON can only stand between its tokens.
                let data: Vec<u8> =
                    block.data.iter().map(|&b| if b == b'\n' { b' ' } else { b }).collect();
                sse::write_event(&mut out, b"", &data);
            } else {
                sse::write_event(&mut out, if rules.data_only { b"" } else { &name }, &block.data);
            }
            return Fate::Replace(out.freeze());
        }
        if form.has_event_name || name.is_empty() {
            return if skip == 0 { Fate::Keep } else { Fate::KeepFrom(skip) };
        }
        let mut line = BytesMut::with_capacity(name.len() + 8);
        line.extend_from_slice(b"event: ");
        line.extend_from_slice(&name);
        line.extend_from_slice(b"\n");
        if skip > 0 {
            line.extend_from_slice(&unit[skip..]);
            return Fate::Replace(line.freeze());
        }
        Fate::KeepAfter(line.freeze())
    }

    fn judge_element(&mut self, unit: &[u8], step: &mut Step) -> Fate {
        if matches!(self.array, Array::Closed) {
            return Fate::Drop;
        }
        let first = self.array == Array::Before;
        let array = !first || unit.trim_ascii_start().starts_with(b"[");
        let element = elements::element_content(unit, first);
        if element.is_empty() && !self.meter.complete() {
            // Cut short, though the array is whole: it stays open for what has to be said about
            // that.
            return Fate::Drop;
        }
        if element.is_empty() {
            self.array = Array::Closed;
            return Fate::Keep;
        }
        if !self.heed(b"", element, step) {
            return Fate::Drop;
        }
        if first {
            self.array = if array { Array::Open } else { Array::Bare };
        }
        Fate::Keep
    }

    /// Shows the meter an event; whether it may be forwarded.
    fn heed(&mut self, name: &[u8], data: &[u8], step: &mut Step) -> bool {
        self.events = self.events.saturating_add(1);
        step.events += 1;
        match self.meter.event(name, data) {
            Heed::Content => {
                step.content = true;
                self.content_events = self.content_events.saturating_add(1);
            }
            Heed::Nothing => {}
            Heed::Amend(data) => self.amended = Some(data),
            Heed::Ping => step.events -= 1,
            Heed::Terminal => {
                step.terminal = true;
                self.state = State::Done;
            }
            Heed::Hide => return false,
            Heed::UsageOnly if self.hide_usage => return false,
            Heed::UsageOnly => {}
            Heed::Bad(bad) => {
                self.fail(fault::bad_event(self.events, bad, data), step);
                return false;
            }
            Heed::Error(fault) => {
                self.state = State::Failed;
                if self.framing == Framing::Sse && readable_error(self.dialect, name, data) {
                    let mut frame = BytesMut::new();
                    sse::write_event(&mut frame, name, data);
                    self.own_error = Some(frame.freeze());
                }
                step.error = Some(fault);
                return false;
            }
        }
        self.passed = self.passed.saturating_add(1);
        true
    }

    fn fail(&mut self, fault: Fault, step: &mut Step) {
        self.state = State::Failed;
        step.error = Some(Box::new(fault));
    }

    /// An event that the end of the body has cut short counts if its data is whole.
    fn last(&mut self, rest: &Bytes, out: &mut Vec<Bytes>) {
        let mut step = Step::default();
        let is_whole = |data: &[u8]| data.trim_ascii() == b"[DONE]" || json::parse(data).is_ok();
        match self.framing {
            Framing::Sse => {
                let skip =
                    if self.events == 0 && rest.starts_with(sse::BOM) { sse::BOM.len() } else { 0 };
                let block = sse::read_event(&rest[skip..]);
                if block.data.trim_ascii().is_empty() || !is_whole(&block.data) {
                    return;
                }
                let mut unit = BytesMut::new();
                sse::write_event(&mut unit, block.name, &block.data);
                let unit = unit.freeze();
                match self.judge_block(&unit, &mut step) {
                    Fate::Keep | Fate::KeepFrom(_) => out.push(unit),
                    Fate::KeepAfter(line) => out.extend([line, unit]),
                    Fate::Replace(other) => out.push(other),
                    Fate::Drop => {}
                }
            }
            Framing::Ndjson => {
                let line = ndjson::line_content(rest);
                if line.is_empty() || is_whole(line) && self.heed(b"", line, &mut step) {
                    out.extend((!rest.is_empty()).then(|| rest.clone()));
                }
            }
            // Elements end by themselves; only white space after the array is nothing to lose.
            Framing::JsonArray => {
                if rest.trim_ascii().is_empty()
                    && !rest.is_empty()
                    && matches!(self.array, Array::Closed | Array::Bare)
                {
                    out.push(rest.clone());
                }
            }
        }
    }
}

/// Pushes a run of clean units; a whole chunk as itself.
fn forward(chunk: &Bytes, from: usize, to: usize, out: &mut Vec<Bytes>) {
    if from < to {
        out.push(if from == 0 && to == chunk.len() {
            chunk.clone()
        } else {
            chunk.slice(from..to)
        });
    }
}

/// The `type` of an event, where it can stand in an `event:` line.
fn type_of(data: &[u8]) -> Cow<'_, [u8]> {
    match json::parse(data).ok().and_then(|json| json.get("type")).and_then(JsonRef::str) {
        Some(Cow::Borrowed(name)) if name.bytes().all(|b| b.is_ascii_graphic()) => {
            Cow::Borrowed(name.as_bytes())
        }
        _ => Cow::Borrowed(b""),
    }
}

/// Whether the official SDKs of a dialect raise an exception for this error event as it is.
fn readable_error(dialect: Dialect, name: &[u8], data: &[u8]) -> bool {
    let Ok(event) = json::parse(data) else { return false };
    let text = |path: &[&str]| event.member_at(path).and_then(JsonRef::str).is_some();
    match dialect {
        Dialect::Openai => text(&["error", "message"]),
        Dialect::Anthropic => {
            name == b"error"
                && event.get("type").and_then(JsonRef::str).as_deref() == Some("error")
                && text(&["error", "type"])
                && text(&["error", "message"])
        }
        Dialect::Gemini => data.starts_with(b"{\"error\":") && text(&["error", "message"]),
        Dialect::Responses => name == b"response.failed",
        Dialect::Ollama => false,
    }
}

#[cfg(test)]
mod tests;
