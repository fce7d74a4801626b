//! The thread that writes the ledger. Where the file cannot be written, what comes is held in
//! memory, within bounds, and everybody is told.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::Receiver;

use super::{
    query::{LedgerReader, QueryError},
    retention,
};
use crate::ledger::store::{self, LedgerFile, StoreError};
use crate::{
    base::{
        clock::{Clock, Mono},
        redact::Redactor,
        timezone::timezone_by_name,
    },
    config::settings::LedgerSettings as Settings,
    events::{
        event::Severity,
        ledger_queue::{LedgerEntry, LedgerMessage, LedgerQueue},
    },
};

/// What comes within this time is written together; nothing is lost by a crash that came before it.
const BATCH_DELAY: Duration = Duration::from_millis(150);
/// Notes in one transaction at most.
const MAX_BATCH: usize = 4_096;
/// Bytes that wait in memory while the file cannot be written.
const MAX_WAITING_BYTES: usize = 32 << 20;
/// What one request takes there, about.
const REQUEST_BYTES: usize = 1_024;
/// A file that could not be written is tried again after this.
const REOPEN_INTERVAL: Duration = Duration::from_secs(3);
/// The same trouble is told once in this time.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// Old rows are looked for this often.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(300);

/// What the thread needs.
pub struct WriterConfig {
    /// Where the file is.
    pub path: PathBuf,
    pub settings: Settings,
    pub messages: Receiver<LedgerMessage>,
    pub clock: Arc<dyn Clock>,
    pub redactor: Arc<dyn Redactor>,
    /// Tells people.
    pub report: Box<dyn Fn(Severity, String) + Send>,
    /// Sees each finished request as it comes: off the way of requests, whatever becomes of the
    /// file.
    pub on_request: Box<dyn FnMut(&LedgerEntry) + Send>,
}

/// How the ledger does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerStatus {
    pub path: String,
    /// Why what comes is only held in memory; `None` where all is well.
    #[serde(rename = "trouble")]
    pub problem: Option<String>,
    /// Requests that wait there.
    #[serde(rename = "waiting")]
    pub waiting_requests: u64,
    /// Requests that were lost for want of room.
    #[serde(rename = "lost")]
    pub lost_requests: u64,
    /// Requests that found no place on the way there.
    #[serde(default)]
    pub unrecorded: u64,
    /// Requests whose bodies were not kept, as too much came at once.
    #[serde(default)]
    #[serde(rename = "skipped")]
    pub skipped_bodies: u64,
}

/// The ledger of a running proxy.
pub struct Ledger {
    path: PathBuf,
    zone: TimeZone,
    shared: Arc<LedgerShared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct LedgerShared {
    problem: Mutex<Option<String>>,
    waiting_requests: AtomicU64,
    lost_requests: AtomicU64,
    settings: Mutex<Settings>,
}

impl Ledger {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The system gives no thread.
    pub fn start(config: WriterConfig) -> std::io::Result<Self> {
        let zone = timezone_by_name(&config.settings.tz);
        let shared = Arc::new(LedgerShared {
            settings: Mutex::new(config.settings.clone()),
            ..LedgerShared::default()
        });
        let path = config.path.clone();
        let writer = WriterThread {
            path: config.path,
            zone: zone.clone(),
            shared: Arc::clone(&shared),
            clock: config.clock,
            redactor: config.redactor,
            report: config.report,
            on_request: config.on_request,
            file: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            last_open_attempt: None,
            last_reported: None,
            last_maintenance: None,
            suspended: false,
        };
        let messages = config.messages;
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer.run(messages))?;
        Ok(Self { path, zone, shared, thread: Mutex::new(Some(thread)) })
    }

    /// Applies what a reload changed; another path or time zone needs a restart.
    pub fn apply_settings(&self, settings: &Settings) {
        self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner).clone_from(settings);
    }

    /// How it does, and how the way to it does.
    #[must_use]
    pub fn status(&self, sink: &LedgerQueue) -> LedgerStatus {
        LedgerStatus {
            unrecorded: sink.unrecorded(),
            skipped_bodies: sink.skipped_bodies(),
            path: self.path.display().to_string(),
            problem: self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            waiting_requests: self.shared.waiting_requests.load(Ordering::Relaxed),
            lost_requests: self.shared.lost_requests.load(Ordering::Relaxed),
        }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A connection of its own for whoever asks.
    ///
    /// # Errors
    ///
    /// There is no file, or it cannot be read.
    pub fn reader(&self) -> Result<LedgerReader, QueryError> {
        LedgerReader::open(&self.path, self.zone.clone())
    }

    /// Ends the thread, when everything is written.
    pub async fn close(&self, sink: &LedgerQueue) {
        sink.close().await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It ends by itself; joined aside, so that a slow disk does not hold up the runtime.
            tokio::task::spawn_blocking(move || thread.join().unwrap_or_default())
                .await
                .unwrap_or_default();
        }
    }
}

