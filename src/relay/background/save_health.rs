//! Saves the circuit state of upstreams and keys, and restores it after a restart.

use std::{sync::Arc, time::Duration};

use crate::relay::{
    engine::Engine,
    state::health_store::{
        CLASS_NAMES, CircuitRow, FILE_VERSION, HealthFile, SavedBudgetRow, SavedKeyRow,
        SavedLimitRow, SavedUpstreamRow,
    },
};
use crate::{
    base::clock::{Clock, Mono, UnixMillis},
    config::settings::{Upstream, UpstreamKey},
    routing::{
        budget::SavedBudget,
        health::{
            rate_limits::{LimitKind, LimitWindow},
            saved::{SavedCircuit, SavedKey, SavedUpstream},
        },
        outcome::CooldownClass,
    },
};

/// How often the state is checked for changes.
pub const SAVE_INTERVAL: Duration = Duration::from_secs(5);

/// Restores an upstream's state.
pub fn restore_upstream(engine: &Engine, upstream: &Upstream) {
    let Some(SavedUpstreamRow { circuit, ttft }) =
        engine.health_store.take_upstream(&upstream.name)
    else {
        return;
    };
    let saved = SavedUpstream {
        circuit: circuit.and_then(|row| read_circuit(&row, engine)),
        ttft: ttft
            .into_iter()
            .take(64)
            .map(|(model, ms)| (model.into(), Duration::from_millis(ms.min(3_600_000))))
            .collect(),
    };
    engine.router.restore_upstream(upstream.id, saved, engine.clock.mono());
}

/// Restores a key's state, once its secret is known to be the same.
pub fn restore_key(engine: &Engine, key: &UpstreamKey) {
    let fingerprint = engine.keys.summary(key.id).fingerprint;
    let Some(row) = engine.health_store.take_key(&key.name, &fingerprint) else { return };
    let now = engine.clock.mono();
    let limit = |row: SavedLimitRow| {
        let until = to_mono(&*engine.clock, row.until, now)
            .min(now + engine.generation().settings.cooldown.max_hint);
        Some((
            row.model.into(),
            LimitKind::parse(&row.kind)?,
            LimitWindow { limit: row.limit, remaining: row.remaining, until },
        ))
    };
    let saved = SavedKey {
        circuit: row.circuit.and_then(|row| read_circuit(&row, engine)),
        account: row.account.and_then(|row| read_circuit(&row, engine)),
        models: row
            .models
            .into_iter()
            .take(64)
            .filter_map(|(model, row)| Some((model.into(), read_circuit(&row, engine)?)))
            .collect(),
        limits: row.limits.into_iter().take(256).filter_map(limit).collect(),
    };
    engine.router.restore_key(key.id, saved, now);
}

/// Writes the current state if it differs from the file. `stops`: the proxy is about to end.
pub fn save(engine: &Engine, stops: bool) {
    engine.health_store.save(|| snapshot(engine));
    engine.resource_owners.save(engine.clock.unix(), stops);
}

fn snapshot(engine: &Engine) -> HealthFile {
    let (now, settings) = (engine.clock.mono(), Arc::clone(&engine.generation().settings));
    let budgets = engine.budgets.save(engine.clock.unix());
    let budgets = budgets.iter().map(budget_row);
    let mut out =
        HealthFile { version: FILE_VERSION, budgets: budgets.collect(), ..HealthFile::default() };
    for upstream in &settings.upstreams {
        if let Some(row) = upstream_row(engine, upstream, now) {
            out.upstreams.insert(upstream.name.to_string(), row);
        }
        for key in &upstream.keys {
            if let Some(row) = key_row(engine, key, now) {
                out.keys.insert(key.name.to_string(), row);
            }
        }
    }
    out
}

fn budget_row(saved: &SavedBudget) -> SavedBudgetRow {
    SavedBudgetRow {
        holder: saved.holder.text(),
        per: saved.per,
        from: saved.from,
        spent: saved.spent,
        unknown: saved.unpriced_attempts,
        threshold_reported: saved.threshold_reported,
    }
}

