//! The tables that occur once: server, discover, log, timeouts, retry, cooldown, routing, ledger,
//! tui.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use toml::de::DeValue;

use super::{ledger, read_statuses};
use crate::config::{
    listen,
    problem::Report,
    reader::{
        self, SourceSpan, TableReader, ValueError, count, duration, flag, number, one_of, size,
        text,
    },
    settings::{
        Affinity, Cooldown, DiscoverySettings, LedgerSettings, LogSettings, LossPolicy,
        RetrySettings, ServerSettings, StatusSet, Strategy, Timeouts, TuiSettings,
    },
};

const MS: Duration = Duration::from_millis(1);
const DEFAULT_STICKY_TTL: Duration = seconds(3_600);
const DAY: Duration = Duration::from_secs(86_400);

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(in crate::config) struct RawGeneral {
    pub(in crate::config) server: ServerSettings,
    /// Positions of `listen` and `auth`, for checks that need both.
    pub(in crate::config) listen_span: Option<SourceSpan>,
    pub(in crate::config) auth_span: Option<SourceSpan>,
    pub(in crate::config) discover: DiscoverySettings,
    pub(in crate::config) log: LogSettings,
    pub(in crate::config) timeouts: Timeouts,
    pub(in crate::config) retry: RetrySettings,
    pub(in crate::config) cooldown: Cooldown,
    pub(in crate::config) strategy: Strategy,
    pub(in crate::config) region: String,
    pub(in crate::config) sticky: Affinity,
    pub(in crate::config) sticky_ttl: Duration,
    pub(in crate::config) losses: LossPolicy,
    pub(in crate::config) ledger: LedgerSettings,
    pub(in crate::config) tui: TuiSettings,
}

pub(super) fn read_general(top: &mut TableReader<'_>, report: &mut Report) -> RawGeneral {
    let (mut server, mut listen_at, mut auth_at) = (default_server(), None, None);
    if let Some(table) = top.child("server", report) {
        (server, listen_at, auth_at) = read_server(table, server, report);
    }
    let mut general = RawGeneral {
        server,
        listen_span: listen_at,
        auth_span: auth_at,
        discover: DiscoverySettings { env: true, local: true },
        log: LogSettings { level: "info".to_owned(), json: false, file: None },
        timeouts: default_timeouts(),
        retry: default_retry(),
        cooldown: default_cooldown(),
        strategy: Strategy::Priority,
        region: String::new(),
        sticky: Affinity::Auto,
        sticky_ttl: DEFAULT_STICKY_TTL,
        losses: LossPolicy::Report,
        ledger: LedgerSettings::default(),
        tui: TuiSettings { theme: "dark".to_owned(), mouse: true, lang: "auto".to_owned() },
    };
    if let Some(mut table) = top.child("discover", report) {
        general.discover.env = table.read_or("env", report, true, flag);
        general.discover.local = table.read_or("local", report, true, flag);
        table.finish(report);
    }
    if let Some(table) = top.child("log", report) {
        general.log = read_log(table, report);
    }
    if let Some(table) = top.child("timeouts", report) {
        general.timeouts = read_timeouts(table, general.timeouts, report);
    }
    if let Some(table) = top.child("retry", report) {
        general.retry = read_retry(table, general.retry, report);
    }
    if let Some(table) = top.child("cooldown", report) {
        general.cooldown = read_cooldown(table, &general.cooldown, report);
    }
    if let Some(mut table) = top.child("routing", report) {
        general.strategy =
            table.read_or("strategy", report, Strategy::Priority, super::read_strategy);
        general.region = table.read_or("region", report, String::new(), text);
        general.sticky = table.read_or("sticky", report, Affinity::Auto, one_of(&Affinity::ALL));
        general.sticky_ttl =
            table.read_or("sticky_ttl", report, DEFAULT_STICKY_TTL, duration(seconds(1), 30 * DAY));
        table.finish(report);
    }
    if let Some(mut table) = top.child("translation", report) {
        general.losses = table.read_or(
            "losses",
            report,
            LossPolicy::Report,
            one_of(&[("tell", LossPolicy::Report), ("refuse", LossPolicy::Refuse)]),
        );
        table.finish(report);
    }
    if let Some(table) = top.child("ledger", report) {
        general.ledger = ledger::read_ledger(table, report);
    }
    if let Some(mut table) = top.child("tui", report) {
        let themes = one_of(&[
            ("dark", "dark"),
            ("light", "light"),
            ("contrast", "contrast"),
            ("mono", "mono"),
        ]);
        general.tui.theme = table.read_or("theme", report, "dark", themes).to_owned();
        general.tui.mouse = table.read_or("mouse", report, true, flag);
        let languages = one_of(&[("", "auto"), ("auto", "auto"), ("en", "en"), ("zh", "zh")]);
        general.tui.lang = table.read_or("lang", report, "auto", languages).to_owned();
        table.finish(report);
    }
    general
}

