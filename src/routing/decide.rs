//! Decides which candidate serves the next attempt, and why the others do not.

use smallvec::SmallVec;

use super::{
    candidate::{Candidate, KeyState},
    decision::{ChoiceReason, Decision, RouteQuery, SkipReason, Verdict},
    health::{
        Health, TokenEstimate,
        status::{CandidateStatus, Rank},
    },
    strategy,
};
use crate::routing::health::circuit::PROBE_TIMEOUT;
use crate::{
    base::{clock::Mono, rng::Rng},
    config::settings::UpstreamId,
};

/// Most models have no more candidates; more need an allocation.
const FEW: usize = 4;

/// Indices of candidates.
type Indices = SmallVec<[usize; FEW]>;

/// Requests estimated larger than this are not used as probes while another candidate is ready.
const MAX_PROBE_TOKENS: u64 = 32_000;

/// Returns the decision; changes nothing.
#[must_use]
pub fn decide(q: &RouteQuery<'_>, health: &Health, now: Mono, rng: &mut dyn Rng) -> Decision {
    let evaluated = evaluate_all(q, health, now);
    if let Some((tier, worst_usable)) = best_usable_tier(q, &evaluated) {
        return choose_in_tier(q, &evaluated, tier, worst_usable, health, now, rng);
    }
    let skip = |verdict, chosen| Decision {
        verdict,
        at: now,
        skipped: skip_reasons(&evaluated, q, chosen, None, now),
    };
    let suspect = |_, e: &Evaluated<'_>| e.is_untried() && e.status.rank == Rank::Suspect;
    if let Some(index) = earliest(&evaluated, q.candidates, suspect) {
        let reason = ChoiceReason::LeastSuspect;
        return skip(Verdict::Try { index, reason, probe: true }, index);
    }
    // A key that is being read is available in a moment, and waiting for an untried candidate is
    // better than repeating a failed one.
    let read = |(e, c): (&Evaluated<'_>, &Candidate)| {
        e.is_untried() && e.status.rank == Rank::Pending && c.key_state == KeyState::Waiting
    };
    if evaluated.iter().zip(q.candidates).any(read) {
        return skip(wait_or_exhausted(&evaluated, now), usize::MAX);
    }
    let may_recover =
        |_, e: &Evaluated<'_>| e.failed_before == Some(true) && e.status.rank <= Rank::Suspect;
    if let Some(index) = earliest(&evaluated, q.candidates, may_recover) {
        return skip(Verdict::RetrySame { index }, index);
    }
    skip(wait_or_exhausted(&evaluated, now), usize::MAX)
}

/// Returns the best tier with a usable candidate, and the worst rank that is usable for this
/// request: ready, or due for a probe.
fn best_usable_tier(q: &RouteQuery<'_>, evaluated: &[Evaluated<'_>]) -> Option<((u32, u32), Rank)> {
    // The best tier of the candidates that are ready, and the best tier of those ready as probes.
    let (mut ready, mut due) = (None, None);
    for (entrant, candidate) in
        evaluated.iter().zip(q.candidates).filter(|(entrant, _)| entrant.is_untried())
    {
        let best = match entrant.status.rank {
            Rank::Ready => &mut ready,
            Rank::ProbeDue => &mut due,
            _ => continue,
        };
        *best = Some(best.map_or(candidate.tier, |tier: (u32, u32)| tier.min(candidate.tier)));
    }
    match ready {
        Some(tier) if q.input_estimate > MAX_PROBE_TOKENS => Some((tier, Rank::Ready)),
        _ => Some(([ready, due].into_iter().flatten().min()?, Rank::ProbeDue)),
    }
}

