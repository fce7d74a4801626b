//! Everything believed about upstreams, keys and accounts, behind the one lock: decisions, ends of
//! attempts, actions.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    affinity::{Binding, Bindings, Bound, Keys},
    candidate::{AccountId, Chosen, Decision, Question, Verdict},
    circuit::{Circuit, Policy, Signal},
    decide::decide,
    ending,
    health::{Health, Size},
    kept::{KeptKey, KeptUpstream},
    outcome::{Cool, Outcome},
    retry::{self, Again, Attempts, Budget, To},
    strategy,
};
pub use super::{
    ending::{Change, End},
    health::{ActScope, Ticket},
    stats::StatsView,
    view::{HealthState, HealthView, KeyHealthView},
};
use crate::{
    base::{clock::Mono, draw::Rng},
    config::settings::{KeyId, Upstream, UpstreamId},
    ir::allowance::RateLimits,
};

/// Shared by all requests. A decision that tries something marks it in the same critical section,
/// so no two requests are the same probe. A poisoned lock is entered all the same: updates replace
/// whole values, and one panic must not stop the proxy.
#[derive(Debug)]
pub struct Board {
    state: Mutex<State>,
    changed: AtomicU64,
}

#[derive(Debug)]
struct State {
    health: Health,
    bindings: Bindings,
    budget: Budget,
}

/// The luck of a dry run: none.
struct Plain;

impl Rng for Plain {
    fn next_f64(&mut self) -> f64 {
        0.0
    }
}

/// Starts the attempt that was decided on.
fn start(health: &mut Health, q: &Question<'_>, index: usize, probe: bool, now: Mono) -> Ticket {
    let candidate = &q.candidates[index];
    let mut ticket = health.take(candidate, q.strategy, probe, now);
    health.reserve(&mut ticket, candidate, Size { input: q.estimate, output: q.output }, now);
    ticket
}

fn binding(ticket: &Ticket, now: Mono) -> Binding {
    Binding {
        upstream: ticket.upstream,
        upstream_name: Arc::clone(&ticket.upstream_name),
        account: ticket.account,
        model: Arc::clone(&ticket.model),
        bound: now,
        seen: now,
        better: ticket.better,
    }
}

impl Board {
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            state: Mutex::new(State {
                health: Health::new(policy),
                bindings: Bindings::default(),
                budget: Budget::default(),
            }),
            changed: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grows whenever a request that waits might go on. Time alone does not make it grow: a waiter
    /// also looks again at the decision's `until`, and at least every
    /// [`VERDICT`](super::circuit::VERDICT).
    #[must_use]
    pub fn changed(&self) -> u64 {
        self.changed.load(Ordering::Acquire)
    }

    fn bump(&self) {
        self.changed.fetch_add(1, Ordering::Release);
    }

    /// Decides, and where the verdict is `Try` starts that attempt: the ticket's holder calls
    /// [`Board::record`] with exactly one final end.
    pub fn decide(
        &self,
        q: &Question<'_>,
        now: Mono,
        draw: &mut dyn Rng,
    ) -> (Decision, Option<Ticket>) {
        let mut state = self.lock();
        let decision = decide(q, &state.health, now, draw);
        let ticket = match decision.verdict {
            Verdict::Try { index, probe, .. } => {
                Some(start(&mut state.health, q, index, probe, now))
            }
            Verdict::Again { .. } | Verdict::Wait { .. } | Verdict::Exhausted { .. } => None,
        };
        (decision, ticket)
    }

