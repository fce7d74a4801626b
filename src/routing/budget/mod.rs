//! Tracks the spending of each budget: an attempt reserves its cost before it is sent, and its bill
//! settles it. The same count enforces the budget and is displayed.

mod period;
mod tracked;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::tz::TimeZone;

use self::tracked::{HolderBudgets, PeriodTotals, TrackedBudget};
pub use self::{
    period::CalendarPeriod,
    tracked::{BudgetDenied, BudgetState, NEARLY_SPENT_PERCENT, ThresholdReached, percent},
};
pub use crate::ir::reason::budget::Holder;
use crate::{
    base::{
        clock::UnixMillis,
        money::NanoUsd,
        sync::{Mutex, MutexGuard},
    },
    config::{Settings, settings::Period},
};

/// A reservation; the caller passes it to [`Budgets::settle`] exactly once.
#[derive(Debug, PartialEq, Eq)]
pub struct BudgetReservation {
    holders: Vec<Holder>,
    cost: NanoUsd,
}

impl BudgetReservation {
    /// Returns whether no budget applies to the reservation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }
}

/// Budget state saved across restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedBudget {
    pub holder: Holder,
    pub per: Period,
    pub from: UnixMillis,
    pub spent: NanoUsd,
    pub unpriced_attempts: u64,
    pub threshold_reported: u8,
}

/// All budgets behind one lock.
#[derive(Debug)]
pub struct Budgets {
    zone: TimeZone,
    /// Whether any budget exists. Most configurations have none, and then no other check runs.
    configured: AtomicBool,
    by_holder: Mutex<HashMap<Holder, HolderBudgets>>,
}

