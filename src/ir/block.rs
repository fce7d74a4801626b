//! A message is made of blocks.

use crate::{
    base::json::raw::RawJson,
    ir::{extras::Extras, op::Dialect},
};

/// One part of a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    pub kind: BlockKind,
    /// What proves to its provider that it said this; opaque, never re-encoded.
    pub signature: Option<ReasoningSignature>,
    /// A prompt-cache breakpoint after this block.
    pub cache: Option<CacheBreakpoint>,
    pub extras: Extras,
}

impl Block {
    #[must_use]
    pub fn new(kind: BlockKind) -> Self {
        Self { kind, signature: None, cache: None, extras: Extras::default() }
    }

    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(BlockKind::Text(TextBlock { text: text.into(), citations: Vec::new() }))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum BlockKind {
    Text(TextBlock),
    Media(Media),
    /// What the model thought; empty text with a proof is a redacted thought.
    Reasoning(Reasoning),
    /// A call that the client must carry out.
    ToolCall(ToolCall),
    ToolResult(ToolResult),
    /// The model's words where it declines, in dialects that tell them apart from text.
    Refusal(String),
    /// A block that only its dialect knows: server tools and their results, executed code, item
    /// references.
    Foreign {
        dialect: Dialect,
        body: RawJson,
    },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextBlock {
    pub text: String,
    pub citations: Vec<Citation>,
}

/// Where a statement comes from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Citation {
    pub url: Option<String>,
    pub title: Option<String>,
    /// The words of the source.
    pub cited_text: Option<String>,
    /// The part of the text block that it supports, in characters; where the dialect tells it.
    pub span: Option<(u64, u64)>,
    /// The citation as its dialect wrote it.
    pub raw: Option<(Dialect, RawJson)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reasoning {
    pub text: String,
    /// Whether the text is a summary of the thought rather than the thought itself (Responses tells
    /// them apart).
    pub summary: bool,
}

/// An opaque token that lets a provider take its own reasoning back.
#[derive(Clone, Debug, PartialEq)]
pub struct ReasoningSignature {
    /// Who understands it.
    pub dialect: Dialect,
    pub kind: SignatureKind,
    pub value: String,
    /// The item's id, where the dialect gives it one (Responses).
    pub id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureKind {
    /// Anthropic `signature`, Gemini `thoughtSignature`: beside readable content.
    Signature,
    /// Responses `encrypted_content`; `reasoning_details` of OpenAI-like gateways as JSON text.
    Encrypted,
    /// Anthropic `redacted_thinking`: the thought itself is sealed.
    Redacted,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Media {
    pub kind: MediaKind,
    pub source: MediaSource,
    /// `image/png`; known for base64, a guess or absent for URLs.
    pub mime: Option<String>,
    /// File name or title.
    pub name: Option<String>,
    /// OpenAI's `detail`.
    pub detail: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaKind {
    Image,
    Audio,
    /// PDF, plain text.
    Document,
    Video,
    File,
}

#[derive(Clone, Debug, PartialEq)]
pub enum MediaSource {
    /// Base64 as the client wrote it.
    Base64(String),
    Url(String),
    /// A file stored at the provider.
    FileId(String),
    /// A document given as plain text.
    Text(String),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolCall {
    /// Never empty: readers make ids where the dialect has none.
    pub id: String,
    pub name: String,
    /// JSON text of an object as the model wrote it (empty counts as `{}`); for a custom tool its
    /// free text.
    pub arguments: String,
    pub form: CallKind,
}

/// How a call is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallKind {
    #[default]
    Function,
    /// Free text instead of JSON arguments (Responses custom tools).
    Custom,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolResult {
    /// Id of the call.
    pub call: String,
    /// The tool's name, where known; Gemini needs it.
    pub name: Option<String>,
    /// Text and media.
    pub content: Vec<Block>,
    pub is_error: bool,
    pub form: CallKind,
}

/// A prompt-cache breakpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheBreakpoint {
    /// As the dialect wrote it: `{"type":"ephemeral","ttl":"1h"}`.
    pub raw: RawJson,
}
