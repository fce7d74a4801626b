//! What goes to a client in answer to one message of it.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    base::json::raw::RawJson,
    mcp::message::{self, RpcError},
};

/// Messages that wait for a slow client.
const MAX_WAITING: usize = 64;

/// A message to the client.
#[derive(Debug)]
pub enum OutItem {
    /// The answer, with its code if it is an error; nothing follows.
    Final(String, Option<i64>),
    /// A notification, or a question of the server.
    Message(String),
}

/// The way to the client for one request of it.
pub struct Outlet {
    items: mpsc::Sender<OutItem>,
    /// The client left or does not want the answer any more.
    pub gone: CancellationToken,
}

/// The client's end of an [`Outlet`]. If it is dropped, the client has left.
pub struct OutletReader {
    pub items: mpsc::Receiver<OutItem>,
    pub gone: DropGuard,
}

impl Outlet {
    /// Creates both ends.
    #[must_use]
    pub fn pair() -> (Self, OutletReader) {
        let (sender, items) = mpsc::channel(MAX_WAITING);
        let gone = CancellationToken::new();
        let reader = OutletReader { items, gone: gone.clone().drop_guard() };
        (Self { items: sender, gone }, reader)
    }

    /// Sends a message; waits while the client is slow.
    pub async fn send(&self, text: String) {
        // A client that has left is noticed through `gone`.
        drop(self.items.send(OutItem::Message(text)).await);
    }

    /// Sends a message if the client is not slow.
    pub fn try_send(&self, text: String) {
        drop(self.items.try_send(OutItem::Message(text)));
    }
}

/// A request of a client: its id, and the way back.
pub struct Exchange {
    pub id: RawJson,
    pub outlet: Outlet,
}

impl Exchange {
    /// Returns an exchange that leads nowhere, in place of one that went to another task.
    #[must_use]
    pub fn placeholder() -> Self {
        Self { id: RawJson::from(0), outlet: Outlet::pair().0 }
    }

    /// Sends the answer.
    pub async fn finish(&self, result: &Result<RawJson, RpcError>) {
        let text = message::answer(&self.id, result);
        let code = result.as_ref().err().map(|error| error.code);
        drop(self.outlet.items.send(OutItem::Final(text, code)).await);
    }
}

/// A body of events.
pub type EventBody = Pin<Box<dyn Stream<Item = Bytes> + Send>>;
