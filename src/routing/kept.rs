//! Beliefs as they outlive the process: plain values, with instants that the caller turns into
//! times of the day.

use std::{sync::Arc, time::Duration};

use super::{
    circuit::{Belief, Circuit},
    health::Health,
    learned::{Kind, Window},
    outcome::Cool,
    recent::Peak,
};
use crate::{
    base::clock::Mono,
    config::settings::{KeyId, UpstreamId},
};

/// What is held against a scope.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// `None`: rejected, until somebody finds otherwise.
    pub until: Option<Mono>,
    pub since: Mono,
    pub strikes: u32,
    pub cause: Arc<str>,
    pub class: Cool,
    pub blocked: bool,
    pub hinted: bool,
}

/// One upstream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeptUpstream {
    pub circuit: Option<Kept>,
    /// Expected time to first token, by model.
    pub ttft: Vec<(Arc<str>, Duration)>,
}

/// One key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeptKey {
    pub circuit: Option<Kept>,
    pub account: Option<Kept>,
    pub models: Vec<(Arc<str>, Kept)>,
    pub limits: Vec<(Arc<str>, Kind, Window)>,
}

impl KeptUpstream {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl KeptKey {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Kept {
    /// What is worth keeping of a circuit: what is not over. A probe that was under way begins
    /// again.
    fn of(circuit: &Circuit, now: Mono) -> Option<Self> {
        let kept = |belief: &Belief, until| Self {
            until: Some(until),
            since: belief.since,
            strikes: belief.strikes,
            cause: Arc::clone(&belief.cause),
            class: belief.class,
            blocked: belief.blocked,
            hinted: belief.hinted,
        };
        match circuit {
            Circuit::Open { belief, until } if *until > now => Some(kept(belief, *until)),
            Circuit::Open { belief, .. } | Circuit::Probing { belief, .. }
                if belief.class != Cool::Nothing =>
            {
                Some(kept(belief, now))
            }
            Circuit::Shut { cause, since, .. } => Some(Self {
                until: None,
                since: *since,
                strikes: 0,
                cause: Arc::clone(cause),
                class: Cool::Rejected,
                blocked: true,
                hinted: false,
            }),
            Circuit::Closed { .. } | Circuit::Open { .. } | Circuit::Probing { .. } => None,
        }
    }

    fn circuit(self, now: Mono) -> Circuit {
        let Self { until, since, strikes, cause, class, blocked, hinted } = self;
        match until {
            // The free check of a rejected key may go at once: nobody knows for how long we were
            // away.
            None => Circuit::Shut { cause, since, struck: 0, retest_at: now, retests: 0 },
            Some(until) => Circuit::Open {
                belief: Belief { strikes, struck: 0, since, cause, class, blocked, hinted },
                until,
            },
        }
    }
}

impl Health {
    #[must_use]
    pub fn kept_upstream(&self, id: UpstreamId, now: Mono) -> KeptUpstream {
        let Some(upstream) = self.upstreams.get(&id) else { return KeptUpstream::default() };
        let known = upstream.targets.iter().filter(|target| target.ttft.is_known());
        let ttft = known.map(|target| {
            (Arc::clone(&target.model), Duration::from_secs_f64(target.ttft.expected(now)))
        });
        // What is as good as forgotten is not kept.
        let ttft = ttft.filter(|(_, span)| *span >= Duration::from_millis(1)).collect();
        KeptUpstream { circuit: Kept::of(&upstream.circuit, now), ttft }
    }

    pub fn restore_upstream(&mut self, id: UpstreamId, kept: KeptUpstream, now: Mono) {
        let upstream = self.upstreams.entry(id).or_default();
        if let Some(kept) = kept.circuit {
            upstream.circuit = kept.circuit(now);
        }
        for (model, span) in kept.ttft {
            upstream.target_mut(&model).ttft = Peak::known(span, now);
        }
    }

    #[must_use]
    pub fn kept_key(&self, id: KeyId, now: Mono) -> KeptKey {
        let Some(key) = self.keys.get(&id) else { return KeptKey::default() };
        KeptKey {
            circuit: Kept::of(&key.circuit, now),
            account: key
                .account
                .and_then(|account| self.accounts.get(&account))
                .and_then(|circuit| Kept::of(circuit, now)),
            models: key
                .models
                .iter()
                .filter_map(|(model, circuit)| Some((Arc::clone(model), Kept::of(circuit, now)?)))
                .collect(),
            limits: key
                .spent
                .learned(now)
                .map(|(model, kind, window)| (Arc::clone(model), kind, window))
                .collect(),
        }
    }

    pub fn restore_key(&mut self, id: KeyId, kept: KeptKey, now: Mono) {
        let key = self.keys.entry(id).or_default();
        if let Some(kept) = kept.circuit {
            key.circuit = kept.circuit(now);
        }
        for (model, kept) in kept.models {
            *key.model_made(&model) = kept.circuit(now);
        }
        for (model, kind, window) in kept.limits {
            key.spent.learned_mut(&model, now).set(kind, window);
        }
        // A key without an account row is its own.
        let account = key.account.unwrap_or(super::candidate::AccountId(id.0));
        if let Some(kept) = kept.account {
            key.account = Some(account);
            self.accounts.insert(account, kept.circuit(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::fixture::{at, policy};

    fn open(until: u64, class: Cool) -> Circuit {
        let belief = Belief {
            strikes: 2,
            struck: 9,
            since: at(0),
            cause: "429".into(),
            class,
            blocked: true,
            hinted: true,
        };
        Circuit::Open { belief, until: at(until) }
    }

    #[test]
    fn what_is_held_against_a_key_comes_back_as_it_was() {
        let (id, model): (KeyId, Arc<str>) = (KeyId(1), "m".into());
        let mut before = Health::new(policy());
        let key = before.keys.entry(id).or_default();
        key.circuit = Circuit::Shut {
            cause: "401".into(),
            since: at(0),
            struck: 9,
            retest_at: at(600),
            retests: 2,
        };
        *key.model_made(&model) = open(100, Cool::RateLimited);
        let window = Window { limit: Some(10), remaining: 3, until: at(50) };
        key.spent.learned_mut(&model, at(0)).set(Kind::Requests, window);

        let kept = before.kept_key(id, at(10));
        let mut after = Health::new(policy());
        after.restore_key(id, kept.clone(), at(20));

        assert_eq!(after.kept_key(id, at(10)), kept);
        let key = after.keys.get(&id).expect("restored");
        assert!(matches!(key.circuit, Circuit::Shut { retest_at, .. } if retest_at == at(20)));
        assert!(
            matches!(key.model(&model), Some(Circuit::Open { until, .. }) if *until == at(100))
        );
    }

    #[test]
    fn an_upstreams_circuit_and_times_come_back_and_what_is_over_is_a_probe() {
        let (id, model): (UpstreamId, Arc<str>) = (UpstreamId(1), "m".into());
        let mut before = Health::new(policy());
        let upstream = before.upstreams.entry(id).or_default();
        upstream.circuit = open(5, Cool::ServerError);
        upstream.target_mut(&model).ttft.add(Duration::from_millis(400), at(10));

        let kept = before.kept_upstream(id, at(10));
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
        assert!(Health::new(policy()).kept_upstream(id, at(0)).is_empty());
    }
}
