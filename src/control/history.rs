//! Serves ledger data over the control routes: totals, history and single requests.

use std::{collections::HashMap, sync::Arc, time::Duration};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, time::timeout};

use crate::{
    base::{clock::UnixMillis, id::RequestId, timezone::timezone_by_name},
    events::{filter::Filter, record::RequestRecord},
    ir::fault::{ProxyError, ProxyErrorKind},
    ledger::{
        Ledger, LedgerReader,
        bodies::BodyView,
        query::{QueryError, SessionPage},
        time_range::TimeRange,
    },
    relay::engine::Engine,
};

pub use crate::ledger::{
    query::RequestDetail,
    rates::RateRow,
    totals::{GroupBy, Totals, TotalsRow, UsageReport},
};

/// Maximum time for a query.
const QUERY_TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum time to wait for queued entries to reach the file.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// A query that exceeds its time is interrupted up to this many times, at this interval.
const MAX_INTERRUPTS: u32 = 40;
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(50);

/// Maximum number of requests in one page.
pub const MAX_PAGE: usize = 1_000;

/// A page of the history, newest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HistoryPage {
    pub requests: Vec<RequestRecord>,
    /// The `before` value of the next page; `None` at the end.
    pub next: Option<RequestId>,
}

/// A query for a page of the history.
#[derive(Clone, Debug, Default)]
pub struct HistoryQuery {
    pub filter: String,
    pub since: Option<String>,
    /// The end; a day is included.
    pub until: Option<String>,
    pub before_id: Option<RequestId>,
    pub limit: usize,
}

impl HistoryQuery {
    /// Returns the path and query string of this query.
    #[must_use]
    pub fn path(&self) -> String {
        let mut path = format!(
            "/aiproxy/v1/history?limit={}&filter={}",
            self.limit,
            percent_encode(&self.filter)
        );
        if let Some(since) = &self.since {
            path.push_str(&format!("&since={}", percent_encode(since)));
        }
        if let Some(until) = &self.until {
            path.push_str(&format!("&until={}", percent_encode(until)));
        }
        if let Some(before) = self.before_id {
            path.push_str(&format!("&before={before}"));
        }
        path
    }

    /// Runs the query on a reader.
    ///
    /// # Errors
    ///
    /// A sentence if the filter, the time or the ledger cannot be read.
    pub fn run(
        &self,
        reader: &LedgerReader,
        now: UnixMillis,
    ) -> Result<HistoryPage, ControlQueryError> {
        let filter =
            Filter::parse(&self.filter).map_err(|e| ControlQueryError::BadQuery(e.to_string()))?;
        let time = |text: &Option<String>| {
            let range = text.as_deref().map(TimeRange::parse).transpose();
            range.map_err(ControlQueryError::BadQuery)
        };
        let since = time(&self.since)?.map(|since| since.start(now, reader.zone()));
        let until = time(&self.until)?.map(|until| until.end(now, reader.zone()));
        let limit = self.limit.clamp(1, MAX_PAGE);
        let requests = reader.history(&filter, (since, until), self.before_id, limit)?;
        let next = requests.last().filter(|_| requests.len() == limit).map(|record| record.id);
        Ok(HistoryPage { requests, next })
    }
}

/// A query for totals.
#[derive(Clone, Debug)]
pub struct UsageQuery {
    pub by: GroupBy,
    pub since: String,
    /// Empty for the ledger's time zone.
    pub tz: String,
}

impl UsageQuery {
    /// Returns the path and query string of this query.
    #[must_use]
    pub fn path(&self) -> String {
        format!(
            "/aiproxy/v1/usage?by={}&since={}&tz={}",
            self.by.name(),
            percent_encode(&self.since),
            percent_encode(&self.tz)
        )
    }

