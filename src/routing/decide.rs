//! Decides which candidate serves the next attempt, and why the others do not.

use super::{
    candidate::{Candidate, Chosen, Decision, KeyState, Question, Verdict, Why},
    circuit::VERDICT,
    health::{Health, Rank, Size, Standing},
    strategy,
};
use crate::{
    base::{clock::Mono, draw::Rng},
    config::settings::UpstreamId,
};

/// Requests estimated larger than this are not used as probes while another candidate is ready.
const LARGE: u64 = 32_000;

/// The decision; changes nothing.
#[must_use]
pub fn decide(q: &Question<'_>, health: &Health, now: Mono, draw: &mut dyn Rng) -> Decision {
    let entrants = entrants(q, health, now);
    // The best tiers of those that are ready, and of those that are ready as probes.
    let (mut ready, mut due) = (None, None);
    for (entrant, candidate) in
        entrants.iter().zip(q.candidates).filter(|(entrant, _)| entrant.is_fresh())
    {
        let best = match entrant.standing.rank {
            Rank::Ready => &mut ready,
            Rank::Due => &mut due,
            _ => continue,
        };
        *best = Some(best.map_or(candidate.tier, |tier: (u32, u32)| tier.min(candidate.tier)));
    }
    let most = if ready.is_some() && q.estimate > LARGE { Rank::Ready } else { Rank::Due };
    let usable = |e: &Entrant<'_>| e.is_fresh() && e.standing.rank <= most;
    let best = if most == Rank::Ready { ready } else { [ready, due].into_iter().flatten().min() };
    if let Some(tier) = best {
        let bound = bound(q, &entrants, tier, &usable, health, now);
        if let Bond::Waits(until) = bound {
            return Decision {
                verdict: Verdict::Wait { until: Some(until) },
                others: others(&entrants, q, usize::MAX, None),
            };
        }
        let (pool, tied) = match bound {
            Bond::To(pool, better) => (pool, Some(better)),
            _ => {
                let of_tier = |&i: &usize| q.candidates[i].tier == tier && usable(&entrants[i]);
                (elsewhere(q, in_region(q, (0..entrants.len()).filter(of_tier).collect())), None)
            }
        };
        // All of them belong to upstreams that failed in this request: somebody else of the same
        // standing who is only suspected goes before their other keys.
        if !q.tried.is_empty() && pool.iter().all(|&i| failed_here(q, i)) {
            let other = |i: usize, e: &Entrant<'_>| {
                e.is_fresh()
                    && e.standing.rank == Rank::Suspect
                    && q.candidates[i].tier <= tier
                    && !failed_here(q, i)
            };
            if let Some(index) = least(&entrants, q.candidates, other) {
                let verdict = Verdict::Try { index, why: Chosen::LeastSuspect, probe: true };
                return Decision { verdict, others: others(&entrants, q, index, None) };
            }
        }
        let index = strategy::choose(q, &pool, health, now, draw);
        let probe = entrants[index].standing.rank == Rank::Due;
        let why = match (probe, tied, pool.len()) {
            (true, ..) => Chosen::Probe,
            (false, Some(better), _) => Chosen::Bound { better },
            (false, None, 1)
                if !entrants.iter().enumerate().any(|(i, e)| i != index && usable(e)) =>
            {
                Chosen::Only
            }
            (false, None, of) => Chosen::Best { tier, of },
        };
        let tier = q.candidates[index].tier;
        return Decision {
            verdict: Verdict::Try { index, why, probe },
            others: others(&entrants, q, index, Some(tier)),
        };
    }
    if let Some(index) =
        least(&entrants, q.candidates, |_, e| e.is_fresh() && e.standing.rank == Rank::Suspect)
    {
        let verdict = Verdict::Try { index, why: Chosen::LeastSuspect, probe: true };
        return Decision { verdict, others: others(&entrants, q, index, None) };
    }
    // A key that is being read will be there in a moment; the same again is worse than somebody who
    // was not asked yet.
    let read = |(e, c): (&Entrant<'_>, &Candidate)| {
        e.is_fresh() && e.standing.rank == Rank::Held && c.key_state == KeyState::Waiting
    };
    if entrants.iter().zip(q.candidates).any(read) {
        return Decision {
            verdict: waiting(&entrants, now),
            others: others(&entrants, q, usize::MAX, None),
        };
    }
    if let Some(index) = least(&entrants, q.candidates, |_, e| {
        e.tried == Some(true) && e.standing.rank <= Rank::Suspect
    }) {
        return Decision {
            verdict: Verdict::Again { index },
            others: others(&entrants, q, index, None),
        };
    }
    Decision { verdict: waiting(&entrants, now), others: others(&entrants, q, usize::MAX, None) }
}

