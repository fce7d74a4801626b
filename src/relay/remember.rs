//! What is believed of upstreams and keys, over a restart: one small file in the data dir.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::engine::Engine;
use crate::{
    base::{
        clock::{Clock, Mono, UnixMillis},
        disk,
        money::NanoUsd,
    },
    config::settings::{Period, Upstream, UpstreamKey},
    routing::{
        budget::{Holder, SavedBudget},
        kept::{SavedCircuit, SavedKey, SavedUpstream},
        learned::{LimitKind, LimitWindow},
        outcome::CooldownClass,
    },
};

/// How often it is looked whether there is anything new.
pub const SAVE: Duration = Duration::from_secs(5);
/// Files of another version say nothing to us.
const VERSION: u32 = 1;
/// A larger file is none of ours.
const LARGEST: u64 = 4 << 20;

/// The file, and what of it has not been taken up yet.
#[derive(Debug, Default)]
pub struct Remember {
    file: Option<PathBuf>,
    found: Mutex<File>,
    saved: Mutex<Vec<u8>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    version: u32,
    #[serde(default)]
    upstreams: BTreeMap<String, UpstreamRow>,
    #[serde(default)]
    keys: BTreeMap<String, KeyRow>,
    #[serde(default)]
    budgets: Vec<BudgetRow>,
}

#[derive(Debug, Serialize, Deserialize)]
struct BudgetRow {
    holder: String,
    per: Period,
    from: UnixMillis,
    spent: NanoUsd,
    unknown: u64,
    told: u8,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct UpstreamRow {
    #[serde(default)]
    circuit: Option<Row>,
    /// Milliseconds, by model.
    #[serde(default)]
    ttft: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct KeyRow {
    /// Of the secret that all this was held against.
    fingerprint: String,
    #[serde(default)]
    circuit: Option<Row>,
    #[serde(default)]
    account: Option<Row>,
    #[serde(default)]
    models: BTreeMap<String, Row>,
    #[serde(default)]
    limits: Vec<LimitRow>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    until: Option<UnixMillis>,
    since: UnixMillis,
    strikes: u32,
    cause: String,
    class: String,
    blocked: bool,
    hinted: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct LimitRow {
    model: String,
    what: String,
    limit: Option<u64>,
    remaining: u64,
    until: UnixMillis,
}

const CLASSES: [(CooldownClass, &str); 6] = [
    (CooldownClass::None, "by hand"),
    (CooldownClass::RateLimited, "rate limited"),
    (CooldownClass::ServerError, "server error"),
    (CooldownClass::Quota, "quota"),
    (CooldownClass::ModelMissing, "model missing"),
    (CooldownClass::Rejected, "rejected"),
];

impl Remember {
    /// Reads what an earlier run left; a missing, damaged or foreign file is an empty one.
    #[must_use]
    pub fn at(file: PathBuf) -> Self {
        let small =
            std::fs::metadata(&file).is_ok_and(|found| found.is_file() && found.len() <= LARGEST);
        let bytes = if small { std::fs::read(&file).unwrap_or_default() } else { Vec::new() };
        let found: File = serde_json::from_slice(&bytes).unwrap_or_default();
        let found = if found.version == VERSION { found } else { File::default() };
        Self { file: Some(file), found: Mutex::new(found), saved: Mutex::new(bytes) }
    }

    /// Takes up what was held against an upstream.
    pub fn upstream(&self, engine: &Engine, upstream: &Upstream) {
        let row = self
            .found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .upstreams
            .remove(&*upstream.name);
        let Some(UpstreamRow { circuit, ttft }) = row else { return };
        let kept = SavedUpstream {
            circuit: circuit.and_then(|row| row.kept(engine)),
            ttft: ttft
                .into_iter()
                .take(64)
                .map(|(model, ms)| (model.into(), Duration::from_millis(ms.min(3_600_000))))
                .collect(),
        };
        engine.board.restore_upstream(upstream.id, kept, engine.clock.mono());
    }

    /// Takes up what was held against a key, once its secret is known to be the same.
    pub fn key(&self, engine: &Engine, key: &UpstreamKey) {
        let fingerprint = engine.keys.summary(key.id).fingerprint.to_string();
        let row = self.found.lock().unwrap_or_else(PoisonError::into_inner).keys.remove(&*key.name);
        let Some(row) =
            row.filter(|row| !row.fingerprint.is_empty() && row.fingerprint == fingerprint)
        else {
            return;
        };
        let now = engine.clock.mono();
        let limit = |row: LimitRow| {
            let until = when(&*engine.clock, row.until, now)
                .min(now + engine.generation().settings.cooldown.max_hint);
            Some((
                row.model.into(),
                LimitKind::parse(&row.what)?,
                LimitWindow { limit: row.limit, remaining: row.remaining, until },
            ))
        };
        let kept = SavedKey {
            circuit: row.circuit.and_then(|row| row.kept(engine)),
            account: row.account.and_then(|row| row.kept(engine)),
            models: row
                .models
                .into_iter()
                .take(64)
                .filter_map(|(model, row)| Some((model.into(), row.kept(engine)?)))
                .collect(),
            limits: row.limits.into_iter().take(256).filter_map(limit).collect(),
        };
        engine.board.restore_key(key.id, kept, now);
    }

    /// What was spent of budgets.
    #[must_use]
    pub fn kept_budgets(&self) -> Vec<SavedBudget> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = |row: &BudgetRow| {
            let BudgetRow { ref holder, per, from, spent, unknown, told } = *row;
            Some(SavedBudget {
                holder: Holder::parse(holder)?,
                per,
                from,
                spent: spent.max(NanoUsd::ZERO),
                unpriced_attempts: unknown,
                threshold_reported: told,
            })
        };
        found.budgets.iter().filter_map(kept).collect()
    }

    /// Writes down what is believed now, if it is not what the file says.
    pub fn save(&self, engine: &Engine) {
        let Some(file) = &self.file else { return };
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = match serde_json::to_vec(&Self::now(engine)) {
            Ok(bytes) => bytes,
            Err(e) => {
                return tracing::warn!("what is believed of keys cannot be written down: {e}");
            }
        };
        if *saved == bytes {
            return;
        }
        match disk::write_atomic(file, &bytes, 0o600) {
            Ok(()) => *saved = bytes,
            Err(e) => {
                tracing::warn!(file = %file.display(), "what is believed of keys is not kept over a restart: {e}")
            }
        }
    }

    fn now(engine: &Engine) -> File {
        let (now, settings) = (engine.clock.mono(), Arc::clone(&engine.generation().settings));
        let budgets = engine.budgets.save(engine.clock.unix()).into_iter().map(|kept| {
            let SavedBudget {
                holder,
                per,
                from,
                spent,
                unpriced_attempts: unknown,
                threshold_reported: told,
            } = kept;
            BudgetRow { holder: holder.text(), per, from, spent, unknown, told }
        });
        let mut out = File { version: VERSION, budgets: budgets.collect(), ..File::default() };
        for upstream in &settings.upstreams {
            let kept = engine.board.save_upstream(upstream.id, now);
            if !kept.is_empty() {
                // In steps, so that a time that is slowly forgotten is not written again and again.
                let rough = |span: &Duration| {
                    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1).ilog2()
                };
                let ttft = kept
                    .ttft
                    .iter()
                    .map(|(model, span)| (model.to_string(), 1_u64 << rough(span)))
                    .collect();
                out.upstreams.insert(
                    upstream.name.to_string(),
                    UpstreamRow {
                        circuit: kept.circuit.as_ref().map(|kept| Row::of(kept, engine)),
                        ttft,
                    },
                );
            }
            for key in &upstream.keys {
                let kept = engine.board.save_key(key.id, now);
                let fingerprint = engine.keys.summary(key.id).fingerprint.to_string();
                if kept.is_empty() || fingerprint.is_empty() {
                    continue;
                }
                let limit = |(model, kind, window): &(Arc<str>, LimitKind, LimitWindow)| LimitRow {
                    model: model.to_string(),
                    what: kind.name().to_owned(),
                    limit: window.limit,
                    remaining: window.remaining,
                    until: second(engine.clock.unix_at(window.until)),
                };
                let row = KeyRow {
                    fingerprint,
                    circuit: kept.circuit.as_ref().map(|kept| Row::of(kept, engine)),
                    account: kept.account.as_ref().map(|kept| Row::of(kept, engine)),
                    models: kept
                        .models
                        .iter()
                        .map(|(model, kept)| (model.to_string(), Row::of(kept, engine)))
                        .collect(),
                    limits: kept.limits.iter().map(limit).collect(),
                };
                out.keys.insert(key.name.to_string(), row);
            }
        }
        out
    }
}

impl Row {
    fn of(kept: &SavedCircuit, engine: &Engine) -> Self {
        Self {
            until: kept.until.map(|until| second(engine.clock.unix_at(until))),
            since: second(engine.clock.unix_at(kept.since)),
            strikes: kept.strikes,
            cause: engine.words(&kept.cause),
            class: CLASSES
                .iter()
                .find(|(class, _)| *class == kept.class)
                .map_or("", |(_, name)| name)
                .to_owned(),
            blocked: kept.hard_block,
            hinted: kept.from_provider,
        }
    }

