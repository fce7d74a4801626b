//! Entries of `NO_PROXY` that curl and Go take and the HTTP library does not: `*.corp`, and
//! `host:port`. The others (names, addresses, subnets, `*`) are matched by the library.

use http::Uri;

use crate::config::Environment;

/// Hosts that are reached without a proxy.
#[derive(Debug, Default)]
pub(super) struct ProxyExceptions(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    /// In lower case, without a leading `*.` or dot.
    host: String,
    /// Whether the host itself does not count, only those below it.
    only_below: bool,
    port: Option<u16>,
}

impl ProxyExceptions {
    pub(super) fn from_environment() -> Self {
        let env = Environment::from_process();
        let list = ["NO_PROXY", "no_proxy"].into_iter().find_map(|name| env.get(name));
        Self::parse(list.unwrap_or_default())
    }

    fn parse(list: &str) -> Self {
        Self(list.split(',').map(str::trim).filter_map(parse_entry).collect())
    }

    /// Whether the address is reached without a proxy.
    pub(super) fn contains(&self, to: &Uri) -> bool {
        let Some(host) = to.host().filter(|_| !self.0.is_empty()) else { return false };
        let host = bare_host(host);
        let port = to.port_u16().unwrap_or(match to.scheme_str() {
            Some("http") => 80,
            _ => 443,
        });
        self.0.iter().any(|entry| {
            let is_below =
                host.strip_suffix(&*entry.host).is_some_and(|front| front.ends_with('.'));
            entry.port.is_none_or(|wanted| wanted == port)
                && (is_below || !entry.only_below && host == entry.host)
        })
    }
}

/// Returns the entry if the library does not know its form.
fn parse_entry(text: &str) -> Option<Entry> {
    let (host, port) = match text.rsplit_once(':') {
        // Without brackets, several colons are an IPv6 address.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, Some(port.parse().ok()?))
        }
        _ => (text, None),
    };
    let below = host.strip_prefix("*.");
    if below.is_none() && port.is_none() {
        return None;
    }
    let host = bare_host(below.unwrap_or(host).trim_start_matches('.'));
    (!host.is_empty()).then_some(Entry { host, only_below: below.is_some(), port })
}

fn bare_host(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches([']', '.']).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_forms_of_curl_and_go_are_supported() {
        let list =
            "*.corp, llm.example:8443,[fd00::1]:9000, fd00::2,plain.example, ,bad:port,10.0.0.0/8";
        let all = ProxyExceptions::parse(list);
        for (address, is_direct) in [
            ("https://a.corp/v1", true),
            ("https://A.B.CORP/", true),
            ("https://corp/", false),
            ("https://notcorp/", false),
            ("https://llm.example:8443/", true),
            ("https://eu.llm.example:8443/", true),
            ("https://llm.example/", false),
            ("http://[fd00::1]:9000/", true),
            ("http://[fd00::1]/", false),
            // The library knows these.
            ("https://plain.example/", false),
            ("http://10.1.2.3/", false),
        ] {
            assert_eq!(all.contains(&address.parse().expect("a URI")), is_direct, "{address}");
        }
        assert!(!ProxyExceptions::default().contains(&Uri::from_static("https://a.corp")));
    }
}
