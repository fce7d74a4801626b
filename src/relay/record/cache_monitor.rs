//! Monitors prompt caches: compares each response's cached tokens with the request's prefix, and
//! finds why a cache missed and what that cost.

use std::{
    hash::RandomState,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::relay::request::{conversation_key, proxy_request::ProxyRequest};
use crate::{
    base::{clock::Mono, money::NanoUsd, sync::Mutex},
    config::settings::UpstreamId,
    events::record::CacheMissRecord,
    ir::{op::Op, usage::Usage},
    routing::prompt_cache::{PromptCacheTracker, PromptPrefix, ServedBy},
};

/// Providers do not cache prompts below this many tokens.
const MIN_CACHED_TOKENS: u64 = 1_024;

/// The prompt prefixes of conversations; one per process.
#[derive(Debug, Default)]
pub(in crate::relay) struct CacheMonitor {
    /// Set once a response has reported cached tokens; before that, no request is examined.
    active: AtomicBool,
    tracker: Mutex<PromptCacheTracker>,
}

/// A request's prefix, stored until its response reports the cached tokens.
pub(in crate::relay) struct PendingPrefix {
    conversation: u64,
    prefix: PromptPrefix,
    served_by: ServedBy,
}

impl CacheMonitor {
    /// Examines requests from the first response on whose usage reports cached tokens.
    pub(in crate::relay) fn activate_if_cached(&self, usage: &Usage) {
        if (usage.cache_read > 0 || usage.cache_write_5m > 0 || usage.cache_write_1h > 0)
            && !self.is_active()
        {
            self.active.store(true, Ordering::Relaxed);
        }
    }

    pub(in crate::relay) fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Compares the cached tokens with the expected ones; returns the cache miss, if there was one.
    /// `prices` are a model's prices of an input token in billionths of a dollar, if known:
    /// uncached, written to the cache, read from it.
    pub(in crate::relay) fn compare_usage(
        &self,
        watched: PendingPrefix,
        usage: &Usage,
        now: Mono,
        prices: impl FnOnce(UpstreamId, &str) -> Option<(f64, f64, f64)>,
    ) -> Option<CacheMissRecord> {
        let PendingPrefix { conversation, prefix, served_by } = watched;
        let (upstream, model) = (served_by.upstream, Arc::clone(&served_by.model));
        let miss = self.tracker.lock().record_turn(conversation, prefix, served_by, usage, now)?;
        let cost = prices(upstream, &model).map(|(input, written, read)| {
            let each = (if miss.rewritten { written } else { input }) - read;
            NanoUsd((each.max(0.0) * miss.missed_tokens() as f64).round() as i64)
        });
        Some(CacheMissRecord {
            is_benign: miss.cause.is_expected(),
            expected: miss.expected,
            cached: miss.cached,
            cost,
            cause: miss.cause.into(),
        })
    }
}

/// Returns the prefix of a request that is about to be answered, if its cached tokens can be
/// compared. `served_by` is called only then.
pub(in crate::relay) fn prompt_prefix(
    request: &ProxyRequest,
    hash_key: &RandomState,
    served_by: impl FnOnce() -> ServedBy,
) -> Option<PendingPrefix> {
    if request.endpoint.op != Op::Chat
        || request.estimate < MIN_CACHED_TOKENS
        || request.is_multipart
    {
        return None;
    }
    let (conversation, prefix) = conversation_key::cache_prefix(hash_key, request)?;
    Some(PendingPrefix { conversation, prefix, served_by: served_by() })
}
