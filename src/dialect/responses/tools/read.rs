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
            items_read::{DIALECT, item_type, qualified_name},
            tools::additional::ADDITIONAL_TOOLS,
            tools::client_tools::{self, FOUND_TOOL_NOTE},
        },
    },
    ir::{
        extras::Extras,
        tool::{
            CustomTool, FunctionTool, HostedKind, HostedTool, INNER_NAME_NOTE, INPUT_TOOL_NOTE,
            PARENT_NAMESPACE_NOTE, Tool, ToolChoice,
        },
    },
};

/// The note on the first tool of a namespace: the namespace without its tools.
pub(in crate::dialect::responses) const NAMESPACE_NOTE: &str = "namespace";

fn read_tools(list: JsonRef<'_>) -> Vec<Tool> {
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
    out
}

/// The namespace of a tool, if it has one, and its name inside it. Tools that are equal in that are
/// the same tool, wherever they are defined.
type ToolIdentity = (Option<String>, String);

fn identity(tool: &Tool) -> Option<ToolIdentity> {
    match tool {
        Tool::Function(it) => match (&it.namespace, client_tools::original_type(tool)) {
            (Some(space), _) => Some((Some(space.clone()), it.inner_name().into_owned())),
            // A type is no name that a namespace or a function has.
            (None, Some(kind)) => Some((Some(String::new()), format!("type {kind}"))),
            (None, None) => Some((None, it.name.clone())),
        },
        Tool::Custom(it) => Some(match it.namespace() {
            Some((space, inner)) => (Some(space), inner),
            None => (None, it.name.clone()),
        }),
        Tool::Hosted(_) => None,
    }
}

/// Gives a tool of a namespace, or one that is defined by its type, another name if its own is
/// taken: two tools of one name are refused everywhere.
fn keep_names_apart(tools: &mut [Tool]) {
    let can_change = |tool: &Tool| match tool {
        Tool::Function(it) => it.namespace.is_some() || client_tools::original_type(tool).is_some(),
        Tool::Custom(it) => it.extras.get(DIALECT, PARENT_NAMESPACE_NOTE).is_some(),
        Tool::Hosted(_) => false,
    };
    let fixed = tools.iter().filter(|tool| !can_change(tool)).filter_map(Tool::name);
    let mut taken: HashSet<String> = fixed.map(str::to_owned).collect();
    let mut numbers = NameNumbers::default();
    for tool in tools.iter_mut().filter(|tool| can_change(tool)) {
        let inner = identity(tool).map(|(_, inner)| RawJson::string(&inner));
        let (Tool::Function(FunctionTool { name, extras, .. })
        | Tool::Custom(CustomTool { name, extras, .. })) = tool
        else {
            continue;
        };
        if taken.contains(name) {
            *name = numbers.unique(name, usize::MAX, |name| taken.contains(name));
            if let Some(inner) = inner {
                extras.push_dialect_only(DIALECT, INNER_NAME_NOTE, inner);
            }
        }
        taken.insert(name.clone());
    }
}

/// Reads the tools of a request: its list, and those that the input adds in `additional_tools`
/// items or as the result of a search of the client.
pub(in crate::dialect::responses) fn read_all_tools(
    list: Option<JsonRef<'_>>,
    input: Option<JsonRef<'_>>,
) -> Vec<Tool> {
    let mut tools = list.map(read_tools).unwrap_or_default();
    let is_adding = |item: &JsonRef<'_>| {
        matches!(item_type(*item).as_str(), ADDITIONAL_TOOLS | "tool_search_output")
    };
    let mut adding = input.into_iter().flat_map(JsonRef::items).filter(is_adding).peekable();
    if adding.peek().is_some() {
        let mut known: HashSet<ToolIdentity> = tools.iter().filter_map(identity).collect();
        for item in adding {
            let is_found = item_type(item) == "tool_search_output";
            let mut added = item.get("tools").map(read_tools).unwrap_or_default();
            added.retain(|tool| identity(tool).is_none_or(|it| known.insert(it)));
            for extras in added.iter_mut().filter_map(Tool::extras_mut) {
                extras.push_dialect_only(DIALECT, INPUT_TOOL_NOTE, RawJson::from(true));
                if is_found {
                    extras.push_dialect_only(DIALECT, FOUND_TOOL_NOTE, RawJson::from(true));
                }
            }
            tools.append(&mut added);
        }
    }
    keep_names_apart(&mut tools);
    tools
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
    if let Some(extras) = out.get_mut(first).and_then(Tool::extras_mut) {
        extras.push_dialect_only(DIALECT, NAMESPACE_NOTE, namespace_fields);
        if let Some(description) = description {
            extras.push(DIALECT, "namespace.description", description);
        }
    }
}

/// Reads the tool choice if other dialects can express it. The choice of a hosted tool cannot be
/// expressed.
pub(in crate::dialect::responses) fn read_choice(
    json: JsonRef<'_>,
    tools: &[Tool],
) -> Option<ToolChoice> {
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
        kind => {
            let chosen = tools
                .iter()
                .find(|tool| client_tools::original_type(tool).as_deref() == Some(kind));
            chosen.and_then(Tool::name).map(|name| ToolChoice::Named(name.to_owned()))
        }
    }
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
pub(in crate::dialect::responses) struct QualifiedNames<'a> {
    inside: HashMap<(Cow<'a, str>, Cow<'a, str>), &'a str>,
    /// The names of tools that are defined by their types.
    by_type: HashMap<String, &'a str>,
    all: HashSet<&'a str>,
}

impl<'a> QualifiedNames<'a> {
    pub(in crate::dialect::responses) fn new(tools: &'a [Tool]) -> Self {
        let inside = tools.iter().filter_map(|tool| match tool {
            Tool::Function(tool) => {
                let space = Cow::Borrowed(tool.namespace.as_deref()?);
                Some(((space, tool.inner_name()), tool.name.as_str()))
            }
            Tool::Custom(tool) => {
                let (space, inner) = tool.namespace()?;
                Some(((space.into(), inner.into()), tool.name.as_str()))
            }
            Tool::Hosted(_) => None,
        });
        let by_type = tools
            .iter()
            .filter_map(|tool| Some((client_tools::original_type(tool)?, tool.name()?)));
        Self {
            inside: inside.collect(),
            by_type: by_type.collect(),
            all: tools.iter().filter_map(Tool::name).collect(),
        }
    }

    /// The name that aiproxy uses for the tool of this type; the type itself if the request has no
    /// such tool.
    pub(in crate::dialect::responses) fn of_type<'t>(&'t self, kind: &'t str) -> &'t str {
        self.by_type.get(kind).copied().unwrap_or(kind)
    }

    /// The name that aiproxy uses for a tool; `None` if the request has no such tool.
    pub(in crate::dialect::responses) fn find(
        &self,
        namespace: &str,
        name: &str,
    ) -> Option<&'a str> {
        self.inside
            .get(&(Cow::Borrowed(namespace), Cow::Borrowed(name)))
            .or_else(|| self.all.get(&*qualified_name(namespace, name)))
            .copied()
    }
}

/// The name that aiproxy uses for a tool: joined with its namespace if the request has such a tool.
fn qualify_if_known(namespace: Option<&str>, name: String, tools: &[Tool]) -> String {
    let Some(namespace) = namespace else { return name };
    QualifiedNames::new(tools).find(namespace, &name).map_or(name, str::to_owned)
}
