//! Writes a conversation as a request of this API.

use crate::{
    base::json::{raw::RawJson, writer},
    dialect::{
        egress::{AttemptContext, EncodedRequest, TargetTraits, Thinking},
        losses::Losses,
        responses::{
            input_write::InputItemsWriter,
            items_read::{DIALECT, ITEM_NOTE},
            request_read::{INCLUDE_ENCRYPTED_REASONING, INCLUDE_LOGPROBS, UNOFFICIAL_SETTINGS},
            tools::additional,
            tools::names::ResponsesToolNames,
            tools::write,
        },
    },
    ir::{
        block::BlockKind,
        generation_settings::{Effort, ReasoningSettings, ResponseFormat},
        request::ChatRequest,
    },
};

/// The smallest output limit that the API accepts.
const MIN_OUTPUT_TOKENS: u64 = 16;
/// The longest user name that the API accepts.
const MAX_USER_LEN: usize = 64;

pub(super) fn write_request(request: &ChatRequest, traits: &TargetTraits) -> EncodedRequest {
    let mut losses = Losses::default();
    let names = ResponsesToolNames::from_request(request);
    let tools = write::write_tools(request, &names, &mut losses);
    let mut items = InputItemsWriter::new(request, &names, traits, &mut losses);
    items.write_all();
    let input = additional::put_back(&request.extras, items.items);
    let settings = &request.settings;
    let same_dialect = request.extras.is_from(DIALECT);
    let body = writer::object(|o| {
        o.str("model", &traits.model);
        if let Some(text) = instructions_text(request, &mut losses) {
            o.str("instructions", &text);
        }
        o.array("input", |a| {
            for item in &input {
                a.raw_text(item);
            }
        });
        if !tools.is_empty() {
            o.array("tools", |a| {
                for tool in &tools {
                    a.raw_text(tool);
                }
            });
        }
        if let Some(choice) = write::write_choice(request, &names, &mut losses) {
            o.raw_text("tool_choice", &choice);
        }
        if let Some(parallel) =
            settings.parallel_tools.filter(|_| same_dialect || !tools.is_empty())
        {
            o.bool("parallel_tool_calls", parallel);
        }
        if let Some(limit) = settings.max_tokens {
            let max = traits.max_output.unwrap_or(u64::MAX).max(MIN_OUTPUT_TOKENS);
            let clamped = limit.clamp(MIN_OUTPUT_TOKENS, max);
            losses.when(clamped != limit, "max_tokens");
            o.num("max_output_tokens", clamped);
        }
        o.opt_raw("temperature", settings.temperature.as_ref())
            .opt_raw("top_p", settings.top_p.as_ref());
        if let Some(count) = settings.top_logprobs {
            o.num("top_logprobs", count);
        }
        write_text_options(request, o);
        write_reasoning(request, traits, o, &mut losses);
        write_service_tier(request, same_dialect, o, &mut losses);
        o.opt_raw("metadata", settings.metadata.as_ref());
        o.opt_str("prompt_cache_key", settings.prompt_cache_key.as_deref());
        write_user(request, same_dialect, o, &mut losses);
        write_unofficial_settings(request, o, &mut losses);
        write_include(request, traits, o);
        match request.extras.get(DIALECT, "store") {
            Some(stored) => o.raw("store", stored),
            // Only stored responses can run in the background.
            None if request
                .extras
                .get(DIALECT, "background")
                .is_some_and(|raw| raw.text() == "true") =>
            {
                &mut *o
            }
            None => o.bool("store", false),
        };
        if traits.stream {
            o.bool("stream", true);
            o.opt_raw("stream_options", request.extras.get(DIALECT, "stream_options"));
        }
        write_extras(request, same_dialect, o, &mut losses);
    });
    EncodedRequest {
        body: body.into(),
        headers: Vec::new(),
        losses: losses.into_vec(),
        context: AttemptContext {
            renamed_tools: names.into_renamed(),
            call_id_seed: traits.call_id_seed.clone(),
        },
    }
}

