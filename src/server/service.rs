//! Handles one request: guards, path and client key, then the relay, a built-in route, or an error
//! in the client's dialect.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{
    guard::{
        credential::{self, ClientTable},
        host,
        origin::{self, AllowedOrigin},
    },
    paths::{self, NotFound, Route, RoutedPath},
};
use crate::server::{
    rewind_io::ConnActivity,
    routes::{builtin, routing_api, stored_responses},
    state::ServerState,
};
use crate::{
    base::{id::RequestId, sanitize},
    config::settings::{KeylessListener, Project, Settings},
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::{Dialect, Op},
    },
    relay::{
        handler,
        request::{proxy_request::Caller, read::RequestHead},
        response::{self, ResponseBody},
    },
    upstream::headers,
};

/// A request with an unknown credential waits this long if project keys are still being read.
const KEY_LOAD_TIMEOUT: Duration = Duration::from_secs(5);

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
    activity: Option<Arc<ConnActivity>>,
) -> Result<TrackedResponse, Infallible> {
    let id = RequestId::new(server.engine.clock.unix());
    // The connection is not reused, because a chunked body may hide a Content-Length that an
    // earlier hop believed (request smuggling).
    let close = request.version() == Version::HTTP_11
        && request.headers().contains_key(header::TRANSFER_ENCODING);
    // Boxed because this future is large and ends when the response begins, while the memory of the
    // outer future lasts as long as the connection.
    let mut response = Box::pin(handle(&server, request, peer, id)).await;
    if close {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| builtin::TrackedBody::new(body, activity)))
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
    let routed = paths::route(&parts.method, parts.uri.path(), parts.uri.query());
    let dialect = match &routed {
        Ok(routed) => routed.dialect,
        Err(not_found) => not_found.dialect,
    };
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
    let allowed = match check_request(&parts.headers, &parts.uri, parts.version, &settings, dialect)
    {
        Ok(allowed) => allowed,
        Err(error) => return refuse(error),
    };
    if let Some(allowed) =
        allowed.as_ref().filter(|_| origin::is_preflight(&parts.method, &parts.headers))
    {
        let mut response = Response::new(ResponseBody::Full(None));
        *response.status_mut() = StatusCode::NO_CONTENT;
        response::set_request_id(response.headers_mut(), id);
        origin::set_cors_headers(allowed, true, response.headers_mut());
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
            return response;
        }
    };
    let mut response = dispatch(server, routed, parts, body, peer, id, &settings).await;
    if let Some(AllowedOrigin(_)) = &allowed
        && let Some(allowed) = &allowed
    {
        origin::set_cors_headers(allowed, false, response.headers_mut());
    }
    response
}

