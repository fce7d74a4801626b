//! The table of config keys with purpose, kind and default of each. The JSON schema, `config set`
//! and the docs use it.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::{
    kinds::KindDescription,
    schema::model_facts,
    settings::{
        AlertSettings, Cooldown, DiscoverySettings, LedgerSettings, LogSettings, OtlpSettings,
        RetrySettings, RoutingSettings, ServerSettings, Strategy, Timeouts, TranslationSettings,
        TuiSettings,
    },
    table::{ConfigTable, KeySpec},
};
pub use crate::config::to_toml::{key_to_toml, to_toml};

/// A key of a row.
#[derive(Clone, Copy, Debug)]
struct RowKey {
    path: &'static str,
    kind: RowKind,
    /// The default as written in the file; empty if there is none.
    default: &'static str,
    doc: &'static str,
}

/// The kind of value that a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowKind {
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

impl RowKind {
    /// Whether the key takes nothing but quoted text, so that `config set` needs no quotes.
    fn is_text(self) -> bool {
        matches!(
            self,
            Self::BaseUrl
                | Self::Dialects
                | Self::Duration
                | Self::Keys
                | Self::Targets
                | Self::Text
                | Self::Texts
                | Self::Words(_)
        )
    }
}

const STRATEGIES: &[&str] = &{
    let mut names = [""; Strategy::ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = Strategy::ALL[at].0;
        at += 1;
    }
    names
};
const AFFINITIES: &[&str] = &["auto", "session", "off"];
const MAX_COUNT: u32 = 1_000_000;

const fn spec(
    path: &'static str,
    kind: RowKind,
    default: &'static str,
    doc: &'static str,
) -> RowKey {
    RowKey { path, kind, default, doc }
}

