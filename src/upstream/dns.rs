//! Resolves names to addresses outside the runtime's threads, one lookup per name at a time. A name
//! server that hangs delays only the requests for that name.

use std::{
    collections::HashMap,
    fmt,
    net::{SocketAddr, ToSocketAddrs},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    vec,
};

use hyper_util::client::legacy::connect::dns::Name;
use tokio::sync::oneshot;
use tower_service::Service;

use crate::base::sync::Mutex;

/// Looks names up with the system's resolver. Results are not cached: the system caches successes,
/// and after a failure the next try may succeed.
#[derive(Clone, Debug, Default)]
pub(super) struct DnsResolver(Arc<Mutex<HashMap<Box<str>, LookupWaiters>>>);

type LookupWaiters = Vec<oneshot::Sender<LookupResult>>;
type LookupResult = Result<Vec<SocketAddr>, LookupError>;

/// Why a name has no address.
#[derive(Clone, Debug)]
pub(super) struct LookupError(Arc<str>);

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LookupError {}

/// Maximum number of concurrent lookups: far more than there are upstreams.
const MAX_CONCURRENT_LOOKUPS: usize = 64;
/// The stack that `getaddrinfo` and the modules behind it may need.
const LOOKUP_STACK_BYTES: usize = 512 * 1024;

impl DnsResolver {
    /// Returns all addresses of a host, with port 0.
    pub(super) async fn lookup(&self, host: &str) -> LookupResult {
        // RFC 6761: these names never exist, and an unreachable name server would take seconds to
        // report that.
        if host
            .trim_end_matches('.')
            .rsplit('.')
            .next()
            .is_some_and(|top| top.eq_ignore_ascii_case("invalid"))
        {
            return Err(LookupError("the name does not exist".into()));
        }
        match self.join_or_start(host) {
            Ok(answer) => {
                answer.await.unwrap_or_else(|_| Err(LookupError("the lookup broke off".into())))
            }
            Err(error) => Err(error),
        }
    }

    /// Joins the running lookup for this name, or starts one.
    fn join_or_start(&self, host: &str) -> Result<oneshot::Receiver<LookupResult>, LookupError> {
        let (sender, receiver) = oneshot::channel();
        let mut running = self.0.lock();
        if let Some(waiters) = running.get_mut(host) {
            waiters.retain(|w| !w.is_closed());
            waiters.push(sender);
            return Ok(receiver);
        }
        if running.len() >= MAX_CONCURRENT_LOOKUPS {
            return Err(LookupError("too many name lookups hang".into()));
        }
        let (name, table) = (Box::<str>::from(host), Arc::clone(&self.0));
        // A plain thread: shutdown does not wait for it, unlike for the runtime's blocking threads.
        let started = std::thread::Builder::new()
            .name("lookup".to_owned())
            .stack_size(LOOKUP_STACK_BYTES)
            .spawn(move || {
                let found = (&*name, 0_u16)
                    .to_socket_addrs()
                    .map(Iterator::collect)
                    .map_err(|e| LookupError(e.to_string().into()));
                let waiters = table.lock().remove(&name);
                for waiter in waiters.unwrap_or_default() {
                    // A waiter that no longer waits needs no result.
                    drop(waiter.send(found.clone()));
                }
            });
        match started {
            Ok(_detached) => {
                running.insert(host.into(), vec![sender]);
                Ok(receiver)
            }
            Err(error) => Err(LookupError(format!("no thread for a name lookup: {error}").into())),
        }
    }
}

impl Service<Name> for DnsResolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = LookupError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, LookupError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LookupError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { this.lookup(name.as_str()).await.map(Vec::into_iter) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn concurrent_lookups_resolve_and_leave_no_state() {
        let resolver = DnsResolver::default();
        let all =
            futures_util::future::join_all((0..20).map(|_| resolver.lookup("localhost"))).await;
        for found in all {
            assert!(found.expect("localhost has an address").iter().all(|a| a.ip().is_loopback()));
        }
        assert!(resolver.0.lock().is_empty());
        assert!(resolver.lookup("nx.invalid").await.is_err());
    }
}
