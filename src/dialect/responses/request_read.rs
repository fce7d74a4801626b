//! Reads a request: its input, tools and settings.

use crate::{
    base::json::{
        raw::RawJson,
        reader::{self, JsonRef},
    },
    dialect::responses::{
        error::{bad_request, wrong_type},
        input_read::InputItemsReader,
        items_read::DIALECT,
        stored,
        tools::{additional, read},
    },
    ir::{
        block::Block,
        fault::ProxyError,
        generation_settings::{Effort, ReasoningSettings, ResponseFormat},
        request::{COMPACTION_NOTE, ChatRequest},
    },
};

/// The fields that the response object repeats.
pub(super) const ECHOED_FIELDS: [&str; 20] = [
    "instructions",
    "tools",
    "tool_choice",
    "temperature",
    "top_p",
    "metadata",
    "parallel_tool_calls",
    "max_output_tokens",
    "text",
    "reasoning",
    "truncation",
    "store",
    "user",
    "previous_response_id",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "max_tool_calls",
    "top_logprobs",
    "background",
];
/// Settings that are not part of this API, but that some of its upstreams support.
pub(super) const UNOFFICIAL_SETTINGS: [&str; 8] = [
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "n",
];
pub(super) const INCLUDE_LOGPROBS: &str = "message.output_text.logprobs";
pub(super) const INCLUDE_ENCRYPTED_REASONING: &str = "reasoning.encrypted_content";

/// # Errors
///
/// Returns an error if the API itself would refuse the request: no input, or input of the wrong
/// type.
pub(super) fn read_request(body: &[u8]) -> Result<ChatRequest, ProxyError> {
    let root = reader::parse(body).map_err(|bad| {
        bad_request(format!("the body is not JSON: {}", bad.describe(body)), None)
    })?;
    if !root.is_object() {
        return Err(bad_request(format!("the body must be an object, got {}", root.kind()), None));
    }
    let mut request = ChatRequest::default();
    // The dialect is recorded even if no other extras remain.
    request.extras.push_dialect_only(DIALECT, "dialect", RawJson::string("responses"));
    let tools = root.get("tools").map(|list| expect_array(list, "tools")).transpose()?;
    request.tools = read::read_all_tools(tools, root.get("input"));
    additional::remember(&mut request.extras, root.get("input"));
    for (key, value) in root.members().filter(|(_, value)| value.kind() != "null") {
        read_field(&mut request, key, value)?;
        if ECHOED_FIELDS.contains(&key) {
            request.echoed_fields.push(DIALECT, key, RawJson::from_json(value));
        }
    }
    let mut input = InputItemsReader::new(&request.tools);
    match root.get("input") {
        Some(text) if text.kind() == "string" => {
            input.push_user_text(&text.str().unwrap_or_default());
        }
        Some(list) if list.is_array() => {
            for (item, at) in list.items().zip(0..) {
                input.read_item(item, at)?;
            }
        }
        Some(other) => return Err(wrong_type("input", "a string or an array", other)),
        None if ["previous_response_id", "conversation", "prompt"]
            .iter()
            .any(|key| root.get(key).is_some()) => {}
        None => {
            return Err(bad_request(
                "Missing required parameter: 'input'.".to_owned(),
                Some("input".to_owned()),
            )
            .code("missing_required_parameter"));
        }
    }
    let compacts = input.asks_for_compaction();
    let (system, messages) = input.finish();
    request.system.extend(system);
    request.messages = messages;
    if compacts {
        // Any model can write the summary that stands for the conversation from then on.
        let stream = request.stream;
        let mut summary = stored::compaction_request(&request);
        (summary.stream, summary.echoed_fields) = (stream, request.echoed_fields);
        summary.extras = request.extras;
        summary.extras.push_dialect_only(DIALECT, COMPACTION_NOTE, RawJson::from(true));
        return Ok(summary);
    }
    Ok(request)
}

