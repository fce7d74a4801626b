//! The proxy's side of the dashboard: follows the events, fetches snapshots, carries acts out, and comes back by itself.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{sync::mpsc, time::sleep};

use super::msg::Msg;
use crate::control::{
    action::Action,
    client::{Client, ClientError, EventStream, Told},
};

/// Between tries to reach a proxy that is gone.
const RETRY: Duration = Duration::from_secs(3);
/// Acts under way at once; more than a hand can type.
const ACTS: usize = 16;

/// Where the proxy is.
pub struct Connect {
    pub client: Client,
    /// Finds the proxy again: a restarted one has a new token, perhaps another address.
    pub reconnect: Box<dyn Fn() -> Option<Client> + Send + Sync>,
}

/// What the loop asks of the proxy.
#[derive(Debug)]
pub(super) enum Ask {
    Act(Action),
    Snapshot,
}

type Doing = FuturesUnordered<Pin<Box<dyn Future<Output = Msg> + Send>>>;

/// Runs for as long as somebody listens to `tell`. A full `tell` makes the stream wait, until the proxy says that this
/// viewer fell behind.
pub(super) async fn follow(connect: Connect, mut asks: mpsc::Receiver<Ask>, tell: mpsc::Sender<Msg>) {
    let Connect { client, reconnect } = connect;
    let mut client = Arc::new(client);
    loop {
        let why = match begin(&client, &tell).await {
            Ok(events) => attend(&client, events, &mut asks, &tell).await,
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
async fn begin(client: &Client, tell: &mpsc::Sender<Msg>) -> Result<EventStream, ClientError> {
    let events = client.events().await?;
    let snapshot = client.snapshot().await?;
    // Whoever listened is gone; the next send ends this.
    drop(tell.send(Msg::Snapshot(Box::new(snapshot))).await);
    Ok(events)
}

/// Until the connection breaks (why), or nobody listens any more.
async fn attend(
    client: &Arc<Client>,
    mut events: EventStream,
    asks: &mut mpsc::Receiver<Ask>,
    tell: &mpsc::Sender<Msg>,
) -> Option<ClientError> {
    let mut doing = Doing::new();
    loop {
        let msg = tokio::select! {
            told = events.next() => match told {
                Ok(Told::Event(event)) => Msg::Event(event),
                Ok(Told::Resync) => Msg::Resync,
                Err(e) => return Some(e),
            },
            ask = asks.recv() => {
                match ask? {
                    Ask::Act(_) if doing.len() >= ACTS => Msg::Answered(Err("too many acts are under way; try again in a moment".to_owned())),
                    ask => {
                        doing.push(Box::pin(carry_out(Arc::clone(client), ask)));
                        continue;
                    }
                }
            }
            Some(msg) = doing.next(), if !doing.is_empty() => msg,
        };
        tell.send(msg).await.ok()?;
    }
}

async fn carry_out(client: Arc<Client>, ask: Ask) -> Msg {
    match ask {
        Ask::Act(action) => Msg::Answered(client.act(&action).await.map_err(|e| said(&e))),
        Ask::Snapshot => match client.snapshot().await {
            Ok(snapshot) => Msg::Snapshot(Box::new(snapshot)),
            Err(e) => Msg::Lost { why: e.to_string(), retry_ms: 0 },
        },
    }
}

fn said(e: &ClientError) -> String {
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
                Some(Ask::Snapshot) => {}
                Some(Ask::Act(_)) => {
                    if tell.send(Msg::Answered(Err("the proxy cannot be reached now".to_owned()))).await.is_err() {
                        return false;
                    }
                }
            },
        }
    }
}