    /// Runs the query on a reader.
    ///
    /// # Errors
    ///
    /// A sentence if the time, the zone or the ledger cannot be read.
    pub fn run(
        &self,
        reader: &LedgerReader,
        now: UnixMillis,
    ) -> Result<UsageReport, ControlQueryError> {
        let since = TimeRange::parse(&self.since).map_err(ControlQueryError::BadQuery)?;
        let own = if self.tz.is_empty() {
            None
        } else if jiff::tz::TimeZone::get(&self.tz).is_ok() {
            Some(timezone_by_name(&self.tz))
        } else {
            return Err(ControlQueryError::BadQuery(format!(
                "`{}` is no time zone; write it like Europe/Berlin or UTC",
                self.tz
            )));
        };
        Ok(reader.usage(self.by, since, own.as_ref(), now)?)
    }
}

/// Why a query failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlQueryError {
    #[error("{0}")]
    BadQuery(String),
    #[error(transparent)]
    Ledger(#[from] QueryError),
}

impl From<ControlQueryError> for ProxyError {
    fn from(refused: ControlQueryError) -> Self {
        let text = refused.to_string();
        match refused {
            ControlQueryError::BadQuery(_) => Self::new(ProxyErrorKind::BadRequest, text),
            ControlQueryError::Ledger(QueryError::Ambiguous(_) | QueryError::Unknown(_)) => {
                Self::new(ProxyErrorKind::UnknownPath, text).code("unknown_request")
            }
            ControlQueryError::Ledger(_) => {
                Self::new(ProxyErrorKind::Unavailable, text).code("no_ledger")
            }
        }
    }
}

/// The ledger of this process and the queue to it.
#[derive(Clone)]
pub struct LedgerHandle {
    pub engine: Arc<Engine>,
    pub ledger: Arc<Ledger>,
}

