//! Reads the servers of another tool's config file: JSON (with comments) or TOML.

use jsonc_parser::{CollectOptions, ParseOptions};
use serde_json::{Map, Value};

/// A server as another tool describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ImportedServer {
    pub(super) name: String,
    pub(super) command: Option<String>,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) cwd: Option<String>,
    pub(super) url: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) enabled: bool,
    /// What could not be taken over.
    pub(super) notes: Vec<String>,
}

/// Reads a file.
///
/// # Errors
///
/// A sentence: the file is neither JSON nor TOML, or has no servers.
pub(super) fn read_servers(text: &str) -> Result<Vec<ImportedServer>, String> {
    let text = text.trim_start_matches('\u{feff}');
    let value = parse(text)?;
    let mut found = Vec::new();
    collect(&value, &mut found);
    for (folder, project) in value.get("projects").and_then(Value::as_object).into_iter().flatten()
    {
        let before = found.len();
        collect(project, &mut found);
        for server in &mut found[before..] {
            server.notes.push(format!("it belongs to the folder {folder} only"));
        }
    }
    if found.is_empty() {
        return Err("it has no servers under mcpServers, servers, mcp_servers or mcp".to_owned());
    }
    let mut names = std::collections::HashSet::new();
    found.retain(|server| names.insert(server.name.clone()));
    Ok(found)
}

fn parse(text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with('{') {
        let (collect, options) = (CollectOptions::default(), ParseOptions::default());
        let tree = jsonc_parser::parse_to_ast(text, &collect, &options)
            .map_err(|error| format!("it is not JSON: {}", error.kind()))?;
        return Ok(tree.value.map_or(Value::Null, Value::from));
    }
    toml::from_str::<Value>(text)
        .map_err(|error| format!("it is neither JSON nor TOML: {}", error.message()))
}

fn collect(value: &Value, found: &mut Vec<ImportedServer>) {
    let places = [
        value.get("mcpServers"),
        value.get("mcp_servers"),
        value.get("servers"),
        value.get("mcp").map(|mcp| mcp.get("servers").unwrap_or(mcp)),
        value.get("context_servers"),
    ];
    for servers in places.into_iter().flatten().filter_map(Value::as_object) {
        for (name, server) in servers {
            if let Some(server) = server.as_object() {
                found.extend(read_server(name, server));
            }
        }
    }
}

fn read_server(name: &str, server: &Map<String, Value>) -> Option<ImportedServer> {
    let text = |key: &str| server.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut imported = ImportedServer {
        name: plain_name(name),
        cwd: text("cwd"),
        url: text("url").or_else(|| text("httpUrl")).or_else(|| text("serverUrl")),
        env: pairs(server.get("env").or_else(|| server.get("environment"))),
        headers: pairs(server.get("headers").or_else(|| server.get("http_headers"))),
        enabled: server.get("enabled").and_then(Value::as_bool).unwrap_or(true)
            && !server.get("disabled").and_then(Value::as_bool).unwrap_or(false),
        ..ImportedServer::default()
    };
    if imported.name != name {
        imported.notes.push(format!("its name was `{name}`"));
    }
    match server.get("command") {
        Some(Value::String(program)) => {
            imported.command = Some(program.clone());
            imported.args = texts(server.get("args"));
        }
        Some(Value::Array(_)) => {
            let mut words = texts(server.get("command")).into_iter();
            imported.command = words.next();
            imported.args = words.collect();
        }
        // An editor writes the program as a table.
        Some(Value::Object(table)) => {
            imported.command = table.get("path").and_then(Value::as_str).map(str::to_owned);
            imported.args = texts(table.get("args"));
            imported.env = pairs(table.get("env"));
        }
        _ => {}
    }
    if let Some(variable) = text("bearer_token_env_var") {
        let note = format!("its token is in the variable {variable}, as `Bearer TOKEN`");
        imported.headers.push(("Authorization".to_owned(), format!("env:{variable}")));
        imported.notes.push(note);
    }
    for (header, variable) in pairs(server.get("env_http_headers")) {
        imported.headers.push((header, format!("env:{variable}")));
    }
    if let Some(file) = text("envFile") {
        imported.notes.push(format!("variables of {file} are not taken over"));
    }
    (imported.command.is_some() || imported.url.is_some()).then_some(imported)
}

fn plain_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' };
    let name: String = name.chars().map(plain).take(64).collect();
    if name.is_empty() { "server".to_owned() } else { name }
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).into_iter().flatten();
    items.map(plain_text).collect()
}

fn pairs(value: Option<&Value>) -> Vec<(String, String)> {
    let members = value.and_then(Value::as_object).into_iter().flatten();
    members.map(|(name, value)| (name.clone(), plain_text(value))).collect()
}

fn plain_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_several_tools_are_read() {
        let cursor = "{\n // c\n \"mcpServers\": {\"web\": {\"url\": \"https://a.example/mcp\", \
            \"headers\": {\"A\": \"Bearer x\"}}, \"a b\": {\"command\": \"uvx\", \"args\": [\"x\"]}}}";
        let servers = read_servers(cursor).expect("servers");
        assert_eq!(servers.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["a-b", "web"]);
        let codex = "[mcp_servers.r]\nurl = \"https://r.example/mcp\"\n\
            bearer_token_env_var = \"R\"\nenabled = false\n";
        let servers = read_servers(codex).expect("servers");
        assert_eq!(servers[0].headers, [("Authorization".to_owned(), "env:R".to_owned())]);
        assert!(!servers[0].enabled);
        let claude = r#"{"mcpServers": {"a": {"command": "x"}},
            "projects": {"/p": {"mcpServers": {"deep": {"command": "d"}}}}}"#;
        assert_eq!(read_servers(claude).expect("servers").len(), 2);
        let opencode = r#"{"mcp": {"l": {"type": "local", "command": ["a", "b"]}}}"#;
        assert_eq!(read_servers(opencode).expect("servers")[0].args, ["b"]);
        assert!(read_servers("{}").is_err() && read_servers("{nope").is_err());
    }
}
