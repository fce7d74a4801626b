//! The OS keyring, used from one plain thread that may block until a person answers its prompt.
//!
//! An unanswered prompt would block the runtime's blocking pool, and with it shutdown; a plain
//! thread blocks neither. Callers wait for at most [`DEFAULT_TIMEOUT`]. While an abandoned call
//! still occupies the thread, new callers get an error at once.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use keyring_core::{CredentialStore, Entry, Error};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::{
    Secret,
    keyring_error::classify,
    os_keyring::{LockProbe, connect},
};
#[cfg(not(all(
    unix,
    not(any(target_os = "macos", target_os = "ios", target_os = "android"))
)))]
use super::{keyring_error::MAX_SHOWN_CHARS, redact::printable};

pub use super::keyring_error::KeyringError;

/// A handle to the keyring's thread; clones share it. The thread starts with the first call and
/// ends with the last handle.
#[derive(Clone)]
pub struct Keyring {
    backend: KeyringBackend,
    timeout: Duration,
}

#[derive(Clone)]
enum KeyringBackend {
    Thread(Arc<KeyringThread>),
    Unavailable(Arc<str>),
}

impl Keyring {
    /// Creates a handle to the keyring of this session: Secret Service, Keychain or Credential
    /// Manager. Makes no call yet.
    #[must_use]
    pub fn system() -> Self {
        Self::with_connector(connect, true)
    }

    /// Creates a keyring that must not be used; every call returns the reason.
    #[must_use]
    pub fn unavailable(reason: impl Into<Arc<str>>) -> Self {
        Self { backend: KeyringBackend::Unavailable(reason.into()), timeout: DEFAULT_TIMEOUT }
    }

    /// Sets how long callers wait, for a person who may have to type a passphrase first.
    #[must_use]
    pub fn with_timeout(mut self, patience: Duration) -> Self {
        self.timeout = patience;
        self
    }

    /// Returns the key stored under a label (entry: service `aiproxy`, user LABEL); `None` if there
    /// is no such entry.
    ///
    /// A locked keyring is an error, never `None`.
    ///
    /// # Errors
    ///
    /// [`KeyringError`], without any value in it.
    pub async fn get(&self, label: &str) -> Result<Option<Secret>, KeyringError> {
        let label = validate_label(label)?;
        self.run_on_thread(move |session| session.get(&label)).await
    }

    /// Stores a key and replaces an existing one.
    ///
    /// # Errors
    ///
    /// [`KeyringError`]. After `Timeout` the key may still be stored, once the prompt is answered.
    pub async fn set(&self, label: &str, secret: &Secret) -> Result<(), KeyringError> {
        let label = validate_label(label)?;
        let secret = Zeroizing::new(secret.expose().to_owned());
        self.run_on_thread(move |session| session.set(&label, secret.as_bytes())).await
    }

    /// Removes a key; `false` if there was no such key.
    ///
    /// # Errors
    ///
    /// [`KeyringError`].
    pub async fn delete(&self, label: &str) -> Result<bool, KeyringError> {
        let label = validate_label(label)?;
        self.run_on_thread(move |session| session.delete(&label)).await
    }

    /// Returns why no entry can be read now, if that is known without a prompt: the keyring is
    /// locked, or there is none.
    pub async fn obstacle(&self) -> Option<KeyringError> {
        self.run_on_thread(|session| Ok(session.obstacle())).await.unwrap_or_else(Some)
    }

    /// Checks whether keys can be stored here, by storing, reading and removing a test entry. A
    /// service that answers may still have no collection to store keys in.
    ///
    /// # Errors
    ///
    /// The step that failed, and why.
    pub async fn probe(&self) -> Result<(), KeyringError> {
        self.run_on_thread(KeyringSession::probe).await
    }

    fn with_connector(
        connect: impl Fn() -> Result<Arc<CredentialStore>, KeyringError> + Send + Sync + 'static,
        has_locks: bool,
    ) -> Self {
        let worker = KeyringThread {
            connect: Arc::new(connect),
            has_locks,
            sender: OnceLock::new(),
            lease: Arc::default(),
        };
        Self { backend: KeyringBackend::Thread(Arc::new(worker)), timeout: DEFAULT_TIMEOUT }
    }