struct WriterThread {
    path: PathBuf,
    zone: TimeZone,
    shared: Arc<LedgerShared>,
    clock: Arc<dyn Clock>,
    redactor: Arc<dyn Redactor>,
    report: Box<dyn Fn(Severity, String) + Send>,
    on_request: Box<dyn FnMut(&LedgerEntry) + Send>,
    file: Option<LedgerFile>,
    /// What is not on disk yet, oldest first.
    waiting: VecDeque<LedgerMessage>,
    waiting_bytes: usize,
    last_open_attempt: Option<Mono>,
    last_reported: Option<(Mono, String)>,
    last_maintenance: Option<Mono>,
    /// The file is not ours to write: it is not tried again.
    suspended: bool,
}

impl WriterThread {
    fn run(mut self, mut messages: Receiver<LedgerMessage>) {
        // Opened at once, so that what is wrong is said at the start and not after the first
        // request.
        self.write_waiting(false);
        while let Some(first) = messages.blocking_recv() {
            let mut flush_replies = Vec::new();
            let mut last = self.enqueue(first, &mut flush_replies);
            if !last && flush_replies.is_empty() {
                std::thread::sleep(BATCH_DELAY);
            }
            loop {
                let mut received = 0;
                while received < MAX_BATCH {
                    let Ok(message) = messages.try_recv() else { break };
                    last |= self.enqueue(message, &mut flush_replies);
                    received += 1;
                }
                self.write_waiting(last || !flush_replies.is_empty());
                if received < MAX_BATCH {
                    break;
                }
            }
            self.run_maintenance();
            for done in flush_replies.drain(..) {
                // Who asked may have left.
                done.send(()).unwrap_or_default();
            }
            if last {
                return;
            }
        }
        self.write_waiting(true);
    }

    /// Puts a note among what waits; true for the last one.
    fn enqueue(
        &mut self,
        message: LedgerMessage,
        flush_replies: &mut Vec<tokio::sync::oneshot::Sender<()>>,
    ) -> bool {
        match message {
            LedgerMessage::Close => return true,
            LedgerMessage::Flush(done) => flush_replies.push(done),
            LedgerMessage::Tick => {}
            LedgerMessage::Body(_) | LedgerMessage::Request(_) => {
                if let LedgerMessage::Request(entry) = &message {
                    (self.on_request)(entry);
                }
                self.waiting_bytes += message_bytes(&message);
                self.waiting.push_back(message);
            }
        }
        false
    }

    /// Writes what waits, if the file lets us.
    fn write_waiting(&mut self, force: bool) {
        if self.file.is_none() && !self.open_file(force) {
            self.enforce_memory_limit();
            return;
        }
        while !self.waiting.is_empty() {
            let Some(file) = &mut self.file else { break };
            let batch = self.waiting.len().min(MAX_BATCH);
            match file.write_batch(
                self.waiting.iter().take(batch),
                &*self.redactor,
                self.clock.unix(),
            ) {
                Ok(()) => {
                    for message in self.waiting.drain(..batch) {
                        self.waiting_bytes =
                            self.waiting_bytes.saturating_sub(message_bytes(&message));
                    }
                }
                Err(error) => {
                    self.file = None;
                    self.last_open_attempt = Some(self.clock.mono());
                    self.handle_error(error);
                    if self.file.is_none() {
                        break;
                    }
                }
            }
        }
        self.enforce_memory_limit();
        if self.file.is_some() && self.waiting.is_empty() {
            self.clear_problem();
        }
    }

