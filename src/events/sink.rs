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

use super::record::RequestRecord;
use crate::{
    base::{clock::Mono, id::RequestId},
    ir::{cost::Bill, usage::Usage},
};

/// Requests that may be under way or wait for the ledger's thread.
const SLOTS: usize = 32_768;
/// Bytes of bodies held for the ledger at once.
const HELD: u64 = 64 << 20;
/// Keeping bodies takes time of the processor: so many bytes in a row, then so many a second.
const BURST: i64 = 16 << 20;
const A_SECOND: i64 = 4 << 20;
/// The least that a body counts for.
const LEAST: i64 = 32 << 10;

/// What the ledger is told.
#[derive(Debug)]
pub enum Note {
    Body(Box<Body>),
    /// Write what there is and end.
    Close,
    /// Write what there is, and say so.
    Flush(oneshot::Sender<()>),
    Request(Box<Entry>),
    /// Time passes: look after what is old.
    Tick,
}

/// A finished request, with what it cost.
#[derive(Clone, Debug)]
pub struct Entry {
    pub record: Arc<RequestRecord>,
    /// Bills of its attempts, by their number.
    pub parts: Vec<Part>,
    /// Answered by the built-in upstream: outside of totals.
    pub demo: bool,
    pub replay_of: Option<RequestId>,
}

/// What one attempt used and cost.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Part {
    pub number: u32,
    /// The model as the answer names it.
    pub answered: Option<Arc<str>>,
    pub usage: Option<Usage>,
    pub bill: Bill,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Request,
    Answer,
}

/// A body to be kept; of a long one only its beginning and its end.
#[derive(Debug)]
pub struct Body {
    pub id: RequestId,
    pub side: Side,
    pub media: Arc<str>,
    pub head: Bytes,
    pub tail: Bytes,
    /// Bytes that it had.
    pub total: u64,
    /// Counted as held while this lives.
    _hold: Hold,
}

impl Body {
    /// For those who have a body in their hands.
    #[must_use]
    pub fn new(id: RequestId, side: Side, media: &str, body: Bytes) -> Self {
        let total = body.len() as u64;
        Self {
            id,
            side,
            media: media.into(),
            head: body,
            tail: Bytes::new(),
            total,
            _hold: Hold::default(),
        }
    }

    /// Bytes in memory.
    #[must_use]
    pub fn size(&self) -> usize {
        self.head.len() + self.tail.len()
    }
}

/// Which bodies are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    All,
    Errors,
    None,
}

/// Where finished requests go.
#[derive(Debug)]
pub struct Sink {
    notes: mpsc::Sender<Note>,
    held: Arc<AtomicU64>,
    unrecorded: AtomicU64,
    skipped: AtomicU64,
    wish: Mutex<Wish>,
}

/// What is wanted of bodies, and what may still be spent on them.
#[derive(Debug)]
struct Wish {
    wanted: Wanted,
    limit: usize,
    left: i64,
    filled: Mono,
}

/// The reserved place of one request.
pub type Slot = mpsc::OwnedPermit<Note>;

