//! What is worth telling its owner also where no dashboard is open.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::kind::Level;

/// One alert. Whoever notices tells it on the bus; where it goes from there, and how often, is decided once for all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    pub what: AlertKind,
    /// What it is about: `openai/work`, `groq`, `project ide`. The same kind for the same subject is the same trouble.
    pub subject: Arc<str>,
    /// One sentence for a person, the subject included; nothing secret.
    pub text: Arc<str>,
    pub level: Level,
}

/// Every kind of alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// Little is left at a provider that tells its balance.
    BalanceLow,
    /// 80 % of a budget are spent.
    BudgetNear,
    /// All of it is.
    BudgetSpent,
    /// Many requests fail.
    ErrorRate,
    /// A provider rejects a key.
    KeyRejected,
    /// Every key of an upstream rests.
    KeysCooling,
    /// Requests are not recorded.
    Ledger,
    /// What was wrong is right again.
    Recovered,
    /// Somebody wanted to see whether alerts arrive.
    Test,
    /// An upstream is left alone after failures.
    UpstreamDown,
    /// Far more is used than usual.
    UsageSpike,
}

/// What `events` under `[alerts]` may name; each word is of one or several kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

impl AlertKind {
    /// The word of the config that lets it out; `None` for what always goes.
    #[must_use]
    pub fn event(self) -> Option<AlertEvent> {
        Some(match self {
            Self::BalanceLow => AlertEvent::Balance,
            Self::BudgetNear | Self::BudgetSpent => AlertEvent::Budget,
            Self::ErrorRate => AlertEvent::ErrorRate,
            Self::KeyRejected => AlertEvent::KeyDown,
            Self::KeysCooling | Self::UpstreamDown => AlertEvent::UpstreamDown,
            Self::Ledger => AlertEvent::Ledger,
            Self::Recovered => AlertEvent::Recovered,
            Self::Test => return None,
            Self::UsageSpike => AlertEvent::Spike,
        })
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BalanceLow => "balance_low",
            Self::BudgetNear => "budget_near",
            Self::BudgetSpent => "budget_spent",
            Self::ErrorRate => "error_rate",
            Self::KeyRejected => "key_rejected",
            Self::KeysCooling => "keys_cooling",
            Self::Ledger => "ledger",
            Self::Recovered => "recovered",
            Self::Test => "test",
            Self::UpstreamDown => "upstream_down",
            Self::UsageSpike => "usage_spike",
        }
    }
}

impl fmt::Display for AlertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_on_the_wire() {
        for kind in [
            AlertKind::BalanceLow,
            AlertKind::BudgetNear,
            AlertKind::BudgetSpent,
            AlertKind::ErrorRate,
            AlertKind::KeyRejected,
            AlertKind::KeysCooling,
            AlertKind::Ledger,
            AlertKind::Recovered,
            AlertKind::Test,
            AlertKind::UpstreamDown,
            AlertKind::UsageSpike,
        ] {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
        assert_eq!(AlertEvent::Spike.name(), "spike");
    }
}
