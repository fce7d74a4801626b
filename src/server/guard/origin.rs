//! Rejects browser requests from other origins, unless the user has listed the origin.

use http::{HeaderMap, HeaderValue, Method, header};

use crate::{
    base::sanitize,
    config,
    ir::fault::{ProxyError, ProxyErrorKind},
};

/// Longest list of headers that a preflight is allowed; browsers send far shorter ones.
const MAX_ASKED_BYTES: usize = 4_096;

/// The value of the CORS header for an allowed origin.
#[derive(Clone, Debug)]
pub struct AllowedOrigin(pub HeaderValue);

/// Checks Origin and Sec-Fetch-Site.
///
/// # Errors
///
/// 403 for any origin that is not listed, `null` included, and for cross-site fetches without an
/// Origin.
pub fn check_origin(
    headers: &HeaderMap,
    allowed: &[String],
) -> Result<Option<AllowedOrigin>, ProxyError> {
    if let Some(origin) = headers.get(header::ORIGIN) {
        let text = origin.to_str().unwrap_or("?");
        if allowed.iter().any(|listed| config::origin::matches(listed, text)) {
            return Ok(Some(AllowedOrigin(origin.clone())));
        }
        let message = format!(
            "origin `{}` is not allowed; list it in `allowed_origins` under [server] to let this web page in",
            sanitize::clean(text)
        );
        return Err(ProxyError::new(ProxyErrorKind::Forbidden, message).code("origin_not_allowed"));
    }
    let site = headers.get("sec-fetch-site").and_then(|v| v.to_str().ok());
    if matches!(site, Some("cross-site" | "same-site")) {
        return Err(ProxyError::new(ProxyErrorKind::Forbidden, "a web page may not ask aiproxy")
            .code("origin_not_allowed"));
    }
    Ok(None)
}

/// Returns whether this is a preflight request, which is answered for an allowed origin.
#[must_use]
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Sets the CORS headers of an answer for an allowed origin; never allows credentials.
pub fn set_cors_headers(origin: &AllowedOrigin, out: &mut HeaderMap) {
    out.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.0.clone());
    out.insert(header::VARY, HeaderValue::from_static("Origin"));
    // `*` stands for every header of an answer to a request without credentials.
    // https://fetch.spec.whatwg.org/#http-access-control-expose-headers
    out.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
}

/// Sets the headers of the answer to a preflight of an allowed origin: it may send every header
/// that it asks for, because vendors' SDKs add new ones with each version.
pub fn set_preflight_headers(origin: &AllowedOrigin, asked: &HeaderMap, out: &mut HeaderMap) {
    out.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.0.clone());
    out.insert(header::VARY, HeaderValue::from_static("Origin, Access-Control-Request-Headers"));
    out.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE"),
    );
    let names = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    if let Some(names) = names.filter(|names| is_name_list(names)) {
        out.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    // A local network page of Chrome asks for this too.
    if asked.contains_key("access-control-request-private-network") {
        out.insert("access-control-allow-private-network", HeaderValue::from_static("true"));
    }
    out.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
}

/// Returns whether a header holds names of headers only, and not too many.
fn is_name_list(names: &HeaderValue) -> bool {
    names.len() <= MAX_ASKED_BYTES
        && names
            .as_bytes()
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b',' | b' ' | b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_refused_unless_listed() {
        let allowed = ["http://localhost:3000".to_owned()];
        for (name, value, ok) in [
            ("origin", "http://localhost:3000", true),
            ("origin", "http://localhost:3001", false),
            ("origin", "null", false),
            ("origin", "https://evil.example", false),
            ("sec-fetch-site", "cross-site", false),
            ("sec-fetch-site", "none", true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            assert_eq!(check_origin(&headers, &allowed).is_ok(), ok, "{name}: {value}");
        }
    }
}
