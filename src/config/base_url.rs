//! Normalises a base URL: from what people paste to a URL that paths can be appended to.

use std::net::{IpAddr, SocketAddr};

use crate::ir::op::Dialect;

/// Endpoint paths that people paste with the base URL. If one ends with another, the longer one
/// comes first.
const ENDPOINTS: [(&str, Dialect); 18] = [
    ("/chat/completions", Dialect::Openai),
    ("/completions", Dialect::Openai),
    ("/responses", Dialect::Responses),
    ("/messages/count_tokens", Dialect::Anthropic),
    ("/messages", Dialect::Anthropic),
    ("/embeddings", Dialect::Openai),
    ("/moderations", Dialect::Openai),
    ("/images/generations", Dialect::Openai),
    ("/audio/speech", Dialect::Openai),
    ("/audio/transcriptions", Dialect::Openai),
    ("/rerank", Dialect::Openai),
    ("/api/chat", Dialect::Ollama),
    ("/api/generate", Dialect::Ollama),
    ("/api/tags", Dialect::Ollama),
    ("/api/embed", Dialect::Ollama),
    ("/api/embeddings", Dialect::Ollama),
    ("/api/show", Dialect::Ollama),
    ("/models", Dialect::Openai),
];

/// A base URL and its query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrlParts {
    /// Normalised, without query.
    pub base: String,
    /// Without `?`.
    pub query: Option<String>,
}

/// Normalises a base URL: cuts known endpoint suffixes, gives an empty path the dialect's default,
/// leaves any other path unchanged, and removes a slash at the end.
///
/// # Errors
///
/// A message: the problem, then after `; ` what to write instead.
pub fn normalize(text: &str, dialect: Dialect) -> Result<String, String> {
    let parts = parse(text, dialect)?;
    match parts.query {
        None => Ok(parts.base),
        Some(_) => Err(format!(
            "a query (`?…`) does not belong into a base URL; write `{}`, and parameters of requests into the requests",
            parts.base
        )),
    }
}

/// Like [`normalize`], with the query separate, for providers that need one.
///
/// # Errors
///
/// The same as [`normalize`].
pub fn parse(text: &str, dialect: Dialect) -> Result<BaseUrlParts, String> {
    let text = text.trim();
    let (scheme, rest) = split_scheme(text)?;
    let (rest, fragment) =
        rest.split_once('#').map_or((rest, None), |(rest, fragment)| (rest, Some(fragment)));
    if fragment.is_some() {
        return Err("a fragment (`#…`) does not belong into a base URL; cut it off".to_owned());
    }
    let (rest, query) =
        rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query.to_owned())));
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    if authority.contains('@') {
        return Err(
            "credentials do not belong into a base URL; put the key under `keys`".to_owned()
        );
    }
    let authority = normalize_authority(authority)?;
    if path.contains(['{', '}', '<', '>']) || authority.contains(['{', '}', '<', '>']) {
        return Err(
            "the base URL still has a placeholder in it; put the real name there".to_owned()
        );
    }
    let path = strip_endpoint(path, dialect);
    let path = if path.is_empty() { default_path(dialect) } else { path };
    Ok(BaseUrlParts {
        base: format!("{scheme}://{authority}{path}"),
        query: query.filter(|q| !q.is_empty()),
    })
}

/// Returns the dialect of a pasted endpoint, if its path identifies one.
#[must_use]
pub fn dialect_of(text: &str) -> Option<Dialect> {
    let path = text.trim().split(['?', '#']).next()?.trim_end_matches('/');
    if path.contains(":generateContent") || path.contains(":streamGenerateContent") {
        return Some(Dialect::Gemini);
    }
    let (_, dialect) =
        ENDPOINTS.iter().find(|(end, _)| *end != "/models" && path.ends_with(end))?;
    Some(if path.ends_with("/api/embeddings") { Dialect::Ollama } else { *dialect })
}

/// Returns host and port of a normalised URL.
#[must_use]
pub fn host_port(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let default = if scheme == "https" { 443 } else { 80 };
    let (host, port) = split_port(authority);
    let port = match port {
        Some(port) => port.parse().ok()?,
        None => default,
    };
    Some((host.trim_matches(['[', ']']).to_owned(), port))
}

/// Returns scheme, host and port of a URL.
#[must_use]
pub fn origin_of(url: &str) -> &str {
    let begin = url.find("://").map_or(0, |at| at + 3);
    let end = url[begin..].find('/').map_or(url.len(), |at| begin + at);
    &url[..end]
}

