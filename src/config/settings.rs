//! Settings as the program uses them: complete, checked, with ids for names.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

pub use super::{
    choices::{
        AdaptiveMix, Affinity, AlertEvent, BodyStorage, LossPolicy, Period, RuleAction, RuleScope,
        Strategy, UnpricedPolicy,
    },
    schema::{
        alerts::{AlertSettings, OtlpSettings, OutboundUrl},
        general::{
            Cooldown, DiscoverySettings, ListenAddresses, LogSettings, RetrySettings,
            RoutingSettings, ServerSettings, StatusSet, Timeouts, TranslationSettings, TuiSettings,
        },
        ledger::LedgerSettings,
    },
};
use crate::{
    base::{
        clock::UnixMillis,
        money::NanoUsd,
        pattern::{Pattern, Patterns},
    },
    config::facts_row::FactsRow,
    ir::{cost::PriceRates, embed::EmbedForm, op::Dialect, rerank::RerankForm},
    secrets::Reference,
};

/// The number of an upstream: assigned once per process and name, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamId(pub u32);

/// The number of a key: assigned once per process and `upstream/label`, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub u32);

/// The complete config, with defaults filled in.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub server: ServerSettings,
    /// Listeners for clients that cannot send a credential.
    pub keyless: Vec<KeylessListener>,
    pub discover: DiscoverySettings,
    pub log: LogSettings,
    pub timeouts: Timeouts,
    pub retry: RetrySettings,
    pub cooldown: Cooldown,
    pub routing: RoutingSettings,
    pub translation: TranslationSettings,
    pub upstreams: Vec<Arc<Upstream>>,
    pub models: Vec<Arc<LogicalModel>>,
    /// In file order. Patterns are tried in this order; exact names take precedence.
    pub aliases: Vec<Alias>,
    /// `[[model_facts]]`, in file order.
    pub model_facts: Vec<Arc<FactsRow>>,
    /// Always includes project `default`, unless the file replaces it.
    pub projects: Vec<Arc<Project>>,
    /// `[budget]`: of all projects together.
    pub budget: Vec<Budget>,
    pub tui: TuiSettings,
    pub ledger: LedgerSettings,
    pub alerts: AlertSettings,
    pub otlp: OtlpSettings,
    /// `[prices]`, in file order.
    pub prices: Vec<PriceRow>,
    /// `[rates]`: billionths of a dollar for one unit of a currency.
    pub rates: BTreeMap<String, i64>,
}

/// A listener on this machine whose clients need no credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeylessListener {
    pub listen: ListenAddresses,
    /// The project that its requests belong to.
    pub project: Arc<str>,
    /// The dialects that clients may use there.
    pub dialects: Vec<Dialect>,
}

/// The source of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Demo,
    Env,
    File,
    Local,
}

