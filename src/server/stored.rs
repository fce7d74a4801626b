//! Responses that were made before: told from what we keep, or asked for where they live.

use http::{HeaderMap, Method, Response, StatusCode};
use hyper::body::Incoming;

use super::{gate::Gate, paths::Stored};
use crate::{
    base::{clean, id::RequestId},
    dialect::stored,
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::{Dialect, Op},
        request::ChatRequest,
    },
    relay::{
        ask::{Caller, Endpoint, ModelLocation, StreamMode},
        intake::RequestHead,
        reply::{self, ResponseBody},
        serve,
        stored::StoredAt,
    },
};

/// Answers for one response id.
pub(super) async fn answer(
    gate: &Gate,
    id: RequestId,
    caller: Caller,
    (response, what): (String, Stored),
    (method, query, headers): (Method, Option<String>, HeaderMap),
    body: Incoming,
) -> Response<ResponseBody> {
    let refuse = |error: &ProxyError| reply::error_response(Dialect::Responses, id, error);
    let project = caller.project.name.clone();
    let (upstream, key) = match gate.engine.response_store.find(&project, &response) {
        None => return refuse(&unknown(&response)),
        Some(StoredAt::Local { conversation, request_messages: asked, body }) => {
            let text = match what {
                Stored::Get => body,
                Stored::InputItems => {
                    let asked = ChatRequest {
                        messages: conversation.messages.iter().take(asked).cloned().collect(),
                        ..ChatRequest::default()
                    };
                    stored::write_input_items(
                        &asked,
                        &response,
                        &stored::InputItemsQuery::parse(query.as_deref().unwrap_or_default()),
                    )
                }
                Stored::Delete => {
                    gate.engine.response_store.remove(&project, &response);
                    stored::write_deleted(&response)
                }
                Stored::Cancel => {
                    let message =
                        "this response is complete; only background responses can be cancelled";
                    return refuse(&ProxyError::new(ProxyErrorKind::BadRequest, message));
                }
            };
            return reply::full_response(StatusCode::OK, "application/json", id, text);
        }
        Some(StoredAt::Upstream { upstream, key }) => (upstream, key),
    };
    let generation = gate.engine.generation();
    let Some(name) = generation
        .settings
        .upstreams
        .iter()
        .find(|each| each.id == upstream)
        .map(|each| each.name.to_string())
    else {
        return refuse(&unknown(&response));
    };
    let path = match what {
        Stored::Get | Stored::Delete => format!("/responses/{response}"),
        Stored::Cancel => format!("/responses/{response}/cancel"),
        Stored::InputItems => format!("/responses/{response}/input_items"),
    };
    if what == Stored::Delete {
        gate.engine.response_store.remove(&project, &response);
    }
    let endpoint = Endpoint {
        dialect: Dialect::Responses,
        op: Op::Stored,
        path,
        model: ModelLocation::Upstream(name),
        stream: StreamMode::Never,
    };
    let head =
        RequestHead { id, endpoint, caller, method, query, headers, owner: Some((upstream, key)) };
    serve::serve(&gate.engine, head, body).await
}

fn unknown(response: &str) -> ProxyError {
    let text = clean::clean(response);
    let message = format!(
        "Response with id '{}' not found. aiproxy keeps its own responses in memory for a day, for the project that asked for them",
        clean::truncate_end(&text, 80)
    );
    ProxyError::new(ProxyErrorKind::UnknownPath, message).code("not_found")
}
