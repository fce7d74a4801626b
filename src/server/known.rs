//! What routing tells its clients: providers, logical models, where a session goes, and what would
//! be decided. Upstreams and models by name, keys never.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{context, gate::Gate, paths::Known};
use crate::{
    base::{clean, id::RequestId},
    config::settings::{AdaptiveMix, Project, Strategy},
    control::{snapshot::UpstreamState, views},
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::Dialect,
    },
    relay::{
        budgets, conversation,
        reply::{self, ResponseBody},
    },
    routing::{
        affinity::{AffinityBinding, ConversationKeys},
        candidate::{self, Candidate, RouteQuery, Verdict, print_span},
        health::TokenEstimate,
        names::{self, NameKind, OnUnknownList},
    },
};

/// Questions are small.
const BODY: usize = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers one of these paths for a project.
pub(super) async fn answer(
    gate: &Gate,
    id: RequestId,
    project: &Arc<Project>,
    what: Known,
    query: Option<&str>,
    body: Incoming,
) -> Response<ResponseBody> {
    let told = match what {
        Known::Context(name) => context::answer(gate, project, &name, query).await,
        Known::Decide => match read(body).await {
            Ok(asked) => decide(gate, project, &asked),
            Err(error) => Err(error),
        },
        Known::Forget(name) => return forget(gate, id, project, &name),
        Known::LogicalModels { id: wanted, upstreams } => {
            logical(gate, project, wanted.as_deref(), upstreams)
        }
        Known::Providers { id: wanted, part } => {
            providers(gate, project, wanted.as_deref(), part.as_deref())
        }
        Known::Session(name) => session(gate, project, &name),
    };
    match told {
        Ok(value) => reply::full_response(
            StatusCode::OK,
            "application/json",
            id,
            Bytes::from(format!("{value}\n")),
        ),
        Err(error) => reply::error_response(Dialect::Openai, id, &error),
    }
}

pub(super) fn unknown(what: &str, name: &str, hint: &str) -> ProxyError {
    let name = clean::clean(name);
    ProxyError::new(
        ProxyErrorKind::UnknownPath,
        format!("no {what} is named `{}`; {hint}", clean::truncate_end(&name, 80)),
    )
    .code("not_found")
}

fn key(gate: &Gate, project: &Project, name: &str) -> u64 {
    conversation::session_key(&gate.engine.hash_key, &project.name, name)
}

/// Where a session was served last.
fn session(gate: &Gate, project: &Project, name: &str) -> Result<Value, ProxyError> {
    let engine = &gate.engine;
    let ttl = engine.generation().settings.sticky_ttl;
    let Some(bound) = engine.router.binding(key(gate, project, name), ttl, engine.clock.mono())
    else {
        return Err(unknown(
            "session",
            name,
            "it may have been silent for longer than `sticky_ttl` under [routing]",
        ));
    };
    let at = |at| engine.clock.unix_at(at).to_string();
    Ok(json!({
        "conversation_id": name,
        "provider_id": &*bound.upstream_name,
        "model_id": &*bound.model,
        "established_at": at(bound.bound_at),
        "last_accessed_at": at(bound.last_used),
        "expires_at": at(bound.last_used + ttl),
    }))
}

fn forget(gate: &Gate, id: RequestId, project: &Project, name: &str) -> Response<ResponseBody> {
    if !gate.engine.router.unbind(key(gate, project, name)) {
        return reply::error_response(
            Dialect::Openai,
            id,
            &unknown("session", name, "GET /routing/sessions/ID shows one"),
        );
    }
    let mut response = Response::new(ResponseBody::Full(None));
    *response.status_mut() = StatusCode::NO_CONTENT;
    reply::set_request_id(response.headers_mut(), id);
    response
}