    /// Like [`Board::decide`], for a conversation that is to be served where it was served before;
    /// `wait` is how long it may wait for that.
    pub fn decide_for(
        &self,
        q: &Question<'_>,
        (keys, ttl, wait): (&Arc<Keys>, Duration, Mono),
        now: Mono,
        draw: &mut dyn Rng,
    ) -> (Decision, Option<Ticket>) {
        let State { health, bindings, .. } = &mut *self.lock();
        let found = bindings.find(keys, ttl, now);
        let bound =
            found.and_then(|(key, loose)| Some(Bound { binding: bindings.get(key)?, loose, wait }));
        let q = Question { bound, ..*q };
        let decision = decide(&q, health, now, draw);
        let Verdict::Try { index, probe, ref why } = decision.verdict else {
            return (decision, None);
        };
        let better = match why {
            Chosen::Bound { better } => Some(*better),
            _ => None,
        };
        let mut ticket = start(health, &q, index, probe, now);
        ticket.conversation = Some(Arc::clone(keys));
        if let (Some(better), Some((key, _))) = (better, found) {
            bindings.better(key, better, now);
            ticket.better = bindings.get(key).and_then(|binding| binding.better);
        }
        (decision, Some(ticket))
    }

    /// Starts an attempt beside or after another one, of whoever is ready for it: nobody is tested
    /// or waited for.
    pub fn decide_ready(
        &self,
        q: &Question<'_>,
        keys: Option<&Arc<Keys>>,
        now: Mono,
        draw: &mut dyn Rng,
    ) -> Option<(usize, Ticket)> {
        let health = &mut self.lock().health;
        let Verdict::Try { index, probe: false, why: Chosen::Only | Chosen::Best { .. } } =
            decide(q, health, now, draw).verdict
        else {
            return None;
        };
        let mut ticket = start(health, q, index, false, now);
        ticket.conversation = keys.map(Arc::clone);
        Some((index, ticket))
    }

    /// Where a conversation of this key was served last.
    #[must_use]
    pub fn binding(&self, key: u64, ttl: Duration, now: Mono) -> Option<Binding> {
        let state = self.lock();
        state.bindings.get(key).filter(|binding| now.since(binding.seen) < ttl).cloned()
    }

    /// Forgets where a conversation was served; whether it was known.
    pub fn unbind(&self, key: u64) -> bool {
        self.lock().bindings.forget(key)
    }

    /// What [`Board::decide`] would say; marks nothing.
    #[must_use]
    pub fn decide_dry(&self, q: &Question<'_>, now: Mono) -> Decision {
        decide(q, &self.lock().health, now, &mut Plain)
    }

    /// The same for a conversation.
    #[must_use]
    pub fn decide_dry_for(
        &self,
        q: &Question<'_>,
        talk: Option<(&Keys, Duration)>,
        now: Mono,
    ) -> Decision {
        let state = self.lock();
        let found = talk.and_then(|(keys, ttl)| state.bindings.find(keys, ttl, now));
        let bound = found.and_then(|(key, loose)| {
            Some(Bound { binding: state.bindings.get(key)?, loose, wait: now })
        });
        decide(&Question { bound, ..*q }, &state.health, now, &mut Plain)
    }

    /// How well each target suits by the question's strategy, whatever its tier and health.
    #[must_use]
    pub fn scores(&self, q: &Question<'_>, now: Mono) -> Vec<(usize, f64)> {
        let all: Vec<usize> = (0..q.candidates.len()).collect();
        strategy::scores(q, &all, &self.lock().health, now)
    }

    /// Remembers where a conversation goes.
    pub fn bind(&self, keys: &Keys, binding: Binding, now: Mono) {
        self.lock().bindings.bind(keys, binding, now);
    }

    /// Records how an attempt went; gives back what there is to tell.
    pub fn record(&self, ticket: &Ticket, end: End<'_>, now: Mono) -> Vec<Change> {
        let changes = {
            let State { health, bindings, .. } = &mut *self.lock();
            if let (Some(keys), End::Content | End::Finished { .. }) = (&ticket.conversation, end) {
                bindings.bind(keys, binding(ticket, now), now);
            }
            ending::record(health, ticket, end, now)
        };
        self.bump();
        changes
    }

    /// A probe of our own begins: its number among the attempts.
    #[must_use]
    pub fn begin_probe(&self) -> u64 {
        let health = &mut self.lock().health;
        health.newest += 1;
        health.newest
    }

