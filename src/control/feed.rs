//! The event stream of a viewer, limited to about thirty writes per second.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::events::event::Event;

/// A ping is sent after this time without events.
const PING_AFTER: Duration = Duration::from_secs(10);
/// The first event is sent immediately and later ones together. A person cannot see faster updates,
/// and each write takes time from the requests.
const MIN_WRITE_INTERVAL: Duration = Duration::from_millis(33);
/// When this many events are queued, they are fetched earlier, so that the viewer does not fall
/// behind.
const BURST_EVENTS: usize = 128;
const BURST_WRITE_INTERVAL: Duration = Duration::from_millis(6);
/// Maximum size of one piece, in bytes.
const MAX_PIECE_BYTES: usize = 32 << 10;

const RESYNC: &[u8] = b"event: resync\ndata: {}\n\n";

struct EventFeed {
    events: Receiver<Arc<Event>>,
    stop: CancellationToken,
    /// Earliest time of the next write.
    next: Instant,
}

/// Streams events as SSE; a viewer that fell behind gets a resync event and takes a new snapshot.
pub(super) fn event_feed(
    hello: Bytes,
    events: Receiver<Arc<Event>>,
    stop: CancellationToken,
) -> impl Stream<Item = Bytes> + Send {
    let feed = EventFeed { events, stop, next: Instant::now() };
    stream::unfold((Some(hello), feed), |(hello, mut feed)| async move {
        let piece = match hello {
            Some(hello) => hello,
            None => feed.next_piece().await?,
        };
        Some((piece, (None, feed)))
    })
}

impl EventFeed {
    /// Waits for events and returns those since the last piece; `None` at the end.
    async fn next_piece(&mut self) -> Option<Bytes> {
        let Self { events, stop, next } = self;
        let first = async {
            // Even a timer of zero duration would yield to the scheduler.
            if *next > Instant::now() {
                sleep_until(*next).await;
            }
            timeout(PING_AFTER, events.recv()).await
        };
        let first = tokio::select! {
            first = first => first,
            () = stop.cancelled() => return None,
        };
        let mut out = Vec::new();
        match first {
            Err(_) => return Some(Bytes::from_static(b": ping\n\n")),
            Ok(Err(RecvError::Closed)) => return None,
            Ok(Err(RecvError::Lagged(_))) => return Some(Bytes::from_static(RESYNC)),
            Ok(Ok(event)) => write_frame(&mut out, &event),
        }
        let mut of = 1;
        // Add the other events that are already available.
        while out.len() < MAX_PIECE_BYTES {
            let Ok(event) = self.events.try_recv() else { break };
            write_frame(&mut out, &event);
            of += 1;
        }
        if out.len() < MAX_PIECE_BYTES {
            self.next = Instant::now()
                + if of < BURST_EVENTS { MIN_WRITE_INTERVAL } else { BURST_WRITE_INTERVAL };
        }
        Some(Bytes::from(out))
    }
}

fn write_frame(out: &mut Vec<u8>, event: &Event) {
    let start = out.len();
    out.extend_from_slice(b"data: ");
    // Events contain only strings and numbers, so writing them cannot fail. A gap would make the
    // viewer resync.
    if serde_json::to_writer(&mut *out, event).is_err() {
        out.truncate(start);
        out.extend_from_slice(RESYNC);
        return;
    }
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _};
    use tokio::sync::broadcast;

    use super::*;
    use crate::{
        base::clock::UnixMillis,
        events::{
            event::{EventKind, Severity},
            status_message::notice::NoticeMessage,
        },
    };

    fn notice(seq: u64) -> Arc<Event> {
        Arc::new(Event {
            seq,
            at: UnixMillis(1),
            kind: EventKind::Notice { text: NoticeMessage::Stopping.into(), level: Severity::Info },
        })
    }

    fn text(piece: Option<Bytes>) -> String {
        String::from_utf8_lossy(&piece.expect("a piece")).into_owned()
    }

    #[tokio::test]
    async fn first_event_is_sent_at_once_and_later_ones_are_batched() {
        let (sender, events) = broadcast::channel(8);
        let mut feed = Box::pin(event_feed(
            Bytes::from_static(b": hello\n\n"),
            events,
            CancellationToken::new(),
        ));
        assert_eq!(text(feed.next().await), ": hello\n\n");
        sender.send(notice(1)).expect("a viewer");
        let first = feed.next().now_or_never().expect("at once");
        assert_eq!(text(first).matches("data: ").count(), 1);
        sender.send(notice(2)).expect("a viewer");
        assert!(feed.next().now_or_never().is_none());
        sender.send(notice(3)).expect("a viewer");
        assert_eq!(text(feed.next().await).matches("data: ").count(), 2);
    }

    #[tokio::test]
    async fn slow_viewer_is_resynchronised_and_continues() {
        let (sender, events) = broadcast::channel(2);
        let stop = CancellationToken::new();
        let mut feed =
            Box::pin(event_feed(Bytes::from_static(b": hello\n\n"), events, stop.clone()));
        feed.next().await;
        (1..=5).for_each(|seq| drop(sender.send(notice(seq))));
        assert_eq!(text(feed.next().await).as_bytes(), RESYNC);
        let rest = text(feed.next().await);
        assert!(rest.contains("\"seq\":4") && rest.contains("\"seq\":5"), "{rest}");
        stop.cancel();
        assert!(feed.next().await.is_none());
    }
}
