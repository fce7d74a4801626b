//! Tracks the limits that a provider reported for one key and model, less what was sent since.

use std::time::Duration;

use crate::{
    base::clock::Mono,
    ir::rate_limit::{RateLimit, RateLimits},
};

pub use crate::ir::rate_limit::LimitKind;

/// The four kinds of limits, in the order of [`LimitKind::ALL`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RateLimitState([Option<LimitWindow>; 4]);

/// One limit until its reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitWindow {
    pub limit: Option<u64>,
    pub remaining: u64,
    pub until: Mono,
}

impl LimitKind {
    /// Returns the amount that a request uses of this limit.
    fn amount_needed(self, demand: TokenDemand) -> u64 {
        match self {
            Self::Requests => 1,
            Self::Tokens => demand.input.saturating_add(demand.output),
            Self::Input => demand.input,
            Self::Output => demand.output,
        }
    }
}

/// The tokens that a request is expected to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenDemand {
    pub input: u64,
    pub output: u64,
}

impl TokenDemand {
    #[must_use]
    pub fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

impl RateLimitState {
    /// Applies the limits from a response head; a reset is at most `max_reset` away.
    pub fn update(&mut self, limits: &RateLimits, max_reset: Duration, now: Mono) {
        for (slot, reported) in
            self.0.iter_mut().zip([limits.requests, limits.tokens, limits.input, limits.output])
        {
            if let Some(RateLimit { limit, remaining, resets_in: reset }) = reported {
                *slot = Some(LimitWindow { limit, remaining, until: now + reset.min(max_reset) });
            }
        }
    }

    /// Restores a limit saved before a restart.
    pub fn set(&mut self, kind: LimitKind, window: LimitWindow) {
        if let Some((slot, _)) =
            self.0.iter_mut().zip(LimitKind::ALL).find(|(_, each)| *each == kind)
        {
            *slot = Some(window);
        }
    }

    /// Subtracts the demand of a sent attempt, until the next response head reports new values.
    pub fn consume(&mut self, demand: TokenDemand) {
        for (slot, kind) in self.0.iter_mut().zip(LimitKind::ALL) {
            if let Some(window) = slot {
                window.remaining = window.remaining.saturating_sub(kind.amount_needed(demand));
            }
        }
    }

    /// Returns the exhausted limit with the latest reset: one that has too little left for the
    /// demand. An unused limit is never exhausted, because waiting would not increase it.
    #[must_use]
    pub fn exhausted_by(&self, demand: TokenDemand, now: Mono) -> Option<(LimitKind, LimitWindow)> {
        let short = |(kind, window): &(LimitKind, LimitWindow)| {
            window.remaining < kind.amount_needed(demand)
                && window.limit.is_none_or(|limit| window.remaining < limit)
        };
        self.active(now).filter(short).max_by_key(|(_, window)| window.until)
    }

    /// Returns the limits that have not been reset yet.
    pub fn active(&self, now: Mono) -> impl Iterator<Item = (LimitKind, LimitWindow)> + '_ {
        LimitKind::ALL.into_iter().zip(self.0).filter_map(move |(kind, window)| {
            Some((kind, window.filter(|window| window.until > now)?))
        })
    }

    #[must_use]
    pub fn is_expired(&self, now: Mono) -> bool {
        self.active(now).next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::routing::test_support::{at, cases};

    const ONE_HOUR: Duration = Duration::from_secs(3_600);

    fn reply(limit: u64, remaining: u64, seconds: u64) -> Option<RateLimit> {
        Some(RateLimit { limit: Some(limit), remaining, resets_in: Duration::from_secs(seconds) })
    }

    fn demand(input: u64, output: u64) -> TokenDemand {
        TokenDemand { input, output }
    }

    #[test]
    fn exhausted_limit_is_reported_until_its_reset() {
        let mut learned = RateLimitState::default();
        learned.update(
            &RateLimits {
                requests: reply(60, 5, 10),
                tokens: reply(10_000, 900, 30),
                ..RateLimits::default()
            },
            ONE_HOUR,
            at(0),
        );

        assert_eq!(learned.exhausted_by(demand(400, 400), at(0)), None);
        let (kind, window) = learned.exhausted_by(demand(600, 400), at(29)).expect("1,000 of 900");
        assert_eq!((kind, window.remaining, window.until), (LimitKind::Tokens, 900, at(30)));
        assert_eq!(learned.exhausted_by(demand(600, 400), at(30)), None);
        assert!(learned.is_expired(at(30)) && !learned.is_expired(at(29)));
    }

    #[test]
    fn sent_requests_count_as_used_until_the_next_headers() {
        let mut learned = RateLimitState::default();
        learned.update(
            &RateLimits { requests: reply(60, 2, 10), ..RateLimits::default() },
            ONE_HOUR,
            at(0),
        );
        learned.consume(demand(1, 1));
        learned.consume(demand(1, 1));
        assert_eq!(
            learned.exhausted_by(demand(1, 1), at(1)).map(|(kind, _)| kind),
            Some(LimitKind::Requests)
        );
        learned.update(
            &RateLimits { requests: reply(60, 7, 10), ..RateLimits::default() },
            ONE_HOUR,
            at(1),
        );
        assert_eq!(learned.exhausted_by(demand(1, 1), at(1)), None);
    }

    #[test]
    fn unused_limit_is_never_exhausted() {
        let mut learned = RateLimitState::default();
        learned.update(
            &RateLimits { input: reply(1_000, 1_000, 60), ..RateLimits::default() },
            ONE_HOUR,
            at(0),
        );
        assert_eq!(learned.exhausted_by(demand(5_000, 0), at(0)), None);
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn every_learned_limit_expires(reset in any::<u64>(), remaining in any::<u64>(), input in any::<u64>(), output in any::<u64>()) {
            let mut learned = RateLimitState::default();
            let reset = Duration::from_secs(reset);
            let one = Some(RateLimit { limit: None, remaining, resets_in: reset });
            learned.update(&RateLimits { requests: one, tokens: one, input: one, output: one }, ONE_HOUR, at(0));
            learned.consume(demand(input, output));
            if let Some((_, window)) = learned.exhausted_by(demand(input, output), at(0)) {
                prop_assert!(window.until <= at(3_600));
            }
            prop_assert!(learned.is_expired(at(3_600)));
        }
    }
}
