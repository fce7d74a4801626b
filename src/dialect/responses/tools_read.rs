//! Reads tools and the wish for one: functions, free-text tools, namespaces, and what the provider
//! runs itself.

use crate::{
    base::{json::JsonRef, raw::RawJson},
    dialect::responses::items_read::{OWN, joined, kind, string},
    ir::{
        extras::Extras,
        tool::{CustomTool, FunctionTool, HostedKind, HostedTool, Tool, ToolChoice},
    },
};

/// Note at the first tool of a namespace: the namespace without its tools.
pub(super) const NAMESPACE: &str = "namespace";
/// Note at a free-text tool: the namespace that it stands in.
pub(super) const INSIDE: &str = "inside";

pub(super) fn tools(list: JsonRef<'_>) -> Vec<Tool> {
    let mut out = Vec::new();
    for tool in list.items() {
        match kind(tool).as_str() {
            "function" => out.push(Tool::Function(function(tool))),
            "custom" => out.push(Tool::Custom(custom(tool))),
            "namespace" if holds_tools(tool) => namespace(tool, &mut out),
            kind => out.push(Tool::Hosted(HostedTool {
                kind: hosted(kind),
                dialect: OWN,
                body: RawJson::from_json(tool),
            })),
        }
    }
    out
}

fn hosted(kind: &str) -> HostedKind {
    match kind {
        "code_interpreter" => HostedKind::CodeExecution,
        _ if kind.starts_with("web_search") => HostedKind::WebSearch,
        _ => HostedKind::Other,
    }
}

fn function(tool: JsonRef<'_>) -> FunctionTool {
    // The form of chat is not official here, but understood.
    let inner = tool.get("function").filter(|inner| inner.is_object()).unwrap_or(tool);
    FunctionTool {
        name: string(inner, "name").unwrap_or_default(),
        description: string(inner, "description"),
        schema: inner.get("parameters").map(RawJson::from_json),
        strict: inner.get("strict").and_then(JsonRef::bool),
        namespace: None,
        cache: None,
        extras: Extras::from_object(
            OWN,
            tool,
            &["type", "function", "name", "description", "parameters", "strict"],
        ),
    }
}

fn custom(tool: JsonRef<'_>) -> CustomTool {
    let inner = tool.get("custom").filter(|inner| inner.is_object()).unwrap_or(tool);
    CustomTool {
        name: string(inner, "name").unwrap_or_default(),
        description: string(inner, "description"),
        format: inner.get("format").map(RawJson::from_json),
        extras: Extras::from_object(
            OWN,
            tool,
            &["type", "custom", "name", "description", "format"],
        ),
    }
}

/// Whether a namespace can be told as single tools.
fn holds_tools(tool: JsonRef<'_>) -> bool {
    let mut inside = tool.get("tools").into_iter().flat_map(JsonRef::items).peekable();
    inside.peek().is_some()
        && inside.all(|tool| matches!(kind(tool).as_str(), "function" | "custom"))
}

fn namespace(tool: JsonRef<'_>, out: &mut Vec<Tool>) {
    let name = string(tool, "name").unwrap_or_default();
    let first = out.len();
    for inner in tool.get("tools").into_iter().flat_map(JsonRef::items) {
        let one = if kind(inner) == "custom" {
            let mut it = custom(inner);
            it.name = joined(&name, &it.name);
            it.extras.push_dialect_only(OWN, INSIDE, RawJson::string(&name));
            Tool::Custom(it)
        } else {
            let it = function(inner);
            Tool::Function(FunctionTool {
                name: joined(&name, &it.name),
                namespace: Some(name.clone()),
                ..it
            })
        };
        out.push(one);
    }
    let whole = RawJson::object(|o| {
        for (key, value) in tool.members().filter(|(key, value)| {
            !["type", "name", "tools"].contains(key) && value.kind() != "null"
        }) {
            o.json(key, value);
        }
    });
    let description = tool.get("description").map(RawJson::from_json);
    if let Some(extras) = out.get_mut(first).and_then(extras) {
        extras.push_dialect_only(OWN, NAMESPACE, whole);
        if let Some(description) = description {
            extras.push(OWN, "namespace.description", description);
        }
    }
}

fn extras(tool: &mut Tool) -> Option<&mut Extras> {
    match tool {
        Tool::Function(it) => Some(&mut it.extras),
        Tool::Custom(it) => Some(&mut it.extras),
        Tool::Hosted(_) => None,
    }
}

/// The wish, where it can be told to others; a wish for a hosted tool cannot.
pub(super) fn choice(json: JsonRef<'_>, tools: &[Tool]) -> Option<ToolChoice> {
    if let Some(word) = json.str() {
        return match &*word {
            "auto" => Some(ToolChoice::Auto),
            "none" => Some(ToolChoice::None),
            "required" | "any" => Some(ToolChoice::Required),
            _ => None,
        };
    }
    match kind(json).as_str() {
        "function" | "custom" => named(json, tools).map(ToolChoice::Named),
        "allowed_tools" => {
            let inner = json.get("allowed_tools").filter(|inner| inner.is_object()).unwrap_or(json);
            let names: Vec<_> =
                inner.get("tools")?.items().filter_map(|tool| named(tool, tools)).collect();
            let required = string(inner, "mode").as_deref() == Some("required");
            (!names.is_empty()).then_some(ToolChoice::Allowed { names, required })
        }
        _ => None,
    }
}

fn named(json: JsonRef<'_>, tools: &[Tool]) -> Option<String> {
    let inner = json
        .get("function")
        .or_else(|| json.get("custom"))
        .filter(|inner| inner.is_object())
        .unwrap_or(json);
    let name = string(inner, "name")?;
    Some(known(string(json, "namespace").as_deref(), name, tools))
}

/// The name of a tool as we know it: joined with its namespace, where the request has such a tool.
pub(super) fn known(namespace: Option<&str>, name: String, tools: &[Tool]) -> String {
    let full = namespace.map(|namespace| joined(namespace, &name));
    full.filter(|full| tools.iter().any(|tool| tool.name() == Some(full))).unwrap_or(name)
}
