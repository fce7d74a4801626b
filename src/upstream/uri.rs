//! Builds the address of a request from base URL, path and the two merged queries.

use bytes::{BufMut, Bytes, BytesMut};
use http::{Uri, uri::InvalidUri};

/// Builds the complete address of a request. `path` begins with `/`.
///
/// # Errors
///
/// The result is not a URI.
pub(super) fn build_uri(
    base: &str,
    path: &str,
    endpoint_query: Option<&str>,
    client_query: Option<&str>,
) -> Result<Uri, InvalidUri> {
    let capacity = base.len()
        + path.len()
        + endpoint_query.map_or(0, str::len)
        + client_query.map_or(0, str::len)
        + 2;
    let mut out = BytesMut::with_capacity(capacity);
    out.put_slice(base.as_bytes());
    out.put_slice(path.as_bytes());
    let mut separator = b'?';
    if let Some(query) = endpoint_query.filter(|q| !q.is_empty()) {
        out.put_u8(separator);
        out.put_slice(query.as_bytes());
        separator = b'&';
    }
    for pair in client_query.unwrap_or("").split('&').filter(|pair| !pair.is_empty()) {
        let name = param_name(pair);
        // `key` is a client's credential for aiproxy; a client cannot override parameters from the
        // upstream's config.
        if &*name == "key"
            || endpoint_query
                .is_some_and(|q| q.split('&').any(|configured| param_name(configured) == name))
        {
            continue;
        }
        out.put_u8(separator);
        out.put_slice(pair.as_bytes());
        separator = b'&';
    }
    Uri::from_maybe_shared(out.freeze())
}

fn param_name(pair: &str) -> std::borrow::Cow<'_, str> {
    let raw = pair.split_once('=').map_or(pair, |(name, _)| name);
    percent_encoding::percent_decode_str(raw).decode_utf8_lossy()
}

/// Returns `host:port`, for messages. Never includes user or password.
#[must_use]
pub fn host_port(uri: &Uri) -> String {
    let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
        Some("https") => 443,
        Some("socks5" | "socks5h") => 1080,
        _ => 80,
    });
    format!("{}:{port}", uri.host().unwrap_or("?"))
}

/// Returns `host:port` of a base URL.
#[must_use]
pub fn host_port_of(base_url: &str) -> String {
    Uri::from_maybe_shared(Bytes::copy_from_slice(base_url.as_bytes()))
        .map_or_else(|_| "?".to_owned(), |uri| host_port(&uri))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_path_and_queries_are_joined_without_the_client_key() {
        for (base, path, ends, clients, expected) in [
            ("https://a.b/v1", "/models", None, None, "https://a.b/v1/models"),
            ("https://a.b", "/x", None, Some("alt=sse&key=aip-1"), "https://a.b/x?alt=sse"),
            ("https://a.b", "/x", None, Some("key=aip-1"), "https://a.b/x"),
            ("https://a.b", "/x", None, Some("%6Bey=aip-1&a"), "https://a.b/x?a"),
            (
                "http://a:1/o",
                "/x",
                Some("api-version=2"),
                Some("api-version=1&b=c"),
                "http://a:1/o/x?api-version=2&b=c",
            ),
            ("http://a:1/o", "/x", Some("api-version=2"), None, "http://a:1/o/x?api-version=2"),
        ] {
            assert_eq!(build_uri(base, path, ends, clients).expect("a URI").to_string(), expected);
        }
        assert!(build_uri("https://a.b", "/a b", None, None).is_err());
    }

    #[test]
    fn address_shows_host_and_port_only() {
        assert_eq!(host_port_of("https://user:secret@api.x.com/v1"), "api.x.com:443");
        assert_eq!(host_port_of("http://[::1]:8080"), "[::1]:8080");
    }
}
