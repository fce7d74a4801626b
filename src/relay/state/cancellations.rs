//! Ending running requests from outside: killed by the user, or cut at the end of the drain.

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

use crate::base::id::{IdMap, RequestId};

/// Why a request was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelReason {
    Killed,
    Shutdown,
}

/// The handle that one request watches.
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

    /// Whether the request is to end; registers the task when it is not.
    pub fn poll_cancelled(&self, cx: &Context<'_>) -> Poll<CancelReason> {
        self.waker.register(cx.waker());
        match self.reason.load(Ordering::Acquire) {
            0 => Poll::Pending,
            1 => Poll::Ready(CancelReason::Killed),
            _ => Poll::Ready(CancelReason::Shutdown),
        }
    }

    /// Waits until the request is to end.
    pub async fn cancelled(&self) -> CancelReason {
        poll_fn(|cx| self.poll_cancelled(cx)).await
    }
}

/// All running requests.
#[derive(Default)]
pub struct Cancellations(Mutex<IdMap<RequestId, Arc<CancelHandle>>>);

impl Cancellations {
    pub(in crate::relay) fn register(&self, id: RequestId) -> Arc<CancelHandle> {
        let cancel = Arc::new(CancelHandle::default());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&cancel));
        cancel
    }

    pub(in crate::relay) fn unregister(&self, id: RequestId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Ends one request; false where it is not running.
    pub fn cancel(&self, id: RequestId) -> bool {
        let cancel = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        cancel.inspect(|cancel| cancel.cancel(CancelReason::Killed)).is_some()
    }

    /// Ends all of them.
    pub fn cancel_all(&self) {
        for cancel in self.0.lock().unwrap_or_else(PoisonError::into_inner).values() {
            cancel.cancel(CancelReason::Shutdown);
        }
    }

    #[must_use]
    pub fn running(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
