//! The table of config keys with purpose, kind and default of each. The JSON schema, `config set`
//! and the docs use it.

use serde_json::{Map, Value, json};

pub use crate::config::to_toml::{key_to_toml, to_toml};

/// A config key.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    /// The full path; keys of rows omit the row's name: `upstream.priority`.
    pub path: &'static str,
    pub kind: ValueKind,
    /// The default as written in the file; empty if there is none.
    pub default: &'static str,
    pub doc: &'static str,
}

/// The kind of value that a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// A URL, or a table of URLs by dialect.
    BaseUrl,
    /// One or several tables: see [`BUDGET_FIELDS`].
    Budget,
    /// Tables of conditions and prices: see [`CONDITION_FIELDS`].
    Conditions,
    /// Minimum and maximum.
    Count(u32, u32),
    Dialects,
    Duration,
    Flag,
    Health,
    /// When a hedge request is sent.
    Hedge,
    /// References or tables: see [`KEY_FIELDS`].
    Keys,
    /// `{ "PATTERN" = { rpm = 10, tpm = 1000 } }`
    Limits,
    /// A share or a weight.
    Number,
    Patch,
    /// Tables: see [`RULE_FIELDS`].
    Rules,
    Size,
    /// `"auto"` or a size.
    SizeOrAuto,
    Statuses,
    Targets,
    Text,
    /// A table of text to text.
    TextMap,
    Texts,
    /// Any key of `[timeouts]`.
    Timeouts,
    Words(&'static [&'static str]),
}

