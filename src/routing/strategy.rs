//! Chooses among equally good candidates: first a target, with one function per strategy, then one
//! of its keys.

use std::{cmp::Ordering, sync::Arc};

use super::{
    candidate::{Candidate, Target},
    decision::RouteQuery,
    health::Health,
};
use crate::routing::health::stats::StatsSummary;
use crate::{
    base::{clock::Mono, rng::Rng},
    config::settings::{AdaptiveMix, Strategy},
};

/// A time to first token that counts as the worst.
const SLOW_TTFT_S: f64 = 4.0;
/// A candidate with a lower score is picked only if all others score as low.
const MIN_SCORE: f64 = 0.1;
/// A target with a higher error rate gets score 0 under [`AdaptiveMix::ErrorRate`].
const MAX_ERROR_RATE: f64 = 0.85;
/// The minimum number of attempts for a meaningful error rate.
const MIN_SAMPLES: u32 = 10;

/// Picks a candidate from `pool`: indices into the query's candidates, all of one tier, in config
/// order, not empty.
#[must_use]
pub fn choose(
    q: &RouteQuery<'_>,
    pool: &[usize],
    health: &Health,
    now: Mono,
    rng: &mut dyn Rng,
) -> usize {
    let targets = || {
        let mut last: Option<&Arc<Target>> = None;
        pool.iter().map(|&i| &q.candidates[i].target).filter(move |&target| {
            let new = last.is_none_or(|last| !Arc::ptr_eq(last, target));
            last = Some(target);
            new
        })
    };
    let chosen = match q.strategy {
        Strategy::Priority => targets().next(),
        Strategy::RoundRobin => round_robin(targets(), health),
        Strategy::Weighted => weighted(&targets, health, rng),
        Strategy::LeastBusy | Strategy::LeastCost | Strategy::LeastLatency => {
            let scored = scores(q, pool, health, now);
            let virtual_time = |index: usize| {
                if q.strategy == Strategy::LeastBusy {
                    virtual_time(&q.candidates[index].target, health)
                } else {
                    0.0
                }
            };
            // The first among equals; under `LeastBusy`, the one that waited longest.
            let best = scored.iter().min_by(|(a, x), (b, y)| {
                y.total_cmp(x).then_with(|| virtual_time(*a).total_cmp(&virtual_time(*b)))
            });
            best.map(|(index, _)| &q.candidates[*index].target)
        }
        Strategy::Adaptive(_) => weighted_pick(&scores(q, pool, health, now), rng)
            .map(|index| &q.candidates[index].target),
    };
    choose_key(q.strategy, chosen, pool, q.candidates, health)
}

/// Scores each target of a pool: the index of its first candidate, and a number (greater is
/// better). Strategies without weighing give all targets the same score.
#[must_use]
pub fn scores(q: &RouteQuery<'_>, pool: &[usize], health: &Health, now: Mono) -> Vec<(usize, f64)> {
    let mut out: Vec<(usize, f64)> = Vec::new();
    for &index in pool {
        let target = &q.candidates[index].target;
        if out.iter().all(|(known, _)| !Arc::ptr_eq(&q.candidates[*known].target, target)) {
            out.push((index, 0.0));
        }
    }
    let largest =
        |of: &dyn Fn(usize) -> f64| out.iter().map(|(index, _)| of(*index)).fold(0.0, f64::max);
    let cost = |index: usize| q.costs.get(index).copied().flatten();
    let (dearest, heaviest) = (
        largest(&|index| cost(index).unwrap_or_default()),
        largest(&|index| q.candidates[index].target.weight),
    );
    let score = |index: usize| {
        let target = &q.candidates[index].target;
        let upstream = health.upstreams.get(&target.upstream.id);
        match q.strategy {
            Strategy::Priority | Strategy::RoundRobin | Strategy::Weighted => 0.0,
            Strategy::LeastBusy => {
                -upstream.map_or(0.0, |upstream| f64::from(upstream.running))
                    / target.weight.max(1e-6)
            }
            Strategy::LeastCost => cost(index).map_or(f64::NEG_INFINITY, |cost| -cost),
            Strategy::LeastLatency => -upstream
                .and_then(|upstream| upstream.target(&target.model))
                .map_or(0.0, |target| target.ttft.expected(now)),
            Strategy::Adaptive(mix) => {
                let recent =
                    upstream.map(|upstream| upstream.stats.summary(now)).unwrap_or_default();
                match mix_weights(mix) {
                    None => error_rate_score(target.weight, recent),
                    Some(shares) => {
                        let cost = if dearest > 0.0 {
                            cost(index).map_or(1.0, |cost| cost / dearest)
                        } else {
                            0.0
                        };
                        composite_score(target.weight / heaviest.max(1e-6), recent, cost, shares)
                    }
                }
            }
        }
    };
    out.iter().map(|&(index, _)| (index, score(index))).collect()
}

