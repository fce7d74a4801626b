//! Applies the end of an attempt: the scopes it affects, and the changes to report.

use std::{sync::Arc, time::Duration};

use crate::routing::{
    health::{
        Health, Scope,
        attempt::AttemptTicket,
        circuit::{Circuit, CircuitSignal},
        cooldown::Failure,
    },
    outcome::{Blame, CooldownClass, Outcome},
};
use crate::{
    base::clock::Mono,
    config::settings::Upstream,
    events::{event::Severity, status_message::health::HealthMessage},
    ir::{
        reason::{failure::FailureReason, span::Span},
        usage::Usage,
    },
};

/// The result of an attempt. The relay's guard reports exactly one final end.
#[derive(Clone, Copy, Debug)]
pub enum AttemptEnd<'a> {
    /// Final: the client disconnected. Releases the attempt's slots without a result.
    Abandoned,
    /// Final: the stream broke after content, which counts against the upstream.
    BrokeAfterContent(&'a Outcome),
    /// The first content arrived: the upstream works.
    Content,
    /// Final: the attempt failed before any content, or the upstream refused the request.
    Failed(&'a Outcome),
    /// Final: a complete response.
    Finished { ttft: Option<Duration>, usage: Option<Usage> },
    /// A 2xx response head arrived: the key works.
    Head2xx,
}

/// A change to report: "openai/work cools for 41s: 429 rate_limit_exceeded for gpt-5".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthChange {
    pub message: HealthMessage,
    pub level: Severity,
}

/// What an attempt's end changed.
#[derive(Debug)]
pub struct RecordedEnd {
    /// The changes to report.
    pub changes: Vec<HealthChange>,
    /// Waiting requests may be able to continue.
    pub capacity_changed: bool,
}

/// Records an end.
pub fn record(
    health: &mut Health,
    ticket: &AttemptTicket,
    end: AttemptEnd<'_>,
    now: Mono,
) -> RecordedEnd {
    let recorded = RecordedEnd { changes: Vec::new(), capacity_changed: false };
    let mut recorder = HealthRecorder { health, ticket, now, recorded };
    match end {
        AttemptEnd::Head2xx => recorder.key_succeeded(),
        AttemptEnd::Content => {
            recorder.key_succeeded();
            recorder.apply_signal(
                AttemptScope::Upstream,
                &CircuitSignal::FirstContent {
                    id: ticket.id,
                    last_attempt_id: recorder.health.last_attempt_id,
                },
            );
        }
        AttemptEnd::Finished { ttft, usage } => {
            recorder.key_succeeded();
            recorder.upstream_succeeded();
            recorder.settle_usage(usage);
            recorder.release(Some((false, ttft)));
        }
        AttemptEnd::Failed(outcome) => recorder.attempt_failed(outcome),
        AttemptEnd::BrokeAfterContent(outcome) => {
            if outcome.cooldown != CooldownClass::None {
                recorder.record_failure(
                    AttemptScope::Upstream,
                    CooldownClass::ServerError,
                    outcome,
                );
            }
            recorder.release(Some((true, None)));
        }
        AttemptEnd::Abandoned => recorder.release(None),
    }
    recorder.recorded
}

/// Records the result of one of aiproxy's probes: success, or the reason for the failure. A
/// successful probe does not close the circuit; the next request tests the upstream.
pub fn record_probe(
    health: &mut Health,
    upstream: &Upstream,
    id: u64,
    found: Result<(), &Arc<FailureReason>>,
    now: Mono,
) -> Vec<HealthChange> {
    let (policy, last_attempt_id) = (Arc::clone(&health.policy), health.last_attempt_id);
    let Some(circuit) = health.circuit_mut(&Scope::Upstream(upstream.id), found.is_err()) else {
        return Vec::new();
    };
    let before = match found {
        Ok(()) => circuit.apply(&CircuitSignal::ProbeSucceeded, &policy, now),
        Err(cause) => {
            let threshold = policy.cooldown.failures.max(1);
            let failure = Failure {
                class: CooldownClass::ServerError,
                hint: None,
                cause,
                threshold,
                local: upstream.local,
            };
            circuit.apply(&CircuitSignal::Failed { id, last_attempt_id, failure }, &policy, now)
        }
    };
    let change = match (&before, &*circuit) {
        (Circuit::Open { until: old, .. }, Circuit::Open { until, .. }) if until < old => {
            let name = Arc::clone(&upstream.name);
            Some(HealthChange {
                message: HealthMessage::AnswersProbe { name },
                level: Severity::Info,
            })
        }
        (before, after) => {
            let subject = ChangeSubject { name: &upstream.name, account: false, model: None };
            describe_change(before, after, subject, now)
        }
    };
    change.into_iter().collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AttemptScope {
    Account,
    Key,
    KeyModel,
    Upstream,
}

struct HealthRecorder<'a> {
    health: &'a mut Health,
    ticket: &'a AttemptTicket,
    now: Mono,
    recorded: RecordedEnd,
}

