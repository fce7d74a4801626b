//! The queue of requests for which nothing is free just now: projects take turns, each project's
//! requests in order.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::engine::Engine;
use crate::{
    base::id::RequestId,
    routing::candidate::{Candidate, FailedAttempt},
};

/// Requests that may wait at once; beyond that a 429 is truer than a place at the end.
const MOST: usize = 256;

/// One per process.
#[derive(Clone, Default)]
pub struct Queue(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    next: u64,
    places: Vec<Place>,
    /// Per set of candidates, while anybody waits for it: the turn that is being served.
    turns: HashMap<u64, u64>,
}

struct Place {
    number: u64,
    set: u64,
    project: Arc<str>,
    /// The round in which the project is served: its own place in its line, counted from the round
    /// at which it came.
    turn: u64,
}

/// A place in the queue; left when dropped.
pub struct Waiter {
    queue: Queue,
    number: u64,
}

/// A place in the queue whose going is told to those behind.
pub struct Line {
    waiter: Option<Waiter>,
    engine: Arc<Engine>,
}

impl Line {
    /// Joins the engine's queue, unless it is full.
    #[must_use]
    pub fn join(engine: &Arc<Engine>, set: u64, project: &Arc<str>) -> Option<Self> {
        let waiter = engine.queue.join(set, project)?;
        Some(Self { waiter: Some(waiter), engine: Arc::clone(engine) })
    }

    /// How many of the same set go before this one.
    #[must_use]
    pub fn before(&self) -> usize {
        self.waiter.as_ref().map_or(0, Waiter::before)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.waiter = None;
        self.engine.touch();
    }
}

/// What is waited for: any of these candidates but those that failed here already, so that nobody
/// stands behind one who cannot use what comes free. `alone` is in a line of its own.
#[must_use]
pub fn set_of(candidates: &[Candidate], tried: &[FailedAttempt], alone: Option<RequestId>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for candidate in candidates {
        let failed = tried
            .iter()
            .any(|tried| tried.key == candidate.key && tried.model == candidate.target.model);
        (candidate.key, &candidate.target.model, failed).hash(&mut hasher);
    }
    alone.hash(&mut hasher);
    hasher.finish()
}

/// What is waited for: one of a project's own places.
#[must_use]
pub fn set_of_project(project: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    ("project", project).hash(&mut hasher);
    hasher.finish()
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins a set's line behind the project's others, unless the queue is full.
    #[must_use]
    pub fn join(&self, set: u64, project: &Arc<str>) -> Option<Waiter> {
        let mut inner = self.lock();
        if inner.places.len() >= MOST {
            return None;
        }
        inner.next += 1;
        let number = inner.next;
        let served = inner.turns.get(&set).copied().unwrap_or_default();
        let own = inner
            .places
            .iter()
            .filter(|place| place.set == set && place.project == *project)
            .map(|place| place.turn)
            .max();
        let turn = own.map_or(served, |turn| turn.max(served)) + 1;
        inner.turns.entry(set).or_insert(served);
        inner.places.push(Place { number, set, project: Arc::clone(project), turn });
        Some(Waiter { queue: self.clone(), number })
    }

    /// Whether anybody waits for this.
    #[must_use]
    pub fn awaits(&self, set: u64) -> bool {
        self.lock().places.iter().any(|place| place.set == set)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().places.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    fn before(&self, number: u64) -> usize {
        let Some(own) = self.places.iter().find(|place| place.number == number) else { return 0 };
        let order = |place: &Place| (place.turn, place.number);
        self.places.iter().filter(|place| place.set == own.set && order(place) < order(own)).count()
    }
}

impl Waiter {
    /// How many of the same set go before this one.
    #[must_use]
    pub fn before(&self) -> usize {
        self.queue.lock().before(self.number)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut inner = self.queue.lock();
        let first = inner.before(self.number) == 0;
        let Some(at) = inner.places.iter().position(|place| place.number == self.number) else {
            return;
        };
        let Place { set, turn, .. } = inner.places.remove(at);
        if !inner.places.iter().any(|place| place.set == set) {
            inner.turns.remove(&set);
        } else if first {
            // Whoever goes from the front was served: newcomers begin in the round after it.
            inner.turns.insert(set, turn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(queue: &Queue, project: &str) -> Waiter {
        queue.join(7, &project.into()).expect("room")
    }

    #[test]
    fn waiters_of_a_project_are_served_in_order_and_leave_when_dropped() {
        let queue = Queue::default();
        let (first, second) = (join(&queue, "a"), join(&queue, "a"));
        assert_eq!((first.before(), second.before()), (0, 1));
        drop(first);
        assert_eq!((second.before(), queue.len()), (0, 1));
        let _all: Vec<_> = (0..MOST - 1).map(|_| join(&queue, "a")).collect();
        assert!(queue.join(7, &"a".into()).is_none());
    }

    #[test]
    fn projects_take_turns() {
        let queue = Queue::default();
        let mut waiting: Vec<(&str, Waiter)> =
            ["a", "a", "a", "a"].map(|name| (name, join(&queue, name))).into();
        waiting.extend(["b", "b", "c"].map(|name| (name, join(&queue, name))));
        let mut served = String::new();
        while !waiting.is_empty() {
            let at = waiting
                .iter()
                .position(|(_, waiter)| waiter.before() == 0)
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
        let queue = Queue::default();
        let _other = queue.join(set_of_project("a"), &"a".into()).expect("room");
        let first = join(&queue, "a");
        assert_eq!(first.before(), 0);
        assert!(queue.awaits(7) && !queue.awaits(8));
    }
}
