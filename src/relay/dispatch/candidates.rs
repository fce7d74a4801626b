//! The candidates of one decision: which of them budgets exclude, and what an attempt would cost.

use crate::relay::{
    context::RequestContext,
    dispatch::budget,
    record::budget_hold::{BudgetHold, BudgetTaken},
};
use crate::{
    config::settings::Strategy,
    routing::{
        candidate::Candidate,
        decision::{FailedAttempt, RouteQuery},
        health::TokenEstimate,
    },
};

/// The candidates of a request, and what an attempt at each would cost.
pub(in crate::relay) struct CandidateSet {
    pub(in crate::relay) candidates: Vec<Candidate>,
    strategy: Strategy,
    estimate: TokenEstimate,
    /// Whether the request may cost anything that counts against a budget.
    is_budgeted: bool,
    /// Empty if neither a budget nor the strategy needs the costs.
    costs: Vec<Option<f64>>,
}

impl CandidateSet {
    /// Estimates the costs as far as they are needed, and marks the candidates that a budget
    /// excludes.
    pub(in crate::relay) fn new(
        context: &RequestContext,
        mut candidates: Vec<Candidate>,
        strategy: Strategy,
    ) -> Self {
        let (engine, request) = (&context.engine, &context.request);
        let estimate = TokenEstimate { input: request.estimate, output: request.output_limit() };
        let is_budgeted = budget::applies(engine, request);
        let costs = if is_budgeted || strategy.uses_cost() {
            engine.estimate_costs(&candidates, estimate)
        } else {
            Vec::new()
        };
        if is_budgeted {
            let project = &request.caller.project.name;
            budget::annotate_candidates(engine, project, &mut candidates, &costs);
        }
        Self { candidates, strategy, estimate, is_budgeted, costs }
    }

    /// Returns the query for a decision. Upstreams in `region` are preferred among equals.
    pub(in crate::relay) fn query<'a>(
        &'a self,
        failed_attempts: &'a [FailedAttempt],
        region: &'a str,
    ) -> RouteQuery<'a> {
        RouteQuery {
            failed_attempts,
            strategy: self.strategy,
            input_estimate: self.estimate.input,
            max_output: self.estimate.output,
            costs: &self.costs,
            region,
            ..RouteQuery::first_attempt(&self.candidates)
        }
    }

    /// Reserves what an attempt at a candidate may cost; nothing if no budget applies.
    ///
    /// # Errors
    ///
    /// A concurrent request has used up the rest of a budget.
    pub(in crate::relay) fn reserve_budget(
        &self,
        context: &RequestContext,
        index: usize,
    ) -> Result<Option<BudgetHold>, BudgetTaken> {
        if !self.is_budgeted {
            return Ok(None);
        }
        let project = &context.request.caller.project.name;
        let cost = self.costs.get(index).copied().flatten();
        BudgetHold::reserve(&context.engine, project, &self.candidates[index], cost).map(Some)
    }
}