    /// A clock that was set meanwhile must not make an end later than any rule would have.
    fn kept(self, engine: &Engine) -> Option<SavedCircuit> {
        let (now, cooldown) = (engine.clock.mono(), &engine.generation().settings.cooldown);
        let class =
            CLASSES.iter().find(|(_, name)| *name == self.class).map(|(class, _)| *class)?;
        let most = match class {
            CooldownClass::None => Duration::MAX,
            _ => cooldown.max.max(cooldown.max_hint).max(cooldown.quota),
        };
        Some(SavedCircuit {
            until: self.until.map(|until| when(&*engine.clock, until, now).min(now + most)),
            since: when(&*engine.clock, self.since, now).min(now),
            strikes: self.strikes,
            cause: engine.words(&self.cause).into(),
            class,
            hard_block: self.blocked,
            from_provider: self.hinted,
        })
    }
}

/// To the second: two readings of the two clocks give ends that differ by a hair.
fn second(at: UnixMillis) -> UnixMillis {
    UnixMillis(at.0.saturating_add(500).div_euclid(1_000).saturating_mul(1_000))
}

fn when(clock: &dyn Clock, at: UnixMillis, now: Mono) -> Mono {
    let ahead = at.0.saturating_sub(clock.unix().0);
    let span = Duration::from_millis(ahead.unsigned_abs());
    if ahead < 0 { now - span } else { now + span }
}
