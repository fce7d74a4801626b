//! Reads tools and the tool choice: functions, free-text tools, namespaces, and hosted tools.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use crate::{
    base::json::{raw::RawJson, reader::JsonRef},
    dialect::{
        renamed_tools::NameNumbers,
        responses::{
            client_tools::{self, FOUND_TOOL_NOTE},
            items_read::{DIALECT, item_type, qualified_name},
        },
    },
    ir::{
        extras::Extras,
        tool::{
            CustomTool, FunctionTool, HostedKind, HostedTool, INNER_NAME_NOTE, ORIGINAL_TOOL_NOTE,
            PARENT_NAMESPACE_NOTE, Tool, ToolChoice,
        },
    },
};

/// The note on the first tool of a namespace: the namespace without its tools.
pub(super) const NAMESPACE_NOTE: &str = "namespace";

pub(super) fn read_tools(list: JsonRef<'_>) -> Vec<Tool> {
    let mut out = Vec::new();
    for tool in list.items() {
        match item_type(tool).as_str() {
            "function" => out.push(Tool::Function(read_function(tool))),
            "custom" => out.push(Tool::Custom(read_custom(tool))),
            "namespace" if can_flatten(tool) => flatten_namespace(tool, &mut out),
            kind => out.push(match client_tools::read_tool(tool) {
                Some(function) => Tool::Function(function),
                None => Tool::Hosted(HostedTool {
                    kind: hosted_kind(kind),
                    dialect: DIALECT,
                    body: RawJson::from_json(tool),
                }),
            }),
        }
    }
    keep_names_apart(&mut out);
    out
}

/// Gives a tool of a namespace another name if its qualified name is taken: two tools of one name
/// are refused everywhere.
fn keep_names_apart(tools: &mut [Tool]) {
    let mut taken: HashSet<String> = tools
        .iter()
        .filter_map(|tool| match tool {
            Tool::Function(tool) if tool.namespace.is_some() => None,
            tool => tool.name().map(str::to_owned),
        })
        .collect();
    let mut numbers = NameNumbers::default();
    for tool in tools {
        let Tool::Function(tool) = tool else { continue };
        if tool.namespace.is_none() {
            continue;
        }
        if taken.contains(&tool.name) && tool.name.is_ascii() {
            let inner = RawJson::string(&tool.inner_name());
            tool.name = numbers.unique(&tool.name, usize::MAX, |name| taken.contains(name));
            tool.extras.push_dialect_only(DIALECT, INNER_NAME_NOTE, inner);
        }
        taken.insert(tool.name.clone());
    }
}

/// Reads the tools that the input adds to a request: those of `additional_tools` items, and those
/// that a search of the client found.
pub(super) fn read_input_tools(input: JsonRef<'_>, tools: &mut Vec<Tool>) {
    let mut known: HashSet<String> =
        tools.iter().filter_map(Tool::name).map(str::to_owned).collect();
    for item in input.items() {
        let kind = item_type(item);
        let is_found = kind == "tool_search_output";
        if !is_found && kind != "additional_tools" {
            continue;
        }
        let mut added = item.get("tools").map(read_tools).unwrap_or_default();
        added.retain(|tool| tool.name().is_none_or(|name| known.insert(name.to_owned())));
        for extras in added.iter_mut().filter(|_| is_found).filter_map(extras_mut) {
            extras.push_dialect_only(DIALECT, FOUND_TOOL_NOTE, RawJson::from(true));
        }
        tools.append(&mut added);
    }
}

fn hosted_kind(kind: &str) -> HostedKind {
    match kind {
        "code_interpreter" => HostedKind::CodeExecution,
        _ if kind.starts_with("web_search") => HostedKind::WebSearch,
        _ => HostedKind::Other,
    }
}

fn read_function(tool: JsonRef<'_>) -> FunctionTool {
    // The chat format is not official here, but it is accepted.
    let inner = tool.get("function").filter(|inner| inner.is_object()).unwrap_or(tool);
    FunctionTool {
        name: inner.string_at("name").unwrap_or_default(),
        description: inner.string_at("description"),
        schema: inner.get("parameters").map(RawJson::from_json),
        strict: inner.get("strict").and_then(JsonRef::bool),
        namespace: None,
        cache: None,
        extras: Extras::from_object(
            DIALECT,
            tool,
            &["type", "function", "name", "description", "parameters", "strict"],
        ),
    }
}

fn read_custom(tool: JsonRef<'_>) -> CustomTool {
    let inner = tool.get("custom").filter(|inner| inner.is_object()).unwrap_or(tool);
    CustomTool {
        name: inner.string_at("name").unwrap_or_default(),
        description: inner.string_at("description"),
        format: inner.get("format").map(RawJson::from_json),
        extras: Extras::from_object(
            DIALECT,
            tool,
            &["type", "custom", "name", "description", "format"],
        ),
    }
}

