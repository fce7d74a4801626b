//! Generated client keys, stored in the OS keyring or, if no keyring answers, in a private file of
//! the data dir.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest as _, Sha256};

use crate::{
    base::fs::{self, FileLock},
    cli::{error::CliError, expose::expose_secret},
    config::file::Paths,
    secrets::{
        Reference, Secret, file,
        keyring::{Keyring, KeyringError},
        remembered::KeyMemory,
        secret::{self, NoEntropy},
    },
};

/// Number of polls and delay between them while another process creates the key.
const MAX_LOCK_POLLS: u32 = 500;
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Where a client key is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyLocation {
    File(PathBuf),
    /// The entry's label in the OS keyring.
    Keyring(String),
}

impl KeyLocation {
    /// The location as a reference for the config.
    #[must_use]
    pub fn reference(&self) -> String {
        match self {
            Self::File(path) => format!("file:{}", path.display()),
            Self::Keyring(label) => format!("keyring:{label}"),
        }
    }
}

impl fmt::Display for KeyLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Keyring(label) => write!(f, "the OS keyring (entry aiproxy, {label})"),
        }
    }
}

/// Why a client key is unavailable.
#[derive(Debug, thiserror::Error)]
pub enum ClientKeyError {
    #[error("cannot store the client key in {}: {error}", path.display())]
    Disk { path: PathBuf, error: std::io::Error },
    #[error("cannot read the client key from {}: {error}", path.display())]
    File { path: PathBuf, error: file::FileError },
    /// The key exists and stays valid, but cannot be read here and now.
    #[error("cannot read the client key from {location}: {error}")]
    Keyring { location: KeyLocation, error: KeyringError },
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
}

impl From<ClientKeyError> for CliError {
    fn from(error: ClientKeyError) -> Self {
        let hint = match &error {
            ClientKeyError::Disk { .. } => Some(
                "the data dir must be writable; select another with --data-dir or AIPROXY_DATA_DIR",
            ),
            ClientKeyError::File { .. } => Some("remove the file to create a new key"),
            ClientKeyError::Keyring { .. } => Some(
                "unlock the keyring, or ask in the session in which it is unlocked; the key stays \
                 valid meanwhile, and `aiproxy project rotate default` replaces it",
            ),
            ClientKeyError::NoEntropy(_) => None,
        };
        Self { hint: hint.map(str::to_owned), ..Self::failed(error.to_string()) }
    }
}

/// Returns the key of project `default`, and creates it if it does not exist. A keyring that cannot
/// be read is not one without the key.
///
/// A key already stored in the file stays in use when a keyring becomes available, so that tools
/// configured with it continue to work.
///
/// # Errors
///
/// Neither the keyring nor the data dir can store a new key, or an existing one cannot be read.
pub async fn default_client_key(
    paths: &Paths,
    keyring: &Keyring,
) -> Result<DefaultKey, ClientKeyError> {
    if let Some((secret, location)) = find_default_key(paths, keyring).await? {
        return Ok(DefaultKey { secret, location, origin: KeyOrigin::Found });
    }
    // A proxy that is starting and a command that asks for the key must not create two.
    let lock = acquire_creation_lock(&paths.data).await?;
    let key = match find_default_key(paths, keyring).await? {
        Some((secret, location)) => DefaultKey { secret, location, origin: KeyOrigin::Found },
        None => {
            let (secret, location) = store_new_key("default", &paths.data, keyring).await?;
            let memory = KeyMemory::of_data_dir(&paths.data);
            let origin = match memory.find("default").is_empty() {
                true => KeyOrigin::Created,
                false => KeyOrigin::Replaced,
            };
            remember(memory.remember("default", &location.reference(), &secret));
            DefaultKey { secret, location, origin }
        }
    };
    drop(lock);
    Ok(key)
}

/// The key of project `default`.
#[derive(Debug)]
pub struct DefaultKey {
    pub secret: Secret,
    pub location: KeyLocation,
    pub origin: KeyOrigin,
}

/// Where a client key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOrigin {
    Found,
    /// Made now, as the first one.
    Created,
    /// Made now because the earlier one was no longer in its store.
    Replaced,
}

