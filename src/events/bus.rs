//! The event bus: folds events into a snapshot for late viewers, and broadcasts them, lossily, to
//! current viewers.

use std::sync::Arc;

use tokio::sync::broadcast;

use super::{live::Live, record::RequestRecord};
use crate::base::{clock::UnixMillis, id::RequestId, sync::Mutex};
use crate::events::event::{Event, EventKind};

/// Events that a slow viewer may lag behind before it must take a new snapshot.
const VIEWER_CAPACITY: usize = 1_024;

/// Status changes that a status subscriber may lag behind.
const STATUS_CAPACITY: usize = 64;

/// One per process.
pub struct Bus {
    live: Mutex<Live>,
    viewers_tx: broadcast::Sender<Arc<Event>>,
    /// Only rare events, so that subscribers here cost requests nothing.
    status_tx: broadcast::Sender<Arc<Event>>,
}

impl Default for Bus {
    fn default() -> Self {
        Self {
            live: Mutex::default(),
            viewers_tx: broadcast::channel(VIEWER_CAPACITY).0,
            status_tx: broadcast::channel(STATUS_CAPACITY).0,
        }
    }
}

impl Bus {
    /// Publishes an event.
    pub fn publish(&self, at: UnixMillis, kind: EventKind) {
        // A poisoned fold is still usable: viewers see each event applied completely or not at all.
        self.fold_and_send(&mut self.live.lock(), at, kind);
    }

    /// Publishes the end of a request, and returns its final record.
    pub fn publish_end(
        &self,
        at: UnixMillis,
        kind: EventKind,
        id: RequestId,
    ) -> Option<Arc<RequestRecord>> {
        let mut live = self.live.lock();
        self.fold_and_send(&mut live, at, kind);
        live.recent.back().filter(|record| record.id == id).cloned()
    }

    fn fold_and_send(&self, live: &mut Live, at: UnixMillis, kind: EventKind) {
        let event = Event { seq: live.seq + 1, at, kind };
        if event.kind.is_status_change() && self.status_tx.receiver_count() > 0 {
            // A receiver that has just been dropped is not an error.
            drop(self.status_tx.send(Arc::new(event.clone())));
        }
        if self.viewers_tx.receiver_count() == 0 {
            live.apply_owned(event);
            return;
        }
        live.apply(&event);
        // Sent under the lock, so that no viewer sees events out of order. A viewer that has just
        // disconnected is not an error.
        drop(self.viewers_tx.send(Arc::new(event)));
    }

    /// Whether there are viewers: sampled progress is only published for them.
    #[must_use]
    pub fn has_viewers(&self) -> bool {
        self.viewers_tx.receiver_count() > 0
    }

    /// Reads the fold.
    pub fn view<T>(&self, read: impl FnOnce(&Live) -> T) -> T {
        read(&self.live.lock())
    }

    /// Subscribes to alerts and changes of health, config and the like, from now on.
    #[must_use]
    pub fn subscribe_status(&self) -> broadcast::Receiver<Arc<Event>> {
        self.status_tx.subscribe()
    }

    /// Returns the current fold, and every event after it.
    #[must_use]
    pub fn subscribe_with_snapshot(&self) -> (Live, broadcast::Receiver<Arc<Event>>) {
        let live = self.live.lock();
        (live.clone(), self.viewers_tx.subscribe())
    }
}
