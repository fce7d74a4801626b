//! Reads key references in the background and stores the results for the request path.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::join_all};
use tokio::sync::mpsc;

use super::super::client_key::{self, KeyLocation};
use crate::{
    base::{clock::Mono, sync::Mutex},
    config::{
        Settings,
        file::Paths,
        settings::{KeyId, Project, Upstream, UpstreamKey},
    },
    control::action_message::ActionMessage,
    events::{
        event::{EventKind, Severity},
        status_message::notice::NoticeMessage,
    },
    ir::reason::missing_secret::MissingSecret,
    relay::{
        background::{refresh_models, save_health},
        engine::Engine,
    },
    secrets::{
        Reference, Secret,
        file::FileError,
        keyring::Keyring,
        redact::KnownSecrets,
        resolve::{ResolveError, SecretResolver},
    },
    server::guard::credential::{ClientKeys, ClientTable},
    upstream::keys::SecretState,
};

/// How often references are checked for a due refresh.
const REFRESH_POLL_INTERVAL: Duration = Duration::from_secs(15);

/// Loads the secrets behind key references.
pub struct KeyLoader {
    pub engine: Arc<Engine>,
    pub resolver: SecretResolver,
    pub known_secrets: Arc<KnownSecrets>,
    pub keyring: Keyring,
    pub paths: Paths,
    /// The key of project `default` and its location, once known.
    pub default_key: Mutex<Option<(Arc<Secret>, KeyLocation)>>,
}

impl KeyLoader {
    /// Reads the references of all provider keys concurrently. A usable key remains usable until
    /// its new secret is known.
    pub async fn load_provider_keys(&self, settings: &Settings) {
        let keys = upstream_keys(settings);
        join_all(keys.iter().map(|(upstream, key)| self.load_key(upstream, key))).await;
        self.engine.group_accounts();
        self.engine.notify_waiters();
    }

    /// Loads the keys that need no prompt or external program. Runs before the listener opens, so
    /// that no request finds them missing.
    pub fn load_immediate(&self, settings: &Settings) {
        for (upstream, key) in upstream_keys(settings) {
            if matches!(key.reference, Reference::Env(_) | Reference::Literal(_)) {
                self.load_key(&upstream, &key).now_or_never().unwrap_or_default();
            }
        }
        self.engine.group_accounts();
    }

    async fn load_key(&self, upstream: &Upstream, key: &UpstreamKey) {
        if !key.enabled || !upstream.enabled {
            return;
        }
        let before = self.engine.keys.summary(key.id).state;
        if !self.engine.keys.is_ready(key.id) {
            self.engine.keys.set_waiting(key.id);
        }
        match self.resolver.resolve(&key.reference).await {
            Ok(secret) => {
                if self.engine.keys.same_secret(key.id, &secret) {
                    return;
                }
                self.known_secrets.add(&secret);
                let secret = Arc::new(secret);
                self.engine.keys.set(key.id, secret);
                // The health record of the old secret does not apply to the new one.
                self.engine.router.reset_key(key.id);
                save_health::restore_key(&self.engine, key);
            }
            Err(error) => {
                let missing = Arc::new(missing_secret(&error, &upstream.name));
                // Log the same error only once, however often the reference is read.
                if before != SecretState::Missing(Arc::clone(&missing)) {
                    tracing::warn!(key = %key.name, "{missing}");
                    let notice = NoticeMessage::KeyNotUsable {
                        name: Arc::clone(&key.name),
                        secret: Arc::clone(&missing),
                    };
                    self.engine.bus.publish(
                        self.engine.clock.unix(),
                        EventKind::Notice { text: notice.into(), level: Severity::Warn },
                    );
                }
                self.engine.keys.set_missing(key.id, missing);
            }
        }
        self.engine.notify_waiters();
    }

    /// Makes unknown tokens wait instead of being rejected until the client keys are loaded.
    /// Literal keys are available immediately.
    pub fn mark_clients_loading(&self, clients: &ClientKeys, settings: &Settings) {
        let literal: Vec<_> = settings
            .projects
            .iter()
            .filter_map(|project| match &project.key {
                Some(Reference::Literal(secret)) => Some((&**secret, Arc::clone(project))),
                _ => None,
            })
            .collect();
        clients.set(ClientTable::new(literal, true, anonymous_project(settings)));
    }

    /// Reads the client keys of all projects.
    pub async fn load_client_keys(&self, clients: &ClientKeys, settings: &Settings) {
        let read = settings.projects.iter().map(|project| async move {
            (self.load_client_key(project).await, Arc::clone(project))
        });
        let read = join_all(read).await;
        let keys: Vec<_> = read
            .iter()
            .filter_map(|(secret, project)| Some((secret.as_deref()?, Arc::clone(project))))
            .collect();
        for (secret, _) in &keys {
            self.known_secrets.add(secret);
        }
        clients.set(ClientTable::new(keys, false, anonymous_project(settings)));
    }

