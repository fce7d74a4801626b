//! The queue of finished requests to the ledger. Each request reserves a slot at its start, so that
//! its end never waits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::events::record::RequestRecord;
use crate::{
    base::{clock::Mono, id::RequestId, sync::Mutex},
    ir::{cost::Bill, usage::Usage},
};

/// Maximum requests that run or wait for the ledger thread.
const MAX_PENDING: usize = 32_768;
/// Maximum bytes of bodies buffered for the ledger.
const MAX_BUFFERED_BYTES: u64 = 64 << 20;
/// Body capture costs CPU time: this many bytes in a burst, then the same number per second.
const BODY_BURST_BYTES: i64 = 16 << 20;
const BODY_BYTES_PER_SECOND: i64 = 4 << 20;
/// Minimum charge of a body against the budget.
const MIN_BODY_CHARGE: i64 = 32 << 10;

/// A message to the ledger thread.
#[derive(Debug)]
pub enum LedgerMessage {
    Body(Box<CapturedBody>),
    /// Write all pending entries and end.
    Close,
    /// Write all pending entries and confirm.
    Flush(oneshot::Sender<()>),
    Request(Box<LedgerEntry>),
    /// Time has passed: run retention.
    Tick,
}

/// A finished request with its cost.
#[derive(Clone, Debug)]
pub struct LedgerEntry {
    pub record: Arc<RequestRecord>,
    /// Bills of its attempts, by attempt number.
    pub bills: Vec<AttemptBill>,
    /// Served by the built-in upstream: excluded from totals.
    pub demo: bool,
    pub replay_of: Option<RequestId>,
}

/// The usage and cost of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AttemptBill {
    pub number: u32,
    /// The model that the response names.
    #[serde(rename = "answered")]
    pub reported_model: Option<Arc<str>>,
    pub usage: Option<Usage>,
    pub bill: Bill,
}

/// The side of an exchange: request or response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExchangeSide {
    Request,
    Answer,
}

/// A captured body; of a long one, only its beginning and its end.
#[derive(Debug)]
pub struct CapturedBody {
    pub id: RequestId,
    pub side: ExchangeSide,
    pub content_type: Arc<str>,
    pub head: Bytes,
    pub tail: Bytes,
    /// Total size of the body.
    pub total_bytes: u64,
    /// Counts the bytes as buffered until dropped.
    _reservation: ByteReservation,
}

impl CapturedBody {
    /// Creates it from a body that is already in memory.
    #[must_use]
    pub fn new(id: RequestId, side: ExchangeSide, media: &str, body: Bytes) -> Self {
        let total_bytes = body.len() as u64;
        Self {
            id,
            side,
            content_type: media.into(),
            head: body,
            tail: Bytes::new(),
            total_bytes,
            _reservation: ByteReservation::default(),
        }
    }

    /// Returns the bytes in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.head.len() + self.tail.len()
    }
}

/// Which bodies are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyPolicy {
    All,
    Errors,
    None,
}

/// The sending side of the queue.
#[derive(Debug)]
pub struct LedgerQueue {
    messages: mpsc::Sender<LedgerMessage>,
    buffered_bytes: Arc<AtomicU64>,
    unrecorded: AtomicU64,
    skipped_bodies: AtomicU64,
    budget: Mutex<BodyBudget>,
}

/// Which bodies are captured, and the remaining budget for them.
#[derive(Debug)]
struct BodyBudget {
    policy: BodyPolicy,
    limit_bytes: usize,
    remaining_bytes: i64,
    refilled_at: Mono,
}

/// The reserved slot of one request.
pub type LedgerSlot = mpsc::OwnedPermit<LedgerMessage>;

