//! Defines the candidates for a request: targets × keys.

use std::sync::Arc;

use crate::{
    base::clock::Mono,
    config::settings::{Auth, KeyId, KeyLimit, Upstream, UpstreamId, UpstreamKey},
    ir::{op::Dialect, reason::missing_secret::MissingSecret},
};

pub use crate::ir::reason::{budget::BudgetBlock, skip::MissingCapability};

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
    /// The part of the name after the upstream; empty if it needs no key.
    pub key_label: Arc<str>,
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
        key_label: Arc::clone(&key.label),
        account,
        tier: (target.priority, key.priority),
        key_weight: key.weight,
        key_limit: key.limit(),
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
        Auth::Bearer | Auth::Header(_) => {
            KeyState::Missing(MissingSecret::NoKey { upstream: Arc::clone(&upstream.name) }.into())
        }
    };
    Candidate {
        target: Arc::clone(target),
        key,
        key_name: Arc::clone(&upstream.name),
        key_label: Arc::default(),
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
    /// The reference resolves to nothing.
    Missing(Arc<MissingSecret>),
    /// `enabled = false` on the key or the upstream.
    Disabled,
    /// A budget denies the attempt, until its period ends if that is known.
    OverBudget {
        block: Arc<BudgetBlock>,
        until: Option<Mono>,
    },
}
