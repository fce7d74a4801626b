//! One stream on its way between two dialects: the upstream's events are read, told in the common
//! form, and written anew.

use bytes::Bytes;

use crate::{
    base::{
        cut::{MAX_FRAME_BYTES, NextFrame},
        elements, ndjson, sse, surrogates,
    },
    dialect::{
        Framing, StreamReader, StreamWriter, Summary, fault,
        passage::{Ending, Step},
        resume::{Seam, Told},
    },
    ir::{
        assemble::Assembler,
        event::ChatEvent,
        fault::{Fault, ProxyError},
        response::ChatResponse,
        think,
        usage::Usage,
    },
};

/// Cuts an upstream's body into events and reads them; the half that faces the upstream.
pub struct Reading {
    cutter: Cutter,
    reader: Box<dyn StreamReader>,
    /// Changes what was said before anybody hears it.
    think: Option<think::ThinkTagSplitter>,
    /// An event that ends in the middle of a character waits for the next one.
    held: Option<Box<(Vec<u8>, Vec<u8>)>>,
    events: u32,
    first_unit: bool,
    state: State,
}

enum Cutter {
    Array(elements::ArraySplitter),
    Lines(ndjson::LineSplitter),
    Sse(sse::SseSplitter),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Done,
    Failed,
    Open,
}

impl Reading {
    /// `think_split`: `<think>` text at the beginning of the answer is reasoning.
    #[must_use]
    pub fn new(framing: Framing, reader: Box<dyn StreamReader>, think_split: bool) -> Self {
        let cutter = match framing {
            Framing::JsonArray => Cutter::Array(elements::ArraySplitter::default()),
            Framing::Ndjson => Cutter::Lines(ndjson::LineSplitter::default()),
            Framing::Sse => Cutter::Sse(sse::SseSplitter::default()),
        };
        let think = think_split.then(think::ThinkTagSplitter::default);
        Self { cutter, reader, think, held: None, events: 0, first_unit: true, state: State::Open }
    }

    /// Takes a chunk of the upstream's body and appends what it says; an unfinished event waits.
    pub fn feed(&mut self, chunk: &Bytes, said: &mut Vec<ChatEvent>) -> Step {
        let mut step = Step::default();
        let (mut at, mut units, mut pings) = (0, 0_u32, 0_u32);
        while self.state == State::Open {
            let piece = match &mut self.cutter {
                Cutter::Array(splitter) => splitter.next(chunk, &mut at),
                Cutter::Lines(splitter) => splitter.next(chunk, &mut at),
                Cutter::Sse(splitter) => splitter.next(chunk, &mut at),
            };
            let before = step.events;
            match piece {
                NextFrame::Borrowed(span) => self.unit(&chunk[span], said, &mut step),
                NextFrame::Joined(unit) => self.unit(&unit, said, &mut step),
                NextFrame::Incomplete => break,
                NextFrame::TooLong => self.fail(
                    Box::new(fault::long_event(self.events.saturating_add(1), MAX_FRAME_BYTES)),
                    &mut step,
                ),
            }
            units += 1;
            pings += u32::from(step.events == before);
        }
        step.pings_only = units > 0 && pings == units && step.error.is_none();
        step
    }

    /// The body has ended: the last event may lack its blank line, the stream its terminator.
    pub fn end(&mut self, said: &mut Vec<ChatEvent>) -> (Ending, Step) {
        let mut step = Step::default();
        if self.state == State::Open {
            let rest = match &mut self.cutter {
                Cutter::Array(splitter) => splitter.remainder(),
                Cutter::Lines(splitter) => splitter.remainder(),
                Cutter::Sse(splitter) => splitter.remainder(),
            };
            let whole = match &self.cutter {
                // Only a whole last event counts; half of one is the cut itself.
                Cutter::Sse(_) => {
                    let data = sse::read_event(rest.strip_prefix(sse::BOM).unwrap_or(&rest))
                        .data
                        .into_owned();
                    data.trim_ascii() == b"[DONE]" || crate::base::json::parse(&data).is_ok()
                }
                Cutter::Lines(_) => crate::base::json::parse(ndjson::line_content(&rest)).is_ok(),
                Cutter::Array(_) => false,
            };
            if whole {
                self.unit(&rest, said, &mut step);
            }
            if let (false, Cutter::Sse(_)) = (whole, &self.cutter)
                && let Some(fault) = fault::parting(&rest)
            {
                step.error = Some(Box::new(fault));
            }
            if let Some(held) = self.held.take().filter(|_| self.state == State::Open) {
                self.hear(&held.0, &held.1, said, &mut step);
            }
        }
        if self.state == State::Open {
            let from = said.len();
            if self.reader.end(said) {
                self.state = State::Done;
            }
            self.split(said, from);
        }
        if self.state == State::Done {
            return (Ending::Complete, Step { error: None, ..step });
        }
        (Ending::Truncated, step)
    }

