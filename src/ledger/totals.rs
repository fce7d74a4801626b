//! Totals of tokens and costs by model, project, upstream, key, client, session or time.

use std::collections::HashMap;

use jiff::tz::TimeZone;
use rusqlite::{CachedStatement, Row as SqlRow, params};
use serde::{Deserialize, Serialize};

use crate::ledger::{
    daily::day_number,
    query::{LedgerReader, QueryError},
    rates::RateRow,
    rows::{USAGE_COLUMNS, parse_precision, usage_columns, usage_from_columns},
    time_range::{TimeRange, day_label, hour_label, minute_label},
};
use crate::{
    base::{clock::UnixMillis, id::RequestId, money::NanoUsd},
    ir::{
        cost::{Cost, Precision},
        op::Op,
        usage::Usage,
    },
};

/// Upper bound for the duration of a request.
pub(super) const MAX_REQUEST_MS: i64 = 2 * 86_400_000;

/// What totals are grouped by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupBy {
    Client,
    Day,
    Hour,
    Key,
    Minute,
    #[default]
    Model,
    Project,
    Session,
    Upstream,
}

impl GroupBy {
    pub const ALL: [Self; 9] = [
        Self::Model,
        Self::Project,
        Self::Upstream,
        Self::Key,
        Self::Client,
        Self::Session,
        Self::Day,
        Self::Hour,
        Self::Minute,
    ];
    /// The groups that fit on the dashboard.
    pub const DASHBOARD: [Self; 7] = [
        Self::Model,
        Self::Project,
        Self::Upstream,
        Self::Key,
        Self::Client,
        Self::Session,
        Self::Day,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Day => "day",
            Self::Hour => "hour",
            Self::Key => "key",
            Self::Minute => "minute",
            Self::Model => "model",
            Self::Project => "project",
            Self::Session => "session",
            Self::Upstream => "upstream",
        }
    }

    /// Whether the groups are spans of time, which are listed in chronological order.
    #[must_use]
    pub fn is_time(self) -> bool {
        matches!(self, Self::Day | Self::Hour | Self::Minute)
    }

    /// Whether the daily totals keep this group.
    fn has_daily_totals(self) -> bool {
        !matches!(self, Self::Hour | Self::Minute | Self::Session)
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.name() == name)
    }
}

/// Totals of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub requests: u64,
    pub failed: u64,
    pub attempts: u64,
    #[serde(flatten)]
    pub usage: Usage,
    /// Cost of the requests with a known price.
    pub cost: NanoUsd,
    /// Requests whose price is unknown.
    pub unpriced: u64,
    /// Requests whose tokens were estimated.
    pub estimated: u64,
    /// Requests whose cost is a lower bound.
    pub at_least: u64,
    /// Tokens read from provider caches because routing kept a conversation on the same target.
    #[serde(default)]
    #[serde(rename = "won")]
    pub affinity_cache_read: u64,
}

impl Totals {
    /// Adds other totals to these.
    pub fn add(&mut self, other: &Self) {
        let sum = |a: &mut u64, b: u64| *a = a.saturating_add(b);
        sum(&mut self.requests, other.requests);
        sum(&mut self.failed, other.failed);
        sum(&mut self.attempts, other.attempts);
        sum(&mut self.unpriced, other.unpriced);
        sum(&mut self.estimated, other.estimated);
        sum(&mut self.at_least, other.at_least);
        sum(&mut self.affinity_cache_read, other.affinity_cache_read);
        self.cost += other.cost;
        let mut all = usage_columns(&self.usage);
        for (sum, more) in all.iter_mut().zip(usage_columns(&other.usage)) {
            *sum = sum.saturating_add(more);
        }
        self.usage = usage_from_columns(all);
    }

    /// Returns the cost to show: unknown if no request has a known price.
    #[must_use]
    pub fn displayed_cost(&self) -> Cost {
        let sure = match self {
            Self { unpriced: 0, at_least: 0, estimated: 0, .. } => Precision::Exact,
            Self { unpriced: 0, at_least: 0, .. } => Precision::Estimate,
            _ => Precision::AtLeast,
        };
        let unknown = self.unpriced > 0 && self.unpriced >= self.requests && self.cost.is_zero();
        Cost { usd: (!unknown).then_some(self.cost), precision: sure }
    }
}

/// One row of totals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotalsRow {
    /// Empty if there is no name: no session, or no upstream was tried.
    pub name: String,
    #[serde(flatten)]
    pub totals: Totals,
}

/// The totals of a time range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageReport {
    pub by: GroupBy,
    pub from: UnixMillis,
    pub until: UnixMillis,
    /// The time zone in which days are counted.
    pub tz: String,
    /// Sorted by cost, highest first; spans of time are in chronological order.
    pub rows: Vec<TotalsRow>,
    pub total: Totals,
    /// What the groups did in the last half hour; empty for spans of time.
    #[serde(default)]
    pub rates: Vec<RateRow>,
    /// Totals per day, in chronological order.
    pub days: Vec<TotalsRow>,
    /// Totals of the built-in demo upstream, which the other totals exclude.
    pub demo: Totals,
}

