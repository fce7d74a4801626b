//! Responses over a WebSocket: a client keeps one connection open and sends `response.create`
//! messages; each is a request like a streaming one over HTTP, whose events come back as messages.
//! <https://developers.openai.com/api/docs/guides/websocket-mode>

mod conversation;
mod create_message;
mod running;
mod session;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header, request::Parts};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub(super) use session::{SessionTimes, WebSocketSession};

use crate::server::{
    paths::{self, NotFound, Route, RoutedPath},
    state::ServerState,
};
use crate::{
    base::{id::RequestId, sync::Mutex},
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::{Dialect, Op},
    },
    relay::{
        request::proxy_request::{Caller, Endpoint},
        response::{self, ResponseBody},
    },
};

/// Where a request leaves the session that takes over its connection.
#[derive(Clone, Default)]
pub(super) struct UpgradeSlot(Arc<Mutex<Option<Box<WebSocketSession>>>>);

impl UpgradeSlot {
    /// Returns the session that takes over the connection now, if there is one.
    pub(super) fn take(&self) -> Option<Box<WebSocketSession>> {
        self.0.lock().take()
    }
}

/// Returns the route of a request for a WebSocket; `None` if this is none, or not at the path of
/// Responses.
pub(super) fn route(parts: &Parts) -> Option<Result<RoutedPath, NotFound>> {
    let has = |name: header::HeaderName, word: &str| {
        parts.headers.get_all(name).iter().any(|value| {
            value.to_str().is_ok_and(|text| {
                text.split(',').any(|part| part.trim().eq_ignore_ascii_case(word))
            })
        })
    };
    let is_upgrade = parts.method == Method::GET
        && parts.version == Version::HTTP_11
        && has(header::UPGRADE, "websocket")
        && has(header::CONNECTION, "upgrade");
    if !is_upgrade {
        return None;
    }
    let routed = paths::route(&Method::POST, parts.uri.path(), parts.uri.query()).ok()?;
    match routed.route {
        Route::Relay(endpoint)
            if endpoint.dialect == Dialect::Responses && endpoint.op == Op::Chat =>
        {
            Some(Ok(RoutedPath { route: Route::WebSocket(endpoint), ..routed }))
        }
        _ => None,
    }
}

/// Switches the connection to WebSocket.
pub(super) fn accept(
    server: &Arc<ServerState>,
    id: RequestId,
    endpoint: Endpoint,
    caller: Caller,
    (parts, query): (Parts, Option<String>),
) -> Response<ResponseBody> {
    let refuse = |error: ProxyError| response::error_response(Dialect::Responses, id, &error);
    let headers = &parts.headers;
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let error = ProxyError::new(ProxyErrorKind::UpgradeRequired, "WebSocket version 13 needed");
        let mut response = refuse(error.status(426));
        response
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return response;
    }
    let accept_key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .and_then(|key| HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok());
    let (Some(accept_key), Some(slot)) = (accept_key, parts.extensions.get::<UpgradeSlot>()) else {
        let message = "a WebSocket needs a Sec-WebSocket-Key and HTTP/1.1";
        return refuse(ProxyError::new(ProxyErrorKind::BadRequest, message));
    };
    let request_headers = headers_of_requests(headers);
    let session = WebSocketSession::new(server, endpoint, caller, request_headers, query);
    *slot.0.lock() = Some(Box::new(session));
    let mut response = Response::new(ResponseBody::Full(None));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept_key);
    response::set_request_id(headers, id);
    response
}

/// Returns the headers of the requests on a connection: those of its own request that are not
/// about the connection.
fn headers_of_requests(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in [
        header::CONNECTION,
        header::UPGRADE,
        header::SEC_WEBSOCKET_ACCEPT,
        header::SEC_WEBSOCKET_EXTENSIONS,
        header::SEC_WEBSOCKET_KEY,
        header::SEC_WEBSOCKET_PROTOCOL,
        header::SEC_WEBSOCKET_VERSION,
    ] {
        headers.remove(name);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
    headers
}
