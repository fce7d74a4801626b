//! How a response is to be generated.

use crate::base::json::raw::RawJson;

/// Sampling, limits, formats and preferences. Numbers that are only forwarded retain their text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationSettings {
    pub max_tokens: Option<u64>,
    pub temperature: Option<RawJson>,
    pub top_p: Option<RawJson>,
    pub top_k: Option<RawJson>,
    pub min_p: Option<RawJson>,
    pub frequency_penalty: Option<RawJson>,
    pub presence_penalty: Option<RawJson>,
    pub repetition_penalty: Option<RawJson>,
    pub stop: Vec<String>,
    pub seed: Option<RawJson>,
    /// How many choices; other dialects return one.
    pub n: Option<u64>,
    pub logprobs: Option<bool>,
    pub top_logprobs: Option<u64>,
    pub format: Option<ResponseFormat>,
    pub reasoning: Option<ReasoningSettings>,
    /// `low`, `medium`, `high`: how wordy the response is to be.
    pub verbosity: Option<String>,
    pub service_tier: Option<String>,
    /// The end user, for abuse detection.
    pub user: Option<String>,
    /// Key-value pairs for the provider's own records.
    pub metadata: Option<RawJson>,
    pub prompt_cache_key: Option<String>,
    pub parallel_tools: Option<bool>,
}

/// The form of the response's text.
#[derive(Clone, Debug, PartialEq)]
pub enum ResponseFormat {
    Text,
    Json,
    Schema {
        name: Option<String>,
        description: Option<String>,
        schema: RawJson,
        strict: Option<bool>,
    },
}

/// How much the model reasons, and how much of the reasoning is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReasoningSettings {
    /// `Some(false)`: no reasoning.
    pub enabled: Option<bool>,
    pub effort: Option<Effort>,
    /// Tokens.
    pub budget_tokens: Option<u64>,
    /// Whether the provider chooses the amount (Anthropic `adaptive`, Gemini budget -1).
    pub adaptive: bool,
    /// Whether reasoning is shown (Gemini `includeThoughts`, Responses `summary`).
    pub show_thoughts: Option<bool>,
    /// Responses: `auto`, `concise`, `detailed`.
    pub summary: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    XHigh,
    Max,
}

impl Effort {
    /// Every effort with its word, the smallest first.
    pub(crate) const NAMES_AND_VALUES: [(&'static str, Self); 7] = [
        ("none", Self::None),
        ("minimal", Self::Minimal),
        ("low", Self::Low),
        ("medium", Self::Medium),
        ("high", Self::High),
        ("xhigh", Self::XHigh),
        ("max", Self::Max),
    ];

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES_AND_VALUES
            .into_iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, effort)| effort)
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES_AND_VALUES
            .into_iter()
            .find(|(_, effort)| *effort == self)
            .map_or("medium", |(name, _)| name)
    }

    /// Returns the effort that corresponds to a token budget.
    #[must_use]
    pub fn from_budget_tokens(tokens: u64) -> Self {
        match tokens {
            0 => Self::None,
            1..=2_048 => Self::Low,
            2_049..=12_288 => Self::Medium,
            12_289..=40_000 => Self::High,
            _ => Self::XHigh,
        }
    }

    /// Returns the token budget that corresponds to an effort.
    #[must_use]
    pub fn budget_tokens(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Minimal => 1_024,
            Self::Low => 2_048,
            Self::Medium => 8_192,
            Self::High => 24_576,
            Self::XHigh => 49_152,
            Self::Max => 63_999,
        }
    }
}

impl ReasoningSettings {
    /// Returns the requested effort, given directly or as a budget.
    #[must_use]
    pub fn effective_effort(&self) -> Option<Effort> {
        if self.enabled == Some(false) {
            return Some(Effort::None);
        }
        self.effort.or_else(|| self.budget_tokens.map(Effort::from_budget_tokens))
    }

    /// Returns the requested budget, given directly or as an effort.
    #[must_use]
    pub fn effective_budget_tokens(&self) -> Option<u64> {
        if self.enabled == Some(false) {
            return Some(0);
        }
        self.budget_tokens.or_else(|| self.effort.map(Effort::budget_tokens))
    }
}
