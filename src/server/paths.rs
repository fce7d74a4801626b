//! Maps paths to routes: a dialect and an operation, or a built-in route.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use crate::{
    base::dot_segment::has_dot_segment,
    dialect::Framing,
    ir::op::{Dialect, Op},
    mcp::endpoint::McpRoute,
    relay::request::proxy_request::{Endpoint, ModelLocation, StreamMode},
    server::endpoints,
};

/// The route of a request.
#[derive(Debug)]
pub enum Route {
    Relay(Endpoint),
    /// Model lists; path and headers determine the response format.
    Models {
        id: Option<String>,
        gemini: bool,
    },
    Tags,
    /// Ollama's list of the models in memory.
    LoadedModels,
    /// MCP servers.
    Mcp(McpRoute),
    /// A query about routing itself.
    RoutingApi(RoutingQuery),
    /// Responses over a WebSocket.
    WebSocket(Endpoint),
    /// A response that was created earlier.
    StoredResponse {
        id: String,
        action: StoredAction,
    },
    Root,
    Health,
    Metrics,
    Version,
    Reload,
    /// Below `/aiproxy/v1/`.
    Control(String),
}

/// What a client asks the routing API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoutingQuery {
    /// The turns of a session.
    Context(String),
    Decide,
    /// Forgets the target that a session is bound to.
    ForgetSession(String),
    LogicalModels {
        id: Option<String>,
        upstreams: bool,
    },
    Providers {
        id: Option<String>,
        section: Option<String>,
    },
    /// The target that a session is bound to.
    Session(String),
}

/// What to do with a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredAction {
    Cancel,
    Delete,
    Get,
    InputItems,
}

/// A parsed path.
#[derive(Debug)]
pub struct RoutedPath {
    pub route: Route,
    /// The dialect in which errors are written.
    pub dialect: Dialect,
    /// The client key of a `/~KEY/…` path.
    pub path_key: Option<String>,
    /// The upstream of a `/u/UPSTREAM/…` path whose endpoint is known: only it may serve the request.
    pub upstream: Option<String>,
}

/// No route matches.
#[derive(Debug, PartialEq, Eq)]
pub struct NotFound {
    pub dialect: Dialect,
    /// The methods that the path allows, if the path is known.
    pub allow: Option<&'static str>,
}

/// Finds the route for a method and path. Accepts every form of prefix: `/v1`, none, doubled.
///
/// # Errors
///
/// [`NotFound`], with the dialect for the error.
pub fn route(method: &Method, path: &str, query: Option<&str>) -> Result<RoutedPath, NotFound> {
    let path_key = path_key(path).map(str::to_owned);
    let path = match without_key(path) {
        "" => Cow::Borrowed("/"),
        rest => Cow::Borrowed(rest),
    };
    let get = matches!(*method, Method::GET | Method::HEAD);
    let mut upstream = None;
    let known = path.strip_prefix("/u/").and_then(known_below_upstream);
    let path = match known {
        Some((name, rest)) => {
            upstream = Some(name);
            Cow::Owned(rest)
        }
        None => path,
    };
    let (beta, unversioned) = strip_version(&path);
    let dialect = dialect_of(unversioned, beta);
    let found = find_route(method, get, &path, unversioned, beta, query);
    match found {
        Ok(route) => Ok(RoutedPath { route, dialect, path_key, upstream }),
        Err(allow) => Err(NotFound { dialect, allow }),
    }
}

