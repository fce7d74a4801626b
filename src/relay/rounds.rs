//! The loop of a request: decide, attempt, record, again, until something won or nothing helps.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::{
    answer::{Lost, Said, Won},
    ask::{Ask, ModelPlace},
    attempt::attempt,
    engine::{Engine, Generation, Place},
    halt::{Cause, Halt},
    reply,
    tally::Tally,
};
use crate::{
    base::clock::Mono,
    config::settings::Strategy,
    dialect::Ingress,
    ir::{
        fault::{ClientError, ErrorKind, TransportKind},
        op::Dialect,
    },
    routing::{
        candidate::{self, Candidate, Chosen, Decision, Question, Target, Tried, Verdict, Why, short},
        names::{self, NameError, Resolved},
        outcome::{Cool, Retry},
        retry::{self, Again},
    },
};

/// Candidates that one request may move over.
const MOVES: usize = 32;
/// Model lists that were never learned are waited for this long.
const LEARN: Duration = Duration::from_secs(5);
/// While our own network is down it is looked at again this often.
const OFFLINE: Duration = Duration::from_secs(2);

/// A request under way.
pub struct Job {
    pub engine: Arc<Engine>,
    pub generation: Arc<Generation>,
    pub ask: Ask,
    pub ingress: &'static dyn Ingress,
    pub tally: Tally,
    pub halt: Arc<Halt>,
    pub overrides: Overrides,
    /// Usage in the stream that only we asked for is kept to ourselves.
    pub hide_usage: bool,
    /// Among the requests in flight.
    pub place: Place,
}

/// Timeouts that the logical model sets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Overrides {
    pub first_byte: Option<Duration>,
    pub idle: Option<Duration>,
    pub total: Option<Duration>,
}

/// Runs the request until it is decided; the job comes back for what follows.
pub async fn run(mut job: Box<Job>) -> (Box<Job>, Result<Won, ClientError>) {
    let halt = Arc::clone(&job.halt);
    let result = tokio::select! {
        biased;
        cause = halt.wait() => Err(halted(cause)),
        result = rounds(&mut job) => result,
    };
    (job, result)
}

/// What a client is told when its request is ended from outside.
#[must_use]
pub fn halted(cause: Cause) -> ClientError {
    match cause {
        Cause::Killed => ClientError::new(ErrorKind::Unavailable, "the request was ended from the dashboard").code("killed").should_retry(false),
        Cause::Shutdown => ClientError::new(ErrorKind::Overloaded, "aiproxy is shutting down").retry_after(Some(Duration::from_secs(2))),
    }
}

/// What the rounds remember.
#[derive(Default)]
struct Memory {
    tried: Vec<Tried>,
    /// Tries that may have cost upstream work.
    costly: u32,
    moves: usize,
    billed_twice: bool,
    conflicts: u32,
    last: Option<(Lost, Arc<str>)>,
    waited: Duration,
}

async fn rounds(job: &mut Job) -> Result<Won, ClientError> {
    let resolved = resolve(job).await?;
    let settings = Arc::clone(&job.generation.settings);
    let total = job.overrides.total.unwrap_or(settings.timeouts.total);
    let deadline = Instant::now() + total;
    let mut memory = Memory::default();
    loop {
        let candidates = candidate::candidates(&resolved.targets, &|key| job.engine.key_info(key));
        let now = job.engine.clock.mono();
        let question = Question { candidates: &candidates, tried: &memory.tried, strategy: resolved.strategy, estimate: job.ask.estimate };
        let (decision, ticket) = job.engine.with_luck(|luck| job.engine.board.decide(&question, now, luck));
        match (&decision.verdict, ticket) {
            (Verdict::Try { index, why, .. }, Some(ticket)) => {
                let chosen = &candidates[*index];
                job.tally.attempt_started(chosen, reason(&resolved, chosen, why));
                if memory.moves > 0 {
                    job.engine.with_budget(|budget| budget.attempted(now));
                } else {
                    job.engine.with_budget(|budget| budget.asked(now));
                }
                match attempt(job, chosen, ticket, deadline).await {
                    Ok(won) => return Ok(won),
                    Err(lost) => lose(job, &mut memory, chosen, lost, &candidates)?,
                }
                if memory.moves >= MOVES || Instant::now() >= deadline {
                    return Err(finally(job, &memory, &decision, &candidates, None));
                }
                if memory.costly >= settings.retry.max_attempts {
                    return Err(finally(job, &memory, &decision, &candidates, None));
                }
            }
            (Verdict::Again { .. }, _) => {
                let made = job.tally.attempts();
                let again = job.engine.with_luck(|luck| job.engine.with_budget(|budget| retry::again(budget, &settings.retry, made, now, luck)));
                let Again::After(pause) = again else {
                    return Err(finally(job, &memory, &decision, &candidates, None));
                };
                let pause = if job.engine.network.down() { OFFLINE } else { pause };
                if Instant::now() + pause >= deadline {
                    return Err(finally(job, &memory, &decision, &candidates, None));
                }
                job.tally.queued(format!("the same again in {} ms", pause.as_millis()));
                sleep(pause).await;
                memory.tried.retain(|tried| !tried.may_pass);
            }
            (Verdict::Wait { until }, _) => {
                if !wait(job, &mut memory, &candidates, *until, deadline, &settings.retry).await {
                    return Err(finally(job, &memory, &decision, &candidates, *until));
                }
                memory.tried.retain(|tried| !tried.may_pass);
            }
            (Verdict::Exhausted { retry_at }, _) => return Err(finally(job, &memory, &decision, &candidates, *retry_at)),
            (Verdict::Try { .. }, None) => {
                return Err(ClientError::new(ErrorKind::Internal, "a candidate was chosen without a ticket; please report this"));
            }
        }
    }
}

