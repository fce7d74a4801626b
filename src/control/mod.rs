//! What viewers and commands see and do: the snapshot, the actions, the client that reaches a running proxy.

pub mod action;
pub mod client;
pub mod snapshot;