/// Splits `UPSTREAM/rest` if the rest, in any spelling that a server may fold, is an endpoint that
/// the proxy knows: limits, prices and owners hold there as everywhere. Other paths pass as they
/// are.
fn known_below_upstream(inside: &str) -> Option<(String, String)> {
    let (name, rest) = inside.split_once('/')?;
    let name = percent_decode_str(name).decode_utf8().ok()?.into_owned();
    let decoded = percent_decode_str(rest).decode_utf8().ok()?;
    if has_dot_segment(rest) {
        return None;
    }
    let steps: Vec<&str> = decoded.split('/').filter(|step| !step.is_empty()).collect();
    let rest = format!("/{}", steps.join("/"));
    let folded = rest.to_ascii_lowercase();
    let (_, unversioned) = strip_version(&folded);
    if endpoints::at_path(unversioned).is_some() || unversioned.starts_with("/responses/") {
        // Response ids keep their case.
        let keep = unversioned.starts_with("/responses/");
        return Some((name, if keep { rest } else { folded }));
    }
    let (_, unversioned) = strip_version(&rest);
    let action = unversioned.strip_prefix("/models/").and_then(endpoints::split_action);
    action.is_some().then_some((name, rest))
}

/// The client key of a `/~KEY/…` path.
fn path_key(path: &str) -> Option<&str> {
    split_key(path).map(|(key, _)| key)
}

/// The path behind the client key of `/~KEY/…`; begins with a slash, or is empty if nothing
/// follows the key. Other paths are returned as they are.
pub(super) fn without_key(path: &str) -> &str {
    split_key(path).map_or(path, |(_, rest)| rest)
}

/// Splits `/~KEY/rest` into the key and `/rest`. Clients may write the tilde as `%7E`.
fn split_key(path: &str) -> Option<(&str, &str)> {
    let inside = path.strip_prefix('/')?.trim_start_matches('/');
    let rest = ["~", "%7E", "%7e"].iter().find_map(|tilde| inside.strip_prefix(tilde))?;
    Some(rest.split_at(rest.find('/').unwrap_or(rest.len())))
}

/// Strips version prefixes; also returns whether one of them was Gemini's.
fn strip_version(path: &str) -> (bool, &str) {
    let (mut beta, mut rest) = (false, path);
    loop {
        let next = ["/v1beta1", "/v1beta", "/v1alpha", "/v1"].iter().find_map(|prefix| {
            rest.strip_prefix(prefix)
                .filter(|after| after.starts_with('/'))
                .map(|after| (prefix, after))
        });
        let Some((prefix, after)) = next else { return (beta, rest) };
        beta |= *prefix != "/v1";
        rest = after;
    }
}

fn dialect_of(unversioned: &str, beta: bool) -> Dialect {
    if beta
        || unversioned
            .strip_prefix("/models/")
            .is_some_and(|rest| rest.contains(':') && endpoints::split_action(rest).is_some())
    {
        Dialect::Gemini
    } else if unversioned.starts_with("/messages") {
        Dialect::Anthropic
    } else if unversioned.starts_with("/responses") {
        Dialect::Responses
    } else if unversioned.starts_with("/api/") {
        Dialect::Ollama
    } else {
        Dialect::Openai
    }
}

fn find_route(
    method: &Method,
    get: bool,
    path: &str,
    unversioned: &str,
    beta: bool,
    query: Option<&str>,
) -> Result<Route, Option<&'static str>> {
    let post = *method == Method::POST;
    let only_get = |route: Route| if get { Ok(route) } else { Err(Some("GET")) };
    match path {
        "/" | "" => return only_get(Route::Root),
        "/health" => return only_get(Route::Health),
        "/metrics" => return only_get(Route::Metrics),
        "/v1/reload" => return if post { Ok(Route::Reload) } else { Err(Some("POST")) },
        _ => {}
    }
    if let Some(rest) = path.strip_prefix("/aiproxy/v1/") {
        return Ok(Route::Control(rest.to_owned()));
    }
    if path == "/mcp" || path.starts_with("/mcp/") {
        return McpRoute::parse(path).map(Route::Mcp).ok_or(None);
    }
    if let Some(rest) = path.strip_prefix("/u/") {
        let (upstream, rest) = rest.split_once('/').ok_or(None)?;
        if has_dot_segment(rest) {
            return Err(None);
        }
        let upstream = percent_decode_str(upstream).decode_utf8().map_err(|_| None)?.into_owned();
        return Ok(Route::Relay(Endpoint {
            dialect: Dialect::Openai,
            op: Op::Raw,
            path: format!("/{rest}").into(),
            model: ModelLocation::Upstream(upstream),
            stream: StreamMode::Never,
        }));
    }
    if let Some(found) = routing_api_route(method, get, unversioned) {
        return found.map(Route::RoutingApi);
    }
    if let Some(rest) = unversioned.strip_prefix("/models") {
        return models_route(rest, get, post, beta, query);
    }
    if let Some(rest) = unversioned
        .strip_prefix("/responses/")
        .filter(|rest| !matches!(*rest, "compact" | "input_tokens"))
    {
        return stored_route(method, get, rest);
    }
    match unversioned {
        "/api/tags" => return only_get(Route::Tags),
        "/api/ps" => return only_get(Route::LoadedModels),
        "/api/version" => return only_get(Route::Version),
        _ => {}
    }
    if let Some(endpoint) = endpoints::of_upstream(unversioned, beta) {
        return if has_dot_segment(unversioned) { Err(None) } else { Ok(Route::Relay(endpoint)) };
    }
    let endpoint = endpoints::at_path(unversioned).ok_or(None)?;
    if post { Ok(Route::Relay(endpoint)) } else { Err(Some("POST")) }
}

