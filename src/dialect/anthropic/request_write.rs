//! Writes upstream requests.

use crate::{
    base::json::{
        raw::RawJson,
        reader::JsonRef,
        writer::{self, ObjectWriter},
    },
    dialect::{
        anthropic::{
            arrange_turns::{self, ArrangedBlock, ArrangedContent},
            blocks_write,
            names::AnthropicToolNames,
            reasoning_write::{self, ThinkingPlan},
            schema::{self, SchemaFit},
            tools_write,
        },
        egress::{AttemptContext, EncodedRequest, TargetTraits},
        losses::Losses,
    },
    ir::{
        generation_settings::{GenerationSettings, ResponseFormat},
        op::Dialect,
        request::ChatRequest,
        tool::ToolChoice,
    },
};

const DIALECT: Dialect = Dialect::Anthropic;

/// Extras whose remaining members are written together with the fields that the settings fill.
const MERGED_EXTRAS: [&str; 2] = ["metadata", "output_config"];

/// The instruction that is added after the system prompt to ask for JSON, because this dialect has
/// no mode that only promises JSON.
const JSON_INSTRUCTION: &str =
    "Answer with one JSON value and nothing else: no words around it, no code fence.";
/// The instruction that is added if the schema contains more than the provider can enforce.
const SCHEMA_INSTRUCTION: &str = "Answer with one JSON value that follows this JSON Schema, and nothing else: no words around it, no code fence.\n";

pub(super) fn write_request(request: &ChatRequest, traits: &TargetTraits) -> EncodedRequest {
    let mut losses = Losses::default();
    let names = AnthropicToolNames::for_request(request, &tools_write::reserved_names(request));
    let mut conversation = arrange_turns::arrange_turns(request, &traits.call_id_seed, &mut losses);
    let plan = reasoning_write::plan_thinking(
        &request.settings,
        tools_write::forces_call(request),
        &conversation,
        traits,
        &mut losses,
    );
    let (format, instruction) = resolve_format(request.settings.format.as_ref(), &mut losses);
    if let Some(instruction) = instruction {
        conversation.system.push(ArrangedBlock {
            content: ArrangedContent::Text { text: instruction.into(), citations: &[] },
            cache: None,
            extras: None,
        });
    }
    let tools = tools_write::write_tools(request, &names, &mut losses);
    let body = writer::object(|o| {
        o.str("model", &traits.model).num("max_tokens", plan.max_tokens);
        if traits.stream {
            o.bool("stream", true);
        }
        if !conversation.system.is_empty() {
            o.raw_text(
                "system",
                &blocks_write::write_system(&conversation.system, &names, &mut losses),
            );
        }
        o.array("messages", |a| {
            for turn in &conversation.turns {
                a.raw_text(&blocks_write::write_turn(turn, &names, &mut losses));
            }
        });
        if !tools.is_empty() {
            o.raw_text("tools", &format!("[{}]", tools.join(",")));
            if let Some(choice) = tools_write::write_choice(request, &names) {
                o.raw_text("tool_choice", &choice);
            }
        } else if matches!(request.tool_choice, Some(ToolChoice::Named(_) | ToolChoice::Required)) {
            losses.add("tool_choice");
        }
        write_settings(o, request, &plan, format.as_deref(), &mut losses);
    });
    let carry = AttemptContext {
        renamed_tools: names.into_renamed(),
        call_id_seed: traits.call_id_seed.clone(),
    };
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
    plan: &ThinkingPlan,
    format: Option<&str>,
    losses: &mut Losses,
) {
    let settings = &request.settings;
    write_sampling(o, settings, plan.enabled, losses);
    let stop: Vec<&String> = settings.stop.iter().filter(|stop| !stop.trim().is_empty()).collect();
    if stop.len() < settings.stop.len() {
        losses.add("stop");
    }
    if !stop.is_empty() {
        o.array("stop_sequences", |a| {
            for stop in stop {
                a.str(stop);
            }
        });
    }
    if let Some(thinking) = &plan.thinking {
        o.raw_text("thinking", thinking);
    }
    write_merged_object(o, request, "output_config", |o| {
        o.opt_str("effort", plan.effort);
        if let Some(schema) = format {
            o.object("format", |o| {
                o.str("type", "json_schema").raw_text("schema", schema);
            });
        }
    });
    write_merged_object(o, request, "metadata", |o| {
        o.opt_str("user_id", settings.user.as_deref());
    });
    match settings.service_tier.as_deref() {
        Some("auto") => {
            o.str("service_tier", "auto");
        }
        Some("default" | "standard" | "standard_only") => {
            o.str("service_tier", "standard_only");
        }
        Some(_) => losses.add("service_tier"),
        None => {}
    }
    add_unsupported_losses(settings, losses);
    for (key, raw) in request.extras.iter() {
        if !request.extras.is_from(DIALECT) {
            losses.add(key);
        } else if !MERGED_EXTRAS.contains(&key) {
            o.raw(key, raw);
        }
    }
}

