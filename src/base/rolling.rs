//! Counts recent events: exact for limits, in buckets for charts and shares, paced for rates.

use std::{collections::VecDeque, time::Duration};

use crate::base::clock::Mono;

/// The span of limits per minute.
pub const MINUTE: Duration = Duration::from_secs(60);

/// Instants of the last `span`; answers exactly whether one more is within a limit.
#[derive(Clone, Debug, Default)]
pub struct SlidingLog(VecDeque<Mono>);

impl SlidingLog {
    /// Returns the instant until which `limit` per `span` is used up; `None` if one more may start
    /// now. A limit of 0 means unlimited.
    #[must_use]
    pub fn full_until(&self, limit: u32, span: Duration, now: Mono) -> Option<Mono> {
        let nth = self.0.len().checked_sub(usize::try_from(limit).ok().filter(|&n| n > 0)?)?;
        let free = *self.0.get(nth)? + span;
        (free > now).then_some(free)
    }

    /// Returns the number of instants in the last `span`, and when the newest of them expires.
    #[must_use]
    pub fn count_within(&self, span: Duration, now: Mono) -> (usize, Option<Mono>) {
        let old = self.0.partition_point(|&at| at + span <= now);
        (self.0.len() - old, self.0.back().map(|&at| at + span).filter(|&at| at > now))
    }

    pub fn record(&mut self, span: Duration, now: Mono) {
        while self.0.front().is_some_and(|&at| at + span <= now) {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }
}

/// Counts in equal buckets; the oldest bucket expires as time passes.
#[derive(Clone, Debug)]
pub struct RollingBuckets {
    width: Duration,
    counts: Box<[u32]>,
    /// Number of the newest bucket, counted from the clock's zero.
    newest: u64,
}

impl RollingBuckets {
    #[must_use]
    pub fn new(width: Duration, number: usize) -> Self {
        Self {
            width: width.max(Duration::from_millis(1)),
            counts: vec![0; number.max(1)].into(),
            newest: 0,
        }
    }

    pub fn add(&mut self, n: u32, now: Mono) {
        let at = self.bucket_number(now);
        let len = self.counts.len() as u64;
        for gone in (self.newest + 1..=at).rev().take(self.counts.len()) {
            self.counts[(gone % len) as usize] = 0;
        }
        self.newest = self.newest.max(at);
        // A clock reading from before the newest bucket (two threads) counts into the newest.
        let slot = &mut self.counts[(self.newest % len) as usize];
        *slot = slot.saturating_add(n);
    }

    /// Iterates from the oldest bucket to the bucket of `now`.
    pub fn series(&self, now: Mono) -> impl Iterator<Item = u32> + '_ {
        let (len, end) = (self.counts.len() as u64, self.bucket_number(now).max(self.newest));
        (0..len).map(move |i| {
            // Counted from the end, so that the first buckets of the clock need no negative number.
            let back = len - 1 - i;
            match end.checked_sub(back) {
                Some(at) if at <= self.newest && at + len > self.newest => {
                    self.counts[(at % len) as usize]
                }
                _ => 0,
            }
        })
    }

    #[must_use]
    pub fn sum(&self, now: Mono) -> u64 {
        self.series(now).map(u64::from).sum()
    }

