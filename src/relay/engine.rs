//! What lives as long as the process, and the generation that a reload swaps.

use std::{
    collections::HashMap,
    hash::RandomState,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc};

use super::{
    balance::Balances, budgets::Unpriced, continuity::Continuity, guardian::Watch, halt::Halts,
    heads::Heads, hedge::Hedges, lists::ModelLists, network::Network, peek::Peeks, probes::Probes,
    remember::Remember, stored::Stored, waiting::Queue,
};
use crate::{
    base::{
        clean, clock::Clock, draw::XorShiftRng, id::IdMap, redact::Redactor, zone::timezone_by_name,
    },
    config::{
        Settings,
        settings::{BodyStorage, KeyId, Upstream, UpstreamId},
    },
    events::{
        bus::Bus,
        sink::{BodyPolicy, LedgerQueue},
    },
    ir::cost::PriceClass,
    pricing::PriceBook,
    routing::{
        board::Router,
        budget::Budgets,
        candidate::{AccountId, Candidate, KeyState},
        catalog::Catalog,
        circuit::Policy,
        cost::{self, TokenPrice},
        health::TokenEstimate,
        limits::ProjectLimits,
    },
    upstream::{
        keys::{self, ProviderKeys},
        send::UpstreamClient,
    },
};

/// What a reload replaces as a whole; a request keeps the one it began with.
pub struct Generation {
    pub settings: Arc<Settings>,
    pub catalog: Catalog,
    pub prices: PriceBook,
}

impl Generation {
    fn new(settings: Arc<Settings>) -> Self {
        Self { catalog: Catalog::new(&settings), prices: PriceBook::new(&settings), settings }
    }
}

/// The parts of the proxy that outlive a reload.
pub struct Engine {
    pub clock: Arc<dyn Clock>,
    pub bus: Bus,
    /// The way to the ledger.
    pub sink: LedgerQueue,
    pub board: Router,
    pub gateway: UpstreamClient,
    pub keys: Arc<ProviderKeys>,
    pub redactor: Arc<dyn Redactor>,
    pub lists: ModelLists,
    pub queue: Queue,
    /// What projects have used of their limits.
    pub projects: ProjectLimits,
    /// What has been spent of budgets.
    pub budgets: Budgets,
    pub(super) unpriced: Unpriced,
    pub halts: Halts,
    pub heads: Heads,
    pub peeks: Peeks,
    pub network: Network,
    pub probes: Probes,
    pub balances: Balances,
    pub hedges: Hedges,
    pub(super) watch: Watch,
    pub continuity: Continuity,
    pub stored: Stored,
    /// Told when a waiter might now proceed.
    pub changed: Notify,
    /// Keys that an upstream rejected: their references are read again.
    pub rejected: mpsc::UnboundedSender<KeyId>,
    /// What hashes of conversations are made with.
    pub seed: RandomState,
    /// What is believed, over a restart.
    pub remember: Remember,
    generation: ArcSwap<Generation>,
    accounts: ArcSwap<IdMap<KeyId, AccountId>>,
    luck: Mutex<XorShiftRng>,
    /// Requests in flight, and bytes of bodies held for them.
    in_flight: AtomicUsize,
    buffered: AtomicU64,
    draining: AtomicBool,
}

/// The process-wide parts that are made elsewhere and handed in.
pub struct Parts {
    pub clock: Arc<dyn Clock>,
    pub gateway: UpstreamClient,
    pub keys: Arc<ProviderKeys>,
    pub redactor: Arc<dyn Redactor>,
    pub lists: ModelLists,
    pub rejected: mpsc::UnboundedSender<KeyId>,
    pub remember: Remember,
    pub sink: LedgerQueue,
}