/// Checks Host, Origin, upgrades and loops; the credential is checked after the path.
fn check_request(
    map: &HeaderMap,
    uri: &http::Uri,
    version: Version,
    settings: &Settings,
    dialect: Dialect,
) -> Result<Option<AllowedOrigin>, ProxyError> {
    host::check_host(map, uri, version == Version::HTTP_2, &settings.server.trusted_hosts)?;
    let allowed = origin::check_origin(map, &settings.server.allowed_origins)?;
    if map.contains_key(header::UPGRADE)
        && version == Version::HTTP_11
        && map.get(header::UPGRADE).is_some_and(|v| !v.as_bytes().eq_ignore_ascii_case(b"h2c"))
    {
        // Agents that try a WebSocket for Responses first fall back to HTTP immediately after a
        // 426.
        let status = if dialect == Dialect::Responses { 426 } else { 400 };
        return Err(ProxyError::new(
            ProxyErrorKind::UpgradeRequired,
            "aiproxy does not switch protocols (no WebSocket here)",
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
    parts: http::request::Parts,
    body: Incoming,
    peer: SocketAddr,
    id: RequestId,
    settings: &Arc<Settings>,
) -> Response<ResponseBody> {
    let RoutedPath { route, dialect, path_key } = routed;
    match &route {
        Route::Root => return builtin::root(server, id),
        // Boxed, because this rare and large future would make the future of every request as
        // large.
        Route::Health => return Box::pin(builtin::health(server, id, parts.uri.query())).await,
        Route::Version => return builtin::version(id),
        _ => {}
    }
    if server.engine.draining() && !matches!(route, Route::Control(_) | Route::Metrics) {
        let error = ProxyError::new(ProxyErrorKind::Overloaded, "aiproxy is shutting down")
            .retry_after(Some(Duration::from_secs(2)));
        let mut response = response::error_response(dialect, id, &error);
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    // Removed before any code can log or forward it.
    let (query, query_key) = extract_query_key(parts.uri.query(), dialect);
    let token =
        credential::extract_token(&parts.headers, query_key.as_deref(), path_key.as_deref());
    if let (Route::Control(_) | Route::Metrics, Some(_)) = (&route, &server.keyless) {
        return response::error_response(
            dialect,
            id,
            &ProxyError::new(
                ProxyErrorKind::Forbidden,
                "the control API is not served at a keyless listener",
            ),
        );
    }
    if matches!(route, Route::Control(_) | Route::Metrics) {
        let admin = match &token {
            Some(token) => {
                server.control.is_token(token)
                    || server
                        .clients
                        .table()
                        .find(token)
                        .is_some_and(|project| project.admin && project.enabled)
            }
            None => false,
        };
        if !admin {
            return response::error_response(
                dialect,
                id,
                &ProxyError::new(
                    ProxyErrorKind::Unauthorized,
                    "the control API and /metrics take the control token (DATA/run/token) or the key of an admin project",
                ),
            );
        }
        return match &route {
            Route::Control(rest) => {
                Box::pin(server.control.handle(&parts.method, rest, parts.uri.query(), body, id))
                    .await
            }
            _ => Box::pin(server.control.metrics(id)).await,
        };
    }
    if matches!(route, Route::Reload)
        && token.as_ref().is_some_and(|token| server.control.is_token(token))
    {
        return Box::pin(server.control.reload(id)).await;
    }
    let authenticated = match &server.keyless {
        Some(keyless) => keyless_project(keyless, &route, dialect, settings),
        None => authenticate(server, token.as_ref()).await,
    };
    let project = match authenticated {
        Ok(project) => project,
        Err(error) => return response::error_response(dialect, id, &error),
    };
    if let Err(error) = credential::check_subnet(&project, peer.ip()) {
        return response::error_response(dialect, id, &error);
    }
    match route {
        Route::Relay(endpoint) => {
            let head = RequestHead {
                id,
                endpoint,
                caller: Caller {
                    project,
                    program: client_program(&parts.headers),
                    addr: peer.ip(),
                },
                method: parts.method,
                query,
                headers: parts.headers,
                owner: None,
            };
            handler::serve(&server.engine, head, body).await
        }
        Route::Models { id: model, gemini } => {
            let list_dialect = if gemini || parts.headers.contains_key("x-goog-api-key") {
                Dialect::Gemini
            } else if parts.headers.contains_key("anthropic-version") {
                Dialect::Anthropic
            } else {
                Dialect::Openai
            };
            builtin::models(server, id, &project, list_dialect, model.as_deref())
        }
        Route::StoredResponse { id: response, action } => {
            let caller =
                Caller { project, program: client_program(&parts.headers), addr: peer.ip() };
            stored_responses::respond(
                server,
                id,
                caller,
                (response, action),
                (parts.method, query, parts.headers),
                body,
            )
            .await
        }
        Route::RoutingApi(routing_query) => {
            Box::pin(routing_api::respond(
                server,
                id,
                &project,
                routing_query,
                query.as_deref(),
                body,
            ))
            .await
        }
        Route::Tags => builtin::tags(server, id, &project),
        Route::Reload => {
            if project.admin {
                return Box::pin(server.control.reload(id)).await;
            }
            let message = format!(
                "project `{}` is no admin; `aiproxy reload` works for the owner of this machine",
                project.name
            );
            response::error_response(
                dialect,
                id,
                &ProxyError::new(ProxyErrorKind::Forbidden, message),
            )
        }
        Route::Root | Route::Health | Route::Metrics | Route::Version | Route::Control(_) => {
            let _ = settings;
            response::error_response(
                dialect,
                id,
                &ProxyError::new(
                    ProxyErrorKind::Internal,
                    "this place is answered before; please report this",
                ),
            )
        }
    }
}

/// Returns the project of a listener that needs no credential, for the dialects that it allows.
fn keyless_project(
    keyless: &KeylessListener,
    route: &Route,
    dialect: Dialect,
    settings: &Settings,
) -> Result<Arc<Project>, ProxyError> {
    let dialect_allowed = match route {
        Route::Models { gemini: true, .. } => keyless.dialects.contains(&Dialect::Gemini),
        Route::Models { .. } => keyless.dialects.iter().any(|dialect| *dialect != Dialect::Gemini),
        Route::Reload => false,
        _ => keyless.dialects.contains(&dialect),
    };
    let raw = matches!(route, Route::Relay(endpoint) if endpoint.op == Op::Raw);
    if !dialect_allowed || raw {
        let served: Vec<&str> = keyless.dialects.iter().map(|dialect| dialect.name()).collect();
        let message = format!(
            "this listener serves {} only, without a client key; the others need theirs at the main address",
            served.join(", ")
        );
        return Err(ProxyError::new(ProxyErrorKind::Forbidden, message));
    }
    let project = settings.projects.iter().find(|project| project.name == keyless.project);
    let missing = || {
        ProxyError::new(
            ProxyErrorKind::Forbidden,
            format!("project `{}` of this listener is gone from the config", keyless.project),
        )
    };
    require_enabled(Arc::clone(project.ok_or_else(missing)?))
}

/// Returns the project of a token; waits for an unknown token while keys are still being read.
async fn authenticate(
    server: &ServerState,
    token: Option<&crate::secrets::Secret>,
) -> Result<Arc<Project>, ProxyError> {
    let find_project = |table: &ClientTable| match token {
        Some(token) => table.find(token).or(table.anonymous_project.as_ref()).cloned(),
        None => table.anonymous_project.clone(),
    };
    let changed = server.clients.changed.notified();
    tokio::pin!(changed);
    changed.as_mut().enable();
    let mut table = server.clients.table();
    if let Some(project) = find_project(&table) {
        return require_enabled(project);
    }
    if table.loading && token.is_some() {
        drop(timeout(KEY_LOAD_TIMEOUT, changed).await);
        table = server.clients.table();
        if let Some(project) = find_project(&table) {
            return require_enabled(project);
        }
        if table.loading {
            let message =
                "project keys are still being read from a slow keyring; try again shortly";
            return Err(ProxyError::new(ProxyErrorKind::Overloaded, message)
                .retry_after(Some(Duration::from_secs(2))));
        }
    }
    Err(credential::unauthorized(token))
}

fn require_enabled(project: Arc<Project>) -> Result<Arc<Project>, ProxyError> {
    if project.enabled {
        return Ok(project);
    }
    let message = format!(
        "project `{}` is disabled; set `enabled = true` in its [[project]] row",
        project.name
    );
    Err(ProxyError::new(ProxyErrorKind::Forbidden, message).code("project_disabled"))
}

/// Removes `key=` from a query; only Gemini clients use it as a credential.
fn extract_query_key(query: Option<&str>, dialect: Dialect) -> (Option<String>, Option<String>) {
    let Some(query) = query else { return (None, None) };
    if !query.contains("key=") {
        return (Some(query.to_owned()), None);
    }
    let mut key = None;
    let remaining: Vec<&str> = query
        .split('&')
        .filter(|pair| match pair.strip_prefix("key=") {
            Some(value) => {
                key = Some(value.to_owned());
                false
            }
            None => true,
        })
        .collect();
    let remaining = remaining.join("&");
    ((!remaining.is_empty()).then_some(remaining), key.filter(|_| dialect == Dialect::Gemini))
}

/// Returns the first word of User-Agent: `claude-cli`, `OpenAI/Python`.
fn client_program(headers: &HeaderMap) -> Arc<str> {
    let agent = headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let word = agent.split([' ', '(']).next().unwrap_or("");
    let name = match word.rsplit_once('/') {
        Some((name, version)) if version.starts_with(|c: char| c.is_ascii_digit()) => name,
        _ => word,
    };
    Arc::from(sanitize::truncate_end(&sanitize::clean(name), 32).as_ref())
}

fn not_found_error(
    not_found: &NotFound,
    method: &http::Method,
    path: &str,
    settings: &Settings,
) -> ProxyError {
    let path = sanitize::clean(path);
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