    async fn run_on_thread<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut KeyringSession) -> Result<T, KeyringError> + Send + 'static,
    ) -> Result<T, KeyringError> {
        let worker = match &self.backend {
            KeyringBackend::Thread(worker) => worker,
            KeyringBackend::Unavailable(reason) => {
                return Err(KeyringError::NoService(reason.to_string()));
            }
        };
        if worker.lease.is_abandoned() {
            return Err(KeyringError::Busy);
        }
        let (reply, answer) = oneshot::channel();
        let job: KeyringJob = Box::new(move |session| {
            // A caller that got a timeout while this waited in the queue must not find it done
            // later.
            if !reply.is_closed() {
                // The caller may have stopped waiting; then the answer, with the key in it, is
                // wiped here.
                drop(reply.send(task(session)));
            }
        });
        let queue = worker.job_sender()?;
        let answered = tokio::time::timeout(self.timeout, async {
            queue.send(job).await.map_err(|_| KeyringError::Other(THREAD_GONE.to_owned()))?;
            answer.await.map_err(|_| KeyringError::Other(THREAD_GONE.to_owned()))?
        });
        answered.await.unwrap_or_else(|_| {
            worker.lease.abandon();
            Err(KeyringError::Timeout)
        })
    }
}

struct KeyringThread {
    connect: Arc<dyn Fn() -> Result<Arc<CredentialStore>, KeyringError> + Send + Sync>,
    /// Whether it is the session's own keyring, which may be locked.
    has_locks: bool,
    sender: OnceLock<Result<mpsc::Sender<KeyringJob>, String>>,
    lease: Arc<ThreadLease>,
}

impl KeyringThread {
    fn job_sender(&self) -> Result<&mpsc::Sender<KeyringJob>, KeyringError> {
        let queue = self.sender.get_or_init(|| {
            let (queue, jobs) = mpsc::channel(MAX_QUEUED_JOBS);
            let session = KeyringSession {
                connect: Arc::clone(&self.connect),
                store: None,
                lock_probe: self.has_locks.then(LockProbe::default),
            };
            let hold = Arc::clone(&self.lease);
            let thread = std::thread::Builder::new().name("keyring".to_owned());
            thread
                .spawn(move || run_jobs(jobs, session, &hold))
                .map(|_| queue)
                .map_err(|e| format!("no thread for it: {e}"))
        });
        queue.as_ref().map_err(|e| KeyringError::Other(e.clone()))
    }
}

type KeyringJob = Box<dyn FnOnce(&mut KeyringSession) + Send>;

fn run_jobs(mut jobs: mpsc::Receiver<KeyringJob>, mut session: KeyringSession, hold: &ThreadLease) {
    let mut number = 0;
    while let Some(job) = jobs.blocking_recv() {
        number += 1;
        hold.running.store(number, Ordering::SeqCst);
        // The libraries below call `expect()`: a panic in one call must not disable the keyring for
        // all later calls.
        if catch_unwind(AssertUnwindSafe(|| job(&mut session))).is_err() {
            session.store = None;
        }
        hold.running.store(0, Ordering::SeqCst);
    }
}

/// Tracks which call occupies the thread, and whether its caller has stopped waiting.
#[derive(Default)]
struct ThreadLease {
    /// The number of the running call; 0 if there is none.
    running: AtomicU64,
    abandoned: AtomicU64,
}

