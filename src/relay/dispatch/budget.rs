//! Applies budgets to a request: skips candidates, reserves for an attempt, settles the cost at the
//! end.

use std::{sync::Arc, time::Duration};

use http::Method;

use crate::relay::{engine::Engine, request::proxy_request::ProxyRequest};
use crate::{
    base::{
        clock::{Mono, UnixMillis},
        money::NanoUsd,
    },
    config::settings::{Budget, Origin, Period},
    events::{
        alert::{Alert, AlertKind},
        event::{EventKind, Severity},
    },
    ir::{
        cost::Bill,
        fault::{ProxyError, ProxyErrorKind},
        op::Op,
    },
    routing::{
        budget::{
            BudgetDenied, BudgetReservation, BudgetState, Holder, NEARLY_SPENT_PERCENT,
            ThresholdReached, percent as percent_of,
        },
        candidate::{BudgetBlock, BudgetBlockKind, Candidate, KeyState, Target},
        decision::{Decision, SkipReason, print_span},
    },
};

/// Whether a request may cost anything at all.
pub(in crate::relay) fn applies(engine: &Engine, request: &ProxyRequest) -> bool {
    engine.budgets.has_any()
        && (request.endpoint.op.generates()
            || (request.endpoint.op == Op::Raw && request.method != Method::GET))
}

/// Marks the candidates that a budget excludes: the project's, the global one, the upstream's or
/// the key's. `costs` is what the request would cost at each candidate, if known.
pub fn annotate_candidates(
    engine: &Engine,
    project: &Arc<str>,
    candidates: &mut [Candidate],
    costs: &[Option<f64>],
) {
    if !engine.budgets.has_any() {
        return;
    }
    let now = engine.clock.unix();
    for (at, candidate) in candidates.iter_mut().enumerate() {
        if !matches!(candidate.key_state, KeyState::Ready | KeyState::Waiting) {
            continue;
        }
        let cost = to_nano_usd(costs.get(at).copied().flatten());
        let holders = holders(project, candidate);
        if let Some((holder, lack)) = holders
            .iter()
            .find_map(|holder| Some((holder, engine.budgets.denial(holder, cost, now)?)))
        {
            candidate.key_state =
                KeyState::OverBudget(Arc::new(exceeded(engine, holder, lack, candidate)));
        }
    }
}

