//! Writes the tools and the tool choice.

use crate::{
    base::json::{reader::JsonRef, writer},
    dialect::{
        anthropic::{
            client_tools::ORIGINAL_TOOL_NOTE,
            names::AnthropicToolNames,
            schema::{self, SchemaFit},
        },
        losses::Losses,
    },
    ir::{
        op::Dialect,
        request::ChatRequest,
        tool::{FunctionTool, HostedKind, HostedTool, Tool, ToolChoice},
    },
};

const DIALECT: Dialect = Dialect::Anthropic;

/// The name of the provider's own search tool.
const WEB_SEARCH_NAME: &str = "web_search";

/// The names that functions may not use, because this request's hosted tools use them.
pub(super) fn reserved_names(request: &ChatRequest) -> Vec<&'static str> {
    let searches = request.tools.iter().any(
        |tool| matches!(tool, Tool::Hosted(it) if it.kind == HostedKind::WebSearch && it.dialect != DIALECT),
    );
    if searches { vec![WEB_SEARCH_NAME] } else { Vec::new() }
}

/// Writes the tools that can be offered, each as JSON.
pub(super) fn write_tools(
    request: &ChatRequest,
    names: &AnthropicToolNames,
    losses: &mut Losses,
) -> Vec<String> {
    let only = match &request.tool_choice {
        Some(ToolChoice::Allowed { names, .. }) => Some(names),
        _ => None,
    };
    let offered = request.tools.iter().filter(|tool| match (only, tool.name()) {
        (Some(only), Some(name)) => only.iter().any(|it| it == name),
        (Some(_), None) => false,
        (None, _) => true,
    });
    let mut out = Vec::new();
    for tool in offered {
        match tool {
            Tool::Function(tool) => out.push(write_function(tool, names, losses)),
            Tool::Custom(tool) => {
                out.push(write_function(&tool.as_function(), names, losses));
                tool.extras.iter().for_each(|(key, _)| losses.add(format!("tools.{key}")));
            }
            Tool::Hosted(tool) => out.extend(write_hosted(tool, losses)),
        }
    }
    out
}

fn write_function(tool: &FunctionTool, names: &AnthropicToolNames, losses: &mut Losses) -> String {
    if let Some(original) = tool.extras.get(DIALECT, ORIGINAL_TOOL_NOTE) {
        return original.text().to_owned();
    }
    let (mut schema, adjusted) = tool
        .schema
        .as_ref()
        .map_or_else(|| (schema::EMPTY_SCHEMA.to_owned(), false), schema::ensure_object_root);
    if adjusted {
        losses.add("tools.schema");
    }
    let mut strict = tool.strict == Some(true);
    if strict {
        match schema::to_strict_subset(&schema, None, None) {
            SchemaFit::Exact(text) => schema = text,
            SchemaFit::Relaxed(text) => {
                schema = text;
                losses.add("tools.schema");
            }
            SchemaFit::Unsupported => {
                strict = false;
                losses.add("tools.strict");
            }
        }
    }
    writer::object(|o| {
        o.str("name", names.wire_name(&tool.name))
            .opt_str("description", tool.description.as_deref())
            .raw_text("input_schema", &schema);
        if strict {
            o.bool("strict", true);
        }
        o.opt_raw("cache_control", tool.cache.as_ref().map(|mark| &mark.raw));
        tool.extras.write(DIALECT, o, |key| losses.add(format!("tools.{key}")));
    })
}

fn write_hosted(tool: &HostedTool, losses: &mut Losses) -> Option<String> {
    let json = tool.body.json();
    if tool.dialect == DIALECT {
        return Some(json.text().to_owned());
    }
    if tool.kind == HostedKind::WebSearch {
        return Some(write_web_search(json, losses));
    }
    losses.add_foreign_tool(json);
    None
}

/// Writes another dialect's search tool with the options that both share: domains and user
/// location.
fn write_web_search(json: JsonRef<'_>, losses: &mut Losses) -> String {
    let filters = json.get("filters").unwrap_or(json);
    let location =
        json.get("user_location").map(|location| location.get("approximate").unwrap_or(location));
    if json.get("search_context_size").and_then(JsonRef::str).is_some_and(|size| size != "medium") {
        losses.add("tools.web_search.search_context_size");
    }
    writer::object(|o| {
        o.str("type", "web_search_20250305").str("name", WEB_SEARCH_NAME);
        // Only one of the two lists may be given.
        let lists = ["allowed_domains", "blocked_domains"]
            .into_iter()
            .find_map(|key| Some((key, filters.get(key).filter(|it| !it.is_blank())?)));
        if let Some((key, domains)) = lists {
            o.json(key, domains);
        }
        if let Some(location) = location.filter(|location| location.is_object()) {
            o.object("user_location", |o| {
                o.str("type", "approximate");
                for key in ["city", "region", "country", "timezone"] {
                    o.opt_str(key, location.get(key).and_then(JsonRef::str).as_deref());
                }
            });
        }
    })
}

/// Returns the requested tool choice in a form that this dialect supports.
fn effective_choice(request: &ChatRequest) -> Option<ToolChoice> {
    match &request.tool_choice {
        Some(ToolChoice::Allowed { names, required: true }) if names.len() == 1 => {
            Some(ToolChoice::Named(names[0].clone()))
        }
        Some(ToolChoice::Allowed { required: true, .. }) => Some(ToolChoice::Required),
        Some(ToolChoice::Allowed { required: false, .. }) => Some(ToolChoice::Auto),
        other => other.clone(),
    }
}

/// Whether the model must call a tool.
pub(super) fn forces_call(request: &ChatRequest) -> bool {
    !request.tools.is_empty()
        && matches!(effective_choice(request), Some(ToolChoice::Named(_) | ToolChoice::Required))
}

/// Writes the field `tool_choice`; `None` if the default applies.
pub(super) fn write_choice(request: &ChatRequest, names: &AnthropicToolNames) -> Option<String> {
    let disable_parallel = request.settings.parallel_tools.map(|parallel| !parallel);
    // Without a choice, the field is needed only to disable parallel calls.
    let choice = effective_choice(request)
        .or_else(|| (disable_parallel == Some(true)).then_some(ToolChoice::Auto));
    let (kind, name) = match choice? {
        ToolChoice::None => return Some(r#"{"type":"none"}"#.to_owned()),
        ToolChoice::Named(name) => ("tool", Some(names.wire_name(&name).to_owned())),
        ToolChoice::Required => ("any", None),
        ToolChoice::Auto | ToolChoice::Allowed { .. } => ("auto", None),
    };
    Some(writer::object(|o| {
        o.str("type", kind).opt_str("name", name.as_deref());
        if let Some(disable_parallel) = disable_parallel {
            o.bool("disable_parallel_tool_use", disable_parallel);
        }
    }))
}
