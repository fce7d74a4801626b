//! Waits in the queue until a candidate may be free.

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::relay::{
    context::ActiveRequest,
    dispatch::{
        final_error,
        queue::{QueueGuard, queue_key},
        retry_state::{NextStep, RetryState},
    },
};
use crate::{
    base::clock::Mono,
    ir::{fault::ProxyErrorKind, reason::route::RouteReason},
    routing::{
        candidate::{Candidate, KeyState},
        decision::Decision,
        retry::RetryTarget,
    },
};

/// Waits until a candidate may be free; fails if waiting is not allowed or does not help. The wait
/// consists of the decision, its candidates and when the first of them is free, if that is known.
pub(super) async fn wait_for_capacity(
    active: &ActiveRequest,
    state: &mut RetryState,
    (decision, candidates, until): (&Decision, &[Candidate], Option<Mono>),
    now: Mono,
) -> NextStep {
    // A candidate that was not tried yet and whose key is still being read: moving on to it does
    // not count as a retry.
    let is_untried = |candidate: &Candidate| {
        candidate.key_state == KeyState::Waiting
            && !state
                .failed_attempts
                .iter()
                .any(|tried| tried.key == candidate.key && tried.model == candidate.target.model)
    };
    let key_pending = state.last_failure.is_some() && candidates.iter().any(is_untried);
    let permitted = key_pending
        || state.last_failure.is_none()
        || state.retry_granted
        || state.retry_pause(&active.context, RetryTarget::Same).is_some();
    if !permitted || !wait_in_queue(active, state, decision, candidates, until).await {
        if state.stop_affinity_wait(now) {
            return NextStep::Decide;
        }
        return NextStep::Fail { retry_at: until };
    }
    if !key_pending {
        state.grant_retry();
    }
    NextStep::Decide
}

/// Waits in the queue; returns false if waiting does not help in time.
async fn wait_in_queue(
    active: &ActiveRequest,
    state: &mut RetryState,
    decision: &Decision,
    candidates: &[Candidate],
    until: Option<Mono>,
) -> bool {
    let Some(remaining) = active
        .context
        .queue_timeout()
        .checked_sub(state.waited)
        .filter(|remaining| !remaining.is_zero())
    else {
        return false;
    };
    let now = active.context.engine.clock.mono();
    let span = until.map(|until| until.since(now));
    // Waiting does not help if no upstream has the model.
    if span.is_some_and(|span| span > remaining)
        || final_error::unanimous_kind(&state.failure_causes, decision)
            == Some(ProxyErrorKind::ModelNotFound)
    {
        return false;
    }
    // A request that waits for its own account does not block others.
    let own_line = state.waits_for_affinity(now).then_some(active.context.request.id);
    let set = queue_key(candidates, &state.failed_attempts, own_line);
    if state.queue_slot.as_ref().is_none_or(|(known, _)| *known != set) {
        state.queue_slot = None;
        let engine = &active.context.engine;
        let project = &active.context.request.caller.project.name;
        state.queue_slot =
            QueueGuard::join(&engine.wait_queue, &engine.capacity_changed, set, project)
                .map(|guard| (set, guard));
    }
    let Some((_, guard)) = &state.queue_slot else { return false };
    let started = Instant::now();
    let give_up_at = (started + remaining).min(state.deadline);
    active.recorder.publish_queued(match span {
        Some(span) => RouteReason::WaitsForKey { wait: span.into(), ahead: guard.position() },
        None => RouteReason::WaitsForVerdict,
    });
    // The end of the cooldown or any change wakes the task; the first in the queue proceeds, the
    // others check again.
    let ok = loop {
        let changed = active.context.engine.capacity_changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let wake_at = started + span.unwrap_or(remaining);
        tokio::select! {
            () = &mut changed => {}
            () = sleep_until(wake_at.min(give_up_at)) => {}
        }
        let at = Instant::now();
        if guard.position() == 0 {
            break at < give_up_at || span.is_some();
        }
        if at >= give_up_at {
            break false;
        }
        if at >= wake_at {
            // Behind another request, whose departure wakes this one.
            drop(timeout_at(give_up_at, active.context.engine.capacity_changed.notified()).await);
        }
    };
    state.waited += started.elapsed();
    ok
}
