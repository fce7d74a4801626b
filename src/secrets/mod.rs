//! Keys: the type that cannot be printed, where keys are kept, and how a reference becomes a key.

pub mod command;
pub mod file;
pub mod keyring;
pub mod redact;
pub mod reference;
pub mod resolve;
pub mod secret;
pub mod vault;

pub use reference::Reference;
pub use secret::{Fingerprint, Secret};
