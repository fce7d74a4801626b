//! Settings as the program uses them: complete, checked, with ids for names.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    base::{
        clock::UnixMillis,
        money::NanoUsd,
        pattern::{Pattern, Patterns},
    },
    ir::{cost::PriceRates, embed::EmbedForm, op::Dialect, rerank::RerankForm},
    secrets::Reference,
};

/// An upstream's number; given once per process and name, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamId(pub u32);

/// A key's number; given once per process and `upstream/label`, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub u32);

/// Everything the config says, defaults filled in.
#[derive(Clone, Debug)]
pub struct Settings {
    pub server: ServerSettings,
    /// Listeners for clients that can send no credential.
    pub keyless: Vec<KeylessListener>,
    pub discover: DiscoverySettings,
    pub log: LogSettings,
    pub timeouts: Timeouts,
    pub retry: RetrySettings,
    pub cooldown: Cooldown,
    pub strategy: Strategy,
    /// Upstreams there are preferred to their equals elsewhere; empty is nowhere.
    pub region: String,
    pub sticky: Affinity,
    /// How long a silent conversation is remembered.
    pub sticky_ttl: Duration,
    /// What becomes of fields that an upstream's dialect has no place for.
    pub losses: LossPolicy,
    pub upstreams: Vec<Arc<Upstream>>,
    pub models: Vec<Arc<LogicalModel>>,
    /// In file order. Patterns keep their order; exact ones win anyway.
    pub aliases: Vec<Alias>,
    /// Project `default` is always among them unless the file replaces it.
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

#[derive(Clone, Debug, PartialEq)]
pub struct ServerSettings {
    /// Port 0 only from `--listen`.
    pub listen: Vec<SocketAddr>,
    /// Listeners that may be left out where the machine has no IPv6 (`"8642"` and `":8642"` mean
    /// both families).
    pub optional_v6: bool,
    pub auth: bool,
    pub trusted_hosts: Vec<String>,
    pub allowed_origins: Vec<String>,
    pub max_request_bytes: u64,
    pub max_response_bytes: u64,
    pub max_connections: usize,
    pub max_requests: usize,
    /// `None` is "auto".
    pub max_buffered: Option<u64>,
    pub drain: Duration,
}

/// A listener on this machine whose clients need no credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeylessListener {
    pub listen: Vec<SocketAddr>,
    pub optional_v6: bool,
    /// Whose requests they are.
    pub project: Arc<str>,
    /// What may be spoken there.
    pub dialects: Vec<Dialect>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DiscoverySettings {
    pub env: bool,
    pub local: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LogSettings {
    /// error | warn | info | debug | trace
    pub level: String,
    pub json: bool,
    pub file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    pub first_byte: Duration,
    pub idle: Duration,
    pub total: Duration,
    pub client_head: Duration,
    pub client_idle: Duration,
    pub client_keepalive: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RetrySettings {
    pub max_attempts: u32,
    pub backoff: Duration,
    pub max_backoff: Duration,
    pub budget: f64,
    pub statuses: StatusSet,
    pub queue_for: Duration,
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cooldown {
    pub rate_limited: Duration,
    pub server_error: Duration,
    pub max: Duration,
    pub max_hint: Duration,
    pub quota: Duration,
    pub failures: u32,
}

/// How a candidate is drawn from the best ready tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// By what each did lately.
    Adaptive(AdaptiveMix),
    /// The fewest requests under way, for its weight.
    LeastBusy,
    /// The cheapest for this request; those without a price last.
    LeastCost,
    /// The quickest to its first token lately.
    LeastLatency,
    /// The first of equals in config order; keys by stride over their weights.
    #[default]
    Priority,
    RoundRobin,
    Weighted,
}

/// What counts for [`Strategy::Adaptive`], and how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdaptiveMix {
    #[default]
    Balanced,
    CostFirst,
    /// Weight over the square of the error rate, nothing else.
    ErrorRate,
    LatencyFirst,
    ReliabilityFirst,
}

/// Whether the turns of a conversation go to one account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    /// By the conversation itself, and by what its client calls it.
    #[default]
    Auto,
    Off,
    /// Only by what its client calls it.
    Session,
}

impl Affinity {
    pub const ALL: [(&str, Self); 3] =
        [("auto", Self::Auto), ("session", Self::Session), ("off", Self::Off)];

    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, each)| *each == self).map_or("auto", |(name, _)| name)
    }
}