/// Returns the holders whose budgets an attempt draws on; none for the built-in upstream.
fn holders(project: &Arc<str>, candidate: &Candidate) -> Vec<Holder> {
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

fn to_nano_usd(cost: Option<f64>) -> Option<NanoUsd> {
    cost.map(|cost| NanoUsd(cost.ceil() as i64))
}

fn exceeded(
    engine: &Engine,
    holder: &Holder,
    lack: BudgetDenied,
    candidate: &Candidate,
) -> BudgetBlock {
    let (owner, everywhere) =
        (describe_holder(holder), matches!(holder, Holder::All | Holder::Project(_)));
    match lack {
        BudgetDenied::Reserved { budget } => {
            let text = format!(
                "requests under way may use up the rest of the {} of {owner}",
                print_usd(&budget)
            );
            BudgetBlock {
                kind: BudgetBlockKind::Reserved,
                text,
                fix: String::new(),
                until: None,
                global: everywhere,
            }
        }
        BudgetDenied::Spent { budget, spent, until } => {
            let text = format!("{owner} has spent {spent} of its {}", print_usd(&budget));
            let until = until
                .map(|until| engine.clock.mono() + duration_between(engine.clock.unix(), until));
            let fix = format!(
                "`aiproxy usage` shows what it went on, {} allows more",
                how_to_raise(holder)
            );
            BudgetBlock { kind: BudgetBlockKind::Spent, text, fix, until, global: everywhere }
        }
        BudgetDenied::Unpriced { .. } => {
            let name = format!("{}/{}", candidate.target.upstream.name, candidate.target.model);
            let text = format!(
                "the price of `{name}` is unknown, and the budget of {owner} refuses models without a price"
            );
            let fix = format!(
                "a row [prices.\"{name}\"] in the config tells it, `unpriced = \"warn\"` lets it through"
            );
            BudgetBlock {
                kind: BudgetBlockKind::Unpriced,
                text,
                fix,
                until: None,
                global: everywhere,
            }
        }
    }
}

fn describe_holder(holder: &Holder) -> String {
    match holder {
        Holder::All => "the whole proxy".to_owned(),
        Holder::Project(name) => format!("project `{name}`"),
        Holder::Upstream(name) => format!("upstream `{name}`"),
        Holder::Key(name) => format!("key `{name}`"),
    }
}

/// Names the config setting that raises the budget.
fn how_to_raise(holder: &Holder) -> String {
    match holder {
        Holder::All => "`usd` under [budget] in the config".to_owned(),
        Holder::Project(_) => "`budget` of its [[project]] row in the config".to_owned(),
        Holder::Upstream(_) => "`budget` of its [[upstream]] row in the config".to_owned(),
        Holder::Key(_) => "`budget` of the key in the config".to_owned(),
    }
}

/// `$5.000 a day`
fn print_usd(budget: &Budget) -> String {
    let per = match budget.period {
        Period::Day => "a day",
        Period::Week => "a week",
        Period::Month => "a month",
        Period::Total => "in total",
    };
    format!("{} {per}", budget.usd)
}

fn duration_between(from: UnixMillis, to: UnixMillis) -> Duration {
    Duration::from_millis(u64::try_from(to.0.saturating_sub(from.0)).unwrap_or(0))
}

/// Returns the error for a request if budgets exclude every candidate.
pub(in crate::relay) fn budget_error(decision: &Decision, now: Mono) -> Option<ProxyError> {
    let (mut blocks, mut others): (Vec<&BudgetBlock>, bool) = (Vec::new(), false);
    for (_, reason) in &decision.skipped {
        match reason {
            SkipReason::OverBudget(block) => blocks.push(block),
            SkipReason::Disabled | SkipReason::KeyMissing(_) | SkipReason::Rejected { .. } => {}
            _ => others = true,
        }
    }
    if others {
        // A global budget also blocks the candidates that are currently skipped for other reasons.
        blocks.retain(|block| block.global && block.kind == BudgetBlockKind::Spent);
    }
    let first = *blocks.first()?;
    if blocks.iter().any(|block| block.kind == BudgetBlockKind::Reserved) {
        let error = ProxyError::new(ProxyErrorKind::RateLimited, first.text.clone())
            .code("budget_reserved");
        return Some(error.retry_after(Some(Duration::from_secs(1))));
    }
    let soonest = blocks
        .iter()
        .filter_map(|block| Some((block.until?, *block)))
        .min_by_key(|(until, _)| *until);
    let spent_block = blocks.iter().find(|block| block.kind == BudgetBlockKind::Spent);
    let Some(block) = soonest.map(|(_, block)| block).or(spent_block.copied()) else {
        let text = format!("{}; {}", first.text, first.fix);
        return Some(
            ProxyError::new(ProxyErrorKind::Forbidden, text)
                .code("model_unpriced")
                .param("model")
                .should_retry(false),
        );
    };
    let wait = soonest.map(|(until, _)| until.since(now).max(Duration::from_secs(1)));
    let retry_hint =
        wait.map_or_else(String::new, |wait| format!("; it may again in {}", print_span(wait)));
    let error = ProxyError::new(
        ProxyErrorKind::OutOfCredit,
        format!("{}{retry_hint}. {}", block.text, block.fix),
    );
    Some(error.retry_after(wait).should_retry(false))
}

/// What an attempt has reserved of its budgets; released when dropped.
pub struct BudgetHold {
    engine: Arc<Engine>,
    reserved: Option<BudgetReservation>,
}

impl BudgetHold {
    /// Reserves for an attempt; `None` if a concurrent request has used up the rest.
    pub(in crate::relay) fn reserve(
        engine: &Arc<Engine>,
        project: &Arc<str>,
        candidate: &Candidate,
        cost: Option<f64>,
    ) -> Option<Self> {
        let booked = engine
            .budgets
            .reserve(holders(project, candidate), to_nano_usd(cost), engine.clock.unix())
            .ok()?;
        Some(Self { engine: Arc::clone(engine), reserved: Some(booked) })
    }

    /// Books the cost of the attempt.
    pub(in crate::relay) fn settle(mut self, bill: &Bill, target: &Target) {
        if bill.cost.is_none() && self.reserved.as_ref().is_some_and(|booked| !booked.is_empty()) {
            let name = format!("{}/{}", target.upstream.name, target.model);
            if self.engine.unpriced_models.insert_if_new(&name) {
                let text = format!(
                    "the price of `{name}` is unknown: budgets count it as zero; add a row [prices.\"{name}\"] to the config"
                );
                self.engine.publish_notice(Severity::Warn, &text);
            }
        }
        self.close(bill.cost);
    }

    fn close(&mut self, cost: Option<NanoUsd>) {
        let Some(booked) = self.reserved.take() else { return };
        let reached = self.engine.budgets.settle(booked, cost, self.engine.clock.unix());
        for reached in &reached {
            self.engine.publish_threshold(reached);
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

impl Engine {
    fn publish_notice(&self, level: Severity, text: &str) {
        tracing::warn!("{text}");
        self.bus.publish(self.clock.unix(), EventKind::Notice { text: text.into(), level });
    }

    fn publish_threshold(&self, reached: &ThresholdReached) {
        let alert = self.budget_alert(&reached.state, reached.percent.into());
        tracing::warn!("{}", alert.text);
        self.bus.publish(self.clock.unix(), EventKind::Alert { alert });
    }

    /// Returns alerts for the budgets that are spent or nearly spent now.
    #[must_use]
    pub fn budget_alerts(&self) -> Vec<Alert> {
        let all = self.budgets.states(self.clock.unix()).into_iter();
        let full = all
            .map(|state| (percent_of(state.spent, state.budget.usd), state))
            .filter(|(percent, _)| *percent >= u64::from(NEARLY_SPENT_PERCENT));
        full.map(|(percent, state)| self.budget_alert(&state, percent)).collect()
    }

    fn budget_alert(&self, state: &BudgetState, percent: u64) -> Alert {
        let BudgetState { holder, budget, spent, period, .. } = state;
        let (what, level) = if percent >= 100 {
            (AlertKind::BudgetSpent, Severity::Error)
        } else {
            (AlertKind::BudgetNear, Severity::Warn)
        };
        let until = period
            .until
            .map(|until| {
                format!(", with {} to go", print_span(duration_between(self.clock.unix(), until)))
            })
            .unwrap_or_default();
        let then = match (what, holder.refuses()) {
            (AlertKind::BudgetSpent, true) => "; what costs money is refused until then",
            (AlertKind::BudgetSpent, false) => "; others serve until then",
            _ => "",
        };
        let text: Arc<str> = format!(
            "{} has spent {spent} of its {}{until}{then}",
            describe_holder(holder),
            print_usd(budget)
        )
        .into();
        Alert { kind: what, subject: holder.text().into(), text, level }
    }
}