/// What a conversation's binding makes of a decision.
enum Bond {
    None,
    /// These serve it; whether a better tier is ready.
    To(Vec<usize>, bool),
    /// What it is bound to is free again very soon.
    Waits(Mono),
}

/// A binding acts inside the best tier that is ready, and for a while in a worse one; it yields to
/// health.
fn bound(
    q: &Question<'_>,
    entrants: &[Entrant<'_>],
    best: (u32, u32),
    usable: &dyn Fn(&Entrant<'_>) -> bool,
    health: &Health,
    now: Mono,
) -> Bond {
    let Some(bound) = q.bound else { return Bond::None };
    let places = || (0..entrants.len()).filter(|&i| bound.is(&q.candidates[i]));
    let Some(tier) = places().filter(|&i| usable(&entrants[i])).map(|i| q.candidates[i].tier).min()
    else {
        let soon = |i: usize| {
            let standing = &entrants[i].standing;
            let until = standing.until;
            let until = match standing.rank {
                _ if !standing.is_busy() => return None,
                Rank::Held => until.unwrap_or(bound.wait),
                Rank::Blocked => until?,
                _ => return None,
            };
            (q.candidates[i].tier <= best && until <= bound.wait).then_some(until)
        };
        let waits = q.tried.is_empty() && !bound.loose && bound.wait > now;
        return places().filter(|_| waits).filter_map(soon).min().map_or(Bond::None, Bond::Waits);
    };
    let better = tier > best;
    let holds = if better {
        bound.outlasts_better(now)
    } else {
        !bound.loose || health.has_plenty(q.candidates, places(), now)
    };
    if !holds {
        return Bond::None;
    }
    Bond::To(
        places().filter(|&i| q.candidates[i].tier == tier && usable(&entrants[i])).collect(),
        better,
    )
}

/// Those of the preferred region, where there are any.
fn in_region(q: &Question<'_>, pool: Vec<usize>) -> Vec<usize> {
    let there = |i: &usize| q.candidates[*i].target.upstream.region == q.region;
    if q.region.is_empty() || !pool.iter().any(there) {
        pool
    } else {
        pool.into_iter().filter(there).collect()
    }
}

/// Those whose upstream has not failed in this request, where there are any: another of its keys
/// would hardly do better.
fn elsewhere(q: &Question<'_>, pool: Vec<usize>) -> Vec<usize> {
    let there = |i: &usize| !failed_here(q, *i);
    if q.tried.is_empty() || !pool.iter().any(there) {
        pool
    } else {
        pool.into_iter().filter(there).collect()
    }
}

/// Whether a candidate's upstream failed in this request, whatever the key.
fn failed_here(q: &Question<'_>, i: usize) -> bool {
    q.tried
        .iter()
        .any(|tried| tried.upstream_failed && tried.upstream == q.candidates[i].upstream())
}

/// A candidate's standing, and whether it failed in this request already: then, whether that may
/// pass.
struct Entrant<'a> {
    standing: Standing<'a>,
    tried: Option<bool>,
}

impl Entrant<'_> {
    fn is_fresh(&self) -> bool {
        self.tried.is_none()
    }
}

