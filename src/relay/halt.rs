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
pub enum Cause {
    Killed,
    Shutdown,
}

/// The handle that one request watches.
#[derive(Default)]
pub struct Halt {
    cause: AtomicU8,
    waker: AtomicWaker,
}

impl Halt {
    fn set(&self, cause: Cause) {
        self.cause.store(if cause == Cause::Killed { 1 } else { 2 }, Ordering::Release);
        self.waker.wake();
    }

    /// Whether the request is to end; registers the task when it is not.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<Cause> {
        self.waker.register(cx.waker());
        match self.cause.load(Ordering::Acquire) {
            0 => Poll::Pending,
            1 => Poll::Ready(Cause::Killed),
            _ => Poll::Ready(Cause::Shutdown),
        }
    }

    /// Waits until the request is to end.
    pub async fn wait(&self) -> Cause {
        poll_fn(|cx| self.poll(cx)).await
    }
}

/// All running requests.
#[derive(Default)]
pub struct Halts(Mutex<IdMap<RequestId, Arc<Halt>>>);

impl Halts {
    pub(super) fn enter(&self, id: RequestId) -> Arc<Halt> {
        let halt = Arc::new(Halt::default());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&halt));
        halt
    }

    pub(super) fn leave(&self, id: RequestId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Ends one request; false where it is not running.
    pub fn kill(&self, id: RequestId) -> bool {
        let halt = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        halt.inspect(|halt| halt.set(Cause::Killed)).is_some()
    }

    /// Ends all of them.
    pub fn cut_all(&self) {
        for halt in self.0.lock().unwrap_or_else(PoisonError::into_inner).values() {
            halt.set(Cause::Shutdown);
        }
    }

    #[must_use]
    pub fn running(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
