//! DATA/run: allows one proxy per data dir, and lets commands find it.
//!
//! `lock` is locked while a proxy serves. A file without the lock has no meaning, so a crash leaves
//! nothing behind that must be cleaned up. `proxy.json` and `token` are written when the proxy
//! listens.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    base::{
        clock::UnixMillis,
        fs::{FileLock, create_private_dir, write_atomic},
    },
    secrets::Secret,
};

/// A command that looks for a proxy locks the file for a moment; a starting proxy waits for that.
const MAX_LOCK_POLLS: u32 = 10;
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The files are small; a larger one is not from aiproxy.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// The contents of `proxy.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ProxyInfo {
    pid: u32,
    started: UnixMillis,
    version: String,
    listen: Vec<String>,
}

/// A running proxy.
#[derive(Debug)]
pub struct RunInfo {
    pub pid: u32,
    pub started: UnixMillis,
    pub version: String,
    /// `127.0.0.1:8642`, …; commands use the first one.
    pub listen: Vec<String>,
    /// The control token of this run.
    pub token: Secret,
}

impl RunInfo {
    /// Returns a base URL that is reachable from this machine; `None` if the proxy does not listen.
    #[must_use]
    pub fn base_url(&self) -> Option<String> {
        self.listen.first().map(|addr| format!("http://{}", dial_address(addr)))
    }
}

/// Converts a listen address to one that a client on this machine can connect to; a wildcard
/// address becomes loopback.
#[must_use]
pub fn dial_address(listen: &str) -> String {
    match listen.parse::<std::net::SocketAddr>() {
        Ok(std::net::SocketAddr::V4(addr)) if addr.ip().is_unspecified() => {
            format!("127.0.0.1:{}", addr.port())
        }
        Ok(std::net::SocketAddr::V6(addr)) if addr.ip().is_unspecified() => {
            format!("[::1]:{}", addr.port())
        }
        _ => listen.to_owned(),
    }
}

/// Why a data dir could not be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("a proxy of this data dir runs already{}", running_suffix(*pid, listen))]
    AlreadyRunning {
        /// 0 if the other proxy has not published it yet.
        pid: u32,
        listen: Vec<String>,
    },
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
}

impl ClaimError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::AlreadyRunning { .. } => {
                "`aiproxy status` shows it, `aiproxy stop` ends it; another one needs its own --data-dir".to_owned()
            }
            Self::Io { .. } => "the data dir must be writable; --data-dir or AIPROXY_DATA_DIR names another".to_owned(),
        }
    }
}

fn running_suffix(pid: u32, listen: &[String]) -> String {
    let at = if listen.is_empty() { String::new() } else { format!(" at {}", listen.join(", ")) };
    if pid == 0 { at } else { format!("{at} (pid {pid})") }
}

/// The run dir of a data dir.
pub struct RunDir;

impl RunDir {
    /// Locks the data dir for this process; creates it if it is missing. If the data dir cannot be
    /// written, a folder in memory stands in for its run dir, so that commands find the proxy.
    ///
    /// # Errors
    ///
    /// Another proxy has the lock, or the dir belongs to another user.
    pub fn claim(data: &Path) -> Result<DataDirLock, ClaimError> {
        match Self::claim_in(data, data.join("run")) {
            Err(ClaimError::Io { path, error }) if is_not_writable(&error) => {
                let Some(spare) = spare_dir(data) else {
                    return Err(ClaimError::Io { path, error });
                };
                let mut claimed = Self::claim_in(&spare, spare.join("run"))?;
                claimed.problem = Some(error);
                Ok(claimed)
            }
            claimed => claimed,
        }
    }

