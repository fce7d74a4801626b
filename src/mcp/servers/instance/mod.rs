//! One server for one project: started on first use, restarted with growing pauses, stopped when it
//! is not used.

mod listing;
mod starting;
mod watching;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::sync::{Notify, broadcast};

use crate::{
    base::{clock::Mono, json::raw::RawJson, sync::Mutex},
    config::settings::McpServer,
    mcp::{
        servers::lists::{ListCache, ListKind},
        servers::parts::{HubEvent, HubParts},
        servers::start_fault::StartFault,
        wire::calls::CallFault,
        wire::peer::{Peer, PeerWire},
        wire::process::ErrorLines,
    },
};

pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(1);
pub(super) const MAX_PAUSE: Duration = Duration::from_secs(60);

type PeerStarting = Shared<BoxFuture<'static, Result<Arc<Peer>, StartFault>>>;

/// What is remembered of a server beyond one connection.
#[derive(Debug, Default)]
pub struct ServerMemory {
    /// It is known to want the handshake.
    pub wants_handshake: std::sync::atomic::AtomicBool,
    /// Calls of the last minute.
    recent_calls: Mutex<VecDeque<Mono>>,
}

#[derive(Default)]
struct InstanceState {
    peer: Option<Arc<Peer>>,
    starting: Option<PeerStarting>,
    failures: u32,
    retry_at: Option<Mono>,
    fault: Option<StartFault>,
    /// The row is gone; nothing is started any more.
    retired: bool,
    last_used: Option<Mono>,
    /// The lowest log level that clients with a session request.
    level: Option<usize>,
}

/// One server for one project.
pub struct Instance {
    pub row: Arc<McpServer>,
    pub project: Arc<str>,
    pub lists: ListCache,
    pub errors: Arc<ErrorLines>,
    parts: Arc<HubParts>,
    memory: Arc<ServerMemory>,
    state: Mutex<InstanceState>,
    /// Addresses of resources that clients subscribe to.
    watched: Mutex<Vec<String>>,
    watched_changed: Notify,
}

/// How a server stands, for lists of servers.
#[derive(Clone, Debug)]
pub struct InstanceStatus {
    pub is_running: bool,
    pub fault: Option<StartFault>,
    pub tools: Option<usize>,
    pub revision: Option<&'static str>,
    pub pid: Option<u32>,
}

impl Instance {
    #[must_use]
    pub fn new(
        row: Arc<McpServer>,
        project: Arc<str>,
        memory: Arc<ServerMemory>,
        parts: Arc<HubParts>,
        errors: Arc<ErrorLines>,
    ) -> Self {
        Self {
            row,
            project,
            lists: ListCache::default(),
            errors,
            parts,
            memory,
            state: Mutex::default(),
            watched: Mutex::default(),
            watched_changed: Notify::new(),
        }
    }

    /// Returns the connection; connects if necessary.
    ///
    /// # Errors
    ///
    /// The server cannot be started or spoken to.
    pub async fn peer(self: &Arc<Self>) -> Result<Arc<Peer>, StartFault> {
        let starting = {
            let mut state = self.state.lock();
            if state.retired {
                return Err(StartFault::new("the server was removed from the config"));
            }
            state.last_used = Some(self.parts.clock.mono());
            if let Some(peer) = state.peer.as_ref().filter(|peer| !peer.closed.is_cancelled()) {
                return Ok(Arc::clone(peer));
            }
            match &state.starting {
                Some(starting) => starting.clone(),
                None => {
                    let starting = Arc::clone(self).start().boxed().shared();
                    // A client that leaves must not end the start for those that stay.
                    self.parts.tracker.spawn(starting.clone().map(drop));
                    state.starting.insert(starting).clone()
                }
            }
        };
        starting.await
    }

    /// Returns the connection if there is one.
    #[must_use]
    pub fn running(&self) -> Option<Arc<Peer>> {
        self.state.lock().peer.clone().filter(|peer| !peer.closed.is_cancelled())
    }

