//! All servers of the config, with their connections and sessions.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::{
    base::sync::{Mutex, RwLock},
    config::settings::{McpServer, Project, Settings},
    mcp::{
        call::ParkedCalls,
        servers::instance::{Instance, InstanceStatus, ServerMemory},
        servers::lists::{ListItems, ListKind},
        servers::parts::{HubEvent, HubParts},
        servers::start_fault::StartFault,
        session::{EndpointScope, Sessions},
        wire::calls::ServerEvent,
        wire::process::ErrorLines,
    },
};

/// How long a list of all servers waits for a slow one.
pub const LIST_WAIT: Duration = Duration::from_secs(5);
/// How long the shutdown waits for programs to end.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(4);

/// A server of the config.
pub struct ServerEntry {
    pub row: Arc<McpServer>,
    pub errors: Arc<ErrorLines>,
    memory: Arc<ServerMemory>,
    instances: Mutex<HashMap<Arc<str>, Arc<Instance>>>,
    /// Why it was left out of the last list.
    left_out: Mutex<Option<String>>,
}

/// The list of one server, or why it is not there.
pub struct Listed {
    pub entry: Arc<ServerEntry>,
    pub instance: Arc<Instance>,
    pub items: Result<ListItems, StartFault>,
}

/// All servers.
pub struct McpHub {
    pub parts: Arc<HubParts>,
    pub sessions: Sessions,
    pub parked: ParkedCalls,
    /// The proxy stops: streams end.
    pub stop: CancellationToken,
    servers: RwLock<Vec<Arc<ServerEntry>>>,
}

impl McpHub {
    #[must_use]
    pub fn new(parts: HubParts, stop: CancellationToken) -> Self {
        Self {
            parts: Arc::new(parts),
            sessions: Sessions::default(),
            parked: ParkedCalls::default(),
            stop,
            servers: RwLock::default(),
        }
    }

    /// Takes over the rows of a config. Servers whose row is the same keep running.
    pub fn apply(&self, settings: &Settings) {
        let mut gone = Vec::new();
        let changed = {
            let mut servers = self.servers.write();
            let mut before = std::mem::take(&mut *servers);
            let is_first = before.is_empty();
            let count = before.len();
            let mut kept = 0;
            for row in &settings.mcp {
                let same = before.iter().position(|entry| entry.row.same_as(row));
                kept += usize::from(same.is_some());
                servers.push(match same {
                    Some(at) => before.remove(at),
                    None => Arc::new(ServerEntry {
                        row: Arc::clone(row),
                        errors: Arc::default(),
                        memory: Arc::default(),
                        instances: Mutex::default(),
                        left_out: Mutex::default(),
                    }),
                });
            }
            gone.append(&mut before);
            !is_first && (kept != count || kept != servers.len()) || is_first && !servers.is_empty()
        };
        for entry in gone {
            for instance in entry.instances.lock().values() {
                instance.retire();
            }
        }
        self.check_documents();
        if changed {
            for method in ["tools/list", "prompts/list", "resources/list"] {
                let event = ServerEvent::ListChanged(method);
                self.parts.publish(HubEvent { server: None, project: None, event });
            }
        }
    }

    /// Reads the documents of API descriptions on this machine, so that a broken one is known before
    /// a client needs it.
    fn check_documents(&self) {
        let is_file = |row: &McpServer| row.openapi.as_ref().is_some_and(|at| !at.contains("://"));
        for entry in self.servers().into_iter().filter(|one| one.row.enabled && is_file(&one.row)) {
            let instance = self.instance(&entry, &Arc::from("default"));
            self.parts.tracker.spawn(async move { drop(instance.peer().await) });
        }
    }

    /// Returns all servers, in the order of the config.
    #[must_use]
    pub fn servers(&self) -> Vec<Arc<ServerEntry>> {
        self.servers.read().clone()
    }

    /// Returns the servers that a project sees at an endpoint.
    #[must_use]
    pub fn visible(&self, project: &Project, scope: &EndpointScope) -> Vec<Arc<ServerEntry>> {
        let servers = self.servers.read();
        let is_visible = |entry: &&Arc<ServerEntry>| {
            entry.row.enabled
                && project.mcp.matches(&entry.row.name)
                && match scope {
                    EndpointScope::All => true,
                    EndpointScope::One(name) => *name == entry.row.name,
                }
        };
        servers.iter().filter(is_visible).cloned().collect()
    }

