//! The state of a request between its attempts: what failed, how long it waited, and what it may
//! still do.

use std::{sync::Arc, time::Duration};

use crate::relay::{
    attempt::result::AttemptFailure,
    context::RequestContext,
    dispatch::{capability::RequiredCapabilities, final_error::LastFailure, queue::QueueGuard},
    request::conversation_key,
};
use crate::{
    base::clock::Mono,
    routing::{
        affinity::{ConversationKeys, MAX_AFFINITY_WAIT},
        candidate::Candidate,
        decision::FailedAttempt,
        outcome::{Blame, CooldownClass},
        retry::{AttemptCounts, RetryDecision, RetryTarget},
    },
};

/// The state of the dispatch loop.
#[derive(Default)]
pub(super) struct RetryState {
    pub(super) failed_attempts: Vec<FailedAttempt>,
    pub(super) attempt_counts: AttemptCounts,
    /// A pause or a wait has already granted the next retry.
    pub(super) retry_granted: bool,
    pub(super) last_failure: Option<LastFailure>,
    /// Why each attempt was refused.
    pub(super) failure_causes: Vec<(CooldownClass, Blame)>,
    pub(super) waited: Duration,
    /// Its slot in the queue, reused for the next wait.
    pub(super) queue_slot: Option<(u64, QueueGuard)>,
    /// Its conversation's affinity; computed once, if there is a choice.
    pub(super) affinity: Option<Option<AffinityWait>>,
    /// What it requires of a model; computed once, if there is a choice.
    pub(super) required: Option<Option<RequiredCapabilities>>,
}

impl RetryState {
    /// Returns the last failure and why each attempt was refused.
    pub(super) fn failures(&self) -> (Option<&LastFailure>, &[(CooldownClass, Blame)]) {
        (self.last_failure.as_ref(), &self.failure_causes)
    }
}

/// The wait of a conversation for the account that served it before.
pub(super) struct AffinityWait {
    pub(super) keys: Arc<ConversationKeys>,
    pub(super) ttl: Duration,
    /// When it stops waiting for that account.
    pub(super) wait_until: Mono,
}

impl AffinityWait {
    pub(super) fn for_request(
        context: &RequestContext,
        candidates: &[Candidate],
        now: Mono,
    ) -> Option<Self> {
        let account = candidates.first()?.account;
        // With only one account there is no affinity.
        if candidates.iter().all(|candidate| candidate.account == account) {
            return None;
        }
        let settings = &context.generation.settings;
        let keys = conversation_key::conversation_keys(
            &context.engine.hash_key,
            &context.request,
            context.overrides.sticky.unwrap_or(settings.routing.sticky),
        )?;
        let ttl = context.overrides.sticky_ttl.unwrap_or(settings.routing.sticky_ttl);
        Some(Self { keys: Arc::new(keys), ttl, wait_until: now + MAX_AFFINITY_WAIT })
    }

    /// Stops waiting for the conversation's own account, so that others may serve it at once.
    /// Returns false if it was not waiting for that.
    pub(super) fn stop_waiting(&mut self, now: Mono) -> bool {
        let waited = self.wait_until > now;
        self.wait_until = self.wait_until.min(now);
        waited
    }
}

/// Returns the pause before the next try, if one is allowed; a first try always is.
pub(super) fn retry_pause(
    context: &RequestContext,
    state: &mut RetryState,
    to: RetryTarget,
) -> Option<Duration> {
    let Some(last) = &state.last_failure else { return Some(Duration::ZERO) };
    let now = context.engine.clock.mono();
    match context.engine.with_rng(|rng| {
        context.engine.router.may_retry(
            &last.failure.outcome,
            &mut state.attempt_counts,
            to,
            now,
            rng,
        )
    }) {
        RetryDecision::Immediately => Some(Duration::ZERO),
        RetryDecision::After(pause) => Some(pause),
        RetryDecision::Stop(_) => None,
    }
}

/// Stores a failed attempt for the next decision.
pub(super) fn remember_failure(state: &mut RetryState, chosen: &Candidate, lost: AttemptFailure) {
    state.attempt_counts.count_failure(&lost.outcome);
    state.failure_causes.push((lost.outcome.cooldown, lost.outcome.blame));
    state.failed_attempts.push(FailedAttempt {
        key: chosen.key,
        upstream: chosen.upstream(),
        model: Arc::clone(&chosen.target.model),
        may_recover: lost.may_recover,
        upstream_failed: lost.outcome.blames_upstream(),
    });
    state.last_failure = Some(LastFailure {
        failure: lost,
        key: chosen.key,
        key_name: Arc::clone(&chosen.key_name),
    });
}
