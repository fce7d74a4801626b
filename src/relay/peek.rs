//! Looking over the shoulder of running requests: their answers are copied only while somebody
//! looks.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use super::transcript::{Part, Teller};
use crate::base::{
    clock::Mono,
    id::{IdMap, RequestId},
};

/// Who does not look again within this looks no more.
const LEASE: Duration = Duration::from_secs(5);
/// Bytes that wait to be read by whoever looks.
const PENDING: usize = 1 << 20;
/// Requests looked at once.
const MOST: usize = 32;

/// The requests that somebody looks at.
#[derive(Default)]
pub struct Peeks {
    /// So that a request that nobody looks at costs one look at a number.
    count: AtomicUsize,
    peeks: Mutex<IdMap<RequestId, Peek>>,
}

struct Peek {
    teller: Teller,
    pending: Vec<u8>,
    /// More came than waits here.
    missed: bool,
    started: bool,
    until: Mono,
}

/// What was said before somebody looked: beginning and end, and how many bytes it was.
pub(super) type Before<'a> = Option<(&'a [u8], &'a [u8], u64)>;

impl Peeks {
    /// Whether anybody looks at anything.
    #[must_use]
    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// What a request's answer said up to now, from here on kept for the next look. `None` where
    /// too many are looked at.
    pub fn look(
        &self,
        id: RequestId,
        teller: impl FnOnce() -> Teller,
        now: Mono,
    ) -> Option<Vec<Part>> {
        let mut peeks = self.peeks.lock().unwrap_or_else(PoisonError::into_inner);
        peeks.retain(|_, peek| peek.until >= now);
        if !peeks.contains_key(&id) && peeks.len() < MOST {
            peeks.insert(
                id,
                Peek {
                    teller: teller(),
                    pending: Vec::new(),
                    missed: false,
                    started: false,
                    until: now,
                },
            );
        }
        self.count.store(peeks.len(), Ordering::Relaxed);
        let peek = peeks.get_mut(&id)?;
        peek.until = Mono(now.0.saturating_add(LEASE));
        peek.read();
        Some(peek.teller.parts())
    }

    /// More of an answer goes to its client; `before` is what went there already.
    pub(super) fn sent(
        &self,
        id: RequestId,
        bytes: &[u8],
        already: u64,
        before: Before<'_>,
        now: Mono,
    ) {
        let mut peeks = self.peeks.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(peek) = peeks.get_mut(&id) else { return };
        if peek.until < now {
            peeks.remove(&id);
            self.count.store(peeks.len(), Ordering::Relaxed);
            return;
        }
        if !std::mem::replace(&mut peek.started, true) {
            match before {
                Some((head, tail, total)) => {
                    peek.teller.feed(&Bytes::copy_from_slice(head));
                    if (head.len() + tail.len()) as u64 != total {
                        peek.teller.gap();
                    }
                    peek.teller.feed(&Bytes::copy_from_slice(tail));
                }
                None if already > 0 => peek.teller.gap(),
                None => {}
            }
        }
        if peek.pending.len() + bytes.len() > PENDING {
            peek.missed = true;
            peek.pending.clear();
            return;
        }
        peek.pending.extend_from_slice(bytes);
    }

    /// The request has ended.
    pub(super) fn leave(&self, id: RequestId) {
        if !self.any() {
            return;
        }
        let mut peeks = self.peeks.lock().unwrap_or_else(PoisonError::into_inner);
        peeks.remove(&id);
        self.count.store(peeks.len(), Ordering::Relaxed);
    }
}

impl Peek {
    fn read(&mut self) {
        if std::mem::take(&mut self.missed) {
            self.teller.gap();
        }
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty() {
            self.teller.feed(&pending.into());
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
        relay::transcript::Who,
    };

    fn teller() -> Teller {
        Teller::new(Dialect::Openai, Op::Chat, Some(Framing::Sse))
    }

    fn event(text: &str) -> Vec<u8> {
        format!("data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n").into()
    }

    fn at(seconds: u64) -> Mono {
        Mono(Duration::from_secs(seconds))
    }

    fn text(parts: &[Part]) -> String {
        parts
            .iter()
            .map(|part| if part.who == Who::Gap { "…" } else { part.text.as_str() })
            .collect()
    }

    #[test]
    fn nothing_is_kept_of_what_nobody_looks_at() {
        let (peeks, id) = (Peeks::default(), RequestId::new(UnixMillis(1_700_000_000_000)));
        peeks.sent(id, &event("a"), 0, None, at(1));
        assert!(!peeks.any());

        assert_eq!(text(&peeks.look(id, teller, at(2)).unwrap()), "");
        peeks.sent(id, &event("b"), 90, None, at(3));
        assert_eq!(text(&peeks.look(id, teller, at(4)).unwrap()), "…b");

        peeks.sent(id, &event("c"), 180, None, at(20));
        assert!(!peeks.any(), "whoever looked has gone");
    }

    #[test]
    fn what_was_kept_of_the_beginning_is_told_first() {
        let (peeks, id) = (Peeks::default(), RequestId::new(UnixMillis(1_700_000_000_000)));
        peeks.look(id, teller, at(1)).unwrap();
        let before = event("a");
        peeks.sent(
            id,
            &event("b"),
            before.len() as u64,
            Some((&before, &[], before.len() as u64)),
            at(1),
        );
        peeks.sent(id, &event("c"), 200, None, at(1));
        assert_eq!(text(&peeks.look(id, teller, at(2)).unwrap()), "abc");
        peeks.leave(id);
        assert!(!peeks.any());
    }

    #[test]
    fn a_flood_that_nobody_reads_is_dropped() {
        let (peeks, id) = (Peeks::default(), RequestId::new(UnixMillis(1_700_000_000_000)));
        peeks.look(id, teller, at(1)).unwrap();
        for _ in 0..200 {
            peeks.sent(id, &event(&"x".repeat(10_000)), 0, None, at(1));
        }
        assert!(peeks.peeks.lock().unwrap()[&id].pending.len() <= PENDING);
        assert!(text(&peeks.look(id, teller, at(2)).unwrap()).contains('…'));
    }
}
