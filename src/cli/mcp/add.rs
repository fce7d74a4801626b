//! `aiproxy mcp add`.

use clap::Args;

use crate::{
    cli::{
        attach,
        config::edit_file::{self, toml_list, toml_string},
        context::CommandContext,
        error::{CliError, ExitStatus},
    },
    config::edit::Edit,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  aiproxy mcp add files -- npx -y @modelcontextprotocol/server-filesystem ~/src
  aiproxy mcp add github --url https://api.example.com/mcp \\
    --header Authorization=keyring:mcp/github
  aiproxy mcp add petstore --openapi petstore.yaml
  aiproxy mcp add tools --builtin time --builtin fetch";

#[derive(Clone, Debug, Args)]
pub struct AddServerArgs {
    /// Name of the server
    name: String,
    /// Address of a server
    #[arg(long, conflicts_with_all = ["openapi", "builtin", "command"])]
    url: Option<String>,
    /// File or address of an OpenAPI document
    #[arg(long, value_name = "FILE", conflicts_with_all = ["builtin", "command"])]
    openapi: Option<String>,
    /// A server inside the program: time, fetch or web_search; repeatable
    #[arg(long, value_name = "NAME", conflicts_with = "command")]
    builtin: Vec<String>,
    /// A header of each request: NAME=REFERENCE; repeatable
    #[arg(long, value_name = "NAME=VALUE", requires = "url")]
    header: Vec<String>,
    /// A variable of the program: NAME=REFERENCE; repeatable
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The server asks for a login with OAuth
    #[arg(long, requires = "url")]
    oauth: bool,
    /// What its names begin with at /mcp, instead of NAME_
    #[arg(long)]
    prefix: Option<String>,
    /// Program and arguments
    #[arg(last = true)]
    command: Vec<String>,
}

/// Adds the server.
pub(super) async fn run(ctx: &CommandContext, args: AddServerArgs) -> Result<ExitStatus, CliError> {
    let file = edit_file::load_to_change(ctx)?;
    let name = &args.name;
    if file.settings.mcp.iter().any(|row| *row.name == **name) {
        return Err(CliError::failed(format!("there is an MCP server `{name}` already"))
            .hint(format!("`aiproxy mcp remove {name}` removes it")));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        let name = crate::base::sanitize::clean(name).into_owned();
        return Err(CliError::usage(format!("`{name}` is not the name of a server"))
            .hint("use up to 64 letters, digits, `-` and `_`"));
    }
    let fields = fields(&args)?;
    edit_file::edit_config(ctx, &[Edit::AddMcp { name: name.clone(), fields }])?;
    attach::reload_if_running(ctx).await;
    ctx.print_result(&format!("MCP server {name} added; `aiproxy mcp test {name}` connects to it"))
}

fn fields(args: &AddServerArgs) -> Result<Vec<(&'static str, String)>, CliError> {
    let mut fields = Vec::new();
    if let Some((program, rest)) = args.command.split_first() {
        fields.push(("command", toml_string(program)));
        if !rest.is_empty() {
            fields.push(("args", toml_list(rest)));
        }
    } else if let Some(url) = &args.url {
        fields.push(("url", toml_string(url)));
    } else if let Some(document) = &args.openapi {
        let is_file = !document.contains("://");
        let path = std::path::absolute(document).ok().filter(|_| is_file);
        let text = path.map_or_else(|| document.clone(), |path| path.display().to_string());
        fields.push(("openapi", toml_string(&text)));
    } else if !args.builtin.is_empty() {
        fields.push(("builtin", toml_list(&args.builtin)));
    } else {
        return Err(CliError::usage("a server needs --url, --openapi, --builtin or a program")
            .hint("as in `aiproxy mcp add files -- npx -y SERVER`"));
    }
    for (key, words) in [("headers", &args.header), ("env", &args.env)] {
        if !words.is_empty() {
            fields.push((key, toml_table(&edit_file::parse_assignments(words)?)));
        }
    }
    if args.oauth {
        fields.push(("oauth", "true".to_owned()));
    }
    if let Some(prefix) = &args.prefix {
        fields.push(("prefix", toml_string(prefix)));
    }
    Ok(fields)
}

/// Formats pairs as an inline table.
pub(super) fn toml_table(pairs: &[(String, String)]) -> String {
    let table: toml_edit::InlineTable =
        pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    toml_edit::Value::InlineTable(table).to_string()
}
