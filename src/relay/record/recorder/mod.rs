//! Records one request: publishes its events on the bus, and reports its end exactly once, also
//! when dropped.

mod end;

use std::{mem, sync::Arc, time::Duration};

use http::HeaderMap;

use crate::relay::{
    engine::Engine,
    record::{
        attempt_recorder::AttemptRecorder,
        billing::{AttemptOutcome, RequestBilling},
        budget_hold::BudgetHold,
        cache_monitor::PendingPrefix,
    },
    request::proxy_request::{ProxyRequest, empty_str},
    state::permits::Admission,
};
use crate::{
    base::{
        clock::{Mono, UnixMillis},
        id::RequestId,
    },
    dialect::AnswerSummary,
    events::{
        event::EventKind,
        record::{AttemptRole, RequestRecord, RequestState},
    },
    ir::{
        reason::{failure::FailureReason, route::RouteReason},
        usage::Usage,
    },
    relay::record::refusal::Refusal,
    routing::candidate::Candidate,
};

/// Minimum interval between two progress events of a request.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Records one request.
pub struct RequestRecorder {
    engine: Arc<Engine>,
    pub id: RequestId,
    at: UnixMillis,
    received: Mono,
    project: Arc<str>,
    requested_model: Arc<str>,
    /// Attempts that were started.
    attempts: u32,
    /// The newest attempt, which is the one that wins if it does not fail.
    current: Option<AttemptRecorder>,
    /// The other one of two concurrent attempts.
    concurrent: Option<Box<AttemptRecorder>>,
    status: Option<u16>,
    ttft: Option<Duration>,
    answer_bytes: u64,
    events: u64,
    /// Bytes and events of attempts that broke off and were continued.
    interrupted_totals: (u64, u64),
    last_progress_at: Mono,
    billing: RequestBilling,
    /// The request's headers are recorded.
    records_headers: bool,
    ended: bool,
    /// The request's prefix, if its provider's prompt cache is monitored.
    pub(in crate::relay) pending_prefix: Option<Box<PendingPrefix>>,
    /// What it has reserved of its project's limits, if there are any.
    pub(in crate::relay) admission: Option<Box<Admission>>,
}

