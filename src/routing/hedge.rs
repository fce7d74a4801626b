//! When a second target is asked beside one that has not spoken yet, and who may be: pure, and what
//! it is counted by.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::candidate::{Candidate, FailedAttempt};
use crate::config::settings::{Hedge, HedgeDelay, UpstreamId};

/// Answers from which on the slowest twentieth is known.
pub const MIN_SAMPLES: usize = 20;
/// Newest answers that count for each target.
const MAX_SAMPLES: usize = 100;
/// Targets whose answers are remembered; beyond, the one heard of longest ago goes.
const MAX_TARGETS: usize = 256;
/// Hedges that may be saved up while none is needed.
const MAX_CREDIT: f64 = 3.0;
/// The share of a budget from which on nothing is asked twice.
pub const MAX_BUDGET_USED: f64 = 0.8;

/// What a decision looks at of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HedgeInput {
    /// Estimated input tokens.
    pub input_tokens: u64,
    /// The provider itself runs tools for it: what they do may cost, and may be done only once.
    pub server_tools: bool,
    /// The share that is spent of the fullest budget that it counts against.
    pub budget_used: f64,
}

/// Why there will be no second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHedge {
    Budget,
    Large,
    /// The share of requests that may be asked twice is used up.
    ShareUsed,
    ServerTools,
    /// Too few answers are known to say what is slow.
    TooFewSamples,
}

/// After how long a second is asked. `p95`: of the first's answers; `credit`: hedges that the share
/// allows for.
///
/// # Errors
///
/// Why none is.
pub fn hedge_delay(
    rule: &Hedge,
    input: HedgeInput,
    p95: Option<Duration>,
    credit: f64,
) -> Result<Duration, NoHedge> {
    if input.server_tools {
        return Err(NoHedge::ServerTools);
    }
    if input.input_tokens > rule.max_tokens {
        return Err(NoHedge::Large);
    }
    if input.budget_used >= MAX_BUDGET_USED {
        return Err(NoHedge::Budget);
    }
    if credit < 1.0 {
        return Err(NoHedge::ShareUsed);
    }
    match rule.after {
        HedgeDelay::Fixed(span) => Ok(span),
        HedgeDelay::P95 => p95.ok_or(NoHedge::TooFewSamples),
    }
}

/// Who counts as asked already when a second is looked for: whoever was, and with `first` its whole
/// account, so that another one is asked; with `same_account` only itself.
#[must_use]
pub fn as_failed(
    candidates: &[Candidate],
    tried: &[FailedAttempt],
    first: usize,
    same_account: bool,
) -> Vec<FailedAttempt> {
    let Some(first) = candidates.get(first) else { return tried.to_vec() };
    let is_first = |c: &Candidate| c.key == first.key && c.target.model == first.target.model;
    let out = candidates
        .iter()
        .filter(|c| if same_account { is_first(c) } else { c.account == first.account });
    let out = out.map(|c| FailedAttempt {
        key: c.key,
        upstream: c.upstream(),
        model: Arc::clone(&c.target.model),
        may_recover: false,
        upstream_failed: false,
    });
    tried.iter().cloned().chain(out).collect()
}

/// How long a target's answers took to begin, and how many hedges each logical model may still
/// have.
#[derive(Debug, Default)]
pub struct TargetLatencies {
    targets: VecDeque<TargetStats>,
    credits: Vec<(Arc<str>, f64)>,
}

#[derive(Debug)]
struct TargetStats {
    upstream: UpstreamId,
    model: Arc<str>,
    /// A whole answer takes longer than the beginning of one.
    stream: bool,
    latencies: VecDeque<Duration>,
}

impl TargetLatencies {
    /// A request for a logical model: a part of a hedge is allowed for.
    pub fn earn_credit(&mut self, rule: &Hedge) {
        match self.credits.iter_mut().find(|(model, _)| *model == rule.model) {
            Some((_, credit)) => *credit = (*credit + rule.max_share).min(MAX_CREDIT),
            None => self.credits.push((Arc::clone(&rule.model), rule.max_share)),
        }
    }

    /// Hedges that a logical model may have now.
    #[must_use]
    pub fn credit(&self, rule: &Hedge) -> f64 {
        self.credits
            .iter()
            .find(|(model, _)| *model == rule.model)
            .map_or(0.0, |(_, credit)| *credit)
    }

    /// Takes one of them; false where there is none.
    pub fn spend_credit(&mut self, rule: &Hedge) -> bool {
        match self.credits.iter_mut().find(|(model, _)| *model == rule.model) {
            // Twenty twentieths are one, whatever their sum is in binary.
            Some((_, credit)) if *credit >= 1.0 - 1e-9 => {
                *credit -= 1.0;
                true
            }
            _ => false,
        }
    }

    /// A target's answer began after so long.
    pub fn record_latency(&mut self, candidate: &Candidate, stream: bool, latency: Duration) {
        let at = self.targets.iter().position(|known| known.matches(candidate, stream));
        let mut target = at.and_then(|at| self.targets.remove(at)).unwrap_or_else(|| TargetStats {
            upstream: candidate.upstream(),
            model: Arc::clone(&candidate.target.model),
            stream,
            latencies: VecDeque::new(),
        });
        if target.latencies.len() >= MAX_SAMPLES {
            target.latencies.pop_front();
        }
        target.latencies.push_back(latency);
        self.targets.push_back(target);
        if self.targets.len() > MAX_TARGETS {
            self.targets.pop_front();
        }
    }

