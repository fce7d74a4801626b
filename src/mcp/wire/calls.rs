//! The requests that are open at one server, and what arrives for them.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use crate::{
    base::{
        json::{raw::RawJson, reader::JsonRef},
        sync::Mutex,
    },
    mcp::message::{self, METHOD_NOT_FOUND, RpcError, RpcMessage},
};

/// Notifications of one call that wait for a slow client; more are dropped.
const MAX_WAITING_NOTES: usize = 1_024;

/// Why a request has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallFault {
    /// The connection ended, with the reason.
    #[error("{0}")]
    Closed(Arc<str>),
    /// The server asks for a login.
    #[error("the server asks for a login")]
    LoginNeeded,
    #[error("{}", .0.message)]
    Rpc(RpcError),
    /// The server forgot the session; the request was not carried out.
    #[error("the server ended the session")]
    SessionLost,
    /// An answer of HTTP that is no message: its status and the beginning of its body.
    #[error("HTTP {0}{1}")]
    Status(u16, String),
    #[error("no answer within {0} s")]
    TimedOut(u64),
}

/// What a server sends while a request is open.
#[derive(Debug)]
pub enum FromServer {
    Notification {
        method: String,
        params: Option<RawJson>,
    },
    /// A question to the client; the answer needs this id.
    Question {
        id: RawJson,
        method: String,
        params: Option<RawJson>,
    },
}

/// What a server reports about itself, apart from requests.
#[derive(Clone, Debug)]
pub enum ServerEvent {
    /// The list of this method is no longer valid: `tools/list`, …
    ListChanged(&'static str),
    Log(Option<RawJson>),
    ResourceUpdated(String),
}

/// Receives [`ServerEvent`]s.
pub type EventSink = Arc<dyn Fn(ServerEvent) + Send + Sync>;

/// An open request, seen by the code that waits for it.
pub struct PendingCall {
    pub id: u64,
    pub answer: oneshot::Receiver<Result<RawJson, CallFault>>,
    pub inbox: mpsc::Receiver<FromServer>,
}

struct Waiting {
    answer: oneshot::Sender<Result<RawJson, CallFault>>,
    inbox: mpsc::Sender<FromServer>,
    takes_questions: bool,
}

#[derive(Default)]
struct Table {
    last_id: u64,
    open: BTreeMap<u64, Waiting>,
    closed: Option<Arc<str>>,
}

/// The open requests of one connection.
pub struct OpenCalls {
    table: Mutex<Table>,
    sink: EventSink,
}

impl OpenCalls {
    #[must_use]
    pub fn new(sink: EventSink) -> Self {
        Self { table: Mutex::default(), sink }
    }

    /// Opens a request. `takes_questions` says whether a client stands behind it.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    pub fn open(&self, takes_questions: bool) -> Result<PendingCall, CallFault> {
        let mut table = self.table.lock();
        if let Some(reason) = &table.closed {
            return Err(CallFault::Closed(Arc::clone(reason)));
        }
        table.last_id += 1;
        let id = table.last_id;
        let (answer_sender, answer) = oneshot::channel();
        let (inbox_sender, inbox) = mpsc::channel(MAX_WAITING_NOTES);
        table
            .open
            .insert(id, Waiting { answer: answer_sender, inbox: inbox_sender, takes_questions });
        Ok(PendingCall { id, answer, inbox })
    }

    /// Forgets a request; returns whether it was still open.
    pub fn forget(&self, id: u64) -> bool {
        self.table.lock().open.remove(&id).is_some()
    }

