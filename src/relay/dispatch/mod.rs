//! Runs a request's dispatch loop: decide, attempt and record, until an attempt wins or no other
//! can help.

pub mod admission;
pub mod budget;
pub(crate) mod candidates;
pub(crate) mod capability;
mod endpoint_choice;
pub(crate) mod explain;
pub(crate) mod final_error;
pub mod hedge;
pub mod local_answer;
mod name_resolution;
pub mod queue;
mod retry_state;
mod wait;

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::relay::{
    attempt::{attempt_candidate, result::AttemptResponse},
    context::{ActiveRequest, RequestContext, RescueTargets},
    dispatch::{
        candidates::CandidateSet,
        capability::RequiredCapabilities,
        explain::{publish_failure, route_reason},
        final_error::{cancelled_error, final_error},
        name_resolution::{can_resume, resolve_targets, suggest_names},
        retry_state::{AffinityWait, NextStep, RetryState},
        wait::wait_for_capacity,
    },
    record::{attempt_guard::AttemptGuard, cache_monitor},
};
use crate::{
    base::clock::Mono,
    events::record::AttemptRole,
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        reason::route::RouteReason,
    },
    routing::{
        candidate,
        decision::{ChoiceReason, Decision, Verdict},
        health::attempt::AttemptTicket,
        prompt_cache::ServedBy,
        resolve::ResolvedModel,
        retry::RetryTarget,
    },
};

/// How often the local network is checked again while it is down.
const OFFLINE_POLL: Duration = Duration::from_secs(2);

/// Runs the request until it is decided, and returns its context for what follows.
pub async fn dispatch_cancellable(
    mut active: Box<ActiveRequest>,
) -> (Box<ActiveRequest>, Result<AttemptResponse, ProxyError>) {
    let cancel = Arc::clone(&active.cancel);
    let result = tokio::select! {
        biased;
        cause = cancel.cancelled() => Err(cancelled_error(cause)),
        result = dispatch(&mut active) => result,
    };
    if result.is_ok() && active.context.engine.cache_monitor.is_active() {
        record_prefix(&mut active);
    }
    (active, result)
}

/// Decides and attempts until an attempt wins or no other can help.
async fn dispatch(active: &mut ActiveRequest) -> Result<AttemptResponse, ProxyError> {
    admission::admit(active).await?;
    let resolved = resolve_targets(&mut active.context).await?;
    if active.context.overrides.rescue && can_resume(&active.context.request) {
        active.context.rescue_targets = Some(Box::new(RescueTargets {
            resolved: resolved.clone(),
            failed_attempts: Vec::new(),
        }));
    }
    let total =
        active.context.overrides.total.unwrap_or(active.context.generation.settings.timeouts.total);
    let mut state = RetryState::new(Instant::now() + total);
    active.context.engine.router.count_request(active.context.engine.clock.mono());
    loop {
        let set = build_candidates(&active.context, &resolved, &mut state);
        let now = active.context.engine.clock.mono();
        let (decision, ticket) = decide(&active.context, &set, &mut state, now);
        let step = match (&decision.verdict, ticket) {
            (Verdict::Try { index, reason, .. }, Some(ticket)) => {
                let round = Round { resolved: &resolved, set: &set, decision: &decision };
                attempt_chosen(active, &mut state, &round, (*index, reason), ticket).await
            }
            (Verdict::Try { .. }, None) => return Err(missing_ticket()),
            (Verdict::RetrySame { .. }, _) => pause_before_same(active, &mut state).await,
            (Verdict::Wait { until }, _) => {
                let wait = (&decision, &*set.candidates, *until);
                wait_for_capacity(active, &mut state, wait, now).await
            }
            (Verdict::Exhausted { retry_at }, _) => NextStep::Fail { retry_at: *retry_at },
        };
        match step {
            NextStep::Decide => {}
            NextStep::Respond(response) => return Ok(response),
            NextStep::Fail { retry_at } => {
                let failures = state.failures();
                let error = final_error(active, failures, &decision, &set.candidates, retry_at);
                return Err(suggest_names(&active.context, &resolved, failures.0, error));
            }
        }
    }
}

/// What one decision was based on.
struct Round<'a> {
    resolved: &'a ResolvedModel,
    set: &'a CandidateSet,
    decision: &'a Decision,
}

/// Builds the candidates as they are now.
fn build_candidates(
    context: &RequestContext,
    resolved: &ResolvedModel,
    state: &mut RetryState,
) -> CandidateSet {
    let engine = &context.engine;
    let mut candidates =
        candidate::build_candidates(&resolved.targets, &|key| engine.key_info(key));
    if let Some((_, Some(key))) = context.request.owner {
        candidates.retain(|candidate| candidate.key == key);
    }
    let required = state
        .required
        .get_or_insert_with(|| RequiredCapabilities::for_candidates(&context.request, &candidates));
    if let Some(required) = required {
        required.annotate(&mut candidates, &context.generation.facts);
    }
    CandidateSet::new(context, candidates, resolved.strategy)
}

