//! Writes a conversation as a generateContent request.

use crate::{
    base::{
        raw::Raw,
        write::{self, Object},
    },
    dialect::{
        Carry, Encoded, Thinking, Traits,
        gemini::{
            contents_write::{self, fit},
            request_read::beneath,
            schema,
            wire::Losses,
        },
    },
    ir::{
        block::{Block, BlockKind},
        op::Dialect,
        request::{ChatRequest, Role},
        settings::{Effort, Format, ReasoningWish, Settings},
        tool::{FunctionTool, Hosted, HostedTool, Tool, ToolChoice},
    },
};

/// The most stop sequences that are taken.
const MOST_STOPS: usize = 5;
/// The largest thinking budget that every thinking model takes.
const MOST_THOUGHT: u64 = 24_576;

pub(super) fn write(request: &ChatRequest, traits: &Traits) -> Encoded {
    let mut losses = Losses::default();
    let mut carry = Carry { renamed: Vec::new(), seed: traits.seed.clone() };
    let mut contents = contents_write::write(&request.messages, traits, &mut losses);
    let mut system = system(request, &mut losses);
    if contents == "[]"
        && let Some(parts) = system.take()
    {
        // There is no answer to instructions alone.
        contents = format!(r#"[{{"role":"user","parts":{parts}}}]"#);
    }
    let config = config(request, traits, &mut losses);
    let body = write::object(|o| {
        o.text("contents", &contents);
        if let Some(parts) = &system {
            o.object("systemInstruction", |o| {
                o.text("parts", parts);
            });
        }
        tools(o, request, &mut carry, &mut losses);
        if config != "{}" {
            o.text("generationConfig", &config);
        }
        tier(o, &request.settings, &mut losses);
        for (key, value) in request.extras.iter() {
            match request.extras.get(Dialect::Gemini, key) {
                Some(_) if key.starts_with("generationConfig.") || key.starts_with("toolConfig.") => {}
                Some(_) => {
                    o.raw(key, value);
                }
                None => losses.add(key.to_owned()),
            }
        }
    });
    Encoded { body: body.into(), headers: Vec::new(), losses: losses.into_inner(), carry }
}

/// All system text, wherever it stood, as parts.
fn system(request: &ChatRequest, losses: &mut Losses) -> Option<String> {
    let within = request.messages.iter().filter(|message| message.role == Role::System).flat_map(|message| &message.blocks);
    let parts = write::array(|a| {
        for block in request.system.iter().chain(within) {
            if block.cache.is_some() {
                losses.add("system.cache_control");
            }
            match &block.kind {
                BlockKind::Text(it) if it.text.is_empty() => {}
                BlockKind::Text(it) => {
                    a.object(|o| {
                        o.str("text", &it.text);
                    });
                }
                _ => losses.add("system.media"),
            }
            foreign_extras(block, "system", losses);
        }
    });
    (parts != "[]").then_some(parts)
}

fn foreign_extras(block: &Block, place: &str, losses: &mut Losses) {
    for (key, _) in block.extras.iter().filter(|(key, _)| block.extras.get(Dialect::Gemini, key).is_none()) {
        losses.add(format!("{place}.{key}"));
    }
}

fn tools(o: &mut Object<'_>, request: &ChatRequest, carry: &mut Carry, losses: &mut Losses) {
    let functions: Vec<String> = request
        .tools
        .iter()
        .filter_map(|tool| match tool {
            Tool::Function(tool) => Some(function(tool, carry, losses)),
            Tool::Custom(tool) => {
                for (key, _) in tool.extras.iter() {
                    losses.add(format!("tools.{key}"));
                }
                Some(function(&tool.as_function(), carry, losses))
            }
            Tool::Hosted(_) => None,
        })
        .collect();
    let hosted: Vec<Raw> = request
        .tools
        .iter()
        .filter_map(|tool| match tool {
            Tool::Hosted(tool) => own_hosted(tool, !functions.is_empty(), losses),
            _ => None,
        })
        .collect();
    if !functions.is_empty() || !hosted.is_empty() {
        o.array("tools", |a| {
            if !functions.is_empty() {
                a.object(|o| {
                    o.array("functionDeclarations", |a| {
                        functions.iter().for_each(|function| {
                            a.text(function);
                        })
                    });
                });
            }
            hosted.iter().for_each(|tool| {
                a.raw(tool);
            });
        });
    }
    let calling = write::object(|o| {
        if !functions.is_empty() {
            choice(o, request.tool_choice.as_ref(), request.extras.get(Dialect::Gemini, "toolConfig.functionCallingConfig.mode"));
        }
        for (key, value) in beneath(&request.extras, "toolConfig.functionCallingConfig.").filter(|(key, _)| *key != "mode") {
            o.raw(key, value);
        }
    });
    let config = write::object(|o| {
        if calling != "{}" {
            o.text("functionCallingConfig", &calling);
        }
        for (key, value) in beneath(&request.extras, "toolConfig.").filter(|(key, _)| !key.starts_with("functionCallingConfig.")) {
            o.raw(key, value);
        }
    });
    if config != "{}" {
        o.text("toolConfig", &config);
    }
    if request.settings.parallel_tools == Some(false) && !functions.is_empty() {
        losses.add("parallel_tool_calls");
    }
}

fn function(tool: &FunctionTool, carry: &mut Carry, losses: &mut Losses) -> String {
    let name = fit(&tool.name);
    if name != tool.name {
        carry.renamed.push((name.clone().into_owned(), tool.name.clone()));
    }
    if tool.strict == Some(true) {
        losses.add("tools.strict");
    }
    if tool.cache.is_some() {
        losses.add("tools.cache_control");
    }
    write::object(|o| {
        o.str("name", &name).opt_str("description", tool.description.as_deref());
        if let Some(schema) = tool.schema.as_ref().filter(|schema| schema.json().is_object()) {
            o.raw("parametersJsonSchema", &schema::from_json_schema(schema.json(), "tools.schema", losses));
        }
        tool.extras.write(Dialect::Gemini, o, |key| losses.add(format!("tools.{key}")));
    })
}

/// A tool that the provider runs, in its own words. Ones of other dialects give way to functions: the provider takes both
/// together only where the client can send its calls of them back, which those clients cannot.
fn own_hosted(tool: &HostedTool, functions: bool, losses: &mut Losses) -> Option<Raw> {
    if tool.dialect == Dialect::Gemini {
        return Some(tool.body.clone());
    }
    let (own, name) = match tool.kind {
        Hosted::WebSearch => ("googleSearch", "tools.web_search"),
        Hosted::CodeExecution => ("codeExecution", "tools.code_execution"),
        Hosted::UrlContext => ("urlContext", "tools.url_context"),
        Hosted::Other => {
            let kind = tool.body.json().get("type").and_then(|kind| kind.str().map(std::borrow::Cow::into_owned));
            losses.add(format!("tools.{}", kind.as_deref().unwrap_or("hosted")));
            return None;
        }
    };
    if functions {
        losses.add(name);
        return None;
    }
    for (key, _) in tool.body.json().members().filter(|(key, value)| !matches!(*key, "type" | "name") && !value.is_blank()) {
        losses.add(format!("{name}.{key}"));
    }
    Some(Raw::object(|o| {
        o.object(own, |_| {});
    }))
}

fn choice(o: &mut Object<'_>, choice: Option<&ToolChoice>, own_mode: Option<&Raw>) {
    let names = |o: &mut Object<'_>, names: &[String]| {
        o.array("allowedFunctionNames", |a| {
            names.iter().for_each(|name| {
                a.str(&fit(name));
            })
        });
    };
    match choice {
        None => {}
        Some(ToolChoice::Auto) => match own_mode {
            Some(mode) => {
                o.raw("mode", mode);
            }
            None => {
                o.str("mode", "AUTO");
            }
        },
        Some(ToolChoice::None) => {
            o.str("mode", "NONE");
        }
        Some(ToolChoice::Required) => {
            o.str("mode", "ANY");
        }
        Some(ToolChoice::Named(name)) => {
            o.str("mode", "ANY");
            names(o, std::slice::from_ref(name));
        }
        Some(ToolChoice::Allowed { names: allowed, required }) => {
            // Names go with a mode that heeds them.
            o.str("mode", if *required { "ANY" } else { "VALIDATED" });
            names(o, allowed);
        }
    }
}

