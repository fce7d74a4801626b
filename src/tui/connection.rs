//! The proxy's side of the dashboard: follows the events, fetches snapshots, carries acts out, and
//! comes back by itself.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{sync::mpsc, time::sleep};

use crate::tui::msg::Msg;
use crate::{
    base::id::RequestId,
    control::{
        action::Action,
        client::{ControlClient, ControlError, EventStream, StreamItem},
        history::{GroupBy, HistoryQuery, RequestDetail, UsageQuery, UsageReport},
        request_transcript::{self, TranscriptQuery},
    },
};

/// Between tries to reach a proxy that is gone.
const RETRY_DELAY: Duration = Duration::from_secs(3);
/// Acts under way at once; more than a hand can type.
const MAX_PENDING_CALLS: usize = 16;
/// Requests in one page of the past.
const HISTORY_PAGE: usize = 200;

/// Where the proxy is.
pub struct ProxyConnection {
    pub client: ControlClient,
    /// Finds the proxy again: a restarted one has a new token, perhaps another address.
    pub reconnect: Box<dyn Fn() -> Option<ControlClient> + Send + Sync>,
    /// Writes the account of a request, as commands print it.
    pub explain: fn(&RequestDetail) -> String,
}

/// What the loop asks of the proxy.
#[derive(Debug)]
pub(super) enum ControlCall {
    Explain { id: RequestId },
    Action(Action),
    History { filter: String, before: Option<RequestId> },
    Snapshot,
    Transcript { id: RequestId, query: TranscriptQuery },
    Today,
    Usage { by: GroupBy, days: u32 },
}

/// Marks of refusals that are ours, said in the reader's language by whoever shows them.
pub(super) const TOO_MANY: &str = "too many";
pub(super) const UNREACHABLE: &str = "unreachable";

type CallsInFlight = FuturesUnordered<Pin<Box<dyn Future<Output = Msg> + Send>>>;

/// Runs for as long as somebody listens to `tell`. A full `tell` makes the stream wait, until the
/// proxy says that this viewer fell behind.
pub(super) async fn follow(
    connect: ProxyConnection,
    mut asks: mpsc::Receiver<ControlCall>,
    messages_tx: mpsc::Sender<Msg>,
) {
    let ProxyConnection { client, reconnect, explain } = connect;
    let mut client = Arc::new(client);
    loop {
        let why = match open_events(&client, &messages_tx).await {
            Ok(events) => serve_calls(&client, explain, events, &mut asks, &messages_tx).await,
            Err(e) => Some(e),
        };
        let Some(why) = why else { return };
        let lost =
            Msg::Disconnected { reason: why.to_string(), retry_ms: RETRY_DELAY.as_millis() as u64 };
        if messages_tx.send(lost).await.is_err() || !wait_for_retry(&mut asks, &messages_tx).await {
            return;
        }
        if let Some(found) = reconnect() {
            client = Arc::new(found);
        }
    }
}

/// Events first, then the snapshot: what happens between is in both, and told apart by its number.
async fn open_events(
    client: &ControlClient,
    messages_tx: &mpsc::Sender<Msg>,
) -> Result<EventStream, ControlError> {
    let events = client.events().await?;
    let snapshot = client.snapshot().await?;
    // Whoever listened is gone; the next send ends this.
    drop(messages_tx.send(Msg::Snapshot(Box::new(snapshot))).await);
    Ok(events)
}

/// Until the connection breaks (why), or nobody listens any more.
async fn serve_calls(
    client: &Arc<ControlClient>,
    explain: fn(&RequestDetail) -> String,
    mut events: EventStream,
    asks: &mut mpsc::Receiver<ControlCall>,
    messages_tx: &mpsc::Sender<Msg>,
) -> Option<ControlError> {
    let mut in_flight = CallsInFlight::new();
    loop {
        let msg = tokio::select! {
            told = events.next() => match told {
                Ok(StreamItem::Event(event)) => Msg::Event(event),
                Ok(StreamItem::Resync) => Msg::Resync,
                Err(e) => return Some(e),
            },
            ask = asks.recv() => {
                match ask? {
                    ControlCall::Action(_) if in_flight.len() >= MAX_PENDING_CALLS => Msg::ActionResult(Err(TOO_MANY.to_owned())),
                    ask => {
                        in_flight.push(Box::pin(run_call(Arc::clone(client), explain, ask)));
                        continue;
                    }
                }
            }
            Some(msg) = in_flight.next(), if !in_flight.is_empty() => msg,
        };
        messages_tx.send(msg).await.ok()?;
    }
}

async fn run_call(
    client: Arc<ControlClient>,
    explain: fn(&RequestDetail) -> String,
    ask: ControlCall,
) -> Msg {
    match ask {
        ControlCall::Explain { id } => {
            let full: Result<RequestDetail, ControlError> =
                client.get_json(&format!("/aiproxy/v1/requests/{id}/full")).await;
            Msg::Explain { id, text: full.map(|full| explain(&full)).map_err(|e| error_text(&e)) }
        }
        ControlCall::Action(action) => {
            Msg::ActionResult(client.send_action(&action).await.map_err(|e| error_text(&e)))
        }
        ControlCall::History { filter, before } => {
            let question = HistoryQuery {
                filter: filter.clone(),
                since: None,
                before_id: before,
                limit: HISTORY_PAGE,
            };
            Msg::History {
                filter,
                page: client.get_json(&question.path()).await.map_err(|e| error_text(&e)),
            }
        }
        ControlCall::Snapshot => match client.snapshot().await {
            Ok(snapshot) => Msg::Snapshot(Box::new(snapshot)),
            Err(e) => Msg::Disconnected { reason: e.to_string(), retry_ms: 0 },
        },
        ControlCall::Transcript { id, query: wish } => Msg::Transcript(
            client
                .get_json(&request_transcript::transcript_path(id, wish))
                .await
                .map(Box::new)
                .map_err(|e| error_text(&e)),
        ),
        ControlCall::Today => Msg::Today(fetch_usage(&client, GroupBy::Key, 1).await),
        ControlCall::Usage { by, days } => Msg::Usage(fetch_usage(&client, by, days).await),
    }
}

async fn fetch_usage(
    client: &ControlClient,
    by: GroupBy,
    days: u32,
) -> Result<Box<UsageReport>, String> {
    let question = UsageQuery { by, since: format!("{days}d"), tz: String::new() };
    client.get_json(&question.path()).await.map(Box::new).map_err(|e| error_text(&e))
}

fn error_text(e: &ControlError) -> String {
    e.hint().map_or_else(|| e.to_string(), |hint| format!("{e}; {hint}"))
}

/// Waits for the next try; acts asked meanwhile are refused. False when nobody listens any more.
async fn wait_for_retry(
    asks: &mut mpsc::Receiver<ControlCall>,
    messages_tx: &mpsc::Sender<Msg>,
) -> bool {
    let mut pause = std::pin::pin!(sleep(RETRY_DELAY));
    loop {
        tokio::select! {
            () = &mut pause => return true,
            () = messages_tx.closed() => return false,
            ask = asks.recv() => match ask {
                None => return false,
                // What was only to be looked at is asked again when the proxy is back.
                Some(ControlCall::Explain { .. } | ControlCall::History { .. } | ControlCall::Snapshot | ControlCall::Transcript { .. } | ControlCall::Today | ControlCall::Usage { .. }) => {}
                Some(ControlCall::Action(_)) => {
                    if messages_tx.send(Msg::ActionResult(Err(UNREACHABLE.to_owned()))).await.is_err() {
                        return false;
                    }
                }
            },
        }
    }
}