/// Decides on the next attempt, and starts it in the router.
fn decide(
    context: &RequestContext,
    set: &CandidateSet,
    state: &mut RetryState,
    now: Mono,
) -> (Decision, Option<AttemptTicket>) {
    let (engine, settings) = (&context.engine, &context.generation.settings);
    let query = set.query(&state.failed_attempts, &settings.routing.region);
    let affinity = state
        .affinity
        .get_or_insert_with(|| AffinityWait::for_request(context, &set.candidates, now))
        .as_ref();
    engine.with_rng(|rng| match affinity {
        Some(affinity) => engine.router.decide_with_affinity(
            &query,
            (&affinity.keys, affinity.ttl, affinity.wait_until),
            now,
            rng,
        ),
        None => engine.router.decide(&query, now, rng),
    })
}

/// Makes the attempt that was decided on, with a hedge if the first attempt may have one.
async fn attempt_chosen(
    active: &mut ActiveRequest,
    state: &mut RetryState,
    round: &Round<'_>,
    (index, why): (usize, &ChoiceReason),
    ticket: AttemptTicket,
) -> NextStep {
    state.queue_slot = None;
    let set = round.set;
    let chosen = &set.candidates[index];
    let Ok(budget_hold) = set.reserve_budget(&active.context, index) else {
        drop(AttemptGuard::new(&active.context.engine, ticket));
        return NextStep::Decide;
    };
    if !state.take_grant(&active.context) {
        drop(AttemptGuard::new(&active.context.engine, ticket));
        return NextStep::Fail { retry_at: None };
    }
    active.context.attempt_target = Some((chosen.upstream(), chosen.key));
    let dialect = active.context.request.endpoint.dialect;
    let number = state.last_failure.is_some().then(|| active.recorder.attempts() + 1);
    let reason = route_reason(
        round.resolved,
        (round.decision, &set.candidates),
        (chosen, why),
        dialect,
        number,
    );
    let role = (AttemptRole::Primary, matches!(why, ChoiceReason::Affinity { .. }));
    let number = active.recorder.attempt_started(chosen, role, budget_hold, reason);
    let deadline = state.deadline;
    let rule = active.context.overrides.hedge.clone().filter(|_| state.last_failure.is_none());
    if let Some(rule) = rule {
        let first = (index, number, ticket);
        let attempts = hedge::attempt_with_hedge(active, &rule, set, first, deadline);
        match Box::pin(attempts).await {
            Ok(response) => return NextStep::Respond(response),
            Err(failures) => {
                for (index, failure) in failures {
                    state.remember_failure(&set.candidates[index], failure);
                }
            }
        }
    } else {
        let result = attempt_candidate(&mut active.context, chosen, ticket, deadline).await;
        let refusal = active.context.refusal.take();
        let number = active.recorder.attempt_repaired(number, chosen, refusal);
        match result {
            Ok(response) => {
                if let Some(targets) = &mut active.context.rescue_targets {
                    targets.failed_attempts.append(&mut state.failed_attempts);
                }
                return NextStep::Respond(response);
            }
            Err(failure) => {
                publish_failure(
                    &active.context.engine,
                    &mut active.recorder,
                    (number, chosen),
                    &failure,
                );
                state.remember_failure(chosen, failure);
            }
        }
    }
    if Instant::now() >= deadline { NextStep::Fail { retry_at: None } } else { NextStep::Decide }
}

/// Pauses before the same candidate is tried again, if that is allowed and there is time.
async fn pause_before_same(active: &ActiveRequest, state: &mut RetryState) -> NextStep {
    if active.context.engine.network.down() {
        return wait_for_network(active, state).await;
    }
    let Some(pause) = state.retry_pause(&active.context, RetryTarget::Same) else {
        return NextStep::Fail { retry_at: None };
    };
    if Instant::now() + pause >= state.deadline {
        return NextStep::Fail { retry_at: None };
    }
    state.queue_slot = None;
    active.recorder.publish_queued(RouteReason::RetrySame { pause: pause.into() });
    sleep(pause).await;
    state.grant_retry();
    NextStep::Decide
}

/// Waits while the local network is down, for as long as a request may wait in the queue: no retry
/// is spent on what is not an upstream's fault.
async fn wait_for_network(active: &ActiveRequest, state: &mut RetryState) -> NextStep {
    let max_wait = active.context.queue_timeout();
    let pause = OFFLINE_POLL.min(max_wait.saturating_sub(state.waited));
    if pause.is_zero() || Instant::now() + pause >= state.deadline {
        return NextStep::Fail { retry_at: None };
    }
    state.queue_slot = None;
    active.recorder.publish_queued(RouteReason::RetrySame { pause: pause.into() });
    sleep(pause).await;
    state.grant_after_outage(pause);
    NextStep::Decide
}

fn missing_ticket() -> ProxyError {
    ProxyError::new(
        ProxyErrorKind::Internal,
        "a candidate was chosen without a ticket; please report this",
    )
}

/// Stores the prefix of a request that is about to be answered, until the response reports its
/// cached tokens.
fn record_prefix(active: &mut ActiveRequest) {
    let Some((upstream, key)) = active.context.attempt_target else { return };
    let served_by = || ServedBy {
        upstream,
        key_name: active.recorder.key_name(),
        account: active.context.engine.key_info(key).1,
        model: Arc::clone(active.recorder.model()),
        translated: active.context.attempt_context.is_some(),
    };
    let prefix = cache_monitor::prompt_prefix(
        &active.context.request,
        &active.context.engine.hash_key,
        served_by,
    );
    active.recorder.pending_prefix = prefix.map(Box::new);
}