    #[must_use]
    pub fn complete(&self) -> bool {
        self.state == State::Done
    }

    #[must_use]
    pub fn summary(&self) -> Summary {
        self.reader.summary()
    }

    fn unit(&mut self, unit: &[u8], said: &mut Vec<ChatEvent>, step: &mut Step) {
        let first = std::mem::take(&mut self.first_unit);
        match &self.cutter {
            Cutter::Sse(_) => {
                let block = sse::read_event(if first {
                    unit.strip_prefix(sse::BOM).unwrap_or(unit)
                } else {
                    unit
                });
                if !block.data.trim_ascii().is_empty() {
                    self.event(block.name, &block.data, said, step);
                }
            }
            Cutter::Lines(_) => {
                let line = ndjson::line_content(unit);
                if !line.is_empty() {
                    self.event(b"", line, said, step);
                }
            }
            Cutter::Array(_) => {
                let element = elements::element_content(unit, first);
                if !element.is_empty() {
                    self.event(b"", element, said, step);
                }
            }
        }
    }

    fn event(&mut self, name: &[u8], data: &[u8], said: &mut Vec<ChatEvent>, step: &mut Step) {
        let joined = self.held.take().map(|held| {
            let (name, mut before) = *held;
            let mut after = data.to_vec();
            surrogates::join_split_pairs(&mut before, &mut after);
            self.hear(&name, &before, said, step);
            after
        });
        let data = joined.as_deref().unwrap_or(data);
        if self.state != State::Open {
            return;
        }
        if surrogates::ends_with_high_surrogate(data) {
            self.held = Some(Box::new((name.to_vec(), data.to_vec())));
            step.events += 1;
            return;
        }
        self.hear(name, data, said, step);
    }

    fn hear(&mut self, name: &[u8], data: &[u8], said: &mut Vec<ChatEvent>, step: &mut Step) {
        self.events = self.events.saturating_add(1);
        let from = said.len();
        let result = self.reader.event(name, data, said);
        self.split(said, from);
        if name != b"ping" {
            step.events += 1;
        }
        for event in &said[from..] {
            match event {
                ChatEvent::Open { .. } | ChatEvent::Delta { .. } | ChatEvent::Signature { .. } => {
                    step.content = true
                }
                ChatEvent::End { .. } => {
                    step.terminal = true;
                    self.state = State::Done;
                }
                _ => {}
            }
        }
        if let Err(fault) = result {
            self.fail(fault, step);
        }
    }

    fn split(&mut self, said: &mut Vec<ChatEvent>, from: usize) {
        if let Some(think) = &mut self.think {
            let events: Vec<ChatEvent> = said.drain(from..).collect();
            for event in events {
                think.push(event, said);
            }
        }
    }

    fn fail(&mut self, fault: Box<Fault>, step: &mut Step) {
        self.state = State::Failed;
        step.error = Some(fault);
    }
}

/// A stream between two dialects.
pub struct Translator {
    reading: Reading,
    /// Where there is none yet, what is said waits.
    writer: Option<Box<dyn StreamWriter>>,
    /// Keeps what was said, where another might have to go on from it.
    told: Option<Box<Told>>,
    /// Joins what is said to an answer that broke off.
    seam: Option<Box<Seam>>,
    said: Vec<ChatEvent>,
    content_events: u32,
    parting: Option<Box<Fault>>,
    /// Of an answer that came whole.
    summary: Option<Summary>,
    /// Where the answer is kept for later turns.
    keep: Option<Assembler>,
    /// Bytes that may still be kept.
    room: usize,
}

impl Translator {
    /// `keep`: the answer is put together beside, for [`kept`](Self::kept), while its texts have no
    /// more bytes than this.
    #[must_use]
    pub fn new(reading: Reading, writer: Box<dyn StreamWriter>, keep: usize) -> Self {
        Self {
            writer: Some(writer),
            keep: (keep > 0).then(Assembler::default),
            room: keep,
            ..Self::silent(reading)
        }
    }

    /// One that only reads: what is said waits for the answer that it is to continue.
    #[must_use]
    pub fn silent(reading: Reading) -> Self {
        let said = Vec::new();
        Self {
            reading,
            writer: None,
            told: None,
            seam: None,
            said,
            content_events: 0,
            parting: None,
            summary: None,
            keep: None,
            room: 0,
        }
    }

    /// From here on what is said is kept; to be asked for before the stream begins.
    pub fn listen(&mut self) {
        self.told = Some(Box::default());
    }

    pub(super) fn told(&self) -> Option<&Told> {
        self.told.as_deref()
    }

