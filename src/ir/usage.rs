//! Token counts in classes that do not overlap.

use serde::{Deserialize, Serialize};

/// Tokens of one answer. Every token is in exactly one class, so sums never count twice; each dialect adds them up its
/// own way when it writes. Unknown is `None` at the holder, never 0 here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Input read fresh.
    pub input: u64,
    /// Input read from the provider's prompt cache.
    pub cache_read: u64,
    /// Input written to the cache for five minutes.
    pub cache_write_5m: u64,
    /// Input written to the cache for an hour.
    pub cache_write_1h: u64,
    /// Visible output.
    pub output: u64,
    /// Output spent on reasoning.
    pub reasoning: u64,
}

impl Usage {
    /// All input, cached or not.
    #[must_use]
    pub fn input_total(&self) -> u64 {
        self.input.saturating_add(self.cache_read).saturating_add(self.cache_write_5m).saturating_add(self.cache_write_1h)
    }

    /// All output, reasoning included.
    #[must_use]
    pub fn output_total(&self) -> u64 {
        self.output.saturating_add(self.reasoning)
    }
}
