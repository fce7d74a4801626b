//! Connects the dashboard to the proxy: follows events, fetches snapshots, sends actions and
//! reconnects automatically.

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

/// Delay between attempts to reconnect.
const RETRY_DELAY: Duration = Duration::from_secs(3);
/// Upper bound for concurrent calls; more than a user can type.
const MAX_PENDING_CALLS: usize = 16;
/// Requests in one page of history.
const HISTORY_PAGE: usize = 200;

/// The connection to the proxy.
pub struct ProxyConnection {
    pub client: ControlClient,
    /// Finds the proxy again. After a restart it has a new token and possibly another address.
    pub reconnect: Box<dyn Fn() -> Option<ControlClient> + Send + Sync>,
    /// Formats the explanation of a request as the command prints it.
    pub explain: fn(&RequestDetail) -> String,
}

/// A call from the loop to the proxy.
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

/// Markers for local rejections; the dashboard translates them into the user's language.
pub(super) const TOO_MANY: &str = "too many";
pub(super) const UNREACHABLE: &str = "unreachable";

type CallsInFlight = FuturesUnordered<Pin<Box<dyn Future<Output = Msg> + Send>>>;

/// Runs until the message receiver is dropped. If the message channel is full, the event stream
/// waits, until the proxy reports that this viewer fell behind.
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

/// Subscribes to events, then fetches the snapshot. Events in both are recognised by their sequence
/// number.
async fn open_events(
    client: &ControlClient,
    messages_tx: &mpsc::Sender<Msg>,
) -> Result<EventStream, ControlError> {
    let events = client.events().await?;
    let snapshot = client.snapshot().await?;
    // If the receiver is gone, the next send ends the task.
    drop(messages_tx.send(Msg::Snapshot(Box::new(snapshot))).await);
    Ok(events)
}

/// Serves calls until the connection fails (returns the reason) or the message receiver is dropped.
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
            reported = events.next() => match reported {
                Ok(StreamItem::Event(event)) => Msg::Event(event),
                Ok(StreamItem::Resync) => Msg::Resync,
                Err(e) => return Some(e),
            },
            ask = asks.recv() => {
                match ask? {
                    ControlCall::Action(_) if in_flight.len() >= MAX_PENDING_CALLS => {
                        Msg::ActionResult(Err(TOO_MANY.to_owned()))
                    }
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
                until: None,
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

/// Waits for the next attempt and rejects actions meanwhile. Returns false if the message receiver
/// is dropped.
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
                // Read-only calls are repeated after the proxy is back.
                Some(
                    ControlCall::Explain { .. }
                    | ControlCall::History { .. }
                    | ControlCall::Snapshot
                    | ControlCall::Transcript { .. }
                    | ControlCall::Today
                    | ControlCall::Usage { .. },
                ) => {}
                Some(ControlCall::Action(_)) => {
                    let answer = Msg::ActionResult(Err(UNREACHABLE.to_owned()));
                    if messages_tx.send(answer).await.is_err() {
                        return false;
                    }
                }
            },
        }
    }
}
