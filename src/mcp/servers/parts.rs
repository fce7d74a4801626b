//! What all servers share.

use std::{collections::HashMap, future::Future, pin::Pin, sync::Arc};

use http::{HeaderMap, HeaderName};
use tokio::sync::broadcast;
use tokio_util::task::TaskTracker;

use crate::{
    base::clock::Clock,
    config::settings::McpServer,
    mcp::{
        call_log::CallLog, servers::lists::ListKind, wire::calls::ServerEvent,
        wire::peer::LocalService, wire::process::ChildSpawner, wire::tokens::TokenSource,
    },
    secrets::resolve::SecretResolver,
    upstream::web_client::WebClient,
};

/// Events that a slow listener may miss.
const MAX_WAITING_EVENTS: usize = 1_024;

/// Something changed at a server, or at all of them.
#[derive(Clone, Debug)]
pub struct HubEvent {
    /// `None` for all servers.
    pub server: Option<Arc<str>>,
    /// `None` for all projects.
    pub project: Option<Arc<str>>,
    pub event: ServerEvent,
}

/// A boxed future that makes a service.
pub type ServiceFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Arc<dyn LocalService>, String>> + Send + 'a>>;

/// Makes the servers inside the program, and knows the logins.
pub trait Services: Send + Sync {
    /// Makes the server of a row with `openapi` or `builtin`.
    fn service<'a>(&'a self, row: &'a Arc<McpServer>) -> ServiceFuture<'a>;

    /// Returns the source of access tokens of a row with `oauth`.
    fn tokens(&self, row: &Arc<McpServer>) -> Option<Arc<dyn TokenSource>>;
}

/// What all servers share.
pub struct HubParts {
    pub clock: Arc<dyn Clock>,
    pub resolver: Arc<SecretResolver>,
    pub spawner: ChildSpawner,
    pub web: Arc<WebClient>,
    pub tracker: TaskTracker,
    pub events: broadcast::Sender<HubEvent>,
    pub services: Arc<dyn Services>,
    pub call_log: Arc<dyn CallLog>,
    /// Random text of this process that no client knows.
    pub salt: String,
}

impl HubParts {
    #[must_use]
    pub fn new(
        clock: Arc<dyn Clock>,
        resolver: Arc<SecretResolver>,
        web: Arc<WebClient>,
        services: Arc<dyn Services>,
        call_log: Arc<dyn CallLog>,
    ) -> Self {
        Self {
            clock,
            resolver,
            spawner: ChildSpawner::default(),
            web,
            tracker: TaskTracker::new(),
            events: broadcast::Sender::new(MAX_WAITING_EVENTS),
            services,
            call_log,
            salt: random_token().unwrap_or_default(),
        }
    }

    /// Notifies all listeners.
    pub fn publish(&self, event: HubEvent) {
        // An error means that there are no listeners.
        drop(self.events.send(event));
    }

    /// Notifies listeners of a list that was missing from an earlier answer.
    pub fn note_late_list(&self, server: &Arc<str>, project: &Arc<str>, kind: ListKind) {
        self.publish(HubEvent {
            server: Some(Arc::clone(server)),
            project: Some(Arc::clone(project)),
            event: ServerEvent::ListChanged(kind.method()),
        });
    }

    /// Reads the headers of a row.
    ///
    /// # Errors
    ///
    /// A sentence that names the header whose value cannot be read.
    pub async fn headers(&self, row: &McpServer) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, reference) in &row.headers {
            let value = self.resolver.resolve_header_value(reference).await;
            let value = value.map_err(|error| format!("the header {name}: {}", error.text()))?;
            let name = HeaderName::from_bytes(name.as_bytes());
            let (Ok(name), Some(value)) = (name, value.header_value()) else {
                return Err("a header cannot be sent".to_owned());
            };
            headers.insert(name, value);
        }
        Ok(headers)
    }
}

/// Tasks that wait for something, by an id that cannot be guessed.
pub type Waiters<T> = HashMap<String, T>;

/// Returns 32 hex digits that cannot be guessed.
#[must_use]
pub fn random_token() -> Option<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
