//! Gathers spans and hands them to a collector, a batch at a time; what it does not take in time is
//! dropped and counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::HeaderMap;
use serde_json::Value;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::traces::{self, Parent};
use crate::{
    config::settings::OutboundUrl, events::sink::LedgerEntry, secrets::Secret,
    upstream::post::WebhookClient,
};

/// Requests that wait for their turn.
const QUEUE: usize = 2_048;
/// Requests in one batch, and how long the first of it waits for others.
const BATCH: usize = 256;
const GATHER: Duration = Duration::from_secs(2);
/// Pauses before a batch is sent again.
const PAUSES: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15)];

/// A finished request on its way.
#[derive(Debug)]
pub struct Traced {
    entry: LedgerEntry,
    parent: Option<Parent>,
}

/// The way in.
#[derive(Debug)]
pub struct Traces {
    queue: Sender<Box<Traced>>,
    /// Somebody wants them.
    on: AtomicBool,
    pub sent: AtomicU64,
    pub dropped: AtomicU64,
}

impl Traces {
    /// The way in, and the end that [`Traces::gather`] reads.
    #[must_use]
    pub fn new() -> (Arc<Self>, Receiver<Box<Traced>>) {
        let (queue, reader) = mpsc::channel(QUEUE);
        (
            Arc::new(Self {
                queue,
                on: AtomicBool::new(false),
                sent: AtomicU64::new(0),
                dropped: AtomicU64::new(0),
            }),
            reader,
        )
    }

    /// Whether anybody wants them.
    #[must_use]
    pub fn on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub fn want(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// Takes a finished request, where traces are wanted and there is room.
    pub fn offer(&self, entry: &LedgerEntry, parent: Option<Parent>) {
        if self.queue.try_send(Box::new(Traced { entry: entry.clone(), parent })).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for requests and makes a batch of them; `None` when the way in is closed.
    pub async fn gather(reader: &mut Receiver<Box<Traced>>) -> Option<Vec<Box<Traced>>> {
        let mut batch = Vec::new();
        if reader.recv_many(&mut batch, BATCH).await == 0 {
            return None;
        }
        let more = async {
            while batch.len() < BATCH {
                let room = BATCH - batch.len();
                if reader.recv_many(&mut batch, room).await == 0 {
                    return;
                }
            }
        };
        // Full or not: after this time it goes.
        drop(tokio::time::timeout(GATHER, more).await);
        Some(batch)
    }

    /// Sends a batch; a sentence where it could not be, which is then dropped.
    ///
    /// # Errors
    ///
    /// What the collector said, or why there is no way to it.
    pub async fn send(
        &self,
        poster: &WebhookClient,
        url: &OutboundUrl,
        credentials: &[(String, Secret)],
        batch: &[Box<Traced>],
        host: &str,
    ) -> Result<(), String> {
        let mut spans: Vec<Value> = Vec::new();
        for each in batch {
            traces::spans(&each.entry, each.parent.as_ref(), &mut spans);
        }
        let body = bytes::Bytes::from(traces::body(&spans, host).to_string());
        let mut pauses = PAUSES.iter();
        loop {
            let (why, after) =
                match poster.post(url, HeaderMap::new(), credentials, body.clone()).await {
                    Ok(answered) if answered.status.is_success() => {
                        self.sent.fetch_add(batch.len() as u64, Ordering::Relaxed);
                        return Ok(());
                    }
                    Ok(answered) => {
                        let why = format!("{} answered {}", url.origin(), answered.status.as_u16());
                        // The statuses that the protocol says may pass.
                        if !matches!(answered.status.as_u16(), 429 | 502..=504) {
                            return self.lost(batch, why);
                        }
                        (why, answered.retry_after)
                    }
                    Err(fault) => (fault.message, None),
                };
            let Some(pause) = pauses.next() else { return self.lost(batch, why) };
            tokio::time::sleep(after.unwrap_or(*pause).min(Duration::from_secs(30))).await;
        }
    }

    fn lost(&self, batch: &[Box<Traced>], why: String) -> Result<(), String> {
        self.dropped.fetch_add(batch.len() as u64, Ordering::Relaxed);
        Err(why)
    }
}
