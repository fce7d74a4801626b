//! Writes a conversation as a request of this API.

use crate::{
    base::{raw::RawJson, write},
    dialect::{
        Carry, Encoded, Thinking, Traits,
        losses::Losses,
        responses::{
            input_write::Items,
            items_read::{ITEM, OWN},
            names::Names,
            request_read::{ENCRYPTED, LOGPROBS, UNOFFICIAL},
            tools_write,
        },
    },
    ir::{
        block::BlockKind,
        request::ChatRequest,
        settings::{Effort, ReasoningSettings, ResponseFormat},
    },
};

/// The API takes no smaller limit.
const LEAST_TOKENS: u64 = 16;
/// The API takes no longer name of a user.
const LONGEST_USER: usize = 64;

pub(super) fn write(request: &ChatRequest, traits: &Traits) -> Encoded {
    let mut losses = Losses::default();
    let names = Names::of(request);
    let tools = tools_write::tools(request, &names, &mut losses);
    let mut items = Items::new(request, &names, traits, &mut losses);
    items.all();
    let input = items.list;
    let settings = &request.settings;
    let own = request.extras.is_from(OWN);
    let body = write::object(|o| {
        o.str("model", &traits.model);
        if let Some(text) = instructions(request, &mut losses) {
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
        if let Some(choice) = tools_write::choice(request, &names) {
            o.raw_text("tool_choice", &choice);
        }
        if let Some(parallel) = settings.parallel_tools.filter(|_| own || !tools.is_empty()) {
            o.bool("parallel_tool_calls", parallel);
        }
        if let Some(limit) = settings.max_tokens {
            let most = traits.max_output.unwrap_or(u64::MAX).max(LEAST_TOKENS);
            let taken = limit.clamp(LEAST_TOKENS, most);
            losses.when(taken != limit, "max_tokens");
            o.num("max_output_tokens", taken);
        }
        o.opt_raw("temperature", settings.temperature.as_ref())
            .opt_raw("top_p", settings.top_p.as_ref());
        if let Some(count) = settings.top_logprobs {
            o.num("top_logprobs", count);
        }
        text(request, o);
        reasoning(request, traits, o, &mut losses);
        tier(request, own, o, &mut losses);
        o.opt_raw("metadata", settings.metadata.as_ref());
        o.opt_str("prompt_cache_key", settings.prompt_cache_key.as_deref());
        user(request, own, o, &mut losses);
        unofficial(request, o, &mut losses);
        include(request, traits, o);
        match request.extras.get(OWN, "store") {
            Some(said) => o.raw("store", said),
            // Only what is stored can run in the background.
            None if request
                .extras
                .get(OWN, "background")
                .is_some_and(|raw| raw.text() == "true") =>
            {
                &mut *o
            }
            None => o.bool("store", false),
        };
        if traits.stream {
            o.bool("stream", true);
            o.opt_raw("stream_options", request.extras.get(OWN, "stream_options"));
        }
        leftover(request, own, o, &mut losses);
    });
    Encoded {
        body: body.into(),
        headers: Vec::new(),
        losses: losses.into_vec(),
        carry: Carry { renamed: names.renamed(), seed: traits.seed.clone() },
    }
}

/// The system prompt, up to what was said as an item.
fn instructions(request: &ChatRequest, losses: &mut Losses) -> Option<String> {
    let mut out: Option<String> = None;
    for block in request.system.iter().take_while(|block| block.extras.get(OWN, ITEM).is_none()) {
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

fn text(request: &ChatRequest, o: &mut write::ObjectWriter<'_>) {
    let settings = &request.settings;
    let more: Vec<_> = request
        .extras
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix("text.")?, value)))
        .collect();
    let more = if request.extras.is_from(OWN) { more } else { Vec::new() };
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

fn reasoning(
    request: &ChatRequest,
    traits: &Traits,
    o: &mut write::ObjectWriter<'_>,
    losses: &mut Losses,
) {
    let own = request.extras.is_from(OWN);
    let more = request
        .extras
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix("reasoning.")?, value)));
    let more: Vec<_> = more.filter(|_| own).collect();
    let wish = request.settings.reasoning.as_ref();
    if wish.is_none() && more.is_empty() {
        return;
    }
    if traits.thinking == Thinking::Never && !own {
        losses.add("reasoning");
        return;
    }
    let effort = wish.and_then(effort);
    let off = wish.is_some_and(|wish| wish.enabled == Some(false));
    if off && effort.is_none() {
        // There is no word for it that all models take.
        losses.add("reasoning");
    }
    let summary = wish.and_then(|wish| match &wish.summary {
        Some(word) => Some(word.as_str()),
        None if own || off || effort == Some("none") || wish.show_thoughts == Some(false) => None,
        None => Some("auto"),
    });
    if effort.is_none() && summary.is_none() && more.is_empty() && !own {
        return;
    }
    o.object("reasoning", |o| {
        o.opt_str("effort", effort).opt_str("summary", summary);
        for (key, value) in more {
            o.raw(key, value);
        }
    });
}

