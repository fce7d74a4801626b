//! Defines the circuit state saved across restarts. Instants are monotonic; the caller converts
//! them to wall-clock time.

use std::{sync::Arc, time::Duration};

use crate::routing::{
    health::{
        Health,
        circuit::{Circuit, OpenReason},
        peak_ewma::PeakEwma,
        rate_limits::{LimitKind, LimitWindow},
    },
    outcome::CooldownClass,
};
use crate::{
    base::clock::Mono,
    config::settings::{KeyId, UpstreamId},
    ir::reason::failure::FailureReason,
};

/// The saved circuit of a scope.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedCircuit {
    /// `None`: rejected until a check or a user clears it.
    pub until: Option<Mono>,
    pub since: Mono,
    pub strikes: u32,
    pub cause: Arc<FailureReason>,
    pub class: CooldownClass,
    pub hard_block: bool,
    pub from_provider: bool,
}

/// One upstream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SavedUpstream {
    pub circuit: Option<SavedCircuit>,
    /// Expected time to first token, by model.
    pub ttft: Vec<(Arc<str>, Duration)>,
}

/// One key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SavedKey {
    pub circuit: Option<SavedCircuit>,
    pub account: Option<SavedCircuit>,
    pub models: Vec<(Arc<str>, SavedCircuit)>,
    pub limits: Vec<(Arc<str>, LimitKind, LimitWindow)>,
}

impl SavedUpstream {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl SavedKey {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl SavedCircuit {
    /// Returns the part of a circuit to save: a cooldown that is not over. A probe in flight starts
    /// again.
    fn from_circuit(circuit: &Circuit, now: Mono) -> Option<Self> {
        let saved = |belief: &OpenReason, until| Self {
            until: Some(until),
            since: belief.since,
            strikes: belief.strikes,
            cause: Arc::clone(&belief.cause),
            class: belief.class,
            hard_block: belief.hard_block,
            from_provider: belief.from_provider,
        };
        match circuit {
            Circuit::Open { reason: belief, until } if *until > now => Some(saved(belief, *until)),
            Circuit::Open { reason: belief, .. } | Circuit::Probing { reason: belief, .. }
                if belief.class != CooldownClass::None =>
            {
                Some(saved(belief, now))
            }
            Circuit::Rejected { cause, since, .. } => Some(Self {
                until: None,
                since: *since,
                strikes: 0,
                cause: Arc::clone(cause),
                class: CooldownClass::Rejected,
                hard_block: true,
                from_provider: false,
            }),
            Circuit::Closed { .. } | Circuit::Open { .. } | Circuit::Probing { .. } => None,
        }
    }

    fn into_circuit(self, now: Mono) -> Circuit {
        let Self {
            until,
            since,
            strikes,
            cause,
            class,
            hard_block: blocked,
            from_provider: hinted,
        } = self;
        match until {
            // The free check of a rejected key may run at once, because the length of the downtime
            // is unknown.
            None => {
                Circuit::Rejected { cause, since, last_failure: 0, recheck_at: now, rechecks: 0 }
            }
            Some(until) => Circuit::Open {
                reason: OpenReason {
                    strikes,
                    last_failure: 0,
                    since,
                    cause,
                    class,
                    hard_block: blocked,
                    from_provider: hinted,
                },
                until,
            },
        }
    }
}

impl Health {
    #[must_use]
    pub fn save_upstream(&self, id: UpstreamId, now: Mono) -> SavedUpstream {
        let Some(upstream) = self.upstreams.get(&id) else { return SavedUpstream::default() };
        let known = upstream.targets.iter().filter(|target| target.ttft.is_known());
        let ttft = known.map(|target| {
            (Arc::clone(&target.model), Duration::from_secs_f64(target.ttft.expected(now)))
        });
        // A value that has decayed to almost zero is not saved.
        let ttft = ttft.filter(|(_, span)| *span >= Duration::from_millis(1)).collect();
        SavedUpstream { circuit: SavedCircuit::from_circuit(&upstream.circuit, now), ttft }
    }

    pub fn restore_upstream(&mut self, id: UpstreamId, saved: SavedUpstream, now: Mono) {
        let upstream = self.upstreams.entry(id).or_default();
        if let Some(kept) = saved.circuit {
            upstream.circuit = kept.into_circuit(now);
        }
        for (model, span) in saved.ttft {
            upstream.target_mut(&model).ttft = PeakEwma::restored(span, now);
        }
    }

