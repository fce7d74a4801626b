//! The board's beliefs as plain values for screens and listings.

use std::sync::Arc;

use crate::base::clock::Mono;
use crate::routing::{
    health::{
        KeyHealth,
        circuit::Circuit,
        rate_limits::{LimitKind, LimitWindow},
    },
    outcome::CooldownClass,
};

/// How a scope stands.
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

/// One scope's state; all but `state` is empty where it is `Ok`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HealthView {
    pub state: HealthState,
    pub cause: Option<Arc<str>>,
    pub until: Option<Mono>,
    pub since: Option<Mono>,
    /// The end is a vendor's hint (true) or our own belief (false).
    pub from_provider: bool,
    /// Known to be of no use before the end, not merely suspect.
    pub hard_block: bool,
}

/// A key: what holds for all its models, and the narrower states.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyHealthView {
    /// The worse of the key's own state and its account's.
    pub health: HealthView,
    pub models: Vec<(Arc<str>, HealthView)>,
    pub requests: u64,
    pub tokens: u64,
    pub running: u32,
    /// What its provider said is left, by model.
    pub limits: Vec<(Arc<str>, LimitKind, LimitWindow)>,
}

impl HealthView {
    /// A key's, account's or model's circuit.
    #[must_use]
    pub fn from_circuit(circuit: &Circuit, now: Mono) -> Self {
        match circuit {
            Circuit::Closed { .. } => Self::default(),
            // Over: nothing keeps it from being used, the next request tests it.
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

    /// An upstream's circuit: opened by strikes it is open, by hand it cools.
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
