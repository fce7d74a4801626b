//! The bounded fold of events: running and recent requests, the newest log lines, totals since
//! start.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::record::{RequestRecord, RequestState};
use crate::base::{clock::UnixMillis, id::RequestId, money::NanoUsd};
use crate::events::{
    event::{Event, EventKind, Severity},
    log_line::LogLine,
    log_message::{LogMessage, target_name},
};
use crate::ir::reason::failure::FailureReason;

/// Finished requests that are retained.
pub const MAX_RECENT: usize = 500;
/// Log lines that are retained.
pub const MAX_LINES: usize = 1_000;

/// The state that a viewer folds events into. The proxy has one, and each dashboard has its own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Live {
    /// Sequence number of the newest folded event.
    pub seq: u64,
    pub running: RunningRequests,
    /// Newest last; shared with the ledger.
    pub recent: VecDeque<Arc<RequestRecord>>,
    /// Newest last.
    pub lines: VecDeque<LogLine>,
    pub totals: LiveTotals,
}

/// Running requests, in the order of their ids, which is that of their start. Boxed, because they
/// move between lists.
#[derive(Clone, Debug, Default)]
pub struct RunningRequests(BTreeMap<RequestId, Box<RequestRecord>>);

impl RunningRequests {
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

impl FromIterator<RequestRecord> for RunningRequests {
    fn from_iter<T: IntoIterator<Item = RequestRecord>>(records: T) -> Self {
        Self(records.into_iter().map(|record| (record.id, Box::new(record))).collect())
    }
}

impl Serialize for RunningRequests {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for RunningRequests {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Vec::<RequestRecord>::deserialize(from).map(Self::from_iter)
    }
}

/// Counts since the proxy started.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct LiveTotals {
    pub requests: u64,
    pub failed: u64,
    pub input: u64,
    pub cached: u64,
    pub output: u64,
    /// The part of the cached tokens that is due to affinity.
    #[serde(default)]
    #[serde(rename = "won")]
    pub affinity_cached: u64,
    /// Cost of the requests with a known price.
    #[serde(default)]
    pub cost: NanoUsd,
    /// Requests with an unknown price.
    #[serde(default)]
    pub unpriced: u64,
}

impl Live {
    /// Folds an event in. Ignores events of unknown requests (a late viewer).
    pub fn apply(&mut self, event: &Event) {
        self.apply_owned(event.clone());
    }

    /// Folds in an event that the caller does not need any more.
    pub fn apply_owned(&mut self, event: Event) {
        self.seq = event.seq;
        let at = event.at;
        match event.kind {
            EventKind::Accepted { request } => {
                self.running.0.insert(request.id, request);
            }
            EventKind::Queued { id, reason } => self.update_running(id, |r| {
                r.state = RequestState::Queued;
                r.reason = Some(reason);
            }),
            EventKind::AttemptStarted { id, attempt, reason } => self.update_running(id, |r| {
                r.state = RequestState::Waiting;
                r.reason = Some(reason);
                r.attempts.push(*attempt);
            }),
            ended @ EventKind::AttemptEnded { .. } => self.apply_attempt_end(at, ended),
            EventKind::FirstContent { id, number, ttft_ms, head_ms, status } => {
                self.update_running(id, |r| {
                    r.state = RequestState::Streaming;
                    // A response that another attempt continues has begun already.
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
                });
            }
            EventKind::Progress { id, answer_bytes, events } => self.update_running(id, |r| {
                r.answer_bytes = answer_bytes;
                r.events = events;
            }),
            EventKind::CacheMissed { id, lost } => {
                let level = if lost.is_benign { Severity::Info } else { Severity::Warn };
                let mut about = None;
                self.update_running(id, |r| {
                    about = Some(LogMessage::CacheMissed {
                        project: Arc::clone(&r.project),
                        model: Arc::clone(&r.requested_model),
                        miss: lost.clone(),
                    });
                    r.cache_miss = Some(lost);
                });
                if let Some(message) = about {
                    self.push_line(LogLine::new(at, level, message, Some(id)));
                }
            }
            ended @ EventKind::Ended { .. } => self.apply_end(at, ended),
            EventKind::Alert { alert } => {
                let message = LogMessage::Text { text: alert.text };
                self.push_line(LogLine::new(at, alert.level, message, None));
            }
            EventKind::Health { text, level, .. } => {
                self.push_line(LogLine::new(at, level, LogMessage::Health { change: text }, None));
            }
            EventKind::Notice { text, level } => {
                self.push_line(LogLine::new(at, level, LogMessage::Notice { notice: text }, None));
            }
            EventKind::Config { text, ok } => {
                let level = if ok { Severity::Info } else { Severity::Error };
                self.push_line(LogLine::new(at, level, LogMessage::Reload { result: text }, None));
            }
        }
    }

    fn apply_attempt_end(&mut self, at: UnixMillis, kind: EventKind) {
        let EventKind::AttemptEnded { id, number, ended_ms, status, outcome, maybe_billed } = kind
        else {
            return;
        };
        let mut about = None;
        self.update_running(id, |r| {
            if let Some(attempt) = r.attempts.iter_mut().find(|a| a.number == number) {
                attempt.ended_ms = Some(ended_ms);
                // An attempt that answered and then broke off has both.
                attempt.status = status.or(attempt.status);
                attempt.won = false;
                attempt.outcome = Some(Arc::clone(&outcome));
                attempt.maybe_billed = maybe_billed;
                about = Some(LogMessage::AttemptEnded {
                    number,
                    model: Arc::clone(&r.requested_model),
                    target: target_name(attempt),
                    outcome,
                });
            }
        });
        if let Some(message) = about {
            self.push_line(LogLine::new(at, Severity::Warn, message, Some(id)));
        }
    }

    fn apply_end(&mut self, at: UnixMillis, kind: EventKind) {
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
            attempt.won = state == RequestState::Done;
            // A client disconnect is not a failure of the upstream.
            if state == RequestState::Failed {
                let failure = record.error.as_ref().map_or(FailureReason::Unfinished, |error| {
                    FailureReason::Text { text: Arc::clone(error) }
                });
                attempt.outcome = Some(failure.into());
            }
        }
        self.totals.requests += 1;
        self.totals.failed += u64::from(state == RequestState::Failed);
        if let Some(usage) = usage {
            self.totals.input = self.totals.input.saturating_add(usage.input_total());
            self.totals.cached = self.totals.cached.saturating_add(usage.cache_read);
            self.totals.affinity_cached =
                self.totals.affinity_cached.saturating_add(record.affinity_cached_tokens());
            self.totals.output = self.totals.output.saturating_add(usage.output_total());
        }
        match cost.map(|cost| cost.usd) {
            Some(Some(usd)) => self.totals.cost += usd,
            Some(None) => self.totals.unpriced += 1,
            None => {}
        }
        let record: Arc<RequestRecord> = record.into();
        self.push_line(LogLine::for_request(at, Arc::clone(&record)));
        if self.recent.len() >= MAX_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(record);
    }

    fn push_line(&mut self, line: LogLine) {
        if self.lines.len() >= MAX_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn update_running(&mut self, id: RequestId, change: impl FnOnce(&mut RequestRecord)) {
        if let Some(record) = self.running.0.get_mut(&id) {
            change(record);
        }
    }

    /// Iterates over the retained finished requests, newest last.
    pub fn finished(&self) -> impl DoubleEndedIterator<Item = &RequestRecord> {
        self.recent.iter().map(|record| &**record)
    }

    /// Finds a running or recent request by its id or a unique prefix of it; `last` is the newest
    /// finished one.
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
