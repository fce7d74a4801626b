//! Reads the keys of projects. A key whose store cannot be read stays valid: as the secret that was
//! read before, or by the hash that is remembered of it.

use std::sync::Arc;

use futures_util::future::join_all;

use crate::{
    cli::{
        client_key::{self, KeyOrigin},
        serve::keys::{load::KeyLoader, retry::RetryItem},
    },
    config::{Settings, settings::Project},
    events::status_message::notice::NoticeMessage,
    secrets::{
        Reference, Secret,
        file::FileError,
        remembered::{KeyMemory, SaltedHash},
        resolve::ResolveError,
    },
    server::guard::credential::ClientTable,
};

/// What is known of a project's key.
#[derive(Clone, Default)]
pub(in crate::cli::serve) struct ClientKey {
    /// The reference that the secret or the hashes belong to; `None` for the implicit key.
    reference: Option<String>,
    pub(super) secret: Option<Arc<Secret>>,
    /// Hashes of keys that are valid although their secret is not known.
    remembered: Vec<SaltedHash>,
    /// Why the key cannot be read now.
    pub(super) problem: Option<String>,
}

/// Why a project's key was not read.
struct ReadFailure {
    text: String,
    /// The key is not in its store, which could be read.
    gone: bool,
    /// Whether a later attempt may find it.
    retry: bool,
}

impl KeyLoader {
    /// Makes unknown tokens wait instead of being rejected until the client keys are loaded.
    /// Literal and remembered keys are available immediately.
    pub fn mark_clients_loading(&self, settings: &Settings) {
        let memory = self.key_memory();
        let mut known = self.client_keys.lock();
        for project in &settings.projects {
            let reference = project.key.as_ref().map(ToString::to_string);
            let mut key = ClientKey { reference, ..ClientKey::default() };
            if let Some(Reference::Literal(secret)) = &project.key {
                key.secret = Some(Arc::clone(secret));
            } else {
                key.remembered = remembered_hashes(&memory, project);
            }
            known.insert(Arc::clone(&project.name), key);
        }
        drop(known);
        self.publish_clients(settings, true);
    }

    /// Reads the client keys of all projects.
    pub async fn load_client_keys(&self, settings: &Settings) {
        join_all(settings.projects.iter().map(|project| self.load_client_key(project))).await;
        self.publish_clients(settings, false);
    }

    /// Reads the key of one project again.
    pub(super) async fn load_client_key_again(&self, project: &Project, settings: &Settings) {
        self.load_client_key(project).await;
        self.publish_clients(settings, false);
    }

    /// Returns the key of a project, or why it is not known.
    ///
    /// # Errors
    ///
    /// There is no such project, or its key cannot be read now.
    pub fn client_secret(&self, project: &str) -> Result<Arc<Secret>, String> {
        let known = self.client_keys.lock();
        let key = known.get(project).ok_or_else(|| format!("no project `{project}`"))?;
        key.secret.clone().ok_or_else(|| {
            key.problem.clone().unwrap_or_else(|| "the key is still being read".to_owned())
        })
    }

    /// Returns why the key of a project cannot be read now, if it cannot.
    pub fn client_key_problem(&self, project: &str) -> Option<String> {
        self.client_keys.lock().get(project)?.problem.clone()
    }

    fn key_memory(&self) -> KeyMemory {
        KeyMemory::of_data_dir(&self.paths.data)
    }

    fn publish_clients(&self, settings: &Settings, loading: bool) {
        let known = self.client_keys.lock();
        let (mut keys, mut remembered) = (Vec::new(), Vec::new());
        for project in &settings.projects {
            let Some(key) = known.get(&project.name) else { continue };
            keys.extend(key.secret.iter().map(|secret| (&**secret, Arc::clone(project))));
            remembered
                .extend(key.remembered.iter().map(|hash| (hash.clone(), Arc::clone(project))));
        }
        let anonymous = anonymous_project(settings);
        let table = ClientTable::new(keys, loading, anonymous).with_remembered(remembered);
        drop(known);
        self.clients.set(table);
    }