impl LedgerQueue {
    /// Creates the queue and the receiver that the ledger thread reads.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<LedgerMessage>) {
        let (notes, reader) = mpsc::channel(MAX_PENDING);
        let budget = Mutex::new(BodyBudget {
            policy: BodyPolicy::None,
            limit_bytes: 0,
            remaining_bytes: BODY_BURST_BYTES,
            refilled_at: Mono::default(),
        });
        (
            Self {
                messages: notes,
                buffered_bytes: Arc::default(),
                unrecorded: AtomicU64::new(0),
                skipped_bodies: AtomicU64::new(0),
                budget,
            },
            reader,
        )
    }

    /// Sets which bodies are captured, and how many bytes of each.
    pub fn set_policy(&self, policy: BodyPolicy, limit: u64) {
        let mut budget = self.budget.lock();
        (budget.policy, budget.limit_bytes) =
            (policy, usize::try_from(limit).unwrap_or(usize::MAX));
    }

    /// Reserves the slot of a request. A request without a slot is served all the same, and counted
    /// as unrecorded.
    #[must_use]
    pub fn reserve_slot(&self) -> Option<LedgerSlot> {
        let slot = self.messages.clone().try_reserve_owned().ok();
        if slot.is_none() {
            self.unrecorded.fetch_add(1, Ordering::Relaxed);
        }
        slot
    }

    /// Returns the number of requests that got no slot.
    #[must_use]
    pub fn unrecorded(&self) -> u64 {
        self.unrecorded.load(Ordering::Relaxed)
    }

    /// Returns the number of requests whose bodies were not or only partly captured, because the
    /// budget was exhausted.
    #[must_use]
    pub fn skipped_bodies(&self) -> u64 {
        self.skipped_bodies.load(Ordering::Relaxed)
    }

    /// Returns the messages that wait for the ledger, plus the reserved slots.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.messages.max_capacity() - self.messages.capacity()
    }

    fn count_skipped(&self) {
        self.skipped_bodies.fetch_add(1, Ordering::Relaxed);
    }

    /// Starts to capture the bodies of a request; `None` if they are not wanted or the budget is
    /// exhausted.
    #[must_use]
    pub fn capture(
        &self,
        id: RequestId,
        media: &str,
        body: &Bytes,
        now: Mono,
    ) -> Option<Box<BodyCapture>> {
        let (policy, limit) = {
            let mut budget = self.budget.lock();
            if budget.policy == BodyPolicy::None {
                return None;
            }
            if !budget.try_reserve(body.len(), now) {
                self.count_skipped();
                return None;
            }
            (budget.policy, budget.limit_bytes)
        };
        let mut reservation =
            ByteReservation { counter: Some(Arc::clone(&self.buffered_bytes)), bytes: 0 };
        // The request shares the body while it runs; the body counts in full here.
        let captured_bytes = body.len().min(limit);
        let request = reservation.try_grow(captured_bytes).then(|| {
            let (head, tail) = head_and_tail(body, limit);
            Box::new(CapturedBody {
                id,
                side: ExchangeSide::Request,
                content_type: media.into(),
                head,
                tail,
                total_bytes: body.len() as u64,
                _reservation: reservation,
            })
        });
        let request = match (request, policy) {
            (Some(body), BodyPolicy::All) => {
                // A full queue means that the ledger is behind: rows matter more than bodies.
                if self.messages.try_send(LedgerMessage::Body(body)).is_err() {
                    self.count_skipped();
                }
                None
            }
            (None, _) => {
                self.count_skipped();
                None
            }
            (request, _) => request,
        };
        let reservation =
            ByteReservation { counter: Some(Arc::clone(&self.buffered_bytes)), bytes: 0 };
        Some(Box::new(BodyCapture {
            id,
            policy,
            limit_bytes: limit,
            request,
            head: Vec::new(),
            tail: Vec::new(),
            total_bytes: 0,
            overflowed: false,
            reservation,
        }))
    }

    /// Sends the captured bodies to the ledger.
    pub fn submit_bodies(&self, capture: BodyCapture, media: &str, failed: bool, now: Mono) {
        if capture.policy == BodyPolicy::Errors && !failed {
            return;
        }
        let BodyCapture {
            id,
            request,
            head,
            tail,
            total_bytes: total,
            overflowed: full,
            reservation: hold,
            ..
        } = capture;
        let mut incomplete = full;
        self.budget.lock().charge(head.len() + tail.len(), now);
        if let Some(request) = request {
            incomplete |= self.messages.try_send(LedgerMessage::Body(request)).is_err();
        }
        if total > 0 {
            let (head, tail) = (head.into(), tail.into());
            let body = CapturedBody {
                id,
                side: ExchangeSide::Answer,
                content_type: media.into(),
                head,
                tail,
                total_bytes: total,
                _reservation: hold,
            };
            incomplete |= self.messages.try_send(LedgerMessage::Body(Box::new(body))).is_err();
        }
        if incomplete {
            self.count_skipped();
        }
    }

    /// Returns after all messages so far have been written, or their write has failed.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.messages.try_send(LedgerMessage::Flush(done)).is_ok() {
            // No reply comes if the ledger thread has ended, and then there is nothing to wait for.
            written.await.unwrap_or_default();
        }
    }

    /// Triggers retention in the ledger.
    pub fn tick(&self) {
        drop(self.messages.try_send(LedgerMessage::Tick));
    }

    /// Ends the ledger thread after it has written all pending entries.
    pub async fn close(&self) {
        drop(self.messages.send(LedgerMessage::Close).await);
    }
}