fn default_server() -> ServerSettings {
    let (listen, optional_v6) = listen::parse_addr("8642").unwrap_or_default();
    ServerSettings {
        listen,
        optional_v6,
        auth: true,
        trusted_hosts: Vec::new(),
        allowed_origins: Vec::new(),
        max_request_bytes: 64 << 20,
        max_response_bytes: 64 << 20,
        max_connections: 1024,
        max_requests: 512,
        max_buffered: None,
        drain: seconds(30),
    }
}

fn default_timeouts() -> Timeouts {
    Timeouts {
        connect: seconds(10),
        first_byte: seconds(120),
        idle: seconds(180),
        total: seconds(900),
        client_head: seconds(10),
        client_idle: seconds(60),
        client_keepalive: seconds(90),
    }
}

fn default_retry() -> RetrySettings {
    RetrySettings {
        max_attempts: 4,
        backoff: Duration::from_millis(250),
        max_backoff: seconds(8),
        budget: 0.2,
        statuses: StatusSet(vec![(408, 408), (409, 409), (425, 425), (429, 429), (500, 599)]),
        queue_for: seconds(10),
    }
}

fn default_cooldown() -> Cooldown {
    Cooldown {
        rate_limited: seconds(5),
        server_error: seconds(15),
        max: seconds(600),
        max_hint: seconds(3_600),
        quota: seconds(3_600),
        failures: 3,
    }
}

fn read_server(
    mut table: TableReader<'_>,
    mut server: ServerSettings,
    report: &mut Report,
) -> (ServerSettings, Option<SourceSpan>, Option<SourceSpan>) {
    let listen_at = table.read_list("listen", report, read_listen);
    let listen_span = listen_at.as_ref().map(|at| at.span.clone());
    if let Some(list) = listen_at {
        if list.value.is_empty() {
            report.error(
                &list.span,
                "`server.listen` has no address to listen on",
                Some("write \"127.0.0.1:8642\"".to_owned()),
            );
        } else {
            (server.listen, server.optional_v6) =
                listen::join_addrs(list.value.into_iter().map(|at| at.value).collect());
            server.optional_v6 |= both_families(&server.listen);
        }
    }
    let auth = table.read("auth", report, flag);
    let auth_span = auth.as_ref().map(|at| at.span.clone());
    server.auth = auth.is_none_or(|at| at.value);
    let words = |at: Option<reader::Located<Vec<reader::Located<String>>>>| {
        at.map(|at| at.value.into_iter().map(|at| at.value).collect()).unwrap_or_default()
    };
    server.trusted_hosts = words(table.read_list("trusted_hosts", report, read_host));
    server.allowed_origins = words(table.read_list("allowed_origins", report, read_origin));
    server.max_request_bytes = table.read_or(
        "max_request_bytes",
        report,
        server.max_request_bytes,
        size(1 << 10, 1 << 32),
    );
    server.max_response_bytes = table.read_or(
        "max_response_bytes",
        report,
        server.max_response_bytes,
        size(1 << 10, 1 << 32),
    );
    let many = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    server.max_connections = table
        .read("max_connections", report, count(1, 1_000_000))
        .map_or(server.max_connections, |at| many(at.value));
    server.max_requests = table
        .read("max_requests", report, count(1, 1_000_000))
        .map_or(server.max_requests, |at| many(at.value));
    server.max_buffered =
        table.read_or("max_buffered", report, None, |value| match value.as_str() {
            Some("auto") => Ok(None),
            _ => size(1 << 20, 1 << 40)(value).map(Some),
        });
    server.drain =
        table.read_or("drain", report, server.drain, duration(Duration::ZERO, seconds(3_600)));
    table.finish(report);
    (server, listen_span, auth_span)
}

