//! The endpoints of HTTP: Streamable HTTP with and without sessions, and the older SSE transport.

mod old_transport;
mod reply;
mod request;
mod sessions;
mod stateless;

use std::sync::Arc;

use http::{Method, Response, StatusCode};

use crate::mcp::{
    caller::McpCaller,
    message::{INVALID_REQUEST, RpcError, RpcMessage},
    revision::{self, META_VERSION, STATELESS},
    servers::hub::McpHub,
    session::{ClientFacts, EndpointScope},
};
use old_transport::{old_message, open_old_stream};
use reply::{header_text, not_allowed, refuse, unknown_server, unsupported};
pub use request::{McpBody, McpRequest, McpRoute};
use sessions::{close_session, open_stream, post_in_session};
use stateless::post_stateless;

/// Answers a request.
pub async fn handle(hub: &Arc<McpHub>, request: McpRequest) -> Response<McpBody> {
    let scope = request.route.scope();
    if let EndpointScope::One(name) = &scope
        && hub.visible(&request.project, &scope).is_empty()
    {
        return unknown_server(hub, &request.project, name);
    }
    let caller = McpCaller {
        project: Arc::clone(&request.project),
        scope,
        facts: ClientFacts::default(),
        level: None,
        session: None,
        program: Arc::clone(&request.program),
        addr: Some(request.addr),
    };
    let is_get = request.method == Method::GET;
    let is_post = request.method == Method::POST;
    match &request.route {
        McpRoute::Main(_) if is_post => post(hub, caller, &request).await,
        McpRoute::Main(_) if is_get => open_stream(hub, caller, &request),
        McpRoute::Main(_) if request.method == Method::DELETE => {
            close_session(hub, &caller, &request)
        }
        McpRoute::Main(_) => not_allowed("POST, GET, DELETE"),
        McpRoute::OldStream(_) if is_get => open_old_stream(hub, caller, &request),
        McpRoute::OldStream(_) => not_allowed("GET"),
        McpRoute::OldMessage(_) if is_post => old_message(hub, caller, &request).await,
        McpRoute::OldMessage(_) => not_allowed("POST"),
    }
}

async fn post(hub: &Arc<McpHub>, caller: McpCaller, request: &McpRequest) -> Response<McpBody> {
    let kind = header_text(&request.headers, "content-type").unwrap_or("application/json");
    if !kind.trim_start().to_ascii_lowercase().starts_with("application/json") {
        let error = RpcError::new(INVALID_REQUEST, "messages are sent as application/json");
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, None, error);
    }
    let message = match RpcMessage::parse(&request.body) {
        Ok(message) => message,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, None, error),
    };
    let version = header_text(&request.headers, "mcp-protocol-version");
    let params = match &message {
        RpcMessage::Request { params, .. } | RpcMessage::Notification { params, .. } => {
            params.as_ref()
        }
        RpcMessage::Answer { .. } => None,
    };
    let has_envelope =
        params.and_then(|params| params.json().member_at(&["_meta", META_VERSION])).is_some();
    if has_envelope || version == Some(STATELESS) {
        return post_stateless(hub, caller, request, message, version).await;
    }
    if let Some(version) = version.filter(|version| revision::handshake(version).is_none()) {
        let id = match &message {
            RpcMessage::Request { id, .. } => Some(id),
            _ => None,
        };
        return refuse(StatusCode::BAD_REQUEST, id, unsupported(version));
    }
    post_in_session(hub, caller, request, message).await
}