    fn bucket_number(&self, now: Mono) -> u64 {
        u64::try_from(now.0.as_nanos() / self.width.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Amounts of the last minute, in buckets of a second. A recorded amount can be corrected in its
/// bucket.
#[derive(Clone, Debug, Default)]
pub struct SlidingSum {
    /// One bucket more than a minute, because the oldest second may be half over. Empty until an
    /// amount is recorded.
    seconds: Vec<u64>,
    newest: u64,
    sum: u64,
}

/// Identifies the bucket of a recorded amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollingReservation {
    second: u64,
    amount: u64,
}

const WINDOW_SECONDS: u64 = 61;

impl SlidingSum {
    pub fn reserve(&mut self, amount: u64, now: Mono) -> RollingReservation {
        if self.seconds.is_empty() {
            self.seconds = vec![0; WINDOW_SECONDS as usize];
        }
        let second = now.0.as_secs().max(self.newest);
        for gone in (self.newest + 1..=second).rev().take(WINDOW_SECONDS as usize) {
            let slot = &mut self.seconds[(gone % WINDOW_SECONDS) as usize];
            self.sum -= std::mem::take(slot);
        }
        self.newest = second;
        let amount = amount.min(u64::MAX >> 8);
        self.adjust(second, amount, 0);
        RollingReservation { second, amount }
    }

    /// Replaces a recorded amount by the actual one; no effect once the bucket has expired.
    pub fn correct(&mut self, booked: RollingReservation, amount: u64) {
        if self.seconds.is_empty() || booked.second + WINDOW_SECONDS <= self.newest {
            return;
        }
        self.adjust(booked.second, amount.min(u64::MAX >> 8), booked.amount);
    }

    fn adjust(&mut self, second: u64, more: u64, less: u64) {
        let slot = &mut self.seconds[(second % WINDOW_SECONDS) as usize];
        let new = slot.saturating_sub(less).saturating_add(more);
        self.sum = self.sum.saturating_sub(*slot).saturating_add(new);
        *slot = new;
    }

    /// Iterates, oldest first, over each second that still counts, with its amount.
    fn live_seconds(&self, now: Mono) -> impl Iterator<Item = (u64, u64)> + '_ {
        let from = (now.0.as_secs() + 1)
            .saturating_sub(WINDOW_SECONDS)
            .max((self.newest + 1).saturating_sub(WINDOW_SECONDS));
        let to = if self.seconds.is_empty() { from } else { self.newest + 1 };
        (from..to).map(|second| (second, self.seconds[(second % WINDOW_SECONDS) as usize]))
    }

    #[must_use]
    pub fn sum(&self, now: Mono) -> u64 {
        if now.0.as_secs() <= self.newest {
            self.sum
        } else {
            self.live_seconds(now).map(|(_, amount)| amount).sum()
        }
    }

    /// Returns the instant until which `amount` more exceeds `limit` per minute; `None` if it may
    /// start now. A limit of 0 means unlimited. An amount above the whole limit may start alone,
    /// when no other amount is recorded.
    #[must_use]
    pub fn full_until(&self, limit: u64, amount: u64, now: Mono) -> Option<Mono> {
        let mut left = self.sum(now);
        let fits = |left: u64| left == 0 || left.saturating_add(amount) <= limit;
        if limit == 0 || fits(left) {
            return None;
        }
        for (second, amount) in self.live_seconds(now) {
            left -= amount;
            if fits(left) {
                return Some(Mono(Duration::from_secs(second + WINDOW_SECONDS)));
            }
        }
        None
    }
}

/// Limits events per second, with bursts of one second's worth (at least one).
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenBucket {
    /// When the traffic so far would have ended at exactly the rate.
    paid_until: Mono,
}

impl TokenBucket {
    /// Returns the instant until which the rate is used up; `None` if one more may start now. A
    /// rate of 0 means unlimited.
    #[must_use]
    pub fn full_until(&self, per_second: f64, now: Mono) -> Option<Mono> {
        let step = interval(per_second)?;
        let free = self.paid_until - Duration::from_secs(1).saturating_sub(step);
        (free > now).then_some(free)
    }

