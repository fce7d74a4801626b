//! Reads a conversation from the bytes of a request or a response, for viewers.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    base::json::reader,
    dialect::{self, AttemptContext, Framing, event_decoder::EventDecoder, registry},
    ir::{
        block::{Block, BlockKind, MediaKind, MediaSource},
        event::{BlockStart, ChatEvent},
        op::{Dialect, Op},
        request::Role,
    },
};

/// Maximum characters shown of one part, from its beginning; a screen needs no more.
const MAX_PART_CHARS: usize = 8_000;
/// Maximum parts shown of a conversation: the newest.
const MAX_PARTS: usize = 200;
/// Maximum bytes shown of a response's text: the newest.
const MAX_RESPONSE_BYTES: usize = 256 << 10;

/// The author of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Speaker {
    Assistant,
    /// Part of the text is missing here.
    Gap,
    /// Bytes that are not a conversation, unchanged.
    Raw,
    System,
    Tool,
    User,
}

/// The kind of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartKind {
    /// A tool call; `name` is the tool's name.
    Call,
    Media,
    Refusal,
    Result,
    Text,
    Thinking,
}

/// One part of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TranscriptPart {
    #[serde(rename = "who")]
    pub speaker: Speaker,
    pub kind: PartKind,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub text: String,
    /// Characters of the whole text; more than `text` has if that was cut.
    pub chars: u64,
}

impl TranscriptPart {
    fn new(speaker: Speaker, kind: PartKind, name: &str, text: &str) -> Self {
        let end = text.char_indices().nth(MAX_PART_CHARS).map_or(text.len(), |(at, _)| at);
        Self {
            speaker,
            kind,
            name: name.chars().take(100).collect(),
            text: text[..end].to_owned(),
            chars: text.chars().count() as u64,
        }
    }
}

/// Reads the conversation of a request body; returns the raw bytes if it is not readable as one.
#[must_use]
pub fn read_conversation(dialect: Dialect, op: Op, head: &str, tail: &str) -> Vec<TranscriptPart> {
    if !tail.is_empty() || !matches!(op, Op::Chat | Op::Completions | Op::CountTokens) {
        return raw_parts(head, tail);
    }
    let Ok(body) = reader::parse(head.as_bytes()) else { return raw_parts(head, tail) };
    let endpoint = match dialect {
        _ if op == Op::Completions => dialect::ChatEndpoint::Completions,
        Dialect::Ollama if body.get("messages").is_none() => dialect::ChatEndpoint::Generate,
        _ => dialect::ChatEndpoint::Chat,
    };
    let Ok(request) = registry::ingress(dialect).read_request(endpoint, head.as_bytes()) else {
        return raw_parts(head, tail);
    };
    let mut parts = Vec::new();
    for block in &request.system {
        push_block(Speaker::System, block, &mut parts);
    }
    for message in &request.messages {
        let speaker = match message.role {
            Role::Assistant => Speaker::Assistant,
            Role::System => Speaker::System,
            Role::User => Speaker::User,
        };
        for block in &message.blocks {
            push_block(speaker, block, &mut parts);
        }
    }
    if parts.len() > MAX_PARTS {
        // The first part, which precedes the conversation, and the newest ones remain.
        parts.drain(1..=parts.len() - MAX_PARTS);
        parts.insert(1, TranscriptPart::new(Speaker::Gap, PartKind::Text, "", ""));
    }
    parts
}

/// Returns the bytes unchanged, with the gap between beginning and end.
#[must_use]
pub fn raw_parts(head: &str, tail: &str) -> Vec<TranscriptPart> {
    let piece = |text: &str| {
        let end = text.floor_char_boundary(MAX_RESPONSE_BYTES / 2);
        TranscriptPart {
            speaker: Speaker::Raw,
            kind: PartKind::Text,
            name: String::new(),
            text: text[..end].to_owned(),
            chars: text.chars().count() as u64,
        }
    };
    match (head.is_empty(), tail.is_empty()) {
        (true, true) => Vec::new(),
        (_, true) => vec![piece(head)],
        _ => vec![
            piece(head),
            TranscriptPart::new(Speaker::Gap, PartKind::Text, "", ""),
            piece(tail),
        ],
    }
}

