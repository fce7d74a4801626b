//! Asking a second target beside a first that is slow to speak: whoever speaks first answers, the
//! other is cancelled.
//!
//! Both attempts run inside the request's own future, so a client that hangs up ends them both.

use std::{
    mem,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    answer::{Lost, Won},
    attempt::attempt as try_one,
    budgets::{self, Reservation},
    engine::{Engine, Place},
    fitness,
    rounds::{Job, tell_lost},
    tally::{Guard, Tally},
    translated,
};
use crate::{
    config::settings::{Hedge, HedgeDelay},
    ir::op::Op,
    routing::{
        affinity::ConversationKeys,
        budget::Holder,
        candidate::{Candidate, RouteQuery, print_span},
        health::AttemptTicket,
        hedge::{self, HedgeInput, TargetLatencies},
    },
};

/// What the decisions are made by; one per process, touched only by requests whose model asks for
/// hedges.
#[derive(Debug, Default)]
pub struct Hedges(Mutex<TargetLatencies>);

impl Hedges {
    fn lock(&self) -> MutexGuard<'_, TargetLatencies> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long all but the slowest twentieth of a target's answers took to begin, where that is
    /// known.
    #[must_use]
    pub fn p95(&self, candidate: &Candidate, stream: bool) -> Option<Duration> {
        self.lock().p95(candidate, stream)
    }
}

/// A request's first attempt, and a second beside it where the first is slow.
pub(super) async fn attempt(
    job: &mut Job,
    rule: &Hedge,
    question: &RouteQuery<'_>,
    (index, ticket): (usize, AttemptTicket),
    deadline: Instant,
) -> Result<Won, Vec<(usize, Lost)>> {
    let engine = Arc::clone(&job.engine);
    let first = &question.candidates[index];
    let begun = engine.clock.mono();
    let Some(after) = after(job, rule, first) else {
        let result = try_one(job, first, ticket, deadline).await;
        return match result {
            Ok(won) => {
                engine.hedges.lock().record_latency(
                    first,
                    job.ask.stream,
                    engine.clock.mono().since(begun),
                );
                Ok(won)
            }
            Err(lost) => {
                tell_lost(&engine, &mut job.tally, first, &lost);
                Err(vec![(index, lost)])
            }
        };
    };
    let mut twin = twin(job);
    let mute = Tally::mute(&engine, &job.ask);
    let tally = mem::replace(&mut job.tally, mute);
    let (stream, keys) = (job.ask.stream, ticket.conversation.clone());
    let mut race =
        Race { engine, tally, rule, question, index, keys, after, deadline, lost: Vec::new() };
    let won = race.run(job, &mut twin, ticket).await;
    let Race { engine, tally, lost, .. } = race;
    job.tally = tally;
    let Some((won, by_second)) = won else { return Err(lost) };
    let took = engine.clock.mono().since(begun);
    let mut pace = engine.hedges.lock();
    // Of a first that was overtaken it is known that it took longer than this.
    pace.record_latency(first, stream, took);
    if let Some(second) = by_second {
        pace.record_latency(&question.candidates[second], stream, took.saturating_sub(after));
        drop(pace);
        adopt(job, &mut twin);
        if let Some(spares) = &mut job.spares {
            spares.tried.extend(hedge::as_failed(question.candidates, &[], index, true));
        }
    }
    Ok(won)
}

/// After how long a second is asked; `None` where none is.
fn after(job: &Job, rule: &Hedge, first: &Candidate) -> Option<Duration> {
    let ask = &job.ask;
    if !matches!(ask.endpoint.op, Op::Chat | Op::Completions) || ask.home.is_some() {
        return None;
    }
    let (p95, credit) = {
        let mut pace = job.engine.hedges.lock();
        pace.earn_credit(rule);
        (
            if rule.after == HedgeDelay::P95 { pace.p95(first, ask.stream) } else { None },
            pace.credit(rule) + 1e-9,
        )
    };
    let facts =
        HedgeInput { input_tokens: ask.estimate, server_tools: false, budget_used: spent(job) };
    let after = hedge::hedge_delay(rule, facts, p95, credit).ok()?;
    // Looked for last, as the whole body is read for it.
    let facts = HedgeInput { server_tools: fitness::runs_tools(&ask.body), ..facts };
    hedge::hedge_delay(rule, facts, p95, credit).ok().map(|_| after)
}

/// The share that is spent of the fullest budget that a request counts against.
fn spent(job: &Job) -> f64 {
    if !budgets::concern(&job.engine, &job.ask) {
        return 0.0;
    }
    let project = Holder::Project(Arc::clone(&job.ask.caller.project.name));
    job.engine.budgets.max_used_fraction(&[Holder::All, project], job.engine.clock.unix())
}

/// The request once more, for an attempt of its own.
pub(super) fn twin(job: &Job) -> Box<Job> {
    let engine = &job.engine;
    Box::new(Job {
        engine: Arc::clone(engine),
        generation: Arc::clone(&job.generation),
        ask: job.ask.twin(engine),
        ingress: job.ingress,
        tally: Tally::mute(engine, &job.ask),
        halt: Arc::clone(&job.halt),
        overrides: job.overrides.clone(),
        hide_usage: false,
        said: None,
        unspoken: false,
        losses: Vec::new(),
        carry: None,
        spares: job.spares.clone(),
        continues: false,
        chosen: None,
        place: Place::shared(),
    })
}

