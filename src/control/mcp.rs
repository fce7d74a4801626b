//! Serves `/aiproxy/v1/mcp…`: how the MCP servers stand, their tools, and calls for commands.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::{
    base::{json::raw::RawJson, suggest},
    config::settings::Project,
    ir::fault::{ProxyError, ProxyErrorKind},
    mcp::{
        commands::{self, CommandCall},
        servers::hub::{McpHub, ServerEntry},
        servers::lists::ListKind,
        servers::start_fault::StartFault,
    },
};

/// How long a command waits for a server.
const COMMAND_WAIT: Duration = Duration::from_secs(50);

/// How a server stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct McpServerView {
    pub name: String,
    /// `stdio`, `http`, `openapi` or `builtin`.
    pub kind: String,
    /// `disabled`, `down`, `idle`, `login` or `running`.
    pub state: String,
    /// Why it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Number of tools, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<usize>,
    /// The revision of the protocol that it speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

/// The lines that a server wrote to its standard error.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct McpLogView {
    pub lines: Vec<String>,
}

/// The tools of one server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct McpToolsView {
    pub server: String,
    /// Why they are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// As the server lists them.
    pub tools: Vec<Value>,
    /// Milliseconds until they were there.
    pub ms: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

/// A call of a tool.
#[derive(Debug, Serialize, Deserialize)]
pub struct McpCallBody {
    pub tool: String,
    pub arguments: Box<RawValue>,
}

/// The result of a call: as the server returned it, or its error.
#[derive(Debug, Serialize, Deserialize)]
pub struct McpCallView {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Returns all servers.
#[must_use]
pub fn servers(hub: &McpHub) -> Vec<McpServerView> {
    hub.servers().iter().map(|entry| view(entry)).collect()
}

fn view(entry: &ServerEntry) -> McpServerView {
    let row = &entry.row;
    let status = entry.status();
    let left_out = entry.left_out().map(StartFault::new);
    let fault = status.fault.or(left_out).filter(|_| row.enabled && !status.is_running);
    let state = match &fault {
        _ if !row.enabled => "disabled",
        _ if status.is_running => "running",
        Some(fault) if fault.needs_login => "login",
        Some(_) => "down",
        None => "idle",
    };
    McpServerView {
        name: row.name.to_string(),
        kind: row.kind().name().to_owned(),
        state: state.to_owned(),
        reason: fault.map(|fault| fault.message.to_string()),
        tools: status.tools,
        revision: status.revision.map(str::to_owned),
        pid: status.pid,
    }
}

/// Finds a server.
///
/// # Errors
///
/// No server has this name; the error names the nearest.
pub fn find(hub: &McpHub, name: &str) -> Result<Arc<ServerEntry>, ProxyError> {
    let servers = hub.servers();
    if let Some(entry) = servers.iter().find(|entry| *entry.row.name == *name) {
        return Ok(Arc::clone(entry));
    }
    let near = suggest::nearest(name, servers.iter().map(|entry| &*entry.row.name));
    let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    let name = crate::base::sanitize::clean(name);
    let message = format!("there is no MCP server `{name}`{near}");
    Err(ProxyError::new(ProxyErrorKind::UnknownPath, message).code("not_found"))
}

/// Returns the tools of a server; `again` asks it again.
pub async fn tools(
    hub: &McpHub,
    project: &Arc<Project>,
    entry: &Arc<ServerEntry>,
    again: bool,
) -> McpToolsView {
    let instance = hub.instance(entry, &project.name);
    if again {
        entry.forget_failures();
        instance.lists.expire(ListKind::Tools.method());
    }
    let began = hub.parts.clock.mono();
    let listed = tokio::time::timeout(COMMAND_WAIT, instance.list(ListKind::Tools)).await;
    let ms = hub.parts.clock.mono().since(began).as_secs_f64() * 1_000.0;
    let (tools, error) = match listed {
        Ok(Ok(tools)) => (tools.iter().map(RawJson::to_value).collect(), None),
        Ok(Err(fault)) => (Vec::new(), Some(fault.message.to_string())),
        Err(_) => {
            let seconds = COMMAND_WAIT.as_secs();
            (Vec::new(), Some(format!("no answer within {seconds} s")))
        }
    };
    let revision = instance.running().map(|peer| peer.agreement.revision.name().to_owned());
    McpToolsView { server: entry.row.name.to_string(), error, tools, ms, revision }
}

/// Calls a tool.
pub async fn call(
    hub: &Arc<McpHub>,
    project: &Arc<Project>,
    entry: &Arc<ServerEntry>,
    body: &McpCallBody,
) -> McpCallView {
    let Some(arguments) = RawJson::parse(body.arguments.get()) else {
        return McpCallView { result: None, error: Some("the arguments are not JSON".to_owned()) };
    };
    let call = CommandCall {
        project: Arc::clone(project),
        server: Arc::clone(&entry.row.name),
        tool: body.tool.clone(),
        arguments,
    };
    match commands::call_tool(hub, call).await {
        Ok(result) => McpCallView {
            result: RawValue::from_string(result.text().to_owned()).ok(),
            error: None,
        },
        Err(error) => McpCallView { result: None, error: Some(error.message) },
    }
}
