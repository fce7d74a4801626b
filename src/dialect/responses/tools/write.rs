//! Writes tools and the tool choice.

use crate::{
    base::json::{raw::RawJson, writer},
    dialect::{
        losses::Losses,
        responses::{
            items_read::{DIALECT, write_members},
            tools::additional,
            tools::client_tools::FOUND_TOOL_NOTE,
            tools::names::ResponsesToolNames,
            tools::read::{self, NAMESPACE_NOTE},
        },
    },
    ir::{
        extras::Extras,
        request::ChatRequest,
        tool::{
            CustomTool, FunctionTool, HostedKind, HostedTool, ORIGINAL_TOOL_NOTE, Tool, ToolChoice,
        },
    },
};

/// Writes the tools, each as JSON text.
pub(in crate::dialect::responses) fn write_tools(
    request: &ChatRequest,
    names: &ResponsesToolNames<'_>,
    losses: &mut Losses,
) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let written: Vec<&Tool> = request
        .tools
        .iter()
        .filter(|tool| !is_found(tool) && !additional::has(&request.extras, tool))
        .collect();
    let mut rest = written.as_slice();
    while let Some((&tool, after)) = rest.split_first() {
        let namespace = tool.name().and_then(|name| names.namespace(name));
        let Some(namespace) = namespace else {
            out.extend(write_tool(tool, names, losses));
            rest = after;
            continue;
        };
        // Adjacent tools of one namespace are written as one namespace.
        let begins = |tool: &Tool| {
            tool.extras().is_some_and(|extras| extras.get(DIALECT, NAMESPACE_NOTE).is_some())
        };
        let same = |other: &&&Tool| {
            other.name().and_then(|name| names.namespace(name)) == Some(namespace) && !begins(other)
        };
        let count = 1 + after.iter().take_while(same).count();
        let nested: Vec<String> =
            rest[..count].iter().filter_map(|tool| write_tool(tool, names, losses)).collect();
        out.push(writer::object(|o| {
            o.str("type", "namespace").str("name", namespace);
            match tool.extras().and_then(|extras| extras.get(DIALECT, NAMESPACE_NOTE)) {
                Some(fields) => write_members(o, fields, &[]),
                None => {
                    o.str("description", namespace);
                }
            }
            o.array("tools", |a| {
                for tool in &nested {
                    a.raw_text(tool);
                }
            });
        }));
        rest = &rest[count..];
    }
    out
}

/// Whether the tool is part of the result of the client's search already.
fn is_found(tool: &Tool) -> bool {
    tool.extras().is_some_and(|extras| extras.get(DIALECT, FOUND_TOOL_NOTE).is_some())
}

fn write_tool(tool: &Tool, names: &ResponsesToolNames<'_>, losses: &mut Losses) -> Option<String> {
    match tool {
        Tool::Function(it) => Some(write_function(it, names, losses)),
        Tool::Custom(it) => Some(write_custom(it, names, losses)),
        Tool::Hosted(it) => write_hosted(it, losses),
    }
}

