//! Continuing an answer that broke off: what it said is kept where its model asks for that, and the
//! events of another answer are joined to it.

use bytes::Bytes;

use crate::{
    dialect::translate::Reading,
    ir::{
        event::{BlockStart, ChatEvent},
        usage::Usage,
    },
};

/// More text than this is not kept: such an answer is not continued.
const LARGEST: usize = 1 << 20;
/// White space that is held at most.
const HELD: usize = 256;

/// What an answer has said so far, as long as it is plain text.
#[derive(Debug, Default)]
pub struct Told {
    begin: Option<ChatEvent>,
    blocks: Vec<Block>,
    bytes: usize,
    /// It said something that nobody else can go on from.
    other: bool,
}

#[derive(Debug)]
struct Block {
    number: u32,
    text: String,
    open: bool,
}

impl Told {
    pub fn hear(&mut self, event: &ChatEvent) {
        match event {
            ChatEvent::Begin { .. } => {
                self.begin.get_or_insert_with(|| event.clone());
            }
            ChatEvent::Open { block, head: BlockStart::Text } => {
                self.blocks.push(Block { number: *block, text: String::new(), open: true })
            }
            ChatEvent::Delta { block, text } => {
                self.bytes += text.len();
                match self.blocks.iter_mut().find(|known| known.number == *block) {
                    Some(known) if self.bytes <= LARGEST => known.text.push_str(text),
                    _ => self.spoil(),
                }
            }
            ChatEvent::Close { block } => {
                for known in self.blocks.iter_mut().filter(|known| known.number == *block) {
                    known.open = false;
                }
            }
            // What proves a text proves it to whoever said it; the text itself is as good.
            ChatEvent::Signature { .. } | ChatEvent::End { .. } => {}
            ChatEvent::Citation { .. } | ChatEvent::Logprobs(_) | ChatEvent::Open { .. } => {
                self.spoil()
            }
        }
    }

    fn spoil(&mut self) {
        self.other = true;
        self.blocks.clear();
    }

    /// All of it, where that is plain text that can be gone on from.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let text: String = self.blocks.iter().map(|block| block.text.as_str()).collect();
        (!self.other && !text.trim().is_empty()).then_some(text)
    }

    /// The events that it was, its text in one piece each.
    pub(super) fn events(&self) -> Vec<ChatEvent> {
        let mut out: Vec<ChatEvent> = self.begin.iter().cloned().collect();
        for Block { number, text, open } in &self.blocks {
            out.push(ChatEvent::Open { block: *number, head: BlockStart::Text });
            out.push(ChatEvent::Delta { block: *number, text: text.clone() });
            if !open {
                out.push(ChatEvent::Close { block: *number });
            }
        }
        out
    }

    /// Its id and its model's name, as the upstream told them.
    pub(super) fn name(&self) -> (&str, &str) {
        match &self.begin {
            Some(ChatEvent::Begin { id, model, .. }) => (id, model),
            _ => ("", ""),
        }
    }

    /// Where another answer is joined to it; `before` is what it used.
    pub(super) fn seam(&self, before: Usage) -> Seam {
        let open = self.blocks.iter().rev().find(|block| block.open);
        let white = open.map_or("", |block| &block.text[block.text.trim_end().len()..]);
        Seam {
            open: open.map(|block| block.number),
            next: self.blocks.iter().map(|block| block.number + 1).max().unwrap_or_default(),
            white: white.to_owned(),
            held: String::new(),
            numbers: Vec::new(),
            before,
        }
    }
}

/// Listens to a stream that passes as it is.
pub(super) struct Tap {
    reading: Reading,
    heard: Vec<ChatEvent>,
    told: Told,
}

impl Tap {
    pub(super) fn new(reading: Reading) -> Self {
        Self { reading, heard: Vec::new(), told: Told::default() }
    }

    pub(super) fn feed(&mut self, chunk: &Bytes) {
        if !self.told.other {
            self.reading.feed(chunk, &mut self.heard);
            self.hear();
        }
    }

    pub(super) fn end(&mut self) {
        self.reading.end(&mut self.heard);
        self.hear();
    }

    fn hear(&mut self) {
        for event in self.heard.drain(..) {
            self.told.hear(&event);
        }
    }

    pub(super) fn told(&self) -> &Told {
        &self.told
    }

    pub(super) fn into_told(self) -> Told {
        self.told
    }
}

/// Makes one answer's events the end of another's.
#[derive(Debug)]
pub(super) struct Seam {
    /// The text that broke off in the middle.
    open: Option<u32>,
    next: u32,
    /// White space that it ended with, which nobody can be asked to go on from: not said again.
    white: String,
    /// White space of the new text that may be the same.
    held: String,
    /// Numbers of the new blocks, and what they are here.
    numbers: Vec<(u32, u32)>,
    before: Usage,
}