    #[must_use]
    pub fn status(&self) -> InstanceStatus {
        let peer = self.running();
        let state = self.state.lock();
        InstanceStatus {
            is_running: peer.is_some(),
            fault: state.fault.clone().filter(|_| peer.is_none()),
            tools: self.lists.known(ListKind::Tools).map(|tools| tools.len()),
            revision: peer.as_ref().map(|peer| peer.agreement.revision.name()),
            pid: peer.and_then(|peer| match &peer.wire {
                PeerWire::Stdio(wire) => wire.pid(),
                _ => None,
            }),
        }
    }

    /// Ends the connection for good.
    pub fn retire(&self) -> Option<Arc<Peer>> {
        let peer = {
            let mut state = self.state.lock();
            state.retired = true;
            state.peer.take()
        };
        if let Some(peer) = &peer {
            peer.close("the server was removed from the config or the proxy stops");
        }
        peer
    }

    /// Closes a connection whose session the server has ended.
    pub fn drop_peer(&self, peer: &Arc<Peer>) {
        peer.close("the server ended the session");
        let mut state = self.state.lock();
        if state.peer.as_ref().is_some_and(|current| Arc::ptr_eq(current, peer)) {
            state.peer = None;
        }
    }

    /// Forgets failures, so that the next use tries at once.
    pub fn forget_failures(&self) {
        let mut state = self.state.lock();
        (state.failures, state.retry_at, state.fault) = (0, None, None);
    }

    /// Asks an old server for log messages of this level, now and after each start.
    pub fn set_level(self: &Arc<Self>, level: usize) {
        self.state.lock().level = Some(level);
        if let Some(peer) = self.running() {
            self.send_level(&peer);
        }
    }

    pub(super) fn send_level(self: &Arc<Self>, peer: &Arc<Peer>) {
        let Some(level) = self.state.lock().level else { return };
        if peer.agreement.revision.is_stateless() || !peer.agreement.has(&["logging"]) {
            return;
        }
        let peer = Arc::clone(peer);
        self.parts.tracker.spawn(async move {
            let params = RawJson::object(|o| {
                o.str("level", crate::mcp::log_level::LEVELS[level]);
            });
            let asked = peer.ask("logging/setLevel", Some(params), Duration::from_secs(5)).await;
            if let Err(fault) = asked {
                tracing::debug!(%fault, "an MCP server did not take the log level");
            }
        });
    }

    /// Makes sure that the server reports changes of a resource.
    ///
    /// # Errors
    ///
    /// The server cannot be reached or refuses.
    pub async fn watch_resource(self: &Arc<Self>, uri: &str, on: bool) -> Result<(), CallFault> {
        let peer = self.peer().await.map_err(|fault| CallFault::Closed(fault.message))?;
        {
            let mut watched = self.watched.lock();
            watched.retain(|known| known != uri);
            if on {
                watched.push(uri.to_owned());
            }
        }
        if peer.agreement.revision.is_stateless() {
            self.watched_changed.notify_waiters();
            return Ok(());
        }
        let method = if on { "resources/subscribe" } else { "resources/unsubscribe" };
        let params = RawJson::object(|o| {
            o.str("uri", uri);
        });
        peer.ask(method, Some(params), self.row.timeout).await.map(drop)
    }

    /// Returns the events of all servers.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<HubEvent> {
        self.parts.events.subscribe()
    }

    /// Counts a call of a tool.
    ///
    /// # Errors
    ///
    /// The row allows no more calls in this minute; the time after which it does.
    pub fn admit_call(&self) -> Result<(), Duration> {
        const MINUTE: Duration = Duration::from_secs(60);
        let limit = usize::try_from(self.row.rpm).unwrap_or(usize::MAX);
        if limit == 0 {
            return Ok(());
        }
        let now = self.parts.clock.mono();
        let mut calls = self.memory.recent_calls.lock();
        while calls.front().is_some_and(|at| now.since(*at) >= MINUTE) {
            calls.pop_front();
        }
        match calls.front() {
            Some(first) if calls.len() >= limit => Err(MINUTE - now.since(*first)),
            _ => {
                calls.push_back(now);
                Ok(())
            }
        }
    }

    /// Notes that the server was used until now.
    pub fn touch(&self) {
        self.state.lock().last_used = Some(self.parts.clock.mono());
    }
}
