//! Whether a request that failed may be tried again, and when: what one request may spend, and what
//! all of them may.

use std::time::Duration;

use super::outcome::{Outcome, Retry as How};
use crate::{
    base::{backoff::full_jitter, clock::Mono, draw::Rng, window::RollingBuckets},
    config::settings::RetrySettings,
};

/// Moves to other candidates that cost nobody anything, per request.
const FREE_MOVES: u32 = 32;
/// Retries that are always allowed within the span that is looked at, however few requests there
/// are.
const FLOOR: u64 = 10;
const SPAN_SECONDS: usize = 10;

/// What a request's attempts have used up so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Tries that may have cost upstream work.
    pub costly: u32,
    /// Refusals that cost nothing.
    pub free: u32,
    /// Times that the same candidate was tried (or waited for) again.
    pub repeats: u32,
    /// Conflicts (409).
    pub conflicts: u32,
    /// Tries that were sent whole and lost.
    pub maybe_billed: u32,
    /// Connections that turned out dead.
    pub stale: u32,
}

impl Attempts {
    /// Counts an attempt that failed; to be called before [`again`].
    pub fn failed(&mut self, outcome: &Outcome) {
        match outcome.retry {
            How::SameAtOnce => self.stale += 1,
            _ if outcome.counts => self.costly += 1,
            _ => self.free += 1,
        }
        self.conflicts += u32::from(outcome.retry == How::Once);
        self.maybe_billed += u32::from(outcome.maybe_billed);
    }
}

/// Where the next try would go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// To a candidate that is ready: never refused by the budget.
    Other,
    /// To one that failed in this request already, after a pause; or a wait until it comes back.
    Same,
}

/// Whether there is another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    After(Duration),
    AtOnce,
    Stop(Stop),
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Retries make up too much of the traffic already.
    Budget,
    /// `max_attempts` is reached.
    Attempts,
    /// The request was refused as such, or its one retry is used up.
    Final,
}

impl Stop {
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Budget => "the retry budget is used up",
            Self::Attempts => "all attempts are used up",
            Self::Final => "trying again would not help",
        }
    }
}

/// Whether the request whose newest attempt ended like this, and is counted in `so_far`, may be
/// tried again. A yes for [`To::Same`] is taken as done: it counts as a repeat and is charged to
/// the budget.
pub fn again(
    outcome: &Outcome,
    so_far: &mut Attempts,
    to: To,
    rules: &RetrySettings,
    budget: &mut Budget,
    now: Mono,
    draw: &mut dyn Rng,
) -> Again {
    let most = rules.max_attempts.max(1);
    match outcome.retry {
        How::No => return Again::Stop(Stop::Final),
        // A fresh connection is made next; one that is dead again is no accident.
        How::SameAtOnce if so_far.stale <= 2 => return Again::AtOnce,
        How::SameAtOnce => return Again::Stop(Stop::Final),
        How::Once if so_far.conflicts > 1 => return Again::Stop(Stop::Final),
        How::Once | How::Other | How::OtherAccount => {}
    }
    if so_far.maybe_billed > 1 {
        return Again::Stop(Stop::Final);
    }
    if so_far.costly >= most || so_far.free >= FREE_MOVES {
        return Again::Stop(Stop::Attempts);
    }
    if to == To::Other {
        if outcome.counts {
            budget.retried(now);
        }
        return Again::AtOnce;
    }
    if so_far.repeats + 1 >= most {
        return Again::Stop(Stop::Attempts);
    }
    if !budget.allows(rules.budget, now) {
        return Again::Stop(Stop::Budget);
    }
    budget.retried(now);
    so_far.repeats += 1;
    Again::After(full_jitter(rules.backoff, rules.max_backoff, so_far.repeats - 1, draw))
}

/// Of all traffic of the last ten seconds, how much was retries.
#[derive(Clone, Debug)]
pub struct Budget {
    requests: RollingBuckets,
    retries: RollingBuckets,
}

impl Default for Budget {
    fn default() -> Self {
        let seconds = || RollingBuckets::new(Duration::from_secs(1), SPAN_SECONDS);
        Self { requests: seconds(), retries: seconds() }
    }
}

impl Budget {
    /// Counts a request as it comes in.
    pub fn request(&mut self, now: Mono) {
        self.requests.add(1, now);
    }

    /// Counts a retry, allowed or not asked for.
    pub fn retried(&mut self, now: Mono) {
        self.retries.add(1, now);
    }

