//! Defines the candidates for a request (targets × keys) and the decision about each of them.

use std::{fmt, sync::Arc, time::Duration};

use super::{affinity::AffinityHint, outcome::CooldownClass};
use crate::{
    base::clock::Mono,
    config::settings::{Auth, KeyId, KeyLimit, Strategy, Upstream, UpstreamId, UpstreamKey},
    ir::op::Dialect,
};

/// An account at the provider. Keys with the same number share limits, quota and money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(pub u32);

/// An upstream and the model under the name that the upstream uses.
#[derive(Clone, Debug)]
pub struct Target {
    pub upstream: Arc<Upstream>,
    pub model: Arc<str>,
    /// The dialect of the endpoint to use: the client's own, or the one to translate to.
    pub dialect: Dialect,
    pub priority: u32,
    pub weight: f64,
}

/// One (target, key) pair; an attempt is one immutable value made of it.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub target: Arc<Target>,
    pub key: KeyId,
    /// `upstream/label`, or the upstream's name if it needs no key.
    pub key_name: Arc<str>,
    pub account: AccountId,
    /// Target priority, then key priority: lower is tried first.
    pub tier: (u32, u32),
    pub key_weight: f64,
    pub key_limit: KeyLimit,
    /// The narrower limit of the key for this model.
    pub model_limit: KeyLimit,
    /// 0 means no limit.
    pub key_max_concurrency: u32,
    /// Whether the key can be used at all, according to config and secrets.
    pub key_state: KeyState,
    /// Why the model cannot take this request, if known.
    pub missing_capability: Option<MissingCapability>,
}

/// A capability that the model is known to lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl Candidate {
    #[must_use]
    pub fn upstream(&self) -> UpstreamId {
        self.target.upstream.id
    }
}

/// The priority of a key whose config sets none; an upstream without keys has the same priority.
const DEFAULT_KEY_PRIORITY: u32 = 10;

/// The id of an upstream without keys in health and limits; real ids count up from zero.
#[must_use]
pub fn keyless_id(upstream: UpstreamId) -> KeyId {
    KeyId(u32::MAX - upstream.0)
}

/// Builds all targets × keys, in config order. `key_info` returns the state of a key's secret, and
/// its account.
#[must_use]
pub fn build_candidates(
    targets: &[Arc<Target>],
    key_info: &dyn Fn(KeyId) -> (KeyState, AccountId),
) -> Vec<Candidate> {
    let mut out =
        Vec::with_capacity(targets.iter().map(|target| target.upstream.keys.len().max(1)).sum());
    for target in targets {
        match &target.upstream.keys[..] {
            [] => out.push(keyless_candidate(target)),
            keys => out.extend(keys.iter().map(|key| keyed_candidate(target, key, key_info))),
        }
    }
    out
}

fn keyed_candidate(
    target: &Arc<Target>,
    key: &UpstreamKey,
    key_info: &dyn Fn(KeyId) -> (KeyState, AccountId),
) -> Candidate {
    let (state, account) = key_info(key.id);
    Candidate {
        target: Arc::clone(target),
        key: key.id,
        key_name: Arc::clone(&key.name),
        account,
        tier: (target.priority, key.priority),
        key_weight: key.weight,
        key_limit: key.limit,
        model_limit: key.limit_for(&target.model),
        key_max_concurrency: key.max_concurrency,
        key_state: if key.enabled && target.upstream.enabled { state } else { KeyState::Disabled },
        missing_capability: None,
    }
}

fn keyless_candidate(target: &Arc<Target>) -> Candidate {
    let upstream = &target.upstream;
    let key = keyless_id(upstream.id);
    let key_state = match &upstream.auth {
        _ if !upstream.enabled => KeyState::Disabled,
        Auth::None => KeyState::Ready,
        Auth::Bearer | Auth::Header(_) => KeyState::Missing(
            format!("{0} has no key; `aiproxy key add {0}` adds one", upstream.name).into(),
        ),
    };
    Candidate {
        target: Arc::clone(target),
        key,
        key_name: Arc::clone(&upstream.name),
        account: AccountId(key.0),
        tier: (target.priority, DEFAULT_KEY_PRIORITY),
        key_weight: 1.0,
        key_limit: KeyLimit::default(),
        model_limit: KeyLimit::default(),
        key_max_concurrency: 0,
        key_state,
        missing_capability: None,
    }
}

/// The state of a key's secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyState {
    Ready,
    /// A slow store is still reading the secret.
    Waiting,
    /// The reference resolves to nothing; contains the reason as a sentence.
    Missing(Arc<str>),
    /// `enabled = false` on the key or the upstream.
    Disabled,
    /// A budget denies the attempt.
    OverBudget(Arc<BudgetBlock>),
}

/// Why a budget denies an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetBlock {
    pub kind: BudgetBlockKind,
    pub text: String,
    /// The suggested fix.
    pub fix: String,
    /// When the budget's period ends.
    pub until: Option<Mono>,
    /// The block applies to every candidate: the budget of the project or of all projects.
    pub global: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetBlockKind {
    /// Attempts in flight may use up the rest.
    Reserved,
    Spent,
    /// The budget denies attempts of unknown price.
    Unpriced,
}

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
        cause: Arc<str>,
        scope: ScopeKind,
        /// The class of the failure: distinguishes "rate limited" from "out of money" and "no such
        /// model".
        class: CooldownClass,
    },
    Disabled,
    AlreadyFailed,
    LowerTier,
    KeyMissing(Arc<str>),
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
        cause: Arc<str>,
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

/// Prints a span, short enough for a table: `41s`, `2m`, `1h5m`.
#[must_use]
pub fn print_span(span: Duration) -> String {
    let s = span.as_secs_f64().ceil() as u64;
    match s {
        0..=99 => format!("{s}s"),
        100..=5_999 => format!("{}m{:02}s", s / 60, s % 60),
        _ => format!("{}h{:02}m", s / 3_600, s % 3_600 / 60),
    }
}
