//! What a request used and cost, attempt by attempt, and what of its bodies is kept; handed to the
//! ledger at the end.

use std::sync::Arc;

use http::header;

use super::{ask::Ask, budgets::Reservation, engine::Engine, peek::Before};
use crate::{
    base::{clock::UnixMillis, id::RequestId},
    config::settings::Origin,
    dialect::AnswerSummary,
    events::{
        record::{RequestRecord, RequestState},
        sink::{AttemptBill, BodyCapture, LedgerEntry, LedgerMessage, LedgerSlot},
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
    routing::candidate::Target,
};

/// Fields of the request that prices may depend on stand near one of its ends.
const NEAR: usize = 2 << 10;
/// Bytes of text that make a token, about.
const TOKEN: u64 = 4;

/// The money side of one request's tally.
pub(super) struct Account {
    slot: Option<LedgerSlot>,
    capture: Option<Box<BodyCapture>>,
    parts: Vec<AttemptBill>,
    /// Of the attempt that is under way.
    target: Option<Arc<Target>>,
    /// What that attempt holds of budgets, where there are any.
    pub(super) reservation: Option<Reservation>,
    began: UnixMillis,
    op: Op,
    stream: bool,
    /// Estimated input tokens.
    estimate: u64,
    tier: Option<Box<str>>,
    resolution: Option<Box<str>>,
    quality: Option<Box<str>>,
    demo: bool,
    replay_of: Option<RequestId>,
}

/// An attempt under way that is put aside.
pub(super) struct Running {
    target: Option<Arc<Target>>,
    reservation: Option<Reservation>,
    began: UnixMillis,
    demo: bool,
}

/// How an attempt went, as far as its cost goes.
#[derive(Clone, Copy)]
pub(super) struct Went<'a> {
    pub(super) state: RequestState,
    pub(super) summary: Option<&'a AnswerSummary>,
    /// Whether content came from it.
    pub(super) content: bool,
    pub(super) answer_bytes: u64,
    /// Content events: about one token each.
    pub(super) events: u64,
}

impl Account {
    pub(super) fn open(engine: &Engine, ask: &Ask) -> Self {
        let media =
            ask.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
        let op = ask.endpoint.op;
        let picture = |name| (op == Op::Image).then(|| near_an_end(&ask.body, name)).flatten();
        Self {
            slot: engine.sink.reserve_slot(),
            capture: engine.sink.capture(ask.id, media, &ask.body, ask.received),
            parts: Vec::new(),
            target: None,
            reservation: None,
            began: ask.at,
            op,
            stream: ask.stream,
            estimate: ask.estimate,
            tier: ask.tier.clone(),
            resolution: picture("\"size\""),
            quality: picture("\"quality\""),
            demo: false,
            replay_of: ask.replay_of,
        }
    }

    /// Of nothing: it keeps no body and hands nothing over.
    pub(super) fn mute(ask: &Ask) -> Self {
        Self {
            slot: None,
            capture: None,
            parts: Vec::new(),
            target: None,
            reservation: None,
            began: ask.at,
            op: ask.endpoint.op,
            stream: ask.stream,
            estimate: ask.estimate,
            tier: None,
            resolution: None,
            quality: None,
            demo: false,
            replay_of: None,
        }
    }

    /// Whether its answers are made of tokens.
    pub(super) fn generates(&self) -> bool {
        self.op.generates()
    }

    /// Puts the attempt under way aside, while another is spoken of.
    pub(super) fn set_aside(&mut self) -> Running {
        Running {
            target: self.target.take(),
            reservation: self.reservation.take(),
            began: self.began,
            demo: self.demo,
        }
    }

    pub(super) fn take_up(&mut self, running: Running) {
        (self.target, self.began, self.demo) = (running.target, running.began, running.demo);
        self.reservation = running.reservation;
    }

    pub(super) fn attempt(&mut self, target: &Arc<Target>, at: UnixMillis) {
        self.began = at;
        self.demo = target.upstream.origin == Origin::Demo;
        self.target = Some(Arc::clone(target));
    }

    /// The attempt brought no answer. What was refused is not charged; what may have been worked on
    /// is a lower bound.
    pub(super) fn lost(&mut self, engine: &Engine, number: u32, maybe_billed: bool) {
        let Some(target) = self.target.take() else { return };
        let part = if maybe_billed && self.op.generates() {
            let usage = Usage { input: self.estimate, ..Usage::default() };
            self.part(engine, number, &target, None, Some(usage), Precision::AtLeast)
        } else {
            AttemptBill { number, reported_model: None, usage: None, bill: free_bill() }
        };
        self.book(&part, &target);
        self.parts.push(part);
    }

    /// Tells the budgets what the attempt came to.
    fn book(&mut self, part: &AttemptBill, target: &Target) {
        if let Some(reservation) = self.reservation.take() {
            reservation.settle(&part.bill, target);
        }
    }

    /// More of the answer went to the client.
    pub(super) fn answer(&mut self, bytes: &[u8]) {
        if let Some(capture) = &mut self.capture {
            capture.push_answer(bytes);
        }
    }

