//! What is known of upstreams, keys and accounts, as plain state: what each candidate's standing
//! is, and what starting an attempt changes. The board puts the lock around it.

use std::{mem, sync::Arc, time::Duration};

use super::{
    affinity::Keys,
    candidate::{AccountId, Candidate, KeyState, OverKind, ScopeKind, Unfit, Why},
    circuit::{Circuit, Policy, Signal, Stance},
    learned::{Demand, Kind, Window},
    limits::Usual,
    recent::Peak,
    spent::{Hurdle, Reserved, Spent},
    stats::Stats,
};
use crate::{
    base::{clock::Mono, id::IdMap, window::TokenBucket},
    config::settings::{KeyId, Strategy, Upstream, UpstreamId},
    ir::op::Dialect,
};

/// Models of one key that may be in a cooldown of their own; names come from clients, so they are
/// bounded.
const MODELS_PER_KEY: usize = 64;

/// Per key or account request limits are over this span.
pub const MINUTE: Duration = Duration::from_secs(60);

/// All beliefs and counts.
#[derive(Debug)]
pub struct Health {
    pub policy: Arc<Policy>,
    /// The newest attempt's number.
    pub newest: u64,
    pub upstreams: IdMap<UpstreamId, UpstreamHealth>,
    pub keys: IdMap<KeyId, KeyHealth>,
    pub accounts: IdMap<AccountId, Circuit>,
    /// Where the stride over targets stands.
    pub target_time: f64,
    /// How long answers usually are, by model.
    pub usual: Usual,
}

#[derive(Debug, Default)]
pub struct UpstreamHealth {
    pub circuit: Circuit,
    pub running: u32,
    pub pace: TokenBucket,
    pub stats: Stats,
    /// Where the stride over this upstream's keys stands.
    pub key_time: f64,
    /// Its models that were asked for.
    pub targets: Vec<TargetHealth>,
}

/// One model of an upstream.
#[derive(Clone, Debug)]
pub struct TargetHealth {
    pub model: Arc<str>,
    /// Where it stands in the stride over targets.
    pub pass: f64,
    pub ttft: Peak,
}

#[derive(Debug, Default)]
pub struct KeyHealth {
    pub circuit: Circuit,
    pub models: Vec<(Arc<str>, Circuit)>,
    pub account: Option<AccountId>,
    pub upstream: Option<UpstreamId>,
    pub running: u32,
    pub requests: u64,
    pub tokens: u64,
    pub spent: Spent,
    /// Where it stands in the stride over its upstream's keys.
    pub pass: f64,
    /// Attempts numbered up to this were made with an earlier secret.
    pub born: u64,
}

/// The chosen attempt; whoever holds it tells the board exactly one final end.
#[derive(Clone, Debug)]
pub struct Ticket {
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
    /// It tests a scope after a cooldown, or the least suspect one.
    pub probe: bool,
    /// The upstream is on this machine.
    pub local: bool,
    /// What it reserved of its key's limits.
    pub reserved: Option<Reserved>,
    /// Input that the provider reads from its cache does not count against its limits.
    pub cached_free: bool,
    /// What the conversation is known by, to be bound where it is served.
    pub conversation: Option<Arc<Keys>>,
    /// Its conversation stays in this tier though a better one has been ready since then.
    pub better: Option<Mono>,
}

/// What a request asks for, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub input: u64,
    /// The most output that its client allows.
    pub output: u64,
}

/// A scope that an action or a signal is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActScope {
    Account(AccountId),
    All,
    Key(KeyId),
    KeyModel(KeyId, Arc<str>),
    Upstream(UpstreamId),
}

/// How a candidate stands; the greater, the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    Ready,
    /// Ready as a probe.
    Due,
    Suspect,
    /// Something that may happen at any moment is waited for: a verdict, a free slot, a secret.
    Held,
    Blocked,
    Out,
}

