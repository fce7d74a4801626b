//! Formats numbers, durations and times for narrow columns.

use crate::base::{clock::UnixMillis, id::RequestId};
use crate::tui::strings::{Lang, Texts};

/// Placeholder for an unknown value.
pub const UNKNOWN: &str = "–";

/// The context of a frame: the time, the user's UTC offset and the user's language.
#[derive(Clone, Copy, Debug)]
pub struct FrameContext {
    pub at: UnixMillis,
    /// Offset from UTC in seconds.
    pub offset: i32,
    pub text: &'static Texts,
}

/// Number of digits in the short form of an id.
const SHORT_ID_DIGITS: usize = 4;

/// The short form of a request's id, as in titles: `…4e69`.
#[must_use]
pub fn short_id(id: RequestId) -> String {
    let id = id.to_string();
    format!("…{}", &id[id.len() - SHORT_ID_DIGITS..])
}

impl Default for FrameContext {
    fn default() -> Self {
        Self { at: UnixMillis(0), offset: 0, text: Lang::English.texts() }
    }
}

impl FrameContext {
    /// Days since 1970 in the user's time zone.
    #[must_use]
    pub fn day(self, at: UnixMillis) -> i64 {
        at.0.div_euclid(1_000).saturating_add(i64::from(self.offset)).div_euclid(86_400)
    }

    /// Milliseconds since `then`; 0 if it is in the future.
    #[must_use]
    pub fn since(self, then: UnixMillis) -> u64 {
        u64::try_from(self.at.0.saturating_sub(then.0)).unwrap_or(0)
    }

    /// Milliseconds until `then`; 0 if it has passed.
    #[must_use]
    pub fn until(self, then: UnixMillis) -> u64 {
        u64::try_from(then.0.saturating_sub(self.at.0)).unwrap_or(0)
    }
}

/// `7`, `999`, `1.2k`, `12.1k`, `340k`, `1.21M`: at most five columns up to a thousand billions.
#[must_use]
pub fn count(n: u64) -> String {
    const UNITS: [(&str, u64); 4] =
        [("T", 1_000_000_000_000), ("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)];
    for (unit, size) in UNITS {
        // A value that would round up to the next unit is shown in that unit.
        if n >= size || (n >= 1_000 && n.saturating_add(size / 2_000) >= size) {
            let value = n as f64 / size as f64;
            let digits = match value {
                v if v >= 99.95 => 0,
                v if v >= 9.995 || unit == "k" => 1,
                _ => 2,
            };
            return format!("{value:.digits$}{unit}");
        }
    }
    n.to_string()
}

/// A measured duration: `0.41s`, `12.3s`, `118s`, `2h05m`.
#[must_use]
pub fn duration(ms: u64) -> String {
    match ms {
        0..9_995 => format!("{:.2}s", ms as f64 / 1_000.0),
        9_995..99_950 => format!("{:.1}s", ms as f64 / 1_000.0),
        99_950..1_000_000 => format!("{:.0}s", ms as f64 / 1_000.0),
        _ => span(ms),
    }
}

/// A duration in whole seconds: `41s`, `1m58s`, `3h12m`, `2d05h`.
#[must_use]
pub fn span(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0..60 => format!("{s}s"),
        60..3_600 => format!("{}m{:02}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h{:02}m", s / 3_600, s / 60 % 60),
        _ => format!("{}d{:02}h", s / 86_400, s / 3_600 % 24),
    }
}

/// The rest of a wait in whole seconds, rounded up so that it ends at 0.
#[must_use]
pub fn remaining(ms: u64) -> String {
    span(ms.div_ceil(1_000).saturating_mul(1_000))
}

/// An age in at most four columns: `8s`, `12m`, `3h`, `9d`.
#[must_use]
pub fn age(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0..100 => format!("{s}s"),
        100..6_000 => format!("{}m", s / 60),
        6_000..360_000 => format!("{}h", s / 3_600),
        _ => format!("{}d", (s / 86_400).min(999)),
    }
}

