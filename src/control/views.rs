//! Converts routing state and settings to the views of a snapshot.

use std::{sync::Arc, time::Duration};

use super::snapshot::{
    BalanceView, BudgetView, KeyStatus, KeyView, LimitRemaining, ModelScope, ModelView, PriceView,
    ProbeView, UpstreamState, UpstreamStats, UpstreamView,
};
use crate::{
    base::{
        clock::{Mono, UnixMillis},
        money::{self, NanoUsd},
    },
    config::settings::{Origin, Project, Upstream, UpstreamKey},
    ir::{
        cost::{AppliedPrice, PriceClass},
        reason::failure::FailureReason,
    },
    relay::engine::{Engine, Generation},
    routing::{
        budget::{self, BudgetDenied, Holder},
        candidate::KeyState,
        health::view::{HealthState, HealthView},
        listing,
    },
};

/// Returns every upstream that is served; `demo` only if there is no other.
#[must_use]
pub fn upstreams(engine: &Engine, generation: &Generation) -> Vec<UpstreamView> {
    let (now, learned) = (engine.clock.mono(), engine.model_lists.learned());
    let listed = listed_upstreams(generation);
    listed
        .map(|upstream| {
            let health = engine.router.upstream_view(upstream.id, now);
            let stats = engine.router.stats(upstream.id, now);
            let keys: Vec<KeyStatus> =
                upstream.keys.iter().map(|key| key_state(engine, upstream, key, now).0).collect();
            let ready = keys.iter().filter(|status| **status == KeyStatus::Ok).count();
            let over = if engine.budgets.has_any() {
                spent_budget(engine, &Holder::Upstream(Arc::clone(&upstream.name)))
            } else {
                None
            };
            UpstreamView {
                name: upstream.name.to_string(),
                dialects: upstream.endpoints.iter().map(|end| end.dialect.to_string()).collect(),
                base_url: upstream
                    .endpoints
                    .first()
                    .map(|end| end.base_url.clone())
                    .unwrap_or_default(),
                origin: upstream.origin,
                priority: upstream.priority,
                state: match health.state {
                    _ if !upstream.enabled => UpstreamState::Disabled,
                    HealthState::Ok if over.is_some() => UpstreamState::Cooling,
                    HealthState::Ok => state_by_keys(&keys),
                    HealthState::Cooling | HealthState::Rejected => UpstreamState::Cooling,
                    HealthState::Open => UpstreamState::Open,
                    HealthState::Probing => UpstreamState::Probing,
                },
                cause: health
                    .cause
                    .clone()
                    .or_else(|| over.as_ref().map(|(cause, _)| Arc::clone(cause))),
                until: health
                    .until
                    .map(|until| engine.clock.unix_at(until))
                    .or_else(|| over.as_ref().and_then(|(_, until)| *until)),
                keys_ready: count(ready),
                keys: count(upstream.keys.len()),
                stats: UpstreamStats {
                    attempts: stats.attempts,
                    errors: stats.errors,
                    ttft_p50_ms: stats.ttft_p50.map(millis),
                    ttft_p95_ms: stats.ttft_p95.map(millis),
                    spark: stats.spark,
                },
                models: learned.get(&upstream.id).map(|set| count(set.names().len())),
                probe: probe_view(engine, upstream),
            }
        })
        .collect()
}

fn probe_view(engine: &Engine, upstream: &Upstream) -> Option<ProbeView> {
    let health = upstream.health.as_ref()?;
    let probed = engine.health_checks.latest(upstream.id)?;
    Some(ProbeView {
        path: health.path.clone(),
        every_ms: u64::try_from(health.interval.as_millis()).unwrap_or(u64::MAX),
        at: probed.at,
        took_ms: millis(probed.duration),
        message: probed.message.to_string(),
        ok: probed.is_reachable,
    })
}