    /// An answer that passed as it was goes on as one that is written, from the rest that was read
    /// in silence. `writer` writes as if it had written all of it.
    pub(super) fn taking_over(
        told: Told,
        mut writer: Box<dyn StreamWriter>,
        events: u32,
        rest: Self,
        before: Usage,
        out: &mut Vec<Bytes>,
    ) -> Self {
        let mut past = Vec::new();
        for event in told.events() {
            writer.event(event, &mut past);
        }
        let seam = Some(Box::new(told.seam(before)));
        let mut whole = Self {
            writer: Some(writer),
            told: Some(Box::new(told)),
            seam,
            content_events: events,
            ..rest
        };
        whole.tell(out);
        whole
    }

    /// The rest of this answer comes from another, which was read in silence up to now; what it
    /// said goes to `out`.
    pub(super) fn resume(&mut self, rest: Self, before: Usage, out: &mut Vec<Bytes>) {
        self.seam = self.told.as_ref().map(|told| Box::new(told.seam(before)));
        (self.reading, self.summary, self.said) = (rest.reading, rest.summary, rest.said);
        self.tell(out);
    }

    /// Takes a chunk of the upstream's body; what the client gets for it goes to `out`.
    pub fn feed(&mut self, chunk: &Bytes, out: &mut Vec<Bytes>) -> Step {
        let step = self.reading.feed(chunk, &mut self.said);
        self.tell(out);
        step
    }

    /// Tells an answer that came whole.
    pub fn whole(&mut self, events: Vec<ChatEvent>, summary: Summary, out: &mut Vec<Bytes>) {
        self.reading.state = State::Done;
        self.summary = Some(summary);
        self.said.extend(events);
        self.tell(out);
    }

    /// The upstream's body has ended.
    pub fn end(&mut self, out: &mut Vec<Bytes>) -> Ending {
        let (ending, step) = self.reading.end(&mut self.said);
        self.parting = step.error;
        self.tell(out);
        ending
    }

    /// The upstream's last words, where it ended too early and said why.
    pub fn parting(&mut self) -> Option<Box<Fault>> {
        self.parting.take()
    }

    #[must_use]
    pub fn complete(&self) -> bool {
        self.reading.complete()
    }

    #[must_use]
    pub fn summary(&self) -> Summary {
        self.summary.clone().unwrap_or_else(|| self.reading.summary())
    }

    /// Pieces of content that were told.
    #[must_use]
    pub fn content_events(&self) -> u32 {
        self.content_events
    }

    /// Our error as the last thing of this stream.
    pub fn error_tail(&mut self, error: &ProxyError, request_id: &str) -> Bytes {
        let mut out = Vec::new();
        if let Some(writer) = &mut self.writer {
            writer.error(error, request_id, &mut out);
        }
        out.into()
    }

    /// The answer that was kept, once it is complete.
    pub fn kept(&mut self) -> Option<ChatResponse> {
        self.keep.take().and_then(Assembler::finish)
    }

    /// An answer beyond all measure is told, but not kept.
    fn remember(&mut self, event: &ChatEvent) {
        let Some(keep) = &mut self.keep else { return };
        if let ChatEvent::Delta { text, .. } = event {
            match self.room.checked_sub(text.len()) {
                Some(room) => self.room = room,
                None => {
                    self.keep = None;
                    return;
                }
            }
        }
        keep.feed(event);
    }

    fn tell(&mut self, out: &mut Vec<Bytes>) {
        if self.said.is_empty() {
            return;
        }
        let Some(mut writer) = self.writer.take() else { return };
        let mut bytes = Vec::new();
        let mut said = std::mem::take(&mut self.said);
        if let Some(seam) = &mut self.seam {
            let mut joined = Vec::with_capacity(said.len());
            said.drain(..).for_each(|event| seam.join(event, &mut joined));
            said = joined;
        }
        for event in said.drain(..) {
            if matches!(event, ChatEvent::Delta { .. }) {
                self.content_events = self.content_events.saturating_add(1);
            }
            if let Some(told) = &mut self.told {
                told.hear(&event);
            }
            self.remember(&event);
            writer.event(event, &mut bytes);
        }
        self.writer = Some(writer);
        // Its room is used again.
        self.said = said;
        if !bytes.is_empty() {
            out.push(Bytes::from(bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dialect::{Carry, registry},
        ir::op::Dialect,
    };

    /// All the text of a stream that comes in chunks of this size.
    fn text(dialect: Dialect, framing: Framing, body: &str, size: usize) -> String {
        let mut reading = Reading::new(
            framing,
            registry::egress(dialect).stream_reader(&Carry::default()),
            false,
        );
        let mut said = Vec::new();
        for chunk in body.as_bytes().chunks(size) {
            assert_eq!(
                reading.feed(&Bytes::copy_from_slice(chunk), &mut said).error,
                None,
                "{body}"
            );
        }
        assert_eq!(reading.end(&mut said).0, Ending::Complete, "{body}");
        said.iter()
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