fn push_block(speaker: Speaker, block: &Block, parts: &mut Vec<TranscriptPart>) {
    let part = match &block.kind {
        BlockKind::Text(text) => TranscriptPart::new(speaker, PartKind::Text, "", &text.text),
        BlockKind::Reasoning(thought) => {
            TranscriptPart::new(speaker, PartKind::Thinking, "", &thought.text)
        }
        BlockKind::Refusal(text) => TranscriptPart::new(speaker, PartKind::Refusal, "", text),
        BlockKind::ToolCall(call) => {
            TranscriptPart::new(speaker, PartKind::Call, &call.name, &call.arguments)
        }
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
            let mut part = TranscriptPart::new(speaker, PartKind::Media, kind, &text);
            part.chars = part.chars.max(size as u64);
            part
        }
        BlockKind::ToolResult(result) => {
            let name = result.name.as_deref().unwrap_or_default();
            for inner in &result.content {
                let mut inner_parts = Vec::new();
                push_block(Speaker::Tool, inner, &mut inner_parts);
                parts.extend(inner_parts.into_iter().map(|mut part| {
                    if part.kind == PartKind::Text {
                        part.kind = PartKind::Result;
                        name.clone_into(&mut part.name);
                    }
                    part
                }));
            }
            return;
        }
        BlockKind::Foreign { body, .. } => {
            TranscriptPart::new(speaker, PartKind::Media, "item", body.text())
        }
    };
    parts.push(part);
}

/// Reads a response as it arrives, and stores the newest parts.
pub struct TranscriptReader {
    dialect: Dialect,
    op: Op,
    decoder: Option<EventDecoder>,
    parts: Vec<TranscriptPart>,
    /// The part of each open block.
    open_blocks: Vec<(u32, usize)>,
    /// A response that is not streamed is read when it is complete.
    buffer: Vec<u8>,
    text_bytes: usize,
}

impl TranscriptReader {
    /// `framing`: how the response is streamed; `None` if it is not.
    #[must_use]
    pub fn new(dialect: Dialect, op: Op, framing: Option<Framing>) -> Self {
        let chat = op == Op::Chat || (op == Op::Completions && framing.is_none());
        let decoder = framing.filter(|_| chat).map(|framing| {
            EventDecoder::new(
                framing,
                registry::egress(dialect).stream_reader(&AttemptContext::default()),
                false,
            )
        });
        Self {
            dialect,
            op,
            decoder,
            parts: Vec::new(),
            open_blocks: Vec::new(),
            buffer: Vec::new(),
            text_bytes: 0,
        }
    }

