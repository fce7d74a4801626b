//! Sessions of clients that begin with a handshake.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    base::{clock::Mono, json::raw::RawJson, sync::Mutex},
    mcp::{
        message::{self, CONNECTION_CLOSED, RpcError},
        revision::{NEWEST_HANDSHAKE, Revision},
        servers::parts::{Waiters, random_token},
    },
};

/// Sessions of all clients together; beyond this number the one that was unused for longest ends.
const MAX_SESSIONS: usize = 2_000;
/// A session that is unused for this long may end.
const MAX_UNUSED: Duration = Duration::from_secs(24 * 3_600);
/// Messages that wait for the stream of a session.
const MAX_WAITING: usize = 256;

/// Which servers an endpoint shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointScope {
    All,
    One(Arc<str>),
}

/// What a client said about itself.
#[derive(Clone, Debug)]
pub struct ClientFacts {
    pub revision: Revision,
    pub capabilities: RawJson,
    pub info: Option<RawJson>,
}

impl Default for ClientFacts {
    fn default() -> Self {
        Self {
            revision: Revision::Handshake(NEWEST_HANDSHAKE),
            capabilities: message::empty_object(),
            info: None,
        }
    }
}

#[derive(Default)]
struct SessionState {
    facts: ClientFacts,
    level: Option<usize>,
    stream: Option<mpsc::Sender<String>>,
    questions: Waiters<oneshot::Sender<Result<RawJson, RpcError>>>,
    running: HashMap<String, CancellationToken>,
    subscriptions: HashSet<String>,
    last_used: Mono,
    last_question: u64,
}

/// A session. It belongs to the project and the endpoint that opened it.
pub struct McpSession {
    pub id: String,
    pub project: Arc<str>,
    pub scope: EndpointScope,
    pub closed: CancellationToken,
    state: Mutex<SessionState>,
}

impl McpSession {
    #[must_use]
    pub fn facts(&self) -> ClientFacts {
        self.state.lock().facts.clone()
    }

    pub fn set_facts(&self, facts: ClientFacts) {
        self.state.lock().facts = facts;
    }

    #[must_use]
    pub fn level(&self) -> Option<usize> {
        self.state.lock().level
    }

    pub fn set_level(&self, level: usize) {
        self.state.lock().level = Some(level);
    }

    /// Opens the stream for what belongs to no request; an earlier one ends.
    pub fn open_stream(&self) -> mpsc::Receiver<String> {
        let (sender, stream) = mpsc::channel(MAX_WAITING);
        self.state.lock().stream = Some(sender);
        stream
    }

    /// Whether the client reads a stream.
    #[must_use]
    pub fn has_stream(&self) -> bool {
        self.state.lock().stream.as_ref().is_some_and(|stream| !stream.is_closed())
    }

    /// Sends a message on the stream; returns whether there is one.
    pub fn send(&self, text: String) -> bool {
        let stream = self.state.lock().stream.clone();
        stream.is_some_and(|stream| stream.try_send(text).is_ok())
    }

    /// Sends a message on the stream; waits while the client is slow.
    pub async fn send_surely(&self, text: String) -> bool {
        let stream = self.state.lock().stream.clone();
        match stream {
            Some(stream) => stream.send(text).await.is_ok(),
            None => false,
        }
    }

    /// Registers a question to the client. Returns its id and the place of its answer.
    pub fn ask(&self) -> (String, oneshot::Receiver<Result<RawJson, RpcError>>) {
        let (sender, answer) = oneshot::channel();
        let mut state = self.state.lock();
        state.last_question += 1;
        let id = format!("aiproxy-{}", state.last_question);
        state.questions.insert(id.clone(), sender);
        (id, answer)
    }

    /// Takes an answer of the client; returns whether there was such a question.
    pub fn answer(&self, id: &RawJson, result: Result<RawJson, RpcError>) -> bool {
        let id = id.json().str().unwrap_or_default().into_owned();
        let question = self.state.lock().questions.remove(&id);
        question.is_some_and(|question| question.send(result).is_ok())
    }

