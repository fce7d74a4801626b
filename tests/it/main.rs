//! Tests of the real thing, in one binary.

#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]
#![allow(unreachable_pub, reason = "one binary of many small modules")]

mod cli;
mod configs;
#[cfg(target_os = "linux")]
mod keyring;
#[cfg(target_os = "linux")]
mod support;