/// A candidate's rank, until when, and why.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    pub rank: Rank,
    pub until: Option<Mono>,
    reason: Reason<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Reason<'a> {
    Circuit(ScopeKind, &'a Circuit),
    Fine,
    Key(&'a KeyState),
    Limit(&'static str),
    Near(Kind, Window),
    Unfit(Unfit),
}

impl Health {
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy: Arc::new(policy),
            newest: 0,
            upstreams: IdMap::default(),
            keys: IdMap::default(),
            accounts: IdMap::default(),
            target_time: 0.0,
            usual: Usual::default(),
        }
    }

    /// How an upstream stands now, whatever the key.
    #[must_use]
    pub fn upstream_standing(&self, settings: &Upstream, now: Mono) -> Standing<'_> {
        let mut standing = Standing::fine();
        if let Some(upstream) = self.upstreams.get(&settings.id) {
            standing.limited(
                settings.max_concurrency,
                upstream.running,
                "requests at once of the upstream",
            );
            if let Some(until) = upstream.pace.full_until(settings.max_rps, now) {
                standing.worsen(
                    Rank::Blocked,
                    Some(until),
                    Reason::Limit("requests per second of the upstream"),
                );
            }
            standing.count(ScopeKind::Upstream, &upstream.circuit, now);
        }
        standing
    }

    /// Adds to its upstream's standing what there is about the candidate's key. In place: with
    /// hundreds of candidates the copies would cost more than the rest.
    pub fn stand<'a>(
        &'a self,
        standing: &mut Standing<'a>,
        candidate: &'a Candidate,
        asked: Size,
        now: Mono,
    ) {
        match &candidate.key_state {
            KeyState::Ready => {}
            KeyState::Waiting => {
                standing.worsen(Rank::Held, None, Reason::Key(&candidate.key_state))
            }
            KeyState::Over(over) => match (over.kind, over.until) {
                (OverKind::Reserved, _) => {
                    standing.worsen(Rank::Held, None, Reason::Key(&candidate.key_state))
                }
                (OverKind::Spent, Some(until)) => {
                    standing.worsen(Rank::Blocked, Some(until), Reason::Key(&candidate.key_state))
                }
                (OverKind::Spent | OverKind::Unpriced, _) => {
                    standing.worsen(Rank::Out, None, Reason::Key(&candidate.key_state));
                    return;
                }
            },
            KeyState::Disabled | KeyState::Missing(_) => {
                standing.worsen(Rank::Out, None, Reason::Key(&candidate.key_state));
                return;
            }
        }
        if let Some(key) = self.keys.get(&candidate.key) {
            standing.limited(candidate.key_max_concurrency, key.running, "requests at once");
            if key.spent.is_limited(candidate.key_limit, candidate.model_limit) {
                let demand = self.demand(&candidate.target.model, asked);
                match key.spent.hurdle(
                    &candidate.target.model,
                    candidate.key_limit,
                    candidate.model_limit,
                    demand,
                    now,
                ) {
                    None => {}
                    Some(Hurdle::Full { what, until }) => {
                        standing.worsen(Rank::Blocked, Some(until), Reason::Limit(what))
                    }
                    Some(Hurdle::Short { kind, window }) => {
                        standing.worsen(
                            Rank::Suspect,
                            Some(window.until),
                            Reason::Near(kind, window),
                        );
                    }
                }
            }
            standing.count(ScopeKind::Key, &key.circuit, now);
            if let Some(circuit) = key.model(&candidate.target.model) {
                standing.count(ScopeKind::KeyModel, circuit, now);
            }
        }
        if !self.accounts.is_empty()
            && let Some(circuit) = self.accounts.get(&candidate.account)
        {
            standing.count(ScopeKind::Account, circuit, now);
        }
    }

    /// The tokens that a request is expected to take of a model.
    #[must_use]
    pub fn demand(&self, model: &Arc<str>, asked: Size) -> Demand {
        let output =
            if asked.output == 0 { 0 } else { self.usual.output(model, Some(asked.output)) };
        Demand { input: asked.input, output }
    }

    /// Reserves what the attempt is expected to take of its key's limits.
    pub fn reserve(&mut self, ticket: &mut Ticket, candidate: &Candidate, asked: Size, now: Mono) {
        let demand = self.demand(&ticket.model, asked);
        if let Some(key) = self.keys.get_mut(&ticket.key)
            && key.spent.is_limited(candidate.key_limit, candidate.model_limit)
        {
            ticket.reserved = key.spent.reserve(
                &ticket.model,
                candidate.key_limit,
                candidate.model_limit,
                demand,
                now,
            );
        }
    }

    /// Whether the provider said of one of these keys that more than a fifth of everything is left.
    pub fn has_plenty(
        &self,
        candidates: &[Candidate],
        mut places: impl Iterator<Item = usize>,
        now: Mono,
    ) -> bool {
        places.any(|i| {
            let Some(key) = self.keys.get(&candidates[i].key) else { return false };
            let mut known = key
                .spent
                .learned(now)
                .filter(|(model, ..)| same(model, &candidates[i].target.model))
                .peekable();
            let plenty = |window: Window| {
                window.limit.is_some_and(|limit| window.remaining.saturating_mul(5) > limit)
            };
            known.peek().is_some() && known.all(|(.., window)| plenty(window))
        })
    }

    /// Starts an attempt: counts it and makes it the probe of every scope that needs one.
    pub fn take(
        &mut self,
        candidate: &Candidate,
        strategy: Strategy,
        probe: bool,
        now: Mono,
    ) -> Ticket {
        self.newest += 1;
        let target = &candidate.target;
        let ticket = Ticket {
            id: self.newest,
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
            better: None,
        };
        let sent = Signal::Sent { id: ticket.id };

        let upstream = self.upstreams.entry(ticket.upstream).or_default();
        let key = self.keys.entry(ticket.key).or_default();
        upstream.running = upstream.running.saturating_add(1);
        upstream.pace.consume(target.upstream.max_rps, now);
        upstream.circuit.turn(&sent, &self.policy, now);
        key.running = key.running.saturating_add(1);
        key.requests += 1;
        key.account = Some(ticket.account);
        key.upstream = Some(ticket.upstream);
        key.circuit.turn(&sent, &self.policy, now);
        if let Some(circuit) = key.model_mut(&ticket.model) {
            circuit.turn(&sent, &self.policy, now);
        }
        if let Some(circuit) = self.accounts.get_mut(&ticket.account) {
            circuit.turn(&sent, &self.policy, now);
        }

        // A key or target that was away starts at the current minimum, or it would be sent all that
        // it missed.
        let stood = key.pass.max(upstream.key_time);
        upstream.key_time = stood;
        key.pass = stood + step(candidate.key_weight);
        let weight = match strategy {
            Strategy::Priority
            | Strategy::Adaptive(_)
            | Strategy::LeastCost
            | Strategy::LeastLatency => return ticket,
            Strategy::RoundRobin => 1.0,
            Strategy::LeastBusy | Strategy::Weighted => target.weight,
        };
        let stood =
            upstream.target(&ticket.model).map_or(0.0, |target| target.pass).max(self.target_time);
        self.target_time = stood;
        upstream.target_mut(&ticket.model).pass = stood + step(weight);
        ticket
    }

    /// Forgets what is held against a scope, and everything narrower.
    pub fn warm(&mut self, scope: &ActScope) {
        match scope {
            ActScope::All => {
                self.accounts.clear();
                for upstream in self.upstreams.values_mut() {
                    upstream.circuit = Circuit::default();
                }
                for key in self.keys.values_mut() {
                    key.warm();
                }
            }
            ActScope::Account(id) => {
                self.accounts.remove(id);
                for key in self.keys.values_mut().filter(|key| key.account == Some(*id)) {
                    key.warm();
                }
            }
            ActScope::Key(id) => {
                if let Some(key) = self.keys.get_mut(id) {
                    key.warm();
                    if let Some(account) = key.account {
                        self.accounts.remove(&account);
                    }
                }
            }
            ActScope::KeyModel(id, model) => {
                if let Some(key) = self.keys.get_mut(id) {
                    key.models.retain(|(name, _)| !same(name, model));
                    key.spent.forget(Some(model));
                }
            }
            ActScope::Upstream(id) => {
                if let Some(upstream) = self.upstreams.get_mut(id) {
                    upstream.circuit = Circuit::default();
                }
                let accounts: Vec<AccountId> = self
                    .keys
                    .values()
                    .filter(|key| key.upstream == Some(*id))
                    .filter_map(|key| key.account)
                    .collect();
                self.accounts.retain(|id, _| !accounts.contains(id));
                for key in self.keys.values_mut().filter(|key| key.upstream == Some(*id)) {
                    key.warm();
                }
            }
        }
    }

    /// The circuit of a scope, where one is known; `make` creates it.
    pub fn circuit_mut(&mut self, scope: &ActScope, make: bool) -> Option<&mut Circuit> {
        match scope {
            ActScope::All => None,
            ActScope::Account(id) if make => Some(self.accounts.entry(*id).or_default()),
            ActScope::Account(id) => self.accounts.get_mut(id),
            ActScope::Key(id) if make => Some(&mut self.keys.entry(*id).or_default().circuit),
            ActScope::Key(id) => self.keys.get_mut(id).map(|key| &mut key.circuit),
            ActScope::KeyModel(id, model) if make => {
                Some(self.keys.entry(*id).or_default().model_made(model))
            }
            ActScope::KeyModel(id, model) => self.keys.get_mut(id)?.model_mut(model),
            ActScope::Upstream(id) if make => {
                Some(&mut self.upstreams.entry(*id).or_default().circuit)
            }
            ActScope::Upstream(id) => {
                self.upstreams.get_mut(id).map(|upstream| &mut upstream.circuit)
            }
        }
    }
}

