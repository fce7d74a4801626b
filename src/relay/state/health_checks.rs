//! Stores the newest probe result of each upstream.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::{
    base::{clock::UnixMillis, sync::Mutex},
    config::settings::UpstreamId,
};

/// The newest probe result of each upstream.
#[derive(Debug, Default)]
pub struct HealthChecks(Mutex<HashMap<UpstreamId, CheckResult>>);

/// The result of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckResult {
    pub at: UnixMillis,
    pub duration: Duration,
    /// For people: `200`, `503`, `connection refused`.
    pub message: Arc<str>,
    /// Whether the upstream can be reached.
    pub is_reachable: bool,
}

impl HealthChecks {
    /// Returns the newest result.
    #[must_use]
    pub fn latest(&self, upstream: UpstreamId) -> Option<CheckResult> {
        self.0.lock().get(&upstream).cloned()
    }

    pub(in crate::relay) fn insert(&self, upstream: UpstreamId, probed: CheckResult) {
        self.0.lock().insert(upstream, probed);
    }
}
