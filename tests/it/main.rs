//! Tests that run the program from outside, in one binary.
#![allow(
    clippy::disallowed_methods,
    reason = "tests have real clocks, real files and an environment of their own"
)]
#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a skipped test reports it, a failed one shows the output of the program"
)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(unreachable_pub, reason = "one binary of many small modules")]

mod alert_receivers;
mod architecture;
mod asking;
mod budgets;
mod catalogue;
mod cli;
#[cfg(unix)]
mod completing;
mod config_edits;
mod configs;
#[cfg(target_os = "linux")]
mod connect;
#[cfg(target_os = "linux")]
mod deploying;
#[cfg(unix)]
mod doctoring;
mod failover;
mod fuzzed;
mod gateway;
mod growth;
mod guardian;
mod guards;
mod harness;
mod health;
mod hedge;
#[cfg(unix)]
mod importing;
#[cfg(target_os = "linux")]
mod keyring;
#[cfg(unix)]
mod keys_kept;
mod ledger;
mod mcp;
mod naming;
mod observing;
mod passage;
mod promises;
mod raw_paths;
mod readmes;
mod reload;
mod repair;
mod resources;
mod routing;
#[cfg(target_os = "linux")]
mod run_tool;
mod serve;
#[cfg(target_os = "linux")]
mod servicing;
mod simulation;
#[cfg(target_os = "linux")]
mod soak;
mod stop;
mod streams;
mod support;
mod terminal;
mod translate;
mod websocket;
