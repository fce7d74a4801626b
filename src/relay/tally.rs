//! The account of a request: tells the bus what happened, and reports the end exactly once, also
//! when dropped.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;

use super::{
    account::{Account, Running, Went},
    admission::Admission,
    ask::{Ask, nothing},
    budgets::Reservation,
    engine::Engine,
    guardian::{self, Watched},
};
use crate::{
    base::{
        clean,
        clock::{Mono, UnixMillis},
        id::RequestId,
    },
    dialect::AnswerSummary,
    events::{
        kind::{EventKind, Severity},
        record::{AttemptRecord, AttemptRole, CacheMissRecord, RequestRecord, RequestState},
    },
    ir::{allowance::RateLimits, usage::Usage},
    routing::{
        candidate::Candidate,
        ending::{AttemptEnd, HealthChange},
        health::AttemptTicket,
    },
};

/// Sampled progress is told at most this often.
const PROGRESS: Duration = Duration::from_millis(250);

/// What the account holds of one attempt that is under way.
struct Run {
    number: u32,
    upstream: Arc<str>,
    key: Arc<str>,
    fingerprint: Arc<str>,
    model: Arc<str>,
    began: Mono,
    bill: Running,
}

/// One request's account.
pub struct Tally {
    engine: Arc<Engine>,
    pub id: RequestId,
    at: UnixMillis,
    received: Mono,
    project: Arc<str>,
    asked: Arc<str>,
    attempts: u32,
    /// Of the attempt that the fields below are about.
    number: u32,
    /// Another attempt that is under way beside it.
    other: Option<Box<Run>>,
    upstream: Arc<str>,
    key: Arc<str>,
    fingerprint: Arc<str>,
    pub model: Arc<str>,
    attempt_began: Mono,
    status: Option<u16>,
    ttft: Option<Duration>,
    answer_bytes: u64,
    events: u64,
    /// Bytes and events of attempts that broke off, and were gone on from.
    before: (u64, u64),
    progressed: Mono,
    account: Account,
    /// Its headers are kept.
    heads: bool,
    ended: bool,
    /// What stood at the beginning of the request, where its provider's cache is watched.
    pub(super) watched: Option<Box<Watched>>,
    /// What it holds of its project's limits, where those are set.
    pub(super) admission: Option<Box<Admission>>,
}

impl Tally {
    /// Opens the account.
    #[must_use]
    pub fn open(engine: &Arc<Engine>, ask: &Ask) -> Self {
        let record = RequestRecord {
            cache_miss: None,
            id: ask.id,
            at: ask.at,
            project: Arc::clone(&ask.caller.project.name),
            client: Arc::clone(&ask.caller.program),
            dialect: ask.endpoint.dialect,
            op: ask.endpoint.op,
            requested_model: Arc::clone(&ask.asked),
            stream: ask.stream,
            session: ask.session.clone(),
            request_bytes: ask.body.len() as u64,
            state: RequestState::Waiting,
            attempts: Vec::with_capacity(1),
            reason: None,
            ttft_ms: None,
            duration_ms: None,
            status: None,
            usage: None,
            cost: None,
            finish: None,
            answer_bytes: 0,
            events: 0,
            error: None,
        };
        let heads = engine.heads.asked(ask.id, &ask.headers, ask.received);
        engine.bus.publish(ask.at, EventKind::Accepted { request: Box::new(record) });
        let mut tally = Self::of(engine, ask, Account::open(engine, ask));
        (tally.heads, tally.ended) = (heads, false);
        tally
    }

    /// An account that tells nobody anything: of an attempt whose request has its own.
    #[must_use]
    pub(super) fn mute(engine: &Arc<Engine>, ask: &Ask) -> Self {
        Self::of(engine, ask, Account::mute(ask))
    }

    /// Nothing has happened yet, and nobody is to be told.
    fn of(engine: &Arc<Engine>, ask: &Ask, account: Account) -> Self {
        let none = nothing();
        Self {
            engine: Arc::clone(engine),
            id: ask.id,
            at: ask.at,
            received: ask.received,
            project: Arc::clone(&ask.caller.project.name),
            asked: Arc::clone(&ask.asked),
            attempts: 0,
            number: 0,
            other: None,
            upstream: Arc::clone(&none),
            key: Arc::clone(&none),
            fingerprint: Arc::clone(&none),
            model: none,
            attempt_began: ask.received,
            status: None,
            ttft: None,
            answer_bytes: 0,
            events: 0,
            before: (0, 0),
            progressed: ask.received,
            heads: false,
            account,
            ended: true,
            watched: None,
            admission: None,
        }
    }

    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Name of the upstream of the newest attempt; empty before the first.
    #[must_use]
    pub fn upstream(&self) -> &Arc<str> {
        &self.upstream
    }

