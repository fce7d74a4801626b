//! Reads and resolves the time range of a usage query.

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};

use crate::{
    base::{clock::UnixMillis, units},
    ledger::daily::day_number,
};

/// The start of the time range of a usage query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeRange {
    /// This many days, including today.
    Days(u32),
    /// The start of a day.
    Date(Date),
    /// An exact time.
    Moment(UnixMillis),
    /// This many milliseconds ago.
    Ago(i64),
}

impl TimeRange {
    /// Reads `7d`, `today`, `36h`, `2025-09-01` or an RFC 3339 time.
    ///
    /// # Errors
    ///
    /// A sentence that lists the allowed forms.
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
            // `2025-09-01T10:00:00Z` also parses as a date, which would drop the time.
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

    /// Returns the start of the range.
    #[must_use]
    pub fn start(self, now: UnixMillis, zone: &TimeZone) -> UnixMillis {
        let midnight = |date: Date| {
            date.to_zoned(zone.clone())
                .map_or(UnixMillis(0), |at| UnixMillis(at.timestamp().as_millisecond()))
        };
        match self {
            Self::Days(days) => {
                let today = date_from_day(day_number(now, zone));
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

    /// Returns the end of what a time names: a day with all its hours, else the moment itself.
    #[must_use]
    pub fn end(self, now: UnixMillis, zone: &TimeZone) -> UnixMillis {
        match self {
            Self::Date(date) => Self::Date(date.tomorrow().unwrap_or(Date::MAX)).start(now, zone),
            other => other.start(now, zone),
        }
    }

    /// Returns whether the range consists of whole days, so that the daily totals answer it.
    pub(super) fn is_whole_days(self) -> bool {
        matches!(self, Self::Days(_) | Self::Date(_))
    }
}

/// Formats a day as `2025-09-01`.
pub(super) fn day_label(day: i64) -> String {
    date_from_day(day).map_or_else(|| day.to_string(), |date| date.to_string())
}

/// Formats the hour that contains a time as `2025-09-01 13:00`.
pub(super) fn hour_label(at: UnixMillis, zone: &TimeZone) -> String {
    format_in_zone(at, zone, "%Y-%m-%d %H:00")
}

/// Formats the minute that contains a time as `2025-09-01 13:07`.
pub(super) fn minute_label(at: UnixMillis, zone: &TimeZone) -> String {
    format_in_zone(at, zone, "%Y-%m-%d %H:%M")
}

fn format_in_zone(at: UnixMillis, zone: &TimeZone, form: &str) -> String {
    Timestamp::from_millisecond(at.0).map_or_else(
        |_| at.0.to_string(),
        |at| at.to_zoned(zone.clone()).strftime(form).to_string(),
    )
}

fn date_from_day(day: i64) -> Option<Date> {
    Date::new(1970, 1, 1).ok()?.checked_add(day.days()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_date_includes_its_day_and_end_time_is_exact() {
        let now = UnixMillis(1_756_900_000_000);
        let end = |text: &str| TimeRange::parse(text).map(|at| at.end(now, &TimeZone::UTC)).ok();
        let start =
            |text: &str| TimeRange::parse(text).map(|at| at.start(now, &TimeZone::UTC)).ok();
        assert_eq!(end("2025-09-01"), start("2025-09-02"));
        assert_eq!(end("2025-09-01T10:00:00Z"), start("2025-09-01T10:00:00Z"));
        assert_eq!(end("36h"), start("36h"));
    }
}
