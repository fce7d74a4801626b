//! Origins of web pages that may use the proxy, as listed in `server.allowed_origins`.

/// Returns whether a text is an origin, or a pattern for origins: `SCHEME://HOST[:PORT]` without a
/// path. The port may be `*`, for any; the host may begin with `*.`; and the host may be `*` for schemes
/// other than HTTP, because editors and browsers make random hosts for their extensions.
#[must_use]
pub fn is_valid(pattern: &str) -> bool {
    let Some((scheme, host, port)) = split(pattern) else { return false };
    let web = matches!(scheme, "http" | "https");
    let name = match host.strip_prefix("*.") {
        Some(rest) if rest.contains('.') => rest,
        _ if host == "*" && !web => "any",
        _ => host,
    };
    let host_fits = !name.is_empty()
        && name.bytes().all(|b| {
            b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']')
        });
    let port_fits = port.is_none_or(|port| port == "*" || port.parse::<u16>().is_ok());
    is_scheme(scheme) && host_fits && port_fits
}

/// Returns whether an origin, as a browser sends it, matches a valid pattern.
#[must_use]
pub fn matches(pattern: &str, origin: &str) -> bool {
    if pattern.eq_ignore_ascii_case(origin) {
        return true;
    }
    let (Some((scheme, host, port)), Some((origin_scheme, origin_host, origin_port))) =
        (split(pattern), split(origin))
    else {
        return false;
    };
    let host_matches = match host.strip_prefix('*') {
        Some("") => !origin_host.is_empty(),
        Some(suffix) => {
            origin_host.len() > suffix.len()
                && !origin_host.starts_with('.')
                && ends_with(origin_host, suffix)
        }
        None => host.eq_ignore_ascii_case(origin_host),
    };
    scheme.eq_ignore_ascii_case(origin_scheme)
        && host_matches
        && (port == Some("*") || port == origin_port)
}

/// Splits an origin into scheme, host and port.
fn split(origin: &str) -> Option<(&str, &str, Option<&str>)> {
    let (scheme, rest) = origin.split_once("://")?;
    if rest.contains(['/', '?', '#', '@', '\\']) || rest.chars().any(char::is_whitespace) {
        return None;
    }
    // The colons inside the brackets of an IPv6 address begin no port.
    let after_address = rest.rfind(']').map_or(0, |at| at + 1);
    Some(match rest[after_address..].split_once(':') {
        Some((host, port)) => (scheme, &rest[..after_address + host.len()], Some(port)),
        None => (scheme, rest, None),
    })
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

fn ends_with(text: &str, suffix: &str) -> bool {
    text.get(text.len() - suffix.len()..).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_scheme_host_and_port() {
        for (pattern, valid) in [
            ("http://localhost:3000", true),
            ("http://localhost:*", true),
            ("http://[::1]:*", true),
            ("https://*.corp.example", true),
            ("vscode-webview://*", true),
            ("chrome-extension://*", true),
            ("https://*", false),
            ("http://*:3000", false),
            ("https://*.example", false),
            ("http://localhost:x", false),
            ("http://localhost/path", false),
            ("http://", false),
            ("*", false),
            ("localhost", false),
            ("h*p://localhost", false),
        ] {
            assert_eq!(is_valid(pattern), valid, "{pattern}");
        }
    }

    #[test]
    fn pattern_admits_only_matching_origins() {
        for (pattern, origin, expected) in [
            ("http://localhost:3000", "http://localhost:3000", true),
            ("http://localhost:3000", "http://localhost:30000", false),
            ("http://localhost:*", "http://localhost:5173", true),
            ("http://localhost:*", "http://localhost", true),
            ("http://localhost:*", "https://localhost:5173", false),
            ("http://localhost:*", "http://localhost.evil.example:1", false),
            ("http://localhost:*", "http://localhost:1@evil.example", false),
            ("vscode-webview://*", "vscode-webview://1a2b-3c", true),
            ("vscode-webview://*", "https://vscode-webview.evil.example", false),
            ("vscode-webview://*", "vscode-webview://", false),
            ("https://*.corp.example", "https://a.corp.example", true),
            ("https://*.corp.example", "https://corp.example", false),
            ("https://*.corp.example", "https://evilcorp.example", false),
            ("https://*.corp.example", "https://.corp.example", false),
            ("http://localhost:*", "null", false),
        ] {
            assert_eq!(matches(pattern, origin), expected, "{pattern} {origin}");
        }
    }
}