/// Returns the weights of latency, errors, cost and status; `None` if only errors count.
fn mix_weights(mix: AdaptiveMix) -> Option<[f64; 4]> {
    match mix {
        AdaptiveMix::Balanced => Some([0.3, 0.3, 0.2, 0.2]),
        AdaptiveMix::LatencyFirst => Some([0.6, 0.2, 0.1, 0.1]),
        AdaptiveMix::CostFirst => Some([0.2, 0.2, 0.5, 0.1]),
        AdaptiveMix::ReliabilityFirst => Some([0.3, 0.5, 0.1, 0.1]),
        AdaptiveMix::ErrorRate => None,
    }
}

fn composite_score(weight: f64, recent: StatsSummary, cost: f64, [a, b, c, d]: [f64; 4]) -> f64 {
    let p95 = recent.ttft_p95.map(|span| span.as_secs_f64());
    let latency = p95.map_or(0.5, |p95| (p95 / SLOW_TTFT_S).min(1.0));
    let errors = if recent.attempts < MIN_SAMPLES { 0.0 } else { recent.error_rate };
    let status = if errors > 0.5 {
        1.0
    } else if errors > 0.1 || p95.is_some_and(|p95| p95 > SLOW_TTFT_S / 2.0) {
        0.5
    } else {
        0.0
    };
    weight - a * latency - b * errors - c * cost - d * status
}

fn error_rate_score(weight: f64, recent: StatsSummary) -> f64 {
    let errors =
        if recent.attempts < MIN_SAMPLES { 0.0 } else { recent.error_rate.clamp(0.0, 1.0) };
    if errors > MAX_ERROR_RATE { 0.0 } else { weight.max(0.0) / (errors + 0.1).powi(2) }
}

/// Picks at random by score; low-scored candidates take part only if all are low-scored.
fn weighted_pick(scored: &[(usize, f64)], rng: &mut dyn Rng) -> Option<usize> {
    let fit = scored.iter().any(|(_, score)| *score >= MIN_SCORE);
    let share = |score: f64| {
        if !fit {
            1.0
        } else if score >= MIN_SCORE {
            score
        } else {
            0.0
        }
    };
    let mut point = rng.next_f64() * scored.iter().map(|(_, score)| share(*score)).sum::<f64>();
    let found = scored.iter().find(|(_, score)| {
        point -= share(*score);
        point < 0.0
    });
    found.or_else(|| scored.iter().max_by(|(_, a), (_, b)| a.total_cmp(b))).map(|(index, _)| *index)
}

/// Returns the target that waited longest.
fn round_robin<'a>(
    targets: impl Iterator<Item = &'a Arc<Target>>,
    health: &Health,
) -> Option<&'a Arc<Target>> {
    targets.min_by(|a, b| virtual_time(a, health).total_cmp(&virtual_time(b, health)))
}

/// Stride scheduling over weights. Equals are picked at random by weight, so that freshly started
/// proxies differ.
fn weighted<'a, I: Iterator<Item = &'a Arc<Target>>>(
    targets: &dyn Fn() -> I,
    health: &Health,
    rng: &mut dyn Rng,
) -> Option<&'a Arc<Target>> {
    let earliest = targets().map(|target| virtual_time(target, health)).min_by(f64::total_cmp)?;
    let equals = || targets().filter(|target| virtual_time(target, health) <= earliest);
    let mut point = rng.next_f64() * equals().map(|target| target.weight.max(0.0)).sum::<f64>();
    let picked = equals().find(|target| {
        point -= target.weight.max(0.0);
        point < 0.0
    });
    picked.or_else(|| equals().next())
}

