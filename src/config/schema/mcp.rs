//! `[[mcp]]`: servers of the Model Context Protocol that the proxy offers to its clients.

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde_json::json;
use toml::de::DeValue;
use toml_edit::{InlineTable, Value};

use super::{
    DAY,
    alerts::HeaderReferences,
    names::{PatternList, REFERENCE, read_row_name},
    path_base::PathBase,
    seconds,
};
use crate::{
    base::pattern::Patterns,
    config::{
        kinds::{
            Flag, KindDescription, List, Maybe, Number, OneWord, Shared, TEXT, Text, TimeSpan,
            ValueKind, count,
        },
        problem::Report,
        reader::{self, Node, TableReader, ValueError, text, truncate},
        table::{ConfigTable, Nested, Written, config},
    },
    secrets::{Reference, Secret},
};

/// The servers inside the program.
pub(in crate::config) const BUILTIN_SERVERS: &[&str] = &["time", "fetch", "web_search"];

config! {
    /// A server of the Model Context Protocol: a program (`command`), an address (`url`), an API
    /// description (`openapi`) or servers inside the program (`builtin`).
    #[derive(Clone, Debug)]
    pub struct McpServer in "mcp" {
        /// Program that speaks MCP over its standard input and output; started on first use
        command: Option<String> = None, Maybe(TEXT);
        /// Arguments of the program
        args: Vec<String> = Vec::new(), List(TEXT), omitted;
        /// Variables of the program, with references to the values or the values themselves
        env: Vec<(String, Reference)> = Vec::new(), EnvReferences;
        /// Folder in which the program runs; if omitted, the home folder
        cwd: Option<PathBuf> = None, Maybe(FOLDER);
        /// How long the program may be unused before it is stopped
        idle_stop: Duration = seconds(600), TimeSpan(seconds(1), DAY), omitted;
        /// Address of a server: Streamable HTTP, or the older SSE transport, which is detected
        url: Option<String> = None, Maybe(ADDRESS);
        /// Headers of each request, with references to the values or the values themselves
        headers: Vec<(String, Reference)> = Vec::new(), HeaderReferences;
        /// Whether the server asks for a login with OAuth
        oauth: bool = false, Flag, omitted;
        /// File or https address of an OpenAPI or Swagger document whose operations become tools
        openapi: Option<String> = None, Maybe(TEXT);
        /// Base address of that API, instead of the one in the document; may be private
        server: Option<String> = None, Maybe(ADDRESS);
        /// Credential of that API
        auth: Option<Arc<McpAuth>> = None, Maybe(Shared(Nested::new()));
        /// Operations of that API that become tools
        operations: Patterns = Patterns::any(), PatternList, omitted;
        /// Servers inside the program
        builtin: Option<Vec<String>> = None, Maybe(List(OneWord(BUILTIN_SERVERS)));
        /// Whether `fetch` may read private and loopback addresses
        allow_private: bool = false, Flag, omitted;
        /// Tools that are offered
        tools: Patterns = Patterns::any(), PatternList, omitted;
        /// What its names begin with at /mcp; if omitted, NAME_
        prefix: Option<String> = None, Maybe(PREFIX);
        /// How long one call may take
        timeout: Duration = seconds(60), TimeSpan(seconds(1), DAY);
        /// Calls of tools per minute; 0 is unlimited
        rpm: u32 = 0, count(0, u32::MAX), omitted;
        /// Dollars that one call of a tool costs
        price: f64 = 0.0, Number(0.0, 1_000.0), omitted;
        /// Whether the server is used
        enabled: bool = true, Flag, omitted;
    }
    described {
        /// Name of the server: letters, digits, `-` and `_`
        "name": TEXT.describe(), required;
    }
    derived {
        name: Arc<str> = Arc::default();
    }
}

config! {
    /// The credential of an API: one of `bearer`, `basic`, `header` and `query`.
    #[derive(Clone, Debug)]
    pub struct McpAuth in "mcp.auth" {
        /// Reference to a token for the Authorization header
        bearer: Option<Reference> = None, Maybe(REFERENCE);
        /// Reference to USER:PASSWORD
        basic: Option<Reference> = None, Maybe(REFERENCE);
        /// Reference to the value of a header
        header: Option<Reference> = None, Maybe(REFERENCE);
        /// Reference to the value of a parameter in the address
        query: Option<Reference> = None, Maybe(REFERENCE);
        /// Name of that header or parameter
        name: Option<String> = None, Maybe(TEXT);
    }
}

/// How a server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum McpKind {
    Builtin,
    Http,
    Openapi,
    Stdio,
}

impl McpKind {
    /// Returns the name in lists.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Builtin => "builtin",
            Self::Http => "http",
            Self::Openapi => "openapi",
            Self::Stdio => "stdio",
        }
    }
}

impl McpServer {
    #[must_use]
    pub fn kind(&self) -> McpKind {
        if self.command.is_some() {
            McpKind::Stdio
        } else if self.url.is_some() {
            McpKind::Http
        } else if self.openapi.is_some() {
            McpKind::Openapi
        } else {
            McpKind::Builtin
        }
    }

    /// Returns what the names of its tools begin with at the combined endpoint.
    #[must_use]
    pub fn name_prefix(&self) -> String {
        self.prefix.clone().unwrap_or_else(|| format!("{}_", self.name))
    }