/// The system prompt, up to the first block that came from an item.
fn instructions_text(request: &ChatRequest, losses: &mut Losses) -> Option<String> {
    let mut out: Option<String> = None;
    for block in
        request.system.iter().take_while(|block| block.extras.get(DIALECT, ITEM_NOTE).is_none())
    {
        if block.cache.is_some() {
            losses.add("system.cache_control");
        }
        match &block.kind {
            BlockKind::Text(text) => {
                let out = out.get_or_insert_default();
                if !out.is_empty() && !text.text.is_empty() {
                    out.push_str("\n\n");
                }
                out.push_str(&text.text);
            }
            _ => losses.add("system.media"),
        }
        for (key, _) in block.extras.iter() {
            losses.add(format!("system.{key}"));
        }
    }
    out
}

fn write_text_options(request: &ChatRequest, o: &mut writer::ObjectWriter<'_>) {
    let settings = &request.settings;
    let more: Vec<_> = request
        .extras
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix("text.")?, value)))
        .collect();
    let more = if request.extras.is_from(DIALECT) { more } else { Vec::new() };
    if settings.format.is_none() && settings.verbosity.is_none() && more.is_empty() {
        return;
    }
    o.object("text", |o| {
        if let Some(format) = &settings.format {
            o.object("format", |o| match format {
                ResponseFormat::Text => {
                    o.str("type", "text");
                }
                ResponseFormat::Json => {
                    o.str("type", "json_object");
                }
                ResponseFormat::Schema { name, description, schema, strict } => {
                    o.str("type", "json_schema").str("name", name.as_deref().unwrap_or("answer"));
                    o.opt_str("description", description.as_deref()).raw("schema", schema);
                    if let Some(strict) = strict {
                        o.bool("strict", *strict);
                    }
                }
            });
        }
        o.opt_str("verbosity", settings.verbosity.as_deref());
        for (key, value) in more {
            o.raw(key, value);
        }
    });
}

fn write_reasoning(
    request: &ChatRequest,
    traits: &TargetTraits,
    o: &mut writer::ObjectWriter<'_>,
    losses: &mut Losses,
) {
    let same_dialect = request.extras.is_from(DIALECT);
    let more = request
        .extras
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix("reasoning.")?, value)));
    let more: Vec<_> = more.filter(|_| same_dialect).collect();
    let requested = request.settings.reasoning.as_ref();
    if requested.is_none() && more.is_empty() {
        return;
    }
    if traits.thinking == Thinking::Unsupported && !same_dialect {
        losses.add("reasoning");
        return;
    }
    let effort = requested.and_then(effort_name);
    let off = requested.is_some_and(|wish| wish.enabled == Some(false));
    if off && effort.is_none() {
        // No value turns reasoning off for all models.
        losses.add("reasoning");
    }
    let summary = requested.and_then(|wish| match &wish.summary {
        Some(word) => Some(word.as_str()),
        None if same_dialect
            || off
            || effort == Some("none")
            || wish.show_thoughts == Some(false) =>
        {
            None
        }
        None => Some("auto"),
    });
    if effort.is_none() && summary.is_none() && more.is_empty() && !same_dialect {
        return;
    }
    o.object("reasoning", |o| {
        o.opt_str("effort", effort).opt_str("summary", summary);
        for (key, value) in more {
            o.raw(key, value);
        }
    });
}

fn effort_name(wish: &ReasoningSettings) -> Option<&'static str> {
    match (wish.effort, wish.budget_tokens) {
        (Some(effort), _) => Some(effort.name()),
        (None, _) if wish.enabled == Some(false) => None,
        // Few models support more than `high`.
        (None, budget) => budget
            .map(Effort::from_budget_tokens)
            .map(|effort| effort.clamp(Effort::Low, Effort::High).name()),
    }
}