impl ThreadLease {
    fn abandon(&self) {
        self.abandoned.store(self.running.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    fn is_abandoned(&self) -> bool {
        let running = self.running.load(Ordering::SeqCst);
        running != 0 && running == self.abandoned.load(Ordering::SeqCst)
    }
}

/// The thread's connection to the store.
struct KeyringSession {
    connect: Arc<dyn Fn() -> Result<Arc<CredentialStore>, KeyringError> + Send + Sync>,
    store: Option<Arc<CredentialStore>>,
    lock_probe: Option<LockProbe>,
}

impl KeyringSession {
    fn get(&mut self, label: &str) -> Result<Option<Secret>, KeyringError> {
        let Some(bytes) = self.with_entry(label, Entry::get_secret)? else {
            // A collection that was never unlocked finds no entry, although it may have one.
            return self.obstacle().map_or(Ok(None), Err);
        };
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(Secret::new(text))),
            Err(error) => {
                drop(Zeroizing::new(error.into_bytes()));
                Err(KeyringError::Other("the entry is not text".to_owned()))
            }
        }
    }

    fn set(&mut self, label: &str, secret: &[u8]) -> Result<(), KeyringError> {
        match self.with_entry(label, |entry| entry.set_secret(secret))? {
            Some(()) => Ok(()),
            None => {
                Err(KeyringError::NoService("it has no collection to keep a key in".to_owned()))
            }
        }
    }

    fn delete(&mut self, label: &str) -> Result<bool, KeyringError> {
        Ok(self.with_entry(label, Entry::delete_credential)?.is_some())
    }

    fn obstacle(&mut self) -> Option<KeyringError> {
        self.lock_probe.as_mut().and_then(LockProbe::obstacle)
    }

    fn probe(&mut self) -> Result<(), KeyringError> {
        // One entry per process, so that two concurrent probes do not disturb each other.
        let label = format!("probe/{}", std::process::id());
        let value = b"aiproxy looks whether keys can be kept here";
        self.set(&label, value)?;
        let read = self.get(&label)?;
        self.delete(&label)?;
        if read.is_some_and(|read| read.expose().as_bytes() == value) {
            Ok(())
        } else {
            Err(KeyringError::Other("what was stored could not be read again".to_owned()))
        }
    }

    /// Returns `None` if there is no such entry.
    fn with_entry<T>(
        &mut self,
        label: &str,
        operation: impl Fn(&Entry) -> keyring_core::Result<T>,
    ) -> Result<Option<T>, KeyringError> {
        let reused = self.store.is_some();
        let mut answer = self.try_with_entry(label, &operation)?;
        // A restarted service has lost the session, and every call over it fails forever.
        if reused && matches!(answer, Err(Error::PlatformFailure(_) | Error::NoDefaultStore)) {
            self.store = None;
            answer = self.try_with_entry(label, &operation)?;
        }
        match answer {
            Ok(value) => Ok(Some(value)),
            Err(Error::NoEntry) => Ok(None),
            Err(error) => Err(classify(error)),
        }
    }

    fn try_with_entry<T>(
        &mut self,
        label: &str,
        operation: &impl Fn(&Entry) -> keyring_core::Result<T>,
    ) -> Result<keyring_core::Result<T>, KeyringError> {
        let store = match &self.store {
            Some(store) => store,
            None => self.store.insert((self.connect)()?),
        };
        Ok(store.build(SERVICE, label, None).and_then(|entry| operation(&entry)))
    }
}

/// The service's transport does not accept NUL, and terminals show the label.
fn validate_label(label: &str) -> Result<String, KeyringError> {
    if label.is_empty() || label.len() > MAX_LABEL_BYTES || label.chars().any(char::is_control) {
        return Err(KeyringError::Other(format!(
            "a label has 1 to {MAX_LABEL_BYTES} bytes and no control characters"
        )));
    }
    Ok(label.to_owned())
}