    /// Returns a server for a project.
    #[must_use]
    pub fn instance(&self, entry: &Arc<ServerEntry>, project: &Arc<str>) -> Arc<Instance> {
        let mut instances = entry.instances.lock();
        let instance = instances.entry(Arc::clone(project)).or_insert_with(|| {
            Arc::new(Instance::new(
                Arc::clone(&entry.row),
                Arc::clone(project),
                Arc::clone(&entry.memory),
                Arc::clone(&self.parts),
                Arc::clone(&entry.errors),
            ))
        });
        Arc::clone(instance)
    }

    /// Reads a list of all these servers at once; waits a bounded time for slow ones.
    pub async fn gather(
        &self,
        project: &Project,
        scope: &EndpointScope,
        kind: ListKind,
    ) -> Vec<Listed> {
        let all = self.visible(project, scope).into_iter().map(|entry| async move {
            let instance = self.instance(&entry, &project.name);
            let items = match tokio::time::timeout(LIST_WAIT, instance.list(kind)).await {
                Ok(items) => items,
                Err(_) => {
                    self.announce_later(&instance, kind);
                    let message = format!("no answer within {} s", LIST_WAIT.as_secs());
                    Err(StartFault { is_timeout: true, ..StartFault::new(message) })
                }
            };
            entry.note_left_out(items.as_ref().err());
            Listed { entry, instance, items }
        });
        join_all(all).await
    }

    /// Notifies listeners when a slow list has arrived.
    fn announce_later(&self, instance: &Arc<Instance>, kind: ListKind) {
        let (instance, parts) = (Arc::clone(instance), Arc::clone(&self.parts));
        self.parts.tracker.spawn(async move {
            if instance.list(kind).await.is_ok() {
                parts.note_late_list(&instance.row.name, &instance.project, kind);
            }
        });
    }

    /// Ends all sessions and programs.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.sessions.close_all();
        for entry in self.servers() {
            let instances: Vec<_> = entry.instances.lock().values().cloned().collect();
            for instance in instances {
                instance.retire();
            }
        }
        self.parts.tracker.close();
        drop(tokio::time::timeout(SHUTDOWN_WAIT, self.parts.tracker.wait()).await);
    }
}

impl ServerEntry {
    /// Logs once why a server is left out.
    fn note_left_out(&self, fault: Option<&StartFault>) {
        let mut left_out = self.left_out.lock();
        match fault {
            Some(fault) => {
                let reason = fault.message.split("; next try").next().unwrap_or_default();
                if left_out.as_deref() != Some(reason) {
                    let server = &self.row.name;
                    tracing::warn!(%server, %reason, "an MCP server is left out of lists");
                    *left_out = Some(reason.to_owned());
                }
            }
            None => *left_out = None,
        }
    }

    /// Returns how the server stands: where it runs, else its last fault.
    #[must_use]
    pub fn status(&self) -> InstanceStatus {
        let all: Vec<_> = self.instances.lock().values().map(|one| one.status()).collect();
        let running = all.iter().find(|status| status.is_running).cloned();
        let failed = || all.iter().find(|status| status.fault.is_some()).cloned();
        let any = || all.first().cloned();
        running.or_else(failed).or_else(any).unwrap_or(InstanceStatus {
            is_running: false,
            fault: None,
            tools: None,
            revision: None,
            pid: None,
        })
    }

    /// Why it was left out of the last list.
    #[must_use]
    pub fn left_out(&self) -> Option<String> {
        self.left_out.lock().clone()
    }

    /// Forgets failures, so that the next use tries at once.
    pub fn forget_failures(&self) {
        self.memory.wants_handshake.store(false, Ordering::Relaxed);
        for instance in self.instances.lock().values() {
            instance.forget_failures();
        }
    }

    /// Returns the connections of all projects.
    #[must_use]
    pub fn instances(&self) -> Vec<Arc<Instance>> {
        self.instances.lock().values().cloned().collect()
    }
}
