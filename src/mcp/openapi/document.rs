//! Loads a document, and follows its references.

use std::{path::Path, sync::Arc, time::Duration};

use serde_json::Value;

use crate::{config::settings::McpServer, upstream::web_client::WebClient};

const MAX_BYTES: usize = 32 << 20;
const TIMEOUT: Duration = Duration::from_secs(20);
/// References to references.
const MAX_HOPS: usize = 16;

/// A document.
pub(super) struct Document {
    pub(super) root: Value,
    /// Where it came from, if that is an address.
    address: Option<String>,
    /// `server` of the row.
    server: Option<String>,
}

/// Reads the document of a row.
///
/// # Errors
///
/// A sentence with the place of the error.
pub(super) async fn load(row: &McpServer, web: &Arc<WebClient>) -> Result<Document, String> {
    let place = row.openapi.clone().unwrap_or_default();
    let is_address = place.starts_with("http://") || place.starts_with("https://");
    let text = if is_address { download(&place, web).await? } else { read_file(&place).await? };
    let root = parse(&text).map_err(|why| format!("{place}: {why}"))?;
    let is_known = root.get("openapi").or_else(|| root.get("swagger")).is_some();
    if !is_known || !root.get("paths").is_some_and(Value::is_object) {
        return Err(format!("{place}: this is no OpenAPI document with `paths`"));
    }
    let server = row.server.clone();
    Ok(Document { root, address: is_address.then_some(place), server })
}

async fn read_file(place: &str) -> Result<String, String> {
    let path = Path::new(place).to_owned();
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
    let read = read.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    read.map_err(|error| format!("{place}: {error}"))
}

async fn download(place: &str, web: &WebClient) -> Result<String, String> {
    let client = web.for_url(place).await?;
    let failed = |error: reqwest::Error| format!("{place}: {}", error.without_url());
    let mut response = client.get(place).timeout(TIMEOUT).send().await.map_err(failed)?;
    if !response.status().is_success() {
        return Err(format!("{place}: HTTP {}", response.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BYTES {
            return Err(format!("{place}: more than {} MiB", MAX_BYTES >> 20));
        }
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

fn parse(text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"));
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map(|at| format!("line {}: ", at.line())).unwrap_or_default();
        format!("{line}not YAML")
    })
}

impl Document {
    /// Whether it is one of Swagger 2.
    pub(super) fn is_swagger(&self) -> bool {
        self.root.get("swagger").is_some()
    }

    /// Follows a reference inside the document; other values are returned as they are.
    pub(super) fn follow<'a>(&'a self, value: &'a Value) -> &'a Value {
        let mut at = value;
        for _ in 0..MAX_HOPS {
            let Some(reference) = at.get("$ref").and_then(Value::as_str) else { return at };
            let Some(target) = self.find(reference) else { return &Value::Null };
            at = target;
        }
        &Value::Null
    }

    /// Returns what a reference names.
    pub(super) fn find(&self, reference: &str) -> Option<&Value> {
        let pointer = reference.strip_prefix('#')?;
        let pointer = percent_encoding::percent_decode_str(pointer).decode_utf8().ok()?;
        self.root.pointer(&pointer)
    }

    /// Returns the base address of operations with these servers.
    ///
    /// # Errors
    ///
    /// The document and the row name no address.
    pub(super) fn base_url(&self, servers: Option<&Value>) -> Result<reqwest::Url, String> {
        let written = self.written_server(servers);
        let absolute = written.as_deref().and_then(|url| reqwest::Url::parse(url).ok());
        if let Some(server) = &self.server {
            let base = parse_url(server)?;
            // A relative address keeps to the row's; of an absolute one only its own origin counts.
            return match (absolute, written) {
                (Some(url), _) if servers.is_some() && url.origin() == base.origin() => Ok(url),
                (Some(_), _) | (None, None) => Ok(base),
                (None, Some(relative)) if relative == "/" || relative.is_empty() => Ok(base),
                (None, Some(relative)) => base.join(&relative).map_err(|error| error.to_string()),
            };
        }
        if let Some(url) = absolute {
            return Ok(url);
        }
        let Some(address) = &self.address else {
            return Err("the document names no address of the API; set `server`".to_owned());
        };
        let base = parse_url(address)?;
        base.join(written.as_deref().unwrap_or("/")).map_err(|error| error.to_string())
    }

    fn written_server(&self, servers: Option<&Value>) -> Option<String> {
        if self.is_swagger() {
            let text = |name: &str| self.root.get(name).and_then(Value::as_str);
            let path = text("basePath").unwrap_or("/");
            let Some(host) = text("host") else { return Some(path.to_owned()) };
            let schemes = self.root.get("schemes").and_then(Value::as_array);
            let schemes: Vec<_> = schemes.into_iter().flatten().filter_map(Value::as_str).collect();
            let scheme =
                if schemes.contains(&"https") || schemes.is_empty() { "https" } else { "http" };
            return Some(format!("{scheme}://{host}{path}"));
        }
        let server = servers.or_else(|| self.root.get("servers"))?.get(0)?;
        let mut url = server.get("url")?.as_str()?.to_owned();
        for (name, variable) in
            server.get("variables").and_then(Value::as_object).into_iter().flatten()
        {
            if let Some(default) = variable.get("default").and_then(Value::as_str) {
                url = url.replace(&format!("{{{name}}}"), default);
            }
        }
        Some(url)
    }
}

fn parse_url(text: &str) -> Result<reqwest::Url, String> {
    reqwest::Url::parse(text).map_err(|error| format!("{text}: {error}"))
}
