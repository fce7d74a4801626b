//! Rows of facts about models, as the built-in table and the config state them.

use std::sync::Arc;

use crate::{
    base::pattern::Patterns,
    ir::{model_facts::ModelFacts, op::Dialect},
};

/// Facts that hold for the models, upstreams and dialects that a row names.
#[derive(Clone, Debug)]
pub struct FactsRow {
    /// Names of models, in lower case.
    pub names: Patterns,
    /// Names of upstreams; `None` means all.
    pub upstreams: Option<Patterns>,
    /// Names of presets; `None` means all, also upstreams without a preset.
    pub providers: Option<Patterns>,
    /// The dialects in which the upstream is asked; empty means all.
    pub dialects: Vec<Dialect>,
    pub facts: ModelFacts,
    pub source: Arc<FactSource>,
}

/// Where a fact was stated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FactSource {
    /// The names of models that the row matches, as written.
    pub patterns: Vec<String>,
    /// The page, or the user's own note.
    pub page: String,
    /// The day on which the page was read.
    pub date: String,
    pub origin: FactOrigin,
}

/// Who stated a fact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FactOrigin {
    #[default]
    BuiltIn,
    Config,
    /// An upstream refused something.
    Learned,
}

impl FactOrigin {
    /// Returns the word that users see.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BuiltIn => "built-in",
            Self::Config => "config",
            Self::Learned => "learned",
        }
    }
}