/// `/responses/{id}`, `/responses/{id}/cancel`, `/responses/{id}/input_items`.
fn stored_route(method: &Method, get: bool, rest: &str) -> Result<Route, Option<&'static str>> {
    let (id, action) = rest.split_once('/').map_or((rest, None), |(id, action)| (id, Some(action)));
    if id.is_empty()
        || id.len() > 256
        || !id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        || id == ".."
    {
        return Err(None);
    }
    let what = match action {
        None if get => StoredAction::Get,
        None if *method == Method::DELETE => StoredAction::Delete,
        None => return Err(Some("GET, DELETE")),
        Some("cancel") if *method == Method::POST => StoredAction::Cancel,
        Some("cancel") => return Err(Some("POST")),
        Some("input_items") if get => StoredAction::InputItems,
        Some("input_items") => return Err(Some("GET")),
        Some(_) => return Err(None),
    };
    Ok(Route::StoredResponse { id: id.to_owned(), action: what })
}

/// `/providers…`, `/logical-models…`, `/routing/…`. Model names may contain slashes.
fn routing_api_route(
    method: &Method,
    get: bool,
    unversioned: &str,
) -> Option<Result<RoutingQuery, Option<&'static str>>> {
    let only_get = |query| if get { Ok(query) } else { Err(Some("GET")) };
    let decoded = |text: &str| {
        percent_decode_str(text)
            .decode_utf8()
            .ok()
            .map(|text| text.into_owned())
            .filter(|text| !text.is_empty())
    };
    if unversioned == "/routing/decide" {
        return Some(if *method == Method::POST {
            Ok(RoutingQuery::Decide)
        } else {
            Err(Some("POST"))
        });
    }
    if let Some(id) = unversioned.strip_prefix("/context/").and_then(decoded) {
        return Some(only_get(RoutingQuery::Context(id)));
    }
    if let Some(id) = unversioned.strip_prefix("/routing/sessions/").and_then(decoded) {
        return Some(match method {
            _ if get => Ok(RoutingQuery::Session(id)),
            &Method::DELETE => Ok(RoutingQuery::ForgetSession(id)),
            _ => Err(Some("GET, DELETE")),
        });
    }
    if let Some(rest) = unversioned
        .strip_prefix("/providers")
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
    {
        let rest = rest.trim_matches('/');
        let (id, section) =
            rest.split_once('/').map_or((rest, None), |(id, section)| (id, Some(section)));
        if section.is_some_and(|part| !matches!(part, "models" | "health" | "metrics")) {
            return Some(Err(None));
        }
        return Some(only_get(RoutingQuery::Providers {
            id: decoded(id),
            section: section.map(str::to_owned),
        }));
    }
    let rest = unversioned
        .strip_prefix("/logical-models")
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))?
        .trim_matches('/');
    let (id, upstreams) = rest.strip_suffix("/upstreams").map_or((rest, false), |id| (id, true));
    Some(only_get(RoutingQuery::LogicalModels { id: decoded(id), upstreams }))
}

