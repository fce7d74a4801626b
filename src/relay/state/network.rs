//! Detects whether the local network is down, so that upstreams are not blamed for it.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    base::{clock::Mono, sync::Mutex},
    config::settings::{Upstream, UpstreamId},
    ir::fault::{TransportFault, TransportKind},
};

/// Older failures are ignored.
const FAILURE_WINDOW: Duration = Duration::from_secs(30);

/// The state of the local network; one per process.
#[derive(Default)]
pub struct Network {
    down: AtomicBool,
    /// Clock milliseconds of the last response from a remote upstream.
    last_success: AtomicU64,
    /// When each remote upstream last failed for lack of a network.
    last_failures: Mutex<HashMap<UpstreamId, Mono>>,
}

impl Network {
    #[must_use]
    pub fn down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Records a response; returns true if the network was down until now.
    pub fn answered(&self, upstream: &Upstream, now: Mono) -> bool {
        if upstream.local {
            return false;
        }
        self.last_success.store(to_millis(now), Ordering::Relaxed);
        self.down() && self.down.swap(false, Ordering::Relaxed)
    }

    /// Records a transport fault; returns true if it proves that the local network is down. A
    /// missing route is proof at once. A DNS failure is proof only if it happened to every remote
    /// host tried recently, and to more than one.
    pub fn failed(&self, upstream: &Upstream, fault: &TransportFault, now: Mono) -> bool {
        if upstream.local || !matches!(fault.kind, TransportKind::NetworkDown | TransportKind::Dns)
        {
            return false;
        }
        let last_success = self.last_success.load(Ordering::Relaxed);
        let mut failed = self.last_failures.lock();
        failed.retain(|_, at| now.since(*at) <= FAILURE_WINDOW && to_millis(*at) > last_success);
        failed.insert(upstream.id, now);
        let proof = fault.kind == TransportKind::NetworkDown || failed.len() > 1;
        if proof {
            self.down.store(true, Ordering::Relaxed);
        }
        proof
    }

    /// Makes the next request try the network again.
    pub fn reset(&self) {
        self.down.store(false, Ordering::Relaxed);
    }
}

fn to_millis(at: Mono) -> u64 {
    u64::try_from(at.0.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use super::*;
    use crate::config::{Environment, IdInterner, load::load};
    use crate::ir::reason::failure::FailureReason;

    fn upstreams() -> Vec<Arc<Upstream>> {
        let row = |name: &str, url: &str| {
            format!("[[upstream]]\nname = \"{name}\"\nbase_url = \"{url}\"\n")
        };
        let text = row("a", "https://a.example")
            + &row("b", "https://b.example")
            + &row("here", "http://127.0.0.1:9");
        load(&text, Path::new("c.toml"), &Environment::default(), &mut IdInterner::default())
            .settings
            .expect("it loads")
            .upstreams
    }

    fn fault(kind: TransportKind) -> TransportFault {
        TransportFault { kind, reason: FailureReason::Truncated.into(), may_be_received: false }
    }

    fn at(seconds: u64) -> Mono {
        Mono(Duration::from_secs(seconds))
    }

    #[test]
    fn no_route_proves_an_outage_until_the_next_answer() {
        let (network, all) = (Network::default(), upstreams());
        assert!(
            network.failed(&all[0], &fault(TransportKind::NetworkDown), at(100)) && network.down()
        );
        assert!(network.answered(&all[1], at(101)) && !network.down());
        assert!(!network.answered(&all[1], at(102)), "reported once");
    }

    #[test]
    fn dns_failure_proves_an_outage_only_for_several_hosts() {
        let (network, all) = (Network::default(), upstreams());
        let dns = fault(TransportKind::Dns);
        assert!(
            !network.failed(&all[0], &dns, at(100)) && !network.failed(&all[0], &dns, at(101)),
            "one host may be gone"
        );
        assert!(!network.failed(&all[1], &dns, at(140)), "long after");
        assert!(network.failed(&all[0], &dns, at(141)));
        network.answered(&all[0], at(142));
        assert!(!network.failed(&all[1], &dns, at(143)), "the other one answers");
    }

    #[test]
    fn local_upstreams_do_not_indicate_network_state() {
        let (network, all) = (Network::default(), upstreams());
        assert!(!network.failed(&all[2], &fault(TransportKind::NetworkDown), at(100)));
        assert!(!network.failed(&all[0], &fault(TransportKind::Connect), at(100)));
        assert!(!network.down());
    }
}
