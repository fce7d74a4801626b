//! What tests stand on.

pub mod keyring;
