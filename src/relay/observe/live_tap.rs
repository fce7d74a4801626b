//! Lets viewers watch running responses; bytes are copied only while a viewer reads.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;

use crate::base::{
    clock::Mono,
    id::{IdMap, RequestId},
    sync::Mutex,
};
use crate::relay::observe::transcript::{TranscriptPart, TranscriptReader};

/// A viewer that does not read again within this time is dropped.
const VIEWER_LEASE: Duration = Duration::from_secs(5);
/// Bytes that wait for the next read.
const MAX_PENDING_BYTES: usize = 1 << 20;
/// Maximum requests that are watched at once.
const MAX_TAPS: usize = 32;

/// The requests that viewers watch.
#[derive(Default)]
pub struct LiveTaps {
    /// The number of taps, so that an unwatched request costs one atomic load.
    count: AtomicUsize,
    taps: Mutex<IdMap<RequestId, LiveTap>>,
}

struct LiveTap {
    reader: TranscriptReader,
    pending: Vec<u8>,
    /// More bytes arrived than fit in `pending`.
    overflowed: bool,
    started: bool,
    lease_until: Mono,
}

/// The response before a viewer started: its beginning, its end, and its number of bytes.
pub(in crate::relay) type Backlog<'a> = Option<(&'a [u8], &'a [u8], u64)>;

impl LiveTaps {
    /// Returns whether any request is watched.
    #[must_use]
    pub(in crate::relay) fn is_active(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Returns the response so far, and buffers what follows for the next read. `None` if too many
    /// requests are watched.
    pub fn read(
        &self,
        id: RequestId,
        new_reader: impl FnOnce() -> TranscriptReader,
        now: Mono,
    ) -> Option<Vec<TranscriptPart>> {
        let mut taps = self.taps.lock();
        taps.retain(|_, tap| tap.lease_until >= now);
        if !taps.contains_key(&id) && taps.len() < MAX_TAPS {
            taps.insert(
                id,
                LiveTap {
                    reader: new_reader(),
                    pending: Vec::new(),
                    overflowed: false,
                    started: false,
                    lease_until: now,
                },
            );
        }
        self.count.store(taps.len(), Ordering::Relaxed);
        let tap = taps.get_mut(&id)?;
        tap.lease_until = Mono(now.0.saturating_add(VIEWER_LEASE));
        tap.process_pending();
        Some(tap.reader.parts())
    }

    /// Copies more of a response to its viewers; `before` is what the client already received.
    pub(in crate::relay) fn push(
        &self,
        id: RequestId,
        bytes: &[u8],
        already: u64,
        before: Backlog<'_>,
        now: Mono,
    ) {
        let mut taps = self.taps.lock();
        let Some(tap) = taps.get_mut(&id) else { return };
        if tap.lease_until < now {
            taps.remove(&id);
            self.count.store(taps.len(), Ordering::Relaxed);
            return;
        }
        if !std::mem::replace(&mut tap.started, true) {
            match before {
                Some((head, tail, total)) => {
                    tap.reader.feed(&Bytes::copy_from_slice(head));
                    if (head.len() + tail.len()) as u64 != total {
                        tap.reader.push_gap();
                    }
                    tap.reader.feed(&Bytes::copy_from_slice(tail));
                }
                None if already > 0 => tap.reader.push_gap(),
                None => {}
            }
        }
        if tap.pending.len() + bytes.len() > MAX_PENDING_BYTES {
            tap.overflowed = true;
            tap.pending.clear();
            return;
        }
        tap.pending.extend_from_slice(bytes);
    }

    /// Removes a request that has ended.
    pub(in crate::relay) fn remove(&self, id: RequestId) {
        if !self.is_active() {
            return;
        }
        let mut taps = self.taps.lock();
        taps.remove(&id);
        self.count.store(taps.len(), Ordering::Relaxed);
    }
}

impl LiveTap {
    fn process_pending(&mut self) {
        if std::mem::take(&mut self.overflowed) {
            self.reader.push_gap();
        }
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty() {
            self.reader.feed(&pending.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::clock::UnixMillis,
        dialect::Framing,
        ir::op::{Dialect, Op},
        relay::observe::transcript::Speaker,
    };

    fn teller() -> TranscriptReader {
        TranscriptReader::new(Dialect::Openai, Op::Chat, Some(Framing::Sse))
    }

    fn event(text: &str) -> Vec<u8> {
        format!("data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n").into()
    }

    fn at(seconds: u64) -> Mono {
        Mono(Duration::from_secs(seconds))
    }

    fn text(parts: &[TranscriptPart]) -> String {
        parts
            .iter()
            .map(|part| if part.speaker == Speaker::Gap { "…" } else { part.text.as_str() })
            .collect()
    }

    #[test]
    fn nothing_is_buffered_without_a_viewer() {
        let (peeks, id) = (LiveTaps::default(), RequestId::new(UnixMillis(1_700_000_000_000)));
        peeks.push(id, &event("a"), 0, None, at(1));
        assert!(!peeks.is_active());

        assert_eq!(text(&peeks.read(id, teller, at(2)).unwrap()), "");
        peeks.push(id, &event("b"), 90, None, at(3));
        assert_eq!(text(&peeks.read(id, teller, at(4)).unwrap()), "…b");

        peeks.push(id, &event("c"), 180, None, at(20));
        assert!(!peeks.is_active(), "whoever looked has gone");
    }

    #[test]
    fn buffered_prefix_is_sent_first() {
        let (peeks, id) = (LiveTaps::default(), RequestId::new(UnixMillis(1_700_000_000_000)));
        peeks.read(id, teller, at(1)).unwrap();
        let before = event("a");
        peeks.push(
            id,
            &event("b"),
            before.len() as u64,
            Some((&before, &[], before.len() as u64)),
            at(1),
        );
        peeks.push(id, &event("c"), 200, None, at(1));
        assert_eq!(text(&peeks.read(id, teller, at(2)).unwrap()), "abc");
        peeks.remove(id);
        assert!(!peeks.is_active());
    }

    #[test]
    fn stream_without_a_reader_is_dropped_beyond_its_buffer() {
        let (peeks, id) = (LiveTaps::default(), RequestId::new(UnixMillis(1_700_000_000_000)));
        peeks.read(id, teller, at(1)).unwrap();
        for _ in 0..200 {
            peeks.push(id, &event(&"x".repeat(10_000)), 0, None, at(1));
        }
        assert!(peeks.taps.lock()[&id].pending.len() <= MAX_PENDING_BYTES);
        assert!(text(&peeks.read(id, teller, at(2)).unwrap()).contains('…'));
    }
}
