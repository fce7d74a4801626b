//! Stores the health of upstreams, keys and accounts as plain state, and evaluates candidates
//! against it. The router puts the lock around it.

pub mod attempt;
pub mod circuit;
pub mod cooldown;
pub mod key_usage;
pub mod peak_ewma;
pub mod rate_limits;
pub mod record;
pub mod saved;
pub mod stats;
pub mod status;
pub mod view;

use std::sync::Arc;

use crate::routing::{
    candidate::{AccountId, BudgetBlock, Candidate, KeyState},
    decision::ScopeKind,
    health::{
        circuit::Circuit,
        cooldown::Policy,
        key_usage::{KeyUsage, LimitHit},
        peak_ewma::PeakEwma,
        rate_limits::{LimitWindow, TokenDemand},
        stats::AttemptStats,
        status::{CandidateStatus, Rank, StatusReason},
    },
    project_limits::OutputEstimator,
};
use crate::{
    base::{clock::Mono, id::IdMap, rolling::TokenBucket},
    config::settings::{KeyId, Upstream, UpstreamId},
    ir::reason::skip::ConfiguredLimit,
};

/// Models of one key that can have a cooldown of their own. Their names come from clients, so the
/// number is bounded.
const MAX_MODELS_PER_KEY: usize = 64;

/// All health states and counters.
#[derive(Debug)]
pub struct Health {
    pub policy: Arc<Policy>,
    /// The number of the newest attempt.
    pub last_attempt_id: u64,
    pub upstreams: IdMap<UpstreamId, UpstreamHealth>,
    pub keys: IdMap<KeyId, KeyHealth>,
    pub accounts: IdMap<AccountId, Circuit>,
    /// The current virtual time of the stride over targets.
    pub target_virtual_time: f64,
    /// The typical output length per model.
    pub output_estimator: OutputEstimator,
}

#[derive(Debug, Default)]
pub struct UpstreamHealth {
    pub circuit: Circuit,
    pub running: u32,
    pub rps_bucket: TokenBucket,
    pub stats: AttemptStats,
    /// The current virtual time of the stride over this upstream's keys.
    pub key_virtual_time: f64,
    /// The models of this upstream that were requested.
    pub targets: Vec<TargetHealth>,
}

/// One model of an upstream.
#[derive(Clone, Debug)]
pub struct TargetHealth {
    pub model: Arc<str>,
    /// Its position in the stride over targets.
    pub virtual_time: f64,
    pub ttft: PeakEwma,
}

#[derive(Debug, Default)]
pub struct KeyHealth {
    pub circuit: Circuit,
    pub models: Vec<(Arc<str>, Circuit)>,
    pub account: Option<AccountId>,
    pub upstream: Option<UpstreamId>,
    pub running: u32,
    pub requests: u64,
    pub tokens: u64,
    pub usage: KeyUsage,
    /// Its position in the stride over its upstream's keys.
    pub virtual_time: f64,
    /// Attempts numbered up to this were made with an earlier secret.
    pub valid_from: u64,
}

/// The estimated tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenEstimate {
    pub input: u64,
    /// The maximum output that the client allows.
    pub output: u64,
}

/// The scope of an action or a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    Account(AccountId),
    All,
    Key(KeyId),
    KeyModel(KeyId, Arc<str>),
    Upstream(UpstreamId),
}

