//! Defines the input of a routing decision, and the decision with the reason for each candidate.

use std::{fmt, sync::Arc};

use super::{
    affinity::AffinityHint,
    candidate::{BudgetBlock, Candidate, MissingCapability},
    outcome::CooldownClass,
};
use crate::{
    base::{clock::Mono, units::print_span},
    config::settings::{KeyId, Strategy, UpstreamId},
    ir::reason::{failure::FailureReason, missing_secret::MissingSecret},
};

/// An earlier failed attempt of the same request.
#[derive(Clone, Debug)]
pub struct FailedAttempt {
    pub key: KeyId,
    pub upstream: UpstreamId,
    pub model: Arc<str>,
    /// The fault may pass: if no other candidate is left, this one may be tried again after a
    /// pause.
    pub may_recover: bool,
    /// The upstream failed, independently of the key.
    pub upstream_failed: bool,
    /// The upstream asks not to be sent this request again.
    pub upstream_refuses: bool,
}

/// The input of a decision.
#[derive(Clone, Copy, Debug)]
pub struct RouteQuery<'a> {
    pub candidates: &'a [Candidate],
    pub failed_attempts: &'a [FailedAttempt],
    pub strategy: Strategy,
    /// Estimated input tokens; large requests are not used as probes.
    pub input_estimate: u64,
    /// The maximum number of output tokens that the client allows; 0 if the response has no output
    /// tokens.
    pub max_output: u64,
    /// The cost of the request at each candidate, in billionths of a dollar; empty if it was not
    /// computed.
    pub costs: &'a [Option<f64>],
    /// Upstreams in this region are preferred among equals; empty means no preference.
    pub region: &'a str,
    /// The account that served the conversation before.
    pub affinity: Option<AffinityHint<'a>>,
}

impl<'a> RouteQuery<'a> {
    /// Returns the query for a first attempt of a small request, with the default strategy.
    #[must_use]
    pub fn first_attempt(candidates: &'a [Candidate]) -> Self {
        Self {
            candidates,
            failed_attempts: &[],
            strategy: Strategy::Priority,
            input_estimate: 0,
            max_output: 0,
            costs: &[],
            region: "",
            affinity: None,
        }
    }
}

/// A decision: the verdict, and why each other candidate was skipped. Indices refer to the query's
/// candidates.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub verdict: Verdict,
    pub skipped: Vec<(usize, SkipReason)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Try this candidate now. `probe`: the attempt tests a scope after a cooldown, and other
    /// requests wait for its result.
    Try { index: usize, reason: ChoiceReason, probe: bool },
    /// Only candidates that already failed in this request are left, and the fault may pass: try
    /// the same one again after a pause.
    RetrySame { index: usize },
    /// All candidates are blocked for now. `until` is the earliest end, or `None` while a probe is
    /// pending.
    Wait { until: Option<Mono> },
    /// No enabled candidate is left to try. `retry_at` is when the earliest blocked candidate
    /// returns, if any.
    Exhausted { retry_at: Option<Mono> },
}

impl Verdict {
    /// Returns the verdict in words.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Try { reason: ChoiceReason::Only, .. } => "the only candidate ready".to_owned(),
            Self::Try { reason: ChoiceReason::Best { tier, ready_count: of }, .. } => {
                format!("the best of {of} ready in tier {}", tier.0)
            }
            Self::Try { reason: ChoiceReason::Affinity { .. }, .. } => {
                "where its conversation was served before".to_owned()
            }
            Self::Try { reason: ChoiceReason::Probe, .. } => {
                "a probe after its cooldown".to_owned()
            }
            Self::Try { reason: ChoiceReason::LeastSuspect, .. } => {
                "nothing is ready: the least suspect".to_owned()
            }
            Self::RetrySame { .. } => "the only one left".to_owned(),
            Self::Wait { .. } => "everything is blocked for now".to_owned(),
            Self::Exhausted { .. } => "no key can serve this just now".to_owned(),
        }
    }
}

/// Why the chosen candidate was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChoiceReason {
    /// The only candidate that is ready.
    Only,
    /// The best of its tier by the strategy.
    Best { tier: (u32, u32), ready_count: usize },
    /// The conversation was served here before; the field says whether a better tier is ready.
    Affinity { better_tier_ready: bool },
    /// One request is let through after a cooldown.
    Probe,
    /// No candidate is ready, so the least suspect one is tried.
    LeastSuspect,
}

/// Why a candidate was skipped.
#[derive(Clone, Debug, PartialEq)]
pub enum SkipReason {
    /// In cooldown: its end, and the failure that caused it.
    Cooling {
        until: Mono,
        cause: Arc<FailureReason>,
        scope: ScopeKind,
        /// The class of the failure: distinguishes "rate limited" from "out of money" and "no such
        /// model".
        class: CooldownClass,
    },
    Disabled,
    AlreadyFailed,
    LowerTier,
    KeyMissing(Arc<MissingSecret>),
    NotPicked,
    /// Ready, but others are in the preferred region.
    OtherRegion,
    /// A budget denies the attempt.
    OverBudget(Arc<BudgetBlock>),
    OverLimit {
        limit_name: &'static str,
    },
    /// A probe is in flight.
    Probing,
    /// The provider reported that too little of a limit is left for this request.
    NearLimit {
        limit_name: &'static str,
        remaining: u64,
        until: Mono,
    },
    /// The key was rejected.
    Rejected {
        cause: Arc<FailureReason>,
    },
    /// The model cannot take this request, and another one can.
    MissingCapability(MissingCapability),
    /// The secret is still being read.
    WaitingForKey,
}

/// The scope that a health state covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ScopeKind {
    Account,
    Key,
    KeyModel,
    Upstream,
}

impl SkipReason {
    /// Returns the sentence for `route`, the Request screen and errors; `now` turns instants into
    /// spans.
    #[must_use]
    pub fn text(&self, now: Mono) -> String {
        match self {
            Self::Cooling { until, cause, scope, .. } => {
                format!("{} cools for {}: {cause}", scope.name(), print_span(until.since(now)))
            }
            Self::Disabled => "disabled".to_owned(),
            Self::AlreadyFailed => "already failed in this request".to_owned(),
            Self::LowerTier => "a lower tier".to_owned(),
            Self::KeyMissing(reason) => reason.to_string(),
            Self::NotPicked => "ready, another was drawn".to_owned(),
            Self::OtherRegion => "ready, in another region".to_owned(),
            Self::OverBudget(over) => match over.until {
                Some(until) => format!("{}; again in {}", over.text, print_span(until.since(now))),
                None => over.text.clone(),
            },
            Self::OverLimit { limit_name: what } => format!("over its {what}"),
            Self::NearLimit { limit_name: what, remaining, until } => {
                format!(
                    "has {remaining} {what} left at the provider for {}, too few for this request",
                    print_span(until.since(now))
                )
            }
            Self::Probing => "a probe is under way".to_owned(),
            Self::Rejected { cause } => format!("rejected: {cause}"),
            Self::MissingCapability(MissingCapability::Context {
                required: needs,
                limit: holds,
            }) => {
                format!(
                    "the request needs about {needs} tokens of context, its model holds {holds}"
                )
            }
            Self::MissingCapability(MissingCapability::Schema) => {
                "its model cannot be bound to a JSON schema".to_owned()
            }
            Self::MissingCapability(MissingCapability::Tools) => {
                "its model takes no tools".to_owned()
            }
            Self::MissingCapability(MissingCapability::Vision) => {
                "its model sees no pictures".to_owned()
            }
            Self::WaitingForKey => "its key is still being read".to_owned(),
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
