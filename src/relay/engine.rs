//! The process-wide state, and the generation that a reload swaps.

use std::{
    collections::HashMap,
    hash::RandomState,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc};

use crate::relay::{
    dispatch::queue::WaitQueue,
    observe::{live_tap::LiveTaps, recent_headers::RecentHeaders},
    record::cache_monitor::CacheMonitor,
    state::{
        balances::Balances, cancellations::Cancellations, health_checks::HealthChecks,
        health_store::HealthStore, hedge_stats::HedgeStats, in_flight::InFlight,
        learned_store::LearnedStore, model_lists::ModelLists, network::Network,
        reasoning_cache::ReasoningCache, resource_owners::ResourceOwners,
        response_store::ResponseStore, unpriced_models::UnpricedModels,
    },
};
use crate::{
    base::{
        clock::{Clock, UnixMillis},
        id::IdMap,
        redact::Redactor,
        rng::XorShiftRng,
        sanitize,
        sync::Mutex,
        timezone::timezone_by_name,
    },
    config::{
        Settings,
        settings::{BodyStorage, KeyId, Period, Upstream, UpstreamId},
    },
    events::{
        bus::Bus,
        ledger_queue::{BodyPolicy, LedgerQueue},
    },
    ir::{cost::PriceClass, reason::failure::FailureReason},
    pricing::PriceBook,
    routing::{
        budget::{Budgets, Holder},
        candidate::{AccountId, Candidate, KeyState},
        catalog::Catalog,
        cost::{self, TokenPrice},
        facts_book::FactsBook,
        health::{TokenEstimate, cooldown::Policy},
        learned::LearnedRepairs,
        project_limits::ProjectLimits,
        router::Router,
    },
    upstream::{
        client::UpstreamClient,
        keys::{self, ProviderKeys},
    },
};

/// What a reload replaces as a whole; a request uses the generation it started with.
pub struct Generation {
    pub settings: Arc<Settings>,
    pub catalog: Catalog,
    pub prices: PriceBook,
    pub facts: FactsBook,
}

impl Generation {
    fn new(settings: Arc<Settings>, learned: &Arc<LearnedRepairs>) -> Self {
        Self {
            catalog: Catalog::new(&settings),
            prices: PriceBook::new(&settings),
            facts: FactsBook::new(Arc::clone(&settings), Arc::clone(learned)),
            settings,
        }
    }
}

/// The parts of the proxy that outlive a reload.
pub struct Engine {
    pub clock: Arc<dyn Clock>,
    pub bus: Bus,
    /// The queue to the ledger.
    pub ledger_queue: LedgerQueue,
    pub router: Router,
    pub upstream_client: UpstreamClient,
    pub keys: Arc<ProviderKeys>,
    pub redactor: Arc<dyn Redactor>,
    pub model_lists: ModelLists,
    pub wait_queue: WaitQueue,
    /// What projects have used of their limits.
    pub project_limits: Arc<ProjectLimits>,
    /// What was spent of each budget.
    pub budgets: Budgets,
    pub(super) unpriced_models: UnpricedModels,
    /// What upstreams were found to refuse.
    pub learned: LearnedStore,
    pub cancellations: Cancellations,
    pub recent_headers: RecentHeaders,
    pub live_taps: LiveTaps,
    pub network: Network,
    pub health_checks: HealthChecks,
    pub balances: Balances,
    pub hedge_stats: HedgeStats,
    pub(super) cache_monitor: CacheMonitor,
    pub reasoning_cache: ReasoningCache,
    pub response_store: ResponseStore,
    /// Who created what upstreams keep.
    pub resource_owners: ResourceOwners,
    /// Notified when a waiting request might proceed.
    pub capacity_changed: Arc<Notify>,
    /// Keys that an upstream rejected: their secret references are read again.
    pub rejected_keys: mpsc::UnboundedSender<KeyId>,
    /// Notified when a request failed that a key whose secret is missing might have served.
    pub key_wanted: Notify,
    /// The key of conversation hashes.
    pub hash_key: RandomState,
    /// Circuit state saved across restarts.
    pub health_store: HealthStore,
    generation: ArcSwap<Generation>,
    accounts: ArcSwap<IdMap<KeyId, AccountId>>,
    rng: Mutex<XorShiftRng>,
    /// Requests in flight, and bytes of bodies buffered for them.
    pub(super) in_flight: Arc<InFlight>,
    pub(super) buffered_bytes: Arc<AtomicU64>,
    draining: AtomicBool,
}

