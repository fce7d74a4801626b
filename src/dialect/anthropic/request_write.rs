//! Requests to upstreams.

use crate::{
    base::{
        json::JsonRef,
        raw::RawJson,
        write::{self, ObjectWriter},
    },
    dialect::{
        Carry, Encoded, Traits,
        anthropic::{
            blocks_write,
            names::Names,
            schema::{self, Fit},
            thinking::{self, Plan},
            tools_write,
            turns::{self, Piece, What},
        },
        losses::Losses,
    },
    ir::{
        op::Dialect,
        request::ChatRequest,
        settings::{GenerationSettings, ResponseFormat},
        tool::ToolChoice,
    },
};

const ME: Dialect = Dialect::Anthropic;

/// Extras whose rest is written together with what the settings say.
const SHARED: [&str; 2] = ["metadata", "output_config"];

/// This dialect has no mode that only promises JSON; the model is asked for it, after the system
/// prompt.
const JSON_WISH: &str =
    "Answer with one JSON value and nothing else: no words around it, no code fence.";
/// The same, where the schema says more than the provider can enforce.
const SCHEMA_WISH: &str = "Answer with one JSON value that follows this JSON Schema, and nothing else: no words around it, no code fence.\n";

pub(super) fn write(request: &ChatRequest, traits: &Traits) -> Encoded {
    let mut lost = Losses::default();
    let names = Names::of(request, &tools_write::fixed_names(request));
    let mut conversation = turns::arrange(request, &traits.seed, &mut lost);
    let plan = thinking::plan(
        &request.settings,
        tools_write::forced(request),
        &conversation,
        traits,
        &mut lost,
    );
    let (format, wish) = format(request.settings.format.as_ref(), &mut lost);
    if let Some(wish) = wish {
        conversation.system.push(Piece {
            what: What::Text { text: wish.into(), citations: &[] },
            cache: None,
            extras: None,
        });
    }
    let tools = tools_write::tools(request, &names, &mut lost);
    let body = write::object(|o| {
        o.str("model", &traits.model).num("max_tokens", plan.max_tokens);
        if traits.stream {
            o.bool("stream", true);
        }
        if !conversation.system.is_empty() {
            o.raw_text("system", &blocks_write::system(&conversation.system, &names, &mut lost));
        }
        o.array("messages", |a| {
            for turn in &conversation.turns {
                a.raw_text(&blocks_write::turn(turn, &names, &mut lost));
            }
        });
        if !tools.is_empty() {
            o.raw_text("tools", &format!("[{}]", tools.join(",")));
            if let Some(choice) = tools_write::choice(request, &names) {
                o.raw_text("tool_choice", &choice);
            }
        } else if matches!(request.tool_choice, Some(ToolChoice::Named(_) | ToolChoice::Required)) {
            lost.add("tool_choice");
        }
        settings(o, request, &plan, format.as_deref(), &mut lost);
    });
    let carry = Carry { renamed: names.into_renamed(), seed: traits.seed.clone() };
    Encoded { body: body.into(), headers: Vec::new(), losses: lost.into_vec(), carry }
}