fn providers(
    gate: &Gate,
    project: &Project,
    wanted: Option<&str>,
    part: Option<&str>,
) -> Result<Value, ProxyError> {
    let generation = gate.engine.generation();
    let mut all = views::upstreams(&gate.engine, &generation);
    all.retain(|view| project.upstreams.matches(&view.name));
    let one = |view: &crate::control::snapshot::UpstreamView| {
        let settings =
            generation.settings.upstreams.iter().find(|upstream| *upstream.name == *view.name);
        let error_rate = if view.stats.attempts == 0 {
            0.0
        } else {
            f64::from(view.stats.errors) / f64::from(view.stats.attempts)
        };
        let status = match view.state {
            UpstreamState::Healthy if error_rate > 0.1 => "degraded",
            UpstreamState::Healthy => "healthy",
            UpstreamState::Probing => "degraded",
            UpstreamState::Cooling | UpstreamState::Open => "down",
            UpstreamState::Disabled => "disabled",
        };
        (settings, error_rate, status)
    };
    let Some(wanted) = wanted else {
        let list: Vec<Value> = all
            .iter()
            .map(|view| {
                let (settings, _, status) = one(view);
                json!({
                    "id": view.name, "name": view.name, "dialects": view.dialects, "origin": view.origin, "priority": view.priority,
                    "region": settings.map(|upstream| upstream.region.as_str()), "status": status,
                })
            })
            .collect();
        return Ok(json!({ "providers": list, "total": list.len() }));
    };
    let view = all
        .iter()
        .find(|view| view.name == wanted)
        .ok_or_else(|| unknown("provider", wanted, "GET /providers lists them"))?;
    let (settings, error_rate, status) = one(view);
    let metrics = json!({
        "provider_id": view.name, "attempts": view.stats.attempts, "errors": view.stats.errors, "error_rate": error_rate,
        "latency_p50_ms": view.stats.ttft_p50_ms, "latency_p95_ms": view.stats.ttft_p95_ms, "status": status,
    });
    let health = json!({
        "provider_id": view.name, "status": status, "cause": view.cause, "until": view.until.map(|until| until.to_string()),
        "keys": view.keys, "keys_ready": view.keys_ready,
    });
    Ok(match part {
        Some("metrics") => metrics,
        Some("health") => health,
        Some("models") => {
            let learned = gate.engine.model_lists.learned();
            let all =
                names::list_names(&generation.catalog, project, &|id| learned.get(&id).cloned());
            let served = all
                .iter()
                .filter(|name| matches!(name.kind, NameKind::Configured | NameKind::Discovered));
            let served = served
                .filter(|name| name.routes.iter().any(|route| *route.upstream.name == *wanted));
            let models: Vec<Value> =
                served.map(|name| json!({ "id": &*name.name, "provider_id": wanted })).collect();
            json!({ "models": models, "total": models.len() })
        }
        _ => json!({
            "id": view.name, "name": view.name, "dialects": view.dialects, "base_url": view.base_url, "origin": view.origin,
            "priority": view.priority, "region": settings.map(|upstream| upstream.region.as_str()),
            "weight": settings.map(|upstream| upstream.weight), "status": status, "health": health, "metrics": metrics,
        }),
    })
}

fn logical(
    gate: &Gate,
    project: &Project,
    wanted: Option<&str>,
    upstreams: bool,
) -> Result<Value, ProxyError> {
    let generation = gate.engine.generation();
    let learned = gate.engine.model_lists.learned();
    let all = names::list_names(&generation.catalog, project, &|id| learned.get(&id).cloned());
    let routes = |name: &names::ListedName| -> Vec<Value> {
        name.routes
            .iter()
            .map(|route| json!({ "provider_id": &*route.upstream.name, "model_id": &*route.model, "region": route.upstream.region }))
            .collect()
    };
    let told = |name: &names::ListedName| {
        let row = generation.settings.models.iter().find(|model| model.name.text() == &*name.name);
        let strategy = row.map_or(generation.settings.strategy, |model| model.strategy);
        json!({
            "logical_id": &*name.name, "display_name": &*name.name, "kind": name.kind.name(), "enabled": !name.routes.is_empty(),
            "strategy": strategy.name(), "upstreams": routes(name),
        })
    };
    let mut ours =
        all.iter().filter(|name| matches!(name.kind, NameKind::Alias | NameKind::Logical));
    match wanted {
        None => {
            let list: Vec<Value> = ours.map(told).collect();
            Ok(json!({ "models": list, "total": list.len() }))
        }
        Some(wanted) => {
            let hint = "GET /logical-models lists them";
            let name = ours
                .find(|name| *name.name == *wanted)
                .ok_or_else(|| unknown("logical model", wanted, hint))?;
            Ok(if upstreams { json!({ "upstreams": routes(name) }) } else { told(name) })
        }
    }
}

/// What is asked of a dry decision.
#[derive(Debug, Deserialize)]
struct Asked {
    #[serde(alias = "model")]
    logical_model: String,
    conversation_id: Option<String>,
    preferred_region: Option<String>,
    strategy: Option<String>,
    #[serde(default)]
    exclude_providers: Vec<String>,
    /// Also binds the conversation to what was selected.
    #[serde(default)]
    bind: bool,
}

async fn read(body: Incoming) -> Result<Asked, ProxyError> {
    let bad = |why: String| ProxyError::new(ProxyErrorKind::BadRequest, why);
    let bytes = timeout(PATIENCE, Limited::new(body, BODY).collect())
        .await
        .map_err(|_| bad("the body did not come".to_owned()))?;
    let bytes = bytes.map_err(|e| bad(format!("the body cannot be read: {e}")))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|e| {
        bad(format!("the body is not what this takes: {}", clean::clean(&e.to_string())))
    })
}

fn strategy(name: &str) -> Result<Strategy, ProxyError> {
    let mix = match name {
        "balanced" => Some(AdaptiveMix::Balanced),
        "latency_first" => Some(AdaptiveMix::LatencyFirst),
        "cost_first" => Some(AdaptiveMix::CostFirst),
        "reliability_first" => Some(AdaptiveMix::ReliabilityFirst),
        _ => None,
    };
    mix.map(Strategy::Adaptive).or_else(|| Strategy::parse(name)).ok_or_else(|| {
        let all: Vec<&str> = Strategy::ALL.iter().map(|(name, _)| *name).collect();
        ProxyError::new(
            ProxyErrorKind::BadRequest,
            format!("no such strategy; there are {}", all.join(", ")),
        )
        .param("strategy")
    })
}

