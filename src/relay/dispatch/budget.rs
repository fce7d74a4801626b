//! Applies budgets to a request: skips candidates that a budget excludes, and words the refusal if
//! that leaves none.

use std::{sync::Arc, time::Duration};

use http::Method;

use crate::relay::{
    engine::Engine,
    record::budget_hold::{describe_holder, duration_between, holders, print_usd, to_nano_usd},
    request::proxy_request::ProxyRequest,
};
use crate::{
    base::{clock::Mono, units::print_span},
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::Op,
    },
    routing::{
        budget::{BudgetDenied, Holder},
        candidate::{BudgetBlock, BudgetBlockKind, Candidate, KeyState},
        decision::{Decision, SkipReason},
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

/// Names the config setting that raises the budget.
fn how_to_raise(holder: &Holder) -> String {
    match holder {
        Holder::All => "`usd` under [budget] in the config".to_owned(),
        Holder::Project(_) => "`budget` of its [[project]] row in the config".to_owned(),
        Holder::Upstream(_) => "`budget` of its [[upstream]] row in the config".to_owned(),
        Holder::Key(_) => "`budget` of the key in the config".to_owned(),
    }
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
