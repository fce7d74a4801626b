//! Estimates the current time to first token of a target: the value rises at once and falls slowly.

use std::time::Duration;

use crate::base::clock::Mono;

/// Time constant in seconds with which values better than the average replace it.
const DECAY: f64 = 10.0;
/// Half-life in seconds of the expected time of an idle target, so that it is tried again.
const IDLE_HALF_LIFE: f64 = 60.0;

/// An average of times to first token that is sensitive to peaks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PeakEwma {
    seconds: f64,
    at: Option<Mono>,
}

impl PeakEwma {
    pub fn record(&mut self, ttft: Duration, now: Mono) {
        let new = ttft.as_secs_f64();
        self.seconds = match self.at {
            Some(at) if new < self.seconds => {
                let old = (-now.since(at).as_secs_f64().max(0.1) / DECAY).exp();
                self.seconds * old + new * (1.0 - old)
            }
            _ => new,
        };
        self.at = Some(now);
    }

    /// Restores a value saved before a restart.
    #[must_use]
    pub fn restored(ttft: Duration, now: Mono) -> Self {
        Self { seconds: ttft.as_secs_f64(), at: Some(now) }
    }

    /// Returns the expected time in seconds; 0 if unknown, so that every target is tried.
    #[must_use]
    pub fn expected(&self, now: Mono) -> f64 {
        self.at
            .map_or(0.0, |at| self.seconds * (-now.since(at).as_secs_f64() / IDLE_HALF_LIFE).exp2())
    }

    #[must_use]
    pub fn is_known(&self) -> bool {
        self.at.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::test_support::at;

    #[test]
    fn peak_counts_at_once_and_decays_slowly() {
        let mut peak = PeakEwma::default();
        assert_eq!(peak.expected(at(0)), 0.0);
        peak.record(Duration::from_millis(200), at(0));
        peak.record(Duration::from_secs(4), at(1));
        assert_eq!(peak.expected(at(1)), 4.0);
        peak.record(Duration::from_millis(200), at(2));
        assert!((3.0..4.0).contains(&peak.expected(at(2))), "one good time does not excuse it");
        for n in 3..60 {
            peak.record(Duration::from_millis(200), at(n));
        }
        assert!(peak.expected(at(60)) < 0.25);
    }

    #[test]
    fn estimate_decays_while_unused() {
        let mut peak = PeakEwma::default();
        peak.record(Duration::from_secs(8), at(0));
        assert_eq!(peak.expected(at(120)), 2.0);
    }
}
