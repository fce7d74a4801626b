//! The tables that stand once: server, discover, log, timeouts, retry, cooldown, routing, ledger,
//! tui.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use toml::de::DeValue;

use super::{ledger, statuses};
use crate::config::{
    listen,
    problem::Report,
    read::{self, Fault, Span, Table, count, duration, flag, number, size, text, word},
    settings::{
        Cooldown, Discover, Ledger, Log, Losses, Retry, Server, StatusSet, Sticky, Strategy,
        Timeouts, Tui,
    },
};

const MS: Duration = Duration::from_millis(1);
const STICKY_TTL: Duration = seconds(3_600);
const DAY: Duration = Duration::from_secs(86_400);

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(in crate::config) struct General {
    pub(in crate::config) server: Server,
    /// Where `listen` and `auth` stand, for checks that need both.
    pub(in crate::config) listen_at: Option<Span>,
    pub(in crate::config) auth_at: Option<Span>,
    pub(in crate::config) discover: Discover,
    pub(in crate::config) log: Log,
    pub(in crate::config) timeouts: Timeouts,
    pub(in crate::config) retry: Retry,
    pub(in crate::config) cooldown: Cooldown,
    pub(in crate::config) strategy: Strategy,
    pub(in crate::config) region: String,
    pub(in crate::config) sticky: Sticky,
    pub(in crate::config) sticky_ttl: Duration,
    pub(in crate::config) losses: Losses,
    pub(in crate::config) ledger: Ledger,
    pub(in crate::config) tui: Tui,
}

pub(super) fn read(top: &mut Table<'_>, report: &mut Report) -> General {
    let (mut server, mut listen_at, mut auth_at) = (default_server(), None, None);
    if let Some(table) = top.table("server", report) {
        (server, listen_at, auth_at) = read_server(table, server, report);
    }
    let mut general = General {
        server,
        listen_at,
        auth_at,
        discover: Discover { env: true, local: true },
        log: Log { level: "info".to_owned(), json: false, file: None },
        timeouts: default_timeouts(),
        retry: default_retry(),
        cooldown: default_cooldown(),
        strategy: Strategy::Priority,
        region: String::new(),
        sticky: Sticky::Auto,
        sticky_ttl: STICKY_TTL,
        losses: Losses::Tell,
        ledger: Ledger::default(),
        tui: Tui { theme: "dark".to_owned(), mouse: true, lang: "auto".to_owned() },
    };
    if let Some(mut table) = top.table("discover", report) {
        general.discover.env = table.or("env", report, true, flag);
        general.discover.local = table.or("local", report, true, flag);
        table.end(report);
    }
    if let Some(table) = top.table("log", report) {
        general.log = read_log(table, report);
    }
    if let Some(table) = top.table("timeouts", report) {
        general.timeouts = timeouts(table, general.timeouts, report);
    }
    if let Some(table) = top.table("retry", report) {
        general.retry = read_retry(table, general.retry, report);
    }
    if let Some(table) = top.table("cooldown", report) {
        general.cooldown = read_cooldown(table, &general.cooldown, report);
    }
    if let Some(mut table) = top.table("routing", report) {
        general.strategy = table.or("strategy", report, Strategy::Priority, super::strategy);
        general.region = table.or("region", report, String::new(), text);
        general.sticky = table.or("sticky", report, Sticky::Auto, word(&Sticky::ALL));
        general.sticky_ttl =
            table.or("sticky_ttl", report, STICKY_TTL, duration(seconds(1), 30 * DAY));
        table.end(report);
    }
    if let Some(mut table) = top.table("translation", report) {
        general.losses = table.or(
            "losses",
            report,
            Losses::Tell,
            word(&[("tell", Losses::Tell), ("refuse", Losses::Refuse)]),
        );
        table.end(report);
    }
    if let Some(table) = top.table("ledger", report) {
        general.ledger = ledger::read(table, report);
    }
    if let Some(mut table) = top.table("tui", report) {
        let themes = word(&[
            ("dark", "dark"),
            ("light", "light"),
            ("contrast", "contrast"),
            ("mono", "mono"),
        ]);
        general.tui.theme = table.or("theme", report, "dark", themes).to_owned();
        general.tui.mouse = table.or("mouse", report, true, flag);
        let languages = word(&[("", "auto"), ("auto", "auto"), ("en", "en"), ("zh", "zh")]);
        general.tui.lang = table.or("lang", report, "auto", languages).to_owned();
        table.end(report);
    }
    general
}

