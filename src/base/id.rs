//! Sortable request ids, and maps keyed by internal ids.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasherDefault, Hash, Hasher},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};

use super::clock::UnixMillis;

/// Digits of a request id as text.
const ID_DIGITS: usize = 20;

/// A request id: 48 bits of time, then 32 bits from the start of this process and a counter; 20 hex
/// digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(u128);

static COUNTER: AtomicU64 = AtomicU64::new(0);
static SALT: OnceLock<u64> = OnceLock::new();

impl RequestId {
    /// Creates an id; two calls in one process never return the same.
    #[must_use]
    pub fn new(now: UnixMillis) -> Self {
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        // The first ids of two processes started in the same millisecond must differ.
        let salt = *SALT.get_or_init(|| u64::from(std::process::id()).wrapping_mul(0x9E37_79B9));
        let low = u128::from(count.wrapping_add(salt) & 0xFFFF_FFFF);
        Self((u128::from(now.0.unsigned_abs() & 0xFFFF_FFFF_FFFF) << 32) | low)
    }

    /// Returns the smallest text that an id of this moment or later can have.
    #[must_use]
    pub fn min_text_at(at: UnixMillis) -> String {
        format!("{:012x}", at.0.clamp(0, 0xFFFF_FFFF_FFFF))
    }

    /// Parses the form that `Display` writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == ID_DIGITS).then(|| u128::from_str_radix(text, 16).ok().map(Self)).flatten()
    }

    /// Returns the text without an allocation.
    #[must_use]
    pub fn hex_digits(self) -> [u8; ID_DIGITS] {
        let mut out = [0; ID_DIGITS];
        let mut left = self.0;
        for digit in out.iter_mut().rev() {
            *digit = b"0123456789abcdef"[(left & 0xF) as usize];
            left >>= 4;
        }
        out
    }

    /// Returns the digits as text.
    #[must_use]
    pub fn text_of(digits: &[u8; ID_DIGITS]) -> &str {
        std::str::from_utf8(digits).unwrap_or_default()
    }
}

impl Hash for RequestId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The counter and the low bits of the time distinguish the requests of one process.
        state.write_u64(self.0 as u64);
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::text_of(&self.hex_digits()))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for RequestId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a request id"))
    }
}

/// A map keyed by small internal ids.
pub type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Hashes one small number. The ids are internal, so no client can choose them to collide.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0 ^ n).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_round_trip_as_text() {
        let (a, b) = (
            RequestId::new(UnixMillis(1_700_000_000_000)),
            RequestId::new(UnixMillis(1_700_000_000_001)),
        );
        assert!(a < b);
        assert_eq!(RequestId::parse(&a.to_string()), Some(a));
        assert_eq!(RequestId::parse("nonsense"), None);
        assert!(RequestId::min_text_at(UnixMillis(1_700_000_000_000)) <= a.to_string());
        assert!(RequestId::min_text_at(UnixMillis(1_700_000_000_001)) > a.to_string());
    }
}
