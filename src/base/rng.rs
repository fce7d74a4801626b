//! Randomness as an argument: decisions take an `Rng`, so that tests can script it.

/// A source of uniform choices.
pub trait Rng {
    /// Returns a number in `0.0..1.0`.
    fn next_f64(&mut self) -> f64;
}

/// A small fast generator (xorshift64*), seeded by the operating system; not for secrets.
#[derive(Debug)]
pub struct XorShiftRng(u64);

impl XorShiftRng {
    /// Creates a generator seeded by the operating system.
    #[must_use]
    pub fn from_os() -> Self {
        let mut seed = [0; 8];
        // Without entropy the choice is only less random, so this is not reported.
        if getrandom::fill(&mut seed).is_err() {
            seed = *b"aiproxy!";
        }
        Self::new(u64::from_le_bytes(seed))
    }

    /// Creates a generator with a fixed sequence, for simulations.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }
}

impl Rng for XorShiftRng {
    fn next_f64(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11;
        bits as f64 / (1_u64 << 53) as f64
    }
}

/// A scripted sequence for tests; repeats its last value.
#[derive(Debug)]
pub struct ScriptedRng(Vec<f64>);

impl ScriptedRng {
    /// Creates a source that returns these values in order.
    #[must_use]
    pub fn new(values: &[f64]) -> Self {
        Self(values.iter().rev().copied().collect())
    }
}

impl Rng for ScriptedRng {
    fn next_f64(&mut self) -> f64 {
        if self.0.len() > 1 {
            self.0.pop().unwrap_or_default()
        } else {
            self.0.last().copied().unwrap_or_default()
        }
    }
}
