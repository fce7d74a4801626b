//! Writes the settings of a chat request; messages and tools have their own files.

use crate::{
    base::json::writer::{self, ObjectWriter},
    dialect::{
        egress::{AttemptContext, EncodedRequest, TargetTraits, Thinking},
        losses::Losses,
        openai::{
            messages_write,
            names::{self, OpenaiToolNames},
            tools_write,
        },
    },
    ir::{
        extras::Extras,
        generation_settings::{Effort, GenerationSettings, ReasoningSettings, ResponseFormat},
        model_facts::ThinkingField,
        op::Dialect,
        request::ChatRequest,
    },
};

const DIALECT: Dialect = Dialect::Openai;

pub(super) fn write_request(request: &ChatRequest, traits: &TargetTraits) -> EncodedRequest {
    let names = OpenaiToolNames::for_request(request);
    let mut losses = Losses::default();
    let body = writer::object(|o| {
        o.str("model", &traits.model);
        o.array("messages", |a| {
            messages_write::write_messages(request, traits, &names, a, &mut losses);
        });
        tools_write::write_tools(
            &request.tools,
            request.tool_choice.as_ref(),
            &names,
            o,
            &mut losses,
        );
        write_settings(&request.settings, &request.extras, traits, o, &mut losses);
        if let Some(parallel) = request
            .settings
            .parallel_tools
            .filter(|_| request.tools.iter().any(|tool| tool.name().is_some()))
        {
            o.bool("parallel_tool_calls", parallel);
        }
        write_extras(&request.extras, o, &mut losses);
        if traits.stream {
            o.bool("stream", true);
            if traits.ask_usage {
                o.object("stream_options", |o| {
                    o.bool("include_usage", true);
                });
            }
        }
    });
    EncodedRequest {
        body: body.into(),
        headers: Vec::new(),
        losses: losses.into_vec(),
        context: AttemptContext {
            renamed_tools: names.into_vec(),
            call_id_seed: traits.call_id_seed.clone(),
        },
    }
}

fn write_settings(
    s: &GenerationSettings,
    extras: &Extras,
    traits: &TargetTraits,
    o: &mut ObjectWriter<'_>,
    losses: &mut Losses,
) {
    if let Some(limit) = s.max_tokens {
        // Providers reject a limit above the model's maximum, although no answer would be longer.
        let max = traits.max_output.filter(|max| *max < limit);
        losses.when(max.is_some(), "max_tokens");
        o.num(traits.max_tokens_field, max.unwrap_or(limit));
    }
    o.opt_raw("temperature", s.temperature.as_ref()).opt_raw("top_p", s.top_p.as_ref());
    o.opt_raw("frequency_penalty", s.frequency_penalty.as_ref())
        .opt_raw("presence_penalty", s.presence_penalty.as_ref());
    match s.stop.as_slice() {
        [] => {}
        [one] => {
            o.str("stop", one);
        }
        several => {
            o.array("stop", |a| {
                several.iter().for_each(|stop| {
                    a.str(stop);
                });
            });
        }
    }
    o.opt_raw("seed", s.seed.as_ref());
    match s.n {
        // aiproxy reads only one answer back, so the others would be paid for without use.
        Some(2..) => losses.add("n"),
        Some(n) => {
            o.num("n", n);
        }
        None => {}
    }
    if let Some(logprobs) = s.logprobs {
        o.bool("logprobs", logprobs);
    }
    if let Some(top) = s.top_logprobs {
        o.num("top_logprobs", top);
    }
    if extras.get(DIALECT, "response_format").is_none() {
        s.format.iter().for_each(|format| write_format(format, o));
    }
    o.opt_str("verbosity", s.verbosity.as_deref())
        .opt_str("prompt_cache_key", s.prompt_cache_key.as_deref());
    if extras.get(DIALECT, "safety_identifier").is_none()
        || s.user.as_deref() != extra_text(extras, "safety_identifier").as_deref()
    {
        o.opt_str("user", s.user.as_deref());
    }
    write_service_tier(s, extras, o, losses);
    // The extras contain these fields if the request came in this dialect. Otherwise they are
    // losses, because the dialect's providers may reject them.
    for (field, is_set) in [
        ("top_k", s.top_k.is_some()),
        ("min_p", s.min_p.is_some()),
        ("repetition_penalty", s.repetition_penalty.is_some()),
        ("metadata", s.metadata.is_some()),
    ] {
        if is_set && extras.get(DIALECT, field).is_none() {
            losses.add(field);
        }
    }
    if let Some(reasoning) = &s.reasoning
        && !REASONING_FIELDS.iter().any(|key| extras.get(DIALECT, key).is_some())
    {
        write_reasoning(reasoning, traits, o, losses);
    }
}