fn config(request: &ChatRequest, traits: &Traits, losses: &mut Losses) -> String {
    let settings = &request.settings;
    write::object(|o| {
        if let Some(limit) = settings.max_tokens {
            o.num("maxOutputTokens", limit.min(traits.max_output.unwrap_or(u64::MAX)));
        }
        o.opt_raw("temperature", settings.temperature.as_ref()).opt_raw("topP", settings.top_p.as_ref());
        o.opt_raw("topK", settings.top_k.as_ref()).opt_raw("seed", settings.seed.as_ref());
        o.opt_raw("presencePenalty", settings.presence_penalty.as_ref());
        o.opt_raw("frequencyPenalty", settings.frequency_penalty.as_ref());
        if !settings.stop.is_empty() {
            if settings.stop.len() > MOST_STOPS {
                losses.add("stop");
            }
            o.array("stopSequences", |a| {
                settings.stop.iter().take(MOST_STOPS).for_each(|stop| {
                    a.str(stop);
                })
            });
        }
        if settings.logprobs == Some(true) {
            o.bool("responseLogprobs", true);
            if let Some(top) = settings.top_logprobs {
                o.num("logprobs", top);
            }
        }
        match &settings.format {
            None | Some(Format::Text) => {}
            Some(Format::Json) => {
                o.str("responseMimeType", "application/json");
            }
            Some(Format::Schema { schema, .. }) => {
                o.str("responseMimeType", "application/json");
                o.raw("responseJsonSchema", &schema::from_json_schema(schema.json(), "response_format.schema", losses));
            }
        }
        if let Some(wish) = &settings.reasoning {
            let thinking = write::object(|o| thinking(o, wish, traits.thinking, losses));
            if thinking != "{}" {
                o.text("thinkingConfig", &thinking);
            }
        }
        for (key, value) in beneath(&request.extras, "generationConfig.") {
            o.raw(key, value);
        }
        lost_settings(settings, losses);
    })
}

