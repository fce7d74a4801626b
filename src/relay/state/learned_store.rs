//! What upstreams were found to refuse: the file that keeps it across restarts, and the counts.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    base::{clock::UnixMillis, fs, sync::Mutex},
    routing::learned::{LearnedRepairs, LearnedRow},
};

/// Files of another version are ignored.
const FILE_VERSION: u32 = 1;
/// A larger file was not written by aiproxy.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// The name of the file in the data dir.
const FILE_NAME: &str = "learned.json";

/// The learned repairs, their file and how many there were.
#[derive(Debug, Default)]
pub struct LearnedStore {
    pub repairs: Arc<LearnedRepairs>,
    file: Option<PathBuf>,
    /// The version that was written last; held while the file is written.
    saved_version: Mutex<u64>,
    /// Repaired requests by upstream.
    counts: Mutex<BTreeMap<Arc<str>, u64>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct LearnedFile {
    version: u32,
    models: Vec<LearnedRow>,
}

impl LearnedStore {
    /// Reads the file of an earlier run in the data dir; a missing, damaged or foreign file counts
    /// as empty.
    #[must_use]
    pub fn open(data_dir: &Path, now: UnixMillis) -> Self {
        let file = data_dir.join(FILE_NAME);
        let small = std::fs::metadata(&file)
            .is_ok_and(|found| found.is_file() && found.len() <= MAX_FILE_BYTES);
        let bytes = if small { std::fs::read(&file).unwrap_or_default() } else { Vec::new() };
        let repairs = Arc::new(LearnedRepairs::default());
        if let Ok(found) = serde_json::from_slice::<LearnedFile>(&bytes)
            && found.version == FILE_VERSION
        {
            repairs.restore(found.models, now);
        }
        let saved_version = Mutex::new(repairs.version());
        Self { repairs, file: Some(file), saved_version, counts: Mutex::default() }
    }

    /// Counts a request that was refused and sent once more.
    pub(in crate::relay) fn count(&self, upstream: &Arc<str>) {
        *self.counts.lock().entry(Arc::clone(upstream)).or_default() += 1;
    }

    /// Returns how many requests were refused and sent once more, by upstream.
    #[must_use]
    pub fn counts(&self) -> Vec<(String, u64)> {
        self.counts.lock().iter().map(|(name, count)| (name.to_string(), *count)).collect()
    }

    /// Forgets what was learned of these models, or of all if there are none; returns the number of
    /// models.
    pub fn forget(&self, names: &[String], now: UnixMillis) -> usize {
        let forgotten = self.repairs.forget(names);
        self.save(now);
        forgotten
    }

    /// Writes the file if something changed.
    pub fn save(&self, now: UnixMillis) {
        let Some(file) = &self.file else { return };
        let mut saved = self.saved_version.lock();
        let version = self.repairs.version();
        if *saved == version {
            return;
        }
        let content = LearnedFile { version: FILE_VERSION, models: self.repairs.rows(now) };
        let written = serde_json::to_vec_pretty(&content)
            .map_err(std::io::Error::from)
            .and_then(|bytes| fs::write_atomic(file, &bytes, 0o600));
        match written {
            Ok(()) => *saved = version,
            Err(e) => {
                tracing::warn!(file = %file.display(), "what was learned of models is not kept over a restart: {e}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ir::{op::Dialect, repair::Repair},
        routing::learned::LearnedPlace,
    };

    #[test]
    fn learned_facts_are_restored_and_expire_across_restarts() {
        let dir = tempfile::tempdir().expect("a folder");
        let now = UnixMillis(1_800_000_000_000);
        let place =
            LearnedPlace { upstream: "up".into(), dialect: Dialect::Openai, model: "m".into() };
        let store = LearnedStore::open(dir.path(), now);
        assert!(store.repairs.insert(place, Repair::Schema, now));
        store.save(now);

        let again = LearnedStore::open(dir.path(), now);
        assert_eq!(again.repairs.find("up", Dialect::Openai, "m").len(), 1);
        assert_eq!(again.forget(&["other".to_owned()], now), 0);
        assert_eq!(again.forget(&[], now), 1);
        assert!(LearnedStore::open(dir.path(), now).repairs.rows(now).is_empty());

        let damaged = br#"{"version":1,"models":[{"#;
        fs::write_atomic(&dir.path().join(FILE_NAME), damaged, 0o600).expect("a file");
        assert!(LearnedStore::open(dir.path(), now).repairs.rows(now).is_empty());
    }
}
