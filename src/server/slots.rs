//! The places for client connections. If none is free, the connection that has been idle for the
//! longest time is closed, so that idle and silent clients cannot shut others out.

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
    /// Cancelled when the connection must make room for another, and when the listener stops: one token, because
    /// a connection looks at it with every event.
    pub close: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionSlots {
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { permits: Arc::new(Semaphore::new(max)), open: Mutex::default() })
    }

    /// Returns a place as soon as one is free; `None` if the listener stops before.
    pub async fn claim(self: &Arc<Self>, stop: &CancellationToken) -> Option<ConnectionSlot> {
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => loop {
                self.evict_one();
                let next = Arc::clone(&self.permits).acquire_owned();
                tokio::select! {
                    next = timeout(RETRY_INTERVAL, next) => if let Ok(permit) = next {
                        break permit.ok()?;
                    },
                    () = stop.cancelled() => return None,
                }
            },
        };
        let (activity, close) = (Arc::new(ConnActivity::new()), stop.child_token());
        let mut open = self.open.lock();
        let number = open.next;
        open.next += 1;
        open.by_number.insert(number, (Arc::clone(&activity), close.clone()));
        drop(open);
        Some(ConnectionSlot { slots: Arc::clone(self), number, activity, close, _permit: permit })
    }

    /// Closes the connection that has served no request for the longest time.
    fn evict_one(&self) {
        let open = self.open.lock();
        let idle = open.by_number.values().filter(|(_, close)| !close.is_cancelled());
        let idle = idle.filter_map(|(activity, close)| {
            let (phase, since) = activity.phase();
            (phase != Phase::Busy).then_some((since, close))
        });
        if let Some((_, close)) = idle.min_by_key(|(since, _)| *since) {
            close.cancel();
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
    async fn longest_idle_connection_is_closed_and_busy_ones_are_not() {
        let (slots, stop) = (ConnectionSlots::new(3), CancellationToken::new());
        let busy = slots.claim(&stop).await.expect("a place");
        let request = OpenRequest::begin(&busy.activity);
        let idle = slots.claim(&stop).await.expect("a place");
        let newer = slots.claim(&stop).await.expect("a place");
        // The phase began later, as far as a whole millisecond shows.
        while newer.activity.phase().1 <= idle.activity.phase().1 {
            newer.activity.record_end();
        }

        let (newest, ()) = tokio::join!(slots.claim(&stop), async {
            idle.close.cancelled().await;
            drop(idle);
        });

        assert!(newest.is_some() && !busy.close.is_cancelled() && !newer.close.is_cancelled());
        drop(request);
    }

    #[tokio::test]
    async fn stop_ends_waiting_for_a_slot_and_closes_all_connections() {
        let (slots, stop) = (ConnectionSlots::new(1), CancellationToken::new());
        let busy = slots.claim(&stop).await.expect("a place");
        let _request = OpenRequest::begin(&busy.activity);

        let (none, ()) = tokio::join!(slots.claim(&stop), async { stop.cancel() });

        assert!(none.is_none() && busy.close.is_cancelled());
    }
}
