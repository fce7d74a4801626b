//! Reads health for viewers, and saves and restores it across restarts.

use super::{Router, RouterState};
use crate::{
    base::clock::Mono,
    config::settings::{KeyId, UpstreamId},
    routing::health::{
        saved::{SavedKey, SavedUpstream},
        stats::{AttemptStats, StatsView},
        view::{HealthView, KeyHealthView},
    },
};

impl Router {
    #[must_use]
    pub fn upstream_view(&self, id: UpstreamId, now: Mono) -> HealthView {
        let state = self.lock();
        state
            .health
            .upstreams
            .get(&id)
            .map(|upstream| HealthView::from_upstream_circuit(&upstream.circuit, now))
            .unwrap_or_default()
    }

    #[must_use]
    pub fn key_view(&self, id: KeyId, now: Mono) -> KeyHealthView {
        let RouterState { health, .. } = &*self.lock();
        let Some(key) = health.keys.get(&id) else { return KeyHealthView::default() };
        KeyHealthView::from_key(
            key,
            key.account.and_then(|account| health.accounts.get(&account)),
            now,
        )
    }

    /// Returns the state of an upstream to save across a restart.
    #[must_use]
    pub fn save_upstream(&self, id: UpstreamId, now: Mono) -> SavedUpstream {
        self.lock().health.save_upstream(id, now)
    }

    pub fn restore_upstream(&self, id: UpstreamId, kept: SavedUpstream, now: Mono) {
        self.lock().health.restore_upstream(id, kept, now);
    }

    /// Returns the state of a key to save across a restart.
    #[must_use]
    pub fn save_key(&self, id: KeyId, now: Mono) -> SavedKey {
        self.lock().health.save_key(id, now)
    }

    pub fn restore_key(&self, id: KeyId, kept: SavedKey, now: Mono) {
        self.lock().health.restore_key(id, kept, now);
    }

    /// Returns statistics of the upstream's last hundred attempts or fifteen minutes.
    #[must_use]
    pub fn stats(&self, id: UpstreamId, now: Mono) -> StatsView {
        let state = self.lock();
        state
            .health
            .upstreams
            .get(&id)
            .map_or_else(|| AttemptStats::default().view(now), |upstream| upstream.stats.view(now))
    }

    /// Returns the number of running attempts at an upstream.
    #[must_use]
    pub fn running(&self, id: UpstreamId) -> u32 {
        self.lock().health.upstreams.get(&id).map_or(0, |upstream| upstream.running)
    }
}
