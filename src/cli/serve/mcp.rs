//! Builds the gateway for MCP servers.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{
    cli::serve::{keys::load::KeyLoader, mcp_calls::EngineCallLog},
    mcp::{builtin::BuiltinServices, servers::hub::McpHub, servers::parts::HubParts},
    relay::engine::Engine,
    upstream::web_client::WebClient,
};

/// Builds the gateway with the servers of the current settings; none of them is started.
pub(super) fn build_hub(
    engine: &Arc<Engine>,
    loader: &Arc<KeyLoader>,
    stop: &CancellationToken,
) -> Arc<McpHub> {
    let web = Arc::new(WebClient::default());
    let services = BuiltinServices::new(
        Arc::clone(&engine.clock),
        Arc::clone(&web),
        Arc::clone(&loader.resolver),
        loader.keyring.clone(),
    );
    let parts = HubParts::new(
        Arc::clone(&engine.clock),
        Arc::clone(&loader.resolver),
        web,
        Arc::new(services),
        Arc::new(EngineCallLog(Arc::clone(engine))),
    );
    let hub = Arc::new(McpHub::new(parts, stop.clone()));
    hub.apply(&engine.generation().settings);
    hub
}
