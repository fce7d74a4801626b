//! Stores how fast targets begin to respond, and how many hedges the rules still allow.

use std::time::Duration;

use crate::{
    base::sync::{Mutex, MutexGuard},
    config::settings::{Hedge, HedgeDelay},
    routing::{candidate::Candidate, hedge::TargetLatencies},
};

/// The latencies on which hedge decisions are based. One per process; only requests whose model has
/// hedging enabled use it.
#[derive(Debug, Default)]
pub struct HedgeStats(Mutex<TargetLatencies>);

impl HedgeStats {
    fn lock(&self) -> MutexGuard<'_, TargetLatencies> {
        self.0.lock()
    }

    /// Returns the 95th percentile of the time until a target's responses begin, if known.
    #[must_use]
    pub fn p95(&self, candidate: &Candidate, stream: bool) -> Option<Duration> {
        self.lock().p95(candidate, stream)
    }

    /// Records how long a target took until its response began.
    pub(in crate::relay) fn record_latency(
        &self,
        candidate: &Candidate,
        stream: bool,
        latency: Duration,
    ) {
        self.lock().record_latency(candidate, stream, latency);
    }

    /// Adds a request's share of credit; returns the 95th percentile of the first target, if the
    /// rule needs it, and the credit that there is now.
    pub(in crate::relay) fn earn_credit(
        &self,
        rule: &Hedge,
        first: &Candidate,
        stream: bool,
    ) -> (Option<Duration>, f64) {
        let mut latencies = self.lock();
        latencies.earn_credit(rule);
        let p95 = (rule.after == HedgeDelay::P95).then(|| latencies.p95(first, stream)).flatten();
        (p95, latencies.credit(rule))
    }

    /// Spends the credit of one hedge; returns false if there is too little.
    pub(in crate::relay) fn spend_credit(&self, rule: &Hedge) -> bool {
        self.lock().spend_credit(rule)
    }
}
