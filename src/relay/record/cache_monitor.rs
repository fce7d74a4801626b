//! Monitors prompt caches: compares each response's cached tokens with the request's prefix, and
//! finds why a cache missed and what that cost.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use crate::relay::{
    context::RequestContext,
    engine::{Engine, cache_prices},
    request::conversation_key,
};
use crate::{
    base::money::NanoUsd,
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
}

/// Records the prefix of a request that is about to be answered.
pub(in crate::relay) fn record_prefix(context: &mut RequestContext) {
    let request = &context.request;
    let Some((upstream, key)) = context.attempt_target.filter(|_| {
        request.endpoint.op == Op::Chat
            && request.estimate >= MIN_CACHED_TOKENS
            && !request.is_multipart
    }) else {
        return;
    };
    let Some((whose, prefix)) = conversation_key::cache_prefix(&context.engine.hash_key, request)
    else {
        return;
    };
    let place = ServedBy {
        upstream,
        key_name: context.recorder.key_name(),
        account: context.engine.key_info(key).1,
        model: Arc::clone(&context.recorder.model),
        translated: context.attempt_context.is_some(),
    };
    context.recorder.pending_prefix =
        Some(Box::new(PendingPrefix { conversation: whose, prefix, served_by: place }));
}

/// Compares the cached tokens with the expected ones; returns the cache miss, if there was one.
pub(in crate::relay) fn compare_usage(
    engine: &Engine,
    watched: PendingPrefix,
    usage: &Usage,
) -> Option<CacheMissRecord> {
    let PendingPrefix { conversation: whose, prefix, served_by: place } = watched;
    let (upstream, model) = (place.upstream, Arc::clone(&place.model));
    let miss = engine
        .cache_monitor
        .tracker
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .record_turn(whose, prefix, place, usage, engine.clock.mono())?;
    let cost = cache_prices(engine, upstream, &model).map(|(input, written, read)| {
        let each = (if miss.rewritten { written } else { input }) - read;
        NanoUsd((each.max(0.0) * miss.missed_tokens() as f64).round() as i64)
    });
    let (expected, cached) = (miss.expected, miss.cached);
    Some(CacheMissRecord {
        reason: miss.cause.text().into(),
        expected,
        cached,
        cost,
        is_benign: miss.cause.is_expected(),
    })
}
