//! Records one request: publishes its events on the bus, and reports its end exactly once, also
//! when dropped.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;

use crate::relay::{
    engine::{Engine, cache_prices},
    record::{
        billing::{AttemptOutcome, RequestBilling, SuspendedAttempt},
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
        sanitize,
    },
    dialect::AnswerSummary,
    events::{
        event::EventKind,
        record::{AttemptRecord, AttemptRole, CacheMissRecord, RequestRecord, RequestState},
    },
    ir::{reason::failure::FailureReason, usage::Usage},
    routing::candidate::Candidate,
};

/// Minimum interval between two progress events of a request.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// The recorder's state for one running attempt.
struct AttemptRecorder {
    number: u32,
    upstream: Arc<str>,
    key: Arc<str>,
    fingerprint: Arc<str>,
    model: Arc<str>,
    started_at: Mono,
    billing: SuspendedAttempt,
}

/// Records one request.
pub struct RequestRecorder {
    engine: Arc<Engine>,
    pub id: RequestId,
    at: UnixMillis,
    received: Mono,
    project: Arc<str>,
    requested_model: Arc<str>,
    attempts: u32,
    /// The attempt that the fields below describe.
    attempt_number: u32,
    /// A concurrent attempt that is not the current one.
    suspended: Option<Box<AttemptRecorder>>,
    upstream: Arc<str>,
    key: Arc<str>,
    fingerprint: Arc<str>,
    pub model: Arc<str>,
    attempt_started_at: Mono,
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
        let mut recorder =
            Self::with_billing(engine, request, RequestBilling::open(engine, request));
        (recorder.records_headers, recorder.ended) = (records_headers, false);
        recorder
    }

    /// Creates the initial state without publishing it.
    fn with_billing(engine: &Arc<Engine>, request: &ProxyRequest, billing: RequestBilling) -> Self {
        let none = empty_str();
        Self {
            engine: Arc::clone(engine),
            id: request.id,
            at: request.at,
            received: request.received,
            project: Arc::clone(&request.caller.project.name),
            requested_model: Arc::clone(&request.requested_model),
            attempts: 0,
            attempt_number: 0,
            suspended: None,
            upstream: Arc::clone(&none),
            key: Arc::clone(&none),
            fingerprint: Arc::clone(&none),
            model: none,
            attempt_started_at: request.received,
            status: None,
            ttft: None,
            answer_bytes: 0,
            events: 0,
            interrupted_totals: (0, 0),
            last_progress_at: request.received,
            records_headers: false,
            billing,
            ended: true,
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

    pub(in crate::relay) fn publish_queued(&self, reason: String) {
        self.engine
            .bus
            .publish(self.now().0, EventKind::Queued { id: self.id, reason: reason.into() });
    }

    /// Sets what the next attempt has reserved of budgets.
    pub(in crate::relay) fn set_budget_hold(&mut self, reservation: BudgetHold) {
        self.billing.budget_hold = Some(reservation);
    }

    /// Records the start of an attempt. `bound`: the conversation was served there before.
    pub(in crate::relay) fn attempt_started(
        &mut self,
        candidate: &Candidate,
        bound: bool,
        reason: Arc<str>,
    ) {
        self.start_attempt(candidate, (AttemptRole::Primary, bound), reason);
    }

    /// Records the start of a concurrent attempt.
    pub(in crate::relay) fn hedge_started(&mut self, candidate: &Candidate, reason: Arc<str>) {
        self.suspended = Some(Box::new(self.suspend_attempt()));
        self.start_attempt(candidate, (AttemptRole::Hedge, false), reason);
    }

    /// Makes the other of the two running attempts the current one.
    pub(in crate::relay) fn switch_attempt(&mut self) {
        if let Some(other) = self.suspended.take() {
            let this = self.suspend_attempt();
            self.resume_attempt(*other);
            self.suspended = Some(Box::new(this));
        }
    }

    fn suspend_attempt(&mut self) -> AttemptRecorder {
        AttemptRecorder {
            number: self.attempt_number,
            upstream: Arc::clone(&self.upstream),
            key: Arc::clone(&self.key),
            fingerprint: Arc::clone(&self.fingerprint),
            model: Arc::clone(&self.model),
            started_at: self.attempt_started_at,
            billing: self.billing.suspend_attempt(),
        }
    }

    fn resume_attempt(&mut self, run: AttemptRecorder) {
        let AttemptRecorder {
            number,
            upstream,
            key,
            fingerprint,
            model,
            started_at: began,
            billing: bill,
        } = run;
        (self.attempt_number, self.attempt_started_at) = (number, began);
        (self.upstream, self.key, self.fingerprint, self.model) =
            (upstream, key, fingerprint, model);
        self.billing.resume_attempt(bill);
    }

    fn start_attempt(
        &mut self,
        candidate: &Candidate,
        (task, bound): (AttemptRole, bool),
        reason: Arc<str>,
    ) {
        let (at, now) = self.now();
        self.attempts += 1;
        self.attempt_number = self.attempts;
        self.attempt_started_at = now;
        self.billing.start_attempt(&candidate.target, at);
        self.upstream = Arc::clone(&candidate.target.upstream.name);
        let label = candidate.key_name.split_once('/').map_or("", |(_, label)| label);
        if *self.key != *label {
            self.key = Arc::from(label);
        }
        self.fingerprint = self.engine.keys.summary(candidate.key).fingerprint;
        self.model = Arc::clone(&candidate.target.model);
        let attempt = AttemptRecord {
            number: self.attempt_number,
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

    pub(in crate::relay) fn attempt_failed(
        &mut self,
        status: Option<u16>,
        outcome: &FailureReason,
        maybe_billed: bool,
    ) {
        let (at, now) = self.now();
        let ended_ms = self.since_start(now);
        let outcome = self.engine.sanitize_reason(outcome);
        self.billing.attempt_failed(&self.engine, self.attempt_number, maybe_billed);
        self.engine.bus.publish(
            at,
            EventKind::AttemptEnded {
                id: self.id,
                number: self.attempt_number,
                ended_ms,
                status,
                outcome,
                maybe_billed,
            },
        );
        if let Some(other) = self.suspended.take() {
            self.resume_attempt(*other);
        }
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
        let usage =
            self.billing.attempt_interrupted(&self.engine, self.attempt_number, attempt_outcome);
        self.interrupted_totals = (self.answer_bytes, self.events);
        // The continuation has another prompt and another upstream.
        self.pending_prefix = None;
        let outcome = self.engine.sanitize_reason(outcome);
        self.engine.bus.publish(
            at,
            EventKind::AttemptEnded {
                id: self.id,
                number: self.attempt_number,
                ended_ms,
                status,
                outcome,
                maybe_billed: true,
            },
        );
        usage
    }

    pub(in crate::relay) fn rescue_started(&mut self, candidate: &Candidate, reason: Arc<str>) {
        self.start_attempt(candidate, (AttemptRole::Rescue, false), reason);
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
                number: self.attempt_number,
                ttft_ms,
                head_ms: ttft_ms,
                status,
            },
        );
    }

    /// Returns the time since the start of the winning attempt.
    pub(in crate::relay) fn attempt_age(&self) -> Duration {
        self.engine.clock.mono().since(self.attempt_started_at)
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

    /// Publishes that the provider's cache missed a prefix that it should have cached.
    fn publish_cache_miss(&self, at: UnixMillis, miss: CacheMissRecord) {
        if miss.is_benign {
            tracing::info!(request = %self.id, project = %self.project, "{miss}");
        } else {
            tracing::warn!(request = %self.id, project = %self.project, "{miss}");
        }
        self.engine.bus.publish(at, EventKind::CacheMissed { id: self.id, lost: Box::new(miss) });
    }

    /// Returns `upstream/label` of the newest attempt.
    pub(in crate::relay) fn key_name(&self) -> Arc<str> {
        if self.key.is_empty() {
            Arc::clone(&self.upstream)
        } else {
            format!("{}/{}", self.upstream, self.key).into()
        }
    }

    /// Closes the record; later calls do nothing.
    pub(in crate::relay) fn finish(
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
        let attempt_outcome = AttemptOutcome {
            state,
            summary,
            has_content: self.ttft.is_some(),
            answer_bytes: self.answer_bytes - self.interrupted_totals.0,
            content_events: self.events - self.interrupted_totals.1,
        };
        if let Some(other) = self.suspended.take() {
            // Both attempts were running; nothing more is known of the suspended one.
            let this = self.suspend_attempt();
            self.resume_attempt(*other);
            self.billing.attempt_failed(&self.engine, self.attempt_number, true);
            self.resume_attempt(this);
        }
        let (usage, cost) = self.billing.settle(&self.engine, self.attempt_number, attempt_outcome);
        if let Some(admission) = &mut self.admission {
            admission.settle(state != RequestState::Failed || self.ttft.is_some(), usage);
        }
        let finish =
            summary.and_then(|s| s.finish_reason.as_deref()).map(|f| Arc::from(sanitize::clean(f)));
        let error: Option<Arc<str>> = error.map(|e| self.engine.sanitize(e).into());
        if tracing::enabled!(tracing::Level::INFO) {
            let tokens = usage.map(|u| (u.input_total(), u.output_total()));
            tracing::info!(
                request = %self.id,
                project = %self.project,
                model = %sanitize::clean(&self.requested_model),
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
            summary.and_then(|summary| summary.usage).filter(|_| self.billing.generates_tokens())
        {
            self.engine.cache_monitor.activate_if_cached(&usage);
            let miss = self.pending_prefix.take().and_then(|watched| {
                let prices = |upstream, model: &str| cache_prices(&self.engine, upstream, model);
                self.engine.cache_monitor.compare_usage(*watched, &usage, now, prices)
            });
            if let Some(miss) = miss {
                self.publish_cache_miss(at, miss);
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
        self.billing.submit_to_ledger(&self.engine, record);
        self.engine.cancellations.unregister(self.id);
        self.engine.live_taps.remove(self.id);
    }
}

impl Drop for RequestRecorder {
    fn drop(&mut self) {
        self.finish(RequestState::ClientGone, None, None);
    }
}
