//! What each upstream says it serves: learned in the background, kept over restarts, never asked on
//! the request path.

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

/// Lists are asked for again this often.
const REFRESH_INTERVAL: Duration = Duration::from_secs(600);
/// One that could not be had is asked for again after this, and then after three times as long
/// each.
const FIRST_RETRY_DELAY: Duration = Duration::from_secs(4);
/// Keys that are tried for one list.
const MAX_KEYS_TRIED: usize = 3;
/// More than this from one upstream is cut.
const MAX_MODELS: usize = 5_000;

/// The learned lists.
pub struct ModelLists {
    learned: ArcSwap<HashMap<UpstreamId, Arc<ModelSet>>>,
    /// Upstreams whose list was asked for and could not be had: they are not waited for.
    failed: Mutex<HashSet<UpstreamId>>,
    changed: Notify,
    /// Where the lists are kept, by upstream name.
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
    /// Reads what an earlier run learned; a missing or damaged file is an empty one.
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

    /// All lists as they are now.
    #[must_use]
    pub fn learned(&self) -> Arc<HashMap<UpstreamId, Arc<ModelSet>>> {
        self.learned.load_full()
    }

    /// Waits until one of these lists is learned or known not to be had; whether waiting on is of
    /// use.
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

/// Keeps the lists fresh for as long as it is polled. What is not there when the proxy starts, a
/// local server or the network, is there soon after.
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

/// Asks every enabled upstream for its list, all at once; the names of those that answered.
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
    // Keys that may be used just now; without one the list cannot be had.
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

/// The model list of one end, as it came.
///
/// # Errors
///
/// As `models::fetch`.
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
