//! Decides whether and when a failed request may be retried: limits per request, and a retry budget
//! for all requests.

use std::time::Duration;

use super::outcome::{Outcome, Retry as How};
use crate::{
    base::{backoff::full_jitter, clock::Mono, rng::Rng, rolling::RollingBuckets},
    config::settings::RetrySettings,
};

/// Maximum number of free attempts at other candidates, per request.
const MAX_FREE_ATTEMPTS: u32 = 32;
/// Shortest pause before the same candidate is tried again, whatever the jitter gives: a limit that
/// was just hit has not passed within milliseconds.
pub(super) const MIN_PAUSE: Duration = Duration::from_millis(100);
/// Retries that are always allowed within the window, even with few requests.
const MIN_RETRIES: u64 = 10;
const BUDGET_WINDOW_SECONDS: usize = 10;

/// What a request's attempts have used up so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttemptCounts {
    /// Attempts that may have cost upstream work.
    pub costly: u32,
    /// Refusals that cost nothing.
    pub free: u32,
    /// Times that the same candidate was tried (or waited for) again.
    pub repeats: u32,
    /// Conflicts (409).
    pub conflicts: u32,
    /// Attempts that were sent completely and then lost.
    pub maybe_billed: u32,
    /// Connections that turned out to be closed.
    pub stale: u32,
}

impl AttemptCounts {
    /// Counts a failed attempt; called before [`decide_retry`].
    pub fn count_failure(&mut self, outcome: &Outcome) {
        match outcome.retry {
            How::SameImmediately => self.stale += 1,
            _ if outcome.counts_as_attempt => self.costly += 1,
            _ => self.free += 1,
        }
        self.conflicts += u32::from(outcome.retry == How::Once);
        self.maybe_billed += u32::from(outcome.maybe_billed);
    }

    /// Takes a counted failure back that reached no upstream, because the local network was down.
    pub fn forgive_free(&mut self) {
        self.free = self.free.saturating_sub(1);
    }
}

/// The candidate for the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryTarget {
    /// A candidate that is ready: the budget never denies it.
    Other,
    /// A candidate that failed in this request already, after a pause; or a wait until it returns.
    Same,
}

/// Whether to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    After(Duration),
    Immediately,
    Stop(RetryDenied),
}

/// Why there is no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDenied {
    /// Retries already make up too much of the traffic.
    Budget,
    /// `max_attempts` is reached.
    Attempts,
    /// The request itself was refused, or its one retry is used up.
    Final,
}

impl RetryDenied {
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Budget => "the retry budget is used up",
            Self::Attempts => "all attempts are used up",
            Self::Final => "trying again would not help",
        }
    }
}

/// Decides whether a request may be tried again. `outcome` is the end of its newest attempt, which
/// `so_far` already counts. Approval for [`RetryTarget::Same`] counts as a repeat and is charged to
/// the budget at once.
pub fn decide_retry(
    outcome: &Outcome,
    so_far: &mut AttemptCounts,
    to: RetryTarget,
    rules: &RetrySettings,
    budget: &mut RetryBudget,
    now: Mono,
    rng: &mut dyn Rng,
) -> RetryDecision {
    let max_attempts = rules.max_attempts.max(1);
    match outcome.retry {
        How::No => return RetryDecision::Stop(RetryDenied::Final),
        // The next attempt opens a new connection; if it is also closed at once, that is not an
        // accident.
        How::SameImmediately if so_far.stale <= 2 => return RetryDecision::Immediately,
        How::SameImmediately => return RetryDecision::Stop(RetryDenied::Final),
        How::Once if so_far.conflicts > 1 => return RetryDecision::Stop(RetryDenied::Final),
        How::OtherUpstream if to == RetryTarget::Same => {
            return RetryDecision::Stop(RetryDenied::Final);
        }
        How::Once | How::Other | How::OtherAccount | How::OtherUpstream => {}
    }
    if so_far.maybe_billed > 1 {
        return RetryDecision::Stop(RetryDenied::Final);
    }
    if so_far.costly >= max_attempts || so_far.free >= MAX_FREE_ATTEMPTS {
        return RetryDecision::Stop(RetryDenied::Attempts);
    }
    if to == RetryTarget::Other {
        if outcome.counts_as_attempt {
            budget.count_retry(now);
        }
        return RetryDecision::Immediately;
    }
    if so_far.repeats + 1 >= max_attempts {
        return RetryDecision::Stop(RetryDenied::Attempts);
    }
    if !budget.allows(rules.budget, now) {
        return RetryDecision::Stop(RetryDenied::Budget);
    }
    budget.count_retry(now);
    so_far.repeats += 1;
    let pause = full_jitter(rules.backoff, rules.max_backoff, so_far.repeats - 1, rng);
    RetryDecision::After(pause.max(MIN_PAUSE))
}

/// The share of retries in all traffic of the last ten seconds.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    requests: RollingBuckets,
    retries: RollingBuckets,
}

impl Default for RetryBudget {
    fn default() -> Self {
        let seconds = || RollingBuckets::new(Duration::from_secs(1), BUDGET_WINDOW_SECONDS);
        Self { requests: seconds(), retries: seconds() }
    }
}

impl RetryBudget {
    /// Counts an incoming request.
    pub fn count_request(&mut self, now: Mono) {
        self.requests.add(1, now);
    }

    /// Counts a retry, whether it needed approval or not.
    pub fn count_retry(&mut self, now: Mono) {
        self.retries.add(1, now);
    }

