//! Rerank requests and responses (documents ordered by relevance to a query), neutral of any
//! dialect.

use crate::{
    base::json::raw::RawJson,
    ir::{extras::Extras, usage::Usage},
};

/// The wire form of a rerank request and its response; no dialect has one of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RerankForm {
    /// `top_n`, with `results` and `usage` in the response: the common form.
    #[default]
    Results,
    /// `top_n`, `rank_fields`, with `results` and `meta` in the response. The first version of this
    /// form returns documents.
    Meta,
    /// The second version of this form: texts only, and no documents in the response.
    MetaTexts,
    /// `top_k`, with `data` and `usage` in the response.
    Data,
    /// `texts`, with a bare list of scores as response.
    Scores,
}

/// A parsed request. It does not contain the model name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RerankRequest {
    /// The form of the request, and so of the response.
    pub form: RerankForm,
    pub query: String,
    /// Texts or objects, verbatim.
    pub documents: Vec<RawJson>,
    pub top_n: Option<u64>,
    pub return_documents: Option<bool>,
    /// Whether too long documents are truncated rather than refused.
    pub truncate: Option<bool>,
    pub extras: Extras,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RerankResponse {
    /// The upstream's own id; empty if absent.
    pub id: String,
    pub model: String,
    pub results: Vec<RankedDocument>,
    pub usage: Option<Usage>,
    /// The unit that some providers bill instead of tokens.
    pub search_units: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RankedDocument {
    /// Index of the document, from 0.
    pub index: u64,
    /// A number, as its upstream wrote it.
    pub score: RawJson,
}
