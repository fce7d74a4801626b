//! Applies budgets to a request: skips candidates that a budget excludes, and words the refusal if
//! that leaves none.

use std::{sync::Arc, time::Duration};

use http::Method;

use crate::relay::{
    engine::Engine,
    record::budget_hold::{duration_between, holders, to_nano_usd},
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
        candidate::{BudgetBlock, Candidate, KeyState},
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
            let block = exceeded(engine, holder, lack, candidate);
            let until = block.again_in().map(|span| engine.clock.mono() + span.0);
            candidate.key_state = KeyState::OverBudget { block: block.into(), until };
        }
    }
}

fn exceeded(
    engine: &Engine,
    holder: &Holder,
    lack: BudgetDenied,
    candidate: &Candidate,
) -> BudgetBlock {
    let holder = holder.clone();
    match lack {
        BudgetDenied::Reserved { budget } => {
            BudgetBlock::Reserved { holder, limit: budget.usd, per: budget.period }
        }
        BudgetDenied::Spent { budget, spent, until } => BudgetBlock::Spent {
            holder,
            spent,
            limit: budget.usd,
            per: budget.period,
            again_in: until.map(|until| duration_between(engine.clock.unix(), until).into()),
        },
        BudgetDenied::Unpriced { .. } => {
            let model = format!("{}/{}", candidate.target.upstream.name, candidate.target.model);
            BudgetBlock::Unpriced { holder, model: model.into() }
        }
    }
}

/// Returns the suggested fix for a block; empty if time fixes it.
fn suggested_fix(block: &BudgetBlock) -> String {
    match block {
        BudgetBlock::Reserved { .. } => String::new(),
        BudgetBlock::Spent { holder, .. } => {
            format!("`aiproxy usage` shows what it went on, {} allows more", how_to_raise(holder))
        }
        BudgetBlock::Unpriced { model, .. } => format!(
            "a row [prices.\"{model}\"] in the config tells it, `unpriced = \"warn\"` lets it through"
        ),
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
    let is_spent = |block: &BudgetBlock| matches!(block, BudgetBlock::Spent { .. });
    let (mut blocks, mut others): (Vec<&BudgetBlock>, bool) = (Vec::new(), false);
    for (_, reason) in &decision.skipped {
        match reason {
            SkipReason::OverBudget { block } => blocks.push(block),
            SkipReason::Disabled | SkipReason::KeyMissing { .. } | SkipReason::Rejected { .. } => {}
            _ => others = true,
        }
    }
    if others {
        // A global budget also blocks the candidates that are currently skipped for other reasons.
        blocks.retain(|block| block.is_global() && is_spent(block));
    }
    let first = *blocks.first()?;
    if blocks.iter().any(|block| matches!(block, BudgetBlock::Reserved { .. })) {
        let error =
            ProxyError::new(ProxyErrorKind::RateLimited, first.text()).code("budget_reserved");
        return Some(error.retry_after(Some(Duration::from_secs(1))));
    }
    let soonest = blocks
        .iter()
        .filter_map(|block| Some((block.again_in()?, *block)))
        .min_by_key(|(again_in, _)| *again_in);
    let spent_block = blocks.iter().find(|block| is_spent(block));
    let Some(block) = soonest.map(|(_, block)| block).or(spent_block.copied()) else {
        let text = format!("{}; {}", first.text(), suggested_fix(first));
        return Some(
            ProxyError::new(ProxyErrorKind::Forbidden, text)
                .code("model_unpriced")
                .param("model")
                .should_retry(false),
        );
    };
    let wait = soonest.map(|(again_in, _)| {
        again_in.0.saturating_sub(now.since(decision.at)).max(Duration::from_secs(1))
    });
    let retry_hint =
        wait.map_or_else(String::new, |wait| format!("; it may again in {}", print_span(wait)));
    let error = ProxyError::new(
        ProxyErrorKind::OutOfCredit,
        format!("{}{retry_hint}. {}", block.text(), suggested_fix(block)),
    );
    Some(error.retry_after(wait).should_retry(false))
}
