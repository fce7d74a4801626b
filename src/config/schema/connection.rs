//! How an upstream is reached: proxy, certificates, extra headers, health check.

use std::{path::PathBuf, time::Duration};

use toml::de::DeValue;
use toml_edit::{InlineTable, Value};

use super::{DAY, names::describe_text_map, seconds};
use crate::config::{
    kinds::{KindDescription, Text, TimeSpan, ValueKind},
    problem::Report,
    reader::{self, Node, TableReader, ValueError, text, truncate},
    table::config,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxySetting {
    /// The proxy from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.
    Environment,
    Direct,
    /// http, https, socks5 or socks5h URL, credentials allowed.
    Url(String),
}

/// A proxy; `config show` hides its credentials.
pub(super) const PROXY: Text<ProxySetting> = Text {
    type_name: "URL",
    read: read_proxy,
    write: |proxy| match proxy {
        ProxySetting::Environment => None,
        ProxySetting::Direct => Some("none".to_owned()),
        ProxySetting::Url(url) => Some(without_credentials(url)),
    },
};

fn without_credentials(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) if rest.contains('@') => {
            format!("{scheme}://…@{}", rest.rsplit('@').next().unwrap_or_default())
        }
        _ => url.to_owned(),
    }
}

fn read_proxy(value: &DeValue<'_>) -> Result<ProxySetting, ValueError> {
    const PROXY_HELP: &str =
        "write \"socks5h://127.0.0.1:1080\", \"http://proxy:3128\", or \"none\" to go direct";
    let url = text(value)?;
    match url.as_str() {
        "" | "environment" => return Ok(ProxySetting::Environment),
        "none" | "direct" => return Ok(ProxySetting::Direct),
        _ => {}
    }
    // The URL may contain a password, so messages do not quote it.
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(ValueError::with_help("a proxy is named by its URL", PROXY_HELP));
    };
    if !matches!(scheme, "http" | "https" | "socks5" | "socks5h") {
        return Err(ValueError::with_help(
            format!(
                "`{}://` is not a kind of proxy: http, https, socks5, socks5h",
                truncate(scheme)
            ),
            PROXY_HELP,
        ));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host_port = authority.rsplit_once('@').map_or(authority, |(_, host_port)| host_port);
    let (host, port) = match host_port.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (host_port, None),
    };
    let bad_port = port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0));
    if host.is_empty() || bad_port || url.contains(char::is_whitespace) {
        return Err(ValueError::with_help(
            "the proxy's URL has no usable host and port",
            PROXY_HELP,
        ));
    }
    Ok(ProxySetting::Url(url))
}

/// A file; empty text is `None`.
pub(super) const CA_FILE: Text<Option<PathBuf>> = Text {
    type_name: "path",
    read: |value| Ok(Some(text(value)?).filter(|file| !file.is_empty()).map(PathBuf::from)),
    write: |file| file.as_ref().map(|file| file.display().to_string()),
};

config! {
    /// A request that is sent regularly.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct HealthCheck in "upstream.health" {
        /// Path that is requested, appended to the base URL
        path: String = "/models".to_owned(), HEALTH_PATH;
        /// How often
        interval as "every": Duration = seconds(60), TimeSpan(seconds(1), DAY);
    }
}

const HEALTH_PATH: Text<String> = Text {
    type_name: "path",
    read: |value| match text(value)? {
        path if path.starts_with('/') => Ok(path),
        _ => Err(ValueError::with_help(
            "a path begins with `/`",
            "it is appended to the base URL, as in \"/models\"",
        )),
    },
    write: |path| Some(path.clone()),
};

/// Extra headers: names and values that HTTP allows, and no headers that the connection sets.
pub(super) struct ExtraHeaders;

const CONNECTION_HEADERS: [&str; 9] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "upgrade",
    "te",
    "trailer",
    "accept-encoding",
];

impl ValueKind for ExtraHeaders {
    type Value = Vec<(String, String)>;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<Self::Value> {
        let mut table = TableReader::from_node(path, node, report)?;
        let mut out: Vec<(String, String)> = Vec::new();
        for (name, node) in table.remaining() {
            let path = table.key_path(&name.value);
            let lower = name.value.to_ascii_lowercase();
            if http::HeaderName::from_bytes(lower.as_bytes()).is_err() {
                let title = format!("`{}` is not a header name", truncate(&name.value));
                report.error(&name.span, title, None);
                continue;
            }
            if CONNECTION_HEADERS.contains(&lower.as_str()) || lower.starts_with("proxy-") {
                report.error(
                    &name.span,
                    format!("`{path}`: this header belongs to the connection and cannot be set"),
                    Some("remove it".to_owned()),
                );
                continue;
            }
            let value = reader::read_value(&path, node, report, &read_header_value);
            if out.iter().any(|(known, _)| *known == lower) {
                let title = format!("`{path}` stands twice (case makes no difference)");
                report.error(&name.span, title, None);
            } else if let Some(value) = value {
                out.push((lower, value.value));
            }
        }
        Some(out)
    }

    /// Some values are credentials, and there is no way to recognise them.
    fn write(&self, headers: &Self::Value) -> Option<Value> {
        let each = headers.iter().map(|(name, _)| (name.as_str(), "…"));
        (!headers.is_empty()).then(|| Value::InlineTable(each.collect::<InlineTable>()))
    }

    fn describe(&self) -> KindDescription {
        describe_text_map()
    }
}

/// The value may be a credential, so messages do not quote it.
fn read_header_value(value: &DeValue<'_>) -> Result<String, ValueError> {
    match text(value)? {
        text if text.bytes().all(|b| (0x20..0x7f).contains(&b)) => Ok(text),
        _ => Err(ValueError::new("a header value is of visible ASCII characters")),
    }
}
