//! Decides when a hedge request goes to a second target and which targets may serve it, and
//! collects the latencies for that.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{candidate::Candidate, decision::FailedAttempt};
use crate::config::settings::{Hedge, HedgeDelay, UpstreamId};

/// The minimum number of responses before the 95th percentile is known.
pub const MIN_SAMPLES: usize = 20;
/// The number of newest responses that count for each target.
const MAX_SAMPLES: usize = 100;
/// Targets whose latencies are stored; above it, the least recently updated one is evicted.
const MAX_TARGETS: usize = 256;
/// Maximum hedge credit that a logical model can save up.
const MAX_CREDIT: f64 = 3.0;
/// From this spent share of a budget on, no request is hedged.
pub const MAX_BUDGET_USED: f64 = 0.8;

/// The properties of a request that decide about a hedge.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HedgeInput {
    /// Estimated input tokens.
    pub input_tokens: u64,
    /// The provider itself runs tools for the request; their effects may cost money and must happen
    /// only once.
    pub server_tools: bool,
    /// The spent share of the fullest budget that the request counts against.
    pub budget_used: f64,
}

/// Why the request is not hedged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHedge {
    Budget,
    Large,
    /// The share of requests that may be hedged is used up.
    ShareUsed,
    ServerTools,
    /// Too few responses are known to say what is slow.
    TooFewSamples,
}

/// Returns the delay before the hedge is sent. `p95` is the 95th percentile of the first target's
/// latencies; `credit` is the number of hedges that the share allows.
///
/// # Errors
///
/// Why the request is not hedged.
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

/// Returns the attempts to treat as failed when choosing a hedge target. Adds the whole account of
/// `first`, so that another account serves the hedge; with `same_account` it adds only `first`
/// itself.
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
        upstream_refuses: false,
    });
    tried.iter().cloned().chain(out).collect()
}

/// Latencies to the first content per target, and the remaining hedge credit per logical model.
#[derive(Debug, Default)]
pub struct TargetLatencies {
    targets: VecDeque<TargetStats>,
    credits: Vec<(Arc<str>, f64)>,
}

#[derive(Debug)]
struct TargetStats {
    upstream: UpstreamId,
    model: Arc<str>,
    /// Streams are counted separately, because a complete response takes longer than the start of
    /// one.
    stream: bool,
    latencies: VecDeque<Duration>,
}

impl TargetLatencies {
    /// Adds a share of a hedge for each request to a logical model.
    pub fn earn_credit(&mut self, rule: &Hedge) {
        match self.credits.iter_mut().find(|(model, _)| *model == rule.model) {
            Some((_, credit)) => *credit = (*credit + rule.max_share).min(MAX_CREDIT),
            None => self.credits.push((Arc::clone(&rule.model), rule.max_share)),
        }
    }

    /// Returns the number of hedges that a logical model may send now.
    #[must_use]
    pub fn credit(&self, rule: &Hedge) -> f64 {
        self.credits
            .iter()
            .find(|(model, _)| *model == rule.model)
            .map_or(0.0, |(_, credit)| *credit)
    }

    /// Uses one hedge; returns false if no credit is left.
    pub fn spend_credit(&mut self, rule: &Hedge) -> bool {
        match self.credits.iter_mut().find(|(model, _)| *model == rule.model) {
            // Tolerates rounding: twenty times 0.05 must equal one hedge.
            Some((_, credit)) if *credit >= 1.0 - 1e-9 => {
                *credit -= 1.0;
                true
            }
            _ => false,
        }
    }

    /// Records how long a target's response took to begin.
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

    /// Returns the 95th percentile of a target's latencies, if known.
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
    fn hedge_needs_every_condition() {
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
    fn hedge_prefers_another_account_and_never_repeats_a_target() {
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
    fn p95_needs_twenty_answers_of_the_same_kind() {
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
        fn hedges_never_exceed_their_share(share in 0.0_f64..1.0, wanted in proptest::collection::vec(proptest::bool::ANY, 1..600)) {
            let (mut pace, rule, mut hedged) = (TargetLatencies::default(), rule(HedgeDelay::P95, share), 0_u32);
            for (n, wants) in (1_u32..).zip(&wanted) {
                pace.earn_credit(&rule);
                hedged += u32::from(*wants && pace.spend_credit(&rule));
                prop_assert!(f64::from(hedged) <= share * f64::from(n) + 1e-6, "{hedged} of {n}");
            }
        }

        #[test]
        fn number_of_tracked_targets_is_limited(n in 1_u32..600) {
            let mut pace = TargetLatencies::default();
            for id in 0..n {
                pace.record_latency(&ready_candidates(&[target(&Arc::new(upstream(id, "a", None, 1)), "m")])[0], true, Duration::ZERO);
                prop_assert!(pace.targets.len() <= MAX_TARGETS);
            }
        }
    }
}