impl LedgerReader {
    /// Returns the totals since a time. Days are counted in the ledger's zone, or in `zone` if that
    /// differs.
    ///
    /// # Errors
    ///
    /// SQLite fails.
    pub fn usage(
        &self,
        by: GroupBy,
        range: TimeRange,
        zone: Option<&TimeZone>,
        now: UnixMillis,
    ) -> Result<UsageReport, QueryError> {
        let same_zone = zone.is_none_or(|zone| *zone == self.zone);
        let zone = zone.unwrap_or(&self.zone);
        let from = range.start(now, zone);
        let mut accumulator = Accumulator::default();
        if same_zone && range.is_whole_days() && by.has_daily_totals() {
            self.sum_days(&mut accumulator, by, day_number(from, zone))?;
        } else {
            self.sum_requests(&mut accumulator, by, from, zone)?;
        }
        let mut rows = sorted_rows(accumulator.rows);
        if !by.is_time() {
            rows.sort_by(|a, b| {
                (b.totals.cost, b.totals.requests)
                    .cmp(&(a.totals.cost, a.totals.requests))
                    .then_with(|| a.name.cmp(&b.name))
            });
        }
        let tz = zone.iana_name().map_or_else(
            || zone.to_fixed_offset().map_or_else(|_| "local".to_owned(), |o| o.to_string()),
            str::to_owned,
        );
        Ok(UsageReport {
            by,
            from,
            until: now,
            tz,
            rows,
            rates: self.rates(by, now)?,
            days: sorted_rows(accumulator.days),
            total: accumulator.total,
            demo: accumulator.demo,
        })
    }

    /// Returns the label of the ledger day that contains a time.
    #[must_use]
    pub fn day_name(&self, at: UnixMillis) -> String {
        day_label(day_number(at, &self.zone))
    }

    fn sum_days(
        &self,
        accumulator: &mut Accumulator,
        by: GroupBy,
        first: i64,
    ) -> rusqlite::Result<()> {
        let name = match by {
            GroupBy::Client => "client",
            GroupBy::Day | GroupBy::Hour | GroupBy::Minute | GroupBy::Session => "''",
            GroupBy::Key => "upstream || CASE key WHEN '' THEN '' ELSE '/' || key END",
            GroupBy::Model => "model",
            GroupBy::Project => "project",
            GroupBy::Upstream => "upstream",
        };
        let classes = USAGE_COLUMNS.map(|class| format!("sum({class})")).join(", ");
        let mut query = self.connection.prepare_cached(&format!(
            "SELECT day, {name}, demo, sum(requests), sum(failed), sum(attempts), sum(cost), sum(unpriced), sum(estimated), sum(at_least), sum(won), {classes}
             FROM daily WHERE day >= ?1 AND op IN ({}) GROUP BY 1, 2, 3 ORDER BY 1",
            counted_ops_sql()
        ))?;
        let mut rows = query.query(params![first])?;
        while let Some(row) = rows.next()? {
            let count =
                |at| Ok::<_, rusqlite::Error>(u64::try_from(row.get::<_, i64>(at)?).unwrap_or(0));
            let sums = Totals {
                requests: count(3)?,
                failed: count(4)?,
                attempts: count(5)?,
                cost: NanoUsd(row.get(6)?),
                unpriced: count(7)?,
                estimated: count(8)?,
                at_least: count(9)?,
                affinity_cache_read: count(10)?,
                usage: read_usage(row, 11)?,
            };
            let day = day_label(row.get(0)?);
            let name = if by == GroupBy::Day { day.clone() } else { row.get(1)? };
            accumulator.add(&day, name, row.get(2)?, &sums);
        }
        Ok(())
    }