impl BodyBudget {
    fn refill(&mut self, now: Mono) {
        let since = now.since(self.refilled_at);
        let gained = i64::try_from(since.min(Duration::from_secs(3_600)).as_millis())
            .unwrap_or(0)
            .saturating_mul(BODY_BYTES_PER_SECOND)
            / 1_000;
        if gained > 0 {
            self.remaining_bytes =
                self.remaining_bytes.saturating_add(gained).min(BODY_BURST_BYTES);
            self.refilled_at = now;
        }
    }

    /// Reserves the charge for a request and a minimal response, if any budget is left.
    fn try_reserve(&mut self, bytes: usize, now: Mono) -> bool {
        self.refill(now);
        if self.remaining_bytes <= 0 {
            return false;
        }
        self.remaining_bytes -= MIN_BODY_CHARGE
            + MIN_BODY_CHARGE
                .max(i64::try_from(bytes.min(self.limit_bytes)).unwrap_or(i64::MAX / 2));
        true
    }

    fn charge(&mut self, bytes: usize, now: Mono) {
        self.refill(now);
        self.remaining_bytes -=
            (i64::try_from(bytes).unwrap_or(i64::MAX / 2) - MIN_BODY_CHARGE).max(0);
    }
}

/// Counts bytes as buffered until dropped.
#[derive(Debug, Default)]
struct ByteReservation {
    counter: Option<Arc<AtomicU64>>,
    bytes: u64,
}

