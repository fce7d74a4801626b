//! The queue of requests for which nothing is free just now: projects take turns, each project's
//! requests in order.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::relay::engine::Engine;
use crate::{
    base::id::RequestId,
    routing::candidate::{Candidate, FailedAttempt},
};

/// Requests that may wait at once; beyond that a 429 is truer than a place at the end.
const MAX_WAITERS: usize = 256;

/// One per process.
#[derive(Clone, Default)]
pub struct WaitQueue(Arc<Mutex<WaitQueueState>>);

#[derive(Default)]
struct WaitQueueState {
    last_number: u64,
    entries: Vec<QueueEntry>,
    /// Per set of candidates, while anybody waits for it: the turn that is being served.
    rounds: HashMap<u64, u64>,
}

struct QueueEntry {
    number: u64,
    key: u64,
    project: Arc<str>,
    /// The round in which the project is served: its own place in its line, counted from the round
    /// at which it came.
    round: u64,
}

/// A place in the queue; left when dropped.
pub struct QueueSlot {
    queue: WaitQueue,
    number: u64,
}

/// A place in the queue whose going is told to those behind.
pub struct QueueGuard {
    slot: Option<QueueSlot>,
    engine: Arc<Engine>,
}

impl QueueGuard {
    /// Joins the engine's queue, unless it is full.
    #[must_use]
    pub fn join(engine: &Arc<Engine>, set: u64, project: &Arc<str>) -> Option<Self> {
        let slot = engine.wait_queue.join(set, project)?;
        Some(Self { slot: Some(slot), engine: Arc::clone(engine) })
    }

    /// How many of the same set go before this one.
    #[must_use]
    pub fn position(&self) -> usize {
        self.slot.as_ref().map_or(0, QueueSlot::position)
    }
}

impl Drop for QueueGuard {
    fn drop(&mut self) {
        self.slot = None;
        self.engine.notify_waiters();
    }
}

/// What is waited for: any of these candidates but those that failed here already, so that nobody
/// stands behind one who cannot use what comes free. `alone` is in a line of its own.
#[must_use]
pub fn queue_key(
    candidates: &[Candidate],
    tried: &[FailedAttempt],
    own_line: Option<RequestId>,
) -> u64 {
    let mut hasher = DefaultHasher::new();
    for candidate in candidates {
        let failed = tried
            .iter()
            .any(|tried| tried.key == candidate.key && tried.model == candidate.target.model);
        (candidate.key, &candidate.target.model, failed).hash(&mut hasher);
    }
    own_line.hash(&mut hasher);
    hasher.finish()
}

/// What is waited for: one of a project's own places.
#[must_use]
pub fn project_queue_key(project: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    ("project", project).hash(&mut hasher);
    hasher.finish()
}

impl WaitQueue {
    fn lock(&self) -> MutexGuard<'_, WaitQueueState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins a set's line behind the project's others, unless the queue is full.
    #[must_use]
    pub fn join(&self, set: u64, project: &Arc<str>) -> Option<QueueSlot> {
        let mut inner = self.lock();
        if inner.entries.len() >= MAX_WAITERS {
            return None;
        }
        inner.last_number += 1;
        let number = inner.last_number;
        let served = inner.rounds.get(&set).copied().unwrap_or_default();
        let last_round = inner
            .entries
            .iter()
            .filter(|entry| entry.key == set && entry.project == *project)
            .map(|entry| entry.round)
            .max();
        let turn = last_round.map_or(served, |turn| turn.max(served)) + 1;
        inner.rounds.entry(set).or_insert(served);
        inner.entries.push(QueueEntry {
            number,
            key: set,
            project: Arc::clone(project),
            round: turn,
        });
        Some(QueueSlot { queue: self.clone(), number })
    }

    /// Whether anybody waits for this.
    #[must_use]
    pub fn has_waiters(&self, set: u64) -> bool {
        self.lock().entries.iter().any(|entry| entry.key == set)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl WaitQueueState {
    fn position(&self, number: u64) -> usize {
        let Some(entry) = self.entries.iter().find(|entry| entry.number == number) else {
            return 0;
        };
        let order = |entry: &QueueEntry| (entry.round, entry.number);
        self.entries
            .iter()
            .filter(|other| other.key == entry.key && order(other) < order(entry))
            .count()
    }
}

impl QueueSlot {
    /// How many of the same set go before this one.
    #[must_use]
    pub fn position(&self) -> usize {
        self.queue.lock().position(self.number)
    }
}

impl Drop for QueueSlot {
    fn drop(&mut self) {
        let mut inner = self.queue.lock();
        let first = inner.position(self.number) == 0;
        let Some(at) = inner.entries.iter().position(|entry| entry.number == self.number) else {
            return;
        };
        let QueueEntry { key: set, round: turn, .. } = inner.entries.remove(at);
        if !inner.entries.iter().any(|entry| entry.key == set) {
            inner.rounds.remove(&set);
        } else if first {
            // Whoever goes from the front was served: newcomers begin in the round after it.
            inner.rounds.insert(set, turn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(queue: &WaitQueue, project: &str) -> QueueSlot {
        queue.join(7, &project.into()).expect("room")
    }

    #[test]
    fn waiters_of_a_project_are_served_in_order_and_leave_when_dropped() {
        let queue = WaitQueue::default();
        let (first, second) = (join(&queue, "a"), join(&queue, "a"));
        assert_eq!((first.position(), second.position()), (0, 1));
        drop(first);
        assert_eq!((second.position(), queue.len()), (0, 1));
        let _all: Vec<_> = (0..MAX_WAITERS - 1).map(|_| join(&queue, "a")).collect();
        assert!(queue.join(7, &"a".into()).is_none());
    }

    #[test]
    fn projects_take_turns() {
        let queue = WaitQueue::default();
        let mut waiting: Vec<(&str, QueueSlot)> =
            ["a", "a", "a", "a"].map(|name| (name, join(&queue, name))).into();
        waiting.extend(["b", "b", "c"].map(|name| (name, join(&queue, name))));
        let mut served = String::new();
        while !waiting.is_empty() {
            let at = waiting
                .iter()
                .position(|(_, waiter)| waiter.position() == 0)
                .expect("somebody is first");
            served += waiting.remove(at).0;
            if served.len() == 2 {
                // A newcomer begins in the round that is being served, not before those who have
                // waited.
                waiting.push(("d", join(&queue, "d")));
            }
        }
        assert_eq!(served, "abcabdaa");
    }

    #[test]
    fn who_waits_for_something_else_is_not_before() {
        let queue = WaitQueue::default();
        let _other = queue.join(project_queue_key("a"), &"a".into()).expect("room");
        let first = join(&queue, "a");
        assert_eq!(first.position(), 0);
        assert!(queue.has_waiters(7) && !queue.has_waiters(8));
    }
}
