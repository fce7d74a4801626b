//! Words why a candidate was chosen and others were not, and publishes why attempts failed.

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
        reason::{failure::FailureReason, span::Span},
    },
    routing::{
        candidate::Candidate,
        decision::{ChoiceReason, Decision, SkipReason},
        outcome::{Blame, CooldownClass},
        resolve::ResolvedModel,
    },
};

/// Words why a candidate was chosen.
pub(super) fn choice_reason(
    resolved: &ResolvedModel,
    chosen: &Candidate,
    reason: &ChoiceReason,
    client_dialect: Dialect,
) -> Arc<str> {
    let (tier, _) = chosen.tier;
    let via = &resolved.via;
    let text = match reason {
        ChoiceReason::Only => format!("{via}; priority {tier}, the only candidate ready"),
        ChoiceReason::Best { ready_count: of, .. } => {
            format!("{via}; priority {tier}, one of {of} ready")
        }
        ChoiceReason::Affinity { better_tier_ready: false } => {
            [via, "; where its conversation was served before"].concat()
        }
        ChoiceReason::Affinity { better_tier_ready: true } => {
            [via, "; where its conversation was served before, though a better tier is back"]
                .concat()
        }
        ChoiceReason::Probe => [via, "; let through as a probe after a cooldown"].concat(),
        ChoiceReason::LeastSuspect => {
            [via, "; nothing is ready: the least suspect is tried"].concat()
        }
    };
    let to = chosen.target.dialect;
    if to == client_dialect { text } else { format!("{text}; translated to {to}") }.into()
}

/// Returns the candidates that rank before or level with the chosen one, and why they were skipped.
/// Candidates that this request has tried are left out, because they are shown as its attempts.
pub(super) fn skipped_candidates(
    decision: &Decision,
    candidates: &[Candidate],
    chosen: &Candidate,
    now: Mono,
) -> Option<String> {
    let keeps = |reason: &SkipReason| {
        !matches!(
            reason,
            SkipReason::AlreadyFailed
                | SkipReason::LowerTier
                | SkipReason::NotPicked
                | SkipReason::OtherRegion
        )
    };
    let others = decision.skipped.iter().filter(|(_, reason)| keeps(reason));
    let others = others
        .filter_map(|(index, reason)| Some((candidates.get(*index)?, reason)))
        .filter(|(other, _)| other.tier <= chosen.tier);
    let (mut text, mut more) = (String::new(), 0_usize);
    for (at, (other, reason)) in others.enumerate() {
        if at >= MAX_SKIPPED_SHOWN {
            more += 1;
            continue;
        }
        text.push_str(if at == 0 { "; passed over: " } else { ", " });
        text.push_str(&format!("{} ({})", other.key_name, reason.text(now)));
    }
    if more > 0 {
        text.push_str(&format!(", {more} more"));
    }
    (!text.is_empty()).then_some(text)
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