    /// Returns the number of open requests that a client stands behind.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.table.lock().open.values().filter(|waiting| waiting.takes_questions).count()
    }

    /// Ends every request with this reason; later ones fail at once.
    pub fn close(&self, reason: &str) {
        let open = {
            let mut table = self.table.lock();
            let reason: Arc<str> = Arc::clone(table.closed.get_or_insert_with(|| reason.into()));
            (std::mem::take(&mut table.open), reason)
        };
        for waiting in open.0.into_values() {
            drop(waiting.answer.send(Err(CallFault::Closed(Arc::clone(&open.1)))));
        }
    }

    /// Ends one request with a fault.
    pub fn fail(&self, id: u64, fault: CallFault) {
        if let Some(waiting) = self.table.lock().open.remove(&id) {
            drop(waiting.answer.send(Err(fault)));
        }
    }

    /// Ends every request that is open now; the connection stays.
    pub fn fail_all(&self, fault: &CallFault) {
        let open = std::mem::take(&mut self.table.lock().open);
        for waiting in open.into_values() {
            drop(waiting.answer.send(Err(fault.clone())));
        }
    }

    /// Takes a message of the server that came on the stream of request `via`, if that is known.
    /// Returns the text to send back at once, if any.
    pub fn receive(&self, message: RpcMessage, via: Option<u64>) -> Option<String> {
        match message {
            RpcMessage::Answer { id, result } => {
                // Some servers return the number as text.
                let number = id.json().u64().or_else(|| id.json().str()?.parse().ok());
                let waiting = number.and_then(|id| self.table.lock().open.remove(&id));
                match waiting {
                    Some(waiting) => {
                        drop(waiting.answer.send(result.map_err(CallFault::Rpc)));
                    }
                    None => tracing::debug!(id = id.text(), "an answer that nobody waits for"),
                }
                None
            }
            RpcMessage::Notification { method, params } => {
                self.notify(method, params, via);
                None
            }
            RpcMessage::Request { id, method, params } => self.ask(&id, method, params, via),
        }
    }

    fn notify(&self, method: String, params: Option<RawJson>, via: Option<u64>) {
        let list = match method.as_str() {
            "notifications/tools/list_changed" => "tools/list",
            "notifications/prompts/list_changed" => "prompts/list",
            "notifications/resources/list_changed" => "resources/list",
            "notifications/resources/updated" => {
                if let Some(uri) = message::text_param(params.as_ref(), "uri") {
                    (self.sink)(ServerEvent::ResourceUpdated(uri));
                }
                return;
            }
            "notifications/message" if via.is_none() => {
                (self.sink)(ServerEvent::Log(params));
                return;
            }
            "notifications/progress" => {
                let token = params
                    .as_ref()
                    .and_then(|params| params.json().get("progressToken"))
                    .and_then(JsonRef::u64);
                if let Some(token) = token {
                    self.deliver(token, FromServer::Notification { method, params });
                }
                return;
            }
            _ => {
                if let Some(via) = via {
                    self.deliver(via, FromServer::Notification { method, params });
                }
                return;
            }
        };
        (self.sink)(ServerEvent::ListChanged(list));
    }

    fn deliver(&self, id: u64, item: FromServer) {
        let table = self.table.lock();
        if let Some(waiting) = table.open.get(&id)
            && waiting.inbox.try_send(item).is_err()
        {
            tracing::debug!(call = id, "a notification was dropped: the client reads too slowly");
        }
    }

    /// Passes a question to the request on whose stream it came, else to the newest one.
    fn ask(
        &self,
        id: &RawJson,
        method: String,
        params: Option<RawJson>,
        via: Option<u64>,
    ) -> Option<String> {
        if method == "ping" {
            return Some(message::answer(id, &Ok(message::empty_object())));
        }
        let table = self.table.lock();
        let target = via
            .and_then(|via| table.open.get(&via))
            .filter(|waiting| waiting.takes_questions)
            .or_else(|| table.open.values().rev().find(|waiting| waiting.takes_questions));
        let refuse =
            |why: &str| Some(message::answer(id, &Err(RpcError::new(METHOD_NOT_FOUND, why))));
        let Some(target) = target else {
            return refuse("no client is there that could answer this");
        };
        let question = FromServer::Question { id: id.clone(), method, params };
        match target.inbox.try_send(question) {
            Ok(()) => None,
            Err(_) => refuse("the client cannot be asked now"),
        }
    }
}
