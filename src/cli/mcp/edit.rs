//! `aiproxy mcp enable`, `disable` and `remove`.

use crate::{
    cli::{
        attach,
        config::edit_file,
        context::CommandContext,
        error::{CliError, ExitStatus},
        mcp::lookup::find_server,
    },
    config::edit::Edit,
};

/// Changes whether a server is used.
pub(super) async fn set_enabled(
    ctx: &CommandContext,
    name: &str,
    enabled: bool,
) -> Result<ExitStatus, CliError> {
    let file = edit_file::load_to_change(ctx)?;
    let row = find_server(&file, name)?;
    let word = if enabled { "enabled" } else { "disabled" };
    if row.enabled != enabled {
        let path = format!("mcp.{name}.enabled");
        edit_file::edit_config(ctx, &[Edit::Set { path, value: enabled.to_string() }])?;
        attach::reload_if_running(ctx).await;
    }
    ctx.print_result(&format!("MCP server {name} is {word}"))
}

/// Removes a server.
pub(super) async fn remove(ctx: &CommandContext, name: &str) -> Result<ExitStatus, CliError> {
    let file = edit_file::load_to_change(ctx)?;
    find_server(&file, name)?;
    edit_file::edit_config(ctx, &[Edit::RemoveMcp { name: name.to_owned() }])?;
    attach::reload_if_running(ctx).await;
    ctx.print_result(&format!("MCP server {name} removed"))
}