/// Chooses among the usable candidates; `tier` is the best tier that has one.
fn choose_in_tier(
    q: &RouteQuery<'_>,
    evaluated: &[Evaluated<'_>],
    tier: (u32, u32),
    worst_usable: Rank,
    health: &Health,
    now: Mono,
    rng: &mut dyn Rng,
) -> Decision {
    let usable = |e: &Evaluated<'_>| e.is_untried() && e.status.rank <= worst_usable;
    let (pool, better_tier_ready) = match apply_affinity(q, evaluated, tier, &usable, health, now) {
        AffinityOutcome::WaitUntil(until) => {
            return Decision {
                verdict: Verdict::Wait { until: Some(until) },
                at: now,
                skipped: skip_reasons(evaluated, q, usize::MAX, None, now),
            };
        }
        AffinityOutcome::Pinned(pool, better) => (pool, Some(better)),
        AffinityOutcome::None => {
            let of_tier = |&i: &usize| q.candidates[i].tier == tier && usable(&evaluated[i]);
            let pool = prefer_region(q, (0..evaluated.len()).filter(of_tier).collect());
            (prefer_other_upstreams(q, pool), None)
        }
    };
    // All upstreams in the pool failed in this request. A suspect candidate of another upstream,
    // in the same or a better tier, is preferred to their other keys.
    if !q.failed_attempts.is_empty() && pool.iter().all(|&i| has_failed_upstream(q, i)) {
        let other = |i: usize, e: &Evaluated<'_>| {
            e.is_untried()
                && e.status.rank == Rank::Suspect
                && q.candidates[i].tier <= tier
                && !has_failed_upstream(q, i)
        };
        if let Some(index) = earliest(evaluated, q.candidates, other) {
            let verdict = Verdict::Try { index, reason: ChoiceReason::LeastSuspect, probe: true };
            return Decision {
                verdict,
                at: now,
                skipped: skip_reasons(evaluated, q, index, None, now),
            };
        }
    }
    let index = strategy::choose(q, &pool, health, now, rng);
    let probe = evaluated[index].status.rank == Rank::ProbeDue;
    let is_only = || !evaluated.iter().enumerate().any(|(i, e)| i != index && usable(e));
    let reason = match (probe, better_tier_ready, pool.len()) {
        (true, ..) => ChoiceReason::Probe,
        (false, Some(better_tier_ready), _) => ChoiceReason::Affinity { better_tier_ready },
        (false, None, 1) if is_only() => ChoiceReason::Only,
        (false, None, ready_count) => ChoiceReason::Best { tier, ready_count },
    };
    let tier = q.candidates[index].tier;
    Decision {
        verdict: Verdict::Try { index, reason, probe },
        at: now,
        skipped: skip_reasons(evaluated, q, index, Some(tier), now),
    }
}

/// How a conversation's binding changes a decision.
enum AffinityOutcome {
    None,
    /// These candidates serve it; the flag says whether a better tier is ready.
    Pinned(Indices, bool),
    /// The bound candidate is free again very soon.
    WaitUntil(Mono),
}