/// Writes an object whose members come partly from the settings and partly from the extras.
fn write_merged_object(
    o: &mut ObjectWriter<'_>,
    request: &ChatRequest,
    key: &str,
    build: impl FnOnce(&mut ObjectWriter<'_>),
) {
    let text = writer::object(|o| {
        build(o);
        for (key, value) in
            request.extras.get(DIALECT, key).into_iter().flat_map(|rest| rest.json().members())
        {
            o.json(key, value);
        }
    });
    if text != "{}" {
        o.raw_text(key, &text);
    }
}

/// Writes the sampling settings. While it thinks, a model accepts only temperature 1, no `top_k`,
/// and a `top_p` close to 1.
fn write_sampling(
    o: &mut ObjectWriter<'_>,
    settings: &GenerationSettings,
    thinks: bool,
    losses: &mut Losses,
) {
    let value = |raw: &Option<RawJson>| raw.as_ref().and_then(|raw| raw.text().parse::<f64>().ok());
    let (temperature, top_p) = (value(&settings.temperature), value(&settings.top_p));
    match (temperature, &settings.temperature) {
        (Some(1.0), Some(raw)) => {
            o.raw("temperature", raw);
        }
        (Some(_), _) if thinks => losses.add("temperature"),
        // Other dialects allow up to 2.
        (Some(warm), _) if warm > 1.0 => {
            losses.add("temperature");
            o.num("temperature", 1);
        }
        (Some(_), Some(raw)) => {
            o.raw("temperature", raw);
        }
        _ => {}
    }
    match (top_p, &settings.top_p) {
        (Some(top_p), _) if thinks && !(0.95..=1.0).contains(&top_p) => losses.add("top_p"),
        // A `top_p` of 1 has no effect, and some models accept only one of the two settings.
        (Some(1.0), _) if temperature.is_some() => {}
        (Some(_), Some(raw)) => {
            o.raw("top_p", raw);
        }
        _ => {}
    }
    match &settings.top_k {
        Some(_) if thinks => losses.add("top_k"),
        Some(raw) => {
            o.raw("top_k", raw);
        }
        None => {}
    }
}

/// Adds a loss for each setting that this dialect does not support, unless it has its default
/// value.
fn add_unsupported_losses(settings: &GenerationSettings, losses: &mut Losses) {
    let differs = |raw: &Option<RawJson>, default: f64| {
        raw.as_ref().is_some_and(|raw| raw.text().parse::<f64>().ok() != Some(default))
    };
    for (field, is_set) in [
        ("min_p", differs(&settings.min_p, 0.0)),
        ("frequency_penalty", differs(&settings.frequency_penalty, 0.0)),
        ("presence_penalty", differs(&settings.presence_penalty, 0.0)),
        ("repetition_penalty", differs(&settings.repetition_penalty, 1.0)),
        ("seed", settings.seed.is_some()),
        ("n", settings.n.is_some_and(|n| n > 1)),
        ("logprobs", settings.logprobs == Some(true)),
        ("top_logprobs", settings.top_logprobs.is_some_and(|n| n > 0)),
        ("verbosity", settings.verbosity.as_deref().is_some_and(|it| it != "medium")),
        ("metadata", settings.metadata.as_ref().is_some_and(|it| !JsonRef::is_blank(it.json()))),
        ("prompt_cache_key", settings.prompt_cache_key.is_some()),
    ] {
        if is_set {
            losses.add(field);
        }
    }
}

/// Returns the schema to enforce, or the instruction that asks for it.
fn resolve_format(
    format: Option<&ResponseFormat>,
    losses: &mut Losses,
) -> (Option<String>, Option<String>) {
    match format {
        None | Some(ResponseFormat::Text) => (None, None),
        Some(ResponseFormat::Json) => (None, Some(JSON_INSTRUCTION.to_owned())),
        Some(ResponseFormat::Schema { name, description, schema, .. }) => {
            match schema::to_strict_subset(schema.text(), name.as_deref(), description.as_deref()) {
                SchemaFit::Exact(schema) => (Some(schema), None),
                SchemaFit::Relaxed(schema) => {
                    losses.add("response_format.schema");
                    (Some(schema), None)
                }
                SchemaFit::Unsupported => {
                    losses.add("response_format");
                    (None, Some(format!("{SCHEMA_INSTRUCTION}{}", schema.text())))
                }
            }
        }
    }
}
