//! `[[upstream]]` as written.

use std::{path::PathBuf, time::Duration};

use toml::de::DeValue;

use super::{budget, name, patterns, row_name, statuses};
use crate::{
    base::{
        near,
        pattern::{Pattern, Patterns},
    },
    config::{
        presets,
        problem::Report,
        read::{self, At, Fault, Node, Span, Table, clip, count, duration, flag, number, text},
        settings::{
            Budget, Health, Limit, Needle, Patch, Proxy, Rule, RuleAction, RuleScope, StatusSet,
        },
    },
    ir::op::Dialect,
    secrets::Reference,
};

const MANY: u32 = 1_000_000;

pub(in crate::config) struct Upstream {
    pub(in crate::config) name: At<String>,
    pub(in crate::config) preset: Option<At<String>>,
    pub(in crate::config) base_url: Option<BaseUrl>,
    pub(in crate::config) dialects: Option<At<Vec<At<Dialect>>>>,
    pub(in crate::config) models: Option<At<Patterns>>,
    pub(in crate::config) rename: Vec<(String, String)>,
    pub(in crate::config) priority: Option<u32>,
    pub(in crate::config) weight: Option<f64>,
    pub(in crate::config) max_concurrency: u32,
    pub(in crate::config) max_rps: f64,
    pub(in crate::config) region: String,
    pub(in crate::config) proxy: Proxy,
    pub(in crate::config) headers: Vec<(String, String)>,
    pub(in crate::config) ca_file: Option<PathBuf>,
    pub(in crate::config) insecure_tls: Option<At<bool>>,
    pub(in crate::config) ask_usage: Option<bool>,
    pub(in crate::config) think_split: bool,
    pub(in crate::config) stream_keepalive: bool,
    pub(in crate::config) prices_win: bool,
    pub(in crate::config) retry_statuses: Option<StatusSet>,
    pub(in crate::config) budget: Vec<Budget>,
    pub(in crate::config) rules: Vec<Rule>,
    pub(in crate::config) health: Option<Health>,
    pub(in crate::config) keys: Vec<Key>,
    pub(in crate::config) enabled: bool,
    pub(in crate::config) timeouts: TimeoutsPart,
    pub(in crate::config) patch: Patch,
}

pub(in crate::config) enum BaseUrl {
    One(At<String>),
    /// By dialect, in the order of the file.
    Each(Vec<(At<Dialect>, At<String>)>, Span),
}

pub(in crate::config) struct Key {
    pub(in crate::config) reference: At<Reference>,
    /// What a literal looks like; it is not looked at again.
    pub(in crate::config) looks: Looks,
    pub(in crate::config) label: Option<At<String>>,
    pub(in crate::config) account: Option<String>,
    pub(in crate::config) priority: Option<u32>,
    pub(in crate::config) weight: Option<f64>,
    pub(in crate::config) limit: Limit,
    pub(in crate::config) limits: Vec<(Pattern, Limit)>,
    pub(in crate::config) max_concurrency: u32,
    pub(in crate::config) budget: Vec<Budget>,
    pub(in crate::config) refresh: Option<Duration>,
    pub(in crate::config) enabled: bool,
}

/// What kind of key a literal is, by its first characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Looks {
    /// A client key of this program.
    Ours,
    /// A key of this preset.
    Of(&'static str),
    Unknown,
}

impl Looks {
    pub(in crate::config) fn of(key: &str) -> Self {
        if key.starts_with("aip-") {
            return Self::Ours;
        }
        presets::by_key(key).map_or(Self::Unknown, |preset| Self::Of(&preset.name))
    }
}

/// The timeouts that a row sets.
#[derive(Clone, Copy, Default)]
pub(in crate::config) struct TimeoutsPart {
    pub(in crate::config) connect: Option<Duration>,
    pub(in crate::config) first_byte: Option<Duration>,
    pub(in crate::config) idle: Option<Duration>,
    pub(in crate::config) total: Option<Duration>,
    pub(in crate::config) client_head: Option<Duration>,
    pub(in crate::config) client_idle: Option<Duration>,
    pub(in crate::config) client_keepalive: Option<Duration>,
}

