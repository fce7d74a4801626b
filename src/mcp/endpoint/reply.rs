//! Answers of the endpoints.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use crate::{
    base::{json::raw::RawJson, sanitize, suggest},
    config::settings::Project,
    mcp::{
        caller::McpCaller,
        feeds, gateway,
        message::{
            self, HEADER_MISMATCH, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND,
            MISSING_CAPABILITY, PARSE_ERROR, RpcError, UNSUPPORTED_VERSION,
        },
        outlet::{EventBody, Exchange, OutItem, Outlet, OutletReader},
        revision::{self, STATELESS},
        servers::hub::McpHub,
    },
};

use super::request::{McpBody, McpRequest};

/// A request whose answer takes longer than this is answered with a stream.
pub(super) const STREAM_AFTER: Duration = Duration::from_secs(3);

pub(super) fn json_response(status: StatusCode, body: String) -> Response<McpBody> {
    let mut response = Response::new(McpBody::Full(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) fn event_response(body: EventBody) -> Response<McpBody> {
    let mut response = Response::new(McpBody::Events(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

pub(super) fn empty_response(status: StatusCode) -> Response<McpBody> {
    let mut response = Response::new(McpBody::Full(Bytes::new()));
    *response.status_mut() = status;
    response
}

pub(super) fn not_allowed(allow: &'static str) -> Response<McpBody> {
    let error = RpcError::new(INVALID_REQUEST, format!("this endpoint takes {allow}"));
    let mut response = json_response(StatusCode::METHOD_NOT_ALLOWED, message::stray_error(&error));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

pub(super) fn refuse(
    status: StatusCode,
    id: Option<&RawJson>,
    error: RpcError,
) -> Response<McpBody> {
    let body = match id {
        Some(id) => message::answer(id, &Err(error)),
        None => message::stray_error(&error),
    };
    json_response(status, body)
}

pub(super) fn unknown_server(hub: &McpHub, project: &Project, name: &str) -> Response<McpBody> {
    let name = sanitize::clean(name).into_owned();
    let name = sanitize::truncate_end(&name, 80);
    let servers = hub.servers();
    let mine = |enabled: bool| {
        servers.iter().filter(move |entry| {
            entry.row.enabled == enabled && project.mcp.matches(&entry.row.name)
        })
    };
    let text = if mine(false).any(|entry| *entry.row.name == *name) {
        format!("MCP server `{name}` is disabled; `aiproxy mcp enable {name}` enables it")
    } else {
        let known: Vec<_> = mine(true).map(|entry| &*entry.row.name).collect();
        let near = suggest::nearest(&name, known.iter().copied());
        let list = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
        format!("there is no MCP server `{name}` here; {near}servers: {list}")
    };
    refuse(StatusCode::NOT_FOUND, None, RpcError::new(INVALID_PARAMS, text))
}

pub(super) fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

pub(super) fn unsupported(version: &str) -> RpcError {
    let version = sanitize::clean(version).into_owned();
    let data = RawJson::object(|o| {
        o.array("supported", |a| {
            a.str(STATELESS);
            for known in revision::HANDSHAKE.iter().rev() {
                a.str(known);
            }
        });
        o.str("requested", &version);
    });
    RpcError {
        data: Some(data),
        ..RpcError::new(UNSUPPORTED_VERSION, format!("unsupported protocol version: {version}"))
    }
}

/// Begins a request and waits for its answer, or for the first part of it.
pub(super) async fn start(
    hub: &Arc<McpHub>,
    caller: McpCaller,
    request: &McpRequest,
    id: RawJson,
    method: String,
    params: Option<RawJson>,
) -> Response<McpBody> {
    let (outlet, reader) = Outlet::pair();
    let is_stateless = caller.is_stateless();
    let exchange = Exchange { id, outlet };
    let answering = gateway::answer_request(Arc::clone(hub), caller, exchange, method, params);
    hub.parts.tracker.spawn(answering);
    let accept = header_text(&request.headers, "accept").unwrap_or("*/*");
    let takes_events = accept.contains("text/event-stream") || accept.contains("*/*");
    respond(reader, takes_events, is_stateless).await
}

pub(super) async fn respond(
    mut reader: OutletReader,
    takes_events: bool,
    is_stateless: bool,
) -> Response<McpBody> {
    loop {
        let first = if takes_events {
            tokio::time::timeout(STREAM_AFTER, reader.items.recv()).await
        } else {
            Ok(reader.items.recv().await)
        };
        match first {
            Ok(Some(OutItem::Final(text, code))) => {
                let status = match code {
                    Some(code) if is_stateless => error_status(code),
                    _ => StatusCode::OK,
                };
                return json_response(status, text);
            }
            Ok(Some(OutItem::Message(_))) if !takes_events => {}
            Ok(Some(item)) => return event_response(feeds::answer_stream(Some(item), reader)),
            // Cancelled: nothing follows.
            Ok(None) => return event_response(Box::pin(futures_util::stream::empty())),
            Err(_) => return event_response(feeds::answer_stream(None, reader)),
        }
    }
}

pub(super) fn error_status(code: i64) -> StatusCode {
    match code {
        PARSE_ERROR | INVALID_REQUEST | INVALID_PARAMS | HEADER_MISMATCH | MISSING_CAPABILITY
        | UNSUPPORTED_VERSION => StatusCode::BAD_REQUEST,
        METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    }
}
