//! Token counts in classes that do not overlap.

use serde::{Deserialize, Serialize};

use crate::base::money::NanoUsd;

/// Tokens of one answer. Every token is in exactly one class, so sums never count twice; each
/// dialect adds them up its own way when it writes. Unknown is `None` at the holder, never 0 here.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Input text read fresh.
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
    /// Input that is sound.
    #[serde(default, skip_serializing_if = "none")]
    pub audio_in: u64,
    /// Input that is pictures, where it is told apart.
    #[serde(default, skip_serializing_if = "none")]
    pub image_in: u64,
    /// Output that is sound.
    #[serde(default, skip_serializing_if = "none")]
    pub audio_out: u64,
    /// Output that is pictures.
    #[serde(default, skip_serializing_if = "none")]
    pub image_out: u64,
    /// Web searches made for it; no tokens.
    #[serde(default, skip_serializing_if = "none")]
    pub searches: u64,
    /// What the provider says that it cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "reported")]
    pub reported_cost: Option<NanoUsd>,
}

impl Usage {
    /// Both together, but for what providers say that they cost: two words make no sum.
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

    /// Input that came from no cache and went into none: text, sound, pictures.
    #[must_use]
    pub fn uncached_input(&self) -> u64 {
        self.input.saturating_add(self.audio_in).saturating_add(self.image_in)
    }

    /// All input, cached or not.
    #[must_use]
    pub fn input_total(&self) -> u64 {
        self.uncached_input()
            .saturating_add(self.cache_read)
            .saturating_add(self.cache_write_5m)
            .saturating_add(self.cache_write_1h)
    }

    /// All output, reasoning included.
    #[must_use]
    pub fn output_total(&self) -> u64 {
        self.output
            .saturating_add(self.reasoning)
            .saturating_add(self.audio_out)
            .saturating_add(self.image_out)
    }
}

/// The same tokens: searches and what the provider asks are another matter, and no dialect but its
/// own has words for it.
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
