//! The tables that occur once: server, discover, log, timeouts, retry, cooldown, routing,
//! translation, tui.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde_json::json;
use toml::de::DeValue;
use toml_edit::{Array, Value};

use super::{DAY, MAX_COUNT, MONTH, MS, seconds};
use crate::config::{
    choices::{Affinity, LossPolicy, Strategy},
    kinds::{
        ByteSize, Flag, KindDescription, List, Number, OneWord, SizeOrAuto, TEXT, Text, TimeSpan,
        ValueKind, Words, count,
    },
    listen, origin,
    problem::Report,
    reader::{Node, ValueError, text, truncate},
    table::config,
};

config! {
    /// Addresses, access and limits of the proxy itself.
    #[derive(Clone, Debug, PartialEq)]
    pub struct ServerSettings in "server" {
        /// Addresses to listen on; "8642" means loopback, both families
        listen: ListenAddresses = ListenAddresses::default(), ListenKind;
        /// Ask clients for a key; may be off only if every address is loopback
        auth: bool = true, Flag;
        /// Host headers accepted in addition to localhost, 127.0.0.1 and [::1]
        trusted_hosts: Vec<String> = Vec::new(), List(HOST);
        /// Origins of browser pages that may send requests
        allowed_origins: Vec<String> = Vec::new(), List(ORIGIN);
        /// Maximum size of a request body
        max_request_bytes: u64 = 64 << 20, ByteSize(1 << 10, 1 << 32);
        /// Maximum size of a response that is not a stream
        max_response_bytes: u64 = 64 << 20, ByteSize(1 << 10, 1 << 32);
        /// Maximum number of client connections
        max_connections: usize = 1024, count(1, MAX_COUNT);
        /// Maximum number of requests in flight; more get 503
        max_requests: usize = 512, count(1, MAX_COUNT);
        /// Bytes of all buffered bodies; auto is the smaller of 512MiB and a quarter of memory
        max_buffered: Option<u64> = None, SizeOrAuto(ByteSize(1 << 20, 1 << 40));
        /// How long open requests may continue at shutdown
        drain: Duration = seconds(30), TimeSpan(Duration::ZERO, seconds(3_600));
    }
}

config! {
    /// Upstreams that need no configuration.
    #[derive(Clone, Debug, PartialEq)]
    pub struct DiscoverySettings in "discover" {
        /// Use provider keys found in the environment
        env: bool = true, Flag;
        /// Look for model servers on this machine
        local: bool = true, Flag;
    }
}

config! {
    /// The proxy's own log.
    #[derive(Clone, Debug, PartialEq)]
    pub struct LogSettings in "log" {
        /// Least severe level that is logged
        level: String = "info".to_owned(),
            OneWord(&["error", "warn", "info", "debug", "trace"]);
        /// Format of a log line
        json as "format": bool = false, Words(&[("text", false), ("json", true)]);
        /// File to write to, relative to the data dir; empty is stderr
        file: Option<PathBuf> = None, FILE_OR_EMPTY;
    }
}

config! {
    /// How long each step of a request may take.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Timeouts in "timeouts" {
        /// To connect to an upstream
        connect: Duration = seconds(10), TimeSpan(MS, DAY);
        /// Until the first event of a stream that has content
        first_byte: Duration = seconds(120), TimeSpan(MS, DAY);
        /// Silence inside a stream
        idle: Duration = seconds(180), TimeSpan(MS, DAY);
        /// A request that is not a stream, all attempts together
        total: Duration = seconds(900), TimeSpan(MS, DAY);
        /// The head of a client's request
        client_head: Duration = seconds(10), TimeSpan(MS, DAY);
        /// Silence inside a client's request body
        client_idle: Duration = seconds(60), TimeSpan(MS, DAY);
        /// An idle client connection
        client_keepalive: Duration = seconds(90), TimeSpan(MS, DAY);
    }
}

config! {
    /// What happens after a failed attempt.
    #[derive(Clone, Debug, PartialEq)]
    pub struct RetrySettings in "retry" {
        /// Attempts that may have cost upstream work, including the first one
        max_attempts: u32 = 4, count(1, 32);
        /// Base of the delay before the same key is tried again
        backoff: Duration = Duration::from_millis(250), TimeSpan(MS, seconds(60));
        /// Maximum of that delay
        max_backoff: Duration = seconds(8), TimeSpan(MS, seconds(600));
        /// Share that such retries may add to the request rate, 0 to 1
        budget: f64 = 0.2, Number(0.0, 1.0);
        /// Statuses that are tried again
        statuses: StatusSet = StatusSet(
            vec![(408, 408), (409, 409), (425, 425), (429, 429), (500, 599)]
        ), Statuses;
        /// How long to wait for the soonest key before the client gets 429
        queue_for: Duration = seconds(10), TimeSpan(Duration::ZERO, seconds(600));
    }
}

