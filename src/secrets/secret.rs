//! A credential that cannot be printed, compared, copied or written out by accident.

use std::{fmt, sync::Arc};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// A provider or client key. No `Display`, `Serialize`, `Clone` or `PartialEq`; `Debug` prints the fingerprint; the
/// bytes are overwritten when it is dropped.
pub struct Secret(Zeroizing<String>);

/// What a key is known by elsewhere: a short prefix, `…`, and four hex digits of its SHA-256.
pub type Fingerprint = Arc<str>;

impl Secret {
    /// Takes ownership of a credential's text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The credential itself: only for the header that carries it, the store that keeps it, and the digest that
    /// compares it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The key's fingerprint: up to three characters of a well-known prefix (`sk-`, `aip`), then four hex digits of its
    /// digest, so that no part of the secret itself is shown.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let digest = Sha256::digest(self.0.as_bytes());
        let prefix = ["sk-", "gsk_", "xai-", "aip-", "AIza", "nvapi-", "hf_", "pplx-", "r8_", "or-"]
            .into_iter()
            .find(|p| self.0.starts_with(p))
            .unwrap_or("");
        format!("{prefix}…{:02x}{:02x}", digest[0], digest[1]).into()
    }

    /// SHA-256 of the key, for comparing without looking.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_key_is_printed() {
        let secret = Secret::new("sk-abcdefghijklmnop".to_owned());
        let shown = format!("{secret:?} {}", secret.fingerprint());
        assert!(!shown.contains("abc") && !shown.contains("nop"), "{shown}");
        assert!(shown.contains("sk-…"), "{shown}");
    }
}
