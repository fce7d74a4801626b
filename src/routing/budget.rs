//! What has been spent of each budget: reserved before an attempt is sent, settled by its bill. The
//! one count that both refuses and is shown.

mod period;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::tz::TimeZone;

pub use self::period::CalendarPeriod;
use crate::{
    base::{clock::UnixMillis, money::NanoUsd},
    config::{
        Settings,
        settings::{Budget, Period, UnpricedPolicy},
    },
};

/// Percents that are told when they are reached.
const THRESHOLDS: [u8; 2] = [100, NEARLY_SPENT_PERCENT];
/// From this share on, in percent, a budget is nearly spent.
pub const NEARLY_SPENT_PERCENT: u8 = 80;

/// Whose budget it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// All projects together.
    All,
    Project(Arc<str>),
    Upstream(Arc<str>),
    /// `upstream/label`
    Key(Arc<str>),
}

impl Holder {
    /// `project ide`; [`Holder::parse`] reads it.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::All => "all".to_owned(),
            Self::Project(name) => format!("project {name}"),
            Self::Upstream(name) => format!("upstream {name}"),
            Self::Key(name) => format!("key {name}"),
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(' ') {
            None if text == "all" => Some(Self::All),
            Some(("project", name)) => Some(Self::Project(name.into())),
            Some(("upstream", name)) => Some(Self::Upstream(name.into())),
            Some(("key", name)) => Some(Self::Key(name.into())),
            _ => None,
        }
    }

    /// Whether a request is refused beyond it; else others serve it.
    #[must_use]
    pub fn refuses(&self) -> bool {
        matches!(self, Self::All | Self::Project(_))
    }
}

/// Why a budget keeps an attempt back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetDenied {
    /// What is under way may use up the rest.
    Reserved {
        budget: Budget,
    },
    Spent {
        budget: Budget,
        spent: NanoUsd,
        until: Option<UnixMillis>,
    },
    /// Nobody knows what it would cost.
    Unpriced {
        budget: Budget,
    },
}

/// A reservation; told to [`Budgets::settle`] exactly once.
#[derive(Debug, PartialEq, Eq)]
pub struct BudgetReservation {
    holders: Vec<Holder>,
    cost: NanoUsd,
}

impl BudgetReservation {
    /// Whether it is of no budget at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }
}

/// A budget of which a mark was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThresholdReached {
    pub percent: u8,
    pub state: BudgetState,
}

/// One budget as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetState {
    pub holder: Holder,
    pub budget: Budget,
    pub spent: NanoUsd,
    /// By what is under way.
    pub reserved: NanoUsd,
    /// Attempts whose price nobody knows.
    pub unpriced_attempts: u64,
    pub period: CalendarPeriod,
}

/// What outlives the process.
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
    /// Whether there is any: most have none, and nobody looks further then.
    configured: AtomicBool,
    by_holder: Mutex<HashMap<Holder, HolderBudgets>>,
}

#[derive(Debug, Default)]
struct HolderBudgets {
    reserved: NanoUsd,
    budgets: Vec<TrackedBudget>,
}

#[derive(Debug)]
struct TrackedBudget {
    budget: Budget,
    current_period: PeriodTotals,
    /// The page before, for a clock that is set back.
    previous_period: Option<PeriodTotals>,
}

/// What was spent in one period.
#[derive(Clone, Copy, Debug)]
struct PeriodTotals {
    period: CalendarPeriod,
    spent: NanoUsd,
    unpriced_attempts: u64,
    /// The highest mark that was told.
    threshold_reported: u8,
}

impl PeriodTotals {
    fn new(period: CalendarPeriod) -> Self {
        Self { period, spent: NanoUsd::ZERO, unpriced_attempts: 0, threshold_reported: 0 }
    }
}

