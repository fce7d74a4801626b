//! Filters the headers that pass between client and upstream.

use std::sync::OnceLock;

use http::{HeaderMap, HeaderName, HeaderValue, header::CONNECTION};

/// Lists the proxies that forwarded a request, so that a loop is detected.
pub const HOP_HEADER: &str = "x-aiproxy-hop";
/// The header that carries the upstream's own request id.
pub const UPSTREAM_REQUEST_ID: &str = "x-upstream-request-id";
/// More hops than any real chain of proxies has.
const MAX_HOPS: usize = 16;

/// Reduces a client's headers to those for an upstream of the same dialect. Removes hop-by-hop
/// headers, credentials, cookies, browser and forwarding headers, aiproxy's own, and values that
/// are not visible ASCII.
pub fn filter_request_headers(headers: &mut HeaderMap) {
    let hop_by_hop = ConnectionHeaders::from_headers(headers);
    let passes =
        |name: &HeaderName| !is_never_forwarded(name.as_str()) || name.as_str() == HOP_HEADER;
    let removed = headers.iter().filter(|(name, value)| {
        !passes(name) || hop_by_hop.contains(name) || !is_visible_ascii(value)
    });
    let removed: Vec<HeaderName> = removed.map(|(name, _)| name.clone()).collect();
    for name in removed {
        headers.remove(name);
    }
}

/// Returns the part of a client's filtered headers for an upstream of another dialect, without
/// headers that only the client's own dialect defines.
#[must_use]
pub fn cross_dialect_headers(headers: &HeaderMap) -> HeaderMap {
    let mut out = HeaderMap::new();
    for (name, value) in headers {
        if matches!(
            name.as_str(),
            "user-agent" | "traceparent" | "tracestate" | "baggage" | HOP_HEADER
        ) {
            out.append(name.clone(), value.clone());
        }
    }
    out
}

/// Reduces an upstream's headers to those for the client. Works in place, as most responses lose
/// one or two.
pub fn filter_response_headers(headers: &mut HeaderMap) {
    if headers.len() > MAX_RESPONSE_HEADERS {
        let excess: Vec<HeaderName> = headers.keys().skip(MAX_RESPONSE_HEADERS).cloned().collect();
        for name in excess {
            headers.remove(name);
        }
    }
    let hop_by_hop = ConnectionHeaders::from_headers(headers);
    let passes = |name: &HeaderName, value: &HeaderValue| {
        let text = name.as_str();
        !(is_never_forwarded(text)
            || is_upstream_only(text)
            || hop_by_hop.contains(name)
            || !is_visible_ascii(value)
            || value.len() > MAX_VALUE_BYTES)
    };
    let is_request_id = |name: &HeaderName| matches!(name.as_str(), "x-request-id" | "request-id");
    let removed: Vec<HeaderName> = headers
        .iter()
        .filter(|(name, value)| is_request_id(name) || !passes(name, value))
        .map(|(name, _)| name.clone())
        .collect();
    for name in removed {
        let value = headers.remove(&name);
        if let Some(value) = value.filter(|value| is_request_id(&name) && is_visible_ascii(value)) {
            headers.entry(HeaderName::from_static(UPSTREAM_REQUEST_ID)).or_insert(value);
        }
    }
}

/// Clients do not read longer header values or more headers than this; some refuse the complete
/// response for them.
const MAX_VALUE_BYTES: usize = 8 << 10;
const MAX_RESPONSE_HEADERS: usize = 64;

/// Returns the hop id of this process.
#[must_use]
pub fn hop_id() -> &'static str {
    static MARK: OnceLock<String> = OnceLock::new();
    MARK.get_or_init(|| {
        let mut bytes = [0; 8];
        if getrandom::fill(&mut bytes).is_err() {
            bytes = u64::from(std::process::id()).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
        }
        format!("{:016x}", u64::from_le_bytes(bytes))
    })
}

/// Returns whether this process sent the request itself, or it passed too many proxies of this
/// kind.
#[must_use]
pub fn is_looped(headers: &HeaderMap) -> bool {
    let mut marks = headers
        .get_all(HOP_HEADER)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim);
    let mut count = 0;
    marks.any(|mark| {
        count += 1;
        mark == hop_id() || count > MAX_HOPS
    })
}

/// Appends this process's hop id to the existing ones.
pub(super) fn append_hop(headers: &mut HeaderMap) {
    static MARK: OnceLock<HeaderValue> = OnceLock::new();
    let hop_value = MARK.get_or_init(|| {
        HeaderValue::from_str(hop_id()).unwrap_or_else(|_| HeaderValue::from_static("aiproxy"))
    });
    headers.append(HeaderName::from_static(HOP_HEADER), hop_value.clone());
}

/// The headers that `Connection` declares to be hop-by-hop.
struct ConnectionHeaders<'a>(Option<&'a HeaderMap>);

impl<'a> ConnectionHeaders<'a> {
    fn from_headers(headers: &'a HeaderMap) -> Self {
        Self(headers.contains_key(CONNECTION).then_some(headers))
    }

