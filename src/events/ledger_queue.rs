//! The way of finished requests to the ledger: a slot reserved for each at its beginning, so that
//! its end cannot wait.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::events::record::RequestRecord;
use crate::{
    base::{clock::Mono, id::RequestId},
    ir::{cost::Bill, usage::Usage},
};

/// Requests that may be under way or wait for the ledger's thread.
const MAX_PENDING: usize = 32_768;
/// Bytes of bodies held for the ledger at once.
const MAX_BUFFERED_BYTES: u64 = 64 << 20;
/// Keeping bodies takes time of the processor: so many bytes in a row, then so many a second.
const BODY_BURST_BYTES: i64 = 16 << 20;
const BODY_BYTES_PER_SECOND: i64 = 4 << 20;
/// The least that a body counts for.
const MIN_BODY_CHARGE: i64 = 32 << 10;

/// What the ledger is told.
#[derive(Debug)]
pub enum LedgerMessage {
    Body(Box<CapturedBody>),
    /// Write what there is and end.
    Close,
    /// Write what there is, and say so.
    Flush(oneshot::Sender<()>),
    Request(Box<LedgerEntry>),
    /// Time passes: look after what is old.
    Tick,
}

/// A finished request, with what it cost.
#[derive(Clone, Debug)]
pub struct LedgerEntry {
    pub record: Arc<RequestRecord>,
    /// Bills of its attempts, by their number.
    pub bills: Vec<AttemptBill>,
    /// Answered by the built-in upstream: outside of totals.
    pub demo: bool,
    pub replay_of: Option<RequestId>,
}

/// What one attempt used and cost.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AttemptBill {
    pub number: u32,
    /// The model as the answer names it.
    #[serde(rename = "answered")]
    pub reported_model: Option<Arc<str>>,
    pub usage: Option<Usage>,
    pub bill: Bill,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExchangeSide {
    Request,
    Answer,
}

/// A body to be kept; of a long one only its beginning and its end.
#[derive(Debug)]
pub struct CapturedBody {
    pub id: RequestId,
    pub side: ExchangeSide,
    pub content_type: Arc<str>,
    pub head: Bytes,
    pub tail: Bytes,
    /// Bytes that it had.
    pub total_bytes: u64,
    /// Counted as held while this lives.
    _reservation: ByteReservation,
}

impl CapturedBody {
    /// For those who have a body in their hands.
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

    /// Bytes in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.head.len() + self.tail.len()
    }
}

/// Which bodies are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyPolicy {
    All,
    Errors,
    None,
}

/// Where finished requests go.
#[derive(Debug)]
pub struct LedgerQueue {
    messages: mpsc::Sender<LedgerMessage>,
    buffered_bytes: Arc<AtomicU64>,
    unrecorded: AtomicU64,
    skipped_bodies: AtomicU64,
    budget: Mutex<BodyBudget>,
}

/// What is wanted of bodies, and what may still be spent on them.
#[derive(Debug)]
struct BodyBudget {
    policy: BodyPolicy,
    limit_bytes: usize,
    remaining_bytes: i64,
    refilled_at: Mono,
}

/// The reserved place of one request.
pub type LedgerSlot = mpsc::OwnedPermit<LedgerMessage>;

impl LedgerQueue {
    /// The way in, and the end that the ledger's thread reads.
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

    /// Says which bodies are wanted, and how much of each.
    pub fn set_policy(&self, policy: BodyPolicy, limit: u64) {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        (budget.policy, budget.limit_bytes) =
            (policy, usize::try_from(limit).unwrap_or(usize::MAX));
    }

    /// Reserves the place of a request. Without one it is served all the same, and counted as
    /// unrecorded.
    #[must_use]
    pub fn reserve_slot(&self) -> Option<LedgerSlot> {
        let slot = self.messages.clone().try_reserve_owned().ok();
        if slot.is_none() {
            self.unrecorded.fetch_add(1, Ordering::Relaxed);
        }
        slot
    }

    /// Requests that found no place.
    #[must_use]
    pub fn unrecorded(&self) -> u64 {
        self.unrecorded.load(Ordering::Relaxed)
    }

    /// Requests whose bodies were not kept, or not all of them, because more came at once than may
    /// be kept.
    #[must_use]
    pub fn skipped_bodies(&self) -> u64 {
        self.skipped_bodies.load(Ordering::Relaxed)
    }

    /// Notes that wait for the ledger, and places reserved for those that will come.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.messages.max_capacity() - self.messages.capacity()
    }

    fn count_skipped(&self) {
        self.skipped_bodies.fetch_add(1, Ordering::Relaxed);
    }

    /// Begins to keep the bodies of a request, where they are wanted and there is room; `None`
    /// where not.
    #[must_use]
    pub fn capture(
        &self,
        id: RequestId,
        media: &str,
        body: &Bytes,
        now: Mono,
    ) -> Option<Box<BodyCapture>> {
        let (policy, limit) = {
            let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
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
        // The body is shared with the request while that lasts, and counted in full here.
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

    /// Hands over what was captured.
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
        self.budget
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .charge(head.len() + tail.len(), now);
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

    /// Everything told so far is written, or was tried to be, when this returns.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.messages.try_send(LedgerMessage::Flush(done)).is_ok() {
            // Nobody answers where the ledger's thread has ended; then there is nothing to wait
            // for.
            written.await.unwrap_or_default();
        }
    }

    /// Lets the ledger look after what is old.
    pub fn tick(&self) {
        drop(self.messages.try_send(LedgerMessage::Tick));
    }

    /// Ends the ledger's thread once it has written what there is.
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

    /// Takes what a request and the least of an answer count for, if anything is left.
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

/// Bytes counted as held while this lives.
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

/// The bodies of one request while they come.
#[derive(Debug)]
pub struct BodyCapture {
    id: RequestId,
    policy: BodyPolicy,
    limit_bytes: usize,
    request: Option<Box<CapturedBody>>,
    head: Vec<u8>,
    tail: Vec<u8>,
    total_bytes: u64,
    /// There was no room for more: beginning and end are not all that was sent.
    overflowed: bool,
    reservation: ByteReservation,
}

impl BodyCapture {
    /// Beginning and end of the answer up to now, and how long it is.
    #[must_use]
    pub fn captured_answer(&self) -> (&[u8], &[u8], u64) {
        (&self.head, &self.tail, self.total_bytes)
    }

    /// More of the answer.
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
        // Twice the end may lie there for a while, so that not every piece moves all of it.
        if self.tail.len() > 2 * half {
            self.tail.drain(..self.tail.len() - half);
        }
    }
}

/// Beginning and end of what is longer than allowed.
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
    fn of_a_long_body_beginning_and_end_are_kept() {
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
    fn good_requests_are_not_kept_where_only_errors_are_wanted() {
        let (sink, mut notes) = LedgerQueue::new();
        sink.set_policy(BodyPolicy::Errors, 1_000);
        for failed in [false, true] {
            let mut capture = sink
                .capture(id(), "a", &Bytes::from_static(b"ask"), Mono::default())
                .expect("wanted");
            capture.push_answer(b"answer");
            assert!(notes.try_recv().is_err(), "nothing is told before the end");
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
    fn bodies_cost_no_more_than_was_granted() {
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
    fn a_request_without_a_slot_is_counted() {
        let (sink, notes) = LedgerQueue::new();
        let slots: Vec<_> = std::iter::from_fn(|| sink.reserve_slot()).collect();
        assert_eq!((slots.len(), sink.unrecorded()), (MAX_PENDING, 1));
        drop((slots, notes));
    }
}