    /// Records what a probe found: nothing wrong, or why the upstream does not answer. Gives back
    /// what there is to tell.
    pub fn probed(
        &self,
        upstream: &Upstream,
        id: u64,
        found: Result<(), &Arc<str>>,
        now: Mono,
    ) -> Vec<Change> {
        let changes = ending::probed(&mut self.lock().health, upstream, id, found, now);
        if !changes.is_empty() {
            self.bump();
        }
        changes
    }

    /// When an upstream last served a request.
    #[must_use]
    pub fn heard(&self, id: UpstreamId) -> Option<Mono> {
        self.lock().health.upstreams.get(&id)?.stats.served()
    }

    /// Takes over what an answer's head said is left of the provider's limits.
    pub fn hear(&self, ticket: &Ticket, said: &RateLimits, now: Mono) {
        let health = &mut self.lock().health;
        let most = health.policy.cooldown.max_hint;
        if let Some(key) = health.keys.get_mut(&ticket.key).filter(|key| ticket.id > key.born) {
            key.spent.learned_mut(&ticket.model, now).hear(said, most, now);
        }
    }

    /// Counts a request for the retry budget.
    pub fn count_request(&self, now: Mono) {
        self.lock().budget.request(now);
    }

    /// Whether a request may be tried again ([`retry::again`], with the rules and the budget in
    /// force).
    pub fn again(
        &self,
        outcome: &Outcome,
        so_far: &mut Attempts,
        to: To,
        now: Mono,
        draw: &mut dyn Rng,
    ) -> Again {
        let State { health, budget, .. } = &mut *self.lock();
        retry::again(outcome, so_far, to, &health.policy.retry, budget, now, draw)
    }

    /// A reloaded config.
    pub fn set_policy(&self, policy: Policy) {
        self.lock().health.policy = Arc::new(policy);
        self.bump();
    }

    /// Which account each key belongs to, as far as known before its first attempt.
    pub fn set_accounts(&self, accounts: impl IntoIterator<Item = (KeyId, AccountId)>) {
        let mut state = self.lock();
        for (key, account) in accounts {
            state.health.keys.entry(key).or_default().account = Some(account);
        }
    }

    /// Leaves a scope alone by hand; nothing but its end or `warm` brings it back.
    pub fn cool(&self, scope: &ActScope, span: Duration, now: Mono) {
        let health = &mut self.lock().health;
        let signal = Signal::Cooled { span, newest: health.newest };
        let policy = Arc::clone(&health.policy);
        let targets = match scope {
            ActScope::All => health.keys.keys().map(|id| ActScope::Key(*id)).collect(),
            one => vec![one.clone()],
        };
        for target in targets {
            if let Some(circuit) = health.circuit_mut(&target, true) {
                circuit.turn(&signal, &policy, now);
            }
        }
    }

    /// Forgets what is held against a scope and everything narrower; a key's account is warmed with
    /// it, as the key would stay out otherwise.
    pub fn warm(&self, scope: &ActScope) {
        self.lock().health.warm(scope);
        self.bump();
    }

    /// The key has a new secret: it starts clean, and attempts made with the old one say nothing
    /// about it.
    pub fn forget_key(&self, key: KeyId) {
        {
            let health = &mut self.lock().health;
            health.warm(&ActScope::Key(key));
            let newest = health.newest;
            if let Some(key) = health.keys.get_mut(&key) {
                key.born = newest;
            }
        }
        self.bump();
    }

    /// Rejected keys that are due for a free check; each is due again only after a longer while.
    #[must_use]
    pub fn rejected_due(&self, now: Mono) -> Vec<KeyId> {
        let health = &mut self.lock().health;
        let mut due = Vec::new();
        for (id, key) in &mut health.keys {
            if matches!(key.circuit, Circuit::Shut { retest_at, .. } if retest_at <= now) {
                key.circuit.turn(&Signal::Retested, &health.policy, now);
                due.push(*id);
            }
        }
        due.sort_unstable();
        due
    }

    /// A free check of a rejected key succeeded.
    pub fn clear_rejected(&self, key: KeyId) {
        if let Some(key) = self.lock().health.keys.get_mut(&key)
            && matches!(key.circuit, Circuit::Shut { .. })
        {
            key.circuit = Circuit::default();
        }
        self.bump();
    }

