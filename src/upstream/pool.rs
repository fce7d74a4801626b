//! HTTP clients: one per way of reaching hosts, shared by upstreams and kept over a reload.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::{sync::OnceCell, time::Instant};

use super::{connect::Connector, tls::TlsSettings};
use crate::config::settings::{ProxySetting, Upstream};
use crate::upstream::{dns::DnsResolver, plain_pool::PlainPool};

type HttpClient = Client<Connector, Full<Bytes>>;

/// The clients in use.
pub(super) struct ConnectionPools {
    /// A handful: searched in order.
    pools: ArcSwap<Vec<Arc<ConnectionPool>>>,
    write_lock: Mutex<()>,
    resolver: DnsResolver,
}

/// The connections of all upstreams that are reached the same way.
pub(super) struct ConnectionPool {
    route: RouteKey,
    pub(super) tls: Arc<TlsSettings>,
    pub(super) connector: Connector,
    /// Plain-text connections.
    pub(super) plain_pool: Arc<PlainPool>,
    pooled_client: HttpClient,
    /// Opens a connection for every request.
    unpooled_client: HttpClient,
    created: Instant,
    /// Until then (ms since `started`) kept connections are not trusted; 0: they are.
    distrust_until_ms: AtomicU64,
    /// The client beside the request path, where somebody wanted it.
    pub(super) aux_client: OnceCell<reqwest::Client>,
}

#[derive(Clone, PartialEq, Eq)]
struct RouteKey {
    proxy: ProxySetting,
    ca_file: Option<PathBuf>,
    insecure: bool,
    connect_timeout: Duration,
}

/// Shorter than what common servers keep: better we close than they.
const IDLE_TIMEOUT: Duration = Duration::from_secs(55);
const MAX_IDLE_PER_HOST: usize = 128;
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_HEAD_BYTES: usize = 256 * 1024;
/// After a kept connection turned out dead, so that what is sent again at once does not meet the
/// next dead one.
const DISTRUST_FOR: Duration = Duration::from_millis(250);

impl ConnectionPools {
    pub(super) fn new() -> Self {
        Self {
            pools: ArcSwap::default(),
            write_lock: Mutex::new(()),
            resolver: DnsResolver::default(),
        }
    }

    /// The pool for an upstream; made at first use.
    pub(super) fn for_upstream(&self, upstream: &Upstream) -> Arc<ConnectionPool> {
        if let Some(pool) = self.pools.load().iter().find(|pool| pool.route.matches(upstream)) {
            return Arc::clone(pool);
        }
        let _one_at_a_time = self.write_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let list = self.pools.load();
        if let Some(pool) = list.iter().find(|pool| pool.route.matches(upstream)) {
            return Arc::clone(pool);
        }
        let route = RouteKey {
            proxy: upstream.proxy.clone(),
            ca_file: upstream.ca_file.clone(),
            insecure: upstream.insecure_tls,
            connect_timeout: upstream.timeouts.connect,
        };
        let same_trust = list
            .iter()
            .map(|pool| &pool.tls)
            .find(|tls| tls.matches(route.ca_file.as_deref(), route.insecure));
        let tls = same_trust.map_or_else(
            || Arc::new(TlsSettings::new(route.ca_file.clone(), route.insecure)),
            Arc::clone,
        );
        let pool = Arc::new(ConnectionPool::new(route, tls, self.resolver.clone()));
        self.pools.store(Arc::new(list.iter().cloned().chain([Arc::clone(&pool)]).collect()));
        pool
    }

    /// Drops the pools that none of these uses.
    pub(super) fn retain(&self, upstreams: &[Arc<Upstream>]) {
        self.rebuild(|pool| {
            upstreams.iter().any(|upstream| pool.route.matches(upstream)).then(|| Arc::clone(pool))
        });
    }

    /// Drops all kept connections; those at work go on.
    pub(super) fn drop_idle(&self) {
        self.rebuild(|pool| {
            Some(Arc::new(ConnectionPool::new(
                pool.route.clone(),
                Arc::clone(&pool.tls),
                self.resolver.clone(),
            )))
        });
    }

    /// Drops kept plain-text connections that lay too long or were closed.
    pub(super) fn drop_stale(&self) {
        for pool in self.pools.load().iter() {
            pool.plain_pool.drop_stale();
        }
    }

    fn rebuild(&self, by: impl Fn(&Arc<ConnectionPool>) -> Option<Arc<ConnectionPool>>) {
        let _one_at_a_time = self.write_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let list = self.pools.load().iter().filter_map(by).collect();
        self.pools.store(Arc::new(list));
    }
}

impl RouteKey {
    fn matches(&self, upstream: &Upstream) -> bool {
        self.connect_timeout == upstream.timeouts.connect
            && self.insecure == upstream.insecure_tls
            && self.proxy == upstream.proxy
            && self.ca_file.as_deref().map(Path::as_os_str)
                == upstream.ca_file.as_deref().map(Path::as_os_str)
    }
}

impl ConnectionPool {
    fn new(route: RouteKey, tls: Arc<TlsSettings>, resolver: DnsResolver) -> Self {
        let connector =
            Connector::new(resolver, &route.proxy, Arc::clone(&tls), route.connect_timeout);
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .http1_max_buf_size(MAX_HEAD_BYTES)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_max_header_list_size(64 * 1024);
        let pooled_client = builder.build(connector.clone());
        let unpooled_client = builder.pool_max_idle_per_host(0).build(connector.clone());
        let (created, distrust_until_ms) = (Instant::now(), AtomicU64::new(0));
        let plain_pool = Arc::new(PlainPool::new(IDLE_TIMEOUT, MAX_IDLE_PER_HOST, MAX_HEAD_BYTES));
        Self {
            route: route,
            tls,
            connector,
            plain_pool,
            pooled_client,
            unpooled_client,
            created,
            distrust_until_ms,
            aux_client: OnceCell::new(),
        }
    }

    /// The client for the next request.
    pub(super) fn client(&self) -> &HttpClient {
        if self.trusts_idle() { &self.pooled_client } else { &self.unpooled_client }
    }

    /// Whether the next request may go over a kept connection.
    pub(super) fn trusts_idle(&self) -> bool {
        let until = self.distrust_until_ms.load(Relaxed);
        if until == 0 {
            return true;
        }
        if self.elapsed_ms() < until {
            return false;
        }
        // Where a newer distrust came meanwhile, that one holds.
        let _unless_newer = self.distrust_until_ms.compare_exchange(until, 0, Relaxed, Relaxed);
        true
    }

    /// A kept connection turned out dead.
    pub(super) fn distrust_idle(&self) {
        let until = self.elapsed_ms() + u64::try_from(DISTRUST_FOR.as_millis()).unwrap_or(u64::MAX);
        self.distrust_until_ms.store(until, Relaxed);
        self.plain_pool.drop_idle();
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.created.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
