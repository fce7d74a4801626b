//! Serves responses that were created earlier: from the local store, or from the upstream that has
//! them.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::body::Incoming;

use crate::server::{paths::StoredAction, routes::query_value, state::ServerState};
use crate::{
    base::{id::RequestId, sanitize},
    dialect::{stored, stored_events},
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::{Dialect, Op},
        request::ChatRequest,
    },
    relay::{
        attempt::ownership,
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
    let (upstream, key) = match ownership::find_response(&server.engine, &project, &response) {
        None => return refuse(&not_found(&response)),
        Some(StoredAt::Local { conversation, request_messages, body, .. }) => {
            let stored = LocalResponse { id: &response, conversation, request_messages, body };
            if action == StoredAction::Delete {
                server.engine.response_store.remove(&project, &response);
            }
            return answer_locally(id, stored, action, query.as_deref().unwrap_or_default());
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
        server.engine.resource_owners.remove(&project, &response);
    }
    let endpoint = Endpoint {
        dialect: Dialect::Responses,
        op: Op::Stored,
        path: path.into(),
        model: ModelLocation::Upstream(name),
        stream: StreamMode::Never,
    };
    let head =
        RequestHead { id, endpoint, caller, method, query, headers, owner: Some((upstream, key)) };
    handler::serve(&server.engine, head, body).await
}

/// A response that aiproxy stores itself, with the conversation that it ends.
struct LocalResponse<'a> {
    id: &'a str,
    conversation: Arc<ChatRequest>,
    /// Number of the conversation's messages that belong to the request.
    request_messages: usize,
    body: Bytes,
}

/// Answers from the local store.
fn answer_locally(
    id: RequestId,
    stored: LocalResponse<'_>,
    action: StoredAction,
    query: &str,
) -> Response<ResponseBody> {
    let refuse = |error: &ProxyError| response::error_response(Dialect::Responses, id, error);
    let parameter = |name: &str| query_value(Some(query), name);
    let text = match action {
        StoredAction::Get if parameter("stream").as_deref() == Some("true") => {
            let after = parameter("starting_after").and_then(|number| number.parse().ok());
            return match stored_events::stored_events(&stored.body, after) {
                Some(events) => response::full_response(
                    StatusCode::OK,
                    "text/event-stream; charset=utf-8",
                    id,
                    events,
                ),
                None => refuse(&not_found(stored.id)),
            };
        }
        StoredAction::Get => stored.body,
        StoredAction::InputItems => {
            let asked = stored.conversation.messages.iter().take(stored.request_messages);
            let request = ChatRequest { messages: asked.cloned().collect(), ..Default::default() };
            stored::write_input_items(&request, stored.id, &stored::InputItemsQuery::parse(query))
        }
        StoredAction::Delete => stored::write_deleted(stored.id),
        StoredAction::Cancel => {
            let message = "this response is complete; only background responses can be cancelled";
            return refuse(&ProxyError::new(ProxyErrorKind::BadRequest, message));
        }
    };
    response::full_response(StatusCode::OK, "application/json", id, text)
}

fn not_found(response: &str) -> ProxyError {
    let text = sanitize::clean(response);
    let message = format!(
        "Response with id '{}' not found. aiproxy keeps its own responses in memory for a day, for the project that asked for them",
        sanitize::truncate_end(&text, 80)
    );
    ProxyError::new(ProxyErrorKind::UnknownPath, message).code("not_found")
}
