//! Streamable HTTP with sessions.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::{
    base::json::raw::RawJson,
    mcp::{
        caller::McpCaller,
        feeds, gateway,
        message::{self, INVALID_REQUEST, RpcError, RpcMessage},
        revision::{self, NEWEST_HANDSHAKE, Revision, STATELESS},
        servers::hub::McpHub,
        session::{ClientFacts, McpSession},
    },
};

use super::{
    reply::{
        empty_response, event_response, header_text, json_response, not_allowed, refuse, start,
    },
    request::{McpBody, McpRequest},
};

pub(super) async fn post_in_session(
    hub: &Arc<McpHub>,
    mut caller: McpCaller,
    request: &McpRequest,
    message: RpcMessage,
) -> Response<McpBody> {
    if let RpcMessage::Request { id, method, params } = &message
        && method == "initialize"
    {
        let session =
            hub.sessions.open(&caller.project.name, caller.scope.clone(), hub.parts.clock.mono());
        let Some(session) = session else {
            let error = RpcError::new(message::INTERNAL_ERROR, "no session can be opened");
            return refuse(StatusCode::INTERNAL_SERVER_ERROR, Some(id), error);
        };
        caller.session = Some(Arc::clone(&session));
        let result = initialize(hub, &mut caller, params.as_ref()).await;
        if result.is_err() {
            hub.sessions.close(&session.id);
            return json_response(StatusCode::OK, message::answer(id, &result));
        }
        let mut response = json_response(StatusCode::OK, message::answer(id, &result));
        if let Ok(value) = HeaderValue::from_str(&session.id) {
            response.headers_mut().insert("mcp-session-id", value);
        }
        return response;
    }
    let session = match find_session(hub, &caller, &request.headers) {
        Ok(session) => session,
        Err(response) => return *response,
    };
    caller.facts = session.facts();
    caller.session = Some(Arc::clone(&session));
    match message {
        RpcMessage::Request { id, method, params } => {
            start(hub, caller, request, id, method, params).await
        }
        RpcMessage::Notification { method, params } => {
            take_notification(&session, &method, params.as_ref());
            empty_response(StatusCode::ACCEPTED)
        }
        RpcMessage::Answer { id, result } => {
            session.answer(&id, result);
            empty_response(StatusCode::ACCEPTED)
        }
    }
}

pub(super) fn find_session(
    hub: &McpHub,
    caller: &McpCaller,
    headers: &HeaderMap,
) -> Result<Arc<McpSession>, Box<Response<McpBody>>> {
    let Some(id) = header_text(headers, "mcp-session-id") else {
        let text = "the header Mcp-Session-Id is missing; a session begins with `initialize`";
        let error = RpcError::new(INVALID_REQUEST, text);
        return Err(Box::new(refuse(StatusCode::BAD_REQUEST, None, error)));
    };
    let now = hub.parts.clock.mono();
    hub.sessions.find(id, &caller.project.name, &caller.scope, now).ok_or_else(|| {
        let error = RpcError::new(message::REQUEST_TIMEOUT, "this session is not known here");
        Box::new(refuse(StatusCode::NOT_FOUND, None, error))
    })
}

pub(super) fn take_notification(session: &McpSession, method: &str, params: Option<&RawJson>) {
    if method == "notifications/cancelled"
        && let Some(id) = params.and_then(|params| params.json().get("requestId"))
    {
        session.cancel(id.text());
    }
}

/// Answers `initialize`: agrees on a revision and notes what the client can do.
pub(super) async fn initialize(
    hub: &McpHub,
    caller: &mut McpCaller,
    params: Option<&RawJson>,
) -> Result<RawJson, RpcError> {
    let wanted = message::text_param(params, "protocolVersion").unwrap_or_default();
    let version = revision::handshake(&wanted).unwrap_or(NEWEST_HANDSHAKE);
    let raw = |name: &str| params.and_then(|p| p.json().get(name)).map(RawJson::from_json);
    caller.facts = ClientFacts {
        revision: Revision::Handshake(version),
        capabilities: raw("capabilities").unwrap_or_else(message::empty_object),
        info: raw("clientInfo"),
    };
    if let Some(session) = &caller.session {
        session.set_facts(caller.facts.clone());
    }
    let members = gateway::offer::offer(hub, caller).await?;
    Ok(RawJson::object(|o| {
        o.str("protocolVersion", version);
        for (key, value) in &members {
            o.raw(key, value);
        }
    }))
}

pub(super) fn open_stream(
    hub: &Arc<McpHub>,
    mut caller: McpCaller,
    request: &McpRequest,
) -> Response<McpBody> {
    if header_text(&request.headers, "mcp-protocol-version") == Some(STATELESS) {
        return not_allowed("POST");
    }
    let session = match find_session(hub, &caller, &request.headers) {
        Ok(session) => session,
        Err(response) => return *response,
    };
    caller.facts = session.facts();
    caller.session = Some(Arc::clone(&session));
    event_response(feeds::session_stream(Arc::clone(hub), caller, session, None))
}

pub(super) fn close_session(
    hub: &McpHub,
    caller: &McpCaller,
    request: &McpRequest,
) -> Response<McpBody> {
    match find_session(hub, caller, &request.headers) {
        Ok(session) => {
            hub.sessions.close(&session.id);
            empty_response(StatusCode::NO_CONTENT)
        }
        Err(response) => *response,
    }
}
