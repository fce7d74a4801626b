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

pub use self::period::Period;
use crate::{
    base::{clock::UnixMillis, money::NanoUsd},
    config::{
        Settings,
        settings::{Budget, Period, UnpricedPolicy},
    },
};

/// Percents that are told when they are reached.
const MARKS: [u8; 2] = [100, NEAR];
/// From this share on, in percent, a budget is nearly spent.
pub const NEAR: u8 = 80;

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
pub enum Lack {
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
pub struct Booked {
    holders: Vec<Holder>,
    cost: NanoUsd,
}

impl Booked {
    /// Whether it is of no budget at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }
}

/// A budget of which a mark was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
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
    pub unknown: u64,
    pub period: Period,
}

/// What outlives the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptBudget {
    pub holder: Holder,
    pub per: Period,
    pub from: UnixMillis,
    pub spent: NanoUsd,
    pub unknown: u64,
    pub told: u8,
}

/// All budgets behind one lock.
#[derive(Debug)]
pub struct Budgets {
    zone: TimeZone,
    /// Whether there is any: most have none, and nobody looks further then.
    any: AtomicBool,
    held: Mutex<HashMap<Holder, Held>>,
}

#[derive(Debug, Default)]
struct Held {
    reserved: NanoUsd,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    budget: Budget,
    now: Page,
    /// The page before, for a clock that is set back.
    before: Option<Page>,
}

/// What was spent in one period.
#[derive(Clone, Copy, Debug)]
struct Page {
    period: Period,
    spent: NanoUsd,
    unknown: u64,
    /// The highest mark that was told.
    told: u8,
}

impl Page {
    fn new(period: Period) -> Self {
        Self { period, spent: NanoUsd::ZERO, unknown: 0, told: 0 }
    }
}