impl Engine {
    /// Puts the parts together around the first settings.
    #[must_use]
    pub fn new(parts: Parts, settings: Arc<Settings>) -> Self {
        let Parts { clock, gateway, keys, redactor, lists, rejected, sink, remember } = parts;
        want(&sink, &settings);
        let board = Router::new(Policy::new(&settings.cooldown, &settings.retry));
        Self {
            bus: Bus::default(),
            sink,
            board,
            gateway,
            keys,
            redactor,
            lists,
            queue: Queue::default(),
            projects: ProjectLimits::default(),
            budgets: Budgets::new(timezone_by_name(&settings.ledger.tz)),
            unpriced: Unpriced::default(),
            halts: Halts::default(),
            heads: Heads::default(),
            peeks: Peeks::default(),
            network: Network::default(),
            probes: Probes::default(),
            balances: Balances::default(),
            hedges: Hedges::default(),
            watch: Watch::default(),
            continuity: Continuity::default(),
            stored: Stored::default(),
            changed: Notify::new(),
            rejected,
            seed: RandomState::new(),
            remember,
            generation: ArcSwap::from_pointee(Generation::new(settings)),
            accounts: ArcSwap::default(),
            luck: Mutex::new(XorShiftRng::from_os()),
            in_flight: AtomicUsize::new(0),
            buffered: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            clock,
        }
    }

    /// What requests that begin now are served with.
    #[must_use]
    pub fn generation(&self) -> Arc<Generation> {
        self.generation.load_full()
    }

    /// The same for a short look.
    pub(super) fn generation_now(&self) -> arc_swap::Guard<Arc<Generation>> {
        self.generation.load()
    }

    /// Swaps the settings; requests under way finish with what they began with.
    pub fn apply(&self, settings: Arc<Settings>) {
        self.board.set_policy(Policy::new(&settings.cooldown, &settings.retry));
        let upstreams: Vec<_> = settings.upstreams.iter().map(|upstream| upstream.id).collect();
        let keys: Vec<_> = settings
            .upstreams
            .iter()
            .flat_map(|upstream| &upstream.keys)
            .map(|key| key.id)
            .collect();
        self.board.retain(&upstreams, &keys);
        self.gateway.retain(&settings.upstreams);
        want(&self.sink, &settings);
        self.generation.store(Arc::new(Generation::new(settings)));
        self.touch();
    }

    /// Wakes everything that waits: a key was read, warmed, or the settings changed.
    pub fn touch(&self) {
        self.changed.notify_waiters();
    }

    /// What is known of a key, for building candidates.
    #[must_use]
    pub fn key_info(&self, key: KeyId) -> (KeyState, AccountId) {
        let state = match self.keys.summary(key).state {
            keys::SecretState::Ready => KeyState::Ready,
            keys::SecretState::Waiting => KeyState::Waiting,
            keys::SecretState::Missing(reason) => KeyState::Missing(reason),
        };
        let account = self.accounts.load().get(&key).copied().unwrap_or(AccountId(key.0));
        (state, account)
    }

    /// Works out which keys share an account: by the account's name, or because they are the same
    /// secret. An account's number is that of its first key, so that it stays while the key does.
    pub fn settle_accounts(&self) {
        let settings = Arc::clone(&self.generation.load().settings);
        let all = || settings.upstreams.iter().flat_map(|upstream| &upstream.keys);
        let (mut by_name, mut by_digest): (HashMap<&str, u32>, HashMap<[u8; 32], u32>) =
            (HashMap::new(), HashMap::new());
        let mut accounts = IdMap::default();
        for key in all() {
            let digest = self.keys.digest(key.id);
            let same_secret = digest.and_then(|digest| by_digest.get(&digest).copied());
            let account =
                same_secret.or_else(|| by_name.get(&*key.account).copied()).unwrap_or(key.id.0);
            by_name.entry(&key.account).or_insert(account);
            if let Some(digest) = digest {
                by_digest.entry(digest).or_insert(account);
            }
            accounts.insert(key.id, AccountId(account));
        }
        self.board.set_accounts(accounts.iter().map(|(key, account)| (*key, *account)));
        self.accounts.store(Arc::new(accounts));
    }

    /// The usual price of a model at an upstream, where one is known.
    #[must_use]
    pub fn price(&self, upstream: &Upstream, model: &str) -> Option<TokenPrice> {
        price(&self.generation.load().prices, upstream, model)
    }

    /// What a request would cost at each candidate, as far as prices are known.
    #[must_use]
    pub fn costs(&self, candidates: &[Candidate], asked: TokenEstimate) -> Vec<Option<f64>> {
        let book = &self.generation.load().prices;
        cost::estimate_costs(candidates, asked, &|upstream, model| price(book, upstream, model))
    }

