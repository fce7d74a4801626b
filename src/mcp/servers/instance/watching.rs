//! Follows a connection: its end, idle time and what the server reports.

use std::{sync::Arc, time::Duration};

use crate::{
    base::{backoff, clock::Mono, json::raw::RawJson},
    mcp::{
        revision::Revision,
        servers::start_fault::StartFault,
        wire::calls::CallFault,
        wire::peer::{Agreement, Peer, PeerWire},
    },
};

use super::{FIRST_PAUSE, Instance, MAX_PAUSE};

/// A server that ran this long did not fail at its start.
const STABLE_AFTER: Duration = Duration::from_secs(10);

impl Instance {
    /// Follows a connection to its end.
    pub(super) fn watch(self: &Arc<Self>, peer: &Arc<Peer>) {
        let began = self.parts.clock.mono();
        let ended = match &peer.wire {
            PeerWire::Stdio(wire) => Some(wire.ended().clone()),
            PeerWire::OldSse(wire) => Some(wire.stop.clone()),
            PeerWire::Http(_) | PeerWire::Local(_) => None,
        };
        if let Some(ended) = ended {
            let (instance, peer) = (Arc::clone(self), Arc::clone(peer));
            self.parts.tracker.spawn(async move {
                ended.cancelled().await;
                instance.connection_ended(&peer, began);
            });
        }
        if matches!(peer.wire, PeerWire::Stdio(_)) {
            let (instance, peer) = (Arc::clone(self), Arc::clone(peer));
            self.parts.tracker.spawn(async move { instance.stop_when_idle(&peer).await });
        }
        let (instance, peer) = (Arc::clone(self), Arc::clone(peer));
        self.parts.tracker.spawn(async move {
            let closed = peer.closed.clone();
            tokio::select! {
                () = closed.cancelled() => {}
                () = instance.listen(&peer) => {}
            }
        });
    }

    pub(super) fn connection_ended(&self, peer: &Arc<Peer>, began: Mono) {
        let was_wanted = peer.closed.is_cancelled();
        peer.closed.cancel();
        let mut state = self.state.lock();
        if state.peer.as_ref().is_some_and(|current| Arc::ptr_eq(current, peer)) {
            state.peer = None;
        }
        if was_wanted || state.retired {
            return;
        }
        let now = self.parts.clock.mono();
        state.failures =
            if now.since(began) >= STABLE_AFTER { 1 } else { state.failures.saturating_add(1) };
        let pause = backoff::exponential(FIRST_PAUSE, MAX_PAUSE, state.failures - 1);
        state.retry_at = Some(now + pause);
        let last = self.errors.last().map(|line| format!(": {line}")).unwrap_or_default();
        let fault = StartFault::new(format!("the server ended{last}"));
        let (server, project) = (&self.row.name, &self.project);
        tracing::warn!(%server, %project, reason = %fault.message, "an MCP server ended");
        state.fault = Some(fault);
    }

    pub(super) async fn stop_when_idle(&self, peer: &Peer) {
        loop {
            let used = self.state.lock().last_used.unwrap_or_default();
            let idle = self.parts.clock.mono().since(used);
            let left = self.row.idle_stop.saturating_sub(idle);
            if left.is_zero() && peer.calls.busy() == 0 {
                tracing::debug!(server = %self.row.name, "an MCP server is not used and stops");
                peer.close("the server was not used and stopped");
                return;
            }
            let pause = left.max(Duration::from_millis(250));
            tokio::select! {
                () = peer.closed.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Reads the notifications that the server sends outside requests.
    pub(super) async fn listen(&self, peer: &Arc<Peer>) {
        let mut pause = FIRST_PAUSE;
        match (&peer.wire, peer.agreement.revision) {
            (PeerWire::Http(wire), Revision::Handshake(_)) => loop {
                match wire.listen().await {
                    Ok(()) => pause = FIRST_PAUSE,
                    Err(CallFault::Status(..) | CallFault::LoginNeeded) => return,
                    Err(_) => pause = (pause * 2).min(MAX_PAUSE),
                }
                tokio::time::sleep(pause).await;
            },
            (_, Revision::Stateless) => loop {
                let changed = self.watched_changed.notified();
                let params = self.subscription(&peer.agreement);
                let listening = async {
                    let Some(params) = params else { return std::future::pending().await };
                    peer.subscribe(params).await
                };
                tokio::select! {
                    () = changed => continue,
                    supported = listening => if !supported { return },
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            },
            _ => {}
        }
    }

    /// Returns what a stateless server is asked to report; `None` if there is nothing.
    pub(super) fn subscription(&self, agreement: &Agreement) -> Option<RawJson> {
        let watched = self.watched.lock().clone();
        let lists = [
            ("toolsListChanged", "tools"),
            ("promptsListChanged", "prompts"),
            ("resourcesListChanged", "resources"),
        ];
        let wanted: Vec<_> = lists
            .into_iter()
            .filter(|(_, capability)| agreement.has(&[capability, "listChanged"]))
            .collect();
        if wanted.is_empty() && watched.is_empty() {
            return None;
        }
        Some(RawJson::object(|o| {
            o.object("notifications", |o| {
                for (name, _) in wanted {
                    o.bool(name, true);
                }
                if !watched.is_empty() {
                    o.array("resourceSubscriptions", |a| {
                        for uri in &watched {
                            a.str(uri);
                        }
                    });
                }
            });
        }))
    }
}
