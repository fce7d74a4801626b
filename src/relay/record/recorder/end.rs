//! Closes the record of a request: bills its last attempt, publishes its end and submits it to the
//! ledger.

use std::{mem, sync::Arc};

use crate::relay::{
    engine::cache_prices,
    record::{
        attempt_recorder::AttemptRecorder, billing::AttemptOutcome, recorder::RequestRecorder,
    },
};
use crate::{
    base::{
        clock::{Mono, UnixMillis},
        sanitize,
    },
    dialect::AnswerSummary,
    events::{
        event::EventKind,
        record::{CacheMissRecord, RequestState},
    },
    ir::usage::Usage,
};

impl RequestRecorder {
    /// Closes the record; later calls do nothing.
    pub(in crate::relay) fn finish(
        &mut self,
        state: RequestState,
        summary: Option<&AnswerSummary>,
        error: Option<&str>,
    ) {
        if mem::replace(&mut self.ended, true) {
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
        if let Some(mut other) = self.concurrent.take() {
            // Both attempts were running; nothing more is known of this one.
            self.billing.attempt_failed(&self.engine, &mut other, true);
        }
        if let Some(current) = &mut self.current {
            self.billing.bill_measured(&self.engine, current, attempt_outcome);
        }
        let (usage, cost) = self.billing.totals();
        if let Some(admission) = &mut self.admission {
            admission.settle(state != RequestState::Failed || self.ttft.is_some(), usage);
        }
        let finish =
            summary.and_then(|s| s.finish_reason.as_deref()).map(|f| Arc::from(sanitize::clean(f)));
        let error: Option<Arc<str>> = error.map(|e| self.engine.sanitize(e).into());
        self.log_end(state, duration_ms, usage, error.as_deref());
        if let Some(usage) =
            summary.and_then(|summary| summary.usage).filter(|_| self.billing.generates_tokens())
        {
            self.compare_cached_tokens(at, now, &usage);
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
        let is_demo = self.current.as_ref().is_some_and(AttemptRecorder::is_demo);
        self.billing.submit_to_ledger(&self.engine, record, is_demo);
        self.engine.cancellations.unregister(self.id);
        self.engine.live_taps.remove(self.id);
    }

    fn log_end(
        &self,
        state: RequestState,
        duration_ms: u32,
        usage: Option<Usage>,
        error: Option<&str>,
    ) {
        if !tracing::enabled!(tracing::Level::INFO) {
            return;
        }
        let tokens = usage.map(|u| (u.input_total(), u.output_total()));
        let (key, fingerprint) = self
            .current
            .as_ref()
            .map_or(("", ""), |attempt| (&*attempt.key, &*attempt.fingerprint));
        tracing::info!(
            request = %self.id,
            project = %self.project,
            model = %sanitize::clean(&self.requested_model),
            upstream = %self.upstream(),
            key = %key,
            fingerprint = %fingerprint,
            attempts = self.attempts,
            status = self.status,
            state = ?state,
            ttft_ms = self.ttft.map(|t| t.as_millis() as u64),
            duration_ms,
            input_tokens = tokens.map(|t| t.0),
            output_tokens = tokens.map(|t| t.1),
            error,
            "request"
        );
    }

    /// Compares the reported cached tokens with what the provider should have cached; publishes a
    /// cache miss.
    fn compare_cached_tokens(&mut self, at: UnixMillis, now: Mono, usage: &Usage) {
        let engine = &self.engine;
        engine.cache_monitor.activate_if_cached(usage);
        let miss = self.pending_prefix.take().and_then(|watched| {
            let prices = |upstream, model: &str| cache_prices(engine, upstream, model);
            engine.cache_monitor.compare_usage(*watched, usage, now, prices)
        });
        if let Some(miss) = miss {
            self.publish_cache_miss(at, miss);
        }
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
}