/// Writes the tier if it is one of this dialect.
fn write_service_tier(
    s: &GenerationSettings,
    extras: &Extras,
    o: &mut ObjectWriter<'_>,
    losses: &mut Losses,
) {
    const SERVICE_TIERS: [&str; 5] = ["auto", "default", "flex", "priority", "scale"];
    if let Some(tier) =
        s.service_tier.as_deref().filter(|_| extras.get(DIALECT, "service_tier").is_none())
    {
        match SERVICE_TIERS.contains(&tier) {
            true => {
                o.str("service_tier", tier);
            }
            false => losses.add("service_tier"),
        }
    }
}

/// Fields in which this dialect's clients set the amount of reasoning.
const REASONING_FIELDS: [&str; 7] = [
    "reasoning_effort",
    "reasoning",
    "thinking",
    "enable_thinking",
    "thinking_budget",
    "include_reasoning",
    "chat_template_kwargs",
];

fn extra_text(extras: &Extras, key: &str) -> Option<String> {
    extras.get(DIALECT, key)?.json().string()
}

fn write_reasoning(
    reasoning: &ReasoningSettings,
    traits: &TargetTraits,
    o: &mut ObjectWriter<'_>,
    losses: &mut Losses,
) {
    if reasoning.show_thoughts == Some(false) {
        losses.add("reasoning.show");
    }
    if reasoning.summary.is_some() {
        losses.add("reasoning.summary");
    }
    if write_thinking_field(reasoning, traits, o) == Some(false) {
        return;
    }
    let effort = match (traits.thinking, reasoning.effort, reasoning.enabled) {
        (Thinking::Unsupported, ..) => {
            if reasoning.effective_effort().is_some_and(|level| level > Effort::None)
                || reasoning.adaptive
            {
                losses.add("reasoning");
            }
            return;
        }
        (_, Some(effort), Some(true) | None) => Some(effort),
        (Thinking::Effort, _, Some(false)) => Some(Effort::None),
        // A token budget becomes at most the highest level that every reasoning model knows.
        (_, None, _) if reasoning.effective_effort() > Some(Effort::None) => {
            reasoning.effective_effort().map(|level| level.min(Effort::High))
        }
        (Thinking::Effort, ..) => reasoning.effective_effort(),
        (Thinking::Budget, ..) => {
            if reasoning.effective_effort() == Some(Effort::None) {
                losses.add("reasoning.enabled");
            }
            None
        }
    };
    if let Some(effort) = effort {
        // Without known words, the highest that the API defines is the limit.
        let highest = if traits.facts.efforts.is_some() { Effort::Max } else { Effort::XHigh };
        o.str("reasoning_effort", effort.min(highest).name());
    }
}

/// Writes the provider's own field that turns thinking on and off; returns what it wrote.
fn write_thinking_field(
    reasoning: &ReasoningSettings,
    traits: &TargetTraits,
    o: &mut ObjectWriter<'_>,
) -> Option<bool> {
    let field = traits.facts.thinking_field?;
    let thinks = reasoning
        .effective_effort()
        .map(|effort| effort > Effort::None)
        .or(reasoning.enabled)
        .or(reasoning.adaptive.then_some(true))?;
    match field {
        ThinkingField::EnableThinking => {
            o.bool("enable_thinking", thinks);
        }
        ThinkingField::Thinking => {
            o.object("thinking", |o| {
                o.str("type", if thinks { "enabled" } else { "disabled" });
            });
        }
    }
    Some(thinks)
}

fn write_format(format: &ResponseFormat, o: &mut ObjectWriter<'_>) {
    o.object("response_format", |o| match format {
        ResponseFormat::Text => {
            o.str("type", "text");
        }
        ResponseFormat::Json => {
            o.str("type", "json_object");
        }
        ResponseFormat::Schema { name, description, schema, strict } => {
            o.str("type", "json_schema").object("json_schema", |o| {
                let name = name.as_deref().filter(|name| !name.is_empty()).unwrap_or("answer");
                o.str("name", &names::to_valid_name(name))
                    .opt_str("description", description.as_deref());
                o.raw("schema", schema);
                if let Some(strict) = strict {
                    o.bool("strict", *strict);
                }
            });
        }
    });
}

/// Writes the fields that came in this dialect, except those of the legacy endpoint.
fn write_extras(extras: &Extras, o: &mut ObjectWriter<'_>, losses: &mut Losses) {
    const COMPLETIONS_ONLY: [&str; 2] = ["best_of", "echo"];
    for field in COMPLETIONS_ONLY {
        if extras.get(DIALECT, field).is_some() {
            losses.add(field);
        }
    }
    extras.write_except(|key| COMPLETIONS_ONLY.contains(&key), DIALECT, o, |key| losses.add(key));
}
