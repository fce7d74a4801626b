//! Explains a routing decision: the dry run behind `aiproxy route`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    base::{clock::Mono, units::print_span},
    config::settings::{Hedge, HedgeDelay, Project, Strategy},
    ir::op::Dialect,
    relay::{
        dispatch::budget,
        engine::{Engine, Generation},
    },
    routing::{
        candidate::{self, Candidate, Target},
        decision::{ChoiceReason, RouteQuery, SkipReason, Verdict},
        health::TokenEstimate,
        hedge::MIN_SAMPLES,
        name_resolver::OnUnknownList,
        resolve::{self, NameError, ResolvedModel},
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
    /// The reason in words.
    #[serde(rename = "why")]
    pub text: String,
    /// Why it was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<ChoiceReason>,
    /// Why it was not chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<SkipReason>,
}

impl CandidateView {
    fn new(candidate: &Candidate, dialect: Dialect, text: String) -> Self {
        Self {
            upstream: candidate.target.upstream.name.to_string(),
            key: candidate.key_name.to_string(),
            model: candidate.target.model.to_string(),
            tier: candidate.tier,
            text: if candidate.target.dialect == dialect {
                text
            } else {
                format!("{text}; translated to {}", candidate.target.dialect)
            },
            choice: None,
            skip: None,
        }
    }

    /// An upstream that serves the model, but not in the client's dialect.
    fn unsupported(upstream: &str, model: &str, dialect: Dialect) -> Self {
        let skip = SkipReason::OtherDialect { dialect };
        Self {
            upstream: upstream.to_owned(),
            key: String::new(),
            model: model.to_owned(),
            tier: (0, 0),
            text: skip.to_string(),
            choice: None,
            skip: Some(skip),
        }
    }
}

/// Decides without changing any state.
#[must_use]
pub fn explain(engine: &Engine, question: &RouteExplainRequest) -> RouteExplanation {
    let generation = engine.generation();
    let mut out =
        RouteExplanation { requested_model: question.model.clone(), ..RouteExplanation::default() };
    let project = match find_project(&generation, question) {
        Ok(project) => project,
        Err(error) => {
            out.error = Some(error);
            return out;
        }
    };
    let dialect = question.dialect.unwrap_or(Dialect::Openai);
    let resolved = match resolve_model(engine, &generation, project, &question.model, dialect) {
        Ok(resolved) => resolved,
        Err(error) => {
            out.verdict = "unknown".to_owned();
            out.error = Some(format!("{}; {}", error.text(), error.hint()));
            return out;
        }
    };
    out.resolved_by = Some(resolved.via.to_string());
    let (candidates, costs) =
        dry_run_candidates(engine, project, &resolved.targets, resolved.strategy);
    let now = engine.clock.mono();
    let asked = RouteQuery {
        strategy: resolved.strategy,
        costs: &costs,
        region: &generation.settings.routing.region,
        ..RouteQuery::first_attempt(&candidates)
    };
    let decision = engine.router.preview(&asked, now);
    let view = |candidate, text| CandidateView::new(candidate, dialect, text);
    let first = match decision.verdict {
        Verdict::Try { index, .. } | Verdict::RetrySame { index } => candidates.get(index),
        Verdict::Wait { .. } | Verdict::Exhausted { .. } => None,
    };
    out.plan = plan(engine, &resolved, first);
    match &decision.verdict {
        Verdict::Try { index, .. } | Verdict::RetrySame { index } => {
            out.verdict = "try".to_owned();
            let choice = match &decision.verdict {
                Verdict::Try { reason, .. } => Some(reason.clone()),
                _ => None,
            };
            out.chosen = candidates.get(*index).map(|candidate| CandidateView {
                choice,
                ..view(candidate, decision.verdict.text())
            });
        }
        Verdict::Wait { until } => {
            out.verdict = "wait".to_owned();
            out.error = Some(describe_wait(*until, now));
        }
        Verdict::Exhausted { .. } => {
            out.verdict = "exhausted".to_owned();
            out.error = Some("no key can serve this just now".to_owned());
        }
    }
    out.others = decision
        .skipped
        .iter()
        .filter_map(|(index, reason): &(usize, SkipReason)| {
            let candidate = candidates.get(*index)?;
            let skip = Some(reason.clone());
            Some(CandidateView { skip, ..view(candidate, reason.to_string()) })
        })
        .collect();
    let unsupported = resolved.unsupported.iter();
    out.others
        .extend(unsupported.map(|name| CandidateView::unsupported(name, &question.model, dialect)));
    out
}

/// Returns the project to decide for. Without a name, falls back to the first project, because the
/// owner is asking.
fn find_project<'g>(
    generation: &'g Generation,
    question: &RouteExplainRequest,
) -> Result<&'g Arc<Project>, String> {
    let name = question.project.as_deref().unwrap_or("default");
    let projects = &generation.settings.projects;
    projects
        .iter()
        .find(|project| *project.name == *name)
        .or_else(|| if question.project.is_none() { projects.first() } else { None })
        .ok_or_else(|| format!("no project is named `{name}`; `aiproxy project list` shows all"))
}

fn resolve_model(
    engine: &Engine,
    generation: &Generation,
    project: &Project,
    model: &str,
    dialect: Dialect,
) -> Result<ResolvedModel, NameError> {
    let learned = engine.model_lists.learned();
    let learned = |id| learned.get(&id).cloned();
    let (name, strategy) = match resolve::strategy_suffix(&generation.catalog, model, &learned) {
        Some((name, strategy)) => (name, Some(strategy)),
        None => (model, None),
    };
    let mut resolved = resolve::resolve(
        &generation.catalog,
        name,
        dialect,
        true,
        project,
        &learned,
        OnUnknownList::Assume,
    )?;
    resolved.strategy = strategy.unwrap_or(resolved.strategy);
    Ok(resolved)
}

/// Returns the candidates as a request without content would see them, with their costs if the
/// strategy compares them or a budget limits them.
#[must_use]
pub fn dry_run_candidates(
    engine: &Engine,
    project: &Project,
    targets: &[Arc<Target>],
    strategy: Strategy,
) -> (Vec<Candidate>, Vec<Option<f64>>) {
    let mut candidates = candidate::build_candidates(targets, &|key| engine.key_info(key));
    let costs = if engine.budgets.has_any() || strategy.uses_cost() {
        engine.estimate_costs(&candidates, TokenEstimate::default())
    } else {
        Vec::new()
    };
    budget::annotate_candidates(engine, &project.name, &mut candidates, &costs);
    (candidates, costs)
}

fn describe_wait(until: Option<Mono>, now: Mono) -> String {
    match until {
        Some(until) => format!("everything is blocked for {} more", print_span(until.since(now))),
        None => "a verdict is awaited (a probe is under way, or keys are being read)".to_owned(),
    }
}

/// Describes the other rules that apply to the request.
fn plan(engine: &Engine, resolved: &ResolvedModel, first: Option<&Candidate>) -> Vec<String> {
    let mut plan = vec![format!("strategy {}", resolved.strategy.name())];
    if let Some((rule, first)) = resolved.overrides.hedge.as_deref().zip(first) {
        plan.push(hedge_plan(engine, rule, first));
    }
    if resolved.overrides.rescue {
        plan.push(
            "an answer in plain text that breaks off is continued by another target that can"
                .to_owned(),
        );
    }
    plan
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
