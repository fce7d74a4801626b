//! The gateway for the Model Context Protocol: one endpoint for the servers of the config.
//!
//! Messages pass as the text that the other side wrote; this program reads only what it must. A
//! client speaks to the gateway in one revision and a server in another, and `call` translates
//! between them.

pub mod builtin;
pub mod call;
pub mod call_log;
pub mod caller;
pub mod commands;
pub mod endpoint;
pub mod feeds;
pub mod gateway;
pub mod log_level;
pub mod message;
pub mod names;
pub mod oauth;
pub mod openapi;
pub mod outlet;
pub mod pipe;
pub mod revision;
pub mod servers;
pub mod session;
pub mod wire;
