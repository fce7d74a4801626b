//! Applies changes from outside requests: reloads, user actions, free checks and new
//! model lists. The caller wakes requests that wait.

use std::{sync::Arc, time::Duration};

use super::Router;
use crate::{
    base::clock::Mono,
    config::settings::{KeyId, UpstreamId},
    routing::{
        candidate::{AccountId, keyless_id},
        health::{
            Scope,
            circuit::{Circuit, CircuitSignal},
            cooldown::Policy,
        },
        outcome::CooldownClass,
    },
};

impl Router {
    /// Applies the policy of a reloaded config.
    pub fn set_policy(&self, policy: Policy) {
        self.lock().health.policy = Arc::new(policy);
    }

    /// Sets the account of each key, as far as known before its first attempt.
    pub fn set_accounts(&self, accounts: impl IntoIterator<Item = (KeyId, AccountId)>) {
        let mut state = self.lock();
        for (key, account) in accounts {
            state.health.keys.entry(key).or_default().account = Some(account);
        }
    }

    /// Cools a scope by hand; only the end of the span or `warm` makes it available again.
    pub fn cool(&self, scope: &Scope, span: Duration, now: Mono) {
        let health = &mut self.lock().health;
        let signal = CircuitSignal::Cooled { span, last_attempt_id: health.last_attempt_id };
        let policy = Arc::clone(&health.policy);
        let targets = match scope {
            Scope::All => health.keys.keys().map(|id| Scope::Key(*id)).collect(),
            scope => vec![scope.clone()],
        };
        for target in targets {
            if let Some(circuit) = health.circuit_mut(&target, true) {
                circuit.apply(&signal, &policy, now);
            }
        }
    }

    /// Clears the failures of a scope and everything narrower. For a key this includes its account,
    /// since the key would stay blocked otherwise.
    pub fn warm(&self, scope: &Scope) {
        self.lock().health.warm(scope);
    }

    /// Resets a key that has a new secret. Results of attempts made with the old secret no longer
    /// count.
    pub fn reset_key(&self, key: KeyId) {
        let health = &mut self.lock().health;
        health.warm(&Scope::Key(key));
        let newest = health.last_attempt_id;
        if let Some(key) = health.keys.get_mut(&key) {
            key.valid_from = newest;
        }
    }

    /// Returns the rejected keys that are due for a free check; the next check of each is due after
    /// a longer delay.
    #[must_use]
    pub fn rejected_keys_due(&self, now: Mono) -> Vec<KeyId> {
        let health = &mut self.lock().health;
        let mut due = Vec::new();
        for (id, key) in &mut health.keys {
            if matches!(key.circuit, Circuit::Rejected { recheck_at, .. } if recheck_at <= now) {
                key.circuit.apply(&CircuitSignal::RecheckStarted, &health.policy, now);
                due.push(*id);
            }
        }
        due.sort_unstable();
        due
    }

    /// Clears the rejection of a key after a free check succeeded.
    pub fn clear_rejected(&self, key: KeyId) {
        if let Some(key) = self.lock().health.keys.get_mut(&key)
            && matches!(key.circuit, Circuit::Rejected { .. })
        {
            key.circuit = Circuit::default();
        }
    }

    /// Clears a quota block of the key's account after a payment; returns whether there was one.
    pub fn clear_quota_block(&self, key: KeyId) -> bool {
        let health = &mut self.lock().health;
        let account = health.keys.get(&key).and_then(|key| key.account);
        let out_of_quota = |circuit: &Circuit| {
            circuit.open_reason().is_some_and(|reason| reason.class == CooldownClass::Quota)
        };
        account
            .filter(|account| health.accounts.get(account).is_some_and(out_of_quota))
            .is_some_and(|account| health.accounts.remove(&account).is_some())
    }

    /// Applies a new model list of an upstream: the models on it no longer count as missing.
    pub fn record_model_list(&self, upstream: UpstreamId, names: &dyn Fn(&str) -> bool) {
        for key in self.lock().health.keys.values_mut().filter(|key| key.upstream == Some(upstream))
        {
            let missing = |circuit: &Circuit| {
                circuit
                    .open_reason()
                    .is_some_and(|reason| reason.class == CooldownClass::ModelMissing)
            };
            key.models.retain(|(model, circuit)| !(missing(circuit) && names(model)));
        }
    }

    /// Drops the state of upstreams and keys that a reload removed.
    pub fn retain(&self, upstreams: &[UpstreamId], keys: &[KeyId]) {
        let health = &mut self.lock().health;
        let keyless = |key: &KeyId| upstreams.iter().any(|upstream| keyless_id(*upstream) == *key);
        health.upstreams.retain(|id, _| upstreams.contains(id));
        health.keys.retain(|id, _| keys.contains(id) || keyless(id));
        let accounts: Vec<AccountId> = health.keys.values().filter_map(|key| key.account).collect();
        health.accounts.retain(|id, _| accounts.contains(id));
    }
}