/// Names to targets; waits for model lists that were never learned.
async fn resolve(job: &mut Job) -> Result<Resolved, ClientError> {
    let (engine, generation) = (Arc::clone(&job.engine), Arc::clone(&job.generation));
    if let ModelPlace::Upstream(name) = &job.ask.endpoint.model {
        return raw(job, name).map_err(|e| *e);
    }
    let project = Arc::clone(&job.ask.caller.project);
    let deadline = Instant::now() + LEARN;
    let mut patient = true;
    let resolved = loop {
        let learned = engine.lists.learned();
        let result = names::resolve(&generation.catalog, &job.ask.asked, job.ask.endpoint.dialect, &project, &|id| learned.get(&id).cloned(), patient);
        match result {
            Ok(resolved) => break resolved,
            Err(NameError::Unlearned { upstreams }) => {
                patient = engine.lists.wait(&upstreams, deadline).await;
            }
            Err(e) => return Err(name_error(job.ask.endpoint.dialect, &e)),
        }
    };
    let mut resolved = resolved;
    if let Some(pin) = &job.ask.pin {
        resolved.targets.retain(|target| *target.upstream.name == **pin);
        if resolved.targets.is_empty() {
            let message = format!("`x-aiproxy-upstream` pins this request to `{pin}`, which does not serve `{}`", job.ask.asked);
            return Err(ClientError::new(ErrorKind::ModelNotFound, crate::base::clean::line(&message)));
        }
    }
    job.overrides = Overrides { first_byte: resolved.first_byte, idle: resolved.idle, total: resolved.total };
    Ok(resolved)
}

/// The target of `/u/UPSTREAM/…`.
fn raw(job: &Job, name: &str) -> Result<Resolved, Box<ClientError>> {
    let upstream = job.generation.settings.upstreams.iter().find(|upstream| *upstream.name == *name);
    let project = &job.ask.caller.project;
    let Some(upstream) = upstream.filter(|upstream| project.upstreams.matches(&upstream.name)) else {
        let message = format!("no upstream is named `{}`; `aiproxy upstream list` shows all", crate::base::clean::line(name));
        return Err(Box::new(ClientError::new(ErrorKind::UnknownPath, message)));
    };
    let dialect = upstream.ends.first().map_or(Dialect::Openai, |end| end.dialect);
    let target = Target { upstream: Arc::clone(upstream), model: Arc::from(""), dialect, priority: upstream.priority, weight: upstream.weight };
    Ok(Resolved::only(Arc::new(target), Strategy::Priority, "named in the path"))
}

fn name_error(dialect: Dialect, error: &NameError) -> ClientError {
    let text = match error.hint() {
        Some(hint) => format!("{}; {hint}", error.text()),
        None => error.text(),
    };
    match error {
        NameError::Unknown { .. } | NameError::Unlearned { .. } => ClientError::new(ErrorKind::ModelNotFound, text).param("model"),
        NameError::NotAllowed { .. } => ClientError::new(ErrorKind::Forbidden, text).code("model_not_allowed").param("model"),
        NameError::NoEnd { .. } => {
            let text = format!("{text}; this version passes {dialect} requests only to upstreams that speak it themselves");
            ClientError::new(ErrorKind::ModelNotFound, text).param("model")
        }
    }
}

fn reason(resolved: &Resolved, chosen: &Candidate, why: &Chosen) -> Arc<str> {
    let (tier, _) = chosen.tier;
    let because = match why {
        Chosen::Only => "the only candidate ready".to_owned(),
        Chosen::Best { of, .. } => format!("priority {tier}, one of {of} ready"),
        Chosen::Probe => "let through as a probe after a cooldown".to_owned(),
        Chosen::LeastSuspect => "nothing is ready: the least suspect is tried".to_owned(),
    };
    format!("{}; {because}", resolved.via).into()
}

