//! Stores each upstream's model list. Lists are fetched in the background, saved across restarts,
//! and never fetched on the request path.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::relay::{attempt::build_request::required_header, engine::Engine};
use crate::{
    base::fs,
    config::settings::{DialectEndpoint, KeyId, Upstream, UpstreamId},
    dialect::registry,
    routing::catalog::ModelSet,
    upstream::models::{self, ModelListError},
};

/// How often lists are fetched again.
const REFRESH_INTERVAL: Duration = Duration::from_secs(600);
/// Delay before the first retry of a failed fetch; each further delay is three times as long.
const FIRST_RETRY_DELAY: Duration = Duration::from_secs(4);
/// Maximum keys tried for one list.
const MAX_KEYS_TRIED: usize = 3;
/// Maximum models of one upstream; more are cut.
const MAX_MODELS: usize = 5_000;

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
        let (learned, failed) =
            (self.learned.load(), self.failed.lock().unwrap_or_else(PoisonError::into_inner));
        upstreams.iter().all(|id| learned.contains_key(id) || failed.contains(id))
    }

    fn has_failed(&self, id: UpstreamId) -> bool {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    fn record_fetch(&self, id: UpstreamId, list: Option<ModelSet>) {
        match list {
            Some(list) => {
                let list = Arc::new(list);
                self.learned.rcu(|old| {
                    let mut new = HashMap::clone(old);
                    new.insert(id, Arc::clone(&list));
                    new
                });
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            }
            None => {
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
            }
        }
        self.changed.notify_waiters();
    }

    fn save(&self, upstreams: &[Arc<Upstream>]) {
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

/// Refreshes the lists while it is polled. Retries soon if a local server or the network is not up
/// when the proxy starts.
pub async fn run(engine: &Arc<Engine>) {
    loop {
        refresh_all(engine).await;
        let due = Instant::now() + REFRESH_INTERVAL;
        let mut pause = FIRST_RETRY_DELAY;
        while Instant::now() + pause < due {
            tokio::time::sleep(pause).await;
            pause *= 3;
            refresh_some(engine, &|id| engine.model_lists.has_failed(id)).await;
        }
        tokio::time::sleep_until(due).await;
    }
}

/// Fetches the lists of all enabled upstreams concurrently; returns the names of those that
/// answered.
pub async fn refresh_all(engine: &Arc<Engine>) -> HashSet<String> {
    refresh_some(engine, &|_| true).await
}

async fn refresh_some(
    engine: &Arc<Engine>,
    wanted: &(dyn Fn(UpstreamId) -> bool + Sync),
) -> HashSet<String> {
    let settings = Arc::clone(&engine.generation().settings);
    let wanted =
        settings.upstreams.iter().filter(|upstream| upstream.enabled && wanted(upstream.id));
    let fetches = wanted.map(|upstream| async move {
        let list = fetch_list(engine, upstream).await;
        let found = list.is_some();
        if let Some(list) = &list {
            engine.router.record_model_list(upstream.id, &|name| list.has(name));
        }
        engine.model_lists.record_fetch(upstream.id, list);
        found.then(|| upstream.name.to_string())
    });
    let found: HashSet<String> =
        futures_util::future::join_all(fetches).await.into_iter().flatten().collect();
    if !found.is_empty() {
        engine.model_lists.save(&settings.upstreams);
        engine.notify_waiters();
    }
    found
}

async fn fetch_list(engine: &Arc<Engine>, upstream: &Arc<Upstream>) -> Option<ModelSet> {
    // Keys that are usable now; the list cannot be fetched without one.
    let ready = upstream
        .keys
        .iter()
        .filter(|key| key.enabled && engine.keys.is_ready(key.id))
        .map(|key| Some(key.id));
    let keys: Vec<_> =
        if upstream.keys.is_empty() { vec![None] } else { ready.take(MAX_KEYS_TRIED).collect() };
    for key in keys {
        for end in &upstream.endpoints {
            match request_list(engine, upstream, end, key).await {
                Ok(body) => {
                    if let Some(mut entries) = registry::egress(end.dialect).read_models(&body) {
                        entries.truncate(MAX_MODELS);
                        return Some(ModelSet::new(entries.into_iter().map(|entry| entry.id)));
                    }
                }
                Err(e) => tracing::debug!(upstream = %upstream.name, error = %e, "no model list"),
            }
        }
    }
    None
}

/// Fetches the model list of one endpoint, unparsed.
///
/// # Errors
///
/// As `models::fetch_model_list`.
pub async fn request_list(
    engine: &Engine,
    upstream: &Arc<Upstream>,
    end: &DialectEndpoint,
    key: Option<KeyId>,
) -> Result<Bytes, ModelListError> {
    let path = registry::egress(end.dialect).models_path();
    models::fetch_model_list(
        &engine.upstream_client,
        upstream,
        end,
        key,
        path,
        required_header(end.dialect).into_iter().collect(),
    )
    .await
}