    /// What is kept of the answer up to now, where it is kept.
    pub(super) fn so_far(&self) -> Before<'_> {
        self.capture.as_ref().map(|capture| capture.captured_answer())
    }

    /// Settles the attempt under way; what the whole request used and cost.
    pub(super) fn settle(
        &mut self,
        engine: &Engine,
        number: u32,
        went: Went<'_>,
    ) -> (Option<Usage>, Cost) {
        if let Some(target) = self.target.take() {
            let answered = went.summary.and_then(|summary| summary.model.as_deref());
            let (usage, sure) = self.used(went);
            let part = self.part(engine, number, &target, answered, usage, sure);
            self.book(&part, &target);
            self.parts.push(part);
        }
        let mut usages = self.parts.iter().filter_map(|part| part.usage);
        let usage = usages.next().map(|first| usages.fold(first, Usage::plus));
        (usage, Cost::sum_of(self.parts.iter().map(|part| &part.bill)))
    }

    /// The attempt broke off after content, and another goes on from there; what it used up to
    /// then.
    pub(super) fn broke(&mut self, engine: &Engine, number: u32, went: Went<'_>) -> Option<Usage> {
        let target = self.target.take()?;
        let answered = went.summary.and_then(|summary| summary.model.as_deref());
        let (usage, sure) = self.used(went);
        let part = self.part(engine, number, &target, answered, usage, sure);
        self.book(&part, &target);
        self.parts.push(part);
        usage
    }

    /// What the attempt used, and how well that is known.
    fn used(&self, went: Went<'_>) -> (Option<Usage>, Precision) {
        let said = went.summary.and_then(|summary| summary.usage);
        if !self.op.generates() {
            return (said, Precision::Exact);
        }
        // Of media nobody can tell tokens from bytes.
        let text = !matches!(self.op, Op::Audio | Op::Image);
        match (went.state, said) {
            (RequestState::Done, Some(usage)) => (Some(usage), Precision::Exact),
            (RequestState::Done, None) if !text => (None, Precision::Exact),
            (_, said) if went.content || went.state == RequestState::Done => {
                let came = if went.events > 0 { went.events } else { went.answer_bytes / TOKEN };
                let came =
                    if matches!(self.op, Op::Embed | Op::Rerank | Op::Moderate) { 0 } else { came };
                let mut usage = said.unwrap_or_default();
                if usage.input_total() == 0 {
                    usage.input = self.estimate;
                }
                usage.output = usage.output.max(came.saturating_sub(usage.reasoning));
                (text.then_some(usage).or(said), Precision::Estimate)
            }
            // It was under way, and went on working for who knows how long.
            (_, said) => {
                let usage = said
                    .filter(|usage| usage.input_total() > 0)
                    .unwrap_or(Usage { input: self.estimate, ..Usage::default() });
                (text.then_some(usage), Precision::AtLeast)
            }
        }
    }

    fn part(
        &self,
        engine: &Engine,
        number: u32,
        target: &Target,
        answered: Option<&str>,
        usage: Option<Usage>,
        sure: Precision,
    ) -> AttemptBill {
        let generation = engine.generation_now();
        let bill =
            if self.op.generates() || usage.is_some_and(|usage| usage.reported_cost.is_some()) {
                // What has no tokens may have a price for each request.
                let nothing = Usage::default();
                let facts = PriceConditions {
                    tier: self.tier.as_deref(),
                    resolution: self.resolution.as_deref(),
                    quality: self.quality.as_deref(),
                };
                let question = BillQuery {
                    upstream: &target.upstream,
                    sent_model: &target.model,
                    reported_model: answered,
                    usage: Some(usage.as_ref().unwrap_or(&nothing)),
                    precision: sure,
                    started_at: self.began,
                    conditions: facts,
                };
                let bill = pricing::bill(&generation.prices, &question);
                match &bill.price {
                    // Nobody counted, and it is not charged by the piece.
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
        AttemptBill { number, reported_model: answered.map(Arc::from), usage, bill }
    }

    /// Hands the request to the ledger.
    pub(super) fn hand_over(&mut self, engine: &Engine, record: Option<Arc<RequestRecord>>) {
        let failed = record.as_ref().is_some_and(|record| record.state == RequestState::Failed);
        if let Some(capture) = self.capture.take() {
            // Refused before the head left: that is told as JSON.
            let refused = failed
                && record
                    .as_ref()
                    .is_some_and(|record| record.status.is_some_and(|status| status >= 400));
            let media =
                if self.stream && !refused { "text/event-stream" } else { "application/json" };
            engine.sink.submit_bodies(*capture, media, failed, engine.clock.mono());
        }
        if let (Some(slot), Some(record)) = (self.slot.take(), record) {
            let parts = std::mem::take(&mut self.parts);
            drop(slot.send(LedgerMessage::Request(Box::new(LedgerEntry {
                record,
                bills: parts,
                demo: self.demo,
                replay_of: self.replay_of,
            }))));
        }
    }
}

/// A short text field of a JSON object, if it stands near the beginning or the end of the body.
/// `name` is in quotes.
fn near_an_end(body: &[u8], name: &str) -> Option<Box<str>> {
    let ends = [&body[..body.len().min(NEAR)], &body[body.len().saturating_sub(NEAR)..]];
    ends.into_iter().find_map(|part| {
        let at = memchr::memmem::find(part, name.as_bytes())?;
        // In a text it would be escaped.
        if at > 0 && part[at - 1] == b'\\' {
            return None;
        }
        let rest = part[at + name.len()..]
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
    fn fields_are_found_near_the_ends_only() {
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
            assert_eq!(near_an_end(body.as_bytes(), "\"size\"").as_deref(), want, "{body}");
        }
    }
}
