//! What a client's connection is doing: for its timeouts, and to find one that may be closed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// What a connection is doing, for its timeouts.
pub struct ConnActivity {
    phase: AtomicU8,
    /// Requests that are being served: at most one with HTTP/1.
    open_requests: AtomicU32,
    /// Milliseconds from `created` to the start of the phase.
    phase_since_ms: AtomicU64,
    /// Milliseconds from `created` to the start of a blocked write; 0 if no write is blocked.
    stalled_since_ms: AtomicU64,
    created: Instant,
}

/// The phases of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between requests, nothing read.
    Idle,
    /// A head is being read.
    Head,
    /// A request is being served.
    Busy,
}

impl ConnActivity {
    #[must_use]
    pub fn new() -> Self {
        Self {
            phase: AtomicU8::new(1),
            open_requests: AtomicU32::new(0),
            phase_since_ms: AtomicU64::new(0),
            stalled_since_ms: AtomicU64::new(0),
            created: Instant::now(),
        }
    }

    fn elapsed_ms(&self) -> u64 {
        self.created.elapsed().as_millis() as u64
    }

    fn enter_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.phase_since_ms.store(self.elapsed_ms(), Ordering::Relaxed);
    }

    /// Records that bytes came: after a pause a new head begins.
    pub fn record_read(&self) {
        if self.phase.load(Ordering::Relaxed) == Phase::Idle as u8 {
            self.enter_phase(Phase::Head);
        }
    }

    /// Records whether the client's socket took no more bytes.
    pub fn record_write(&self, blocked: bool) {
        let stalled = self.stalled_since_ms.load(Ordering::Relaxed) != 0;
        if blocked && !stalled {
            self.stalled_since_ms.store(self.elapsed_ms().max(1), Ordering::Relaxed);
        } else if !blocked && stalled {
            self.stalled_since_ms.store(0, Ordering::Relaxed);
        }
    }

    /// Records that nothing more is expected of this connection.
    pub fn record_end(&self) {
        self.enter_phase(Phase::Idle);
    }

    /// Returns the phase and when it began.
    #[must_use]
    pub fn phase(&self) -> (Phase, Instant) {
        let phase = match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            _ => Phase::Busy,
        };
        (phase, self.created + Duration::from_millis(self.phase_since_ms.load(Ordering::Relaxed)))
    }

    /// Returns since when the client has not read data that is ready for it.
    #[must_use]
    pub fn stalled_since(&self) -> Option<Instant> {
        match self.stalled_since_ms.load(Ordering::Relaxed) {
            0 => None,
            at => Some(self.created + Duration::from_millis(at)),
        }
    }
}

impl Default for ConnActivity {
    fn default() -> Self {
        Self::new()
    }
}

/// A request that its connection is serving; the drop ends it.
pub struct OpenRequest(Arc<ConnActivity>);

impl OpenRequest {
    #[must_use]
    pub fn begin(activity: &Arc<ConnActivity>) -> Self {
        activity.open_requests.fetch_add(1, Ordering::Relaxed);
        activity.enter_phase(Phase::Busy);
        Self(Arc::clone(activity))
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        if self.0.open_requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.enter_phase(Phase::Idle);
        }
    }
}
