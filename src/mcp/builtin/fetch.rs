//! `fetch`: a page of the web as Markdown. Addresses of private networks are refused, however they
//! are written and wherever a redirect or a name leads.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::header;
use serde_json::json;

use super::{BuiltinTool, ToolFuture, ToolOutput, html, public_address::is_public};
use crate::{base::json::raw::RawJson, base::json::reader::JsonRef, upstream::web_client};

const MAX_PAGE_BYTES: usize = 5 << 20;
const DEFAULT_LENGTH: usize = 20_000;
const MAX_REDIRECTS: usize = 5;
const TIMEOUT: Duration = Duration::from_secs(30);

/// The tool.
pub(super) struct Fetch {
    client: reqwest::Client,
    allow_private: bool,
}

/// Resolves names to public addresses only.
struct PublicResolver;

impl reqwest::dns::Resolve for PublicResolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|addr| is_public(addr.ip())).collect();
            if public.is_empty() {
                return Err(format!("{} leads to a private address", name.as_str()).into());
            }
            Ok(Box::new(public.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

impl Fetch {
    pub(super) async fn new(allow_private: bool) -> Result<Self, String> {
        let builder = web_client::builder().await?;
        let agent = concat!("aiproxy/", env!("CARGO_PKG_VERSION"));
        // A proxy would resolve the name itself, so that its address could not be judged.
        let builder = builder.no_proxy().user_agent(agent).timeout(TIMEOUT);
        let builder =
            if allow_private { builder } else { builder.dns_resolver(Arc::new(PublicResolver)) };
        let client = builder.build().map_err(|error| error.without_url().to_string())?;
        Ok(Self { client, allow_private })
    }

    fn check(&self, url: &reqwest::Url) -> Result<(), String> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("`{}:` addresses are not fetched; write https://…", url.scheme()));
        }
        let host = url.host_str().unwrap_or_default();
        // The parser has already turned decimal, octal and hexadecimal forms into an address.
        let addr = host.trim_matches(['[', ']']).parse();
        let is_private = addr.is_ok_and(|addr| !is_public(addr))
            || host.eq_ignore_ascii_case("localhost")
            || host.to_ascii_lowercase().ends_with(".localhost");
        if is_private && !self.allow_private {
            return Err(format!(
                "{host} is a private address; `allow_private = true` in the row of this server allows it"
            ));
        }
        Ok(())
    }

    async fn get(&self, url: &str) -> Result<(reqwest::Url, String, Vec<u8>), String> {
        let mut url = reqwest::Url::parse(url.trim()).map_err(|error| format!("{url}: {error}"))?;
        for _ in 0..=MAX_REDIRECTS {
            self.check(&url)?;
            let request = self.client.get(url.clone());
            let accept = "text/markdown, text/html, text/plain, */*;q=0.5";
            let sent = request.header(header::ACCEPT, accept).send().await;
            let mut response = sent.map_err(|error| describe(&error))?;
            let status = response.status();
            if status.is_redirection()
                && let Some(location) = response.headers().get(header::LOCATION)
            {
                let location = location.to_str().map_err(|_| "a redirect to nowhere")?;
                url = url.join(location).map_err(|error| format!("{location}: {error}"))?;
                continue;
            }
            let kind = response.headers().get(header::CONTENT_TYPE);
            let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|error| describe(&error))? {
                let left = MAX_PAGE_BYTES - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(left)]);
                if body.len() >= MAX_PAGE_BYTES {
                    break;
                }
            }
            if !status.is_success() {
                let text = String::from_utf8_lossy(&body[..body.len().min(500)]).into_owned();
                return Err(format!("HTTP {status}: {}", text.trim()));
            }
            return Ok((url, kind, body));
        }
        Err(format!("more than {MAX_REDIRECTS} redirects"))
    }
}

fn describe(error: &reqwest::Error) -> String {
    use std::error::Error as _;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    text
}

impl BuiltinTool for Fetch {
    fn name(&self) -> &'static str {
        "fetch"
    }

    fn describe(&self) -> RawJson {
        RawJson::from(&json!({
            "name": self.name(),
            "title": "Fetch a page",
            "description": "Fetches a web page and returns its content as Markdown.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "url": { "type": "string", "description": "Address, http or https" },
                    "max_length": { "type": "integer", "minimum": 1, "maximum": 1_000_000,
                        "default": DEFAULT_LENGTH, "description": "Characters to return" },
                    "start_index": { "type": "integer", "minimum": 0, "default": 0,
                        "description": "First character to return, to continue a long page" },
                    "raw": { "type": "boolean", "default": false,
                        "description": "Return the page as it is, without conversion" },
                },
                "required": ["url"],
            },
            "annotations": { "readOnlyHint": true, "openWorldHint": true },
        }))
    }

    fn call<'a>(&'a self, arguments: Option<RawJson>) -> ToolFuture<'a> {
        Box::pin(async move {
            let arguments = arguments.unwrap_or_else(crate::mcp::message::empty_object);
            let json = arguments.json();
            let url = json.non_empty_at("url").ok_or("`url` is missing")?;
            let (url, kind, body) = self.get(&url).await?;
            if !is_text(&kind) {
                return Err(format!("{url} is {kind}, not text"));
            }
            let page = String::from_utf8_lossy(&body);
            let is_raw = json.get("raw").and_then(JsonRef::bool).unwrap_or(false);
            let is_html = kind.contains("html") || page.trim_start().starts_with("<!");
            let text =
                if is_html && !is_raw { html::to_markdown(&page, &url) } else { page.into_owned() };
            let number = |name: &str, default: usize| {
                let found = json.get(name).and_then(JsonRef::u64);
                found.map_or(default, |n| usize::try_from(n).unwrap_or(usize::MAX))
            };
            let start = number("start_index", 0);
            let length = number("max_length", DEFAULT_LENGTH).clamp(1, 1_000_000);
            let total = text.chars().count();
            let mut part: String = text.chars().skip(start).take(length).collect();
            if start + length < total {
                part.push_str(&format!(
                    "\n\n[{} of {total} characters; continue with start_index = {}]",
                    part.chars().count(),
                    start + length
                ));
            }
            Ok(ToolOutput { text: part, structured: None })
        })
    }
}

fn is_text(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    kind.is_empty()
        || kind.starts_with("text/")
        || ["json", "xml", "javascript", "yaml", "toml"].iter().any(|part| kind.contains(part))
}
