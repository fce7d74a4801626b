//! Finds a server of the config.

use crate::{
    base::suggest,
    cli::{config::edit_file::ConfigFile, error::CliError},
    config::settings::McpServer,
};

/// Finds a server by its name.
///
/// # Errors
///
/// No such server; the error names the nearest.
pub(super) fn find_server<'a>(file: &'a ConfigFile, name: &str) -> Result<&'a McpServer, CliError> {
    let servers = &file.settings.mcp;
    servers.iter().find(|row| *row.name == *name).map(|row| &**row).ok_or_else(|| {
        let near = suggest::nearest_few(name, servers.iter().map(|row| &*row.name), 3);
        let near = near.iter().map(|near| format!("`{near}`")).collect::<Vec<_>>().join(", ");
        let near = if near.is_empty() { near } else { format!("did you mean {near}? ") };
        CliError::failed(format!("no MCP server `{name}`"))
            .hint(format!("{near}`aiproxy mcp list` shows all"))
    })
}