impl Sink {
    /// The way in, and the end that the ledger's thread reads.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Note>) {
        let (notes, reader) = mpsc::channel(SLOTS);
        let wish = Mutex::new(Wish {
            wanted: Wanted::None,
            limit: 0,
            left: BURST,
            filled: Mono::default(),
        });
        (
            Self {
                notes,
                held: Arc::default(),
                unrecorded: AtomicU64::new(0),
                skipped: AtomicU64::new(0),
                wish,
            },
            reader,
        )
    }

    /// Says which bodies are wanted, and how much of each.
    pub fn want(&self, wanted: Wanted, limit: u64) {
        let mut wish = self.wish.lock().unwrap_or_else(PoisonError::into_inner);
        (wish.wanted, wish.limit) = (wanted, usize::try_from(limit).unwrap_or(usize::MAX));
    }

    /// Reserves the place of a request. Without one it is served all the same, and counted as
    /// unrecorded.
    #[must_use]
    pub fn slot(&self) -> Option<Slot> {
        let slot = self.notes.clone().try_reserve_owned().ok();
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
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Notes that wait for the ledger, and places reserved for those that will come.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.notes.max_capacity() - self.notes.capacity()
    }

    fn skip(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
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
    ) -> Option<Box<Capture>> {
        let (wanted, limit) = {
            let mut wish = self.wish.lock().unwrap_or_else(PoisonError::into_inner);
            if wish.wanted == Wanted::None {
                return None;
            }
            if !wish.spend(body.len(), now) {
                self.skip();
                return None;
            }
            (wish.wanted, wish.limit)
        };
        let mut hold = Hold { of: Some(Arc::clone(&self.held)), bytes: 0 };
        // The body is shared with the request while that lasts, and counted in full here.
        let kept = body.len().min(limit);
        let request = hold.grow(kept).then(|| {
            let (head, tail) = ends(body, limit);
            Box::new(Body {
                id,
                side: Side::Request,
                media: media.into(),
                head,
                tail,
                total: body.len() as u64,
                _hold: hold,
            })
        });
        let request = match (request, wanted) {
            (Some(body), Wanted::All) => {
                // A full queue means that the ledger is behind: rows matter more than bodies.
                if self.notes.try_send(Note::Body(body)).is_err() {
                    self.skip();
                }
                None
            }
            (None, _) => {
                self.skip();
                None
            }
            (request, _) => request,
        };
        let hold = Hold { of: Some(Arc::clone(&self.held)), bytes: 0 };
        Some(Box::new(Capture {
            id,
            wanted,
            limit,
            request,
            head: Vec::new(),
            tail: Vec::new(),
            total: 0,
            full: false,
            hold,
        }))
    }

    /// Hands over what was captured.
    pub fn keep(&self, capture: Capture, media: &str, failed: bool, now: Mono) {
        if capture.wanted == Wanted::Errors && !failed {
            return;
        }
        let Capture { id, request, head, tail, total, full, hold, .. } = capture;
        let mut lost = full;
        self.wish
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .charge(head.len() + tail.len(), now);
        if let Some(request) = request {
            lost |= self.notes.try_send(Note::Body(request)).is_err();
        }
        if total > 0 {
            let (head, tail) = (head.into(), tail.into());
            let body = Body {
                id,
                side: Side::Answer,
                media: media.into(),
                head,
                tail,
                total,
                _hold: hold,
            };
            lost |= self.notes.try_send(Note::Body(Box::new(body))).is_err();
        }
        if lost {
            self.skip();
        }
    }

    /// Everything told so far is written, or was tried to be, when this returns.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.notes.try_send(Note::Flush(done)).is_ok() {
            // Nobody answers where the ledger's thread has ended; then there is nothing to wait
            // for.
            written.await.unwrap_or_default();
        }
    }

    /// Lets the ledger look after what is old.
    pub fn tick(&self) {
        drop(self.notes.try_send(Note::Tick));
    }

    /// Ends the ledger's thread once it has written what there is.
    pub async fn close(&self) {
        drop(self.notes.send(Note::Close).await);
    }
}

impl Wish {
    fn fill(&mut self, now: Mono) {
        let since = now.since(self.filled);
        let gained = i64::try_from(since.min(Duration::from_secs(3_600)).as_millis())
            .unwrap_or(0)
            .saturating_mul(A_SECOND)
            / 1_000;
        if gained > 0 {
            self.left = self.left.saturating_add(gained).min(BURST);
            self.filled = now;
        }
    }

    /// Takes what a request and the least of an answer count for, if anything is left.
    fn spend(&mut self, bytes: usize, now: Mono) -> bool {
        self.fill(now);
        if self.left <= 0 {
            return false;
        }
        self.left -=
            LEAST + LEAST.max(i64::try_from(bytes.min(self.limit)).unwrap_or(i64::MAX / 2));
        true
    }

    fn charge(&mut self, bytes: usize, now: Mono) {
        self.fill(now);
        self.left -= (i64::try_from(bytes).unwrap_or(i64::MAX / 2) - LEAST).max(0);
    }
}

/// Bytes counted as held while this lives.
#[derive(Debug, Default)]
struct Hold {
    of: Option<Arc<AtomicU64>>,
    bytes: u64,
}