    async fn load_client_key(&self, project: &Project) {
        let read = match &project.key {
            Some(reference) => self.read_client_key(reference).await,
            None => self.read_default_key().await,
        };
        let reference = project.key.as_ref().map(ToString::to_string);
        let before = self.client_keys.lock().get(&project.name).cloned().unwrap_or_default();
        let item = RetryItem::Client(Arc::clone(&project.name));
        let key = match read {
            Ok(secret) => {
                self.retries.end(&item);
                self.known_secrets.add(&secret);
                self.remember(project, reference.as_deref(), &secret);
                // Keys of the implicit project that were replaced in its store stay valid until
                // it is rotated.
                let remembered = match &project.key {
                    None => remembered_hashes(&self.key_memory(), project),
                    Some(_) => Vec::new(),
                };
                ClientKey { reference, secret: Some(secret), remembered, problem: None }
            }
            Err(failure) => {
                if failure.retry {
                    self.retries.fail(item);
                }
                let same = before.reference == reference && !failure.gone;
                let secret = before.secret.clone().filter(|_| same);
                let remembered = if failure.gone {
                    Vec::new()
                } else {
                    remembered_hashes(&self.key_memory(), project)
                };
                let outcome = if secret.is_some() || !remembered.is_empty() {
                    "the last known key stays valid"
                } else {
                    "its clients are refused"
                };
                let problem = format!(
                    "the key of project `{}` cannot be read; {outcome}: {}",
                    project.name, failure.text
                );
                ClientKey { reference, secret, remembered, problem: Some(problem) }
            }
        };
        self.report_client_key(&before, &key);
        self.client_keys.lock().insert(Arc::clone(&project.name), key);
    }

    /// Logs a problem once, however often the key is read.
    fn report_client_key(&self, before: &ClientKey, now: &ClientKey) {
        if let Some(problem) =
            now.problem.as_ref().filter(|now| Some(*now) != before.problem.as_ref())
        {
            self.report(NoticeMessage::Text { text: problem.as_str().into() });
        } else if before.problem.is_some() && now.problem.is_none() {
            tracing::info!("the client key that could not be read is read again");
        }
    }

    async fn read_client_key(&self, reference: &Reference) -> Result<Arc<Secret>, ReadFailure> {
        self.resolver.resolve_any_key(reference).await.map(Arc::new).map_err(|error| ReadFailure {
            text: format!("{}; {}", error.text(), error.hint()),
            gone: is_gone(&error),
            retry: can_appear(reference),
        })
    }

    async fn read_default_key(&self) -> Result<Arc<Secret>, ReadFailure> {
        match client_key::default_client_key(&self.paths, &self.keyring).await {
            Ok(key) => {
                match (key.note(), key.origin) {
                    (Some(note), KeyOrigin::Replaced) => {
                        tracing::warn!(
                            "{note}; the old one stays valid until `aiproxy project rotate default`"
                        );
                    }
                    (Some(note), _) => tracing::info!("{note}"),
                    (None, _) => {}
                }
                let secret = Arc::new(key.secret);
                *self.default_key.lock() = Some((Arc::clone(&secret), key.location));
                Ok(secret)
            }
            Err(error) => Err(ReadFailure { text: error.to_string(), gone: false, retry: true }),
        }
    }

    /// Remembers a key whose store may be closed at the next start.
    fn remember(&self, project: &Project, reference: Option<&str>, secret: &Secret) {
        let closes = matches!(
            project.key,
            Some(Reference::Keyring(_) | Reference::Vault(_) | Reference::Command(_))
        );
        if let Some(reference) = reference.filter(|_| closes)
            && let Err(error) = self.key_memory().replace_if_new(&project.name, reference, secret)
        {
            tracing::debug!(%error, "the client key is not remembered");
        }
    }
}

/// Returns hashes of the keys that are valid while the project's store cannot be read. A key in a
/// file is not among them: removing the file revokes it.
fn remembered_hashes(memory: &KeyMemory, project: &Project) -> Vec<SaltedHash> {
    let keys = memory.find(&project.name).into_iter();
    match &project.key {
        None => {
            keys.filter(|key| key.reference.starts_with("keyring:")).map(|key| key.hash).collect()
        }
        Some(Reference::Env(_) | Reference::File(_) | Reference::Literal(_)) => Vec::new(),
        Some(reference) => {
            let reference = reference.to_string();
            keys.filter(|key| key.reference == reference).map(|key| key.hash).take(1).collect()
        }
    }
}

/// Returns whether the store could be read and does not have the key.
fn is_gone(error: &ResolveError) -> bool {
    matches!(
        error,
        ResolveError::File { error: FileError::Missing, .. }
            | ResolveError::NotInKeyring { .. }
            | ResolveError::NotInVault { .. }
    )
}

/// Returns whether a reference that has no key now may have one later, in the same process.
pub(super) fn can_appear(reference: &Reference) -> bool {
    !matches!(reference, Reference::Env(_) | Reference::Literal(_))
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
