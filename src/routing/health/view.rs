//! Presents the router's health state as plain values for screens and listings.

use std::sync::Arc;

use crate::base::clock::Mono;
use crate::ir::reason::failure::FailureReason;
use crate::routing::{
    health::{
        KeyHealth,
        circuit::Circuit,
        rate_limits::{LimitKind, LimitWindow},
    },
    outcome::CooldownClass,
};

/// The health state of a scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HealthState {
    #[default]
    Ok,
    Cooling,
    /// An upstream's circuit is open after repeated failures.
    Open,
    Probing,
    Rejected,
}

/// One scope's state; all fields except `state` are empty if it is `Ok`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HealthView {
    pub state: HealthState,
    pub cause: Option<Arc<FailureReason>>,
    pub until: Option<Mono>,
    pub since: Option<Mono>,
    /// The end comes from the provider's hint (true) or from aiproxy's own estimate (false).
    pub from_provider: bool,
    /// Known to be unusable before the end, not only suspect.
    pub hard_block: bool,
}

/// A key: the state for all its models, and the states of single models.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyHealthView {
    /// The worse of the key's own state and its account's.
    pub health: HealthView,
    pub models: Vec<(Arc<str>, HealthView)>,
    pub requests: u64,
    pub tokens: u64,
    pub running: u32,
    /// The remaining limits that the provider reported, by model.
    pub limits: Vec<(Arc<str>, LimitKind, LimitWindow)>,
}

impl HealthView {
    /// Returns the view of a key's, account's or model's circuit.
    #[must_use]
    pub fn from_circuit(circuit: &Circuit, now: Mono) -> Self {
        match circuit {
            Circuit::Closed { .. } => Self::default(),
            // The cooldown is over: the scope is usable, and the next request tests it.
            Circuit::Open { until, .. } if *until <= now => Self::default(),
            Circuit::Open { reason: belief, until } => Self {
                state: HealthState::Cooling,
                cause: Some(Arc::clone(&belief.cause)),
                until: Some(*until),
                since: Some(belief.since),
                from_provider: belief.from_provider,
                hard_block: belief.hard_block,
            },
            Circuit::Probing { reason: belief, sent_at: sent, .. } => Self {
                state: HealthState::Probing,
                cause: Some(Arc::clone(&belief.cause)),
                until: None,
                since: Some(*sent),
                from_provider: false,
                hard_block: false,
            },
            Circuit::Rejected { cause, since, .. } => Self {
                state: HealthState::Rejected,
                cause: Some(Arc::clone(cause)),
                until: None,
                since: Some(*since),
                from_provider: false,
                hard_block: true,
            },
        }
    }

    /// Returns the view of an upstream's circuit: `Open` if strikes opened it, `Cooling` if a user
    /// cooled it.
    #[must_use]
    pub fn from_upstream_circuit(circuit: &Circuit, now: Mono) -> Self {
        let view = Self::from_circuit(circuit, now);
        let by_failures =
            circuit.open_reason().is_some_and(|belief| belief.class != CooldownClass::None);
        if view.state == HealthState::Cooling && by_failures {
            Self { state: HealthState::Open, ..view }
        } else {
            view
        }
    }

    fn severity(&self) -> u8 {
        match self.state {
            HealthState::Ok => 0,
            HealthState::Probing => 1,
            HealthState::Cooling | HealthState::Open => 2,
            HealthState::Rejected => 3,
        }
    }
}

impl KeyHealthView {
    #[must_use]
    pub fn from_key(key: &KeyHealth, account: Option<&Circuit>, now: Mono) -> Self {
        let own = HealthView::from_circuit(&key.circuit, now);
        let shared =
            account.map(|circuit| HealthView::from_circuit(circuit, now)).unwrap_or_default();
        let worse = (shared.severity(), shared.until) > (own.severity(), own.until);
        let models = key
            .models
            .iter()
            .map(|(model, circuit)| (Arc::clone(model), HealthView::from_circuit(circuit, now)));
        Self {
            health: if worse { shared } else { own },
            models: models.filter(|(_, view)| view.state != HealthState::Ok).collect(),
            requests: key.requests,
            tokens: key.tokens,
            running: key.running,
            limits: key
                .usage
                .rate_limits(now)
                .map(|(model, kind, window)| (Arc::clone(model), kind, window))
                .collect(),
        }
    }
}