impl Hold {
    fn grow(&mut self, bytes: usize) -> bool {
        let Some(of) = &self.of else { return true };
        let bytes = bytes as u64;
        if of.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > HELD {
            of.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.bytes += bytes;
        true
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(of) = &self.of {
            of.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// The bodies of one request while they come.
#[derive(Debug)]
pub struct Capture {
    id: RequestId,
    wanted: Wanted,
    limit: usize,
    request: Option<Box<Body>>,
    head: Vec<u8>,
    tail: Vec<u8>,
    total: u64,
    /// There was no room for more: beginning and end are not all that was sent.
    full: bool,
    hold: Hold,
}

impl Capture {
    /// Beginning and end of the answer up to now, and how long it is.
    #[must_use]
    pub fn so_far(&self) -> (&[u8], &[u8], u64) {
        (&self.head, &self.tail, self.total)
    }

    /// More of the answer.
    pub fn answer(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        if self.full {
            return;
        }
        let half = self.limit / 2;
        let (first, rest) =
            bytes.split_at(bytes.len().min((self.limit - half).saturating_sub(self.head.len())));
        let more = first.len() + rest.len().min(half.saturating_sub(self.tail.len().min(half)));
        if !self.hold.grow(more) {
            self.full = true;
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
fn ends(body: &Bytes, limit: usize) -> (Bytes, Bytes) {
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
        let (sink, mut notes) = Sink::new();
        sink.want(Wanted::All, 10);
        let mut capture = sink
            .capture(id(), "text/plain", &Bytes::from_static(b"0123456789abcdef"), Mono::default())
            .expect("wanted");
        for piece in ["ab", "cdefgh", "ijklmnopqrstuvwxyz", "0", "1"] {
            capture.answer(piece.as_bytes());
        }
        sink.keep(*capture, "text/plain", false, Mono::default());

        let mut next = || match notes.try_recv() {
            Ok(Note::Body(body)) => (body.side, body.head.to_vec(), body.tail.to_vec(), body.total),
            other => panic!("{other:?}"),
        };

        assert_eq!(next(), (Side::Request, b"01234".to_vec(), b"bcdef".to_vec(), 16));
        let (side, head, tail, total) = next();
        assert_eq!((side, head.as_slice(), total), (Side::Answer, b"abcde".as_slice(), 28));
        assert!(tail.ends_with(b"xyz01"), "{}", String::from_utf8_lossy(&tail));
        assert_eq!(
            sink.held.load(Ordering::Relaxed),
            0,
            "what was handed over and dropped is held no more"
        );
    }

    #[test]
    fn good_requests_are_not_kept_where_only_errors_are_wanted() {
        let (sink, mut notes) = Sink::new();
        sink.want(Wanted::Errors, 1_000);
        for failed in [false, true] {
            let mut capture = sink
                .capture(id(), "a", &Bytes::from_static(b"ask"), Mono::default())
                .expect("wanted");
            capture.answer(b"answer");
            assert!(notes.try_recv().is_err(), "nothing is told before the end");
            sink.keep(*capture, "b", failed, Mono::default());
        }
        assert!(matches!(notes.try_recv(), Ok(Note::Body(body)) if body.side == Side::Request));
        assert!(matches!(notes.try_recv(), Ok(Note::Body(body)) if body.side == Side::Answer));
        assert!(notes.try_recv().is_err());
    }

    #[test]
    fn bodies_cost_no_more_than_was_granted() {
        let (sink, _notes) = Sink::new();
        let body = Bytes::from_static(b"small");
        let kept = |from: Duration| {
            (0..10_000).filter(|_| sink.capture(id(), "a", &body, Mono(from)).is_some()).count()
        };
        assert_eq!(kept(Duration::ZERO), 0, "nothing is wanted yet");
        sink.want(Wanted::All, 4 << 20);
        assert_eq!(kept(Duration::ZERO), 256);
        assert_eq!(kept(Duration::from_secs(1)), 64);
        assert_eq!(
            sink.skipped(),
            20_000 - 256 - 64,
            "the others are counted; what nobody wants is not"
        );
    }

    #[test]
    fn a_request_without_a_slot_is_counted() {
        let (sink, notes) = Sink::new();
        let slots: Vec<_> = std::iter::from_fn(|| sink.slot()).collect();
        assert_eq!((slots.len(), sink.unrecorded()), (SLOTS, 1));
        drop((slots, notes));
    }
}
