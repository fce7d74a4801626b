//! The routing API for clients: providers, logical models, session bindings and dry-run decisions.
//! It shows names of upstreams and models, but never keys.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::server::{
    paths::RoutingQuery,
    routes::{not_found, query_value, sessions},
    state::ServerState,
};
use crate::{
    base::{clock::Mono, id::RequestId, sanitize, units::print_span},
    config::settings::{AdaptiveMix, Project, Strategy},
    control::{route::dry_run_candidates, snapshot::UpstreamState, views},
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::Dialect,
    },
    relay::{
        engine::{Engine, Generation},
        request::conversation_key,
        response::{self, ResponseBody},
    },
    routing::{
        affinity::{AffinityBinding, ConversationKeys},
        candidate::Candidate,
        decision::{RouteQuery, Verdict},
        health::stats::{self, AttemptStats, StatsView},
        listing::{self, NameKind},
        name_resolver::OnUnknownList,
        resolve::{self, ResolvedModel},
    },
};

/// Requests of the routing API are small.
const MAX_BODY_BYTES: usize = 64 << 10;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers a routing API request of a project.
pub(in crate::server) async fn respond(
    server: &ServerState,
    id: RequestId,
    project: &Arc<Project>,
    query_kind: RoutingQuery,
    query: Option<&str>,
    body: Incoming,
) -> Response<ResponseBody> {
    let result = match query_kind {
        RoutingQuery::Context(name) => sessions::list_turns(server, project, &name, query).await,
        RoutingQuery::Decide => match read_decide_request(body).await {
            Ok(request) => decide_now(server, project, &request),
            Err(error) => Err(error),
        },
        RoutingQuery::ForgetSession(name) => return forget_session(server, id, project, &name),
        RoutingQuery::LogicalModels { id: wanted, upstreams } => {
            logical_models(server, project, wanted.as_deref(), upstreams)
        }
        RoutingQuery::Providers { id: wanted, section: part } => {
            providers(server, project, wanted.as_deref(), (part.as_deref(), query))
        }
        RoutingQuery::Session(name) => session_binding(server, project, &name),
    };
    match result {
        Ok(value) => response::full_response(
            StatusCode::OK,
            "application/json",
            id,
            Bytes::from(format!("{value}\n")),
        ),
        Err(error) => response::error_response(Dialect::Openai, id, &error),
    }
}

fn session_key(server: &ServerState, project: &Project, name: &str) -> u64 {
    conversation_key::session_key(&server.engine.hash_key, &project.name, name)
}

/// Returns the target that served a session last.
fn session_binding(
    server: &ServerState,
    project: &Project,
    name: &str,
) -> Result<Value, ProxyError> {
    let engine = &server.engine;
    let ttl = engine.generation().settings.routing.sticky_ttl;
    let Some(binding) =
        engine.router.binding(session_key(server, project, name), ttl, engine.clock.mono())
    else {
        return Err(not_found(
            "session",
            name,
            "it may have been silent for longer than `sticky_ttl` under [routing]",
        ));
    };
    let at = |at| engine.clock.unix_at(at).to_string();
    Ok(json!({
        "conversation_id": name,
        "provider_id": &*binding.upstream_name,
        "model_id": &*binding.model,
        "established_at": at(binding.bound_at),
        "last_accessed_at": at(binding.last_used),
        "expires_at": at(binding.last_used + ttl),
    }))
}

fn forget_session(
    server: &ServerState,
    id: RequestId,
    project: &Project,
    name: &str,
) -> Response<ResponseBody> {
    if !server.engine.router.unbind(session_key(server, project, name)) {
        return response::error_response(
            Dialect::Openai,
            id,
            &not_found("session", name, "GET /routing/sessions/ID shows one"),
        );
    }
    let mut response = Response::new(ResponseBody::Full(None));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response::set_request_id(response.headers_mut(), id);
    response
}