    /// How long all but the slowest twentieth of a target's answers took to begin, where that is
    /// known.
    #[must_use]
    pub fn p95(&self, candidate: &Candidate, stream: bool) -> Option<Duration> {
        let target = self
            .targets
            .iter()
            .find(|known| known.matches(candidate, stream))
            .filter(|known| known.latencies.len() >= MIN_SAMPLES)?;
        let mut took: Vec<Duration> = target.latencies.iter().copied().collect();
        let rank = (took.len() * 95).div_ceil(100).saturating_sub(1);
        let (_, p95, _) = took.select_nth_unstable(rank);
        Some(*p95)
    }
}

impl TargetStats {
    fn matches(&self, candidate: &Candidate, stream: bool) -> bool {
        self.upstream == candidate.upstream()
            && self.stream == stream
            && self.model == candidate.target.model
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::*;
    use crate::routing::{
        candidate::AccountId,
        test_support::{cases, ready_candidates, target, upstream},
    };

    fn rule(after: HedgeDelay, max_share: f64) -> Hedge {
        Hedge { model: "auto".into(), after, max_share, max_tokens: 20_000 }
    }

    #[test]
    fn a_second_is_asked_only_where_nothing_speaks_against_it() {
        let (p95, s) = (Some(Duration::from_millis(700)), Duration::from_secs);
        let fine = HedgeInput { input_tokens: 20_000, server_tools: false, budget_used: 0.79 };
        for (after, facts, p95, credit, want) in [
            (HedgeDelay::P95, fine, p95, 1.0, Ok(Duration::from_millis(700))),
            (HedgeDelay::Fixed(s(2)), fine, None, 1.0, Ok(s(2))),
            (HedgeDelay::P95, fine, None, 1.0, Err(NoHedge::TooFewSamples)),
            (HedgeDelay::P95, fine, p95, 0.95, Err(NoHedge::ShareUsed)),
            (
                HedgeDelay::P95,
                HedgeInput { input_tokens: 20_001, ..fine },
                p95,
                1.0,
                Err(NoHedge::Large),
            ),
            (
                HedgeDelay::P95,
                HedgeInput { server_tools: true, ..fine },
                p95,
                1.0,
                Err(NoHedge::ServerTools),
            ),
            (
                HedgeDelay::P95,
                HedgeInput { budget_used: 0.8, ..fine },
                p95,
                1.0,
                Err(NoHedge::Budget),
            ),
        ] {
            assert_eq!(
                hedge_delay(&rule(after, 0.05), facts, p95, credit),
                want,
                "{after:?} {facts:?} {credit}"
            );
        }
    }

    #[test]
    fn another_account_is_asked_first_and_never_the_same_again() {
        let mut candidates = ready_candidates(&[
            target(&Arc::new(upstream(1, "a", None, 2)), "m"),
            target(&Arc::new(upstream(2, "b", None, 1)), "m"),
        ]);
        candidates[1].account = AccountId(candidates[0].key.0);
        let names =
            |tried: &[FailedAttempt]| tried.iter().map(|tried| tried.key).collect::<Vec<_>>();

        assert_eq!(
            names(&as_failed(&candidates, &[], 0, false)),
            [candidates[0].key, candidates[1].key]
        );
        assert_eq!(names(&as_failed(&candidates, &[], 0, true)), [candidates[0].key]);
        let failed = as_failed(&candidates, &[], 2, true);
        assert_eq!(
            names(&as_failed(&candidates, &failed, 0, true)),
            [candidates[2].key, candidates[0].key]
        );
    }

    #[test]
    fn what_is_slow_is_known_from_twenty_answers_on_of_the_same_kind() {
        let candidates = ready_candidates(&[target(&Arc::new(upstream(1, "a", None, 1)), "m")]);
        let mut pace = TargetLatencies::default();
        for n in 1..=19 {
            pace.record_latency(&candidates[0], true, Duration::from_millis(n));
        }
        assert_eq!(pace.p95(&candidates[0], true), None);
        pace.record_latency(&candidates[0], true, Duration::from_secs(9));
        assert_eq!(pace.p95(&candidates[0], true), Some(Duration::from_millis(19)));
        assert_eq!(pace.p95(&candidates[0], false), None, "whole answers are another matter");
        for _ in 0..200 {
            pace.record_latency(&candidates[0], true, Duration::from_secs(1));
        }
        assert_eq!(pace.p95(&candidates[0], true), Some(Duration::from_secs(1)));
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn no_more_are_asked_twice_than_the_share_allows(share in 0.0_f64..1.0, wanted in proptest::collection::vec(proptest::bool::ANY, 1..600)) {
            let (mut pace, rule, mut hedged) = (TargetLatencies::default(), rule(HedgeDelay::P95, share), 0_u32);
            for (n, wants) in (1_u32..).zip(&wanted) {
                pace.earn_credit(&rule);
                hedged += u32::from(*wants && pace.spend_credit(&rule));
                prop_assert!(f64::from(hedged) <= share * f64::from(n) + 1e-6, "{hedged} of {n}");
            }
        }

        #[test]
        fn no_more_targets_are_remembered_than_fit(n in 1_u32..600) {
            let mut pace = TargetLatencies::default();
            for id in 0..n {
                pace.record_latency(&ready_candidates(&[target(&Arc::new(upstream(id, "a", None, 1)), "m")])[0], true, Duration::ZERO);
                prop_assert!(pace.targets.len() <= MAX_TARGETS);
            }
        }
    }
}