    fn open_file(&mut self, force: bool) -> bool {
        let mono = self.clock.mono();
        if self.suspended
            || (!force
                && self
                    .last_open_attempt
                    .is_some_and(|last_attempt| mono.since(last_attempt) < REOPEN_INTERVAL))
        {
            return false;
        }
        self.last_open_attempt = Some(mono);
        match LedgerFile::open(&self.path, self.zone.clone()) {
            Ok(file) => self.file = Some(file),
            Err(error) => self.handle_error(error),
        }
        self.file.is_some()
    }

    /// Says what is wrong; a broken file is moved aside and a new one begun.
    fn handle_error(&mut self, error: StoreError) {
        let path = self.path.display().to_string();
        let text = match error {
            StoreError::Corrupt(reason) => match store::move_aside(&self.path, self.clock.unix()) {
                Ok(aside) => {
                    let aside = aside.display();
                    (self.report)(
                        Severity::Error,
                        format!(
                            "the ledger {path} is damaged ({reason}); it was moved to {aside}, and a new one is begun"
                        ),
                    );
                    match LedgerFile::open(&self.path, self.zone.clone()) {
                        Ok(file) => {
                            self.file = Some(file);
                            return;
                        }
                        Err(error) => error.to_string(),
                    }
                }
                Err(error) => {
                    format!("it is damaged ({reason}) and cannot be moved aside: {error}")
                }
            },
            StoreError::Foreign(reason) => {
                self.suspended = true;
                format!("{reason}; it is left as it is, `path` under [ledger] names another")
            }
            StoreError::Transient(reason) => reason,
        };
        let mono = self.clock.mono();
        let should_report = self.last_reported.as_ref().is_none_or(|(at, reported_text)| {
            *reported_text != text || mono.since(*at) >= REPORT_INTERVAL
        });
        if should_report {
            (self.report)(
                Severity::Error,
                format!(
                    "the ledger {path} cannot be written: {text}. Requests go on; what happens is held in memory"
                ),
            );
            self.last_reported = Some((mono, text.clone()));
        }
        *self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    fn clear_problem(&mut self) {
        let previous = self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner).take();
        if previous.is_some() {
            self.last_reported = None;
            (self.report)(
                Severity::Info,
                format!("the ledger {} is written again", self.path.display()),
            );
        }
        self.shared.waiting_requests.store(0, Ordering::Relaxed);
    }

    /// What waits stays within its bound: bodies go first, then the oldest requests.
    fn enforce_memory_limit(&mut self) {
        if self.waiting_bytes > MAX_WAITING_BYTES {
            self.waiting.retain(|message| !matches!(message, LedgerMessage::Body(_)));
            self.waiting_bytes = self.waiting.iter().map(message_bytes).sum();
        }
        let mut dropped = 0;
        while self.waiting_bytes > MAX_WAITING_BYTES {
            let Some(message) = self.waiting.pop_front() else { break };
            self.waiting_bytes = self.waiting_bytes.saturating_sub(message_bytes(&message));
            dropped += 1;
        }
        self.shared.lost_requests.fetch_add(dropped, Ordering::Relaxed);
        let requests = self
            .waiting
            .iter()
            .filter(|message| matches!(message, LedgerMessage::Request(_)))
            .count();
        self.shared.waiting_requests.store(requests as u64, Ordering::Relaxed);
    }

    /// Makes room, when it is time or when bodies take too much.
    fn run_maintenance(&mut self) {
        let settings = self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mono = self.clock.mono();
        let Some(file) = &mut self.file else { return };
        let full = file.body_bytes > i64::try_from(settings.bodies_total).unwrap_or(i64::MAX);
        if !full && self.last_maintenance.is_some_and(|at| mono.since(at) < MAINTENANCE_INTERVAL) {
            return;
        }
        match retention::enforce(file, &settings, self.clock.unix()) {
            // What is left over is for the next time, so that new rows need not wait for old ones.
            Ok(more) => self.last_maintenance = if more { None } else { Some(mono) },
            Err(error) => {
                self.file = None;
                self.handle_error(error);
            }
        }
    }
}

fn message_bytes(message: &LedgerMessage) -> usize {
    match message {
        LedgerMessage::Body(body) => body.memory_bytes() + REQUEST_BYTES,
        LedgerMessage::Request(_) => REQUEST_BYTES,
        LedgerMessage::Close | LedgerMessage::Flush(_) | LedgerMessage::Tick => 0,
    }
}

#[cfg(test)]
mod tests;