impl Strategy {
    /// Every strategy by its name in the config.
    pub const ALL: [(&str, Self); 11] = [
        ("priority", Self::Priority),
        ("weighted", Self::Weighted),
        ("round_robin", Self::RoundRobin),
        ("least_latency", Self::LeastLatency),
        ("least_cost", Self::LeastCost),
        ("least_busy", Self::LeastBusy),
        ("adaptive", Self::Adaptive(AdaptiveMix::Balanced)),
        ("adaptive:latency_first", Self::Adaptive(AdaptiveMix::LatencyFirst)),
        ("adaptive:cost_first", Self::Adaptive(AdaptiveMix::CostFirst)),
        ("adaptive:reliability_first", Self::Adaptive(AdaptiveMix::ReliabilityFirst)),
        ("adaptive:error_rate", Self::Adaptive(AdaptiveMix::ErrorRate)),
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, each)| *each == self).map_or("adaptive", |(name, _)| name)
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, each)| *each)
    }

    /// Whether prices have a say.
    #[must_use]
    pub fn uses_cost(self) -> bool {
        matches!(
            self,
            Self::LeastCost
                | Self::Adaptive(
                    AdaptiveMix::Balanced
                        | AdaptiveMix::CostFirst
                        | AdaptiveMix::LatencyFirst
                        | AdaptiveMix::ReliabilityFirst
                )
        )
    }
}

/// Where an upstream was found.
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
    /// What it speaks natively, the preferred end first; never empty.
    pub endpoints: Vec<DialectEndpoint>,
    pub auth: Auth,
    /// `None`: what the provider lists.
    pub models: Option<Patterns>,
    /// Client name → upstream name.
    pub rename: BTreeMap<String, String>,
    /// Lower is tried first.
    pub priority: u32,
    pub weight: f64,
    /// 0 is no limit.
    pub max_concurrency: u32,
    /// 0 is no limit.
    pub max_rps: f64,
    pub region: String,
    pub proxy: ProxySetting,
    pub headers: Vec<(String, String)>,
    pub ca_file: Option<PathBuf>,
    pub insecure_tls: bool,
    pub ask_usage: bool,
    /// `<think>` text at the beginning of an answer is reasoning.
    pub think_split: bool,
    /// Requests that want a whole answer are run as a stream and put together here.
    pub stream_keepalive: bool,
    /// Whether its chat models take their reasoning back as `reasoning_content`.
    pub accepts_reasoning: bool,
    /// How its embeddings are asked for, where not as its dialect does.
    pub embed: Option<EmbedForm>,
    /// How its reranking is asked for, where known.
    pub rerank: Option<RerankForm>,
    pub retry_statuses: Option<StatusSet>,
    /// What it may cost; blocked beyond it.
    pub budget: Vec<Budget>,
    /// What its refusals mean, where not what they usually do; the first that matches counts.
    pub rules: Vec<UpstreamRule>,
    pub health: Option<HealthCheck>,
    /// Empty where no credential is needed (`auth` is then `None`) or none is configured yet.
    pub keys: Vec<Arc<UpstreamKey>>,
    pub enabled: bool,
    pub timeouts: Timeouts,
    pub patch: Patch,
    /// Whether it takes compressed request bodies as they come.
    pub accepts_compressed: bool,
    /// Its prices in `[prices]` count, whatever it reports itself.
    pub prices_win: bool,
    /// On this machine: loopback or the demo.
    pub local: bool,
    /// Where a person gets a key, from the preset.
    pub key_page: Option<Arc<str>>,
    /// Variable that usually holds its key, from the preset.
    pub key_env: Option<Arc<str>>,
}

impl Upstream {
    /// The end that speaks this dialect natively.
    #[must_use]
    pub fn endpoint(&self, dialect: Dialect) -> Option<&DialectEndpoint> {
        self.endpoints.iter().find(|end| end.dialect == dialect)
    }

    /// How the credential travels to the end of this dialect: a header that belongs to one dialect
    /// is used there only, the provider's other ends take the key as bearer.
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

/// `[translation] losses`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LossPolicy {
    /// They are left out and named in `x-aiproxy-losses`.
    #[default]
    Report,
    /// The request is refused.
    Refuse,
}

/// One dialect spoken natively, and where.
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
    /// The named header holds the bare key (`x-api-key`, `x-goog-api-key`, `api-key`).
    Header(String),
    /// No credential.
    None,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxySetting {
    /// What HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY say.
    Environment,
    Direct,
    /// http, https, socks5 or socks5h URL, credentials allowed.
    Url(String),
}

/// What becomes of refusals of some kind.
#[derive(Clone, Debug)]
pub struct UpstreamRule {
    /// `None` is any.
    pub statuses: Option<StatusSet>,
    /// What must stand in the answer; `None` is anything.
    pub text: Option<TextMatch>,
    pub action: RuleAction,
    /// What is left alone.
    pub scope: RuleScope,
    /// How long; `None` is as long as after a 429 without a hint.
    pub cool_for: Option<Duration>,
}