fn write_service_tier(
    request: &ChatRequest,
    same_dialect: bool,
    o: &mut writer::ObjectWriter<'_>,
    losses: &mut Losses,
) {
    match request.settings.service_tier.as_deref() {
        None => {}
        Some("standard_only" | "standard") if !same_dialect => {
            o.str("service_tier", "default");
        }
        Some(tier)
            if same_dialect || ["auto", "default", "flex", "priority", "scale"].contains(&tier) =>
        {
            o.str("service_tier", tier);
        }
        Some(_) => losses.add("service_tier"),
    }
}

fn write_user(
    request: &ChatRequest,
    same_dialect: bool,
    o: &mut writer::ObjectWriter<'_>,
    losses: &mut Losses,
) {
    let Some(user) = request.settings.user.as_deref() else { return };
    let safety = request.extras.get(DIALECT, "safety_identifier");
    if let Some(safety) = safety {
        o.raw("safety_identifier", safety);
    }
    if safety.is_some_and(|safety| safety.json().str().as_deref() == Some(user)) {
        return;
    }
    if same_dialect || user.len() <= MAX_USER_LEN {
        o.str("user", user);
    } else {
        losses.add("user");
    }
}

fn write_unofficial_settings(
    request: &ChatRequest,
    o: &mut writer::ObjectWriter<'_>,
    losses: &mut Losses,
) {
    let settings = &request.settings;
    let raws = [
        ("frequency_penalty", settings.frequency_penalty.is_some()),
        ("presence_penalty", settings.presence_penalty.is_some()),
        ("repetition_penalty", settings.repetition_penalty.is_some()),
        ("top_k", settings.top_k.is_some()),
        ("min_p", settings.min_p.is_some()),
        ("seed", settings.seed.is_some()),
        ("stop", !settings.stop.is_empty()),
        ("n", settings.n.is_some_and(|n| n > 1)),
    ];
    for key in UNOFFICIAL_SETTINGS {
        match request.extras.get(DIALECT, key) {
            Some(value) => {
                o.raw(key, value);
            }
            None if raws.contains(&(key, true)) => losses.add(key),
            None => {}
        }
    }
}

fn write_include(request: &ChatRequest, traits: &TargetTraits, o: &mut writer::ObjectWriter<'_>) {
    let mut included: Vec<RawJson> = request
        .extras
        .get(DIALECT, "include")
        .into_iter()
        .flat_map(|list| list.json().items().map(RawJson::from_json).collect::<Vec<_>>())
        .collect();
    let mut add = |name: &str| {
        let raw = RawJson::string(name);
        if !included.contains(&raw) {
            included.push(raw);
        }
    };
    let stored = request.extras.get(DIALECT, "store").is_some_and(|raw| raw.text() == "true");
    if traits.thinking != Thinking::Unsupported && !stored {
        add(INCLUDE_ENCRYPTED_REASONING);
    }
    if request.settings.logprobs == Some(true)
        || request.settings.top_logprobs.is_some_and(|count| count > 0)
    {
        add(INCLUDE_LOGPROBS);
    }
    if !included.is_empty() || request.extras.get(DIALECT, "include").is_some() {
        o.array("include", |a| {
            for name in &included {
                a.raw(name);
            }
        });
    }
}

fn write_extras(
    request: &ChatRequest,
    same_dialect: bool,
    o: &mut writer::ObjectWriter<'_>,
    losses: &mut Losses,
) {
    for key in ["truncation", "background"].into_iter().filter(|_| same_dialect) {
        // If the extras list it as a field, the loop below writes it.
        let noted = request.extras.iter().all(|(name, _)| name != key);
        o.opt_raw(key, request.extras.get(DIALECT, key).filter(|_| noted));
    }
    for (key, value) in request.extras.iter() {
        if !same_dialect {
            losses.add(key);
        } else if key != "include" && !key.contains('.') {
            o.raw(key, value);
        }
    }
}
