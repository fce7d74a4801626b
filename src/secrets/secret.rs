//! A credential that cannot be printed, compared, copied or serialised by accident.

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// A provider or client key. No `Display`, `Serialize`, `Clone` or `PartialEq`; `Debug` prints the
/// fingerprint; the bytes are overwritten when it is dropped.
pub struct Secret(Zeroizing<String>);

/// Identifies a key in output: a short prefix, `…`, and four hex digits of its SHA-256.
pub type Fingerprint = Arc<str>;

impl Secret {
    /// Takes ownership of a credential's text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Returns the credential itself: only for the header that carries it, the store that contains
    /// it, and the digest that compares it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the fingerprint: up to three characters of a well-known prefix (`sk-`, `aip`), then
    /// four hex digits of the digest. It shows no part of the secret itself.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let digest = Sha256::digest(self.0.as_bytes());
        let prefix =
            ["sk-", "gsk_", "xai-", "aip-", "AIza", "nvapi-", "hf_", "pplx-", "r8_", "or-"]
                .into_iter()
                .find(|p| self.0.starts_with(p))
                .unwrap_or("");
        format!("{prefix}…{:02x}{:02x}", digest[0], digest[1]).into()
    }

    /// Returns the HMAC-SHA256 of a message with this secret as the key (RFC 2104).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 32] {
        hmac_sha256(self.0.as_bytes(), message)
    }

    /// The same with a key that begins with other text, which is the time for some services.
    #[must_use]
    pub fn sign_with_prefix(&self, before: &str, message: &[u8]) -> [u8; 32] {
        let mut key = Zeroizing::new(String::with_capacity(before.len() + self.0.len()));
        key.push_str(before);
        key.push_str(&self.0);
        hmac_sha256(key.as_bytes(), message)
    }

    /// Returns the secret as a header value; `None` if it is not a valid one.
    #[must_use]
    pub fn header_value(&self) -> Option<http::HeaderValue> {
        let mut value = http::HeaderValue::from_str(&self.0).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Returns the SHA-256 of the key, for comparisons that do not expose it.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    const BLOCK: usize = 64;
    let mut block = Zeroizing::new([0_u8; BLOCK]);
    if key.len() > BLOCK {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let padded = |pad: u8| Zeroizing::new(block.map(|byte| byte ^ pad));
    let inner =
        Sha256::new().chain_update(padded(0x36).as_slice()).chain_update(message).finalize();
    Sha256::new().chain_update(padded(0x5c).as_slice()).chain_update(inner).finalize().into()
}

/// Generates a client key: `aip-` and 32 characters that never need escaping, from the operating
/// system's entropy.
///
/// # Errors
///
/// [`NoEntropy`] if the operating system has none. There is no fallback source for a key.
pub fn generate_client_key() -> Result<Secret, NoEntropy> {
    let mut random = Zeroizing::new([0; 24]);
    getrandom::fill(random.as_mut()).map_err(NoEntropy)?;
    // Exactly as long as the key, so that no partial copy remains in freed memory.
    let mut text = Zeroizing::new(String::with_capacity(CLIENT_KEY_PREFIX.len() + 32));
    text.push_str(CLIENT_KEY_PREFIX);
    URL_SAFE_NO_PAD.encode_string(random.as_ref(), &mut text);
    Ok(Secret(text))
}

/// The prefix of aiproxy's client keys; a provider's key never has it.
pub const CLIENT_KEY_PREFIX: &str = "aip-";

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("no random bytes from the operating system for a new key: {0}")]
pub struct NoEntropy(getrandom::Error);

/// Disables core dumps of this process and its children, because a dump would contain every key as
/// plain text.
///
/// # Errors
///
/// The operating system's error, if it does not allow the change of the limit.
#[cfg(unix)]
pub fn disable_core_dumps() -> std::io::Result<()> {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    Ok(rustix::process::setrlimit(rustix::process::Resource::Core, none)?)
}

/// Does nothing: this system has no core dumps to disable.
///
/// # Errors
///
/// Never fails.
#[cfg(not(unix))]
pub fn disable_core_dumps() -> std::io::Result<()> {
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
    fn debug_output_has_no_part_of_a_key() {
        let secret = Secret::new("sk-abcdefghijklmnop".to_owned());
        let shown = format!("{secret:?} {}", secret.fingerprint());
        assert!(!shown.contains("abc") && !shown.contains("nop"), "{shown}");
        assert!(shown.contains("sk-…"), "{shown}");
    }

    #[test]
    fn hmac_matches_the_standard_test_vectors() {
        // RFC 4231, cases 2 and 6.
        let hex =
            |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let jefe = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(Secret::new("Jefe".to_owned()).sign(b"what do ya want for nothing?")), jefe);
        assert_eq!(
            hex(Secret::new("fe".to_owned())
                .sign_with_prefix("Je", b"what do ya want for nothing?")),
            jefe
        );
        let long = hex(hmac_sha256(
            &[0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
        ));
        assert_eq!(long, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    }

    #[test]
    fn client_key_is_long_random_and_url_safe() {
        let (one, two) =
            (generate_client_key().expect("entropy"), generate_client_key().expect("entropy"));

        let tail = one.expose().strip_prefix("aip-").expect("our prefix");
        assert_eq!(tail.len(), 32);
        assert!(tail.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')));
        assert_ne!(one.digest(), two.digest());
    }
}