    #[must_use]
    pub fn save_key(&self, id: KeyId, now: Mono) -> SavedKey {
        let Some(key) = self.keys.get(&id) else { return SavedKey::default() };
        SavedKey {
            circuit: SavedCircuit::from_circuit(&key.circuit, now),
            account: key
                .account
                .and_then(|account| self.accounts.get(&account))
                .and_then(|circuit| SavedCircuit::from_circuit(circuit, now)),
            models: key
                .models
                .iter()
                .filter_map(|(model, circuit)| {
                    Some((Arc::clone(model), SavedCircuit::from_circuit(circuit, now)?))
                })
                .collect(),
            limits: key
                .usage
                .rate_limits(now)
                .map(|(model, kind, window)| (Arc::clone(model), kind, window))
                .collect(),
        }
    }

    pub fn restore_key(&mut self, id: KeyId, saved: SavedKey, now: Mono) {
        let key = self.keys.entry(id).or_default();
        if let Some(kept) = saved.circuit {
            key.circuit = kept.into_circuit(now);
        }
        for (model, kept) in saved.models {
            *key.model_circuit_entry(&model) = kept.into_circuit(now);
        }
        for (model, kind, window) in saved.limits {
            key.usage.rate_limits_mut(&model, now).set(kind, window);
        }
        // A key without an account row has an account of its own.
        let account = key.account.unwrap_or(crate::routing::candidate::AccountId(id.0));
        if let Some(kept) = saved.account {
            key.account = Some(account);
            self.accounts.insert(account, kept.into_circuit(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::test_support::{at, policy};

    fn open(until: u64, class: CooldownClass) -> Circuit {
        let belief = OpenReason {
            strikes: 2,
            last_failure: 9,
            since: at(0),
            cause: FailureReason::text("429").into(),
            class,
            hard_block: true,
            from_provider: true,
        };
        Circuit::Open { reason: belief, until: at(until) }
    }

    #[test]
    fn key_state_is_restored_unchanged() {
        let (id, model): (KeyId, Arc<str>) = (KeyId(1), "m".into());
        let mut before = Health::new(policy());
        let key = before.keys.entry(id).or_default();
        key.circuit = Circuit::Rejected {
            cause: FailureReason::text("401").into(),
            since: at(0),
            last_failure: 9,
            recheck_at: at(600),
            rechecks: 2,
        };
        *key.model_circuit_entry(&model) = open(100, CooldownClass::RateLimited);
        let window = LimitWindow { limit: Some(10), remaining: 3, until: at(50) };
        key.usage.rate_limits_mut(&model, at(0)).set(LimitKind::Requests, window);

        let kept = before.save_key(id, at(10));
        let mut after = Health::new(policy());
        after.restore_key(id, kept.clone(), at(20));

        assert_eq!(after.save_key(id, at(10)), kept);
        let key = after.keys.get(&id).expect("restored");
        assert!(
            matches!(key.circuit, Circuit::Rejected { recheck_at, .. } if recheck_at == at(20))
        );
        assert!(
            matches!(key.model_circuit(&model), Some(Circuit::Open { until, .. }) if *until == at(100))
        );
    }

    #[test]
    fn upstream_state_is_restored_and_expired_cooldowns_are_probed() {
        let (id, model): (UpstreamId, Arc<str>) = (UpstreamId(1), "m".into());
        let mut before = Health::new(policy());
        let upstream = before.upstreams.entry(id).or_default();
        upstream.circuit = open(5, CooldownClass::ServerError);
        upstream.target_mut(&model).ttft.record(Duration::from_millis(400), at(10));

        let kept = before.save_upstream(id, at(10));
        let mut after = Health::new(policy());
        after.restore_upstream(id, kept, at(10));

        let upstream = after.upstreams.get(&id).expect("restored");
        assert!(
            matches!(&upstream.circuit, Circuit::Open { until, .. } if *until == at(10)),
            "{:?}",
            upstream.circuit
        );
        assert!(
            (upstream.target(&model).expect("known").ttft.expected(at(10)) - 0.4).abs() < 0.001
        );
        assert!(Health::new(policy()).save_upstream(id, at(0)).is_empty());
    }
}
