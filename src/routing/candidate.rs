//! What may serve a request: targets × keys, and what a decision says of each.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    base::clock::Mono,
    config::settings::{KeyId, Strategy, Upstream, UpstreamId},
    ir::op::Dialect,
};

/// Keys with the same number share limits, quota and money at the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(pub u32);

/// An upstream and the model as it knows it.
#[derive(Clone, Debug)]
pub struct Target {
    pub upstream: Arc<Upstream>,
    pub model: Arc<str>,
    /// The native end to use (step 2: or the one to translate to).
    pub dialect: Dialect,
    pub priority: u32,
    pub weight: f64,
}

/// One (target, key) pair; an attempt is one immutable value made of it.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub target: Arc<Target>,
    pub key: KeyId,
    /// `upstream/label`, or the upstream's name where no key is needed.
    pub key_name: Arc<str>,
    pub account: AccountId,
    /// Target priority, then key priority: lower is tried first.
    pub tier: (u32, u32),
    pub key_weight: f64,
    /// 0 is no limit.
    pub key_rpm: u32,
    /// 0 is no limit.
    pub key_max_concurrency: u32,
    /// Whether the key can be used at all, as far as config and secrets say.
    pub key_state: KeyState,
}

impl Candidate {
    #[must_use]
    pub fn upstream(&self) -> UpstreamId {
        self.target.upstream.id
    }
}

/// What is known of a key's secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyState {
    Ready,
    /// Still being read from a slow store.
    Waiting,
    /// The reference resolves to nothing: the sentence.
    Missing(Arc<str>),
    /// `enabled = false` on key or upstream.
    Disabled,
}

/// What one attempt of this request already did.
#[derive(Clone, Debug)]
pub struct Tried {
    pub key: KeyId,
    pub upstream: UpstreamId,
    pub model: Arc<str>,
    /// The fault may pass: where nothing else is left, the same may be tried again after a pause.
    pub may_pass: bool,
}

/// What is asked of a decision.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub candidates: &'a [Candidate],
    pub tried: &'a [Tried],
    pub strategy: Strategy,
    /// Estimated input tokens; large requests are not used as probes.
    pub estimate: u64,
}

/// The answer: what to do, and why each other candidate lost. Indices are into the question's candidates.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub verdict: Verdict,
    pub others: Vec<(usize, Why)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Try this one now. `probe`: it tests a scope after a cooldown; its verdict is awaited by others.
    Try { index: usize, why: Chosen, probe: bool },
    /// Only what already failed here is left, and its fault may pass: the same again after a pause.
    Again { index: usize },
    /// Everything is blocked for now; the earliest end, or `None` while a probe's verdict is awaited.
    Wait { until: Option<Mono> },
    /// Nothing that is enabled is left to try; when the earliest blocked candidate comes back, if one does.
    Exhausted { retry_at: Option<Mono> },
}

/// Why the chosen one was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// The only one ready.
    Only,
    /// The best of its tier by the strategy.
    Best { tier: (u32, u32), of: usize },
    /// After a cooldown, one request is let through.
    Probe,
    /// Nothing is ready: the least suspect is tried.
    LeastSuspect,
}

/// Why a candidate lost.
#[derive(Clone, Debug, PartialEq)]
pub enum Why {
    /// In cooldown: until when, and what it did.
    Cooling {
        until: Mono,
        cause: Arc<str>,
        scope: ScopeKind,
    },
    Disabled,
    FailedHere,
    LowerTier,
    Missing(Arc<str>),
    NotDrawn,
    OverLimit {
        what: &'static str,
    },
    /// A probe is under way.
    Probing,
    /// The key was rejected.
    Rejected {
        cause: Arc<str>,
    },
    /// The secret is still being read.
    WaitingForKey,
}

/// How wide a health state reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ScopeKind {
    Account,
    Key,
    KeyModel,
    Upstream,
}

impl Why {
    /// The sentence for `route`, the Request screen and errors; `now` turns instants into spans.
    #[must_use]
    pub fn text(&self, now: Mono) -> String {
        match self {
            Self::Cooling { until, cause, scope } => {
                let left = until.since(now).as_secs_f64().ceil();
                format!("{} cools for {left:.0}s: {cause}", scope.name())
            }
            Self::Disabled => "disabled".to_owned(),
            Self::FailedHere => "already failed in this request".to_owned(),
            Self::LowerTier => "a lower tier".to_owned(),
            Self::Missing(reason) => reason.to_string(),
            Self::NotDrawn => "ready, another was drawn".to_owned(),
            Self::OverLimit { what } => format!("over its {what}"),
            Self::Probing => "a probe is under way".to_owned(),
            Self::Rejected { cause } => format!("rejected: {cause}"),
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

/// How long, in words short enough for a table: `41s`, `2m`, `1h5m`.
#[must_use]
pub fn short(span: Duration) -> String {
    let s = span.as_secs_f64().ceil() as u64;
    match s {
        0..=99 => format!("{s}s"),
        100..=5_999 => format!("{}m{:02}s", s / 60, s % 60),
        _ => format!("{}h{:02}m", s / 3_600, s % 3_600 / 60),
    }
}
