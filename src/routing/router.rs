//! Owns the state of upstreams, keys and accounts behind one lock: decisions, ends of attempts,
//! user actions.

#[cfg(test)]
mod tests;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

pub use crate::routing::health::{
    AttemptTicket, Scope,
    record::{AttemptEnd, HealthChange},
    stats::StatsView,
    view::{HealthState, HealthView, KeyHealthView},
};
use crate::routing::{
    affinity::{AffinityBinding, AffinityBindings, AffinityHint, ConversationKeys},
    candidate::AccountId,
    decide::decide,
    decision::{ChoiceReason, Decision, RouteQuery, Verdict},
    health::{
        Health, TokenEstimate,
        circuit::{Circuit, CircuitSignal, Policy},
        record,
        saved::{SavedKey, SavedUpstream},
    },
    outcome::{CooldownClass, Outcome},
    retry::{self, AttemptCounts, RetryBudget, RetryDecision, RetryTarget},
    strategy,
};
use crate::{
    base::{clock::Mono, rng::Rng},
    config::settings::{KeyId, Upstream, UpstreamId},
    ir::rate_limit::RateLimits,
};

/// Shared by all requests. A decision that tries a candidate marks it in the same critical section,
/// so no two requests are the same probe. A poisoned lock is used all the same: updates replace
/// whole values, and one panic must not stop the proxy.
#[derive(Debug)]
pub struct Router {
    state: Mutex<RouterState>,
    revision: AtomicU64,
}

#[derive(Debug)]
struct RouterState {
    health: Health,
    bindings: AffinityBindings,
    retry_budget: RetryBudget,
}

/// Fixed values instead of random ones, for a dry run.
struct FixedRng;

impl Rng for FixedRng {
    fn next_f64(&mut self) -> f64 {
        0.0
    }
}

/// Starts the attempt that was decided on.
fn start_attempt(
    health: &mut Health,
    q: &RouteQuery<'_>,
    index: usize,
    probe: bool,
    now: Mono,
) -> AttemptTicket {
    let candidate = &q.candidates[index];
    let mut ticket = health.start_attempt(candidate, q.strategy, probe, now);
    health.reserve(
        &mut ticket,
        candidate,
        TokenEstimate { input: q.input_estimate, output: q.max_output },
        now,
    );
    ticket
}

fn binding_from_ticket(ticket: &AttemptTicket, now: Mono) -> AffinityBinding {
    AffinityBinding {
        upstream: ticket.upstream,
        upstream_name: Arc::clone(&ticket.upstream_name),
        account: ticket.account,
        model: Arc::clone(&ticket.model),
        bound_at: now,
        last_used: now,
        better_tier_since: ticket.better_tier_since,
    }
}

impl Router {
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            state: Mutex::new(RouterState {
                health: Health::new(policy),
                bindings: AffinityBindings::default(),
                retry_budget: RetryBudget::default(),
            }),
            revision: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, RouterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a counter that grows whenever a waiting request might continue. It does not grow
    /// with time alone. A waiter therefore also checks again at the decision's `until`, and at
    /// least every [`PROBE_TIMEOUT`](crate::routing::health::circuit::PROBE_TIMEOUT).
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    fn notify(&self) {
        self.revision.fetch_add(1, Ordering::Release);
    }

    /// Decides, and starts the attempt if the verdict is `Try`: the owner of the ticket calls
    /// [`Router::record`] with exactly one final end.
    pub fn decide(
        &self,
        q: &RouteQuery<'_>,
        now: Mono,
        rng: &mut dyn Rng,
    ) -> (Decision, Option<AttemptTicket>) {
        let mut state = self.lock();
        let decision = decide(q, &state.health, now, rng);
        let ticket = match decision.verdict {
            Verdict::Try { index, probe, .. } => {
                Some(start_attempt(&mut state.health, q, index, probe, now))
            }
            Verdict::RetrySame { .. } | Verdict::Wait { .. } | Verdict::Exhausted { .. } => None,
        };
        (decision, ticket)
    }

