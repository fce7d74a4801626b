//! Secrets: the type that cannot be printed, the stores of keys, and the resolution of a reference
//! to a key.

pub mod command;
pub mod file;
pub mod keyring;
mod keyring_error;
mod os_keyring;
pub mod redact;
pub mod reference;
pub mod remembered;
pub mod resolve;
pub mod secret;
pub mod vault;

pub use reference::Reference;
pub use secret::{Fingerprint, Secret};
