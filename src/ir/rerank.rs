//! Documents that are to be put in order by what they say to a query, in nobody's dialect.

use crate::{
    base::json::raw::RawJson,
    ir::{extras::Extras, usage::Usage},
};

/// How it is asked and answered; no dialect has one of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RerankForm {
    /// `top_n`, answered with `results` and `usage`: the common form.
    #[default]
    Results,
    /// `top_n`, `rank_fields`, answered with `results` and `meta`; the first version of it returns
    /// documents.
    Meta,
    /// The second version of it: texts only, nothing returned.
    MetaTexts,
    /// `top_k`, answered with `data` and `usage`.
    Data,
    /// `texts`, answered with a bare list of scores.
    Scores,
}

/// A request, read whole. The model's name is not in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RerankRequest {
    /// How the client asked, and so how it is answered.
    pub form: RerankForm,
    pub query: String,
    /// Texts or objects, as they stood.
    pub documents: Vec<RawJson>,
    pub top_n: Option<u64>,
    pub return_documents: Option<bool>,
    /// Whether documents that are too long are to be cut rather than refused.
    pub truncate: Option<bool>,
    pub extras: Extras,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RerankResponse {
    /// The upstream's own id; empty where it gives none.
    pub id: String,
    pub model: String,
    pub results: Vec<RankedDocument>,
    pub usage: Option<Usage>,
    /// What some bill instead of tokens.
    pub search_units: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RankedDocument {
    /// Which document, counted from 0.
    pub index: u64,
    /// A number, as its upstream wrote it.
    pub score: RawJson,
}