    fn claim_in(data: &Path, dir: PathBuf) -> Result<DataDirLock, ClaimError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |error| ClaimError::Io { path, error }
        };
        create_private_dir(data).map_err(io(data))?;
        create_private_dir(&dir).map_err(io(&dir))?;
        let path = dir.join("lock");
        let mut looks = 0;
        let lock = loop {
            if let Some(lock) = FileLock::try_acquire(&path).map_err(io(&path))? {
                break lock;
            }
            if looks == MAX_LOCK_POLLS {
                let (pid, listen) =
                    read_proxy_info(&dir).map_or((0, Vec::new()), |card| (card.pid, card.listen));
                return Err(ClaimError::AlreadyRunning { pid, listen });
            }
            looks += 1;
            std::thread::sleep(LOCK_POLL_INTERVAL);
        };
        // A full disk often takes an empty file and refuses its contents.
        write_atomic(&dir.join("token"), b"-", 0o600).map_err(io(&dir))?;
        let claimed = DataDirLock { dir, _lock: lock, problem: None };
        // Files of a crashed proxy must not describe this one while it starts.
        claimed.remove_files();
        Ok(claimed)
    }

    /// Finds the proxy that serves from this data dir now.
    #[must_use]
    pub fn find_running(data: &Path) -> Option<RunInfo> {
        let dir = run_dirs(data).find(|dir| is_lock_held(&dir.join("lock")))?;
        let ProxyInfo { pid, started, version, listen } = read_proxy_info(&dir)?;
        let token = Secret::new(read_small_file(&dir.join("token"))?.trim().to_owned());
        Some(RunInfo { pid, started, version, listen, token })
    }

    /// Returns whether a proxy has locked this data dir, even if it is not listening.
    #[must_use]
    pub fn is_locked(data: &Path) -> bool {
        run_dirs(data).any(|dir| is_lock_held(&dir.join("lock")))
    }
}

/// A data dir that this process has locked until the value is dropped.
#[derive(Debug)]
pub struct DataDirLock {
    dir: PathBuf,
    _lock: FileLock,
    /// Why the data dir itself cannot be written, if so.
    problem: Option<io::Error>,
}

impl DataDirLock {
    /// Returns why the data dir cannot be written; `None` if it can.
    #[must_use]
    pub fn problem(&self) -> Option<&io::Error> {
        self.problem.as_ref()
    }

    /// Publishes the listen addresses and creates the control token of this run.
    ///
    /// # Errors
    ///
    /// The run dir cannot be written, or the system has no entropy.
    pub fn publish(&self, listen: Vec<String>, started: UnixMillis) -> io::Result<Secret> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
        let token = URL_SAFE_NO_PAD.encode(bytes);
        let card = ProxyInfo {
            pid: std::process::id(),
            started,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            listen,
        };
        // `proxy.json` is written last, so that a reader always finds the matching token.
        write_atomic(&self.dir.join("token"), token.as_bytes(), 0o600)?;
        write_atomic(&self.dir.join("proxy.json"), &serde_json::to_vec(&card)?, 0o600)?;
        Ok(Secret::new(token))
    }

    fn remove_files(&self) {
        for name in ["proxy.json", "token"] {
            // Usually "not found". A file that cannot be removed has no meaning without the lock.
            drop(fs::remove_file(self.dir.join(name)));
        }
    }
}

impl Drop for DataDirLock {
    fn drop(&mut self) {
        self.remove_files();
    }
}

/// Whether the disk is full, read-only or without locks, rather than the path wrong.
fn is_not_writable(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::StorageFull | Kind::QuotaExceeded | Kind::ReadOnlyFilesystem | Kind::Unsupported
    ) || is_without_locks(error)
}

#[cfg(unix)]
fn is_without_locks(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error();
    code == Some(Errno::NOLCK.raw_os_error()) || code == Some(Errno::OPNOTSUPP.raw_os_error())
}

#[cfg(not(unix))]
fn is_without_locks(_: &io::Error) -> bool {
    false
}

/// Returns the folder in memory, of this user, that stands in for a data dir.
#[cfg(unix)]
fn spare_dir(data: &Path) -> Option<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let base = [PathBuf::from(format!("/run/user/{uid}")), "/dev/shm".into(), "/tmp".into()]
        .into_iter()
        .find(|base| base.is_dir())?;
    let data = std::path::absolute(data).ok()?;
    let digest = Sha256::digest(data.as_os_str().as_encoded_bytes());
    let name: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    Some(base.join(format!("aiproxy-{uid}-{name}")))
}

#[cfg(not(unix))]
fn spare_dir(_: &Path) -> Option<PathBuf> {
    None
}

/// Whether a folder is this user's own: everybody may create one in the places for spare folders.
fn is_own(dir: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let uid = rustix::process::geteuid().as_raw();
        fs::symlink_metadata(dir).is_ok_and(|found| found.is_dir() && found.uid() == uid)
    }
    #[cfg(not(unix))]
    {
        dir.is_dir()
    }
}