    pub fn consume(&mut self, per_second: f64, now: Mono) {
        if let Some(step) = interval(per_second) {
            self.paid_until = self.paid_until.max(now) + step;
        }
    }
}

fn interval(per_second: f64) -> Option<Duration> {
    (per_second > 0.0)
        .then(|| Duration::try_from_secs_f64(1.0 / per_second).unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Mono {
        Mono(Duration::from_millis(1_000_000 + millis))
    }

    #[test]
    fn limit_frees_exactly_one_period_after_its_oldest_use() {
        let mut times = SlidingLog::default();
        for ms in [0, 1_000, 2_000] {
            assert_eq!(times.full_until(3, MINUTE, at(ms)), None);
            times.record(MINUTE, at(ms));
        }
        assert_eq!(times.full_until(3, MINUTE, at(3_000)), Some(at(60_000)));
        assert_eq!(times.full_until(3, MINUTE, at(60_000)), None);
        assert_eq!(
            times.full_until(2, MINUTE, at(3_000)),
            Some(at(61_000)),
            "a lowered limit holds at once"
        );
        assert_eq!(times.full_until(0, MINUTE, at(3_000)), None, "0 is no limit");
    }

    #[test]
    fn buckets_drop_values_older_than_their_period() {
        let mut counts = RollingBuckets::new(Duration::from_secs(1), 3);
        counts.add(1, at(0));
        counts.add(2, at(1_000));
        counts.add(4, at(1_500));
        assert_eq!(counts.series(at(1_900)).collect::<Vec<_>>(), [0, 1, 6]);
        assert_eq!(counts.series(at(3_000)).collect::<Vec<_>>(), [6, 0, 0]);
        assert_eq!(counts.sum(at(4_000)), 0);
        counts.add(1, at(100_000));
        assert_eq!(counts.series(at(100_000)).collect::<Vec<_>>(), [0, 0, 1]);
    }

    #[test]
    fn buckets_work_at_clock_zero() {
        let mut counts = RollingBuckets::new(Duration::from_secs(1), 3);
        counts.add(1, Mono::default());
        assert_eq!(counts.series(Mono::default()).collect::<Vec<_>>(), [0, 0, 1]);
    }

    #[test]
    fn pacer_allows_one_second_of_burst_and_then_the_rate() {
        let mut pace = TokenBucket::default();
        let mut allowed = 0;
        while pace.full_until(5.0, at(0)).is_none() {
            pace.consume(5.0, at(0));
            allowed += 1;
        }
        assert_eq!(allowed, 5);
        assert_eq!(pace.full_until(5.0, at(0)), Some(at(200)));
        assert_eq!(pace.full_until(5.0, at(200)), None);

        let mut slow = TokenBucket::default();
        slow.consume(0.5, at(0));
        assert_eq!(slow.full_until(0.5, at(0)), Some(at(2_000)));
    }

    #[test]
    fn corrections_apply_to_the_original_bucket_until_it_expires() {
        let mut tokens = SlidingSum::default();
        let first = tokens.reserve(600, at(0));
        assert_eq!(tokens.full_until(1_000, 500, at(1_000)), Some(at(61_000)));
        tokens.correct(first, 100);
        assert_eq!(tokens.full_until(1_000, 500, at(1_000)), None);
        tokens.reserve(500, at(2_000));
        assert_eq!(
            (tokens.sum(at(2_000)), tokens.sum(at(61_500)), tokens.sum(at(63_000))),
            (600, 500, 0)
        );
        tokens.reserve(1, at(200_000));
        tokens.correct(first, 9_999);
        assert_eq!(tokens.sum(at(200_000)), 1, "what fell out is not corrected");
    }

    #[test]
    fn amount_over_the_limit_is_admitted_alone() {
        let mut tokens = SlidingSum::default();
        assert_eq!(tokens.full_until(1_000, 5_000, at(0)), None);
        tokens.reserve(5_000, at(0));
        assert_eq!(tokens.full_until(1_000, 1, at(500)), Some(at(61_000)));
        assert_eq!(tokens.full_until(0, 1, at(500)), None, "0 is no limit");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn no_minute_exceeds_the_limit_and_full_until_is_exact(
            steps in proptest::collection::vec((0_u64..20_000, 1_u64..400, 0_u64..500), 1..60)
        ) {
            let (mut tokens, mut now, mut went) = (SlidingSum::default(), 0, Vec::<(u64, u64)>::new());
            for (pass, amount, real) in steps {
                now += pass;
                match tokens.full_until(1_000, amount, at(now)) {
                    None => {
                        let booked = tokens.reserve(amount, at(now));
                        let real = real.min(amount);
                        tokens.correct(booked, real);
                        went.push((now, real));
                    }
                    Some(until) => {
                        prop_assert!(until > at(now) && until <= at(now + 61_000));
                        prop_assert_eq!(tokens.full_until(1_000, amount, until), None);
                    }
                }
                let held: u64 = went.iter().filter(|(at, _)| now - at < 60_000).map(|(_, amount)| amount).sum();
                prop_assert!(held <= 1_000, "{held}");
                prop_assert!(tokens.sum(at(now)) >= held);
            }
        }
    }
}
