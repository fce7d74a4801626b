//! Collects the state that the alert rules examine.

use std::sync::Arc;

use crate::{
    alerts::rules::{
        AlertCooldown, AlertInputs, AlertThresholds, KeyAlertInputs, UpstreamAlertInputs,
    },
    base::clock::UnixMillis,
    control::{
        snapshot::{KeyStatus, KeyView, UpstreamState, UpstreamView},
        views,
    },
    ir::reason::failure::FailureReason,
    ledger::Ledger,
    relay::engine::Engine,
    telemetry::metrics::Metrics,
};

/// Collects the state that the alert rules examine.
pub(super) fn collect_inputs(
    engine: &Engine,
    ledger: Option<&Ledger>,
    metrics: &Metrics,
) -> AlertInputs {
    let ledger = ledger.map(|ledger| ledger.status(&engine.ledger_queue));
    let generation = engine.generation();
    let keys = views::keys(engine, &generation);
    let upstreams = views::upstreams(engine, &generation);
    AlertInputs {
        thresholds: AlertThresholds::new(&generation.settings.alerts),
        upstreams: upstreams
            .iter()
            .filter(|u| u.state != UpstreamState::Disabled)
            .map(|u| upstream_inputs(u, &keys, metrics.success_count(&u.name)))
            .collect(),
        ledger_replaced_at: ledger.as_ref().and_then(|status| status.replaced_at),
        ledger_error: ledger.and_then(|status| status.problem),
        unrecorded_requests: engine.ledger_queue.unrecorded(),
        offline: engine.network.down(),
    }
}

fn upstream_inputs(
    view: &UpstreamView,
    keys: &[KeyView],
    success_count: u64,
) -> UpstreamAlertInputs {
    let usable = |key: &&KeyView| {
        key.upstream == view.name
            && !matches!(key.state, KeyStatus::Disabled | KeyStatus::Missing | KeyStatus::Waiting)
    };
    let (attempts, errors) = view
        .stats
        .spark
        .iter()
        .fold((0, 0), |(all, bad), (more, failed)| (all + more, bad + failed));
    UpstreamAlertInputs {
        name: view.name.clone(),
        outage: (view.state == UpstreamState::Open).then(|| AlertCooldown {
            until: view.until,
            cause: view.cause.as_ref().map(ToString::to_string),
        }),
        keys: keys.iter().filter(usable).map(key_inputs).collect(),
        success_count,
        recent_attempts: attempts,
        recent_errors: errors,
    }
}

fn key_inputs(view: &KeyView) -> KeyAlertInputs {
    let cooldown = |until: Option<UnixMillis>, cause: &Option<Arc<FailureReason>>| AlertCooldown {
        until,
        cause: cause.as_ref().map(ToString::to_string),
    };
    let is_cooling = |state| matches!(state, KeyStatus::Cooling);
    KeyAlertInputs {
        name: format!("{}/{}", view.upstream, view.label),
        rejection: (view.state == KeyStatus::Rejected)
            .then(|| view.cause.as_ref().map(ToString::to_string).unwrap_or_default()),
        cooldown: is_cooling(view.state).then(|| cooldown(view.until, &view.cause)),
        model_cooldowns: view
            .scopes
            .iter()
            .filter(|scope| is_cooling(scope.state))
            .map(|scope| (scope.model.clone(), cooldown(scope.until, &scope.cause)))
            .collect(),
    }
}
