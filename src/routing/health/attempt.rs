//! Starts attempts: counts them and reserves their expected usage.

use std::sync::Arc;

use crate::routing::{
    affinity::ConversationKeys,
    candidate::{AccountId, Candidate},
    health::{Health, TokenEstimate, circuit::CircuitSignal, key_usage::KeyReservation},
};
use crate::{
    base::clock::Mono,
    config::settings::{KeyId, Strategy, UpstreamId},
    ir::op::Dialect,
};

/// The ticket of a started attempt; its owner reports exactly one final end to the router.
#[derive(Clone, Debug)]
pub struct AttemptTicket {
    /// Grows with each attempt.
    pub id: u64,
    pub upstream: UpstreamId,
    pub upstream_name: Arc<str>,
    pub key: KeyId,
    /// `upstream/label`
    pub key_name: Arc<str>,
    pub model: Arc<str>,
    pub account: AccountId,
    pub started: Mono,
    /// The attempt tests a scope after a cooldown, or the least suspect scope.
    pub probe: bool,
    /// The upstream is on this machine.
    pub local: bool,
    /// What the attempt reserved from its key's limits.
    pub reserved: Option<KeyReservation>,
    /// Input that the provider reads from its cache does not count against its limits.
    pub cached_free: bool,
    /// The keys of the conversation, which is bound to the account that serves it.
    pub conversation: Option<Arc<ConversationKeys>>,
    /// The conversation stays in this tier although a better one has been ready since then.
    pub better_tier_since: Option<Mono>,
}

impl Health {
    /// Starts an attempt: counts it and makes it the probe of every scope that needs one.
    pub fn start_attempt(
        &mut self,
        candidate: &Candidate,
        strategy: Strategy,
        probe: bool,
        now: Mono,
    ) -> AttemptTicket {
        self.last_attempt_id += 1;
        let target = &candidate.target;
        let ticket = AttemptTicket {
            id: self.last_attempt_id,
            upstream: candidate.upstream(),
            upstream_name: Arc::clone(&target.upstream.name),
            key: candidate.key,
            key_name: Arc::clone(&candidate.key_name),
            model: Arc::clone(&target.model),
            account: candidate.account,
            started: now,
            probe,
            local: target.upstream.local,
            reserved: None,
            cached_free: target.dialect == Dialect::Anthropic,
            conversation: None,
            better_tier_since: None,
        };
        let sent = CircuitSignal::Sent { id: ticket.id };

        let upstream = self.upstreams.entry(ticket.upstream).or_default();
        let key = self.keys.entry(ticket.key).or_default();
        upstream.running = upstream.running.saturating_add(1);
        upstream.rps_bucket.consume(target.upstream.max_rps, now);
        upstream.circuit.apply(&sent, &self.policy, now);
        key.running = key.running.saturating_add(1);
        key.requests += 1;
        key.account = Some(ticket.account);
        key.upstream = Some(ticket.upstream);
        key.circuit.apply(&sent, &self.policy, now);
        if let Some(circuit) = key.model_circuit_mut(&ticket.model) {
            circuit.apply(&sent, &self.policy, now);
        }
        if let Some(circuit) = self.accounts.get_mut(&ticket.account) {
            circuit.apply(&sent, &self.policy, now);
        }

        // A key or target that was unused starts at the current minimum. Otherwise it would receive
        // all the requests that it missed.
        let virtual_time = key.virtual_time.max(upstream.key_virtual_time);
        upstream.key_virtual_time = virtual_time;
        key.virtual_time = virtual_time + stride(candidate.key_weight);
        let weight = match strategy {
            Strategy::Priority
            | Strategy::Adaptive(_)
            | Strategy::LeastCost
            | Strategy::LeastLatency => return ticket,
            Strategy::RoundRobin => 1.0,
            Strategy::LeastBusy | Strategy::Weighted => target.weight,
        };
        let virtual_time = upstream
            .target(&ticket.model)
            .map_or(0.0, |target| target.virtual_time)
            .max(self.target_virtual_time);
        self.target_virtual_time = virtual_time;
        upstream.target_mut(&ticket.model).virtual_time = virtual_time + stride(weight);
        ticket
    }

    /// Reserves the expected usage of the attempt from its key's limits.
    pub fn reserve(
        &mut self,
        ticket: &mut AttemptTicket,
        candidate: &Candidate,
        size: TokenEstimate,
        now: Mono,
    ) {
        let demand = self.token_demand(&ticket.model, size);
        if let Some(key) = self.keys.get_mut(&ticket.key)
            && key.usage.is_limited(candidate.key_limit, candidate.model_limit)
        {
            ticket.reserved = key.usage.reserve(
                &ticket.model,
                candidate.key_limit,
                candidate.model_limit,
                demand,
                now,
            );
        }
    }
}

/// Returns the share of the stride that one attempt uses up.
fn stride(weight: f64) -> f64 {
    if weight.is_finite() { 1.0 / weight.max(1e-6) } else { 1.0 }
}
