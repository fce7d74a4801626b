//! Connections to servers: transports, and the requests that are open on them.

pub mod calls;
pub mod event_stream;
pub mod old_sse;
pub mod peer;
pub mod process;
pub mod stdio;
pub mod streamable;
pub mod tokens;
