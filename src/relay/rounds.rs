//! The loop of a request: decide, attempt, record, again, until something won or nothing helps.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::{
    admission,
    answer::{Lost, Said, Won},
    ask::{Ask, ModelPlace},
    attempt::attempt,
    budgets::{self, Reservation},
    conversation,
    engine::{Engine, Generation, Place},
    fitness::Needs,
    guardian,
    halt::{Cause, Halt},
    hedge, refusal,
    rescue::Spares,
    said::{self, Said as Asked},
    stored::{self, Home},
    tally::{Guard, Tally},
    translated,
    waiting::{Line, set_of},
};
use crate::{
    base::clock::Mono,
    config::settings::{KeyId, Strategy, UpstreamId},
    dialect::{AttemptContext, Ingress, Loss},
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::{Dialect, Op},
    },
    routing::{
        affinity::{ConversationKeys, MAX_AFFINITY_WAIT},
        candidate::{
            self, Candidate, ChoiceReason, Decision, FailedAttempt, KeyState, RouteQuery,
            SkipReason, Target, Verdict, print_span,
        },
        health::TokenEstimate,
        names::{self, ModelOverrides, NameError, OnUnknownList, ResolvedModel},
        outcome::{Blame, CooldownClass},
        retry::{AttemptCounts, RetryDecision, RetryTarget},
    },
};

/// Model lists that were never learned are waited for this long.
const LEARN: Duration = Duration::from_secs(5);
/// While our own network is down it is looked at again this often.
const OFFLINE: Duration = Duration::from_secs(2);

/// A request under way.
pub struct Job {
    pub engine: Arc<Engine>,
    pub generation: Arc<Generation>,
    pub ask: Box<Ask>,
    pub ingress: &'static dyn Ingress,
    pub tally: Tally,
    pub halt: Arc<Halt>,
    pub overrides: ModelOverrides,
    /// Usage in the stream that only we asked for is kept to ourselves.
    pub hide_usage: bool,
    /// The request in the common form, once a target needs it.
    pub said: Option<Asked>,
    /// No upstream can be asked for this; we may have an answer ourselves.
    pub unspoken: bool,
    /// What the newest attempt's request lost on the way to its dialect.
    pub losses: Vec<Loss>,
    /// What its writer tells the reader of its answer; `None` where the answer passes as it is.
    pub carry: Option<AttemptContext>,
    /// What its name stands for, where its stream is to be continued elsewhere if it breaks off.
    pub spares: Option<Box<Spares>>,
    /// It continues an answer that broke off: what is said is only read.
    pub continues: bool,
    /// Who serves the newest attempt.
    pub chosen: Option<(UpstreamId, KeyId)>,
    /// Among the requests in flight.
    pub place: Place,
}

impl Job {
    /// How long this request may wait in a queue: as configured, and no longer than half of what
    /// its client waits.
    pub(super) fn patience(&self) -> Duration {
        let queue_for = self.generation.settings.retry.queue_for;
        self.ask.patience.map_or(queue_for, |patience| queue_for.min(patience / 2))
    }
}

/// Runs the request until it is decided; the job comes back for what follows.
pub async fn run(mut job: Box<Job>) -> (Box<Job>, Result<Won, ProxyError>) {
    let halt = Arc::clone(&job.halt);
    let result = tokio::select! {
        biased;
        cause = halt.wait() => Err(halted(cause)),
        result = rounds(&mut job) => result,
    };
    if result.is_ok() && job.engine.watch.awake() {
        guardian::watch(&mut job);
    }
    (job, result)
}

/// What a client is told when its request is ended from outside.
#[must_use]
pub fn halted(cause: Cause) -> ProxyError {
    match cause {
        Cause::Killed => {
            ProxyError::new(ProxyErrorKind::Unavailable, "the request was ended from the dashboard")
                .code("killed")
                .should_retry(false)
        }
        Cause::Shutdown => ProxyError::new(ProxyErrorKind::Overloaded, "aiproxy is shutting down")
            .retry_after(Some(Duration::from_secs(2))),
    }
}