    /// Like [`Router::decide`], but prefers the account that served the conversation before. The
    /// tuple contains the conversation's keys, the lifetime of a binding, and how long the request
    /// may wait for it.
    pub fn decide_with_affinity(
        &self,
        q: &RouteQuery<'_>,
        (keys, ttl, wait): (&Arc<ConversationKeys>, Duration, Mono),
        now: Mono,
        rng: &mut dyn Rng,
    ) -> (Decision, Option<AttemptTicket>) {
        let RouterState { health, bindings, .. } = &mut *self.lock();
        let found = bindings.find(keys, ttl, now);
        let bound = found.and_then(|(key, loose)| {
            Some(AffinityHint { binding: bindings.get(key)?, weak: loose, wait_until: wait })
        });
        let q = RouteQuery { affinity: bound, ..*q };
        let decision = decide(&q, health, now, rng);
        let Verdict::Try { index, probe, reason: ref why } = decision.verdict else {
            return (decision, None);
        };
        let better = match why {
            ChoiceReason::Affinity { better_tier_ready: better } => Some(*better),
            _ => None,
        };
        let mut ticket = start_attempt(health, &q, index, probe, now);
        ticket.conversation = Some(Arc::clone(keys));
        if let (Some(better), Some((key, _))) = (better, found) {
            bindings.record_better_tier(key, better, now);
            ticket.better_tier_since =
                bindings.get(key).and_then(|binding| binding.better_tier_since);
        }
        (decision, Some(ticket))
    }

    /// Starts an attempt in parallel with or after another one, at a candidate that is ready. It
    /// neither probes nor waits.
    pub fn decide_ready_only(
        &self,
        q: &RouteQuery<'_>,
        keys: Option<&Arc<ConversationKeys>>,
        now: Mono,
        rng: &mut dyn Rng,
    ) -> Option<(usize, AttemptTicket)> {
        let health = &mut self.lock().health;
        let Verdict::Try {
            index,
            probe: false,
            reason: ChoiceReason::Only | ChoiceReason::Best { .. },
        } = decide(q, health, now, rng).verdict
        else {
            return None;
        };
        let mut ticket = start_attempt(health, q, index, false, now);
        ticket.conversation = keys.map(Arc::clone);
        Some((index, ticket))
    }

    /// Returns the binding of the conversation with this key.
    #[must_use]
    pub fn binding(&self, key: u64, ttl: Duration, now: Mono) -> Option<AffinityBinding> {
        let state = self.lock();
        state.bindings.get(key).filter(|binding| now.since(binding.last_used) < ttl).cloned()
    }

    /// Removes the binding of a conversation; returns whether it was known.
    pub fn unbind(&self, key: u64) -> bool {
        self.lock().bindings.remove(key)
    }

    /// Returns the decision of [`Router::decide`] without marking anything.
    #[must_use]
    pub fn preview(&self, q: &RouteQuery<'_>, now: Mono) -> Decision {
        decide(q, &self.lock().health, now, &mut FixedRng)
    }

    /// Like [`Router::preview`], for a conversation.
    #[must_use]
    pub fn preview_with_affinity(
        &self,
        q: &RouteQuery<'_>,
        conversation: Option<(&ConversationKeys, Duration)>,
        now: Mono,
    ) -> Decision {
        let state = self.lock();
        let found = conversation.and_then(|(keys, ttl)| state.bindings.find(keys, ttl, now));
        let bound = found.and_then(|(key, loose)| {
            Some(AffinityHint { binding: state.bindings.get(key)?, weak: loose, wait_until: now })
        });
        decide(&RouteQuery { affinity: bound, ..*q }, &state.health, now, &mut FixedRng)
    }

    /// Returns the score of each target under the query's strategy, independently of its tier and
    /// health.
    #[must_use]
    pub fn scores(&self, q: &RouteQuery<'_>, now: Mono) -> Vec<(usize, f64)> {
        let all: Vec<usize> = (0..q.candidates.len()).collect();
        strategy::scores(q, &all, &self.lock().health, now)
    }

    /// Binds a conversation to an account.
    pub fn bind(&self, keys: &ConversationKeys, binding: AffinityBinding, now: Mono) {
        self.lock().bindings.bind(keys, binding, now);
    }

    /// Records the result of an attempt; returns the changes to report.
    pub fn record(
        &self,
        ticket: &AttemptTicket,
        end: AttemptEnd<'_>,
        now: Mono,
    ) -> Vec<HealthChange> {
        let changes = {
            let RouterState { health, bindings, .. } = &mut *self.lock();
            if let (Some(keys), AttemptEnd::Content | AttemptEnd::Finished { .. }) =
                (&ticket.conversation, end)
            {
                bindings.bind(keys, binding_from_ticket(ticket, now), now);
            }
            record::record(health, ticket, end, now)
        };
        self.notify();
        changes
    }

