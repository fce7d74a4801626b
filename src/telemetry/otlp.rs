//! Collects spans and sends them to a collector in batches; drops and counts what the collector
//! does not accept in time.

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

/// Maximum number of queued requests.
const QUEUE_CAPACITY: usize = 2_048;
/// Maximum number of requests in one batch, and how long its first request waits for others.
const MAX_BATCH: usize = 256;
const BATCH_DELAY: Duration = Duration::from_secs(2);
/// Delays before a batch is sent again.
const RETRY_DELAYS: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15)];

/// A queued finished request.
#[derive(Debug)]
pub struct FinishedRequest {
    entry: LedgerEntry,
    parent: Option<TraceParent>,
}

/// The sending side of the trace queue.
#[derive(Debug)]
pub struct OtlpExporter {
    queue: Sender<Box<FinishedRequest>>,
    /// Traces are configured.
    enabled: AtomicBool,
    pub sent: AtomicU64,
    pub dropped: AtomicU64,
}

impl OtlpExporter {
    /// Creates the exporter and the receiver that [`Self::collect_batch`] reads.
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

    /// Returns whether traces are configured.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    pub fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Relaxed);
    }

    /// Queues a finished request, if traces are enabled and the queue has capacity.
    pub fn offer(&self, entry: &LedgerEntry, parent: Option<TraceParent>) {
        if self.queue.try_send(Box::new(FinishedRequest { entry: entry.clone(), parent })).is_err()
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for requests and returns them as a batch; `None` if the queue is closed.
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
        // Send the batch after this time, even if it is not full.
        drop(tokio::time::timeout(BATCH_DELAY, more).await);
        Some(batch)
    }

    /// Sends a batch; a batch that fails is dropped.
    ///
    /// # Errors
    ///
    /// The collector's error, or why it cannot be reached.
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
                        // The statuses that the protocol lists as retryable.
                        if !matches!(response.status.as_u16(), 429 | 502..=504) {
                            return self.drop_batch(batch, why);
                        }
                        (why, response.retry_after)
                    }
                    Err(fault) => (fault.reason.to_string(), None),
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