#[derive(Clone, Debug)]
pub struct Upstream {
    pub id: UpstreamId,
    pub name: Arc<str>,
    pub origin: Origin,
    pub preset: Option<Arc<str>>,
    /// Its native dialects, the preferred endpoint first; never empty.
    pub endpoints: Vec<DialectEndpoint>,
    pub auth: Auth,
    /// `None`: the models that the provider lists.
    pub models: Option<Patterns>,
    /// Client name → upstream name.
    pub rename: BTreeMap<String, String>,
    /// Lower is tried first.
    pub priority: u32,
    pub weight: f64,
    /// 0 means unlimited.
    pub max_concurrency: u32,
    /// 0 means unlimited.
    pub max_rps: f64,
    pub region: String,
    pub proxy: ProxySetting,
    pub headers: Vec<(String, String)>,
    pub ca_file: Option<PathBuf>,
    pub insecure_tls: bool,
    pub ask_usage: bool,
    /// `<think>` text at the beginning of a response is reasoning.
    pub think_split: bool,
    /// Requests for a complete response are run as a stream and assembled here.
    pub stream_keepalive: bool,
    /// Whether its chat models accept their reasoning back as `reasoning_content`.
    pub accepts_reasoning: bool,
    /// The form of its embedding requests, if it differs from its dialect.
    pub embed: Option<EmbedForm>,
    /// The form of its rerank requests, if known.
    pub rerank: Option<RerankForm>,
    pub retry_statuses: Option<StatusSet>,
    /// Its spending limits; it is blocked above them.
    pub budget: Vec<Budget>,
    /// The meaning of its errors, if it differs from the default; the first match counts.
    pub rules: Vec<UpstreamRule>,
    pub health: Option<HealthCheck>,
    /// Empty if no credential is needed (`auth` is then `None`) or none is configured yet.
    pub keys: Vec<Arc<UpstreamKey>>,
    pub enabled: bool,
    pub timeouts: Timeouts,
    pub patch: Patch,
    /// Whether it accepts compressed request bodies unchanged.
    pub accepts_compressed: bool,
    /// Its prices in `[prices]` take precedence over the cost it reports.
    pub prices_win: bool,
    /// On this machine: loopback or the demo.
    pub local: bool,
    /// The page on which a person gets a key, from the preset.
    pub key_page: Option<Arc<str>>,
    /// The variable that usually contains its key, from the preset.
    pub key_env: Option<Arc<str>>,
}

impl Upstream {
    /// Returns the endpoint that supports this dialect natively.
    #[must_use]
    pub fn endpoint(&self, dialect: Dialect) -> Option<&DialectEndpoint> {
        self.endpoints.iter().find(|end| end.dialect == dialect)
    }

    /// Returns how the credential travels to the endpoint of this dialect. A header that belongs to
    /// one dialect is used there only; the provider's other endpoints get the key as bearer.
    #[must_use]
    pub fn auth_for(&self, dialect: Dialect) -> &Auth {
        let owner = match &self.auth {
            Auth::Header(name) if name.eq_ignore_ascii_case("x-goog-api-key") => Dialect::Gemini,
            Auth::Header(name) if name.eq_ignore_ascii_case("x-api-key") => Dialect::Anthropic,
            auth => return auth,
        };
        if owner == dialect { &self.auth } else { &Auth::Bearer }
    }
}

/// One native dialect and its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialectEndpoint {
    pub dialect: Dialect,
    /// Normalised, no trailing slash: `https://api.openai.com/v1`. `demo:` for the built-in
    /// upstream.
    pub base_url: String,
    /// Added to every request (`api-version=…`), without `?`.
    pub query: Option<String>,
}

/// How a credential travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer KEY`
    Bearer,
    /// The named header contains the bare key (`x-api-key`, `x-goog-api-key`, `api-key`).
    Header(String),
    /// No credential.
    None,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxySetting {
    /// The proxy from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.
    Environment,
    Direct,
    /// http, https, socks5 or socks5h URL, credentials allowed.
    Url(String),
}

/// The action after errors of some kind.
#[derive(Clone, Debug)]
pub struct UpstreamRule {
    /// `None` matches any status.
    pub statuses: Option<StatusSet>,
    /// Text that the response must contain; `None` matches anything.
    pub text: Option<TextMatch>,
    pub action: RuleAction,
    /// The scope of the cooldown.
    pub scope: RuleScope,
    /// The cooldown; `None` means as long as after a 429 without a hint.
    pub cool_for: Option<Duration>,
}

/// Text to find in a response: plain and case-insensitive, or `re:` and a regular expression.
#[derive(Clone, Debug)]
pub enum TextMatch {
    Plain(String),
    Regex(regex::Regex),
}

