//! Sums: tokens and money by model, project, upstream, key, client, session or day.

use std::collections::HashMap;

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use rusqlite::{Row as SqlRow, params};
use serde::{Deserialize, Serialize};

use super::{
    query::{QueryError, Reader, sure},
    sqlite::{CLASSES, day, usage},
};
use crate::{
    base::{clock::UnixMillis, id::RequestId, money::NanoUsd, units},
    ir::{
        cost::{Cost, Precision},
        op::Op,
        usage::Usage,
    },
};

/// No request takes longer.
const LONGEST_MS: i64 = 2 * 86_400_000;

/// What sums are told apart by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    Client,
    Day,
    Key,
    #[default]
    Model,
    Project,
    Session,
    Upstream,
}

impl By {
    pub const ALL: [Self; 7] = [
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
            Self::Key => "key",
            Self::Model => "model",
            Self::Project => "project",
            Self::Session => "session",
            Self::Upstream => "upstream",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.name() == name)
    }
}

/// Since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// So many days, today included.
    Days(u32),
    /// The beginning of a day.
    Date(Date),
    /// A moment.
    Moment(UnixMillis),
    /// So long ago.
    Ago(i64),
}

impl Since {
    /// Reads `7d`, `today`, `36h`, `2025-09-01` or an RFC 3339 time.
    ///
    /// # Errors
    ///
    /// A sentence with what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "today" {
            return Ok(Self::Days(1));
        }
        if let Some(days) = text
            .strip_suffix('d')
            .and_then(|days| days.parse::<u32>().ok())
            .filter(|days| (1..=36_500).contains(days))
        {
            return Ok(Self::Days(days));
        }
        if let Ok(date) = text.parse::<Date>() {
            // `2025-09-01T10:00:00Z` reads as a date too, and means more.
            if text.len() == 10 {
                return Ok(Self::Date(date));
            }
        }
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(Self::Moment(UnixMillis(at.as_millisecond())));
        }
        match units::parse_duration(text) {
            Ok(span) if !span.is_zero() => {
                Ok(Self::Ago(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
            }
            _ => Err(format!(
                "`{}` is no time; write 7d, today, 36h, 2025-09-01 or 2025-09-01T10:00:00Z",
                text.chars().take(40).collect::<String>()
            )),
        }
    }

    /// The moment that is meant.
    #[must_use]
    pub fn moment(self, now: UnixMillis, zone: &TimeZone) -> UnixMillis {
        let midnight = |date: Date| {
            date.to_zoned(zone.clone())
                .map_or(UnixMillis(0), |at| UnixMillis(at.timestamp().as_millisecond()))
        };
        match self {
            Self::Days(days) => {
                let today = date_of(day(now, zone));
                midnight(
                    today
                        .and_then(|today| today.checked_sub(i64::from(days - 1).days()).ok())
                        .unwrap_or(Date::MIN),
                )
            }
            Self::Date(date) => midnight(date),
            Self::Moment(at) => at,
            Self::Ago(ms) => UnixMillis(now.0.saturating_sub(ms)),
        }
    }

    /// Whether whole days are meant, so that the sums by day answer it.
    fn whole_days(self) -> bool {
        matches!(self, Self::Days(_) | Self::Date(_))
    }
}

fn date_of(day: i64) -> Option<Date> {
    Date::new(1970, 1, 1).ok()?.checked_add(day.days()).ok()
}

/// Sums of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    pub requests: u64,
    pub failed: u64,
    pub attempts: u64,
    #[serde(flatten)]
    pub usage: Usage,
    /// Of what has a known price.
    pub cost: NanoUsd,
    /// Requests whose price nobody knows.
    pub unpriced: u64,
    /// Requests whose tokens were estimated.
    pub estimated: u64,
    /// Requests that may have cost more.
    pub at_least: u64,
    /// Tokens read from caches because conversations went where they were served before.
    #[serde(default)]
    pub won: u64,
}

impl Sums {
    /// Adds other sums to these.
    pub fn add(&mut self, other: &Self) {
        let sum = |a: &mut u64, b: u64| *a = a.saturating_add(b);
        sum(&mut self.requests, other.requests);
        sum(&mut self.failed, other.failed);
        sum(&mut self.attempts, other.attempts);
        sum(&mut self.unpriced, other.unpriced);
        sum(&mut self.estimated, other.estimated);
        sum(&mut self.at_least, other.at_least);
        sum(&mut self.won, other.won);
        self.cost += other.cost;
        let (a, b) = (super::sqlite::classes(&self.usage), super::sqlite::classes(&other.usage));
        let mut all = a;
        for (sum, more) in all.iter_mut().zip(b) {
            *sum = sum.saturating_add(more);
        }
        self.usage = usage(all);
    }

