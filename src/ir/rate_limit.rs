//! The remaining rate limits that a provider reports.

use std::time::Duration;

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub limit: Option<u64>,
    pub remaining: u64,
    /// Time from now until the whole limit is available again.
    pub resets_in: Duration,
}

/// All limits that a response's head reports; usually none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    pub requests: Option<RateLimit>,
    /// Input and output tokens together.
    pub tokens: Option<RateLimit>,
    pub input: Option<RateLimit>,
    pub output: Option<RateLimit>,
}

impl RateLimits {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
