//! The state of a request between its attempts: what failed, how long it waited, and what it may
//! still do.

use std::{mem, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::relay::{
    attempt::result::{AttemptFailure, AttemptResponse},
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
        outcome::{Blame, CooldownClass, Retry},
        retry::{AttemptCounts, RetryDecision, RetryTarget},
    },
};

/// What the dispatch loop does after a decision.
pub(super) enum NextStep {
    /// Decide again.
    Decide,
    /// Answer with the response of an attempt.
    Respond(AttemptResponse),
    /// Answer with an error; a candidate returns at `retry_at`, if that is known.
    Fail { retry_at: Option<Mono> },
}

/// The state of the dispatch loop.
pub(super) struct RetryState {
    /// When the request's total time is over.
    pub(super) deadline: Instant,
    pub(super) failed_attempts: Vec<FailedAttempt>,
    attempt_counts: AttemptCounts,
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
    pub(super) fn new(deadline: Instant) -> Self {
        Self {
            deadline,
            failed_attempts: Vec::new(),
            attempt_counts: AttemptCounts::default(),
            retry_granted: false,
            last_failure: None,
            failure_causes: Vec::new(),
            waited: Duration::ZERO,
            queue_slot: None,
            affinity: None,
            required: None,
        }
    }

    /// Returns the last failure and why each attempt was refused.
    pub(super) fn failures(&self) -> (Option<&LastFailure>, &[(CooldownClass, Blame)]) {
        (self.last_failure.as_ref(), &self.failure_causes)
    }

    /// Returns the pause before the next try, if one is allowed; a first try always is.
    pub(super) fn retry_pause(
        &mut self,
        context: &RequestContext,
        to: RetryTarget,
    ) -> Option<Duration> {
        let Some(last) = &self.last_failure else { return Some(Duration::ZERO) };
        let now = context.engine.clock.mono();
        let (outcome, counts) = (&last.failure.outcome, &mut self.attempt_counts);
        let decision = context
            .engine
            .with_rng(|rng| context.engine.router.may_retry(outcome, counts, to, now, rng));
        match decision {
            RetryDecision::Immediately => Some(Duration::ZERO),
            RetryDecision::After(pause) => Some(pause),
            RetryDecision::Stop(_) => None,
        }
    }

    /// Returns whether another candidate may be tried now: a pause or a wait has granted it, or no
    /// pause is needed.
    pub(super) fn take_grant(&mut self, context: &RequestContext) -> bool {
        mem::take(&mut self.retry_granted)
            || self.retry_pause(context, RetryTarget::Other).is_some_and(|pause| pause.is_zero())
    }

    /// Grants the next try, also to candidates whose fault may have passed.
    pub(super) fn grant_retry(&mut self) {
        self.retry_granted = true;
        self.failed_attempts.retain(|failed| !failed.may_recover);
    }

    /// Grants the next try after a wait for the local network; the attempt that found it down does
    /// not count.
    pub(super) fn grant_after_outage(&mut self, waited: Duration) {
        self.waited += waited;
        self.attempt_counts.forgive_free();
        self.grant_retry();
    }

    /// Stores a failed attempt for the next decision.
    pub(super) fn remember_failure(&mut self, chosen: &Candidate, failure: AttemptFailure) {
        self.attempt_counts.count_failure(&failure.outcome);
        self.failure_causes.push((failure.outcome.cooldown, failure.outcome.blame));
        self.failed_attempts.push(FailedAttempt {
            key: chosen.key,
            upstream: chosen.upstream(),
            model: Arc::clone(&chosen.target.model),
            may_recover: failure.may_recover,
            upstream_failed: failure.outcome.blames_upstream(),
            upstream_refuses: failure.outcome.retry == Retry::OtherUpstream,
        });
        self.last_failure =
            Some(LastFailure { failure, key: chosen.key, key_name: Arc::clone(&chosen.key_name) });
    }

    /// Stops waiting for the conversation's own account, so that others may serve it at once.
    /// Returns false if it was not waiting for that.
    pub(super) fn stop_affinity_wait(&mut self, now: Mono) -> bool {
        self.affinity
            .as_mut()
            .and_then(Option::as_mut)
            .is_some_and(|affinity| affinity.stop_waiting(now))
    }

    /// Returns whether the request waits for its conversation's own account.
    pub(super) fn waits_for_affinity(&self, now: Mono) -> bool {
        self.affinity
            .as_ref()
            .and_then(Option::as_ref)
            .is_some_and(|affinity| affinity.wait_until > now)
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

    fn stop_waiting(&mut self, now: Mono) -> bool {
        let waited = self.wait_until > now;
        self.wait_until = self.wait_until.min(now);
        waited
    }
}
