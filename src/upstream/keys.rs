//! Stores provider secrets while the proxy runs; no other part of the request path contains one.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::HeaderValue;
use zeroize::Zeroizing;

use crate::{
    base::{id::IdMap, sync::Mutex},
    config::settings::KeyId,
    ir::reason::missing_secret::MissingSecret,
    secrets::{Fingerprint, Secret},
};

/// All keys of the process by id. Reading takes no lock; writing copies the (small) table.
#[derive(Default)]
pub struct ProviderKeys {
    table: ArcSwap<IdMap<KeyId, KeyEntry>>,
    write_lock: Mutex<()>,
}

/// The public facts about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretSummary {
    pub state: SecretState,
    /// Empty unless `Ready`.
    pub fingerprint: Fingerprint,
}

/// Whether a key's secret is available.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretState {
    Ready,
    /// Still being read.
    Waiting,
    Missing(Arc<MissingSecret>),
}

#[derive(Clone)]
enum KeyEntry {
    Ready(Arc<LoadedKey>),
    Waiting,
    Missing(Arc<MissingSecret>),
}

/// A secret in the forms in which it is sent, created once.
struct LoadedKey {
    secret: Arc<Secret>,
    fingerprint: Fingerprint,
    digest: [u8; 32],
    bearer: HeaderValue,
    bare: HeaderValue,
}

impl ProviderKeys {
    /// Makes a key usable. A secret that cannot be a header value becomes `Missing`, with that as
    /// the reason.
    pub fn set(&self, key: KeyId, secret: Arc<Secret>) {
        let entry = match (header_value("Bearer ", &secret), header_value("", &secret)) {
            (Some(bearer), Some(bare)) => KeyEntry::Ready(Arc::new(LoadedKey {
                fingerprint: secret.fingerprint(),
                digest: secret.digest(),
                bearer,
                bare,
                secret,
            })),
            _ => KeyEntry::Missing(MissingSecret::Unsendable.into()),
        };
        self.update(|table| drop(table.insert(key, entry)));
    }

    /// Records that the reference resolves to nothing.
    pub fn set_missing(&self, key: KeyId, reason: Arc<MissingSecret>) {
        self.update(|table| drop(table.insert(key, KeyEntry::Missing(reason))));
    }

    /// Records that a slow store is reading the secret.
    pub fn set_waiting(&self, key: KeyId) {
        self.update(|table| drop(table.insert(key, KeyEntry::Waiting)));
    }

    /// Removes a key that is gone from the config.
    pub fn remove(&self, key: KeyId) {
        self.update(|table| drop(table.remove(&key)));
    }

    /// Returns the state of a key; `Waiting` for an unknown key.
    #[must_use]
    pub fn summary(&self, key: KeyId) -> SecretSummary {
        match self.table.load().get(&key) {
            Some(KeyEntry::Ready(held)) => SecretSummary {
                state: SecretState::Ready,
                fingerprint: Arc::clone(&held.fingerprint),
            },
            Some(KeyEntry::Missing(reason)) => SecretSummary {
                state: SecretState::Missing(Arc::clone(reason)),
                fingerprint: "".into(),
            },
            Some(KeyEntry::Waiting) | None => {
                SecretSummary { state: SecretState::Waiting, fingerprint: "".into() }
            }
        }
    }

    /// Returns whether a request could use the key now.
    #[must_use]
    pub fn is_ready(&self, key: KeyId) -> bool {
        matches!(self.table.load().get(&key), Some(KeyEntry::Ready(_)))
    }

    /// Returns the SHA-256 of the secret: keys with the same digest share an account.
    #[must_use]
    pub fn digest(&self, key: KeyId) -> Option<[u8; 32]> {
        match self.table.load().get(&key) {
            Some(KeyEntry::Ready(held)) => Some(held.digest),
            _ => None,
        }
    }

