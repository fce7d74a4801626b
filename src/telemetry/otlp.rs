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

use super::traces::{self, TraceParent};
use crate::{
    config::settings::OutboundUrl, events::ledger_queue::LedgerEntry, secrets::Secret,
    upstream::webhook_client::WebhookClient,
};

/// Requests that wait for their turn.
const QUEUE_CAPACITY: usize = 2_048;
/// Requests in one batch, and how long the first of it waits for others.
const MAX_BATCH: usize = 256;
const BATCH_DELAY: Duration = Duration::from_secs(2);
/// Pauses before a batch is sent again.
const RETRY_DELAYS: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15)];

/// A finished request on its way.
#[derive(Debug)]
pub struct FinishedRequest {
    entry: LedgerEntry,
    parent: Option<TraceParent>,
}

/// The way in.
#[derive(Debug)]
pub struct OtlpExporter {
    queue: Sender<Box<FinishedRequest>>,
    /// Somebody wants them.
    enabled: AtomicBool,
    pub sent: AtomicU64,
    pub dropped: AtomicU64,
}

impl OtlpExporter {
    /// The way in, and the end that [`Traces::gather`] reads.
    #[must_use]
    pub fn new() -> (Arc<Self>, Receiver<Box<FinishedRequest>>) {
        let (queue, reader) = mpsc::channel(QUEUE_CAPACITY);
        (
            Arc::new(Self {
                queue,
                enabled: AtomicBool::new(false),
                sent: AtomicU64::new(0),
                dropped: AtomicU64::new(0),
            }),
            reader,
        )
    }

    /// Whether anybody wants them.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    pub fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Relaxed);
    }

    /// Takes a finished request, where traces are wanted and there is room.
    pub fn offer(&self, entry: &LedgerEntry, parent: Option<TraceParent>) {
        if self.queue.try_send(Box::new(FinishedRequest { entry: entry.clone(), parent })).is_err()
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for requests and makes a batch of them; `None` when the way in is closed.
    pub async fn collect_batch(
        reader: &mut Receiver<Box<FinishedRequest>>,
    ) -> Option<Vec<Box<FinishedRequest>>> {
        let mut batch = Vec::new();
        if reader.recv_many(&mut batch, MAX_BATCH).await == 0 {
            return None;
        }
        let more = async {
            while batch.len() < MAX_BATCH {
                let capacity = MAX_BATCH - batch.len();
                if reader.recv_many(&mut batch, capacity).await == 0 {
                    return;
                }
            }
        };
        // Full or not: after this time it goes.
        drop(tokio::time::timeout(BATCH_DELAY, more).await);
        Some(batch)
    }

    /// Sends a batch; a sentence where it could not be, which is then dropped.
    ///
    /// # Errors
    ///
    /// What the collector said, or why there is no way to it.
    pub async fn send_batch(
        &self,
        poster: &WebhookClient,
        url: &OutboundUrl,
        credentials: &[(String, Secret)],
        batch: &[Box<FinishedRequest>],
        host: &str,
    ) -> Result<(), String> {
        let mut spans: Vec<Value> = Vec::new();
        for request in batch {
            traces::push_spans(&request.entry, request.parent.as_ref(), &mut spans);
        }
        let body = bytes::Bytes::from(traces::export_body(&spans, host).to_string());
        let mut delays = RETRY_DELAYS.iter();
        loop {
            let (why, after) =
                match poster.post(url, HeaderMap::new(), credentials, body.clone()).await {
                    Ok(response) if response.status.is_success() => {
                        self.sent.fetch_add(batch.len() as u64, Ordering::Relaxed);
                        return Ok(());
                    }
                    Ok(response) => {
                        let why = format!("{} answered {}", url.origin(), response.status.as_u16());
                        // The statuses that the protocol says may pass.
                        if !matches!(response.status.as_u16(), 429 | 502..=504) {
                            return self.drop_batch(batch, why);
                        }
                        (why, response.retry_after)
                    }
                    Err(fault) => (fault.message, None),
                };
            let Some(delay) = delays.next() else { return self.drop_batch(batch, why) };
            tokio::time::sleep(after.unwrap_or(*delay).min(Duration::from_secs(30))).await;
        }
    }

    fn drop_batch(&self, batch: &[Box<FinishedRequest>], why: String) -> Result<(), String> {
        self.dropped.fetch_add(batch.len() as u64, Ordering::Relaxed);
        Err(why)
    }
}