/// What the rounds remember.
#[derive(Default)]
struct Memory {
    tried: Vec<FailedAttempt>,
    attempts: AttemptCounts,
    /// The next try was paid for by a pause or a wait.
    granted: bool,
    last: Option<Last>,
    /// What each of its attempts was refused for.
    refusals: Vec<(CooldownClass, Blame)>,
    waited: Duration,
    /// Its place in the queue, kept from one wait to the next.
    place: Option<(u64, Line)>,
    /// What its conversation is known by; worked out once, where there is a choice.
    talk: Option<Option<Talk>>,
    /// What it needs of a model; looked for once, where there is a choice.
    needs: Option<Option<Needs>>,
}

impl Memory {
    /// What was heard of those that were asked.
    fn heard(&self) -> (Option<&Last>, &[(CooldownClass, Blame)]) {
        (self.last.as_ref(), &self.refusals)
    }
}

/// A conversation that is to be served where it was served before.
struct Talk {
    keys: Arc<ConversationKeys>,
    ttl: Duration,
    /// It waits so long for that.
    wait: Mono,
}

impl Talk {
    fn of(job: &Job, candidates: &[Candidate], now: Mono) -> Option<Self> {
        let account = candidates.first()?.account;
        // Where there is nobody else, there is nothing to be bound to.
        if candidates.iter().all(|candidate| candidate.account == account) {
            return None;
        }
        let settings = &job.generation.settings;
        let keys = conversation::keys(
            &job.engine.seed,
            &job.ask,
            job.overrides.sticky.unwrap_or(settings.sticky),
        )?;
        let ttl = job.overrides.sticky_ttl.unwrap_or(settings.sticky_ttl);
        Some(Self { keys: Arc::new(keys), ttl, wait: now + MAX_AFFINITY_WAIT })
    }

    /// It cannot wait for its own account: others may serve it at once. False where that was not
    /// what it waited for.
    fn gives_up(&mut self, now: Mono) -> bool {
        let waited = self.wait > now;
        self.wait = self.wait.min(now);
        waited
    }
}

/// The newest attempt that was lost.
pub(super) struct Last {
    pub lost: Lost,
    pub key: KeyId,
    pub key_name: Arc<str>,
}