    /// Starts one of aiproxy's probes; returns its number among the attempts.
    #[must_use]
    pub fn begin_probe(&self) -> u64 {
        let health = &mut self.lock().health;
        health.last_attempt_id += 1;
        health.last_attempt_id
    }

    /// Records the result of a probe: success, or why the upstream does not respond. Returns the
    /// changes to report.
    pub fn record_probe(
        &self,
        upstream: &Upstream,
        id: u64,
        found: Result<(), &Arc<str>>,
        now: Mono,
    ) -> Vec<HealthChange> {
        let changes = record::record_probe(&mut self.lock().health, upstream, id, found, now);
        if !changes.is_empty() {
            self.notify();
        }
        changes
    }

    /// Returns when an upstream last served a request.
    #[must_use]
    pub fn last_served(&self, id: UpstreamId) -> Option<Mono> {
        self.lock().health.upstreams.get(&id)?.stats.last_success()
    }

    /// Records the provider's remaining limits from a response head.
    pub fn record_rate_limits(&self, ticket: &AttemptTicket, limits: &RateLimits, now: Mono) {
        let health = &mut self.lock().health;
        let max_reset = health.policy.cooldown.max_hint;
        if let Some(key) = health.keys.get_mut(&ticket.key).filter(|key| ticket.id > key.valid_from)
        {
            key.usage.rate_limits_mut(&ticket.model, now).update(limits, max_reset, now);
        }
    }

    /// Counts a request for the retry budget.
    pub fn count_request(&self, now: Mono) {
        self.lock().retry_budget.count_request(now);
    }

    /// Decides whether a request may be tried again ([`retry::decide_retry`], with the current
    /// rules and budget).
    pub fn may_retry(
        &self,
        outcome: &Outcome,
        so_far: &mut AttemptCounts,
        to: RetryTarget,
        now: Mono,
        rng: &mut dyn Rng,
    ) -> RetryDecision {
        let RouterState { health, retry_budget: budget, .. } = &mut *self.lock();
        retry::decide_retry(outcome, so_far, to, &health.policy.retry, budget, now, rng)
    }

    /// Applies the policy of a reloaded config.
    pub fn set_policy(&self, policy: Policy) {
        self.lock().health.policy = Arc::new(policy);
        self.notify();
    }

    /// Sets the account of each key, as far as known before its first attempt.
    pub fn set_accounts(&self, accounts: impl IntoIterator<Item = (KeyId, AccountId)>) {
        let mut state = self.lock();
        for (key, account) in accounts {
            state.health.keys.entry(key).or_default().account = Some(account);
        }
    }

    /// Cools a scope by hand; only the end of the span or `warm` makes it available again.
    pub fn cool(&self, scope: &Scope, span: Duration, now: Mono) {
        let health = &mut self.lock().health;
        let signal = CircuitSignal::Cooled { span, last_attempt_id: health.last_attempt_id };
        let policy = Arc::clone(&health.policy);
        let targets = match scope {
            Scope::All => health.keys.keys().map(|id| Scope::Key(*id)).collect(),
            scope => vec![scope.clone()],
        };
        for target in targets {
            if let Some(circuit) = health.circuit_mut(&target, true) {
                circuit.apply(&signal, &policy, now);
            }
        }
    }

    /// Clears the failures of a scope and everything narrower. For a key this includes its account,
    /// since the key would stay blocked otherwise.
    pub fn warm(&self, scope: &Scope) {
        self.lock().health.warm(scope);
        self.notify();
    }

    /// Resets a key that has a new secret. Results of attempts made with the old secret no longer
    /// count.
    pub fn reset_key(&self, key: KeyId) {
        {
            let health = &mut self.lock().health;
            health.warm(&Scope::Key(key));
            let newest = health.last_attempt_id;
            if let Some(key) = health.keys.get_mut(&key) {
                key.valid_from = newest;
            }
        }
        self.notify();
    }

    /// Returns the rejected keys that are due for a free check; the next check of each is due after
    /// a longer delay.
    #[must_use]
    pub fn rejected_keys_due(&self, now: Mono) -> Vec<KeyId> {
        let health = &mut self.lock().health;
        let mut due = Vec::new();
        for (id, key) in &mut health.keys {
            if matches!(key.circuit, Circuit::Rejected { recheck_at, .. } if recheck_at <= now) {
                key.circuit.apply(&CircuitSignal::RecheckStarted, &health.policy, now);
                due.push(*id);
            }
        }
        due.sort_unstable();
        due
    }

