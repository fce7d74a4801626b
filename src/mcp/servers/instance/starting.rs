//! Starts a server and agrees with it on a revision.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use http::HeaderMap;
use tokio_util::sync::CancellationToken;

use crate::{
    base::{backoff, json::raw::RawJson},
    config::settings::McpKind,
    mcp::{
        revision::{NEWEST_HANDSHAKE, Revision},
        servers::parts::HubEvent,
        servers::start_fault::StartFault,
        wire::calls::{CallFault, EventSink, OpenCalls, ServerEvent},
        wire::old_sse::SseWire,
        wire::peer::{self, Agreement, NegotiationFault, Peer, PeerWire},
        wire::stdio::StdioWire,
        wire::streamable::HttpWire,
    },
};

use super::{FIRST_PAUSE, Instance, MAX_PAUSE};

/// A request waits this long for the end of a pause; a longer one is an error at once.
const PAUSE_WAIT: Duration = Duration::from_secs(2);

impl Instance {
    pub(super) async fn start(self: Arc<Self>) -> Result<Arc<Peer>, StartFault> {
        let started = self.start_after_pause().await;
        let mut state = self.state.lock();
        state.starting = None;
        match &started {
            Ok(peer) if state.retired => {
                peer.close("the server was removed from the config");
                return Err(StartFault::new("the server was removed from the config"));
            }
            Ok(peer) => {
                state.peer = Some(Arc::clone(peer));
                state.fault = None;
            }
            Err(StartFailure::Paused(fault)) => return Err(fault.clone()),
            Err(StartFailure::Failed(fault)) => {
                state.failures += 1;
                let pause = backoff::exponential(FIRST_PAUSE, MAX_PAUSE, state.failures - 1);
                state.retry_at = Some(self.parts.clock.mono() + pause);
                if state.fault.as_ref() != Some(fault) {
                    let (server, project) = (&self.row.name, &self.project);
                    tracing::warn!(%server, %project, reason = %fault.message, "an MCP server cannot be used");
                }
                state.fault = Some(fault.clone());
                return Err(fault.clone());
            }
        }
        drop(state);
        let peer = started.map_err(|_| StartFault::new("it did not start"))?;
        self.watch(&peer);
        self.send_level(&peer);
        Ok(peer)
    }

