//! Saves the circuit state of upstreams and keys across restarts, in one small file in the data
//! dir.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::relay::engine::Engine;
use crate::{
    base::{
        clock::{Clock, Mono, UnixMillis},
        fs,
        money::NanoUsd,
    },
    config::settings::{Period, Upstream, UpstreamKey},
    routing::{
        budget::{Holder, SavedBudget},
        health::{
            rate_limits::{LimitKind, LimitWindow},
            saved::{SavedCircuit, SavedKey, SavedUpstream},
        },
        outcome::CooldownClass,
    },
};

/// How often the state is checked for changes.
pub const SAVE_INTERVAL: Duration = Duration::from_secs(5);
/// Files of another version are ignored.
const FILE_VERSION: u32 = 1;
/// A larger file was not written by aiproxy.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The file, and its content that was not restored yet.
#[derive(Debug, Default)]
pub struct HealthStore {
    path: Option<PathBuf>,
    loaded: Mutex<HealthFile>,
    last_saved: Mutex<Vec<u8>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct HealthFile {
    version: u32,
    #[serde(default)]
    upstreams: BTreeMap<String, SavedUpstreamRow>,
    #[serde(default)]
    keys: BTreeMap<String, SavedKeyRow>,
    #[serde(default)]
    budgets: Vec<SavedBudgetRow>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedBudgetRow {
    holder: String,
    per: Period,
    from: UnixMillis,
    spent: NanoUsd,
    unknown: u64,
    #[serde(rename = "told")]
    threshold_reported: u8,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct SavedUpstreamRow {
    #[serde(default)]
    circuit: Option<CircuitRow>,
    /// Milliseconds, by model.
    #[serde(default)]
    ttft: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct SavedKeyRow {
    /// Fingerprint of the secret to which this state belongs.
    fingerprint: String,
    #[serde(default)]
    circuit: Option<CircuitRow>,
    #[serde(default)]
    account: Option<CircuitRow>,
    #[serde(default)]
    models: BTreeMap<String, CircuitRow>,
    #[serde(default)]
    limits: Vec<SavedLimitRow>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CircuitRow {
    until: Option<UnixMillis>,
    since: UnixMillis,
    strikes: u32,
    cause: String,
    class: String,
    #[serde(rename = "blocked")]
    hard_block: bool,
    #[serde(rename = "hinted")]
    from_provider: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedLimitRow {
    model: String,
    #[serde(rename = "what")]
    kind: String,
    limit: Option<u64>,
    remaining: u64,
    until: UnixMillis,
}

const CLASS_NAMES: [(CooldownClass, &str); 6] = [
    (CooldownClass::None, "by hand"),
    (CooldownClass::RateLimited, "rate limited"),
    (CooldownClass::ServerError, "server error"),
    (CooldownClass::Quota, "quota"),
    (CooldownClass::ModelMissing, "model missing"),
    (CooldownClass::Rejected, "rejected"),
];

impl HealthStore {
    /// Reads the file of an earlier run; a missing, damaged or foreign file counts as empty.
    #[must_use]
    pub fn open(file: PathBuf) -> Self {
        let small = std::fs::metadata(&file)
            .is_ok_and(|found| found.is_file() && found.len() <= MAX_FILE_BYTES);
        let bytes = if small { std::fs::read(&file).unwrap_or_default() } else { Vec::new() };
        let found: HealthFile = serde_json::from_slice(&bytes).unwrap_or_default();
        let found = if found.version == FILE_VERSION { found } else { HealthFile::default() };
        Self { path: Some(file), loaded: Mutex::new(found), last_saved: Mutex::new(bytes) }
    }

    /// Restores an upstream's state.
    pub fn restore_upstream(&self, engine: &Engine, upstream: &Upstream) {
        let row = self
            .loaded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .upstreams
            .remove(&*upstream.name);
        let Some(SavedUpstreamRow { circuit, ttft }) = row else { return };
        let saved = SavedUpstream {
            circuit: circuit.and_then(|row| row.into_circuit(engine)),
            ttft: ttft
                .into_iter()
                .take(64)
                .map(|(model, ms)| (model.into(), Duration::from_millis(ms.min(3_600_000))))
                .collect(),
        };
        engine.router.restore_upstream(upstream.id, saved, engine.clock.mono());
    }

    /// Restores a key's state, once its secret is known to be the same.
    pub fn restore_key(&self, engine: &Engine, key: &UpstreamKey) {
        let fingerprint = engine.keys.summary(key.id).fingerprint.to_string();
        let row =
            self.loaded.lock().unwrap_or_else(PoisonError::into_inner).keys.remove(&*key.name);
        let Some(row) =
            row.filter(|row| !row.fingerprint.is_empty() && row.fingerprint == fingerprint)
        else {
            return;
        };
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
            circuit: row.circuit.and_then(|row| row.into_circuit(engine)),
            account: row.account.and_then(|row| row.into_circuit(engine)),
            models: row
                .models
                .into_iter()
                .take(64)
                .filter_map(|(model, row)| Some((model.into(), row.into_circuit(engine)?)))
                .collect(),
            limits: row.limits.into_iter().take(256).filter_map(limit).collect(),
        };
        engine.router.restore_key(key.id, saved, now);
    }

    /// Returns what was spent of budgets.
    #[must_use]
    pub fn saved_budgets(&self) -> Vec<SavedBudget> {
        let found = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let saved = |row: &SavedBudgetRow| {
            let SavedBudgetRow { ref holder, per, from, spent, unknown, threshold_reported: told } =
                *row;
            Some(SavedBudget {
                holder: Holder::parse(holder)?,
                per,
                from,
                spent: spent.max(NanoUsd::ZERO),
                unpriced_attempts: unknown,
                threshold_reported: told,
            })
        };
        found.budgets.iter().filter_map(saved).collect()
    }

    /// Writes the current state if it differs from the file.
    pub fn save(&self, engine: &Engine) {
        let Some(file) = &self.path else { return };
        let mut saved = self.last_saved.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = match serde_json::to_vec(&Self::snapshot(engine)) {
            Ok(bytes) => bytes,
            Err(e) => {
                return tracing::warn!("what is believed of keys cannot be written down: {e}");
            }
        };
        if *saved == bytes {
            return;
        }
        match fs::write_atomic(file, &bytes, 0o600) {
            Ok(()) => *saved = bytes,
            Err(e) => {
                tracing::warn!(file = %file.display(), "what is believed of keys is not kept over a restart: {e}");
            }
        }
    }

    fn snapshot(engine: &Engine) -> HealthFile {
        let (now, settings) = (engine.clock.mono(), Arc::clone(&engine.generation().settings));
        let budgets = engine.budgets.save(engine.clock.unix()).into_iter().map(|saved| {
            let SavedBudget {
                holder,
                per,
                from,
                spent,
                unpriced_attempts: unknown,
                threshold_reported: told,
            } = saved;
            SavedBudgetRow {
                holder: holder.text(),
                per,
                from,
                spent,
                unknown,
                threshold_reported: told,
            }
        });
        let mut out = HealthFile {
            version: FILE_VERSION,
            budgets: budgets.collect(),
            ..HealthFile::default()
        };
        for upstream in &settings.upstreams {
            let saved = engine.router.save_upstream(upstream.id, now);
            if !saved.is_empty() {
                // Rounded, so that a slowly decaying value does not cause repeated writes.
                let rough = |span: &Duration| {
                    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1).ilog2()
                };
                let ttft = saved
                    .ttft
                    .iter()
                    .map(|(model, span)| (model.to_string(), 1_u64 << rough(span)))
                    .collect();
                out.upstreams.insert(
                    upstream.name.to_string(),
                    SavedUpstreamRow {
                        circuit: saved
                            .circuit
                            .as_ref()
                            .map(|saved| CircuitRow::from_circuit(saved, engine)),
                        ttft,
                    },
                );
            }
            for key in &upstream.keys {
                let saved = engine.router.save_key(key.id, now);
                let fingerprint = engine.keys.summary(key.id).fingerprint.to_string();
                if saved.is_empty() || fingerprint.is_empty() {
                    continue;
                }
                let limit =
                    |(model, kind, window): &(Arc<str>, LimitKind, LimitWindow)| SavedLimitRow {
                        model: model.to_string(),
                        kind: kind.name().to_owned(),
                        limit: window.limit,
                        remaining: window.remaining,
                        until: round_to_second(engine.clock.unix_at(window.until)),
                    };
                let row = SavedKeyRow {
                    fingerprint,
                    circuit: saved
                        .circuit
                        .as_ref()
                        .map(|saved| CircuitRow::from_circuit(saved, engine)),
                    account: saved
                        .account
                        .as_ref()
                        .map(|saved| CircuitRow::from_circuit(saved, engine)),
                    models: saved
                        .models
                        .iter()
                        .map(|(model, saved)| {
                            (model.to_string(), CircuitRow::from_circuit(saved, engine))
                        })
                        .collect(),
                    limits: saved.limits.iter().map(limit).collect(),
                };
                out.keys.insert(key.name.to_string(), row);
            }
        }
        out
    }
}

impl CircuitRow {
    fn from_circuit(saved: &SavedCircuit, engine: &Engine) -> Self {
        Self {
            until: saved.until.map(|until| round_to_second(engine.clock.unix_at(until))),
            since: round_to_second(engine.clock.unix_at(saved.since)),
            strikes: saved.strikes,
            cause: engine.sanitize(&saved.cause),
            class: CLASS_NAMES
                .iter()
                .find(|(class, _)| *class == saved.class)
                .map_or("", |(_, name)| name)
                .to_owned(),
            hard_block: saved.hard_block,
            from_provider: saved.from_provider,
        }
    }

    /// Limits the end to what the cooldown rules allow, because the clock may have been set
    /// meanwhile.
    fn into_circuit(self, engine: &Engine) -> Option<SavedCircuit> {
        let (now, cooldown) = (engine.clock.mono(), &engine.generation().settings.cooldown);
        let class =
            CLASS_NAMES.iter().find(|(_, name)| *name == self.class).map(|(class, _)| *class)?;
        let max_span = match class {
            CooldownClass::None => Duration::MAX,
            _ => cooldown.max.max(cooldown.max_hint).max(cooldown.quota),
        };
        Some(SavedCircuit {
            until: self.until.map(|until| to_mono(&*engine.clock, until, now).min(now + max_span)),
            since: to_mono(&*engine.clock, self.since, now).min(now),
            strikes: self.strikes,
            cause: engine.sanitize(&self.cause).into(),
            class,
            hard_block: self.hard_block,
            from_provider: self.from_provider,
        })
    }
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