/// The time of day: `14:03:21`.
#[must_use]
pub fn clock(at: UnixMillis, now: FrameContext) -> String {
    let s = at.0.div_euclid(1_000).saturating_add(i64::from(now.offset)).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", s / 3_600, s / 60 % 60, s % 60)
}

/// The time of day if it is enough, otherwise with month and day: `11-14 22:13`.
#[must_use]
pub fn date_time(at: UnixMillis, now: FrameContext) -> String {
    let clock = clock(at, now);
    if now.day(at) == now.day(now.at) {
        return clock;
    }
    let (_, month, day) = date(now.day(at));
    format!("{month:02}-{day:02} {}", &clock[..5])
}

/// Year, month and day from the number of days since 1970.
#[must_use]
pub fn date(days: i64) -> (i64, i64, i64) {
    // Count from March of year 0 so that a leap day is the last day of its year, in eras of 400
    // years.
    let days = days.clamp(-1_000_000_000, 1_000_000_000) + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// A share of a total: a fraction for totals below 20, otherwise per cent.
#[must_use]
pub fn share(part: u64, total: u64) -> String {
    match total {
        0 => UNKNOWN.to_owned(),
        1..20 => format!("{part}/{total}"),
        _ => {
            let percent = part as f64 * 100.0 / total as f64;
            if percent > 0.0 && percent < 9.95 {
                format!("{percent:.1} %")
            } else {
                format!("{percent:.0} %")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_a_stable_width() {
        for (n, want) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1.0k"),
            (1_234, "1.2k"),
            (12_149, "12.1k"),
            (99_960, "100k"),
            (340_000, "340k"),
            (999_600, "1.00M"),
            (1_214_000, "1.21M"),
            (12_140_000, "12.1M"),
            (1_500_000_000, "1.50G"),
            (u64::MAX, "18446744T"),
        ] {
            assert_eq!(count(n), want, "{n}");
        }
    }

    #[test]
    fn durations_are_rounded_to_significant_units() {
        for (ms, want) in [
            (0, "0s"),
            (41_900, "41s"),
            (118_000, "1m58s"),
            (11_520_000, "3h12m"),
            (190_800_000, "2d05h"),
        ] {
            assert_eq!(span(ms), want);
        }
        for (ms, want) in
            [(0, "0s"), (1, "1s"), (41_000, "41s"), (41_001, "42s"), (59_500, "1m00s")]
        {
            assert_eq!(remaining(ms), want);
        }
        for (ms, want) in [
            (410, "0.41s"),
            (9_994, "9.99s"),
            (9_996, "10.0s"),
            (99_990, "100s"),
            (7_500_000, "2h05m"),
        ] {
            assert_eq!(duration(ms), want);
        }
        for (ms, want) in [
            (8_000, "8s"),
            (99_000, "99s"),
            (720_000, "12m"),
            (10_800_000, "3h"),
            (864_000_000, "10d"),
        ] {
            assert_eq!(age(ms), want);
        }
    }

    #[test]
    fn shares_of_small_totals_are_fractions() {
        for (part, total, want) in
            [(0, 0, "–"), (1, 3, "1/3"), (1, 100, "1.0 %"), (0, 100, "0 %"), (71, 100, "71 %")]
        {
            assert_eq!(share(part, total), want);
        }
    }

    #[test]
    fn times_are_local() {
        let now = FrameContext { offset: 3_600, ..FrameContext::default() };
        assert_eq!(clock(UnixMillis(1_700_000_000_000), now), "23:13:20");
        assert_eq!(clock(UnixMillis(-1), FrameContext::default()), "23:59:59");
        assert_eq!(date_time(UnixMillis(1_700_000_000_000), now), "11-14 23:13");
        assert_eq!(date_time(UnixMillis(1_000), now), "01:00:01");
        for (days, want) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (19_675, (2023, 11, 14)),
            (11_016, (2000, 2, 29)),
            (19_782, (2024, 2, 29)),
        ] {
            assert_eq!(date(days), want);
        }
    }
}
