//! Cancels running requests from outside: on a user's command, or at the end of the drain.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

use crate::base::{
    id::{IdMap, RequestId},
    sync::Mutex,
};
use crate::ir::reason::failure::FailureReason;

/// Why a request was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelReason {
    Killed,
    Shutdown,
}

impl CancelReason {
    #[must_use]
    pub fn failure_reason(self) -> FailureReason {
        match self {
            Self::Killed => FailureReason::Killed,
            Self::Shutdown => FailureReason::ShuttingDown,
        }
    }
}

/// The cancel handle of one request.
#[derive(Default)]
pub struct CancelHandle {
    reason: AtomicU8,
    waker: AtomicWaker,
}

impl CancelHandle {
    fn cancel(&self, cause: CancelReason) {
        self.reason.store(if cause == CancelReason::Killed { 1 } else { 2 }, Ordering::Release);
        self.waker.wake();
    }

    /// Returns the reason if the request is cancelled; otherwise registers the task.
    pub fn poll_cancelled(&self, cx: &Context<'_>) -> Poll<CancelReason> {
        self.waker.register(cx.waker());
        match self.reason.load(Ordering::Acquire) {
            0 => Poll::Pending,
            1 => Poll::Ready(CancelReason::Killed),
            _ => Poll::Ready(CancelReason::Shutdown),
        }
    }

    /// Waits until the request is cancelled.
    pub async fn cancelled(&self) -> CancelReason {
        poll_fn(|cx| self.poll_cancelled(cx)).await
    }
}

/// The cancel handles of all running requests.
#[derive(Default)]
pub struct Cancellations(Mutex<IdMap<RequestId, Arc<CancelHandle>>>);

impl Cancellations {
    pub(in crate::relay) fn register(&self, id: RequestId) -> Arc<CancelHandle> {
        let cancel = Arc::new(CancelHandle::default());
        self.0.lock().insert(id, Arc::clone(&cancel));
        cancel
    }

    pub(in crate::relay) fn unregister(&self, id: RequestId) {
        self.0.lock().remove(&id);
    }

    /// Cancels one request; returns false if it is not running.
    pub fn cancel(&self, id: RequestId) -> bool {
        let cancel = self.0.lock().get(&id).cloned();
        cancel.inspect(|cancel| cancel.cancel(CancelReason::Killed)).is_some()
    }

    /// Cancels all requests.
    pub fn cancel_all(&self) {
        for cancel in self.0.lock().values() {
            cancel.cancel(CancelReason::Shutdown);
        }
    }

    #[must_use]
    pub fn running(&self) -> usize {
        self.0.lock().len()
    }
}
