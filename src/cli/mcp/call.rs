//! `aiproxy mcp test`, `tools`, `call` and `logs`: they ask the running proxy.

use serde_json::{Value, value::RawValue};

use crate::{
    base::sanitize::clean,
    cli::{
        attach::RunningProxy,
        context::CommandContext,
        error::{CliError, ExitStatus},
        output::{
            self, Styler, TextRole,
            table::{TableCell, TextTable},
        },
    },
    control::{
        client::ControlError,
        mcp::{McpCallBody, McpCallView, McpLogView, McpServerView, McpToolsView},
    },
};

pub(super) const EXAMPLES: &str = "\
Examples:
  aiproxy mcp call files read_file '{\"path\": \"/tmp/a.txt\"}'
  aiproxy mcp call tools time_now --json";

/// Turns an unknown server into a failure with its text.
fn failure(error: ControlError) -> CliError {
    match error {
        ControlError::Refused(404, text) => CliError::failed(text),
        other => other.into(),
    }
}

/// Connects to a server and measures the time.
pub(super) async fn test(ctx: &CommandContext, name: &str) -> Result<ExitStatus, CliError> {
    let proxy = RunningProxy::connect(ctx).await?;
    let path = format!("/aiproxy/v1/mcp/{name}/test");
    let view: McpToolsView = proxy.client.get_json(&path).await.map_err(failure)?;
    if let Some(error) = &view.error {
        return Err(CliError::failed(format!("{name}: {error}"))
            .hint(format!("`aiproxy mcp logs {name}` shows what it wrote")));
    }
    if ctx.global.json {
        let value = serde_json::json!({ "server": name, "tools": view.tools.len(), "ms": view.ms,
            "revision": view.revision });
        output::print_json(&value)?;
        return Ok(ExitStatus::Ok);
    }
    let revision = view.revision.map(|name| format!(", revision {name}")).unwrap_or_default();
    output::print_line(&format!(
        "{name} works: {} tools in {:.1} ms{revision}",
        view.tools.len(),
        view.ms
    ))?;
    Ok(ExitStatus::Ok)
}

/// Lists tools.
pub(super) async fn tools(
    ctx: &CommandContext,
    name: Option<&str>,
) -> Result<ExitStatus, CliError> {
    let proxy = RunningProxy::connect(ctx).await?;
    let names = match name {
        Some(name) => vec![name.to_owned()],
        None => {
            let all: Vec<McpServerView> =
                proxy.client.get_json("/aiproxy/v1/mcp").await.map_err(failure)?;
            let used = all.into_iter().filter(|server| server.state != "disabled");
            used.map(|server| server.name).collect()
        }
    };
    let client = &proxy.client;
    let read = names.iter().map(|name| async move {
        let path = format!("/aiproxy/v1/mcp/{name}/tools");
        client.get_json::<McpToolsView>(&path).await
    });
    let mut views = Vec::new();
    for view in futures_util::future::join_all(read).await {
        views.push(view.map_err(failure)?);
    }
    if ctx.global.json {
        output::print_json(&views)?;
        return Ok(ExitStatus::Ok);
    }
    if let (Some(name), [McpToolsView { error: Some(error), .. }]) = (name, views.as_slice()) {
        return Err(CliError::failed(format!("{name}: {error}")));
    }
    let mut table = TextTable::new(&["SERVER", "TOOL", "DESCRIPTION"]);
    for view in &views {
        if let Some(error) = &view.error {
            let error = TableCell::new(TextRole::Warn, error);
            table.row(vec![view.server.as_str().into(), "".into(), error]);
        }
        for tool in &view.tools {
            let text = |name: &str| tool.get(name).and_then(Value::as_str).unwrap_or_default();
            let description = text("description").lines().next().unwrap_or_default().to_owned();
            table.row(vec![
                view.server.as_str().into(),
                text("name").into(),
                description.as_str().into(),
            ]);
        }
    }
    output::print(&table.render(Styler::stdout()))?;
    Ok(ExitStatus::Ok)
}

/// Calls a tool.
pub(super) async fn call(
    ctx: &CommandContext,
    name: &str,
    tool: String,
    arguments: String,
) -> Result<ExitStatus, CliError> {
    let arguments = RawValue::from_string(arguments)
        .map_err(|error| CliError::usage(format!("the arguments are not JSON: {error}")))?;
    if !arguments.get().trim_start().starts_with('{') {
        return Err(CliError::usage("the arguments are not a JSON object"));
    }
    let proxy = RunningProxy::connect(ctx).await?;
    let path = format!("/aiproxy/v1/mcp/{name}/call");
    let body = McpCallBody { tool, arguments };
    let view: McpCallView = proxy.client.post_json(&path, &body).await.map_err(failure)?;
    if let Some(error) = view.error {
        return Err(CliError::failed(error));
    }
    let result = view.result.map(|result| result.get().to_owned()).unwrap_or_default();
    let value: Value = serde_json::from_str(&result).unwrap_or_default();
    if ctx.global.json {
        output::print_line(&result)?;
    } else {
        for item in value["content"].as_array().into_iter().flatten() {
            output::print_line(&content_text(item))?;
        }
    }
    let is_error = value["isError"].as_bool().unwrap_or(false);
    Ok(if is_error { ExitStatus::Failed } else { ExitStatus::Ok })
}

/// Returns one item of a result for the terminal, without control characters.
fn content_text(item: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let shown = match item["type"].as_str().unwrap_or_default() {
        "text" => text(&item["text"]),
        "resource_link" => format!("[link: {}]", text(&item["uri"])),
        "resource" => match item["resource"]["text"].as_str() {
            Some(text) => text.to_owned(),
            None => format!("[resource: {}]", text(&item["resource"]["uri"])),
        },
        kind => {
            let bytes = text(&item["data"]).len() / 4 * 3;
            format!("[{kind}: {}, about {bytes} bytes]", text(&item["mimeType"]))
        }
    };
    shown.lines().map(|line| clean(line).into_owned()).collect::<Vec<_>>().join("\n")
}

/// Shows what a server wrote to its standard error.
pub(super) async fn logs(ctx: &CommandContext, name: &str) -> Result<ExitStatus, CliError> {
    let proxy = RunningProxy::connect(ctx).await?;
    let path = format!("/aiproxy/v1/mcp/{name}/logs");
    let view: McpLogView = proxy.client.get_json(&path).await.map_err(failure)?;
    if ctx.global.json {
        output::print_json(&view)?;
        return Ok(ExitStatus::Ok);
    }
    let lines: String = view.lines.iter().map(|line| format!("{}\n", clean(line))).collect();
    output::print(&lines)?;
    Ok(ExitStatus::Ok)
}