    /// Reads more of the response.
    pub fn feed(&mut self, bytes: &Bytes) {
        let Some(reading) = &mut self.decoder else {
            let remaining = (2 * MAX_RESPONSE_BYTES).saturating_sub(self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..bytes.len().min(remaining)]);
            return;
        };
        let mut events = Vec::new();
        reading.feed(bytes, &mut events);
        for event in events {
            self.apply_event(event);
        }
    }

    /// Marks missing bytes.
    pub fn push_gap(&mut self) {
        self.parts.push(TranscriptPart::new(Speaker::Gap, PartKind::Text, "", ""));
        self.open_blocks.clear();
    }

    /// Returns the parts so far.
    #[must_use]
    pub fn parts(&self) -> Vec<TranscriptPart> {
        if self.buffer.is_empty() {
            return self.parts.clone();
        }
        let read = (self.op == Op::Chat || self.op == Op::Completions)
            .then(|| {
                registry::egress(self.dialect)
                    .read_response("application/json", &self.buffer, &AttemptContext::default())
                    .ok()
            })
            .flatten();
        match read {
            Some(response) => {
                let mut parts = Vec::new();
                for block in &response.blocks {
                    push_block(Speaker::Assistant, block, &mut parts);
                }
                parts
            }
            None => raw_parts(&String::from_utf8_lossy(&self.buffer), ""),
        }
    }

    fn apply_event(&mut self, event: ChatEvent) {
        match event {
            ChatEvent::Open { block, head } => {
                let part = match head {
                    BlockStart::Text => {
                        TranscriptPart::new(Speaker::Assistant, PartKind::Text, "", "")
                    }
                    BlockStart::Reasoning { .. } => {
                        TranscriptPart::new(Speaker::Assistant, PartKind::Thinking, "", "")
                    }
                    BlockStart::Refusal => {
                        TranscriptPart::new(Speaker::Assistant, PartKind::Refusal, "", "")
                    }
                    BlockStart::ToolCall { name, .. } => {
                        TranscriptPart::new(Speaker::Assistant, PartKind::Call, &name, "")
                    }
                    BlockStart::Media(media) => {
                        push_block(
                            Speaker::Assistant,
                            &Block::new(BlockKind::Media(media)),
                            &mut self.parts,
                        );
                        return;
                    }
                    BlockStart::Foreign { body, .. } => TranscriptPart::new(
                        Speaker::Assistant,
                        PartKind::Media,
                        "item",
                        body.text(),
                    ),
                };
                self.open_blocks.push((block, self.parts.len()));
                self.parts.push(part);
            }
            ChatEvent::Delta { block, text } => {
                let Some(part) = self
                    .open_blocks
                    .iter()
                    .rev()
                    .find(|(n, _)| *n == block)
                    .and_then(|(_, at)| self.parts.get_mut(*at))
                else {
                    return;
                };
                part.text.push_str(&text);
                part.chars += text.chars().count() as u64;
                self.text_bytes += text.len();
                if part.text.len() > MAX_RESPONSE_BYTES {
                    let cut =
                        part.text.ceil_char_boundary(part.text.len() - MAX_RESPONSE_BYTES / 2);
                    part.text.drain(..cut);
                    self.text_bytes -= cut;
                }
                self.evict_oldest();
            }
            ChatEvent::Close { block } => self.open_blocks.retain(|(n, _)| *n != block),
            _ => {}
        }
    }

    /// Drops the oldest parts if all parts together are too long.
    fn evict_oldest(&mut self) {
        while (self.text_bytes > MAX_RESPONSE_BYTES || self.parts.len() > MAX_PARTS)
            && self.parts.len() > 1
        {
            let gone = self.parts.remove(0);
            self.text_bytes = self.text_bytes.saturating_sub(gone.text.len());
            self.open_blocks.retain(|(_, at)| *at > 0);
            for (_, at) in &mut self.open_blocks {
                *at -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(parts: &[TranscriptPart]) -> Vec<(Speaker, PartKind, &str, &str)> {
        parts
            .iter()
            .map(|part| (part.speaker, part.kind, part.name.as_str(), part.text.as_str()))
            .collect()
    }

    #[test]
    fn request_is_shown_as_its_conversation() {
        let body = r#"{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hi"},
            {"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"Bash","arguments":"{}"}}]},
            {"role":"tool","tool_call_id":"1","content":"exit 1"}]}"#;
        let parts = read_conversation(Dialect::Openai, Op::Chat, body, "");
        let reported = reply(&parts);
        assert_eq!(
            reported[..3],
            [
                (Speaker::System, PartKind::Text, "", "be brief"),
                (Speaker::User, PartKind::Text, "", "hi"),
                (Speaker::Assistant, PartKind::Call, "Bash", "{}")
            ]
        );
        assert_eq!(
            (reported[3].0, reported[3].1, reported[3].3),
            (Speaker::Tool, PartKind::Result, "exit 1")
        );
    }

    #[test]
    fn unreadable_bodies_are_shown_raw() {
        assert_eq!(
            reply(&read_conversation(Dialect::Openai, Op::Chat, "{\"messages\":[", "]}")),
            [
                (Speaker::Raw, PartKind::Text, "", "{\"messages\":["),
                (Speaker::Gap, PartKind::Text, "", ""),
                (Speaker::Raw, PartKind::Text, "", "]}")
            ]
        );
        assert_eq!(
            reply(&read_conversation(Dialect::Gemini, Op::Embed, "x", "")),
            [(Speaker::Raw, PartKind::Text, "", "x")]
        );
    }

    #[test]
    fn transcript_of_a_stream_grows_with_its_bytes() {
        let mut teller = TranscriptReader::new(Dialect::Anthropic, Op::Chat, Some(Framing::Sse));
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
            reply(&parts),
            [
                (Speaker::Assistant, PartKind::Thinking, "", "hm"),
                (Speaker::Assistant, PartKind::Text, "", "hello")
            ]
        );
    }

    #[test]
    fn endless_answer_is_limited_to_its_newest_text() {
        let mut teller = TranscriptReader::new(Dialect::Openai, Op::Chat, Some(Framing::Sse));
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
            parts[0].text.len() <= MAX_RESPONSE_BYTES && parts[0].chars == 1_000_000,
            "{} {}",
            parts[0].text.len(),
            parts[0].chars
        );
    }

    #[test]
    fn whole_answer_is_read_when_complete() {
        let mut teller = TranscriptReader::new(Dialect::Openai, Op::Chat, None);
        teller.feed(&Bytes::from_static(
            br#"{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}]}"#,
        ));
        assert_eq!(reply(&teller.parts()), [(Speaker::Assistant, PartKind::Text, "", "hello")]);
    }
}
