//! Alerts: events that the owner receives even if no dashboard is open.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::events::severity::Severity;

/// One alert. The code that detects it publishes it on the bus; `alerts` decides where it goes and
/// how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    #[serde(rename = "what")]
    pub kind: AlertKind,
    /// The subject: `openai/work`, `groq`, `project ide`. The same kind for the same subject is the
    /// same problem.
    pub subject: Arc<str>,
    /// One sentence for a person, the subject included; no secrets.
    pub text: Arc<str>,
    pub level: Severity,
}

/// Every kind of alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// The balance that a provider reports is low.
    BalanceLow,
    /// 80 % of a budget is spent.
    BudgetNear,
    /// A budget is fully spent.
    BudgetSpent,
    /// Many requests fail.
    ErrorRate,
    /// A key cannot be used for long: no credit, no permission, a daily limit.
    KeyOut,
    /// A provider rejects a key.
    KeyRejected,
    /// Every key of an upstream is cooling.
    KeysCooling,
    /// Requests are not recorded.
    Ledger,
    /// A problem is resolved.
    Recovered,
    /// A test alert, sent on request.
    Test,
    /// An upstream is cooling after failures.
    UpstreamDown,
    /// Usage is far higher than normal.
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
            Self::KeyOut => "key_out",
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
    fn names_match_the_wire() {
        for kind in [
            AlertKind::BalanceLow,
            AlertKind::BudgetNear,
            AlertKind::BudgetSpent,
            AlertKind::ErrorRate,
            AlertKind::KeyOut,
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
