//! Ranks how usable a candidate is, and states why.

use std::sync::Arc;

use crate::base::clock::Mono;
use crate::ir::reason::skip::ConfiguredLimit;
use crate::routing::{
    candidate::{KeyState, MissingCapability},
    decision::{ScopeKind, SkipReason},
    health::{
        circuit::{Availability, Circuit},
        rate_limits::{LimitKind, LimitWindow},
    },
};

/// The rank of a candidate; greater is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    Ready,
    /// Ready as a probe.
    ProbeDue,
    Suspect,
    /// Waiting for an event that may happen at any moment: a probe's result, a free slot, a secret.
    Pending,
    Blocked,
    Unavailable,
}

/// A candidate's rank, its end, and the reason.
#[derive(Clone, Copy, Debug)]
pub struct CandidateStatus<'a> {
    pub rank: Rank,
    pub until: Option<Mono>,
    reason: StatusReason<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum StatusReason<'a> {
    Circuit(ScopeKind, &'a Circuit),
    Ready,
    Key(&'a KeyState),
    Limit(ConfiguredLimit),
    ProviderLimit(LimitKind, LimitWindow),
    MissingCapability(MissingCapability),
}

impl<'a> CandidateStatus<'a> {
    /// Returns the status of a candidate without known problems.
    #[must_use]
    pub fn ready() -> Self {
        Self { rank: Rank::Ready, until: None, reason: StatusReason::Ready }
    }

    /// Lowers the status to the other one if that is worse.
    pub fn degrade_to(&mut self, other: &Self) {
        self.degrade(other.rank, other.until, other.reason);
    }

    pub(super) fn degrade(&mut self, rank: Rank, until: Option<Mono>, reason: StatusReason<'a>) {
        if rank > self.rank || rank == self.rank && until > self.until {
            *self = Self { rank, until, reason };
        }
    }

    /// Excludes the candidate because it cannot take the request and others can.
    pub fn exclude_unfit(&mut self, unfit: MissingCapability) {
        self.degrade(Rank::Unavailable, None, StatusReason::MissingCapability(unfit));
    }

    /// Returns whether only the candidate's own limits prevent its use.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self.reason, StatusReason::Limit(_))
    }

    pub(super) fn apply_limit(&mut self, limit: u32, running: u32, name: ConfiguredLimit) {
        if limit > 0 && running >= limit {
            self.degrade(Rank::Pending, None, StatusReason::Limit(name));
        }
    }

    pub(super) fn apply_circuit(&mut self, scope: ScopeKind, circuit: &'a Circuit, now: Mono) {
        let (rank, until) = match circuit.availability(now) {
            Availability::Available => return,
            Availability::ProbeDue => (Rank::ProbeDue, None),
            Availability::Suspect(until) => (Rank::Suspect, Some(until)),
            Availability::Pending => (Rank::Pending, None),
            Availability::Blocked(until) => (Rank::Blocked, Some(until)),
            Availability::Rejected => (Rank::Unavailable, None),
        };
        self.degrade(rank, until, StatusReason::Circuit(scope, circuit));
    }

    /// Returns why the candidate cannot be used now, or `None` if it can.
    #[must_use]
    pub fn skip_reason(&self, now: Mono) -> Option<SkipReason> {
        Some(match (self.reason, self.rank) {
            (StatusReason::Ready, _) | (_, Rank::Ready | Rank::ProbeDue) => return None,
            (StatusReason::Key(KeyState::OverBudget { block, .. }), _) => {
                SkipReason::OverBudget { block: Arc::clone(block) }
            }
            (StatusReason::Key(KeyState::Waiting), _) => SkipReason::WaitingForKey,
            (StatusReason::Key(KeyState::Missing(secret)), _) => {
                SkipReason::KeyMissing { secret: Arc::clone(secret) }
            }
            (StatusReason::Key(KeyState::Disabled | KeyState::Ready), _) => SkipReason::Disabled,
            (StatusReason::Limit(limit), _) => SkipReason::OverLimit { limit },
            (StatusReason::ProviderLimit(limit, window), _) => SkipReason::NearLimit {
                limit,
                remaining: window.remaining,
                rest: window.until.since(now).into(),
            },
            (StatusReason::MissingCapability(missing), _) => {
                SkipReason::MissingCapability { missing }
            }
            (StatusReason::Circuit(_, Circuit::Rejected { cause, .. }), _) => {
                SkipReason::Rejected { cause: Arc::clone(cause) }
            }
            (StatusReason::Circuit(scope, Circuit::Open { reason: belief, until }), _) => {
                SkipReason::Cooling {
                    rest: until.since(now).into(),
                    cause: Arc::clone(&belief.cause),
                    scope,
                    class: belief.class,
                }
            }
            (StatusReason::Circuit(_, Circuit::Probing { .. } | Circuit::Closed { .. }), _) => {
                SkipReason::Probing
            }
        })
    }
}
