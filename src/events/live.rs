//! The fold of events: requests now and recently, the newest log lines, totals since start. Bounded.

use std::{
    collections::VecDeque,
    fmt::{self, Write},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    kind::{Event, EventKind, Level},
    record::{RequestRecord, State},
};
use crate::base::{
    clock::UnixMillis,
    id::{IdMap, RequestId},
    money::NanoUsd,
};

/// Finished requests kept.
pub const RECENT: usize = 500;
/// Log lines kept.
pub const LINES: usize = 1_000;

/// What any viewer folds events into; the proxy keeps one, each dashboard its own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Live {
    /// The newest event folded in.
    pub seq: u64,
    /// In order of start.
    pub running: Vec<RequestRecord>,
    /// Newest last.
    pub recent: VecDeque<RequestRecord>,
    /// Newest last.
    pub lines: VecDeque<Line>,
    pub totals: Totals,
    /// Places of `running`; rebuilt when absent.
    #[serde(skip)]
    places: IdMap<RequestId, usize>,
    /// Where the text of a line is put together.
    #[serde(skip)]
    draft: String,
}

/// Counts since the proxy started.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Totals {
    pub requests: u64,
    pub failed: u64,
    pub input: u64,
    pub cached: u64,
    pub output: u64,
    /// Of what was cached: because conversations went where they were served before.
    #[serde(default)]
    pub won: u64,
    /// Of what has a known price.
    #[serde(default)]
    pub cost: NanoUsd,
    /// Requests whose price nobody knows.
    #[serde(default)]
    pub unpriced: u64,
}

/// One line of the Log screen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    pub at: UnixMillis,
    pub level: Level,
    pub text: Arc<str>,
    /// The request it is about.
    pub id: Option<RequestId>,
}

impl Live {
    /// Folds one event in. Events of requests that are not known (a late viewer) are passed over.
    pub fn apply(&mut self, event: &Event) {
        self.fold(event.clone());
    }

    /// The same for an event that nobody else needs.
    pub fn fold(&mut self, event: Event) {
        self.seq = event.seq;
        let at = event.at;
        match event.kind {
            EventKind::Accepted { request } => {
                self.places.insert(request.id, self.running.len());
                self.running.push(*request);
            }
            EventKind::Queued { id, reason } => self.with(id, |r| {
                r.state = State::Queued;
                r.reason = Some(reason);
            }),
            EventKind::AttemptStarted { id, attempt, reason } => self.with(id, |r| {
                r.state = State::Waiting;
                r.reason = Some(reason);
                r.attempts.push(*attempt);
            }),
            EventKind::AttemptEnded { id, number, ended_ms, status, outcome, maybe_billed } => {
                let mut about = None;
                self.with(id, |r| {
                    if let Some(attempt) = r.attempts.iter_mut().find(|a| a.number == number) {
                        attempt.ended_ms = Some(ended_ms);
                        // One that answered and then broke off has both.
                        attempt.status = status.or(attempt.status);
                        attempt.won = false;
                        attempt.outcome = Some(Arc::clone(&outcome));
                        attempt.maybe_billed = maybe_billed;
                        let key = if attempt.key.is_empty() { String::new() } else { format!("/{}", attempt.key) };
                        about = Some(format!("attempt {number} of {} at {}{key}: {outcome}", r.asked, attempt.upstream));
                    }
                });
                if let Some(text) = about {
                    self.line(at, Level::Warn, text.into(), Some(id));
                }
            }
            EventKind::FirstContent { id, number, ttft_ms, head_ms, status } => self.with(id, |r| {
                r.state = State::Streaming;
                // An answer that is continued elsewhere has begun already.
                r.ttft_ms = r.ttft_ms.or(Some(ttft_ms));
                r.status = Some(status);
                let newest = r.attempts.len().saturating_sub(1);
                let of = r.attempts.iter().rposition(|attempt| attempt.number == number).unwrap_or(newest);
                if let Some(attempt) = r.attempts.get_mut(of) {
                    attempt.head_ms = Some(head_ms);
                    attempt.status = Some(status);
                    attempt.won = true;
                }
            }),
            EventKind::Progress { id, answer_bytes, events } => self.with(id, |r| {
                r.answer_bytes = answer_bytes;
                r.events = events;
            }),
            EventKind::CacheLost { id, lost } => {
                let (level, text) = (if lost.usual { Level::Info } else { Level::Warn }, lost.text());
                let mut about = None;
                self.with(id, |r| {
                    about = Some(format!("{} {}: {text}", r.project, r.asked));
                    r.cache_lost = Some(lost);
                });
                if let Some(text) = about {
                    self.line(at, level, text.into(), Some(id));
                }
            }
            ended @ EventKind::Ended { .. } => self.ended(at, ended),
            EventKind::Health { text, level, .. } | EventKind::Notice { text, level } => {
                self.line(at, level, text, None);
            }
            EventKind::Config { text, ok } => self.line(at, if ok { Level::Info } else { Level::Error }, text, None),
        }
    }