pub(super) fn read(mut row: Table<'_>, report: &mut Report) -> Option<Upstream> {
    let row_name = row_name(&mut row, "upstream", report, name);
    let upstream = Upstream {
        preset: row.take("preset", report, text),
        base_url: base_url(&mut row, report),
        dialects: dialects(&mut row, report),
        models: patterns(&mut row, "models", report),
        rename: words(&mut row, "rename", report, text),
        priority: row.take("priority", report, count(0, MANY)).map(|at| at.value),
        weight: row.take("weight", report, number(0.001, 1e6)).map(|at| at.value),
        max_concurrency: row.or("max_concurrency", report, 0, count(0, MANY)),
        max_rps: row.or("max_rps", report, 0.0, number(0.0, 1e6)),
        region: row.or("region", report, String::new(), text),
        proxy: row.or("proxy", report, Proxy::Environment, proxy),
        headers: headers(&mut row, report),
        ca_file: row
            .take("ca_file", report, text)
            .map(|at| at.value)
            .filter(|file| !file.is_empty())
            .map(PathBuf::from),
        insecure_tls: row.take("insecure_tls", report, flag),
        ask_usage: row.take("ask_usage", report, flag).map(|at| at.value),
        think_split: row.or("think_split", report, false, flag),
        stream_keepalive: row.or("stream_keepalive", report, false, flag),
        prices_win: row.or("prices_win", report, false, flag),
        retry_statuses: statuses(&mut row, "retry_statuses", report),
        budget: budget::read(&mut row, report),
        rules: row.tables("rule", report).into_iter().map(|row| rule(row, report)).collect(),
        health: row.table("health", report).and_then(|table| health(table, report)),
        keys: keys(&mut row, report),
        enabled: row.or("enabled", report, true, flag),
        timeouts: row
            .table("timeouts", report)
            .map(|table| timeouts_part(table, report))
            .unwrap_or_default(),
        patch: row.table("patch", report).map(|table| patch(table, report)).unwrap_or_default(),
        name: row_name.clone().unwrap_or_else(|| At::new(String::new(), row.span.clone())),
    };
    row.end(report);
    row_name.map(|_| upstream)
}

fn base_url(row: &mut Table<'_>, report: &mut Report) -> Option<BaseUrl> {
    let node = row.node("base_url")?;
    let path = row.path_of("base_url");
    let DeValue::Table(_) = node.get_ref() else {
        let found = read::one(&path, node, report, &|value| match value {
            DeValue::String(url) => Ok(url.clone().into_owned()),
            other => Err(Fault::new(format!(
                "expected a URL, or a table of URLs by dialect, found {}",
                read::kind(other)
            ))),
        });
        return found.map(BaseUrl::One);
    };
    let span = node.span();
    let mut table = Table::of(path.clone(), node, report)?;
    let mut each = Vec::new();
    for (name, node) in table.rest() {
        match Dialect::parse(&name.value) {
            Some(dialect) => {
                if let Some(url) = read::one(&path, node, report, &text) {
                    each.push((At::new(dialect, name.span), url));
                }
            }
            None => report.error(
                &name.span,
                format!("`{path}`: {}", not_a_dialect(&name.value)),
                near_dialect(&name.value),
            ),
        }
    }
    Some(BaseUrl::Each(each, span))
}

fn dialects(row: &mut Table<'_>, report: &mut Report) -> Option<At<Vec<At<Dialect>>>> {
    row.list("dialect", report, dialect)
}

pub(super) fn dialect(value: &DeValue<'_>) -> Result<Dialect, Fault> {
    let name = text(value)?;
    Dialect::parse(&name)
        .ok_or_else(|| Fault { title: not_a_dialect(&name), help: near_dialect(&name) })
}

fn not_a_dialect(name: &str) -> String {
    format!("\"{}\" is not a dialect: anthropic, gemini, ollama, openai, responses", clip(name))
}

fn near_dialect(name: &str) -> Option<String> {
    near::nearest(name, Dialect::ALL.map(Dialect::name))
        .map(|known| format!("did you mean \"{known}\"?"))
}

