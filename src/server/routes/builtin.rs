//! Built-in routes: the front page, health and model lists.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use serde_json::{Value, json};

use crate::server::{
    rewind_io::{ConnActivity, Phase},
    state::ServerState,
};
use crate::{
    base::{id::RequestId, sanitize},
    config::settings::Project,
    control::{snapshot::UpstreamState, views},
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::Dialect,
    },
    relay::{
        background::refresh_models,
        response::{self, ResponseBody, raw::BodyAborted},
    },
    routing::listing,
};

/// A response body that reports to its connection when it ends.
pub struct TrackedBody {
    body: ResponseBody,
    activity: Option<Arc<ConnActivity>>,
}

impl TrackedBody {
    #[must_use]
    pub fn new(body: ResponseBody, activity: Option<Arc<ConnActivity>>) -> Self {
        Self { body, activity }
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        if let Some(activity) = &self.activity {
            activity.enter_phase(Phase::Idle);
        }
    }
}

impl Body for TrackedBody {
    type Data = Bytes;
    type Error = BodyAborted;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyAborted>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn json_response(id: RequestId, value: &Value) -> Response<ResponseBody> {
    let mut body = value.to_string();
    body.push('\n');
    response::full_response(StatusCode::OK, "application/json", id, body.into())
}

/// `GET /`: describes the proxy and its routes.
pub fn root(server: &ServerState, id: RequestId) -> Response<ResponseBody> {
    let base = server.control.listen.first().map_or("127.0.0.1:8642", String::as_str);
    json_response(
        id,
        &json!({
            "name": "aiproxy",
            "version": env!("CARGO_PKG_VERSION"),
            "base_urls": {
                "openai": format!("http://{base}/v1"),
                "responses": format!("http://{base}/v1"),
                "anthropic": format!("http://{base}"),
                "gemini": format!("http://{base}"),
                "ollama": format!("http://{base}"),
                "raw": format!("http://{base}/u/UPSTREAM"),
            },
            "models": "/v1/models",
            "health": "/health",
        }),
    )
}

/// `GET /api/version`, which Ollama clients request first.
pub fn version(id: RequestId) -> Response<ResponseBody> {
    json_response(id, &json!({ "version": env!("CARGO_PKG_VERSION") }))
}

/// `GET /health`: returns the known state; with `?probe=1` probes all upstreams now, concurrently.
pub async fn health(
    server: &ServerState,
    id: RequestId,
    query: Option<&str>,
) -> Response<ResponseBody> {
    let probe = query.is_some_and(|query| {
        query.split('&').any(|pair| matches!(pair, "probe" | "probe=1" | "probe=true"))
    });
    let mut reachable = None;
    if probe {
        reachable = Some(refresh_models::refresh_all(&server.engine).await);
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
    json_response(
        id,
        &json!({ "status": status, "providers": providers, "healthy_providers": healthy, "total_providers": views.len(), "probed": probe }),
    )
}

/// `GET /v1/models[/ID]` in the format of the client.
pub fn models(
    server: &ServerState,
    id: RequestId,
    project: &Project,
    dialect: Dialect,
    model_id: Option<&str>,
) -> Response<ResponseBody> {
    let generation = server.engine.generation();
    let learned = server.engine.model_lists.learned();
    let all = listing::list_names(&generation.catalog, project, &|id| learned.get(&id).cloned());
    if let Some(wanted) = model_id {
        return match all.iter().find(|model| *model.name == *wanted) {
            Some(model) => json_response(id, &model_card(model, dialect)),
            None => {
                let message = format!(
                    "The model `{}` does not exist or you do not have access to it; GET /v1/models lists the names",
                    sanitize::clean(wanted)
                );
                response::error_response(
                    dialect,
                    id,
                    &ProxyError::new(ProxyErrorKind::ModelNotFound, message).param("model"),
                )
            }
        };
    }
    let cards: Vec<Value> = all.iter().map(|model| model_card(model, dialect)).collect();
    json_response(
        id,
        &match dialect {
            Dialect::Gemini => json!({ "models": cards }),
            Dialect::Anthropic => {
                let (first, last) = (all.first().map(|m| &*m.name), all.last().map(|m| &*m.name));
                json!({ "data": cards, "has_more": false, "first_id": first, "last_id": last })
            }
            _ => json!({ "object": "list", "data": cards }),
        },
    )
}

/// `GET /api/tags`: Ollama's list.
pub fn tags(server: &ServerState, id: RequestId, project: &Project) -> Response<ResponseBody> {
    let generation = server.engine.generation();
    let learned = server.engine.model_lists.learned();
    let all = listing::list_names(&generation.catalog, project, &|id| learned.get(&id).cloned());
    let cards: Vec<Value> = all.iter().map(|model| model_card(model, Dialect::Ollama)).collect();
    json_response(id, &json!({ "models": cards }))
}

fn model_card(model: &listing::ListedName, dialect: Dialect) -> Value {
    // Few providers report when a model was created, but the field is required.
    let (created, at) = (0, crate::base::clock::UnixMillis(0).to_string());
    let owner = model.routes.first().map_or("aiproxy", |route| &route.upstream.name);
    let name = &*model.name;
    match dialect {
        Dialect::Gemini => json!({
            "name": format!("models/{}", name),
            "displayName": name,
            "version": "",
            "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
        }),
        Dialect::Anthropic => {
            json!({ "type": "model", "id": name, "display_name": name, "created_at": at })
        }
        Dialect::Ollama => {
            json!({ "name": name, "model": name, "modified_at": at, "size": 0, "digest": "", "details": {} })
        }
        Dialect::Openai | Dialect::Responses => {
            json!({ "id": name, "object": "model", "created": created, "owned_by": owner })
        }
    }
}