    fn contains(&self, name: &HeaderName) -> bool {
        let Some(headers) = self.0 else { return false };
        headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|&b| b == b','))
            .any(|token| token.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
    }
}

/// Returns whether a header never passes in either direction.
fn is_never_forwarded(name: &str) -> bool {
    match name {
        "connection" | "keep-alive" | "te" | "trailer" | "transfer-encoding" | "upgrade"
        | "http2-settings" => true,
        "host" | "content-length" | "accept-encoding" | "expect" | "cookie" | "cookie2" => true,
        "authorization" | "x-api-key" | "x-goog-api-key" | "api-key" => true,
        "origin" | "referer" | "forwarded" => true,
        _ => ["proxy-", "sec-", "x-forwarded-", "x-aiproxy-"]
            .iter()
            .any(|prefix| name.starts_with(prefix)),
    }
}

/// Returns whether a header only concerns the upstream and aiproxy, or is set by aiproxy.
fn is_upstream_only(name: &str) -> bool {
    matches!(
        name,
        "set-cookie"
            | "set-cookie2"
            | "alt-svc"
            | "server"
            | "retry-after"
            | "retry-after-ms"
            | "x-should-retry"
    ) || name.starts_with("access-control-")
}

fn is_visible_ascii(value: &HeaderValue) -> bool {
    value.as_bytes().iter().all(|&b| matches!(b, b'\t' | 0x20..=0x7e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(rows: &[(&str, &[u8])]) -> HeaderMap {
        let mut out = HeaderMap::new();
        for (name, value) in rows {
            out.append(
                HeaderName::from_bytes(name.as_bytes()).expect("a header name"),
                HeaderValue::from_bytes(value).expect("a header value"),
            );
        }
        out
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn request_headers_pass_except_hop_by_hop_and_credentials() {
        let from = map(&[
            ("connection", b"keep-alive, X-Hop"),
            ("x-hop", b"1"),
            ("keep-alive", b"timeout=5"),
            ("host", b"localhost:8642"),
            ("content-length", b"3"),
            ("accept-encoding", b"gzip"),
            ("expect", b"100-continue"),
            ("cookie", b"a=b"),
            ("authorization", b"Bearer aip-x"),
            ("x-api-key", b"aip-x"),
            ("x-goog-api-key", b"aip-x"),
            ("api-key", b"aip-x"),
            ("proxy-authorization", b"Basic x"),
            ("origin", b"http://localhost"),
            ("referer", b"http://localhost"),
            ("sec-fetch-mode", b"cors"),
            ("forwarded", b"for=1"),
            ("x-forwarded-for", b"1.2.3.4"),
            ("x-aiproxy-upstream", b"work"),
            ("x-odd", b"caf\xc3\xa9"),
            ("user-agent", b"tool/1"),
            ("traceparent", b"00-1"),
            ("content-type", b"application/json"),
            ("beta", b"a"),
            ("beta", b"b"),
        ]);
        let mut out = from;
        filter_request_headers(&mut out);
        assert_eq!(names(&out), ["beta", "content-type", "traceparent", "user-agent"]);
        assert_eq!(out.get_all("beta").iter().count(), 2);
    }

    #[test]
    fn response_headers_lose_cookies_cors_credentials_and_own_headers() {
        let from = map(&[
            ("connection", b"x-private"),
            ("x-private", b"1"),
            ("proxy-authenticate", b"Basic"),
            ("proxy-connection", b"keep-alive"),
            ("upgrade", b"h2c"),
            ("set-cookie", b"a=b"),
            ("access-control-allow-origin", b"*"),
            ("alt-svc", b"h3"),
            ("server", b"x"),
            ("retry-after", b"3"),
            ("x-should-retry", b"true"),
            ("authorization", b"Bearer sk-1"),
            ("x-api-key", b"sk-1"),
            ("content-length", b"5"),
            ("x-request-id", b"req_1"),
            ("request-id", b"req_2"),
            ("content-type", b"text/event-stream"),
            ("x-ratelimit-remaining-requests", b"9"),
        ]);
        let mut out = from;
        filter_response_headers(&mut out);
        assert_eq!(
            names(&out),
            ["content-type", "x-ratelimit-remaining-requests", "x-upstream-request-id"]
        );
        assert!(
            ["req_1", "req_2"].contains(&out["x-upstream-request-id"].to_str().expect("ascii"))
        );
    }

    #[test]
    fn own_request_is_recognised_even_through_another_proxy() {
        let mut headers = map(&[("x-aiproxy-hop", b"0123456789abcdef")]);
        filter_request_headers(&mut headers);
        assert!(!is_looped(&headers));
        append_hop(&mut headers);
        let mut again = headers.clone();
        filter_request_headers(&mut again);
        again.append(HOP_HEADER, HeaderValue::from_static("fedcba9876543210"));
        assert!(is_looped(&again));
        assert!(is_looped(&map(&[(HOP_HEADER, "a,".repeat(40).as_bytes())])));
    }
}
