//! The SSE transport of 2024-11-05.

use std::sync::Arc;

use http::{Response, StatusCode};

use crate::mcp::{
    caller::McpCaller,
    feeds, gateway,
    message::{self, INVALID_REQUEST, RpcError, RpcMessage},
    outlet::{Exchange, OutItem, Outlet, OutletReader},
    servers::hub::McpHub,
    session::McpSession,
    wire::event_stream,
};

use super::{
    reply::{empty_response, event_response, refuse},
    request::{McpBody, McpRequest},
};

use super::sessions::{initialize, take_notification};

pub(super) fn open_old_stream(
    hub: &Arc<McpHub>,
    mut caller: McpCaller,
    request: &McpRequest,
) -> Response<McpBody> {
    let now = hub.parts.clock.mono();
    let Some(session) = hub.sessions.open(&caller.project.name, caller.scope.clone(), now) else {
        let error = RpcError::new(message::INTERNAL_ERROR, "no session can be opened");
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, None, error);
    };
    let path = request.path.trim_end_matches('/');
    let path = path.strip_suffix("sse").unwrap_or(path);
    let first = event_stream::event("endpoint", &format!("{path}message?sessionId={}", session.id));
    caller.session = Some(Arc::clone(&session));
    event_response(feeds::session_stream(Arc::clone(hub), caller, session, Some(first)))
}

pub(super) async fn old_message(
    hub: &Arc<McpHub>,
    mut caller: McpCaller,
    request: &McpRequest,
) -> Response<McpBody> {
    let query = request.query.as_deref().unwrap_or_default();
    let id = query.split('&').find_map(|pair| pair.strip_prefix("sessionId=")).unwrap_or_default();
    let now = hub.parts.clock.mono();
    let found = hub.sessions.find(id, &caller.project.name, &caller.scope, now);
    let Some(session) = found.filter(|session| session.has_stream()) else {
        let error = RpcError::new(INVALID_REQUEST, "this session is not known here");
        return refuse(StatusCode::NOT_FOUND, None, error);
    };
    let message = match RpcMessage::parse(&request.body) {
        Ok(message) => message,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, None, error),
    };
    caller.facts = session.facts();
    caller.session = Some(Arc::clone(&session));
    match message {
        RpcMessage::Request { id, method, params } if method == "initialize" => {
            let result = initialize(hub, &mut caller, params.as_ref()).await;
            session.send_surely(message::answer(&id, &result)).await;
        }
        RpcMessage::Request { id, method, params } => {
            let (outlet, reader) = Outlet::pair();
            let exchange = Exchange { id, outlet };
            let answering =
                gateway::answer_request(Arc::clone(hub), caller, exchange, method, params);
            hub.parts.tracker.spawn(answering);
            hub.parts.tracker.spawn(pass_on(reader, session));
        }
        RpcMessage::Notification { method, params } => {
            take_notification(&session, &method, params.as_ref());
        }
        RpcMessage::Answer { id, result } => {
            session.answer(&id, result);
        }
    }
    empty_response(StatusCode::ACCEPTED)
}

/// Sends what an exchange says on the stream of its session.
pub(super) async fn pass_on(mut reader: OutletReader, session: Arc<McpSession>) {
    loop {
        let item = tokio::select! {
            item = reader.items.recv() => item,
            () = session.closed.cancelled() => return,
        };
        match item {
            Some(OutItem::Message(text)) => drop(session.send_surely(text).await),
            Some(OutItem::Final(text, _)) => {
                session.send_surely(text).await;
                return;
            }
            None => return,
        }
    }
}