    /// Returns whether one more retry stays within `share` of the requests, or within the minimum.
    #[must_use]
    pub fn allows(&self, share: f64, now: Mono) -> bool {
        let allowed = (self.requests.sum(now) as f64 * share.clamp(0.0, 1.0)) as u64;
        self.retries.sum(now) < allowed.max(MIN_RETRIES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::reason::failure::FailureReason;
    use crate::{
        base::rng::ScriptedRng,
        ir::fault::{Fault, FaultKind, TransportFault, TransportKind},
        routing::{
            outcome::{classify_fault, classify_transport},
            test_support::{at, policy},
        },
    };

    fn reply(kind: FaultKind, status: u16) -> Outcome {
        let fault = Fault {
            kind,
            status,
            message: String::new(),
            code: None,
            error_type: None,
            param: None,
            retry_after: None,
        };
        classify_fault(&fault, None, true)
    }

    /// Returns the number of attempts of a request that always ends with `outcome` and always
    /// retries `to`.
    fn tries(outcome: &Outcome, to: RetryTarget, rules: &RetrySettings) -> (u32, RetryDenied) {
        let (mut so_far, mut budget) = (AttemptCounts::default(), RetryBudget::default());
        for tries in 1..100 {
            so_far.count_failure(outcome);
            if let RetryDecision::Stop(why) = decide_retry(
                outcome,
                &mut so_far,
                to,
                rules,
                &mut budget,
                at(0),
                &mut ScriptedRng::new(&[1.0]),
            ) {
                return (tries, why);
            }
        }
        panic!("never stops");
    }

    #[test]
    fn number_of_attempts_depends_on_the_failure_kind() {
        let rules = policy().retry;
        let lost = classify_transport(&TransportFault {
            kind: TransportKind::Reset,
            reason: FailureReason::Truncated.into(),
            may_be_received: true,
        });
        let refused = classify_transport(&TransportFault {
            kind: TransportKind::Connect,
            reason: FailureReason::Truncated.into(),
            may_be_received: false,
        });
        for (outcome, to, want) in [
            (reply(FaultKind::Server, 500), RetryTarget::Other, (4, RetryDenied::Attempts)),
            (reply(FaultKind::Server, 500), RetryTarget::Same, (4, RetryDenied::Attempts)),
            (reply(FaultKind::RateLimited, 429), RetryTarget::Other, (32, RetryDenied::Attempts)),
            (reply(FaultKind::RateLimited, 429), RetryTarget::Same, (4, RetryDenied::Attempts)),
            (refused, RetryTarget::Other, (32, RetryDenied::Attempts)),
            (reply(FaultKind::Conflict, 409), RetryTarget::Same, (2, RetryDenied::Final)),
            (lost, RetryTarget::Other, (2, RetryDenied::Final)),
            (reply(FaultKind::BadRequest, 400), RetryTarget::Other, (1, RetryDenied::Final)),
        ] {
            assert_eq!(tries(&outcome, to, &rules), want, "{} {to:?}", outcome.cause);
        }
    }

    #[test]
    fn max_attempts_of_one_disables_retries() {
        let rules = RetrySettings { max_attempts: 1, ..policy().retry };
        assert_eq!(tries(&reply(FaultKind::Server, 500), RetryTarget::Other, &rules).0, 1);
        assert_eq!(tries(&reply(FaultKind::RateLimited, 429), RetryTarget::Same, &rules).0, 1);
    }

    #[test]
    fn pauses_double_with_full_jitter() {
        let (outcome, rules) = (reply(FaultKind::Server, 500), policy().retry);
        let (mut so_far, mut budget) = (AttemptCounts::default(), RetryBudget::default());
        for (luck, millis) in [(1.0, 250), (0.5, 250), (1.0, 1_000)] {
            so_far.count_failure(&outcome);
            let got = decide_retry(
                &outcome,
                &mut so_far,
                RetryTarget::Same,
                &rules,
                &mut budget,
                at(0),
                &mut ScriptedRng::new(&[luck]),
            );
            assert_eq!(got, RetryDecision::After(Duration::from_millis(millis)));
        }
    }

    #[test]
    fn retry_budget_is_a_share_of_requests_with_a_minimum() {
        let mut budget = RetryBudget::default();
        for _ in 0..10 {
            assert!(budget.allows(0.2, at(0)));
            budget.count_retry(at(0));
        }
        assert!(!budget.allows(0.2, at(0)), "the floor is ten");
        for _ in 0..100 {
            budget.count_request(at(1));
        }
        assert!(budget.allows(0.2, at(1)), "a fifth of a hundred is twenty");
        assert!(!budget.allows(0.0, at(1)));
        assert!(budget.allows(0.0, at(11)), "ten seconds later all is forgotten");
    }

    #[test]
    fn failover_to_a_ready_candidate_ignores_the_retry_budget() {
        let (outcome, rules) = (reply(FaultKind::Server, 500), policy().retry);
        let mut budget = RetryBudget::default();
        for _ in 0..1_000 {
            budget.count_retry(at(0));
        }
        let mut so_far = AttemptCounts::default();
        so_far.count_failure(&outcome);
        assert_eq!(
            decide_retry(
                &outcome,
                &mut so_far,
                RetryTarget::Other,
                &rules,
                &mut budget,
                at(0),
                &mut ScriptedRng::new(&[0.0])
            ),
            RetryDecision::Immediately
        );
        let same = decide_retry(
            &outcome,
            &mut so_far,
            RetryTarget::Same,
            &rules,
            &mut budget,
            at(0),
            &mut ScriptedRng::new(&[0.0]),
        );
        assert_eq!(same, RetryDecision::Stop(RetryDenied::Budget));
    }
}
