//! The record of one attempt, from its start to its bill.

use std::sync::Arc;

use crate::relay::{engine::Engine, record::budget_hold::BudgetHold};
use crate::{
    base::clock::{Mono, UnixMillis},
    config::settings::Origin,
    events::record::{AttemptRecord, AttemptRole},
    routing::candidate::{Candidate, Target},
};

/// One attempt of a request.
pub(in crate::relay) struct AttemptRecorder {
    /// Counted from 1 within the request.
    pub(super) number: u32,
    pub(super) target: Arc<Target>,
    /// The key's label, without its upstream.
    pub(super) key: Arc<str>,
    pub(super) fingerprint: Arc<str>,
    pub(super) started_at: Mono,
    /// The time whose prices apply.
    pub(super) priced_at: UnixMillis,
    /// What it has reserved of budgets, if there are any.
    pub(super) budget_hold: Option<BudgetHold>,
    /// Its bill is already among those of the request.
    pub(super) is_billed: bool,
}

impl AttemptRecorder {
    /// Starts the record of an attempt at a candidate. `at` and `now` are the same instant.
    pub(super) fn new(
        engine: &Engine,
        number: u32,
        candidate: &Candidate,
        budget_hold: Option<BudgetHold>,
        (at, now): (UnixMillis, Mono),
    ) -> Self {
        Self {
            number,
            target: Arc::clone(&candidate.target),
            key: Arc::clone(&candidate.key_label),
            fingerprint: engine.keys.summary(candidate.key).fingerprint,
            started_at: now,
            priced_at: at,
            budget_hold,
            is_billed: false,
        }
    }

    /// Returns the attempt as events show it. `started_ms` counts from the request's arrival.
    pub(super) fn record(
        &self,
        role: AttemptRole,
        has_affinity: bool,
        started_ms: u32,
    ) -> AttemptRecord {
        AttemptRecord {
            number: self.number,
            role,
            has_affinity,
            upstream: Arc::clone(&self.target.upstream.name),
            key: Arc::clone(&self.key),
            fingerprint: Arc::clone(&self.fingerprint),
            model: Arc::clone(&self.target.model),
            started_ms,
            head_ms: None,
            ended_ms: None,
            status: None,
            outcome: None,
            won: false,
            maybe_billed: false,
        }
    }

    /// Returns whether the built-in upstream serves it, which costs nothing.
    pub(super) fn is_demo(&self) -> bool {
        self.target.upstream.origin == Origin::Demo
    }
}