    async fn start_after_pause(self: &Arc<Self>) -> Result<Arc<Peer>, StartFailure> {
        let (pause, fault) = {
            let state = self.state.lock();
            let pause = state.retry_at.map(|at| at.since(self.parts.clock.mono()));
            (pause.unwrap_or_default(), state.fault.clone())
        };
        if pause > PAUSE_WAIT {
            let why = fault.as_ref().map_or("it failed", |fault| &fault.message);
            let message = format!("{why}; next try in {} s", pause.as_secs() + 1);
            let needs_login = fault.as_ref().is_some_and(|fault| fault.needs_login);
            return Err(StartFailure::Paused(StartFault {
                needs_login,
                ..StartFault::new(message)
            }));
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let limit = self.row.timeout;
        match tokio::time::timeout(limit, self.connect()).await {
            Ok(connected) => connected.map_err(StartFailure::Failed),
            Err(_) => Err(StartFailure::Failed(StartFault {
                is_timeout: true,
                ..StartFault::new(format!("it did not answer within {} s", limit.as_secs()))
            })),
        }
    }

    pub(super) async fn connect(self: &Arc<Self>) -> Result<Arc<Peer>, StartFault> {
        use std::sync::atomic::Ordering::Relaxed;
        let probe = !self.memory.wants_handshake.load(Relaxed);
        match self.connect_once(probe).await {
            Ok(peer) => Ok(peer),
            Err(NegotiationFault::DiedOnProbe) => {
                self.memory.wants_handshake.store(true, Relaxed);
                self.connect_once(false).await.map_err(|fault| self.describe(fault))
            }
            Err(fault) => Err(self.describe(fault)),
        }
    }

    pub(super) fn describe(&self, fault: NegotiationFault) -> StartFault {
        match fault {
            NegotiationFault::DiedOnProbe => StartFault::new("the program ended at its start"),
            NegotiationFault::Failed(fault) => StartFault::from_call(&self.row.name, &fault),
        }
    }

    pub(super) async fn connect_once(
        self: &Arc<Self>,
        probe: bool,
    ) -> Result<Arc<Peer>, NegotiationFault> {
        let closed = |reason: String| NegotiationFault::Failed(CallFault::Closed(reason.into()));
        let calls = Arc::new(OpenCalls::new(self.sink()));
        let complete = CancellationToken::new();
        let wire = match self.row.kind() {
            McpKind::Stdio => {
                let parts = &self.parts;
                let started = StdioWire::start(
                    &self.row,
                    &parts.resolver,
                    &parts.spawner,
                    &calls,
                    &self.errors,
                    &parts.tracker,
                );
                PeerWire::Stdio(started.await.map_err(closed)?)
            }
            McpKind::Http => return self.connect_http(calls, probe).await,
            McpKind::Builtin | McpKind::Openapi => {
                let service = self.parts.services.service(&self.row).await.map_err(closed)?;
                PeerWire::Local(service)
            }
        };
        let agreement = {
            // A start that is given up must not leave a program behind.
            let _stop = StopOnDrop { wire: &wire, complete: &complete };
            let agreement = match &wire {
                PeerWire::Local(_) => local_agreement(),
                _ => peer::negotiate(&wire, &calls, probe).await?,
            };
            complete.cancel();
            agreement
        };
        if probe && matches!(agreement.revision, Revision::Handshake(_)) {
            self.memory.wants_handshake.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(self.new_peer(wire, calls, agreement))
    }

    pub(super) fn new_peer(
        &self,
        wire: PeerWire,
        calls: Arc<OpenCalls>,
        agreement: Agreement,
    ) -> Arc<Peer> {
        let tracker = self.parts.tracker.clone();
        Arc::new(Peer::new(wire, calls, agreement, CancellationToken::new(), tracker))
    }

    pub(super) async fn connect_http(
        self: &Arc<Self>,
        calls: Arc<OpenCalls>,
        probe: bool,
    ) -> Result<Arc<Peer>, NegotiationFault> {
        let closed = |reason: String| NegotiationFault::Failed(CallFault::Closed(reason.into()));
        let url = self.row.url.clone().unwrap_or_default();
        let client = self.parts.web.for_url(&url).await.map_err(closed)?.clone();
        let headers = self.parts.headers(&self.row).await.map_err(closed)?;
        let tokens = self.parts.services.tokens(&self.row);
        let http =
            HttpWire::new(client.clone(), url.clone(), headers.clone(), Arc::clone(&calls), tokens);
        let wire = PeerWire::Http(Arc::new(http));
        match peer::negotiate(&wire, &calls, probe).await {
            Ok(agreement) => {
                if matches!(agreement.revision, Revision::Handshake(_)) {
                    self.memory.wants_handshake.store(true, std::sync::atomic::Ordering::Relaxed);
                }
                Ok(self.new_peer(wire, calls, agreement))
            }
            Err(NegotiationFault::Failed(fault @ CallFault::Status(400..500, _))) => {
                self.connect_old_sse(client, &url, headers, calls).await.map_err(|second| {
                    match second {
                        // The first answer says more about what is wrong.
                        NegotiationFault::Failed(CallFault::Status(..)) => {
                            NegotiationFault::Failed(fault)
                        }
                        other => other,
                    }
                })
            }
            Err(fault) => Err(fault),
        }
    }

    pub(super) async fn connect_old_sse(
        &self,
        client: reqwest::Client,
        url: &str,
        headers: HeaderMap,
        calls: Arc<OpenCalls>,
    ) -> Result<Arc<Peer>, NegotiationFault> {
        let opened =
            SseWire::open(client, url, headers, Arc::clone(&calls), &self.parts.tracker).await;
        let wire = PeerWire::OldSse(opened.map_err(NegotiationFault::Failed)?);
        let agreement = peer::negotiate(&wire, &calls, false).await?;
        Ok(self.new_peer(wire, calls, agreement))
    }

    pub(super) fn sink(self: &Arc<Self>) -> EventSink {
        let instance: Weak<Self> = Arc::downgrade(self);
        Arc::new(move |event| {
            if let Some(instance) = instance.upgrade() {
                instance.take_event(event);
            }
        })
    }

    pub(super) fn take_event(&self, event: ServerEvent) {
        if let ServerEvent::ListChanged(method) = &event {
            self.lists.expire(method);
        }
        self.parts.publish(HubEvent {
            server: Some(Arc::clone(&self.row.name)),
            project: Some(Arc::clone(&self.project)),
            event,
        });
    }
}

enum StartFailure {
    Failed(StartFault),
    /// It is not tried now.
    Paused(StartFault),
}

/// Stops a program unless its start is complete.
struct StopOnDrop<'a> {
    wire: &'a PeerWire,
    complete: &'a CancellationToken,
}

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        if let (false, PeerWire::Stdio(wire)) = (self.complete.is_cancelled(), self.wire) {
            wire.stop();
        }
    }
}

fn local_agreement() -> Agreement {
    Agreement {
        revision: Revision::Handshake(NEWEST_HANDSHAKE),
        capabilities: RawJson::object(|o| {
            o.object("tools", |_| {});
        }),
        info: None,
        instructions: None,
    }
}
