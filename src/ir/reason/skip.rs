//! Why a candidate was skipped.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::ir::{
    op::Dialect,
    rate_limit::LimitKind,
    reason::{
        budget::BudgetBlock,
        failure::{CooldownClass, FailureReason},
        missing_secret::MissingSecret,
        span::Span,
    },
};

/// Why a candidate was skipped. Spans count from the decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SkipReason {
    AlreadyFailed,
    /// In cooldown: its rest, and the failure that caused it.
    Cooling {
        #[serde(rename = "rest_ms")]
        rest: Span,
        cause: Arc<FailureReason>,
        scope: ScopeKind,
        /// The class of the failure: distinguishes "rate limited" from "out of money" and "no such
        /// model".
        class: CooldownClass,
    },
    Disabled,
    KeyMissing {
        secret: Arc<MissingSecret>,
    },
    LowerTier,
    /// The model cannot take this request, and another one can.
    MissingCapability {
        missing: MissingCapability,
    },
    /// The provider reported that too little of a limit is left for this request.
    NearLimit {
        limit: LimitKind,
        remaining: u64,
        #[serde(rename = "rest_ms")]
        rest: Span,
    },
    NotPicked,
    /// Its endpoint does not have the client's dialect, and the request cannot be translated.
    OtherDialect {
        dialect: Dialect,
    },
    /// Ready, but others are in the preferred region.
    OtherRegion,
    /// A budget denies the attempt.
    OverBudget {
        block: Arc<BudgetBlock>,
    },
    /// A configured limit is used up.
    OverLimit {
        limit: ConfiguredLimit,
    },
    /// A probe is in flight.
    Probing,
    /// The key was rejected.
    Rejected {
        cause: Arc<FailureReason>,
    },
    /// The secret is still being read.
    WaitingForKey,
}

/// The scope that a health state covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeKind {
    Account,
    Key,
    KeyModel,
    Upstream,
}

/// A capability that the model is known to lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MissingCapability {
    /// The context window is too small: tokens needed for input and output, and the model's
    /// maximum.
    Context {
        required: u64,
        limit: u64,
    },
    /// Output that follows a JSON schema.
    Schema,
    Tools,
    Vision,
}

/// A limit of the config. If several limits end at the same time, the last of this list is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfiguredLimit {
    RequestsPerMinute,
    ModelRequestsPerMinute,
    TokensPerMinute,
    ModelTokensPerMinute,
    ConcurrentRequests,
    UpstreamConcurrentRequests,
    UpstreamRequestsPerSecond,
}

impl SkipReason {
    /// Returns the reason as it is some time after the decision: the spans are shorter.
    #[must_use]
    pub fn after(&self, elapsed: Duration) -> Self {
        let mut later = self.clone();
        match &mut later {
            Self::Cooling { rest, .. } | Self::NearLimit { rest, .. } => {
                *rest = Span(rest.0.saturating_sub(elapsed));
            }
            Self::OverBudget { block } => {
                if let BudgetBlock::Spent { again_in: Some(again_in), .. } = Arc::make_mut(block) {
                    *again_in = Span(again_in.0.saturating_sub(elapsed));
                }
            }
            _ => {}
        }
        later
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyFailed => f.write_str("already failed in this request"),
            Self::Cooling { rest, cause, scope, .. } => {
                write!(f, "{} cools for {rest}: {cause}", scope.name())
            }
            Self::Disabled => f.write_str("disabled"),
            Self::KeyMissing { secret } => write!(f, "{secret}"),
            Self::LowerTier => f.write_str("a lower tier"),
            Self::MissingCapability { missing } => write!(f, "{missing}"),
            Self::NearLimit { limit, remaining, rest } => write!(
                f,
                "has {remaining} {} left at the provider for {rest}, too few for this request",
                limit.name()
            ),
            Self::NotPicked => f.write_str("ready, another was drawn"),
            Self::OtherDialect { dialect } => write!(f, "does not speak {dialect} itself"),
            Self::OtherRegion => f.write_str("ready, in another region"),
            Self::OverBudget { block } => write!(f, "{block}"),
            Self::OverLimit { limit } => write!(f, "over its {}", limit.text()),
            Self::Probing => f.write_str("a probe is under way"),
            Self::Rejected { cause } => write!(f, "rejected: {cause}"),
            Self::WaitingForKey => f.write_str("its key is still being read"),
        }
    }
}

impl fmt::Display for MissingCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Context { required, limit } => write!(
                f,
                "the request needs about {required} tokens of context, its model holds {limit}"
            ),
            Self::Schema => f.write_str("its model cannot be bound to a JSON schema"),
            Self::Tools => f.write_str("its model takes no tools"),
            Self::Vision => f.write_str("its model sees no pictures"),
        }
    }
}

impl ScopeKind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Key => "key",
            Self::KeyModel => "key for this model",
            Self::Upstream => "upstream",
        }
    }
}

impl fmt::Display for ScopeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ConfiguredLimit {
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::ConcurrentRequests => "requests at once",
            Self::ModelRequestsPerMinute => "requests per minute for this model",
            Self::ModelTokensPerMinute => "tokens per minute for this model",
            Self::RequestsPerMinute => "requests per minute",
            Self::TokensPerMinute => "tokens per minute",
            Self::UpstreamConcurrentRequests => "requests at once of the upstream",
            Self::UpstreamRequestsPerSecond => "requests per second of the upstream",
        }
    }
}
