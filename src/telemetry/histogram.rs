//! Counts values in buckets.

use crate::telemetry::prometheus_text::TextEncoder;

/// Bucket bounds of tokens and of times in seconds that the OpenTelemetry conventions for generative AI recommend.
pub(super) const TOKEN_BOUNDS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
pub(super) const DURATION_BOUNDS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
pub(super) const TTFT_BOUNDS: [f64; 16] =
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
pub(super) const TOKEN_TIME_BOUNDS: [f64; 13] =
    [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];

/// A histogram with one count more than it has bounds, of which there are at most sixteen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Histogram<const N: usize> {
    counts: [u64; 17],
    sum: f64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { counts: [0; 17], sum: 0.0 }
    }
}

impl<const N: usize> Histogram<N> {
    pub(super) fn record(&mut self, bounds: &[f64; N], value: f64) {
        let bucket = bounds.iter().position(|bound| value <= *bound).unwrap_or(N);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += value;
    }

    pub(super) fn write(&self, page: &mut TextEncoder, labels: &[(&str, &str)], bounds: &[f64; N]) {
        page.write_histogram(labels, bounds, &self.counts[..=N.min(16)], self.sum);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }
}
