//! Finds the calls of a conversation by id or by name, in constant time for each result.

use std::collections::{HashMap, VecDeque};

/// The calls so far, each open until it has a result.
#[derive(Debug, Default)]
pub(super) struct CallIndex {
    calls: Vec<IndexedCall>,
    by_id: HashMap<String, CallQueue>,
    by_name: HashMap<String, CallQueue>,
    oldest: usize,
}

#[derive(Debug)]
struct IndexedCall {
    id: String,
    is_open: bool,
}

/// Calls with one id or name, in their order.
#[derive(Debug, Default)]
struct CallQueue {
    /// May begin with calls that were closed in the meantime.
    open: VecDeque<usize>,
    latest: usize,
}

impl CallIndex {
    /// Adds a call; returns its number.
    pub(super) fn push(&mut self, id: &str, name: &str) -> usize {
        let number = self.calls.len();
        self.calls.push(IndexedCall { id: id.to_owned(), is_open: true });
        for (queues, key) in [(&mut self.by_id, id), (&mut self.by_name, name)] {
            let queue = match queues.get_mut(key) {
                Some(queue) => queue,
                None => queues.entry(key.to_owned()).or_default(),
            };
            queue.open.push_back(number);
            queue.latest = number;
        }
        number
    }

    /// Returns the last call with this id, open or not.
    pub(super) fn latest_with_id(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).map(|queue| queue.latest)
    }

    /// Returns the first open call with this id.
    pub(super) fn first_open_with_id(&mut self, id: &str) -> Option<usize> {
        first_open(self.by_id.get_mut(id)?, &self.calls)
    }

    /// Returns the first open call of this tool.
    pub(super) fn first_open_of(&mut self, name: &str) -> Option<usize> {
        first_open(self.by_name.get_mut(name)?, &self.calls)
    }

    /// Returns the first open call.
    pub(super) fn first_open(&mut self) -> Option<usize> {
        while self.calls.get(self.oldest).is_some_and(|call| !call.is_open) {
            self.oldest += 1;
        }
        (self.oldest < self.calls.len()).then_some(self.oldest)
    }

    /// Marks a call as answered; returns its id.
    pub(super) fn close(&mut self, number: usize) -> &str {
        let call = &mut self.calls[number];
        call.is_open = false;
        &call.id
    }
}

fn first_open(queue: &mut CallQueue, calls: &[IndexedCall]) -> Option<usize> {
    while queue.open.front().is_some_and(|number| !calls[*number].is_open) {
        queue.open.pop_front();
    }
    queue.open.front().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_found_by_id_name_and_order() {
        let mut calls = CallIndex::default();
        for (id, name) in [("a", "f"), ("b", "g"), ("a", "g")] {
            calls.push(id, name);
        }
        assert_eq!((calls.latest_with_id("a"), calls.first_open_with_id("a")), (Some(2), Some(0)));
        assert_eq!(calls.close(0), "a");
        assert_eq!((calls.first_open_with_id("a"), calls.first_open_of("f")), (Some(2), None));
        assert_eq!((calls.first_open_of("g"), calls.first_open()), (Some(1), Some(1)));
        calls.close(1);
        calls.close(2);
        assert_eq!((calls.first_open(), calls.first_open_of("g")), (None, None));
        assert_eq!(calls.latest_with_id("x"), None);
    }
}
