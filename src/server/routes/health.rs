//! `GET /health`: whether requests can be served, for monitors and containers.

use http::Response;
use serde_json::{Value, json};

use crate::{
    base::id::RequestId,
    control::{snapshot::UpstreamState, views},
    relay::response::ResponseBody,
    server::{routes::builtin::json_response, state::ServerState},
};

/// Answers with the known state; with `?probe=1` all upstreams are probed first. A caller without
/// a key learns the status and counts, no names, and cannot cause a probe.
pub async fn health(
    server: &ServerState,
    id: RequestId,
    query: Option<&str>,
    has_key: bool,
) -> Response<ResponseBody> {
    let wanted = query.is_some_and(|query| {
        query.split('&').any(|pair| matches!(pair, "probe" | "probe=1" | "probe=true"))
    });
    let probe = wanted && has_key;
    let mut reachable = None;
    if probe {
        reachable = Some(server.probes.probe(&server.engine).await);
    }
    let generation = server.engine.generation();
    let mut healthy = 0;
    let mut providers = serde_json::Map::new();
    let views = views::upstreams(&server.engine, &generation);
    for view in &views {
        let state = matches!(view.state, UpstreamState::Healthy | UpstreamState::Probing);
        let ok = state && reachable.as_ref().is_none_or(|answered| answered.contains(&view.name));
        healthy += usize::from(ok);
        providers.insert(view.name.clone(), Value::Bool(ok));
    }
    let status = if server.engine.draining() {
        "draining"
    } else if healthy > 0 || views.is_empty() {
        "healthy"
    } else {
        "degraded"
    };
    if !has_key {
        return json_response(
            id,
            &json!({ "status": status, "healthy_providers": healthy, "total_providers": views.len() }),
        );
    }
    json_response(
        id,
        &json!({ "status": status, "providers": providers, "healthy_providers": healthy, "total_providers": views.len(), "probed": probe }),
    )
}
