//! Limits the probes that callers of `GET /health` can cause.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};

use crate::relay::{background::refresh_models, engine::Engine};

/// A probe asks every upstream, so its result is used for this long.
const PROBE_LIFETIME: Duration = Duration::from_secs(5);

/// The upstreams that answered the latest probe. The lock is held while a probe runs, so that
/// callers at the same time share one.
#[derive(Default)]
pub struct ProbeGate(Mutex<Option<(Instant, Arc<HashSet<String>>)>>);

impl ProbeGate {
    /// Probes all upstreams, unless that was done a moment ago; returns the names of those that
    /// answered.
    pub(super) async fn probe(&self, engine: &Arc<Engine>) -> Arc<HashSet<String>> {
        let mut latest = self.0.lock().await;
        if let Some((at, answered)) = &*latest
            && at.elapsed() < PROBE_LIFETIME
        {
            return Arc::clone(answered);
        }
        let answered = Arc::new(refresh_models::refresh_all(engine).await);
        *latest = Some((Instant::now(), Arc::clone(&answered)));
        answered
    }
}
