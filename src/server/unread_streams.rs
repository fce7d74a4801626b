//! Answers that the client of an HTTP/2 connection does not read. Each stream has a window of its
//! own, so that the connection's socket does not show it.

use std::{
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::base::sync::Mutex;

/// The open answers of one connection.
pub(super) struct UnreadStreams<B> {
    created: Instant,
    open: Mutex<Vec<Weak<OpenAnswer<B>>>>,
}

struct OpenAnswer<B> {
    created: Instant,
    /// `None` once it was given up.
    body: Mutex<Option<Pin<Box<B>>>>,
    /// Milliseconds from `created` to when a part of it was handed out and the next was not asked
    /// for yet; 0 while the client waits for it.
    unread_since_ms: AtomicU64,
}

/// An answer that is given up if the client does not read it.
pub(super) struct WatchedBody<B>(Arc<OpenAnswer<B>>);

/// The answer was given up, because the client did not read it.
#[derive(Debug, thiserror::Error)]
#[error("the client did not read the answer")]
pub(super) struct Unread;

impl<B> UnreadStreams<B> {
    pub(super) fn new() -> Self {
        Self { created: Instant::now(), open: Mutex::default() }
    }

    fn elapsed_ms(&self) -> u64 {
        elapsed_ms(self.created)
    }

    pub(super) fn watch(&self, body: B) -> WatchedBody<B> {
        let answer = Arc::new(OpenAnswer {
            created: self.created,
            body: Mutex::new(Some(Box::pin(body))),
            // It is not asked for anything until the client's window is open.
            unread_since_ms: AtomicU64::new(self.elapsed_ms()),
        });
        let mut open = self.open.lock();
        open.retain(|known| known.strong_count() > 0);
        open.push(Arc::downgrade(&answer));
        WatchedBody(answer)
    }

    /// Gives up the answers of which nothing was read for this long, with all that they hold.
    pub(super) fn give_up(&self, timeout: Duration) {
        self.give_up_before(self.elapsed_ms().saturating_sub(timeout.as_millis() as u64));
    }

    fn give_up_before(&self, limit_ms: u64) {
        let open: Vec<_> = self.open.lock().iter().filter_map(Weak::upgrade).collect();
        for answer in open {
            let since = answer.unread_since_ms.load(Ordering::Relaxed);
            if since > 0 && since <= limit_ms {
                drop(answer.body.lock().take());
            }
        }
    }
}

/// Milliseconds since an instant, at least 1.
fn elapsed_ms(since: Instant) -> u64 {
    (since.elapsed().as_millis() as u64).max(1)
}

impl<B: Body<Data = Bytes>> Body for WatchedBody<B>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let answer = &self.0;
        let mut body = answer.body.lock();
        let Some(open) = body.as_mut() else { return Poll::Ready(Some(Err(Unread.into()))) };
        let polled = open.as_mut().poll_frame(cx);
        let unread_since = match &polled {
            Poll::Ready(Some(Ok(_))) => elapsed_ms(answer.created),
            Poll::Ready(_) | Poll::Pending => 0,
        };
        answer.unread_since_ms.store(unread_since, Ordering::Relaxed);
        polled.map(|frame| frame.map(|result| result.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.body.lock().as_ref().is_some_and(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.body.lock().as_ref().map_or_else(SizeHint::new, |body| body.size_hint())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    #[tokio::test]
    async fn only_streams_unread_by_the_client_are_dropped() {
        let streams = UnreadStreams::new();
        let answer = || Full::new(Bytes::from_static(b"text"));
        let (mut begun, untouched) = (streams.watch(answer()), streams.watch(answer()));
        assert!(begun.frame().await.is_some_and(|frame| frame.is_ok()));

        streams.give_up(Duration::from_secs(60));
        assert!(begun.0.body.lock().is_some() && untouched.0.body.lock().is_some());
        streams.give_up_before(u64::MAX);

        assert!(begun.0.body.lock().is_none() && untouched.0.body.lock().is_none());
        assert!(begun.frame().await.is_some_and(|frame| frame.is_err()));
    }

    #[tokio::test]
    async fn stream_of_a_slow_upstream_is_not_dropped() {
        let streams = UnreadStreams::new();
        let never = futures_util::stream::pending::<Result<Frame<Bytes>, std::io::Error>>();
        let mut slow = streams.watch(StreamBody::new(never));
        tokio::select! {
            biased;
            _frame = slow.frame() => panic!("nothing comes"),
            () = std::future::ready(()) => {}
        }
        streams.give_up_before(u64::MAX);
        assert!(slow.0.body.lock().is_some());
    }
}