fn lost_settings(settings: &Settings, losses: &mut Losses) {
    for (field, lost) in [
        ("n", settings.n.is_some_and(|n| n > 1)),
        ("min_p", settings.min_p.is_some()),
        ("repetition_penalty", settings.repetition_penalty.is_some()),
        ("verbosity", settings.verbosity.is_some()),
        ("user", settings.user.is_some()),
        ("metadata", settings.metadata.as_ref().is_some_and(|metadata| !metadata.json().is_blank())),
        ("prompt_cache_key", settings.prompt_cache_key.is_some()),
    ] {
        if lost {
            losses.add(field);
        }
    }
}

fn thinking(o: &mut Object<'_>, wish: &ReasoningWish, how: Thinking, losses: &mut Losses) {
    let wanted = wish.enabled != Some(false) && wish.level() != Some(Effort::None);
    match how {
        Thinking::Never if wanted && (wish.enabled == Some(true) || wish.level().is_some()) => losses.add("reasoning"),
        Thinking::Never => {}
        Thinking::Effort => {
            let level = match wish.level() {
                None => None,
                Some(Effort::None) => {
                    // These models always think.
                    losses.add("reasoning.effort");
                    Some("LOW")
                }
                Some(Effort::Minimal) => Some("MINIMAL"),
                Some(Effort::Low) => Some("LOW"),
                Some(Effort::Medium) => Some("MEDIUM"),
                Some(Effort::High | Effort::XHigh | Effort::Max) => Some("HIGH"),
            };
            o.opt_str("thinkingLevel", level);
        }
        Thinking::Budget if wish.adaptive => {
            o.text("thinkingBudget", "-1");
        }
        Thinking::Budget => {
            if let Some(tokens) = wish.tokens() {
                o.num("thinkingBudget", tokens.min(MOST_THOUGHT));
            }
        }
    }
    let asked = wish.enabled == Some(true) || wish.level().is_some() || wish.adaptive || wish.summary.is_some();
    if how != Thinking::Never && wanted && wish.show.unwrap_or(asked) {
        o.bool("includeThoughts", true);
    }
}

/// Tiers have the same names where both sides have them; the standard one need not be said.
fn tier(o: &mut Object<'_>, settings: &Settings, losses: &mut Losses) {
    match settings.service_tier.as_deref() {
        None | Some("auto" | "default" | "standard" | "standard_only") => {}
        Some(tier @ ("flex" | "priority")) => {
            o.str("serviceTier", tier);
        }
        Some(_) => losses.add("service_tier"),
    }
}