/// `/models`, `/models/{id}`, and Gemini's `/models/{id}:{action}`.
fn models_route(
    rest: &str,
    get: bool,
    post: bool,
    beta: bool,
    query: Option<&str>,
) -> Result<Route, Option<&'static str>> {
    let only_get = |id| if get { Ok(Route::Models { id, gemini: beta }) } else { Err(Some("GET")) };
    let rest = match rest {
        "" | "/" => return only_get(None),
        rest => rest.strip_prefix('/').ok_or(None)?,
    };
    let decoded = |text: &str| {
        percent_decode_str(text).decode_utf8().map(|text| text.into_owned()).map_err(|_| None)
    };
    let Some((model, action)) = endpoints::split_action(rest) else {
        return only_get(Some(decoded(rest)?));
    };
    let sse = query
        .is_some_and(|query| query.split('&').any(|pair| pair.eq_ignore_ascii_case("alt=sse")));
    let framing = if sse { Framing::Sse } else { Framing::JsonArray };
    let endpoint = endpoints::gemini_action(decoded(model)?, action, framing).ok_or(None)?;
    if post { Ok(Route::Relay(endpoint)) } else { Err(Some("POST")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(method: &Method, path: &str) -> Result<(Dialect, Op, String), NotFound> {
        match route(method, path, Some("alt=sse"))?.route {
            Route::Relay(endpoint) => {
                Ok((endpoint.dialect, endpoint.op, endpoint.path.into_owned()))
            }
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn path_prefixes_reach_the_same_endpoint() {
        for path in [
            "/v1/chat/completions",
            "/chat/completions",
            "/v1/v1/chat/completions",
            "/~aip-key/v1/chat/completions",
        ] {
            assert_eq!(
                at(&Method::POST, path),
                Ok((Dialect::Openai, Op::Chat, "/chat/completions".to_owned())),
                "{path}"
            );
        }
        for path in ["/v1/messages", "/messages", "/v1/v1/messages"] {
            assert_eq!(
                at(&Method::POST, path),
                Ok((Dialect::Anthropic, Op::Chat, "/messages".to_owned())),
                "{path}"
            );
        }
        for path in [
            "/v1beta/models/a%2Fb:generateContent",
            "/v1/models/a/b:generateContent",
            "/models/a/b:generateContent",
        ] {
            assert_eq!(
                at(&Method::POST, path),
                Ok((Dialect::Gemini, Op::Chat, "/models/{model}:generateContent".to_owned())),
                "{path}"
            );
        }
        assert_eq!(
            at(&Method::POST, "/u/openai/v1/files"),
            Ok((Dialect::Openai, Op::Raw, "/v1/files".to_owned()))
        );
    }

    #[test]
    fn wrong_paths_and_methods_are_errors_of_the_client_dialect() {
        for (method, path, dialect, allow) in [
            (Method::POST, "/v1/foo", Dialect::Openai, None),
            (Method::GET, "/v1/messages", Dialect::Anthropic, Some("POST")),
            (Method::DELETE, "/v1/chat/completions", Dialect::Openai, Some("POST")),
            (Method::POST, "/v1beta/foo", Dialect::Gemini, None),
            (Method::GET, "/v1/../aiproxy/v1/snapshot", Dialect::Openai, None),
            (Method::POST, "/u/openai/../x", Dialect::Openai, None),
            (Method::POST, "/api/pull", Dialect::Ollama, None),
        ] {
            assert_eq!(
                route(&method, path, None).map(|r| format!("{r:?}")),
                Err(NotFound { dialect, allow }),
                "{method} {path}"
            );
        }
    }

    #[test]
    fn key_in_the_path_is_removed() {
        let routed = route(&Method::GET, "/~aip-abc/v1/models", None).expect("a route");
        assert_eq!(routed.path_key.as_deref(), Some("aip-abc"));
        assert!(matches!(routed.route, Route::Models { id: None, gemini: false }));
    }
}
