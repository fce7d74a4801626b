//! Requests and tokens per minute by model, project, upstream or another group.

use std::collections::BTreeMap;

use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::{
    query::LedgerReader,
    rows::{USAGE_COLUMNS, usage_from_columns},
    totals::{GroupBy, MAX_REQUEST_MS, counted_ops_sql},
};
use crate::base::{clock::UnixMillis, id::RequestId};

/// Length of the series.
pub const RATE_MINUTES: usize = 30;

/// What finished in each of the last minutes, the current one last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateRow {
    /// The name of the group, as in the totals.
    pub name: String,
    pub requests: Vec<u64>,
    /// Input and output tokens.
    pub tokens: Vec<u64>,
}

impl RateRow {
    fn new(name: String) -> Self {
        Self { name, requests: vec![0; RATE_MINUTES], tokens: vec![0; RATE_MINUTES] }
    }

    /// Requests in the last 60 s.
    #[must_use]
    pub fn requests_per_minute(&self) -> u64 {
        self.requests.last().copied().unwrap_or(0)
    }

    /// Tokens in the last 60 s.
    #[must_use]
    pub fn tokens_per_minute(&self) -> u64 {
        self.tokens.last().copied().unwrap_or(0)
    }
}

impl LedgerReader {
    /// Returns the rates of every group with traffic in the last minutes, by name. Spans of time
    /// have none. A request counts for the target of its last attempt.
    pub(super) fn rates(&self, by: GroupBy, now: UnixMillis) -> rusqlite::Result<Vec<RateRow>> {
        let name = match by {
            GroupBy::Client => "client",
            GroupBy::Day | GroupBy::Hour | GroupBy::Minute => return Ok(Vec::new()),
            GroupBy::Key => "upstream || CASE key WHEN '' THEN '' ELSE '/' || key END",
            GroupBy::Model => "CASE model WHEN '' THEN asked ELSE model END",
            GroupBy::Project => "project",
            GroupBy::Session => "coalesce(session, '')",
            GroupBy::Upstream => "upstream",
        };
        let classes = USAGE_COLUMNS.map(|class| format!("sum({class})")).join(", ");
        let mut query = self.connection.prepare_cached(&format!(
            "SELECT {name}, (?1 - finished) / 60000 AS ago, count(*), {classes}
             FROM request WHERE id >= ?2 AND finished > ?3 AND finished <= ?1 AND NOT demo AND op IN ({})
             GROUP BY 1, 2",
            counted_ops_sql()
        ))?;
        let minutes = i64::try_from(RATE_MINUTES).unwrap_or(0);
        let start = now.0.saturating_sub(minutes * 60_000);
        let earliest = RequestId::min_text_at(UnixMillis(start.saturating_sub(MAX_REQUEST_MS)));
        let mut rows = query.query(params![now.0, earliest, start])?;
        let mut groups: BTreeMap<String, RateRow> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            let ago = usize::try_from(row.get::<_, i64>(1)?).unwrap_or(usize::MAX);
            let Some(at) = RATE_MINUTES.checked_sub(ago + 1) else { continue };
            let mut classes = [0; USAGE_COLUMNS.len()];
            for (index, class) in classes.iter_mut().enumerate() {
                *class = row.get(3 + index)?;
            }
            let usage = usage_from_columns(classes);
            let group = groups.entry(name).or_insert_with_key(|name| RateRow::new(name.clone()));
            group.requests[at] = u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0);
            group.tokens[at] = usage.input_total().saturating_add(usage.output_total());
        }
        Ok(groups.into_values().collect())
    }
}
