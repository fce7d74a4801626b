//! Queues requests for which no candidate is free: round-robin over projects, in order of arrival
//! within each.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use tokio::sync::Notify;

use crate::{
    base::{
        id::RequestId,
        sync::{Mutex, MutexGuard},
    },
    routing::{candidate::Candidate, decision::FailedAttempt},
};

/// Requests that may wait at once; beyond that the client gets a 429.
const MAX_WAITERS: usize = 256;

/// The queue of waiting requests; one per process.
#[derive(Clone, Default)]
pub struct WaitQueue(Arc<Mutex<WaitQueueState>>);

#[derive(Default)]
struct WaitQueueState {
    last_number: u64,
    entries: Vec<QueueEntry>,
    /// The current round of each set of candidates that has waiters.
    rounds: HashMap<u64, u64>,
}

struct QueueEntry {
    number: u64,
    key: u64,
    project: Arc<str>,
    /// The round in which the request is served: its position among its project's requests, counted
    /// from the round in which it joined.
    round: u64,
}

/// A slot in the queue; freed when dropped.
pub struct QueueSlot {
    queue: WaitQueue,
    number: u64,
}

/// A slot in the queue; wakes the requests behind it when dropped.
pub struct QueueGuard {
    slot: Option<QueueSlot>,
    /// Notified when this slot is free again.
    capacity_changed: Arc<Notify>,
}

impl QueueGuard {
    /// Joins the queue, unless it is full.
    #[must_use]
    pub fn join(
        queue: &WaitQueue,
        capacity_changed: &Arc<Notify>,
        set: u64,
        project: &Arc<str>,
    ) -> Option<Self> {
        let slot = queue.join(set, project)?;
        Some(Self { slot: Some(slot), capacity_changed: Arc::clone(capacity_changed) })
    }

    /// Returns how many requests of the same set are served before this one.
    #[must_use]
    pub fn position(&self) -> usize {
        self.slot.as_ref().map_or(0, QueueSlot::position)
    }
}

impl Drop for QueueGuard {
    fn drop(&mut self) {
        self.slot = None;
        self.capacity_changed.notify_waiters();
    }
}

/// Returns the queue of a request: any of these candidates except those that already failed for it.
/// A request therefore never waits behind one that cannot use the freed candidate. `alone` gives it
/// a queue of its own.
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

/// Returns the queue for a project's own concurrency slots.
#[must_use]
pub fn project_queue_key(project: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    ("project", project).hash(&mut hasher);
    hasher.finish()
}

impl WaitQueue {
    fn lock(&self) -> MutexGuard<'_, WaitQueueState> {
        self.0.lock()
    }

    /// Joins a set's queue behind the project's other requests, unless the queue is full.
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

    /// Returns whether any request waits for this set.
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
    /// Returns how many requests of the same set are served before this one.
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
            // The front request was served: newcomers begin in the round after it.
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
    fn waiting_projects_are_served_in_turn() {
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
                // A newcomer begins in the current round, not before the requests that have waited.
                waiting.push(("d", join(&queue, "d")));
            }
        }
        assert_eq!(served, "abcabdaa");
    }

    #[test]
    fn waiters_for_other_keys_do_not_count_in_the_position() {
        let queue = WaitQueue::default();
        let _other = queue.join(project_queue_key("a"), &"a".into()).expect("room");
        let first = join(&queue, "a");
        assert_eq!(first.position(), 0);
        assert!(queue.has_waiters(7) && !queue.has_waiters(8));
    }
}