impl ValueKind {
    /// Whether the key takes nothing but quoted text, so that `config set` needs no quotes.
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
const AFFINITIES: &[&str] = &["auto", "session", "off"];
const MAX_COUNT: u32 = 1_000_000;

const fn spec(
    path: &'static str,
    kind: ValueKind,
    default: &'static str,
    doc: &'static str,
) -> KeySpec {
    KeySpec { path, kind, default, doc }
}

/// Every key that has an effect, table by table.
#[rustfmt::skip]
pub const KEYS: &[KeySpec] = &[
    spec("server.listen", ValueKind::Texts, r#"["127.0.0.1:8642", "[::1]:8642"]"#, "Where to listen; \"8642\" means loopback, both families"),
    spec("server.auth", ValueKind::Flag, "true", "Ask clients for a key; may be off only where every address is loopback"),
    spec("server.trusted_hosts", ValueKind::Texts, "[]", "Host headers accepted beside localhost, 127.0.0.1 and [::1]"),
    spec("server.allowed_origins", ValueKind::Texts, "[]", "Browser origins let in"),
    spec("server.max_request_bytes", ValueKind::Size, r#""64MiB""#, "Largest request body"),
    spec("server.max_response_bytes", ValueKind::Size, r#""64MiB""#, "Largest answer that is not a stream"),
    spec("server.max_connections", ValueKind::Count(1, MAX_COUNT), "1024", "Client connections at once"),
    spec("server.max_requests", ValueKind::Count(1, MAX_COUNT), "512", "Requests in flight; beyond it 503"),
    spec("server.max_buffered", ValueKind::SizeOrAuto, r#""auto""#, "Bodies held at once; auto is the smaller of 512MiB and a quarter of memory"),
    spec("server.drain", ValueKind::Duration, r#""30s""#, "At shutdown, how long open requests may finish"),
    spec("discover.env", ValueKind::Flag, "true", "Use provider keys found in the environment"),
    spec("discover.local", ValueKind::Flag, "true", "Look for model servers on this machine"),
    spec("log.level", ValueKind::Words(&["error", "warn", "info", "debug", "trace"]), r#""info""#, "What is logged"),
    spec("log.format", ValueKind::Words(&["text", "json"]), r#""text""#, "How it is written"),
    spec("log.file", ValueKind::Text, r#""""#, "Where to; empty is stderr"),
    spec("timeouts.connect", ValueKind::Duration, r#""10s""#, "To connect to an upstream"),
    spec("timeouts.first_byte", ValueKind::Duration, r#""120s""#, "Until a stream's first event with content"),
    spec("timeouts.idle", ValueKind::Duration, r#""180s""#, "Silence inside a stream"),
    spec("timeouts.total", ValueKind::Duration, r#""15m""#, "A request that is not a stream, all attempts together"),
    spec("timeouts.client_head", ValueKind::Duration, r#""10s""#, "A client's request head"),
    spec("timeouts.client_idle", ValueKind::Duration, r#""60s""#, "Silence inside a client's request body"),
    spec("timeouts.client_keepalive", ValueKind::Duration, r#""90s""#, "An idle client connection"),
    spec("retry.max_attempts", ValueKind::Count(1, 32), "4", "Tries that may have cost upstream work, the first included"),
    spec("retry.backoff", ValueKind::Duration, r#""250ms""#, "Base of the delay when the same key is tried again"),
    spec("retry.max_backoff", ValueKind::Duration, r#""8s""#, "Ceiling of that delay"),
    spec("retry.budget", ValueKind::Number, "0.2", "Share that such retries may add to the request rate, 0 to 1"),
    spec("retry.statuses", ValueKind::Statuses, r#"["408", "409", "425", "429", "500-599"]"#, "Statuses that are tried again"),
    spec("retry.queue_for", ValueKind::Duration, r#""10s""#, "Wait so long for the soonest key rather than answer 429"),
    spec("cooldown.rate_limited", ValueKind::Duration, r#""5s""#, "After a 429 without a hint, doubling"),
    spec("cooldown.server_error", ValueKind::Duration, r#""15s""#, "After a 5xx or a network error, doubling"),
    spec("cooldown.max", ValueKind::Duration, r#""10m""#, "Ceiling of the doubling"),
    spec("cooldown.max_hint", ValueKind::Duration, r#""1h""#, "Ceiling of what a provider asks for"),
    spec("cooldown.quota", ValueKind::Duration, r#""1h""#, "After spent quota, billing trouble or an unknown model"),
    spec("cooldown.failures", ValueKind::Count(1, 1_000), "3", "Strikes that open the circuit of an upstream"),
    spec("routing.strategy", ValueKind::Words(STRATEGIES), r#""priority""#, "How a candidate is drawn from the best tier"),
    spec("routing.region", ValueKind::Text, r#""""#, "Upstreams of this region are preferred to their equals"),
    spec("routing.sticky", ValueKind::Words(AFFINITIES), r#""auto""#, "Turns of a conversation go where its prompt is cached: by itself (auto) or by its session's name"),
    spec("routing.sticky_ttl", ValueKind::Duration, r#""1h""#, "How long a silent conversation is remembered"),
    spec("upstream.name", ValueKind::Text, "", "What it is called here"),
    spec("upstream.preset", ValueKind::Text, "", "A known provider, which fills in the rest; `aiproxy upstream presets` lists them"),
    spec("upstream.base_url", ValueKind::BaseUrl, "", "Where it is; a table by dialect where they differ"),
    spec("upstream.dialect", ValueKind::Dialects, "", "What it speaks: one or several of openai, responses, anthropic, gemini, ollama"),
    spec("upstream.models", ValueKind::Texts, "", "What it serves: names, globs, re:REGEX, !EXCLUSION; omitted is what it lists"),
    spec("upstream.rename", ValueKind::TextMap, "", "Names for clients, and what they are called there"),
    spec("upstream.priority", ValueKind::Count(0, MAX_COUNT), "10", "Lower is tried first"),
    spec("upstream.weight", ValueKind::Number, "1.0", "Share inside a tier"),
    spec("upstream.max_concurrency", ValueKind::Count(0, MAX_COUNT), "0", "Requests at once; 0 is no limit"),
    spec("upstream.max_rps", ValueKind::Number, "0", "Requests a second; 0 is no limit"),
    spec("upstream.region", ValueKind::Text, r#""""#, "Where it stands"),
    spec("upstream.proxy", ValueKind::Text, "", "http, https, socks5 or socks5h URL; \"none\" ignores the environment's"),
    spec("upstream.headers", ValueKind::TextMap, "", "Added to each request"),
    spec("upstream.ca_file", ValueKind::Text, "", "Certificates trusted beside the system's; relative to this file"),
    spec("upstream.insecure_tls", ValueKind::Flag, "false", "Trust any certificate"),
    spec("upstream.ask_usage", ValueKind::Flag, "", "Ask a stream for its usage where the client did not; presets set it"),
    spec("upstream.think_split", ValueKind::Flag, "false", "<think> text at the beginning of an answer is reasoning"),
    spec("upstream.stream_keepalive", ValueKind::Flag, "false", "Run whole answers as streams, so that no idle timeout ends them"),
    spec("upstream.prices_win", ValueKind::Flag, "false", "Its rows in [prices] count, whatever costs it reports"),
    spec("upstream.retry_statuses", ValueKind::Statuses, "", "Instead of retry.statuses"),
    spec("upstream.budget", ValueKind::Budget, "", "What it may cost; beyond it others serve until the period ends"),
    spec("upstream.rule", ValueKind::Rules, "", "What becomes of refusals of some kind"),
    spec("upstream.health", ValueKind::Health, "", "Ask this path now and then"),
    spec("upstream.keys", ValueKind::Keys, "", "Credentials: references, or tables"),
    spec("upstream.enabled", ValueKind::Flag, "true", "Whether it is used"),
    spec("upstream.timeouts", ValueKind::Timeouts, "", "Instead of [timeouts]"),
    spec("upstream.patch", ValueKind::Patch, "", "Edits to request bodies"),
    spec("model.name", ValueKind::Text, "", "What clients ask for; may be a pattern"),
    spec("model.targets", ValueKind::Targets, "", "\"UPSTREAM:MODEL\", or tables"),
    spec("model.strategy", ValueKind::Words(STRATEGIES), "", "Instead of routing.strategy"),
    spec("model.sticky", ValueKind::Words(AFFINITIES), "", "Instead of routing.sticky"),
    spec("model.sticky_ttl", ValueKind::Duration, "", "Instead of routing.sticky_ttl"),
    spec("model.hedge", ValueKind::Hedge, "", "Ask a second target where the first is slow to speak"),
    spec("model.rescue", ValueKind::Flag, "false", "Continue a stream that breaks off elsewhere, from what was said"),
    spec("model.timeouts", ValueKind::Timeouts, "", "Instead of [timeouts]"),
    spec("keyless.listen", ValueKind::Text, "", "Where clients without a credential are served; this machine only"),
    spec("keyless.project", ValueKind::Text, r#""default""#, "Whose requests they are"),
    spec("keyless.dialects", ValueKind::Dialects, r#"["ollama"]"#, "What may be spoken there"),
    spec("project.name", ValueKind::Text, "", "What it is called"),
    spec("project.key", ValueKind::Text, "", "Reference to its client key"),
    spec("project.models", ValueKind::Texts, r#"["*"]"#, "What it may ask for"),
    spec("project.upstreams", ValueKind::Texts, r#"["*"]"#, "What may serve it"),
    spec("project.rpm", ValueKind::Count(0, u32::MAX), "0", "Requests a minute; 0 is no limit"),
    spec("project.tpm", ValueKind::Count(0, u32::MAX), "0", "Tokens a minute, input and output; 0 is no limit"),
    spec("project.max_concurrency", ValueKind::Count(0, MAX_COUNT), "0", "Requests at once, others wait; 0 is no limit"),
    spec("project.budget", ValueKind::Budget, "", "What it may spend; beyond it requests are refused until the period ends"),
    spec("project.subnets", ValueKind::Texts, "[]", "Where its clients may be; empty is anywhere"),
    spec("project.admin", ValueKind::Flag, "false", "May control the proxy"),
    spec("project.enabled", ValueKind::Flag, "true", "Whether its key is accepted"),
    spec("budget.usd", ValueKind::Number, "", "Dollars that all projects together may spend"),
    spec("budget.per", ValueKind::Words(&["day", "week", "month", "total"]), "", "In which time; weeks begin on Monday, in the ledger's time zone"),
    spec("budget.unpriced", ValueKind::Words(&["warn", "refuse"]), r#""warn""#, "Requests without a known price: reported once per model, or refused"),
    spec("translation.losses", ValueKind::Words(&["tell", "refuse"]), r#""tell""#, "Fields that an upstream's protocol has no place for: left out and named, or refused"),
    spec("ledger.path", ValueKind::Text, r#""ledger.db""#, "Where requests are recorded; relative to the data dir"),
    spec("ledger.tz", ValueKind::Text, r#""""#, "Time zone of days; empty is the machine's"),
    spec("ledger.bodies", ValueKind::Words(&["off", "errors", "all"]), r#""all""#, "Which requests and answers are kept whole; secrets are taken out"),
    spec("ledger.bodies_total", ValueKind::Size, r#""256MiB""#, "Room for them; the oldest go first"),
    spec("ledger.body_limit", ValueKind::Size, r#""4MiB""#, "Of a longer one beginning and end are kept"),
    spec("ledger.keep", ValueKind::Duration, r#""90d""#, "How long requests are kept; sums by day stay"),
    spec("ledger.keep_bodies", ValueKind::Duration, r#""3d""#, "How long bodies are kept"),
    spec("alerts.desktop", ValueKind::Flag, "false", "Whether alerts show as notifications of the desktop"),
    spec("alerts.webhook", ValueKind::Text, r#""""#, "Where alerts are sent as JSON"),
    spec("alerts.secret", ValueKind::Text, r#""""#, "Reference to what signs them"),
    spec("alerts.feishu", ValueKind::Text, r#""""#, "Address of a Feishu bot that gets them as cards"),
    spec("alerts.events", ValueKind::Texts, r#"["key_down", "upstream_down", "recovered", "budget", "error_rate"]"#, "Which alerts go out; there are also balance, spike and ledger"),
    spec("otlp.url", ValueKind::Text, r#""""#, "Collector that gets traces (OTLP over HTTP, JSON)"),
    spec("otlp.headers", ValueKind::TextMap, "", "Sent with them; values may be references"),
    spec("prices.input", ValueKind::Number, "", "A million tokens of input"),
    spec("prices.cache_read", ValueKind::Number, "", "Of input read from the prompt cache; else as input"),
    spec("prices.cache_write_5m", ValueKind::Number, "", "Of input written to it for five minutes; else as input"),
    spec("prices.cache_write_1h", ValueKind::Number, "", "For an hour; else as for five minutes"),
    spec("prices.audio_in", ValueKind::Number, "", "Of sound; else as input"),
    spec("prices.image_in", ValueKind::Number, "", "Of pictures; else as input"),
    spec("prices.output", ValueKind::Number, "", "A million tokens of output"),
    spec("prices.reasoning", ValueKind::Number, "", "Of reasoning; else as output"),
    spec("prices.audio_out", ValueKind::Number, "", "Of sound; else as output"),
    spec("prices.image_out", ValueKind::Number, "", "Of pictures; else as output"),
    spec("prices.search", ValueKind::Number, "", "A thousand web searches"),
    spec("prices.request", ValueKind::Number, "", "One request"),
    spec("prices.currency", ValueKind::Text, r#""USD""#, "What these are in; others need a rate"),
    spec("prices.page", ValueKind::Text, "", "Where they were read"),
    spec("prices.date", ValueKind::Text, "", "When they were read"),
    spec("prices.when", ValueKind::Conditions, "", "Other prices, under conditions; the narrowest that holds wins"),
    spec("tui.theme", ValueKind::Words(&["dark", "light", "contrast", "mono"]), r#""dark""#, "Colours of the dashboard"),
    spec("tui.mouse", ValueKind::Flag, "true", "Whether the dashboard takes the mouse"),
    spec("tui.lang", ValueKind::Words(&["auto", "en", "zh"]), r#""auto""#, "Language of the dashboard; auto is that of the locale"),
];

/// Keys of a table in `keys`.
#[rustfmt::skip]
pub const KEY_FIELDS: &[KeySpec] = &[
    spec("ref", ValueKind::Text, "", "keyring:LABEL, env:NAME, file:PATH, cmd:PROGRAM ARGS or vault:LABEL"),
    spec("label", ValueKind::Text, "", "Its name; else the last part of the reference"),
    spec("account", ValueKind::Text, "", "Shared by keys that share limits"),
    spec("priority", ValueKind::Count(0, MAX_COUNT), "10", "Lower is tried first"),
    spec("weight", ValueKind::Number, "1.0", "Share inside a tier"),
    spec("rpm", ValueKind::Count(0, u32::MAX), "0", "Requests a minute; 0 is no limit"),
    spec("tpm", ValueKind::Count(0, u32::MAX), "0", "Tokens a minute; 0 is no limit"),
    spec("limits", ValueKind::Limits, "", "The same for some models: { \"glm-*\" = { rpm = 10 } }"),
    spec("max_concurrency", ValueKind::Count(0, MAX_COUNT), "0", "Requests at once; 0 is no limit"),
    spec("budget", ValueKind::Budget, "", "What it may cost; beyond it others serve until the period ends"),
    spec("refresh", ValueKind::Duration, "", "Read the reference again this often"),
    spec("enabled", ValueKind::Flag, "true", "Whether it is used"),
];

/// Keys of a `budget`.
#[rustfmt::skip]
pub const BUDGET_FIELDS: &[KeySpec] = &[
    spec("usd", ValueKind::Number, "", "Dollars"),
    spec("per", ValueKind::Words(&["day", "week", "month", "total"]), "", "In which time; weeks begin on Monday, in the ledger's time zone"),
    spec("unpriced", ValueKind::Words(&["warn", "refuse"]), r#""warn""#, "Requests without a known price: reported once per model, or refused"),
];

/// Keys of `[[upstream.rule]]`.
#[rustfmt::skip]
pub const RULE_FIELDS: &[KeySpec] = &[
    spec("status", ValueKind::Statuses, "", "Of these statuses; else of any"),
    spec("match", ValueKind::Text, "", "With this in the answer, case ignored, or re:REGEX"),
    spec("action", ValueKind::Words(&["retry", "pass", "cool"]), r#""cool""#, "Tried elsewhere, returned to the client, or cooled and tried elsewhere"),
    spec("scope", ValueKind::Words(&["request", "key_model", "key", "account", "upstream"]), r#""key_model""#, "What is left alone"),
    spec("for", ValueKind::Duration, "", "How long; else as after a 429 without a hint"),
];

/// Keys of a table in `targets`.
#[rustfmt::skip]
pub const TARGET_FIELDS: &[KeySpec] = &[
    spec("upstream", ValueKind::Text, "", "Which upstream; else any that serves the model"),
    spec("model", ValueKind::Text, "", "The model's name there"),
    spec("priority", ValueKind::Count(0, MAX_COUNT), "", "Instead of the upstream's"),
    spec("weight", ValueKind::Number, "", "Instead of the upstream's"),
];

/// Keys of a table in `when`, in addition to the prices themselves.
#[rustfmt::skip]
pub const CONDITION_FIELDS: &[KeySpec] = &[
    spec("input_above", ValueKind::Count(0, u32::MAX), "", "More input tokens than this, cached ones counted"),
    spec("input_upto", ValueKind::Count(0, u32::MAX), "", "So many or fewer"),
    spec("output_above", ValueKind::Count(0, u32::MAX), "", "More output tokens than this"),
    spec("output_upto", ValueKind::Count(0, u32::MAX), "", "So many or fewer"),
    spec("tier", ValueKind::Text, "", "This service tier"),
    spec("resolution", ValueKind::Text, "", "Pictures of this size"),
    spec("quality", ValueKind::Text, "", "Pictures of this quality"),
    spec("thinking", ValueKind::Flag, "", "Whether it reasoned"),
    spec("from", ValueKind::Text, "", "From this date on"),
    spec("until", ValueKind::Text, "", "Before this date"),
    spec("hours", ValueKind::Text, "", "A span of the day in UTC: 16:30-00:30"),
];

/// Returns the key with this path.
#[must_use]
pub fn find(path: &str) -> Option<&'static KeySpec> {
    KEYS.iter().find(|key| key.path == path).or_else(|| {
        // `upstream.timeouts.idle` has the definition of `timeouts.idle`.
        let (_, below) = path.split_once(".timeouts.")?;
        KEYS.iter().find(|key| key.path.strip_prefix("timeouts.") == Some(below))
    })
}

/// Returns the JSON schema (2020-12) of the file, for editors.
#[must_use]
pub fn json_schema() -> Value {
    let mut tables: Map<String, Value> = Map::new();
    for key in KEYS {
        let Some((table, name)) = key.path.split_once('.') else { continue };
        let entry = tables.entry(table).or_insert_with(|| object_schema(&Map::new()));
        if let Some(properties) = entry.get_mut("properties").and_then(Value::as_object_mut) {
            properties.insert(name.to_owned(), described_schema(key));
        }
    }
    tables.insert("budget".to_owned(), value_schema(ValueKind::Budget));
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
        json!({ "type": "object", "additionalProperties": value_schema(ValueKind::Number), "description": "Dollars for one unit of a currency" }),
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

fn object_schema(properties: &Map<String, Value>) -> Value {
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn described_schema(key: &KeySpec) -> Value {
    let mut schema = value_schema(key.kind);
    schema["description"] = key.doc.into();
    let default = format!("x = {}", key.default).parse::<toml_edit::DocumentMut>().ok();
    if let Some(value) = default.as_ref().and_then(|doc| toml_to_json(doc.get("x")?.as_value()?)) {
        schema["default"] = value;
    }
    schema
}

fn toml_to_json(value: &toml_edit::Value) -> Option<Value> {
    use toml_edit::Value as Toml;
    match value {
        Toml::String(text) => Some(Value::from(text.value().as_str())),
        Toml::Integer(number) => Some(Value::from(*number.value())),
        Toml::Float(number) => Some(Value::from(*number.value())),
        Toml::Boolean(flag) => Some(Value::from(*flag.value())),
        Toml::Array(list) => list.iter().map(toml_to_json).collect(),
        Toml::Datetime(_) | Toml::InlineTable(_) => None,
    }
}

fn value_schema(kind: ValueKind) -> Value {
    let text = json!({ "type": "string" });
    let table = |keys: &[KeySpec]| {
        object_schema(
            &keys.iter().map(|key| (key.path.to_owned(), described_schema(key))).collect(),
        )
    };
    let one_or_many = |one: &Value| json!({ "anyOf": [one, { "type": "array", "items": one }] });
    match kind {
        ValueKind::BaseUrl => {
            json!({ "anyOf": [text, { "type": "object", "propertyNames": { "$ref": "#/$defs/dialect" }, "additionalProperties": text }] })
        }
        ValueKind::Budget => {
            let mut one = table(BUDGET_FIELDS);
            one["required"] = json!(["usd", "per"]);
            one_or_many(&one)
        }
        ValueKind::Conditions => {
            let prices = KEYS
                .iter()
                .filter(|key| key.kind == ValueKind::Number)
                .filter_map(|key| Some((key.path.strip_prefix("prices.")?, key)));
            let all = CONDITION_FIELDS.iter().map(|key| (key.path, key)).chain(prices);
            one_or_many(&object_schema(
                &all.map(|(name, key)| (name.to_owned(), described_schema(key))).collect(),
            ))
        }
        ValueKind::Count(low, high) => {
            json!({ "type": "integer", "minimum": low, "maximum": high })
        }
        ValueKind::Dialects => one_or_many(&json!({ "$ref": "#/$defs/dialect" })),
        ValueKind::Duration => json!({ "$ref": "#/$defs/duration" }),
        ValueKind::Flag => json!({ "type": "boolean" }),
        ValueKind::Health => {
            json!({ "type": "object", "properties": { "path": text, "every": { "$ref": "#/$defs/duration" } }, "additionalProperties": false })
        }
        ValueKind::Hedge => json!({
            "type": "object",
            "properties": {
                "after": { "anyOf": [{ "const": "p95" }, { "$ref": "#/$defs/duration" }] },
                "max_share": { "type": "number", "minimum": 0, "maximum": 1 },
                "max_tokens": { "type": "integer", "minimum": 1, "maximum": u32::MAX },
            },
            "additionalProperties": false,
        }),
        ValueKind::Keys => one_or_many(&json!({ "anyOf": [text, table(KEY_FIELDS)] })),
        ValueKind::Limits => {
            let number = json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX });
            json!({ "type": "object", "additionalProperties": object_schema(&Map::from_iter([("rpm".to_owned(), number.clone()), ("tpm".to_owned(), number)])) })
        }
        ValueKind::Number => json!({ "type": "number", "minimum": 0 }),
        ValueKind::Patch => json!({
            "type": "object",
            "properties": { "set": { "type": "object" }, "default": { "type": "object" }, "remove": { "type": "array", "items": text } },
            "additionalProperties": false,
        }),
        ValueKind::Rules => json!({ "type": "array", "items": table(RULE_FIELDS) }),
        ValueKind::Size => json!({ "$ref": "#/$defs/size" }),
        ValueKind::SizeOrAuto => {
            json!({ "anyOf": [{ "const": "auto" }, { "$ref": "#/$defs/size" }] })
        }
        ValueKind::Statuses => one_or_many(&json!({ "type": ["string", "integer"] })),
        ValueKind::Targets => one_or_many(&json!({ "anyOf": [text, table(TARGET_FIELDS)] })),
        ValueKind::Text => text,
        ValueKind::TextMap => json!({ "type": "object", "additionalProperties": text }),
        ValueKind::Texts => one_or_many(&text),
        ValueKind::Timeouts => json!({ "$ref": "#/$defs/timeouts" }),
        ValueKind::Words(words) => json!({ "enum": words }),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Environment, IdInterner, load::load};

    /// Returns the text of a file that sets only this key, to its default or to a value of its
    /// kind.
    fn sample(key: &KeySpec) -> String {
        let value = match key.kind {
            _ if !key.default.is_empty() => key.default.to_owned(),
            ValueKind::BaseUrl => "\"https://a.example\"".to_owned(),
            ValueKind::Conditions => "[{ input_above = 1, hours = \"16:30-00:30\", from = \"2025-01-01\", input = 1 }]".to_owned(),
            ValueKind::Budget => "[{ usd = 5.0, per = \"day\", unpriced = \"refuse\" }, { usd = 50, per = \"month\" }]".to_owned(),
            ValueKind::Dialects => "\"openai\"".to_owned(),
            ValueKind::Flag => "true".to_owned(),
            ValueKind::Health => "{ path = \"/x\", every = \"60s\" }".to_owned(),
            ValueKind::Hedge => "{ after = \"p95\", max_share = 0.05, max_tokens = 1 }".to_owned(),
            ValueKind::Keys => "[{ ref = \"env:X\", label = \"x\", account = \"a\", priority = 1, weight = 1, rpm = 1, tpm = 1, limits = { \"m-*\" = { rpm = 1 } }, max_concurrency = 1, budget = { usd = 1, per = \"total\" }, refresh = \"45m\", enabled = true }]".to_owned(),
            ValueKind::Limits => "{ \"a-*\" = { rpm = 1, tpm = 1 } }".to_owned(),
            ValueKind::Patch => "{ set = { \"/a\" = 1 }, default = {}, remove = [\"/b\"] }".to_owned(),
            ValueKind::Rules => "[{ status = \"400\", match = \"busy\", action = \"retry\", scope = \"request\", for = \"1s\" }]".to_owned(),
            ValueKind::Statuses => "[\"429\"]".to_owned(),
            ValueKind::Targets => "[{ upstream = \"a\", model = \"m\", priority = 1, weight = 1 }]".to_owned(),
            ValueKind::TextMap => "{ a = \"b\" }".to_owned(),
            ValueKind::Texts => "[\"a\"]".to_owned(),
            ValueKind::Timeouts => "{ first_byte = \"1s\", idle = \"1s\", total = \"1s\" }".to_owned(),
            ValueKind::Words(words) => format!("\"{}\"", words[0]),
            ValueKind::Duration => "\"1m\"".to_owned(),
            ValueKind::Count(..) | ValueKind::Number | ValueKind::Size | ValueKind::SizeOrAuto | ValueKind::Text => "\"none\"".to_owned(),
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
                let value = if key.kind == ValueKind::Number { "1" } else { &value };
                format!("[prices.\"a/b\"]\n{input}{name} = {value}\n")
            }
            _ => format!("[{table}]\n{name} = {value}\n"),
        }
    }

    #[test]
    fn the_reader_knows_every_key_of_the_table_and_takes_its_default() {
        for key in KEYS {
            let text = sample(key);
            let loaded = load(
                &text,
                Path::new("c.toml"),
                &Environment::default(),
                &mut IdInterner::default(),
            );
            assert!(loaded.settings.is_some(), "{text}: {:#?}", loaded.problems);
        }
    }

    #[test]
    fn written_defaults_are_the_defaults() {
        let load = |text: &str| {
            load(text, Path::new("c.toml"), &Environment::default(), &mut IdInterner::default())
                .settings
                .expect("it loads")
        };
        let plain = to_toml(&load(""));
        for key in KEYS.iter().filter(|key| {
            !key.default.is_empty()
                && !["upstream", "model", "project", "keyless", "prices", "budget"]
                    .contains(&key.path.split('.').next().expect("a table"))
        }) {
            assert_eq!(to_toml(&load(&sample(key))), plain, "{}", key.path);
        }
    }

    #[test]
    fn the_table_names_every_key_that_the_reader_asks_for() {
        // An unknown key in each table makes the reader report the keys that it knows there.
        let text = "zz = 1\n[server]\nzz = 1\n[discover]\nzz = 1\n[log]\nzz = 1\n[timeouts]\nzz = 1\n[retry]\nzz = 1\n[cooldown]\nzz = 1\n[routing]\nzz = 1\n[tui]\nzz = 1\n[alerts]\nzz = 1\n[otlp]\nzz = 1\n\
            [[upstream]]\nname = \"a\"\nbase_url = \"https://a.example\"\nzz = 1\n[[model]]\nname = \"a\"\ntargets = [\"x\"]\nzz = 1\n[[project]]\nname = \"a\"\nkey = \"env:A\"\nzz = 1\n";
        let loaded =
            load(text, Path::new("c.toml"), &Environment::default(), &mut IdInterner::default());
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
                            || KEYS.iter().any(|key| key.path.split('.').next() == Some(name))
                    }
                    Some(table) => KEYS.iter().any(|key| key.path == format!("{table}.{name}")),
                };
                assert!(known, "{table:?}.{name} is not in the table of keys");
            }
        }
    }
}
