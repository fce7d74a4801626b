//! Reserves an attempt's cost of its budgets, settles it at the end, and reports budgets that are
//! nearly spent.

use std::{sync::Arc, time::Duration};

use crate::relay::{engine::Engine, record::attempt_guard::publish_notice};
use crate::{
    base::{clock::UnixMillis, money::NanoUsd, units::print_span},
    config::settings::Origin,
    events::{
        alert::{Alert, AlertKind},
        event::{EventKind, Severity},
        status_message::notice::NoticeMessage,
    },
    ir::{cost::Bill, reason::budget::describe_period},
    routing::{
        budget::{
            BudgetReservation, BudgetState, Holder, NEARLY_SPENT_PERCENT, ThresholdReached,
            percent as percent_of,
        },
        candidate::{Candidate, Target},
    },
};

/// A concurrent request has used up the rest of a budget.
pub(in crate::relay) struct BudgetTaken;

/// What an attempt has reserved of its budgets; released when dropped.
pub struct BudgetHold {
    engine: Arc<Engine>,
    reserved: Option<BudgetReservation>,
}

impl BudgetHold {
    /// Reserves for an attempt.
    ///
    /// # Errors
    ///
    /// A concurrent request has used up the rest.
    pub(in crate::relay) fn reserve(
        engine: &Arc<Engine>,
        project: &Arc<str>,
        candidate: &Candidate,
        cost: Option<f64>,
    ) -> Result<Self, BudgetTaken> {
        let booked = engine
            .budgets
            .reserve(holders(project, candidate), to_nano_usd(cost), engine.clock.unix())
            .map_err(|_| BudgetTaken)?;
        Ok(Self { engine: Arc::clone(engine), reserved: Some(booked) })
    }

    /// Books the cost of the attempt.
    pub(in crate::relay) fn settle(mut self, bill: &Bill, target: &Target) {
        if bill.cost.is_none() && self.reserved.as_ref().is_some_and(|booked| !booked.is_empty()) {
            let name = format!("{}/{}", target.upstream.name, target.model);
            if self.engine.unpriced_models.insert_if_new(&name) {
                let notice = NoticeMessage::Unpriced { model: name.into() };
                publish_notice(&self.engine, Severity::Warn, notice);
            }
        }
        self.close(bill.cost);
    }

    fn close(&mut self, cost: Option<NanoUsd>) {
        let Some(booked) = self.reserved.take() else { return };
        let reached = self.engine.budgets.settle(booked, cost, self.engine.clock.unix());
        for reached in &reached {
            publish_threshold(&self.engine, reached);
        }
        // Requests that wait for the reserved amount may now find it free.
        self.engine.notify_waiters();
    }
}

impl Drop for BudgetHold {
    fn drop(&mut self) {
        self.close(Some(NanoUsd::ZERO));
    }
}

/// Publishes that a budget reached a threshold.
fn publish_threshold(engine: &Engine, reached: &ThresholdReached) {
    let alert = budget_alert(engine, &reached.state, reached.percent.into());
    tracing::warn!("{}", alert.text);
    engine.bus.publish(engine.clock.unix(), EventKind::Alert { alert });
}

/// Returns alerts for the budgets that are spent or nearly spent now.
#[must_use]
pub fn budget_alerts(engine: &Engine) -> Vec<Alert> {
    let all = engine.budgets.states(engine.clock.unix()).into_iter();
    let full = all
        .map(|state| (percent_of(state.spent, state.budget.usd), state))
        .filter(|(percent, _)| *percent >= u64::from(NEARLY_SPENT_PERCENT));
    full.map(|(percent, state)| budget_alert(engine, &state, percent)).collect()
}

fn budget_alert(engine: &Engine, state: &BudgetState, percent: u64) -> Alert {
    let BudgetState { holder, budget, spent, period, .. } = state;
    let (what, level) = if percent >= 100 {
        (AlertKind::BudgetSpent, Severity::Error)
    } else {
        (AlertKind::BudgetNear, Severity::Warn)
    };
    let until = period
        .until
        .map(|until| {
            format!(", with {} to go", print_span(duration_between(engine.clock.unix(), until)))
        })
        .unwrap_or_default();
    let then = match (what, holder.refuses()) {
        (AlertKind::BudgetSpent, true) => "; what costs money is refused until then",
        (AlertKind::BudgetSpent, false) => "; others serve until then",
        _ => "",
    };
    let text: Arc<str> = format!(
        "{} has spent {} of its {} {}{until}{then}",
        holder.description(),
        spent.format_short(),
        budget.usd.format_short(),
        describe_period(budget.period)
    )
    .into();
    Alert { kind: what, subject: holder.text().into(), text, level }
}

/// Returns the holders whose budgets an attempt draws on; none for the built-in upstream.
pub(in crate::relay) fn holders(project: &Arc<str>, candidate: &Candidate) -> Vec<Holder> {
    let upstream = &candidate.target.upstream;
    if upstream.origin == Origin::Demo {
        return Vec::new();
    }
    vec![
        Holder::All,
        Holder::Project(Arc::clone(project)),
        Holder::Upstream(Arc::clone(&upstream.name)),
        Holder::Key(Arc::clone(&candidate.key_name)),
    ]
}

/// Rounds an estimated cost up to a whole billionth of a dollar.
pub(in crate::relay) fn to_nano_usd(cost: Option<f64>) -> Option<NanoUsd> {
    cost.map(|cost| NanoUsd(cost.ceil() as i64))
}

/// Returns the time between two instants; zero if the second is earlier.
pub(in crate::relay) fn duration_between(from: UnixMillis, to: UnixMillis) -> Duration {
    Duration::from_millis(u64::try_from(to.0.saturating_sub(from.0)).unwrap_or(0))
}