/// The service name of all entries of aiproxy.
pub const SERVICE: &str = "aiproxy";
/// How long a caller waits for an answer.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls queued at the thread; more wait in their callers, within the same timeout.
const MAX_QUEUED_JOBS: usize = 64;
const MAX_LABEL_BYTES: usize = 256;
const THREAD_GONE: &str = "its library broke off";

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc as std_mpsc};

    use super::*;

    fn mock() -> Keyring {
        Keyring::with_connector(
            || Ok(keyring_core::mock::Store::new().expect("a mock store")),
            false,
        )
    }

    /// A keyring whose first calls block until a message arrives in the channel.
    fn gated() -> (Keyring, std_mpsc::Sender<()>) {
        let (open, gate) = std_mpsc::channel();
        let gate = Mutex::new(gate);
        let keyring = Keyring::with_connector(
            move || {
                gate.lock()
                    .expect("one thread")
                    .recv()
                    .map_err(|_| KeyringError::Other("gate gone".to_owned()))?;
                Ok(keyring_core::mock::Store::new().expect("a mock store"))
            },
            false,
        );
        (keyring, open)
    }

    #[tokio::test]
    async fn key_is_stored_replaced_and_removed() {
        let keyring = mock();

        assert!(keyring.get("openai/work").await.expect("get").is_none());
        keyring.set("openai/work", &Secret::new("sk-one".to_owned())).await.expect("set");
        keyring.set("openai/work", &Secret::new("sk-two".to_owned())).await.expect("set again");
        assert_eq!(
            keyring.get("openai/work").await.expect("get").expect("a key").expose(),
            "sk-two"
        );
        assert!(keyring.delete("openai/work").await.expect("delete"));
        assert!(!keyring.delete("openai/work").await.expect("delete again"));
        keyring.probe().await.expect("usable");
    }

    #[tokio::test]
    async fn unresponsive_keyring_costs_one_timeout_only() {
        let (keyring, open) = gated();
        let hasty = keyring.clone().with_timeout(Duration::from_millis(50));

        assert_eq!(hasty.get("a").await.expect_err("silent"), KeyringError::Timeout);
        // On a busy machine the thread may not have reached the first call yet; then another call
        // blocked it.
        while hasty.get("a").await.expect_err("silent") == KeyringError::Timeout {}
        assert_eq!(keyring.get("a").await.expect_err("held"), KeyringError::Busy);

        open.send(()).expect("the thread waits");
        while matches!(keyring.get("a").await, Err(KeyringError::Busy)) {
            tokio::task::yield_now().await;
        }
        keyring.set("a", &Secret::new("sk-late".to_owned())).await.expect("answered again");
    }

    #[tokio::test]
    async fn abandoned_keyring_call_is_not_executed_later() {
        let (keyring, open) = gated();
        let hasty = keyring.clone().with_timeout(Duration::from_millis(50));

        let (first, second) = tokio::join!(hasty.get("a"), async {
            let secret = Secret::new("sk-late".to_owned());
            hasty.set("b", &secret).await
        });
        assert!(first.is_err() && second.is_err());
        open.send(()).expect("the thread waits");

        while matches!(keyring.get("a").await, Err(KeyringError::Busy)) {
            tokio::task::yield_now().await;
        }
        assert!(keyring.get("b").await.expect("get").is_none());
    }

    #[tokio::test]
    async fn panic_in_the_library_fails_one_call_only() {
        let calls = AtomicU64::new(0);
        let keyring = Keyring::with_connector(
            move || {
                assert!(calls.fetch_add(1, Ordering::SeqCst) > 0, "a bug in the library");
                Ok(keyring_core::mock::Store::new().expect("a mock store"))
            },
            false,
        );

        assert!(matches!(keyring.get("a").await, Err(KeyringError::Other(_))));
        assert!(keyring.get("a").await.expect("still there").is_none());
    }

    #[tokio::test]
    async fn missing_keyring_error_has_reason_and_alternative() {
        let error = Keyring::unavailable("switched off").get("a").await.expect_err("none");

        assert_eq!(error.to_string(), "no OS keyring service: switched off");
        assert!(error.hint().contains("--vault") && error.hint().contains("env:"));
    }

    #[tokio::test]
    async fn labels_unsupported_by_the_keyring_are_refused() {
        for label in ["", "a\0b", "a\nb", &"x".repeat(300)] {
            assert!(matches!(mock().get(label).await, Err(KeyringError::Other(_))), "{label:?}");
        }
    }
}