/// Returns the upstreams that listings show.
pub fn listed_upstreams(generation: &Generation) -> impl Iterator<Item = &Arc<Upstream>> {
    let alone =
        generation.settings.upstreams.iter().all(|upstream| upstream.origin == Origin::Demo);
    generation
        .settings
        .upstreams
        .iter()
        .filter(move |upstream| alone || upstream.origin != Origin::Demo)
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Returns every key of every upstream.
#[must_use]
pub fn keys(engine: &Engine, generation: &Generation) -> Vec<KeyView> {
    let now = engine.clock.mono();
    let mut out = Vec::new();
    for upstream in listed_upstreams(generation) {
        for key in &upstream.keys {
            let view = engine.router.key_view(key.id, now);
            let (mut state, mut cause) = key_state(engine, upstream, key, now);
            let mut until = view.health.until.map(|until| engine.clock.unix_at(until));
            if engine.budgets.has_any()
                && matches!(state, KeyStatus::Ok | KeyStatus::Partly)
                && let Some(over) = spent_budget(engine, &Holder::Key(Arc::clone(&key.name)))
            {
                (state, cause, until) = (KeyStatus::Cooling, Some(over.0), over.1);
            }
            let health = &view.health;
            let narrow: Vec<ModelScope> = view
                .models
                .iter()
                .filter(|(_, health)| health.state != HealthState::Ok)
                .map(|(model, health)| ModelScope {
                    model: model.to_string(),
                    state: key_status(health),
                    cause: health.cause.clone(),
                    until: health.until.map(|until| engine.clock.unix_at(until)),
                    since: health.since.map(|since| engine.clock.unix_at(since)),
                    from_provider: health.from_provider,
                })
                .collect();
            out.push(KeyView {
                upstream: upstream.name.to_string(),
                label: key.label.to_string(),
                account: key.account.to_string(),
                fingerprint: engine.keys.summary(key.id).fingerprint.to_string(),
                reference: key.reference.to_string(),
                state,
                cause: cause.or_else(|| health.cause.clone()),
                until,
                since: health.since.map(|since| engine.clock.unix_at(since)),
                from_provider: health.from_provider,
                scopes: narrow,
                requests: view.requests,
                tokens: view.tokens,
                running: view.running,
                balance: engine.balances.get(key.id).map(|balance| BalanceView {
                    text: balance.text(),
                    low: balance.is_low(generation.settings.alerts.balance_below),
                    amount: balance.amount,
                    currency: balance.currency,
                    at: balance.at,
                }),
                limits: view
                    .limits
                    .iter()
                    .map(|(model, kind, window)| LimitRemaining {
                        model: model.to_string(),
                        kind: kind.name().to_owned(),
                        limit: window.limit,
                        remaining: window.remaining,
                        until: engine.clock.unix_at(window.until),
                    })
                    .collect(),
            });
        }
    }
    out
}

/// Returns the state of an upstream that works itself. One without keys needs none.
fn state_by_keys(keys: &[KeyStatus]) -> UpstreamState {
    let usable = |status: &KeyStatus| {
        matches!(
            status,
            KeyStatus::Ok | KeyStatus::Partly | KeyStatus::Probing | KeyStatus::Waiting
        )
    };
    if keys.is_empty() || keys.iter().any(usable) {
        UpstreamState::Healthy
    } else if keys.contains(&KeyStatus::Cooling) {
        UpstreamState::Cooling
    } else {
        UpstreamState::NoKey
    }
}

fn key_state(
    engine: &Engine,
    upstream: &Upstream,
    key: &UpstreamKey,
    now: Mono,
) -> (KeyStatus, Option<Arc<FailureReason>>) {
    if !key.enabled || !upstream.enabled {
        return (KeyStatus::Disabled, None);
    }
    match engine.key_info(key.id).0 {
        KeyState::Missing(secret) => {
            return (KeyStatus::Missing, Some(FailureReason::MissingSecret { secret }.into()));
        }
        KeyState::Waiting => return (KeyStatus::Waiting, None),
        KeyState::Disabled => return (KeyStatus::Disabled, None),
        KeyState::OverBudget { .. } | KeyState::Ready => {}
    }
    let view = engine.router.key_view(key.id, now);
    let own = key_status(&view.health);
    let narrow = view.models.iter().any(|(_, health)| health.state != HealthState::Ok);
    (if own == KeyStatus::Ok && narrow { KeyStatus::Partly } else { own }, None)
}

fn key_status(health: &HealthView) -> KeyStatus {
    match health.state {
        HealthState::Ok => KeyStatus::Ok,
        HealthState::Cooling | HealthState::Open => KeyStatus::Cooling,
        HealthState::Probing => KeyStatus::Probing,
        HealthState::Rejected => KeyStatus::Rejected,
    }
}

/// Returns the state of every budget.
#[must_use]
pub fn budgets(engine: &Engine) -> Vec<BudgetView> {
    let all = engine.budgets.states(engine.clock.unix()).into_iter();
    all.map(|state| BudgetView {
        holder: state.holder.text(),
        per: state.budget.period,
        usd: state.budget.usd,
        spent: state.spent,
        reserved: state.reserved,
        percent: budget::percent(state.spent, state.budget.usd),
        unpriced: state.unpriced_attempts,
        from: state.period.from,
        until: state.period.until,
    })
    .collect()
}

/// Returns the spent budget and when its period ends; `None` if it is not spent.
fn spent_budget(
    engine: &Engine,
    holder: &Holder,
) -> Option<(Arc<FailureReason>, Option<UnixMillis>)> {
    // The smallest cost that a request can have.
    match engine.budgets.denial(holder, Some(NanoUsd(1)), engine.clock.unix())? {
        BudgetDenied::Spent { budget, spent, until } => {
            let (limit, per) = (budget.usd, budget.period);
            Some((FailureReason::BudgetSpent { spent, limit, per }.into(), until))
        }
        BudgetDenied::Reserved { .. } | BudgetDenied::Unpriced { .. } => None,
    }
}

/// Returns every name that the owner may request.
#[must_use]
pub fn models(engine: &Engine, generation: &Generation) -> Vec<ModelView> {
    let learned = engine.model_lists.learned();
    let project = unrestricted_project(generation);
    listing::list_names(&generation.catalog, &project, &|id| learned.get(&id).cloned())
        .into_iter()
        .map(|listed| ModelView {
            name: listed.name.to_string(),
            kind: listed.kind.name().to_owned(),
            price: listed.routes.first().and_then(|route| {
                let (_, rule) = generation.prices.find(&route.upstream, &route.model, None)?;
                price_view(rule.default_price())
            }),
            targets: listed.routes.iter().map(ToString::to_string).collect(),
        })
        .collect()
}

/// Returns the price per million tokens; `None` without a price for input.
#[must_use]
pub fn price_view(used: &AppliedPrice) -> Option<PriceView> {
    let written = |class| used.rates.explicit(class).map(money::format_nanos);
    Some(PriceView {
        currency: used.currency.to_string(),
        input: written(PriceClass::Input)?,
        output: written(PriceClass::Output),
    })
}

/// Builds a project without restrictions.
fn unrestricted_project(generation: &Generation) -> Arc<Project> {
    let admin = generation
        .settings
        .projects
        .iter()
        .find(|project| project.admin)
        .or_else(|| generation.settings.projects.first());
    admin.cloned().unwrap_or_else(|| {
        Arc::new(Project { name: "owner".into(), admin: true, ..Project::default() })
    })
}
