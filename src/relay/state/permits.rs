//! Guards of what a request has taken from its process and its project; each returns it when
//! dropped.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use tokio::sync::Notify;

use crate::{
    base::clock::Mono,
    config::settings::Project,
    ir::usage::Usage,
    routing::project_limits::{LimitAdmission, ProjectLimits, RemainingLimit},
};

/// Bytes of bodies buffered in memory, counted against `max_buffered`; released when dropped.
pub struct BufferReservation {
    /// The bytes of all requests.
    buffered_bytes: Arc<AtomicU64>,
    bytes: u64,
}

impl BufferReservation {
    /// A reservation of nothing yet, counted in `buffered_bytes`.
    #[must_use]
    pub fn empty(buffered_bytes: &Arc<AtomicU64>) -> Self {
        Self { buffered_bytes: Arc::clone(buffered_bytes), bytes: 0 }
    }

    /// Another reservation of nothing, with the same counter.
    pub(in crate::relay) fn empty_sibling(&self) -> Self {
        Self::empty(&self.buffered_bytes)
    }

    /// Reserves more bytes; returns false and reserves nothing if that would exceed `max`.
    pub fn try_grow(&mut self, bytes: u64, max: u64) -> bool {
        let before = self.buffered_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > max {
            self.buffered_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.bytes += bytes;
        true
    }

    /// Reserves more bytes, as [`Self::try_grow`] does. The only request that has reserved anything
    /// gets them beyond `max` too: waiting would not help it.
    pub fn try_grow_or_alone(&mut self, bytes: u64, max: u64) -> bool {
        if self.try_grow(bytes, max) {
            return true;
        }
        let is_alone = self.buffered_bytes.load(Ordering::Relaxed) <= self.bytes;
        is_alone && self.try_grow(bytes, u64::MAX)
    }

    /// Takes over the bytes of another reservation.
    pub(in crate::relay) fn absorb(&mut self, other: &mut Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Releases all bytes beyond this number.
    fn shrink_to(&mut self, bytes: u64) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.buffered_bytes.fetch_sub(surplus, Ordering::Relaxed);
        self.bytes -= surplus;
    }

    /// Releases all bytes.
    pub fn release(&mut self) {
        self.buffered_bytes.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

/// A body that counts against `max_buffered` until its last byte is written to the client.
pub(in crate::relay) struct HeldBody {
    bytes: Bytes,
    _reservation: BufferReservation,
}

impl AsRef<[u8]> for HeldBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Bodies up to this size are written at once, into the socket's buffer.
const MAX_UNHELD_BYTES: usize = 64 * 1024;

/// Returns an answer's body that keeps its reservation.
pub(in crate::relay) fn hold_body(bytes: Bytes, reservation: &mut BufferReservation) -> Bytes {
    if bytes.len() <= MAX_UNHELD_BYTES {
        return bytes;
    }
    let mut held = reservation.empty_sibling();
    held.absorb(reservation);
    held.shrink_to(bytes.len() as u64);
    Bytes::from_owner(HeldBody { bytes, _reservation: held })
}

impl Drop for BufferReservation {
    fn drop(&mut self) {
        self.release();
    }
}

/// What a request has reserved of its project's limits; released when dropped.
pub struct Admission {
    project_limits: Arc<ProjectLimits>,
    /// Notified when the request's slot is free again.
    capacity_changed: Arc<Notify>,
    project: Arc<Project>,
    /// What counts against the requests and tokens per minute.
    pub(in crate::relay) limit_admission: Option<LimitAdmission>,
    /// Whether it has one of the project's concurrency slots.
    pub(in crate::relay) holds_slot: bool,
}

impl Admission {
    /// An admission that has reserved nothing yet.
    pub(in crate::relay) fn new(
        project_limits: &Arc<ProjectLimits>,
        capacity_changed: &Arc<Notify>,
        project: &Arc<Project>,
    ) -> Self {
        Self {
            project_limits: Arc::clone(project_limits),
            capacity_changed: Arc::clone(capacity_changed),
            project: Arc::clone(project),
            limit_admission: None,
            holds_slot: false,
        }
    }

    /// Settles a finished request: frees its slot and counts the tokens it used. `served`: tokens
    /// may have been used even if no usage was reported.
    pub(in crate::relay) fn settle(&mut self, served: bool, usage: Option<Usage>) {
        if let Some(booking) = self.limit_admission.take() {
            let real = usage
                .map(|usage| (usage.input_total(), usage.output_total()))
                .or(if served { None } else { Some((0, 0)) });
            self.project_limits.settle(&self.project.name, &booking, real);
        }
        if std::mem::take(&mut self.holds_slot) {
            self.project_limits.release_slot(&self.project.name);
            self.capacity_changed.notify_waiters();
        }
    }

    /// Sets the headers from which SDKs and agents read the remaining limits.
    pub(in crate::relay) fn set_rate_limit_headers(&self, headers: &mut HeaderMap, now: Mono) {
        let (requests, tokens) = self.project_limits.remaining(&self.project, now);
        let names = [
            [
                "x-ratelimit-limit-requests",
                "x-ratelimit-remaining-requests",
                "x-ratelimit-reset-requests",
            ],
            [
                "x-ratelimit-limit-tokens",
                "x-ratelimit-remaining-tokens",
                "x-ratelimit-reset-tokens",
            ],
        ];
        for (names, quota) in names.into_iter().zip([requests, tokens]) {
            let Some(RemainingLimit { limit, remaining, reset }) = quota else { continue };
            headers.insert(names[0], HeaderValue::from(limit));
            headers.insert(names[1], HeaderValue::from(remaining));
            let seconds = format!("{}s", reset.as_secs_f64().ceil());
            if let Ok(value) = HeaderValue::from_str(&seconds) {
                headers.insert(names[2], value);
            }
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.settle(true, None);
    }
}
