//! What a provider says is left of its limits.

use std::time::Duration;

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub limit: Option<u64>,
    pub remaining: u64,
    /// From now until all of it is there again.
    pub resets_in: Duration,
}

/// All that an answer's head tells of; usually nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    pub requests: Option<RateLimit>,
    /// Input and output together.
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
