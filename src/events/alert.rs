//! What is worth telling its owner also where no dashboard is open.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::events::event::Severity;

/// One alert. Whoever notices tells it on the bus; where it goes from there, and how often, is
/// decided once for all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    #[serde(rename = "what")]
    pub kind: AlertKind,
    /// What it is about: `openai/work`, `groq`, `project ide`. The same kind for the same subject
    /// is the same trouble.
    pub subject: Arc<str>,
    /// One sentence for a person, the subject included; nothing secret.
    pub text: Arc<str>,
    pub level: Severity,
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

impl AlertKind {
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
    }
}