    /// Whether one more retry stays within `share` of the requests, or within the floor.
    #[must_use]
    pub fn allows(&self, share: f64, now: Mono) -> bool {
        let allowed = (self.requests.sum(now) as f64 * share.clamp(0.0, 1.0)) as u64;
        self.retries.sum(now) < allowed.max(FLOOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::draw::ScriptedRng,
        ir::fault::{Fault, FaultKind, TransportFault, TransportKind},
        routing::{
            fixture::{at, policy},
            outcome::{of_fault, of_transport},
        },
    };

    fn said(kind: FaultKind, status: u16) -> Outcome {
        let fault = Fault {
            kind,
            status,
            message: String::new(),
            code: None,
            error_type: None,
            param: None,
            retry_after: None,
        };
        of_fault(&fault, None, true)
    }

    /// How many tries a request makes that always ends like this and always goes `to`.
    fn tries(outcome: &Outcome, to: To, rules: &RetrySettings) -> (u32, Stop) {
        let (mut so_far, mut budget) = (Attempts::default(), Budget::default());
        for tries in 1..100 {
            so_far.failed(outcome);
            if let Again::Stop(why) = again(
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
    fn how_often_each_kind_of_failure_is_tried() {
        let rules = policy().retry;
        let lost = of_transport(&TransportFault {
            kind: TransportKind::Reset,
            message: String::new(),
            may_be_received: true,
        });
        let refused = of_transport(&TransportFault {
            kind: TransportKind::Connect,
            message: String::new(),
            may_be_received: false,
        });
        for (outcome, to, want) in [
            (said(FaultKind::Server, 500), To::Other, (4, Stop::Attempts)),
            (said(FaultKind::Server, 500), To::Same, (4, Stop::Attempts)),
            (said(FaultKind::RateLimited, 429), To::Other, (32, Stop::Attempts)),
            (said(FaultKind::RateLimited, 429), To::Same, (4, Stop::Attempts)),
            (refused, To::Other, (32, Stop::Attempts)),
            (said(FaultKind::Conflict, 409), To::Same, (2, Stop::Final)),
            (lost, To::Other, (2, Stop::Final)),
            (said(FaultKind::BadRequest, 400), To::Other, (1, Stop::Final)),
        ] {
            assert_eq!(tries(&outcome, to, &rules), want, "{} {to:?}", outcome.cause);
        }
    }

    #[test]
    fn one_attempt_means_one_attempt() {
        let rules = RetrySettings { max_attempts: 1, ..policy().retry };
        assert_eq!(tries(&said(FaultKind::Server, 500), To::Other, &rules).0, 1);
        assert_eq!(tries(&said(FaultKind::RateLimited, 429), To::Same, &rules).0, 1);
    }

    #[test]
    fn pauses_double_with_full_jitter() {
        let (outcome, rules) = (said(FaultKind::Server, 500), policy().retry);
        let (mut so_far, mut budget) = (Attempts::default(), Budget::default());
        for (luck, millis) in [(1.0, 250), (0.5, 250), (1.0, 1_000)] {
            so_far.failed(&outcome);
            let got = again(
                &outcome,
                &mut so_far,
                To::Same,
                &rules,
                &mut budget,
                at(0),
                &mut ScriptedRng::new(&[luck]),
            );
            assert_eq!(got, Again::After(Duration::from_millis(millis)));
        }
    }

    #[test]
    fn the_budget_is_a_share_of_the_requests_with_a_floor() {
        let mut budget = Budget::default();
        for _ in 0..10 {
            assert!(budget.allows(0.2, at(0)));
            budget.retried(at(0));
        }
        assert!(!budget.allows(0.2, at(0)), "the floor is ten");
        for _ in 0..100 {
            budget.request(at(1));
        }
        assert!(budget.allows(0.2, at(1)), "a fifth of a hundred is twenty");
        assert!(!budget.allows(0.0, at(1)));
        assert!(budget.allows(0.0, at(11)), "ten seconds later all is forgotten");
    }

    #[test]
    fn moving_to_a_ready_candidate_is_never_refused_by_the_budget() {
        let (outcome, rules) = (said(FaultKind::Server, 500), policy().retry);
        let mut budget = Budget::default();
        for _ in 0..1_000 {
            budget.retried(at(0));
        }
        let mut so_far = Attempts::default();
        so_far.failed(&outcome);
        assert_eq!(
            again(
                &outcome,
                &mut so_far,
                To::Other,
                &rules,
                &mut budget,
                at(0),
                &mut ScriptedRng::new(&[0.0])
            ),
            Again::AtOnce
        );
        let same = again(
            &outcome,
            &mut so_far,
            To::Same,
            &rules,
            &mut budget,
            at(0),
            &mut ScriptedRng::new(&[0.0]),
        );
        assert_eq!(same, Again::Stop(Stop::Budget));
    }
}