config! {
    /// How long a key or an upstream is left alone after failures.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Cooldown in "cooldown" {
        /// After a 429 without a hint, doubling
        rate_limited: Duration = seconds(5), TimeSpan(MS, MONTH);
        /// After a 5xx or a network error, doubling
        server_error: Duration = seconds(15), TimeSpan(MS, MONTH);
        /// Maximum of the doubling
        max: Duration = seconds(600), TimeSpan(MS, MONTH);
        /// Maximum of what a provider asks for
        max_hint: Duration = seconds(3_600), TimeSpan(MS, MONTH);
        /// After spent quota, billing trouble or an unknown model
        quota: Duration = seconds(3_600), TimeSpan(MS, MONTH);
        /// Strikes that open the circuit of an upstream
        failures: u32 = 3, count(1, 1_000);
    }
}

config! {
    /// How one of several upstreams is chosen.
    #[derive(Clone, Debug, PartialEq)]
    pub struct RoutingSettings in "routing" {
        /// How a candidate is chosen from the best tier
        strategy: Strategy = Strategy::Priority, Words(Strategy::ALL);
        /// Upstreams of this region are preferred to equal ones elsewhere; empty means no
        /// preference
        region: String = String::new(), TEXT;
        /// Whether the turns of a conversation go to one account: by its content and its session
        /// id (auto), by the id only (session), or not
        sticky: Affinity = Affinity::Auto, Words(Affinity::ALL);
        /// How long an idle conversation is remembered
        sticky_ttl: Duration = seconds(3_600), TimeSpan(seconds(1), MONTH);
    }
}

config! {
    /// Requests whose dialect is not the upstream's.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct TranslationSettings in "translation" {
        /// Fields that an upstream's dialect cannot represent: leave them out and list them in
        /// `x-aiproxy-losses`, or refuse the request
        losses: LossPolicy = LossPolicy::Report, Words(LossPolicy::ALL);
    }
}

config! {
    /// The dashboard.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct TuiSettings in "tui" {
        /// Colours of the dashboard
        theme: String = "dark".to_owned(), OneWord(&["dark", "light", "contrast", "mono"]);
        /// Whether the dashboard uses the mouse
        mouse: bool = true, Flag;
        /// Language of the dashboard; auto is that of the locale
        lang: String = "auto".to_owned(), Language;
    }
}

const LANGUAGES: OneWord = OneWord(&["auto", "en", "zh"]);

/// A language; empty text means `auto`.
struct Language;

impl ValueKind for Language {
    type Value = String;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<String> {
        match node.get_ref().as_str() {
            Some("") => Some("auto".to_owned()),
            _ => LANGUAGES.read(path, node, report),
        }
    }

    fn write(&self, value: &String) -> Option<Value> {
        LANGUAGES.write(value)
    }

    fn describe(&self) -> KindDescription {
        LANGUAGES.describe()
    }
}

const HOST: Text<String> =
    Text { type_name: "host name", read: read_host, write: |host| Some(host.clone()) };

const ORIGIN: Text<String> =
    Text { type_name: "origin", read: read_origin, write: |origin| Some(origin.clone()) };

/// A path; empty text is `None`.
const FILE_OR_EMPTY: Text<Option<PathBuf>> = Text {
    type_name: "path",
    read: |value| Ok(Some(text(value)?).filter(|file| !file.is_empty()).map(PathBuf::from)),
    write: |file| Some(file.as_ref().map(|file| file.display().to_string()).unwrap_or_default()),
};

/// Addresses to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddresses {
    /// Port 0 only from `--listen`.
    pub addresses: Vec<SocketAddr>,
    /// The IPv6 address may be omitted if the machine has no IPv6 (`"8642"` and `":8642"` mean both
    /// families).
    pub optional_v6: bool,
}

impl Default for ListenAddresses {
    fn default() -> Self {
        Self { addresses: listen::both_loopbacks(listen::DEFAULT_PORT), optional_v6: true }
    }
}

struct ListenKind;

impl ValueKind for ListenKind {
    type Value = ListenAddresses;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<ListenAddresses> {
        let list = List(LISTEN_ADDRESS).read(path, node, report)?;
        if list.is_empty() {
            report.error(
                &node.span(),
                format!("`{path}` has no address to listen on"),
                Some("write \"127.0.0.1:8642\"".to_owned()),
            );
            return None;
        }
        let (addresses, optional_v6) = listen::join_addrs(list);
        let optional_v6 = optional_v6 || has_both_loopbacks(&addresses);
        Some(ListenAddresses { addresses, optional_v6 })
    }