/// Whether a host name means this machine.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback() || ip.is_unspecified())
}

/// Whether this URL leads back to one of aiproxy's own listeners.
#[must_use]
pub fn is_local_listener(url: &str, listen: &[SocketAddr]) -> bool {
    let Some((host, port)) = host_port(url) else { return false };
    let here = is_loopback(&host);
    let ip = host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    listen.iter().any(|at| {
        let listener_ip = at.ip().to_canonical();
        at.port() == port
            && (here && (listener_ip.is_loopback() || listener_ip.is_unspecified())
                || ip == Some(listener_ip))
    })
}

/// Returns the path that replaces an empty one.
fn default_path(dialect: Dialect) -> String {
    match dialect {
        Dialect::Openai | Dialect::Responses | Dialect::Anthropic => "/v1",
        Dialect::Gemini => "/v1beta",
        Dialect::Ollama => "",
    }
    .to_owned()
}

fn split_scheme(text: &str) -> Result<(&'static str, &str), String> {
    if text.is_empty() {
        return Err(
            "an empty base URL; write the provider's address, as in `https://api.example.com/v1`"
                .to_owned(),
        );
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("a base URL has no spaces; remove them".to_owned());
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        // A host with a port looks like a scheme, and a name with an `@` would show a password.
        if text.contains('@') {
            return Err(
                "credentials do not belong into a base URL; put the key under `keys`".to_owned()
            );
        }
        let host = text.split(['/', ':']).next().unwrap_or_default();
        let local = is_loopback(host) || host.parse::<IpAddr>().is_ok();
        let scheme = if local { "http" } else { "https" };
        return Err(format!(
            "a base URL begins with http:// or https://; write `{scheme}://{}`",
            crate::config::reader::truncate(text)
        ));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "http" => Ok(("http", rest)),
        "https" => Ok(("https", rest)),
        other => Err(format!(
            "`{}://` is not a scheme that providers are reached by; use https:// or http://",
            crate::config::reader::truncate(other)
        )),
    }
}

/// Returns host and port as sent: lower case; an explicit default port stays.
fn normalize_authority(authority: &str) -> Result<String, String> {
    let (host, port) = split_port(authority);
    if host.is_empty() || host == "[]" {
        return Err(
            "the base URL names no host; write it like `https://api.example.com/v1`".to_owned()
        );
    }
    if !host.is_ascii() {
        return Err("the host has letters outside ASCII; write it in its `xn--` form".to_owned());
    }
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    if bracketed.is_some_and(|inside| inside.parse::<std::net::Ipv6Addr>().is_err())
        || (bracketed.is_none() && host.contains([':', '[', ']']))
    {
        return Err(
            "an IPv6 address stands in brackets; write it like `http://[::1]:8000/v1`".to_owned()
        );
    }
    let placeholder = host.contains(['<', '>', '{', '}']);
    if bracketed.is_none()
        && !placeholder
        && !host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    {
        return Err("the host has a character that no host name has; check the base URL".to_owned());
    }
    let host = host.to_ascii_lowercase();
    match port {
        None => Ok(host),
        Some(port) => match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok(format!("{host}:{port}")),
            _ => Err(format!(
                "`{}` is not a port; ports are 1 to 65535",
                crate::config::reader::truncate(port)
            )),
        },
    }
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        // the last colon may be inside an IPv6 address
        Some((host, port))
            if !port.contains(']') && (!host.contains(':') || host.ends_with(']')) =>
        {
            (host, Some(port))
        }
        _ => (authority, None),
    }
}

