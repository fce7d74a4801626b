//! The table of config keys: what each is for, its kind and its default. The JSON schema, `config
//! set` and the docs come from it.

use serde_json::{Map, Value, json};

pub use super::show::{get, show};

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// From the top; keys of rows without the row's name: `upstream.priority`.
    pub path: &'static str,
    pub kind: Kind,
    /// As it would be written; empty where there is none.
    pub default: &'static str,
    pub doc: &'static str,
}

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A URL, or a table of URLs by dialect.
    BaseUrl,
    /// A table or several: see [`BUDGET`].
    Budget,
    /// Tables of conditions and prices: see [`WHEN`].
    Conditions,
    /// From, to.
    Count(u32, u32),
    Dialects,
    Duration,
    Flag,
    Health,
    /// When a second target is asked.
    Hedge,
    /// References or tables: see [`KEY`].
    Keys,
    /// `{ "PATTERN" = { rpm = 10, tpm = 1000 } }`
    Limits,
    /// A share or a weight.
    Number,
    Patch,
    /// Tables: see [`RULE`].
    Rules,
    Size,
    /// `"auto"` or a size.
    SizeOrAuto,
    Statuses,
    Targets,
    Text,
    /// Text by text.
    TextMap,
    Texts,
    /// Any of `[timeouts]`.
    Timeouts,
    Words(&'static [&'static str]),
}

impl Kind {
    /// Whether what is written in quotes is all it takes, so that `config set` needs none.
    #[must_use]
    pub fn is_text(self) -> bool {
        matches!(
            self,
            Self::BaseUrl
                | Self::Dialects
                | Self::Duration
                | Self::Keys
                | Self::Size
                | Self::SizeOrAuto
                | Self::Targets
                | Self::Text
                | Self::Texts
                | Self::Words(_)
        )
    }
}

const STRATEGIES: &[&str] = &{
    let mut names = [""; super::settings::Strategy::ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = super::settings::Strategy::ALL[at].0;
        at += 1;
    }
    names
};
const STICKY: &[&str] = &["auto", "session", "off"];
const MANY: u32 = 1_000_000;

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default, doc }
}