    fn now(&self) -> (UnixMillis, Mono) {
        let mono = self.engine.clock.mono();
        let since = i64::try_from(mono.since(self.received).as_millis()).unwrap_or(i64::MAX);
        // Counted from the start on the monotonic clock, so that no clock jump makes a negative
        // duration.
        (UnixMillis(self.at.0.saturating_add(since)), mono)
    }

    fn since_start(&self, now: Mono) -> u32 {
        u32::try_from(now.since(self.received).as_millis()).unwrap_or(u32::MAX)
    }

    pub(super) fn queued(&self, reason: String) {
        self.engine
            .bus
            .publish(self.now().0, EventKind::Queued { id: self.id, reason: reason.into() });
    }

    /// What the next attempt holds of budgets.
    pub(super) fn reserve(&mut self, reservation: Reservation) {
        self.account.reservation = Some(reservation);
    }

    /// `bound`: its conversation was served there before.
    pub(super) fn attempt_started(&mut self, candidate: &Candidate, bound: bool, reason: Arc<str>) {
        self.started(candidate, (AttemptRole::Primary, bound), reason);
    }

    /// An attempt starts beside the one under way.
    pub(super) fn hedge_started(&mut self, candidate: &Candidate, reason: Arc<str>) {
        self.other = Some(Box::new(self.set_aside()));
        self.started(candidate, (AttemptRole::Hedge, false), reason);
    }

    /// Of the two attempts under way, speaks of the other from here on.
    pub(super) fn turn(&mut self) {
        if let Some(other) = self.other.take() {
            let this = self.set_aside();
            self.take_up(*other);
            self.other = Some(Box::new(this));
        }
    }

    fn set_aside(&mut self) -> Run {
        Run {
            number: self.number,
            upstream: Arc::clone(&self.upstream),
            key: Arc::clone(&self.key),
            fingerprint: Arc::clone(&self.fingerprint),
            model: Arc::clone(&self.model),
            began: self.attempt_began,
            bill: self.account.set_aside(),
        }
    }

    fn take_up(&mut self, run: Run) {
        let Run { number, upstream, key, fingerprint, model, began, bill } = run;
        (self.number, self.attempt_began) = (number, began);
        (self.upstream, self.key, self.fingerprint, self.model) =
            (upstream, key, fingerprint, model);
        self.account.take_up(bill);
    }

    fn started(
        &mut self,
        candidate: &Candidate,
        (task, bound): (AttemptRole, bool),
        reason: Arc<str>,
    ) {
        let (at, now) = self.now();
        self.attempts += 1;
        self.number = self.attempts;
        self.attempt_began = now;
        self.account.attempt(&candidate.target, at);
        self.upstream = Arc::clone(&candidate.target.upstream.name);
        let label = candidate.key_name.split_once('/').map_or("", |(_, label)| label);
        if *self.key != *label {
            self.key = Arc::from(label);
        }
        self.fingerprint = self.engine.keys.summary(candidate.key).fingerprint;
        self.model = Arc::clone(&candidate.target.model);
        let attempt = AttemptRecord {
            number: self.number,
            role: task,
            has_affinity: bound,
            upstream: Arc::clone(&self.upstream),
            key: Arc::clone(&self.key),
            fingerprint: Arc::clone(&self.fingerprint),
            model: Arc::clone(&self.model),
            started_ms: self.since_start(now),
            head_ms: None,
            ended_ms: None,
            status: None,
            outcome: None,
            won: false,
            maybe_billed: false,
        };
        self.engine.bus.publish(
            at,
            EventKind::AttemptStarted { id: self.id, attempt: Box::new(attempt), reason },
        );
    }

    pub(super) fn attempt_lost(&mut self, status: Option<u16>, outcome: &str, maybe_billed: bool) {
        let (at, now) = self.now();
        let ended_ms = self.since_start(now);
        let outcome = self.engine.words(outcome).into();
        self.account.lost(&self.engine, self.number, maybe_billed);
        self.engine.bus.publish(
            at,
            EventKind::AttemptEnded {
                id: self.id,
                number: self.number,
                ended_ms,
                status,
                outcome,
                maybe_billed,
            },
        );
        if let Some(other) = self.other.take() {
            self.take_up(*other);
        }
    }