impl RequestRecorder {
    /// Opens the record of a request.
    #[must_use]
    pub fn open(engine: &Arc<Engine>, request: &ProxyRequest) -> Self {
        let record = RequestRecord {
            cache_miss: None,
            id: request.id,
            at: request.at,
            project: Arc::clone(&request.caller.project.name),
            client: Arc::clone(&request.caller.program),
            dialect: request.endpoint.dialect,
            op: request.endpoint.op,
            requested_model: Arc::clone(&request.requested_model),
            stream: request.stream,
            session: request.session.clone(),
            user: request.user.clone(),
            ip: request.records_caller.then_some(request.caller.addr),
            request_bytes: request.body.len() as u64,
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
        let records_headers =
            engine.recent_headers.record_request(request.id, &request.headers, request.received);
        engine.bus.publish(request.at, EventKind::Accepted { request: Box::new(record) });
        Self {
            engine: Arc::clone(engine),
            id: request.id,
            at: request.at,
            received: request.received,
            project: Arc::clone(&request.caller.project.name),
            requested_model: Arc::clone(&request.requested_model),
            attempts: 0,
            current: None,
            concurrent: None,
            status: None,
            ttft: None,
            answer_bytes: 0,
            events: 0,
            interrupted_totals: (0, 0),
            last_progress_at: request.received,
            billing: RequestBilling::open(engine, request),
            records_headers,
            ended: false,
            pending_prefix: None,
            admission: None,
        }
    }

    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns the name of the newest attempt's upstream; empty before the first attempt.
    #[must_use]
    pub fn upstream(&self) -> &Arc<str> {
        match &self.current {
            Some(attempt) => &attempt.target.upstream.name,
            None => empty_str(),
        }
    }

    /// Returns the newest attempt's model, as its upstream knows it; empty before the first
    /// attempt.
    #[must_use]
    pub fn model(&self) -> &Arc<str> {
        match &self.current {
            Some(attempt) => &attempt.target.model,
            None => empty_str(),
        }
    }

    /// Returns the number of the newest attempt; 0 before the first.
    fn current_number(&self) -> u32 {
        self.current.as_ref().map_or(0, |attempt| attempt.number)
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

    pub(in crate::relay) fn publish_queued(&self, reason: RouteReason) {
        self.engine
            .bus
            .publish(self.now().0, EventKind::Queued { id: self.id, reason: reason.into() });
    }

    /// Records the start of an attempt with what it has reserved of budgets; returns its number. A
    /// hedge runs concurrently with the attempt before it.
    pub(in crate::relay) fn attempt_started(
        &mut self,
        candidate: &Candidate,
        (role, has_affinity): (AttemptRole, bool),
        budget_hold: Option<BudgetHold>,
        reason: Arc<RouteReason>,
    ) -> u32 {
        let (at, now) = self.now();
        self.attempts += 1;
        let number = self.attempts;
        let attempt = AttemptRecorder::new(&self.engine, number, candidate, budget_hold, (at, now));
        let record = attempt.record(role, has_affinity, self.since_start(now));
        let previous = self.current.replace(attempt);
        if role == AttemptRole::Hedge {
            self.concurrent = previous.map(Box::new);
        }
        self.engine.bus.publish(
            at,
            EventKind::AttemptStarted { id: self.id, attempt: Box::new(record), reason },
        );
        number
    }

    /// Publishes that an attempt ended without winning; `ended_ms` counts from the request's start.
    fn publish_attempt_end(
        &self,
        (at, ended_ms): (UnixMillis, u32),
        number: u32,
        status: Option<u16>,
        outcome: &FailureReason,
        maybe_billed: bool,
    ) {
        let (id, outcome) = (self.id, self.engine.sanitize_reason(outcome));
        self.engine.bus.publish(
            at,
            EventKind::AttemptEnded { id, number, ended_ms, status, outcome, maybe_billed },
        );
    }

    /// Records that the newest attempt was refused and sent again as another one, which has its
    /// budget; returns the number of the attempt that counts from here on.
    pub(in crate::relay) fn attempt_repaired(
        &mut self,
        number: u32,
        candidate: &Candidate,
        refusal: Option<Box<Refusal>>,
    ) -> u32 {
        let Some(refusal) = refusal else { return number };
        let Some(current) = self.current.as_mut().filter(|current| current.number == number) else {
            return number;
        };
        let budget_hold = current.budget_hold.take();
        self.billing.attempt_failed(&self.engine, current, false);
        let (at, now) = self.now();
        let ended_ms = self.since_start(refusal.at);
        let (status, reason) = (refusal.status, &refusal.reason);
        self.publish_attempt_end((at, ended_ms), number, status, reason, false);
        self.attempts += 1;
        let (number, instant) = (self.attempts, (at, refusal.at.min(now)));
        let attempt = AttemptRecorder::new(&self.engine, number, candidate, budget_hold, instant);
        let record = attempt.record(AttemptRole::Primary, false, ended_ms);
        self.current = Some(attempt);
        let reason = RouteReason::Repaired { learned: refusal.learned }.into();
        self.engine.bus.publish(
            at,
            EventKind::AttemptStarted { id: self.id, attempt: Box::new(record), reason },
        );
        number
    }

    /// Records that an attempt failed. If another one is running, that is the current one then.
    pub(in crate::relay) fn attempt_failed(
        &mut self,
        number: u32,
        status: Option<u16>,
        outcome: &FailureReason,
        maybe_billed: bool,
    ) {
        let (at, now) = self.now();
        let ended_ms = self.since_start(now);
        let concurrent = self.concurrent.take();
        if let Some(mut failed) = concurrent {
            if failed.number != number
                && let Some(current) = &mut self.current
            {
                mem::swap(&mut *failed, current);
            }
            self.billing.attempt_failed(&self.engine, &mut failed, maybe_billed);
        } else if let Some(current) = &mut self.current {
            self.billing.attempt_failed(&self.engine, current, maybe_billed);
        }
        self.publish_attempt_end((at, ended_ms), number, status, outcome, maybe_billed);
    }

    /// Records an attempt that broke off after content and that another attempt is to continue;
    /// returns what it used until then.
    pub(in crate::relay) fn attempt_interrupted(
        &mut self,
        status: Option<u16>,
        outcome: &FailureReason,
        summary: &AnswerSummary,
    ) -> Option<Usage> {
        let (at, now) = self.now();
        let ended_ms = self.since_start(now);
        let (answer_bytes, events) = (
            self.answer_bytes - self.interrupted_totals.0,
            self.events - self.interrupted_totals.1,
        );
        let attempt_outcome = AttemptOutcome {
            state: RequestState::Failed,
            summary: Some(summary),
            has_content: true,
            answer_bytes,
            content_events: events,
        };
        let number = self.current_number();
        let usage = self
            .current
            .as_mut()
            .and_then(|attempt| self.billing.bill_measured(&self.engine, attempt, attempt_outcome));
        self.interrupted_totals = (self.answer_bytes, self.events);
        // The continuation has another prompt and another upstream.
        self.pending_prefix = None;
        self.publish_attempt_end((at, ended_ms), number, status, outcome, true);
        usage
    }

    /// Records that the first content leaves.
    pub(in crate::relay) fn record_first_content(&mut self, status: u16) {
        let (at, now) = self.now();
        let ttft_ms = self.since_start(now);
        self.ttft.get_or_insert(now.since(self.received));
        self.status = Some(status);
        self.engine.bus.publish(
            at,
            EventKind::FirstContent {
                id: self.id,
                number: self.current_number(),
                ttft_ms,
                head_ms: ttft_ms,
                status,
            },
        );
    }

    /// Returns the time since the start of the winning attempt.
    pub(in crate::relay) fn attempt_age(&self) -> Duration {
        let started_at = self.current.as_ref().map_or(self.received, |attempt| attempt.started_at);
        self.engine.clock.mono().since(started_at)
    }

    /// Records the response headers.
    pub(in crate::relay) fn record_headers(&self, headers: &HeaderMap) {
        if self.records_headers {
            self.engine.recent_headers.record_response(self.id, headers);
        }
    }

    pub(in crate::relay) fn set_status(&mut self, status: u16) {
        self.status = Some(status);
    }

    /// Counts the bytes sent to the client; publishes progress at intervals.
    pub(in crate::relay) fn record_bytes(&mut self, bytes: &[u8], events: u64) {
        if self.engine.live_taps.is_active() {
            self.engine.live_taps.push(
                self.id,
                bytes,
                self.answer_bytes,
                self.billing.captured_so_far(),
                self.engine.clock.mono(),
            );
        }
        self.answer_bytes += bytes.len() as u64;
        self.billing.capture_response(bytes);
        self.events = events;
        if self.engine.bus.has_viewers() {
            let (at, now) = self.now();
            if now.since(self.last_progress_at) >= PROGRESS_INTERVAL {
                self.last_progress_at = now;
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

    /// Records bytes that aiproxy itself wrote, instead of a response or at its end. They are
    /// captured but do not count as the response's.
    pub(in crate::relay) fn record_local_bytes(&mut self, bytes: &[u8]) {
        self.billing.capture_response(bytes);
        self.answer_bytes += bytes.len() as u64;
        self.interrupted_totals.0 += bytes.len() as u64;
    }

    /// Returns `upstream/label` of the newest attempt.
    pub(in crate::relay) fn key_name(&self) -> Arc<str> {
        match &self.current {
            Some(attempt) if !attempt.key.is_empty() => {
                format!("{}/{}", attempt.target.upstream.name, attempt.key).into()
            }
            _ => Arc::clone(self.upstream()),
        }
    }
}

impl Drop for RequestRecorder {
    fn drop(&mut self) {
        self.finish(RequestState::ClientGone, None, None);
    }
}
