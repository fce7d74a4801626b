//! Rejects requests whose Host is not allowed, as a defence against DNS rebinding.

use http::{HeaderMap, Uri, header};

use crate::{
    base::sanitize,
    ir::fault::{ProxyError, ProxyErrorKind},
};

/// Checks Host (and `:authority`, and an absolute-form URI) against loopback names and `trusted`.
///
/// # Errors
///
/// 400 for a missing, repeated or malformed Host; 403 for one that is not allowed.
pub fn check_host(
    headers: &HeaderMap,
    uri: &Uri,
    http2: bool,
    trusted: &[String],
) -> Result<(), ProxyError> {
    let bad = |message: &str| Err(ProxyError::new(ProxyErrorKind::BadRequest, message));
    let mut hosts = headers.get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return bad("two Host headers");
    }
    let authority = uri.authority().map(http::uri::Authority::as_str);
    let host = match (first, authority) {
        (Some(host), authority) => {
            let Ok(host) = host.to_str() else { return bad("the Host header is not text") };
            if authority.is_some_and(|authority| !authority.eq_ignore_ascii_case(host)) {
                return bad("the request's address and its Host header disagree");
            }
            host
        }
        (None, Some(authority)) if http2 => authority,
        (None, _) => return bad("the request has no Host header"),
    };
    let Some(name) = parse_host(host) else { return bad("the Host header is malformed") };
    if is_allowed(name, trusted) {
        return Ok(());
    }
    let message = format!(
        "Host `{}` is not allowed; aiproxy answers to localhost, or to names in `trusted_hosts` under [server]",
        sanitize::clean(host)
    );
    Err(ProxyError::new(ProxyErrorKind::Forbidden, message).code("host_not_allowed"))
}

/// Returns the host without port and trailing dot; `None` if it is not a host.
fn parse_host(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let inside = rest.find(']')?;
            let (name, after) = host.split_at(inside + 2);
            (name, after.strip_prefix(':').or_else(|| after.is_empty().then_some(""))?)
        }
        None => host.split_once(':').unwrap_or((host, "")),
    };
    let good_port = port.is_empty() || port.parse::<u16>().is_ok();
    let good_name = !name.is_empty()
        && name.bytes().all(|b| {
            b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'[' | b']' | b':')
        });
    (good_port && good_name).then(|| name.strip_suffix('.').unwrap_or(name))
}

fn is_allowed(name: &str, trusted: &[String]) -> bool {
    // A literal list instead of parsing: `127.1`, `2130706433` and mapped addresses are common ways
    // to bypass such filters.
    let loopback = ["localhost", "127.0.0.1", "[::1]"];
    let is = |host: &str| host.eq_ignore_ascii_case(name);
    loopback.into_iter().any(is) || trusted.iter().any(|host| is(host.trim_end_matches('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_host_names_are_accepted() {
        let trusted = ["mybox.lan".to_owned()];
        for (host, ok) in [
            ("localhost:8642", true),
            ("LOCALHOST", true),
            ("localhost.:80", true),
            ("127.0.0.1:1", true),
            ("[::1]:8642", true),
            ("MyBox.lan:8642", true),
            ("127.1", false),
            ("2130706433", false),
            ("[::ffff:127.0.0.1]", false),
            ("127.0.0.1.evil.example", false),
            ("localhost@evil.example", false),
            ("a b", false),
            ("", false),
            ("localhost:99999", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().expect("header text"));
            assert_eq!(
                check_host(&headers, &Uri::from_static("/"), false, &trusted).is_ok(),
                ok,
                "{host}"
            );
        }
        assert!(check_host(&HeaderMap::new(), &Uri::from_static("/"), false, &[]).is_err());
    }
}
