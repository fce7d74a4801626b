//! The HTTP side that clients see: listeners, connections, guards, paths.

pub mod connection;
mod context;
pub mod gate;
pub mod guard;
mod known;
pub mod listen;
pub mod paths;
pub mod places;
pub mod service;
mod stored;
pub mod wire;