impl HealthRecorder<'_> {
    fn key_succeeded(&mut self) {
        for scope in [AttemptScope::Account, AttemptScope::Key, AttemptScope::KeyModel] {
            self.apply_signal(
                scope,
                &CircuitSignal::Succeeded {
                    id: self.ticket.id,
                    last_attempt_id: self.health.last_attempt_id,
                },
            );
        }
    }

    fn upstream_succeeded(&mut self) {
        self.apply_signal(
            AttemptScope::Upstream,
            &CircuitSignal::Succeeded {
                id: self.ticket.id,
                last_attempt_id: self.health.last_attempt_id,
            },
        );
    }

    fn attempt_failed(&mut self, outcome: &Outcome) {
        match outcome.blame {
            Blame::Account => self.record_refusal(AttemptScope::Account, outcome),
            Blame::Key => self.record_refusal(AttemptScope::Key, outcome),
            Blame::KeyModel => self.record_refusal(AttemptScope::KeyModel, outcome),
            // The upstream rejected the request itself, so the upstream is up.
            Blame::None if outcome.blames_request() => self.upstream_succeeded(),
            Blame::None => {}
            Blame::Upstream => {
                self.record_failure(AttemptScope::Upstream, outcome.cooldown, outcome);
            }
            Blame::UpstreamAndKey => {
                self.record_failure(AttemptScope::Key, outcome.cooldown, outcome);
                self.record_failure(AttemptScope::Upstream, outcome.cooldown, outcome);
            }
        }
        let counted = outcome.blame != Blame::None || outcome.blames_request();
        self.settle_reservation(0);
        self.release(counted.then_some((outcome.blame != Blame::None, None)));
    }

    /// Records a refusal about a key or account: the upstream that sent it works.
    fn record_refusal(&mut self, scope: AttemptScope, outcome: &Outcome) {
        self.record_failure(scope, outcome.cooldown, outcome);
        self.upstream_succeeded();
    }

    fn record_failure(&mut self, scope: AttemptScope, class: CooldownClass, outcome: &Outcome) {
        let threshold = if scope == AttemptScope::Upstream {
            self.health.policy.cooldown.failures.max(1)
        } else {
            1
        };
        let failure = Failure {
            class,
            hint: outcome.hint,
            cause: &outcome.cause,
            threshold,
            local: self.ticket.local,
        };
        self.apply_signal(
            scope,
            &CircuitSignal::Failed {
                id: self.ticket.id,
                last_attempt_id: self.health.last_attempt_id,
                failure,
            },
        );
    }

    /// Settles the reservation with the provider's counts; without them the reserved amount
    /// remains.
    fn settle_usage(&mut self, usage: Option<Usage>) {
        let Some(usage) = usage else { return };
        let (input, output) = (usage.input_total(), usage.output_total());
        if output > 0 {
            self.health.output_estimator.record(&self.ticket.model, output);
        }
        if let Some(key) = self.health.keys.get_mut(&self.ticket.key) {
            key.tokens = key.tokens.saturating_add(input.saturating_add(output));
        }
        let free = if self.ticket.cached_free { usage.cache_read } else { 0 };
        self.settle_reservation((input - free).saturating_add(output));
    }

    fn settle_reservation(&mut self, tokens: u64) {
        if let (Some(reserved), Some(key)) =
            (self.ticket.reserved, self.health.keys.get_mut(&self.ticket.key))
        {
            key.usage.settle(&self.ticket.model, reserved, tokens);
        }
    }

    /// Releases the slots of the attempt.
    fn release(&mut self, counted: Option<(bool, Option<Duration>)>) {
        self.recorded.capacity_changed = true;
        for scope in [
            AttemptScope::Account,
            AttemptScope::Key,
            AttemptScope::KeyModel,
            AttemptScope::Upstream,
        ] {
            self.apply_signal(scope, &CircuitSignal::Ended { id: self.ticket.id });
        }
        if let Some(upstream) = self.health.upstreams.get_mut(&self.ticket.upstream) {
            upstream.running = upstream.running.saturating_sub(1);
            if let Some((failed, ttft)) = counted {
                if let Some(ttft) = ttft {
                    upstream.target_mut(&self.ticket.model).ttft.record(ttft, self.now);
                }
                upstream.stats.record(failed, ttft, self.now);
            }
        }
        if let Some(key) = self.health.keys.get_mut(&self.ticket.key) {
            key.running = key.running.saturating_sub(1);
        }
    }

    fn apply_signal(&mut self, scope: AttemptScope, signal: &CircuitSignal<'_>) {
        let Self { health, ticket, now, .. } = self;
        // If the key left the config or got a new secret meanwhile, this attempt no longer tests
        // it.
        let current = health.keys.get(&ticket.key).is_some_and(|key| ticket.id > key.valid_from);
        let act = match scope {
            AttemptScope::Upstream if health.upstreams.contains_key(&ticket.upstream) => {
                Scope::Upstream(ticket.upstream)
            }
            AttemptScope::Account if current => Scope::Account(ticket.account),
            AttemptScope::Key if current => Scope::Key(ticket.key),
            AttemptScope::KeyModel if current => {
                Scope::KeyModel(ticket.key, Arc::clone(&ticket.model))
            }
            _ => return,
        };
        let policy = Arc::clone(&health.policy);
        let Some(circuit) =
            health.circuit_mut(&act, matches!(signal, CircuitSignal::Failed { .. }))
        else {
            return;
        };
        let before = circuit.apply(signal, &policy, *now);
        self.recorded.capacity_changed |= before != *circuit;
        let subject = ChangeSubject {
            name: match scope {
                AttemptScope::Upstream => &ticket.upstream_name,
                AttemptScope::Account | AttemptScope::Key | AttemptScope::KeyModel => {
                    &ticket.key_name
                }
            },
            account: scope == AttemptScope::Account,
            model: (scope == AttemptScope::KeyModel).then_some(&ticket.model),
        };
        self.recorded.changes.extend(describe_change(&before, circuit, subject, *now));
    }
}

