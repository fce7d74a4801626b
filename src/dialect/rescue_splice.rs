//! Continues an interrupted answer: records its text if the model is configured for that, and
//! appends another answer's events to it.

use bytes::Bytes;

use crate::{
    dialect::event_decoder::EventDecoder,
    ir::{
        event::{BlockStart, ChatEvent},
        usage::Usage,
    },
};

/// Maximum size of the recorded text; a longer answer is not continued.
const MAX_RECORDED_BYTES: usize = 1 << 20;
/// Maximum amount of buffered white space.
const MAX_PENDING_SPACE: usize = 256;

/// The text of an answer so far, while the answer is plain text.
#[derive(Debug, Default)]
pub struct RecordedText {
    begin_event: Option<ChatEvent>,
    blocks: Vec<RecordedBlock>,
    byte_count: usize,
    /// The answer contains something that another model cannot continue.
    disqualified: bool,
}

#[derive(Debug)]
struct RecordedBlock {
    number: u32,
    text: String,
    is_open: bool,
}

impl RecordedText {
    pub fn record(&mut self, event: &ChatEvent) {
        match event {
            ChatEvent::Begin { .. } => {
                self.begin_event.get_or_insert_with(|| event.clone());
            }
            ChatEvent::Open { block, head: BlockStart::Text } => self.blocks.push(RecordedBlock {
                number: *block,
                text: String::new(),
                is_open: true,
            }),
            ChatEvent::Delta { block, text } => {
                self.byte_count += text.len();
                match self.blocks.iter_mut().find(|known| known.number == *block) {
                    Some(known) if self.byte_count <= MAX_RECORDED_BYTES => {
                        known.text.push_str(text);
                    }
                    _ => self.disqualify(),
                }
            }
            ChatEvent::Close { block } => {
                for known in self.blocks.iter_mut().filter(|known| known.number == *block) {
                    known.is_open = false;
                }
            }
            // A signature proves a text only to the provider that signed it, and the text is valid
            // without it.
            ChatEvent::Signature { .. } | ChatEvent::Phase { .. } | ChatEvent::End { .. } => {}
            ChatEvent::Citation { .. } | ChatEvent::Logprobs(_) | ChatEvent::Open { .. } => {
                self.disqualify();
            }
        }
    }

    fn disqualify(&mut self) {
        self.disqualified = true;
        self.blocks.clear();
    }

    /// Returns the whole text if it is plain text that another model can continue.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let text: String = self.blocks.iter().map(|block| block.text.as_str()).collect();
        (!self.disqualified && !text.trim().is_empty()).then_some(text)
    }

    /// Returns the events of the recorded answer, with each text in one piece.
    pub(super) fn to_events(&self) -> Vec<ChatEvent> {
        let mut out: Vec<ChatEvent> = self.begin_event.iter().cloned().collect();
        for RecordedBlock { number, text, is_open: open } in &self.blocks {
            out.push(ChatEvent::Open { block: *number, head: BlockStart::Text });
            out.push(ChatEvent::Delta { block: *number, text: text.clone() });
            if !open {
                out.push(ChatEvent::Close { block: *number });
            }
        }
        out
    }

    /// Returns the answer's id and its model's name, as the upstream sent them.
    pub(super) fn id_and_model(&self) -> (&str, &str) {
        match &self.begin_event {
            Some(ChatEvent::Begin { id, model, .. }) => (id, model),
            _ => ("", ""),
        }
    }

    /// Returns the state at which another answer continues this one; `before` is the usage of this
    /// one.
    pub(super) fn continuation(&self, before: Usage) -> Continuation {
        let open = self.blocks.iter().rev().find(|block| block.is_open);
        let space = open.map_or("", |block| &block.text[block.text.trim_end().len()..]);
        Continuation {
            open_block: open.map(|block| block.number),
            next_block: self.blocks.iter().map(|block| block.number + 1).max().unwrap_or_default(),
            trailing_space: space.to_owned(),
            pending_space: String::new(),
            block_numbers: Vec::new(),
            prior_usage: before,
        }
    }
}

/// Records a stream that is passed through.
pub(super) struct StreamRecorder {
    decoder: EventDecoder,
    events: Vec<ChatEvent>,
    recorded: RecordedText,
}

impl StreamRecorder {
    pub(super) fn new(decoder: EventDecoder) -> Self {
        Self { decoder, events: Vec::new(), recorded: RecordedText::default() }
    }

    pub(super) fn feed(&mut self, chunk: &Bytes) {
        if !self.recorded.disqualified {
            self.decoder.feed(chunk, &mut self.events);
            self.record_events();
        }
    }

    pub(super) fn finish(&mut self) {
        self.decoder.finish(&mut self.events);
        self.record_events();
    }

