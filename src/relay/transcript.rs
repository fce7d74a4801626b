//! What was said, read from the bytes of a request or an answer: for people who look into one.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    base::json,
    dialect::{self, AttemptContext, Framing, registry, translate::EventDecoder},
    ir::{
        block::{Block, BlockKind, MediaKind, MediaSource},
        event::{BlockStart, ChatEvent},
        op::{Dialect, Op},
        request::Role,
    },
};

/// Characters told of one part of a conversation; its beginning, for nobody reads more of it on a
/// screen.
const PART: usize = 8_000;
/// Parts told of a conversation: the newest.
const PARTS: usize = 200;
/// Bytes of an answer's text that are told: the newest.
const ANSWER: usize = 256 << 10;

/// Whose words these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Who {
    Assistant,
    /// Part of the text is missing here.
    Gap,
    /// Bytes that are no conversation, as they are.
    Raw,
    System,
    Tool,
    User,
}

/// What kind of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A call; its name stands in `name`.
    Call,
    Media,
    Refusal,
    Result,
    Text,
    Thinking,
}

/// One piece of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub who: Who,
    pub kind: Kind,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub text: String,
    /// Characters that it has; more than are here where it was cut.
    pub chars: u64,
}

impl Part {
    fn new(who: Who, kind: Kind, name: &str, text: &str) -> Self {
        let end = text.char_indices().nth(PART).map_or(text.len(), |(at, _)| at);
        Self {
            who,
            kind,
            name: name.chars().take(100).collect(),
            text: text[..end].to_owned(),
            chars: text.chars().count() as u64,
        }
    }
}

/// The conversation that a request body holds; the bytes themselves where it cannot be read as one.
#[must_use]
pub fn conversation(dialect: Dialect, op: Op, head: &str, tail: &str) -> Vec<Part> {
    if !tail.is_empty() || !matches!(op, Op::Chat | Op::Completions | Op::CountTokens) {
        return raw(head, tail);
    }
    let Ok(body) = json::parse(head.as_bytes()) else { return raw(head, tail) };
    let place = match dialect {
        _ if op == Op::Completions => dialect::ChatEndpoint::Completions,
        Dialect::Ollama if body.get("messages").is_none() => dialect::ChatEndpoint::Generate,
        _ => dialect::ChatEndpoint::Chat,
    };
    let Ok(request) = registry::ingress(dialect).read_request(place, head.as_bytes()) else {
        return raw(head, tail);
    };
    let mut parts = Vec::new();
    for block in &request.system {
        tell(Who::System, block, &mut parts);
    }
    for message in &request.messages {
        let who = match message.role {
            Role::Assistant => Who::Assistant,
            Role::System => Who::System,
            Role::User => Who::User,
        };
        for block in &message.blocks {
            tell(who, block, &mut parts);
        }
    }
    if parts.len() > PARTS {
        // What stands before the conversation, and its end.
        parts.drain(1..=parts.len() - PARTS);
        parts.insert(1, Part::new(Who::Gap, Kind::Text, "", ""));
    }
    parts
}

/// Bytes as they are, with the gap between beginning and end.
#[must_use]
pub fn raw(head: &str, tail: &str) -> Vec<Part> {
    let piece = |text: &str| {
        let end = text.floor_char_boundary(ANSWER / 2);
        Part {
            who: Who::Raw,
            kind: Kind::Text,
            name: String::new(),
            text: text[..end].to_owned(),
            chars: text.chars().count() as u64,
        }
    };
    match (head.is_empty(), tail.is_empty()) {
        (true, true) => Vec::new(),
        (_, true) => vec![piece(head)],
        _ => vec![piece(head), Part::new(Who::Gap, Kind::Text, "", ""), piece(tail)],
    }
}

