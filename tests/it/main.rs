//! Tests of the real thing, in one binary.

#[cfg(target_os = "linux")]
mod keyring;
#[cfg(target_os = "linux")]
mod support;