/// The share of the stride that one attempt uses up.
fn step(weight: f64) -> f64 {
    if weight.is_finite() { 1.0 / weight.max(1e-6) } else { 1.0 }
}

impl UpstreamHealth {
    #[must_use]
    pub fn target(&self, model: &Arc<str>) -> Option<&TargetHealth> {
        self.targets.iter().find(|target| same(&target.model, model))
    }

    /// What is known of a model; made where nothing is.
    pub fn target_mut(&mut self, model: &Arc<str>) -> &mut TargetHealth {
        let at = match self.targets.iter().position(|target| same(&target.model, model)) {
            Some(at) => at,
            None => {
                if self.targets.len() >= MODELS_PER_KEY {
                    self.targets.remove(0);
                }
                self.targets.push(TargetHealth {
                    model: Arc::clone(model),
                    pass: 0.0,
                    ttft: Peak::default(),
                });
                self.targets.len() - 1
            }
        };
        &mut self.targets[at]
    }
}

impl KeyHealth {
    fn warm(&mut self) {
        self.circuit = Circuit::default();
        self.models.clear();
        self.spent.forget(None);
    }

    #[must_use]
    pub fn model(&self, model: &Arc<str>) -> Option<&Circuit> {
        self.models.iter().find(|(name, _)| same(name, model)).map(|(_, circuit)| circuit)
    }

