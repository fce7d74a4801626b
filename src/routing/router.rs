//! Owns the state of upstreams, keys and accounts behind one lock: decisions, ends of attempts,
//! user actions.

mod changes;
#[cfg(test)]
mod tests;
mod views;

use std::{sync::Arc, time::Duration};

pub use crate::routing::health::{
    Scope,
    attempt::AttemptTicket,
    record::{AttemptEnd, HealthChange, RecordedEnd},
    stats::StatsView,
    view::{HealthState, HealthView, KeyHealthView},
};
use crate::routing::{
    affinity::{AffinityBinding, AffinityBindings, AffinityHint, ConversationKeys},
    decide::decide,
    decision::{ChoiceReason, Decision, RouteQuery, Verdict},
    health::{Health, TokenEstimate, cooldown::Policy, record},
    outcome::Outcome,
    retry::{self, AttemptCounts, RetryBudget, RetryDecision, RetryTarget},
    strategy,
};
use crate::{
    base::{
        clock::Mono,
        rng::Rng,
        sync::{Mutex, MutexGuard},
    },
    config::settings::{Upstream, UpstreamId},
    ir::{rate_limit::RateLimits, reason::failure::FailureReason},
};

/// Shared by all requests. A request that waits decides again when capacity changed, at the
/// decision's `until`, and at least every
/// [`PROBE_TIMEOUT`](crate::routing::health::circuit::PROBE_TIMEOUT): some ends come with time alone.
///
/// A decision that tries a candidate marks it in the same critical section,
/// so no two requests are the same probe. A poisoned lock is used all the same: updates replace
/// whole values, and one panic must not stop the proxy.
#[derive(Debug)]
pub struct Router(Mutex<RouterState>);

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
        Self(Mutex::new(RouterState {
            health: Health::new(policy),
            bindings: AffinityBindings::default(),
            retry_budget: RetryBudget::default(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, RouterState> {
        self.0.lock()
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

    /// Records the result of an attempt.
    pub fn record(&self, ticket: &AttemptTicket, end: AttemptEnd<'_>, now: Mono) -> RecordedEnd {
        let RouterState { health, bindings, .. } = &mut *self.lock();
        let mut recorded = record::record(health, ticket, end, now);
        if let (Some(keys), AttemptEnd::Content | AttemptEnd::Finished { .. }) =
            (&ticket.conversation, end)
        {
            bindings.bind(keys, binding_from_ticket(ticket, now), now);
            // A request of the same conversation may wait for the account bound before.
            recorded.capacity_changed = true;
        }
        recorded
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
        found: Result<(), &Arc<FailureReason>>,
        now: Mono,
    ) -> Vec<HealthChange> {
        record::record_probe(&mut self.lock().health, upstream, id, found, now)
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
}