    /// The attempt broke off after content, and another is to go on from there; what it used up to
    /// then.
    pub(super) fn broke_off(
        &mut self,
        status: Option<u16>,
        outcome: &str,
        summary: &AnswerSummary,
    ) -> Option<Usage> {
        let (at, now) = self.now();
        let ended_ms = self.since_start(now);
        let (answer_bytes, events) =
            (self.answer_bytes - self.before.0, self.events - self.before.1);
        let went = Went {
            state: RequestState::Failed,
            summary: Some(summary),
            content: true,
            answer_bytes,
            events,
        };
        let usage = self.account.broke(&self.engine, self.number, went);
        self.before = (self.answer_bytes, self.events);
        // What goes on from here is another prompt, asked elsewhere.
        self.watched = None;
        let outcome = self.engine.words(outcome).into();
        self.engine.bus.publish(
            at,
            EventKind::AttemptEnded {
                id: self.id,
                number: self.number,
                ended_ms,
                status,
                outcome,
                maybe_billed: true,
            },
        );
        usage
    }

    pub(super) fn rescue_started(&mut self, candidate: &Candidate, reason: Arc<str>) {
        self.started(candidate, (AttemptRole::Rescue, false), reason);
    }

    /// The first content leaves.
    pub(super) fn first_content(&mut self, status: u16) {
        let (at, now) = self.now();
        let ttft_ms = self.since_start(now);
        self.ttft.get_or_insert(now.since(self.received));
        self.status = Some(status);
        self.engine.bus.publish(
            at,
            EventKind::FirstContent {
                id: self.id,
                number: self.number,
                ttft_ms,
                head_ms: ttft_ms,
                status,
            },
        );
    }

    /// Time from the start of the winning attempt to now.
    pub(super) fn attempt_age(&self) -> Duration {
        self.engine.clock.mono().since(self.attempt_began)
    }

    /// The head of the answer is made.
    pub(super) fn answered(&self, headers: &HeaderMap) {
        if self.heads {
            self.engine.heads.answered(self.id, headers);
        }
    }

    pub(super) fn set_status(&mut self, status: u16) {
        self.status = Some(status);
    }

    /// Counts what went to the client; told to viewers now and then.
    pub(super) fn sent(&mut self, bytes: &[u8], events: u64) {
        if self.engine.peeks.any() {
            self.engine.peeks.sent(
                self.id,
                bytes,
                self.answer_bytes,
                self.account.so_far(),
                self.engine.clock.mono(),
            );
        }
        self.answer_bytes += bytes.len() as u64;
        self.account.answer(bytes);
        self.events = events;
        if self.engine.bus.has_viewers() {
            let (at, now) = self.now();
            if now.since(self.progressed) >= PROGRESS {
                self.progressed = now;
                self.engine.bus.publish(
                    at,
                    EventKind::Progress {
                        id: self.id,
                        answer_bytes: self.answer_bytes,
                        events: self.events,
                    },
                );
            }
        }
    }

    /// What we told the client ourselves, in place of an answer or at its end: kept, and not
    /// counted as an answer's.
    pub(super) fn told(&mut self, bytes: &[u8]) {
        self.account.answer(bytes);
        self.answer_bytes += bytes.len() as u64;
        self.before.0 += bytes.len() as u64;
    }

    /// The provider's cache did not hold what it should have.
    fn cache_lost(&self, at: UnixMillis, lost: CacheMissRecord) {
        let text = lost.text();
        if lost.is_benign {
            tracing::info!(request = %self.id, project = %self.project, "{text}");
        } else {
            tracing::warn!(request = %self.id, project = %self.project, "{text}");
        }
        self.engine.bus.publish(at, EventKind::CacheMissed { id: self.id, lost: Box::new(lost) });
    }

    /// `upstream/label` of the newest attempt.
    pub(super) fn key_name(&self) -> Arc<str> {
        if self.key.is_empty() {
            Arc::clone(&self.upstream)
        } else {
            format!("{}/{}", self.upstream, self.key).into()
        }
    }