fn tell(who: Who, block: &Block, parts: &mut Vec<Part>) {
    let part = match &block.kind {
        BlockKind::Text(text) => Part::new(who, Kind::Text, "", &text.text),
        BlockKind::Reasoning(thought) => Part::new(who, Kind::Thinking, "", &thought.text),
        BlockKind::Refusal(text) => Part::new(who, Kind::Refusal, "", text),
        BlockKind::ToolCall(call) => Part::new(who, Kind::Call, &call.name, &call.arguments),
        BlockKind::Media(media) => {
            let kind = match media.kind {
                MediaKind::Audio => "audio",
                MediaKind::Document => "document",
                MediaKind::File => "file",
                MediaKind::Image => "image",
                MediaKind::Video => "video",
            };
            let (text, size) = match &media.source {
                MediaSource::Base64(data) => {
                    (media.mime.clone().unwrap_or_default(), data.len() / 4 * 3)
                }
                MediaSource::Url(url) | MediaSource::FileId(url) => (url.clone(), 0),
                MediaSource::Text(text) => (text.clone(), 0),
            };
            let mut part = Part::new(who, Kind::Media, kind, &text);
            part.chars = part.chars.max(size as u64);
            part
        }
        BlockKind::ToolResult(result) => {
            let name = result.name.as_deref().unwrap_or_default();
            for inner in &result.content {
                let mut told = Vec::new();
                tell(Who::Tool, inner, &mut told);
                parts.extend(told.into_iter().map(|mut part| {
                    if part.kind == Kind::Text {
                        part.kind = Kind::Result;
                        name.clone_into(&mut part.name);
                    }
                    part
                }));
            }
            return;
        }
        BlockKind::Foreign { body, .. } => Part::new(who, Kind::Media, "item", body.text()),
    };
    parts.push(part);
}

/// Reads an answer as it comes, and holds the newest of what it said.
pub struct Teller {
    dialect: Dialect,
    op: Op,
    reading: Option<EventDecoder>,
    parts: Vec<Part>,
    /// The part of each open block.
    blocks: Vec<(u32, usize)>,
    /// What is not streamed is read when it is whole.
    whole: Vec<u8>,
    bytes: usize,
}

impl Teller {
    /// `framing`: how the answer is streamed; `None` where it comes in one piece.
    #[must_use]
    pub fn new(dialect: Dialect, op: Op, framing: Option<Framing>) -> Self {
        let chat = op == Op::Chat || (op == Op::Completions && framing.is_none());
        let reading = framing.filter(|_| chat).map(|framing| {
            EventDecoder::new(
                framing,
                registry::egress(dialect).stream_reader(&AttemptContext::default()),
                false,
            )
        });
        Self {
            dialect,
            op,
            reading,
            parts: Vec::new(),
            blocks: Vec::new(),
            whole: Vec::new(),
            bytes: 0,
        }
    }

    /// Takes more of the answer.
    pub fn feed(&mut self, bytes: &Bytes) {
        let Some(reading) = &mut self.reading else {
            let room = (2 * ANSWER).saturating_sub(self.whole.len());
            self.whole.extend_from_slice(&bytes[..bytes.len().min(room)]);
            return;
        };
        let mut said = Vec::new();
        reading.feed(bytes, &mut said);
        for event in said {
            self.event(event);
        }
    }

    /// Something is missing here.
    pub fn gap(&mut self) {
        self.parts.push(Part::new(Who::Gap, Kind::Text, "", ""));
        self.blocks.clear();
    }

    /// What was said up to now.
    #[must_use]
    pub fn parts(&self) -> Vec<Part> {
        if self.whole.is_empty() {
            return self.parts.clone();
        }
        let read = (self.op == Op::Chat || self.op == Op::Completions)
            .then(|| {
                registry::egress(self.dialect)
                    .read_response("application/json", &self.whole, &AttemptContext::default())
                    .ok()
            })
            .flatten();
        match read {
            Some(response) => {
                let mut parts = Vec::new();
                for block in &response.blocks {
                    tell(Who::Assistant, block, &mut parts);
                }
                parts
            }
            None => raw(&String::from_utf8_lossy(&self.whole), ""),
        }
    }

    fn event(&mut self, event: ChatEvent) {
        match event {
            ChatEvent::Open { block, head } => {
                let part = match head {
                    BlockStart::Text => Part::new(Who::Assistant, Kind::Text, "", ""),
                    BlockStart::Reasoning { .. } => {
                        Part::new(Who::Assistant, Kind::Thinking, "", "")
                    }
                    BlockStart::Refusal => Part::new(Who::Assistant, Kind::Refusal, "", ""),
                    BlockStart::ToolCall { name, .. } => {
                        Part::new(Who::Assistant, Kind::Call, &name, "")
                    }
                    BlockStart::Media(media) => {
                        tell(Who::Assistant, &Block::new(BlockKind::Media(media)), &mut self.parts);
                        return;
                    }
                    BlockStart::Foreign { body, .. } => {
                        Part::new(Who::Assistant, Kind::Media, "item", body.text())
                    }
                };
                self.blocks.push((block, self.parts.len()));
                self.parts.push(part);
            }
            ChatEvent::Delta { block, text } => {
                let Some(part) = self
                    .blocks
                    .iter()
                    .rev()
                    .find(|(n, _)| *n == block)
                    .and_then(|(_, at)| self.parts.get_mut(*at))
                else {
                    return;
                };
                part.text.push_str(&text);
                part.chars += text.chars().count() as u64;
                self.bytes += text.len();
                if part.text.len() > ANSWER {
                    let cut = part.text.ceil_char_boundary(part.text.len() - ANSWER / 2);
                    part.text.drain(..cut);
                    self.bytes -= cut;
                }
                self.forget();
            }
            ChatEvent::Close { block } => self.blocks.retain(|(n, _)| *n != block),
            _ => {}
        }
    }

