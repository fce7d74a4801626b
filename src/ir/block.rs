//! Blocks: the parts of a message.

use crate::{
    base::json::raw::RawJson,
    ir::{extras::Extras, op::Dialect},
};

/// One part of a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    pub kind: BlockKind,
    /// Proves to the provider that it produced this block; opaque, never re-encoded.
    pub signature: Option<ReasoningSignature>,
    /// A prompt-cache breakpoint after this block.
    pub cache: Option<CacheBreakpoint>,
    pub extras: Extras,
}

/// The note on a text: its phase (Responses).
pub const PHASE_NOTE: &str = "item.phase";

impl Block {
    /// Returns the phase of a text: `commentary` before calls, or `final_answer` (Responses).
    #[must_use]
    pub fn phase(&self) -> Option<String> {
        self.extras.get(Dialect::Responses, PHASE_NOTE)?.json().string()
    }

    /// Notes the phase of a text, unless other notes of its dialect stand there.
    pub fn set_phase(&mut self, phase: &str) {
        if self.extras.is_blank() {
            self.extras.push_dialect_only(Dialect::Responses, PHASE_NOTE, RawJson::string(phase));
        }
    }

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
    /// Reasoning of the model. Empty text with a signature is redacted reasoning.
    Reasoning(Reasoning),
    /// A call that the client must execute.
    ToolCall(ToolCall),
    ToolResult(ToolResult),
    /// Text of a refusal, in dialects that distinguish refusals from text.
    Refusal(String),
    /// A block that only its dialect has: server tools and their results, executed code, item
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

/// The source of a statement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Citation {
    pub url: Option<String>,
    pub title: Option<String>,
    /// The quoted text of the source.
    pub cited_text: Option<String>,
    /// The part of the text block that it supports, in characters, if the dialect reports it.
    pub span: Option<(u64, u64)>,
    /// The citation as its dialect wrote it.
    pub raw: Option<(Dialect, RawJson)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reasoning {
    pub text: String,
    /// Whether the text is a summary of the reasoning rather than the reasoning itself (Responses
    /// distinguishes them).
    pub summary: bool,
}

/// An opaque token with which a provider accepts its own reasoning back.
#[derive(Clone, Debug, PartialEq)]
pub struct ReasoningSignature {
    /// The dialect that understands it.
    pub dialect: Dialect,
    pub kind: SignatureKind,
    pub value: String,
    /// The item's id, if the dialect assigns one (Responses).
    pub id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureKind {
    /// Anthropic `signature`, Gemini `thoughtSignature`: next to readable content.
    Signature,
    /// Responses `encrypted_content`; `reasoning_details` of OpenAI-like gateways as JSON text.
    Encrypted,
    /// Anthropic `redacted_thinking`: the reasoning itself is encrypted.
    Redacted,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Media {
    pub kind: MediaKind,
    pub source: MediaSource,
    /// `image/png`. Known for base64; a guess or absent for URLs.
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
    /// Never empty: readers generate ids if the dialect has none.
    pub id: String,
    pub name: String,
    /// JSON text of an object as the model wrote it (empty counts as `{}`); for a custom tool, its
    /// free text.
    pub arguments: String,
    pub form: CallKind,
}

/// The form of a call.
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
    /// The tool's name, if known; Gemini needs it.
    pub name: Option<String>,
    /// Text and media.
    pub content: Vec<Block>,
    pub is_error: bool,
    pub form: CallKind,
}

/// A prompt-cache breakpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheBreakpoint {
    /// The breakpoint as the dialect wrote it: `{"type":"ephemeral","ttl":"1h"}`.
    pub raw: RawJson,
}