    /// Whether another row is the same in everything that its process or connection depends on.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

/// Reads a row; `None` if it has no usable name or no usable kind.
pub(in crate::config) fn read_mcp(
    mut row: TableReader<'_>,
    path_base: &PathBase<'_>,
    report: &mut Report,
) -> Option<Written<McpServer>> {
    let name = read_row_name(&mut row, "mcp", report, read_server_name);
    let mut server = McpServer::read_keys(&mut row, McpServer::default(), report);
    let spans = row.finish(report);
    let name = name?.value;
    let kinds = ["command", "url", "openapi", "builtin"];
    let written: Vec<_> = kinds.into_iter().filter(|key| spans.get(key).is_some()).collect();
    if written.len() != 1 {
        let title = if written.is_empty() {
            format!("`mcp.{name}` says neither `command` nor `url`, `openapi` or `builtin`")
        } else {
            format!("`mcp.{name}` has {} at once", written.join(" and "))
        };
        report.missing(&spans.table, title, Some("a server has exactly one of them".to_owned()));
    }
    for (_, value) in server.env.iter_mut().chain(&mut server.headers) {
        *value = path_base.absolute_reference(value.clone());
    }
    if let Some(auth) = &mut server.auth {
        let auth = Arc::make_mut(auth);
        for part in [&mut auth.bearer, &mut auth.basic, &mut auth.header, &mut auth.query] {
            *part = part.take().map(|value| path_base.absolute_reference(value));
        }
    }
    server.cwd = server.cwd.map(|folder| path_base.resolve(&folder));
    if let Some(document) = &mut server.openapi
        && !document.contains("://")
    {
        *document = path_base.resolve(document.as_ref()).display().to_string();
    }
    server.name = name.into();
    Some(Written { value: server, spans })
}

/// Writes a row for `config show`.
pub(in crate::config) fn write_mcp(server: &McpServer) -> Vec<(&'static str, Value)> {
    let mut keys = vec![("name", Value::from(&*server.name))];
    keys.extend(server.written_keys());
    keys
}

fn read_server_name(value: &DeValue<'_>) -> Result<String, ValueError> {
    let name = text(value)?;
    if name.is_empty() || name.len() > 64 || !is_plain_name(&name) {
        return Err(ValueError::with_help(
            format!("`{}` is not the name of a server", truncate(&name)),
            "use up to 64 letters, digits, `-` and `_`",
        ));
    }
    Ok(name)
}

fn is_plain_name(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

const PREFIX: Text<String> =
    Text { type_name: "text", read: read_prefix, write: |prefix| Some(prefix.clone()) };

fn read_prefix(value: &DeValue<'_>) -> Result<String, ValueError> {
    let prefix = text(value)?;
    if prefix.len() > 32 || !is_plain_name(&prefix) {
        return Err(ValueError::with_help(
            format!("`{}` cannot begin a name", truncate(&prefix)),
            "use up to 32 letters, digits, `-` and `_`, or \"\" for no prefix",
        ));
    }
    Ok(prefix)
}

const ADDRESS: Text<String> =
    Text { type_name: "URL", read: read_address, write: |url| Some(url.clone()) };

fn read_address(value: &DeValue<'_>) -> Result<String, ValueError> {
    let written = text(value)?;
    let uri: Option<http::Uri> = written.parse().ok();
    let is_web = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|a| !a.host().is_empty() && !a.as_str().contains('@'))
    });
    if is_web {
        return Ok(written);
    }
    Err(ValueError::with_help(
        format!("`{}` is no address of a server", truncate(&written)),
        "write it whole, as in \"https://mcp.example/mcp\"; credentials belong into `headers`",
    ))
}

const FOLDER: Text<PathBuf> = Text {
    type_name: "path",
    read: |value| text(value).map(PathBuf::from),
    write: |path| Some(path.display().to_string()),
};

/// A table of variables, with references to the values or the values themselves.
struct EnvReferences;

impl ValueKind for EnvReferences {
    type Value = Vec<(String, Reference)>;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<Self::Value> {
        let mut rows = TableReader::from_node(path, node, report)?;
        let mut found = Vec::new();
        for (name, node) in rows.remaining() {
            if name.value.is_empty() || name.value.contains(['=', '\0']) {
                let title = format!("`{}` is no name of a variable", truncate(&name.value));
                report.error(&name.span, title, None);
                continue;
            }
            let path = rows.key_path(&name.value);
            let value = reader::read_value(&path, node, report, &read_env_value);
            found.extend(value.map(|at| (name.value, at.value)));
        }
        Some(found)
    }

    fn write(&self, variables: &Self::Value) -> Option<Value> {
        let each = variables.iter().map(|(name, value)| (name.as_str(), value.to_string()));
        (!variables.is_empty()).then(|| Value::InlineTable(each.collect::<InlineTable>()))
    }

    fn describe(&self) -> KindDescription {
        let schema = json!({ "type": "object", "additionalProperties": { "type": "string" } });
        KindDescription::new("table of text", schema)
    }
}

fn read_env_value(value: &DeValue<'_>) -> Result<Reference, ValueError> {
    let written = text(value)?;
    if written.contains('\0') {
        return Err(ValueError::new("a variable cannot contain this"));
    }
    // Any text may be the value of a variable, also one that could not be a key.
    Ok(Reference::parse(&written)
        .unwrap_or_else(|_| Reference::Literal(Arc::new(Secret::new(written)))))
}
