//! Reads key references in the background and stores the results for the request path.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::join_all};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    base::{clock::Mono, sync::Mutex},
    cli::{
        client_key::KeyLocation,
        serve::{
            keys::clients::{self, ClientKey},
            keys::retry::{RetryItem, RetrySchedule},
        },
    },
    config::{
        Settings,
        file::Paths,
        settings::{KeyId, Upstream, UpstreamKey},
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
    server::guard::credential::ClientKeys,
    upstream::keys::SecretState,
};

/// How often references are checked for a due refresh.
const REFRESH_POLL_INTERVAL: Duration = Duration::from_secs(15);
/// How long a reload waits for references before it returns; slow ones continue in the background.
const REFERENCE_READ_WAIT: Duration = Duration::from_secs(3);

/// Loads the secrets behind key references.
pub struct KeyLoader {
    pub engine: Arc<Engine>,
    pub resolver: Arc<SecretResolver>,
    pub known_secrets: Arc<KnownSecrets>,
    pub keyring: Keyring,
    pub paths: Paths,
    /// The client keys that requests are compared with.
    pub clients: Arc<ClientKeys>,
    /// The key of project `default` and its location, once known.
    pub default_key: Mutex<Option<(Arc<Secret>, KeyLocation)>>,
    /// What is known of the projects' keys, by project.
    pub(in crate::cli::serve) client_keys: Mutex<HashMap<Arc<str>, ClientKey>>,
    pub(in crate::cli::serve) in_use: Mutex<HashMap<KeyId, KeyInUse>>,
    pub(in crate::cli::serve) retries: RetrySchedule,
}

/// A provider key that was read.
pub(in crate::cli::serve) struct KeyInUse {
    /// Where it was read.
    reference: String,
    /// Why it cannot be read again now.
    problem: Option<Arc<MissingSecret>>,
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

    /// Reads every reference again; slow ones continue after the reload has returned.
    pub async fn reload(self: &Arc<Self>, settings: &Arc<Settings>) {
        for (_, key) in upstream_keys(settings) {
            self.resolver.forget_command(&key.reference);
        }
        let projects = settings.projects.iter().filter_map(|project| project.key.as_ref());
        let headers = settings.otlp.headers.iter().map(|(_, value)| value);
        for reference in projects.chain(&settings.alerts.secret).chain(headers) {
            self.resolver.forget_command(reference);
        }
        self.retries.restart();
        let (loader, settings) = (Arc::clone(self), Arc::clone(settings));
        let (done, read) = oneshot::channel();
        #[expect(
            clippy::disallowed_methods,
            reason = "may outlive the reload that began it, and must not hold up a shutdown"
        )]
        drop(tokio::spawn(async move {
            tokio::join!(loader.load_provider_keys(&settings), loader.load_client_keys(&settings));
            // The reload may have stopped waiting, which is not an error.
            done.send(()).unwrap_or_default();
            refresh_models::refresh_all(&loader.engine).await;
        }));
        drop(timeout(REFERENCE_READ_WAIT, read).await);
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
        self.read_key(upstream, key, &before).await;
    }

    /// Reads a key that could not be read. It does not wait in between, so that requests do not
    /// wait for it either.
    pub(super) async fn load_key_again(&self, id: KeyId, settings: &Settings) {
        match find_key(settings, id) {
            Some((upstream, key)) if key.enabled && upstream.enabled => {
                let before = self.engine.keys.summary(key.id).state;
                self.read_key(upstream, key, &before).await;
                self.engine.group_accounts();
            }
            _ => self.retries.end(&RetryItem::Provider(id)),
        }
    }

    async fn read_key(&self, upstream: &Upstream, key: &UpstreamKey, before: &SecretState) {
        match self.resolver.resolve(&key.reference).await {
            Ok(secret) => {
                self.retries.end(&RetryItem::Provider(key.id));
                let in_use = KeyInUse { reference: key.reference.to_string(), problem: None };
                let earlier = self.in_use.lock().insert(key.id, in_use);
                if earlier.is_some_and(|earlier| earlier.problem.is_some()) {
                    tracing::info!(key = %key.name, "the reference can be read again");
                }
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
                if clients::can_appear(&key.reference) {
                    self.retries.fail(RetryItem::Provider(key.id));
                }
                let missing = Arc::new(missing_secret(&error, &upstream.name));
                if !self.keep_in_use(key, &missing) {
                    // Log the same error only once, however often the reference is read.
                    if *before != SecretState::Missing(Arc::clone(&missing)) {
                        let (name, secret) = (Arc::clone(&key.name), Arc::clone(&missing));
                        self.report(NoticeMessage::KeyNotUsable { name, secret });
                    }
                    self.engine.keys.set_missing(key.id, missing);
                }
            }
        }
        self.engine.notify_waiters();
    }

    /// Keeps the secret that works if its reference is still the same; returns whether it does.
    fn keep_in_use(&self, key: &UpstreamKey, missing: &Arc<MissingSecret>) -> bool {
        if !self.engine.keys.is_ready(key.id) {
            return false;
        }
        let mut in_use = self.in_use.lock();
        let Some(entry) =
            in_use.get_mut(&key.id).filter(|entry| entry.reference == key.reference.to_string())
        else {
            return false;
        };
        let before = entry.problem.replace(Arc::clone(missing));
        drop(in_use);
        if before.as_ref() != Some(missing) {
            let (name, secret) = (Arc::clone(&key.name), Arc::clone(missing));
            self.report(NoticeMessage::KeyKept { name, secret });
        }
        true
    }

    /// Returns what is in use although it cannot be read now, as sentences.
    pub fn warnings(&self, settings: &Settings) -> Vec<String> {
        let in_use = self.in_use.lock();
        let kept = |key: &UpstreamKey| {
            let secret = in_use.get(&key.id)?.problem.clone()?;
            let name = Arc::clone(&key.name);
            Some(NoticeMessage::KeyKept { name, secret }.to_string())
        };
        let keys = upstream_keys(settings).into_iter().filter_map(|(_, key)| kept(&key));
        let projects = settings.projects.iter();
        keys.chain(projects.filter_map(|it| self.client_key_problem(&it.name))).collect()
    }

    pub(in crate::cli::serve) fn report(&self, notice: NoticeMessage) {
        tracing::warn!("{notice}");
        self.engine.bus.publish(
            self.engine.clock.unix(),
            EventKind::Notice { text: notice.into(), level: Severity::Warn },
        );
    }

    /// Reads references again if a provider rejected the key or a refresh is due, and periodically
    /// checks rejected keys.
    pub async fn run(&self, mut rejections: mpsc::UnboundedReceiver<KeyId>) {
        let mut refreshed: HashMap<KeyId, Mono> = HashMap::new();
        loop {
            let rejected = timeout(REFRESH_POLL_INTERVAL, rejections.recv()).await;
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
