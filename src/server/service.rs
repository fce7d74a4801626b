//! Handles one request: guards, path and client key, then the relay, a built-in route, or an error
//! in the client's dialect.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;

use super::{
    caller,
    guard::{
        credential, host,
        origin::{self, AllowedOrigin},
    },
    paths::{self, NotFound, Route, RoutedPath},
};
use crate::server::{
    activity::{ConnActivity, OpenRequest},
    routes::{builtin, health, mcp, routing_api, stored_responses},
    state::ServerState,
    websocket,
};
use crate::{
    base::{id::RequestId, sanitize},
    config::settings::Settings,
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::Dialect,
    },
    relay::{
        handler,
        request::{
            control_headers::PINNED_UPSTREAM_HEADER, proxy_request::Caller, read::RequestHead,
        },
        response::{self, ResponseBody},
    },
    secrets::Secret,
    upstream::headers,
};

/// A response body that reports to the connection when it ends.
pub type TrackedResponse = Response<builtin::TrackedBody>;

/// Answers one request; never fails.
///
/// # Errors
///
/// None; hyper requires the type.
pub async fn serve_request(
    server: Arc<ServerState>,
    request: Request<Incoming>,
    peer: SocketAddr,
    activity: Arc<ConnActivity>,
) -> Result<TrackedResponse, Infallible> {
    let open = OpenRequest::begin(&activity);
    let id = RequestId::new(server.engine.clock.unix());
    // The connection is not reused, because a chunked body may hide a Content-Length that an
    // earlier hop believed (request smuggling).
    let close = request.version() == Version::HTTP_11
        && request.headers().contains_key(header::TRANSFER_ENCODING);
    let mut response = handle(&server, request, peer, id).await;
    if close {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| builtin::TrackedBody::new(body, open)))
}

async fn handle(
    server: &Arc<ServerState>,
    request: Request<Incoming>,
    peer: SocketAddr,
    id: RequestId,
) -> Response<ResponseBody> {
    let (parts, body) = request.into_parts();
    let generation = server.engine.generation();
    let settings = Arc::clone(&generation.settings);
    drop(generation);
    let websocket = websocket::route(&parts);
    let is_websocket = websocket.is_some();
    let routed = websocket
        .unwrap_or_else(|| paths::route(&parts.method, parts.uri.path(), parts.uri.query()));
    let dialect = error_dialect(&routed, &parts.headers);
    let refuse = |error: ProxyError| {
        tracing::debug!(request = %id, %peer, error = %error.message, "request refused");
        response::error_response(dialect, id, &error)
    };
    if parts.method == http::Method::CONNECT || parts.method == http::Method::TRACE {
        return refuse(ProxyError::new(
            ProxyErrorKind::MethodNotAllowed,
            "aiproxy is no forward proxy",
        ));
    }
    let checked = check_request(
        (&parts.headers, &parts.uri, parts.version),
        &settings,
        dialect,
        is_websocket,
    );
    let allowed = match checked {
        Ok(allowed) => allowed,
        Err(error) => return refuse(error),
    };
    if let Some(allowed) =
        allowed.as_ref().filter(|_| origin::is_preflight(&parts.method, &parts.headers))
    {
        let mut response = Response::new(ResponseBody::Full(None));
        *response.status_mut() = StatusCode::NO_CONTENT;
        response::set_request_id(response.headers_mut(), id);
        origin::set_preflight_headers(allowed, &parts.headers, response.headers_mut());
        return response;
    }
    let routed = match routed {
        Ok(routed) => routed,
        Err(not_found) => {
            let mut response =
                refuse(not_found_error(&not_found, &parts.method, parts.uri.path(), &settings));
            if let Some(allow) = not_found.allow {
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
            }
            if let Some(allowed) = &allowed {
                origin::set_cors_headers(allowed, response.headers_mut());
            }
            return response;
        }
    };
    let routed = RoutedPath { dialect, ..routed };
    let mut response = dispatch(server, routed, parts, body, peer, id, &settings).await;
    if let Some(allowed) = &allowed {
        origin::set_cors_headers(allowed, response.headers_mut());
    }
    response
}

/// Returns the dialect in which an error is written. Where a path is common to several APIs, the
/// headers of the client show which one it uses.
fn error_dialect(routed: &Result<RoutedPath, NotFound>, headers: &HeaderMap) -> Dialect {
    let path_dialect = match routed {
        Ok(RoutedPath { route: Route::Models { gemini: false, .. }, dialect, .. }) => *dialect,
        Ok(routed) => return routed.dialect,
        Err(not_found) => not_found.dialect,
    };
    if path_dialect != Dialect::Openai {
        path_dialect
    } else if headers.contains_key("anthropic-version") {
        Dialect::Anthropic
    } else if headers.contains_key("x-goog-api-key") {
        Dialect::Gemini
    } else {
        path_dialect
    }
}

