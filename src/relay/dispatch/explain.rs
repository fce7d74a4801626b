//! Collects why a candidate was chosen and others were not, and publishes why attempts failed.

use std::{sync::Arc, time::Duration};

use crate::relay::{
    attempt::result::{AttemptFailure, FailureSource},
    engine::Engine,
    record::recorder::RequestRecorder,
};
use crate::{
    base::clock::Mono,
    config::settings::KeyId,
    ir::{
        op::Dialect,
        reason::{
            failure::FailureReason,
            route::{ChosenRoute, RouteReason, SkippedCandidate},
            span::Span,
        },
    },
    routing::{
        candidate::Candidate,
        decision::{ChoiceReason, Decision, SkipReason},
        outcome::{Blame, CooldownClass},
        resolve::ResolvedModel,
    },
};

/// Returns why a candidate was chosen. `attempt` is the number of the attempt, if it is not the
/// first.
pub(super) fn route_reason(
    resolved: &ResolvedModel,
    (decision, candidates): (&Decision, &[Candidate]),
    (chosen, choice): (&Candidate, &ChoiceReason),
    client_dialect: Dialect,
    attempt: Option<u32>,
) -> Arc<RouteReason> {
    let dialect = chosen.target.dialect;
    let mut route = ChosenRoute {
        attempt,
        name: Arc::clone(&resolved.via),
        choice: choice.clone(),
        priority: chosen.tier.0,
        translated_to: (dialect != client_dialect).then_some(dialect),
        skipped: Vec::new(),
        more_skipped: 0,
    };
    for (index, reason) in decision.skipped.iter().filter(|(_, reason)| is_telling(reason)) {
        let Some(other) = candidates.get(*index).filter(|other| other.tier <= chosen.tier) else {
            continue;
        };
        if route.skipped.len() >= MAX_SKIPPED_SHOWN {
            route.more_skipped += 1;
            continue;
        }
        let key_name = Arc::clone(&other.key_name);
        route.skipped.push(SkippedCandidate { key_name, reason: reason.clone() });
    }
    RouteReason::Chosen(route).into()
}

/// Whether a skipped candidate is named. Candidates that this request has tried are left out,
/// because they are shown as its attempts.
fn is_telling(reason: &SkipReason) -> bool {
    !matches!(
        reason,
        SkipReason::AlreadyFailed
            | SkipReason::LowerTier
            | SkipReason::NotPicked
            | SkipReason::OtherRegion
    )
}

/// At most this many skipped candidates are named.
const MAX_SKIPPED_SHOWN: usize = 3;

/// Publishes that the attempt with this number failed.
pub(in crate::relay) fn publish_failure(
    engine: &Engine,
    recorder: &mut RequestRecorder,
    (number, chosen): (u32, &Candidate),
    failure: &AttemptFailure,
) {
    let status = match &failure.source {
        FailureSource::Upstream { fault, .. } => Some(fault.status),
        FailureSource::Transport(_) => None,
    };
    let now = engine.clock.mono();
    let reason = match &failure.source {
        FailureSource::Upstream { fault, .. } => {
            let cooling = key_cooldown(engine, chosen.key, &chosen.target.model, now);
            Arc::new(FailureReason::RefusedWith {
                cause: Arc::clone(&failure.outcome.cause),
                message: fault.message.as_str().into(),
                cooling: cooling.map(Span),
            })
        }
        FailureSource::Transport(fault) => Arc::clone(&fault.reason),
    };
    recorder.attempt_failed(number, status, &reason, failure.outcome.maybe_billed);
    if failure.outcome.cooldown == CooldownClass::Rejected {
        // A closed channel means that the process is ending.
        engine.rejected_keys.send(chosen.key).unwrap_or_default();
    }
    if failure.outcome.cooldown == CooldownClass::Quota && failure.outcome.blame == Blame::Account {
        engine.balances.recheck_soon(chosen.key, now);
    }
}

/// Returns how much longer a key cools down for a model.
pub(in crate::relay) fn key_cooldown(
    engine: &Engine,
    key: KeyId,
    model: &str,
    now: Mono,
) -> Option<Duration> {
    let view = engine.router.key_view(key, now);
    let of_model =
        view.models.iter().find(|(name, _)| **name == *model).and_then(|(_, health)| health.until);
    of_model.into_iter().chain(view.health.until).max().map(|until| until.since(now))
}
