//! A mean in which old samples fade with time, not with the number of samples.

use std::time::Duration;

use super::clock::Mono;

/// Time-decayed mean: a sample's weight halves every `half_life`.
#[derive(Clone, Copy, Debug)]
pub struct Ewma {
    half_life: Duration,
    sum: f64,
    weight: f64,
    at: Mono,
}

impl Ewma {
    #[must_use]
    pub fn new(half_life: Duration) -> Self {
        Self { half_life, sum: 0.0, weight: 0.0, at: Mono::default() }
    }

    pub fn add(&mut self, value: f64, now: Mono) {
        let fade = self.fade(now);
        self.sum = self.sum.mul_add(fade, value);
        self.weight = self.weight.mul_add(fade, 1.0);
        self.at = self.at.max(now);
    }

    /// The mean, where the samples still weigh something at `now`. Reading changes nothing.
    #[must_use]
    pub fn mean(&self, now: Mono) -> Option<f64> {
        (self.weight * self.fade(now) > 1e-3).then(|| self.sum / self.weight)
    }

    fn fade(&self, now: Mono) -> f64 {
        let lives = now.since(self.at).as_secs_f64() / self.half_life.as_secs_f64().max(1e-9);
        (-lives).exp2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_samples_weigh_more_and_all_are_forgotten_in_the_end() {
        let at = |s| Mono(Duration::from_secs(s));
        let mut mean = Ewma::new(Duration::from_secs(10));
        assert_eq!(mean.mean(at(0)), None);

        mean.add(100.0, at(0));
        mean.add(10.0, at(10));

        let got = mean.mean(at(10)).expect("two samples");
        assert!((got - 40.0).abs() < 1e-9, "one and a half samples, 60 in all: {got}");
        assert_eq!(mean.mean(at(200)), None);
    }
}