/// Books a lost attempt; the error where the loop must end at once.
fn lose(job: &mut Job, memory: &mut Memory, chosen: &Candidate, lost: Lost, candidates: &[Candidate]) -> Result<(), ClientError> {
    let status = match &lost.said {
        Said::Fault { fault, .. } => Some(fault.status),
        Said::Transport(_) => None,
    };
    let left = job.engine.board.key_view(chosen.key, job.engine.clock.mono());
    let words = match (&lost.said, left.until_for(&chosen.target.model)) {
        (Said::Fault { fault, .. }, Some(until)) => {
            format!("{}: {} (cooling {})", lost.outcome.cause, fault.message, short(until.since(job.engine.clock.mono())))
        }
        (Said::Fault { fault, .. }, None) => format!("{}: {}", lost.outcome.cause, fault.message),
        (Said::Transport(fault), _) => fault.message.clone(),
    };
    job.tally.attempt_lost(status, words, lost.outcome.maybe_billed);
    memory.moves += 1;
    memory.costly += u32::from(lost.outcome.counts);
    if lost.outcome.cool == Cool::Rejected {
        // Nobody listening means that the process is ending.
        drop(job.engine.rejected.send(chosen.key));
    }
    let billed = lost.outcome.maybe_billed;
    let retry = lost.outcome.retry;
    let offline = matches!(&lost.said, Said::Transport(fault) if fault.kind == TransportKind::NetworkDown);
    memory.tried.push(Tried { key: chosen.key, upstream: chosen.upstream(), model: Arc::clone(&chosen.target.model), may_pass: lost.may_pass });
    memory.last = Some((lost, Arc::clone(&chosen.key_name)));
    let stop = match retry {
        Retry::No => true,
        Retry::Once => {
            memory.conflicts += 1;
            memory.conflicts > 1
        }
        Retry::Other | Retry::OtherAccount | Retry::SameAtOnce => billed && std::mem::replace(&mut memory.billed_twice, true),
    };
    if stop && !offline {
        return Err(reply::last_words(job, memory.last.as_ref().map(|(lost, key)| (lost, key)), candidates.len()));
    }
    Ok(())
}

/// Waits in the queue; false where waiting does not help in time.
async fn wait(job: &Job, memory: &mut Memory, candidates: &[Candidate], until: Option<Mono>, deadline: Instant, settings: &crate::config::settings::Retry) -> bool {
    let patience = job.ask.patience.map_or(settings.queue_for, |patience| settings.queue_for.min(patience / 2));
    let Some(left) = patience.checked_sub(memory.waited).filter(|left| !left.is_zero()) else { return false };
    let now = job.engine.clock.mono();
    let span = until.map(|until| until.since(now));
    if span.is_some_and(|span| span > left) {
        return false;
    }
    let Some(place) = job.engine.queue.join(candidates) else { return false };
    let begun = Instant::now();
    let give_up = (begun + left).min(deadline);
    job.tally.queued(match span {
        Some(span) => format!("waits {} for a key ({} before it)", short(span), place.before()),
        None => "waits for a verdict on the only candidate".to_owned(),
    });
    // Woken by the end of the cooldown or by any change; the first in line goes, the others look again.
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
    drop(place);
    job.engine.touch();
    ok
}

/// The error when no round is left.
fn finally(job: &Job, memory: &Memory, decision: &Decision, candidates: &[Candidate], retry_at: Option<Mono>) -> ClientError {
    let now = job.engine.clock.mono();
    let last = memory.last.as_ref().map(|(lost, key)| (lost, key));
    // Where other keys will be back, the client should hear of them rather than of the last refusal.
    let refusal = last.is_none_or(|(lost, _)| matches!(lost.outcome.cool, Cool::Rejected | Cool::RateLimited | Cool::Quota));
    if let Some(at) = retry_at.filter(|_| refusal) {
        return reply::all_cooling(job, last, decision, candidates, at.since(now), now);
    }
    if last.is_some() {
        return reply::last_words(job, last, candidates.len());
    }
    let mut reasons: Vec<String> = Vec::new();
    for (index, why) in decision.others.iter().take(6) {
        let name = candidates.get(*index).map_or("?", |c| &c.key_name);
        let hint = match why {
            Why::Disabled => format!("`aiproxy key enable {name}`"),
            Why::Missing(_) => format!("`aiproxy key add {}`", name.split('/').next().unwrap_or(name)),
            Why::Rejected { .. } => format!("`aiproxy key add {}` or `aiproxy key warm {name}`", name.split('/').next().unwrap_or(name)),
            _ => String::new(),
        };
        let hint = if hint.is_empty() { hint } else { format!(" ({hint})") };
        reasons.push(format!("{name}: {}{hint}", why.text(now)));
    }
    let message = if reasons.is_empty() {
        format!("no upstream has a key for `{}`; add one with `aiproxy key add UPSTREAM`", job.ask.asked)
    } else {
        format!("no key can serve `{}`: {}", job.ask.asked, reasons.join("; "))
    };
    ClientError::new(ErrorKind::Unavailable, message).code("no_available_key").should_retry(false)
}