impl DefaultKey {
    /// Returns a sentence if the key is new.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        let location = &self.location;
        match self.origin {
            KeyOrigin::Found => None,
            KeyOrigin::Created => {
                Some(format!("a client key was made for project `default`, stored in {location}"))
            }
            KeyOrigin::Replaced => Some(format!(
                "the client key of project `default` was no longer in its store; a new one was made, stored in {location}"
            )),
        }
    }
}

/// Returns the key of project `default`, if there is one.
///
/// # Errors
///
/// An existing key cannot be read.
pub(super) async fn find_default_key(
    paths: &Paths,
    keyring: &Keyring,
) -> Result<Option<(Secret, KeyLocation)>, ClientKeyError> {
    let memory = KeyMemory::of_data_dir(&paths.data);
    let remembered = memory.find("default").into_iter().next();
    let found = match remembered.as_ref().map(|key| Reference::parse(&key.reference)) {
        Some(Ok(Reference::Keyring(label))) => {
            let location = KeyLocation::Keyring(label.clone());
            match keyring.get(&label).await {
                Ok(found) => found.map(|secret| (secret, location)),
                Err(error) => return Err(ClientKeyError::Keyring { location, error }),
            }
        }
        Some(Ok(Reference::File(path))) => read_key_file(path)?,
        _ => find_unremembered_key(paths, keyring).await?,
    };
    if let Some((secret, location)) = &found {
        remember(memory.remember("default", &location.reference(), secret));
    }
    Ok(found)
}

/// Looks where this data dir, and older versions, would have stored the key.
async fn find_unremembered_key(
    paths: &Paths,
    keyring: &Keyring,
) -> Result<Option<(Secret, KeyLocation)>, ClientKeyError> {
    for label in [keyring_label("default", &paths.data), shared_label("default")] {
        // A keyring that does not answer is not an error because the key may be in the file.
        if let Ok(Some(secret)) = keyring.get(&label).await {
            return Ok(Some((secret, KeyLocation::Keyring(label))));
        }
    }
    read_key_file(key_file_path(&paths.data, "default"))
}

fn read_key_file(path: PathBuf) -> Result<Option<(Secret, KeyLocation)>, ClientKeyError> {
    if !path.exists() {
        return Ok(None);
    }
    let line = file::read_line(&path)
        .map_err(|error| ClientKeyError::File { path: path.clone(), error })?;
    Ok(Some((Secret::new(line.as_str().to_owned()), KeyLocation::File(path))))
}

/// What cannot be remembered is only missing if the keyring cannot be read later.
fn remember(written: std::io::Result<()>) {
    if let Err(error) = written {
        tracing::debug!(%error, "the client key is not remembered");
    }
}

/// Acquires the lock for creating the key; `None` if another process keeps it for longer than
/// creating a key takes.
async fn acquire_creation_lock(data: &Path) -> Result<Option<FileLock>, ClientKeyError> {
    let path = data.join("client.lock");
    let error = |error| ClientKeyError::Disk { path: path.clone(), error };
    fs::create_private_dir(data).map_err(error)?;
    for _ in 0..MAX_LOCK_POLLS {
        if let Some(lock) = FileLock::try_acquire(&path).map_err(error)? {
            return Ok(Some(lock));
        }
        tokio::time::sleep(LOCK_POLL_INTERVAL).await;
    }
    Ok(None)
}

/// Creates a new key for a project and stores it in the keyring or the file, replacing the previous
/// key.
///
/// # Errors
///
/// As [`default_client_key`].
pub async fn create_key(
    project: &str,
    data: &Path,
    keyring: &Keyring,
) -> Result<(Secret, KeyLocation), ClientKeyError> {
    let (secret, location) = store_new_key(project, data, keyring).await?;
    let memory = KeyMemory::of_data_dir(data);
    memory
        .replace(project, &location.reference(), &secret)
        .map_err(|error| ClientKeyError::Disk { path: data.to_owned(), error })?;
    Ok((secret, location))
}

