//! The ids of the tool calls in one answer.

use std::collections::HashSet;

/// Assigns each call of an answer an id that is unique in the answer: some providers send none, or
/// the same one twice.
#[derive(Debug)]
pub(super) struct AnswerCallIds {
    seed: String,
    assigned: HashSet<String>,
    count: usize,
}

impl AnswerCallIds {
    /// `seed` makes the generated ids unique among answers.
    pub(super) fn new(seed: &str) -> Self {
        Self { seed: seed.to_owned(), assigned: HashSet::new(), count: 0 }
    }

    /// Returns the reported id, or a generated one if it is absent, empty or already used.
    pub(super) fn assign(&mut self, reported: Option<&str>) -> String {
        let id = reported
            .filter(|id| !id.is_empty() && !self.assigned.contains(*id))
            .map_or_else(|| format!("call_{}_{}", self.seed, self.count), str::to_owned);
        self.assigned.insert(id.clone());
        self.count += 1;
        id
    }

    /// The number of calls.
    pub(super) fn count(&self) -> usize {
        self.count
    }
}
