//! `[[upstream]]` as written.

use std::{path::PathBuf, time::Duration};

use toml::de::DeValue;

use super::{MAX_COUNT, budget, general::Statuses, read_name, read_patterns, read_row_name};
use crate::{
    base::{
        pattern::{Pattern, Patterns},
        suggest,
    },
    config::{
        presets,
        problem::Report,
        reader::{
            self, Located, Node, SourceSpan, TableReader, ValueError, count, duration, flag,
            number, text, truncate,
        },
        settings::{
            Budget, HealthCheck, KeyLimit, Patch, ProxySetting, RuleAction, RuleScope, StatusSet,
            TextMatch, UpstreamRule,
        },
        table::read_key,
    },
    ir::op::Dialect,
    secrets::Reference,
};

pub(in crate::config) struct RawUpstream {
    pub(in crate::config) name: Located<String>,
    pub(in crate::config) preset: Option<Located<String>>,
    pub(in crate::config) base_url: Option<RawBaseUrl>,
    pub(in crate::config) dialects: Option<Located<Vec<Located<Dialect>>>>,
    pub(in crate::config) models: Option<Located<Patterns>>,
    pub(in crate::config) rename: Vec<(String, String)>,
    pub(in crate::config) priority: Option<u32>,
    pub(in crate::config) weight: Option<f64>,
    pub(in crate::config) max_concurrency: u32,
    pub(in crate::config) max_rps: f64,
    pub(in crate::config) region: String,
    pub(in crate::config) proxy: ProxySetting,
    pub(in crate::config) headers: Vec<(String, String)>,
    pub(in crate::config) ca_file: Option<PathBuf>,
    pub(in crate::config) insecure_tls: Option<Located<bool>>,
    pub(in crate::config) ask_usage: Option<bool>,
    pub(in crate::config) think_split: bool,
    pub(in crate::config) stream_keepalive: bool,
    pub(in crate::config) prices_win: bool,
    pub(in crate::config) retry_statuses: Option<StatusSet>,
    pub(in crate::config) budget: Vec<Budget>,
    pub(in crate::config) rules: Vec<UpstreamRule>,
    pub(in crate::config) health: Option<HealthCheck>,
    pub(in crate::config) keys: Vec<RawKey>,
    pub(in crate::config) enabled: bool,
    pub(in crate::config) timeouts: PartialTimeouts,
    pub(in crate::config) patch: Patch,
}

pub(in crate::config) enum RawBaseUrl {
    Single(Located<String>),
    /// By dialect, in the order of the file.
    PerDialect(Vec<(Located<Dialect>, Located<String>)>, SourceSpan),
}

pub(in crate::config) struct RawKey {
    pub(in crate::config) reference: Located<Reference>,
    /// The kind of a literal key, so that it need not be exposed again.
    pub(in crate::config) key_kind: KeyKind,
    pub(in crate::config) label: Option<Located<String>>,
    pub(in crate::config) account: Option<String>,
    pub(in crate::config) priority: Option<u32>,
    pub(in crate::config) weight: Option<f64>,
    pub(in crate::config) limit: KeyLimit,
    pub(in crate::config) limits: Vec<(Pattern, KeyLimit)>,
    pub(in crate::config) max_concurrency: u32,
    pub(in crate::config) budget: Vec<Budget>,
    pub(in crate::config) refresh: Option<Duration>,
    pub(in crate::config) enabled: bool,
}

/// The kind of a literal key, by its first characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum KeyKind {
    /// A client key of aiproxy.
    Client,
    /// A key for this preset.
    Provider(&'static str),
    Unknown,
}

impl KeyKind {
    pub(in crate::config) fn detect(key: &str) -> Self {
        if key.starts_with("aip-") {
            return Self::Client;
        }
        presets::by_key_prefix(key).map_or(Self::Unknown, |preset| Self::Provider(&preset.name))
    }
}

