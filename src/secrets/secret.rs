//! A credential that cannot be printed, compared, copied or written out by accident.

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
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

/// Makes a client key: `aip-` and 32 characters that need no escaping anywhere, from the operating system's entropy.
///
/// # Errors
///
/// [`NoEntropy`] where the operating system has none to give; there is no second-best source for a key.
pub fn generate() -> Result<Secret, NoEntropy> {
    let mut random = Zeroizing::new([0; 24]);
    getrandom::fill(random.as_mut()).map_err(NoEntropy)?;
    // Exactly as long as the key, so that no half-filled copy stays behind in freed memory.
    let mut text = Zeroizing::new(String::with_capacity(CLIENT_KEY_PREFIX.len() + 32));
    text.push_str(CLIENT_KEY_PREFIX);
    URL_SAFE_NO_PAD.encode_string(random.as_ref(), &mut text);
    Ok(Secret(text))
}

/// What a client key of ours begins with; a provider's key never does.
pub const CLIENT_KEY_PREFIX: &str = "aip-";

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("no random bytes from the operating system for a new key: {0}")]
pub struct NoEntropy(getrandom::Error);

/// Forbids core dumps of this process and its children: they would hold every key in the clear.
///
/// # Errors
///
/// The operating system's, where it does not let go of the limit.
#[cfg(unix)]
pub fn no_core_dumps() -> std::io::Result<()> {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    Ok(rustix::process::setrlimit(rustix::process::Resource::Core, none)?)
}

/// Nothing to forbid: no core dumps here.
///
/// # Errors
///
/// None.
#[cfg(not(unix))]
pub fn no_core_dumps() -> std::io::Result<()> {
    Ok(())
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

    #[test]
    fn a_client_key_is_long_random_and_safe_in_a_url() {
        let (one, two) = (generate().expect("entropy"), generate().expect("entropy"));

        let tail = one.expose().strip_prefix("aip-").expect("our prefix");
        assert_eq!(tail.len(), 32);
        assert!(tail.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')));
        assert_ne!(one.digest(), two.digest());
    }
}
