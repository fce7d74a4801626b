//! Where an upstream is, and how a credential travels there.

use crate::ir::op::Dialect;

/// One native dialect and its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialectEndpoint {
    pub dialect: Dialect,
    /// Normalised, no trailing slash: `https://api.openai.com/v1`. `demo:` for the built-in
    /// upstream.
    pub base_url: String,
    /// Added to every request (`api-version=…`), without `?`.
    pub query: Option<String>,
}

/// How a credential travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer KEY`
    Bearer,
    /// The named header contains the bare key (`x-api-key`, `x-goog-api-key`, `api-key`).
    Header(String),
    /// No credential.
    None,
}

impl Auth {
    /// Returns how a credential travels by default.
    pub(in crate::config) fn of_dialect(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Anthropic => Self::Header("x-api-key".to_owned()),
            Dialect::Gemini => Self::Header("x-goog-api-key".to_owned()),
            Dialect::Ollama | Dialect::Openai | Dialect::Responses => Self::Bearer,
        }
    }
}
