//! The proxy's side of the dashboard: follows the events, fetches snapshots, carries acts out, and
//! comes back by itself.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{sync::mpsc, time::sleep};

use super::msg::Msg;
use crate::{
    base::id::RequestId,
    control::{
        action::Action,
        client::{ControlClient, ControlError, EventStream, StreamItem},
        history::{GroupBy, HistoryQuery, RequestDetail, UsageQuery, UsageReport},
        story::{self, TranscriptQuery},
    },
};

/// Between tries to reach a proxy that is gone.
const RETRY: Duration = Duration::from_secs(3);
/// Acts under way at once; more than a hand can type.
const ACTS: usize = 16;
/// Requests in one page of the past.
const PAGE: usize = 200;

/// Where the proxy is.
pub struct Connect {
    pub client: ControlClient,
    /// Finds the proxy again: a restarted one has a new token, perhaps another address.
    pub reconnect: Box<dyn Fn() -> Option<ControlClient> + Send + Sync>,
    /// Writes the account of a request, as commands print it.
    pub explain: fn(&RequestDetail) -> String,
}

/// What the loop asks of the proxy.
#[derive(Debug)]
pub(super) enum Ask {
    Account { id: RequestId },
    Act(Action),
    History { filter: String, before: Option<RequestId> },
    Snapshot,
    Story { id: RequestId, wish: TranscriptQuery },
    Today,
    Usage { by: GroupBy, days: u32 },
}

/// Marks of refusals that are ours, said in the reader's language by whoever shows them.
pub(super) const TOO_MANY: &str = "too many";
pub(super) const UNREACHABLE: &str = "unreachable";

type Doing = FuturesUnordered<Pin<Box<dyn Future<Output = Msg> + Send>>>;

/// Runs for as long as somebody listens to `tell`. A full `tell` makes the stream wait, until the
/// proxy says that this viewer fell behind.
pub(super) async fn follow(
    connect: Connect,
    mut asks: mpsc::Receiver<Ask>,
    tell: mpsc::Sender<Msg>,
) {
    let Connect { client, reconnect, explain } = connect;
    let mut client = Arc::new(client);
    loop {
        let why = match begin(&client, &tell).await {
            Ok(events) => attend(&client, explain, events, &mut asks, &tell).await,
            Err(e) => Some(e),
        };
        let Some(why) = why else { return };
        let lost = Msg::Lost { why: why.to_string(), retry_ms: RETRY.as_millis() as u64 };
        if tell.send(lost).await.is_err() || !wait(&mut asks, &tell).await {
            return;
        }
        if let Some(found) = reconnect() {
            client = Arc::new(found);
        }
    }
}

/// Events first, then the snapshot: what happens between is in both, and told apart by its number.
async fn begin(
    client: &ControlClient,
    tell: &mpsc::Sender<Msg>,
) -> Result<EventStream, ControlError> {
    let events = client.events().await?;
    let snapshot = client.snapshot().await?;
    // Whoever listened is gone; the next send ends this.
    drop(tell.send(Msg::Snapshot(Box::new(snapshot))).await);
    Ok(events)
}

/// Until the connection breaks (why), or nobody listens any more.
async fn attend(
    client: &Arc<ControlClient>,
    explain: fn(&RequestDetail) -> String,
    mut events: EventStream,
    asks: &mut mpsc::Receiver<Ask>,
    tell: &mpsc::Sender<Msg>,
) -> Option<ControlError> {
    let mut doing = Doing::new();
    loop {
        let msg = tokio::select! {
            told = events.next() => match told {
                Ok(StreamItem::Event(event)) => Msg::Event(event),
                Ok(StreamItem::Resync) => Msg::Resync,
                Err(e) => return Some(e),
            },
            ask = asks.recv() => {
                match ask? {
                    Ask::Act(_) if doing.len() >= ACTS => Msg::Answered(Err(TOO_MANY.to_owned())),
                    ask => {
                        doing.push(Box::pin(carry_out(Arc::clone(client), explain, ask)));
                        continue;
                    }
                }
            }
            Some(msg) = doing.next(), if !doing.is_empty() => msg,
        };
        tell.send(msg).await.ok()?;
    }
}

async fn carry_out(
    client: Arc<ControlClient>,
    explain: fn(&RequestDetail) -> String,
    ask: Ask,
) -> Msg {
    match ask {
        Ask::Account { id } => {
            let full: Result<RequestDetail, ControlError> =
                client.get_json(&format!("/aiproxy/v1/requests/{id}/full")).await;
            Msg::Account { id, said: full.map(|full| explain(&full)).map_err(|e| said(&e)) }
        }
        Ask::Act(action) => Msg::Answered(client.send_action(&action).await.map_err(|e| said(&e))),
        Ask::History { filter, before } => {
            let question = HistoryQuery {
                filter: filter.clone(),
                since: None,
                before_id: before,
                limit: PAGE,
            };
            Msg::History {
                filter,
                page: client.get_json(&question.path()).await.map_err(|e| said(&e)),
            }
        }
        Ask::Snapshot => match client.snapshot().await {
            Ok(snapshot) => Msg::Snapshot(Box::new(snapshot)),
            Err(e) => Msg::Lost { why: e.to_string(), retry_ms: 0 },
        },
        Ask::Story { id, wish } => Msg::Story(
            client
                .get_json(&story::transcript_path(id, wish))
                .await
                .map(Box::new)
                .map_err(|e| said(&e)),
        ),
        Ask::Today => Msg::Today(usage(&client, GroupBy::Key, 1).await),
        Ask::Usage { by, days } => Msg::Usage(usage(&client, by, days).await),
    }
}

async fn usage(client: &ControlClient, by: GroupBy, days: u32) -> Result<Box<UsageReport>, String> {
    let question = UsageQuery { by, since: format!("{days}d"), tz: String::new() };
    client.get_json(&question.path()).await.map(Box::new).map_err(|e| said(&e))
}

fn said(e: &ControlError) -> String {
    e.hint().map_or_else(|| e.to_string(), |hint| format!("{e}; {hint}"))
}

/// Waits for the next try; acts asked meanwhile are refused. False when nobody listens any more.
async fn wait(asks: &mut mpsc::Receiver<Ask>, tell: &mpsc::Sender<Msg>) -> bool {
    let mut pause = std::pin::pin!(sleep(RETRY));
    loop {
        tokio::select! {
            () = &mut pause => return true,
            () = tell.closed() => return false,
            ask = asks.recv() => match ask {
                None => return false,
                // What was only to be looked at is asked again when the proxy is back.
                Some(Ask::Account { .. } | Ask::History { .. } | Ask::Snapshot | Ask::Story { .. } | Ask::Today | Ask::Usage { .. }) => {}
                Some(Ask::Act(_)) => {
                    if tell.send(Msg::Answered(Err(UNREACHABLE.to_owned()))).await.is_err() {
                        return false;
                    }
                }
            },
        }
    }
}
