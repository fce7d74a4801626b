//! The places of our own: the front page, health, model lists.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use serde_json::{Value, json};

use super::{
    gate::Gate,
    wire::{Phase, Pulse},
};
use crate::{
    base::{clean, id::RequestId},
    config::settings::Project,
    control::{snapshot::UpstreamState, views},
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::Dialect,
    },
    relay::{
        lists,
        reply::{self, BodyAborted, ResponseBody},
    },
    routing::names,
};

/// A body that tells its connection when the answer is over.
pub struct Tracked {
    body: ResponseBody,
    pulse: Option<Arc<Pulse>>,
}

impl Tracked {
    #[must_use]
    pub fn new(body: ResponseBody, pulse: Option<Arc<Pulse>>) -> Self {
        Self { body, pulse }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        if let Some(pulse) = &self.pulse {
            pulse.enter(Phase::Idle);
        }
    }
}

impl Body for Tracked {
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

fn answer(id: RequestId, value: &Value) -> Response<ResponseBody> {
    let mut body = value.to_string();
    body.push('\n');
    reply::full_response(StatusCode::OK, "application/json", id, body.into())
}

/// `GET /`: what this is and where things are.
pub fn root(gate: &Gate, id: RequestId) -> Response<ResponseBody> {
    let base = gate.control.listen.first().map_or("127.0.0.1:8642", String::as_str);
    answer(
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

/// `GET /api/version`: what Ollama clients ask first.
pub fn version(id: RequestId) -> Response<ResponseBody> {
    answer(id, &json!({ "version": env!("CARGO_PKG_VERSION") }))
}

/// `GET /health`: what is known; with `?probe=1` every upstream is asked now, all at once.
pub async fn health(gate: &Gate, id: RequestId, query: Option<&str>) -> Response<ResponseBody> {
    let probe = query.is_some_and(|query| {
        query.split('&').any(|pair| matches!(pair, "probe" | "probe=1" | "probe=true"))
    });
    let mut answered = None;
    if probe {
        answered = Some(lists::refresh_all(&gate.engine).await);
    }
    let generation = gate.engine.generation();
    let mut healthy = 0;
    let mut providers = serde_json::Map::new();
    let views = views::upstreams(&gate.engine, &generation);
    for view in &views {
        let state = matches!(view.state, UpstreamState::Healthy | UpstreamState::Probing);
        let ok = state && answered.as_ref().is_none_or(|answered| answered.contains(&view.name));
        healthy += usize::from(ok);
        providers.insert(view.name.clone(), Value::Bool(ok));
    }
    let status = if gate.engine.draining() {
        "draining"
    } else if healthy > 0 || views.is_empty() {
        "healthy"
    } else {
        "degraded"
    };
    answer(
        id,
        &json!({ "status": status, "providers": providers, "healthy_providers": healthy, "total_providers": views.len(), "probed": probe }),
    )
}

/// `GET /v1/models[/ID]` in the shape that the client reads.
pub fn models(
    gate: &Gate,
    id: RequestId,
    project: &Project,
    shape: Dialect,
    one: Option<&str>,
) -> Response<ResponseBody> {
    let generation = gate.engine.generation();
    let learned = gate.engine.model_lists.learned();
    let all = names::list_names(&generation.catalog, project, &|id| learned.get(&id).cloned());
    if let Some(wanted) = one {
        return match all.iter().find(|model| *model.name == *wanted) {
            Some(model) => answer(id, &card(model, shape)),
            None => {
                let message = format!(
                    "The model `{}` does not exist or you do not have access to it; GET /v1/models lists the names",
                    clean::clean(wanted)
                );
                reply::error_response(
                    shape,
                    id,
                    &ProxyError::new(ProxyErrorKind::ModelNotFound, message).param("model"),
                )
            }
        };
    }
    let cards: Vec<Value> = all.iter().map(|model| card(model, shape)).collect();
    answer(
        id,
        &match shape {
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
pub fn tags(gate: &Gate, id: RequestId, project: &Project) -> Response<ResponseBody> {
    let generation = gate.engine.generation();
    let learned = gate.engine.model_lists.learned();
    let all = names::list_names(&generation.catalog, project, &|id| learned.get(&id).cloned());
    let cards: Vec<Value> = all.iter().map(|model| card(model, Dialect::Ollama)).collect();
    answer(id, &json!({ "models": cards }))
}

fn card(model: &names::ListedName, shape: Dialect) -> Value {
    // When a model was made is told by few; the field must be there all the same.
    let (created, at) = (0, crate::base::clock::UnixMillis(0).to_string());
    let owner = model.routes.first().map_or("aiproxy", |route| &route.upstream.name);
    let name = &*model.name;
    match shape {
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
