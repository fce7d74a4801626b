//! Computes what each attempt of a request used and cost, captures its bodies, and submits both to
//! the ledger.

use std::sync::Arc;

use http::header;

use crate::relay::{
    engine::Engine, observe::live_tap::Backlog, record::attempt_recorder::AttemptRecorder,
    request::proxy_request::ProxyRequest,
};
use crate::{
    base::id::RequestId,
    dialect::AnswerSummary,
    events::{
        ledger_queue::{AttemptBill, BodyCapture, LedgerEntry, LedgerMessage, LedgerSlot},
        record::{RequestRecord, RequestState},
    },
    ir::{
        cost::{Bill, Cost, Precision, PriceClass},
        op::Op,
        usage::Usage,
    },
    pricing::{
        self, BillQuery,
        cost::{PriceConditions, free_bill},
    },
};

/// How far from either end of the body the request fields that prices depend on are searched.
const FIELD_SCAN_BYTES: usize = 2 << 10;
/// Approximate bytes of text per token.
const BYTES_PER_TOKEN: u64 = 4;

/// The costs and captured bodies of one request.
pub(in crate::relay) struct RequestBilling {
    slot: Option<LedgerSlot>,
    capture: Option<Box<BodyCapture>>,
    attempt_bills: Vec<AttemptBill>,
    op: Op,
    stream: bool,
    /// Estimated input tokens.
    estimate: u64,
    tier: Option<Box<str>>,
    resolution: Option<Box<str>>,
    quality: Option<Box<str>>,
    replay_of: Option<RequestId>,
}

/// How an attempt ended, as far as its cost depends on it.
#[derive(Clone, Copy)]
pub(in crate::relay) struct AttemptOutcome<'a> {
    pub(in crate::relay) state: RequestState,
    pub(in crate::relay) summary: Option<&'a AnswerSummary>,
    /// Whether the attempt produced content.
    pub(in crate::relay) has_content: bool,
    pub(in crate::relay) answer_bytes: u64,
    /// Content events; each is about one token.
    pub(in crate::relay) content_events: u64,
}

impl RequestBilling {
    pub(in crate::relay) fn open(engine: &Engine, request: &ProxyRequest) -> Self {
        let media =
            request.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
        let op = request.endpoint.op;
        let picture =
            |name| (op == Op::Image).then(|| find_field_near_ends(&request.body, name)).flatten();
        Self {
            slot: engine.ledger_queue.reserve_slot(),
            capture: engine.ledger_queue.capture(
                request.id,
                media,
                &request.body,
                request.received,
            ),
            attempt_bills: Vec::new(),
            op,
            stream: request.stream,
            estimate: request.estimate,
            tier: request.tier.clone(),
            resolution: picture("\"size\""),
            quality: picture("\"quality\""),
            replay_of: request.replay_of,
        }
    }

    /// Returns whether the responses consist of tokens.
    pub(in crate::relay) fn generates_tokens(&self) -> bool {
        self.op.generates()
    }

    /// Records an attempt without a response. A refused attempt costs nothing; one that the
    /// upstream may have worked on gets a lower bound.
    pub(in crate::relay) fn attempt_failed(
        &mut self,
        engine: &Engine,
        attempt: &mut AttemptRecorder,
        maybe_billed: bool,
    ) {
        if attempt.is_billed {
            return;
        }
        let bill = if maybe_billed && self.op.generates() {
            let usage = Usage { input: self.estimate, ..Usage::default() };
            self.bill_attempt(engine, attempt, None, (Some(usage), Precision::AtLeast))
        } else {
            let number = attempt.number;
            AttemptBill { number, reported_model: None, usage: None, bill: free_bill() }
        };
        self.charge(attempt, bill);
    }

    /// Settles the attempt's budget reservation with its bill, and stores the bill.
    fn charge(&mut self, attempt: &mut AttemptRecorder, bill: AttemptBill) {
        if let Some(budget_hold) = attempt.budget_hold.take() {
            budget_hold.settle(&bill.bill, &attempt.target);
        }
        attempt.is_billed = true;
        // Most requests have one attempt.
        self.attempt_bills.reserve_exact(1);
        self.attempt_bills.push(bill);
    }

    /// Captures more of the response that the client receives.
    pub(in crate::relay) fn capture_response(&mut self, bytes: &[u8]) {
        if let Some(capture) = &mut self.capture {
            capture.push_answer(bytes);
        }
    }