/// What a circuit belongs to.
#[derive(Clone, Copy)]
struct ChangeSubject<'a> {
    /// The name of the key or upstream.
    name: &'a Arc<str>,
    /// The circuit is that of the key's account.
    account: bool,
    /// The circuit is for this model only.
    model: Option<&'a Arc<str>>,
}

/// Describes a circuit's state change; `None` if it is not worth reporting.
fn describe_change(
    before: &Circuit,
    after: &Circuit,
    subject: ChangeSubject<'_>,
    now: Mono,
) -> Option<HealthChange> {
    let ChangeSubject { account, .. } = subject;
    let (name, model) = (Arc::clone(subject.name), subject.model.cloned());
    let (message, level) = match (before, after) {
        (Circuit::Rejected { .. }, Circuit::Rejected { .. }) => return None,
        (_, Circuit::Rejected { cause, .. }) => {
            let cause = Arc::clone(cause);
            (HealthMessage::Rejected { name, cause, model }, Severity::Error)
        }
        (Circuit::Open { until: old, .. }, Circuit::Open { until, .. }) if *until <= *old => {
            return None;
        }
        (Circuit::Probing { until: old, .. }, Circuit::Open { until, .. }) if until <= old => {
            return None;
        }
        (_, Circuit::Open { reason, until }) => {
            let (span, cause) = (Span(until.since(now)), Arc::clone(&reason.cause));
            (HealthMessage::Cools { name, account, span, cause, model }, Severity::Warn)
        }
        (Circuit::Closed { .. }, Circuit::Closed { .. }) | (_, Circuit::Probing { .. }) => {
            return None;
        }
        (_, Circuit::Closed { .. }) => {
            (HealthMessage::Works { name, account, model }, Severity::Info)
        }
    };
    Some(HealthChange { message, level })
}