    async fn load_client_key(&self, project: &Project) -> Option<Arc<Secret>> {
        let Some(reference) = &project.key else {
            return match client_key::default_client_key(&self.paths, &self.keyring).await {
                Ok((secret, location)) => {
                    let secret = Arc::new(secret);
                    *self.default_key.lock() = Some((Arc::clone(&secret), location));
                    Some(secret)
                }
                Err(error) => {
                    tracing::error!(project = %project.name, "{error}");
                    None
                }
            };
        };
        match self.resolver.resolve_any_key(reference).await {
            Ok(secret) => Some(Arc::new(secret)),
            Err(error) => {
                tracing::warn!(project = %project.name, "the project's key cannot be read: {}; {}", error.text(), error.hint());
                None
            }
        }
    }

    /// Reads references again if a provider rejected the key or a refresh is due, and periodically
    /// checks rejected keys.
    pub async fn run(&self, mut rejections: mpsc::UnboundedReceiver<KeyId>) {
        let mut refreshed: HashMap<KeyId, Mono> = HashMap::new();
        loop {
            let rejected = tokio::time::timeout(REFRESH_POLL_INTERVAL, rejections.recv()).await;
            let settings = Arc::clone(&self.engine.generation().settings);
            match rejected {
                Ok(Some(id)) => {
                    if let Some((upstream, key)) = find_key(&settings, id) {
                        self.resolver.forget_command(&key.reference);
                        self.load_key(upstream, key).await;
                        self.engine.group_accounts();
                    }
                }
                Ok(None) => return,
                Err(_) => {
                    let now = self.engine.clock.mono();
                    for (upstream, key) in upstream_keys(&settings) {
                        let Some(every) = key.refresh else { continue };
                        let last = *refreshed.entry(key.id).or_insert(now);
                        if now.since(last) >= every {
                            refreshed.insert(key.id, now);
                            self.resolver.forget_command(&key.reference);
                            self.load_key(&upstream, &key).await;
                        }
                    }
                    for id in self.engine.router.rejected_keys_due(now) {
                        if let Some((upstream, key)) = find_key(&settings, id)
                            && let Err(why) = self.check_key(upstream, key).await
                        {
                            tracing::debug!(key = %key.name, %why, "still rejected");
                        }
                    }
                }
            }
        }
    }

    /// Requests the model list, which is free; a key that gets a list is healthy again.
    pub async fn check_key(
        &self,
        upstream: &Arc<Upstream>,
        key: &UpstreamKey,
    ) -> Result<(), ActionMessage> {
        let failed = |problem: &str| ActionMessage::KeyFailed {
            name: Arc::clone(&key.name),
            problem: problem.into(),
        };
        let Some(end) = upstream.endpoints.first() else {
            return Err(failed("the upstream has no address"));
        };
        if matches!(self.engine.keys.summary(key.id).state, SecretState::Missing(_)) {
            // The key may have been stored in the meantime.
            self.load_key(upstream, key).await;
        }
        if let SecretState::Missing(secret) = self.engine.keys.summary(key.id).state {
            return Err(ActionMessage::KeyMissing { name: Arc::clone(&key.name), secret });
        }
        match refresh_models::request_list(&self.engine, upstream, end, Some(key.id)).await {
            Ok(_) => {
                self.engine.router.clear_rejected(key.id);
                self.engine.notify_waiters();
                Ok(())
            }
            Err(error) => Err(failed(&error.to_string())),
        }
    }
}

/// Describes why a reference gave no key for this upstream.
fn missing_secret(error: &ResolveError, upstream: &Arc<str>) -> MissingSecret {
    let upstream = Arc::clone(upstream);
    let hint = || error.hint().replace("UPSTREAM", &upstream).into();
    match error {
        ResolveError::EmptyVariable { name } => {
            MissingSecret::EmptyVariable { name: name.as_str().into(), upstream }
        }
        ResolveError::File { path, error: FileError::Missing } => {
            MissingSecret::NoFile { path: path.display().to_string().into(), hint: hint() }
        }
        ResolveError::NotInKeyring { label } => {
            MissingSecret::NotInKeyring { label: label.as_str().into(), hint: hint() }
        }
        ResolveError::Unset { name } => {
            MissingSecret::UnsetVariable { name: name.as_str().into(), upstream }
        }
        other => MissingSecret::Other { text: other.text().into(), hint: hint() },
    }
}

fn upstream_keys(settings: &Settings) -> Vec<(Arc<Upstream>, Arc<UpstreamKey>)> {
    let of = |upstream: &Arc<Upstream>| {
        upstream.keys.iter().map(|key| (Arc::clone(upstream), Arc::clone(key))).collect::<Vec<_>>()
    };
    settings.upstreams.iter().flat_map(of).collect()
}

fn find_key(settings: &Settings, id: KeyId) -> Option<(&Arc<Upstream>, &Arc<UpstreamKey>)> {
    settings.upstreams.iter().find_map(|upstream| {
        upstream.keys.iter().find(|key| key.id == id).map(|key| (upstream, key))
    })
}

/// The project of all clients if `auth = false`.
fn anonymous_project(settings: &Settings) -> Option<Arc<Project>> {
    if settings.server.auth {
        return None;
    }
    settings
        .projects
        .iter()
        .find(|project| &*project.name == "default")
        .or_else(|| settings.projects.first())
        .cloned()
}