    /// Returns what is captured of the response so far, if it is captured.
    pub(in crate::relay) fn captured_so_far(&self) -> Backlog<'_> {
        self.capture.as_ref().map(|capture| capture.captured_answer())
    }

    /// Bills an attempt by what is known of its response; returns what it used. Does nothing if it
    /// was billed before.
    pub(in crate::relay) fn bill_measured(
        &mut self,
        engine: &Engine,
        attempt: &mut AttemptRecorder,
        outcome: AttemptOutcome<'_>,
    ) -> Option<Usage> {
        if attempt.is_billed {
            return None;
        }
        let reported_model = outcome.summary.and_then(|summary| summary.model.as_deref());
        let measured = self.measure_usage(outcome);
        let bill = self.bill_attempt(engine, attempt, reported_model, measured);
        self.charge(attempt, bill);
        measured.0
    }

    /// Returns what all attempts used and cost.
    pub(in crate::relay) fn totals(&self) -> (Option<Usage>, Cost) {
        let mut usages = self.attempt_bills.iter().filter_map(|bill| bill.usage);
        let usage = usages.next().map(|first| usages.fold(first, Usage::plus));
        (usage, Cost::sum_of(self.attempt_bills.iter().map(|bill| &bill.bill)))
    }

    /// Returns what the attempt used, and how precise that is.
    fn measure_usage(&self, outcome: AttemptOutcome<'_>) -> (Option<Usage>, Precision) {
        let reported = outcome.summary.and_then(|summary| summary.usage);
        if !self.op.generates() {
            return (reported, Precision::Exact);
        }
        // The tokens of media cannot be estimated from bytes.
        let text = !matches!(self.op, Op::Audio | Op::Image);
        match (outcome.state, reported) {
            (RequestState::Done, Some(usage)) => (Some(usage), Precision::Exact),
            (RequestState::Done, None) if !text => (None, Precision::Exact),
            (_, reported) if outcome.has_content || outcome.state == RequestState::Done => {
                let output = if outcome.content_events > 0 {
                    outcome.content_events
                } else {
                    outcome.answer_bytes / BYTES_PER_TOKEN
                };
                let output = if matches!(self.op, Op::Embed | Op::Rerank | Op::Moderate) {
                    0
                } else {
                    output
                };
                let mut usage = reported.unwrap_or_default();
                if usage.input_total() == 0 {
                    usage.input = self.estimate;
                }
                usage.output = usage.output.max(output.saturating_sub(usage.reasoning));
                (text.then_some(usage).or(reported), Precision::Estimate)
            }
            // The upstream was working on the attempt, and continued for an unknown time.
            (_, reported) => {
                let usage = reported
                    .filter(|usage| usage.input_total() > 0)
                    .unwrap_or(Usage { input: self.estimate, ..Usage::default() });
                (text.then_some(usage), Precision::AtLeast)
            }
        }
    }

    fn bill_attempt(
        &self,
        engine: &Engine,
        attempt: &AttemptRecorder,
        reported_model: Option<&str>,
        (usage, precision): (Option<Usage>, Precision),
    ) -> AttemptBill {
        let generation = engine.generation_ref();
        let bill =
            if self.op.generates() || usage.is_some_and(|usage| usage.reported_cost.is_some()) {
                // A model without tokens may have a price per request.
                let no_usage = Usage::default();
                let facts = PriceConditions {
                    tier: self.tier.as_deref(),
                    resolution: self.resolution.as_deref(),
                    quality: self.quality.as_deref(),
                };
                let question = BillQuery {
                    upstream: &attempt.target.upstream,
                    sent_model: &attempt.target.model,
                    reported_model,
                    usage: Some(usage.as_ref().unwrap_or(&no_usage)),
                    precision,
                    started_at: attempt.priced_at,
                    conditions: facts,
                };
                let bill = pricing::bill(&generation.prices, &question);
                match &bill.price {
                    // No usage is known, and the price is not per request.
                    Some(price)
                        if usage.is_none() && price.rates.effective(PriceClass::Request) == 0 =>
                    {
                        Bill::default()
                    }
                    _ => bill,
                }
            } else {
                free_bill()
            };
        let reported_model = reported_model.map(Arc::from);
        AttemptBill { number: attempt.number, reported_model, usage, bill }
    }

    /// Submits the request to the ledger. `demo`: the built-in upstream answered it.
    pub(in crate::relay) fn submit_to_ledger(
        &mut self,
        engine: &Engine,
        record: Option<Arc<RequestRecord>>,
        demo: bool,
    ) {
        let failed = record.as_ref().is_some_and(|record| record.state == RequestState::Failed);
        if let Some(capture) = self.capture.take() {
            // The request was refused before the head left, so the error is JSON.
            let refused = failed
                && record
                    .as_ref()
                    .is_some_and(|record| record.status.is_some_and(|status| status >= 400));
            let media =
                if self.stream && !refused { "text/event-stream" } else { "application/json" };
            engine.ledger_queue.submit_bodies(*capture, media, failed, engine.clock.mono());
        }
        if let (Some(slot), Some(record)) = (self.slot.take(), record) {
            let parts = std::mem::take(&mut self.attempt_bills);
            drop(slot.send(LedgerMessage::Request(Box::new(LedgerEntry {
                record,
                bills: parts,
                demo,
                replay_of: self.replay_of,
            }))));
        }
    }
}

/// Finds a short text field of a JSON object near the start or the end of the body. `name` is in
/// quotes.
fn find_field_near_ends(body: &[u8], name: &str) -> Option<Box<str>> {
    let ends = [
        &body[..body.len().min(FIELD_SCAN_BYTES)],
        &body[body.len().saturating_sub(FIELD_SCAN_BYTES)..],
    ];
    ends.into_iter().find_map(|section| {
        let at = memchr::memmem::find(section, name.as_bytes())?;
        // Inside a text the quote is escaped.
        if at > 0 && section[at - 1] == b'\\' {
            return None;
        }
        let rest = section[at + name.len()..]
            .trim_ascii_start()
            .strip_prefix(b":")?
            .trim_ascii_start()
            .strip_prefix(b"\"")?;
        let end = memchr::memchr(b'"', &rest[..rest.len().min(33)])?;
        std::str::from_utf8(&rest[..end]).ok().map(Box::from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn billing_fields_are_searched_near_both_ends_only() {
        let far = format!(
            "{{\"a\":\"{}\",\"size\":\"1024\",\"b\":\"{}\"}}",
            "x".repeat(5_000),
            "y".repeat(5_000)
        );
        for (body, want) in [
            (r#"{"size" : "flex","messages":[]}"#, Some("flex")),
            (r#"{"messages":[{"content":"\"size\":\"flex\""}]}"#, None),
            (r#"{"size":null}"#, None),
            (r#"{"size":"a very long word that cannot be one of them"}"#, None),
            (&far, None),
            ("", None),
        ] {
            assert_eq!(
                find_field_near_ends(body.as_bytes(), "\"size\"").as_deref(),
                want,
                "{body}"
            );
        }
    }
}
