//! The complete state for a viewer that attaches later; the body of `GET /aiproxy/v1/snapshot`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    base::{clock::UnixMillis, money::NanoUsd},
    events::{alert::Alert, live::Live},
    ir::reason::{failure::FailureReason, text_field::cause_and_failure},
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
    /// Names that a client may request, with what they resolve to.
    pub models: Vec<ModelView>,
    pub projects: Vec<String>,
    pub live: Live,
    /// The local network is down.
    pub offline: bool,
    pub draining: bool,
    #[serde(default)]
    pub ledger: Option<ledger::LedgerStatus>,
    /// Active alerts.
    #[serde(default)]
    pub alerts: Vec<AlertView>,
    /// Budgets of everything, of projects, of upstreams and of keys, as far as configured.
    #[serde(default)]
    pub budgets: Vec<BudgetView>,
}

/// An active alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertView {
    pub since: UnixMillis,
    pub alert: Alert,
}

/// The current state of one budget; the same count decides about refusals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetView {
    /// `all`, `project NAME`, `upstream NAME`, `key UPSTREAM/LABEL`.
    #[serde(rename = "of")]
    pub holder: String,
    pub per: Period,
    pub usd: NanoUsd,
    pub spent: NanoUsd,
    /// Reserved by running requests.
    pub reserved: NanoUsd,
    pub percent: u64,
    /// Attempts whose price is unknown.
    pub unpriced: u64,
    pub from: UnixMillis,
    /// End of the period; `None` if it never ends.
    pub until: Option<UnixMillis>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ConfigView {
    /// `None` if there is no file.
    pub path: Option<String>,
    /// Rendered problems (`file:line:column: …`) of the current file; empty if the file is what
    /// runs.
    pub problems: Vec<String>,
    /// The same problems with their lines and the positions marked; keys are masked. Empty if there
    /// is no problem.
    #[serde(default)]
    #[serde(rename = "marked")]
    pub annotated: String,
    pub warnings: Vec<String>,
    pub applied: UnixMillis,
    /// `listen` changed, which takes effect after a restart.
    pub needs_restart: bool,
}

/// State of an upstream: `healthy cooling open probing disabled no_key`. `no_key` means that none of
/// its keys can be used until a user acts: each is missing, rejected or disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamState {
    Healthy,
    Cooling,
    Open,
    Probing,
    Disabled,
    #[serde(rename = "no_key")]
    NoKey,
}

/// State of a key: `ok partly cooling rejected probing waiting disabled missing`. `partly` means
/// that only some models are affected.
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
    #[serde(flatten, with = "cause_and_failure")]
    pub cause: Option<Arc<FailureReason>>,
    pub until: Option<UnixMillis>,
    /// Number of ready keys and of all keys.
    pub keys_ready: u32,
    pub keys: u32,
    /// Covers the last 100 attempts or 15 minutes.
    pub stats: UpstreamStats,
    /// Number of models served, if known.
    pub models: Option<u32>,
    /// Result of the newest local health check, if the upstream is probed.
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
    /// Attempts and failed attempts per 20 s over the last five minutes, oldest first.
    pub spark: Vec<(u32, u32)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyView {
    pub upstream: String,
    pub label: String,
    pub account: String,
    /// Empty until the secret has been read.
    pub fingerprint: String,
    pub reference: String,
    pub state: KeyStatus,
    #[serde(flatten, with = "cause_and_failure")]
    pub cause: Option<Arc<FailureReason>>,
    pub until: Option<UnixMillis>,
    /// When the current state began, for the countdown gauge.
    pub since: Option<UnixMillis>,
    /// Whether the cooldown comes from a provider's hint (true) or from aiproxy's estimate (false).
    #[serde(rename = "hinted")]
    pub from_provider: bool,
    /// States that apply to single models.
    pub scopes: Vec<ModelScope>,
    pub requests: u64,
    pub tokens: u64,
    pub running: u32,
    /// What the provider last reported as remaining of its limits, until they reset.
    #[serde(default)]
    pub limits: Vec<LimitRemaining>,
    /// Remaining balance at the provider, if it reports one.
    #[serde(default)]
    pub balance: Option<BalanceView>,
}

#[cfg(test)]
impl KeyView {
    /// A key without traffic.
    pub(crate) fn for_test(upstream: &str, label: &str, reference: &str, state: KeyStatus) -> Self {
        Self {
            upstream: upstream.to_owned(),
            label: label.to_owned(),
            account: "me".to_owned(),
            fingerprint: String::new(),
            reference: reference.to_owned(),
            state,
            cause: None,
            until: None,
            since: None,
            from_provider: false,
            scopes: Vec::new(),
            requests: 0,
            tokens: 0,
            running: 0,
            limits: Vec::new(),
            balance: None,
        }
    }
}

/// The balance that a provider reports for a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BalanceView {
    pub amount: f64,
    pub currency: String,
    /// `$12.300`, `88.88 CNY`.
    pub text: String,
    /// The balance is low or zero.
    pub low: bool,
    pub at: UnixMillis,
}

/// The remainder of a provider's limit for one key and model.
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
    #[serde(flatten, with = "cause_and_failure")]
    pub cause: Option<Arc<FailureReason>>,
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
    /// `upstream:model`, in the order in which they are tried.
    pub targets: Vec<String>,
    /// Price of the first target.
    #[serde(default)]
    pub price: Option<PriceView>,
}

/// Base prices per million tokens, as decimal numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceView {
    pub currency: String,
    pub input: String,
    pub output: Option<String>,
}