    /// The sum as it may be shown: unknown where no request has a known price.
    #[must_use]
    pub fn shown(&self) -> Cost {
        let sure = match self {
            Self { unpriced: 0, at_least: 0, estimated: 0, .. } => Precision::Exact,
            Self { unpriced: 0, at_least: 0, .. } => Precision::Estimate,
            _ => Precision::AtLeast,
        };
        let unknown = self.unpriced > 0 && self.unpriced >= self.requests && self.cost.is_zero();
        Cost { usd: (!unknown).then_some(self.cost), precision: sure }
    }
}

/// One row of sums.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Empty where there is no name: no session, no upstream that was tried.
    pub name: String,
    #[serde(flatten)]
    pub sums: Sums,
}

/// Sums of a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub by: By,
    pub from: UnixMillis,
    pub until: UnixMillis,
    /// The zone in which days are counted.
    pub tz: String,
    /// The costliest first, days in their order.
    pub rows: Vec<Row>,
    pub total: Sums,
    /// Each day, in order.
    pub days: Vec<Row>,
    /// Of the built-in upstream, outside of all that.
    pub demo: Sums,
}

impl Reader {
    /// Sums since a time. Days are those of the ledger, or of `zone` where that is another.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub fn usage(
        &self,
        by: By,
        since: Since,
        zone: Option<&TimeZone>,
        now: UnixMillis,
    ) -> Result<View, QueryError> {
        let own = zone.is_none_or(|zone| *zone == self.zone);
        let zone = zone.unwrap_or(&self.zone);
        let from = since.moment(now, zone);
        let mut tally = Tally::default();
        if own && since.whole_days() && by != By::Session {
            self.sum_days(&mut tally, by, day(from, zone))?;
        } else {
            self.sum_requests(&mut tally, by, from, zone)?;
        }
        let mut rows = by_name(tally.rows);
        if by != By::Day {
            rows.sort_by(|a, b| {
                (b.sums.cost, b.sums.requests)
                    .cmp(&(a.sums.cost, a.sums.requests))
                    .then_with(|| a.name.cmp(&b.name))
            });
        }
        let tz = zone.iana_name().map_or_else(
            || zone.to_fixed_offset().map_or_else(|_| "local".to_owned(), |o| o.to_string()),
            str::to_owned,
        );
        Ok(View {
            by,
            from,
            until: now,
            tz,
            rows,
            days: by_name(tally.days),
            total: tally.total,
            demo: tally.demo,
        })
    }

    /// The name of the ledger's day of a moment.
    #[must_use]
    pub fn day_of(&self, at: UnixMillis) -> String {
        label(day(at, &self.zone))
    }

    fn sum_days(&self, tally: &mut Tally, by: By, first: i64) -> rusqlite::Result<()> {
        let name = match by {
            By::Client => "client",
            By::Day | By::Session => "''",
            By::Key => "upstream || CASE key WHEN '' THEN '' ELSE '/' || key END",
            By::Model => "model",
            By::Project => "project",
            By::Upstream => "upstream",
        };
        let classes = CLASSES.map(|class| format!("sum({class})")).join(", ");
        let mut query = self.connection.prepare_cached(&format!(
            "SELECT day, {name}, demo, sum(requests), sum(failed), sum(attempts), sum(cost), sum(unpriced), sum(estimated), sum(at_least), sum(won), {classes}
             FROM daily WHERE day >= ?1 AND op IN ({}) GROUP BY 1, 2, 3 ORDER BY 1",
            generating()
        ))?;
        let mut rows = query.query(params![first])?;
        while let Some(row) = rows.next()? {
            let count =
                |at| Ok::<_, rusqlite::Error>(u64::try_from(row.get::<_, i64>(at)?).unwrap_or(0));
            let sums = Sums {
                requests: count(3)?,
                failed: count(4)?,
                attempts: count(5)?,
                cost: NanoUsd(row.get(6)?),
                unpriced: count(7)?,
                estimated: count(8)?,
                at_least: count(9)?,
                won: count(10)?,
                usage: classes_at(row, 11)?,
            };
            let day = label(row.get(0)?);
            let name = if by == By::Day { day.clone() } else { row.get(1)? };
            tally.book(&day, name, row.get(2)?, &sums);
        }
        Ok(())
    }

    /// The same from the requests themselves, for what the sums by day cannot tell.
    fn sum_requests(
        &self,
        tally: &mut Tally,
        by: By,
        from: UnixMillis,
        zone: &TimeZone,
    ) -> rusqlite::Result<()> {
        let mut query = self.connection.prepare_cached(&format!(
            "SELECT finished, project, client, session, upstream, key, CASE model WHEN '' THEN asked ELSE model END, state, attempts, cost, sure, demo, id, won, {}
             FROM request WHERE id >= ?1 AND finished >= ?2 AND op IN ({})",
            CLASSES.join(", "),
            generating()
        ))?;
        let mut others = self
            .connection
            .prepare_cached("SELECT upstream, key, model, usage, cost FROM attempt WHERE request = ?1 ORDER BY won, number")?;
        // What finished since then began no longer before.
        let begun = RequestId::min_text_at(UnixMillis(from.0.saturating_sub(LONGEST_MS)));
        let mut rows = query.query(params![begun, from.0])?;
        while let Some(row) = rows.next()? {
            let text = |at: usize| {
                row.get_ref(at)?
                    .as_str_or_null()
                    .map(|text| text.unwrap_or("").to_owned())
                    .map_err(rusqlite::Error::from)
            };
            let attempts = u64::try_from(row.get::<_, i64>(8)?).unwrap_or(0);
            let (cost, sure) = (row.get::<_, Option<i64>>(9)?, sure(row.get_ref(10)?.as_str()?));
            let mut sums = Sums {
                requests: 1,
                failed: u64::from(row.get_ref(7)?.as_str()? == "failed"),
                attempts,
                cost: NanoUsd(cost.unwrap_or(0)),
                unpriced: u64::from(cost.is_none()),
                estimated: u64::from(sure == Precision::Estimate),
                at_least: u64::from(sure == Precision::AtLeast),
                won: u64::try_from(row.get::<_, i64>(13)?).unwrap_or(0),
                usage: classes_at(row, 14)?,
            };
            let day = label(day(UnixMillis(row.get(0)?), zone));
            let demo = row.get(11)?;
            if attempts > 1 && matches!(by, By::Key | By::Model | By::Upstream) {
                // Each attempt is booked where it was made; the request where the last one was.
                let mut parts = others.query([row.get_ref(12)?.as_str()?])?;
                let mut made = 0;
                while let Some(part) = parts.next()? {
                    made += 1;
                    let usage = part
                        .get::<_, Option<String>>(3)?
                        .and_then(|text| serde_json::from_str::<Usage>(&text).ok());
                    let own = Sums {
                        attempts: 1,
                        usage: usage
                            .map(|usage| Usage { reported_cost: None, ..usage })
                            .unwrap_or_default(),
                        cost: NanoUsd(part.get::<_, Option<i64>>(4)?.unwrap_or(0)),
                        ..if made == attempts { sums } else { Sums::default() }
                    };
                    tally.book(
                        &day,
                        named(
                            by,
                            &part.get::<_, String>(0)?,
                            &part.get::<_, String>(1)?,
                            &part.get::<_, String>(2)?,
                        ),
                        demo,
                        &own,
                    );
                }
                continue;
            }
            if attempts == 0 {
                sums.attempts = 0;
            }
            let name = match by {
                By::Client => text(2)?,
                By::Day => day.clone(),
                By::Key | By::Model | By::Upstream => named(by, &text(4)?, &text(5)?, &text(6)?),
                By::Project => text(1)?,
                By::Session => text(3)?,
            };
            tally.book(&day, name, demo, &sums);
        }
        Ok(())
    }
}

