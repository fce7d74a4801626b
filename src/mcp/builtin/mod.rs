//! The servers inside the program.

mod clock;
mod fetch;
mod html;
mod public_address;

use std::sync::Arc;

use crate::{
    base::{clock::Clock, json::raw::RawJson},
    config::settings::{McpKind, McpServer},
    mcp::{
        message::{self, INVALID_PARAMS, METHOD_NOT_FOUND, RpcError},
        oauth::source::KeyringTokens,
        servers::parts::{ServiceFuture, Services},
        wire::peer::{BoxedAnswer, LocalService},
        wire::tokens::TokenSource,
    },
    secrets::{keyring::Keyring, resolve::SecretResolver},
    upstream::web_client::WebClient,
};

/// Makes the servers inside the program.
pub struct BuiltinServices {
    clock: Arc<dyn Clock>,
    web: Arc<WebClient>,
    resolver: Arc<SecretResolver>,
    keyring: Keyring,
}

impl BuiltinServices {
    #[must_use]
    pub fn new(
        clock: Arc<dyn Clock>,
        web: Arc<WebClient>,
        resolver: Arc<SecretResolver>,
        keyring: Keyring,
    ) -> Self {
        Self { clock, web, resolver, keyring }
    }
}

impl Services for BuiltinServices {
    fn service<'a>(&'a self, row: &'a Arc<McpServer>) -> ServiceFuture<'a> {
        Box::pin(async move {
            if row.kind() == McpKind::Openapi {
                return crate::mcp::openapi::connect(row, &self.web, &self.resolver).await;
            }
            let mut tools: Vec<Arc<dyn BuiltinTool>> = Vec::new();
            for name in row.builtin.iter().flatten() {
                match name.as_str() {
                    "time" => tools.extend(clock::tools(&self.clock)),
                    "fetch" => tools.push(Arc::new(fetch::Fetch::new(row.allow_private).await?)),
                    other => return Err(format!("`{other}` is not available in this version")),
                }
            }
            Ok(Arc::new(BuiltinServer { tools }) as Arc<dyn LocalService>)
        })
    }

    fn tokens(&self, row: &Arc<McpServer>) -> Option<Arc<dyn TokenSource>> {
        let tokens = || {
            KeyringTokens::new(
                Arc::clone(&row.name),
                self.keyring.clone(),
                Arc::clone(&self.web),
                Arc::clone(&self.clock),
            )
        };
        row.oauth.then(|| Arc::new(tokens()) as Arc<dyn TokenSource>)
    }
}

/// A tool inside the program.
trait BuiltinTool: Send + Sync {
    fn name(&self) -> &'static str;

    /// Returns the tool as it is listed.
    fn describe(&self) -> RawJson;

    /// Carries a call out. An error is one of the tool, which the model sees.
    fn call<'a>(&'a self, arguments: Option<RawJson>) -> ToolFuture<'a>;
}

type ToolFuture<'a> =
    std::pin::Pin<Box<dyn Future<Output = Result<ToolOutput, String>> + Send + 'a>>;

/// What a tool returns.
struct ToolOutput {
    text: String,
    structured: Option<RawJson>,
}

struct BuiltinServer {
    tools: Vec<Arc<dyn BuiltinTool>>,
}

impl LocalService for BuiltinServer {
    fn answer<'a>(&'a self, method: &'a str, params: Option<&'a RawJson>) -> BoxedAnswer<'a> {
        Box::pin(async move {
            match method {
                "tools/list" => Ok(RawJson::object(|o| {
                    o.array("tools", |a| {
                        for tool in &self.tools {
                            a.raw(&tool.describe());
                        }
                    });
                })),
                "tools/call" => {
                    let name = message::text_param(params, "name").unwrap_or_default();
                    let tool = self.tools.iter().find(|tool| tool.name() == name);
                    let tool = tool.ok_or_else(|| {
                        RpcError::new(INVALID_PARAMS, format!("unknown tool: {name}"))
                    })?;
                    let arguments = params.and_then(|params| params.json().get("arguments"));
                    Ok(tool_result(tool.call(arguments.map(RawJson::from_json)).await))
                }
                _ => Err(RpcError::new(METHOD_NOT_FOUND, format!("no method `{method}`"))),
            }
        })
    }
}

/// Writes what a tool returned.
fn tool_result(output: Result<ToolOutput, String>) -> RawJson {
    let is_error = output.is_err();
    let (text, structured) = match output {
        Ok(output) => (output.text, output.structured),
        Err(text) => (text, None),
    };
    RawJson::object(|o| {
        o.array("content", |a| {
            a.object(|o| {
                o.str("type", "text").str("text", &text);
            });
        });
        o.opt_raw("structuredContent", structured.as_ref());
        o.bool("isError", is_error);
    })
}
