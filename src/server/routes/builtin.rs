//! Built-in routes: the front page, health and model lists.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use serde_json::{Value, json};

use crate::server::{activity::OpenRequest, routes::model_cards::model_card, state::ServerState};
use crate::{
    base::{id::RequestId, sanitize},
    config::settings::Project,
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::Dialect,
    },
    relay::response::{self, ResponseBody, raw::BodyAborted},
    routing::listing,
};

/// A response body that reports to its connection when it ends.
pub struct TrackedBody {
    body: ResponseBody,
    _open: OpenRequest,
}

impl TrackedBody {
    #[must_use]
    pub fn new(body: ResponseBody, open: OpenRequest) -> Self {
        Self { body, _open: open }
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

pub(super) fn json_response(id: RequestId, value: &Value) -> Response<ResponseBody> {
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

/// The release of Ollama whose API is served. Codex wants at least 0.13.4, VS Code 0.6.4, and both
/// read three numbers.
const OLLAMA_VERSION: &str = "0.13.5";

/// `GET /api/version`, which Ollama clients request first.
pub fn version(id: RequestId) -> Response<ResponseBody> {
    json_response(id, &json!({ "version": OLLAMA_VERSION }))
}

/// `GET /api/ps`: no model is loaded here, all are elsewhere.
pub fn loaded_models(id: RequestId) -> Response<ResponseBody> {
    json_response(id, &json!({ "models": [] }))
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
            Some(model) => json_response(id, &model_card(model, dialect, &generation.facts)),
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
    let cards: Vec<Value> =
        all.iter().map(|model| model_card(model, dialect, &generation.facts)).collect();
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
    let cards: Vec<Value> =
        all.iter().map(|model| model_card(model, Dialect::Ollama, &generation.facts)).collect();
    json_response(id, &json!({ "models": cards }))
}
