//! State that all connections share.

use std::sync::Arc;

use crate::server::{guard::credential::ClientKeys, probe_gate::ProbeGate};
use crate::{
    config::settings::KeylessListener, control::api::ControlApi, mcp::servers::hub::McpHub,
    relay::engine::Engine,
};

/// The server's view of the proxy.
pub struct ServerState {
    pub engine: Arc<Engine>,
    pub clients: Arc<ClientKeys>,
    pub control: Arc<ControlApi>,
    /// The MCP servers.
    pub mcp: Arc<McpHub>,
    /// The listener whose clients need no credential.
    pub keyless: Option<KeylessListener>,
    /// Probes that callers of `GET /health` asked for.
    pub probes: Arc<ProbeGate>,
}
