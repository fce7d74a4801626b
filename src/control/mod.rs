//! What viewers and commands can read and do: the snapshot, the actions, and the client for a
//! running proxy.

pub mod action;
pub mod action_message;
pub mod active_alerts;
pub mod admin;
pub mod api;
pub mod client;
mod feed;
pub mod history;
pub mod mcp;
pub mod metrics;
pub mod request_transcript;
pub mod route;
pub mod rundir;
pub mod snapshot;
pub mod views;
