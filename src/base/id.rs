//! Sortable ids of requests.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};

use super::clock::UnixMillis;

/// An id of a request: 48 bits of time, then 32 bits that are this process's start and a counter; 20 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u128);

static COUNTER: AtomicU64 = AtomicU64::new(0);
static SALT: OnceLock<u64> = OnceLock::new();

impl RequestId {
    /// A new id; no two calls of one process give the same.
    #[must_use]
    pub fn new(now: UnixMillis) -> Self {
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        // The first ids of two processes started in the same millisecond must differ.
        let salt = *SALT.get_or_init(|| u64::from(std::process::id()).wrapping_mul(0x9E37_79B9));
        let low = u128::from(count.wrapping_add(salt) & 0xFFFF_FFFF);
        Self((u128::from(now.0.unsigned_abs() & 0xFFFF_FFFF_FFFF) << 32) | low)
    }

    /// Reads the form that `Display` writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 20).then(|| u128::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020x}", self.0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_survive_their_text() {
        let (a, b) = (RequestId::new(UnixMillis(1_700_000_000_000)), RequestId::new(UnixMillis(1_700_000_000_001)));
        assert!(a < b);
        assert_eq!(RequestId::parse(&a.to_string()), Some(a));
        assert_eq!(RequestId::parse("nonsense"), None);
    }
}
