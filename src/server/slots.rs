//! The places for client connections. If none is free, the connection that has been idle for the
//! longest time gives way, so that idle and silent clients cannot shut others out.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::base::sync::Mutex;
use crate::server::activity::{ConnActivity, Phase};

/// While every place is busy, how often it is looked for one that has become idle.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// All places.
pub struct ConnectionSlots {
    permits: Arc<Semaphore>,
    open: Mutex<OpenConnections>,
}

#[derive(Default)]
struct OpenConnections {
    next: u64,
    by_number: HashMap<u64, (Arc<ConnActivity>, CancellationToken)>,
}

/// The place of one connection; the drop frees it.
pub struct ConnectionSlot {
    slots: Arc<ConnectionSlots>,
    number: u64,
    /// What the connection is doing.
    pub activity: Arc<ConnActivity>,
    /// Cancelled when the connection must give way.
    pub evicted: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionSlots {
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { permits: Arc::new(Semaphore::new(max)), open: Mutex::default() })
    }

    /// Returns a place, as soon as one is free. Not cancelled by itself: the caller races it with
    /// the shutdown.
    pub async fn claim(self: &Arc<Self>) -> Option<ConnectionSlot> {
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => loop {
                self.evict_one();
                let next = Arc::clone(&self.permits).acquire_owned();
                if let Ok(permit) = timeout(RETRY_INTERVAL, next).await {
                    break permit.ok()?;
                }
            },
        };
        let (activity, evicted) = (Arc::new(ConnActivity::new()), CancellationToken::new());
        let mut open = self.open.lock();
        let number = open.next;
        open.next += 1;
        open.by_number.insert(number, (Arc::clone(&activity), evicted.clone()));
        drop(open);
        Some(ConnectionSlot { slots: Arc::clone(self), number, activity, evicted, _permit: permit })
    }

    /// Closes the connection that has served no request for the longest time.
    fn evict_one(&self) {
        let open = self.open.lock();
        let idle = open.by_number.values().filter(|(_, evicted)| !evicted.is_cancelled());
        let idle = idle.filter_map(|(activity, evicted)| {
            let (phase, since) = activity.phase();
            (phase != Phase::Busy).then_some((since, evicted))
        });
        if let Some((_, evicted)) = idle.min_by_key(|(since, _)| *since) {
            evicted.cancel();
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut open = self.slots.open.lock();
        open.by_number.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::activity::OpenRequest;

    #[tokio::test]
    async fn the_longest_idle_connection_gives_way_and_busy_ones_stay() {
        let slots = ConnectionSlots::new(3);
        let busy = slots.claim().await.expect("a place");
        let request = OpenRequest::begin(&busy.activity);
        let idle = slots.claim().await.expect("a place");
        tokio::time::sleep(Duration::from_millis(3)).await;
        let newer = slots.claim().await.expect("a place");
        let (newest, ()) = tokio::join!(slots.claim(), async {
            idle.evicted.cancelled().await;
            drop(idle);
        });
        let newest = newest.expect("a place");
        assert!(!busy.evicted.is_cancelled() && !newer.evicted.is_cancelled());
        drop((request, newest));
    }
}