/// The timeouts that a row sets.
#[derive(Clone, Copy, Default)]
pub(in crate::config) struct PartialTimeouts {
    pub(in crate::config) connect: Option<Duration>,
    pub(in crate::config) first_byte: Option<Duration>,
    pub(in crate::config) idle: Option<Duration>,
    pub(in crate::config) total: Option<Duration>,
    pub(in crate::config) client_head: Option<Duration>,
    pub(in crate::config) client_idle: Option<Duration>,
    pub(in crate::config) client_keepalive: Option<Duration>,
}

pub(super) fn read_upstream(mut row: TableReader<'_>, report: &mut Report) -> Option<RawUpstream> {
    let row_name = read_row_name(&mut row, "upstream", report, read_name);
    let upstream = RawUpstream {
        preset: row.read("preset", report, text),
        base_url: read_base_url(&mut row, report),
        dialects: read_dialects(&mut row, report),
        models: read_patterns(&mut row, "models", report),
        rename: read_text_map(&mut row, "rename", report, text),
        priority: row.read("priority", report, count(0, MAX_COUNT)).map(|at| at.value),
        weight: row.read("weight", report, number(0.001, 1e6)).map(|at| at.value),
        max_concurrency: row.read_or("max_concurrency", report, 0, count(0, MAX_COUNT)),
        max_rps: row.read_or("max_rps", report, 0.0, number(0.0, 1e6)),
        region: row.read_or("region", report, String::new(), text),
        proxy: row.read_or("proxy", report, ProxySetting::Environment, read_proxy),
        headers: read_headers(&mut row, report),
        ca_file: row
            .read("ca_file", report, text)
            .map(|at| at.value)
            .filter(|file| !file.is_empty())
            .map(PathBuf::from),
        insecure_tls: row.read("insecure_tls", report, flag),
        ask_usage: row.read("ask_usage", report, flag).map(|at| at.value),
        think_split: row.read_or("think_split", report, false, flag),
        stream_keepalive: row.read_or("stream_keepalive", report, false, flag),
        prices_win: row.read_or("prices_win", report, false, flag),
        retry_statuses: read_key(&mut row, "retry_statuses", &Statuses, report),
        budget: budget::read_budgets(&mut row, report),
        rules: row.children("rule", report).into_iter().map(|row| read_rule(row, report)).collect(),
        health: row.child("health", report).and_then(|table| read_health_check(table, report)),
        keys: read_keys(&mut row, report),
        enabled: row.read_or("enabled", report, true, flag),
        timeouts: row
            .child("timeouts", report)
            .map(|table| read_partial_timeouts(table, report))
            .unwrap_or_default(),
        patch: row
            .child("patch", report)
            .map(|table| read_patch(table, report))
            .unwrap_or_default(),
        name: row_name.clone().unwrap_or_else(|| Located::new(String::new(), row.span.clone())),
    };
    row.finish(report);
    row_name.map(|_| upstream)
}

fn read_base_url(row: &mut TableReader<'_>, report: &mut Report) -> Option<RawBaseUrl> {
    let node = row.take_node("base_url")?;
    let path = row.key_path("base_url");
    let DeValue::Table(_) = node.get_ref() else {
        let found = reader::read_value(&path, node, report, &|value| match value {
            DeValue::String(url) => Ok(url.clone().into_owned()),
            other => Err(ValueError::new(format!(
                "expected a URL, or a table of URLs by dialect, found {}",
                reader::type_name(other)
            ))),
        });
        return found.map(RawBaseUrl::Single);
    };
    let span = node.span();
    let mut table = TableReader::from_node(path.clone(), node, report)?;
    let mut each = Vec::new();
    for (name, node) in table.remaining() {
        match Dialect::parse(&name.value) {
            Some(dialect) => {
                if let Some(url) = reader::read_value(&path, node, report, &text) {
                    each.push((Located::new(dialect, name.span), url));
                }
            }
            None => report.error(
                &name.span,
                format!("`{path}`: {}", not_a_dialect(&name.value)),
                nearest_dialect(&name.value),
            ),
        }
    }
    Some(RawBaseUrl::PerDialect(each, span))
}