    fn write(&self, value: &ListenAddresses) -> Option<Value> {
        Some(Value::Array(value.addresses.iter().map(ToString::to_string).collect::<Array>()))
    }

    fn describe(&self) -> KindDescription {
        List(LISTEN_ADDRESS).describe()
    }
}

const LISTEN_ADDRESS: Text<(Vec<SocketAddr>, bool)> =
    Text { type_name: "address", read: read_listen, write: |_| None };

fn read_listen(value: &DeValue<'_>) -> Result<(Vec<SocketAddr>, bool), ValueError> {
    let written = match value {
        DeValue::Integer(port) => port.as_str().to_owned(),
        _ => text(value)?,
    };
    let (list, both) = listen::parse_addr(&written).map_err(ValueError::from_sentence)?;
    if list.iter().any(|at| at.port() == 0) {
        return Err(ValueError::with_help(
            "port 0 is chosen anew at each start, so nothing could be pointed at it",
            "name a port from 1 to 65535; `serve --listen 127.0.0.1:0` takes any",
        ));
    }
    Ok((list, both))
}

/// Whether these are both loopback addresses with one port. On a machine without IPv6, the IPv4 one
/// suffices.
fn has_both_loopbacks(listen: &[SocketAddr]) -> bool {
    listen.iter().any(|six| {
        six.is_ipv6()
            && six.ip().is_loopback()
            && listen
                .iter()
                .any(|four| four.is_ipv4() && four.ip().is_loopback() && four.port() == six.port())
    })
}

fn read_host(value: &DeValue<'_>) -> Result<String, ValueError> {
    let host = text(value)?;
    let fine = !host.is_empty()
        && host.bytes().all(|b| {
            b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']')
        });
    if fine {
        Ok(host.to_ascii_lowercase())
    } else {
        Err(ValueError::with_help(
            format!("`{}` is not a host name", truncate(&host)),
            "write it as browsers send it: \"laptop.lan\" or \"laptop.lan:8642\"",
        ))
    }
}

fn read_origin(value: &DeValue<'_>) -> Result<String, ValueError> {
    let pattern = text(value)?;
    if origin::is_valid(&pattern) {
        return Ok(pattern.to_ascii_lowercase());
    }
    Err(ValueError::with_help(
        format!("`{}` is not an origin", truncate(&pattern)),
        "write scheme, host and port, without a path: \"http://localhost:3000\", \"http://localhost:*\", \"vscode-webview://*\"",
    ))
}

/// A set of HTTP statuses, written as `["429", "500-599"]`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StatusSet(pub Vec<(u16, u16)>);

impl StatusSet {
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|&(low, high)| (low..=high).contains(&status))
    }
}

/// Any key of `[timeouts]`, inside a row.
pub(super) fn describe_timeouts() -> KindDescription {
    KindDescription::new("table of timeouts", json!({ "$ref": "#/$defs/timeouts" }))
}

/// A list of statuses and ranges of statuses; numbers are accepted too.
pub(super) struct Statuses;

impl ValueKind for Statuses {
    type Value = StatusSet;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<StatusSet> {
        List(STATUS_RANGE).read(path, node, report).map(StatusSet)
    }

    fn write(&self, value: &StatusSet) -> Option<Value> {
        List(STATUS_RANGE).write(&value.0)
    }

    fn describe(&self) -> KindDescription {
        let schema = json!({ "type": ["string", "integer"] });
        KindDescription::new("status or range of statuses", schema).one_or_many()
    }
}

const STATUS_RANGE: Text<(u16, u16)> = Text {
    type_name: "status",
    read: read_status_range,
    write: |&(low, high)| Some(if low == high { low.to_string() } else { format!("{low}-{high}") }),
};

fn read_status_range(value: &DeValue<'_>) -> Result<(u16, u16), ValueError> {
    let written = match value {
        DeValue::Integer(number) => number.as_str().to_owned(),
        _ => text(value)?,
    };
    let bounds = written.split_once('-').unwrap_or((&written, &written));
    match (bounds.0.trim().parse::<u16>(), bounds.1.trim().parse::<u16>()) {
        (Ok(low), Ok(high))
            if (100..=599).contains(&low) && (100..=599).contains(&high) && low <= high =>
        {
            Ok((low, high))
        }
        _ => Err(ValueError::with_help(
            format!("`{}` is not an HTTP status", truncate(&written)),
            "write \"429\" or a range such as \"500-599\"",
        )),
    }
}
