//! Writes the ledger in a thread of its own. If the file cannot be written, entries are buffered in
//! bounded memory and the problem is reported.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc,
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
        clock::{Clock, Mono, UnixMillis},
        redact::Redactor,
        sync::Mutex,
        timezone::timezone_by_name,
    },
    config::settings::LedgerSettings as Settings,
    events::{
        event::Severity,
        ledger_queue::{LedgerEntry, LedgerMessage, LedgerQueue},
        status_message::notice::NoticeMessage,
    },
};

/// Entries that arrive within this time are written together. A crash loses at most this much.
const BATCH_DELAY: Duration = Duration::from_millis(150);
/// Maximum number of messages in one transaction.
const MAX_BATCH: usize = 4_096;
/// Bytes buffered in memory while the file cannot be written.
const MAX_WAITING_BYTES: usize = 32 << 20;
/// Estimated memory for one buffered request.
const REQUEST_BYTES: usize = 1_024;
/// Delay before a file that could not be written is tried again.
const REOPEN_INTERVAL: Duration = Duration::from_secs(3);
/// The same problem is reported at most once in this time.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// Interval between searches for old rows.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(300);

/// Settings and callbacks of the writer thread.
pub struct WriterConfig {
    /// Path of the ledger file.
    pub path: PathBuf,
    pub settings: Settings,
    pub messages: Receiver<LedgerMessage>,
    pub clock: Arc<dyn Clock>,
    pub redactor: Arc<dyn Redactor>,
    /// Reports a problem to the user.
    pub report: Box<dyn Fn(Severity, NoticeMessage) + Send>,
    /// Receives each finished request, outside the request path and independent of the state of the
    /// file.
    pub on_request: Box<dyn FnMut(&LedgerEntry) + Send>,
}

/// Status of the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerStatus {
    pub path: String,
    /// Why entries are only buffered in memory; `None` if the file is written normally.
    #[serde(rename = "trouble")]
    pub problem: Option<String>,
    /// Number of buffered requests.
    #[serde(rename = "waiting")]
    pub waiting_requests: u64,
    /// Requests lost because the buffer was full.
    #[serde(rename = "lost")]
    pub lost_requests: u64,
    /// When the file was last found removed or replaced by another program, and a new one begun.
    #[serde(default)]
    pub replaced_at: Option<UnixMillis>,
    /// Requests that did not fit into the queue to the writer.
    #[serde(default)]
    pub unrecorded: u64,
    /// Requests whose bodies were not stored because the queue was full.
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
    replaced_at: Mutex<Option<UnixMillis>>,
    settings: Mutex<Settings>,
}

impl Ledger {
    /// Starts the writer thread.
    ///
    /// # Errors
    ///
    /// The system cannot start a thread.
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

    /// Applies the settings of a reload; a new path or time zone needs a restart.
    pub fn apply_settings(&self, settings: &Settings) {
        self.shared.settings.lock().clone_from(settings);
    }

    /// Returns the status of the ledger and of the queue to it.
    #[must_use]
    pub fn status(&self, sink: &LedgerQueue) -> LedgerStatus {
        LedgerStatus {
            unrecorded: sink.unrecorded(),
            skipped_bodies: sink.skipped_bodies(),
            path: self.path.display().to_string(),
            problem: self.shared.problem.lock().clone(),
            replaced_at: *self.shared.replaced_at.lock(),
            waiting_requests: self.shared.waiting_requests.load(Ordering::Relaxed),
            lost_requests: self.shared.lost_requests.load(Ordering::Relaxed),
        }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a separate reader connection for the caller.
    ///
    /// # Errors
    ///
    /// The file does not exist or cannot be read.
    pub fn reader(&self) -> Result<LedgerReader, QueryError> {
        LedgerReader::open(&self.path, self.zone.clone())
    }

    /// Stops the thread after everything is written.
    pub async fn close(&self, sink: &LedgerQueue) {
        sink.close().await;
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // The thread ends by itself. It is joined on the blocking pool, so that a slow disk
            // does not block the runtime.
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
    report: Box<dyn Fn(Severity, NoticeMessage) + Send>,
    on_request: Box<dyn FnMut(&LedgerEntry) + Send>,
    file: Option<LedgerFile>,
    /// Messages that are not on disk yet, oldest first.
    waiting: VecDeque<LedgerMessage>,
    waiting_bytes: usize,
    last_open_attempt: Option<Mono>,
    last_reported: Option<(Mono, String)>,
    last_maintenance: Option<Mono>,
    /// The file belongs to another program or version and is not tried again.
    suspended: bool,
}

impl WriterThread {
    fn run(mut self, mut messages: Receiver<LedgerMessage>) {
        // Opens the file immediately, so that problems are reported at startup and not after the
        // first request.
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
                // The caller may have stopped waiting.
                done.send(()).unwrap_or_default();
            }
            if last {
                return;
            }
        }
        self.write_waiting(true);
    }

    /// Adds a message to the buffer; returns true for the last message.
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

    /// Gives up a file that another program removed or replaced: what is written to it would be
    /// lost. The path is opened again at once.
    fn leave_replaced_file(&mut self) {
        if self.file.as_ref().is_none_or(|file| file.is_at(&self.path)) {
            return;
        }
        // The old connection must be closed before the new one makes its own companion files.
        self.file = None;
        self.last_open_attempt = None;
        *self.shared.replaced_at.lock() = Some(self.clock.unix());
        let path = self.path.display().to_string().into();
        (self.report)(Severity::Error, NoticeMessage::LedgerReplaced { path });
    }

    /// Writes the buffered messages, if the file can be written.
    fn write_waiting(&mut self, force: bool) {
        self.leave_replaced_file();
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

    /// Reports the error. Moves a damaged file aside and starts a new one.
    fn handle_error(&mut self, error: StoreError) {
        let path = self.path.display().to_string();
        let text = match error {
            StoreError::Corrupt(reason) => match store::move_aside(&self.path, self.clock.unix()) {
                Ok(aside) => {
                    let notice = NoticeMessage::LedgerDamaged {
                        path: path.as_str().into(),
                        problem: reason.into(),
                        aside: aside.display().to_string().into(),
                    };
                    (self.report)(Severity::Error, notice);
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
            let problem = text.as_str().into();
            let notice = NoticeMessage::LedgerNotWritable { path: path.into(), problem };
            (self.report)(Severity::Error, notice);
            self.last_reported = Some((mono, text.clone()));
        }
        *self.shared.problem.lock() = Some(text);
    }

    fn clear_problem(&mut self) {
        let previous = self.shared.problem.lock().take();
        if previous.is_some() {
            self.last_reported = None;
            let path = self.path.display().to_string().into();
            (self.report)(Severity::Info, NoticeMessage::LedgerWritable { path });
        }
        self.shared.waiting_requests.store(0, Ordering::Relaxed);
    }

    /// Keeps the buffer within its limit: drops bodies first, then the oldest requests.
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

    /// Deletes old rows when maintenance is due or bodies exceed their limit.
    fn run_maintenance(&mut self) {
        let settings = self.shared.settings.lock().clone();
        let mono = self.clock.mono();
        let Some(file) = &mut self.file else { return };
        let full = file.body_bytes > i64::try_from(settings.bodies_total).unwrap_or(i64::MAX);
        if !full && self.last_maintenance.is_some_and(|at| mono.since(at) < MAINTENANCE_INTERVAL) {
            return;
        }
        match retention::enforce(file, &settings, self.clock.unix()) {
            // The remaining rows wait for the next run, so that new rows are not delayed by old
            // ones.
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