/// Returns a target's virtual time. A target that was away starts at the current virtual time of
/// the others.
fn virtual_time(target: &Target, health: &Health) -> f64 {
    let known = health
        .upstreams
        .get(&target.upstream.id)
        .and_then(|upstream| upstream.target(&target.model));
    known.map_or(0.0, |target| target.virtual_time).max(health.target_virtual_time)
}

/// Stride scheduling over the keys of the chosen target; the first of equals in config order. Under
/// `LeastBusy` the number of running attempts takes precedence.
fn choose_key(
    strategy: Strategy,
    chosen: Option<&Arc<Target>>,
    pool: &[usize],
    candidates: &[Candidate],
    health: &Health,
) -> usize {
    let time = chosen
        .and_then(|target| health.upstreams.get(&target.upstream.id))
        .map_or(0.0, |upstream| upstream.key_virtual_time);
    let virtual_time = |i: usize| {
        health.keys.get(&candidates[i].key).map_or(0.0, |key| key.virtual_time).max(time)
    };
    let running = |i: usize| {
        let busy = strategy == Strategy::LeastBusy;
        health
            .keys
            .get(&candidates[i].key)
            .filter(|_| busy)
            .map_or(0.0, |key| f64::from(key.running) / candidates[i].key_weight.max(1e-6))
    };
    let of_target = pool
        .iter()
        .copied()
        .filter(|&i| chosen.is_none_or(|target| Arc::ptr_eq(target, &candidates[i].target)));
    let order = |(_, a, x): &(usize, f64, f64), (_, b, y): &(usize, f64, f64)| -> Ordering {
        a.total_cmp(b).then(x.total_cmp(y))
    };
    of_target.map(|i| (i, running(i), virtual_time(i))).min_by(order).map_or(pool[0], |(i, ..)| i)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;
    use crate::{
        base::rng::{ScriptedRng, XorShiftRng},
        config::settings::Upstream,
        routing::test_support::{at, cases, policy, ready_candidates, target, upstream},
    };

    fn pick(
        strategy: Strategy,
        pool: &[usize],
        candidates: &[Candidate],
        health: &Health,
        draw: &mut dyn Rng,
    ) -> usize {
        choose(
            &RouteQuery { strategy, ..RouteQuery::first_attempt(candidates) },
            pool,
            health,
            at(0),
            draw,
        )
    }

    fn run(
        strategy: Strategy,
        candidates: &[Candidate],
        n: usize,
        draw: &mut dyn Rng,
    ) -> BTreeMap<String, usize> {
        let mut health = Health::new(policy());
        let pool: Vec<usize> = (0..candidates.len()).collect();
        let mut went = BTreeMap::new();
        for _ in 0..n {
            let index = pick(strategy, &pool, candidates, &health, draw);
            let ticket = health.start_attempt(&candidates[index], strategy, false, at(0));
            *went.entry(ticket.key_name.to_string()).or_default() += 1;
        }
        went
    }

    fn of(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
        pairs.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
    }

    #[test]
    fn keys_are_picked_in_proportion_to_their_weights() {
        let mut openai = upstream(1, "openai", None, 2);
        Arc::make_mut(&mut openai.keys[1]).weight = 3.0;
        let candidates = ready_candidates(&[target(&Arc::new(openai), "gpt")]);
        let got = run(Strategy::Priority, &candidates, 40, &mut ScriptedRng::new(&[0.0]));
        assert_eq!(got, of(&[("openai/k0", 10), ("openai/k1", 30)]));
    }

    #[test]
    fn targets_follow_their_strategy() {
        let mut heavy = upstream(2, "b", None, 1);
        heavy.weight = 3.0;
        let candidates = ready_candidates(&[
            target(&Arc::new(upstream(1, "a", None, 1)), "m"),
            target(&Arc::new(heavy), "m"),
        ]);
        for (strategy, want) in [
            (Strategy::Priority, of(&[("a/k0", 40)])),
            (Strategy::RoundRobin, of(&[("a/k0", 20), ("b/k0", 20)])),
            (Strategy::Weighted, of(&[("a/k0", 10), ("b/k0", 30)])),
        ] {
            assert_eq!(
                run(strategy, &candidates, 40, &mut XorShiftRng::new(7)),
                want,
                "{strategy:?}"
            );
        }
    }

    #[test]
    fn two_models_of_one_upstream_have_their_own_weights() {
        let one = Arc::new(upstream(1, "a", None, 1));
        let (small, mut large) = (target(&one, "small"), target(&one, "large"));
        Arc::make_mut(&mut large).weight = 3.0;
        let candidates = ready_candidates(&[small, large]);
        let mut health = Health::new(policy());
        let mut went = BTreeMap::new();
        for _ in 0..40 {
            let index =
                pick(Strategy::Weighted, &[0, 1], &candidates, &health, &mut XorShiftRng::new(3));
            *went
                .entry(
                    health
                        .start_attempt(&candidates[index], Strategy::Weighted, false, at(0))
                        .model
                        .to_string(),
                )
                .or_insert(0) += 1;
        }
        assert_eq!(went, of(&[("large", 30), ("small", 10)]));
    }

    #[test]
    fn returning_key_does_not_catch_up_on_missed_requests() {
        let candidates =
            ready_candidates(&[target(&Arc::new(upstream(1, "openai", None, 2)), "gpt")]);
        let mut health = Health::new(policy());
        for _ in 0..1_000 {
            health.start_attempt(&candidates[0], Strategy::Priority, false, at(0));
        }
        let mut second = 0;
        for _ in 0..10 {
            let index = pick(
                Strategy::Priority,
                &[0, 1],
                &candidates,
                &health,
                &mut ScriptedRng::new(&[0.0]),
            );
            health.start_attempt(&candidates[index], Strategy::Priority, false, at(0));
            second += usize::from(index == 1);
        }
        assert!((5..=6).contains(&second), "{second} of 10");
    }

    /// Two upstreams, `a` and `b`, with their history: times to first token in milliseconds, and
    /// number of failures.
    fn two(lately: [(&[u64], u32); 2]) -> (Vec<Candidate>, Health) {
        let upstreams: Vec<Arc<Upstream>> =
            vec![Arc::new(upstream(1, "a", None, 1)), Arc::new(upstream(2, "b", None, 1))];
        let mut health = Health::new(policy());
        for (upstream, (times, failures)) in upstreams.iter().zip(lately) {
            let known = health.upstreams.entry(upstream.id).or_default();
            for millis in times {
                let ttft = Duration::from_millis(*millis);
                known.stats.record(false, Some(ttft), at(0));
                known.target_mut(&"m".into()).ttft.record(ttft, at(0));
            }
            for _ in 0..failures {
                known.stats.record(true, None, at(0));
            }
        }
        let targets: Vec<_> = upstreams.iter().map(|upstream| target(upstream, "m")).collect();
        (ready_candidates(&targets), health)
    }

    /// Returns how many of a hundred requests go to the first.
    fn first(
        strategy: Strategy,
        (candidates, health): &(Vec<Candidate>, Health),
        costs: &[Option<f64>],
    ) -> usize {
        let mut luck = XorShiftRng::new(11);
        let question = RouteQuery { strategy, costs, ..RouteQuery::first_attempt(candidates) };
        (0..100).filter(|_| choose(&question, &[0, 1], health, at(1), &mut luck) == 0).count()
    }

    #[test]
    fn least_latency_picks_the_fastest_and_tries_unmeasured_ones() {
        let quick: &[u64] = &[200, 210];
        assert_eq!(first(Strategy::LeastLatency, &two([(&[900, 950], 0), (quick, 0)]), &[]), 0);
        assert_eq!(
            first(Strategy::LeastLatency, &two([(&[200, 3_000], 0), (&[900, 900], 0)]), &[]),
            0,
            "a peak counts"
        );
        assert_eq!(
            first(Strategy::LeastLatency, &two([(quick, 0), (&[], 0)]), &[]),
            0,
            "nothing is known of the second"
        );
    }

    #[test]
    fn least_cost_picks_the_cheapest_and_unpriced_ones_last() {
        let world = two([(&[], 0), (&[], 0)]);
        for (costs, want) in [
            ([Some(5.0), Some(3.0)], 0),
            ([Some(5.0), None], 100),
            ([None, Some(9.0)], 0),
            ([None, None], 100),
        ] {
            assert_eq!(first(Strategy::LeastCost, &world, &costs), want, "{costs:?}");
        }
    }

    #[test]
    fn least_busy_is_relative_to_the_weight() {
        let mut heavy = upstream(2, "b", None, 1);
        heavy.weight = 3.0;
        let candidates = ready_candidates(&[
            target(&Arc::new(upstream(1, "a", None, 1)), "m"),
            target(&Arc::new(heavy), "m"),
        ]);
        assert_eq!(
            run(Strategy::LeastBusy, &candidates, 40, &mut ScriptedRng::new(&[0.0])),
            of(&[("a/k0", 10), ("b/k0", 30)])
        );
    }

    #[test]
    fn adaptive_mixes_weight_latency_errors_and_cost() {
        use AdaptiveMix::{Balanced, CostFirst, ErrorRate, LatencyFirst, ReliabilityFirst};
        let slow: Vec<u64> = vec![3_900; 20];
        let fast: Vec<u64> = vec![100; 20];
        let share =
            |mix, world, costs: &[Option<f64>]| first(Strategy::Adaptive(mix), &two(world), costs);

        let by_latency = [Balanced, LatencyFirst, CostFirst, ReliabilityFirst]
            .map(|mix| share(mix, [(&slow, 0), (&fast, 0)], &[]));
        assert!(by_latency[1] < by_latency[0] && by_latency[0] < by_latency[2], "{by_latency:?}");
        let by_cost = [Balanced, CostFirst]
            .map(|mix| share(mix, [(&fast, 0), (&fast, 0)], &[Some(10.0), Some(1.0)]));
        assert!(by_cost[1] < by_cost[0] && by_cost[0] < 50, "{by_cost:?}");
        let half: Vec<u64> = vec![100; 12];
        let by_errors =
            [Balanced, ReliabilityFirst].map(|mix| share(mix, [(&half, 8), (&fast, 0)], &[]));
        assert!(by_errors[1] < by_errors[0] && by_errors[0] < 50, "{by_errors:?}");

        let rule = share(ErrorRate, [(&half, 8), (&fast, 0)], &[]);
        assert!((0..12).contains(&rule), "40 % of errors against none is 4 : 100, got {rule}");
        assert_eq!(
            share(ErrorRate, [(&[100], 20), (&fast, 0)], &[]),
            0,
            "above 85 % nothing is sent while there is another"
        );
        assert!(
            (35..65).contains(&share(ErrorRate, [(&[], 9), (&fast, 0)], &[])),
            "nine attempts are too few"
        );
        assert!(
            (35..65).contains(&share(ErrorRate, [(&[], 30), (&[], 30)], &[])),
            "where all are bad all are tried"
        );
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn some_candidate_is_always_picked(
            which in 0..Strategy::ALL.len(),
            times in proptest::collection::vec(0_u64..100_000, 0..30),
            failures in 0_u32..40,
            costs in proptest::option::of(any::<f64>()),
            weight in 0.001_f64..1e6,
            luck in 0.0_f64..1.0,
        ) {
            let (mut candidates, health) = two([(&times, failures), (&[], 0)]);
            Arc::make_mut(&mut candidates[1].target).weight = weight;
            let costs = [costs, None];
            let question = RouteQuery { strategy: Strategy::ALL[which].1, costs: &costs, ..RouteQuery::first_attempt(&candidates) };
            for pool in [&[0_usize, 1][..], &[0], &[1]] {
                prop_assert!(pool.contains(&choose(&question, pool, &health, at(5), &mut ScriptedRng::new(&[luck]))));
            }
        }
    }
}
