//! Assigns numbers to names once per process, so that health and statistics of a name survive every
//! reload.

use std::collections::HashMap;

/// The number of an upstream: assigned once per process and name, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamId(pub u32);

/// The number of a key: assigned once per process and `upstream/label`, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub u32);

/// The interner. One lives as long as the process and is passed to every load.
#[derive(Debug, Default)]
pub struct IdInterner {
    upstreams: HashMap<String, UpstreamId>,
    keys: HashMap<String, KeyId>,
}

impl IdInterner {
    /// Returns the number of an upstream's name.
    pub fn upstream_id(&mut self, name: &str) -> UpstreamId {
        let next = UpstreamId(u32::try_from(self.upstreams.len()).unwrap_or(u32::MAX));
        *self.upstreams.entry(name.to_owned()).or_insert(next)
    }

    /// Returns the number of a key's name, `upstream/label`.
    pub fn key_id(&mut self, name: &str) -> KeyId {
        let next = KeyId(u32::try_from(self.keys.len()).unwrap_or(u32::MAX));
        *self.keys.entry(name.to_owned()).or_insert(next)
    }
}
