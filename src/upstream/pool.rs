//! Pools HTTP clients: one per route to hosts, shared by upstreams and retained across a reload.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
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
use crate::base::sync::Mutex;
use crate::config::settings::{ProxySetting, Upstream};
use crate::upstream::{dns::DnsResolver, plain_pool::PlainPool};

type HttpClient = Client<Connector, Full<Bytes>>;

/// The clients in use.
pub(super) struct ConnectionPools {
    /// Only a few, so they are searched in order.
    pools: ArcSwap<Vec<Arc<ConnectionPool>>>,
    write_lock: Mutex<()>,
    resolver: DnsResolver,
}

/// The connections of all upstreams that share a route.
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
    /// Idle connections are not reused until this time (ms since `created`); 0 means they are
    /// reused.
    distrust_until_ms: AtomicU64,
    /// The auxiliary client, created on first use.
    pub(super) aux_client: OnceCell<reqwest::Client>,
}

#[derive(Clone, PartialEq, Eq)]
struct RouteKey {
    proxy: ProxySetting,
    ca_file: Option<PathBuf>,
    insecure: bool,
    connect_timeout: Duration,
}

/// Shorter than the timeout of common servers, so that aiproxy closes connections first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(55);
const MAX_IDLE_PER_HOST: usize = 128;
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_HEAD_BYTES: usize = 256 * 1024;
/// How long idle connections are not reused after a stale one. A request that is sent again at once
/// then does not get the next stale connection.
const DISTRUST_FOR: Duration = Duration::from_millis(250);

impl ConnectionPools {
    pub(super) fn new() -> Self {
        Self {
            pools: ArcSwap::default(),
            write_lock: Mutex::new(()),
            resolver: DnsResolver::default(),
        }
    }

    /// Returns the pool for an upstream; created on first use.
    pub(super) fn for_upstream(&self, upstream: &Upstream) -> Arc<ConnectionPool> {
        if let Some(pool) = self.pools.load().iter().find(|pool| pool.route.matches(upstream)) {
            return Arc::clone(pool);
        }
        let _one_at_a_time = self.write_lock.lock();
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

    /// Drops the pools that none of these upstreams uses.
    pub(super) fn retain(&self, upstreams: &[Arc<Upstream>]) {
        self.rebuild(|pool| {
            upstreams.iter().any(|upstream| pool.route.matches(upstream)).then(|| Arc::clone(pool))
        });
    }

    /// Drops all idle connections; active ones continue.
    pub(super) fn drop_idle(&self) {
        self.rebuild(|pool| {
            Some(Arc::new(ConnectionPool::new(
                pool.route.clone(),
                Arc::clone(&pool.tls),
                self.resolver.clone(),
            )))
        });
    }

    /// Drops plain-text connections that exceeded the idle timeout or were closed.
    pub(super) fn drop_stale(&self) {
        for pool in self.pools.load().iter() {
            pool.plain_pool.drop_stale();
        }
    }

    fn rebuild(&self, by: impl Fn(&Arc<ConnectionPool>) -> Option<Arc<ConnectionPool>>) {
        let _one_at_a_time = self.write_lock.lock();
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
            route,
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

    /// Returns the client for the next request.
    pub(super) fn client(&self) -> &HttpClient {
        if self.trusts_idle() { &self.pooled_client } else { &self.unpooled_client }
    }

    /// Returns whether the next request may use an idle connection.
    pub(super) fn trusts_idle(&self) -> bool {
        let until = self.distrust_until_ms.load(Relaxed);
        if until == 0 {
            return true;
        }
        if self.elapsed_ms() < until {
            return false;
        }
        // If `distrust_idle` set a newer time meanwhile, that time remains.
        let _unless_newer = self.distrust_until_ms.compare_exchange(until, 0, Relaxed, Relaxed);
        true
    }

    /// Records that an idle connection was stale.
    pub(super) fn distrust_idle(&self) {
        let until = self.elapsed_ms() + u64::try_from(DISTRUST_FOR.as_millis()).unwrap_or(u64::MAX);
        self.distrust_until_ms.store(until, Relaxed);
        self.plain_pool.drop_idle();
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.created.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
