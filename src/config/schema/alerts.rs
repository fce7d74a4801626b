//! `[alerts]` and `[otlp]`: where alerts and traces go besides the dashboard.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use toml::de::DeValue;
use toml_edit::{InlineTable, Value};

use super::names::{describe_text_map, read_reference};
use crate::{
    config::{
        choices::AlertEvent,
        kinds::{Flag, KindDescription, List, Number, Text, TimeSpan, ValueKind, Words, count},
        problem::Report,
        reader::{self, Node, TableReader, ValueError, text, truncate},
        table::config,
    },
    secrets::{Reference, Secret},
};

config! {
    /// Where alerts go besides the dashboard.
    #[derive(Clone, Debug)]
    pub struct AlertSettings in "alerts" {
        /// Show alerts as desktop notifications
        desktop: bool = false, Flag;
        /// URL that receives alerts as JSON
        webhook: Option<OutboundUrl> = None, RECEIVER;
        /// Reference to the secret that signs the messages
        secret: Option<Reference> = None, REFERENCE_OR_EMPTY;
        /// URL of a Feishu bot that receives alerts as cards
        feishu: Option<OutboundUrl> = None, RECEIVER;
        /// Which alerts are sent; there is also ledger
        events: Vec<AlertEvent> = DEFAULT_EVENTS.to_vec(), List(Words(AlertEvent::ALL));
        /// From this long on, a cooldown of one key is reported although other keys work
        key_out_after: Duration = Duration::from_secs(600), TimeSpan(SHORTEST, LONGEST);
        /// From this long on, it is reported that no key of an upstream or model is ready
        keys_cooling_after: Duration = Duration::from_secs(30), TimeSpan(SHORTEST, LONGEST);
        /// Share of failed attempts in five minutes that is reported; ends below two fifths of it
        error_percent: u32 = 50, count(1, 100);
        /// Fewer attempts in five minutes are no error rate
        error_attempts: u32 = 10, count(1, 1_000_000);
        /// Balances below this many dollars are low
        balance_below: f64 = 1.0, Number(0.0, 1e9);
        /// How many times the usual use of a day is a spike; 0: 5 down to 1.5, less for more use
        spike_factor: f64 = 0.0, Number(0.0, 1e6);
        /// The same problem is not reported again within this time
        repeat_after: Duration = Duration::from_secs(900), TimeSpan(SHORTEST, LONGEST);
    }
}

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

config! {
    /// Where traces go.
    #[derive(Clone, Debug)]
    pub struct OtlpSettings in "otlp" {
        /// Collector that receives traces (OTLP over HTTP, JSON)
        url: Option<OutboundUrl> = None, COLLECTOR;
        /// Headers sent to the collector, names in lower case; values may be references
        headers: Vec<(String, Reference)> = Vec::new(), HeaderReferences;
    }
}

const DEFAULT_EVENTS: [AlertEvent; 7] = [
    AlertEvent::KeyDown,
    AlertEvent::UpstreamDown,
    AlertEvent::Recovered,
    AlertEvent::Budget,
    AlertEvent::Balance,
    AlertEvent::ErrorRate,
    AlertEvent::Spike,
];

/// The path is as confidential as a password, so it is not shown.
const RECEIVER: Text<Option<OutboundUrl>> = Text {
    type_name: "URL",
    read: read_url,
    write: |url| Some(url.as_ref().map(|url| format!("{}/…", url.origin())).unwrap_or_default()),
};

const COLLECTOR: Text<Option<OutboundUrl>> = Text {
    type_name: "URL",
    read: read_collector_url,
    write: |url| Some(url.as_ref().map(|url| url.full().to_owned()).unwrap_or_default()),
};

/// A reference; empty text is `None`.
pub(super) const REFERENCE_OR_EMPTY: Text<Option<Reference>> = Text {
    type_name: "reference",
    read: |value| {
        if value.as_str() == Some("") { Ok(None) } else { read_reference(value).map(Some) }
    },
    write: |secret| Some(secret.as_ref().map(ToString::to_string).unwrap_or_default()),
};

/// The URL of a receiver. Paths of such URLs are often the only protection against misuse, so they
/// are never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct OutboundUrl {
    full: String,
    origin: String,
}

impl OutboundUrl {
    pub(in crate::config) fn new(full: String, origin: String) -> Self {
        Self { full, origin }
    }

    /// Returns the whole URL, only to send to it.
    #[must_use]
    pub fn full(&self) -> &str {
        &self.full
    }

