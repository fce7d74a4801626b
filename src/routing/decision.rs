//! Defines the input of a routing decision, and the decision with the reason for each candidate.

use std::sync::Arc;

use super::{affinity::AffinityHint, candidate::Candidate};
use crate::{
    base::clock::Mono,
    config::settings::{KeyId, Strategy, UpstreamId},
};

pub use crate::ir::reason::{
    route::ChoiceReason,
    skip::{ScopeKind, SkipReason},
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
    /// When it was made; the spans of the reasons count from here.
    pub at: Mono,
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
