//! What the ledger knows, over the control routes: sums, history, one request in full.

use std::{collections::HashMap, sync::Arc, time::Duration};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, time::timeout};

use crate::{
    base::{clock::UnixMillis, id::RequestId, zone::timezone_by_name},
    events::{filter::Filter, record::RequestRecord},
    ir::fault::{ProxyError, ProxyErrorKind},
    ledger::{
        Ledger, LedgerReader,
        bodies::BodyView,
        query::{QueryError, SessionPage},
        usage::TimeRange,
    },
    relay::engine::Engine,
};

pub use crate::ledger::{
    query::RequestDetail,
    usage::{GroupBy, Totals, TotalsRow, UsageReport},
};

/// Nobody waits longer for an answer.
const LONGEST: Duration = Duration::from_secs(20);
/// Nor for what is on its way to the file.
const WRITTEN: Duration = Duration::from_secs(5);
/// What takes longer is told to end, so often and so long apart.
const INTERRUPTS: u32 = 40;
const INTERRUPTED: Duration = Duration::from_millis(50);

/// Requests in one page at most.
pub const PAGE: usize = 1_000;

/// Some of the history, the newest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page {
    pub requests: Vec<RequestRecord>,
    /// Where the next page begins: `before` of the question; `None` at the end.
    pub next: Option<RequestId>,
}

/// A question for a page of history.
#[derive(Clone, Debug, Default)]
pub struct HistoryQuestion {
    pub filter: String,
    pub since: Option<String>,
    pub before: Option<RequestId>,
    pub limit: usize,
}

impl HistoryQuestion {
    /// The path that asks it.
    #[must_use]
    pub fn path(&self) -> String {
        let mut path =
            format!("/aiproxy/v1/history?limit={}&filter={}", self.limit, encoded(&self.filter));
        if let Some(since) = &self.since {
            path.push_str(&format!("&since={}", encoded(since)));
        }
        if let Some(before) = self.before {
            path.push_str(&format!("&before={before}"));
        }
        path
    }

    /// Asks a reader.
    ///
    /// # Errors
    ///
    /// A sentence where the filter or the time cannot be read, or the ledger.
    pub fn ask(&self, reader: &LedgerReader, now: UnixMillis) -> Result<Page, Refused> {
        let filter = Filter::parse(&self.filter).map_err(|e| Refused::Question(e.to_string()))?;
        let since =
            self.since.as_deref().map(TimeRange::parse).transpose().map_err(Refused::Question)?;
        let since = since.map(|since| since.start(now, reader.zone()));
        let limit = self.limit.clamp(1, PAGE);
        let requests = reader.history(&filter, since, self.before, limit)?;
        let next = requests.last().filter(|_| requests.len() == limit).map(|record| record.id);
        Ok(Page { requests, next })
    }
}

/// A question for sums.
#[derive(Clone, Debug)]
pub struct UsageQuestion {
    pub by: GroupBy,
    pub since: String,
    /// Empty is the ledger's.
    pub tz: String,
}

impl UsageQuestion {
    /// The path that asks it.
    #[must_use]
    pub fn path(&self) -> String {
        format!(
            "/aiproxy/v1/usage?by={}&since={}&tz={}",
            self.by.name(),
            encoded(&self.since),
            encoded(&self.tz)
        )
    }

    /// Asks a reader.
    ///
    /// # Errors
    ///
    /// A sentence where time or zone cannot be read, or the ledger.
    pub fn ask(&self, reader: &LedgerReader, now: UnixMillis) -> Result<UsageReport, Refused> {
        let since = TimeRange::parse(&self.since).map_err(Refused::Question)?;
        let own = if self.tz.is_empty() {
            None
        } else if jiff::tz::TimeZone::get(&self.tz).is_ok() {
            Some(timezone_by_name(&self.tz))
        } else {
            return Err(Refused::Question(format!(
                "`{}` is no time zone; write it like Europe/Berlin or UTC",
                self.tz
            )));
        };
        Ok(reader.usage(self.by, since, own.as_ref(), now)?)
    }
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("{0}")]
    Question(String),
    #[error(transparent)]
    Ledger(#[from] QueryError),
}

impl From<Refused> for ProxyError {
    fn from(refused: Refused) -> Self {
        let text = refused.to_string();
        match refused {
            Refused::Question(_) => Self::new(ProxyErrorKind::BadRequest, text),
            Refused::Ledger(QueryError::Ambiguous(_) | QueryError::Unknown(_)) => {
                Self::new(ProxyErrorKind::UnknownPath, text).code("unknown_request")
            }
            Refused::Ledger(_) => Self::new(ProxyErrorKind::Unavailable, text).code("no_ledger"),
        }
    }
}

/// The ledger of this process, and the way to it.
#[derive(Clone)]
pub struct Books {
    pub engine: Arc<Engine>,
    pub ledger: Arc<Ledger>,
}

