//! Dialects and operations.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A wire protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    Anthropic,
    Gemini,
    Ollama,
    Openai,
    Responses,
}

impl Dialect {
    pub const ALL: [Self; 5] =
        [Self::Anthropic, Self::Gemini, Self::Ollama, Self::Openai, Self::Responses];

    /// Returns the name in config, logs and events.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Ollama => "ollama",
            Self::Openai => "openai",
            Self::Responses => "responses",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.name() == name)
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The operation that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Speech, transcription, translation.
    Audio,
    /// A conversation: chat completions, responses, messages, generateContent, Ollama chat and
    /// generate.
    Chat,
    /// The legacy prompt-in, text-out endpoint.
    Completions,
    CountTokens,
    Embed,
    Image,
    /// A call of an MCP tool.
    Mcp,
    /// One model's card (`/api/show`).
    ModelCard,
    Moderate,
    /// Anything under `/u/UPSTREAM/`.
    Raw,
    Rerank,
    /// Stored responses: get, delete, cancel, input items, compact, input tokens.
    Stored,
}

impl Op {
    pub const ALL: [Self; 12] = [
        Self::Audio,
        Self::Chat,
        Self::Completions,
        Self::CountTokens,
        Self::Embed,
        Self::Image,
        Self::Mcp,
        Self::ModelCard,
        Self::Moderate,
        Self::Raw,
        Self::Rerank,
        Self::Stored,
    ];

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.name() == name)
    }

    /// Whether a model generates something: such operations count as requests and cost money.
    #[must_use]
    pub fn generates(self) -> bool {
        !matches!(self, Self::CountTokens | Self::Mcp | Self::ModelCard | Self::Raw | Self::Stored)
    }

    /// Whether totals count it: a model generates something, or the call has a price of its own.
    #[must_use]
    pub fn is_counted(self) -> bool {
        self.generates() || self == Self::Mcp
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::CountTokens => "count_tokens",
            Self::Embed => "embed",
            Self::Image => "image",
            Self::Mcp => "mcp",
            Self::ModelCard => "model_card",
            Self::Moderate => "moderate",
            Self::Raw => "raw",
            Self::Rerank => "rerank",
            Self::Stored => "stored",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