fn strip_endpoint(path: &str, dialect: Dialect) -> String {
    let mut path = path.trim_end_matches('/');
    if let Some(at) = path.find("/models/")
        && path[at..].contains(':')
    {
        // …/models/NAME:generateContent
        path = &path[..at];
    }
    let mut ends: Vec<_> = ENDPOINTS
        .iter()
        .map(|(end, _)| *end)
        .filter(|end| !end.starts_with("/api/") || dialect == Dialect::Ollama)
        .collect();
    ends.sort_by_key(|end| std::cmp::Reverse(end.len()));
    if let Some(cut) = ends.iter().find_map(|end| path.strip_suffix(end)) {
        path = cut.trim_end_matches('/');
    }
    if dialect == Dialect::Ollama {
        path = path
            .strip_suffix("/api")
            .or_else(|| path.strip_suffix("/v1"))
            .unwrap_or(path)
            .trim_end_matches('/');
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pasted_urls_are_normalised() {
        use Dialect::{Anthropic, Gemini, Ollama, Openai, Responses};
        for (text, dialect, want) in [
            ("https://api.example.com", Openai, "https://api.example.com/v1"),
            ("https://API.Example.com/", Anthropic, "https://api.example.com/v1"),
            (" https://a.b/v1/chat/completions ", Openai, "https://a.b/v1"),
            ("https://a.b/v1/messages", Anthropic, "https://a.b/v1"),
            ("https://a.b/v1/responses/", Responses, "https://a.b/v1"),
            ("https://a.b/api/paas/v4/chat/completions", Openai, "https://a.b/api/paas/v4"),
            ("https://a.b/openai/v1", Openai, "https://a.b/openai/v1"),
            ("https://a.b/v1/models", Openai, "https://a.b/v1"),
            ("https://a.b/v1beta/models/g-1:generateContent", Gemini, "https://a.b/v1beta"),
            ("https://a.b", Gemini, "https://a.b/v1beta"),
            ("http://localhost:11434", Ollama, "http://localhost:11434"),
            ("http://localhost:11434/api/chat", Ollama, "http://localhost:11434"),
            ("http://localhost:11434/api", Ollama, "http://localhost:11434"),
            ("http://localhost:11434/v1/", Ollama, "http://localhost:11434"),
            ("http://[::1]:8000/v1", Openai, "http://[::1]:8000/v1"),
            ("http://[::1]", Openai, "http://[::1]/v1"),
            ("http://10.0.0.1:80/x", Openai, "http://10.0.0.1:80/x"),
        ] {
            assert_eq!(normalize(text, dialect), Ok(want.to_owned()), "{text}");
        }
    }

    #[test]
    fn every_invalid_form_has_its_own_error() {
        for (text, part) in [
            ("", "empty"),
            ("api.example.com/v1", "write `https://api.example.com/v1`"),
            ("localhost:8080/v1", "write `http://localhost:8080/v1`"),
            ("ftp://x", "`ftp://`"),
            ("https://user:pw@a.b/v1", "credentials"),
            ("user:pw@a.b/v1", "credentials"),
            ("https://a.b/v1?x=1", "query"),
            ("https://a.b/v1#x", "fragment"),
            ("https://a b/v1", "spaces"),
            ("https://bücher.example/v1", "xn--"),
            ("https:///v1", "no host"),
            ("https://a.b:0/v1", "ports are"),
            ("https://a.b:70000/v1", "ports are"),
            ("http://::1/v1", "brackets"),
            ("https://RESOURCE_{x}.a.b/v1", "placeholder"),
        ] {
            let reply = normalize(text, Dialect::Openai).expect_err(text);
            assert!(reply.contains(part) && !reply.contains("pw"), "{text}: {reply}");
        }
    }

    #[test]
    fn local_address_is_recognised_in_every_spelling() {
        let listen: Vec<SocketAddr> = vec!["127.0.0.1:8642".parse().expect("address")];
        for (url, own) in [
            ("http://127.0.0.1:8642/v1", true),
            ("http://localhost:8642/v1", true),
            ("http://[::1]:8642/v1", true),
            ("http://127.9.9.9:8642/v1", true),
            ("http://[::ffff:127.0.0.1]:8642/v1", true),
            ("http://0.0.0.0:8642/v1", true),
            ("http://localhost:8643/v1", false),
            ("https://api.example.com/v1", false),
        ] {
            assert_eq!(is_local_listener(url, &listen), own, "{url}");
        }
        assert!(is_local_listener(
            "http://192.168.1.5:8642/v1",
            &["192.168.1.5:8642".parse().expect("address")]
        ));
    }

    proptest::proptest! {
        #[test]
        fn normalisation_is_idempotent(host in "[a-z]{1,8}(:[1-9][0-9]{1,3})?", path in "(/[a-z0-9.]{1,6}){0,3}/?") {
            for dialect in Dialect::ALL {
                if let Ok(once) = normalize(&format!("https://{host}{path}"), dialect) {
                    proptest::prop_assert_eq!(normalize(&once, dialect), Ok(once.clone()));
                }
            }
        }

        #[test]
        fn any_text_parses_or_fails_without_panic(text in ".{0,60}") {
            for dialect in Dialect::ALL {
                drop(normalize(&text, dialect));
            }
        }
    }
}
