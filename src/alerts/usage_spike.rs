//! Detects whether usage today is far above the usual level.

use crate::{
    base::{money::NanoUsd, sanitize},
    events::{
        alert::{Alert, AlertKind},
        event::Severity,
    },
};

/// Number of days that define the usual usage.
pub const BASELINE_DAYS: usize = 7;
/// With fewer days of usage there is no baseline yet.
const MIN_USED_DAYS: usize = 2;
/// Usage below this raises no alert.
const MIN_USE: DailyUse = DailyUse { cost: NanoUsd(1_000_000_000), tokens: 1_000_000 };

/// The usage of one day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DailyUse {
    pub cost: NanoUsd,
    pub tokens: u64,
}

/// Compares today with the previous days; days without usage are ignored. `factor` is the multiple
/// of the average that raises an alert; with 0 it depends on the average.
#[must_use]
pub fn detect_spike(today: DailyUse, previous_days: &[DailyUse], factor: f64) -> Option<Alert> {
    let spike_factor = |average| if factor > 0.0 { factor } else { usual_factor(average) };
    let used_days: Vec<&DailyUse> =
        previous_days.iter().filter(|day| day.tokens > 0 || !day.cost.is_zero()).collect();
    if used_days.len() < MIN_USED_DAYS {
        return None;
    }
    let days = used_days.len() as f64;
    let cost = used_days.iter().map(|day| day.cost.dollars()).sum::<f64>() / days;
    let tokens = used_days.iter().map(|day| day.tokens as f64).sum::<f64>() / days;
    let text = if today.cost >= MIN_USE.cost && today.cost.dollars() >= cost * spike_factor(cost) {
        format!(
            "{} spent today, on other days it is {}",
            today.cost.format_short(),
            NanoUsd::from_dollars(cost)?.format_short()
        )
    } else if today.tokens >= MIN_USE.tokens
        && today.tokens as f64 >= tokens * spike_factor(tokens / 1e6)
    {
        format!(
            "{:.1} million tokens used today, on other days it is {:.1}",
            today.tokens as f64 / 1e6,
            tokens / 1e6
        )
    } else {
        return None;
    };
    Some(Alert {
        kind: AlertKind::UsageSpike,
        subject: "usage".into(),
        text: sanitize::clean(&text).into(),
        level: Severity::Warn,
    })
}

/// Returns the multiple of the average that raises an alert. It is lower for a larger average,
/// which varies less. The average is in dollars or in millions of tokens.
fn usual_factor(average: f64) -> f64 {
    match average {
        ..1.0 => 5.0,
        1.0..10.0 => 4.0,
        10.0..50.0 => 3.0,
        50.0..200.0 => 2.0,
        _ => 1.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(dollars: i64, millions: u64) -> DailyUse {
        DailyUse { cost: NanoUsd(dollars * 1_000_000_000), tokens: millions * 1_000_000 }
    }

    #[test]
    fn only_far_more_than_usual_is_a_spike() {
        let usual = [day(2, 1), day(0, 0), day(2, 1)];
        for (today, before, want) in [
            (day(8, 1), &usual[..], Some("$8 spent today, on other days it is $2")),
            (day(7, 1), &usual, None),
            (day(2, 5), &usual, Some("5.0 million tokens used today, on other days it is 1.0")),
            (day(100, 9), &[day(2, 1)], None),
            (day(100, 9), &[], None),
            (day(0, 0), &usual, None),
            (
                day(300, 1),
                &[day(150, 9), day(150, 9)],
                Some("$300 spent today, on other days it is $150"),
            ),
        ] {
            assert_eq!(
                detect_spike(today, before, 0.0).map(|alert| alert.text.to_string()).as_deref(),
                want,
                "{today:?}"
            );
        }
        // One cent after two days of a tenth of a cent each is too little for an alert.
        let cents = [
            DailyUse { cost: NanoUsd(1_000_000), tokens: 10 },
            DailyUse { cost: NanoUsd(1_000_000), tokens: 10 },
        ];
        let today = DailyUse { cost: NanoUsd(10_000_000), tokens: 100 };
        assert_eq!(detect_spike(today, &cents, 0.0), None);
        assert!(detect_spike(day(7, 1), &usual, 3.0).is_some());
        assert!(detect_spike(day(8, 1), &usual, 6.0).is_none());
    }
}