/// Applies a binding within the best ready tier, and for a while in a worse one. Health takes
/// precedence over the binding.
fn apply_affinity(
    q: &RouteQuery<'_>,
    evaluated: &[Evaluated<'_>],
    best: (u32, u32),
    usable: &dyn Fn(&Evaluated<'_>) -> bool,
    health: &Health,
    now: Mono,
) -> AffinityOutcome {
    let Some(hint) = q.affinity else { return AffinityOutcome::None };
    let bound_indices = || (0..evaluated.len()).filter(|&i| hint.matches(&q.candidates[i]));
    let Some(tier) =
        bound_indices().filter(|&i| usable(&evaluated[i])).map(|i| q.candidates[i].tier).min()
    else {
        let soon = |i: usize| {
            let standing = &evaluated[i].status;
            let until = standing.until;
            let until = match standing.rank {
                _ if !standing.is_busy() => return None,
                Rank::Pending => until.unwrap_or(hint.wait_until),
                Rank::Blocked => until?,
                _ => return None,
            };
            (q.candidates[i].tier <= best && until <= hint.wait_until).then_some(until)
        };
        let waits = q.failed_attempts.is_empty() && !hint.weak && hint.wait_until > now;
        return bound_indices()
            .filter(|_| waits)
            .filter_map(soon)
            .min()
            .map_or(AffinityOutcome::None, AffinityOutcome::WaitUntil);
    };
    let better = tier > best;
    let sticks = if better {
        hint.sticks_despite_better_tier(now)
    } else {
        !hint.weak || health.has_ample_limits(q.candidates, bound_indices(), now)
    };
    if !sticks {
        return AffinityOutcome::None;
    }
    AffinityOutcome::Pinned(
        bound_indices()
            .filter(|&i| q.candidates[i].tier == tier && usable(&evaluated[i]))
            .collect(),
        better,
    )
}

/// Returns the candidates of the preferred region, or the whole pool if it has none of them.
fn prefer_region(q: &RouteQuery<'_>, pool: Indices) -> Indices {
    let there = |i: &usize| q.candidates[*i].target.upstream.region == q.region;
    if q.region.is_empty() || !pool.iter().any(there) {
        pool
    } else {
        pool.into_iter().filter(there).collect()
    }
}

/// Returns the candidates whose upstream has not failed in this request, or the whole pool if there
/// are none. Another key of a failed upstream would hardly do better.
fn prefer_other_upstreams(q: &RouteQuery<'_>, pool: Indices) -> Indices {
    let there = |i: &usize| !has_failed_upstream(q, *i);
    if q.failed_attempts.is_empty() || !pool.iter().any(there) {
        pool
    } else {
        pool.into_iter().filter(there).collect()
    }
}

/// Returns whether a candidate's upstream failed in this request, independently of the key.
fn has_failed_upstream(q: &RouteQuery<'_>, i: usize) -> bool {
    q.failed_attempts
        .iter()
        .any(|tried| tried.upstream_failed && tried.upstream == q.candidates[i].upstream())
}

/// A candidate's status, and whether it already failed in this request. `Some(true)` means that the
/// fault may pass.
struct Evaluated<'a> {
    status: CandidateStatus<'a>,
    failed_before: Option<bool>,
}

impl Evaluated<'_> {
    fn is_untried(&self) -> bool {
        self.failed_before.is_none()
    }
}