    /// Forgets a question.
    pub fn forget_question(&self, id: &str) {
        self.state.lock().questions.remove(id);
    }

    /// Notes a running request, so that it can be cancelled.
    pub fn begin(&self, id: &RawJson, gone: &CancellationToken) {
        self.state.lock().running.insert(id.text().to_owned(), gone.clone());
    }

    /// Forgets a request that ended.
    pub fn end(&self, id: &RawJson) {
        self.state.lock().running.remove(id.text());
    }

    /// Cancels a running request.
    pub fn cancel(&self, id: &str) {
        if let Some(gone) = self.state.lock().running.remove(id) {
            gone.cancel();
        }
    }

    /// Adds or removes a subscription to a resource; returns whether that is new.
    pub fn subscribe(&self, uri: &str, on: bool) -> bool {
        let subscriptions = &mut self.state.lock().subscriptions;
        if on { subscriptions.insert(uri.to_owned()) } else { subscriptions.remove(uri) }
    }

    #[must_use]
    pub fn is_subscribed(&self, uri: &str) -> bool {
        self.state.lock().subscriptions.contains(uri)
    }

    fn close(&self) {
        self.closed.cancel();
        let mut state = self.state.lock();
        state.stream = None;
        for (_, gone) in state.running.drain() {
            gone.cancel();
        }
        for (_, question) in state.questions.drain() {
            let error = RpcError::new(CONNECTION_CLOSED, "the client ended its session");
            drop(question.send(Err(error)));
        }
    }
}

/// All sessions.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<String, Arc<McpSession>>>);

impl Sessions {
    /// Opens a session; `None` if the system has no randomness.
    pub fn open(
        &self,
        project: &Arc<str>,
        scope: EndpointScope,
        now: Mono,
    ) -> Option<Arc<McpSession>> {
        let id = random_token()?;
        let session = Arc::new(McpSession {
            id: id.clone(),
            project: Arc::clone(project),
            scope,
            closed: CancellationToken::new(),
            state: Mutex::new(SessionState { last_used: now, ..SessionState::default() }),
        });
        let mut sessions = self.0.lock();
        sessions.retain(|_, session| {
            let state = session.state.lock();
            let unused = now.since(state.last_used) > MAX_UNUSED;
            let is_kept = !unused || state.stream.as_ref().is_some_and(|s| !s.is_closed());
            drop(state);
            if !is_kept {
                session.close();
            }
            is_kept
        });
        if sessions.len() >= MAX_SESSIONS {
            let oldest = sessions.values().min_by_key(|session| session.state.lock().last_used);
            if let Some(oldest) = oldest.map(|session| session.id.clone())
                && let Some(session) = sessions.remove(&oldest)
            {
                session.close();
            }
        }
        sessions.insert(id, Arc::clone(&session));
        Some(session)
    }

    /// Returns a session of this project at this endpoint.
    #[must_use]
    pub fn find(
        &self,
        id: &str,
        project: &str,
        scope: &EndpointScope,
        now: Mono,
    ) -> Option<Arc<McpSession>> {
        let session = self.0.lock().get(id).cloned()?;
        if *session.project != *project || session.scope != *scope {
            return None;
        }
        session.state.lock().last_used = now;
        Some(session)
    }

    /// Ends a session.
    pub fn close(&self, id: &str) {
        let session = self.0.lock().remove(id);
        if let Some(session) = session {
            session.close();
        }
    }

    /// Ends all sessions.
    pub fn close_all(&self) {
        let sessions = std::mem::take(&mut *self.0.lock());
        for session in sessions.into_values() {
            session.close();
        }
    }

    /// Returns the least severe level that a session of this project wants.
    #[must_use]
    pub fn least_level(&self, project: &str) -> Option<usize> {
        let sessions = self.0.lock();
        let of_project = sessions.values().filter(|session| *session.project == *project);
        of_project.filter_map(|session| session.level()).min()
    }
}