fn upstream_row(engine: &Engine, upstream: &Upstream, now: Mono) -> Option<SavedUpstreamRow> {
    let saved = engine.router.save_upstream(upstream.id, now);
    if saved.is_empty() {
        return None;
    }
    // Rounded, so that a slowly decaying value does not cause repeated writes.
    let rough =
        |span: &Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1).ilog2();
    let ttft =
        saved.ttft.iter().map(|(model, span)| (model.to_string(), 1_u64 << rough(span))).collect();
    Some(SavedUpstreamRow {
        circuit: saved.circuit.as_ref().map(|saved| circuit_row(saved, engine)),
        ttft,
    })
}

fn key_row(engine: &Engine, key: &UpstreamKey, now: Mono) -> Option<SavedKeyRow> {
    let saved = engine.router.save_key(key.id, now);
    let fingerprint = engine.keys.summary(key.id).fingerprint.to_string();
    if saved.is_empty() || fingerprint.is_empty() {
        return None;
    }
    let limit = |(model, kind, window): &(Arc<str>, LimitKind, LimitWindow)| SavedLimitRow {
        model: model.to_string(),
        kind: kind.name().to_owned(),
        limit: window.limit,
        remaining: window.remaining,
        until: round_to_second(engine.clock.unix_at(window.until)),
    };
    Some(SavedKeyRow {
        fingerprint,
        circuit: saved.circuit.as_ref().map(|saved| circuit_row(saved, engine)),
        account: saved.account.as_ref().map(|saved| circuit_row(saved, engine)),
        models: saved
            .models
            .iter()
            .map(|(model, saved)| (model.to_string(), circuit_row(saved, engine)))
            .collect(),
        limits: saved.limits.iter().map(limit).collect(),
    })
}

fn circuit_row(saved: &SavedCircuit, engine: &Engine) -> CircuitRow {
    CircuitRow {
        until: saved.until.map(|until| round_to_second(engine.clock.unix_at(until))),
        since: round_to_second(engine.clock.unix_at(saved.since)),
        strikes: saved.strikes,
        cause: engine.sanitize_reason(&saved.cause),
        class: CLASS_NAMES
            .iter()
            .find(|(class, _)| *class == saved.class)
            .map_or("", |(_, name)| name)
            .to_owned(),
        hard_block: saved.hard_block,
        from_provider: saved.from_provider,
    }
}

/// Reads a saved circuit. Limits its end to what the cooldown rules allow, because the clock may have been set
/// meanwhile.
fn read_circuit(row: &CircuitRow, engine: &Engine) -> Option<SavedCircuit> {
    let (now, cooldown) = (engine.clock.mono(), &engine.generation().settings.cooldown);
    let class = CLASS_NAMES.iter().find(|(_, name)| *name == row.class).map(|(class, _)| *class)?;
    let max_span = match class {
        CooldownClass::None => Duration::MAX,
        _ => cooldown.max.max(cooldown.max_hint).max(cooldown.quota),
    };
    Some(SavedCircuit {
        until: row.until.map(|until| to_mono(&*engine.clock, until, now).min(now + max_span)),
        since: to_mono(&*engine.clock, row.since, now).min(now),
        strikes: row.strikes,
        cause: engine.sanitize_reason(&row.cause),
        class,
        hard_block: row.hard_block,
        from_provider: row.from_provider,
    })
}

/// Rounds to the second, because two readings of the two clocks differ slightly.
fn round_to_second(at: UnixMillis) -> UnixMillis {
    UnixMillis(at.0.saturating_add(500).div_euclid(1_000).saturating_mul(1_000))
}

fn to_mono(clock: &dyn Clock, at: UnixMillis, now: Mono) -> Mono {
    let ahead = at.0.saturating_sub(clock.unix().0);
    let span = Duration::from_millis(ahead.unsigned_abs());
    if ahead < 0 { now - span } else { now + span }
}
