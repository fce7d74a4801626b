//! The file in the data dir that saves the circuit state of upstreams and keys across restarts.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    base::{clock::UnixMillis, fs, money::NanoUsd, sync::Mutex},
    config::settings::Period,
    ir::reason::{failure::FailureReason, text_field::cause_and_failure},
    routing::{
        budget::{Budgets, Holder, SavedBudget},
        outcome::CooldownClass,
    },
};

/// Files of another version are ignored.
pub(in crate::relay) const FILE_VERSION: u32 = 1;
/// A larger file was not written by aiproxy.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The file, and its content that was not restored yet.
#[derive(Debug, Default)]
pub struct HealthStore {
    path: Option<PathBuf>,
    loaded: Mutex<HealthFile>,
    last_saved: Mutex<Vec<u8>>,
}

/// The content of the file.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::relay) struct HealthFile {
    pub(in crate::relay) version: u32,
    #[serde(default)]
    pub(in crate::relay) upstreams: BTreeMap<String, SavedUpstreamRow>,
    #[serde(default)]
    pub(in crate::relay) keys: BTreeMap<String, SavedKeyRow>,
    #[serde(default)]
    pub(in crate::relay) budgets: Vec<SavedBudgetRow>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::relay) struct SavedBudgetRow {
    pub(in crate::relay) holder: String,
    pub(in crate::relay) per: Period,
    pub(in crate::relay) from: UnixMillis,
    pub(in crate::relay) spent: NanoUsd,
    pub(in crate::relay) unknown: u64,
    #[serde(rename = "told")]
    pub(in crate::relay) threshold_reported: u8,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::relay) struct SavedUpstreamRow {
    #[serde(default)]
    pub(in crate::relay) circuit: Option<CircuitRow>,
    /// Milliseconds, by model.
    #[serde(default)]
    pub(in crate::relay) ttft: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::relay) struct SavedKeyRow {
    /// Fingerprint of the secret to which this state belongs.
    pub(in crate::relay) fingerprint: String,
    #[serde(default)]
    pub(in crate::relay) circuit: Option<CircuitRow>,
    #[serde(default)]
    pub(in crate::relay) account: Option<CircuitRow>,
    #[serde(default)]
    pub(in crate::relay) models: BTreeMap<String, CircuitRow>,
    #[serde(default)]
    pub(in crate::relay) limits: Vec<SavedLimitRow>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::relay) struct CircuitRow {
    pub(in crate::relay) until: Option<UnixMillis>,
    pub(in crate::relay) since: UnixMillis,
    pub(in crate::relay) strikes: u32,
    #[serde(flatten, with = "cause_and_failure")]
    pub(in crate::relay) cause: Arc<FailureReason>,
    pub(in crate::relay) class: String,
    #[serde(rename = "blocked")]
    pub(in crate::relay) hard_block: bool,
    #[serde(rename = "hinted")]
    pub(in crate::relay) from_provider: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::relay) struct SavedLimitRow {
    pub(in crate::relay) model: String,
    #[serde(rename = "what")]
    pub(in crate::relay) kind: String,
    pub(in crate::relay) limit: Option<u64>,
    pub(in crate::relay) remaining: u64,
    pub(in crate::relay) until: UnixMillis,
}

/// The classes of cooldowns, as the file names them.
pub(in crate::relay) const CLASS_NAMES: [(CooldownClass, &str); 6] = [
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

    /// Takes an upstream's state out of the file of the earlier run.
    pub(in crate::relay) fn take_upstream(&self, name: &str) -> Option<SavedUpstreamRow> {
        self.loaded.lock().upstreams.remove(name)
    }

    /// Takes a key's state out of the file of the earlier run. Another secret than the one with
    /// this fingerprint starts afresh.
    pub(in crate::relay) fn take_key(&self, name: &str, fingerprint: &str) -> Option<SavedKeyRow> {
        let row = self.loaded.lock().keys.remove(name);
        row.filter(|row| !row.fingerprint.is_empty() && row.fingerprint == fingerprint)
    }

    /// Restores what the earlier run counted of budgets.
    pub(in crate::relay) fn restore_budgets(&self, budgets: &Budgets) {
        self.saved_budgets().iter().for_each(|saved| budgets.restore(saved));
    }

    /// Returns what was spent of budgets.
    fn saved_budgets(&self) -> Vec<SavedBudget> {
        let found = self.loaded.lock();
        let saved = |row: &SavedBudgetRow| {
            let SavedBudgetRow {
                ref holder,
                per,
                from,
                spent,
                unknown,
                threshold_reported: reported,
            } = *row;
            Some(SavedBudget {
                holder: Holder::parse(holder)?,
                per,
                from,
                spent: spent.max(NanoUsd::ZERO),
                unpriced_attempts: unknown,
                threshold_reported: reported,
            })
        };
        found.budgets.iter().filter_map(saved).collect()
    }

    /// Writes the current state if it differs from the file; takes no snapshot without a file.
    pub(in crate::relay) fn save(&self, snapshot: impl FnOnce() -> HealthFile) {
        let Some(file) = &self.path else { return };
        let mut saved = self.last_saved.lock();
        let bytes = match serde_json::to_vec(&snapshot()) {
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
}