fn entrants<'a>(q: &Question<'a>, health: &'a Health, now: Mono) -> Vec<Entrant<'a>> {
    let asked = Size { input: q.estimate, output: q.output };
    let mut known: Option<(UpstreamId, Standing<'a>)> = None;
    let mut entrants = Vec::with_capacity(q.candidates.len());
    entrants.extend(q.candidates.iter().map(|candidate| Entrant {
        standing: Standing::fine(),
        tried: if q.tried.is_empty() { None } else { tried(q, candidate) },
    }));
    for (entrant, candidate) in entrants.iter_mut().zip(q.candidates) {
        let id = candidate.upstream();
        if known.as_ref().is_none_or(|(last, _)| *last != id) {
            known = Some((id, health.upstream_standing(&candidate.target.upstream, now)));
        }
        if let Some((_, upstream)) =
            known.as_ref().filter(|(_, upstream)| upstream.rank != Rank::Ready)
        {
            entrant.standing.at_least(upstream);
        }
        health.stand(&mut entrant.standing, candidate, asked, now);
    }
    let fit = |(entrant, candidate): (&Entrant<'_>, &Candidate)| {
        candidate.unfit.is_none()
            && entrant.standing.rank < Rank::Out
            && entrant.tried != Some(false)
    };
    // Where nobody is known to be able to, those that seem not to be are better than nobody.
    if entrants.iter().zip(q.candidates).any(fit) {
        for (entrant, candidate) in entrants.iter_mut().zip(q.candidates) {
            if let Some(unfit) = candidate.unfit {
                entrant.standing.unfit(unfit);
            }
        }
    }
    entrants
}

fn tried(q: &Question<'_>, candidate: &Candidate) -> Option<bool> {
    let same = q.tried.iter().filter(|t| {
        t.key == candidate.key
            && t.upstream == candidate.upstream()
            && t.model == candidate.target.model
    });
    same.map(|t| t.may_pass).reduce(|a, b| a && b)
}

/// The one whose doubt ends first, the better tier among equals, the first among those.
fn least(
    entrants: &[Entrant<'_>],
    candidates: &[Candidate],
    fits: impl Fn(usize, &Entrant<'_>) -> bool,
) -> Option<usize> {
    let fitting = entrants.iter().enumerate().filter(|(i, e)| fits(*i, e));
    fitting
        .min_by_key(|(i, e)| (e.standing.rank, e.standing.until, candidates[*i].tier))
        .map(|(i, _)| i)
}

/// Nothing can be tried: what is waited for, if anything.
fn waiting(entrants: &[Entrant<'_>], now: Mono) -> Verdict {
    let ends = || {
        entrants
            .iter()
            .filter(|e| e.standing.rank == Rank::Blocked)
            .filter_map(|e| e.standing.until)
    };
    // What failed here for good is not waited for, though others may like to know when it comes
    // back.
    let lasting = |e: &&Entrant<'_>| e.tried != Some(false);
    let held = entrants.iter().filter(lasting).any(|e| e.standing.rank == Rank::Held);
    let soonest = entrants
        .iter()
        .filter(lasting)
        .filter(|e| e.standing.rank == Rank::Blocked)
        .filter_map(|e| e.standing.until)
        .min();
    match (held, soonest) {
        // Whatever is held may come free at any moment, but an end that is near is worth waking up
        // for.
        (true, until) => Verdict::Wait { until: until.filter(|until| *until <= now + VERDICT) },
        (false, Some(until)) => Verdict::Wait { until: Some(until) },
        (false, None) => Verdict::Exhausted { retry_at: ends().min() },
    }
}

/// Why each but the chosen one lost; `tier` is the tier that was drawn from.
fn others(
    entrants: &[Entrant<'_>],
    q: &Question<'_>,
    chosen: usize,
    tier: Option<(u32, u32)>,
) -> Vec<(usize, Why)> {
    let candidates = q.candidates;
    let region =
        |i: usize| candidates.get(i).map_or("", |candidate| &candidate.target.upstream.region);
    let preferred = !q.region.is_empty() && region(chosen) == q.region;
    if entrants.len() == 1 && chosen == 0 {
        return Vec::new();
    }
    let why = |i: usize, e: &Entrant<'_>| match (e.tried, tier) {
        // Where nothing is left, when it comes back says more than that it failed.
        (Some(_), None) => e.standing.why().unwrap_or(Why::FailedHere),
        (Some(_), Some(_)) => Why::FailedHere,
        (None, _) => e.standing.why().unwrap_or(match tier {
            Some(tier) if candidates[i].tier > tier => Why::LowerTier,
            Some(_) if preferred && region(i) != q.region => Why::OtherRegion,
            _ => Why::NotDrawn,
        }),
    };
    let mut out = Vec::with_capacity(entrants.len());
    out.extend(
        entrants.iter().enumerate().filter(|(i, _)| *i != chosen).map(|(i, e)| (i, why(i, e))),
    );
    out
}
