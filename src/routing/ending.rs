//! What an attempt's end changes: which scopes it is a verdict on, and what there is to tell.

use std::{sync::Arc, time::Duration};

use super::{
    candidate::short,
    circuit::{Circuit, Failure, Signal},
    health::{ActScope, Health, Ticket},
    outcome::{Blame, Cool, Outcome},
};
use crate::{
    base::clock::Mono, config::settings::Upstream, events::kind::Severity, ir::usage::Usage,
};

/// How an attempt went. The relay's guard tells exactly one final end.
#[derive(Clone, Copy, Debug)]
pub enum End<'a> {
    /// Final: the client is gone. Releases what it held without a verdict.
    Abandoned,
    /// Final: the stream broke after content, which counts against the upstream.
    BrokeAfterContent(&'a Outcome),
    /// The first content came: the upstream works.
    Content,
    /// Final: it failed before any content, or the upstream refused the request.
    Failed(&'a Outcome),
    /// Final: a whole answer.
    Finished { ttft: Option<Duration>, usage: Option<Usage> },
    /// A 2xx head came: the key works.
    Head2xx,
}

/// A change worth telling: "openai/work" "cools for 41s: 429 rate_limit_exceeded for gpt-5".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub subject: String,
    pub text: String,
    pub level: Severity,
}

/// Records an end; gives back what there is to tell.
pub fn record(health: &mut Health, ticket: &Ticket, end: End<'_>, now: Mono) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut recorder = Recorder { health, ticket, now, changes: &mut changes };
    match end {
        End::Head2xx => recorder.key_works(),
        End::Content => {
            recorder.key_works();
            recorder.signal(
                Scope::Upstream,
                &Signal::Spoke { id: ticket.id, newest: recorder.health.newest },
            );
        }
        End::Finished { ttft, usage } => {
            recorder.key_works();
            recorder.upstream_works();
            recorder.used(usage);
            recorder.over(Some((false, ttft)));
        }
        End::Failed(outcome) => recorder.failed(outcome),
        End::BrokeAfterContent(outcome) => {
            if outcome.cool != Cool::Nothing {
                recorder.fails(Scope::Upstream, Cool::ServerError, outcome);
            }
            recorder.over(Some((true, None)));
        }
        End::Abandoned => recorder.over(None),
    }
    changes
}

/// Records what a probe of our own found: that the upstream answers, or why it does not. One that
/// answers is not taken to be well at once, but the next request tests it.
pub fn probed(
    health: &mut Health,
    upstream: &Upstream,
    id: u64,
    found: Result<(), &Arc<str>>,
    now: Mono,
) -> Vec<Change> {
    let (policy, newest) = (Arc::clone(&health.policy), health.newest);
    let Some(circuit) = health.circuit_mut(&ActScope::Upstream(upstream.id), found.is_err()) else {
        return Vec::new();
    };
    let before = match found {
        Ok(()) => circuit.turn(&Signal::Answered, &policy, now),
        Err(cause) => {
            let threshold = policy.cooldown.failures.max(1);
            let failure = Failure {
                class: Cool::ServerError,
                hint: None,
                cause,
                threshold,
                local: upstream.local,
            };
            circuit.turn(&Signal::Failed { id, newest, failure }, &policy, now)
        }
    };
    let told = match (&before, &*circuit) {
        (Circuit::Open { until: old, .. }, Circuit::Open { until, .. }) if until < old => {
            Some(("answers its probe: the next request tests it".to_owned(), Severity::Info))
        }
        (before, after) => told(before, after, Scope::Upstream, now),
    };
    told.map(|(text, level)| Change { subject: upstream.name.to_string(), text, level })
        .into_iter()
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Account,
    Key,
    KeyModel,
    Upstream,
}

struct Recorder<'a> {
    health: &'a mut Health,
    ticket: &'a Ticket,
    now: Mono,
    changes: &'a mut Vec<Change>,
}