    /// Returns scheme, host and port.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the host without port.
    #[must_use]
    pub fn host(&self) -> &str {
        let (_, host) = self.origin.split_once("://").unwrap_or_default();
        let port = host.rfind(':').filter(|at| !host[*at..].contains(']'));
        port.map_or(host, |at| &host[..at])
    }

    /// Returns the port, if the URL names one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.origin.rsplit_once(':')?.1.parse().ok()
    }

    /// Returns what follows the origin, without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        let rest = self.full.strip_prefix(&self.origin).unwrap_or_default();
        rest.split_once(['?', '#']).map_or(rest, |(path, _)| path)
    }

    /// Returns the same origin with another path.
    #[must_use]
    pub fn with_path(&self, path: &str) -> Self {
        Self { full: format!("{}{path}", self.origin), origin: self.origin.clone() }
    }

    /// Returns the URL with more query parameters, which are encoded already.
    #[must_use]
    pub fn with_query(&self, parameters: &str) -> Self {
        let separator = if self.full.contains('?') { '&' } else { '?' };
        Self { full: format!("{}{separator}{parameters}", self.full), origin: self.origin.clone() }
    }
}

impl std::fmt::Debug for OutboundUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OutboundUrl({}/…)", self.origin)
    }
}

/// Reads the URL of a receiver; an empty text means none.
fn read_url(value: &DeValue<'_>) -> Result<Option<OutboundUrl>, ValueError> {
    parse_url(value, &["https", "http"])
}

/// Reads a URL with one of these schemes; an empty text means none.
pub(super) fn parse_url(
    value: &DeValue<'_>,
    schemes: &[&str],
) -> Result<Option<OutboundUrl>, ValueError> {
    let written = text(value)?;
    if written.is_empty() {
        return Ok(None);
    }
    let bad = || {
        ValueError::with_help(
            "this is no address that something can be sent to",
            "write it whole, as in \"https://hooks.example/abc\"",
        )
    };
    let uri: Uri = written.parse().map_err(|_| bad())?;
    let scheme = uri.scheme_str().ok_or_else(bad)?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(bad)?;
    if !schemes.contains(&scheme) {
        return Err(ValueError::with_help(
            format!("`{}:` is not spoken here", truncate(scheme)),
            "write an address that begins with https:// or http://",
        ));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(ValueError::with_help(
            "a user name in an address is not sent",
            "leave it out; `secret` signs what is sent, `headers` under [otlp] takes credentials",
        ));
    }
    let port = uri.port_u16().map_or_else(String::new, |port| format!(":{port}"));
    let origin = format!("{scheme}://{host}{port}");
    Ok(Some(OutboundUrl::new(written, origin)))
}

/// Reads the URL of a collector; one without a path gets the default path.
fn read_collector_url(value: &DeValue<'_>) -> Result<Option<OutboundUrl>, ValueError> {
    Ok(read_url(value)?.map(|url| {
        let bare =
            url.full().strip_prefix(url.origin()).is_some_and(|path| matches!(path, "" | "/"));
        if bare {
            OutboundUrl::new(format!("{}/v1/traces", url.origin()), url.origin().to_owned())
        } else {
            url
        }
    }))
}

/// A table of header names, with references to the values or the values themselves.
pub(super) struct HeaderReferences;

impl ValueKind for HeaderReferences {
    type Value = Vec<(String, Reference)>;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<Self::Value> {
        let mut rows = TableReader::from_node(path, node, report)?;
        let mut found = Vec::new();
        for (name, node) in rows.remaining() {
            if HeaderName::from_bytes(name.value.as_bytes()).is_err() {
                report.error(
                    &name.span,
                    format!("`{}` is no name of a header", truncate(&name.value)),
                    None,
                );
                continue;
            }
            let path = rows.key_path(&name.value);
            let value = reader::read_value(&path, node, report, &read_header_value);
            found.extend(value.map(|at| (name.value.to_ascii_lowercase(), at.value)));
        }
        Some(found)
    }

    fn write(&self, headers: &Self::Value) -> Option<Value> {
        let each = headers.iter().map(|(name, value)| (name.as_str(), value.to_string()));
        (!headers.is_empty()).then(|| Value::InlineTable(each.collect::<InlineTable>()))
    }

    fn describe(&self) -> KindDescription {
        describe_text_map()
    }
}

fn read_header_value(value: &DeValue<'_>) -> Result<Reference, ValueError> {
    let written = text(value)?;
    if HeaderValue::from_str(&written).is_err() {
        return Err(ValueError::new("this cannot be sent as a header"));
    }
    // A text with spaces is not a key, but may well be a header: `Basic abc`.
    Ok(Reference::parse(&written)
        .unwrap_or_else(|_| Reference::Literal(std::sync::Arc::new(Secret::new(written)))))
}