/// The process-wide parts that the caller creates.
pub struct EngineParts {
    pub clock: Arc<dyn Clock>,
    pub upstream_client: UpstreamClient,
    pub keys: Arc<ProviderKeys>,
    pub redactor: Arc<dyn Redactor>,
    pub model_lists: ModelLists,
    pub rejected_keys: mpsc::UnboundedSender<KeyId>,
    pub health_store: HealthStore,
    pub learned: LearnedStore,
    pub resource_owners: ResourceOwners,
    pub ledger_queue: LedgerQueue,
}

impl Engine {
    /// Assembles the engine with the first settings.
    #[must_use]
    pub fn new(parts: EngineParts, settings: Arc<Settings>) -> Self {
        let EngineParts {
            clock,
            upstream_client,
            keys,
            redactor,
            model_lists,
            rejected_keys,
            ledger_queue,
            health_store,
            learned,
            resource_owners,
        } = parts;
        apply_body_policy(&ledger_queue, &settings);
        let router = Router::new(Policy::new(&settings.cooldown, &settings.retry));
        let in_flight = Arc::new(InFlight::default());
        in_flight.apply_settings(&settings);
        Self {
            bus: Bus::default(),
            ledger_queue,
            router,
            upstream_client,
            keys,
            redactor,
            model_lists,
            wait_queue: WaitQueue::default(),
            project_limits: Arc::default(),
            budgets: Budgets::new(timezone_by_name(&settings.ledger.tz)),
            unpriced_models: UnpricedModels::default(),
            cancellations: Cancellations::default(),
            recent_headers: RecentHeaders::default(),
            live_taps: LiveTaps::default(),
            network: Network::default(),
            health_checks: HealthChecks::default(),
            balances: Balances::default(),
            hedge_stats: HedgeStats::default(),
            cache_monitor: CacheMonitor::default(),
            reasoning_cache: ReasoningCache::default(),
            response_store: ResponseStore::default(),
            resource_owners,
            capacity_changed: Arc::default(),
            rejected_keys,
            key_wanted: Notify::new(),
            hash_key: RandomState::new(),
            health_store,
            generation: ArcSwap::from_pointee(Generation::new(settings, &learned.repairs)),
            learned,
            accounts: ArcSwap::default(),
            rng: Mutex::new(XorShiftRng::from_os()),
            in_flight,
            buffered_bytes: Arc::default(),
            draining: AtomicBool::new(false),
            clock,
        }
    }

    /// Returns the generation that serves requests that start now.
    #[must_use]
    pub fn generation(&self) -> Arc<Generation> {
        self.generation.load_full()
    }

    /// Returns the generation for a short read, without cloning the `Arc`.
    pub(super) fn generation_ref(&self) -> arc_swap::Guard<Arc<Generation>> {
        self.generation.load()
    }

    /// Swaps the settings; running requests finish with their own generation.
    pub fn apply_settings(&self, settings: Arc<Settings>) {
        self.router.set_policy(Policy::new(&settings.cooldown, &settings.retry));
        let upstreams: Vec<_> = settings.upstreams.iter().map(|upstream| upstream.id).collect();
        let keys: Vec<_> = settings
            .upstreams
            .iter()
            .flat_map(|upstream| &upstream.keys)
            .map(|key| key.id)
            .collect();
        self.router.retain(&upstreams, &keys);
        self.upstream_client.retain(&settings.upstreams);
        apply_body_policy(&self.ledger_queue, &settings);
        self.in_flight.apply_settings(&settings);
        self.generation.store(Arc::new(Generation::new(settings, &self.learned.repairs)));
        self.notify_waiters();
    }

