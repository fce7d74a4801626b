//! Whether our own side has a network: when every distant host failed for want of one, nobody else is to blame.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    base::clock::Mono,
    config::settings::{Upstream, UpstreamId},
    ir::fault::{TransportFault, TransportKind},
};

/// Failures older than this say nothing.
const WINDOW: Duration = Duration::from_secs(30);

/// One per process.
#[derive(Default)]
pub struct Network {
    down: AtomicBool,
    /// Milliseconds of the clock when something distant last answered.
    answered: AtomicU64,
    /// When each distant upstream last failed for want of a network.
    failed: Mutex<HashMap<UpstreamId, Mono>>,
}

impl Network {
    #[must_use]
    pub fn down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Something answered. True where the network was down until now.
    pub fn answered(&self, upstream: &Upstream, now: Mono) -> bool {
        if upstream.local {
            return false;
        }
        self.answered.store(millis(now), Ordering::Relaxed);
        self.down() && self.down.swap(false, Ordering::Relaxed)
    }

    /// Judges a transport fault: true where it shows that our own network is down. No route is proof at once; a name
    /// that does not resolve is proof only when it happened to every distant host tried lately, and to more than one.
    pub fn failed(&self, upstream: &Upstream, fault: &TransportFault, now: Mono) -> bool {
        if upstream.local || !matches!(fault.kind, TransportKind::NetworkDown | TransportKind::Dns) {
            return false;
        }
        let answered = self.answered.load(Ordering::Relaxed);
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.retain(|_, at| now.since(*at) <= WINDOW && millis(*at) > answered);
        failed.insert(upstream.id, now);
        let proof = fault.kind == TransportKind::NetworkDown || failed.len() > 1;
        if proof {
            self.down.store(true, Ordering::Relaxed);
        }
        proof
    }

    /// To be looked at again: the next request tries.
    pub fn reset(&self) {
        self.down.store(false, Ordering::Relaxed);
    }
}

fn millis(at: Mono) -> u64 {
    u64::try_from(at.0.as_millis()).unwrap_or(u64::MAX)
}
