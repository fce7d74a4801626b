//! `aiproxy mcp import`.

use std::path::Path;

use super::{
    add::toml_table,
    import_file::{ImportedServer, read_servers},
};
use crate::{
    base::fs,
    cli::{
        attach,
        config::edit_file::{self, toml_list, toml_string},
        context::CommandContext,
        error::{self, CliError, ExitStatus},
        output,
    },
    config::{edit::Edit, file::Paths},
    secrets::{Reference, Secret, keyring::Keyring},
};

pub(super) const EXAMPLES: &str = "\
Reads files of Claude Desktop, Claude Code, Cursor, VS Code, Codex and others; they stay as they
are. Values of variables and headers that look like secrets go to the keyring.

Examples:
  aiproxy mcp import ~/.cursor/mcp.json
  aiproxy mcp import ~/.codex/config.toml";

/// Takes over the servers of a file.
pub(super) async fn run(ctx: &CommandContext, path: &Path) -> Result<ExitStatus, CliError> {
    let text = std::fs::read_to_string(path).map_err(|e| error::path_error(path, &e))?;
    let servers = read_servers(&text)
        .map_err(|why| CliError::failed(format!("{}: {why}", path.display())))?;
    let file = edit_file::load_to_change(ctx)?;
    let (mut edits, mut names) = (Vec::new(), Vec::new());
    for mut server in servers {
        if file.settings.mcp.iter().any(|row| *row.name == *server.name) {
            let name = &server.name;
            output::print_note(&format!("note: `{name}` is in the config already and stays"));
            continue;
        }
        store_secrets(&mut server, &file.paths).await?;
        for note in &server.notes {
            output::print_note(&format!("note: {}: {note}", server.name));
        }
        names.push(server.name.clone());
        edits.push(Edit::AddMcp { name: server.name.clone(), fields: fields(&server) });
    }
    if edits.is_empty() {
        return ctx.print_result("no new MCP servers");
    }
    edit_file::edit_config(ctx, &edits)?;
    attach::reload_if_running(ctx).await;
    ctx.print_result(&format!("MCP servers added: {}", names.join(", ")))
}

fn fields(server: &ImportedServer) -> Vec<(&'static str, String)> {
    let mut fields = Vec::new();
    let mut text = |key, value: &Option<String>| {
        fields.extend(value.as_deref().map(|value| (key, toml_string(value))));
    };
    text("command", &server.command);
    if server.command.is_none() {
        text("url", &server.url);
    }
    text("cwd", &server.cwd.clone().filter(|folder| !folder.contains("${")));
    if !server.args.is_empty() {
        fields.push(("args", toml_list(&server.args)));
    }
    if server.command.is_some() && !server.env.is_empty() {
        fields.push(("env", toml_table(&server.env)));
    }
    if server.command.is_none() && !server.headers.is_empty() {
        fields.push(("headers", toml_table(&server.headers)));
    }
    if !server.enabled {
        fields.push(("enabled", "false".to_owned()));
    }
    fields
}

/// Moves secrets into the keyring, or into private files if no keyring is available.
async fn store_secrets(server: &mut ImportedServer, paths: &Paths) -> Result<(), CliError> {
    let name = server.name.clone();
    for (key, value) in server.env.iter_mut().chain(&mut server.headers) {
        if let Some(variable) = variable(value) {
            *value = format!("env:{variable}");
        } else if value.contains("${") {
            server.notes.push(format!("the value of {key} has to be set by hand"));
            *value = format!("keyring:mcp/{name}/{key}");
        } else if is_secret(key, value) {
            *value = store(&name, key, value, paths).await?;
        }
    }
    Ok(())
}

/// Returns the variable that a value like `${TOKEN}` or `${env:TOKEN}` names.
fn variable(value: &str) -> Option<&str> {
    let inside = value.strip_prefix("${")?.strip_suffix('}')?;
    let name = inside.strip_prefix("env:").unwrap_or(inside);
    let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    (is_name && !name.is_empty()).then_some(name)
}

/// Whether a value is better not written into the config.
fn is_secret(key: &str, value: &str) -> bool {
    let is_reference = !matches!(Reference::parse(value), Ok(Reference::Literal(_)) | Err(_));
    if is_reference || value.len() < 6 {
        return false;
    }
    let key = key.to_ascii_lowercase();
    let words = ["key", "token", "secret", "pass", "auth", "cookie", "credential", "bearer", "pat"];
    words.iter().any(|word| key.contains(word))
        || crate::secrets::redact::redact_key_shapes(value) != value
        || value.contains("://") && value.contains('@')
}

async fn store(server: &str, key: &str, value: &str, paths: &Paths) -> Result<String, CliError> {
    let label = format!("mcp/{server}/{key}");
    let secret = Secret::new(value.to_owned());
    if Keyring::system().set(&label, &secret).await.is_ok() {
        return Ok(format!("keyring:{label}"));
    }
    let folder = paths.data.join("mcp");
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let file: String = key.chars().map(plain).collect();
    let path = folder.join(format!("{server}-{file}"));
    let failed = |e: std::io::Error| error::path_error(&path, &e);
    fs::create_private_dir(&paths.data).map_err(failed)?;
    fs::create_private_dir(&folder).map_err(failed)?;
    fs::write_atomic(&path, format!("{value}\n").as_bytes(), 0o600).map_err(failed)?;
    output::print_note(&format!(
        "note: there is no keyring, so {key} of {server} is in the private file {}",
        path.display()
    ));
    Ok(format!("file:{}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_from_settings() {
        assert!(is_secret("API_TOKEN", "sk-CANARY-1"));
        assert!(is_secret("Authorization", "Bearer abcdef"));
        assert!(!is_secret("LEVEL", "debug"));
        assert!(!is_secret("API_TOKEN", "env:X"));
        assert_eq!((variable("${env:A_B}"), variable("${input:k}")), (Some("A_B"), None));
    }
}