impl TextMatch {
    /// Parses a text match.
    ///
    /// # Errors
    ///
    /// The message of the regex engine, if a `re:` pattern does not compile.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(source) = text.strip_prefix("re:") else {
            return Ok(Self::Plain(text.to_lowercase()));
        };
        let regex =
            regex::RegexBuilder::new(source).case_insensitive(true).size_limit(1 << 20).build();
        regex
            .map(Self::Regex)
            .map_err(|e| e.to_string().lines().last().unwrap_or("bad regex").trim().to_owned())
    }

    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Plain(needle) => text.to_lowercase().contains(needle),
            Self::Regex(regex) => regex.is_match(text),
        }
    }

    /// Returns the text as written, except for case.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Plain(text) => text.clone(),
            Self::Regex(regex) => format!("re:{}", regex.as_str()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub path: String,
    pub interval: Duration,
}

/// Edits to a JSON request body; pointers are RFC 6901.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patch {
    pub set: Vec<(String, serde_json::Value)>,
    pub default: Vec<(String, serde_json::Value)>,
    pub remove: Vec<String>,
}

impl Patch {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.default.is_empty() && self.remove.is_empty()
    }
}

#[derive(Clone, Debug)]
pub struct UpstreamKey {
    pub id: KeyId,
    /// `upstream/label`
    pub name: Arc<str>,
    pub label: Arc<str>,
    pub reference: Reference,
    /// Shared by keys of one account; defaults to the key's own name.
    pub account: Arc<str>,
    pub priority: u32,
    pub weight: f64,
    /// For all models together.
    pub limit: KeyLimit,
    /// By model, as the upstream knows it; the first match narrows `limit`.
    pub limits: Vec<(Pattern, KeyLimit)>,
    /// 0 means unlimited.
    pub max_concurrency: u32,
    /// Its spending limits; it is blocked above them.
    pub budget: Vec<Budget>,
    /// How often the reference is resolved again.
    pub refresh: Option<Duration>,
    pub enabled: bool,
}

impl UpstreamKey {
    /// Returns the additional limit of the key for a model.
    #[must_use]
    pub fn limit_for(&self, model: &str) -> KeyLimit {
        self.limits
            .iter()
            .find(|(pattern, _)| pattern.matches(model))
            .map_or_else(KeyLimit::default, |(_, limit)| *limit)
    }
}

/// Requests and tokens per minute; 0 means unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyLimit {
    pub rpm: u32,
    pub tpm: u32,
}

impl KeyLimit {
    #[must_use]
    pub fn is_unlimited(self) -> bool {
        self == Self::default()
    }
}

/// A spending limit per period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub usd: NanoUsd,
    pub period: Period,
    pub unpriced: UnpricedPolicy,
}

#[derive(Clone, Debug)]
pub struct LogicalModel {
    pub name: Pattern,
    pub targets: Vec<ModelTarget>,
    pub strategy: Strategy,
    pub sticky: Option<Affinity>,
    pub sticky_ttl: Option<Duration>,
    pub hedge: Option<Arc<Hedge>>,
    /// A stream that breaks after content is continued elsewhere.
    pub rescue: bool,
    pub first_byte: Option<Duration>,
    pub idle: Option<Duration>,
    pub total: Option<Duration>,
}

/// When a second target is tried in parallel to one that has not sent content yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Hedge {
    /// The logical model that it belongs to; the share is counted per model.
    pub model: Arc<str>,
    pub after: HedgeDelay,
    /// 0 to 1, of the requests for this model.
    pub max_share: f64,
    /// Requests with a larger estimate are not hedged.
    pub max_tokens: u64,
}

/// How long the first target has before the second is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HedgeDelay {
    /// The 95th percentile of the target's recent latencies.
    #[default]
    P95,
    Fixed(Duration),
}

#[derive(Clone, Debug, PartialEq)]
pub struct ModelTarget {
    /// `None` if the row names no upstream (`targets = ["gpt-4o"]`): resolved by name.
    pub upstream: Option<Arc<str>>,
    pub model: Arc<str>,
    pub priority: Option<u32>,
    pub weight: Option<f64>,
}

#[derive(Clone, Debug)]
pub struct Alias {
    pub name: Pattern,
    /// A name, `upstream:model`, or a glob that means its newest match.
    pub target: Arc<str>,
}