impl Health {
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy: Arc::new(policy),
            last_attempt_id: 0,
            upstreams: IdMap::default(),
            keys: IdMap::default(),
            accounts: IdMap::default(),
            target_virtual_time: 0.0,
            output_estimator: OutputEstimator::default(),
        }
    }

    /// Returns the current status of an upstream, independently of the key.
    #[must_use]
    pub fn upstream_status(&self, settings: &Upstream, now: Mono) -> CandidateStatus<'_> {
        let mut status = CandidateStatus::ready();
        if let Some(upstream) = self.upstreams.get(&settings.id) {
            status.apply_limit(
                settings.max_concurrency,
                upstream.running,
                ConfiguredLimit::UpstreamConcurrentRequests,
            );
            if let Some(until) = upstream.rps_bucket.full_until(settings.max_rps, now) {
                status.degrade(
                    Rank::Blocked,
                    Some(until),
                    StatusReason::Limit(ConfiguredLimit::UpstreamRequestsPerSecond),
                );
            }
            status.apply_circuit(ScopeKind::Upstream, &upstream.circuit, now);
        }
        status
    }

    /// Adds the state of the candidate's key to the status of its upstream. Works in place: with
    /// hundreds of candidates, copies would cost more than the rest.
    pub fn evaluate<'a>(
        &'a self,
        status: &mut CandidateStatus<'a>,
        candidate: &'a Candidate,
        size: TokenEstimate,
        now: Mono,
    ) {
        match &candidate.key_state {
            KeyState::Ready => {}
            KeyState::Waiting => {
                status.degrade(Rank::Pending, None, StatusReason::Key(&candidate.key_state));
            }
            KeyState::OverBudget { block, until } => match (&**block, *until) {
                (BudgetBlock::Reserved { .. }, _) => {
                    status.degrade(Rank::Pending, None, StatusReason::Key(&candidate.key_state));
                }
                (BudgetBlock::Spent { .. }, Some(until)) => status.degrade(
                    Rank::Blocked,
                    Some(until),
                    StatusReason::Key(&candidate.key_state),
                ),
                (BudgetBlock::Spent { .. } | BudgetBlock::Unpriced { .. }, _) => {
                    status.degrade(
                        Rank::Unavailable,
                        None,
                        StatusReason::Key(&candidate.key_state),
                    );
                    return;
                }
            },
            KeyState::Disabled | KeyState::Missing(_) => {
                status.degrade(Rank::Unavailable, None, StatusReason::Key(&candidate.key_state));
                return;
            }
        }
        if let Some(key) = self.keys.get(&candidate.key) {
            status.apply_limit(
                candidate.key_max_concurrency,
                key.running,
                ConfiguredLimit::ConcurrentRequests,
            );
            if key.usage.is_limited(candidate.key_limit, candidate.model_limit) {
                let demand = self.token_demand(&candidate.target.model, size);
                match key.usage.limit_hit(
                    &candidate.target.model,
                    candidate.key_limit,
                    candidate.model_limit,
                    demand,
                    now,
                ) {
                    None => {}
                    Some(LimitHit::Configured { limit, until }) => {
                        status.degrade(Rank::Blocked, Some(until), StatusReason::Limit(limit));
                    }
                    Some(LimitHit::Provider { kind, window }) => {
                        status.degrade(
                            Rank::Suspect,
                            Some(window.until),
                            StatusReason::ProviderLimit(kind, window),
                        );
                    }
                }
            }
            status.apply_circuit(ScopeKind::Key, &key.circuit, now);
            if let Some(circuit) = key.model_circuit(&candidate.target.model) {
                status.apply_circuit(ScopeKind::KeyModel, circuit, now);
            }
        }
        if !self.accounts.is_empty()
            && let Some(circuit) = self.accounts.get(&candidate.account)
        {
            status.apply_circuit(ScopeKind::Account, circuit, now);
        }
    }

    /// Returns the tokens that a request is expected to use of a model.
    #[must_use]
    pub fn token_demand(&self, model: &Arc<str>, size: TokenEstimate) -> TokenDemand {
        let output = if size.output == 0 {
            0
        } else {
            self.output_estimator.estimate(model, Some(size.output))
        };
        TokenDemand { input: size.input, output }
    }

    /// Returns whether the provider reported, for one of these keys, that more than a fifth of
    /// every limit is left.
    pub fn has_ample_limits(
        &self,
        candidates: &[Candidate],
        mut indices: impl Iterator<Item = usize>,
        now: Mono,
    ) -> bool {
        indices.any(|i| {
            let Some(key) = self.keys.get(&candidates[i].key) else { return false };
            let mut known = key
                .usage
                .rate_limits(now)
                .filter(|(model, ..)| same_model(model, &candidates[i].target.model))
                .peekable();
            let plenty = |window: LimitWindow| {
                window.limit.is_some_and(|limit| window.remaining.saturating_mul(5) > limit)
            };
            known.peek().is_some() && known.all(|(.., window)| plenty(window))
        })
    }

    /// Clears the failures of a scope and of every narrower scope.
    pub fn warm(&mut self, scope: &Scope) {
        match scope {
            Scope::All => {
                self.accounts.clear();
                for upstream in self.upstreams.values_mut() {
                    upstream.circuit = Circuit::default();
                }
                for key in self.keys.values_mut() {
                    key.warm();
                }
            }
            Scope::Account(id) => {
                self.accounts.remove(id);
                for key in self.keys.values_mut().filter(|key| key.account == Some(*id)) {
                    key.warm();
                }
            }
            Scope::Key(id) => {
                if let Some(key) = self.keys.get_mut(id) {
                    key.warm();
                    if let Some(account) = key.account {
                        self.accounts.remove(&account);
                    }
                }
            }
            Scope::KeyModel(id, model) => {
                if let Some(key) = self.keys.get_mut(id) {
                    key.models.retain(|(name, _)| !same_model(name, model));
                    key.usage.clear_rate_limits(Some(model));
                }
            }
            Scope::Upstream(id) => {
                if let Some(upstream) = self.upstreams.get_mut(id) {
                    upstream.circuit = Circuit::default();
                }
                let accounts: Vec<AccountId> = self
                    .keys
                    .values()
                    .filter(|key| key.upstream == Some(*id))
                    .filter_map(|key| key.account)
                    .collect();
                self.accounts.retain(|id, _| !accounts.contains(id));
                for key in self.keys.values_mut().filter(|key| key.upstream == Some(*id)) {
                    key.warm();
                }
            }
        }
    }

    /// Returns the circuit of a scope, if known; `create` adds a missing one.
    pub fn circuit_mut(&mut self, scope: &Scope, create: bool) -> Option<&mut Circuit> {
        match scope {
            Scope::All => None,
            Scope::Account(id) if create => Some(self.accounts.entry(*id).or_default()),
            Scope::Account(id) => self.accounts.get_mut(id),
            Scope::Key(id) if create => Some(&mut self.keys.entry(*id).or_default().circuit),
            Scope::Key(id) => self.keys.get_mut(id).map(|key| &mut key.circuit),
            Scope::KeyModel(id, model) if create => {
                Some(self.keys.entry(*id).or_default().model_circuit_entry(model))
            }
            Scope::KeyModel(id, model) => self.keys.get_mut(id)?.model_circuit_mut(model),
            Scope::Upstream(id) if create => {
                Some(&mut self.upstreams.entry(*id).or_default().circuit)
            }
            Scope::Upstream(id) => self.upstreams.get_mut(id).map(|upstream| &mut upstream.circuit),
        }
    }
}

