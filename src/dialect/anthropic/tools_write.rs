//! Tools and the choice among them.

use crate::{
    base::{json::JsonRef, write},
    dialect::{
        anthropic::{
            names::Names,
            schema::{self, Fit},
        },
        losses::Losses,
    },
    ir::{
        op::Dialect,
        request::ChatRequest,
        tool::{FunctionTool, HostedKind, HostedTool, Tool, ToolChoice},
    },
};

const ME: Dialect = Dialect::Anthropic;

/// The name that the provider's own search bears.
const SEARCH: &str = "web_search";

/// Names that no function may bear beside the hosted tools of this request.
pub(super) fn fixed_names(request: &ChatRequest) -> Vec<&'static str> {
    let searches = request.tools.iter().any(
        |tool| matches!(tool, Tool::Hosted(it) if it.kind == HostedKind::WebSearch && it.dialect != ME),
    );
    if searches { vec![SEARCH] } else { Vec::new() }
}

/// The tools that can be offered, each as JSON.
pub(super) fn tools(request: &ChatRequest, names: &Names, lost: &mut Losses) -> Vec<String> {
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
            Tool::Function(tool) => out.push(function(tool, names, lost)),
            Tool::Custom(tool) => {
                out.push(function(&tool.as_function(), names, lost));
                tool.extras.iter().for_each(|(key, _)| lost.add(format!("tools.{key}")));
            }
            Tool::Hosted(tool) => out.extend(hosted(tool, lost)),
        }
    }
    out
}

fn function(tool: &FunctionTool, names: &Names, lost: &mut Losses) -> String {
    let (mut schema, bent) =
        tool.schema.as_ref().map_or_else(|| (schema::NOTHING.to_owned(), false), schema::rooted);
    if bent {
        lost.add("tools.schema");
    }
    let mut strict = tool.strict == Some(true);
    if strict {
        match schema::subset(&schema, None, None) {
            Fit::Whole(text) => schema = text,
            Fit::Looser(text) => {
                schema = text;
                lost.add("tools.schema");
            }
            Fit::No => {
                strict = false;
                lost.add("tools.strict");
            }
        }
    }
    write::object(|o| {
        o.str("name", names.sent(&tool.name))
            .opt_str("description", tool.description.as_deref())
            .raw_text("input_schema", &schema);
        if strict {
            o.bool("strict", true);
        }
        o.opt_raw("cache_control", tool.cache.as_ref().map(|mark| &mark.raw));
        tool.extras.write(ME, o, |key| lost.add(format!("tools.{key}")));
    })
}

fn hosted(tool: &HostedTool, lost: &mut Losses) -> Option<String> {
    let json = tool.body.json();
    if tool.dialect == ME {
        return Some(json.text().to_owned());
    }
    if tool.kind == HostedKind::WebSearch {
        return Some(search(json, lost));
    }
    let kind = json
        .get("type")
        .and_then(JsonRef::str)
        .map_or_else(|| "hosted".to_owned(), std::borrow::Cow::into_owned);
    lost.add(format!("tools.{kind}"));
    None
}

/// Another dialect's search, with what both have: domains and where the user is.
fn search(json: JsonRef<'_>, lost: &mut Losses) -> String {
    let filters = json.get("filters").unwrap_or(json);
    let place = json.get("user_location").map(|place| place.get("approximate").unwrap_or(place));
    if json.get("search_context_size").and_then(JsonRef::str).is_some_and(|size| size != "medium") {
        lost.add("tools.web_search.search_context_size");
    }
    write::object(|o| {
        o.str("type", "web_search_20250305").str("name", SEARCH);
        // One of the two lists may be given, not both.
        let lists = ["allowed_domains", "blocked_domains"]
            .into_iter()
            .find_map(|key| Some((key, filters.get(key).filter(|it| !it.is_blank())?)));
        if let Some((key, domains)) = lists {
            o.json(key, domains);
        }
        if let Some(place) = place.filter(|place| place.is_object()) {
            o.object("user_location", |o| {
                o.str("type", "approximate");
                for key in ["city", "region", "country", "timezone"] {
                    o.opt_str(key, place.get(key).and_then(JsonRef::str).as_deref());
                }
            });
        }
    })
}

/// What is said of the choice, in the words that this dialect has.
fn wanted(request: &ChatRequest) -> Option<ToolChoice> {
    match &request.tool_choice {
        Some(ToolChoice::Allowed { names, required: true }) if names.len() == 1 => {
            Some(ToolChoice::Named(names[0].clone()))
        }
        Some(ToolChoice::Allowed { required: true, .. }) => Some(ToolChoice::Required),
        Some(ToolChoice::Allowed { required: false, .. }) => Some(ToolChoice::Auto),
        other => other.clone(),
    }
}

/// Whether the model must call.
pub(super) fn forced(request: &ChatRequest) -> bool {
    !request.tools.is_empty()
        && matches!(wanted(request), Some(ToolChoice::Named(_) | ToolChoice::Required))
}

/// The field `tool_choice`; nothing where the usual is meant.
pub(super) fn choice(request: &ChatRequest, names: &Names) -> Option<String> {
    let one = request.settings.parallel_tools.map(|parallel| !parallel);
    // Needed only to say that calls come one at a time.
    let asked = wanted(request).or_else(|| (one == Some(true)).then_some(ToolChoice::Auto));
    let (kind, name) = match asked? {
        ToolChoice::None => return Some(r#"{"type":"none"}"#.to_owned()),
        ToolChoice::Named(name) => ("tool", Some(names.sent(&name).to_owned())),
        ToolChoice::Required => ("any", None),
        ToolChoice::Auto | ToolChoice::Allowed { .. } => ("auto", None),
    };
    Some(write::object(|o| {
        o.str("type", kind).opt_str("name", name.as_deref());
        if let Some(one) = one {
            o.bool("disable_parallel_tool_use", one);
        }
    }))
}