impl Budgets {
    /// None yet; periods are those of this zone.
    #[must_use]
    pub fn new(zone: TimeZone) -> Self {
        Self { zone, any: AtomicBool::new(false), held: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Holder, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is any budget.
    #[must_use]
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
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
        let mut wanted = vec![(Holder::All, settings.budget.as_slice())];
        wanted.extend(
            settings
                .projects
                .iter()
                .map(|row| (Holder::Project(Arc::clone(&row.name)), row.budget.as_slice())),
        );
        for upstream in &settings.upstreams {
            wanted.push((Holder::Upstream(Arc::clone(&upstream.name)), &upstream.budget));
            wanted.extend(
                upstream
                    .keys
                    .iter()
                    .map(|key| (Holder::Key(Arc::clone(&key.name)), key.budget.as_slice())),
            );
        }
        wanted.retain(|(_, budgets)| !budgets.is_empty());
        let mut held = self.lock();
        for (holder, held) in held.iter_mut() {
            let budgets = wanted
                .iter()
                .find(|(wanted, _)| wanted == holder)
                .map_or(&[][..], |(_, budgets)| budgets);
            held.rows.retain(|row| budgets.iter().any(|budget| budget.period == row.budget.period));
        }
        // What is reserved must find its way back.
        held.retain(|_, held| !held.rows.is_empty() || held.reserved > NanoUsd::ZERO);
        let mut new = Vec::new();
        for (holder, budgets) in wanted {
            let rows = &mut held.entry(holder.clone()).or_default().rows;
            for budget in budgets {
                if let Some(row) = rows.iter_mut().find(|row| row.budget.period == budget.period) {
                    row.budget = *budget;
                    continue;
                }
                let period = Period::of(budget.period, now, &self.zone);
                rows.push(Row { budget: *budget, now: Page::new(period), before: None });
                new.push((holder.clone(), budget.period, period.from));
            }
        }
        self.any.store(!held.is_empty(), Ordering::Relaxed);
        new
    }

    /// What keeps an attempt back that would cost so much; `None` where nobody knows how much. What
    /// costs nothing is never kept back.
    #[must_use]
    pub fn lack(&self, holder: &Holder, cost: Option<NanoUsd>, now: UnixMillis) -> Option<Lack> {
        self.lock().get_mut(holder)?.lack(cost, now, &self.zone)
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
    ) -> Result<Booked, (Holder, Lack)> {
        let mut all = self.lock();
        for holder in &holders {
            if let Some(lack) =
                all.get_mut(holder).and_then(|held| held.lack(cost, now, &self.zone))
            {
                return Err((holder.clone(), lack));
            }
        }
        let cost = cost.unwrap_or_default();
        let holders: Vec<Holder> =
            holders.into_iter().filter(|holder| all.contains_key(holder)).collect();
        for holder in &holders {
            if let Some(held) = all.get_mut(holder) {
                held.reserved += cost;
            }
        }
        Ok(Booked { holders, cost })
    }

    /// Gives a reservation back and books what it really cost: `None` where nobody knows. It counts
    /// in the period in which it ended, as in the ledger.
    pub fn settle(&self, booked: Booked, cost: Option<NanoUsd>, now: UnixMillis) -> Vec<Reached> {
        let mut all = self.lock();
        let mut reached = Vec::new();
        for holder in booked.holders {
            let Some(held) = all.get_mut(&holder) else { continue };
            held.reserved = NanoUsd(held.reserved.0.saturating_sub(booked.cost.0).max(0));
            let reserved = held.reserved;
            for row in &mut held.rows {
                row.turn(now, &self.zone);
                match cost {
                    Some(cost) => row.now.spent += cost,
                    None => row.now.unknown += 1,
                }
                if let Some(percent) = row.mark() {
                    reached.push(Reached { percent, state: row.state(&holder, reserved) });
                }
            }
        }
        reached
    }

    /// The share that is spent of the fullest of these holders' budgets; 0 where they have none.
    #[must_use]
    pub fn fullest(&self, holders: &[Holder], now: UnixMillis) -> f64 {
        let mut all = self.lock();
        let mut fullest = 0_u64;
        for holder in holders {
            for row in all.get_mut(holder).into_iter().flat_map(|held| &mut held.rows) {
                row.turn(now, &self.zone);
                fullest = fullest.max(row.percent());
            }
        }
        fullest as f64 / 100.0
    }

    /// Every budget as it stands: the whole, projects, upstreams, keys.
    #[must_use]
    pub fn all(&self, now: UnixMillis) -> Vec<BudgetState> {
        let mut out = Vec::new();
        for (holder, held) in self.lock().iter_mut() {
            for row in &mut held.rows {
                row.turn(now, &self.zone);
                out.push(row.state(holder, held.reserved));
            }
        }
        out.sort_by(|a, b| (&a.holder, a.budget.period).cmp(&(&b.holder, b.budget.period)));
        out
    }

    /// What is worth keeping over a restart.
    #[must_use]
    pub fn kept(&self, now: UnixMillis) -> Vec<KeptBudget> {
        let all = self.all(now);
        let told = |state: &BudgetState| {
            let held = self.lock();
            let rows = held.get(&state.holder).map_or(&[][..], |held| &held.rows);
            rows.iter()
                .find(|row| row.budget.period == state.budget.period)
                .map_or(0, |row| row.now.told)
        };
        all.iter()
            .map(|state| KeptBudget {
                holder: state.holder.clone(),
                per: state.budget.period,
                from: state.period.from,
                spent: state.spent,
                unknown: state.unknown,
                told: told(state),
            })
            .collect()
    }

    /// Takes up what an earlier run counted in this period, or in a later one, as a clock that lies
    /// would have it.
    pub fn restore(&self, kept: &KeptBudget) {
        self.raise(&kept.holder, kept.per, |page| {
            if kept.from >= page.period.from {
                page.spent = page.spent.max(kept.spent);
                page.unknown = page.unknown.max(kept.unknown);
                page.told = page.told.max(kept.told);
            }
        });
    }

    /// So much at least was spent in the period that began then, as somebody else knows.
    pub fn at_least(&self, holder: &Holder, per: Period, from: UnixMillis, spent: NanoUsd) {
        self.raise(holder, per, |page| {
            if page.period.from == from {
                page.spent = page.spent.max(spent);
            }
        });
    }

    fn raise(&self, holder: &Holder, per: Period, change: impl FnOnce(&mut Page)) {
        let mut held = self.lock();
        if let Some(row) = held
            .get_mut(holder)
            .and_then(|held| held.rows.iter_mut().find(|row| row.budget.period == per))
        {
            change(&mut row.now);
        }
    }
}

impl Held {
    fn lack(&mut self, cost: Option<NanoUsd>, now: UnixMillis, zone: &TimeZone) -> Option<Lack> {
        if cost == Some(NanoUsd::ZERO) {
            return None;
        }
        let mut worst: Option<Lack> = None;
        for row in &mut self.rows {
            row.turn(now, zone);
            let (budget, spent, until) = (row.budget, row.now.spent, row.now.period.until);
            let ends = |lack: &Lack| match lack {
                Lack::Spent { until, .. } => until.map_or(i64::MAX, |until| until.0),
                Lack::Reserved { .. } | Lack::Unpriced { .. } => i64::MIN,
            };
            let lack = match cost {
                _ if spent >= budget.usd => Lack::Spent { budget, spent, until },
                None if budget.unpriced == UnpricedPolicy::Refuse => Lack::Unpriced { budget },
                // Alone it may go beyond what is left: how far a single one does is only known at
                // its end.
                Some(cost)
                    if self.reserved > NanoUsd::ZERO
                        && spent + self.reserved + cost > budget.usd =>
                {
                    Lack::Reserved { budget }
                }
                _ => continue,
            };
            // The one that lasts longest is the one to tell of.
            if worst.as_ref().is_none_or(|known| ends(known) < ends(&lack)) {
                worst = Some(lack);
            }
        }
        worst
    }
}

impl Row {
    /// Begins a new page where the period is over. A clock that was set back finds the page before,
    /// or stays on this one.
    fn turn(&mut self, now: UnixMillis, zone: &TimeZone) {
        let early = now < self.now.period.from;
        if !early && self.now.period.until.is_none_or(|until| now < until) {
            return;
        }
        let period = Period::of(self.budget.period, now, zone);
        match &mut self.before {
            Some(before) if before.period.from == period.from => {
                std::mem::swap(before, &mut self.now)
            }
            _ if early => {}
            _ => self.before = Some(std::mem::replace(&mut self.now, Page::new(period))),
        }
    }

    /// The mark that was reached and not told yet.
    fn mark(&mut self) -> Option<u8> {
        let percent = self.percent();
        let mark = MARKS
            .into_iter()
            .find(|mark| percent >= u64::from(*mark))
            .filter(|mark| *mark > self.now.told)?;
        self.now.told = mark;
        Some(mark)
    }

    fn percent(&self) -> u64 {
        percent(self.now.spent, self.budget.usd)
    }

    fn state(&self, holder: &Holder, reserved: NanoUsd) -> BudgetState {
        let Page { period, spent, unknown, .. } = self.now;
        BudgetState {
            holder: holder.clone(),
            budget: self.budget,
            spent,
            reserved,
            unknown,
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
