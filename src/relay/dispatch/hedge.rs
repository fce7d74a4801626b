//! Sends a second attempt to another target when the first is slow to produce content.
//!
//! The first attempt with content wins, and the other is cancelled. Both run inside the request's
//! own future, so both end when the client disconnects.

use std::{mem, pin::pin, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::relay::{
    attempt::{
        attempt_candidate as try_one,
        parse_request::parse_for_targets,
        result::{AttemptFailure, AttemptResponse},
    },
    context::{ActiveRequest, RequestContext},
    dispatch::{budget, candidates::CandidateSet, capability, explain::publish_failure},
    engine::Engine,
    record::{attempt_guard::AttemptGuard, recorder::RequestRecorder},
};
use crate::{
    config::settings::{Hedge, HedgeDelay},
    events::record::AttemptRole,
    ir::{
        op::Op,
        reason::{
            failure::{FailureReason, RaceWinner},
            route::RouteReason,
        },
    },
    routing::{
        affinity::ConversationKeys,
        budget::Holder,
        candidate::Candidate,
        decision::RouteQuery,
        health::attempt::AttemptTicket,
        hedge::{self, HedgeInput},
    },
};

/// Runs a request's first attempt, and a concurrent second one if the first is slow.
pub(in crate::relay) async fn attempt_with_hedge(
    active: &mut ActiveRequest,
    rule: &Hedge,
    set: &CandidateSet,
    (index, number, ticket): (usize, u32, AttemptTicket),
    deadline: Instant,
) -> Result<AttemptResponse, Vec<(usize, AttemptFailure)>> {
    let ActiveRequest { context, recorder, .. } = active;
    let engine = Arc::clone(&context.engine);
    let first = &set.candidates[index];
    let started = engine.clock.mono();
    let Some(after) = hedge_delay(context, rule, first) else {
        let result = try_one(context, first, ticket, deadline).await;
        let number = recorder.attempt_repaired(number, first, context.refusal.take());
        return match result {
            Ok(response) => {
                engine.hedge_stats.record_latency(
                    first,
                    context.request.stream,
                    engine.clock.mono().since(started),
                );
                Ok(response)
            }
            Err(lost) => {
                publish_failure(&engine, recorder, (number, first), &lost);
                Err(vec![(index, lost)])
            }
        };
    };
    let mut second_context = context.clone_context();
    let (stream, keys) = (context.request.stream, ticket.conversation.clone());
    let settings = Arc::clone(&context.generation.settings);
    let mut race = Race {
        engine,
        recorder,
        rule,
        set,
        query: set.query(&[], &settings.routing.region),
        first: (index, number),
        keys,
        delay: after,
        deadline,
        failures: Vec::new(),
    };
    let response = race.run(context, &mut second_context, ticket).await;
    let Race { engine, failures: lost, .. } = race;
    let Some((response, by_second)) = response else { return Err(lost) };
    let took = engine.clock.mono().since(started);
    // A first attempt that lost the race is known to have taken longer than this.
    engine.hedge_stats.record_latency(first, stream, took);
    if let Some(second) = by_second {
        let second_took = took.saturating_sub(after);
        engine.hedge_stats.record_latency(&set.candidates[second], stream, second_took);
        take_over(context, &mut second_context);
        if let Some(targets) = &mut context.rescue_targets {
            targets.failed_attempts.extend(hedge::as_failed(&set.candidates, &[], index, true));
        }
    }
    Ok(response)
}

/// Returns the delay after which the second attempt starts; `None` if there is no second attempt.
fn hedge_delay(context: &RequestContext, rule: &Hedge, first: &Candidate) -> Option<Duration> {
    let request = &context.request;
    if !matches!(request.endpoint.op, Op::Chat | Op::Completions) || request.owner.is_some() {
        return None;
    }
    let (p95, credit) = context.engine.hedge_stats.earn_credit(rule, first, request.stream);
    // Sums of shares may be a rounding error below a whole hedge.
    let credit = credit + 1e-9;
    let facts = HedgeInput {
        input_tokens: request.estimate,
        server_tools: false,
        budget_used: budget_used(context),
    };
    let after = hedge::hedge_delay(rule, facts, p95, credit).ok()?;
    // Checked last, because it scans the whole body.
    let facts =
        HedgeInput { server_tools: capability::provider_runs_tools(&request.body), ..facts };
    hedge::hedge_delay(rule, facts, p95, credit).ok().map(|_| after)
}

/// Returns the spent share of the fullest budget that the request counts against.
fn budget_used(context: &RequestContext) -> f64 {
    if !budget::applies(&context.engine, &context.request) {
        return 0.0;
    }
    let project = Holder::Project(Arc::clone(&context.request.caller.project.name));
    context.engine.budgets.max_used_fraction(&[Holder::All, project], context.engine.clock.unix())
}

/// Moves the results of the second attempt into the request's context.
fn take_over(context: &mut RequestContext, second_context: &mut RequestContext) {
    context.hide_usage = second_context.hide_usage;
    context.losses = mem::take(&mut second_context.losses);
    context.attempt_context = second_context.attempt_context.take();
    context.attempt_target = second_context.attempt_target;
    if second_context.parsed.is_some() {
        context.parsed = second_context.parsed.take();
    }
    context.buffer_reservation.absorb(&mut second_context.buffer_reservation);
}

/// At most two concurrent attempts, of which one wins.
struct Race<'a> {
    engine: Arc<Engine>,
    recorder: &'a mut RequestRecorder,
    rule: &'a Hedge,
    set: &'a CandidateSet,
    query: RouteQuery<'a>,
    /// The index of the first attempt's candidate, and the attempt's number.
    first: (usize, u32),
    keys: Option<Arc<ConversationKeys>>,
    delay: Duration,
    deadline: Instant,
    failures: Vec<(usize, AttemptFailure)>,
}

