//! Collects the frames of a stream, and decides when they are sent: the first at once, those of a
//! burst in batches.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

/// Scheduler turns without a new chunk after which the buffered events are sent; a measured count,
/// not a time. The upstream's connection delivers one chunk per turn.
const MAX_YIELDS: u8 = 3;
/// Batching waits only if chunks arrive closer together than this; a single chunk is sent at once.
const BURST_GAP: Duration = Duration::from_micros(300);
/// Maximum bytes of one batch.
const MAX_COALESCED: usize = 32 << 10;
/// Frames that are not sent yet.
pub(super) struct OutputBuffer {
    frames: Vec<Bytes>,
    bytes: usize,
    /// Turns that were waited since the last chunk.
    yields: u8,
    /// The last two chunks arrived close together.
    bursting: bool,
    /// Something was sent already.
    has_sent: bool,
}

impl OutputBuffer {
    pub(super) fn new(frames: Vec<Bytes>) -> Self {
        let bytes = frames.iter().map(Bytes::len).sum();
        Self { frames, bytes, yields: MAX_YIELDS, bursting: false, has_sent: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Returns whether a batch has its maximum size.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= MAX_COALESCED
    }

    /// Lets `write` append frames.
    pub(super) fn append<T>(&mut self, write: impl FnOnce(&mut Vec<Bytes>) -> T) -> T {
        let before = self.frames.len();
        let result = write(&mut self.frames);
        self.bytes += self.frames[before..].iter().map(Bytes::len).sum::<usize>();
        result
    }

    /// Lets `write` append the frames of a chunk that arrived this long after the one before.
    pub(super) fn fill<T>(
        &mut self,
        since_last: Duration,
        write: impl FnOnce(&mut Vec<Bytes>) -> T,
    ) -> T {
        self.bursting = since_last < BURST_GAP;
        self.yields = 0;
        self.append(write)
    }

    /// Returns whether the frames wait another turn, in which more may arrive.
    pub(super) fn waits_for_more(&mut self) -> bool {
        let waits = self.bursting && self.has_sent && self.yields < MAX_YIELDS;
        self.yields += u8::from(waits);
        waits
    }

    /// Takes all frames as one piece.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        let last = self.frames.pop()?;
        let bytes = if self.frames.is_empty() {
            last
        } else {
            let mut all = BytesMut::with_capacity(self.bytes);
            for piece in self.frames.drain(..) {
                all.extend_from_slice(&piece);
            }
            all.extend_from_slice(&last);
            all.freeze()
        };
        self.bytes = 0;
        self.has_sent = true;
        Some(bytes)
    }
}