    /// Text from outside as it may be shown: without secrets, without control characters.
    #[must_use]
    pub fn words(&self, text: &str) -> String {
        clean::clean(&self.redactor.redact(text)).into_owned()
    }

    pub(super) fn with_luck<T>(&self, f: impl FnOnce(&mut XorShiftRng) -> T) -> T {
        f(&mut self.luck.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on new requests are answered 503.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// Servers on this machine cost nothing; a price under conditions is not looked for before there is
/// an answer.
fn price(book: &PriceBook, upstream: &Upstream, model: &str) -> Option<TokenPrice> {
    let Some((_, tariff)) = book.find(upstream, model, None) else {
        return upstream.local.then(TokenPrice::default);
    };
    let used = tariff.default_price();
    // Rates are of a million tokens, in billionths of a unit that is so many billionths of a
    // dollar.
    let of =
        |class| used.rates.effective(class) as f64 / 1e6 * (used.nano_usd_per_unit as f64 / 1e9);
    // What is charged by the piece is not free, however many pieces it turns out to be.
    let pieces = PriceClass::ALL.into_iter().any(|class| used.rates.effective(class) > 0);
    let request =
        used.rates.effective(PriceClass::Request) as f64 * (used.nano_usd_per_unit as f64 / 1e9);
    Some(TokenPrice {
        input: of(PriceClass::Input),
        output: of(PriceClass::Output),
        request: request.max(f64::from(u8::from(pieces))),
    })
}

/// Billionths of a dollar for a token of input: read afresh, written to the cache, read from it.
pub(super) fn cache_prices(
    engine: &Engine,
    upstream: UpstreamId,
    model: &str,
) -> Option<(f64, f64, f64)> {
    let generation = engine.generation.load();
    let upstream = generation.settings.upstreams.iter().find(|known| known.id == upstream)?;
    let (_, tariff) = generation.prices.find(upstream, model, None)?;
    let used = tariff.default_price();
    let of =
        |class| used.rates.effective(class) as f64 / 1e6 * (used.nano_usd_per_unit as f64 / 1e9);
    Some((of(PriceClass::Input), of(PriceClass::CacheWrite5m), of(PriceClass::CacheRead)))
}

/// Tells the way to the ledger which bodies are to be kept.
fn want(sink: &LedgerQueue, settings: &Settings) {
    let wanted = match settings.ledger.bodies {
        BodyStorage::All => BodyPolicy::All,
        BodyStorage::Errors => BodyPolicy::Errors,
        BodyStorage::Off => BodyPolicy::None,
    };
    sink.set_policy(wanted, settings.ledger.body_limit);
}

/// A place among the requests in flight; given back when dropped.
pub struct Place(Option<Arc<Engine>>);

impl Place {
    /// No place of its own: that of the request it belongs to counts for both.
    #[must_use]
    pub(super) fn shared() -> Self {
        Self(None)
    }

    /// Takes a place, if one of `max` is free.
    #[must_use]
    pub fn take(engine: &Arc<Engine>, max: usize) -> Option<Self> {
        let before = engine.in_flight.fetch_add(1, Ordering::Relaxed);
        if before >= max {
            engine.in_flight.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self(Some(Arc::clone(engine))))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(engine) = &self.0 {
            engine.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Bytes of bodies held in memory, counted against `max_buffered`; given back when dropped.
pub struct Held {
    engine: Arc<Engine>,
    bytes: u64,
}

impl Held {
    #[must_use]
    pub fn none(engine: &Arc<Engine>) -> Self {
        Self { engine: Arc::clone(engine), bytes: 0 }
    }

    /// Holds more; false, and nothing taken, where that would be beyond `max`.
    pub fn grow(&mut self, bytes: u64, max: u64) -> bool {
        let before = self.engine.buffered.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > max {
            self.engine.buffered.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.bytes += bytes;
        true
    }

    /// Takes over what another holds.
    pub(super) fn absorb(&mut self, other: &mut Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Gives everything back.
    pub fn release(&mut self) {
        self.engine.buffered.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}