    fn record_events(&mut self) {
        for event in self.events.drain(..) {
            self.recorded.record(&event);
        }
    }

    pub(super) fn recorded(&self) -> &RecordedText {
        &self.recorded
    }

    pub(super) fn into_recorded(self) -> RecordedText {
        self.recorded
    }
}

/// Turns the events of one answer into the end of another answer.
#[derive(Debug)]
pub(super) struct Continuation {
    /// The text block that was interrupted.
    open_block: Option<u32>,
    next_block: u32,
    /// White space at the end of the interrupted text. The other model did not get it, so it may
    /// repeat it; the repetition is removed.
    trailing_space: String,
    /// White space at the beginning of the new text that may be such a repetition.
    pending_space: String,
    /// Numbers of the new answer's blocks, and their numbers in the continued answer.
    block_numbers: Vec<(u32, u32)>,
    prior_usage: Usage,
}

impl Continuation {
    pub(super) fn append_event(&mut self, event: ChatEvent, out: &mut Vec<ChatEvent>) {
        match event {
            ChatEvent::Begin { .. } | ChatEvent::Logprobs(_) => {}
            ChatEvent::Open { block, head } => match (self.open_block.take(), head) {
                (Some(open), BlockStart::Text) => self.block_numbers.push((block, open)),
                (open, head) => {
                    out.extend(open.map(|block| ChatEvent::Close { block }));
                    self.trailing_space.clear();
                    self.block_numbers.push((block, self.next_block));
                    out.push(ChatEvent::Open { block: self.next_block, head });
                    self.next_block += 1;
                }
            },
            ChatEvent::Delta { block, text } => {
                let text = self.strip_repeated_space(text);
                if !text.is_empty() {
                    out.push(ChatEvent::Delta { block: self.map_block(block), text });
                }
            }
            ChatEvent::Signature { block, signature: proof } => {
                out.push(ChatEvent::Signature { block: self.map_block(block), signature: proof });
            }
            ChatEvent::Phase { block, phase } => {
                out.push(ChatEvent::Phase { block: self.map_block(block), phase });
            }
            ChatEvent::Citation { block, citation } => {
                out.push(ChatEvent::Citation { block: self.map_block(block), citation });
            }
            ChatEvent::Close { block } => {
                let (block, text) = (self.map_block(block), self.take_pending_space());
                if !text.is_empty() {
                    out.push(ChatEvent::Delta { block, text });
                }
                out.push(ChatEvent::Close { block });
            }
            ChatEvent::End { finish, usage, service_tier } => {
                out.extend(self.open_block.take().map(|block| ChatEvent::Close { block }));
                let usage = usage.map_or(self.prior_usage, |usage| self.prior_usage.plus(usage));
                out.push(ChatEvent::End { finish, usage: Some(usage), service_tier });
            }
        }
    }

    fn map_block(&self, block: u32) -> u32 {
        self.block_numbers.iter().find(|(new, _)| *new == block).map_or(block, |(_, here)| *here)
    }

    /// Removes white space that the interrupted text already ended with. Buffers white space at the
    /// beginning until its length is known.
    fn strip_repeated_space(&mut self, text: String) -> String {
        if self.trailing_space.is_empty() {
            return text;
        }
        self.pending_space.push_str(&text);
        if self.pending_space.len() < MAX_PENDING_SPACE
            && self.pending_space.trim_start().is_empty()
        {
            return String::new();
        }
        self.take_pending_space()
    }