/// Whether a namespace can be split into single tools.
fn can_flatten(tool: JsonRef<'_>) -> bool {
    let mut tools = tool.get("tools").into_iter().flat_map(JsonRef::items).peekable();
    tools.peek().is_some()
        && tools.all(|tool| matches!(item_type(tool).as_str(), "function" | "custom"))
}

fn flatten_namespace(tool: JsonRef<'_>, out: &mut Vec<Tool>) {
    let name = tool.string_at("name").unwrap_or_default();
    let first = out.len();
    for inner in tool.get("tools").into_iter().flat_map(JsonRef::items) {
        let one = if item_type(inner) == "custom" {
            let mut it = read_custom(inner);
            it.name = qualified_name(&name, &it.name);
            it.extras.push_dialect_only(DIALECT, PARENT_NAMESPACE_NOTE, RawJson::string(&name));
            Tool::Custom(it)
        } else {
            let it = read_function(inner);
            Tool::Function(FunctionTool {
                name: qualified_name(&name, &it.name),
                namespace: Some(name.clone()),
                ..it
            })
        };
        out.push(one);
    }
    let namespace_fields = RawJson::object(|o| {
        for (key, value) in tool.members().filter(|(key, value)| {
            !["type", "name", "tools"].contains(key) && value.kind() != "null"
        }) {
            o.json(key, value);
        }
    });
    let description = tool.get("description").map(RawJson::from_json);
    if let Some(extras) = out.get_mut(first).and_then(extras_mut) {
        extras.push_dialect_only(DIALECT, NAMESPACE_NOTE, namespace_fields);
        if let Some(description) = description {
            extras.push(DIALECT, "namespace.description", description);
        }
    }
}

fn extras_mut(tool: &mut Tool) -> Option<&mut Extras> {
    match tool {
        Tool::Function(it) => Some(&mut it.extras),
        Tool::Custom(it) => Some(&mut it.extras),
        Tool::Hosted(_) => None,
    }
}

/// Reads the tool choice if other dialects can express it. The choice of a hosted tool cannot be
/// expressed.
pub(super) fn read_choice(json: JsonRef<'_>, tools: &[Tool]) -> Option<ToolChoice> {
    if let Some(word) = json.str() {
        return match &*word {
            "auto" => Some(ToolChoice::Auto),
            "none" => Some(ToolChoice::None),
            "required" | "any" => Some(ToolChoice::Required),
            _ => None,
        };
    }
    match item_type(json).as_str() {
        "function" | "custom" => read_named_tool(json, tools).map(ToolChoice::Named),
        kind if tools.iter().any(|tool| is_client_tool(tool, kind)) => {
            Some(ToolChoice::Named(kind.to_owned()))
        }
        "allowed_tools" => {
            let inner = json.get("allowed_tools").filter(|inner| inner.is_object()).unwrap_or(json);
            let names: Vec<_> = inner
                .get("tools")?
                .items()
                .filter_map(|tool| read_named_tool(tool, tools))
                .collect();
            let required = inner.string_at("mode").as_deref() == Some("required");
            (!names.is_empty()).then_some(ToolChoice::Allowed { names, required })
        }
        _ => None,
    }
}

fn is_client_tool(tool: &Tool, kind: &str) -> bool {
    matches!(tool, Tool::Function(tool)
        if tool.name == kind && tool.extras.get(DIALECT, ORIGINAL_TOOL_NOTE).is_some())
}

fn read_named_tool(json: JsonRef<'_>, tools: &[Tool]) -> Option<String> {
    let inner = json
        .get("function")
        .or_else(|| json.get("custom"))
        .filter(|inner| inner.is_object())
        .unwrap_or(json);
    let name = inner.string_at("name")?;
    Some(qualify_if_known(json.string_at("namespace").as_deref(), name, tools))
}

/// The names of a request's tools by namespace and the name inside it.
pub(super) struct QualifiedNames<'a> {
    functions: HashMap<(&'a str, Cow<'a, str>), &'a str>,
    all: HashSet<&'a str>,
}

impl<'a> QualifiedNames<'a> {
    pub(super) fn new(tools: &'a [Tool]) -> Self {
        let functions = tools.iter().filter_map(|tool| match tool {
            Tool::Function(tool) => {
                Some(((tool.namespace.as_deref()?, tool.inner_name()), tool.name.as_str()))
            }
            Tool::Custom(_) | Tool::Hosted(_) => None,
        });
        Self { functions: functions.collect(), all: tools.iter().filter_map(Tool::name).collect() }
    }

    /// The name that aiproxy uses for a tool; `None` if the request has no such tool.
    pub(super) fn find(&self, namespace: &str, name: &str) -> Option<&'a str> {
        self.functions
            .get(&(namespace, Cow::Borrowed(name)))
            .or_else(|| self.all.get(&*qualified_name(namespace, name)))
            .copied()
    }
}

/// The name that aiproxy uses for a tool: joined with its namespace if the request has such a tool.
fn qualify_if_known(namespace: Option<&str>, name: String, tools: &[Tool]) -> String {
    let Some(namespace) = namespace else { return name };
    QualifiedNames::new(tools).find(namespace, &name).map_or(name, str::to_owned)
}
