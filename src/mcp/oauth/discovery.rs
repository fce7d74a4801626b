//! Finds the authorization server of an MCP server (RFC 9728, RFC 8414) and registers this program
//! there (RFC 7591).

use http::header;
use reqwest::Url;
use serde_json::{Value, json};

use crate::upstream::web_client::{self, WebClient};

const MAX_BYTES: usize = 1 << 20;

/// What a login needs to know.
#[derive(Clone, Debug)]
pub struct AuthorizationServer {
    pub issuer: String,
    pub authorization_endpoint: String,
    pub token_endpoint: String,
    pub registration_endpoint: Option<String>,
    /// The answer of the browser names the issuer.
    pub names_issuer: bool,
    /// The resource that tokens are for.
    pub resource: String,
    pub scope: String,
}

/// Asks an MCP server who gives tokens for it.
///
/// # Errors
///
/// A sentence: no such server, or one that does not offer PKCE with S256.
pub async fn discover(web: &WebClient, url: &str) -> Result<AuthorizationServer, String> {
    let base = Url::parse(url).map_err(|error| format!("{url}: {error}"))?;
    let (named, named_scope) = challenge(web, url).await?;
    let path = base.path().trim_end_matches('/');
    let known = "/.well-known/oauth-protected-resource";
    let mut places: Vec<Url> = named.iter().filter_map(|place| Url::parse(place).ok()).collect();
    for place in [format!("{known}{path}"), known.to_owned()] {
        places.extend(base.join(&place).ok());
    }
    let mut metadata = Value::Null;
    for place in places.iter().filter(|place| place.origin() == base.origin()) {
        if let Some(found) = get_json(web, place.as_str()).await {
            metadata = found;
            break;
        }
    }
    let issuer = metadata["authorization_servers"][0].as_str().map(str::to_owned);
    let issuer = issuer.unwrap_or_else(|| base.origin().ascii_serialization());
    let supported: Vec<&str> = metadata["scopes_supported"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let scope = named_scope.unwrap_or_else(|| supported.join(" "));
    let server = authorization_metadata(web, &issuer).await?;
    let text = |name: &str, path: &str| {
        let found = server[name].as_str().map(str::to_owned);
        found.or_else(|| Some(Url::parse(&issuer).ok()?.join(path).ok()?.to_string()))
    };
    let methods = server["code_challenge_methods_supported"].as_array();
    if methods.is_some_and(|methods| !methods.contains(&json!("S256"))) {
        return Err(format!("{issuer} does not offer PKCE with S256"));
    }
    let missing = || format!("{issuer} names no endpoints");
    let found = AuthorizationServer {
        authorization_endpoint: text("authorization_endpoint", "/authorize").ok_or_else(missing)?,
        token_endpoint: text("token_endpoint", "/token").ok_or_else(missing)?,
        registration_endpoint: server["registration_endpoint"].as_str().map(str::to_owned),
        names_issuer: server["authorization_response_iss_parameter_supported"] == Value::Bool(true),
        resource: url.to_owned(),
        scope,
        issuer,
    };
    for endpoint in [&found.authorization_endpoint, &found.token_endpoint] {
        if !endpoint.starts_with("https://") && !web_client::is_local(endpoint) {
            return Err(format!("{endpoint} is not protected by TLS"));
        }
    }
    Ok(found)
}

/// Returns what the refusal of an unknown client says: the place of the metadata and the scope.
async fn challenge(web: &WebClient, url: &str) -> Result<(Option<String>, Option<String>), String> {
    let request = web.for_url(url).await?.post(url);
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    let request = request.header(header::CONTENT_TYPE, "application/json").body(body);
    let request = request.header(header::ACCEPT, "application/json, text/event-stream");
    let response =
        request.send().await.map_err(|error| format!("{url}: {}", error.without_url()))?;
    let said = response.headers().get(header::WWW_AUTHENTICATE);
    let said = said.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let part = |name: &str| {
        let (_, rest) = said.split_once(&format!("{name}=\""))?;
        rest.split('"').next().map(str::to_owned)
    };
    Ok((part("resource_metadata"), part("scope")))
}

async fn authorization_metadata(web: &WebClient, issuer: &str) -> Result<Value, String> {
    let base = Url::parse(issuer).map_err(|error| format!("{issuer}: {error}"))?;
    let path = base.path().trim_end_matches('/');
    for place in [
        format!("/.well-known/oauth-authorization-server{path}"),
        format!("/.well-known/openid-configuration{path}"),
        format!("{path}/.well-known/openid-configuration"),
    ] {
        let Ok(place) = base.join(&place) else { continue };
        if let Some(found) = get_json(web, place.as_str()).await {
            let named = found["issuer"].as_str().unwrap_or(issuer);
            if named.trim_end_matches('/') != issuer.trim_end_matches('/') {
                return Err(format!("{place} describes another issuer"));
            }
            return Ok(found);
        }
    }
    Ok(Value::Null)
}

async fn get_json(web: &WebClient, url: &str) -> Option<Value> {
    let request = web.for_url(url).await.ok()?.get(url);
    let mut response = request.header(header::ACCEPT, "application/json").send().await.ok()?;
    if !response.status().is_success() {
        return None;
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BYTES {
            return None;
        }
    }
    serde_json::from_slice(&body).ok()
}

/// Registers this program; returns its client id.
///
/// # Errors
///
/// The server takes no registrations, or refuses this one.
pub async fn register(
    web: &WebClient,
    server: &AuthorizationServer,
    redirect: &str,
) -> Result<String, String> {
    let Some(endpoint) = &server.registration_endpoint else {
        return Err(format!("{} takes no registrations of programs", server.issuer));
    };
    let body = json!({
        "client_name": "aiproxy",
        "redirect_uris": [redirect],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "application_type": "native",
    });
    let request = web.for_url(endpoint).await?.post(endpoint).body(body.to_string());
    let request = request.header(header::CONTENT_TYPE, "application/json");
    let failed = |error: reqwest::Error| format!("{endpoint}: {}", error.without_url());
    let response = request.send().await.map_err(failed)?;
    let status = response.status();
    let body = response.bytes().await.map_err(failed)?;
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    let id = value["client_id"].as_str().filter(|_| status.is_success());
    id.map(str::to_owned).ok_or_else(|| format!("{endpoint}: HTTP {status}: no client id"))
}
