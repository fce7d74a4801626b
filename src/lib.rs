//! aiproxy: the AI proxy on a developer's laptop.
//!
//! Rooms import downwards only (`tests/it/architecture.rs` holds them to it):
//!
//! ```text
//! cli → server, tui → control → relay, telemetry, alerts → routing, dialect, upstream, demo → config → secrets, events → ir → base
//! ```
//!
//! One request: `server` reads it, checks Host, Origin and credential, and finds dialect and
//! operation from the path; `relay` reads the body once, shallowly, asks `routing` which target and
//! key to try, sends through `upstream`, holds the answer until its first content so that failover
//! stays invisible, and passes the bytes on while a meter of the `dialect` watches them; what
//! happened goes out as `events`.

pub mod alerts;
pub mod base;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod dialect;
pub mod events;
pub mod ir;
pub mod ledger;
pub mod pricing;
pub mod relay;
pub mod routing;
pub mod secrets;
pub mod server;
pub mod telemetry;
pub mod tui;
pub mod upstream;