/// Checks Host, Origin, upgrades and loops; the credential is checked after the path.
fn check_request(
    (map, uri, version): (&HeaderMap, &http::Uri, Version),
    settings: &Settings,
    dialect: Dialect,
    is_websocket: bool,
) -> Result<Option<AllowedOrigin>, ProxyError> {
    host::check_host(map, uri, version == Version::HTTP_2, &settings.server.trusted_hosts)?;
    let allowed = origin::check_origin(map, &settings.server.allowed_origins)?;
    if !is_websocket
        && map.contains_key(header::UPGRADE)
        && version == Version::HTTP_11
        && map.get(header::UPGRADE).is_some_and(|v| !v.as_bytes().eq_ignore_ascii_case(b"h2c"))
    {
        // Agents that try a WebSocket for Responses first fall back to HTTP immediately after a
        // 426.
        let status = if dialect == Dialect::Responses { 426 } else { 400 };
        return Err(ProxyError::new(
            ProxyErrorKind::UpgradeRequired,
            "aiproxy switches protocols only for a WebSocket at /v1/responses",
        )
        .status(status));
    }
    if headers::is_looped(map) {
        let message = "this request came from aiproxy itself: an upstream's base_url points back here; `aiproxy upstream list` shows them";
        return Err(ProxyError::new(ProxyErrorKind::BadRequest, message).code("loop"));
    }
    Ok(allowed)
}

