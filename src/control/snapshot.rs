//! Everything a viewer that attaches late needs; the body of `GET /aiproxy/v1/snapshot`.

use serde::{Deserialize, Serialize};

use crate::{
    base::{clock::UnixMillis, money::NanoUsd},
    events::{alert::Alert, live::Live},
    ledger,
};

pub use crate::config::settings::{Origin, Period};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    pub version: String,
    pub pid: u32,
    pub at: UnixMillis,
    pub started: UnixMillis,
    /// `127.0.0.1:8642`, …
    pub listen: Vec<String>,
    pub config: ConfigView,
    pub upstreams: Vec<UpstreamView>,
    pub keys: Vec<KeyView>,
    /// Names that a client may ask for, with what they resolve to.
    pub models: Vec<ModelView>,
    pub projects: Vec<String>,
    pub live: Live,
    /// Our own network is down.
    pub offline: bool,
    pub draining: bool,
    #[serde(default)]
    pub ledger: Option<ledger::LedgerStatus>,
    /// Troubles that alerts were raised for and that are not over.
    #[serde(default)]
    pub alerts: Vec<AlertView>,
    /// The whole, projects, upstreams, keys, as far as they have any.
    #[serde(default)]
    pub budgets: Vec<BudgetView>,
}

/// A trouble that stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertView {
    pub since: UnixMillis,
    pub alert: Alert,
}

/// One budget as it stands: the count that also refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetView {
    /// `all`, `project NAME`, `upstream NAME`, `key UPSTREAM/LABEL`.
    #[serde(rename = "of")]
    pub holder: String,
    pub per: Period,
    pub usd: NanoUsd,
    pub spent: NanoUsd,
    /// By what is under way.
    pub reserved: NanoUsd,
    pub percent: u64,
    /// Attempts whose price nobody knows.
    pub unpriced: u64,
    pub from: UnixMillis,
    /// `None`: it never ends.
    pub until: Option<UnixMillis>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ConfigView {
    /// `None` while there is no file.
    pub path: Option<String>,
    /// Of the file as it is now: rendered problems (`file:line:column: …`); empty when it is what
    /// runs.
    pub problems: Vec<String>,
    /// The same with their lines, the places marked; keys in them are masked. Empty where there is
    /// no problem.
    #[serde(default)]
    #[serde(rename = "marked")]
    pub annotated: String,
    pub warnings: Vec<String>,
    pub applied: UnixMillis,
    /// `listen` changed: a restart applies it.
    pub needs_restart: bool,
}

/// `healthy cooling open probing disabled` for an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamState {
    Healthy,
    Cooling,
    Open,
    Probing,
    Disabled,
}

/// `ok partly cooling rejected probing waiting disabled missing` for a key; `partly` means only
/// some models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyStatus {
    Ok,
    Partly,
    Cooling,
    Rejected,
    Probing,
    Waiting,
    Disabled,
    Missing,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UpstreamView {
    pub name: String,
    pub dialects: Vec<String>,
    pub base_url: String,
    pub origin: Origin,
    pub priority: u32,
    pub state: UpstreamState,
    pub cause: Option<String>,
    pub until: Option<UnixMillis>,
    /// Ready keys and all keys.
    pub keys_ready: u32,
    pub keys: u32,
    /// Of the last 100 attempts or 15 minutes.
    pub stats: UpstreamStats,
    /// Models served, where known.
    pub models: Option<u32>,
    /// What the newest probe of our own found, where it is probed.
    #[serde(default)]
    pub probe: Option<ProbeView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeView {
    pub path: String,
    pub every_ms: u64,
    pub at: UnixMillis,
    pub took_ms: u32,
    /// `200`, `503`, `connection refused`.
    #[serde(rename = "said")]
    pub message: String,
    pub ok: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UpstreamStats {
    pub attempts: u32,
    pub errors: u32,
    pub ttft_p50_ms: Option<u32>,
    pub ttft_p95_ms: Option<u32>,
    /// Attempts (and failed ones) per 20 s over the last five minutes, oldest first.
    pub spark: Vec<(u32, u32)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyView {
    pub upstream: String,
    pub label: String,
    pub account: String,
    /// Empty until the secret was read.
    pub fingerprint: String,
    pub reference: String,
    pub state: KeyStatus,
    pub cause: Option<String>,
    pub until: Option<UnixMillis>,
    /// When the present state began, for the countdown gauge.
    pub since: Option<UnixMillis>,
    /// A vendor's hint (true) or our own belief (false).
    #[serde(rename = "hinted")]
    pub from_provider: bool,
    /// Narrower states, per model.
    pub scopes: Vec<ModelScope>,
    pub requests: u64,
    pub tokens: u64,
    pub running: u32,
    /// What its provider said is left of its own limits, as far as they have not been reset since.
    #[serde(default)]
    pub limits: Vec<LimitRemaining>,
    /// What is left at its provider, where that tells.
    #[serde(default)]
    pub balance: Option<BalanceView>,
}

/// What a provider told is left for a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BalanceView {
    pub amount: f64,
    pub currency: String,
    /// `$12.300`, `88.88 CNY`.
    pub text: String,
    /// Little, or nothing.
    pub low: bool,
    pub at: UnixMillis,
}

/// What is left of a provider's limit for one key and model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LimitRemaining {
    pub model: String,
    /// `requests`, `tokens`, `input tokens`, `output tokens`.
    #[serde(rename = "what")]
    pub kind: String,
    pub limit: Option<u64>,
    pub remaining: u64,
    pub until: UnixMillis,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelScope {
    pub model: String,
    pub state: KeyStatus,
    pub cause: Option<String>,
    pub until: Option<UnixMillis>,
    pub since: Option<UnixMillis>,
    #[serde(rename = "hinted")]
    pub from_provider: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelView {
    pub name: String,
    /// `alias`, `logical`, `configured`, `discovered`.
    pub kind: String,
    /// `upstream:model`, in order of trial.
    pub targets: Vec<String>,
    /// Of the first of them.
    #[serde(default)]
    pub price: Option<PriceView>,
}

/// Usual prices for a million tokens, as decimal numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceView {
    pub currency: String,
    pub input: String,
    pub output: Option<String>,
}
