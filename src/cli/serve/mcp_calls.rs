//! Records calls of MCP tools: on the bus, for viewers, and in the ledger.

use std::sync::Arc;

use crate::{
    base::{
        clock::{Mono, UnixMillis},
        id::RequestId,
        money::NanoUsd,
        sanitize,
    },
    events::{
        event::EventKind,
        ledger_queue::{AttemptBill, BodyCapture, LedgerEntry, LedgerMessage, LedgerSlot},
        record::{AttemptRecord, AttemptRole, RequestRecord, RequestState},
    },
    ir::{
        cost::{Bill, Cost, CostSource},
        op::{Dialect, Op},
    },
    mcp::call_log::{CallLog, CallOutcome, CallStart, LoggedCall},
    relay::engine::Engine,
};

/// Records calls with the parts of an engine.
pub(super) struct EngineCallLog(pub(super) Arc<Engine>);

struct EngineCall {
    engine: Arc<Engine>,
    id: RequestId,
    at: UnixMillis,
    began: Mono,
    slot: Option<LedgerSlot>,
    capture: Option<Box<BodyCapture>>,
    price: f64,
    summary: String,
    ended: bool,
}

impl CallLog for EngineCallLog {
    fn begin(&self, start: CallStart) -> Box<dyn LoggedCall> {
        let engine = &self.0;
        let (at, began) = (engine.clock.unix(), engine.clock.mono());
        let id = RequestId::new(at);
        let tool = sanitize::clean(&start.tool);
        let tool: Arc<str> = sanitize::truncate_end(&tool, 128).into();
        let name = format!("{}/{tool}", start.server);
        let attempt = AttemptRecord {
            number: 1,
            role: AttemptRole::Primary,
            has_affinity: false,
            upstream: Arc::clone(&start.server),
            key: Arc::default(),
            fingerprint: Arc::default(),
            model: tool,
            started_ms: 0,
            head_ms: None,
            ended_ms: None,
            status: None,
            outcome: None,
            won: true,
            maybe_billed: start.price > 0.0,
        };
        let record = RequestRecord {
            id,
            at,
            project: start.project,
            client: start.client,
            dialect: Dialect::Openai,
            op: Op::Mcp,
            requested_model: name.as_str().into(),
            stream: false,
            session: None,
            user: None,
            ip: start.addr,
            request_bytes: start.arguments.len() as u64,
            state: RequestState::Waiting,
            attempts: vec![attempt],
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
            cache_miss: None,
        };
        let slot = engine.ledger_queue.reserve_slot();
        let capture = engine.ledger_queue.capture(id, "application/json", &start.arguments, began);
        engine.bus.publish(at, EventKind::Accepted { request: Box::new(record) });
        Box::new(EngineCall {
            engine: Arc::clone(engine),
            id,
            at,
            began,
            slot,
            capture,
            price: start.price,
            summary: name,
            ended: false,
        })
    }
}

impl EngineCall {
    fn finish(&mut self, state: RequestState, answer: &[u8], error: Option<&str>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let engine = &self.engine;
        let now = engine.clock.mono();
        let failed = state == RequestState::Failed;
        if let Some(mut capture) = self.capture.take() {
            capture.push_answer(answer);
            engine.ledger_queue.submit_bodies(*capture, "application/json", failed, now);
        }
        let bill = self.bill(state);
        let duration_ms = u32::try_from(now.since(self.began).as_millis()).unwrap_or(u32::MAX);
        let error: Option<Arc<str>> = error.map(|error| engine.sanitize(error).into());
        tracing::info!(
            request = %self.id,
            tool = %self.summary,
            state = ?state,
            duration_ms,
            error = error.as_deref(),
            "MCP call"
        );
        let ended = EventKind::Ended {
            id: self.id,
            state,
            status: (state != RequestState::ClientGone).then_some(if failed { 502 } else { 200 }),
            duration_ms,
            usage: None,
            cost: Some(Cost::sum_of([&bill])),
            finish: None,
            answer_bytes: answer.len() as u64,
            events: 0,
            error,
        };
        let at = UnixMillis(self.at.0 + i64::from(duration_ms));
        let record = engine.bus.publish_end(at, ended, self.id);
        if let (Some(slot), Some(record)) = (self.slot.take(), record) {
            let bills = vec![AttemptBill { number: 1, reported_model: None, usage: None, bill }];
            let entry = LedgerEntry { record, bills, demo: false, replay_of: None };
            drop(slot.send(LedgerMessage::Request(Box::new(entry))));
        }
    }

    /// A call that failed costs nothing.
    fn bill(&self, state: RequestState) -> Bill {
        let price = NanoUsd::from_dollars(self.price).filter(|_| state == RequestState::Done);
        match price.filter(|price| !price.is_zero()) {
            Some(price) => Bill {
                cost: Some(price),
                source: CostSource::Config,
                computed: Some(price),
                ..Bill::default()
            },
            None => Bill { cost: Some(NanoUsd::ZERO), source: CostSource::Free, ..Bill::default() },
        }
    }
}

impl LoggedCall for EngineCall {
    fn end(mut self: Box<Self>, outcome: CallOutcome) {
        match outcome {
            CallOutcome::Answered(result) => {
                self.finish(RequestState::Done, result.text().as_bytes(), None);
            }
            CallOutcome::Failed(error) => self.finish(RequestState::Failed, &[], Some(&error)),
        }
    }
}

impl Drop for EngineCall {
    fn drop(&mut self) {
        self.finish(RequestState::ClientGone, &[], None);
    }
}