    /// Returns the buffered text without the white space that was already sent.
    fn take_pending_space(&mut self) -> String {
        let mut text = std::mem::take(&mut self.pending_space);
        let lead = text.len() - text.trim_start().len();
        let same = (0..=lead)
            .rev()
            .find(|&at| text.get(..at).is_some_and(|lead| self.trailing_space.ends_with(lead)));
        text.drain(..same.unwrap_or_default());
        self.trailing_space.clear();
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;
    use crate::ir::{response::Finish, validate};

    fn open(block: u32) -> ChatEvent {
        ChatEvent::Open { block, head: BlockStart::Text }
    }

    fn delta(block: u32, text: &str) -> ChatEvent {
        ChatEvent::Delta { block, text: text.to_owned() }
    }

    fn begin() -> ChatEvent {
        ChatEvent::Begin { id: "a".to_owned(), model: "m".to_owned(), created: None, usage: None }
    }

    fn end(input: u64, output: u64) -> ChatEvent {
        let usage = Some(Usage { input, output, ..Usage::default() });
        ChatEvent::End { finish: Finish::default(), usage, service_tier: None }
    }

    fn joined(before: &[ChatEvent], after: &[ChatEvent]) -> Vec<ChatEvent> {
        let mut recorded = RecordedText::default();
        before.iter().for_each(|event| recorded.record(event));
        let mut continuation =
            recorded.continuation(Usage { input: 10, output: 3, ..Usage::default() });
        let mut all = before.to_vec();
        after.iter().cloned().for_each(|event| continuation.append_event(event, &mut all));
        all
    }

    fn text(events: &[ChatEvent]) -> String {
        events
            .iter()
            .filter_map(|event| {
                if let ChatEvent::Delta { text, .. } = event { Some(text.as_str()) } else { None }
            })
            .collect()
    }

    #[test]
    fn continuation_extends_the_open_block_and_sums_usage() {
        let all = joined(
            &[begin(), open(0), delta(0, "Hello ")],
            &[
                begin(),
                open(0),
                delta(0, " wor"),
                delta(0, "ld"),
                ChatEvent::Close { block: 0 },
                end(12, 2),
            ],
        );
        assert_eq!(text(&all), "Hello world");
        assert!(validate::validate_events(&all).is_ok(), "{all:?}");
        assert!(
            matches!(all.last(), Some(ChatEvent::End { usage: Some(usage), .. }) if (usage.input, usage.output) == (22, 5))
        );
    }

    #[test]
    fn white_space_is_not_repeated_whatever_its_length() {
        for (first, rest, want) in [
            ("a \n", &["\nb"][..], "a \nb"),
            ("a \n", &[" ", "\n", "b"], "a \nb"),
            ("a\n", &["\n\nb"], "a\n\nb"),
            ("a\n", &["b"], "a\nb"),
            ("a ", &[" "], "a "),
            ("a", &[" b"], "a b"),
        ] {
            let mut after = vec![begin(), open(0)];
            after.extend(rest.iter().map(|text| delta(0, text)));
            after.extend([ChatEvent::Close { block: 0 }, end(1, 1)]);
            assert_eq!(
                text(&joined(&[begin(), open(0), delta(0, first)], &after)),
                want,
                "{first:?} {rest:?}"
            );
        }
    }

    #[test]
    fn other_blocks_get_new_numbers() {
        let call = BlockStart::ToolCall {
            id: "c".to_owned(),
            name: "f".to_owned(),
            form: crate::ir::block::CallKind::Function,
        };
        let after = [
            begin(),
            ChatEvent::Open { block: 0, head: call },
            delta(0, "{}"),
            ChatEvent::Close { block: 0 },
            end(1, 1),
        ];
        for before in [
            vec![begin(), open(0), delta(0, "I call")],
            vec![begin(), open(0), delta(0, "I call"), ChatEvent::Close { block: 0 }],
        ] {
            let all = joined(&before, &after);
            assert!(validate::validate_events(&all).is_ok(), "{all:?}");
            assert!(
                all.iter().any(|event| matches!(
                    event,
                    ChatEvent::Open { block: 1, head: BlockStart::ToolCall { .. } }
                )),
                "{all:?}"
            );
        }
        assert!(
            validate::validate_events(&joined(
                &[begin(), open(0), delta(0, "a")],
                &[begin(), end(1, 0)]
            ))
            .is_ok()
        );
    }

    #[test]
    fn only_plain_text_can_be_continued() {
        let record_all = |events: &[ChatEvent]| {
            let mut recorded = RecordedText::default();
            events.iter().for_each(|event| recorded.record(event));
            recorded.text()
        };
        assert_eq!(
            record_all(&[begin(), open(0), delta(0, "a"), delta(0, "b")]).as_deref(),
            Some("ab")
        );
        assert_eq!(record_all(&[begin(), open(0), delta(0, " \n")]), None);
        assert_eq!(
            record_all(&[
                begin(),
                ChatEvent::Open { block: 0, head: BlockStart::Reasoning { summary: false } },
                delta(0, "hm")
            ]),
            None
        );
        assert_eq!(
            record_all(&[
                begin(),
                open(0),
                delta(0, &"x".repeat(MAX_RECORDED_BYTES)),
                delta(0, "x")
            ]),
            None,
            "beyond all measure"
        );
    }

    proptest! {
        #[test]
        fn white_space_at_the_seam_is_sent_once(head in "[ab]{1,3}", white in "[ \n]{0,4}", rest in "[ab][ab \n]{0,6}", cut in 0_usize..10) {
            // The other model repeats the white space because it did not get it.
            let whole = format!("{white}{rest}");
            let cut = cut.min(whole.len());
            let all = joined(
                &[begin(), open(0), delta(0, &format!("{head}{white}"))],
                &[begin(), open(0), delta(0, &whole[..cut]), delta(0, &whole[cut..]), ChatEvent::Close { block: 0 }, end(1, 1)],
            );
            prop_assert_eq!(text(&all), format!("{head}{whole}"));
        }
    }
}
