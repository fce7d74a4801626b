//! Computes when the day, week or month of a budget begins and ends.

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};

use crate::{base::clock::UnixMillis, config::settings::Period};

/// A calendar period in one time zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CalendarPeriod {
    pub from: UnixMillis,
    /// `None` if the period never ends.
    pub until: Option<UnixMillis>,
}

impl CalendarPeriod {
    /// Returns the period that contains a moment. Days have 23 or 25 hours when the clocks change,
    /// and weeks begin on Monday.
    #[must_use]
    pub fn containing(per: Period, at: UnixMillis, zone: &TimeZone) -> Self {
        let always = Self { from: UnixMillis(0), until: None };
        let Ok(moment) = Timestamp::from_millisecond(at.0) else { return always };
        let today = moment.to_zoned(zone.clone()).date();
        let (first, next) = match per {
            Period::Day => (Some(today), today.tomorrow().ok()),
            Period::Week => {
                let monday = today
                    .checked_sub(i64::from(today.weekday().to_monday_zero_offset()).days())
                    .ok();
                (monday, monday.and_then(|monday| monday.checked_add(7.days()).ok()))
            }
            Period::Month => (Some(today.first_of_month()), today.last_of_month().tomorrow().ok()),
            Period::Total => return always,
        };
        let midnight = |date: Option<Date>| {
            Some(UnixMillis(date?.to_zoned(zone.clone()).ok()?.timestamp().as_millisecond()))
        };
        Self { from: midnight(first).unwrap_or(at), until: midnight(next) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixMillis {
        UnixMillis(text.parse::<Timestamp>().unwrap().as_millisecond())
    }

    #[test]
    fn periods_follow_the_calendar_of_the_ledger_time_zone() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let shanghai = TimeZone::get("Asia/Shanghai").unwrap();
        for (per, moment, zone, from, until) in [
            (
                Period::Day,
                "2025-09-03T21:59:59Z",
                &berlin,
                "2025-09-02T22:00:00Z",
                "2025-09-03T22:00:00Z",
            ),
            (
                Period::Day,
                "2025-09-03T22:00:00Z",
                &berlin,
                "2025-09-03T22:00:00Z",
                "2025-09-04T22:00:00Z",
            ),
            // The day on which clocks are set back has 25 hours.
            (
                Period::Day,
                "2025-10-26T12:00:00Z",
                &berlin,
                "2025-10-25T22:00:00Z",
                "2025-10-26T23:00:00Z",
            ),
            // A Sunday, and the Monday after it.
            (
                Period::Week,
                "2025-09-07T12:00:00Z",
                &shanghai,
                "2025-08-31T16:00:00Z",
                "2025-09-07T16:00:00Z",
            ),
            (
                Period::Week,
                "2025-09-07T16:00:00Z",
                &shanghai,
                "2025-09-07T16:00:00Z",
                "2025-09-14T16:00:00Z",
            ),
            (
                Period::Month,
                "2025-12-31T15:00:00Z",
                &shanghai,
                "2025-11-30T16:00:00Z",
                "2025-12-31T16:00:00Z",
            ),
        ] {
            let period = CalendarPeriod::containing(per, at(moment), zone);
            assert_eq!(
                period,
                CalendarPeriod { from: at(from), until: Some(at(until)) },
                "{per:?} {moment}"
            );
        }
        assert_eq!(
            CalendarPeriod::containing(Period::Total, at("2025-09-03T00:00:00Z"), &berlin),
            CalendarPeriod { from: UnixMillis(0), until: None }
        );
    }
}