impl Budgets {
    /// Creates an empty set; its periods are in this time zone.
    #[must_use]
    pub fn new(zone: TimeZone) -> Self {
        Self { zone, configured: AtomicBool::new(false), by_holder: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Holder, HolderBudgets>> {
        self.by_holder.lock()
    }

    /// Returns whether any budget is configured.
    #[must_use]
    pub fn has_any(&self) -> bool {
        self.configured.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// Applies the budgets of the config. Spending so far is retained. Returns the new budgets with
    /// the start of their period, so that the caller can add earlier spending.
    pub fn configure(
        &self,
        settings: &Settings,
        now: UnixMillis,
    ) -> Vec<(Holder, Period, UnixMillis)> {
        let mut configured = vec![(Holder::All, settings.budget.as_slice())];
        configured.extend(
            settings
                .projects
                .iter()
                .map(|row| (Holder::Project(Arc::clone(&row.name)), row.budget.as_slice())),
        );
        for upstream in &settings.upstreams {
            configured.push((Holder::Upstream(Arc::clone(&upstream.name)), &upstream.budget));
            configured.extend(
                upstream
                    .keys
                    .iter()
                    .map(|key| (Holder::Key(Arc::clone(&key.name)), key.budget.as_slice())),
            );
        }
        configured.retain(|(_, budgets)| !budgets.is_empty());
        let mut held = self.lock();
        for (holder, held) in held.iter_mut() {
            let budgets = configured
                .iter()
                .find(|(wanted, _)| wanted == holder)
                .map_or(&[][..], |(_, budgets)| budgets);
            held.budgets
                .retain(|row| budgets.iter().any(|budget| budget.period == row.budget.period));
        }
        // Holders with open reservations stay until those are settled.
        held.retain(|_, held| !held.budgets.is_empty() || held.reserved > NanoUsd::ZERO);
        let mut new = Vec::new();
        for (holder, budgets) in configured {
            let rows = &mut held.entry(holder.clone()).or_default().budgets;
            for budget in budgets {
                if let Some(row) = rows.iter_mut().find(|row| row.budget.period == budget.period) {
                    row.budget = *budget;
                    continue;
                }
                let period = CalendarPeriod::containing(budget.period, now, &self.zone);
                rows.push(TrackedBudget {
                    budget: *budget,
                    current_period: PeriodTotals::new(period),
                    previous_period: None,
                });
                new.push((holder.clone(), budget.period, period.from));
            }
        }
        self.configured.store(!held.is_empty(), Ordering::Relaxed);
        new
    }

    /// Returns why a budget denies an attempt of this cost; `None` as the cost means unknown. An
    /// attempt that costs nothing is never denied.
    #[must_use]
    pub fn denial(
        &self,
        holder: &Holder,
        cost: Option<NanoUsd>,
        now: UnixMillis,
    ) -> Option<BudgetDenied> {
        self.lock().get_mut(holder)?.denial(cost, now, &self.zone)
    }

    /// Reserves the expected cost of an attempt, unless a budget denies it.
    ///
    /// # Errors
    ///
    /// The holder of the denying budget and the reason; nothing is reserved then.
    pub fn reserve(
        &self,
        holders: Vec<Holder>,
        cost: Option<NanoUsd>,
        now: UnixMillis,
    ) -> Result<BudgetReservation, (Holder, BudgetDenied)> {
        let mut by_holder = self.lock();
        for holder in &holders {
            if let Some(lack) =
                by_holder.get_mut(holder).and_then(|held| held.denial(cost, now, &self.zone))
            {
                return Err((holder.clone(), lack));
            }
        }
        let cost = cost.unwrap_or_default();
        let holders: Vec<Holder> =
            holders.into_iter().filter(|holder| by_holder.contains_key(holder)).collect();
        for holder in &holders {
            if let Some(held) = by_holder.get_mut(holder) {
                held.reserved += cost;
            }
        }
        Ok(BudgetReservation { holders, cost })
    }

    /// Releases a reservation and books the actual cost; `None` means unknown. The cost counts in
    /// the period in which the attempt ended, as in the ledger.
    pub fn settle(
        &self,
        booked: BudgetReservation,
        cost: Option<NanoUsd>,
        now: UnixMillis,
    ) -> Vec<ThresholdReached> {
        let mut by_holder = self.lock();
        let mut reached = Vec::new();
        for holder in booked.holders {
            let Some(held) = by_holder.get_mut(&holder) else { continue };
            held.reserved = NanoUsd(held.reserved.0.saturating_sub(booked.cost.0).max(0));
            let reserved = held.reserved;
            for row in &mut held.budgets {
                row.roll_over(now, &self.zone);
                match cost {
                    Some(cost) => row.current_period.spent += cost,
                    None => row.current_period.unpriced_attempts += 1,
                }
                if let Some(percent) = row.take_new_threshold() {
                    reached.push(ThresholdReached { percent, state: row.state(&holder, reserved) });
                }
            }
        }
        reached
    }

    /// Returns the spent share of the fullest budget of these holders, or 0 if they have no budget.
    #[must_use]
    pub fn max_used_fraction(&self, holders: &[Holder], now: UnixMillis) -> f64 {
        let mut by_holder = self.lock();
        let mut fullest = 0_u64;
        for holder in holders {
            for row in by_holder.get_mut(holder).into_iter().flat_map(|held| &mut held.budgets) {
                row.roll_over(now, &self.zone);
                fullest = fullest.max(row.percent());
            }
        }
        fullest as f64 / 100.0
    }

    /// Returns the state of every budget: all projects together, then projects, upstreams and keys.
    #[must_use]
    pub fn states(&self, now: UnixMillis) -> Vec<BudgetState> {
        let mut out = Vec::new();
        for (holder, held) in self.lock().iter_mut() {
            for row in &mut held.budgets {
                row.roll_over(now, &self.zone);
                out.push(row.state(holder, held.reserved));
            }
        }
        out.sort_by(|a, b| (&a.holder, a.budget.period).cmp(&(&b.holder, b.budget.period)));
        out
    }

    /// Returns the state to save across a restart.
    #[must_use]
    pub fn save(&self, now: UnixMillis) -> Vec<SavedBudget> {
        let all = self.states(now);
        let threshold_reported = |state: &BudgetState| {
            let held = self.lock();
            let rows = held.get(&state.holder).map_or(&[][..], |held| &held.budgets);
            rows.iter()
                .find(|row| row.budget.period == state.budget.period)
                .map_or(0, |row| row.current_period.threshold_reported)
        };
        all.iter()
            .map(|state| SavedBudget {
                holder: state.holder.clone(),
                per: state.budget.period,
                from: state.period.from,
                spent: state.spent,
                unpriced_attempts: state.unpriced_attempts,
                threshold_reported: threshold_reported(state),
            })
            .collect()
    }

    /// Restores the counts of an earlier run for this period, or for a later one in case the clock
    /// was wrong.
    pub fn restore(&self, kept: &SavedBudget) {
        self.update_period(&kept.holder, kept.per, |page| {
            if kept.from >= page.period.from {
                page.spent = page.spent.max(kept.spent);
                page.unpriced_attempts = page.unpriced_attempts.max(kept.unpriced_attempts);
                page.threshold_reported = page.threshold_reported.max(kept.threshold_reported);
            }
        });
    }

    /// Raises the spending of the period that began at `from` to at least `spent`, as known from
    /// another source.
    pub fn raise_spent(&self, holder: &Holder, per: Period, from: UnixMillis, spent: NanoUsd) {
        self.update_period(holder, per, |page| {
            if page.period.from == from {
                page.spent = page.spent.max(spent);
            }
        });
    }

    fn update_period(&self, holder: &Holder, per: Period, change: impl FnOnce(&mut PeriodTotals)) {
        let mut held = self.lock();
        if let Some(row) = held
            .get_mut(holder)
            .and_then(|held| held.budgets.iter_mut().find(|row| row.budget.period == per))
        {
            change(&mut row.current_period);
        }
    }
}

#[cfg(test)]
mod tests;
