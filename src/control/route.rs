//! Explains a routing decision: the dry run behind `aiproxy route`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    base::units::print_span,
    config::settings::{Hedge, HedgeDelay},
    ir::op::Dialect,
    relay::{dispatch::budget, engine::Engine},
    routing::{
        candidate::{self, Candidate},
        decision::{RouteQuery, SkipReason, Verdict},
        health::TokenEstimate,
        hedge::MIN_SAMPLES,
        name_resolver::OnUnknownList,
        resolve,
    },
};

/// The request to explain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RouteExplainRequest {
    pub model: String,
    #[serde(default)]
    pub project: Option<String>,
    #[serde(default)]
    pub dialect: Option<Dialect>,
}

/// The explanation of a decision.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RouteExplanation {
    #[serde(rename = "asked")]
    pub requested_model: String,
    /// How the model name was resolved.
    pub resolved_by: Option<String>,
    /// `try`, `wait` or `exhausted`.
    pub verdict: String,
    pub chosen: Option<CandidateView>,
    /// The other candidates, each with the reason why it was not selected.
    pub others: Vec<CandidateView>,
    /// Other rules that apply to the request: the strategy, a second target, a continuation.
    #[serde(default)]
    pub plan: Vec<String>,
    pub error: Option<String>,
}

/// One candidate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CandidateView {
    pub upstream: String,
    pub key: String,
    pub model: String,
    pub tier: (u32, u32),
    #[serde(rename = "why")]
    pub reason: String,
}

/// Decides without changing any state.
#[must_use]
pub fn explain(engine: &Engine, question: &RouteExplainRequest) -> RouteExplanation {
    let generation = engine.generation();
    let mut out =
        RouteExplanation { requested_model: question.model.clone(), ..RouteExplanation::default() };
    let name = question.project.as_deref().unwrap_or("default");
    let projects = &generation.settings.projects;
    // Without a project name, falls back to the first project, because the owner is asking.
    let found = projects
        .iter()
        .find(|project| *project.name == *name)
        .or_else(|| if question.project.is_none() { projects.first() } else { None });
    let Some(project) = found else {
        out.error = Some(format!("no project is named `{name}`; `aiproxy project list` shows all"));
        return out;
    };
    let learned = engine.model_lists.learned();
    let dialect = question.dialect.unwrap_or(Dialect::Openai);
    let learned = |id| learned.get(&id).cloned();
    let (asked, chosen) =
        match resolve::strategy_suffix(&generation.catalog, &question.model, &learned) {
            Some((name, strategy)) => (name, Some(strategy)),
            None => (&*question.model, None),
        };
    let mut resolved = match resolve::resolve(
        &generation.catalog,
        asked,
        dialect,
        true,
        project,
        &learned,
        OnUnknownList::Assume,
    ) {
        Ok(resolved) => resolved,
        Err(error) => {
            out.verdict = "unknown".to_owned();
            out.error = Some(format!("{}; {}", error.text(), error.hint()));
            return out;
        }
    };
    resolved.strategy = chosen.unwrap_or(resolved.strategy);
    out.resolved_by = Some(resolved.via.to_string());
    out.plan.push(format!("strategy {}", resolved.strategy.name()));
    let mut candidates =
        candidate::build_candidates(&resolved.targets, &|key| engine.key_info(key));
    let now = engine.clock.mono();
    let costs = if engine.budgets.has_any() || resolved.strategy.uses_cost() {
        engine.estimate_costs(&candidates, TokenEstimate::default())
    } else {
        Vec::new()
    };
    budget::annotate_candidates(engine, &project.name, &mut candidates, &costs);
    let asked = RouteQuery {
        strategy: resolved.strategy,
        costs: &costs,
        region: &generation.settings.routing.region,
        ..RouteQuery::first_attempt(&candidates)
    };
    let decision = engine.router.preview(&asked, now);
    let place = |candidate: &Candidate, why: String| CandidateView {
        upstream: candidate.target.upstream.name.to_string(),
        key: candidate.key_name.to_string(),
        model: candidate.target.model.to_string(),
        tier: candidate.tier,
        reason: if candidate.target.dialect == dialect {
            why
        } else {
            format!("{why}; translated to {}", candidate.target.dialect)
        },
    };
    let first = match decision.verdict {
        Verdict::Try { index, .. } | Verdict::RetrySame { index } => candidates.get(index),
        Verdict::Wait { .. } | Verdict::Exhausted { .. } => None,
    };
    if let Some((rule, first)) = resolved.overrides.hedge.as_deref().zip(first) {
        out.plan.push(hedge_plan(engine, rule, first));
    }
    if resolved.overrides.rescue {
        out.plan.push(
            "an answer in plain text that breaks off is continued by another target that can"
                .to_owned(),
        );
    }
    match &decision.verdict {
        Verdict::Try { index, .. } | Verdict::RetrySame { index } => {
            out.verdict = "try".to_owned();
            out.chosen =
                candidates.get(*index).map(|candidate| place(candidate, decision.verdict.text()));
        }
        Verdict::Wait { until } => {
            out.verdict = "wait".to_owned();
            out.error = Some(match until {
                Some(until) => {
                    format!("everything is blocked for {} more", print_span(until.since(now)))
                }
                None => {
                    "a verdict is awaited (a probe is under way, or keys are being read)".to_owned()
                }
            });
        }
        Verdict::Exhausted { .. } => {
            out.verdict = "exhausted".to_owned();
            out.error = Some("no key can serve this just now".to_owned());
        }
    }
    out.others = decision
        .skipped
        .iter()
        .filter_map(|(index, why): &(usize, SkipReason)| {
            candidates.get(*index).map(|c| place(c, why.text(now)))
        })
        .collect();
    for upstream in &resolved.unsupported {
        let upstream: &Arc<str> = upstream;
        out.others.push(CandidateView {
            upstream: upstream.to_string(),
            key: String::new(),
            model: question.model.clone(),
            tier: (0, 0),
            reason: format!("does not speak {dialect} itself"),
        });
    }
    out
}

/// Describes when a second target is tried in parallel.
fn hedge_plan(engine: &Engine, rule: &Hedge, first: &Candidate) -> String {
    let share = format!("for at most {:.0} % of requests", rule.max_share * 100.0);
    match (rule.after, engine.hedge_stats.p95(first, true)) {
        (HedgeDelay::Fixed(span), _) => format!(
            "a second target is asked after {} ms without a token, {share}",
            span.as_millis()
        ),
        (HedgeDelay::P95, Some(p95)) => {
            format!(
                "a second target is asked after {} ms without a token (its p95, streamed), {share}",
                p95.as_millis()
            )
        }
        (HedgeDelay::P95, None) => format!(
            "a second target is asked once {MIN_SAMPLES} answers tell what is slow here, {share}"
        ),
    }
}
