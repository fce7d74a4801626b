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
    query::{QueryError, Reader},
    retention,
    sqlite::{self, File, Trouble},
};
use crate::{
    base::{
        clock::{Clock, Mono},
        redact::Redactor,
        zone::timezone_by_name,
    },
    config::settings::LedgerSettings as Settings,
    events::{
        kind::Severity,
        sink::{LedgerEntry, LedgerMessage, LedgerQueue},
    },
};

/// What comes within this time is written together; nothing is lost by a crash that came before it.
const GATHER: Duration = Duration::from_millis(150);
/// Notes in one transaction at most.
const BATCH: usize = 4_096;
/// Bytes that wait in memory while the file cannot be written.
const WAITING: usize = 32 << 20;
/// What one request takes there, about.
const ROW: usize = 1_024;
/// A file that could not be written is tried again after this.
const AGAIN: Duration = Duration::from_secs(3);
/// The same trouble is told once in this time.
const TELL: Duration = Duration::from_secs(60);
/// Old rows are looked for this often.
const TEND: Duration = Duration::from_secs(300);

/// What the thread needs.
pub struct Start {
    /// Where the file is.
    pub path: PathBuf,
    pub settings: Settings,
    pub notes: Receiver<LedgerMessage>,
    pub clock: Arc<dyn Clock>,
    pub redactor: Arc<dyn Redactor>,
    /// Tells people.
    pub tell: Box<dyn Fn(Severity, String) + Send>,
    /// Sees each finished request as it comes: off the way of requests, whatever becomes of the
    /// file.
    pub seen: Box<dyn FnMut(&LedgerEntry) + Send>,
}

/// How the ledger does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub path: String,
    /// Why what comes is only held in memory; `None` where all is well.
    pub trouble: Option<String>,
    /// Requests that wait there.
    pub waiting: u64,
    /// Requests that were lost for want of room.
    pub lost: u64,
    /// Requests that found no place on the way there.
    #[serde(default)]
    pub unrecorded: u64,
    /// Requests whose bodies were not kept, as too much came at once.
    #[serde(default)]
    pub skipped: u64,
}

/// The ledger of a running proxy.
pub struct Ledger {
    path: PathBuf,
    zone: TimeZone,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    trouble: Mutex<Option<String>>,
    waiting: AtomicU64,
    lost: AtomicU64,
    settings: Mutex<Settings>,
}

