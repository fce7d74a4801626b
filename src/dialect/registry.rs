//! Maps each dialect to its two halves; no other module names all dialects.

use crate::{
    dialect::{
        anthropic::Anthropic, egress::Egress, gemini::Gemini, ingress::Ingress, ollama::Ollama,
        openai::Openai, responses::Responses,
    },
    ir::op::Dialect,
};

/// The half that faces clients.
#[must_use]
pub fn ingress(dialect: Dialect) -> &'static dyn Ingress {
    match dialect {
        Dialect::Anthropic => &Anthropic,
        Dialect::Gemini => &Gemini,
        Dialect::Ollama => &Ollama,
        Dialect::Openai => &Openai,
        Dialect::Responses => &Responses,
    }
}

/// The half that faces upstreams.
#[must_use]
pub fn egress(dialect: Dialect) -> &'static dyn Egress {
    match dialect {
        Dialect::Anthropic => &Anthropic,
        Dialect::Gemini => &Gemini,
        Dialect::Ollama => &Ollama,
        Dialect::Openai => &Openai,
        Dialect::Responses => &Responses,
    }
}
