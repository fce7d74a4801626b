//! Keeps recent statistics per upstream: the last hundred attempts within a quarter of an hour, and
//! five minutes in buckets.

use std::{cell::Cell, collections::VecDeque, time::Duration};

use crate::base::{clock::Mono, rolling::RollingBuckets};

const MAX_ATTEMPTS: usize = 100;
/// Older attempts do not count.
pub const MAX_AGE: Duration = Duration::from_secs(15 * 60);
/// The chart: number of buckets, and seconds per bucket.
pub const SPARK_BUCKETS: usize = 15;
const SPARK_WIDTH: Duration = Duration::from_secs(20);

/// The statistics of one upstream.
#[derive(Clone, Debug)]
pub struct AttemptStats {
    /// When the attempt ended, whether it failed, and its time to first token.
    recent: VecDeque<(Mono, bool, Option<Duration>)>,
    attempts: RollingBuckets,
    failed: RollingBuckets,
    /// The newest summary, and when it was made: decisions request it often.
    summary: Cell<Option<(Mono, StatsSummary)>>,
}

/// The figures that strategies use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StatsSummary {
    pub attempts: u32,
    /// 0 to 1.
    pub error_rate: f64,
    pub ttft_p95: Option<Duration>,
}

/// The totals for screens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatsView {
    pub attempts: u32,
    pub errors: u32,
    pub ttft_p50: Option<Duration>,
    pub ttft_p95: Option<Duration>,
    /// Attempts and failed attempts per 20 s over five minutes, oldest first.
    pub spark: Vec<(u32, u32)>,
}

impl Default for AttemptStats {
    fn default() -> Self {
        Self {
            recent: VecDeque::new(),
            attempts: RollingBuckets::new(SPARK_WIDTH, SPARK_BUCKETS),
            failed: RollingBuckets::new(SPARK_WIDTH, SPARK_BUCKETS),
            summary: Cell::new(None),
        }
    }
}

impl AttemptStats {
    pub fn record(&mut self, failed: bool, ttft: Option<Duration>, now: Mono) {
        if self.recent.len() >= MAX_ATTEMPTS {
            self.recent.pop_front();
        }
        self.summary.set(None);
        self.recent.push_back((now, failed, ttft));
        self.attempts.add(1, now);
        self.failed.add(u32::from(failed), now);
    }

    /// Returns when an attempt last succeeded, if it is among the retained ones.
    #[must_use]
    pub fn last_success(&self) -> Option<Mono> {
        self.recent.iter().rev().find(|(_, failed, _)| !failed).map(|(at, ..)| *at)
    }

    /// Returns the summary of the last hundred attempts, at most a second old.
    #[must_use]
    pub fn summary(&self, now: Mono) -> StatsSummary {
        if let Some((_, summary)) =
            self.summary.get().filter(|(at, _)| now.since(*at) < Duration::from_secs(1))
        {
            return summary;
        }
        let StatsView { attempts, errors, ttft_p95, .. } = self.view(now);
        let summary = StatsSummary { attempts, error_rate: error_rate(errors, attempts), ttft_p95 };
        self.summary.set(Some((now, summary)));
        summary
    }

    #[must_use]
    pub fn view(&self, now: Mono) -> StatsView {
        let recent = || self.recent.iter().filter(|(at, ..)| now.since(*at) < MAX_AGE);
        let mut ttft: Vec<Duration> = recent().filter_map(|(_, _, ttft)| *ttft).collect();
        ttft.sort_unstable();
        StatsView {
            attempts: recent().count() as u32,
            errors: recent().filter(|(_, failed, _)| *failed).count() as u32,
            ttft_p50: percentile(&ttft, 50),
            ttft_p95: percentile(&ttft, 95),
            spark: self.attempts.series(now).zip(self.failed.series(now)).collect(),
        }
    }
}

impl StatsView {
    /// Returns the failed part of the attempts, from 0 to 1.
    #[must_use]
    pub fn error_rate(&self) -> f64 {
        error_rate(self.errors, self.attempts)
    }
}

/// Returns the failed part of the attempts, from 0 to 1; 0 without attempts.
#[must_use]
pub fn error_rate(errors: u32, attempts: u32) -> f64 {
    if attempts == 0 { 0.0 } else { f64::from(errors) / f64::from(attempts) }
}

/// Returns the nearest-rank percentile of sorted values.
fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::test_support::at;

    #[test]
    fn stats_cover_the_last_100_attempts_within_15_minutes() {
        let mut stats = AttemptStats::default();
        assert_eq!(stats.view(at(0)).ttft_p50, None);
        for n in 1..=120_u64 {
            stats.record(n % 10 == 0, Some(Duration::from_millis(n)), at(n));
        }

        let view = stats.view(at(120));

        assert_eq!((view.attempts, view.errors), (100, 10));
        assert_eq!(view.ttft_p50, Some(Duration::from_millis(70)));
        assert_eq!(view.ttft_p95, Some(Duration::from_millis(115)));
        assert_eq!(view.spark.len(), SPARK_BUCKETS);
        assert_eq!(
            view.spark.iter().map(|(all, _)| all).sum::<u32>(),
            120,
            "the chart counts all of five minutes"
        );
        let later = stats.view(at(120 + 900));
        assert_eq!((later.attempts, later.ttft_p95), (0, None));
    }
}