fn read_dialects(
    row: &mut TableReader<'_>,
    report: &mut Report,
) -> Option<Located<Vec<Located<Dialect>>>> {
    row.read_list("dialect", report, read_dialect)
}

pub(super) fn read_dialect(value: &DeValue<'_>) -> Result<Dialect, ValueError> {
    let name = text(value)?;
    Dialect::parse(&name)
        .ok_or_else(|| ValueError { title: not_a_dialect(&name), help: nearest_dialect(&name) })
}

fn not_a_dialect(name: &str) -> String {
    format!("\"{}\" is not a dialect: anthropic, gemini, ollama, openai, responses", truncate(name))
}

fn nearest_dialect(name: &str) -> Option<String> {
    suggest::nearest(name, Dialect::ALL.map(Dialect::name))
        .map(|known| format!("did you mean \"{known}\"?"))
}

/// Reads a table of text to text.
fn read_text_map(
    row: &mut TableReader<'_>,
    name: &'static str,
    report: &mut Report,
    read: impl Fn(&DeValue<'_>) -> Result<String, ValueError>,
) -> Vec<(String, String)> {
    let Some(mut table) = row.child(name, report) else { return Vec::new() };
    let rows = table.remaining().into_iter();
    rows.filter_map(|(key, node)| {
        let value = reader::read_value(&table.key_path(&key.value), node, report, &read)?;
        Some((key.value, value.value))
    })
    .collect()
}

/// Reads extra headers: names and values that HTTP allows, and no headers that the connection sets.
fn read_headers(row: &mut TableReader<'_>, report: &mut Report) -> Vec<(String, String)> {
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
    let Some(mut table) = row.child("headers", report) else { return Vec::new() };
    let mut out: Vec<(String, String)> = Vec::new();
    for (name, node) in table.remaining() {
        let path = table.key_path(&name.value);
        let lower = name.value.to_ascii_lowercase();
        if http::HeaderName::from_bytes(lower.as_bytes()).is_err() {
            report.error(
                &name.span,
                format!("`{}` is not a header name", truncate(&name.value)),
                None,
            );
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
        // The value may be a credential, so messages do not quote it.
        let value = reader::read_value(&path, node, report, &|value| match text(value)? {
            text if text.bytes().all(|b| (0x20..0x7f).contains(&b)) => Ok(text),
            _ => Err(ValueError::new("a header value is of visible ASCII characters")),
        });
        if out.iter().any(|(known, _)| *known == lower) {
            report.error(
                &name.span,
                format!("`{path}` stands twice (case makes no difference)"),
                None,
            );
        } else if let Some(value) = value {
            out.push((lower, value.value));
        }
    }
    out
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

fn read_rule(mut row: TableReader<'_>, report: &mut Report) -> UpstreamRule {
    let needle = |value: &DeValue<'_>| {
        let written = text(value)?;
        if written.is_empty() {
            return Err(ValueError::with_help(
                "an empty text stands everywhere",
                "leave `match` out where any text will do",
            ));
        }
        TextMatch::parse(&written).map_err(|sentence| {
            ValueError::new(format!(
                "`{}` is no regular expression: {sentence}",
                truncate(&written)
            ))
        })
    };
    let rule = UpstreamRule {
        statuses: read_key(&mut row, "status", &Statuses, report),
        text: row.read("match", report, needle).map(|at| at.value),
        action: row.read_or("action", report, RuleAction::Cool, reader::one_of(RuleAction::ALL)),
        scope: row.read_or("scope", report, RuleScope::KeyModel, reader::one_of(RuleScope::ALL)),
        cool_for: row
            .read(
                "for",
                report,
                duration(Duration::from_millis(1), Duration::from_secs(30 * 86_400)),
            )
            .map(|at| at.value),
    };
    if rule.statuses.is_none() && rule.text.is_none() {
        report.missing(
            &row.span,
            "a [[upstream.rule]] for every refusal there is".to_owned(),
            Some("add a line `status = \"400\"` or `match = \"…\"`".to_owned()),
        );
    }
    row.finish(report);
    rule
}

fn read_health_check(mut table: TableReader<'_>, report: &mut Report) -> Option<HealthCheck> {
    let path = table.read("path", report, |value| match text(value)? {
        path if path.starts_with('/') => Ok(path),
        _ => Err(ValueError::with_help(
            "a path begins with `/`",
            "it is appended to the base URL, as in \"/models\"",
        )),
    });
    let every = table.read_or(
        "every",
        report,
        Duration::from_secs(60),
        duration(Duration::from_secs(1), Duration::from_secs(86_400)),
    );
    table.finish(report);
    Some(HealthCheck {
        path: path.map_or_else(|| "/models".to_owned(), |at| at.value),
        interval: every,
    })
}

pub(super) fn read_partial_timeouts(
    mut table: TableReader<'_>,
    report: &mut Report,
) -> PartialTimeouts {
    let mut take = |name| {
        let read = duration(Duration::from_millis(1), Duration::from_secs(86_400));
        table.read(name, report, read).map(|at| at.value)
    };
    let part = PartialTimeouts {
        connect: take("connect"),
        first_byte: take("first_byte"),
        idle: take("idle"),
        total: take("total"),
        client_head: take("client_head"),
        client_idle: take("client_idle"),
        client_keepalive: take("client_keepalive"),
    };
    table.finish(report);
    part
}

fn read_keys(row: &mut TableReader<'_>, report: &mut Report) -> Vec<RawKey> {
    let Some(node) = row.take_node("keys") else { return Vec::new() };
    let path = row.key_path("keys");
    match node.get_ref() {
        DeValue::Array(items) => {
            items.iter().filter_map(|item| read_upstream_key(&path, item, report)).collect()
        }
        _ => read_upstream_key(&path, node, report).into_iter().collect(),
    }
}

fn read_upstream_key(path: &str, node: &Node<'_>, report: &mut Report) -> Option<RawKey> {
    let DeValue::Table(_) = node.get_ref() else {
        let reference = reader::read_value(path, node, report, &read_reference)?;
        return Some(RawKey {
            reference,
            key_kind: node.get_ref().as_str().map_or(KeyKind::Unknown, KeyKind::detect),
            label: None,
            account: None,
            priority: None,
            weight: None,
            limit: KeyLimit::default(),
            limits: Vec::new(),
            max_concurrency: 0,
            budget: Vec::new(),
            refresh: None,
            enabled: true,
        });
    };
    let mut table = TableReader::from_node(path, node, report)?;
    let before = report.findings.len();
    let found = table.read("ref", report, read_reference);
    let looks = table
        .read("ref", &mut Report::default(), text)
        .map_or(KeyKind::Unknown, |at| KeyKind::detect(&at.value));
    if found.is_none() && report.findings.len() == before {
        report.missing(
            &table.span,
            format!("`{path}`: a key without `ref`"),
            Some("write { ref = \"keyring:UPSTREAM/LABEL\" }".to_owned()),
        );
    }
    let span = table.span.clone();
    let key = RawKey {
        reference: found
            .clone()
            .unwrap_or_else(|| Located::new(Reference::Env(String::new()), span)),
        key_kind: looks,
        label: table.read("label", report, read_label),
        account: table.read("account", report, text).map(|at| at.value),
        priority: table.read("priority", report, count(0, MAX_COUNT)).map(|at| at.value),
        weight: table.read("weight", report, number(0.001, 1e6)).map(|at| at.value),
        limit: read_limit(&mut table, report),
        limits: read_model_limits(&mut table, report),
        max_concurrency: table.read_or("max_concurrency", report, 0, count(0, MAX_COUNT)),
        budget: budget::read_budgets(&mut table, report),
        refresh: table
            .read(
                "refresh",
                report,
                duration(Duration::from_secs(1), Duration::from_secs(30 * 86_400)),
            )
            .map(|at| at.value),
        enabled: table.read_or("enabled", report, true, flag),
    };
    table.finish(report);
    found.map(|_| key)
}

fn read_limit(table: &mut TableReader<'_>, report: &mut Report) -> KeyLimit {
    KeyLimit {
        rpm: table.read_or("rpm", report, 0, count(0, u32::MAX)),
        tpm: table.read_or("tpm", report, 0, count(0, u32::MAX)),
    }
}

/// Reads `limits = { "glm-*" = { rpm = 10 } }`.
fn read_model_limits(table: &mut TableReader<'_>, report: &mut Report) -> Vec<(Pattern, KeyLimit)> {
    let Some(mut rows) = table.child("limits", report) else { return Vec::new() };
    let mut out = Vec::new();
    for (name, node) in rows.remaining() {
        let path = rows.key_path(&name.value);
        let pattern = Pattern::parse(&name.value)
            .ok()
            .filter(|_| !name.value.is_empty() && !name.value.starts_with('!'));
        let Some(pattern) = pattern else {
            report.error(
                &name.span,
                format!("`{path}`: not a model's name or pattern"),
                Some("write it as in \"glm-*\"".to_owned()),
            );
            continue;
        };
        if let Some(mut row) = TableReader::from_node(path, node, report) {
            out.push((pattern, read_limit(&mut row, report)));
            row.finish(report);
        }
    }
    out
}

/// Reads a reference or a literal key; messages quote neither.
pub(super) fn read_reference(value: &DeValue<'_>) -> Result<Reference, ValueError> {
    let written = value.as_str().ok_or_else(|| {
        ValueError::new(format!("expected a key reference, found {}", reader::type_name(value)))
    })?;
    Reference::parse(written).map_err(ValueError::from_sentence)
}

fn read_label(value: &DeValue<'_>) -> Result<String, ValueError> {
    let label = text(value)?;
    if label.is_empty() || label.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/')
    {
        return Err(ValueError::with_help(
            "a label is one word without `/`",
            "as in label = \"work\"",
        ));
    }
    Ok(label)
}

fn read_patch(mut table: TableReader<'_>, report: &mut Report) -> Patch {
    let mut edits = |name, report: &mut Report| {
        let Some(mut rows) = table.child(name, report) else { return Vec::new() };
        let mut out = Vec::new();
        for (pointer, node) in rows.remaining() {
            match check_pointer(&pointer.value) {
                Ok(()) => out.push((pointer.value, toml_to_json(node.get_ref()))),
                Err(fault) => report.error(&pointer.span, fault.title, fault.help),
            }
        }
        out
    };
    let (set, default) = (edits("set", report), edits("default", report));
    let remove = table.read_list("remove", report, |value| {
        let pointer = text(value)?;
        check_pointer(&pointer).map(|()| pointer)
    });
    table.finish(report);
    Patch {
        set,
        default,
        remove: remove
            .map(|at| at.value.into_iter().map(|at| at.value).collect())
            .unwrap_or_default(),
    }
}

fn check_pointer(text: &str) -> Result<(), ValueError> {
    if text.starts_with('/') && text.len() > 1 {
        return Ok(());
    }
    Err(ValueError::with_help(
        format!("`{}` is not a JSON pointer", truncate(text)),
        "begin it with `/`, as in \"/parallel_tool_calls\"",
    ))
}

/// Converts a TOML value to JSON. Dates become strings, and floats without a JSON form become null.
fn toml_to_json(value: &DeValue<'_>) -> serde_json::Value {
    use serde_json::Value;
    match value {
        DeValue::String(text) => Value::String(text.clone().into_owned()),
        DeValue::Integer(number) => {
            i64::from_str_radix(&number.as_str().replace('_', ""), number.radix())
                .map_or(Value::Null, Value::from)
        }
        DeValue::Float(number) => {
            number.as_str().replace('_', "").parse::<f64>().map_or(Value::Null, Value::from)
        }
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(date) => Value::String(date.to_string()),
        DeValue::Array(items) => items.iter().map(|item| toml_to_json(item.get_ref())).collect(),
        DeValue::Table(rows) => rows
            .iter()
            .map(|(name, row)| (name.get_ref().clone().into_owned(), toml_to_json(row.get_ref())))
            .collect(),
    }
}