fn settings(
    o: &mut ObjectWriter<'_>,
    request: &ChatRequest,
    plan: &Plan,
    format: Option<&str>,
    lost: &mut Losses,
) {
    let settings = &request.settings;
    sampling(o, settings, plan.on, lost);
    let stop: Vec<&String> = settings.stop.iter().filter(|stop| !stop.trim().is_empty()).collect();
    if stop.len() < settings.stop.len() {
        lost.add("stop");
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
    shared(o, request, "output_config", |o| {
        o.opt_str("effort", plan.effort);
        if let Some(schema) = format {
            o.object("format", |o| {
                o.str("type", "json_schema").raw_text("schema", schema);
            });
        }
    });
    shared(o, request, "metadata", |o| {
        o.opt_str("user_id", settings.user.as_deref());
    });
    match settings.service_tier.as_deref() {
        Some("auto") => {
            o.str("service_tier", "auto");
        }
        Some("default" | "standard" | "standard_only") => {
            o.str("service_tier", "standard_only");
        }
        Some(_) => lost.add("service_tier"),
        None => {}
    }
    unknown(settings, lost);
    for (key, raw) in request.extras.iter() {
        if request.extras.get(ME, key).is_none() {
            lost.add(key);
        } else if !SHARED.contains(&key) {
            o.raw(key, raw);
        }
    }
}

/// An object of which the settings tell a part and the extras the rest.
fn shared(
    o: &mut ObjectWriter<'_>,
    request: &ChatRequest,
    key: &str,
    build: impl FnOnce(&mut ObjectWriter<'_>),
) {
    let text = write::object(|o| {
        build(o);
        for (key, value) in
            request.extras.get(ME, key).into_iter().flat_map(|rest| rest.json().members())
        {
            o.json(key, value);
        }
    });
    if text != "{}" {
        o.raw_text(key, &text);
    }
}

/// While it thinks, a model takes no other temperature than 1, no `top_k`, and `top_p` only close
/// to 1.
fn sampling(
    o: &mut ObjectWriter<'_>,
    settings: &GenerationSettings,
    thinks: bool,
    lost: &mut Losses,
) {
    let value = |raw: &Option<RawJson>| raw.as_ref().and_then(|raw| raw.text().parse::<f64>().ok());
    let (temperature, top_p) = (value(&settings.temperature), value(&settings.top_p));
    match (temperature, &settings.temperature) {
        (Some(1.0), Some(raw)) => {
            o.raw("temperature", raw);
        }
        (Some(_), _) if thinks => lost.add("temperature"),
        // Other dialects go up to 2.
        (Some(warm), _) if warm > 1.0 => {
            lost.add("temperature");
            o.num("temperature", 1);
        }
        (Some(_), Some(raw)) => {
            o.raw("temperature", raw);
        }
        _ => {}
    }
    match (top_p, &settings.top_p) {
        (Some(top_p), _) if thinks && !(0.95..=1.0).contains(&top_p) => lost.add("top_p"),
        // It says nothing, and some models take only one of the two.
        (Some(1.0), _) if temperature.is_some() => {}
        (Some(_), Some(raw)) => {
            o.raw("top_p", raw);
        }
        _ => {}
    }
    match &settings.top_k {
        Some(_) if thinks => lost.add("top_k"),
        Some(raw) => {
            o.raw("top_k", raw);
        }
        None => {}
    }
}

/// What this dialect has no words for, unless it says only the usual.
fn unknown(settings: &GenerationSettings, lost: &mut Losses) {
    let says = |raw: &Option<RawJson>, usual: f64| {
        raw.as_ref().is_some_and(|raw| raw.text().parse::<f64>().ok() != Some(usual))
    };
    for (field, said) in [
        ("min_p", says(&settings.min_p, 0.0)),
        ("frequency_penalty", says(&settings.frequency_penalty, 0.0)),
        ("presence_penalty", says(&settings.presence_penalty, 0.0)),
        ("repetition_penalty", says(&settings.repetition_penalty, 1.0)),
        ("seed", settings.seed.is_some()),
        ("n", settings.n.is_some_and(|n| n > 1)),
        ("logprobs", settings.logprobs == Some(true)),
        ("top_logprobs", settings.top_logprobs.is_some_and(|n| n > 0)),
        ("verbosity", settings.verbosity.as_deref().is_some_and(|it| it != "medium")),
        ("metadata", settings.metadata.as_ref().is_some_and(|it| !JsonRef::is_blank(it.json()))),
        ("prompt_cache_key", settings.prompt_cache_key.is_some()),
    ] {
        if said {
            lost.add(field);
        }
    }
}

/// The schema to enforce, or the words that ask for it.
fn format(format: Option<&ResponseFormat>, lost: &mut Losses) -> (Option<String>, Option<String>) {
    match format {
        None | Some(ResponseFormat::Text) => (None, None),
        Some(ResponseFormat::Json) => (None, Some(JSON_WISH.to_owned())),
        Some(ResponseFormat::Schema { name, description, schema, .. }) => {
            match schema::subset(schema.text(), name.as_deref(), description.as_deref()) {
                Fit::Whole(schema) => (Some(schema), None),
                Fit::Looser(schema) => {
                    lost.add("response_format.schema");
                    (Some(schema), None)
                }
                Fit::No => {
                    lost.add("response_format");
                    (None, Some(format!("{SCHEMA_WISH}{}", schema.text())))
                }
            }
        }
    }
}
