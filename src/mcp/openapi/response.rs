//! Sends a request to an API and turns the answer into the result of a tool.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{Method, StatusCode, header};

use super::{credential::ApiCredential, request::ApiRequest};
use crate::{
    base::json::{raw::RawJson, reader},
    upstream::web_client::WebClient,
};

const MAX_BYTES: usize = 16 << 20;
const MAX_REDIRECTS: usize = 5;

/// Returns a result that says what went wrong.
pub(super) fn failure(text: &str) -> RawJson {
    result(text, None, true)
}

fn result(text: &str, structured: Option<&RawJson>, is_error: bool) -> RawJson {
    RawJson::object(|o| {
        o.array("content", |a| {
            a.object(|o| {
                o.str("type", "text").str("text", text);
            });
        });
        o.opt_raw("structuredContent", structured);
        o.bool("isError", is_error);
    })
}

/// Sends a request; follows redirects of the same origin only.
///
/// # Errors
///
/// A sentence: no connection, too many redirects, or an answer that is too long.
pub(super) async fn fetch(
    web: &Arc<WebClient>,
    request: ApiRequest,
    credential: &ApiCredential,
) -> Result<RawJson, String> {
    let ApiRequest { mut method, mut url, headers, mut body } = request;
    let client = web.for_url(url.as_str()).await?;
    for _ in 0..=MAX_REDIRECTS {
        let (mut signed, mut headers) = (url.clone(), headers.clone());
        credential.apply(&mut signed, &mut headers);
        if body.is_empty() {
            headers.remove(header::CONTENT_TYPE);
        }
        let sending = client.request(method.clone(), signed).headers(headers).body(body.clone());
        let response = sending.send().await.map_err(|error| describe(&error))?;
        let status = response.status();
        let location = response.headers().get(header::LOCATION).cloned();
        let Some(location) = location.filter(|_| status.is_redirection()) else {
            return read(response, credential).await;
        };
        let location = location.to_str().unwrap_or_default();
        let target = url.join(location).map_err(|error| format!("{location}: {error}"))?;
        if target.origin() != url.origin() {
            return Err(format!(
                "HTTP {status}: the API redirects to another origin, {}, which is not followed",
                target.origin().ascii_serialization()
            ));
        }
        let keeps_method =
            matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        if !keeps_method && !matches!(method, Method::GET | Method::HEAD) {
            (method, body) = (Method::GET, bytes::Bytes::new());
        }
        url = target;
    }
    Err(format!("more than {MAX_REDIRECTS} redirects"))
}

fn describe(error: &reqwest::Error) -> String {
    use std::error::Error as _;
    let mut text = "the API cannot be reached".to_owned();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("the API cannot be reached: {inner}");
        source = inner.source();
    }
    text
}

async fn read(
    mut response: reqwest::Response,
    credential: &ApiCredential,
) -> Result<RawJson, String> {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| describe(&error))? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BYTES {
            return Err(format!(
                "the answer has more than {} MiB and was cut off",
                MAX_BYTES >> 20
            ));
        }
    }
    let is_error = !status.is_success();
    let is_text = kind.is_empty()
        || kind.starts_with("text/")
        || ["json", "xml", "javascript", "yaml", "urlencoded"].iter().any(|k| kind.contains(k));
    if !is_text && !is_error {
        return Ok(binary(&kind, &body));
    }
    let text = credential.hide(&String::from_utf8_lossy(&body));
    if is_error {
        let text = text.trim();
        return Ok(failure(&format!(
            "HTTP {status}{}{text}",
            if text.is_empty() { "" } else { ": " }
        )));
    }
    if text.trim().is_empty() {
        return Ok(result(&format!("HTTP {status}"), None, false));
    }
    let structured = reader::parse(text.as_bytes()).ok().map(|json| {
        if json.is_object() {
            RawJson::from_json(json)
        } else {
            RawJson::object(|o| {
                o.json("result", json);
            })
        }
    });
    let structured = structured.filter(|_| kind.contains("json"));
    Ok(result(&text, structured.as_ref(), false))
}

fn binary(kind: &str, body: &[u8]) -> RawJson {
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let data = STANDARD.encode(body);
    RawJson::object(|o| {
        o.array("content", |a| {
            a.object(|o| match kind.split('/').next() {
                Some(family @ ("image" | "audio")) => {
                    o.str("type", family).str("data", &data).str("mimeType", kind);
                }
                _ => {
                    o.str("type", "resource").object("resource", |o| {
                        o.str("uri", "api://answer").str("mimeType", kind).str("blob", &data);
                    });
                }
            });
        });
        o.bool("isError", false);
    })
}
