//! Full-jitter exponential backoff.

use std::time::Duration;

use crate::base::rng::Rng;

/// Returns a pause before try number `nth` (0 for the first pause): a random value between zero and
/// `base · 2ⁿ`, at most `max`. The full jitter prevents clients that failed together from returning
/// together.
#[must_use]
pub fn full_jitter(base: Duration, max: Duration, nth: u32, rng: &mut dyn Rng) -> Duration {
    exponential(base, max, nth).mul_f64(rng.next_f64().clamp(0.0, 1.0))
}

/// Returns `base · 2ⁿ`, at most `max`.
#[must_use]
pub fn exponential(base: Duration, max: Duration, nth: u32) -> Duration {
    let factor = 1_u32.checked_shl(nth).unwrap_or(u32::MAX);
    base.saturating_mul(factor).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::ScriptedRng;

    #[test]
    fn backoff_doubles_up_to_its_maximum_with_jitter() {
        let (base, max) = (Duration::from_millis(250), Duration::from_secs(8));
        for (nth, fraction, millis) in [
            (0, 1.0, 250),
            (1, 1.0, 500),
            (1, 0.5, 250),
            (4, 1.0, 4_000),
            (5, 1.0, 8_000),
            (400, 1.0, 8_000),
            (3, 0.0, 0),
        ] {
            let pause = full_jitter(base, max, nth, &mut ScriptedRng::new(&[fraction]));
            assert_eq!(pause, Duration::from_millis(millis), "{nth} {fraction}");
        }
    }
}