    /// Lets go of the oldest parts where all together are too long.
    fn forget(&mut self) {
        while (self.bytes > ANSWER || self.parts.len() > PARTS) && self.parts.len() > 1 {
            let gone = self.parts.remove(0);
            self.bytes = self.bytes.saturating_sub(gone.text.len());
            self.blocks.retain(|(_, at)| *at > 0);
            for (_, at) in &mut self.blocks {
                *at -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(parts: &[Part]) -> Vec<(Who, Kind, &str, &str)> {
        parts
            .iter()
            .map(|part| (part.who, part.kind, part.name.as_str(), part.text.as_str()))
            .collect()
    }

    #[test]
    fn a_request_is_told_as_the_conversation_it_holds() {
        let body = r#"{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hi"},
            {"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"Bash","arguments":"{}"}}]},
            {"role":"tool","tool_call_id":"1","content":"exit 1"}]}"#;
        let parts = conversation(Dialect::Openai, Op::Chat, body, "");
        let told = said(&parts);
        assert_eq!(
            told[..3],
            [
                (Who::System, Kind::Text, "", "be brief"),
                (Who::User, Kind::Text, "", "hi"),
                (Who::Assistant, Kind::Call, "Bash", "{}")
            ]
        );
        assert_eq!((told[3].0, told[3].1, told[3].3), (Who::Tool, Kind::Result, "exit 1"));
    }

    #[test]
    fn what_cannot_be_read_is_shown_as_it_is() {
        assert_eq!(
            said(&conversation(Dialect::Openai, Op::Chat, "{\"messages\":[", "]}")),
            [
                (Who::Raw, Kind::Text, "", "{\"messages\":["),
                (Who::Gap, Kind::Text, "", ""),
                (Who::Raw, Kind::Text, "", "]}")
            ]
        );
        assert_eq!(
            said(&conversation(Dialect::Gemini, Op::Embed, "x", "")),
            [(Who::Raw, Kind::Text, "", "x")]
        );
    }

    #[test]
    fn a_streamed_answer_grows_with_its_bytes() {
        let mut teller = Teller::new(Dialect::Anthropic, Op::Chat, Some(Framing::Sse));
        let stream = concat!(
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"c\",\"content\":[],\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\n",
            "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"thinking\",\"thinking\":\"\"}}\n\n",
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"hm\"}}\n\n",
            "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
            "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"text_delta\",\"text\":\"hel\"}}\n\n",
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"text_delta\",\"text\":\"lo\"}}\n\n",
        );
        for piece in stream.as_bytes().chunks(7) {
            teller.feed(&Bytes::copy_from_slice(piece));
        }
        let parts = teller.parts();
        assert_eq!(
            said(&parts),
            [(Who::Assistant, Kind::Thinking, "", "hm"), (Who::Assistant, Kind::Text, "", "hello")]
        );
    }

    #[test]
    fn an_endless_answer_is_held_to_its_newest_text() {
        let mut teller = Teller::new(Dialect::Openai, Op::Chat, Some(Framing::Sse));
        let text = "0123456789".repeat(1_000);
        let event = Bytes::from(format!(
            "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
        ));
        for _ in 0..100 {
            teller.feed(&event);
        }
        let parts = teller.parts();
        assert_eq!(parts.len(), 1);
        assert!(
            parts[0].text.len() <= ANSWER && parts[0].chars == 1_000_000,
            "{} {}",
            parts[0].text.len(),
            parts[0].chars
        );
    }

    #[test]
    fn an_answer_in_one_piece_is_read_when_it_is_there() {
        let mut teller = Teller::new(Dialect::Openai, Op::Chat, None);
        teller.feed(&Bytes::from_static(
            br#"{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}]}"#,
        ));
        assert_eq!(said(&teller.parts()), [(Who::Assistant, Kind::Text, "", "hello")]);
    }
}