async fn store_new_key(
    project: &str,
    data: &Path,
    keyring: &Keyring,
) -> Result<(Secret, KeyLocation), ClientKeyError> {
    // Before the label is made, which depends on the folder's real path.
    fs::create_private_dir(data).unwrap_or_default();
    let (secret, label, path) = (
        secret::generate_client_key()?,
        keyring_label(project, data),
        key_file_path(data, project),
    );
    if keyring.set(&label, &secret).await.is_ok() {
        drop(std::fs::remove_file(&path));
        return Ok((secret, KeyLocation::Keyring(label)));
    }
    let error = |error| ClientKeyError::Disk { path: path.clone(), error };
    fs::create_private_dir(data).map_err(error)?;
    if let Some(folder) = path.parent() {
        fs::create_private_dir(folder).map_err(error)?;
    }
    fs::write_atomic(&path, format!("{}\n", expose_secret(&secret)).as_bytes(), 0o600)
        .map_err(error)?;
    Ok((secret, KeyLocation::File(path)))
}

/// Deletes a project's key from the keyring and the file. An entry that other data dirs may use too
/// stays.
pub async fn delete_key(project: &str, data: &Path, keyring: &Keyring) {
    // Either may be absent. A leftover key grants no access once the project is gone.
    drop(keyring.delete(&keyring_label(project, data)).await);
    drop(std::fs::remove_file(key_file_path(data, project)));
    remember(KeyMemory::of_data_dir(data).forget(project));
}

/// Returns the reference of a project's key where a keyring is available.
#[must_use]
pub fn usual_reference(project: &str, data: &Path) -> String {
    format!("keyring:{}", keyring_label(project, data))
}

/// Returns whether a keyring entry is a key that aiproxy generated for the project.
#[must_use]
pub fn is_generated_label(label: &str, project: &str) -> bool {
    let rest = label.strip_prefix(&shared_label(project));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The label of a project's key. It differs for each data dir, so that none replaces the key of
/// another.
fn keyring_label(project: &str, data: &Path) -> String {
    let folder = std::fs::canonicalize(data).or_else(|_| std::path::absolute(data));
    let folder = folder.unwrap_or_else(|_| data.to_owned());
    let hash = Sha256::digest(folder.as_os_str().as_encoded_bytes());
    let [a, b, c, d] = [hash[0], hash[1], hash[2], hash[3]];
    format!("{}/{a:02x}{b:02x}{c:02x}{d:02x}", shared_label(project))
}

/// The label that older versions used, whatever the data dir.
fn shared_label(project: &str) -> String {
    format!("client/{project}")
}

fn key_file_path(data: &Path, project: &str) -> PathBuf {
    if project == "default" {
        data.join("client.key")
    } else {
        data.join("clients").join(format!("{project}.key"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths_in(data: &Path) -> Paths {
        Paths { config: data.join("config.toml"), explicit: false, data: data.to_owned() }
    }

    #[tokio::test]
    async fn client_key_is_created_once_in_a_private_file_without_a_keyring() {
        let home = tempfile::tempdir().unwrap();
        let (paths, keyring) =
            (paths_in(&home.path().join("data")), Keyring::unavailable("a test"));

        let first = default_client_key(&paths, &keyring).await.unwrap();
        let second = default_client_key(&paths, &keyring).await.unwrap();
        assert!(first.note().is_some() && second.note().is_none());
        let (created, location, again) = (first.secret, first.location, second.secret);

        assert_eq!(location, KeyLocation::File(home.path().join("data/client.key")));
        assert_eq!(created.digest(), again.digest());
        assert!(expose_secret(&created).starts_with("aip-"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(home.path().join("data/client.key"))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn concurrent_callers_get_the_same_key() {
        let home = tempfile::tempdir().unwrap();
        let (paths, keyring) = (paths_in(home.path()), Keyring::unavailable("a test"));

        let all = (0..8).map(|_| default_client_key(&paths, &keyring));
        let keys: std::collections::BTreeSet<_> = futures_util::future::join_all(all)
            .await
            .into_iter()
            .map(|key| key.unwrap().secret.digest())
            .collect();

        assert_eq!(keys.len(), 1);
    }

    #[tokio::test]
    async fn rotation_changes_the_key() {
        let home = tempfile::tempdir().unwrap();
        let (paths, keyring) = (paths_in(home.path()), Keyring::unavailable("a test"));
        let first = default_client_key(&paths, &keyring).await.unwrap().secret;

        let (second, _) = create_key("default", &paths.data, &keyring).await.unwrap();

        let now = default_client_key(&paths, &keyring).await.unwrap().secret;
        assert_ne!(first.digest(), second.digest());
        assert_eq!(now.digest(), second.digest());
    }
}