    /// Wakes all waiting requests: a key was read or warmed, or the settings changed.
    pub fn notify_waiters(&self) {
        self.capacity_changed.notify_waiters();
    }

    /// Returns a key's state and account, from which candidates are built.
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

    /// Groups keys by account: by the account's name, or because they have the same secret. An
    /// account has the number of its first key, so it does not change as long as that key exists.
    pub fn group_accounts(&self) {
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
        self.router.set_accounts(accounts.iter().map(|(key, account)| (*key, *account)));
        self.accounts.store(Arc::new(accounts));
    }

    /// Applies the budgets of the current settings and restores what an earlier run counted.
    /// Returns the new budgets with the start of their period, because the ledger may have more of
    /// their spending.
    pub fn configure_budgets(&self) -> Vec<(Holder, Period, UnixMillis)> {
        let settings = Arc::clone(&self.generation().settings);
        let new = self.budgets.configure(&settings, self.clock.unix());
        if !new.is_empty() {
            self.health_store.restore_budgets(&self.budgets);
        }
        self.notify_waiters();
        new
    }

    /// Returns the default price of a model at an upstream, if known.
    #[must_use]
    pub fn price(&self, upstream: &Upstream, model: &str) -> Option<TokenPrice> {
        token_price(&self.generation.load().prices, upstream, model)
    }

    /// Estimates what a request would cost at each candidate, if prices are known.
    #[must_use]
    pub fn estimate_costs(
        &self,
        candidates: &[Candidate],
        estimate: TokenEstimate,
    ) -> Vec<Option<f64>> {
        let book = &self.generation.load().prices;
        cost::estimate_costs(candidates, estimate, &|upstream, model| {
            token_price(book, upstream, model)
        })
    }

    /// Makes outside text safe to show: without secrets, without control characters.
    #[must_use]
    pub fn sanitize(&self, text: &str) -> String {
        sanitize::clean(&self.redactor.redact(text)).into_owned()
    }

    /// Makes the texts inside a reason safe to show.
    #[must_use]
    pub fn sanitize_reason(&self, reason: &FailureReason) -> Arc<FailureReason> {
        reason.map_texts(&|text| self.sanitize(text).into()).into()
    }

    pub(super) fn with_rng<T>(&self, f: impl FnOnce(&mut XorShiftRng) -> T) -> T {
        f(&mut self.rng.lock())
    }

    /// Makes the proxy answer new requests with 503.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Returns the number of requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }
}

/// Returns the price of a token. Local servers cost nothing. Conditional prices are not evaluated
/// before there is a response.
fn token_price(book: &PriceBook, upstream: &Upstream, model: &str) -> Option<TokenPrice> {
    let Some((_, tariff)) = book.find(upstream, model, None) else {
        return upstream.local.then(TokenPrice::default);
    };
    let used = tariff.default_price();
    // Rates are per million tokens, in billionths of a unit. `nano_usd_per_unit` is that unit in
    // billionths of a dollar.
    let of =
        |class| used.rates.effective(class) as f64 / 1e6 * (used.nano_usd_per_unit as f64 / 1e9);
    // A model with a price per piece is not free, however many pieces a response has.
    let pieces = PriceClass::ALL.into_iter().any(|class| used.rates.effective(class) > 0);
    let request =
        used.rates.effective(PriceClass::Request) as f64 * (used.nano_usd_per_unit as f64 / 1e9);
    Some(TokenPrice {
        input: of(PriceClass::Input),
        output: of(PriceClass::Output),
        request: request.max(f64::from(u8::from(pieces))),
    })
}

/// Returns the price of an input token in billionths of a dollar: uncached, written to the cache,
/// read from it.
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

/// Sets which bodies the ledger queue stores.
fn apply_body_policy(sink: &LedgerQueue, settings: &Settings) {
    let wanted = match settings.ledger.bodies {
        BodyStorage::All => BodyPolicy::All,
        BodyStorage::Errors => BodyPolicy::Errors,
        BodyStorage::Off => BodyPolicy::None,
    };
    sink.set_policy(wanted, settings.ledger.body_limit);
}