    /// Somebody paid: what is held against a key's account for want of money is over. Whether there
    /// was any.
    pub fn paid(&self, key: KeyId) -> bool {
        let freed = {
            let health = &mut self.lock().health;
            let account = health.keys.get(&key).and_then(|key| key.account);
            let poor = |circuit: &Circuit| {
                circuit.belief().is_some_and(|belief| belief.class == Cool::Quota)
            };
            account
                .filter(|account| health.accounts.get(account).is_some_and(poor))
                .is_some_and(|account| health.accounts.remove(&account).is_some())
        };
        if freed {
            self.bump();
        }
        freed
    }

    /// A fresh list of an upstream's models came: what it names is not missing any more.
    pub fn listed(&self, upstream: UpstreamId, names: &dyn Fn(&str) -> bool) {
        for key in self.lock().health.keys.values_mut().filter(|key| key.upstream == Some(upstream))
        {
            let missing = |circuit: &Circuit| {
                circuit.belief().is_some_and(|belief| belief.class == Cool::ModelMissing)
            };
            key.models.retain(|(model, circuit)| !(missing(circuit) && names(model)));
        }
        self.bump();
    }

    /// After a reload: drops what is known of upstreams and keys that are gone.
    pub fn keep(&self, upstreams: &[UpstreamId], keys: &[KeyId]) {
        {
            let health = &mut self.lock().health;
            let keyless = |key: &KeyId| {
                upstreams.iter().any(|upstream| super::candidate::keyless(*upstream) == *key)
            };
            health.upstreams.retain(|id, _| upstreams.contains(id));
            health.keys.retain(|id, _| keys.contains(id) || keyless(id));
            let accounts: Vec<AccountId> =
                health.keys.values().filter_map(|key| key.account).collect();
            health.accounts.retain(|id, _| accounts.contains(id));
        }
        self.bump();
    }

    #[must_use]
    pub fn upstream_view(&self, id: UpstreamId, now: Mono) -> HealthView {
        let state = self.lock();
        state
            .health
            .upstreams
            .get(&id)
            .map(|upstream| HealthView::of_upstream(&upstream.circuit, now))
            .unwrap_or_default()
    }

    #[must_use]
    pub fn key_view(&self, id: KeyId, now: Mono) -> KeyHealthView {
        let State { health, .. } = &*self.lock();
        let Some(key) = health.keys.get(&id) else { return KeyHealthView::default() };
        KeyHealthView::of(key, key.account.and_then(|account| health.accounts.get(&account)), now)
    }

    /// What of an upstream is worth keeping over a restart.
    #[must_use]
    pub fn kept_upstream(&self, id: UpstreamId, now: Mono) -> KeptUpstream {
        self.lock().health.kept_upstream(id, now)
    }

    pub fn restore_upstream(&self, id: UpstreamId, kept: KeptUpstream, now: Mono) {
        self.lock().health.restore_upstream(id, kept, now);
    }

    /// What of a key is worth keeping over a restart.
    #[must_use]
    pub fn kept_key(&self, id: KeyId, now: Mono) -> KeptKey {
        self.lock().health.kept_key(id, now)
    }

    pub fn restore_key(&self, id: KeyId, kept: KeptKey, now: Mono) {
        self.lock().health.restore_key(id, kept, now);
    }

    /// The upstream's last hundred attempts or fifteen minutes.
    #[must_use]
    pub fn stats(&self, id: UpstreamId, now: Mono) -> StatsView {
        let state = self.lock();
        state.health.upstreams.get(&id).map_or_else(
            || super::stats::Stats::default().view(now),
            |upstream| upstream.stats.view(now),
        )
    }

    /// Attempts under way at an upstream.
    #[must_use]
    pub fn running(&self, id: UpstreamId) -> u32 {
        self.lock().health.upstreams.get(&id).map_or(0, |upstream| upstream.running)
    }
}

#[cfg(test)]
mod tests;