impl Recorder<'_> {
    fn key_works(&mut self) {
        for scope in [Scope::Account, Scope::Key, Scope::KeyModel] {
            self.signal(
                scope,
                &Signal::Succeeded { id: self.ticket.id, newest: self.health.newest },
            );
        }
    }

    fn upstream_works(&mut self) {
        self.signal(
            Scope::Upstream,
            &Signal::Succeeded { id: self.ticket.id, newest: self.health.newest },
        );
    }

    fn failed(&mut self, outcome: &Outcome) {
        match outcome.blame {
            Blame::Account => self.refused(Scope::Account, outcome),
            Blame::Key => self.refused(Scope::Key, outcome),
            Blame::KeyModel => self.refused(Scope::KeyModel, outcome),
            // Told that the request itself is wrong: whoever says so is up.
            Blame::Nobody if outcome.answered() => self.upstream_works(),
            Blame::Nobody => {}
            Blame::Upstream => self.fails(Scope::Upstream, outcome.cool, outcome),
            Blame::UpstreamAndKey => {
                self.fails(Scope::Key, outcome.cool, outcome);
                self.fails(Scope::Upstream, outcome.cool, outcome);
            }
        }
        let counted = outcome.blame != Blame::Nobody || outcome.answered();
        self.settle(0);
        self.over(counted.then_some((outcome.blame != Blame::Nobody, None)));
    }

    /// A refusal about a key or account: the upstream that gave it works.
    fn refused(&mut self, scope: Scope, outcome: &Outcome) {
        self.fails(scope, outcome.cool, outcome);
        self.upstream_works();
    }

    fn fails(&mut self, scope: Scope, class: Cool, outcome: &Outcome) {
        let threshold =
            if scope == Scope::Upstream { self.health.policy.cooldown.failures.max(1) } else { 1 };
        let failure = Failure {
            class,
            hint: outcome.hint,
            cause: &outcome.cause,
            threshold,
            local: self.ticket.local,
        };
        self.signal(
            scope,
            &Signal::Failed { id: self.ticket.id, newest: self.health.newest, failure },
        );
    }

    /// What the provider counted; where it did not say, what was reserved stands.
    fn used(&mut self, usage: Option<Usage>) {
        let Some(usage) = usage else { return };
        let (input, output) = (usage.input_total(), usage.output_total());
        if output > 0 {
            self.health.usual.learn(&self.ticket.model, output);
        }
        if let Some(key) = self.health.keys.get_mut(&self.ticket.key) {
            key.tokens = key.tokens.saturating_add(input.saturating_add(output));
        }
        let free = if self.ticket.cached_free { usage.cache_read } else { 0 };
        self.settle((input - free).saturating_add(output));
    }

    fn settle(&mut self, tokens: u64) {
        if let (Some(reserved), Some(key)) =
            (self.ticket.reserved, self.health.keys.get_mut(&self.ticket.key))
        {
            key.spent.settle(&self.ticket.model, reserved, tokens);
        }
    }

    /// Frees what the attempt held.
    fn over(&mut self, counted: Option<(bool, Option<Duration>)>) {
        for scope in [Scope::Account, Scope::Key, Scope::KeyModel, Scope::Upstream] {
            self.signal(scope, &Signal::Ended { id: self.ticket.id });
        }
        if let Some(upstream) = self.health.upstreams.get_mut(&self.ticket.upstream) {
            upstream.running = upstream.running.saturating_sub(1);
            if let Some((failed, ttft)) = counted {
                if let Some(ttft) = ttft {
                    upstream.target_mut(&self.ticket.model).ttft.add(ttft, self.now);
                }
                upstream.stats.add(failed, ttft, self.now);
            }
        }
        if let Some(key) = self.health.keys.get_mut(&self.ticket.key) {
            key.running = key.running.saturating_sub(1);
        }
    }

    fn signal(&mut self, scope: Scope, signal: &Signal<'_>) {
        let Self { health, ticket, now, .. } = self;
        // A key that left the config, or got a new secret meanwhile, is no longer what this attempt
        // tested.
        let current = health.keys.get(&ticket.key).is_some_and(|key| ticket.id > key.born);
        let act = match scope {
            Scope::Upstream if health.upstreams.contains_key(&ticket.upstream) => {
                ActScope::Upstream(ticket.upstream)
            }
            Scope::Account if current => ActScope::Account(ticket.account),
            Scope::Key if current => ActScope::Key(ticket.key),
            Scope::KeyModel if current => ActScope::KeyModel(ticket.key, Arc::clone(&ticket.model)),
            _ => return,
        };
        let policy = Arc::clone(&health.policy);
        let Some(circuit) = health.circuit_mut(&act, matches!(signal, Signal::Failed { .. }))
        else {
            return;
        };
        let before = circuit.turn(signal, &policy, *now);
        let told = told(&before, circuit, scope, *now);
        if let Some((text, level)) = told {
            let subject =
                if scope == Scope::Upstream { &ticket.upstream_name } else { &ticket.key_name };
            let text = if scope == Scope::KeyModel {
                format!("{text} for {}", ticket.model)
            } else {
                text
            };
            self.changes.push(Change { subject: subject.to_string(), text, level });
        }
    }
}

/// What a turn of a circuit is in words; `None` where nobody needs to know.
fn told(before: &Circuit, after: &Circuit, scope: Scope, now: Mono) -> Option<(String, Severity)> {
    let whose = if scope == Scope::Account { "its account " } else { "" };
    match (before, after) {
        (Circuit::Shut { .. }, Circuit::Shut { .. }) => None,
        (_, Circuit::Shut { cause, .. }) => Some((
            format!("was rejected and is not used until its secret changes: {cause}"),
            Severity::Error,
        )),
        (Circuit::Open { until: old, .. }, Circuit::Open { until, .. }) if *until <= *old => None,
        (Circuit::Probing { until: old, .. }, Circuit::Open { until, .. }) if until <= old => None,
        (_, Circuit::Open { belief, until }) => {
            let (span, cause) = (short(until.since(now)), &belief.cause);
            Some((format!("{whose}cools for {span}: {cause}"), Severity::Warn))
        }
        (Circuit::Closed { .. }, Circuit::Closed { .. }) => None,
        (_, Circuit::Closed { .. }) => Some((format!("{whose}works again"), Severity::Info)),
        (_, Circuit::Probing { .. }) => None,
    }
}
