//! Writes chat requests from the common form.

use crate::{
    base::json::writer::{self, ArrayWriter, ObjectWriter},
    dialect::{
        egress::{AttemptContext, EncodedRequest, TargetTraits, Thinking},
        losses::Losses,
        ollama::{messages_write::write_messages, schema},
    },
    ir::{
        generation_settings::{Effort, ReasoningSettings, ResponseFormat},
        op::Dialect,
        request::ChatRequest,
        tool::{FunctionTool, Tool, ToolChoice},
    },
};

const DIALECT: Dialect = Dialect::Ollama;

pub(super) fn write_request(request: &ChatRequest, traits: &TargetTraits) -> EncodedRequest {
    let mut losses = Losses::default();
    let choice = request.tool_choice.as_ref();
    // Ollama has no tool choice, but the model cannot call a tool that the request omits.
    let tools: &[Tool] = if choice == Some(&ToolChoice::None) { &[] } else { &request.tools };
    losses
        .when(!tools.is_empty() && !matches!(choice, None | Some(ToolChoice::Auto)), "tool_choice");
    let body = writer::object(|o| {
        o.str("model", &traits.model);
        o.array("messages", |a| write_messages(a, request, &mut losses));
        if !tools.is_empty() {
            o.array("tools", |a| write_tools(a, tools, &mut losses));
        }
        o.bool("stream", traits.stream);
        write_settings(o, request, traits, &mut losses);
        for (key, value) in request.extras.iter() {
            if !request.extras.is_from(DIALECT) {
                losses.add(key);
            } else if !key.starts_with("options.") {
                o.raw(key, value);
            }
        }
    });
    let carry =
        AttemptContext { renamed_tools: Vec::new(), call_id_seed: traits.call_id_seed.clone() };
    EncodedRequest {
        body: body.into(),
        headers: Vec::new(),
        losses: losses.into_vec(),
        context: carry,
    }
}

fn write_settings(
    o: &mut ObjectWriter<'_>,
    request: &ChatRequest,
    traits: &TargetTraits,
    losses: &mut Losses,
) {
    let settings = &request.settings;
    match &settings.format {
        Some(ResponseFormat::Json) => {
            o.str("format", "json");
        }
        Some(ResponseFormat::Schema { schema, .. }) => {
            o.raw("format", schema);
        }
        Some(ResponseFormat::Text) | None => {}
    }
    if let Some(wish) = &settings.reasoning {
        write_think(o, wish, traits.thinking, losses);
    }
    if let Some(yes) = settings.logprobs {
        o.bool("logprobs", yes);
    }
    if let Some(count) = settings.top_logprobs {
        o.num("top_logprobs", count);
    }
    let options = writer::object(|o| {
        if let Some(limit) = settings.max_tokens {
            o.num("num_predict", limit);
        }
        o.opt_raw("temperature", settings.temperature.as_ref())
            .opt_raw("top_p", settings.top_p.as_ref())
            .opt_raw("top_k", settings.top_k.as_ref())
            .opt_raw("min_p", settings.min_p.as_ref())
            .opt_raw("frequency_penalty", settings.frequency_penalty.as_ref())
            .opt_raw("presence_penalty", settings.presence_penalty.as_ref())
            .opt_raw("repeat_penalty", settings.repetition_penalty.as_ref())
            .opt_raw("seed", settings.seed.as_ref());
        if !settings.stop.is_empty() {
            o.array("stop", |a| {
                for stop in &settings.stop {
                    a.str(stop);
                }
            });
        }
        for (key, value) in request.extras.iter() {
            let option = key.strip_prefix("options.");
            if let Some(option) = option.filter(|_| request.extras.is_from(DIALECT)) {
                o.raw(option, value);
            }
        }
    });
    if options != "{}" {
        o.raw_text("options", &options);
    }
    losses.when(settings.n.is_some_and(|n| n > 1), "n");
    losses.when(settings.verbosity.is_some(), "verbosity");
    losses.when(settings.service_tier.is_some(), "service_tier");
    losses.when(settings.user.is_some(), "user");
    losses.when(settings.metadata.is_some(), "metadata");
    losses.when(settings.prompt_cache_key.is_some(), "prompt_cache_key");
    losses.when(settings.parallel_tools == Some(false), "parallel_tool_calls");
}

/// Models with effort levels use the level; the others treat every level as `true`.
fn write_think(
    o: &mut ObjectWriter<'_>,
    wish: &ReasoningSettings,
    thinking: Thinking,
    losses: &mut Losses,
) {
    if wish.effective_effort() == Some(Effort::None) {
        o.bool("think", false);
        return;
    }
    let requested =
        wish.enabled == Some(true) || wish.adaptive || wish.effective_effort().is_some();
    if !requested {
        return;
    }
    let level = match (thinking, wish.effort, wish.effective_effort()) {
        (Thinking::Unsupported, ..) => {
            losses.add("reasoning");
            return;
        }
        (_, Some(effort), _) | (Thinking::Effort, None, Some(effort)) => effort,
        (_, None, level) => {
            losses.when(level.is_some(), "reasoning.budget_tokens");
            o.bool("think", true);
            return;
        }
    };
    o.str(
        "think",
        match level {
            Effort::None | Effort::Minimal | Effort::Low => "low",
            Effort::Medium => "medium",
            Effort::High | Effort::XHigh | Effort::Max => "high",
        },
    );
}

fn write_tools(a: &mut ArrayWriter<'_>, tools: &[Tool], losses: &mut Losses) {
    for tool in tools {
        match tool {
            Tool::Function(tool) => write_function(a, tool, losses),
            Tool::Custom(tool) => {
                tool.extras.iter().for_each(|(key, _)| losses.add(format!("tools.{key}")));
                write_function(a, &tool.as_function(), losses);
            }
            Tool::Hosted(tool) if tool.dialect == DIALECT => {
                a.raw(&tool.body);
            }
            Tool::Hosted(tool) => losses.add_hosted_tool(tool.kind),
        }
    }
}

fn write_function(a: &mut ArrayWriter<'_>, tool: &FunctionTool, losses: &mut Losses) {
    losses.when(tool.strict == Some(true), "tools.strict");
    losses.when(tool.cache.is_some(), "tools.cache_control");
    a.object(|o| {
        o.str("type", "function").object("function", |o| {
            o.str("name", &tool.name).opt_str("description", tool.description.as_deref());
            o.raw_text("parameters", &schema::tool_parameters(tool.schema.as_ref()));
            tool.extras.write(DIALECT, o, |key| losses.add(format!("tools.{key}")));
        });
    });
}
