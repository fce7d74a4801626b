//! Why the OS keyring failed.

use keyring_core::Error;
use zeroize::Zeroizing;

use super::redact::printable;

/// Why a keyring operation failed. Never contains a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    #[error(
        "the OS keyring has not answered an earlier question yet; it may be waiting at a prompt"
    )]
    Busy,
    #[error("the OS keyring refused access")]
    Denied,
    #[error("the OS keyring is locked and its prompt was not answered")]
    Locked,
    #[error("no OS keyring service: {0}")]
    NoService(String),
    #[error("the OS keyring: {0}")]
    Other(String),
    #[error("the OS keyring did not answer in time; it may be waiting at a prompt")]
    Timeout,
}

impl KeyringError {
    /// Returns what to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Busy | Self::Timeout => {
                "answer the keyring's prompt, then `aiproxy reload`; without a desktop keep keys in the encrypted file \
                 (`aiproxy key add UPSTREAM --vault`) or in a variable (`env:NAME`)"
            }
            Self::Denied => {
                "allow aiproxy in the keyring's own settings, or keep the key in the encrypted file \
                 (`aiproxy key add UPSTREAM --vault`) or in a variable (`env:NAME`)"
            }
            Self::Locked => {
                "unlock the keyring and `aiproxy reload`, or keep the key in the encrypted file \
                 (`aiproxy key add UPSTREAM --vault`, with a vault passphrase) or in a variable (`env:NAME`)"
            }
            Self::NoService(_) | Self::Other(_) => {
                "keep the key in the encrypted file instead (`aiproxy key add UPSTREAM --vault`, with a vault passphrase) \
                 or in a variable (`env:NAME`)"
            }
        }
    }
}

/// Classifies the cause. The error includes only texts of the transport, never the content of an
/// entry.
pub(super) fn classify(error: Error) -> KeyringError {
    match error {
        Error::NoStorageAccess(cause) => match format!("{cause:?}").as_str() {
            "NoResult" => KeyringError::NoService("it has no default collection".to_owned()),
            "Locked" | "Prompt" | "PromptDisconnected" => KeyringError::Locked,
            _ => KeyringError::Denied,
        },
        Error::PlatformFailure(cause) => {
            let text = printable(&cause.to_string(), MAX_SHOWN_CHARS);
            let mentions = |names: &[&str]| names.iter().any(|name| text.contains(name));
            if mentions(&["AccessDenied"]) {
                KeyringError::Denied
            } else if mentions(&["IsLocked"]) {
                KeyringError::Locked
            } else if mentions(&["ServiceUnknown", "NameHasNoOwner", "no secret service provider"])
            {
                KeyringError::NoService("no session bus, or no Secret Service on it".to_owned())
            } else if mentions(&["NoReply", "Spawn", "Disconnected"]) {
                KeyringError::NoService(text)
            } else {
                KeyringError::Other(text)
            }
        }
        Error::BadEncoding(bytes) | Error::BadDataFormat(bytes, _) => {
            drop(Zeroizing::new(bytes));
            KeyringError::Other("the entry is not text".to_owned())
        }
        Error::Ambiguous(entries) => KeyringError::Other(format!(
            "{} entries have this label; remove all but one",
            entries.len()
        )),
        Error::NoDefaultStore => KeyringError::NoService("none for this system".to_owned()),
        Error::TooLong(_, limit) => {
            KeyringError::Other(format!("it takes at most {limit} characters"))
        }
        other => KeyringError::Other(printable(&other.to_string(), MAX_SHOWN_CHARS)),
    }
}

/// Characters of a foreign error text that an error includes.
pub(super) const MAX_SHOWN_CHARS: usize = 200;