    pub fn model_mut(&mut self, model: &Arc<str>) -> Option<&mut Circuit> {
        self.models.iter_mut().find(|(name, _)| same(name, model)).map(|(_, circuit)| circuit)
    }

    pub(super) fn model_made(&mut self, model: &Arc<str>) -> &mut Circuit {
        let at = match self.models.iter().position(|(name, _)| same(name, model)) {
            Some(at) => at,
            None => {
                if self.models.len() >= MODELS_PER_KEY {
                    // A closed one first, else the oldest: forgetting a belief costs one attempt.
                    let closed = self
                        .models
                        .iter()
                        .position(|(_, circuit)| matches!(circuit, Circuit::Closed { .. }));
                    self.models.remove(closed.unwrap_or(0));
                }
                self.models.push((Arc::clone(model), Circuit::default()));
                self.models.len() - 1
            }
        };
        &mut self.models[at].1
    }
}

fn same(a: &Arc<str>, b: &Arc<str>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

impl Circuit {
    /// Goes on to the next state in place; gives back the one before.
    pub fn turn(&mut self, signal: &Signal<'_>, policy: &Policy, now: Mono) -> Self {
        let before = self.clone();
        *self = mem::take(self).after(signal, policy, now);
        before
    }
}

impl<'a> Standing<'a> {
    /// Nothing is known against it.
    #[must_use]
    pub fn fine() -> Self {
        Self { rank: Rank::Ready, until: None, reason: Reason::Fine }
    }

    /// As bad as the other, if that is worse.
    pub fn at_least(&mut self, other: &Self) {
        self.worsen(other.rank, other.until, other.reason);
    }

    fn worsen(&mut self, rank: Rank, until: Option<Mono>, reason: Reason<'a>) {
        if rank > self.rank || rank == self.rank && until > self.until {
            *self = Self { rank, until, reason };
        }
    }

    /// Others can take the request, this one cannot.
    pub fn unfit(&mut self, unfit: Unfit) {
        self.worsen(Rank::Out, None, Reason::Unfit(unfit));
    }

    /// Only its own limits keep it from being used.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self.reason, Reason::Limit(_))
    }

    fn limited(&mut self, limit: u32, running: u32, what: &'static str) {
        if limit > 0 && running >= limit {
            self.worsen(Rank::Held, None, Reason::Limit(what));
        }
    }

    fn count(&mut self, scope: ScopeKind, circuit: &'a Circuit, now: Mono) {
        let (rank, until) = match circuit.stance(now) {
            Stance::Clear => return,
            Stance::Due => (Rank::Due, None),
            Stance::Suspect(until) => (Rank::Suspect, Some(until)),
            Stance::Held => (Rank::Held, None),
            Stance::Blocked(until) => (Rank::Blocked, Some(until)),
            Stance::Shut => (Rank::Out, None),
        };
        self.worsen(rank, until, Reason::Circuit(scope, circuit));
    }

    /// Why it cannot be used now; `None` where it can.
    #[must_use]
    pub fn why(&self) -> Option<Why> {
        Some(match (self.reason, self.rank) {
            (Reason::Fine, _) | (_, Rank::Ready | Rank::Due) => return None,
            (Reason::Key(KeyState::Over(over)), _) => Why::OverBudget(Arc::clone(over)),
            (Reason::Key(KeyState::Waiting), _) => Why::WaitingForKey,
            (Reason::Key(KeyState::Missing(reason)), _) => Why::Missing(Arc::clone(reason)),
            (Reason::Key(KeyState::Disabled | KeyState::Ready), _) => Why::Disabled,
            (Reason::Limit(what), _) => Why::OverLimit { what },
            (Reason::Near(kind, window), _) => Why::NearLimit {
                what: kind.name(),
                remaining: window.remaining,
                until: window.until,
            },
            (Reason::Unfit(unfit), _) => Why::Unfit(unfit),
            (Reason::Circuit(_, Circuit::Shut { cause, .. }), _) => {
                Why::Rejected { cause: Arc::clone(cause) }
            }
            (Reason::Circuit(scope, Circuit::Open { belief, until }), _) => Why::Cooling {
                until: *until,
                cause: Arc::clone(&belief.cause),
                scope,
                class: belief.class,
            },
            (Reason::Circuit(_, Circuit::Probing { .. } | Circuit::Closed { .. }), _) => {
                Why::Probing
            }
        })
    }
}
