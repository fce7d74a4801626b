//! Calls that commands make, without a client of the protocol.

use std::sync::Arc;

use crate::{
    base::json::{raw::RawJson, reader},
    config::settings::Project,
    mcp::{
        caller::McpCaller,
        gateway,
        message::{CONNECTION_CLOSED, RpcError},
        outlet::{Exchange, OutItem, Outlet},
        servers::hub::McpHub,
        session::{ClientFacts, EndpointScope},
    },
};

/// A call of a tool.
pub struct CommandCall {
    pub project: Arc<Project>,
    pub server: Arc<str>,
    /// The server's own name of it.
    pub tool: String,
    pub arguments: RawJson,
}

/// Calls a tool and returns its result.
///
/// # Errors
///
/// The server cannot be used, or refuses the call.
pub async fn call_tool(hub: &Arc<McpHub>, call: CommandCall) -> Result<RawJson, RpcError> {
    let (outlet, mut reader) = Outlet::pair();
    let caller = McpCaller {
        project: call.project,
        scope: EndpointScope::One(call.server),
        facts: ClientFacts::default(),
        level: None,
        session: None,
        program: "aiproxy".into(),
        addr: None,
    };
    let params = RawJson::object(|o| {
        o.str("name", &call.tool).raw("arguments", &call.arguments);
    });
    let exchange = Exchange { id: RawJson::from(1), outlet };
    let method = "tools/call".to_owned();
    let answering =
        gateway::answer_request(Arc::clone(hub), caller, exchange, method, Some(params));
    hub.parts.tracker.spawn(answering);
    while let Some(item) = reader.items.recv().await {
        let OutItem::Final(text, _) = item else { continue };
        let Ok(json) = reader::parse(text.as_bytes()) else { break };
        return match (json.get("result"), json.get("error")) {
            (Some(result), _) => Ok(RawJson::from_json(result)),
            (None, Some(error)) => Err(RpcError::read(error)),
            (None, None) => break,
        };
    }
    Err(RpcError::new(CONNECTION_CLOSED, "the call ended without an answer"))
}