/// Text to be found in an answer: plain, case ignored, or `re:` and a regular expression.
#[derive(Clone, Debug)]
pub enum TextMatch {
    Plain(String),
    Regex(regex::Regex),
}

impl TextMatch {
    /// Reads one.
    ///
    /// # Errors
    ///
    /// The regex engine's sentence, for a `re:` that does not compile.
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

    /// As written, as far as case goes.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Plain(text) => text.clone(),
            Self::Regex(regex) => format!("re:{}", regex.as_str()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// Left alone for a while, and tried elsewhere.
    Cool,
    /// Told to the client as it is.
    Pass,
    /// Tried elsewhere, or again.
    Retry,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RuleScope {
    Account,
    Key,
    #[default]
    KeyModel,
    Request,
    Upstream,
}

impl RuleAction {
    pub const ALL: [(&str, Self); 3] =
        [("retry", Self::Retry), ("pass", Self::Pass), ("cool", Self::Cool)];
}

impl RuleScope {
    pub const ALL: [(&str, Self); 5] = [
        ("request", Self::Request),
        ("key_model", Self::KeyModel),
        ("key", Self::Key),
        ("account", Self::Account),
        ("upstream", Self::Upstream),
    ];
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
    /// Over all models.
    pub limit: KeyLimit,
    /// By model, as the upstream knows it; the first that matches narrows.
    pub limits: Vec<(Pattern, KeyLimit)>,
    /// 0 is no limit.
    pub max_concurrency: u32,
    /// What it may cost; blocked beyond it.
    pub budget: Vec<Budget>,
    /// Read the reference again this often.
    pub refresh: Option<Duration>,
    pub enabled: bool,
}

impl UpstreamKey {
    /// What narrows the key's limit for a model.
    #[must_use]
    pub fn limit_for(&self, model: &str) -> KeyLimit {
        self.limits
            .iter()
            .find(|(pattern, _)| pattern.matches(model))
            .map_or_else(KeyLimit::default, |(_, limit)| *limit)
    }
}

/// Requests and tokens a minute; 0 is no limit.
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

/// How much may be spent in which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub usd: NanoUsd,
    pub period: Period,
    pub unpriced: UnpricedPolicy,
}

/// The time that a budget is for; days, weeks and months are those of the ledger's time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    Day,
    /// From Monday.
    Week,
    Month,
    /// For good.
    Total,
}

impl Period {
    pub const ALL: [(&str, Self); 4] =
        [("day", Self::Day), ("week", Self::Week), ("month", Self::Month), ("total", Self::Total)];

    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, each)| *each == self).map_or("total", |(name, _)| name)
    }
}

/// What becomes of requests whose price nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnpricedPolicy {
    /// They are not sent.
    Refuse,
    /// Said once per model; they count as nothing.
    #[default]
    Warn,
}

impl UnpricedPolicy {
    pub const ALL: [(&str, Self); 2] = [("warn", Self::Warn), ("refuse", Self::Refuse)];

    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, each)| *each == self).map_or("warn", |(name, _)| name)
    }
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

/// When a second target is asked beside one that has not spoken yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Hedge {
    /// The logical model that it belongs to: its share is counted by it.
    pub model: Arc<str>,
    pub after: HedgeDelay,
    /// 0 to 1, of the requests for this model.
    pub max_share: f64,
    /// Requests estimated larger are not asked twice.
    pub max_tokens: u64,
}

/// How long the first is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HedgeDelay {
    /// As long as nineteen of its twenty answers took.
    #[default]
    P95,
    Fixed(Duration),
}

#[derive(Clone, Debug, PartialEq)]
pub struct ModelTarget {
    /// `None` where the row names no upstream (`targets = ["gpt-4o"]`): resolved by name.
    pub upstream: Option<Arc<str>>,
    pub model: Arc<str>,
    pub priority: Option<u32>,
    pub weight: Option<f64>,
}

#[derive(Clone, Debug)]
pub struct Alias {
    pub name: Pattern,
    /// A name, `upstream:model`, or a glob whose newest match is meant.
    pub target: Arc<str>,
}

#[derive(Clone, Debug)]
pub struct Project {
    pub name: Arc<str>,
    /// `None` for `default` without a row: its key is generated and kept in the keyring or the data
    /// dir.
    pub key: Option<Reference>,
    pub models: Patterns,
    pub upstreams: Patterns,
    /// 0 is no limit.
    pub rpm: u32,
    /// Tokens a minute, input and output; 0 is no limit.
    pub tpm: u32,
    /// 0 is no limit.
    pub max_concurrency: u32,
    /// What it may spend; refused beyond it.
    pub budget: Vec<Budget>,
    /// `ADDR/BITS`; empty: everybody that can reach a listener.
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TuiSettings {
    /// dark | light | contrast | mono
    pub theme: String,
    pub mouse: bool,
    /// auto (the locale's) | en | zh
    pub lang: String,
}

/// `[ledger]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerSettings {
    /// Relative to the data dir.
    pub path: PathBuf,
    /// Empty is the machine's.
    pub tz: String,
    pub bodies: BodyStorage,
    /// Bytes that all kept bodies may take on disk.
    pub bodies_total: u64,
    /// Bytes kept of one body, half of its beginning and half of its end.
    pub body_limit: u64,
    pub retention: Duration,
    pub body_retention: Duration,
}