impl Books {
    /// Asks the ledger aside, after what is on its way has been written.
    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&LedgerReader, UnixMillis) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, ProxyError> {
        // Its thread may have to wait for a file that is locked.
        drop(timeout(WRITTEN, self.engine.ledger_queue.flush()).await);
        let (ledger, now) = (Arc::clone(&self.ledger), self.engine.clock.unix());
        let (open, opened) = oneshot::channel();
        let mut answer = tokio::task::spawn_blocking(move || {
            let reader = ledger.reader()?;
            // Nobody waits for it any more where this fails.
            drop(open.send(reader.interrupt_handle()));
            ask(&reader, now)
        });
        let Ok(answer) = timeout(LONGEST, &mut answer).await else {
            // Ends what is going on in the file, so that the thread is free again; between two
            // statements nobody hears it.
            if let Ok(interrupter) = opened.await {
                for _ in 0..INTERRUPTS {
                    interrupter.interrupt();
                    if timeout(INTERRUPTED, &mut answer).await.is_ok() {
                        break;
                    }
                }
            }
            return Err(Refused::Ledger(QueryError::TimedOut(LONGEST.as_secs())).into());
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
    /// A bad question, or no ledger.
    pub async fn history(&self, query: Option<&str>) -> Result<Page, ProxyError> {
        let mut values = values(query);
        let mut take = |name: &str| values.remove(name).filter(|value| !value.is_empty());
        let question = HistoryQuestion {
            filter: take("filter").unwrap_or_default(),
            since: take("since"),
            before: take("before")
                .map(|id| {
                    RequestId::parse(&id).ok_or_else(|| bad("`before` is the id of a request"))
                })
                .transpose()?,
            limit: take("limit")
                .map_or(Ok(100), |n| n.parse().map_err(|_| bad("`limit` is a number")))?,
        };
        self.ask(move |reader, now| question.ask(reader, now)).await
    }

    /// `GET usage`.
    ///
    /// # Errors
    ///
    /// A bad question, or no ledger.
    pub async fn usage(&self, query: Option<&str>) -> Result<UsageReport, ProxyError> {
        let mut values = values(query);
        let by = values
            .remove("by")
            .filter(|by| !by.is_empty())
            .unwrap_or_else(|| GroupBy::default().name().to_owned());
        let names = GroupBy::ALL.map(GroupBy::name).join(", ");
        let question = UsageQuestion {
            by: GroupBy::parse(&by).ok_or_else(|| bad(&format!("`by` is one of {names}")))?,
            since: values
                .remove("since")
                .filter(|since| !since.is_empty())
                .unwrap_or_else(|| "7d".to_owned()),
            tz: values.remove("tz").unwrap_or_default(),
        };
        self.ask(move |reader, now| question.ask(reader, now)).await
    }

    /// `GET requests/ID/full`.
    ///
    /// # Errors
    ///
    /// No such request, or no ledger.
    pub async fn full(&self, id: &str) -> Result<RequestDetail, ProxyError> {
        let id = id.to_owned();
        self.ask(move |reader, _| Ok(reader.request_detail(&id)?)).await
    }

    /// The newest turns of a session of a project, those that bodies may still be kept of.
    ///
    /// # Errors
    ///
    /// No ledger.
    pub async fn session(
        &self,
        project: &str,
        session: &str,
        before: Option<RequestId>,
        limit: usize,
    ) -> Result<SessionPage, ProxyError> {
        let (project, session) = (project.to_owned(), session.to_owned());
        let kept = self.engine.generation().settings.ledger.body_retention;
        self.ask(move |reader, now| {
            let since = UnixMillis(
                now.0.saturating_sub(i64::try_from(kept.as_millis()).unwrap_or(i64::MAX)),
            );
            Ok(reader.session_page(&project, &session, since, before, limit)?)
        })
        .await
    }

    /// What is kept of a request, also while it runs.
    ///
    /// # Errors
    ///
    /// No ledger.
    pub async fn bodies(&self, id: RequestId) -> Result<Vec<BodyView>, ProxyError> {
        self.ask(move |reader, _| Ok(reader.bodies(id)?)).await
    }

    /// The refusal for a request that nobody knows.
    #[must_use]
    pub fn unknown(id: &str) -> ProxyError {
        Refused::Ledger(QueryError::Unknown(id.chars().take(40).collect())).into()
    }
}

fn bad(message: &str) -> ProxyError {
    ProxyError::new(ProxyErrorKind::BadRequest, message.to_owned())
}

/// `a=1&b=two%20words`; of two of one name the last counts.
fn values(query: Option<&str>) -> HashMap<String, String> {
    let decoded =
        |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

fn encoded(text: &str) -> String {
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    utf8_percent_encode(text, KEPT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_survive_their_path() {
        let filter = "model:gpt-5 >2s 100% & a=b +c 通义";
        let path = HistoryQuestion {
            filter: filter.to_owned(),
            since: Some("2025-09-01T10:00:00Z".to_owned()),
            before: None,
            limit: 7,
        }
        .path();

        let read = values(path.split_once('?').map(|(_, query)| query));

        assert_eq!(read["filter"], filter);
        assert_eq!((read["since"].as_str(), read["limit"].as_str()), ("2025-09-01T10:00:00Z", "7"));
        assert!(values(None).is_empty());
    }
}
