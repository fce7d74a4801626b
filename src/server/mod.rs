//! The HTTP server for clients: listeners, connections, guards and paths.

pub mod activity;
mod caller;
pub mod connection;
pub mod endpoints;
pub mod guard;
pub mod listen;
pub mod paths;
pub mod probe_gate;
pub mod rewind_io;
pub mod routes;
pub mod service;
pub mod slots;
pub mod state;
mod unread_streams;
mod websocket;
