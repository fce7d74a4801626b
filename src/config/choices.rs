//! The closed lists of words in the config. Readers, schema, help and docs take their words from
//! here.

use serde::{Deserialize, Serialize};

use crate::base::choices::choices;

pub use crate::ir::cost::Period;

/// How a candidate is chosen from the best ready tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// By recent measurements of each candidate.
    Adaptive(AdaptiveMix),
    /// The fewest running requests, relative to its weight.
    LeastBusy,
    /// The cheapest for this request; candidates without a price last.
    LeastCost,
    /// The lowest recent time to first token.
    LeastLatency,
    /// The first of equals in config order; keys by stride over their weights.
    #[default]
    Priority,
    RoundRobin,
    Weighted,
}

/// The measurements that [`Strategy::Adaptive`] uses, and their weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdaptiveMix {
    #[default]
    Balanced,
    CostFirst,
    /// Weight divided by the square of the error rate, and nothing else.
    ErrorRate,
    LatencyFirst,
    ReliabilityFirst,
}

impl Strategy {
    /// Every strategy with its word.
    pub const ALL: &'static [(&'static str, Self)] = &[
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

    /// Whether the strategy uses prices.
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

choices! {
    /// Whether the turns of a conversation go to one account.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum Affinity {
        /// By the conversation itself, and by the id that its client gives it.
        #[default]
        Auto = "auto",
        /// Only by the id that its client gives it.
        Session = "session",
        Off = "off",
    }
}

choices! {
    /// `[translation] losses`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum LossPolicy {
        /// They are omitted and named in `x-aiproxy-losses`.
        #[default]
        Report = "tell",
        /// The request is refused.
        Refuse = "refuse",
    }
}

choices! {
    /// The action after errors of some kind.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum RuleAction {
        /// Tried elsewhere, or again.
        Retry = "retry",
        /// Returned to the client unchanged.
        Pass = "pass",
        /// Cooled for a while; the request is tried elsewhere.
        #[default]
        Cool = "cool",
    }
}

choices! {
    /// The scope of a rule's cooldown.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum RuleScope {
        Request = "request",
        #[default]
        KeyModel = "key_model",
        Key = "key",
        Account = "account",
        Upstream = "upstream",
    }
}

choices! {
    /// The policy for requests with an unknown price.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum UnpricedPolicy {
        /// A warning is logged once per model; they count as zero.
        #[default]
        Warn = "warn",
        /// They are not sent.
        Refuse = "refuse",
    }
}

choices! {
    /// An event that `events` under `[alerts]` may name.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum AlertEvent {
        KeyDown = "key_down",
        UpstreamDown = "upstream_down",
        Recovered = "recovered",
        Budget = "budget",
        Balance = "balance",
        ErrorRate = "error_rate",
        Spike = "spike",
        Ledger = "ledger",
    }
}

choices! {
    /// The message format of an alert receiver.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum AlertFormat {
        /// The JSON that docs/observing.md describes.
        #[default]
        Webhook = "webhook",
        Slack = "slack",
        Discord = "discord",
        DingTalk = "dingtalk",
        WeCom = "wecom",
        Feishu = "feishu",
        Teams = "teams",
        Telegram = "telegram",
        Ntfy = "ntfy",
        Mail = "mail",
    }
}

choices! {
    /// Which bodies are stored.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum BodyStorage {
        Off = "off",
        /// Bodies of requests that failed.
        Errors = "errors",
        #[default]
        All = "all",
    }
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