#[derive(Clone, Debug)]
pub struct Project {
    pub name: Arc<str>,
    /// `None` for `default` without a row: its key is generated and stored in the keyring or the
    /// data folder.
    pub key: Option<Reference>,
    pub models: Patterns,
    pub upstreams: Patterns,
    /// 0 means unlimited.
    pub rpm: u32,
    /// Tokens per minute, input and output; 0 means unlimited.
    pub tpm: u32,
    /// 0 means unlimited.
    pub max_concurrency: u32,
    /// Its spending limits; requests are refused above them.
    pub budget: Vec<Budget>,
    /// `ADDR/BITS`; if empty, all clients that can reach a listener.
    pub subnets: Vec<Subnet>,
    pub admin: bool,
    pub enabled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    pub addr: std::net::IpAddr,
    pub bits: u8,
}

impl Subnet {
    #[must_use]
    pub fn contains(&self, addr: std::net::IpAddr) -> bool {
        use std::net::IpAddr::{V4, V6};
        match (self.addr, addr.to_canonical()) {
            (V4(net), V4(ip)) => {
                u32::from(net) >> (32 - u32::from(self.bits)).min(31)
                    == u32::from(ip) >> (32 - u32::from(self.bits)).min(31)
                    || self.bits == 0
            }
            (V6(net), V6(ip)) => {
                self.bits == 0
                    || u128::from(net) >> (128 - u32::from(self.bits)).min(127)
                        == u128::from(ip) >> (128 - u32::from(self.bits)).min(127)
            }
            _ => false,
        }
    }
}

/// One row of `[prices]` or of the built-in table.
#[derive(Clone, Debug)]
pub struct PriceRow {
    /// The name of an upstream or of its preset.
    pub vendor: String,
    pub model: Pattern,
    pub price: ModelPrice,
}

/// The prices of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelPrice {
    pub rates: PriceRates,
    /// Other prices under conditions; classes that they do not name are unchanged.
    pub conditions: Vec<PriceCondition>,
    pub currency: Arc<str>,
    /// The page and date of the price; empty if unknown.
    pub page: Arc<str>,
    pub date: Arc<str>,
}

impl Default for ModelPrice {
    fn default() -> Self {
        Self {
            rates: PriceRates::default(),
            conditions: Vec::new(),
            currency: "USD".into(),
            page: Arc::default(),
            date: Arc::default(),
        }
    }
}

/// Conditions that must all be met, and the prices that then apply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PriceCondition {
    /// Minimum input tokens, exclusive; includes cached ones.
    pub input_above: Option<u64>,
    /// Maximum input tokens, inclusive.
    pub input_upto: Option<u64>,
    pub output_above: Option<u64>,
    pub output_upto: Option<u64>,
    /// Service tier.
    pub tier: Option<String>,
    /// Resolution of images: `1024x1024`.
    pub resolution: Option<String>,
    pub quality: Option<String>,
    /// Whether the model reasoned.
    pub thinking: Option<bool>,
    pub from: Option<UnixMillis>,
    pub until: Option<UnixMillis>,
    /// Minutes of the day in UTC; may cross midnight.
    pub hours: Option<(u16, u16)>,
    pub rates: PriceRates,
}

impl PriceCondition {
    /// Returns the number of conditions: the row with more conditions wins.
    #[must_use]
    pub fn condition_count(&self) -> usize {
        let some = [
            self.input_above.is_some(),
            self.input_upto.is_some(),
            self.output_above.is_some(),
            self.output_upto.is_some(),
            self.tier.is_some(),
            self.resolution.is_some(),
            self.quality.is_some(),
            self.thinking.is_some(),
            self.from.is_some(),
            self.until.is_some(),
            self.hours.is_some(),
        ];
        some.into_iter().filter(|some| *some).count()
    }

    #[must_use]
    pub fn is_unconditional(&self) -> bool {
        self.condition_count() == 0
    }
}