    /// Returns whether the key already has this secret.
    #[must_use]
    pub fn same_secret(&self, key: KeyId, secret: &Secret) -> bool {
        self.digest(key).is_some_and(|held| held == secret.digest())
    }

    /// Returns the secret itself, for the few callers that compare or redact it.
    #[must_use]
    pub fn secret(&self, key: KeyId) -> Option<Arc<Secret>> {
        match self.table.load().get(&key) {
            Some(KeyEntry::Ready(held)) => Some(Arc::clone(&held.secret)),
            _ => None,
        }
    }

    /// Returns the value of `Authorization`.
    pub(super) fn bearer_header(&self, key: KeyId) -> Option<HeaderValue> {
        match self.table.load().get(&key) {
            Some(KeyEntry::Ready(held)) => Some(held.bearer.clone()),
            _ => None,
        }
    }

    /// Returns the bare key, for other header names.
    pub(super) fn bare_header(&self, key: KeyId) -> Option<HeaderValue> {
        match self.table.load().get(&key) {
            Some(KeyEntry::Ready(held)) => Some(held.bare.clone()),
            _ => None,
        }
    }

    fn update(&self, edit: impl FnOnce(&mut IdMap<KeyId, KeyEntry>)) {
        let _one_at_a_time = self.write_lock.lock();
        let mut table = IdMap::clone(&self.table.load());
        edit(&mut table);
        self.table.store(Arc::new(table));
    }
}

impl fmt::Debug for ProviderKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.table.load().keys().map(|key| (key, self.summary(*key))))
            .finish()
    }
}

/// Returns the header value. It shares its bytes with a buffer that is overwritten when the last
/// copy is dropped.
fn header_value(prefix: &str, secret: &Secret) -> Option<HeaderValue> {
    let text = secret.expose();
    if text.is_empty() || text.bytes().any(|b| !(0x21..=0x7e).contains(&b)) {
        return None;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(prefix.len() + text.len()));
    bytes.extend_from_slice(prefix.as_bytes());
    bytes.extend_from_slice(text.as_bytes());
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(bytes)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Arc<Secret> {
        Arc::new(Secret::new(text.to_owned()))
    }

    #[test]
    fn key_state_goes_from_waiting_to_ready_missing_and_removed() {
        let (keys, id) = (ProviderKeys::default(), KeyId(1));
        keys.set_waiting(id);
        assert_eq!(keys.summary(id).state, SecretState::Waiting);

        keys.set(id, secret("sk-abcdef"));
        assert_eq!(keys.summary(id).state, SecretState::Ready);
        assert_eq!(keys.bearer_header(id).expect("ready"), "Bearer sk-abcdef");
        assert_eq!(keys.bare_header(id).expect("ready"), "sk-abcdef");
        assert!(
            keys.same_secret(id, &secret("sk-abcdef"))
                && !keys.same_secret(id, &secret("sk-other"))
        );

        keys.set_missing(id, MissingSecret::Unsendable.into());
        assert_eq!(keys.summary(id).state, SecretState::Missing(MissingSecret::Unsendable.into()));
        assert_eq!((keys.digest(id), keys.bearer_header(id)), (None, None));

        keys.remove(id);
        assert_eq!(keys.summary(id).state, SecretState::Waiting);
    }

    #[test]
    fn secret_invalid_in_a_header_is_missing() {
        for text in ["", "two words", "line\nbreak", "schlüssel"] {
            let keys = ProviderKeys::default();
            keys.set(KeyId(1), secret(text));
            assert!(matches!(keys.summary(KeyId(1)).state, SecretState::Missing(_)), "{text:?}");
        }
    }

    #[test]
    fn debug_output_has_no_part_of_a_key() {
        let keys = ProviderKeys::default();
        keys.set(KeyId(1), secret("sk-abcdefghijk"));
        assert!(!format!("{keys:?} {:?}", keys.bearer_header(KeyId(1))).contains("abcdef"));
    }
}