    /// Clears the rejection of a key after a free check succeeded.
    pub fn clear_rejected(&self, key: KeyId) {
        if let Some(key) = self.lock().health.keys.get_mut(&key)
            && matches!(key.circuit, Circuit::Rejected { .. })
        {
            key.circuit = Circuit::default();
        }
        self.notify();
    }

    /// Clears a quota block of the key's account after a payment; returns whether there was one.
    pub fn clear_quota_block(&self, key: KeyId) -> bool {
        let freed = {
            let health = &mut self.lock().health;
            let account = health.keys.get(&key).and_then(|key| key.account);
            let out_of_quota = |circuit: &Circuit| {
                circuit.open_reason().is_some_and(|belief| belief.class == CooldownClass::Quota)
            };
            account
                .filter(|account| health.accounts.get(account).is_some_and(out_of_quota))
                .is_some_and(|account| health.accounts.remove(&account).is_some())
        };
        if freed {
            self.notify();
        }
        freed
    }

    /// Applies a new model list of an upstream: the models on it no longer count as missing.
    pub fn record_model_list(&self, upstream: UpstreamId, names: &dyn Fn(&str) -> bool) {
        for key in self.lock().health.keys.values_mut().filter(|key| key.upstream == Some(upstream))
        {
            let missing = |circuit: &Circuit| {
                circuit
                    .open_reason()
                    .is_some_and(|belief| belief.class == CooldownClass::ModelMissing)
            };
            key.models.retain(|(model, circuit)| !(missing(circuit) && names(model)));
        }
        self.notify();
    }

    /// Drops the state of upstreams and keys that a reload removed.
    pub fn retain(&self, upstreams: &[UpstreamId], keys: &[KeyId]) {
        {
            let health = &mut self.lock().health;
            let keyless = |key: &KeyId| {
                upstreams
                    .iter()
                    .any(|upstream| crate::routing::candidate::keyless_id(*upstream) == *key)
            };
            health.upstreams.retain(|id, _| upstreams.contains(id));
            health.keys.retain(|id, _| keys.contains(id) || keyless(id));
            let accounts: Vec<AccountId> =
                health.keys.values().filter_map(|key| key.account).collect();
            health.accounts.retain(|id, _| accounts.contains(id));
        }
        self.notify();
    }

    #[must_use]
    pub fn upstream_view(&self, id: UpstreamId, now: Mono) -> HealthView {
        let state = self.lock();
        state
            .health
            .upstreams
            .get(&id)
            .map(|upstream| HealthView::from_upstream_circuit(&upstream.circuit, now))
            .unwrap_or_default()
    }

    #[must_use]
    pub fn key_view(&self, id: KeyId, now: Mono) -> KeyHealthView {
        let RouterState { health, .. } = &*self.lock();
        let Some(key) = health.keys.get(&id) else { return KeyHealthView::default() };
        KeyHealthView::from_key(
            key,
            key.account.and_then(|account| health.accounts.get(&account)),
            now,
        )
    }

    /// Returns the state of an upstream to save across a restart.
    #[must_use]
    pub fn save_upstream(&self, id: UpstreamId, now: Mono) -> SavedUpstream {
        self.lock().health.save_upstream(id, now)
    }

    pub fn restore_upstream(&self, id: UpstreamId, kept: SavedUpstream, now: Mono) {
        self.lock().health.restore_upstream(id, kept, now);
    }

    /// Returns the state of a key to save across a restart.
    #[must_use]
    pub fn save_key(&self, id: KeyId, now: Mono) -> SavedKey {
        self.lock().health.save_key(id, now)
    }

    pub fn restore_key(&self, id: KeyId, kept: SavedKey, now: Mono) {
        self.lock().health.restore_key(id, kept, now);
    }

    /// Returns statistics of the upstream's last hundred attempts or fifteen minutes.
    #[must_use]
    pub fn stats(&self, id: UpstreamId, now: Mono) -> StatsView {
        let state = self.lock();
        state.health.upstreams.get(&id).map_or_else(
            || crate::routing::health::stats::AttemptStats::default().view(now),
            |upstream| upstream.stats.view(now),
        )
    }

    /// Returns the number of running attempts at an upstream.
    #[must_use]
    pub fn running(&self, id: UpstreamId) -> u32 {
        self.lock().health.upstreams.get(&id).map_or(0, |upstream| upstream.running)
    }
}