    /// Computes totals from the requests themselves, for questions that the daily totals cannot
    /// answer.
    fn sum_requests(
        &self,
        accumulator: &mut Accumulator,
        by: GroupBy,
        from: UnixMillis,
        zone: &TimeZone,
    ) -> rusqlite::Result<()> {
        let mut query = self.connection.prepare_cached(&format!(
            "SELECT finished, project, client, session, upstream, key, CASE model WHEN '' THEN asked ELSE model END, state, attempts, cost, sure, demo, id, won, {}
             FROM request WHERE id >= ?1 AND finished >= ?2 AND op IN ({})",
            USAGE_COLUMNS.join(", "),
            counted_ops_sql()
        ))?;
        let mut attempts_query = self
            .connection
            .prepare_cached("SELECT upstream, key, model, usage, cost FROM attempt WHERE request = ?1 ORDER BY won, number")?;
        // A request that finished in the range began at most `MAX_REQUEST_MS` before it.
        let earliest_id = RequestId::min_text_at(UnixMillis(from.0.saturating_sub(MAX_REQUEST_MS)));
        let mut rows = query.query(params![earliest_id, from.0])?;
        while let Some(row) = rows.next()? {
            let text = |at: usize| {
                row.get_ref(at)?
                    .as_str_or_null()
                    .map(|text| text.unwrap_or("").to_owned())
                    .map_err(rusqlite::Error::from)
            };
            let attempts = u64::try_from(row.get::<_, i64>(8)?).unwrap_or(0);
            let (cost, sure) =
                (row.get::<_, Option<i64>>(9)?, parse_precision(row.get_ref(10)?.as_str()?));
            let sums = Totals {
                requests: 1,
                failed: u64::from(row.get_ref(7)?.as_str()? == "failed"),
                attempts,
                cost: NanoUsd(cost.unwrap_or(0)),
                unpriced: u64::from(cost.is_none()),
                estimated: u64::from(sure == Precision::Estimate),
                at_least: u64::from(sure == Precision::AtLeast),
                affinity_cache_read: u64::try_from(row.get::<_, i64>(13)?).unwrap_or(0),
                usage: read_usage(row, 14)?,
            };
            let finished = UnixMillis(row.get(0)?);
            let day = day_label(day_number(finished, zone));
            let demo = row.get(11)?;
            if attempts > 1 && matches!(by, GroupBy::Key | GroupBy::Model | GroupBy::Upstream) {
                let parts = &mut attempts_query;
                add_attempts(accumulator, parts, row.get_ref(12)?.as_str()?, by, &day, demo, sums)?;
                continue;
            }
            let name = match by {
                GroupBy::Client => text(2)?,
                GroupBy::Day => day.clone(),
                GroupBy::Hour => hour_label(finished, zone),
                GroupBy::Minute => minute_label(finished, zone),
                GroupBy::Key | GroupBy::Model | GroupBy::Upstream => {
                    group_name(by, &text(4)?, &text(5)?, &text(6)?)
                }
                GroupBy::Project => text(1)?,
                GroupBy::Session => text(3)?,
            };
            accumulator.add(&day, name, demo, &sums);
        }
        Ok(())
    }
}

/// Adds the attempts of a request. An attempt counts for its own target; the request, with its
/// totals, counts for the target of its last attempt.
fn add_attempts(
    accumulator: &mut Accumulator,
    attempts_query: &mut CachedStatement<'_>,
    request: &str,
    by: GroupBy,
    day: &str,
    demo: bool,
    sums: Totals,
) -> rusqlite::Result<()> {
    let mut parts = attempts_query.query([request])?;
    let mut seen_attempts = 0;
    while let Some(part) = parts.next()? {
        seen_attempts += 1;
        let usage = part
            .get::<_, Option<String>>(3)?
            .and_then(|text| serde_json::from_str::<Usage>(&text).ok());
        let attempt_totals = Totals {
            attempts: 1,
            usage: usage.map(|usage| Usage { reported_cost: None, ..usage }).unwrap_or_default(),
            cost: NanoUsd(part.get::<_, Option<i64>>(4)?.unwrap_or(0)),
            ..if seen_attempts == sums.attempts { sums } else { Totals::default() }
        };
        let (upstream, key, model) =
            (part.get::<_, String>(0)?, part.get::<_, String>(1)?, part.get::<_, String>(2)?);
        accumulator.add(day, group_name(by, &upstream, &key, &model), demo, &attempt_totals);
    }
    Ok(())
}

fn group_name(by: GroupBy, upstream: &str, key: &str, model: &str) -> String {
    match by {
        GroupBy::Key if key.is_empty() => upstream.to_owned(),
        GroupBy::Key => format!("{upstream}/{key}"),
        GroupBy::Model => model.to_owned(),
        _ => upstream.to_owned(),
    }
}

pub(super) fn counted_ops_sql() -> String {
    let names: Vec<String> = Op::ALL
        .into_iter()
        .filter(|op| op.is_counted())
        .map(|op| format!("'{}'", op.name()))
        .collect();
    names.join(", ")
}

fn read_usage(row: &SqlRow<'_>, from: usize) -> rusqlite::Result<Usage> {
    let mut classes = [0; USAGE_COLUMNS.len()];
    for (index, class) in classes.iter_mut().enumerate() {
        *class = row.get(from + index)?;
    }
    Ok(usage_from_columns(classes))
}

#[derive(Default)]
struct Accumulator {
    rows: HashMap<String, Totals>,
    days: HashMap<String, Totals>,
    total: Totals,
    demo: Totals,
}

impl Accumulator {
    fn add(&mut self, day: &str, name: String, demo: bool, sums: &Totals) {
        if demo {
            self.demo.add(sums);
            return;
        }
        self.total.add(sums);
        self.rows.entry(name).or_default().add(sums);
        if let Some(known) = self.days.get_mut(day) {
            known.add(sums);
        } else {
            self.days.insert(day.to_owned(), *sums);
        }
    }
}

/// Sorts the rows by name.
fn sorted_rows(totals_by_name: HashMap<String, Totals>) -> Vec<TotalsRow> {
    let mut rows: Vec<TotalsRow> =
        totals_by_name.into_iter().map(|(name, sums)| TotalsRow { name, totals: sums }).collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}