impl Race<'_> {
    /// Returns the winning result, and the candidate's index if the second attempt won.
    async fn run(
        &mut self,
        context: &mut RequestContext,
        second_context: &mut RequestContext,
        ticket: AttemptTicket,
    ) -> Option<(AttemptResponse, Option<usize>)> {
        let candidates = self.query.candidates;
        let mut first = pin!(try_one(context, &candidates[self.first.0], ticket, self.deadline));
        tokio::select! {
            biased;
            result = &mut first => return self.record_result(self.first, result).map(|won| (won, None)),
            () = sleep(self.delay) => {}
        }
        let Some((at, number, ticket)) = self.start_second(second_context) else {
            let result = first.await;
            return self.record_result(self.first, result).map(|response| (response, None));
        };
        let mut second = pin!(try_one(second_context, &candidates[at], ticket, self.deadline));
        let (mut first_runs, mut second_runs) = (true, true);
        while first_runs || second_runs {
            tokio::select! {
                biased;
                result = &mut first, if first_runs => {
                    first_runs = false;
                    if let Some(won) = self.first_ended(result, second_runs.then_some(number)) {
                        return Some((won, None));
                    }
                }
                result = &mut second, if second_runs => {
                    second_runs = false;
                    if let Some(won) = self.second_ended((at, number), result, first_runs) {
                        return Some((won, Some(at)));
                    }
                }
            }
        }
        None
    }

    /// Records the end of the first attempt. `second`: the number of the second, if it is running.
    fn first_ended(
        &mut self,
        result: Result<AttemptResponse, AttemptFailure>,
        second: Option<u32>,
    ) -> Option<AttemptResponse> {
        if let (Some(second), true) = (second, result.is_ok()) {
            let reason = FailureReason::LostRace { winner: RaceWinner::First };
            self.recorder.attempt_failed(second, None, &reason, true);
        }
        self.record_result(self.first, result)
    }

    fn second_ended(
        &mut self,
        second: (usize, u32),
        result: Result<AttemptResponse, AttemptFailure>,
        first_runs: bool,
    ) -> Option<AttemptResponse> {
        if first_runs && result.is_ok() {
            let reason = FailureReason::LostRace { winner: RaceWinner::Second };
            self.recorder.attempt_failed(self.first.1, None, &reason, true);
        }
        self.record_result(second, result)
    }

    fn record_result(
        &mut self,
        (index, number): (usize, u32),
        result: Result<AttemptResponse, AttemptFailure>,
    ) -> Option<AttemptResponse> {
        match result {
            Ok(response) => Some(response),
            Err(failure) => {
                publish_failure(
                    &self.engine,
                    self.recorder,
                    (number, &self.query.candidates[index]),
                    &failure,
                );
                self.failures.push((index, failure));
                None
            }
        }
    }

    /// Starts the second attempt if a candidate is ready; prefers another account over the same
    /// one.
    fn start_second(
        &mut self,
        second_context: &mut RequestContext,
    ) -> Option<(usize, u32, AttemptTicket)> {
        let (engine, q) = (&self.engine, &self.query);
        let now = engine.clock.mono();
        let (at, ticket) = [false, true].into_iter().find_map(|same_account| {
            let tried =
                hedge::as_failed(q.candidates, q.failed_attempts, self.first.0, same_account);
            let question = RouteQuery { failed_attempts: &tried, affinity: None, ..*q };
            engine.with_rng(|rng| {
                engine.router.decide_ready_only(&question, self.keys.as_ref(), now, rng)
            })
        })?;
        let target = Arc::clone(&q.candidates[at].target);
        let takes = parse_for_targets(second_context, &mut vec![Arc::clone(&target)]).is_ok();
        if !takes || !engine.hedge_stats.spend_credit(self.rule) {
            drop(AttemptGuard::new(engine, ticket));
            return None;
        }
        let chosen = &q.candidates[at];
        let Ok(budget_hold) = self.set.reserve_budget(second_context, at) else {
            drop(AttemptGuard::new(engine, ticket));
            return None;
        };
        second_context.attempt_target = Some((target.upstream.id, chosen.key));
        let is_p95 = self.rule.after == HedgeDelay::P95;
        let reason = RouteReason::Hedge { waited: self.delay.into(), is_p95 };
        let number = self.recorder.attempt_started(
            chosen,
            (AttemptRole::Hedge, false),
            budget_hold,
            reason.into(),
        );
        Some((at, number, ticket))
    }
}
