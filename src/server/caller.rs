//! Finds the project and the program of a client.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, header};
use tokio::time::timeout;

use crate::{
    base::sanitize,
    config::settings::{KeylessListener, Project, Settings},
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::{Dialect, Op},
    },
    relay::request::proxy_request::Endpoint,
    secrets::Secret,
    server::{
        guard::credential::{self, ClientTable},
        paths::Route,
        state::ServerState,
    },
};

/// A request with an unknown credential waits this long if project keys are still being read.
const KEY_LOAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns the project of a listener that needs no credential, for the dialects that it allows.
pub(super) fn keyless_project(
    keyless: &KeylessListener,
    route: &Route,
    dialect: Dialect,
    settings: &Settings,
) -> Result<Arc<Project>, ProxyError> {
    let dialect_allowed = match route {
        Route::Models { gemini: true, .. } => keyless.dialects.contains(&Dialect::Gemini),
        Route::Models { .. } => keyless.dialects.iter().any(|dialect| *dialect != Dialect::Gemini),
        Route::Mcp(_) | Route::Reload => false,
        Route::Relay(endpoint) if is_ollama(endpoint) => {
            keyless.dialects.iter().any(|known| *known == dialect || *known == Dialect::Ollama)
        }
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

/// Returns whether an Ollama server answers an endpoint of the OpenAI API too.
/// <https://docs.ollama.com/openai>
fn is_ollama(endpoint: &Endpoint) -> bool {
    match endpoint.dialect {
        Dialect::Openai => matches!(endpoint.op, Op::Chat | Op::Completions | Op::Embed),
        Dialect::Responses => endpoint.op == Op::Chat,
        _ => false,
    }
}

/// Returns the project of a token; waits for an unknown token while keys are still being read.
pub(super) async fn authenticate(
    server: &ServerState,
    token: Option<&Secret>,
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
pub(super) fn extract_query_key(
    query: Option<&str>,
    dialect: Dialect,
) -> (Option<String>, Option<String>) {
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
pub(super) fn client_program(headers: &HeaderMap) -> Arc<str> {
    let agent = headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let word = agent.split([' ', '(']).next().unwrap_or("");
    let name = match word.rsplit_once('/') {
        Some((name, version)) if version.starts_with(|c: char| c.is_ascii_digit()) => name,
        _ => word,
    };
    Arc::from(sanitize::truncate_end(&sanitize::clean(name), 32).as_ref())
}
