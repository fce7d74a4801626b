//! Writes tools and the choice among them.

use crate::{
    base::json::{
        raw::RawJson,
        writer::{ArrayWriter, ObjectWriter},
    },
    dialect::{losses::Losses, openai::names::OpenaiToolNames},
    ir::{
        op::Dialect,
        tool::{CustomTool, FunctionTool, Tool, ToolChoice},
    },
};

const DIALECT: Dialect = Dialect::Openai;

/// Whether the tool came in this dialect's own form for free text, so that its provider knows it.
/// Other tools are bridged.
pub(super) fn is_native(tool: &CustomTool) -> bool {
    tool.extras.get(DIALECT, "type").is_some()
}

pub(super) fn write_tools(
    tools: &[Tool],
    choice: Option<&ToolChoice>,
    names: &OpenaiToolNames,
    o: &mut ObjectWriter<'_>,
    losses: &mut Losses,
) {
    // Hosted tools of other dialects are losses; this dialect's web search is a field of the
    // request.
    let searching = |tool: &Tool| match tool {
        Tool::Hosted(hosted) if hosted.dialect == DIALECT => {
            hosted.body.json().get("web_search_options").map(RawJson::from_json)
        }
        _ => None,
    };
    let sent: Vec<&Tool> = tools
        .iter()
        .filter(|tool| match tool {
            Tool::Hosted(hosted) if hosted.dialect != DIALECT => {
                losses.add_hosted_tool(hosted.kind);
                false
            }
            tool => searching(tool).is_none(),
        })
        .collect();
    if let Some(options) = tools.iter().find_map(searching) {
        o.raw("web_search_options", &options);
    }
    if !sent.is_empty() {
        o.array("tools", |a| {
            for tool in &sent {
                match tool {
                    Tool::Function(tool) => write_function(tool, names, a, losses),
                    Tool::Custom(tool) if is_native(tool) => write_custom(tool, names, a),
                    Tool::Custom(tool) => {
                        tool.extras.iter().for_each(|(key, _)| losses.add(format!("tools.{key}")));
                        write_function(&tool.as_function(), names, a, losses);
                    }
                    Tool::Hosted(tool) => {
                        a.raw(&tool.body);
                    }
                }
            }
        });
    }
    match choice {
        Some(choice) if !sent.is_empty() => write_choice(choice, tools, names, o),
        Some(ToolChoice::Required | ToolChoice::Named(_) | ToolChoice::Allowed { .. }) => {
            losses.add("tool_choice");
        }
        // Providers reject a tool choice without tools, and both values are the default then.
        Some(ToolChoice::Auto | ToolChoice::None) | None => {}
    }
}

fn write_function(
    tool: &FunctionTool,
    names: &OpenaiToolNames,
    a: &mut ArrayWriter<'_>,
    losses: &mut Losses,
) {
    if tool.cache.is_some() && tool.extras.get(DIALECT, "cache_control").is_none() {
        losses.add("tools.cache_control");
    }
    a.object(|o| {
        o.str("type", "function").object("function", |o| {
            o.str("name", names.sent_name(&tool.name))
                .opt_str("description", tool.description.as_deref());
            if let Some(schema) = &tool.schema {
                o.raw_text("parameters", &with_object_root(schema));
            }
            if let Some(strict) = tool.strict {
                o.bool("strict", strict);
            }
            for (key, _) in tool.extras.iter() {
                if let (Some(inside), Some(value)) =
                    (key.strip_prefix("function."), tool.extras.get(DIALECT, key))
                {
                    o.raw(inside, value);
                }
            }
        });
        tool.extras.write_except(
            |key| key.starts_with("function."),
            DIALECT,
            o,
            |key| losses.add(format!("tools.{key}")),
        );
    });
}

/// Adds what a schema omits: providers reject parameters whose root is not an object with
/// properties.
fn with_object_root(schema: &RawJson) -> std::borrow::Cow<'_, str> {
    let json = schema.json();
    let (kind, properties) = (json.get("type").is_some(), json.get("properties").is_some());
    if kind && properties || !json.is_object() {
        return schema.text().into();
    }
    let rooted = RawJson::object(|o| {
        if !kind {
            o.str("type", "object");
        }
        json.members().for_each(|(key, value)| {
            o.json(key, value);
        });
        if !properties {
            o.object("properties", |_| {});
        }
    });
    rooted.text().to_owned().into()
}

fn write_custom(tool: &CustomTool, names: &OpenaiToolNames, a: &mut ArrayWriter<'_>) {
    a.object(|o| {
        o.object("custom", |o| {
            o.str("name", names.sent_name(&tool.name))
                .opt_str("description", tool.description.as_deref());
            let Some(format) = &tool.format else { return };
            if format.json().get("definition").is_none() {
                o.raw("format", format);
                return;
            }
            o.object("format", |o| {
                o.str("type", "grammar").object("grammar", |o| {
                    let rest = format.json().members().filter(|(key, _)| *key != "type");
                    rest.for_each(|(key, value)| {
                        o.json(key, value);
                    });
                });
            });
        });
        tool.extras.write(DIALECT, o, |_| {});
    });
}

fn write_choice(
    choice: &ToolChoice,
    tools: &[Tool],
    names: &OpenaiToolNames,
    o: &mut ObjectWriter<'_>,
) {
    let named = |o: &mut ObjectWriter<'_>, name: &str| {
        let free = tools
            .iter()
            .any(|tool| matches!(tool, Tool::Custom(tool) if tool.name == name && is_native(tool)));
        let kind = if free { "custom" } else { "function" };
        o.str("type", kind).object(kind, |o| {
            o.str("name", names.sent_name(name));
        });
    };
    match choice {
        ToolChoice::Auto => {
            o.str("tool_choice", "auto");
        }
        ToolChoice::None => {
            o.str("tool_choice", "none");
        }
        ToolChoice::Required => {
            o.str("tool_choice", "required");
        }
        ToolChoice::Named(name) => {
            o.object("tool_choice", |o| named(o, name));
        }
        // A single required tool is written in the form that every provider knows.
        ToolChoice::Allowed { names: allowed, required: true } if allowed.len() == 1 => {
            o.object("tool_choice", |o| named(o, &allowed[0]));
        }
        ToolChoice::Allowed { names: allowed, required } => {
            o.object("tool_choice", |o| {
                o.str("type", "allowed_tools").object("allowed_tools", |o| {
                    o.str("mode", if *required { "required" } else { "auto" });
                    o.array("tools", |a| {
                        allowed.iter().for_each(|name| {
                            a.object(|o| named(o, name));
                        });
                    });
                });
            });
        }
    }
}