fn providers(
    server: &ServerState,
    project: &Project,
    wanted: Option<&str>,
    (section, query): (Option<&str>, Option<&str>),
) -> Result<Value, ProxyError> {
    let generation = server.engine.generation();
    let mut all = views::upstreams(&server.engine, &generation);
    all.retain(|view| project.upstreams.matches(&view.name));
    let summarize = |view: &crate::control::snapshot::UpstreamView| {
        let settings =
            generation.settings.upstreams.iter().find(|upstream| *upstream.name == *view.name);
        let error_rate = stats::error_rate(view.stats.errors, view.stats.attempts);
        let status = match view.state {
            UpstreamState::Healthy if error_rate > 0.1 => "degraded",
            UpstreamState::Healthy => "healthy",
            UpstreamState::Probing => "degraded",
            UpstreamState::Cooling | UpstreamState::Open | UpstreamState::NoKey => "down",
            UpstreamState::Disabled => "disabled",
        };
        (settings, error_rate, status)
    };
    let Some(wanted) = wanted else {
        let list: Vec<Value> = all
            .iter()
            .map(|view| {
                let (settings, _, status) = summarize(view);
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
        .ok_or_else(|| not_found("provider", wanted, "GET /providers lists them"))?;
    let (settings, error_rate, status) = summarize(view);
    let mut metrics = json!({
        "provider_id": view.name, "attempts": view.stats.attempts, "errors": view.stats.errors, "error_rate": error_rate,
        "latency_p50_ms": view.stats.ttft_p50_ms, "latency_p95_ms": view.stats.ttft_p95_ms, "status": status,
    });
    if let Some(model) = query_value(query, "logical_model").filter(|name| !name.is_empty()) {
        let stats = model_stats(server, &view.name, &model);
        let millis = |span: Option<Duration>| span.map(|span| span.as_millis() as u64);
        metrics["logical_model"] = json!(model);
        metrics["attempts"] = json!(stats.attempts);
        metrics["errors"] = json!(stats.errors);
        metrics["error_rate"] = json!(stats.error_rate());
        metrics["latency_p50_ms"] = json!(millis(stats.ttft_p50));
        metrics["latency_p95_ms"] = json!(millis(stats.ttft_p95));
    }
    let health = json!({
        "provider_id": view.name, "status": status, "cause": view.cause.as_ref().map(ToString::to_string), "until": view.until.map(|until| until.to_string()),
        "keys": view.keys, "keys_ready": view.keys_ready,
    });
    Ok(match section {
        Some("metrics") => metrics,
        Some("health") => health,
        Some("models") => {
            let learned = server.engine.model_lists.learned();
            let all =
                listing::list_names(&generation.catalog, project, &|id| learned.get(&id).cloned());
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

/// Returns the statistics of one requested model at an upstream, from the last finished requests.
fn model_stats(server: &ServerState, upstream: &str, model: &str) -> StatsView {
    let now = server.engine.clock.mono();
    let oldest = server.engine.clock.unix().0.saturating_sub(stats::MAX_AGE.as_millis() as i64);
    let mut all = AttemptStats::default();
    server.engine.bus.view(|live| {
        let requests = live.finished().filter(|request| {
            request.at.0 >= oldest && request.requested_model.eq_ignore_ascii_case(model)
        });
        for request in requests {
            for attempt in request.attempts.iter().filter(|attempt| *attempt.upstream == *upstream)
            {
                let ttft = request.ttft_ms.filter(|_| attempt.won);
                let ttft = ttft.map(|ms| Duration::from_millis(ms.into()));
                all.record(attempt.outcome.is_some(), ttft, now);
            }
        }
    });
    all.view(now)
}

fn logical_models(
    server: &ServerState,
    project: &Project,
    wanted: Option<&str>,
    upstreams: bool,
) -> Result<Value, ProxyError> {
    let generation = server.engine.generation();
    let learned = server.engine.model_lists.learned();
    let all = listing::list_names(&generation.catalog, project, &|id| learned.get(&id).cloned());
    let routes = |name: &listing::ListedName| -> Vec<Value> {
        name.routes
            .iter()
            .map(|route| json!({ "provider_id": &*route.upstream.name, "model_id": &*route.model, "region": route.upstream.region }))
            .collect()
    };
    let model_json = |name: &listing::ListedName| {
        let row = generation.settings.models.iter().find(|model| model.name.text() == &*name.name);
        let strategy = row.map_or(generation.settings.routing.strategy, |model| model.strategy);
        json!({
            "logical_id": &*name.name, "display_name": &*name.name, "kind": name.kind.name(), "enabled": !name.routes.is_empty(),
            "strategy": strategy.name(), "upstreams": routes(name),
        })
    };
    let mut named =
        all.iter().filter(|name| matches!(name.kind, NameKind::Alias | NameKind::Logical));
    match wanted {
        None => {
            let list: Vec<Value> = named.map(model_json).collect();
            Ok(json!({ "models": list, "total": list.len() }))
        }
        Some(wanted) => {
            let hint = "GET /logical-models lists them";
            let name = named
                .find(|name| *name.name == *wanted)
                .ok_or_else(|| not_found("logical model", wanted, hint))?;
            Ok(if upstreams { json!({ "upstreams": routes(name) }) } else { model_json(name) })
        }
    }
}

/// The parameters of a dry-run decision.
#[derive(Debug, Deserialize)]
struct DecideRequest {
    #[serde(alias = "model")]
    logical_model: String,
    conversation_id: Option<String>,
    preferred_region: Option<String>,
    strategy: Option<String>,
    #[serde(default)]
    exclude_providers: Vec<String>,
    /// Also binds the conversation to the selected target.
    #[serde(default)]
    bind: bool,
}

async fn read_decide_request(body: Incoming) -> Result<DecideRequest, ProxyError> {
    let bad_request = |why: String| ProxyError::new(ProxyErrorKind::BadRequest, why);
    let bytes = timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect())
        .await
        .map_err(|_| bad_request("the body did not come".to_owned()))?;
    let bytes = bytes.map_err(|e| bad_request(format!("the body cannot be read: {e}")))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|e| {
        bad_request(format!("the body is not what this takes: {}", sanitize::clean(&e.to_string())))
    })
}

fn parse_strategy(name: &str) -> Result<Strategy, ProxyError> {
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

/// Returns the decision that would be made now, and its reasons; binds nothing unless requested.
fn decide_now(
    server: &ServerState,
    project: &Arc<Project>,
    request: &DecideRequest,
) -> Result<Value, ProxyError> {
    let engine = &server.engine;
    let started = engine.clock.mono();
    let generation = engine.generation();
    let resolved = resolve_request(engine, &generation, project, request)?;
    let strategy = request.strategy.as_deref().map_or(Ok(resolved.strategy), parse_strategy)?;
    let (candidates, costs) = dry_run_candidates(engine, project, &resolved.targets, strategy);
    let region = request.preferred_region.as_deref().unwrap_or(&generation.settings.routing.region);
    let question =
        RouteQuery { strategy, costs: &costs, region, ..RouteQuery::first_attempt(&candidates) };
    let keys = request.conversation_id.as_deref().map(|name| ConversationKeys {
        session: Some(session_key(server, project, name)),
        ..ConversationKeys::default()
    });
    let ttl = resolved.overrides.sticky_ttl.unwrap_or(generation.settings.routing.sticky_ttl);
    let decision = engine.router.preview_with_affinity(
        &question,
        keys.as_ref().map(|keys| (keys, ttl)),
        started,
    );
    let index = match decision.verdict {
        Verdict::Try { index, .. } | Verdict::RetrySame { index } => index,
        Verdict::Wait { until } | Verdict::Exhausted { retry_at: until } => {
            let wait = until.map(|until| until.since(started));
            return Err(unavailable_error(&request.logical_model, wait));
        }
    };
    let chosen = candidates.get(index).ok_or_else(|| {
        ProxyError::new(ProxyErrorKind::Internal, "a candidate out of the list; please report this")
    })?;
    if let (true, Some(keys)) = (request.bind, &keys) {
        engine.router.bind(keys, binding_to(chosen, started), started);
    }
    let scores = engine.router.scores(&question, started);
    let all: Vec<Value> = scores
        .iter()
        .filter_map(|(position, score)| {
            let candidate = candidates.get(*position)?;
            if Arc::ptr_eq(&candidate.target, &chosen.target) {
                return Some(candidate_json(chosen, *score, "selected"));
            }
            // Of the keys of one target, the key that came closest to selection provides the
            // reason.
            let why = decision
                .skipped
                .iter()
                .filter(|(other, _)| Arc::ptr_eq(&candidates[*other].target, &candidate.target));
            let why = why.map(|(_, why)| why.to_string()).next().unwrap_or_default();
            Some(candidate_json(candidate, *score, &why))
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
        "decision_time": engine.clock.mono().since(started).as_secs_f64() * 1_000.0,
        "reasoning": format!("{}; {}", resolved.via, decision.verdict.text()),
        "alternative_upstreams": alternatives,
        "strategy_used": strategy.name(),
        "all_candidates": all,
    }))
}

/// Resolves the requested model, without the providers that the request excludes.
fn resolve_request(
    engine: &Engine,
    generation: &Generation,
    project: &Project,
    request: &DecideRequest,
) -> Result<ResolvedModel, ProxyError> {
    let learned = engine.model_lists.learned();
    let learned = |id| learned.get(&id).cloned();
    let resolved = resolve::resolve(
        &generation.catalog,
        &request.logical_model,
        Dialect::Openai,
        true,
        project,
        &learned,
        OnUnknownList::Assume,
    );
    let mut resolved = resolved.map_err(|e| {
        ProxyError::new(ProxyErrorKind::ModelNotFound, format!("{}; {}", e.text(), e.hint()))
    })?;
    resolved.targets.retain(|target| {
        !request.exclude_providers.iter().any(|name| **name == *target.upstream.name)
    });
    Ok(resolved)
}

fn unavailable_error(model: &str, wait: Option<Duration>) -> ProxyError {
    let message = match wait {
        Some(wait) => format!("nothing can serve `{model}` for {} more", print_span(wait)),
        None => format!("nothing that is enabled can serve `{model}`"),
    };
    ProxyError::new(ProxyErrorKind::Unavailable, sanitize::clean(&message)).retry_after(wait)
}

fn binding_to(chosen: &Candidate, now: Mono) -> AffinityBinding {
    AffinityBinding {
        upstream: chosen.upstream(),
        upstream_name: Arc::clone(&chosen.target.upstream.name),
        account: chosen.account,
        model: Arc::clone(&chosen.target.model),
        bound_at: now,
        last_used: now,
        better_tier_since: None,
    }
}

fn candidate_json(candidate: &Candidate, score: f64, why: &str) -> Value {
    let upstream = &candidate.target.upstream;
    json!({
        "upstream": {
            "provider_id": &*upstream.name, "model_id": &*candidate.target.model, "region": upstream.region,
            "base_weight": candidate.target.weight, "priority": candidate.target.priority,
        },
        "score": if score.is_finite() { json!(score) } else { Value::Null },
        "reason": why,
    })
}