fn read_listen(value: &DeValue<'_>) -> Result<(Vec<SocketAddr>, bool), ValueError> {
    let written = match value {
        DeValue::Integer(port) => port.as_str().to_owned(),
        _ => text(value)?,
    };
    let (list, both) =
        listen::parse_addr(&written).map_err(|sentence| match sentence.split_once("; ") {
            Some((title, help)) => ValueError::with_help(title, help),
            None => ValueError::new(sentence),
        })?;
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
fn both_families(listen: &[SocketAddr]) -> bool {
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
            format!("`{}` is not a host name", reader::truncate(&host)),
            "write it as browsers send it: \"laptop.lan\" or \"laptop.lan:8642\"",
        ))
    }
}

fn read_origin(value: &DeValue<'_>) -> Result<String, ValueError> {
    let origin = text(value)?;
    let rest = origin.split_once("://").map(|(_, rest)| rest);
    if rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '?', '#', '*', ' '])) {
        return Ok(origin.to_ascii_lowercase());
    }
    Err(ValueError::with_help(
        format!("`{}` is not an origin", reader::truncate(&origin)),
        "write scheme, host and port, without a path: \"http://localhost:3000\"",
    ))
}

fn read_log(mut table: TableReader<'_>, report: &mut Report) -> LogSettings {
    let levels = one_of(&[
        ("error", "error"),
        ("warn", "warn"),
        ("info", "info"),
        ("debug", "debug"),
        ("trace", "trace"),
    ]);
    let log = LogSettings {
        level: table.read_or("level", report, "info", levels).to_owned(),
        json: table.read_or("format", report, false, one_of(&[("text", false), ("json", true)])),
        file: table
            .read("file", report, text)
            .map(|at| at.value)
            .filter(|file| !file.is_empty())
            .map(PathBuf::from),
    };
    table.finish(report);
    log
}

/// Reads `[timeouts]` and similar tables; missing keys leave the value unchanged.
pub(in crate::config) fn read_timeouts(
    mut table: TableReader<'_>,
    base: Timeouts,
    report: &mut Report,
) -> Timeouts {
    let mut take = |name, default| table.read_or(name, report, default, duration(MS, DAY));
    let timeouts = Timeouts {
        connect: take("connect", base.connect),
        first_byte: take("first_byte", base.first_byte),
        idle: take("idle", base.idle),
        total: take("total", base.total),
        client_head: take("client_head", base.client_head),
        client_idle: take("client_idle", base.client_idle),
        client_keepalive: take("client_keepalive", base.client_keepalive),
    };
    table.finish(report);
    timeouts
}

fn read_retry(
    mut table: TableReader<'_>,
    base: RetrySettings,
    report: &mut Report,
) -> RetrySettings {
    let retry = RetrySettings {
        max_attempts: table.read_or("max_attempts", report, base.max_attempts, count(1, 32)),
        backoff: table.read_or("backoff", report, base.backoff, duration(MS, seconds(60))),
        max_backoff: table.read_or(
            "max_backoff",
            report,
            base.max_backoff,
            duration(MS, seconds(600)),
        ),
        budget: table.read_or("budget", report, base.budget, number(0.0, 1.0)),
        statuses: read_statuses(&mut table, "statuses", report).unwrap_or(base.statuses),
        queue_for: table.read_or(
            "queue_for",
            report,
            base.queue_for,
            duration(Duration::ZERO, seconds(600)),
        ),
    };
    table.finish(report);
    retry
}

fn read_cooldown(mut table: TableReader<'_>, base: &Cooldown, report: &mut Report) -> Cooldown {
    let mut take = |name, default| table.read_or(name, report, default, duration(MS, 30 * DAY));
    let mut cooldown = Cooldown {
        rate_limited: take("rate_limited", base.rate_limited),
        server_error: take("server_error", base.server_error),
        max: take("max", base.max),
        max_hint: take("max_hint", base.max_hint),
        quota: take("quota", base.quota),
        failures: base.failures,
    };
    cooldown.failures = table.read_or("failures", report, base.failures, count(1, 1_000));
    table.finish(report);
    cooldown
}
