//! Parses listen addresses: `"8642"`, `":8642"`, `"127.0.0.1:8642"`, `"[::1]:8642"`,
//! `"localhost:8642"`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The default port.
pub const DEFAULT_PORT: u16 = 8642;

/// Parses one address. The flag is true if the form means both families, so that the IPv6 address
/// may be omitted on a machine without IPv6. Port 0 is parsed like any other.
///
/// # Errors
///
/// A message: the problem, then after `; ` the allowed forms.
pub fn parse_addr(text: &str) -> Result<(Vec<SocketAddr>, bool), String> {
    const FORMS: &str = "write \"8642\", \"127.0.0.1:8642\" or \"[::1]:8642\"";
    let text = text.trim();
    if text.is_empty() {
        return Err(format!("an empty address; {FORMS}"));
    }
    if text.contains("://") {
        return Err(format!("an address to listen on is no URL; {FORMS}"));
    }
    let (host, port) = match text.rsplit_once(':') {
        None if text.bytes().all(|b| b.is_ascii_digit()) => ("", text),
        None => {
            return Err(format!(
                "`{}` has no port; {FORMS}",
                crate::config::reader::truncate(text)
            ));
        }
        Some((host, port)) => (host, port),
    };
    if host.contains(':') && !host.starts_with('[') {
        return Err(format!("an IPv6 address stands in brackets; {FORMS}"));
    }
    let port = port.parse::<u16>().map_err(|_| {
        format!("`{}` is not a port: 1 to 65535; {FORMS}", crate::config::reader::truncate(port))
    })?;
    if host.is_empty() || host.eq_ignore_ascii_case("localhost") {
        return Ok((both_loopbacks(port), true));
    }
    if host == "*" {
        return Err("`*` is not an address; to be reached from other machines write \"0.0.0.0:8642\" or \"[::]:8642\"".to_owned());
    }
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(ip) => Ok((vec![SocketAddr::new(ip, port)], false)),
        Err(_) => Err(format!(
            "`{}` is not an IP address; {FORMS}",
            crate::config::reader::truncate(host)
        )),
    }
}

/// Returns the loopback addresses of both families.
pub(super) fn both_loopbacks(port: u16) -> Vec<SocketAddr> {
    vec![
        SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
    ]
}

/// Parses a list in the form of `--listen`: commas between addresses. The flag is true if every
/// form means both families.
///
/// # Errors
///
/// The same as [`parse_addr`].
pub fn parse_addrs(text: &str) -> Result<(Vec<SocketAddr>, bool), String> {
    let each = text.split(',').map(parse_addr).collect::<Result<Vec<_>, _>>()?;
    Ok(join_addrs(each))
}

/// Joins addresses without duplicates.
pub(super) fn join_addrs(each: Vec<(Vec<SocketAddr>, bool)>) -> (Vec<SocketAddr>, bool) {
    let mut addresses = Vec::new();
    let mut optional = false;
    for (list, both) in each {
        optional |= both;
        for address in list {
            // Port 0 is a different port each time.
            if address.port() == 0 || !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    (addresses, optional)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        for (text, want, optional) in [
            ("8642", "127.0.0.1:8642 [::1]:8642", true),
            (":8642", "127.0.0.1:8642 [::1]:8642", true),
            ("localhost:8642", "127.0.0.1:8642 [::1]:8642", true),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("[::1]:8642", "[::1]:8642", false),
            ("0.0.0.0:80", "0.0.0.0:80", false),
            ("127.0.0.1:1,[::1]:2", "127.0.0.1:1 [::1]:2", false),
        ] {
            let (list, flag) = parse_addrs(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            let shown: Vec<_> = list.iter().map(ToString::to_string).collect();
            assert_eq!((shown.join(" ").as_str(), flag), (want, optional), "{text}");
        }
    }

    #[test]
    fn every_invalid_form_has_an_error() {
        for (text, part) in [
            ("", "empty"),
            ("127.0.0.1", "no port"),
            ("70000", "not a port"),
            ("127.0.0.1:x", "not a port"),
            ("::1:8642", "brackets"),
            ("http://127.0.0.1:8642", "no URL"),
            ("example.com:1", "not an IP address"),
            ("*:1", "0.0.0.0"),
        ] {
            let reply = parse_addr(text).expect_err(text);
            assert!(reply.contains(part), "{text}: {reply}");
        }
    }
}