/// Every key that has an effect, table by table.
#[rustfmt::skip]
pub const ALL: &[Key] = &[
    key("server.listen", Kind::Texts, r#"["127.0.0.1:8642", "[::1]:8642"]"#, "Where to listen; \"8642\" means loopback, both families"),
    key("server.auth", Kind::Flag, "true", "Ask clients for a key; may be off only where every address is loopback"),
    key("server.trusted_hosts", Kind::Texts, "[]", "Host headers accepted beside localhost, 127.0.0.1 and [::1]"),
    key("server.allowed_origins", Kind::Texts, "[]", "Browser origins let in"),
    key("server.max_request_bytes", Kind::Size, r#""64MiB""#, "Largest request body"),
    key("server.max_response_bytes", Kind::Size, r#""64MiB""#, "Largest answer that is not a stream"),
    key("server.max_connections", Kind::Count(1, MANY), "1024", "Client connections at once"),
    key("server.max_requests", Kind::Count(1, MANY), "512", "Requests in flight; beyond it 503"),
    key("server.max_buffered", Kind::SizeOrAuto, r#""auto""#, "Bodies held at once; auto is the smaller of 512MiB and a quarter of memory"),
    key("server.drain", Kind::Duration, r#""30s""#, "At shutdown, how long open requests may finish"),
    key("discover.env", Kind::Flag, "true", "Use provider keys found in the environment"),
    key("discover.local", Kind::Flag, "true", "Look for model servers on this machine"),
    key("log.level", Kind::Words(&["error", "warn", "info", "debug", "trace"]), r#""info""#, "What is logged"),
    key("log.format", Kind::Words(&["text", "json"]), r#""text""#, "How it is written"),
    key("log.file", Kind::Text, r#""""#, "Where to; empty is stderr"),
    key("timeouts.connect", Kind::Duration, r#""10s""#, "To connect to an upstream"),
    key("timeouts.first_byte", Kind::Duration, r#""120s""#, "Until a stream's first event with content"),
    key("timeouts.idle", Kind::Duration, r#""180s""#, "Silence inside a stream"),
    key("timeouts.total", Kind::Duration, r#""15m""#, "A request that is not a stream, all attempts together"),
    key("timeouts.client_head", Kind::Duration, r#""10s""#, "A client's request head"),
    key("timeouts.client_idle", Kind::Duration, r#""60s""#, "Silence inside a client's request body"),
    key("timeouts.client_keepalive", Kind::Duration, r#""90s""#, "An idle client connection"),
    key("retry.max_attempts", Kind::Count(1, 32), "4", "Tries that may have cost upstream work, the first included"),
    key("retry.backoff", Kind::Duration, r#""250ms""#, "Base of the delay when the same key is tried again"),
    key("retry.max_backoff", Kind::Duration, r#""8s""#, "Ceiling of that delay"),
    key("retry.budget", Kind::Number, "0.2", "Share that such retries may add to the request rate, 0 to 1"),
    key("retry.statuses", Kind::Statuses, r#"["408", "409", "425", "429", "500-599"]"#, "Statuses that are tried again"),
    key("retry.queue_for", Kind::Duration, r#""10s""#, "Wait so long for the soonest key rather than answer 429"),
    key("cooldown.rate_limited", Kind::Duration, r#""5s""#, "After a 429 without a hint, doubling"),
    key("cooldown.server_error", Kind::Duration, r#""15s""#, "After a 5xx or a network error, doubling"),
    key("cooldown.max", Kind::Duration, r#""10m""#, "Ceiling of the doubling"),
    key("cooldown.max_hint", Kind::Duration, r#""1h""#, "Ceiling of what a provider asks for"),
    key("cooldown.quota", Kind::Duration, r#""1h""#, "After spent quota, billing trouble or an unknown model"),
    key("cooldown.failures", Kind::Count(1, 1_000), "3", "Strikes that open the circuit of an upstream"),
    key("routing.strategy", Kind::Words(STRATEGIES), r#""priority""#, "How a candidate is drawn from the best tier"),
    key("routing.region", Kind::Text, r#""""#, "Upstreams of this region are preferred to their equals"),
    key("routing.sticky", Kind::Words(STICKY), r#""auto""#, "Turns of a conversation go where its prompt is cached: by itself (auto) or by its session's name"),
    key("routing.sticky_ttl", Kind::Duration, r#""1h""#, "How long a silent conversation is remembered"),
    key("upstream.name", Kind::Text, "", "What it is called here"),
    key("upstream.preset", Kind::Text, "", "A known provider, which fills in the rest; `aiproxy upstream presets` lists them"),
    key("upstream.base_url", Kind::BaseUrl, "", "Where it is; a table by dialect where they differ"),
    key("upstream.dialect", Kind::Dialects, "", "What it speaks: one or several of openai, responses, anthropic, gemini, ollama"),
    key("upstream.models", Kind::Texts, "", "What it serves: names, globs, re:REGEX, !EXCLUSION; omitted is what it lists"),
    key("upstream.rename", Kind::TextMap, "", "Names for clients, and what they are called there"),
    key("upstream.priority", Kind::Count(0, MANY), "10", "Lower is tried first"),
    key("upstream.weight", Kind::Number, "1.0", "Share inside a tier"),
    key("upstream.max_concurrency", Kind::Count(0, MANY), "0", "Requests at once; 0 is no limit"),
    key("upstream.max_rps", Kind::Number, "0", "Requests a second; 0 is no limit"),
    key("upstream.region", Kind::Text, r#""""#, "Where it stands"),
    key("upstream.proxy", Kind::Text, "", "http, https, socks5 or socks5h URL; \"none\" ignores the environment's"),
    key("upstream.headers", Kind::TextMap, "", "Added to each request"),
    key("upstream.ca_file", Kind::Text, "", "Certificates trusted beside the system's; relative to this file"),
    key("upstream.insecure_tls", Kind::Flag, "false", "Trust any certificate"),
    key("upstream.ask_usage", Kind::Flag, "", "Ask a stream for its usage where the client did not; presets set it"),
    key("upstream.think_split", Kind::Flag, "false", "<think> text at the beginning of an answer is reasoning"),
    key("upstream.stream_keepalive", Kind::Flag, "false", "Run whole answers as streams, so that no idle timeout ends them"),
    key("upstream.prices_win", Kind::Flag, "false", "Its rows in [prices] count, whatever costs it reports"),
    key("upstream.retry_statuses", Kind::Statuses, "", "Instead of retry.statuses"),
    key("upstream.budget", Kind::Budget, "", "What it may cost; beyond it others serve until the period ends"),
    key("upstream.rule", Kind::Rules, "", "What becomes of refusals of some kind"),
    key("upstream.health", Kind::Health, "", "Ask this path now and then"),
    key("upstream.keys", Kind::Keys, "", "Credentials: references, or tables"),
    key("upstream.enabled", Kind::Flag, "true", "Whether it is used"),
    key("upstream.timeouts", Kind::Timeouts, "", "Instead of [timeouts]"),
    key("upstream.patch", Kind::Patch, "", "Edits to request bodies"),
    key("model.name", Kind::Text, "", "What clients ask for; may be a pattern"),
    key("model.targets", Kind::Targets, "", "\"UPSTREAM:MODEL\", or tables"),
    key("model.strategy", Kind::Words(STRATEGIES), "", "Instead of routing.strategy"),
    key("model.sticky", Kind::Words(STICKY), "", "Instead of routing.sticky"),
    key("model.sticky_ttl", Kind::Duration, "", "Instead of routing.sticky_ttl"),
    key("model.hedge", Kind::Hedge, "", "Ask a second target where the first is slow to speak"),
    key("model.rescue", Kind::Flag, "false", "Continue a stream that breaks off elsewhere, from what was said"),
    key("model.timeouts", Kind::Timeouts, "", "Instead of [timeouts]"),
    key("keyless.listen", Kind::Text, "", "Where clients without a credential are served; this machine only"),
    key("keyless.project", Kind::Text, r#""default""#, "Whose requests they are"),
    key("keyless.dialects", Kind::Dialects, r#"["ollama"]"#, "What may be spoken there"),
    key("project.name", Kind::Text, "", "What it is called"),
    key("project.key", Kind::Text, "", "Reference to its client key"),
    key("project.models", Kind::Texts, r#"["*"]"#, "What it may ask for"),
    key("project.upstreams", Kind::Texts, r#"["*"]"#, "What may serve it"),
    key("project.rpm", Kind::Count(0, u32::MAX), "0", "Requests a minute; 0 is no limit"),
    key("project.tpm", Kind::Count(0, u32::MAX), "0", "Tokens a minute, input and output; 0 is no limit"),
    key("project.max_concurrency", Kind::Count(0, MANY), "0", "Requests at once, others wait; 0 is no limit"),
    key("project.budget", Kind::Budget, "", "What it may spend; beyond it requests are refused until the period ends"),
    key("project.subnets", Kind::Texts, "[]", "Where its clients may be; empty is anywhere"),
    key("project.admin", Kind::Flag, "false", "May control the proxy"),
    key("project.enabled", Kind::Flag, "true", "Whether its key is accepted"),
    key("budget.usd", Kind::Number, "", "Dollars that all projects together may spend"),
    key("budget.per", Kind::Words(&["day", "week", "month", "total"]), "", "In which time; weeks begin on Monday, in the ledger's time zone"),
    key("budget.unpriced", Kind::Words(&["warn", "refuse"]), r#""warn""#, "Requests whose price nobody knows: told of once per model, or refused"),
    key("translation.losses", Kind::Words(&["tell", "refuse"]), r#""tell""#, "Fields that an upstream's protocol has no place for: left out and named, or refused"),
    key("ledger.path", Kind::Text, r#""ledger.db""#, "Where requests are recorded; relative to the data dir"),
    key("ledger.tz", Kind::Text, r#""""#, "Time zone of days; empty is the machine's"),
    key("ledger.bodies", Kind::Words(&["off", "errors", "all"]), r#""all""#, "Which requests and answers are kept whole; secrets are taken out"),
    key("ledger.bodies_total", Kind::Size, r#""256MiB""#, "Room for them; the oldest go first"),
    key("ledger.body_limit", Kind::Size, r#""4MiB""#, "Of a longer one beginning and end are kept"),
    key("ledger.keep", Kind::Duration, r#""90d""#, "How long requests are kept; sums by day stay"),
    key("ledger.keep_bodies", Kind::Duration, r#""3d""#, "How long bodies are kept"),
    key("alerts.desktop", Kind::Flag, "false", "Whether alerts show as notifications of the desktop"),
    key("alerts.webhook", Kind::Text, r#""""#, "Where alerts are sent as JSON"),
    key("alerts.secret", Kind::Text, r#""""#, "Reference to what signs them"),
    key("alerts.feishu", Kind::Text, r#""""#, "Address of a Feishu bot that gets them as cards"),
    key("alerts.events", Kind::Texts, r#"["key_down", "upstream_down", "recovered", "budget", "error_rate"]"#, "Which alerts go out; there are also balance, spike and ledger"),
    key("otlp.url", Kind::Text, r#""""#, "Collector that gets traces (OTLP over HTTP, JSON)"),
    key("otlp.headers", Kind::TextMap, "", "Sent with them; values may be references"),
    key("prices.input", Kind::Number, "", "A million tokens of input"),
    key("prices.cache_read", Kind::Number, "", "Of input read from the prompt cache; else as input"),
    key("prices.cache_write_5m", Kind::Number, "", "Of input written to it for five minutes; else as input"),
    key("prices.cache_write_1h", Kind::Number, "", "For an hour; else as for five minutes"),
    key("prices.audio_in", Kind::Number, "", "Of sound; else as input"),
    key("prices.image_in", Kind::Number, "", "Of pictures; else as input"),
    key("prices.output", Kind::Number, "", "A million tokens of output"),
    key("prices.reasoning", Kind::Number, "", "Of reasoning; else as output"),
    key("prices.audio_out", Kind::Number, "", "Of sound; else as output"),
    key("prices.image_out", Kind::Number, "", "Of pictures; else as output"),
    key("prices.search", Kind::Number, "", "A thousand web searches"),
    key("prices.request", Kind::Number, "", "One request"),
    key("prices.currency", Kind::Text, r#""USD""#, "What these are in; others need a rate"),
    key("prices.page", Kind::Text, "", "Where they were read"),
    key("prices.date", Kind::Text, "", "When they were read"),
    key("prices.when", Kind::Conditions, "", "Other prices, under conditions; the narrowest that holds wins"),
    key("tui.theme", Kind::Words(&["dark", "light", "contrast", "mono"]), r#""dark""#, "Colours of the dashboard"),
    key("tui.mouse", Kind::Flag, "true", "Whether the dashboard takes the mouse"),
    key("tui.lang", Kind::Words(&["auto", "en", "zh"]), r#""auto""#, "Language of the dashboard; auto is that of the locale"),
];

/// Keys of a table in `keys`.
#[rustfmt::skip]
pub const KEY: &[Key] = &[
    key("ref", Kind::Text, "", "keyring:LABEL, env:NAME, file:PATH, cmd:PROGRAM ARGS or vault:LABEL"),
    key("label", Kind::Text, "", "Its name; else the last part of the reference"),
    key("account", Kind::Text, "", "Shared by keys that share limits"),
    key("priority", Kind::Count(0, MANY), "10", "Lower is tried first"),
    key("weight", Kind::Number, "1.0", "Share inside a tier"),
    key("rpm", Kind::Count(0, u32::MAX), "0", "Requests a minute; 0 is no limit"),
    key("tpm", Kind::Count(0, u32::MAX), "0", "Tokens a minute; 0 is no limit"),
    key("limits", Kind::Limits, "", "The same for some models: { \"glm-*\" = { rpm = 10 } }"),
    key("max_concurrency", Kind::Count(0, MANY), "0", "Requests at once; 0 is no limit"),
    key("budget", Kind::Budget, "", "What it may cost; beyond it others serve until the period ends"),
    key("refresh", Kind::Duration, "", "Read the reference again this often"),
    key("enabled", Kind::Flag, "true", "Whether it is used"),
];

/// Keys of a `budget`.
#[rustfmt::skip]
pub const BUDGET: &[Key] = &[
    key("usd", Kind::Number, "", "Dollars"),
    key("per", Kind::Words(&["day", "week", "month", "total"]), "", "In which time; weeks begin on Monday, in the ledger's time zone"),
    key("unpriced", Kind::Words(&["warn", "refuse"]), r#""warn""#, "Requests whose price nobody knows: told of once per model, or refused"),
];

/// Keys of `[[upstream.rule]]`.
#[rustfmt::skip]
pub const RULE: &[Key] = &[
    key("status", Kind::Statuses, "", "Of these statuses; else of any"),
    key("match", Kind::Text, "", "With this in the answer, case ignored, or re:REGEX"),
    key("action", Kind::Words(&["retry", "pass", "cool"]), r#""cool""#, "Tried elsewhere, told to the client, or left alone and tried elsewhere"),
    key("scope", Kind::Words(&["request", "key_model", "key", "account", "upstream"]), r#""key_model""#, "What is left alone"),
    key("for", Kind::Duration, "", "How long; else as after a 429 without a hint"),
];

/// Keys of a table in `targets`.
#[rustfmt::skip]
pub const TARGET: &[Key] = &[
    key("upstream", Kind::Text, "", "Which upstream; else any that serves the model"),
    key("model", Kind::Text, "", "The model's name there"),
    key("priority", Kind::Count(0, MANY), "", "Instead of the upstream's"),
    key("weight", Kind::Number, "", "Instead of the upstream's"),
];

/// Keys of a table in `when`, beside the prices themselves.
#[rustfmt::skip]
pub const WHEN: &[Key] = &[
    key("input_above", Kind::Count(0, u32::MAX), "", "More input tokens than this, cached ones counted"),
    key("input_upto", Kind::Count(0, u32::MAX), "", "So many or fewer"),
    key("output_above", Kind::Count(0, u32::MAX), "", "More output tokens than this"),
    key("output_upto", Kind::Count(0, u32::MAX), "", "So many or fewer"),
    key("tier", Kind::Text, "", "This service tier"),
    key("resolution", Kind::Text, "", "Pictures of this size"),
    key("quality", Kind::Text, "", "Pictures of this quality"),
    key("thinking", Kind::Flag, "", "Whether it reasoned"),
    key("from", Kind::Text, "", "From this date on"),
    key("until", Kind::Text, "", "Before this date"),
    key("hours", Kind::Text, "", "A span of the day in UTC: 16:30-00:30"),
];

/// The key of this path.
#[must_use]
pub fn find(path: &str) -> Option<&'static Key> {
    ALL.iter().find(|key| key.path == path).or_else(|| {
        // `upstream.timeouts.idle` is as `timeouts.idle`.
        let (_, below) = path.split_once(".timeouts.")?;
        ALL.iter().find(|key| key.path.strip_prefix("timeouts.") == Some(below))
    })
}

/// The JSON schema (2020-12) of the file, for editors.
#[must_use]
pub fn schema() -> Value {
    let mut tables: Map<String, Value> = Map::new();
    for key in ALL {
        let Some((table, name)) = key.path.split_once('.') else { continue };
        let entry = tables.entry(table).or_insert_with(|| object(&Map::new()));
        if let Some(properties) = entry.get_mut("properties").and_then(Value::as_object_mut) {
            properties.insert(name.to_owned(), described(key));
        }
    }
    tables.insert("budget".to_owned(), shape(Kind::Budget));
    let timeouts = tables.get("timeouts").cloned().unwrap_or_default();
    for (name, needed) in [
        ("upstream", json!(["name"])),
        ("model", json!(["name", "targets"])),
        ("project", json!(["name"])),
        ("keyless", json!(["listen"])),
    ] {
        if let Some(mut row) = tables.remove(name) {
            row["required"] = needed;
            tables.insert(name.to_owned(), json!({ "type": "array", "items": row }));
        }
    }
    if let Some(mut row) = tables.remove("prices") {
        row["description"] = "By \"UPSTREAM/MODEL\"; the model may be a glob".into();
        tables
            .insert("prices".to_owned(), json!({ "type": "object", "additionalProperties": row }));
    }
    tables.insert(
        "rates".to_owned(),
        json!({ "type": "object", "additionalProperties": shape(Kind::Number), "description": "Dollars for one unit of a currency" }),
    );
    tables.insert("timeouts".to_owned(), json!({ "$ref": "#/$defs/timeouts" }));
    tables.insert(
        "aliases".to_owned(),
        json!({ "type": "object", "additionalProperties": { "type": "string" }, "description": "Other names for models" }),
    );
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "aiproxy config.toml",
        "type": "object",
        "properties": tables,
        "additionalProperties": false,
        "$defs": {
            "timeouts": timeouts,
            "duration": { "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$" },
            "size": { "type": "string", "pattern": "^[0-9]+([KMGT]?i?B)$" },
            "dialect": { "enum": crate::ir::op::Dialect::ALL.map(crate::ir::op::Dialect::name) },
        },
    })
}

fn object(properties: &Map<String, Value>) -> Value {
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn described(key: &Key) -> Value {
    let mut schema = shape(key.kind);
    schema["description"] = key.doc.into();
    let default = format!("x = {}", key.default).parse::<toml_edit::DocumentMut>().ok();
    if let Some(value) = default.as_ref().and_then(|doc| json_of(doc.get("x")?.as_value()?)) {
        schema["default"] = value;
    }
    schema
}

fn json_of(value: &toml_edit::Value) -> Option<Value> {
    use toml_edit::Value as Toml;
    match value {
        Toml::String(text) => Some(Value::from(text.value().as_str())),
        Toml::Integer(number) => Some(Value::from(*number.value())),
        Toml::Float(number) => Some(Value::from(*number.value())),
        Toml::Boolean(flag) => Some(Value::from(*flag.value())),
        Toml::Array(list) => list.iter().map(json_of).collect(),
        Toml::Datetime(_) | Toml::InlineTable(_) => None,
    }
}

fn shape(kind: Kind) -> Value {
    let text = json!({ "type": "string" });
    let table = |keys: &[Key]| {
        object(&keys.iter().map(|key| (key.path.to_owned(), described(key))).collect())
    };
    let some = |one: &Value| json!({ "anyOf": [one, { "type": "array", "items": one }] });
    match kind {
        Kind::BaseUrl => {
            json!({ "anyOf": [text, { "type": "object", "propertyNames": { "$ref": "#/$defs/dialect" }, "additionalProperties": text }] })
        }
        Kind::Budget => {
            let mut one = table(BUDGET);
            one["required"] = json!(["usd", "per"]);
            some(&one)
        }
        Kind::Conditions => {
            let prices = ALL
                .iter()
                .filter(|key| key.kind == Kind::Number)
                .filter_map(|key| Some((key.path.strip_prefix("prices.")?, key)));
            let all = WHEN.iter().map(|key| (key.path, key)).chain(prices);
            some(&object(&all.map(|(name, key)| (name.to_owned(), described(key))).collect()))
        }
        Kind::Count(low, high) => json!({ "type": "integer", "minimum": low, "maximum": high }),
        Kind::Dialects => some(&json!({ "$ref": "#/$defs/dialect" })),
        Kind::Duration => json!({ "$ref": "#/$defs/duration" }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Health => {
            json!({ "type": "object", "properties": { "path": text, "every": { "$ref": "#/$defs/duration" } }, "additionalProperties": false })
        }
        Kind::Hedge => json!({
            "type": "object",
            "properties": {
                "after": { "anyOf": [{ "const": "p95" }, { "$ref": "#/$defs/duration" }] },
                "max_share": { "type": "number", "minimum": 0, "maximum": 1 },
                "max_tokens": { "type": "integer", "minimum": 1, "maximum": u32::MAX },
            },
            "additionalProperties": false,
        }),
        Kind::Keys => some(&json!({ "anyOf": [text, table(KEY)] })),
        Kind::Limits => {
            let number = json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX });
            json!({ "type": "object", "additionalProperties": object(&Map::from_iter([("rpm".to_owned(), number.clone()), ("tpm".to_owned(), number)])) })
        }
        Kind::Number => json!({ "type": "number", "minimum": 0 }),
        Kind::Patch => json!({
            "type": "object",
            "properties": { "set": { "type": "object" }, "default": { "type": "object" }, "remove": { "type": "array", "items": text } },
            "additionalProperties": false,
        }),
        Kind::Rules => json!({ "type": "array", "items": table(RULE) }),
        Kind::Size => json!({ "$ref": "#/$defs/size" }),
        Kind::SizeOrAuto => json!({ "anyOf": [{ "const": "auto" }, { "$ref": "#/$defs/size" }] }),
        Kind::Statuses => some(&json!({ "type": ["string", "integer"] })),
        Kind::Targets => some(&json!({ "anyOf": [text, table(TARGET)] })),
        Kind::Text => text,
        Kind::TextMap => json!({ "type": "object", "additionalProperties": text }),
        Kind::Texts => some(&text),
        Kind::Timeouts => json!({ "$ref": "#/$defs/timeouts" }),
        Kind::Words(words) => json!({ "enum": words }),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Environment, Ids, load::load};

    /// The text of a file that sets nothing but this key, to its default or to something of its
    /// kind.
    fn sample(key: &Key) -> String {
        let value = match key.kind {
            _ if !key.default.is_empty() => key.default.to_owned(),
            Kind::BaseUrl => "\"https://a.example\"".to_owned(),
            Kind::Conditions => "[{ input_above = 1, hours = \"16:30-00:30\", from = \"2025-01-01\", input = 1 }]".to_owned(),
            Kind::Budget => "[{ usd = 5.0, per = \"day\", unpriced = \"refuse\" }, { usd = 50, per = \"month\" }]".to_owned(),
            Kind::Dialects => "\"openai\"".to_owned(),
            Kind::Flag => "true".to_owned(),
            Kind::Health => "{ path = \"/x\", every = \"60s\" }".to_owned(),
            Kind::Hedge => "{ after = \"p95\", max_share = 0.05, max_tokens = 1 }".to_owned(),
            Kind::Keys => "[{ ref = \"env:X\", label = \"x\", account = \"a\", priority = 1, weight = 1, rpm = 1, tpm = 1, limits = { \"m-*\" = { rpm = 1 } }, max_concurrency = 1, budget = { usd = 1, per = \"total\" }, refresh = \"45m\", enabled = true }]".to_owned(),
            Kind::Limits => "{ \"a-*\" = { rpm = 1, tpm = 1 } }".to_owned(),
            Kind::Patch => "{ set = { \"/a\" = 1 }, default = {}, remove = [\"/b\"] }".to_owned(),
            Kind::Rules => "[{ status = \"400\", match = \"busy\", action = \"retry\", scope = \"request\", for = \"1s\" }]".to_owned(),
            Kind::Statuses => "[\"429\"]".to_owned(),
            Kind::Targets => "[{ upstream = \"a\", model = \"m\", priority = 1, weight = 1 }]".to_owned(),
            Kind::TextMap => "{ a = \"b\" }".to_owned(),
            Kind::Texts => "[\"a\"]".to_owned(),
            Kind::Timeouts => "{ first_byte = \"1s\", idle = \"1s\", total = \"1s\" }".to_owned(),
            Kind::Words(words) => format!("\"{}\"", words[0]),
            Kind::Duration => "\"1m\"".to_owned(),
            Kind::Count(..) | Kind::Number | Kind::Size | Kind::SizeOrAuto | Kind::Text => "\"none\"".to_owned(),
        };
        let (table, name) = key.path.split_once('.').expect("a table and a key");
        match (table, name) {
            ("upstream", "name") => {
                "[[upstream]]\nname = \"a\"\nbase_url = \"https://a.example\"\n".to_owned()
            }
            ("upstream", "base_url") => format!("[[upstream]]\nname = \"a\"\nbase_url = {value}\n"),
            ("upstream", "preset") => {
                "[[upstream]]\nname = \"a\"\npreset = \"openai\"\n".to_owned()
            }
            ("upstream", _) => format!(
                "[[upstream]]\nname = \"a\"\nbase_url = \"https://a.example\"\n{name} = {value}\n"
            ),
            ("budget", _) => {
                "[budget]\nusd = 20\nper = \"month\"\nunpriced = \"warn\"\n".to_owned()
            }
            ("model", "name") => "[[model]]\nname = \"m\"\ntargets = [\"x\"]\n".to_owned(),
            ("model", "targets") => {
                format!(
                    "[[upstream]]\nname = \"a\"\nbase_url = \"https://a.example\"\n[[model]]\nname = \"n\"\ntargets = {value}\n"
                )
            }
            ("model", _) => {
                format!("[[model]]\nname = \"m\"\ntargets = [\"x\"]\n{name} = {value}\n")
            }
            ("keyless", "listen") => "[[keyless]]\nlisten = \"127.0.0.1:11435\"\n".to_owned(),
            ("keyless", _) => {
                format!("[[keyless]]\nlisten = \"127.0.0.1:11435\"\n{name} = {value}\n")
            }
            ("project", "name") => "[[project]]\nname = \"p\"\nkey = \"env:P\"\n".to_owned(),
            ("project", "key") => "[[project]]\nname = \"p\"\nkey = \"env:P\"\n".to_owned(),
            ("project", _) => {
                format!("[[project]]\nname = \"p\"\nkey = \"env:P\"\n{name} = {value}\n")
            }
            ("prices", _) => {
                let input = if name == "input" { "" } else { "input = 1\n" };
                let value = if key.kind == Kind::Number { "1" } else { &value };
                format!("[prices.\"a/b\"]\n{input}{name} = {value}\n")
            }
            _ => format!("[{table}]\n{name} = {value}\n"),
        }
    }

    #[test]
    fn the_reader_knows_every_key_of_the_table_and_takes_its_default() {
        for key in ALL {
            let text = sample(key);
            let loaded =
                load(&text, Path::new("c.toml"), &Environment::default(), &mut Ids::default());
            assert!(loaded.settings.is_some(), "{text}: {:#?}", loaded.problems);
        }
    }

    #[test]
    fn written_defaults_are_the_defaults() {
        let load = |text: &str| {
            load(text, Path::new("c.toml"), &Environment::default(), &mut Ids::default())
                .settings
                .expect("it loads")
        };
        let plain = show(&load(""));
        for key in ALL.iter().filter(|key| {
            !key.default.is_empty()
                && !["upstream", "model", "project", "keyless", "prices", "budget"]
                    .contains(&key.path.split('.').next().expect("a table"))
        }) {
            assert_eq!(show(&load(&sample(key))), plain, "{}", key.path);
        }
    }

    #[test]
    fn the_table_names_every_key_that_the_reader_asks_for() {
        // An unknown key in each table makes the reader say what it knows there.
        let text = "zz = 1\n[server]\nzz = 1\n[discover]\nzz = 1\n[log]\nzz = 1\n[timeouts]\nzz = 1\n[retry]\nzz = 1\n[cooldown]\nzz = 1\n[routing]\nzz = 1\n[tui]\nzz = 1\n[alerts]\nzz = 1\n[otlp]\nzz = 1\n\
            [[upstream]]\nname = \"a\"\nbase_url = \"https://a.example\"\nzz = 1\n[[model]]\nname = \"a\"\ntargets = [\"x\"]\nzz = 1\n[[project]]\nname = \"a\"\nkey = \"env:A\"\nzz = 1\n";
        let loaded = load(text, Path::new("c.toml"), &Environment::default(), &mut Ids::default());
        assert_eq!(loaded.problems.len(), 14, "{:#?}", loaded.problems);
        for problem in loaded.problems {
            let table = problem.title.split("in `").nth(1).map(|rest| {
                rest.trim_end_matches('`').split('.').next().unwrap_or_default().to_owned()
            });
            let help = problem.help.expect("the known ones");
            for name in help.trim_start_matches("known here: ").split(", ") {
                let known = match &table {
                    None => {
                        matches!(name, "aliases" | "rates")
                            || ALL.iter().any(|key| key.path.split('.').next() == Some(name))
                    }
                    Some(table) => ALL.iter().any(|key| key.path == format!("{table}.{name}")),
                };
                assert!(known, "{table:?}.{name} is not in the table of keys");
            }
        }
    }
}
