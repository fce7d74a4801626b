//! Serves responses that were created earlier: from the local store, or from the upstream that has
//! them.

use http::{HeaderMap, Method, Response, StatusCode};
use hyper::body::Incoming;

use crate::server::{paths::StoredAction, state::ServerState};
use crate::{
    base::{id::RequestId, sanitize},
    dialect::{stored, stored_events},
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::{Dialect, Op},
        request::ChatRequest,
    },
    relay::{
        handler,
        request::{
            proxy_request::{Caller, Endpoint, ModelLocation, StreamMode},
            read::RequestHead,
        },
        response::{self, ResponseBody},
        state::response_store::StoredAt,
    },
};

/// Answers a request for one response id.
pub(in crate::server) async fn respond(
    server: &ServerState,
    id: RequestId,
    caller: Caller,
    (response, action): (String, StoredAction),
    (method, query, headers): (Method, Option<String>, HeaderMap),
    body: Incoming,
) -> Response<ResponseBody> {
    let refuse = |error: &ProxyError| response::error_response(Dialect::Responses, id, error);
    let project = caller.project.name.clone();
    let (upstream, key) = match server.engine.response_store.find(&project, &response) {
        None => return refuse(&not_found(&response)),
        Some(StoredAt::Local { conversation, request_messages: asked, body }) => {
            let parameter = |name: &str| {
                let pairs = query.as_deref().unwrap_or_default().split('&');
                pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)
            };
            let text = match action {
                StoredAction::Get if parameter("stream").is_some_and(|(_, on)| on == "true") => {
                    let after = parameter("starting_after").and_then(|(_, text)| text.parse().ok());
                    return match stored_events::stored_events(&body, after) {
                        Some(events) => response::full_response(
                            StatusCode::OK,
                            "text/event-stream; charset=utf-8",
                            id,
                            events,
                        ),
                        None => refuse(&not_found(&response)),
                    };
                }
                StoredAction::Get => body,
                StoredAction::InputItems => {
                    let request = ChatRequest {
                        messages: conversation.messages.iter().take(asked).cloned().collect(),
                        ..ChatRequest::default()
                    };
                    stored::write_input_items(
                        &request,
                        &response,
                        &stored::InputItemsQuery::parse(query.as_deref().unwrap_or_default()),
                    )
                }
                StoredAction::Delete => {
                    server.engine.response_store.remove(&project, &response);
                    stored::write_deleted(&response)
                }
                StoredAction::Cancel => {
                    let message =
                        "this response is complete; only background responses can be cancelled";
                    return refuse(&ProxyError::new(ProxyErrorKind::BadRequest, message));
                }
            };
            return response::full_response(StatusCode::OK, "application/json", id, text);
        }
        Some(StoredAt::Upstream { upstream, key }) => (upstream, key),
    };
    let generation = server.engine.generation();
    let Some(name) = generation
        .settings
        .upstreams
        .iter()
        .find(|each| each.id == upstream)
        .map(|each| each.name.to_string())
    else {
        return refuse(&not_found(&response));
    };
    let path = match action {
        StoredAction::Get | StoredAction::Delete => format!("/responses/{response}"),
        StoredAction::Cancel => format!("/responses/{response}/cancel"),
        StoredAction::InputItems => format!("/responses/{response}/input_items"),
    };
    if action == StoredAction::Delete {
        server.engine.response_store.remove(&project, &response);
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
    handler::serve(&server.engine, head, body).await
}

fn not_found(response: &str) -> ProxyError {
    let text = sanitize::clean(response);
    let message = format!(
        "Response with id '{}' not found. aiproxy keeps its own responses in memory for a day, for the project that asked for them",
        sanitize::truncate_end(&text, 80)
    );
    ProxyError::new(ProxyErrorKind::UnknownPath, message).code("not_found")
}