async fn rounds(job: &mut Job) -> Result<Won, ProxyError> {
    admission::enter(job).await?;
    let resolved = resolve(job).await?;
    if job.overrides.rescue && may_be_continued(&job.ask) {
        job.spares = Some(Box::new(Spares { resolved: resolved.clone(), tried: Vec::new() }));
    }
    let settings = Arc::clone(&job.generation.settings);
    let total = job.overrides.total.unwrap_or(settings.timeouts.total);
    let deadline = Instant::now() + total;
    let mut memory = Memory::default();
    job.engine.board.count_request(job.engine.clock.mono());
    loop {
        let mut candidates =
            candidate::build_candidates(&resolved.targets, &|key| job.engine.key_info(key));
        if let Some((_, Some(key))) = job.ask.home {
            candidates.retain(|candidate| candidate.key == key);
        }
        if let Some(needs) = memory.needs.get_or_insert_with(|| Needs::of(&job.ask, &candidates)) {
            needs.mark(&mut candidates);
        }
        let now = job.engine.clock.mono();
        let asked = TokenEstimate { input: job.ask.estimate, output: job.ask.output() };
        let budgeted = budgets::concern(&job.engine, &job.ask);
        let costs = if budgeted || resolved.strategy.uses_cost() {
            job.engine.costs(&candidates, asked)
        } else {
            Vec::new()
        };
        if budgeted {
            budgets::mark(&job.engine, &job.ask.caller.project.name, &mut candidates, &costs);
        }
        let first = RouteQuery {
            strategy: resolved.strategy,
            input_estimate: asked.input,
            max_output: asked.output,
            costs: &costs,
            region: &settings.region,
            ..RouteQuery::first_attempt(&candidates)
        };
        let question = RouteQuery { failed_attempts: &memory.tried, ..first };
        let talk = memory.talk.get_or_insert_with(|| Talk::of(job, &candidates, now)).as_ref();
        let (decision, ticket) = job.engine.with_luck(|luck| match talk {
            Some(talk) => job.engine.board.decide_with_affinity(
                &question,
                (&talk.keys, talk.ttl, talk.wait),
                now,
                luck,
            ),
            None => job.engine.board.decide(&question, now, luck),
        });
        match (&decision.verdict, ticket) {
            (Verdict::Try { index, reason: why, .. }, Some(ticket)) => {
                memory.place = None;
                let chosen = &candidates[*index];
                if budgeted {
                    let cost = costs.get(*index).copied().flatten();
                    let Some(reservation) =
                        Reservation::take(&job.engine, &job.ask.caller.project.name, chosen, cost)
                    else {
                        drop(Guard::new(&job.engine, ticket));
                        continue;
                    };
                    job.tally.reserve(reservation);
                }
                if !std::mem::take(&mut memory.granted)
                    && !again(job, &mut memory, RetryTarget::Other)
                        .is_some_and(|pause| pause.is_zero())
                {
                    drop(Guard::new(&job.engine, ticket));
                    return Err(refusal::finally(
                        job,
                        memory.heard(),
                        &decision,
                        &candidates,
                        None,
                    ));
                }
                job.chosen = Some((chosen.upstream(), chosen.key));
                let bound = matches!(why, ChoiceReason::Affinity { .. });
                let mut why = reason(&resolved, chosen, why, job.ask.endpoint.dialect);
                if let Some(over) = passed_over(&decision, &candidates, chosen, now) {
                    why = [&*why, &over].concat().into();
                }
                if memory.last.is_some() {
                    why = format!("try {}: {why}", job.tally.attempts() + 1).into();
                }
                job.tally.attempt_started(chosen, bound, why);
                if let Some(rule) = job.overrides.hedge.clone().filter(|_| memory.last.is_none()) {
                    match Box::pin(hedge::attempt(job, &rule, &first, (*index, ticket), deadline))
                        .await
                    {
                        Ok(won) => return Ok(won),
                        Err(lost) => {
                            for (index, lost) in lost {
                                let chosen = &candidates[index];
                                note(&mut memory, chosen, lost);
                            }
                            if Instant::now() >= deadline {
                                return Err(refusal::finally(
                                    job,
                                    memory.heard(),
                                    &decision,
                                    &candidates,
                                    None,
                                ));
                            }
                            continue;
                        }
                    }
                }
                match attempt(job, chosen, ticket, deadline).await {
                    Ok(won) => {
                        if let Some(spares) = &mut job.spares {
                            spares.tried.append(&mut memory.tried);
                        }
                        return Ok(won);
                    }
                    Err(lost) => lose(job, &mut memory, chosen, lost),
                }
                if Instant::now() >= deadline {
                    return Err(refusal::finally(
                        job,
                        memory.heard(),
                        &decision,
                        &candidates,
                        None,
                    ));
                }
            }
            (Verdict::RetrySame { .. }, _) => {
                let Some(pause) = again(job, &mut memory, RetryTarget::Same) else {
                    return Err(refusal::finally(
                        job,
                        memory.heard(),
                        &decision,
                        &candidates,
                        None,
                    ));
                };
                let pause = if job.engine.network.down() { OFFLINE } else { pause };
                if Instant::now() + pause >= deadline {
                    return Err(refusal::finally(
                        job,
                        memory.heard(),
                        &decision,
                        &candidates,
                        None,
                    ));
                }
                memory.place = None;
                job.tally.queued(format!("the same again in {} ms", pause.as_millis()));
                sleep(pause).await;
                memory.granted = true;
                memory.tried.retain(|tried| !tried.may_recover);
            }
            (Verdict::Wait { until }, _) => {
                // Somebody who has not been asked yet, and whose key is still being read: moving on
                // to it is free.
                let fresh = |c: &Candidate| {
                    c.key_state == KeyState::Waiting
                        && !memory.tried.iter().any(|t| t.key == c.key && t.model == c.target.model)
                };
                let comes = memory.last.is_some() && candidates.iter().any(fresh);
                let permitted = comes
                    || memory.last.is_none()
                    || memory.granted
                    || again(job, &mut memory, RetryTarget::Same).is_some();
                if !permitted
                    || !wait(job, &mut memory, &decision, &candidates, *until, deadline).await
                {
                    if memory
                        .talk
                        .as_mut()
                        .and_then(Option::as_mut)
                        .is_some_and(|talk| talk.gives_up(now))
                    {
                        continue;
                    }
                    return Err(refusal::finally(
                        job,
                        memory.heard(),
                        &decision,
                        &candidates,
                        *until,
                    ));
                }
                if !comes {
                    memory.granted = true;
                    memory.tried.retain(|tried| !tried.may_recover);
                }
            }
            (Verdict::Exhausted { retry_at }, _) => {
                return Err(refusal::finally(
                    job,
                    memory.heard(),
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

/// Whether there may be another try, and after which pause; a first try always may be.
fn again(job: &Job, memory: &mut Memory, to: RetryTarget) -> Option<Duration> {
    let Some(last) = &memory.last else { return Some(Duration::ZERO) };
    let now = job.engine.clock.mono();
    match job.engine.with_luck(|luck| {
        job.engine.board.may_retry(&last.lost.outcome, &mut memory.attempts, to, now, luck)
    }) {
        RetryDecision::Immediately => Some(Duration::ZERO),
        RetryDecision::After(pause) => Some(pause),
        RetryDecision::Stop(_) => None,
    }
}

/// Names to targets; waits for model lists that were never learned.
async fn resolve(job: &mut Job) -> Result<ResolvedModel, ProxyError> {
    let (engine, generation) = (Arc::clone(&job.engine), Arc::clone(&job.generation));
    if let ModelPlace::Upstream(name) = &job.ask.endpoint.model {
        return raw(job, name).map_err(|e| *e);
    }
    let asked = Arc::clone(&job.ask.asked);
    let wishes = job.ask.wishes.take();
    let mut resolved = named(job, &engine, &generation, &asked).await;
    if let Some(wishes) = &wishes {
        let price = |target: &Target| engine.price(&target.upstream, &target.model);
        if let Ok(first) = &mut resolved {
            wishes.apply(&mut first.targets, 0, &price);
        }
        for (nth, name) in wishes.models.iter().filter(|name| **name != *asked).enumerate() {
            let Ok(mut more) = named(job, &engine, &generation, name).await else { continue };
            wishes.apply(&mut more.targets, nth + 1, &price);
            match &mut resolved {
                Ok(first) => first.targets.extend(more.targets),
                Err(_) => resolved = Ok(more),
            }
        }
        job.ask.strict |= wishes.all_parameters;
    }
    let mut resolved = match resolved {
        Ok(resolved) => resolved,
        Err(e) => {
            job.unspoken = matches!(e, NameError::UnsupportedDialect { .. });
            return Err(name_error(&e));
        }
    };
    if let Some(wishes) = wishes {
        resolved.strategy = wishes.strategy().unwrap_or(resolved.strategy);
        if resolved.targets.is_empty() {
            let message = format!(
                "what `provider` of the request wishes leaves nobody that serves `{asked}`"
            );
            return Err(ProxyError::new(
                ProxyErrorKind::ModelNotFound,
                crate::base::clean::clean(&message),
            )
            .param("provider"));
        }
    }
    if let Some(pin) = &job.ask.pin {
        resolved.targets.retain(|target| *target.upstream.name == **pin);
        if resolved.targets.is_empty() {
            let message = format!(
                "`x-aiproxy-upstream` pins this request to `{pin}`, which does not serve `{}`",
                job.ask.asked
            );
            return Err(ProxyError::new(
                ProxyErrorKind::ModelNotFound,
                crate::base::clean::clean(&message),
            ));
        }
    }
    at_home(job, &mut resolved.targets)?;
    if resolved.overrides.rescue
        && may_be_continued(&job.ask)
        && job.ask.endpoint.dialect == Dialect::Responses
    {
        // Its events are numbered and its items named throughout: only one hand can write them all.
        job.ask.rewrite = true;
    }
    translated::read(job, &mut resolved.targets)?;
    job.overrides = std::mem::take(&mut resolved.overrides);
    Ok(resolved)
}

/// Whether a stream that breaks off could be continued by somebody else.
fn may_be_continued(ask: &Ask) -> bool {
    ask.stream && ask.endpoint.op == Op::Chat && ask.home.is_none()
}

/// One name to its targets, its ending left off where that chooses a strategy.
async fn named(
    job: &Job,
    engine: &Engine,
    generation: &Generation,
    asked: &str,
) -> Result<ResolvedModel, NameError> {
    let project = &job.ask.caller.project;
    let deadline = Instant::now() + LEARN;
    let mut patience = OnUnknownList::Wait;
    loop {
        let learned = engine.lists.learned();
        let learned = |id| learned.get(&id).cloned();
        let (name, strategy) = match names::strategy_suffix(&generation.catalog, asked, &learned) {
            Some((name, strategy)) => (name, Some(strategy)),
            None => (asked, None),
        };
        let (dialect, translates) = (job.ask.endpoint.dialect, said::translates(&job.ask));
        match names::resolve(
            &generation.catalog,
            name,
            dialect,
            translates,
            project,
            &learned,
            patience,
        ) {
            Ok(mut resolved) => {
                resolved.strategy = strategy.unwrap_or(resolved.strategy);
                return Ok(resolved);
            }
            Err(NameError::ListUnknown { upstreams, .. }) if patience == OnUnknownList::Wait => {
                if !engine.lists.wait(&upstreams, deadline).await {
                    patience = OnUnknownList::Assume;
                }
            }
            Err(e) => return Err(e),
        }
    }
}

/// A response that is gone on from lives with us or with one upstream; nobody else knows it.
fn at_home(job: &mut Job, targets: &mut Vec<Arc<Target>>) -> Result<(), ProxyError> {
    let Some(id) = &job.ask.previous else { return Ok(()) };
    match job.engine.stored.find(&job.ask.caller.project.name, id) {
        Some(Home::Here { .. }) => job.ask.rewrite = true,
        Some(Home::There { upstream, key }) => {
            targets.retain(|target| {
                target.upstream.id == upstream && target.dialect == Dialect::Responses
            });
            if targets.is_empty() {
                return Err(stored::unknown(id));
            }
            job.ask.home = Some((upstream, key));
        }
        None => {}
    }
    Ok(())
}

/// The target of `/u/UPSTREAM/…`.
fn raw(job: &Job, name: &str) -> Result<ResolvedModel, Box<ProxyError>> {
    let upstream =
        job.generation.settings.upstreams.iter().find(|upstream| *upstream.name == *name);
    let project = &job.ask.caller.project;
    let Some(upstream) = upstream.filter(|upstream| project.upstreams.matches(&upstream.name))
    else {
        let message = format!(
            "no upstream is named `{}`; `aiproxy upstream list` shows all",
            crate::base::clean::clean(name)
        );
        return Err(Box::new(ProxyError::new(ProxyErrorKind::UnknownPath, message)));
    };
    let dialect = match job.ask.endpoint.op {
        Op::Stored => Dialect::Responses,
        _ => upstream.endpoints.first().map_or(Dialect::Openai, |end| end.dialect),
    };
    let target = Target {
        upstream: Arc::clone(upstream),
        model: Arc::from(""),
        dialect,
        priority: upstream.priority,
        weight: upstream.weight,
    };
    Ok(ResolvedModel {
        targets: vec![Arc::new(target)],
        strategy: Strategy::Priority,
        overrides: ModelOverrides::default(),
        via: "named in the path".to_owned(),
        unsupported: Vec::new(),
    })
}

fn name_error(error: &NameError) -> ProxyError {
    let text = format!("{}; {}", error.text(), error.hint());
    match error {
        NameError::Unknown { .. } | NameError::ListUnknown { .. } => {
            ProxyError::new(ProxyErrorKind::ModelNotFound, text).param("model")
        }
        NameError::NotAllowed { .. } => ProxyError::new(ProxyErrorKind::Forbidden, text)
            .code("model_not_allowed")
            .param("model"),
        NameError::UnsupportedDialect { .. } => {
            ProxyError::new(ProxyErrorKind::ModelNotFound, text).param("model")
        }
    }
}

fn reason(
    resolved: &ResolvedModel,
    chosen: &Candidate,
    why: &ChoiceReason,
    asked: Dialect,
) -> Arc<str> {
    let (tier, _) = chosen.tier;
    let via = &resolved.via;
    let text = match why {
        ChoiceReason::Only => format!("{via}; priority {tier}, the only candidate ready"),
        ChoiceReason::Best { ready_count: of, .. } => {
            format!("{via}; priority {tier}, one of {of} ready")
        }
        ChoiceReason::Affinity { better_tier_ready: false } => {
            [via, "; where its conversation was served before"].concat()
        }
        ChoiceReason::Affinity { better_tier_ready: true } => {
            [via, "; where its conversation was served before, though a better tier is back"]
                .concat()
        }
        ChoiceReason::Probe => [via, "; let through as a probe after a cooldown"].concat(),
        ChoiceReason::LeastSuspect => {
            [via, "; nothing is ready: the least suspect is tried"].concat()
        }
    };
    let to = chosen.target.dialect;
    if to == asked { text } else { format!("{text}; translated to {to}") }.into()
}

/// Those that would have gone first, or as well, and what keeps them back; those that this request
/// tried are told as its attempts.
fn passed_over(
    decision: &Decision,
    candidates: &[Candidate],
    chosen: &Candidate,
    now: Mono,
) -> Option<String> {
    let keeps = |why: &SkipReason| {
        !matches!(
            why,
            SkipReason::AlreadyFailed
                | SkipReason::LowerTier
                | SkipReason::NotPicked
                | SkipReason::OtherRegion
        )
    };
    let others = decision.skipped.iter().filter(|(_, why)| keeps(why));
    let others = others
        .filter_map(|(index, why)| Some((candidates.get(*index)?, why)))
        .filter(|(other, _)| other.tier <= chosen.tier);
    let (mut text, mut more) = (String::new(), 0_usize);
    for (at, (other, why)) in others.enumerate() {
        if at >= PASSED {
            more += 1;
            continue;
        }
        text.push_str(if at == 0 { "; passed over: " } else { ", " });
        text.push_str(&format!("{} ({})", other.key_name, why.text(now)));
    }
    if more > 0 {
        text.push_str(&format!(", {more} more"));
    }
    (!text.is_empty()).then_some(text)
}

/// So many of those that were passed over are named.
const PASSED: usize = 3;

/// Books a lost attempt.
fn lose(job: &mut Job, memory: &mut Memory, chosen: &Candidate, lost: Lost) {
    tell_lost(&job.engine, &mut job.tally, chosen, &lost);
    note(memory, chosen, lost);
}

/// Tells of a lost attempt.
pub(super) fn tell_lost(engine: &Engine, tally: &mut Tally, chosen: &Candidate, lost: &Lost) {
    let status = match &lost.said {
        Said::Fault { fault, .. } => Some(fault.status),
        Said::Transport(_) => None,
    };
    let now = engine.clock.mono();
    let words = match (&lost.said, refusal::key_wait(engine, chosen.key, &chosen.target.model, now))
    {
        (Said::Fault { fault, .. }, Some(wait)) => {
            format!("{}: {} (cooling {})", lost.outcome.cause, fault.message, print_span(wait))
        }
        (Said::Fault { fault, .. }, None) => format!("{}: {}", lost.outcome.cause, fault.message),
        (Said::Transport(fault), _) => fault.message.clone(),
    };
    tally.attempt_lost(status, &words, lost.outcome.maybe_billed);
    if lost.outcome.cooldown == CooldownClass::Rejected {
        // Nobody listening means that the process is ending.
        engine.rejected.send(chosen.key).unwrap_or_default();
    }
    if lost.outcome.cooldown == CooldownClass::Quota && lost.outcome.blame == Blame::Account {
        engine.balances.doubt(chosen.key, now);
    }
}

/// Remembers a lost attempt for what is decided next.
fn note(memory: &mut Memory, chosen: &Candidate, lost: Lost) {
    memory.attempts.count_failure(&lost.outcome);
    memory.refusals.push((lost.outcome.cooldown, lost.outcome.blame));
    memory.tried.push(FailedAttempt {
        key: chosen.key,
        upstream: chosen.upstream(),
        model: Arc::clone(&chosen.target.model),
        may_recover: lost.may_pass,
        upstream_failed: lost.outcome.blames_upstream(),
    });
    memory.last = Some(Last { lost, key: chosen.key, key_name: Arc::clone(&chosen.key_name) });
}

/// Waits in the queue; false where waiting does not help in time.
async fn wait(
    job: &Job,
    memory: &mut Memory,
    decision: &Decision,
    candidates: &[Candidate],
    until: Option<Mono>,
    deadline: Instant,
) -> bool {
    let Some(left) = job.patience().checked_sub(memory.waited).filter(|left| !left.is_zero())
    else {
        return false;
    };
    let now = job.engine.clock.mono();
    let span = until.map(|until| until.since(now));
    // A model that nobody has is no sooner there for being waited for.
    if span.is_some_and(|span| span > left)
        || refusal::settled(&memory.refusals, decision) == Some(ProxyErrorKind::ModelNotFound)
    {
        return false;
    }
    // Who waits for its own account waits in nobody's way.
    let alone = memory
        .talk
        .as_ref()
        .and_then(Option::as_ref)
        .is_some_and(|talk| talk.wait > now)
        .then_some(job.ask.id);
    let set = set_of(candidates, &memory.tried, alone);
    if memory.place.as_ref().is_none_or(|(known, _)| *known != set) {
        memory.place = None;
        memory.place =
            Line::join(&job.engine, set, &job.ask.caller.project.name).map(|line| (set, line));
    }
    let Some((_, place)) = &memory.place else { return false };
    let begun = Instant::now();
    let give_up = (begun + left).min(deadline);
    job.tally.queued(match span {
        Some(span) => {
            format!("waits {} for a key ({} before it)", print_span(span), place.before())
        }
        None => "waits for a verdict on the only candidate".to_owned(),
    });
    // Woken by the end of the cooldown or by any change; the first in line goes, the others look
    // again.
    let ok = loop {
        let changed = job.engine.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let alarm = begun + span.unwrap_or(left);
        tokio::select! {
            () = &mut changed => {}
            () = sleep_until(alarm.min(give_up)) => {}
        }
        let at = Instant::now();
        if place.before() == 0 {
            break at < give_up || span.is_some();
        }
        if at >= give_up {
            break false;
        }
        if at >= alarm {
            // Behind another: its going will tell.
            drop(timeout_at(give_up, job.engine.changed.notified()).await);
        }
    };
    memory.waited += begun.elapsed();
    ok
}