async fn dispatch(
    server: &Arc<ServerState>,
    routed: RoutedPath,
    mut parts: http::request::Parts,
    body: Incoming,
    peer: SocketAddr,
    id: RequestId,
    settings: &Arc<Settings>,
) -> Response<ResponseBody> {
    let RoutedPath { route, dialect, path_key, upstream } = routed;
    match &route {
        Route::Root => return builtin::root(server, id),
        Route::Version => return builtin::version(id),
        _ => {}
    }
    let refuse = |error: ProxyError| response::error_response(dialect, id, &error);
    if server.engine.draining()
        && !matches!(route, Route::Control(_) | Route::Health | Route::Metrics)
    {
        let error = ProxyError::new(ProxyErrorKind::Overloaded, "aiproxy is shutting down")
            .retry_after(Some(Duration::from_secs(2)));
        let mut response = refuse(error);
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    // Removed before any code can log or forward it.
    let (query, query_key) = caller::extract_query_key(parts.uri.query(), dialect);
    let token =
        credential::extract_token(&parts.headers, query_key.as_deref(), path_key.as_deref());
    match &route {
        Route::Health => {
            let has_key = token.as_ref().is_some_and(|token| {
                server.control.is_token(token) || server.clients.table().find(token).is_some()
            }) || (server.keyless.is_none()
                && server.clients.table().anonymous_project.is_some());
            // Boxed, because this rare and large future would make the future of every request
            // as large.
            return Box::pin(health::health(server, id, parts.uri.query(), has_key)).await;
        }
        Route::Control(rest) => {
            return match check_admin(server, token.as_ref()) {
                Ok(()) => {
                    let query = parts.uri.query();
                    let control = &server.control;
                    Box::pin(control.handle(&parts.method, rest, query, body, id, token.as_ref()))
                        .await
                }
                Err(error) => refuse(error),
            };
        }
        Route::Metrics => {
            return match check_admin(server, token.as_ref()) {
                Ok(()) => Box::pin(server.control.metrics(id)).await,
                Err(error) => refuse(error),
            };
        }
        Route::Reload if token.as_ref().is_some_and(|token| server.control.is_token(token)) => {
            return Box::pin(server.control.reload(id)).await;
        }
        _ => {}
    }
    let authenticated = match &server.keyless {
        Some(keyless) => caller::keyless_project(keyless, &route, dialect, settings),
        None => caller::authenticate(server, token.as_ref()).await,
    };
    let allowed = authenticated.and_then(|project| {
        credential::check_subnet(&project, peer.ip())?;
        Ok(project)
    });
    let project = match allowed {
        Ok(project) => project,
        Err(error) => return refuse(error),
    };
    if let Some(name) = upstream.as_deref().and_then(|name| HeaderValue::from_str(name).ok()) {
        parts.headers.insert(PINNED_UPSTREAM_HEADER, name);
    }
    let program = caller::client_program(&parts.headers);
    let caller = Caller { project, program, addr: peer.ip() };
    respond(server, route, dialect, id, caller, (parts, query), body).await
}

/// Checks that the client may use the control API: with the control token or the key of an admin
/// project, at a listener that needs credentials.
fn check_admin(server: &ServerState, token: Option<&Secret>) -> Result<(), ProxyError> {
    if server.keyless.is_some() {
        let message = "the control API is not served at a keyless listener";
        return Err(ProxyError::new(ProxyErrorKind::Forbidden, message));
    }
    let is_admin = token.is_some_and(|token| {
        server.control.is_token(token)
            || server
                .clients
                .table()
                .find(token)
                .is_some_and(|project| project.admin && project.enabled)
    });
    if is_admin {
        return Ok(());
    }
    Err(ProxyError::new(
        ProxyErrorKind::Unauthorized,
        "the control API and /metrics take the control token (DATA/run/token) or the key of an admin project",
    ))
}

/// Answers an authenticated client; the query comes without a client key.
async fn respond(
    server: &Arc<ServerState>,
    route: Route,
    dialect: Dialect,
    id: RequestId,
    caller: Caller,
    (parts, query): (http::request::Parts, Option<String>),
    body: Incoming,
) -> Response<ResponseBody> {
    let project = &caller.project;
    match route {
        Route::Relay(endpoint) => {
            let head = RequestHead {
                id,
                endpoint,
                caller,
                method: parts.method,
                query,
                headers: parts.headers,
                owner: None,
            };
            handler::serve(&server.engine, head, body).await
        }
        Route::WebSocket(endpoint) => {
            websocket::accept(server, id, endpoint, caller, (parts, query))
        }
        Route::Models { id: model, gemini } => {
            let list_dialect = if gemini || parts.headers.contains_key("x-goog-api-key") {
                Dialect::Gemini
            } else if parts.headers.contains_key("anthropic-version") {
                Dialect::Anthropic
            } else {
                Dialect::Openai
            };
            builtin::models(server, id, project, list_dialect, model.as_deref())
        }
        Route::StoredResponse { id: response, action } => {
            let head = (parts.method, query, parts.headers);
            stored_responses::respond(server, id, caller, (response, action), head, body).await
        }
        Route::RoutingApi(routing_query) => {
            let query = query.as_deref();
            Box::pin(routing_api::respond(server, id, project, routing_query, query, body)).await
        }
        Route::Mcp(route) => {
            Box::pin(mcp::respond(server, id, caller, route, (parts, query), body)).await
        }
        Route::Tags => builtin::tags(server, id, project),
        Route::LoadedModels => builtin::loaded_models(id),
        Route::Reload if project.admin => Box::pin(server.control.reload(id)).await,
        Route::Reload => {
            let message = format!(
                "project `{}` is no admin; `aiproxy reload` works for the owner of this machine",
                project.name
            );
            let error = ProxyError::new(ProxyErrorKind::Forbidden, message);
            response::error_response(dialect, id, &error)
        }
        Route::Root | Route::Health | Route::Metrics | Route::Version | Route::Control(_) => {
            let message = "this place is answered before; please report this";
            let error = ProxyError::new(ProxyErrorKind::Internal, message);
            response::error_response(dialect, id, &error)
        }
    }
}

fn not_found_error(
    not_found: &NotFound,
    method: &http::Method,
    path: &str,
    settings: &Settings,
) -> ProxyError {
    // The client key of a `/~KEY/` path must not reach the log or the client's error reports.
    let path = sanitize::clean(paths::without_key(path));
    let path = sanitize::truncate_end(&path, 120);
    if let Some(allow) = not_found.allow {
        return ProxyError::new(
            ProxyErrorKind::MethodNotAllowed,
            format!("{method} is not allowed for {path}; {allow} is"),
        )
        .code("method_not_supported");
    }
    let base = settings
        .server
        .listen
        .addresses
        .first()
        .map_or_else(|| "127.0.0.1:8642".to_owned(), ToString::to_string);
    let message = format!(
        "Unknown request URL: {method} {path}. aiproxy serves the OpenAI API below http://{base}/v1, Anthropic's and Gemini's below http://{base}, and anything else of an upstream below http://{base}/u/UPSTREAM/"
    );
    ProxyError::new(ProxyErrorKind::UnknownPath, message).code("unknown_url")
}
