//! Runs a request's dispatch loop: decide, attempt and record, until an attempt wins or no other
//! can help.

pub mod admission;
pub mod budget;
pub(crate) mod capability;
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
    attempt::{
        attempt_candidate,
        result::{AttemptFailure, AttemptResponse},
    },
    context::{RequestContext, RescueTargets},
    dispatch::{
        capability::RequiredCapabilities,
        explain::{choice_reason, publish_failure, skipped_candidates},
        final_error::cancelled_error,
        name_resolution::{can_resume, resolve_targets},
        retry_state::{AffinityWait, RetryState, remember_failure, retry_pause},
        wait::wait_in_queue,
    },
    record::{attempt_guard::AttemptGuard, budget_hold::BudgetHold, cache_monitor},
};
use crate::{
    ir::fault::{ProxyError, ProxyErrorKind},
    routing::{
        candidate::{self, Candidate, KeyState},
        decision::{ChoiceReason, RouteQuery, Verdict},
        health::TokenEstimate,
        prompt_cache::ServedBy,
        retry::RetryTarget,
    },
};

/// How often the local network is checked again while it is down.
const OFFLINE_POLL: Duration = Duration::from_secs(2);

/// Runs the request until it is decided, and returns its context for what follows.
pub async fn dispatch_cancellable(
    mut context: Box<RequestContext>,
) -> (Box<RequestContext>, Result<AttemptResponse, ProxyError>) {
    let cancel = Arc::clone(&context.cancel);
    let result = tokio::select! {
        biased;
        cause = cancel.cancelled() => Err(cancelled_error(cause)),
        result = dispatch(&mut context) => result,
    };
    if result.is_ok()
        && context.engine.cache_monitor.is_active()
        && let Some((upstream, key)) = context.attempt_target
    {
        let served_by = || ServedBy {
            upstream,
            key_name: context.recorder.key_name(),
            account: context.engine.key_info(key).1,
            model: Arc::clone(&context.recorder.model),
            translated: context.attempt_context.is_some(),
        };
        let prefix =
            cache_monitor::prompt_prefix(&context.request, &context.engine.hash_key, served_by);
        context.recorder.pending_prefix = prefix.map(Box::new);
    }
    (context, result)
}

