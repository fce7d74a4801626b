//! Stores each upstream's model list, and saves the lists across restarts.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::{
    base::{fs, sync::Mutex},
    config::settings::{Upstream, UpstreamId},
    routing::catalog::ModelSet,
};

/// The learned lists.
pub struct ModelLists {
    learned: ArcSwap<HashMap<UpstreamId, Arc<ModelSet>>>,
    /// Upstreams whose list could not be fetched; requests do not wait for them.
    failed: Mutex<HashSet<UpstreamId>>,
    changed: Notify,
    /// The file of the lists, by upstream name.
    file: Option<PathBuf>,
}

#[derive(Default, Serialize, Deserialize)]
struct ModelListFile {
    upstreams: BTreeMap<String, SavedModelList>,
}

#[derive(Serialize, Deserialize)]
struct SavedModelList {
    base_url: String,
    models: Vec<String>,
}

impl ModelLists {
    /// Reads the lists of an earlier run; a missing or damaged file counts as empty.
    #[must_use]
    pub fn new(file: Option<PathBuf>, upstreams: &[Arc<Upstream>]) -> Self {
        let contents: ModelListFile = file
            .as_ref()
            .and_then(|file| std::fs::read(file).ok())
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let mut learned = HashMap::new();
        for upstream in upstreams {
            if let Some(list) = contents
                .upstreams
                .get(&*upstream.name)
                .filter(|list| upstream.endpoints.iter().any(|end| end.base_url == list.base_url))
            {
                learned.insert(upstream.id, Arc::new(ModelSet::new(list.models.clone())));
            }
        }
        Self {
            learned: ArcSwap::from_pointee(learned),
            failed: Mutex::default(),
            changed: Notify::new(),
            file,
        }
    }

    /// Returns all current lists.
    #[must_use]
    pub fn learned(&self) -> Arc<HashMap<UpstreamId, Arc<ModelSet>>> {
        self.learned.load_full()
    }

    /// Waits until one of these lists is fetched or has failed; returns whether further waiting may
    /// help.
    pub async fn wait_until_known(&self, upstreams: &[UpstreamId], deadline: Instant) -> bool {
        let changed = self.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if self.all_known(upstreams) {
            return false;
        }
        timeout_at(deadline, changed).await.is_ok() && !self.all_known(upstreams)
    }

    fn all_known(&self, upstreams: &[UpstreamId]) -> bool {
        let (learned, failed) = (self.learned.load(), self.failed.lock());
        upstreams.iter().all(|id| learned.contains_key(id) || failed.contains(id))
    }

    pub(in crate::relay) fn has_failed(&self, id: UpstreamId) -> bool {
        self.failed.lock().contains(&id)
    }

    pub(in crate::relay) fn record_fetch(&self, id: UpstreamId, list: Option<ModelSet>) {
        match list {
            Some(list) => {
                let list = Arc::new(list);
                self.learned.rcu(|old| {
                    let mut new = HashMap::clone(old);
                    new.insert(id, Arc::clone(&list));
                    new
                });
                self.failed.lock().remove(&id);
            }
            None => {
                self.failed.lock().insert(id);
            }
        }
        self.changed.notify_waiters();
    }

    pub(in crate::relay) fn save(&self, upstreams: &[Arc<Upstream>]) {
        let Some(file) = &self.file else { return };
        let learned = self.learned.load();
        let mut contents = ModelListFile::default();
        for upstream in upstreams {
            if let (Some(set), Some(end)) = (learned.get(&upstream.id), upstream.endpoints.first())
            {
                contents.upstreams.insert(
                    upstream.name.to_string(),
                    SavedModelList {
                        base_url: end.base_url.clone(),
                        models: set.names().iter().map(ToString::to_string).collect(),
                    },
                );
            }
        }
        let saved = serde_json::to_vec(&contents)
            .map_err(std::io::Error::other)
            .and_then(|bytes| fs::write_atomic(file, &bytes, 0o600));
        if let Err(e) = saved {
            tracing::warn!(file = %file.display(), error = %e, "model lists could not be kept");
        }
    }
}
