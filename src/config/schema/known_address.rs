//! Recognises providers by their addresses: those that `assets/presets.toml` lists.

use crate::{
    config::{
        base_url,
        presets::{self, Preset},
        schema::endpoint::DialectEndpoint,
    },
    ir::op::Dialect,
};

/// Returns the preset of the provider at this URL, whatever its path. Servers on this machine are
/// not recognised, since their ports say little.
#[must_use]
pub fn find(url: &str) -> Option<&'static Preset> {
    presets::all().iter().find(|preset| !preset.is_local() && is_at(preset, url))
}

/// Returns whether a URL leads to the provider's own servers.
#[must_use]
pub fn is_at(preset: &Preset, url: &str) -> bool {
    let Some(host) = host_of(url) else { return false };
    preset.endpoints.iter().filter_map(|end| host_of(&end.base_url)).any(|known| {
        // Some providers have a host for each customer.
        match known.strip_prefix(CUSTOMER) {
            Some(rest) => host.strip_suffix(rest).is_some_and(|customer| !customer.is_empty()),
            None => known == host,
        }
    })
}

/// Returns the dialects that are spoken at this path of the provider; for a path that is not known,
/// the one that it names, or the preferred one.
#[must_use]
pub fn dialects_at(preset: &Preset, path: &str) -> Vec<Dialect> {
    let all = || preset.endpoints.iter().map(|end| end.dialect);
    let at: Vec<_> =
        all().filter(|dialect| endpoint_at(preset, *dialect, path).is_some()).collect();
    if !at.is_empty() {
        return at;
    }
    let named = all().find(|dialect| path.split('/').any(|segment| segment == dialect.name()));
    vec![named.unwrap_or(preset.endpoints[0].dialect)]
}

/// Returns the endpoint of a dialect that this path means: its own path, or that of the preferred
/// endpoint if it is below.
#[must_use]
pub fn endpoint_at<'a>(
    preset: &'a Preset,
    dialect: Dialect,
    path: &str,
) -> Option<&'a DialectEndpoint> {
    let first = &preset.endpoints[0];
    preset.endpoint(dialect).filter(|end| {
        is_path_of(end, path)
            || is_path_of(first, path) && end.base_url.starts_with(&first.base_url)
    })
}

/// Returns whether a path means one of the provider's endpoints.
#[must_use]
pub fn is_path_of_any(preset: &Preset, path: &str) -> bool {
    preset.endpoints.iter().any(|end| is_path_of(end, path))
}

/// Returns whether the path of a base URL means this endpoint: it is the endpoint's, the same
/// without the version at its end, or empty.
fn is_path_of(endpoint: &DialectEndpoint, path: &str) -> bool {
    let known = path_of(&endpoint.base_url);
    path.is_empty() || path == known || is_version_below(known, path)
}

/// Returns the path of a normalised URL, without a slash at its end.
#[must_use]
pub fn path_of(url: &str) -> &str {
    let path = &url[base_url::origin_of(url).len()..];
    path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/')
}

/// Returns whether a path is another one and a version: `/anthropic/v1` below `/anthropic`.
fn is_version_below(path: &str, above: &str) -> bool {
    let version = path.strip_prefix(above).and_then(|rest| rest.strip_prefix("/v"));
    version.is_some_and(|version| {
        version.starts_with(|c: char| c.is_ascii_digit()) && !version.contains('/')
    })
}

/// Returns the host of a URL in lower case, if the port is the usual one of a web server.
fn host_of(url: &str) -> Option<String> {
    let (host, port) = base_url::host_port(url.trim())?;
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    matches!(port, 80 | 443).then_some(host).filter(|host| !host.is_empty())
}

/// Stands in the URLs of presets for the customer's own label, here in lower case.
const CUSTOMER: &str = "resource";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_are_recognised_by_host() {
        for (url, want) in [
            ("https://api.anthropic.com", Some("anthropic")),
            ("https://API.Anthropic.com./v1/", Some("anthropic")),
            ("http://api.openai.com:80/v1/chat/completions", Some("openai")),
            ("https://api.deepseek.com/anthropic", Some("deepseek")),
            ("https://mine.openai.azure.com/openai/v1", Some("azure-openai")),
            ("https://.openai.azure.com", None),
            ("https://openai.azure.com/openai", None),
            ("https://api.openai.com:8443/v1", None),
            ("https://api.openai.com.example.org/v1", None),
            ("http://127.0.0.1:11434", None),
            ("api.openai.com", None),
            ("", None),
        ] {
            assert_eq!(find(url).map(|preset| &*preset.name), want, "{url}");
        }
    }

    #[test]
    fn version_segment_is_optional() {
        let at = |url: &str| DialectEndpoint {
            dialect: Dialect::Openai,
            base_url: url.to_owned(),
            query: None,
        };
        for (url, path, want) in [
            ("https://a.b/anthropic/v1", "/anthropic", true),
            ("https://a.b/anthropic/v1", "/anthropic/v1", true),
            ("https://a.b/anthropic/v1", "", true),
            ("https://a.b/v1beta", "", true),
            ("https://a.b/v1beta/openai", "/v1beta", false),
            ("https://a.b/api/paas/v4", "/api/coding/paas/v4", false),
            ("https://a.b/v1", "/v", false),
            ("https://a.b", "/v1", false),
        ] {
            assert_eq!(is_path_of(&at(url), path), want, "{url} {path}");
        }
    }
}