fn write_function(
    tool: &FunctionTool,
    names: &ResponsesToolNames<'_>,
    losses: &mut Losses,
) -> String {
    if tool.cache.is_some() {
        losses.add("tools.cache_control");
    }
    if let Some(original) = tool.extras.get(DIALECT, ORIGINAL_TOOL_NOTE) {
        return original.text().to_owned();
    }
    let same_dialect = tool.extras.is_from(DIALECT);
    writer::object(|o| {
        o.str("type", "function")
            .str("name", names.wire_name(&tool.name))
            .opt_str("description", tool.description.as_deref());
        match &tool.schema {
            Some(schema) if same_dialect => {
                o.raw("parameters", schema);
            }
            Some(schema) => {
                o.raw_text("parameters", &object_schema(schema));
            }
            None if same_dialect => {}
            None => {
                o.raw_text("parameters", r#"{"type":"object","properties":{}}"#);
            }
        }
        // If the field were absent, the provider would make the schemas strict.
        if let Some(strict) = tool.strict.or((!same_dialect).then_some(false)) {
            o.bool("strict", strict);
        }
        write_extras(&tool.extras, o, losses);
    })
}

/// Returns the schema of arguments with `type: object`, which the provider requires.
fn object_schema(schema: &RawJson) -> String {
    let json = schema.json();
    if !json.is_object() {
        return r#"{"type":"object","properties":{}}"#.to_owned();
    }
    if json.get("type").is_some() {
        return schema.text().to_owned();
    }
    writer::object(|o| {
        o.str("type", "object");
        if json.get("properties").is_none() {
            o.object("properties", |_| {});
        }
        write_members(o, schema, &["type"]);
    })
}

fn write_custom(tool: &CustomTool, names: &ResponsesToolNames<'_>, losses: &mut Losses) -> String {
    writer::object(|o| {
        o.str("type", "custom")
            .str("name", names.wire_name(&tool.name))
            .opt_str("description", tool.description.as_deref());
        o.opt_raw("format", tool.format.as_ref());
        write_extras(&tool.extras, o, losses);
    })
}

fn write_extras(extras: &Extras, o: &mut writer::ObjectWriter<'_>, losses: &mut Losses) {
    for (key, value) in extras.iter() {
        if !extras.is_from(DIALECT) {
            losses.add(format!("tools.{key}"));
        } else if key != "namespace.description" {
            o.raw(key, value);
        }
    }
}

fn write_hosted(tool: &HostedTool, losses: &mut Losses) -> Option<String> {
    if tool.dialect == DIALECT {
        return Some(tool.body.text().to_owned());
    }
    let body = tool.body.json();
    match tool.kind {
        HostedKind::WebSearch => {
            for key in ["max_uses", "blocked_domains"]
                .into_iter()
                .filter(|key| body.get(key).is_some_and(|value| !value.is_blank()))
            {
                losses.add(format!("tools.web_search.{key}"));
            }
            Some(writer::object(|o| {
                o.str("type", "web_search");
                if let Some(domains) =
                    body.get("allowed_domains").filter(|list| list.is_array() && !list.is_blank())
                {
                    o.object("filters", |o| {
                        o.json("allowed_domains", domains);
                    });
                }
                if let Some(location) = body.get("user_location").filter(|place| place.is_object())
                {
                    o.json("user_location", location);
                }
            }))
        }
        HostedKind::CodeExecution => {
            Some(r#"{"type":"code_interpreter","container":{"type":"auto"}}"#.to_owned())
        }
        HostedKind::UrlContext | HostedKind::Other => {
            let kind = body.string_at("type");
            let kind = kind.or_else(|| body.members().next().map(|(key, _)| key.to_owned()));
            losses.add(format!("tools.{}", kind.as_deref().unwrap_or("hosted")));
            None
        }
    }
}

/// Writes the tool choice as JSON text.
pub(in crate::dialect::responses) fn write_choice(
    request: &ChatRequest,
    names: &ResponsesToolNames<'_>,
    losses: &mut Losses,
) -> Option<String> {
    let choice = request.tool_choice.as_ref()?;
    let same_dialect = request.extras.is_from(DIALECT);
    if request.tools.is_empty() && !same_dialect {
        return None;
    }
    // The client's own text is used unless the choice has changed since.
    if let Some(original) = request.extras.get(DIALECT, "tool_choice")
        && read::read_choice(original.json(), &request.tools).as_ref() == Some(choice)
    {
        return Some(original.text().to_owned());
    }
    // Another dialect names its hosted tools; here they are chosen by their type.
    let hosted = |name: &str| {
        request.tools.iter().find_map(|tool| match tool {
            Tool::Hosted(it)
                if it.dialect != DIALECT
                    && it.body.json().string_at("name").as_deref() == Some(name) =>
            {
                Some(match it.kind {
                    HostedKind::WebSearch => Some("web_search"),
                    HostedKind::CodeExecution => Some("code_interpreter"),
                    HostedKind::UrlContext | HostedKind::Other => None,
                })
            }
            _ => None,
        })
    };
    if let ToolChoice::Named(name) = choice
        && !request.tools.iter().any(|tool| tool.name() == Some(name))
        && let Some(kind) = hosted(name)
    {
        // A tool that could not be written cannot be chosen either.
        losses.when(kind.is_none(), "tool_choice");
        return kind.map(|kind| {
            writer::object(|o| {
                o.str("type", kind);
            })
        });
    }
    let write_named = |o: &mut writer::ObjectWriter<'_>, name: &str| {
        o.str("type", if names.is_custom(name) { "custom" } else { "function" })
            .str("name", names.wire_name(name));
        o.opt_str("namespace", names.namespace(name));
    };
    Some(match choice {
        ToolChoice::Auto => "\"auto\"".to_owned(),
        ToolChoice::None => "\"none\"".to_owned(),
        ToolChoice::Required => "\"required\"".to_owned(),
        ToolChoice::Named(name) => writer::object(|o| write_named(o, name)),
        ToolChoice::Allowed { names: allowed, required } => writer::object(|o| {
            o.str("type", "allowed_tools").str("mode", if *required { "required" } else { "auto" });
            o.array("tools", |a| {
                for name in allowed {
                    a.object(|o| write_named(o, name));
                }
            });
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::op::Dialect;

    #[test]
    fn hosted_tool_of_another_dialect_is_selected_by_type() {
        let choice = |kind, body| {
            let request = ChatRequest {
                tools: vec![Tool::Hosted(HostedTool {
                    kind,
                    dialect: Dialect::Anthropic,
                    body: RawJson::parse(body).expect("valid JSON"),
                })],
                tool_choice: Some(ToolChoice::Named("web_search".to_owned())),
                ..ChatRequest::default()
            };
            write_choice(
                &request,
                &ResponsesToolNames::from_request(&request),
                &mut Losses::default(),
            )
        };
        let search = r#"{"type":"web_search_20250305","name":"web_search"}"#;
        assert_eq!(
            choice(HostedKind::WebSearch, search).as_deref(),
            Some(r#"{"type":"web_search"}"#)
        );
        assert_eq!(choice(HostedKind::Other, search), None);
    }
}