fn effort(wish: &ReasoningSettings) -> Option<&'static str> {
    match (wish.effort, wish.budget_tokens) {
        (Some(effort), _) => Some(effort.name()),
        (None, _) if wish.enabled == Some(false) => None,
        // Few models know more than `high`.
        (None, budget) => budget
            .map(Effort::from_budget_tokens)
            .map(|effort| effort.clamp(Effort::Low, Effort::High).name()),
    }
}

fn tier(request: &ChatRequest, own: bool, o: &mut write::ObjectWriter<'_>, losses: &mut Losses) {
    match request.settings.service_tier.as_deref() {
        None => {}
        Some("standard_only" | "standard") if !own => {
            o.str("service_tier", "default");
        }
        Some(tier) if own || ["auto", "default", "flex", "priority", "scale"].contains(&tier) => {
            o.str("service_tier", tier);
        }
        Some(_) => losses.add("service_tier"),
    }
}

fn user(request: &ChatRequest, own: bool, o: &mut write::ObjectWriter<'_>, losses: &mut Losses) {
    let Some(user) = request.settings.user.as_deref() else { return };
    let safety = request.extras.get(OWN, "safety_identifier");
    if let Some(safety) = safety {
        o.raw("safety_identifier", safety);
    }
    if safety.is_some_and(|safety| safety.json().str().as_deref() == Some(user)) {
        return;
    }
    if own || user.len() <= LONGEST_USER {
        o.str("user", user);
    } else {
        losses.add("user");
    }
}

fn unofficial(request: &ChatRequest, o: &mut write::ObjectWriter<'_>, losses: &mut Losses) {
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
    for key in UNOFFICIAL {
        match request.extras.get(OWN, key) {
            Some(said) => {
                o.raw(key, said);
            }
            None if raws.contains(&(key, true)) => losses.add(key),
            None => {}
        }
    }
}

fn include(request: &ChatRequest, traits: &Traits, o: &mut write::ObjectWriter<'_>) {
    let mut wished: Vec<RawJson> = request
        .extras
        .get(OWN, "include")
        .into_iter()
        .flat_map(|list| list.json().items().map(RawJson::from_json).collect::<Vec<_>>())
        .collect();
    let mut add = |name: &str| {
        let raw = RawJson::string(name);
        if !wished.contains(&raw) {
            wished.push(raw);
        }
    };
    let stored = request.extras.get(OWN, "store").is_some_and(|raw| raw.text() == "true");
    if traits.thinking != Thinking::Never && !stored {
        add(ENCRYPTED);
    }
    if request.settings.logprobs == Some(true)
        || request.settings.top_logprobs.is_some_and(|count| count > 0)
    {
        add(LOGPROBS);
    }
    if !wished.is_empty() || request.extras.get(OWN, "include").is_some() {
        o.array("include", |a| {
            for name in &wished {
                a.raw(name);
            }
        });
    }
}

fn leftover(
    request: &ChatRequest,
    own: bool,
    o: &mut write::ObjectWriter<'_>,
    losses: &mut Losses,
) {
    for key in ["truncation", "background"].into_iter().filter(|_| own) {
        // As a field it is among those below.
        let noted = request.extras.iter().all(|(name, _)| name != key);
        o.opt_raw(key, request.extras.get(OWN, key).filter(|_| noted));
    }
    for (key, value) in request.extras.iter() {
        if !own {
            losses.add(key);
        } else if key != "include" && !key.contains('.') {
            o.raw(key, value);
        }
    }
}