impl Budgets {
    /// None yet; periods are those of this zone.
    #[must_use]
    pub fn new(zone: TimeZone) -> Self {
        Self { zone, configured: AtomicBool::new(false), by_holder: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Holder, HolderBudgets>> {
        self.by_holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is any budget.
    #[must_use]
    pub fn has_any(&self) -> bool {
        self.configured.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// Takes over the budgets of the config. What was spent stays; those that are new are told,
    /// with the beginning of their period, for whoever knows more of them.
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
        // What is reserved must find its way back.
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

    /// What keeps an attempt back that would cost so much; `None` where nobody knows how much. What
    /// costs nothing is never kept back.
    #[must_use]
    pub fn denial(
        &self,
        holder: &Holder,
        cost: Option<NanoUsd>,
        now: UnixMillis,
    ) -> Option<BudgetDenied> {
        self.lock().get_mut(holder)?.denial(cost, now, &self.zone)
    }

    /// Reserves what an attempt is expected to cost, unless a budget keeps it back.
    ///
    /// # Errors
    ///
    /// Whose budget, and why; nothing is reserved then.
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

    /// Gives a reservation back and books what it really cost: `None` where nobody knows. It counts
    /// in the period in which it ended, as in the ledger.
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

    /// The share that is spent of the fullest of these holders' budgets; 0 where they have none.
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

    /// Every budget as it stands: the whole, projects, upstreams, keys.
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

    /// What is worth keeping over a restart.
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

    /// Takes up what an earlier run counted in this period, or in a later one, as a clock that lies
    /// would have it.
    pub fn restore(&self, kept: &SavedBudget) {
        self.update_period(&kept.holder, kept.per, |page| {
            if kept.from >= page.period.from {
                page.spent = page.spent.max(kept.spent);
                page.unpriced_attempts = page.unpriced_attempts.max(kept.unpriced_attempts);
                page.threshold_reported = page.threshold_reported.max(kept.threshold_reported);
            }
        });
    }

    /// So much at least was spent in the period that began then, as somebody else knows.
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

impl HolderBudgets {
    fn denial(
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
                // Alone it may go beyond what is left: how far a single one does is only known at
                // its end.
                Some(cost)
                    if self.reserved > NanoUsd::ZERO
                        && spent + self.reserved + cost > budget.usd =>
                {
                    BudgetDenied::Reserved { budget }
                }
                _ => continue,
            };
            // The one that lasts longest is the one to tell of.
            if longest.as_ref().is_none_or(|known| ends(known) < ends(&lack)) {
                longest = Some(lack);
            }
        }
        longest
    }
}

impl TrackedBudget {
    /// Begins a new page where the period is over. A clock that was set back finds the page before,
    /// or stays on this one.
    fn roll_over(&mut self, now: UnixMillis, zone: &TimeZone) {
        let early = now < self.current_period.period.from;
        if !early && self.current_period.period.until.is_none_or(|until| now < until) {
            return;
        }
        let period = CalendarPeriod::containing(self.budget.period, now, zone);
        match &mut self.previous_period {
            Some(before) if before.period.from == period.from => {
                std::mem::swap(before, &mut self.current_period)
            }
            _ if early => {}
            _ => {
                self.previous_period =
                    Some(std::mem::replace(&mut self.current_period, PeriodTotals::new(period)))
            }
        }
    }

    /// The mark that was reached and not told yet.
    fn take_new_threshold(&mut self) -> Option<u8> {
        let percent = self.percent();
        let mark = THRESHOLDS
            .into_iter()
            .find(|mark| percent >= u64::from(*mark))
            .filter(|mark| *mark > self.current_period.threshold_reported)?;
        self.current_period.threshold_reported = mark;
        Some(mark)
    }

    fn percent(&self) -> u64 {
        percent(self.current_period.spent, self.budget.usd)
    }

    fn state(&self, holder: &Holder, reserved: NanoUsd) -> BudgetState {
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

/// How much of a sum is spent, in hundredths; of nothing, all is.
#[must_use]
pub fn percent(spent: NanoUsd, usd: NanoUsd) -> u64 {
    if usd <= NanoUsd::ZERO {
        return 100;
    }
    u64::try_from(i128::from(spent.0.max(0)) * 100 / i128::from(usd.0)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