/// The request goes on with what its second attempt began.
fn adopt(job: &mut Job, twin: &mut Job) {
    job.hide_usage = twin.hide_usage;
    job.losses = mem::take(&mut twin.losses);
    job.carry = twin.carry.take();
    job.chosen = twin.chosen;
    if twin.said.is_some() {
        job.said = twin.said.take();
    }
    job.ask.held.absorb(&mut twin.ask.held);
}

/// Two attempts at most, of which one wins.
struct Race<'a> {
    engine: Arc<Engine>,
    tally: Tally,
    rule: &'a Hedge,
    question: &'a RouteQuery<'a>,
    index: usize,
    keys: Option<Arc<ConversationKeys>>,
    after: Duration,
    deadline: Instant,
    lost: Vec<(usize, Lost)>,
}

impl Race<'_> {
    /// What won, and which candidate it was where that is the second.
    async fn run(
        &mut self,
        job: &mut Job,
        twin: &mut Job,
        ticket: AttemptTicket,
    ) -> Option<(Won, Option<usize>)> {
        let candidates = self.question.candidates;
        let mut first = pin!(try_one(job, &candidates[self.index], ticket, self.deadline));
        tokio::select! {
            biased;
            result = &mut first => return self.ended(self.index, result).map(|won| (won, None)),
            () = sleep(self.after) => {}
        }
        let Some((at, ticket)) = self.second(twin) else {
            let result = first.await;
            return self.ended(self.index, result).map(|won| (won, None));
        };
        let mut second = pin!(try_one(twin, &candidates[at], ticket, self.deadline));
        let (mut first_runs, mut second_runs) = (true, true);
        // The account speaks of the second from here on, until `turn`.
        while first_runs || second_runs {
            tokio::select! {
                biased;
                result = &mut first, if first_runs => {
                    first_runs = false;
                    if let Some(won) = self.first_ended(result, second_runs) {
                        return Some((won, None));
                    }
                }
                result = &mut second, if second_runs => {
                    second_runs = false;
                    if let Some(won) = self.second_ended(at, result, first_runs) {
                        return Some((won, Some(at)));
                    }
                }
            }
        }
        None
    }

    fn first_ended(&mut self, result: Result<Won, Lost>, second_runs: bool) -> Option<Won> {
        if second_runs && result.is_ok() {
            self.tally.attempt_lost(None, "cancelled: the first spoke first", true);
        } else if second_runs {
            self.tally.turn();
        }
        self.ended(self.index, result)
    }

    fn second_ended(
        &mut self,
        at: usize,
        result: Result<Won, Lost>,
        first_runs: bool,
    ) -> Option<Won> {
        if first_runs && result.is_ok() {
            self.tally.turn();
            self.tally.attempt_lost(None, "cancelled: the second spoke first", true);
        }
        self.ended(at, result)
    }

    fn ended(&mut self, index: usize, result: Result<Won, Lost>) -> Option<Won> {
        match result {
            Ok(won) => Some(won),
            Err(lost) => {
                tell_lost(&self.engine, &mut self.tally, &self.question.candidates[index], &lost);
                self.lost.push((index, lost));
                None
            }
        }
    }

    /// Starts the second, where somebody is ready: of another account before the same.
    fn second(&mut self, twin: &mut Job) -> Option<(usize, AttemptTicket)> {
        let (engine, q) = (&self.engine, self.question);
        let now = engine.clock.mono();
        let (at, ticket) = [false, true].into_iter().find_map(|same_account| {
            let tried = hedge::as_failed(q.candidates, q.failed_attempts, self.index, same_account);
            let question = RouteQuery { failed_attempts: &tried, affinity: None, ..*q };
            engine.with_luck(|luck| {
                engine.board.decide_ready_only(&question, self.keys.as_ref(), now, luck)
            })
        })?;
        let target = Arc::clone(&q.candidates[at].target);
        let takes = translated::read(twin, &mut vec![Arc::clone(&target)]).is_ok();
        if !takes || !engine.hedges.lock().spend_credit(self.rule) {
            drop(Guard::new(engine, ticket));
            return None;
        }
        let chosen = &q.candidates[at];
        let reservation = if budgets::concern(engine, &twin.ask) {
            let cost = q.costs.get(at).copied().flatten();
            let Some(reservation) =
                Reservation::take(engine, &twin.ask.caller.project.name, chosen, cost)
            else {
                drop(Guard::new(engine, ticket));
                return None;
            };
            Some(reservation)
        } else {
            None
        };
        twin.chosen = Some((target.upstream.id, chosen.key));
        let how = if self.rule.after == HedgeDelay::P95 {
            ", longer than 19 of 20 answers take"
        } else {
            ""
        };
        let span = if self.after < Duration::from_secs(10) {
            format!("{:.2}s", self.after.as_secs_f64())
        } else {
            print_span(self.after)
        };
        self.tally.hedge_started(
            chosen,
            format!("a hedge: attempt 1 had said nothing for {span}{how}").into(),
        );
        if let Some(reservation) = reservation {
            self.tally.reserve(reservation);
        }
        Some((at, ticket))
    }
}