fn named(by: By, upstream: &str, key: &str, model: &str) -> String {
    match by {
        By::Key if key.is_empty() => upstream.to_owned(),
        By::Key => format!("{upstream}/{key}"),
        By::Model => model.to_owned(),
        _ => upstream.to_owned(),
    }
}

/// `2025-09-01`.
fn label(day: i64) -> String {
    date_of(day).map_or_else(|| day.to_string(), |date| date.to_string())
}

fn generating() -> String {
    let names: Vec<String> = Op::ALL
        .into_iter()
        .filter(|op| op.generates())
        .map(|op| format!("'{}'", op.name()))
        .collect();
    names.join(", ")
}

fn classes_at(row: &SqlRow<'_>, from: usize) -> rusqlite::Result<Usage> {
    let mut classes = [0; CLASSES.len()];
    for (index, class) in classes.iter_mut().enumerate() {
        *class = row.get(from + index)?;
    }
    Ok(usage(classes))
}

#[derive(Default)]
struct Tally {
    rows: HashMap<String, Sums>,
    days: HashMap<String, Sums>,
    total: Sums,
    demo: Sums,
}

impl Tally {
    fn book(&mut self, day: &str, name: String, demo: bool, sums: &Sums) {
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

/// By name.
fn by_name(of: HashMap<String, Sums>) -> Vec<Row> {
    let mut rows: Vec<Row> = of.into_iter().map(|(name, sums)| Row { name, sums }).collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}
