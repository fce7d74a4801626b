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

use super::{connect::Connector, lane::Lanes, lookup::Resolver, tls::Tls};
use crate::config::settings::{ProxySetting, Upstream};

type Http = Client<Connector, Full<Bytes>>;

/// The clients in use.
pub(super) struct Pools {
    /// A handful: searched in order.
    list: ArcSwap<Vec<Arc<Pool>>>,
    changing: Mutex<()>,
    resolver: Resolver,
}

/// The connections of all upstreams that are reached the same way.
pub(super) struct Pool {
    way: Way,
    pub(super) tls: Arc<Tls>,
    pub(super) connector: Connector,
    /// Plain-text connections.
    pub(super) lanes: Arc<Lanes>,
    kept: Http,
    /// Opens a connection for every request.
    fresh: Http,
    started: Instant,
    /// Until then (ms since `started`) kept connections are not trusted; 0: they are.
    distrust: AtomicU64,
    /// The client beside the request path, where somebody wanted it.
    pub(super) side: OnceCell<reqwest::Client>,
}

#[derive(Clone, PartialEq, Eq)]
struct Way {
    proxy: ProxySetting,
    ca_file: Option<PathBuf>,
    insecure: bool,
    within: Duration,
}

/// Shorter than what common servers keep: better we close than they.
const IDLE: Duration = Duration::from_secs(55);
const IDLE_PER_HOST: usize = 128;
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_WITHIN: Duration = Duration::from_secs(5);
const MAX_HEAD: usize = 256 * 1024;
/// After a kept connection turned out dead, so that what is sent again at once does not meet the
/// next dead one.
const DISTRUST: Duration = Duration::from_millis(250);

impl Pools {
    pub(super) fn new() -> Self {
        Self { list: ArcSwap::default(), changing: Mutex::new(()), resolver: Resolver::default() }
    }

    /// The pool for an upstream; made at first use.
    pub(super) fn of(&self, upstream: &Upstream) -> Arc<Pool> {
        if let Some(pool) = self.list.load().iter().find(|pool| pool.way.is_of(upstream)) {
            return Arc::clone(pool);
        }
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let list = self.list.load();
        if let Some(pool) = list.iter().find(|pool| pool.way.is_of(upstream)) {
            return Arc::clone(pool);
        }
        let way = Way {
            proxy: upstream.proxy.clone(),
            ca_file: upstream.ca_file.clone(),
            insecure: upstream.insecure_tls,
            within: upstream.timeouts.connect,
        };
        let same_trust = list
            .iter()
            .map(|pool| &pool.tls)
            .find(|tls| tls.is_for(way.ca_file.as_deref(), way.insecure));
        let tls = same_trust
            .map_or_else(|| Arc::new(Tls::new(way.ca_file.clone(), way.insecure)), Arc::clone);
        let pool = Arc::new(Pool::new(way, tls, self.resolver.clone()));
        self.list.store(Arc::new(list.iter().cloned().chain([Arc::clone(&pool)]).collect()));
        pool
    }

    /// Drops the pools that none of these uses.
    pub(super) fn retain(&self, upstreams: &[Arc<Upstream>]) {
        self.replace(|pool| {
            upstreams.iter().any(|upstream| pool.way.is_of(upstream)).then(|| Arc::clone(pool))
        });
    }

    /// Drops all kept connections; those at work go on.
    pub(super) fn drop_idle(&self) {
        self.replace(|pool| {
            Some(Arc::new(Pool::new(
                pool.way.clone(),
                Arc::clone(&pool.tls),
                self.resolver.clone(),
            )))
        });
    }

    /// Drops kept plain-text connections that lay too long or were closed.
    pub(super) fn sweep(&self) {
        for pool in self.list.load().iter() {
            pool.lanes.sweep();
        }
    }

    fn replace(&self, by: impl Fn(&Arc<Pool>) -> Option<Arc<Pool>>) {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let list = self.list.load().iter().filter_map(by).collect();
        self.list.store(Arc::new(list));
    }
}

impl Way {
    fn is_of(&self, upstream: &Upstream) -> bool {
        self.within == upstream.timeouts.connect
            && self.insecure == upstream.insecure_tls
            && self.proxy == upstream.proxy
            && self.ca_file.as_deref().map(Path::as_os_str)
                == upstream.ca_file.as_deref().map(Path::as_os_str)
    }
}

impl Pool {
    fn new(way: Way, tls: Arc<Tls>, resolver: Resolver) -> Self {
        let connector = Connector::new(resolver, &way.proxy, Arc::clone(&tls), way.within);
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .http1_max_buf_size(MAX_HEAD)
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PING_WITHIN)
            .http2_max_header_list_size(64 * 1024);
        let kept = builder.build(connector.clone());
        let fresh = builder.pool_max_idle_per_host(0).build(connector.clone());
        let (started, distrust) = (Instant::now(), AtomicU64::new(0));
        let lanes = Arc::new(Lanes::new(IDLE, IDLE_PER_HOST, MAX_HEAD));
        Self { way, tls, connector, lanes, kept, fresh, started, distrust, side: OnceCell::new() }
    }

    /// The client for the next request.
    pub(super) fn client(&self) -> &Http {
        if self.trusts() { &self.kept } else { &self.fresh }
    }

    /// Whether the next request may go over a kept connection.
    pub(super) fn trusts(&self) -> bool {
        let until = self.distrust.load(Relaxed);
        if until == 0 {
            return true;
        }
        if self.now() < until {
            return false;
        }
        // Where a newer distrust came meanwhile, that one holds.
        let _unless_newer = self.distrust.compare_exchange(until, 0, Relaxed, Relaxed);
        true
    }

    /// A kept connection turned out dead.
    pub(super) fn distrust(&self) {
        let until = self.now() + u64::try_from(DISTRUST.as_millis()).unwrap_or(u64::MAX);
        self.distrust.store(until, Relaxed);
        self.lanes.clear();
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