fn evaluate_all<'a>(
    q: &RouteQuery<'a>,
    health: &'a Health,
    now: Mono,
) -> SmallVec<[Evaluated<'a>; FEW]> {
    let size = TokenEstimate { input: q.input_estimate, output: q.max_output };
    let mut known: Option<(UpstreamId, CandidateStatus<'a>)> = None;
    let mut evaluated: SmallVec<[Evaluated<'_>; FEW]> = SmallVec::with_capacity(q.candidates.len());
    evaluated.extend(q.candidates.iter().map(|candidate| Evaluated {
        status: CandidateStatus::ready(),
        failed_before: if q.failed_attempts.is_empty() {
            None
        } else {
            earlier_failure(q, candidate)
        },
    }));
    for (entrant, candidate) in evaluated.iter_mut().zip(q.candidates) {
        let id = candidate.upstream();
        if known.as_ref().is_none_or(|(last, _)| *last != id) {
            known = Some((id, health.upstream_status(&candidate.target.upstream, now)));
        }
        if let Some((_, upstream)) =
            known.as_ref().filter(|(_, upstream)| upstream.rank != Rank::Ready)
        {
            entrant.status.degrade_to(upstream);
        }
        health.evaluate(&mut entrant.status, candidate, size, now);
    }
    let fit = |(entrant, candidate): (&Evaluated<'_>, &Candidate)| {
        candidate.missing_capability.is_none()
            && entrant.status.rank < Rank::Unavailable
            && entrant.failed_before != Some(false)
    };
    // Excludes candidates that lack a capability only if a capable candidate is left; otherwise
    // they are tried all the same.
    if evaluated.iter().zip(q.candidates).any(fit) {
        for (entrant, candidate) in evaluated.iter_mut().zip(q.candidates) {
            if let Some(unfit) = candidate.missing_capability {
                entrant.status.exclude_unfit(unfit);
            }
        }
    }
    evaluated
}

fn earlier_failure(q: &RouteQuery<'_>, candidate: &Candidate) -> Option<bool> {
    let same = q.failed_attempts.iter().filter(|t| {
        let same_target = t.key == candidate.key && t.model == candidate.target.model;
        t.upstream == candidate.upstream() && (same_target || t.upstream_refuses)
    });
    same.map(|t| t.may_recover && !t.upstream_refuses).reduce(|a, b| a && b)
}

/// Returns the candidate whose suspicion ends first; among equals the better tier, then the first.
fn earliest(
    evaluated: &[Evaluated<'_>],
    candidates: &[Candidate],
    fits: impl Fn(usize, &Evaluated<'_>) -> bool,
) -> Option<usize> {
    let fitting = evaluated.iter().enumerate().filter(|(i, e)| fits(*i, e));
    fitting
        .min_by_key(|(i, e)| (e.status.rank, e.status.until, candidates[*i].tier))
        .map(|(i, _)| i)
}

/// Returns the verdict when no candidate can be tried: wait, or exhausted.
fn wait_or_exhausted(evaluated: &[Evaluated<'_>], now: Mono) -> Verdict {
    let ends = || {
        evaluated.iter().filter(|e| e.status.rank == Rank::Blocked).filter_map(|e| e.status.until)
    };
    // Requests do not wait for candidates that failed for good, but `retry_at` may include their
    // end.
    let lasting = |e: &&Evaluated<'_>| e.failed_before != Some(false);
    let pending = evaluated.iter().filter(lasting).any(|e| e.status.rank == Rank::Pending);
    let soonest = evaluated
        .iter()
        .filter(lasting)
        .filter(|e| e.status.rank == Rank::Blocked)
        .filter_map(|e| e.status.until)
        .min();
    match (pending, soonest) {
        // A pending candidate may become free at any moment, but an end that is near is worth
        // waking up for.
        (true, until) => {
            Verdict::Wait { until: until.filter(|until| *until <= now + PROBE_TIMEOUT) }
        }
        (false, Some(until)) => Verdict::Wait { until: Some(until) },
        (false, None) => Verdict::Exhausted { retry_at: ends().min() },
    }
}

/// Returns why each candidate except the chosen one was skipped; `tier` is the tier that the choice
/// was made from.
fn skip_reasons(
    evaluated: &[Evaluated<'_>],
    q: &RouteQuery<'_>,
    chosen: usize,
    tier: Option<(u32, u32)>,
    now: Mono,
) -> Vec<(usize, SkipReason)> {
    let candidates = q.candidates;
    let region =
        |i: usize| candidates.get(i).map_or("", |candidate| &candidate.target.upstream.region);
    let preferred = !q.region.is_empty() && region(chosen) == q.region;
    if evaluated.len() == 1 && chosen == 0 {
        return Vec::new();
    }
    let why = |i: usize, e: &Evaluated<'_>| match (e.failed_before, tier) {
        // If no candidate is left, the time of its return is more useful than the fact that it
        // failed.
        (Some(_), None) => e.status.skip_reason(now).unwrap_or(SkipReason::AlreadyFailed),
        (Some(_), Some(_)) => SkipReason::AlreadyFailed,
        (None, _) => e.status.skip_reason(now).unwrap_or(match tier {
            Some(tier) if candidates[i].tier > tier => SkipReason::LowerTier,
            Some(_) if preferred && region(i) != q.region => SkipReason::OtherRegion,
            _ => SkipReason::NotPicked,
        }),
    };
    let mut out = Vec::with_capacity(evaluated.len());
    out.extend(
        evaluated.iter().enumerate().filter(|(i, _)| *i != chosen).map(|(i, e)| (i, why(i, e))),
    );
    out
}
