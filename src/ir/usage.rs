//! Token counts in classes that do not overlap.

use serde::{Deserialize, Serialize};

use crate::base::money::NanoUsd;

/// Tokens of one response. Every token is in exactly one class, so sums never count twice; each
/// dialect adds them up in its own way when writing. Unknown usage is `None` at the owner, never 0
/// here.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Uncached input text.
    pub input: u64,
    /// Input read from the provider's prompt cache.
    pub cache_read: u64,
    /// Input written to the cache for five minutes.
    pub cache_write_5m: u64,
    /// Input written to the cache for an hour.
    pub cache_write_1h: u64,
    /// Visible output text.
    pub output: u64,
    /// Output spent on reasoning.
    pub reasoning: u64,
    /// Audio input.
    #[serde(default, skip_serializing_if = "none")]
    pub audio_in: u64,
    /// Image input, if reported separately.
    #[serde(default, skip_serializing_if = "none")]
    pub image_in: u64,
    /// Audio output.
    #[serde(default, skip_serializing_if = "none")]
    pub audio_out: u64,
    /// Image output.
    #[serde(default, skip_serializing_if = "none")]
    pub image_out: u64,
    /// Web searches made for the response; not tokens.
    #[serde(default, skip_serializing_if = "none")]
    pub searches: u64,
    /// The cost that the provider reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "reported")]
    pub reported_cost: Option<NanoUsd>,
}

impl Usage {
    /// Adds both, except the reported costs: two reports cannot be added.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            cache_read: self.cache_read.saturating_add(other.cache_read),
            cache_write_5m: self.cache_write_5m.saturating_add(other.cache_write_5m),
            cache_write_1h: self.cache_write_1h.saturating_add(other.cache_write_1h),
            audio_in: self.audio_in.saturating_add(other.audio_in),
            image_in: self.image_in.saturating_add(other.image_in),
            output: self.output.saturating_add(other.output),
            reasoning: self.reasoning.saturating_add(other.reasoning),
            audio_out: self.audio_out.saturating_add(other.audio_out),
            image_out: self.image_out.saturating_add(other.image_out),
            searches: self.searches.saturating_add(other.searches),
            reported_cost: None,
        }
    }

    /// Returns the input that was neither read from nor written to a cache: text, audio, images.
    #[must_use]
    pub fn uncached_input(&self) -> u64 {
        self.input.saturating_add(self.audio_in).saturating_add(self.image_in)
    }

    /// Returns all input, cached or not.
    #[must_use]
    pub fn input_total(&self) -> u64 {
        self.uncached_input()
            .saturating_add(self.cache_read)
            .saturating_add(self.cache_write_5m)
            .saturating_add(self.cache_write_1h)
    }

    /// Returns all output, reasoning included.
    #[must_use]
    pub fn output_total(&self) -> u64 {
        self.output
            .saturating_add(self.reasoning)
            .saturating_add(self.audio_out)
            .saturating_add(self.image_out)
    }
}

/// Compares tokens only. Searches and the reported cost differ by nature, and only their own
/// dialect can represent them.
impl PartialEq for Usage {
    fn eq(&self, other: &Self) -> bool {
        let counts = |u: &Self| {
            let cached = [u.cache_read, u.cache_write_5m, u.cache_write_1h];
            (
                [u.input, u.audio_in, u.image_in],
                cached,
                [u.output, u.reasoning, u.audio_out, u.image_out],
            )
        };
        counts(self) == counts(other)
    }
}

impl Eq for Usage {}

fn none(count: &u64) -> bool {
    *count == 0
}