/// Keys of rows.
#[rustfmt::skip]
const ROW_KEYS: &[RowKey] = &[
    spec("upstream.name", RowKind::Text, "", "What it is called here"),
    spec("upstream.preset", RowKind::Text, "", "A known provider, which fills in the rest; `aiproxy upstream presets` lists them"),
    spec("upstream.base_url", RowKind::BaseUrl, "", "Where it is; a table by dialect where they differ"),
    spec("upstream.dialect", RowKind::Dialects, "", "What it speaks: one or several of openai, responses, anthropic, gemini, ollama"),
    spec("upstream.models", RowKind::Texts, "", "What it serves: names, globs, re:REGEX, !EXCLUSION; omitted is what it lists"),
    spec("upstream.rename", RowKind::TextMap, "", "Names for clients, and what they are called there"),
    spec("upstream.priority", RowKind::Count(0, MAX_COUNT), "10", "Lower is tried first"),
    spec("upstream.weight", RowKind::Number, "1.0", "Share inside a tier"),
    spec("upstream.max_concurrency", RowKind::Count(0, MAX_COUNT), "0", "Requests at once; 0 is no limit"),
    spec("upstream.max_rps", RowKind::Number, "0", "Requests a second; 0 is no limit"),
    spec("upstream.region", RowKind::Text, r#""""#, "Where it stands"),
    spec("upstream.proxy", RowKind::Text, "", "http, https, socks5 or socks5h URL; \"none\" ignores the environment's"),
    spec("upstream.headers", RowKind::TextMap, "", "Added to each request"),
    spec("upstream.ca_file", RowKind::Text, "", "Certificates trusted beside the system's; relative to this file"),
    spec("upstream.insecure_tls", RowKind::Flag, "false", "Trust any certificate"),
    spec("upstream.ask_usage", RowKind::Flag, "", "Ask a stream for its usage where the client did not; presets set it"),
    spec("upstream.think_split", RowKind::Flag, "false", "<think> text at the beginning of an answer is reasoning"),
    spec("upstream.stream_keepalive", RowKind::Flag, "false", "Run whole answers as streams, so that no idle timeout ends them"),
    spec("upstream.prices_win", RowKind::Flag, "false", "Its rows in [prices] count, whatever costs it reports"),
    spec("upstream.retry_statuses", RowKind::Statuses, "", "Instead of retry.statuses"),
    spec("upstream.budget", RowKind::Budget, "", "What it may cost; beyond it others serve until the period ends"),
    spec("upstream.rule", RowKind::Rules, "", "What becomes of refusals of some kind"),
    spec("upstream.health", RowKind::Health, "", "Ask this path now and then"),
    spec("upstream.keys", RowKind::Keys, "", "Credentials: references, or tables"),
    spec("upstream.enabled", RowKind::Flag, "true", "Whether it is used"),
    spec("upstream.timeouts", RowKind::Timeouts, "", "Instead of [timeouts]"),
    spec("upstream.patch", RowKind::Patch, "", "Edits to request bodies"),
    spec("model.name", RowKind::Text, "", "What clients ask for; may be a pattern"),
    spec("model.targets", RowKind::Targets, "", "\"UPSTREAM:MODEL\", or tables"),
    spec("model.strategy", RowKind::Words(STRATEGIES), "", "Instead of routing.strategy"),
    spec("model.sticky", RowKind::Words(AFFINITIES), "", "Instead of routing.sticky"),
    spec("model.sticky_ttl", RowKind::Duration, "", "Instead of routing.sticky_ttl"),
    spec("model.hedge", RowKind::Hedge, "", "Ask a second target where the first is slow to speak"),
    spec("model.rescue", RowKind::Flag, "false", "Continue a stream that breaks off elsewhere, from what was said"),
    spec("model.timeouts", RowKind::Timeouts, "", "Instead of [timeouts]"),
    spec("keyless.listen", RowKind::Text, "", "Where clients without a credential are served; this machine only"),
    spec("keyless.project", RowKind::Text, r#""default""#, "Whose requests they are"),
    spec("keyless.dialects", RowKind::Dialects, r#"["ollama"]"#, "What may be spoken there"),
    spec("project.name", RowKind::Text, "", "What it is called"),
    spec("project.key", RowKind::Text, "", "Reference to its client key"),
    spec("project.models", RowKind::Texts, r#"["*"]"#, "What it may ask for"),
    spec("project.upstreams", RowKind::Texts, r#"["*"]"#, "What may serve it"),
    spec("project.rpm", RowKind::Count(0, u32::MAX), "0", "Requests a minute; 0 is no limit"),
    spec("project.tpm", RowKind::Count(0, u32::MAX), "0", "Tokens a minute, input and output; 0 is no limit"),
    spec("project.max_concurrency", RowKind::Count(0, MAX_COUNT), "0", "Requests at once, others wait; 0 is no limit"),
    spec("project.budget", RowKind::Budget, "", "What it may spend; beyond it requests are refused until the period ends"),
    spec("project.subnets", RowKind::Texts, "[]", "Where its clients may be; empty is anywhere"),
    spec("project.admin", RowKind::Flag, "false", "May control the proxy"),
    spec("project.enabled", RowKind::Flag, "true", "Whether its key is accepted"),
    spec("budget.usd", RowKind::Number, "", "Dollars that all projects together may spend"),
    spec("budget.per", RowKind::Words(&["day", "week", "month", "total"]), "", "In which time; weeks begin on Monday, in the ledger's time zone"),
    spec("budget.unpriced", RowKind::Words(&["warn", "refuse"]), r#""warn""#, "Requests without a known price: reported once per model, or refused"),
    spec("prices.input", RowKind::Number, "", "A million tokens of input"),
    spec("prices.cache_read", RowKind::Number, "", "Of input read from the prompt cache; else as input"),
    spec("prices.cache_write_5m", RowKind::Number, "", "Of input written to it for five minutes; else as input"),
    spec("prices.cache_write_1h", RowKind::Number, "", "For an hour; else as for five minutes"),
    spec("prices.audio_in", RowKind::Number, "", "Of sound; else as input"),
    spec("prices.image_in", RowKind::Number, "", "Of pictures; else as input"),
    spec("prices.output", RowKind::Number, "", "A million tokens of output"),
    spec("prices.reasoning", RowKind::Number, "", "Of reasoning; else as output"),
    spec("prices.audio_out", RowKind::Number, "", "Of sound; else as output"),
    spec("prices.image_out", RowKind::Number, "", "Of pictures; else as output"),
    spec("prices.search", RowKind::Number, "", "A thousand web searches"),
    spec("prices.request", RowKind::Number, "", "One request"),
    spec("prices.currency", RowKind::Text, r#""USD""#, "What these are in; others need a rate"),
    spec("prices.page", RowKind::Text, "", "Where they were read"),
    spec("prices.date", RowKind::Text, "", "When they were read"),
    spec("prices.when", RowKind::Conditions, "", "Other prices, under conditions; the narrowest that holds wins"),
];

/// Keys of a table in `keys`.
#[rustfmt::skip]
const KEY_FIELDS: &[RowKey] = &[
    spec("ref", RowKind::Text, "", "keyring:LABEL, env:NAME, file:PATH, cmd:PROGRAM ARGS or vault:LABEL"),
    spec("label", RowKind::Text, "", "Its name; else the last part of the reference"),
    spec("account", RowKind::Text, "", "Shared by keys that share limits"),
    spec("priority", RowKind::Count(0, MAX_COUNT), "10", "Lower is tried first"),
    spec("weight", RowKind::Number, "1.0", "Share inside a tier"),
    spec("rpm", RowKind::Count(0, u32::MAX), "0", "Requests a minute; 0 is no limit"),
    spec("tpm", RowKind::Count(0, u32::MAX), "0", "Tokens a minute; 0 is no limit"),
    spec("limits", RowKind::Limits, "", "The same for some models: { \"glm-*\" = { rpm = 10 } }"),
    spec("max_concurrency", RowKind::Count(0, MAX_COUNT), "0", "Requests at once; 0 is no limit"),
    spec("budget", RowKind::Budget, "", "What it may cost; beyond it others serve until the period ends"),
    spec("refresh", RowKind::Duration, "", "Read the reference again this often"),
    spec("enabled", RowKind::Flag, "true", "Whether it is used"),
];

/// Keys of a `budget`.
#[rustfmt::skip]
const BUDGET_FIELDS: &[RowKey] = &[
    spec("usd", RowKind::Number, "", "Dollars"),
    spec("per", RowKind::Words(&["day", "week", "month", "total"]), "", "In which time; weeks begin on Monday, in the ledger's time zone"),
    spec("unpriced", RowKind::Words(&["warn", "refuse"]), r#""warn""#, "Requests without a known price: reported once per model, or refused"),
];

/// Keys of `[[upstream.rule]]`.
#[rustfmt::skip]
const RULE_FIELDS: &[RowKey] = &[
    spec("status", RowKind::Statuses, "", "Of these statuses; else of any"),
    spec("match", RowKind::Text, "", "With this in the answer, case ignored, or re:REGEX"),
    spec("action", RowKind::Words(&["retry", "pass", "cool"]), r#""cool""#, "Tried elsewhere, returned to the client, or cooled and tried elsewhere"),
    spec("scope", RowKind::Words(&["request", "key_model", "key", "account", "upstream"]), r#""key_model""#, "What is left alone"),
    spec("for", RowKind::Duration, "", "How long; else as after a 429 without a hint"),
];

/// Keys of a table in `targets`.
#[rustfmt::skip]
const TARGET_FIELDS: &[RowKey] = &[
    spec("upstream", RowKind::Text, "", "Which upstream; else any that serves the model"),
    spec("model", RowKind::Text, "", "The model's name there"),
    spec("priority", RowKind::Count(0, MAX_COUNT), "", "Instead of the upstream's"),
    spec("weight", RowKind::Number, "", "Instead of the upstream's"),
];

/// Keys of a table in `when`, in addition to the prices themselves.
#[rustfmt::skip]
const CONDITION_FIELDS: &[RowKey] = &[
    spec("input_above", RowKind::Count(0, u32::MAX), "", "More input tokens than this, cached ones counted"),
    spec("input_upto", RowKind::Count(0, u32::MAX), "", "So many or fewer"),
    spec("output_above", RowKind::Count(0, u32::MAX), "", "More output tokens than this"),
    spec("output_upto", RowKind::Count(0, u32::MAX), "", "So many or fewer"),
    spec("tier", RowKind::Text, "", "This service tier"),
    spec("resolution", RowKind::Text, "", "Pictures of this size"),
    spec("quality", RowKind::Text, "", "Pictures of this quality"),
    spec("thinking", RowKind::Flag, "", "Whether it reasoned"),
    spec("from", RowKind::Text, "", "From this date on"),
    spec("until", RowKind::Text, "", "Before this date"),
    spec("hours", RowKind::Text, "", "A span of the day in UTC: 16:30-00:30"),
];

/// Returns every key that has an effect, table by table.
#[must_use]
pub fn all() -> &'static [KeySpec] {
    static ALL: LazyLock<Vec<KeySpec>> = LazyLock::new(|| {
        let mut keys: Vec<_> = [
            ServerSettings::keys(),
            DiscoverySettings::keys(),
            LogSettings::keys(),
            Timeouts::keys(),
            RetrySettings::keys(),
            Cooldown::keys(),
            RoutingSettings::keys(),
            TranslationSettings::keys(),
            LedgerSettings::keys(),
            AlertSettings::keys(),
            OtlpSettings::keys(),
            TuiSettings::keys(),
        ]
        .concat();
        keys.extend(ROW_KEYS.iter().map(row_key));
        keys
    });
    &ALL
}

fn row_key(key: &RowKey) -> KeySpec {
    let default = format!("x = {}", key.default).parse::<toml_edit::DocumentMut>().ok();
    let kind = KindDescription {
        type_name: String::new(),
        schema: value_schema(key.kind),
        is_text: key.kind.is_text(),
    };
    KeySpec {
        path: key.path.to_owned(),
        doc: key.doc,
        kind,
        default: default.and_then(|doc| doc.get("x")?.as_value().cloned()),
        required: false,
    }
}

/// Returns the key with this path.
#[must_use]
pub fn find(path: &str) -> Option<&'static KeySpec> {
    all().iter().find(|key| key.path == path).or_else(|| {
        // `upstream.timeouts.idle` has the definition of `timeouts.idle`.
        let (_, below) = path.split_once(".timeouts.")?;
        all().iter().find(|key| key.path.strip_prefix("timeouts.") == Some(below))
    })
}

/// Returns the JSON schema (2020-12) of the file, for editors.
#[must_use]
pub fn json_schema() -> Value {
    let mut tables: Map<String, Value> = Map::new();
    for key in all() {
        let Some((table, name)) = key.path.split_once('.') else { continue };
        let entry = tables.entry(table).or_insert_with(|| object_schema(&Map::new()));
        if let Some(properties) = entry.get_mut("properties").and_then(Value::as_object_mut) {
            properties.insert(name.to_owned(), key_schema(key));
        }
    }
    tables.insert("budget".to_owned(), value_schema(RowKind::Budget));
    tables.insert("model_facts".to_owned(), model_facts::json_schema());
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
        json!({ "type": "object", "additionalProperties": value_schema(RowKind::Number), "description": "Dollars for one unit of a currency" }),
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

fn key_schema(key: &KeySpec) -> Value {
    let mut schema = key.kind.schema.clone();
    schema["description"] = key.doc.into();
    if let Some(default) = key.default.as_ref().and_then(toml_to_json) {
        schema["default"] = default;
    }
    schema
}

fn described_schema(key: &RowKey) -> Value {
    key_schema(&row_key(key))
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

fn value_schema(kind: RowKind) -> Value {
    let text = json!({ "type": "string" });
    let table = |keys: &[RowKey]| {
        object_schema(
            &keys.iter().map(|key| (key.path.to_owned(), described_schema(key))).collect(),
        )
    };
    let one_or_many = |one: &Value| json!({ "anyOf": [one, { "type": "array", "items": one }] });
    match kind {
        RowKind::BaseUrl => {
            json!({ "anyOf": [text, { "type": "object", "propertyNames": { "$ref": "#/$defs/dialect" }, "additionalProperties": text }] })
        }
        RowKind::Budget => {
            let mut one = table(BUDGET_FIELDS);
            one["required"] = json!(["usd", "per"]);
            one_or_many(&one)
        }
        RowKind::Conditions => {
            let prices = ROW_KEYS
                .iter()
                .filter(|key| key.kind == RowKind::Number)
                .filter_map(|key| Some((key.path.strip_prefix("prices.")?, key)));
            let all = CONDITION_FIELDS.iter().map(|key| (key.path, key)).chain(prices);
            one_or_many(&object_schema(
                &all.map(|(name, key)| (name.to_owned(), described_schema(key))).collect(),
            ))
        }
        RowKind::Count(low, high) => {
            json!({ "type": "integer", "minimum": low, "maximum": high })
        }
        RowKind::Dialects => one_or_many(&json!({ "$ref": "#/$defs/dialect" })),
        RowKind::Duration => json!({ "$ref": "#/$defs/duration" }),
        RowKind::Flag => json!({ "type": "boolean" }),
        RowKind::Health => {
            json!({ "type": "object", "properties": { "path": text, "every": { "$ref": "#/$defs/duration" } }, "additionalProperties": false })
        }
        RowKind::Hedge => json!({
            "type": "object",
            "properties": {
                "after": { "anyOf": [{ "const": "p95" }, { "$ref": "#/$defs/duration" }] },
                "max_share": { "type": "number", "minimum": 0, "maximum": 1 },
                "max_tokens": { "type": "integer", "minimum": 1, "maximum": u32::MAX },
            },
            "additionalProperties": false,
        }),
        RowKind::Keys => one_or_many(&json!({ "anyOf": [text, table(KEY_FIELDS)] })),
        RowKind::Limits => {
            let number = json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX });
            json!({ "type": "object", "additionalProperties": object_schema(&Map::from_iter([("rpm".to_owned(), number.clone()), ("tpm".to_owned(), number)])) })
        }
        RowKind::Number => json!({ "type": "number", "minimum": 0 }),
        RowKind::Patch => json!({
            "type": "object",
            "properties": { "set": { "type": "object" }, "default": { "type": "object" }, "remove": { "type": "array", "items": text } },
            "additionalProperties": false,
        }),
        RowKind::Rules => json!({ "type": "array", "items": table(RULE_FIELDS) }),
        RowKind::Statuses => one_or_many(&json!({ "type": ["string", "integer"] })),
        RowKind::Targets => one_or_many(&json!({ "anyOf": [text, table(TARGET_FIELDS)] })),
        RowKind::Text => text,
        RowKind::TextMap => json!({ "type": "object", "additionalProperties": text }),
        RowKind::Texts => one_or_many(&text),
        RowKind::Timeouts => json!({ "$ref": "#/$defs/timeouts" }),
        RowKind::Words(words) => json!({ "enum": words }),
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
        let row = ROW_KEYS.iter().find(|row| row.path == key.path);
        let value = match (&key.default, row.map(|row| row.kind)) {
            (Some(default), _) => default.to_string(),
            (None, None) => "{ a = \"b\" }".to_owned(),
            (None, Some(RowKind::BaseUrl)) => "\"https://a.example\"".to_owned(),
            (None, Some(RowKind::Conditions)) => "[{ input_above = 1, hours = \"16:30-00:30\", from = \"2025-01-01\", input = 1 }]".to_owned(),
            (None, Some(RowKind::Budget)) => "[{ usd = 5.0, per = \"day\", unpriced = \"refuse\" }, { usd = 50, per = \"month\" }]".to_owned(),
            (None, Some(RowKind::Dialects)) => "\"openai\"".to_owned(),
            (None, Some(RowKind::Flag)) => "true".to_owned(),
            (None, Some(RowKind::Health)) => "{ path = \"/x\", every = \"60s\" }".to_owned(),
            (None, Some(RowKind::Hedge)) => "{ after = \"p95\", max_share = 0.05, max_tokens = 1 }".to_owned(),
            (None, Some(RowKind::Keys)) => "[{ ref = \"env:X\", label = \"x\", account = \"a\", priority = 1, weight = 1, rpm = 1, tpm = 1, limits = { \"m-*\" = { rpm = 1 } }, max_concurrency = 1, budget = { usd = 1, per = \"total\" }, refresh = \"45m\", enabled = true }]".to_owned(),
            (None, Some(RowKind::Limits)) => "{ \"a-*\" = { rpm = 1, tpm = 1 } }".to_owned(),
            (None, Some(RowKind::Patch)) => "{ set = { \"/a\" = 1 }, default = {}, remove = [\"/b\"] }".to_owned(),
            (None, Some(RowKind::Rules)) => "[{ status = \"400\", match = \"busy\", action = \"retry\", scope = \"request\", for = \"1s\" }]".to_owned(),
            (None, Some(RowKind::Statuses)) => "[\"429\"]".to_owned(),
            (None, Some(RowKind::Targets)) => "[{ upstream = \"a\", model = \"m\", priority = 1, weight = 1 }]".to_owned(),
            (None, Some(RowKind::TextMap)) => "{ a = \"b\" }".to_owned(),
            (None, Some(RowKind::Texts)) => "[\"a\"]".to_owned(),
            (None, Some(RowKind::Timeouts)) => "{ first_byte = \"1s\", idle = \"1s\", total = \"1s\" }".to_owned(),
            (None, Some(RowKind::Words(words))) => format!("\"{}\"", words[0]),
            (None, Some(RowKind::Duration)) => "\"1m\"".to_owned(),
            (None, Some(RowKind::Count(..) | RowKind::Number | RowKind::Text)) => "\"none\"".to_owned(),
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
                let value =
                    if row.is_some_and(|row| row.kind == RowKind::Number) { "1" } else { &value };
                format!("[prices.\"a/b\"]\n{input}{name} = {value}\n")
            }
            _ => format!("[{table}]\n{name} = {value}\n"),
        }
    }

    #[test]
    fn the_reader_knows_every_key_of_the_table_and_takes_its_default() {
        for key in all() {
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
        for key in all().iter().filter(|key| {
            key.default.is_some()
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
                        matches!(name, "aliases" | "model_facts" | "rates")
                            || all().iter().any(|key| key.path.split('.').next() == Some(name))
                    }
                    Some(table) => all().iter().any(|key| key.path == format!("{table}.{name}")),
                };
                assert!(known, "{table:?}.{name} is not in the table of keys");
            }
        }
    }
}
