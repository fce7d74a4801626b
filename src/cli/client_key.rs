//! Generated client keys, stored in the OS keyring or, if no keyring answers, in a private file of
//! the data dir.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::cli::{error::CliError, expose::expose_secret};
use crate::{
    base::fs::{self, FileLock},
    config::file::Paths,
    secrets::{
        Secret, file,
        keyring::Keyring,
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
            ClientKeyError::NoEntropy(_) => None,
        };
        Self { hint: hint.map(str::to_owned), ..Self::failed(error.to_string()) }
    }
}

/// Returns the key of project `default`, and creates it if it does not exist.
///
/// A key already stored in the file stays in use when a keyring becomes available, so that tools
/// configured with it continue to work.
///
/// # Errors
///
/// Neither the keyring nor the data dir can store a new key, or an existing file cannot be read.
pub async fn default_client_key(
    paths: &Paths,
    keyring: &Keyring,
) -> Result<(Secret, KeyLocation), ClientKeyError> {
    if let Some(found) = find_default_key(paths, keyring).await? {
        return Ok(found);
    }
    // A proxy that is starting and a command that asks for the key must not create two.
    let lock = acquire_creation_lock(&paths.data).await?;
    let key = match find_default_key(paths, keyring).await? {
        Some(found) => found,
        None => create_key("default", &paths.data, keyring).await?,
    };
    drop(lock);
    Ok(key)
}

/// Returns the key of project `default`, if there is one.
///
/// # Errors
///
/// An existing file cannot be read.
pub(super) async fn find_default_key(
    paths: &Paths,
    keyring: &Keyring,
) -> Result<Option<(Secret, KeyLocation)>, ClientKeyError> {
    let label = keyring_label("default");
    // A keyring that does not answer is not an error because the key may be in the file.
    if let Ok(Some(secret)) = keyring.get(&label).await {
        return Ok(Some((secret, KeyLocation::Keyring(label))));
    }
    let path = key_file_path(&paths.data, "default");
    if !path.exists() {
        return Ok(None);
    }
    let line = file::read_line(&path)
        .map_err(|error| ClientKeyError::File { path: path.clone(), error })?;
    Ok(Some((Secret::new(line.as_str().to_owned()), KeyLocation::File(path))))
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
    let (secret, label, path) =
        (secret::generate_client_key()?, keyring_label(project), key_file_path(data, project));
    // The project's readers use the file only if the keyring has no entry, so the new entry takes
    // precedence even if the file exists.
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

/// Deletes a project's key from the keyring and the file.
pub async fn delete_key(project: &str, data: &Path, keyring: &Keyring) {
    // Either may be absent. A leftover key grants no access once the project is gone.
    drop(keyring.delete(&keyring_label(project)).await);
    drop(std::fs::remove_file(key_file_path(data, project)));
}

/// Returns the reference of a project's key where a keyring is available.
#[must_use]
pub fn usual_reference(project: &str) -> String {
    format!("keyring:{}", keyring_label(project))
}

fn keyring_label(project: &str) -> String {
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
    async fn without_a_keyring_the_key_is_created_once_in_a_private_file() {
        let home = tempfile::tempdir().unwrap();
        let (paths, keyring) =
            (paths_in(&home.path().join("data")), Keyring::unavailable("a test"));

        let (created, location) = default_client_key(&paths, &keyring).await.unwrap();
        let (again, _) = default_client_key(&paths, &keyring).await.unwrap();

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
            .map(|key| key.unwrap().0.digest())
            .collect();

        assert_eq!(keys.len(), 1);
    }

    #[tokio::test]
    async fn a_rotated_key_differs() {
        let home = tempfile::tempdir().unwrap();
        let (paths, keyring) = (paths_in(home.path()), Keyring::unavailable("a test"));
        let (first, _) = default_client_key(&paths, &keyring).await.unwrap();

        let (second, _) = create_key("default", &paths.data, &keyring).await.unwrap();

        let (now, _) = default_client_key(&paths, &keyring).await.unwrap();
        assert_ne!(first.digest(), second.digest());
        assert_eq!(now.digest(), second.digest());
    }
}
