//! Writes tools and the wish for one.

use crate::{
    base::{raw::RawJson, write},
    dialect::{
        losses::Losses,
        responses::{
            items_read::{OWN, members},
            names::Names,
            tools_read::{self, NAMESPACE},
        },
    },
    ir::{
        extras::Extras,
        request::ChatRequest,
        tool::{CustomTool, FunctionTool, HostedKind, HostedTool, Tool, ToolChoice},
    },
};

/// The tools, each as JSON text.
pub(super) fn tools(request: &ChatRequest, names: &Names<'_>, losses: &mut Losses) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut rest = request.tools.as_slice();
    while let Some((tool, after)) = rest.split_first() {
        let space = tool.name().and_then(|name| names.space(name));
        let Some(space) = space else {
            out.extend(one(tool, names, losses));
            rest = after;
            continue;
        };
        // What stands in one namespace is written in one.
        let begins =
            |tool: &Tool| extras(tool).is_some_and(|extras| extras.get(OWN, NAMESPACE).is_some());
        let same = |other: &Tool| {
            other.name().and_then(|name| names.space(name)) == Some(space) && !begins(other)
        };
        let count = 1 + after.iter().take_while(|other| same(other)).count();
        let inside: Vec<String> =
            rest[..count].iter().filter_map(|tool| one(tool, names, losses)).collect();
        out.push(write::object(|o| {
            o.str("type", "namespace").str("name", space);
            match extras(tool).and_then(|extras| extras.get(OWN, NAMESPACE)) {
                Some(whole) => members(o, whole, &[]),
                None => {
                    o.str("description", space);
                }
            }
            o.array("tools", |a| {
                for tool in &inside {
                    a.raw_text(tool);
                }
            });
        }));
        rest = &rest[count..];
    }
    out
}

fn extras(tool: &Tool) -> Option<&Extras> {
    match tool {
        Tool::Function(it) => Some(&it.extras),
        Tool::Custom(it) => Some(&it.extras),
        Tool::Hosted(_) => None,
    }
}

fn one(tool: &Tool, names: &Names<'_>, losses: &mut Losses) -> Option<String> {
    match tool {
        Tool::Function(it) => Some(function(it, names, losses)),
        Tool::Custom(it) => Some(custom(it, names, losses)),
        Tool::Hosted(it) => hosted(it, losses),
    }
}

fn function(tool: &FunctionTool, names: &Names<'_>, losses: &mut Losses) -> String {
    if tool.cache.is_some() {
        losses.add("tools.cache_control");
    }
    let own = tool.extras.is_from(OWN);
    write::object(|o| {
        o.str("type", "function")
            .str("name", names.sent(&tool.name))
            .opt_str("description", tool.description.as_deref());
        match &tool.schema {
            Some(schema) if own => {
                o.raw("parameters", schema);
            }
            Some(schema) => {
                o.raw_text("parameters", &object_schema(schema));
            }
            None if own => {}
            None => {
                o.raw_text("parameters", r#"{"type":"object","properties":{}}"#);
            }
        }
        // Left out, it would mean that schemas are made strict.
        if let Some(strict) = tool.strict.or((!own).then_some(false)) {
            o.bool("strict", strict);
        }
        leftover(&tool.extras, o, losses);
    })
}

/// A schema of arguments has to say that they are an object.
fn object_schema(schema: &RawJson) -> String {
    let json = schema.json();
    if !json.is_object() {
        return r#"{"type":"object","properties":{}}"#.to_owned();
    }
    if json.get("type").is_some() {
        return schema.text().to_owned();
    }
    write::object(|o| {
        o.str("type", "object");
        if json.get("properties").is_none() {
            o.object("properties", |_| {});
        }
        members(o, schema, &["type"]);
    })
}

fn custom(tool: &CustomTool, names: &Names<'_>, losses: &mut Losses) -> String {
    write::object(|o| {
        o.str("type", "custom")
            .str("name", names.sent(&tool.name))
            .opt_str("description", tool.description.as_deref());
        o.opt_raw("format", tool.format.as_ref());
        leftover(&tool.extras, o, losses);
    })
}

fn leftover(extras: &Extras, o: &mut write::ObjectWriter<'_>, losses: &mut Losses) {
    for (key, value) in extras.iter() {
        if !extras.is_from(OWN) {
            losses.add(format!("tools.{key}"));
        } else if key != "namespace.description" {
            o.raw(key, value);
        }
    }
}

fn hosted(tool: &HostedTool, losses: &mut Losses) -> Option<String> {
    if tool.dialect == OWN {
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
            Some(write::object(|o| {
                o.str("type", "web_search");
                if let Some(domains) =
                    body.get("allowed_domains").filter(|list| list.is_array() && !list.is_blank())
                {
                    o.object("filters", |o| {
                        o.json("allowed_domains", domains);
                    });
                }
                if let Some(place) = body.get("user_location").filter(|place| place.is_object()) {
                    o.json("user_location", place);
                }
            }))
        }
        HostedKind::CodeExecution => {
            Some(r#"{"type":"code_interpreter","container":{"type":"auto"}}"#.to_owned())
        }
        HostedKind::UrlContext | HostedKind::Other => {
            let kind = body.get("type").and_then(|kind| Some(kind.str()?.into_owned()));
            let kind = kind.or_else(|| body.members().next().map(|(key, _)| key.to_owned()));
            losses.add(format!("tools.{}", kind.as_deref().unwrap_or("hosted")));
            None
        }
    }
}

/// The wish as JSON text.
pub(super) fn choice(request: &ChatRequest, names: &Names<'_>) -> Option<String> {
    let choice = request.tool_choice.as_ref()?;
    let own = request.extras.is_from(OWN);
    if request.tools.is_empty() && !own {
        return None;
    }
    // As it was said, unless somebody has changed it.
    if let Some(said) = request.extras.get(OWN, "tool_choice")
        && tools_read::choice(said.json(), &request.tools).as_ref() == Some(choice)
    {
        return Some(said.text().to_owned());
    }
    let named = |o: &mut write::ObjectWriter<'_>, name: &str| {
        o.str("type", if names.is_custom(name) { "custom" } else { "function" })
            .str("name", names.sent(name));
        o.opt_str("namespace", names.space(name));
    };
    Some(match choice {
        ToolChoice::Auto => "\"auto\"".to_owned(),
        ToolChoice::None => "\"none\"".to_owned(),
        ToolChoice::Required => "\"required\"".to_owned(),
        ToolChoice::Named(name) => write::object(|o| named(o, name)),
        ToolChoice::Allowed { names: allowed, required } => write::object(|o| {
            o.str("type", "allowed_tools").str("mode", if *required { "required" } else { "auto" });
            o.array("tools", |a| {
                for name in allowed {
                    a.object(|o| named(o, name));
                }
            });
        }),
    })
}