impl ByteReservation {
    fn try_grow(&mut self, bytes: usize) -> bool {
        let Some(of) = &self.counter else { return true };
        let bytes = bytes as u64;
        if of.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > MAX_BUFFERED_BYTES {
            of.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.bytes += bytes;
        true
    }
}

impl Drop for ByteReservation {
    fn drop(&mut self) {
        if let Some(of) = &self.counter {
            of.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// Captures the bodies of one request as they arrive.
#[derive(Debug)]
pub struct BodyCapture {
    id: RequestId,
    policy: BodyPolicy,
    limit_bytes: usize,
    request: Option<Box<CapturedBody>>,
    head: Vec<u8>,
    tail: Vec<u8>,
    total_bytes: u64,
    /// The budget was exhausted: beginning and end do not cover all that was sent.
    overflowed: bool,
    reservation: ByteReservation,
}

impl BodyCapture {
    /// Returns the beginning and end of the response so far, and its length.
    #[must_use]
    pub fn captured_answer(&self) -> (&[u8], &[u8], u64) {
        (&self.head, &self.tail, self.total_bytes)
    }

    /// Captures more of the response.
    pub fn push_answer(&mut self, bytes: &[u8]) {
        self.total_bytes += bytes.len() as u64;
        if self.overflowed {
            return;
        }
        let half = self.limit_bytes / 2;
        let (first, rest) = bytes
            .split_at(bytes.len().min((self.limit_bytes - half).saturating_sub(self.head.len())));
        let more = first.len() + rest.len().min(half.saturating_sub(self.tail.len().min(half)));
        if !self.reservation.try_grow(more) {
            self.overflowed = true;
            return;
        }
        self.head.extend_from_slice(first);
        self.tail.extend_from_slice(&rest[rest.len().saturating_sub(half)..]);
        // The tail may grow to twice its size, so that not every chunk moves all of it.
        if self.tail.len() > 2 * half {
            self.tail.drain(..self.tail.len() - half);
        }
    }
}

/// Returns the beginning and end of a body that exceeds the limit.
fn head_and_tail(body: &Bytes, limit: usize) -> (Bytes, Bytes) {
    if body.len() <= limit {
        return (body.clone(), Bytes::new());
    }
    let half = limit / 2;
    (body.slice(..limit - half), body.slice(body.len() - half..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::UnixMillis;

    fn id() -> RequestId {
        RequestId::new(UnixMillis(1_700_000_000_000))
    }

    #[test]
    fn long_body_is_stored_as_its_beginning_and_end() {
        let (sink, mut notes) = LedgerQueue::new();
        sink.set_policy(BodyPolicy::All, 10);
        let mut capture = sink
            .capture(id(), "text/plain", &Bytes::from_static(b"0123456789abcdef"), Mono::default())
            .expect("wanted");
        for piece in ["ab", "cdefgh", "ijklmnopqrstuvwxyz", "0", "1"] {
            capture.push_answer(piece.as_bytes());
        }
        sink.submit_bodies(*capture, "text/plain", false, Mono::default());

        let mut next = || match notes.try_recv() {
            Ok(LedgerMessage::Body(body)) => {
                (body.side, body.head.to_vec(), body.tail.to_vec(), body.total_bytes)
            }
            other => panic!("{other:?}"),
        };

        assert_eq!(next(), (ExchangeSide::Request, b"01234".to_vec(), b"bcdef".to_vec(), 16));
        let (side, head, tail, total) = next();
        assert_eq!((side, head.as_slice(), total), (ExchangeSide::Answer, b"abcde".as_slice(), 28));
        assert!(tail.ends_with(b"xyz01"), "{}", String::from_utf8_lossy(&tail));
        assert_eq!(
            sink.buffered_bytes.load(Ordering::Relaxed),
            0,
            "what was handed over and dropped is held no more"
        );
    }

    #[test]
    fn errors_policy_stores_no_successful_request() {
        let (sink, mut notes) = LedgerQueue::new();
        sink.set_policy(BodyPolicy::Errors, 1_000);
        for failed in [false, true] {
            let mut capture = sink
                .capture(id(), "a", &Bytes::from_static(b"ask"), Mono::default())
                .expect("wanted");
            capture.push_answer(b"answer");
            assert!(notes.try_recv().is_err(), "nothing is reported before the end");
            sink.submit_bodies(*capture, "b", failed, Mono::default());
        }
        assert!(
            matches!(notes.try_recv(), Ok(LedgerMessage::Body(body)) if body.side == ExchangeSide::Request)
        );
        assert!(
            matches!(notes.try_recv(), Ok(LedgerMessage::Body(body)) if body.side == ExchangeSide::Answer)
        );
        assert!(notes.try_recv().is_err());
    }

    #[test]
    fn body_capture_stays_within_its_byte_rate() {
        let (sink, _notes) = LedgerQueue::new();
        let body = Bytes::from_static(b"small");
        let captured_count = |from: Duration| {
            (0..10_000).filter(|_| sink.capture(id(), "a", &body, Mono(from)).is_some()).count()
        };
        assert_eq!(captured_count(Duration::ZERO), 0, "nothing is wanted yet");
        sink.set_policy(BodyPolicy::All, 4 << 20);
        assert_eq!(captured_count(Duration::ZERO), 256);
        assert_eq!(captured_count(Duration::from_secs(1)), 64);
        assert_eq!(
            sink.skipped_bodies(),
            20_000 - 256 - 64,
            "the others are counted; what nobody wants is not"
        );
    }

    #[test]
    fn request_without_a_slot_is_counted() {
        let (sink, notes) = LedgerQueue::new();
        let slots: Vec<_> = std::iter::from_fn(|| sink.reserve_slot()).collect();
        assert_eq!((slots.len(), sink.unrecorded()), (MAX_PENDING, 1));
        drop((slots, notes));
    }
}