fn read_field(request: &mut ChatRequest, key: &str, value: JsonRef<'_>) -> Result<(), ProxyError> {
    let settings = &mut request.settings;
    let text = || value.string();
    match key {
        "model" | "input" | "tools" => {}
        "stream" => request.stream = value.bool().unwrap_or(false),
        "instructions" => match value.str() {
            Some(text) => request.system.insert(0, Block::text(text)),
            None if value.is_array() => {
                let parts = value.items().filter_map(|item| {
                    item.string_at("content").or_else(|| item.string_at("text"))
                });
                request.system.extend(parts.map(Block::text));
            }
            None => return Err(wrong_type(key, "a string", value)),
        },
        "max_output_tokens" => {
            settings.max_tokens =
                Some(value.u64().ok_or_else(|| wrong_type(key, "a whole number", value))?);
        }
        "temperature" => settings.temperature = Some(expect_number(key, value)?),
        "top_p" => settings.top_p = Some(expect_number(key, value)?),
        "top_logprobs" => {
            settings.top_logprobs =
                Some(value.u64().ok_or_else(|| wrong_type(key, "a whole number", value))?);
        }
        "parallel_tool_calls" => settings.parallel_tools = value.bool(),
        "prompt_cache_key" => settings.prompt_cache_key = text(),
        "service_tier" => settings.service_tier = text(),
        "metadata" => settings.metadata = Some(RawJson::from_json(value)),
        "user" => settings.user = text(),
        "safety_identifier" => {
            request.extras.push_dialect_only(DIALECT, key, RawJson::from_json(value));
            settings.user = settings.user.take().or_else(text);
        }
        "text" => read_text_options(request, value),
        "reasoning" => read_reasoning_options(request, value),
        "tool_choice" => {
            request.tool_choice = read::read_choice(value, &request.tools);
            if request.tool_choice.is_none() {
                request.extras.push(DIALECT, key, RawJson::from_json(value));
            } else if value.is_object() {
                request.extras.push_dialect_only(DIALECT, key, RawJson::from_json(value));
            }
        }
        "include" => {
            let includes = |name: &str| value.items().any(|one| one.str().as_deref() == Some(name));
            if includes(INCLUDE_LOGPROBS) {
                settings.logprobs = Some(true);
            }
            let known = value.items().all(|one| {
                one.str().is_some_and(|name| {
                    name == INCLUDE_ENCRYPTED_REASONING || name == INCLUDE_LOGPROBS
                })
            });
            if known {
                request.extras.push_dialect_only(DIALECT, key, RawJson::from_json(value));
            } else {
                request.extras.push(DIALECT, key, RawJson::from_json(value));
            }
        }
        // aiproxy handles these itself, or their value is the default.
        "store" | "previous_response_id" | "stream_options" => {
            request.extras.push_dialect_only(DIALECT, key, RawJson::from_json(value));
        }
        "truncation" if value.str().as_deref() == Some("disabled") => {
            request.extras.push_dialect_only(DIALECT, key, RawJson::from_json(value));
        }
        "background" if value.bool() == Some(false) => {
            request.extras.push_dialect_only(DIALECT, key, RawJson::from_json(value));
        }
        _ if UNOFFICIAL_SETTINGS.contains(&key) => {
            read_unofficial_setting(request, key, value);
            request.extras.push_dialect_only(DIALECT, key, RawJson::from_json(value));
        }
        _ => request.extras.push(DIALECT, key, RawJson::from_json(value)),
    }
    Ok(())
}

fn read_unofficial_setting(request: &mut ChatRequest, key: &str, value: JsonRef<'_>) {
    let settings = &mut request.settings;
    let raw = Some(RawJson::from_json(value));
    match key {
        "frequency_penalty" => settings.frequency_penalty = raw,
        "presence_penalty" => settings.presence_penalty = raw,
        "repetition_penalty" => settings.repetition_penalty = raw,
        "top_k" => settings.top_k = raw,
        "min_p" => settings.min_p = raw,
        "seed" => settings.seed = raw,
        "n" => settings.n = value.u64(),
        _ => settings.stop = value.strings(),
    }
}

fn read_text_options(request: &mut ChatRequest, text: JsonRef<'_>) {
    request.settings.verbosity = text.string_at("verbosity");
    store_unknown_members(request, "text.", text, &["format", "verbosity"]);
    let Some(format) = text.get("format") else { return };
    request.settings.format = match format.string_at("type").as_deref() {
        Some("text") => Some(ResponseFormat::Text),
        Some("json_object") => Some(ResponseFormat::Json),
        Some("json_schema") => {
            // The chat format nests the schema once more.
            let inner =
                format.get("json_schema").filter(|inner| inner.is_object()).unwrap_or(format);
            let schema =
                inner.get("schema").map_or_else(|| RawJson::object(|_| {}), RawJson::from_json);
            let strict = inner.get("strict").and_then(JsonRef::bool);
            Some(ResponseFormat::Schema {
                name: inner.string_at("name"),
                description: inner.string_at("description"),
                schema,
                strict,
            })
        }
        _ => {
            request.extras.push(DIALECT, "text.format", RawJson::from_json(format));
            None
        }
    };
}

fn read_reasoning_options(request: &mut ChatRequest, json: JsonRef<'_>) {
    let effort_name = json.string_at("effort");
    let effort = effort_name.as_deref().and_then(Effort::parse);
    if effort.is_none()
        && let Some(unknown) = json.get("effort")
    {
        request.extras.push(DIALECT, "reasoning.effort", RawJson::from_json(unknown));
    }
    let summary = json.string_at("summary").or_else(|| json.string_at("generate_summary"));
    request.settings.reasoning = Some(ReasoningSettings {
        enabled: effort.map(|effort| effort != Effort::None),
        effort,
        show_thoughts: summary.as_deref().map(|word| word != "none"),
        summary,
        ..ReasoningSettings::default()
    });
    store_unknown_members(request, "reasoning.", json, &["effort", "summary", "generate_summary"]);
}

fn store_unknown_members(
    request: &mut ChatRequest,
    prefix: &str,
    json: JsonRef<'_>,
    known: &[&str],
) {
    for (key, value) in
        json.members().filter(|(key, value)| !known.contains(key) && value.kind() != "null")
    {
        request.extras.push(DIALECT, &format!("{prefix}{key}"), RawJson::from_json(value));
    }
}

fn expect_number(key: &str, value: JsonRef<'_>) -> Result<RawJson, ProxyError> {
    if value.kind() == "number" {
        Ok(RawJson::from_json(value))
    } else {
        Err(wrong_type(key, "a number", value))
    }
}

fn expect_array<'a>(value: JsonRef<'a>, key: &str) -> Result<JsonRef<'a>, ProxyError> {
    if value.is_array() { Ok(value) } else { Err(wrong_type(key, "an array", value)) }
}
