//! Money in whole billionths of a US dollar.

use std::{
    fmt,
    iter::Sum,
    ops::{Add, AddAssign},
};

use serde::{Deserialize, Serialize};

/// Billionths in one unit of any currency.
pub const NANOS_PER_UNIT: i64 = 1_000_000_000;
/// No model call costs a million dollars; a larger number is an error.
const MAX_AMOUNT: f64 = 1_000_000.0;

/// Money in billionths of a US dollar. Sums saturate instead of wrapping.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct NanoUsd(pub i64);

impl NanoUsd {
    pub const ZERO: Self = Self(0);

    /// Converts dollars, rounded to the nearest billionth; `None` if the number is negative, not
    /// finite or out of range.
    #[must_use]
    pub fn from_dollars(dollars: f64) -> Option<Self> {
        to_nanos(dollars).map(Self)
    }

    #[must_use]
    pub fn dollars(self) -> f64 {
        self.0 as f64 / NANOS_PER_UNIT as f64
    }

    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Returns a budget, a balance or another round amount without digits that mean nothing: `$20`,
    /// `$1.50`. Below a dollar it is the usual text.
    #[must_use]
    pub fn format_short(self) -> String {
        let cents = self.0 / (NANOS_PER_UNIT / 100)
            + i64::from(self.0 % (NANOS_PER_UNIT / 100) >= NANOS_PER_UNIT / 200);
        match self.0 {
            ..NANOS_PER_UNIT => self.to_string(),
            _ if cents % 100 == 0 => format!("${}", cents / 100),
            _ => format!("${}.{:02}", cents / 100, cents % 100),
        }
    }

    /// Returns the amount with all its digits, for the page that shows the arithmetic: `$0.0214`,
    /// `$0.000000003`.
    #[must_use]
    pub fn format_exact(self) -> String {
        format!("${}", format_nanos(self.0))
    }
}

/// Returns a number in billionths; `None` if it is negative, not finite or out of range.
#[must_use]
pub fn to_nanos(number: f64) -> Option<i64> {
    (number.is_finite() && (0.0..=MAX_AMOUNT).contains(&number))
        .then(|| (number * NANOS_PER_UNIT as f64).round() as i64)
}

/// Writes billionths as a decimal number without trailing zeros: `0.3`, `15`.
#[must_use]
pub fn format_nanos(nano: i64) -> String {
    let (sign, nano) = (if nano < 0 { "-" } else { "" }, nano.unsigned_abs());
    let (whole, rest) =
        (nano / NANOS_PER_UNIT.unsigned_abs(), nano % NANOS_PER_UNIT.unsigned_abs());
    if rest == 0 {
        return format!("{sign}{whole}");
    }
    format!("{sign}{whole}.{}", format!("{rest:09}").trim_end_matches('0'))
}

impl fmt::Display for NanoUsd {
    /// Writes `$0`, `<$0.001`, `$0.021`, `$1.840`, `$214.05`. A small amount is marked as such, and
    /// zero is zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mill = (self.0.unsigned_abs() + 500_000) / 1_000_000;
        let sign = if self.0 < 0 { "-" } else { "" };
        let text = match (self.0, mill) {
            (0, _) => "$0".to_owned(),
            (_, 0) => "<$0.001".to_owned(),
            (_, 1..100_000) => format!("{sign}${}.{:03}", mill / 1_000, mill % 1_000),
            _ => {
                let cent = (self.0.unsigned_abs() + 5_000_000) / 10_000_000;
                format!("{sign}${}.{:02}", cent / 100, cent % 100)
            }
        };
        f.pad(&text)
    }
}

impl Add for NanoUsd {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for NanoUsd {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for NanoUsd {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_printed_without_insignificant_digits() {
        for (nano, want) in [
            (0, "$0"),
            (21_000_000, "$0.021"),
            (1_500_000_000, "$1.50"),
            (20_000_000_000, "$20"),
            (21_400_000_000, "$21.40"),
            (1_999_000_000, "$2"),
            (i64::MAX, "$9223372036.85"),
            (-1_000_000_000, "-$1.000"),
        ] {
            assert_eq!(NanoUsd(nano).format_short(), want);
        }
    }

    #[test]
    fn sums_are_rounded_for_display() {
        for (nano, shown, exact) in [
            (0, "$0", "$0"),
            (1, "<$0.001", "$0.000000001"),
            (499_999, "<$0.001", "$0.000499999"),
            (500_000, "$0.001", "$0.0005"),
            (21_400_000, "$0.021", "$0.0214"),
            (1_840_000_000, "$1.840", "$1.84"),
            (99_999_400_000, "$99.999", "$99.9994"),
            (214_050_000_000, "$214.05", "$214.05"),
            (i64::MAX, "$9223372036.85", "$9223372036.854775807"),
        ] {
            assert_eq!(
                (NanoUsd(nano).to_string().as_str(), NanoUsd(nano).format_exact().as_str()),
                (shown, exact)
            );
        }
    }

    #[test]
    fn invalid_dollar_amounts_are_rejected() {
        assert_eq!(NanoUsd::from_dollars(7.75e-06), Some(NanoUsd(7_750)));
        assert_eq!(NanoUsd::from_dollars(0.1 + 0.2), Some(NanoUsd(300_000_000)));
        for bad in [-0.1, f64::NAN, f64::INFINITY, 1e9] {
            assert_eq!(NanoUsd::from_dollars(bad), None, "{bad}");
        }
        assert_eq!(NanoUsd(i64::MAX) + NanoUsd(1), NanoUsd(i64::MAX));
    }
}