    fn ended(&mut self, at: UnixMillis, kind: EventKind) {
        let EventKind::Ended { id, state, status, duration_ms, usage, cost, finish, answer_bytes, events, error } = kind else { return };
        let Some(place) = self.place(id) else { return };
        let mut record = self.running.remove(place);
        self.places.remove(&id);
        for later in self.places.values_mut().filter(|later| **later > place) {
            *later -= 1;
        }
        record.state = state;
        record.status = status;
        record.duration_ms = Some(duration_ms);
        record.usage = usage;
        record.cost = cost;
        record.finish = finish;
        record.answer_bytes = answer_bytes;
        record.events = events;
        record.error = error;
        for attempt in record.attempts.iter_mut().filter(|a| a.ended_ms.is_none()) {
            attempt.ended_ms = Some(duration_ms);
            attempt.won = state == State::Done;
        }
        self.totals.requests += 1;
        self.totals.failed += u64::from(state == State::Failed);
        if let Some(usage) = usage {
            self.totals.input = self.totals.input.saturating_add(usage.input_total());
            self.totals.cached = self.totals.cached.saturating_add(usage.cache_read);
            self.totals.won = self.totals.won.saturating_add(record.won());
            self.totals.output = self.totals.output.saturating_add(usage.output_total());
        }
        match cost.map(|cost| cost.usd) {
            Some(Some(usd)) => self.totals.cost += usd,
            Some(None) => self.totals.unpriced += 1,
            None => {}
        }
        self.draft.clear();
        let level = summary(&record, &mut self.draft);
        let text = self.draft.as_str().into();
        self.line(at, level, text, Some(id));
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(record);
    }

    fn line(&mut self, at: UnixMillis, level: Level, text: Arc<str>, id: Option<RequestId>) {
        if self.lines.len() >= LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(Line { at, level, text, id });
    }

    fn place(&mut self, id: RequestId) -> Option<usize> {
        if self.places.len() != self.running.len() {
            self.places = self.running.iter().enumerate().map(|(at, r)| (r.id, at)).collect();
        }
        self.places.get(&id).copied()
    }

    fn with(&mut self, id: RequestId, change: impl FnOnce(&mut RequestRecord)) {
        if let Some(place) = self.place(id) {
            change(&mut self.running[place]);
        }
    }

    /// A running or recent request by id or unique prefix of it; `last` is the newest finished one.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&RequestRecord> {
        if id == "last" {
            return self.recent.back();
        }
        let mut hits = self.running.iter().chain(&self.recent).filter(|r| r.id.to_string().starts_with(id));
        let hit = hits.next()?;
        hits.next().is_none().then_some(hit)
    }
}

/// The line that a request ends with.
pub fn summary(record: &RequestRecord, out: &mut String) -> Level {
    // Writing into a string does not fail.
    let mut put = |text: fmt::Arguments<'_>| out.write_fmt(text).unwrap_or_default();
    put(format_args!("{} {} ", record.project, record.asked));
    match record.status {
        Some(status) => put(format_args!("{status}")),
        None => put(format_args!("–")),
    }
    if let Some(attempt) = record.last() {
        let slash = if attempt.key.is_empty() { "" } else { "/" };
        put(format_args!(" by {}{slash}{}", attempt.upstream, attempt.key));
    }
    put(format_args!(" in {} ms", record.duration_ms.unwrap_or_default()));
    match (record.state, &record.error) {
        (State::Left, _) => {
            put(format_args!(", client left"));
            Level::Info
        }
        (State::Failed, error) => {
            if let Some(error) = error {
                put(format_args!(": {error}"));
            }
            Level::Error
        }
        _ => Level::Info,
    }
}
