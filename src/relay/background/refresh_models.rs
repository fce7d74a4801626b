//! Fetches the upstreams' model lists, at intervals and when a user asks; never on the request
//! path.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use crate::relay::{attempt::build_request::required_header, engine::Engine};
use crate::{
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