impl Ledger {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The system gives no thread.
    pub fn start(start: Start) -> std::io::Result<Self> {
        let zone = timezone_by_name(&start.settings.tz);
        let shared =
            Arc::new(Shared { settings: Mutex::new(start.settings.clone()), ..Shared::default() });
        let path = start.path.clone();
        let writer = Writer {
            path: start.path,
            zone: zone.clone(),
            shared: Arc::clone(&shared),
            clock: start.clock,
            redactor: start.redactor,
            tell: start.tell,
            seen: start.seen,
            file: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            tried: None,
            told: None,
            tended: None,
            left_alone: false,
        };
        let notes = start.notes;
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer.run(notes))?;
        Ok(Self { path, zone, shared, thread: Mutex::new(Some(thread)) })
    }

    /// Applies what a reload changed; another path or time zone needs a restart.
    pub fn apply(&self, settings: &Settings) {
        self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner).clone_from(settings);
    }

    /// How it does, and how the way to it does.
    #[must_use]
    pub fn status(&self, sink: &LedgerQueue) -> Status {
        Status {
            unrecorded: sink.unrecorded(),
            skipped: sink.skipped_bodies(),
            path: self.path.display().to_string(),
            trouble: self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            waiting: self.shared.waiting.load(Ordering::Relaxed),
            lost: self.shared.lost.load(Ordering::Relaxed),
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
    pub fn reader(&self) -> Result<Reader, QueryError> {
        Reader::open(&self.path, self.zone.clone())
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

struct Writer {
    path: PathBuf,
    zone: TimeZone,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    redactor: Arc<dyn Redactor>,
    tell: Box<dyn Fn(Severity, String) + Send>,
    seen: Box<dyn FnMut(&LedgerEntry) + Send>,
    file: Option<File>,
    /// What is not on disk yet, oldest first.
    waiting: VecDeque<LedgerMessage>,
    waiting_bytes: usize,
    tried: Option<Mono>,
    told: Option<(Mono, String)>,
    tended: Option<Mono>,
    /// The file is not ours to write: it is not tried again.
    left_alone: bool,
}

impl Writer {
    fn run(mut self, mut notes: Receiver<LedgerMessage>) {
        // Opened at once, so that what is wrong is said at the start and not after the first
        // request.
        self.write(false);
        while let Some(first) = notes.blocking_recv() {
            let mut asked = Vec::new();
            let mut last = self.take(first, &mut asked);
            if !last && asked.is_empty() {
                std::thread::sleep(GATHER);
            }
            loop {
                let mut taken = 0;
                while taken < BATCH {
                    let Ok(note) = notes.try_recv() else { break };
                    last |= self.take(note, &mut asked);
                    taken += 1;
                }
                self.write(last || !asked.is_empty());
                if taken < BATCH {
                    break;
                }
            }
            self.tend();
            for done in asked.drain(..) {
                // Who asked may have left.
                done.send(()).unwrap_or_default();
            }
            if last {
                return;
            }
        }
        self.write(true);
    }

    /// Puts a note among what waits; true for the last one.
    fn take(
        &mut self,
        note: LedgerMessage,
        asked: &mut Vec<tokio::sync::oneshot::Sender<()>>,
    ) -> bool {
        match note {
            LedgerMessage::Close => return true,
            LedgerMessage::Flush(done) => asked.push(done),
            LedgerMessage::Tick => {}
            LedgerMessage::Body(_) | LedgerMessage::Request(_) => {
                if let LedgerMessage::Request(entry) = &note {
                    (self.seen)(entry);
                }
                self.waiting_bytes += weight(&note);
                self.waiting.push_back(note);
            }
        }
        false
    }

    /// Writes what waits, if the file lets us.
    fn write(&mut self, now: bool) {
        if self.file.is_none() && !self.open(now) {
            self.shrink();
            return;
        }
        while !self.waiting.is_empty() {
            let Some(file) = &mut self.file else { break };
            let batch = self.waiting.len().min(BATCH);
            match file.write(self.waiting.iter().take(batch), &*self.redactor, self.clock.unix()) {
                Ok(()) => {
                    for note in self.waiting.drain(..batch) {
                        self.waiting_bytes = self.waiting_bytes.saturating_sub(weight(&note));
                    }
                }
                Err(trouble) => {
                    self.file = None;
                    self.tried = Some(self.clock.mono());
                    self.trouble(trouble);
                    if self.file.is_none() {
                        break;
                    }
                }
            }
        }
        self.shrink();
        if self.file.is_some() && self.waiting.is_empty() {
            self.well();
        }
    }

    fn open(&mut self, now: bool) -> bool {
        let mono = self.clock.mono();
        if self.left_alone || (!now && self.tried.is_some_and(|tried| mono.since(tried) < AGAIN)) {
            return false;
        }
        self.tried = Some(mono);
        match File::open(&self.path, self.zone.clone()) {
            Ok(file) => self.file = Some(file),
            Err(trouble) => self.trouble(trouble),
        }
        self.file.is_some()
    }

    /// Says what is wrong; a broken file is moved aside and a new one begun.
    fn trouble(&mut self, trouble: Trouble) {
        let path = self.path.display().to_string();
        let text = match trouble {
            Trouble::Broken(what) => match sqlite::move_aside(&self.path, self.clock.unix()) {
                Ok(aside) => {
                    let aside = aside.display();
                    (self.tell)(
                        Severity::Error,
                        format!(
                            "the ledger {path} is damaged ({what}); it was moved to {aside}, and a new one is begun"
                        ),
                    );
                    match File::open(&self.path, self.zone.clone()) {
                        Ok(file) => {
                            self.file = Some(file);
                            return;
                        }
                        Err(trouble) => trouble.to_string(),
                    }
                }
                Err(error) => format!("it is damaged ({what}) and cannot be moved aside: {error}"),
            },
            Trouble::NotOurs(what) => {
                self.left_alone = true;
                format!("{what}; it is left as it is, `path` under [ledger] names another")
            }
            Trouble::Passing(what) => what,
        };
        let mono = self.clock.mono();
        let news =
            self.told.as_ref().is_none_or(|(at, said)| *said != text || mono.since(*at) >= TELL);
        if news {
            (self.tell)(
                Severity::Error,
                format!(
                    "the ledger {path} cannot be written: {text}. Requests go on; what happens is held in memory"
                ),
            );
            self.told = Some((mono, text.clone()));
        }
        *self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    fn well(&mut self) {
        let before = self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
        if before.is_some() {
            self.told = None;
            (self.tell)(
                Severity::Info,
                format!("the ledger {} is written again", self.path.display()),
            );
        }
        self.shared.waiting.store(0, Ordering::Relaxed);
    }

    /// What waits stays within its bound: bodies go first, then the oldest requests.
    fn shrink(&mut self) {
        if self.waiting_bytes > WAITING {
            self.waiting.retain(|note| !matches!(note, LedgerMessage::Body(_)));
            self.waiting_bytes = self.waiting.iter().map(weight).sum();
        }
        let mut lost = 0;
        while self.waiting_bytes > WAITING {
            let Some(note) = self.waiting.pop_front() else { break };
            self.waiting_bytes = self.waiting_bytes.saturating_sub(weight(&note));
            lost += 1;
        }
        self.shared.lost.fetch_add(lost, Ordering::Relaxed);
        let requests =
            self.waiting.iter().filter(|note| matches!(note, LedgerMessage::Request(_))).count();
        self.shared.waiting.store(requests as u64, Ordering::Relaxed);
    }

    /// Makes room, when it is time or when bodies take too much.
    fn tend(&mut self) {
        let settings = self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mono = self.clock.mono();
        let Some(file) = &mut self.file else { return };
        let full = file.bodies > i64::try_from(settings.bodies_total).unwrap_or(i64::MAX);
        if !full && self.tended.is_some_and(|at| mono.since(at) < TEND) {
            return;
        }
        match retention::tend(file, &settings, self.clock.unix()) {
            // What is left over is for the next time, so that new rows need not wait for old ones.
            Ok(more) => self.tended = if more { None } else { Some(mono) },
            Err(trouble) => {
                self.file = None;
                self.trouble(trouble);
            }
        }
    }
}

fn weight(note: &LedgerMessage) -> usize {
    match note {
        LedgerMessage::Body(body) => body.memory_bytes() + ROW,
        LedgerMessage::Request(_) => ROW,
        LedgerMessage::Close | LedgerMessage::Flush(_) | LedgerMessage::Tick => 0,
    }
}

#[cfg(test)]
mod tests;
