//! Work on large bodies, which takes more than a few milliseconds: it leaves the runtime's threads
//! to others, and only as many pieces run at a time as there are cores.

use std::{sync::LazyLock, thread};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{Semaphore, SemaphorePermit},
};

/// Bodies from this size on take milliseconds to parse or to translate.
pub(in crate::relay) const HEAVY_BYTES: usize = 512 * 1024;

/// A place for each core.
static PLACES: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(thread::available_parallelism().map_or(1, usize::from)));

/// Waits for a place to work on a body of this size; small ones need none. The wait ends with the
/// future, for example because the client left.
pub(in crate::relay) async fn place_for(bytes: usize) -> Option<SemaphorePermit<'static>> {
    if bytes < HEAVY_BYTES {
        return None;
    }
    PLACES.acquire().await.ok()
}

/// Runs work on a body of this size. For a large one, the other tasks of this thread move to
/// another.
pub fn run<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    if bytes >= HEAVY_BYTES && has_other_threads() {
        return tokio::task::block_in_place(work);
    }
    work()
}

fn has_other_threads() -> bool {
    Handle::try_current()
        .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_util::task::TaskTracker;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn heavy_work_does_not_block_other_tasks() {
        let place = place_for(HEAVY_BYTES).await;
        assert!(place.is_some() && place_for(HEAVY_BYTES - 1).await.is_none());
        let (sender, receiver) = std::sync::mpsc::channel();
        let other = TaskTracker::new().spawn(async move { sender.send(()).expect("a receiver") });
        // Would wait for ever if the only worker thread were held.
        let waited = run(HEAVY_BYTES, || receiver.recv_timeout(Duration::from_secs(30)));
        assert!(waited.is_ok());
        other.await.expect("a task");
    }

    #[tokio::test]
    async fn single_threaded_runtime_runs_heavy_work_inline() {
        assert_eq!(run(HEAVY_BYTES, || 7), 7);
    }
}
