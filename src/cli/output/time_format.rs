//! Formats times: relative if they are recent, otherwise as a clock time.

use crate::base::clock::{Clock, SystemClock, UnixMillis};

/// A duration as `41s`, `2m05s`, `3h12m`, `4d02h`.
#[must_use]
pub fn span(ms: i64) -> String {
    let s = ms.max(0) / 1000;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86_400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{:02}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// The time left until `until`, rounded up, as in `41s`; empty if there is no end.
#[must_use]
pub fn remaining(until: Option<UnixMillis>, now: UnixMillis) -> String {
    until.map_or_else(String::new, |until| span((until.0 - now.0).max(0) + 999))
}

/// Milliseconds as `0.41s` or `12.3s`.
#[must_use]
pub fn seconds(ms: u32) -> String {
    let s = f64::from(ms) / 1000.0;
    if s < 10.0 { format!("{s:.2}s") } else { format!("{s:.1}s") }
}

/// Local time of this machine: `14:03:21`.
#[must_use]
pub fn clock(at: UnixMillis) -> String {
    let zone = jiff::tz::TimeZone::try_system().unwrap_or(jiff::tz::TimeZone::UTC);
    jiff::Timestamp::from_millisecond(at.0)
        .map_or_else(|_| "–".to_owned(), |at| at.to_zoned(zone).strftime("%H:%M:%S").to_string())
}

/// Local time, with the date if it is not today: `14:03:21`, `09-30 14:03:21`.
#[must_use]
pub fn date_time(at: UnixMillis) -> String {
    let zone = jiff::tz::TimeZone::try_system().unwrap_or(jiff::tz::TimeZone::UTC);
    let Ok(at) = jiff::Timestamp::from_millisecond(at.0) else { return "–".to_owned() };
    let (at, now) = (
        at.to_zoned(zone.clone()),
        jiff::Timestamp::from_millisecond(SystemClock.unix().0).unwrap_or_default().to_zoned(zone),
    );
    at.strftime(if at.date() == now.date() { "%H:%M:%S" } else { "%m-%d %H:%M:%S" }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        for (ms, want) in [
            (-5, "0s"),
            (999, "0s"),
            (41_000, "41s"),
            (125_000, "2m05s"),
            (11_520_000, "3h12m"),
            (352_800_000, "4d02h"),
        ] {
            assert_eq!(span(ms), want);
        }
        assert_eq!(remaining(Some(UnixMillis(41_001)), UnixMillis(0)), "42s");
        assert_eq!((seconds(412).as_str(), seconds(12_340).as_str()), ("0.41s", "12.3s"));
    }
}