async fn dispatch(context: &mut RequestContext) -> Result<AttemptResponse, ProxyError> {
    admission::admit(context).await?;
    let resolved = resolve_targets(context).await?;
    if context.overrides.rescue && can_resume(&context.request) {
        context.rescue_targets = Some(Box::new(RescueTargets {
            resolved: resolved.clone(),
            failed_attempts: Vec::new(),
        }));
    }
    let settings = Arc::clone(&context.generation.settings);
    let total = context.overrides.total.unwrap_or(settings.timeouts.total);
    let deadline = Instant::now() + total;
    let mut state = RetryState::default();
    context.engine.router.count_request(context.engine.clock.mono());
    loop {
        let mut candidates =
            candidate::build_candidates(&resolved.targets, &|key| context.engine.key_info(key));
        if let Some((_, Some(key))) = context.request.owner {
            candidates.retain(|candidate| candidate.key == key);
        }
        if let Some(needs) = state.required.get_or_insert_with(|| {
            RequiredCapabilities::for_candidates(&context.request, &candidates)
        }) {
            needs.annotate(&mut candidates, &context.generation.facts);
        }
        let now = context.engine.clock.mono();
        let estimate = TokenEstimate {
            input: context.request.estimate,
            output: context.request.output_limit(),
        };
        let budgeted = budget::applies(&context.engine, &context.request);
        let costs = if budgeted || resolved.strategy.uses_cost() {
            context.engine.estimate_costs(&candidates, estimate)
        } else {
            Vec::new()
        };
        if budgeted {
            budget::annotate_candidates(
                &context.engine,
                &context.request.caller.project.name,
                &mut candidates,
                &costs,
            );
        }
        let first = RouteQuery {
            strategy: resolved.strategy,
            input_estimate: estimate.input,
            max_output: estimate.output,
            costs: &costs,
            region: &settings.routing.region,
            ..RouteQuery::first_attempt(&candidates)
        };
        let question = RouteQuery { failed_attempts: &state.failed_attempts, ..first };
        let affinity = state
            .affinity
            .get_or_insert_with(|| AffinityWait::for_request(context, &candidates, now))
            .as_ref();
        let (decision, ticket) = context.engine.with_rng(|rng| match affinity {
            Some(affinity) => context.engine.router.decide_with_affinity(
                &question,
                (&affinity.keys, affinity.ttl, affinity.wait_until),
                now,
                rng,
            ),
            None => context.engine.router.decide(&question, now, rng),
        });
        match (&decision.verdict, ticket) {
            (Verdict::Try { index, reason: why, .. }, Some(ticket)) => {
                state.queue_slot = None;
                let chosen = &candidates[*index];
                if budgeted {
                    let cost = costs.get(*index).copied().flatten();
                    let Some(reservation) = BudgetHold::reserve(
                        &context.engine,
                        &context.request.caller.project.name,
                        chosen,
                        cost,
                    ) else {
                        drop(AttemptGuard::new(&context.engine, ticket));
                        continue;
                    };
                    context.recorder.set_budget_hold(reservation);
                }
                if !std::mem::take(&mut state.retry_granted)
                    && !retry_pause(context, &mut state, RetryTarget::Other)
                        .is_some_and(|pause| pause.is_zero())
                {
                    drop(AttemptGuard::new(&context.engine, ticket));
                    return Err(final_error::final_error(
                        context,
                        state.failures(),
                        &decision,
                        &candidates,
                        None,
                    ));
                }
                context.attempt_target = Some((chosen.upstream(), chosen.key));
                let bound = matches!(why, ChoiceReason::Affinity { .. });
                let mut reason =
                    choice_reason(&resolved, chosen, why, context.request.endpoint.dialect);
                if let Some(skipped) = skipped_candidates(&decision, &candidates, chosen, now) {
                    reason = [&*reason, &skipped].concat().into();
                }
                if state.last_failure.is_some() {
                    reason = format!("try {}: {reason}", context.recorder.attempts() + 1).into();
                }
                context.recorder.attempt_started(chosen, bound, reason);
                if let Some(rule) =
                    context.overrides.hedge.clone().filter(|_| state.last_failure.is_none())
                {
                    match Box::pin(hedge::attempt_with_hedge(
                        context,
                        &rule,
                        &first,
                        (*index, ticket),
                        deadline,
                    ))
                    .await
                    {
                        Ok(response) => return Ok(response),
                        Err(failure) => {
                            for (index, failure) in failure {
                                let chosen = &candidates[index];
                                remember_failure(&mut state, chosen, failure);
                            }
                            if Instant::now() >= deadline {
                                return Err(final_error::final_error(
                                    context,
                                    state.failures(),
                                    &decision,
                                    &candidates,
                                    None,
                                ));
                            }
                            continue;
                        }
                    }
                }
                match attempt_candidate(context, chosen, ticket, deadline).await {
                    Ok(response) => {
                        if let Some(targets) = &mut context.rescue_targets {
                            targets.failed_attempts.append(&mut state.failed_attempts);
                        }
                        return Ok(response);
                    }
                    Err(failure) => record_failure(context, &mut state, chosen, failure),
                }
                if Instant::now() >= deadline {
                    return Err(final_error::final_error(
                        context,
                        state.failures(),
                        &decision,
                        &candidates,
                        None,
                    ));
                }
            }
            (Verdict::RetrySame { .. }, _) => {
                let Some(pause) = retry_pause(context, &mut state, RetryTarget::Same) else {
                    return Err(final_error::final_error(
                        context,
                        state.failures(),
                        &decision,
                        &candidates,
                        None,
                    ));
                };
                let pause = if context.engine.network.down() { OFFLINE_POLL } else { pause };
                if Instant::now() + pause >= deadline {
                    return Err(final_error::final_error(
                        context,
                        state.failures(),
                        &decision,
                        &candidates,
                        None,
                    ));
                }
                state.queue_slot = None;
                context
                    .recorder
                    .publish_queued(format!("the same again in {} ms", pause.as_millis()));
                sleep(pause).await;
                state.retry_granted = true;
                state.failed_attempts.retain(|tried| !tried.may_recover);
            }
            (Verdict::Wait { until }, _) => {
                // A candidate that was not tried yet and whose key is still being read: moving on
                // to it does not count as a retry.
                let is_untried = |c: &Candidate| {
                    c.key_state == KeyState::Waiting
                        && !state
                            .failed_attempts
                            .iter()
                            .any(|t| t.key == c.key && t.model == c.target.model)
                };
                let key_pending = state.last_failure.is_some() && candidates.iter().any(is_untried);
                let permitted = key_pending
                    || state.last_failure.is_none()
                    || state.retry_granted
                    || retry_pause(context, &mut state, RetryTarget::Same).is_some();
                if !permitted
                    || !wait_in_queue(context, &mut state, &decision, &candidates, *until, deadline)
                        .await
                {
                    if state
                        .affinity
                        .as_mut()
                        .and_then(Option::as_mut)
                        .is_some_and(|affinity| affinity.stop_waiting(now))
                    {
                        continue;
                    }
                    return Err(final_error::final_error(
                        context,
                        state.failures(),
                        &decision,
                        &candidates,
                        *until,
                    ));
                }
                if !key_pending {
                    state.retry_granted = true;
                    state.failed_attempts.retain(|tried| !tried.may_recover);
                }
            }
            (Verdict::Exhausted { retry_at }, _) => {
                return Err(final_error::final_error(
                    context,
                    state.failures(),
                    &decision,
                    &candidates,
                    *retry_at,
                ));
            }
            (Verdict::Try { .. }, None) => {
                return Err(ProxyError::new(
                    ProxyErrorKind::Internal,
                    "a candidate was chosen without a ticket; please report this",
                ));
            }
        }
    }
}

/// Records a failed attempt.
fn record_failure(
    context: &mut RequestContext,
    state: &mut RetryState,
    chosen: &Candidate,
    failure: AttemptFailure,
) {
    publish_failure(&context.engine, &mut context.recorder, chosen, &failure);
    remember_failure(state, chosen, failure);
}
