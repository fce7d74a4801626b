//! The fold of events: requests now and recently, the newest log lines, totals since start.
//! Bounded.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    kind::{Event, EventKind, Level},
    line::Line,
    record::{RequestRecord, State},
};
use crate::base::{clock::UnixMillis, id::RequestId, money::NanoUsd};

/// Finished requests kept.
pub const RECENT: usize = 500;
/// Log lines kept.
pub const LINES: usize = 1_000;

/// What any viewer folds events into; the proxy keeps one, each dashboard its own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Live {
    /// The newest event folded in.
    pub seq: u64,
    pub running: Running,
    /// Newest last; shared with the ledger.
    pub recent: VecDeque<Arc<RequestRecord>>,
    /// Newest last.
    pub lines: VecDeque<Line>,
    pub totals: Totals,
}

/// Requests under way, in the order of their ids: that of their start. Boxed, as they move between
/// lists.
#[derive(Clone, Debug, Default)]
pub struct Running(BTreeMap<RequestId, Box<RequestRecord>>);

impl Running {
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &RequestRecord> {
        self.0.values().map(|record| &**record)
    }

    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut RequestRecord> {
        self.0.values_mut().map(|record| &mut **record)
    }

    #[must_use]
    pub fn get(&self, id: RequestId) -> Option<&RequestRecord> {
        self.0.get(&id).map(|record| &**record)
    }
}

impl FromIterator<RequestRecord> for Running {
    fn from_iter<T: IntoIterator<Item = RequestRecord>>(records: T) -> Self {
        Self(records.into_iter().map(|record| (record.id, Box::new(record))).collect())
    }
}

impl Serialize for Running {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Running {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Vec::<RequestRecord>::deserialize(from).map(Self::from_iter)
    }
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
                self.running.0.insert(request.id, request);
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
                        let key = if attempt.key.is_empty() {
                            String::new()
                        } else {
                            format!("/{}", attempt.key)
                        };
                        about = Some(format!(
                            "attempt {number} of {} at {}{key}: {outcome}",
                            r.asked, attempt.upstream
                        ));
                    }
                });
                if let Some(text) = about {
                    self.line(Line::told(at, Level::Warn, text, Some(id)));
                }
            }
            EventKind::FirstContent { id, number, ttft_ms, head_ms, status } => {
                self.with(id, |r| {
                    r.state = State::Streaming;
                    // An answer that is continued elsewhere has begun already.
                    r.ttft_ms = r.ttft_ms.or(Some(ttft_ms));
                    r.status = Some(status);
                    let newest = r.attempts.len().saturating_sub(1);
                    let of = r
                        .attempts
                        .iter()
                        .rposition(|attempt| attempt.number == number)
                        .unwrap_or(newest);
                    if let Some(attempt) = r.attempts.get_mut(of) {
                        attempt.head_ms = Some(head_ms);
                        attempt.status = Some(status);
                        attempt.won = true;
                    }
                })
            }
            EventKind::Progress { id, answer_bytes, events } => self.with(id, |r| {
                r.answer_bytes = answer_bytes;
                r.events = events;
            }),
            EventKind::CacheLost { id, lost } => {
                let (level, text) =
                    (if lost.usual { Level::Info } else { Level::Warn }, lost.text());
                let mut about = None;
                self.with(id, |r| {
                    about = Some(format!("{} {}: {text}", r.project, r.asked));
                    r.cache_lost = Some(lost);
                });
                if let Some(text) = about {
                    self.line(Line::told(at, level, text, Some(id)));
                }
            }
            ended @ EventKind::Ended { .. } => self.ended(at, ended),
            EventKind::Alert { alert } => self.line(Line::told(at, alert.level, alert.text, None)),
            EventKind::Health { text, level, .. } | EventKind::Notice { text, level } => {
                self.line(Line::told(at, level, text, None));
            }
            EventKind::Config { text, ok } => {
                self.line(Line::told(at, if ok { Level::Info } else { Level::Error }, text, None))
            }
        }
    }

    fn ended(&mut self, at: UnixMillis, kind: EventKind) {
        let EventKind::Ended {
            id,
            state,
            status,
            duration_ms,
            usage,
            cost,
            finish,
            answer_bytes,
            events,
            error,
        } = kind
        else {
            return;
        };
        let Some(mut record) = self.running.0.remove(&id) else { return };
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
            // That the client went away is no failure of who was answering.
            if state == State::Failed {
                attempt.outcome = record.error.clone().or_else(|| Some("broke off".into()));
            }
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
        let record: Arc<RequestRecord> = record.into();
        self.line(Line::of_request(at, Arc::clone(&record)));
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(record);
    }

    fn line(&mut self, line: Line) {
        if self.lines.len() >= LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn with(&mut self, id: RequestId, change: impl FnOnce(&mut RequestRecord)) {
        if let Some(record) = self.running.0.get_mut(&id) {
            change(record);
        }
    }

    /// Finished requests that are still kept, newest last.
    pub fn finished(&self) -> impl DoubleEndedIterator<Item = &RequestRecord> {
        self.recent.iter().map(|record| &**record)
    }

    /// A running or recent request by id or unique prefix of it; `last` is the newest finished one.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&RequestRecord> {
        if id == "last" {
            return self.recent.back().map(|record| &**record);
        }
        let mut hits =
            self.running.iter().chain(self.finished()).filter(|r| r.id.to_string().starts_with(id));
        let hit = hits.next()?;
        hits.next().is_none().then_some(hit)
    }
}
