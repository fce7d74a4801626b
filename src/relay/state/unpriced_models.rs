//! Remembers which models without a known price were reported, so that each is reported once.

use std::collections::HashSet;

use crate::base::sync::Mutex;

/// Models whose unknown price was reported. Clients choose the names, so the set is bounded.
const MAX_REPORTED_MODELS: usize = 256;

/// Models that were already reported as having no known price.
#[derive(Debug, Default)]
pub struct UnpricedModels(Mutex<HashSet<String>>);

impl UnpricedModels {
    /// Adds a model; returns false if it was added before, or if the set is full.
    pub(in crate::relay) fn insert_if_new(&self, name: &str) -> bool {
        let mut names = self.0.lock();
        names.len() < MAX_REPORTED_MODELS && names.insert(name.to_owned())
    }
}