impl Seam {
    pub(super) fn join(&mut self, event: ChatEvent, out: &mut Vec<ChatEvent>) {
        match event {
            ChatEvent::Begin { .. } | ChatEvent::Logprobs(_) => {}
            ChatEvent::Open { block, head } => match (self.open.take(), head) {
                (Some(open), BlockStart::Text) => self.numbers.push((block, open)),
                (open, head) => {
                    out.extend(open.map(|block| ChatEvent::Close { block }));
                    self.white.clear();
                    self.numbers.push((block, self.next));
                    out.push(ChatEvent::Open { block: self.next, head });
                    self.next += 1;
                }
            },
            ChatEvent::Delta { block, text } => {
                let text = self.unsaid(text);
                if !text.is_empty() {
                    out.push(ChatEvent::Delta { block: self.number(block), text });
                }
            }
            ChatEvent::Signature { block, signature: proof } => {
                out.push(ChatEvent::Signature { block: self.number(block), signature: proof })
            }
            ChatEvent::Citation { block, citation } => {
                out.push(ChatEvent::Citation { block: self.number(block), citation })
            }
            ChatEvent::Close { block } => {
                let (block, text) = (self.number(block), self.let_go());
                if !text.is_empty() {
                    out.push(ChatEvent::Delta { block, text });
                }
                out.push(ChatEvent::Close { block });
            }
            ChatEvent::End { finish, usage, service_tier } => {
                out.extend(self.open.take().map(|block| ChatEvent::Close { block }));
                let usage = usage.map_or(self.before, |usage| self.before.plus(usage));
                out.push(ChatEvent::End { finish, usage: Some(usage), service_tier });
            }
        }
    }

    fn number(&self, block: u32) -> u32 {
        self.numbers.iter().find(|(new, _)| *new == block).map_or(block, |(_, here)| *here)
    }

    /// What of a text was not said before; white space at its beginning is held until it is known
    /// how much there is.
    fn unsaid(&mut self, text: String) -> String {
        if self.white.is_empty() {
            return text;
        }
        self.held.push_str(&text);
        if self.held.len() < HELD && self.held.trim_start().is_empty() {
            return String::new();
        }
        self.let_go()
    }

    /// What was held, without what was said already.
    fn let_go(&mut self) -> String {
        let mut text = std::mem::take(&mut self.held);
        let lead = text.len() - text.trim_start().len();
        let same = (0..=lead)
            .rev()
            .find(|&at| text.get(..at).is_some_and(|lead| self.white.ends_with(lead)));
        text.drain(..same.unwrap_or_default());
        self.white.clear();
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;
    use crate::ir::{grammar, response::Finish};

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
        let mut told = Told::default();
        before.iter().for_each(|event| told.hear(event));
        let mut seam = told.seam(Usage { input: 10, output: 3, ..Usage::default() });
        let mut all = before.to_vec();
        after.iter().cloned().for_each(|event| seam.join(event, &mut all));
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
    fn the_rest_goes_on_in_the_block_that_was_open_and_usage_is_summed() {
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
        assert!(grammar::validate_events(&all).is_ok(), "{all:?}");
        assert!(
            matches!(all.last(), Some(ChatEvent::End { usage: Some(usage), .. }) if (usage.input, usage.output) == (22, 5))
        );
    }

    #[test]
    fn white_space_that_was_said_is_not_said_again_however_much_of_it_comes() {
        for (said, rest, want) in [
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
                text(&joined(&[begin(), open(0), delta(0, said)], &after)),
                want,
                "{said:?} {rest:?}"
            );
        }
    }

    #[test]
    fn other_blocks_get_numbers_of_their_own() {
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
            assert!(grammar::validate_events(&all).is_ok(), "{all:?}");
            assert!(
                all.iter().any(|event| matches!(
                    event,
                    ChatEvent::Open { block: 1, head: BlockStart::ToolCall { .. } }
                )),
                "{all:?}"
            );
        }
        assert!(
            grammar::validate_events(&joined(
                &[begin(), open(0), delta(0, "a")],
                &[begin(), end(1, 0)]
            ))
            .is_ok()
        );
    }

    #[test]
    fn only_plain_text_can_be_gone_on_from() {
        let told = |events: &[ChatEvent]| {
            let mut told = Told::default();
            events.iter().for_each(|event| told.hear(event));
            told.text()
        };
        assert_eq!(told(&[begin(), open(0), delta(0, "a"), delta(0, "b")]).as_deref(), Some("ab"));
        assert_eq!(told(&[begin(), open(0), delta(0, " \n")]), None);
        assert_eq!(
            told(&[
                begin(),
                ChatEvent::Open { block: 0, head: BlockStart::Reasoning { summary: false } },
                delta(0, "hm")
            ]),
            None
        );
        assert_eq!(
            told(&[begin(), open(0), delta(0, &"x".repeat(LARGEST)), delta(0, "x")]),
            None,
            "beyond all measure"
        );
    }

    proptest! {
        #[test]
        fn white_space_at_the_seam_is_said_once(head in "[ab]{1,3}", white in "[ \n]{0,4}", rest in "[ab][ab \n]{0,6}", cut in 0_usize..10) {
            // Whoever goes on repeats the white space that it was not shown.
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