/// A table from word to word.
fn words(
    row: &mut Table<'_>,
    name: &'static str,
    report: &mut Report,
    read: impl Fn(&DeValue<'_>) -> Result<String, Fault>,
) -> Vec<(String, String)> {
    let Some(mut table) = row.table(name, report) else { return Vec::new() };
    let rows = table.rest().into_iter();
    rows.filter_map(|(key, node)| {
        let value = read::one(&table.path_of(&key.value), node, report, &read)?;
        Some((key.value, value.value))
    })
    .collect()
}

/// Extra headers: names and values that HTTP can carry, and none that the connection owns.
fn headers(row: &mut Table<'_>, report: &mut Report) -> Vec<(String, String)> {
    const OWNED: [&str; 9] = [
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
    let Some(mut table) = row.table("headers", report) else { return Vec::new() };
    let mut out: Vec<(String, String)> = Vec::new();
    for (name, node) in table.rest() {
        let path = table.path_of(&name.value);
        let lower = name.value.to_ascii_lowercase();
        if http::HeaderName::from_bytes(lower.as_bytes()).is_err() {
            report.error(&name.span, format!("`{}` is not a header name", clip(&name.value)), None);
            continue;
        }
        if OWNED.contains(&lower.as_str()) || lower.starts_with("proxy-") {
            report.error(
                &name.span,
                format!("`{path}`: this header belongs to the connection and cannot be set"),
                Some("remove it".to_owned()),
            );
            continue;
        }
        // The value may be a credential: it is not quoted.
        let value = read::one(&path, node, report, &|value| match text(value)? {
            text if text.bytes().all(|b| (0x20..0x7f).contains(&b)) => Ok(text),
            _ => Err(Fault::new("a header value is of visible ASCII characters")),
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

fn proxy(value: &DeValue<'_>) -> Result<Proxy, Fault> {
    const FORMS: &str =
        "write \"socks5h://127.0.0.1:1080\", \"http://proxy:3128\", or \"none\" to go direct";
    let url = text(value)?;
    match url.as_str() {
        "" | "environment" => return Ok(Proxy::Environment),
        "none" | "direct" => return Ok(Proxy::Direct),
        _ => {}
    }
    // It may hold a password: it is not quoted.
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(Fault::with("a proxy is named by its URL", FORMS));
    };
    if !matches!(scheme, "http" | "https" | "socks5" | "socks5h") {
        return Err(Fault::with(
            format!("`{}://` is not a kind of proxy: http, https, socks5, socks5h", clip(scheme)),
            FORMS,
        ));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (place, None),
    };
    let bad_port = port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0));
    if host.is_empty() || bad_port || url.contains(char::is_whitespace) {
        return Err(Fault::with("the proxy's URL has no usable host and port", FORMS));
    }
    Ok(Proxy::Url(url))
}

fn rule(mut row: Table<'_>, report: &mut Report) -> Rule {
    let needle = |value: &DeValue<'_>| {
        let written = text(value)?;
        if written.is_empty() {
            return Err(Fault::with(
                "an empty text stands everywhere",
                "leave `match` out where any text will do",
            ));
        }
        Needle::parse(&written).map_err(|sentence| {
            Fault::new(format!("`{}` is no regular expression: {sentence}", clip(&written)))
        })
    };
    let rule = Rule {
        statuses: statuses(&mut row, "status", report),
        text: row.take("match", report, needle).map(|at| at.value),
        action: row.or("action", report, RuleAction::Cool, read::word(&RuleAction::ALL)),
        scope: row.or("scope", report, RuleScope::KeyModel, read::word(&RuleScope::ALL)),
        span: row
            .take(
                "for",
                report,
                duration(Duration::from_millis(1), Duration::from_secs(30 * 86_400)),
            )
            .map(|at| at.value),
    };
    if rule.statuses.is_none() && rule.text.is_none() {
        report.absent(
            &row.span,
            "a [[upstream.rule]] for every refusal there is".to_owned(),
            Some("add a line `status = \"400\"` or `match = \"…\"`".to_owned()),
        );
    }
    row.end(report);
    rule
}

fn health(mut table: Table<'_>, report: &mut Report) -> Option<Health> {
    let path = table.take("path", report, |value| match text(value)? {
        path if path.starts_with('/') => Ok(path),
        _ => Err(Fault::with(
            "a path begins with `/`",
            "it is appended to the base URL, as in \"/models\"",
        )),
    });
    let every = table.or(
        "every",
        report,
        Duration::from_secs(60),
        duration(Duration::from_secs(1), Duration::from_secs(86_400)),
    );
    table.end(report);
    Some(Health { path: path.map_or_else(|| "/models".to_owned(), |at| at.value), every })
}

pub(super) fn timeouts_part(mut table: Table<'_>, report: &mut Report) -> TimeoutsPart {
    let mut take = |name| {
        let read = duration(Duration::from_millis(1), Duration::from_secs(86_400));
        table.take(name, report, read).map(|at| at.value)
    };
    let part = TimeoutsPart {
        connect: take("connect"),
        first_byte: take("first_byte"),
        idle: take("idle"),
        total: take("total"),
        client_head: take("client_head"),
        client_idle: take("client_idle"),
        client_keepalive: take("client_keepalive"),
    };
    table.end(report);
    part
}

fn keys(row: &mut Table<'_>, report: &mut Report) -> Vec<Key> {
    let Some(node) = row.node("keys") else { return Vec::new() };
    let path = row.path_of("keys");
    match node.get_ref() {
        DeValue::Array(items) => items.iter().filter_map(|item| key(&path, item, report)).collect(),
        _ => key(&path, node, report).into_iter().collect(),
    }
}

fn key(path: &str, node: &Node<'_>, report: &mut Report) -> Option<Key> {
    let DeValue::Table(_) = node.get_ref() else {
        let reference = read::one(path, node, report, &reference)?;
        return Some(Key {
            reference,
            looks: node.get_ref().as_str().map_or(Looks::Unknown, Looks::of),
            label: None,
            account: None,
            priority: None,
            weight: None,
            limit: Limit::default(),
            limits: Vec::new(),
            max_concurrency: 0,
            budget: Vec::new(),
            refresh: None,
            enabled: true,
        });
    };
    let mut table = Table::of(path, node, report)?;
    let before = report.findings.len();
    let found = table.take("ref", report, reference);
    let looks = table
        .take("ref", &mut Report::default(), text)
        .map_or(Looks::Unknown, |at| Looks::of(&at.value));
    if found.is_none() && report.findings.len() == before {
        report.absent(
            &table.span,
            format!("`{path}`: a key without `ref`"),
            Some("write { ref = \"keyring:UPSTREAM/LABEL\" }".to_owned()),
        );
    }
    let span = table.span.clone();
    let key = Key {
        reference: found.clone().unwrap_or_else(|| At::new(Reference::Env(String::new()), span)),
        looks,
        label: table.take("label", report, label),
        account: table.take("account", report, text).map(|at| at.value),
        priority: table.take("priority", report, count(0, MANY)).map(|at| at.value),
        weight: table.take("weight", report, number(0.001, 1e6)).map(|at| at.value),
        limit: limit(&mut table, report),
        limits: limits(&mut table, report),
        max_concurrency: table.or("max_concurrency", report, 0, count(0, MANY)),
        budget: budget::read(&mut table, report),
        refresh: table
            .take(
                "refresh",
                report,
                duration(Duration::from_secs(1), Duration::from_secs(30 * 86_400)),
            )
            .map(|at| at.value),
        enabled: table.or("enabled", report, true, flag),
    };
    table.end(report);
    found.map(|_| key)
}

fn limit(table: &mut Table<'_>, report: &mut Report) -> Limit {
    Limit {
        rpm: table.or("rpm", report, 0, count(0, u32::MAX)),
        tpm: table.or("tpm", report, 0, count(0, u32::MAX)),
    }
}

/// `limits = { "glm-*" = { rpm = 10 } }`
fn limits(table: &mut Table<'_>, report: &mut Report) -> Vec<(Pattern, Limit)> {
    let Some(mut rows) = table.table("limits", report) else { return Vec::new() };
    let mut out = Vec::new();
    for (name, node) in rows.rest() {
        let path = rows.path_of(&name.value);
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
        if let Some(mut row) = Table::of(path, node, report) {
            out.push((pattern, limit(&mut row, report)));
            row.end(report);
        }
    }
    out
}

/// A reference, or a literal key; neither is ever quoted back.
pub(super) fn reference(value: &DeValue<'_>) -> Result<Reference, Fault> {
    let written = value.as_str().ok_or_else(|| {
        Fault::new(format!("expected a key reference, found {}", read::kind(value)))
    })?;
    Reference::parse(written).map_err(|sentence| match sentence.split_once("; ") {
        Some((title, help)) => Fault::with(title, help),
        None => Fault::new(sentence),
    })
}

fn label(value: &DeValue<'_>) -> Result<String, Fault> {
    let label = text(value)?;
    if label.is_empty() || label.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/')
    {
        return Err(Fault::with("a label is one word without `/`", "as in label = \"work\""));
    }
    Ok(label)
}

fn patch(mut table: Table<'_>, report: &mut Report) -> Patch {
    let mut edits = |name, report: &mut Report| {
        let Some(mut rows) = table.table(name, report) else { return Vec::new() };
        let mut out = Vec::new();
        for (pointer, node) in rows.rest() {
            match pointer_of(&pointer.value) {
                Ok(()) => out.push((pointer.value, json(node.get_ref()))),
                Err(fault) => report.error(&pointer.span, fault.title, fault.help),
            }
        }
        out
    };
    let (set, default) = (edits("set", report), edits("default", report));
    let remove = table.list("remove", report, |value| {
        let pointer = text(value)?;
        pointer_of(&pointer).map(|()| pointer)
    });
    table.end(report);
    Patch {
        set,
        default,
        remove: remove
            .map(|at| at.value.into_iter().map(|at| at.value).collect())
            .unwrap_or_default(),
    }
}

fn pointer_of(text: &str) -> Result<(), Fault> {
    if text.starts_with('/') && text.len() > 1 {
        return Ok(());
    }
    Err(Fault::with(
        format!("`{}` is not a JSON pointer", clip(text)),
        "begin it with `/`, as in \"/parallel_tool_calls\"",
    ))
}

/// A TOML value as JSON; dates become strings, and floats that JSON has not become null.
fn json(value: &DeValue<'_>) -> serde_json::Value {
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
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(rows) => rows
            .iter()
            .map(|(name, row)| (name.get_ref().clone().into_owned(), json(row.get_ref())))
            .collect(),
    }
}