    /// Closes the account; later calls do nothing.
    pub(super) fn end(
        &mut self,
        state: RequestState,
        summary: Option<&AnswerSummary>,
        error: Option<&str>,
    ) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let (at, now) = self.now();
        let duration_ms = self.since_start(now);
        let went = Went {
            state,
            summary,
            content: self.ttft.is_some(),
            answer_bytes: self.answer_bytes - self.before.0,
            events: self.events - self.before.1,
        };
        if let Some(other) = self.other.take() {
            // Both were under way; of the one that is set aside no more is known than that.
            let this = self.set_aside();
            self.take_up(*other);
            self.account.lost(&self.engine, self.number, true);
            self.take_up(this);
        }
        let (usage, cost) = self.account.settle(&self.engine, self.number, went);
        if let Some(admission) = &mut self.admission {
            admission.settle(state != RequestState::Failed || self.ttft.is_some(), usage);
        }
        let finish =
            summary.and_then(|s| s.finish_reason.as_deref()).map(|f| Arc::from(clean::clean(f)));
        let error: Option<Arc<str>> = error.map(|e| self.engine.words(e).into());
        if tracing::enabled!(tracing::Level::INFO) {
            let tokens = usage.map(|u| (u.input_total(), u.output_total()));
            tracing::info!(
                request = %self.id,
                project = %self.project,
                model = %clean::clean(&self.asked),
                upstream = %self.upstream,
                key = %self.key,
                fingerprint = %self.fingerprint,
                attempts = self.attempts,
                status = self.status,
                state = ?state,
                ttft_ms = self.ttft.map(|t| t.as_millis() as u64),
                duration_ms,
                input_tokens = tokens.map(|t| t.0),
                output_tokens = tokens.map(|t| t.1),
                error = error.as_deref(),
                "request"
            );
        }
        if let Some(usage) =
            summary.and_then(|summary| summary.usage).filter(|_| self.account.generates())
        {
            self.engine.watch.see(&usage);
            if let Some(lost) = self
                .watched
                .take()
                .and_then(|watched| guardian::heard(&self.engine, *watched, &usage))
            {
                self.cache_lost(at, lost);
            }
        }
        let ended = EventKind::Ended {
            id: self.id,
            state,
            status: self.status,
            duration_ms,
            usage,
            cost: Some(cost),
            finish,
            answer_bytes: self.answer_bytes,
            events: self.events,
            error,
        };
        let record = self.engine.bus.publish_end(at, ended, self.id);
        self.account.hand_over(&self.engine, record);
        self.engine.halts.leave(self.id);
        self.engine.peeks.leave(self.id);
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.end(RequestState::ClientGone, None, None);
    }
}

/// Gives an attempt's verdict to the board exactly once; dropped without one, the attempt counts as
/// abandoned.
pub struct Guard {
    engine: Arc<Engine>,
    ticket: Option<AttemptTicket>,
}

impl Guard {
    pub(super) fn new(engine: &Arc<Engine>, ticket: AttemptTicket) -> Self {
        Self { engine: Arc::clone(engine), ticket: Some(ticket) }
    }

    /// A verdict that is not the last: head or first content came.
    pub(super) fn note(&self, end: AttemptEnd<'_>) {
        if let Some(ticket) = &self.ticket {
            self.engine.record(ticket, end);
        }
    }

    /// An answer's head told what is left of the provider's limits.
    pub(super) fn hear(&self, said: &RateLimits) {
        if let Some(ticket) = self.ticket.as_ref().filter(|_| !said.is_empty()) {
            self.engine.board.record_rate_limits(ticket, said, self.engine.clock.mono());
        }
    }

    /// The last verdict.
    pub(super) fn close(&mut self, end: AttemptEnd<'_>) {
        if let Some(ticket) = self.ticket.take() {
            self.engine.record(&ticket, end);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.close(AttemptEnd::Abandoned);
    }
}

impl Engine {
    /// Records a verdict and tells everybody what it changed.
    pub(super) fn record(&self, ticket: &AttemptTicket, end: AttemptEnd<'_>) {
        let before = self.board.revision();
        let changes = self.board.record(ticket, end, self.clock.mono());
        self.tell_changes(changes);
        if self.board.revision() != before {
            self.touch();
        }
    }

    /// Makes events and log lines of health changes.
    pub fn tell_changes(&self, changes: Vec<HealthChange>) {
        for change in changes {
            let text: Arc<str> = self.words(&format!("{} {}", change.subject, change.text)).into();
            match change.level {
                Severity::Info => tracing::info!("{text}"),
                Severity::Warn | Severity::Error => tracing::warn!("{text}"),
            }
            self.bus.publish(
                self.clock.unix(),
                EventKind::Health { subject: change.subject.into(), text, level: change.level },
            );
        }
    }
}