/// What would be decided now, and why; binds nothing unless asked to.
fn decide(gate: &Gate, project: &Arc<Project>, asked: &Asked) -> Result<Value, ProxyError> {
    let engine = &gate.engine;
    let begun = engine.clock.mono();
    let generation = engine.generation();
    let learned = engine.model_lists.learned();
    let resolved = names::resolve(
        &generation.catalog,
        &asked.logical_model,
        Dialect::Openai,
        true,
        project,
        &|id| learned.get(&id).cloned(),
        OnUnknownList::Assume,
    );
    let mut resolved = resolved.map_err(|e| {
        ProxyError::new(ProxyErrorKind::ModelNotFound, format!("{}; {}", e.text(), e.hint()))
    })?;
    resolved.targets.retain(|target| {
        !asked.exclude_providers.iter().any(|name| **name == *target.upstream.name)
    });
    let strategy = asked.strategy.as_deref().map_or(Ok(resolved.strategy), strategy)?;
    let mut candidates =
        candidate::build_candidates(&resolved.targets, &|key| engine.key_info(key));
    let costs = if engine.budgets.has_any() || strategy.uses_cost() {
        engine.estimate_costs(&candidates, TokenEstimate::default())
    } else {
        Vec::new()
    };
    budgets::annotate_candidates(engine, &project.name, &mut candidates, &costs);
    let region = asked.preferred_region.as_deref().unwrap_or(&generation.settings.region);
    let question =
        RouteQuery { strategy, costs: &costs, region, ..RouteQuery::first_attempt(&candidates) };
    let keys = asked.conversation_id.as_deref().map(|name| ConversationKeys {
        session: Some(key(gate, project, name)),
        ..ConversationKeys::default()
    });
    let ttl = resolved.overrides.sticky_ttl.unwrap_or(generation.settings.sticky_ttl);
    let decision = engine.router.preview_with_affinity(
        &question,
        keys.as_ref().map(|keys| (keys, ttl)),
        begun,
    );
    let index = match decision.verdict {
        Verdict::Try { index, .. } | Verdict::RetrySame { index } => index,
        Verdict::Wait { until } | Verdict::Exhausted { retry_at: until } => {
            let wait = until.map(|until| until.since(begun));
            let message = match wait {
                Some(wait) => {
                    format!(
                        "nothing can serve `{}` for {} more",
                        asked.logical_model,
                        print_span(wait)
                    )
                }
                None => format!("nothing that is enabled can serve `{}`", asked.logical_model),
            };
            return Err(ProxyError::new(ProxyErrorKind::Unavailable, clean::clean(&message))
                .retry_after(wait));
        }
    };
    let chosen = candidates.get(index).ok_or_else(|| {
        ProxyError::new(ProxyErrorKind::Internal, "a candidate out of the list; please report this")
    })?;
    if let (true, Some(keys)) = (asked.bind, &keys) {
        engine.router.bind(
            keys,
            AffinityBinding {
                upstream: chosen.upstream(),
                upstream_name: Arc::clone(&chosen.target.upstream.name),
                account: chosen.account,
                model: Arc::clone(&chosen.target.model),
                bound_at: begun,
                last_used: begun,
                better_tier_since: None,
            },
            begun,
        );
    }
    let scores = engine.router.scores(&question, begun);
    let told = |candidate: &Candidate, score: f64, why: &str| {
        let upstream = &candidate.target.upstream;
        json!({
            "upstream": {
                "provider_id": &*upstream.name, "model_id": &*candidate.target.model, "region": upstream.region,
                "base_weight": candidate.target.weight, "priority": candidate.target.priority,
            },
            "score": if score.is_finite() { json!(score) } else { Value::Null },
            "reason": why,
        })
    };
    let all: Vec<Value> = scores
        .iter()
        .filter_map(|(place, score)| {
            let candidate = candidates.get(*place)?;
            if Arc::ptr_eq(&candidate.target, &chosen.target) {
                return Some(told(chosen, *score, "selected"));
            }
            // Of the keys of one target, the one that came closest says why it was not taken.
            let why = decision
                .skipped
                .iter()
                .filter(|(other, _)| Arc::ptr_eq(&candidates[*other].target, &candidate.target));
            let why = why.map(|(_, why)| why.text(begun)).next().unwrap_or_default();
            Some(told(candidate, *score, &why))
        })
        .collect();
    let alternatives: Vec<&Value> = all
        .iter()
        .filter(|each| each["reason"] != "selected")
        .map(|each| &each["upstream"])
        .collect();
    let selected =
        all.iter().find(|each| each["reason"] == "selected").map(|each| &each["upstream"]);
    Ok(json!({
        "selected_upstream": selected,
        "decision_time": engine.clock.mono().since(begun).as_secs_f64() * 1_000.0,
        "reasoning": format!("{}; {}", resolved.via, decision.verdict.text()),
        "alternative_upstreams": alternatives,
        "strategy_used": strategy.name(),
        "all_candidates": all,
    }))
}