impl LedgerHandle {
    /// Runs a query on the blocking pool after the queued entries have been written.
    async fn query<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&LedgerReader, UnixMillis) -> Result<T, ControlQueryError> + Send + 'static,
    ) -> Result<T, ProxyError> {
        // The writer thread may wait for a locked file.
        drop(timeout(FLUSH_TIMEOUT, self.engine.ledger_queue.flush()).await);
        let (ledger, now) = (Arc::clone(&self.ledger), self.engine.clock.unix());
        let (open, opened) = oneshot::channel();
        let mut answer = tokio::task::spawn_blocking(move || {
            let reader = ledger.reader()?;
            // This fails only if the caller has stopped waiting.
            drop(open.send(reader.interrupt_handle()));
            ask(&reader, now)
        });
        let Ok(answer) = timeout(QUERY_TIMEOUT, &mut answer).await else {
            // Interrupts the running statement, so that the thread becomes free. An interrupt
            // between two statements has no effect, so it is repeated.
            if let Ok(interrupter) = opened.await {
                for _ in 0..MAX_INTERRUPTS {
                    interrupter.interrupt();
                    if timeout(INTERRUPT_INTERVAL, &mut answer).await.is_ok() {
                        break;
                    }
                }
            }
            return Err(
                ControlQueryError::Ledger(QueryError::TimedOut(QUERY_TIMEOUT.as_secs())).into()
            );
        };
        answer
            .map_err(|e| {
                ProxyError::new(
                    ProxyErrorKind::Internal,
                    format!("the ledger could not be asked: {e}"),
                )
            })?
            .map_err(Into::into)
    }

    /// `GET history`.
    ///
    /// # Errors
    ///
    /// The query is invalid, or there is no ledger.
    pub async fn history(&self, query: Option<&str>) -> Result<HistoryPage, ProxyError> {
        let mut values = parse_query(query);
        let mut take = |name: &str| values.remove(name).filter(|value| !value.is_empty());
        let question = HistoryQuery {
            filter: take("filter").unwrap_or_default(),
            since: take("since"),
            until: take("until"),
            before_id: take("before")
                .map(|id| {
                    RequestId::parse(&id)
                        .ok_or_else(|| bad_request("`before` is the id of a request"))
                })
                .transpose()?,
            limit: take("limit")
                .map_or(Ok(100), |n| n.parse().map_err(|_| bad_request("`limit` is a number")))?,
        };
        self.query(move |reader, now| question.run(reader, now)).await
    }

    /// `GET usage`.
    ///
    /// # Errors
    ///
    /// The query is invalid, or there is no ledger.
    pub async fn usage(&self, query: Option<&str>) -> Result<UsageReport, ProxyError> {
        let mut values = parse_query(query);
        let by = values
            .remove("by")
            .filter(|by| !by.is_empty())
            .unwrap_or_else(|| GroupBy::default().name().to_owned());
        let names = GroupBy::ALL.map(GroupBy::name).join(", ");
        let question = UsageQuery {
            by: GroupBy::parse(&by)
                .ok_or_else(|| bad_request(&format!("`by` is one of {names}")))?,
            since: values
                .remove("since")
                .filter(|since| !since.is_empty())
                .unwrap_or_else(|| "7d".to_owned()),
            tz: values.remove("tz").unwrap_or_default(),
        };
        self.query(move |reader, now| question.run(reader, now)).await
    }

    /// `GET requests/ID/full`.
    ///
    /// # Errors
    ///
    /// There is no such request, or no ledger.
    pub async fn request_detail(&self, id: &str) -> Result<RequestDetail, ProxyError> {
        let id = id.to_owned();
        self.query(move |reader, _| Ok(reader.request_detail(&id)?)).await
    }

    /// Returns the newest turns of a project's session whose bodies may still be stored.
    ///
    /// # Errors
    ///
    /// There is no ledger.
    pub async fn session(
        &self,
        project: &str,
        session: &str,
        before: Option<RequestId>,
        limit: usize,
    ) -> Result<SessionPage, ProxyError> {
        let (project, session) = (project.to_owned(), session.to_owned());
        let kept = self.engine.generation().settings.ledger.body_retention;
        self.query(move |reader, now| {
            let since = UnixMillis(
                now.0.saturating_sub(i64::try_from(kept.as_millis()).unwrap_or(i64::MAX)),
            );
            Ok(reader.session_page(&project, &session, since, before, limit)?)
        })
        .await
    }

    /// Returns the stored bodies of a request, even while it is running.
    ///
    /// # Errors
    ///
    /// There is no ledger.
    pub async fn bodies(&self, id: RequestId) -> Result<Vec<BodyView>, ProxyError> {
        self.query(move |reader, _| Ok(reader.bodies(id)?)).await
    }

    /// Builds the error for an unknown request id.
    #[must_use]
    pub fn unknown_request(id: &str) -> ProxyError {
        ControlQueryError::Ledger(QueryError::Unknown(id.chars().take(40).collect())).into()
    }
}

fn bad_request(message: &str) -> ProxyError {
    ProxyError::new(ProxyErrorKind::BadRequest, message.to_owned())
}

/// Parses `a=1&b=two%20words`; the last of several equal names counts.
fn parse_query(query: Option<&str>) -> HashMap<String, String> {
    let decoded =
        |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

fn percent_encode(text: &str) -> String {
    const UNRESERVED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    utf8_percent_encode(text, UNRESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_query_round_trips_through_its_path() {
        let filter = "model:gpt-5 >2s 100% & a=b +c 通义";
        let path = HistoryQuery {
            filter: filter.to_owned(),
            since: Some("2025-09-01T10:00:00Z".to_owned()),
            until: Some("2025-09-02".to_owned()),
            before_id: None,
            limit: 7,
        }
        .path();

        let read = parse_query(path.split_once('?').map(|(_, query)| query));

        assert_eq!(read["filter"], filter);
        assert_eq!(read["until"], "2025-09-02");
        assert_eq!((read["since"].as_str(), read["limit"].as_str()), ("2025-09-01T10:00:00Z", "7"));
        assert!(parse_query(None).is_empty());
    }
}