impl Default for LedgerSettings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self {
            path: "ledger.db".into(),
            tz: String::new(),
            bodies: BodyStorage::All,
            bodies_total: 256 << 20,
            body_limit: 4 << 20,
            retention: 90 * DAY,
            body_retention: 3 * DAY,
        }
    }
}

/// `[alerts]`: where alerts go beside the dashboard.
#[derive(Clone, Debug)]
pub struct AlertSettings {
    pub desktop: bool,
    pub webhook: Option<OutboundUrl>,
    /// Signs what is sent.
    pub secret: Option<Reference>,
    pub feishu: Option<OutboundUrl>,
    pub events: Vec<AlertEvent>,
}

impl Default for AlertSettings {
    fn default() -> Self {
        use AlertEvent::{Budget, ErrorRate, KeyDown, Recovered, UpstreamDown};
        Self {
            desktop: false,
            webhook: None,
            secret: None,
            feishu: None,
            events: vec![KeyDown, UpstreamDown, Recovered, Budget, ErrorRate],
        }
    }
}

/// What `events` under `[alerts]` may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertEvent {
    Balance,
    Budget,
    ErrorRate,
    KeyDown,
    Ledger,
    Recovered,
    Spike,
    UpstreamDown,
}

impl AlertEvent {
    pub const ALL: [(&'static str, Self); 8] = [
        ("key_down", Self::KeyDown),
        ("upstream_down", Self::UpstreamDown),
        ("recovered", Self::Recovered),
        ("budget", Self::Budget),
        ("balance", Self::Balance),
        ("error_rate", Self::ErrorRate),
        ("spike", Self::Spike),
        ("ledger", Self::Ledger),
    ];

    /// As the config writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, event)| *event == self).map_or("", |(name, _)| name)
    }
}

/// `[otlp]`: where traces go.
#[derive(Clone, Debug, Default)]
pub struct OtlpSettings {
    pub url: Option<OutboundUrl>,
    /// Names in lower case.
    pub headers: Vec<(String, Reference)>,
}

/// An address that something is sent to. Paths of such addresses are often all that keeps others
/// from using them: they are never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct OutboundUrl {
    full: String,
    origin: String,
}

impl OutboundUrl {
    pub(in crate::config) fn new(full: String, origin: String) -> Self {
        Self { full: full, origin: origin }
    }

    /// The whole address: only to send to it.
    #[must_use]
    pub fn full(&self) -> &str {
        &self.full
    }

    /// Scheme, host and port.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }
}

impl std::fmt::Debug for OutboundUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SideUrl({}/…)", self.origin)
    }
}

/// Which bodies are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyStorage {
    #[default]
    All,
    /// Of requests that failed.
    Errors,
    Off,
}

/// One row of `[prices]` or of the built-in table.
#[derive(Clone, Debug)]
pub struct PriceRow {
    /// An upstream, or the preset of one.
    pub vendor: String,
    pub model: Pattern,
    pub price: ModelPrice,
}

/// What a model costs.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelPrice {
    pub rates: PriceRates,
    /// Other prices under conditions; what they do not name stays.
    pub conditions: Vec<PriceCondition>,
    pub currency: Arc<str>,
    /// Where it was read, and on which day; empty where that is not told.
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

/// Conditions that must all hold, and the prices that hold then.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PriceCondition {
    /// Input tokens, cached ones too: more than.
    pub input_above: Option<u64>,
    /// So many or fewer.
    pub input_upto: Option<u64>,
    pub output_above: Option<u64>,
    pub output_upto: Option<u64>,
    /// Service tier.
    pub tier: Option<String>,
    /// Of pictures: `1024x1024`.
    pub resolution: Option<String>,
    pub quality: Option<String>,
    /// Whether it reasoned.
    pub thinking: Option<bool>,
    pub from: Option<UnixMillis>,
    pub until: Option<UnixMillis>,
    /// Minutes of the day in UTC; may go over midnight.
    pub hours: Option<(u16, u16)>,
    pub rates: PriceRates,
}

impl PriceCondition {
    /// How many conditions it has: the narrower one wins.
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