fn default_server() -> Server {
    let (listen, optional_v6) = listen::parse("8642").unwrap_or_default();
    Server {
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

fn default_retry() -> Retry {
    Retry {
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
    mut table: Table<'_>,
    mut server: Server,
    report: &mut Report,
) -> (Server, Option<Span>, Option<Span>) {
    let listen_at = table.list("listen", report, address);
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
                listen::join(list.value.into_iter().map(|at| at.value).collect());
            server.optional_v6 |= both_families(&server.listen);
        }
    }
    let auth = table.take("auth", report, flag);
    let auth_span = auth.as_ref().map(|at| at.span.clone());
    server.auth = auth.is_none_or(|at| at.value);
    let words = |at: Option<read::At<Vec<read::At<String>>>>| {
        at.map(|at| at.value.into_iter().map(|at| at.value).collect()).unwrap_or_default()
    };
    server.trusted_hosts = words(table.list("trusted_hosts", report, host));
    server.allowed_origins = words(table.list("allowed_origins", report, origin));
    server.max_request_bytes =
        table.or("max_request_bytes", report, server.max_request_bytes, size(1 << 10, 1 << 32));
    server.max_response_bytes =
        table.or("max_response_bytes", report, server.max_response_bytes, size(1 << 10, 1 << 32));
    let many = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    server.max_connections = table
        .take("max_connections", report, count(1, 1_000_000))
        .map_or(server.max_connections, |at| many(at.value));
    server.max_requests = table
        .take("max_requests", report, count(1, 1_000_000))
        .map_or(server.max_requests, |at| many(at.value));
    server.max_buffered = table.or("max_buffered", report, None, |value| match value.as_str() {
        Some("auto") => Ok(None),
        _ => size(1 << 20, 1 << 40)(value).map(Some),
    });
    server.drain =
        table.or("drain", report, server.drain, duration(Duration::ZERO, seconds(3_600)));
    table.end(report);
    (server, listen_span, auth_span)
}

fn address(value: &DeValue<'_>) -> Result<(Vec<SocketAddr>, bool), Fault> {
    let written = match value {
        DeValue::Integer(port) => port.as_str().to_owned(),
        _ => text(value)?,
    };
    let (list, both) =
        listen::parse(&written).map_err(|sentence| match sentence.split_once("; ") {
            Some((title, help)) => Fault::with(title, help),
            None => Fault::new(sentence),
        })?;
    if list.iter().any(|at| at.port() == 0) {
        return Err(Fault::with(
            "port 0 is chosen anew at each start, so nothing could be pointed at it",
            "name a port from 1 to 65535; `serve --listen 127.0.0.1:0` takes any",
        ));
    }
    Ok((list, both))
}

/// Both loopback addresses on one port: on a machine without IPv6 the other one does.
fn both_families(listen: &[SocketAddr]) -> bool {
    listen.iter().any(|six| {
        six.is_ipv6()
            && six.ip().is_loopback()
            && listen
                .iter()
                .any(|four| four.is_ipv4() && four.ip().is_loopback() && four.port() == six.port())
    })
}

fn host(value: &DeValue<'_>) -> Result<String, Fault> {
    let host = text(value)?;
    let fine = !host.is_empty()
        && host.bytes().all(|b| {
            b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']')
        });
    if fine {
        Ok(host.to_ascii_lowercase())
    } else {
        Err(Fault::with(
            format!("`{}` is not a host name", read::clip(&host)),
            "write it as browsers send it: \"laptop.lan\" or \"laptop.lan:8642\"",
        ))
    }
}

fn origin(value: &DeValue<'_>) -> Result<String, Fault> {
    let origin = text(value)?;
    let rest = origin.split_once("://").map(|(_, rest)| rest);
    if rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '?', '#', '*', ' '])) {
        return Ok(origin.to_ascii_lowercase());
    }
    Err(Fault::with(
        format!("`{}` is not an origin", read::clip(&origin)),
        "write scheme, host and port, without a path: \"http://localhost:3000\"",
    ))
}

fn read_log(mut table: Table<'_>, report: &mut Report) -> Log {
    let levels = word(&[
        ("error", "error"),
        ("warn", "warn"),
        ("info", "info"),
        ("debug", "debug"),
        ("trace", "trace"),
    ]);
    let log = Log {
        level: table.or("level", report, "info", levels).to_owned(),
        json: table.or("format", report, false, word(&[("text", false), ("json", true)])),
        file: table
            .take("file", report, text)
            .map(|at| at.value)
            .filter(|file| !file.is_empty())
            .map(PathBuf::from),
    };
    table.end(report);
    log
}

/// `[timeouts]` and its likes: what is not written stays as it was.
pub(in crate::config) fn timeouts(
    mut table: Table<'_>,
    base: Timeouts,
    report: &mut Report,
) -> Timeouts {
    let mut take = |name, default| table.or(name, report, default, duration(MS, DAY));
    let timeouts = Timeouts {
        connect: take("connect", base.connect),
        first_byte: take("first_byte", base.first_byte),
        idle: take("idle", base.idle),
        total: take("total", base.total),
        client_head: take("client_head", base.client_head),
        client_idle: take("client_idle", base.client_idle),
        client_keepalive: take("client_keepalive", base.client_keepalive),
    };
    table.end(report);
    timeouts
}

fn read_retry(mut table: Table<'_>, base: Retry, report: &mut Report) -> Retry {
    let retry = Retry {
        max_attempts: table.or("max_attempts", report, base.max_attempts, count(1, 32)),
        backoff: table.or("backoff", report, base.backoff, duration(MS, seconds(60))),
        max_backoff: table.or("max_backoff", report, base.max_backoff, duration(MS, seconds(600))),
        budget: table.or("budget", report, base.budget, number(0.0, 1.0)),
        statuses: statuses(&mut table, "statuses", report).unwrap_or(base.statuses),
        queue_for: table.or(
            "queue_for",
            report,
            base.queue_for,
            duration(Duration::ZERO, seconds(600)),
        ),
    };
    table.end(report);
    retry
}

fn read_cooldown(mut table: Table<'_>, base: &Cooldown, report: &mut Report) -> Cooldown {
    let mut take = |name, default| table.or(name, report, default, duration(MS, 30 * DAY));
    let mut cooldown = Cooldown {
        rate_limited: take("rate_limited", base.rate_limited),
        server_error: take("server_error", base.server_error),
        max: take("max", base.max),
        max_hint: take("max_hint", base.max_hint),
        quota: take("quota", base.quota),
        failures: base.failures,
    };
    cooldown.failures = table.or("failures", report, base.failures, count(1, 1_000));
    table.end(report);
    cooldown
}
