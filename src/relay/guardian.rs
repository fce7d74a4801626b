//! Watching over prompt caches: what stood at the beginning of a request is remembered, and where
//! its answer shows that the provider's cache stopped hitting, it is told why and what that cost.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use super::{
    conversation,
    engine::{Engine, cache_prices},
    rounds::Job,
};
use crate::{
    base::money::NanoUsd,
    events::record::CacheMissRecord,
    ir::{op::Op, usage::Usage},
    routing::cache::{PromptCacheTracker, PromptPrefix, ServedBy},
};

/// Below so many tokens providers keep nothing in their caches.
const LEAST: u64 = 1_024;

/// What is known of conversations; one per process.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Some answer has told of a cache: before that, no request is looked at.
    awake: AtomicBool,
    guardian: Mutex<PromptCacheTracker>,
}

/// What is remembered of a request until its answer has told what came from the cache.
pub(super) struct Watched {
    whose: u64,
    prefix: PromptPrefix,
    place: ServedBy,
}

impl Watch {
    /// An answer told what it used: from the first one on that tells of a cache, requests are
    /// looked at.
    pub(super) fn see(&self, usage: &Usage) {
        if (usage.cache_read > 0 || usage.cache_write_5m > 0 || usage.cache_write_1h > 0)
            && !self.awake()
        {
            self.awake.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn awake(&self) -> bool {
        self.awake.load(Ordering::Relaxed)
    }
}

/// Remembers what stands at the beginning of a request that is about to be answered.
pub(super) fn watch(job: &mut Job) {
    let ask = &job.ask;
    let Some((upstream, key)) =
        job.chosen.filter(|_| ask.endpoint.op == Op::Chat && ask.estimate >= LEAST && !ask.form)
    else {
        return;
    };
    let Some((whose, prefix)) = conversation::prefix(&job.engine.seed, ask) else { return };
    let place = ServedBy {
        upstream,
        key_name: job.tally.key_name(),
        account: job.engine.key_info(key).1,
        model: Arc::clone(&job.tally.model),
        translated: job.carry.is_some(),
    };
    job.tally.watched = Some(Box::new(Watched { whose, prefix, place }));
}

/// Compares what came from the cache with what should have; what was lost, if anything was.
pub(super) fn heard(engine: &Engine, watched: Watched, usage: &Usage) -> Option<CacheMissRecord> {
    let Watched { whose, prefix, place } = watched;
    let (upstream, model) = (place.upstream, Arc::clone(&place.model));
    let lost = engine.watch.guardian.lock().unwrap_or_else(PoisonError::into_inner).record_turn(
        whose,
        prefix,
        place,
        usage,
        engine.clock.mono(),
    )?;
    let cost = cache_prices(engine, upstream, &model).map(|(fresh, written, read)| {
        let each = (if lost.rewritten { written } else { fresh }) - read;
        NanoUsd((each.max(0.0) * lost.missed_tokens() as f64).round() as i64)
    });
    let (expected, cached) = (lost.expected, lost.cached);
    Some(CacheMissRecord {
        reason: lost.cause.text().into(),
        expected,
        cached,
        cost,
        is_benign: lost.cause.is_expected(),
    })
}
