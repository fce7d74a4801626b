//! Which of the equally good: first among targets, one function per strategy, then among the keys of the chosen target.

use std::sync::Arc;

use super::{
    candidate::{Candidate, Target},
    health::Health,
};
use crate::{base::draw::Draw, config::settings::Strategy};

/// The one to use out of `pool`, which holds places in `candidates`, all of one tier, in config order, not empty.
#[must_use]
pub fn choose(strategy: Strategy, pool: &[usize], candidates: &[Candidate], health: &Health, draw: &mut dyn Draw) -> usize {
    let targets = || {
        let mut last: Option<&Arc<Target>> = None;
        pool.iter().map(|&i| &candidates[i].target).filter(move |&target| {
            let new = last.is_none_or(|last| !Arc::ptr_eq(last, target));
            last = Some(target);
            new
        })
    };
    let chosen = match strategy {
        Strategy::Priority => targets().next(),
        Strategy::RoundRobin => round_robin(targets(), health),
        Strategy::Weighted => weighted(&targets, health, draw),
    };
    key(chosen, pool, candidates, health)
}

/// Whoever waited longest.
fn round_robin<'a>(targets: impl Iterator<Item = &'a Arc<Target>>, health: &Health) -> Option<&'a Arc<Target>> {
    targets.min_by(|a, b| stands(a, health).total_cmp(&stands(b, health)))
}

/// Stride scheduling over weights; equals are drawn by weight, so that proxies which start afresh differ.
fn weighted<'a, I: Iterator<Item = &'a Arc<Target>>>(
    targets: &dyn Fn() -> I,
    health: &Health,
    draw: &mut dyn Draw,
) -> Option<&'a Arc<Target>> {
    let least = targets().map(|target| stands(target, health)).min_by(f64::total_cmp)?;
    let equals = || targets().filter(|target| stands(target, health) <= least);
    let mut point = draw.unit() * equals().map(|target| target.weight.max(0.0)).sum::<f64>();
    let drawn = equals().find(|target| {
        point -= target.weight.max(0.0);
        point < 0.0
    });
    drawn.or_else(|| equals().next())
}

/// A target that was away stands where the others stand now.
fn stands(target: &Target, health: &Health) -> f64 {
    let pass = health.upstreams.get(&target.upstream.id).map_or(0.0, |upstream| upstream.pass(&target.model));
    pass.max(health.target_time)
}

/// Stride scheduling over the keys of the chosen target; the first of equals in config order.
fn key(chosen: Option<&Arc<Target>>, pool: &[usize], candidates: &[Candidate], health: &Health) -> usize {
    let time = chosen.and_then(|target| health.upstreams.get(&target.upstream.id)).map_or(0.0, |upstream| upstream.key_time);
    let stands = |i: usize| health.keys.get(&candidates[i].key).map_or(0.0, |key| key.pass).max(time);
    let of_target = pool.iter().copied().filter(|&i| chosen.is_none_or(|target| Arc::ptr_eq(target, &candidates[i].target)));
    of_target.map(|i| (i, stands(i))).min_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(pool[0], |(i, _)| i)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        base::draw::{Scripted, Seeded},
        routing::fixture::{at, policy, ready, target, upstream},
    };

    fn run(strategy: Strategy, candidates: &[Candidate], n: usize, draw: &mut dyn Draw) -> BTreeMap<String, usize> {
        let mut health = Health::new(policy());
        let pool: Vec<usize> = (0..candidates.len()).collect();
        let mut went = BTreeMap::new();
        for _ in 0..n {
            let index = choose(strategy, &pool, candidates, &health, draw);
            let ticket = health.take(&candidates[index], strategy, false, at(0));
            *went.entry(ticket.key_name.to_string()).or_default() += 1;
        }
        went
    }

    fn of(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
        pairs.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
    }

    #[test]
    fn keys_take_turns_by_their_weights() {
        let mut openai = upstream(1, "openai", None, 2);
        Arc::make_mut(&mut openai.keys[1]).weight = 3.0;
        let candidates = ready(&[target(&Arc::new(openai), "gpt")]);
        let got = run(Strategy::Priority, &candidates, 40, &mut Scripted::new(&[0.0]));
        assert_eq!(got, of(&[("openai/k0", 10), ("openai/k1", 30)]));
    }

    #[test]
    fn targets_follow_their_strategy() {
        let mut heavy = upstream(2, "b", None, 1);
        heavy.weight = 3.0;
        let candidates = ready(&[target(&Arc::new(upstream(1, "a", None, 1)), "m"), target(&Arc::new(heavy), "m")]);
        for (strategy, want) in [
            (Strategy::Priority, of(&[("a/k0", 40)])),
            (Strategy::RoundRobin, of(&[("a/k0", 20), ("b/k0", 20)])),
            (Strategy::Weighted, of(&[("a/k0", 10), ("b/k0", 30)])),
        ] {
            assert_eq!(run(strategy, &candidates, 40, &mut Seeded::new(7)), want, "{strategy:?}");
        }
    }

    #[test]
    fn two_models_of_one_upstream_have_their_own_weights() {
        let one = Arc::new(upstream(1, "a", None, 1));
        let (small, mut large) = (target(&one, "small"), target(&one, "large"));
        Arc::make_mut(&mut large).weight = 3.0;
        let candidates = ready(&[small, large]);
        let mut health = Health::new(policy());
        let mut went = BTreeMap::new();
        for _ in 0..40 {
            let index = choose(Strategy::Weighted, &[0, 1], &candidates, &health, &mut Seeded::new(3));
            *went.entry(health.take(&candidates[index], Strategy::Weighted, false, at(0)).model.to_string()).or_insert(0) += 1;
        }
        assert_eq!(went, of(&[("large", 30), ("small", 10)]));
    }

    #[test]
    fn a_returning_key_does_not_get_all_that_it_missed() {
        let candidates = ready(&[target(&Arc::new(upstream(1, "openai", None, 2)), "gpt")]);
        let mut health = Health::new(policy());
        for _ in 0..1_000 {
            health.take(&candidates[0], Strategy::Priority, false, at(0));
        }
        let mut second = 0;
        for _ in 0..10 {
            let index = choose(Strategy::Priority, &[0, 1], &candidates, &health, &mut Scripted::new(&[0.0]));
            health.take(&candidates[index], Strategy::Priority, false, at(0));
            second += usize::from(index == 1);
        }
        assert!((5..=6).contains(&second), "{second} of 10");
    }
}
