//! What a provider says is left of its limits.

use std::time::Duration;

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    pub limit: Option<u64>,
    pub remaining: u64,
    /// From now until all of it is there again.
    pub reset: Duration,
}

/// All that an answer's head tells of; usually nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowances {
    pub requests: Option<Allowance>,
    /// Input and output together.
    pub tokens: Option<Allowance>,
    pub input: Option<Allowance>,
    pub output: Option<Allowance>,
}

impl Allowances {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