impl UpstreamHealth {
    #[must_use]
    pub fn target(&self, model: &Arc<str>) -> Option<&TargetHealth> {
        self.targets.iter().find(|target| same_model(&target.model, model))
    }

    /// Returns the state of a model; creates the entry if it is missing.
    pub fn target_mut(&mut self, model: &Arc<str>) -> &mut TargetHealth {
        let at = match self.targets.iter().position(|target| same_model(&target.model, model)) {
            Some(at) => at,
            None => {
                if self.targets.len() >= MAX_MODELS_PER_KEY {
                    self.targets.remove(0);
                }
                self.targets.push(TargetHealth {
                    model: Arc::clone(model),
                    virtual_time: 0.0,
                    ttft: PeakEwma::default(),
                });
                self.targets.len() - 1
            }
        };
        &mut self.targets[at]
    }
}

impl KeyHealth {
    fn warm(&mut self) {
        self.circuit = Circuit::default();
        self.models.clear();
        self.usage.clear_rate_limits(None);
    }

    #[must_use]
    pub fn model_circuit(&self, model: &Arc<str>) -> Option<&Circuit> {
        self.models.iter().find(|(name, _)| same_model(name, model)).map(|(_, circuit)| circuit)
    }

    pub fn model_circuit_mut(&mut self, model: &Arc<str>) -> Option<&mut Circuit> {
        self.models.iter_mut().find(|(name, _)| same_model(name, model)).map(|(_, circuit)| circuit)
    }

    pub(super) fn model_circuit_entry(&mut self, model: &Arc<str>) -> &mut Circuit {
        let at = match self.models.iter().position(|(name, _)| same_model(name, model)) {
            Some(at) => at,
            None => {
                if self.models.len() >= MAX_MODELS_PER_KEY {
                    // Evicts a closed circuit first, else the oldest; losing a state costs one
                    // attempt.
                    let closed = self
                        .models
                        .iter()
                        .position(|(_, circuit)| matches!(circuit, Circuit::Closed { .. }));
                    self.models.remove(closed.unwrap_or(0));
                }
                self.models.push((Arc::clone(model), Circuit::default()));
                self.models.len() - 1
            }
        };
        &mut self.models[at].1
    }
}

fn same_model(a: &Arc<str>, b: &Arc<str>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}
