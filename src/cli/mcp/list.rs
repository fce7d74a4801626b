//! `aiproxy mcp list` and `aiproxy mcp show`.

use crate::{
    cli::{
        attach::RunningProxy,
        config::edit_file,
        context::CommandContext,
        error::{CliError, ExitStatus},
        mcp::lookup::find_server,
        output::{
            self, Styler, TextRole,
            table::{TableCell, TextTable},
        },
    },
    config::{keys, settings::McpKind},
    control::mcp::McpServerView,
};

/// Lists the servers: of the running proxy, else of the config.
pub(super) async fn list(ctx: &CommandContext) -> Result<ExitStatus, CliError> {
    let running = match RunningProxy::try_connect(ctx)? {
        Some(proxy) => proxy.client.get_json("/aiproxy/v1/mcp").await.ok(),
        None => None,
    };
    let servers = match running {
        Some(servers) => servers,
        None => of_config(ctx)?,
    };
    if ctx.global.json {
        output::print_json(&servers)?;
        return Ok(ExitStatus::Ok);
    }
    if servers.is_empty() {
        output::print_line("no MCP servers; `aiproxy mcp add` adds one")?;
        return Ok(ExitStatus::Ok);
    }
    let mut table = TextTable::new(&["SERVER", "KIND", "STATE", "TOOLS", "REVISION", "REASON"]);
    for server in &servers {
        let role = match server.state.as_str() {
            "running" => TextRole::Success,
            "down" | "login" => TextRole::Warn,
            _ => TextRole::Dim,
        };
        table.row(vec![
            server.name.as_str().into(),
            server.kind.as_str().into(),
            TableCell::new(role, &server.state),
            server.tools.map(|count| count.to_string()).unwrap_or_default().into(),
            server.revision.as_deref().unwrap_or_default().into(),
            server.reason.as_deref().unwrap_or_default().into(),
        ]);
    }
    output::print(&table.render(Styler::stdout()))?;
    Ok(ExitStatus::Ok)
}

fn of_config(ctx: &CommandContext) -> Result<Vec<McpServerView>, CliError> {
    let file = edit_file::load_or_empty(ctx)?;
    let view = |row: &crate::config::settings::McpServer| McpServerView {
        name: row.name.to_string(),
        kind: row.kind().name().to_owned(),
        state: if row.enabled { "idle" } else { "disabled" }.to_owned(),
        reason: None,
        tools: None,
        revision: None,
        pid: None,
    };
    Ok(file.settings.mcp.iter().map(|row| view(row)).collect())
}

/// Shows the row of a server.
pub(super) fn show(ctx: &CommandContext, name: &str) -> Result<ExitStatus, CliError> {
    let file = edit_file::load(ctx)?;
    let row = find_server(&file, name)?;
    let text = keys::key_to_toml(&file.settings, &format!("mcp.{name}")).unwrap_or_default();
    if ctx.global.json {
        let value = serde_json::json!({
            "name": &*row.name,
            "kind": row.kind().name(),
            "enabled": row.enabled,
            "row": text,
        });
        output::print_json(&value)?;
        return Ok(ExitStatus::Ok);
    }
    output::print_line(&text)?;
    if row.kind() == McpKind::Http && row.oauth {
        output::print_line(&format!("# `aiproxy mcp login {name}` logs in"))?;
    }
    Ok(ExitStatus::Ok)
}