/// Returns the run dirs in which a proxy of a data dir may be found.
fn run_dirs(data: &Path) -> impl Iterator<Item = PathBuf> {
    let spare = spare_dir(data).filter(|spare| is_own(spare)).map(|spare| spare.join("run"));
    [data.join("run")].into_iter().chain(spare)
}

/// Uses a shared lock, so that two commands that check at the same time do not take each other for
/// a proxy.
fn is_lock_held(path: &Path) -> bool {
    File::open(path)
        .is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn read_proxy_info(dir: &Path) -> Option<ProxyInfo> {
    serde_json::from_str(&read_small_file(&dir.join("proxy.json"))?).ok()
}

fn read_small_file(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(MAX_FILE_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTED: UnixMillis = UnixMillis(1_700_000_000_000);

    #[test]
    fn proxy_is_found_only_while_it_locks_the_data_dir() {
        let data = tempfile::tempdir().unwrap();
        assert!(RunDir::find_running(data.path()).is_none());

        let claimed = RunDir::claim(data.path()).unwrap();
        assert!(RunDir::find_running(data.path()).is_none(), "before it listens");
        let token = claimed
            .publish(vec!["0.0.0.0:8642".to_owned(), "[::1]:8642".to_owned()], STARTED)
            .unwrap();

        let found = RunDir::find_running(data.path()).unwrap();
        assert_eq!((found.pid, found.started), (std::process::id(), STARTED));
        assert_eq!(found.token.digest(), token.digest());
        assert_eq!(found.base_url().as_deref(), Some("http://127.0.0.1:8642"));

        drop(claimed);
        assert!(RunDir::find_running(data.path()).is_none() && !RunDir::is_locked(data.path()));
    }

    #[test]
    fn second_proxy_is_refused_with_the_address_of_the_first() {
        let data = tempfile::tempdir().unwrap();
        let first = RunDir::claim(data.path()).unwrap();
        drop(first.publish(vec!["127.0.0.1:8642".to_owned()], STARTED).unwrap());

        let error = RunDir::claim(data.path()).unwrap_err();

        assert!(
            error.to_string().contains("127.0.0.1:8642")
                && error.to_string().contains(&std::process::id().to_string()),
            "{error}"
        );
    }

    #[test]
    fn files_left_by_a_crash_are_not_a_running_proxy() {
        let data = tempfile::tempdir().unwrap();
        let run = data.path().join("run");
        fs::create_dir_all(&run).unwrap();
        File::create(run.join("lock")).unwrap();
        write_atomic(&run.join("token"), b"old", 0o600).unwrap();
        write_atomic(
            &run.join("proxy.json"),
            br#"{"pid":1,"started":1,"version":"0","listen":["127.0.0.1:1"]}"#,
            0o600,
        )
        .unwrap();

        assert!(RunDir::find_running(data.path()).is_none());
        let claimed = RunDir::claim(data.path()).unwrap();
        assert!(!run.join("proxy.json").exists());
        drop(claimed);
    }

    #[cfg(unix)]
    #[test]
    fn proxy_without_a_writable_data_dir_is_found_in_memory() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(is_not_writable(&full) && is_not_writable(&rustix::io::Errno::NOLCK.into()));
        assert!(!is_not_writable(&io::Error::from(io::ErrorKind::PermissionDenied)));
        let data = tempfile::tempdir().unwrap();
        let spare = spare_dir(data.path()).unwrap();
        let claimed = RunDir::claim_in(&spare, spare.join("run")).unwrap();
        drop(claimed.publish(vec!["127.0.0.1:1".to_owned()], STARTED).unwrap());

        let found = RunDir::find_running(data.path()).map(|found| found.pid);
        drop(claimed);
        fs::remove_dir_all(&spare).unwrap();

        assert_eq!(found, Some(std::process::id()));
        assert!(RunDir::find_running(data.path()).is_none());
    }

    #[cfg(unix)]
    #[test]
    fn files_are_readable_by_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let data = tempfile::tempdir().unwrap();
        let claimed = RunDir::claim(&data.path().join("inner")).unwrap();
        drop(claimed.publish(vec![], STARTED).unwrap());

        for name in ["", "run", "run/lock", "run/token", "run/proxy.json"] {
            let mode =
                fs::metadata(data.path().join("inner").join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
        }
    }
}
