//! The queue of requests for which no key is free just now: first come, first served per set of candidates.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, PoisonError},
};

use crate::routing::candidate::Candidate;

/// Requests that may wait at once; beyond that a 429 is truer than a place at the end.
const MOST: usize = 256;

/// One per process.
#[derive(Default)]
pub struct Queue(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    next: u64,
    places: VecDeque<(u64, u64)>,
}

/// A place in the queue; left when dropped.
pub struct Waiter<'a> {
    queue: &'a Queue,
    number: u64,
    set: u64,
}

impl Queue {
    /// Joins the end, unless the queue is full.
    pub fn join(&self, candidates: &[Candidate]) -> Option<Waiter<'_>> {
        let mut hasher = DefaultHasher::new();
        for candidate in candidates {
            (candidate.key, &candidate.target.model).hash(&mut hasher);
        }
        let set = hasher.finish();
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.places.len() >= MOST {
            return None;
        }
        inner.next += 1;
        let number = inner.next;
        inner.places.push_back((number, set));
        Some(Waiter { queue: self, number, set })
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).places.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Waiter<'_> {
    /// How many of the same set stand before this one.
    #[must_use]
    pub fn before(&self) -> usize {
        let inner = self.queue.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.places.iter().take_while(|(number, _)| *number != self.number).filter(|(_, set)| *set == self.set).count()
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.queue.0.lock().unwrap_or_else(PoisonError::into_inner).places.retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiters_are_served_in_order_and_leave_when_dropped() {
        let queue = Queue::default();
        let (first, second) = (queue.join(&[]).expect("room"), queue.join(&[]).expect("room"));
        assert_eq!((first.before(), second.before()), (0, 1));
        drop(first);
        assert_eq!((second.before(), queue.len()), (0, 1));
        let _all: Vec<_> = (0..MOST - 1).map(|_| queue.join(&[]).expect("room")).collect();
        assert!(queue.join(&[]).is_none());
    }
}
