//! Counts the spending of one budget per calendar period.

use jiff::tz::TimeZone;

use super::period::CalendarPeriod;
use crate::{
    base::{clock::UnixMillis, money::NanoUsd},
    config::settings::{Budget, UnpricedPolicy},
    ir::reason::budget::Holder,
};

/// Percentages that are reported when spending reaches them.
const THRESHOLDS: [u8; 2] = [100, NEARLY_SPENT_PERCENT];
/// A budget is nearly spent from this percentage on.
pub const NEARLY_SPENT_PERCENT: u8 = 80;

/// Why a budget denies an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetDenied {
    /// Attempts in flight may use up the rest.
    Reserved {
        budget: Budget,
    },
    Spent {
        budget: Budget,
        spent: NanoUsd,
        until: Option<UnixMillis>,
    },
    /// The cost of the attempt is unknown.
    Unpriced {
        budget: Budget,
    },
}

/// A budget whose spending reached a threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThresholdReached {
    pub percent: u8,
    pub state: BudgetState,
}

/// The current state of one budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetState {
    pub holder: Holder,
    pub budget: Budget,
    pub spent: NanoUsd,
    /// The amount reserved by attempts in flight.
    pub reserved: NanoUsd,
    /// Attempts whose price is unknown.
    pub unpriced_attempts: u64,
    pub period: CalendarPeriod,
}

/// The budgets of one holder, and the amount that its attempts in flight reserved.
#[derive(Debug, Default)]
pub(super) struct HolderBudgets {
    pub(super) reserved: NanoUsd,
    pub(super) budgets: Vec<TrackedBudget>,
}

/// A budget and its totals.
#[derive(Debug)]
pub(super) struct TrackedBudget {
    pub(super) budget: Budget,
    pub(super) current_period: PeriodTotals,
    /// The totals of the previous period, for a clock that is set back.
    pub(super) previous_period: Option<PeriodTotals>,
}

/// Totals of one period.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeriodTotals {
    pub(super) period: CalendarPeriod,
    pub(super) spent: NanoUsd,
    pub(super) unpriced_attempts: u64,
    /// The highest threshold already reported.
    pub(super) threshold_reported: u8,
}

impl PeriodTotals {
    pub(super) fn new(period: CalendarPeriod) -> Self {
        Self { period, spent: NanoUsd::ZERO, unpriced_attempts: 0, threshold_reported: 0 }
    }
}

impl HolderBudgets {
    pub(super) fn denial(
        &mut self,
        cost: Option<NanoUsd>,
        now: UnixMillis,
        zone: &TimeZone,
    ) -> Option<BudgetDenied> {
        if cost == Some(NanoUsd::ZERO) {
            return None;
        }
        let mut longest: Option<BudgetDenied> = None;
        for row in &mut self.budgets {
            row.roll_over(now, zone);
            let (budget, spent, until) =
                (row.budget, row.current_period.spent, row.current_period.period.until);
            let ends = |lack: &BudgetDenied| match lack {
                BudgetDenied::Spent { until, .. } => until.map_or(i64::MAX, |until| until.0),
                BudgetDenied::Reserved { .. } | BudgetDenied::Unpriced { .. } => i64::MIN,
            };
            let lack = match cost {
                _ if spent >= budget.usd => BudgetDenied::Spent { budget, spent, until },
                None if budget.unpriced == UnpricedPolicy::Refuse => {
                    BudgetDenied::Unpriced { budget }
                }
                // A single attempt may exceed the rest of the budget, because its actual cost is
                // known only at its end.
                Some(cost)
                    if self.reserved > NanoUsd::ZERO
                        && spent + self.reserved + cost > budget.usd =>
                {
                    BudgetDenied::Reserved { budget }
                }
                _ => continue,
            };
            // Reports the denial that lasts longest.
            if longest.as_ref().is_none_or(|known| ends(known) < ends(&lack)) {
                longest = Some(lack);
            }
        }
        longest
    }
}

impl TrackedBudget {
    /// Starts new totals when the period is over. If the clock was set back, the previous totals
    /// return, or the current ones stay.
    pub(super) fn roll_over(&mut self, now: UnixMillis, zone: &TimeZone) {
        let early = now < self.current_period.period.from;
        if !early && self.current_period.period.until.is_none_or(|until| now < until) {
            return;
        }
        let period = CalendarPeriod::containing(self.budget.period, now, zone);
        match &mut self.previous_period {
            Some(before) if before.period.from == period.from => {
                std::mem::swap(before, &mut self.current_period);
            }
            _ if early => {}
            _ => {
                self.previous_period =
                    Some(std::mem::replace(&mut self.current_period, PeriodTotals::new(period)));
            }
        }
    }

    /// Returns the threshold that was reached and not reported yet.
    pub(super) fn take_new_threshold(&mut self) -> Option<u8> {
        let percent = self.percent();
        let mark = THRESHOLDS
            .into_iter()
            .find(|mark| percent >= u64::from(*mark))
            .filter(|mark| *mark > self.current_period.threshold_reported)?;
        self.current_period.threshold_reported = mark;
        Some(mark)
    }

    pub(super) fn percent(&self) -> u64 {
        percent(self.current_period.spent, self.budget.usd)
    }

    pub(super) fn state(&self, holder: &Holder, reserved: NanoUsd) -> BudgetState {
        let PeriodTotals { period, spent, unpriced_attempts: unknown, .. } = self.current_period;
        BudgetState {
            holder: holder.clone(),
            budget: self.budget,
            spent,
            reserved,
            unpriced_attempts: unknown,
            period,
        }
    }
}

/// Returns how many percent of a sum are spent; a sum of zero is fully spent.
#[must_use]
pub fn percent(spent: NanoUsd, usd: NanoUsd) -> u64 {
    if usd <= NanoUsd::ZERO {
        return 100;
    }
    u64::try_from(i128::from(spent.0.max(0)) * 100 / i128::from(usd.0)).unwrap_or(u64::MAX)
}
