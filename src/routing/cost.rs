//! Estimates the cost of a request at each candidate.

use super::{candidate::Candidate, health::TokenEstimate};
use crate::config::settings::Upstream;
use crate::routing::project_limits::DEFAULT_OUTPUT_TOKENS;

/// Billionths of a dollar per token, and per request.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenPrice {
    pub input: f64,
    pub output: f64,
    pub request: f64,
}

/// Returns the cost of a request of this size for each candidate, without caches; `None` if the
/// price is unknown.
#[must_use]
pub fn estimate_costs(
    candidates: &[Candidate],
    size: TokenEstimate,
    price: &dyn Fn(&Upstream, &str) -> Option<TokenPrice>,
) -> Vec<Option<f64>> {
    let (input, output) = (size.input.max(1) as f64, size.output.min(DEFAULT_OUTPUT_TOKENS) as f64);
    let mut out: Vec<Option<f64>> = Vec::with_capacity(candidates.len());
    for (at, candidate) in candidates.iter().enumerate() {
        // The keys of one target are adjacent.
        let same = at.checked_sub(1).filter(|&before| {
            std::sync::Arc::ptr_eq(&candidates[before].target, &candidate.target)
        });
        out.push(match same {
            Some(before) => out[before],
            None => price(&candidate.target.upstream, &candidate.target.model)
                .map(|price| price.input * input + price.output * output + price.request),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::routing::test_support::{ready_candidates, target, upstream};

    #[test]
    fn cost_is_computed_once_per_target() {
        let candidates = ready_candidates(&[
            target(&Arc::new(upstream(1, "a", None, 2)), "m"),
            target(&Arc::new(upstream(2, "b", None, 1)), "m"),
        ]);
        let price = |upstream: &Upstream, _: &str| {
            (&*upstream.name == "a").then_some(TokenPrice {
                input: 2.0,
                output: 10.0,
                request: 3.0,
            })
        };

        let costs = estimate_costs(&candidates, TokenEstimate { input: 100, output: 50 }, &price);

        assert_eq!(costs, [Some(703.0), Some(703.0), None]);
    }
}
