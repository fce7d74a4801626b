//! Reads a chat request: its settings here, messages and tools in their own files.

use crate::{
    base::{
        json::{self, JsonRef},
        raw::RawJson,
    },
    dialect::{
        Place,
        openai::{completions, messages_read, tools_read},
    },
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::Dialect,
        request::ChatRequest,
        settings::{Effort, GenerationSettings, ReasoningSettings, ResponseFormat},
    },
};

const OWN: Dialect = Dialect::Openai;

pub(super) fn read(place: Place, body: &[u8]) -> Result<ChatRequest, ProxyError> {
    let json = json::parse(body).map_err(|bad| {
        ProxyError::new(
            ProxyErrorKind::BadRequest,
            format!("the request's body is not JSON: {}", bad.describe(body)),
        )
    })?;
    if !json.is_object() {
        return Err(ProxyError::new(
            ProxyErrorKind::BadRequest,
            format!("the request's body must be a JSON object, not {}", json.kind()),
        ));
    }
    let mut request = ChatRequest::default();
    fields(json, place, &mut request);
    if place == Place::Completions {
        request.messages.push(completions::prompt(json)?);
        return Ok(request);
    }
    tools_read::read(json, &mut request)?;
    let messages = json
        .get("messages")
        .ok_or_else(|| refuse("messages", "Missing required parameter: 'messages'."))?;
    messages_read::read(messages, &mut request)?;
    Ok(request)
}

/// A refusal that names the field.
pub(super) fn refuse(param: impl Into<String>, message: impl Into<String>) -> ProxyError {
    ProxyError::new(ProxyErrorKind::BadRequest, message).param(param.into())
}

fn fields(json: JsonRef<'_>, place: Place, request: &mut ChatRequest) {
    let mut limits = (None, None);
    for (key, value) in json.members().filter(|(_, value)| value.kind() != "null") {
        let read = match key {
            "model" | "messages" | "tools" | "tool_choice" | "functions" | "function_call"
            | "stream_options" | "web_search_options"
                if place != Place::Completions =>
            {
                true
            }
            "model" | "prompt" | "suffix" | "stream_options" if place == Place::Completions => true,
            "stream" => {
                request.stream = value.bool() == Some(true);
                true
            }
            "max_completion_tokens" => put(&mut limits.0, value.u64()),
            "max_tokens" => put(&mut limits.1, value.u64()),
            "logprobs" if place == Place::Completions && value.u64().is_some() => {
                request.settings.logprobs = Some(true);
                put(&mut request.settings.top_logprobs, value.u64())
            }
            "response_format" => {
                let format = format(value);
                // Some add fields of their own.
                let plain = value.members().count()
                    <= if matches!(format, Some(ResponseFormat::Schema { .. })) { 2 } else { 1 };
                if format.is_some() && !plain {
                    request.extras.push_equivalent(OWN, key, RawJson::from_json(value));
                }
                put(&mut request.settings.format, format)
            }
            // Not in the published schema, or not taken by every provider: only who said it gets it
            // back.
            "top_k" | "min_p" | "repetition_penalty" | "metadata" | "service_tier" => {
                let read = setting(&mut request.settings, key, value);
                if read {
                    request.extras.push_equivalent(OWN, key, RawJson::from_json(value));
                }
                read
            }
            "safety_identifier" => {
                request.extras.push_equivalent(OWN, key, RawJson::from_json(value));
                request.settings.user.is_some() || put(&mut request.settings.user, text(value))
            }
            _ if wish(request.settings.reasoning.get_or_insert_default(), key, value) => {
                request.extras.push_equivalent(OWN, key, RawJson::from_json(value));
                true
            }
            _ => setting(&mut request.settings, key, value),
        };
        if !read {
            request.extras.push(OWN, key, RawJson::from_json(value));
        }
    }
    request.settings.max_tokens = limits.0.or(limits.1);
    if request.settings.reasoning == Some(ReasoningSettings::default()) {
        request.settings.reasoning = None;
    }
}

fn put<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    let told = value.is_some();
    if told {
        *place = value;
    }
    told
}

fn text(value: JsonRef<'_>) -> Option<String> {
    value.str().map(std::borrow::Cow::into_owned)
}

/// Whether the field is a setting of the right type.
fn setting(s: &mut GenerationSettings, key: &str, value: JsonRef<'_>) -> bool {
    let number = || (value.kind() == "number").then(|| RawJson::from_json(value));
    match key {
        "temperature" => put(&mut s.temperature, number()),
        "top_p" => put(&mut s.top_p, number()),
        "top_k" => put(&mut s.top_k, number()),
        "min_p" => put(&mut s.min_p, number()),
        "frequency_penalty" => put(&mut s.frequency_penalty, number()),
        "presence_penalty" => put(&mut s.presence_penalty, number()),
        "repetition_penalty" => put(&mut s.repetition_penalty, number()),
        "seed" => put(&mut s.seed, number()),
        "n" => put(&mut s.n, value.u64()),
        "logprobs" => put(&mut s.logprobs, value.bool()),
        "top_logprobs" => put(&mut s.top_logprobs, value.u64()),
        "verbosity" => put(&mut s.verbosity, text(value)),
        "service_tier" => put(&mut s.service_tier, text(value)),
        "user" => put(&mut s.user, text(value)),
        "metadata" => put(&mut s.metadata, value.is_object().then(|| RawJson::from_json(value))),
        "prompt_cache_key" => put(&mut s.prompt_cache_key, text(value)),
        "parallel_tool_calls" => put(&mut s.parallel_tools, value.bool()),
        "stop" => {
            s.stop = value.str().map_or_else(
                || value.items().filter_map(text).collect(),
                |one| vec![one.into_owned()],
            );
            value.is_array() || !s.stop.is_empty()
        }
        _ => false,
    }
}

fn format(value: JsonRef<'_>) -> Option<ResponseFormat> {
    let kind = value.get("type").and_then(JsonRef::str);
    match kind.as_deref() {
        Some("text") => Some(ResponseFormat::Text),
        Some("json_object") => Some(ResponseFormat::Json),
        Some("json_schema") | None => {
            let told = value.get("json_schema").unwrap_or(value);
            let Some(schema) = told.get("schema") else {
                return kind.map(|_| ResponseFormat::Json);
            };
            Some(ResponseFormat::Schema {
                name: told.get("name").and_then(text),
                description: told.get("description").and_then(text),
                schema: RawJson::from_json(schema),
                strict: told.get("strict").and_then(JsonRef::bool),
            })
        }
        Some(_) => None,
    }
}

/// Whether the field says how much to think, in one of the spellings that providers of this dialect
/// have.
fn wish(wish: &mut ReasoningSettings, key: &str, value: JsonRef<'_>) -> bool {
    let effort = |value: JsonRef<'_>| value.str().and_then(|name| Effort::parse(&name));
    let switch = |wish: &mut ReasoningSettings, value: JsonRef<'_>| match value.str().as_deref() {
        Some("enabled") => wish.enabled = Some(true),
        Some("disabled") => wish.enabled = Some(false),
        Some("adaptive" | "auto") => wish.adaptive = true,
        _ => wish.enabled = value.bool().or(wish.enabled),
    };
    match key {
        // A word of its own (`default`) wishes for nothing.
        "reasoning_effort" => {
            put(&mut wish.effort, effort(value));
        }
        "reasoning" if value.is_object() => {
            put(&mut wish.effort, value.get("effort").and_then(effort));
            put(&mut wish.budget_tokens, value.get("max_tokens").and_then(JsonRef::u64));
            put(&mut wish.enabled, value.get("enabled").and_then(JsonRef::bool));
            put(
                &mut wish.show_thoughts,
                value.get("exclude").and_then(JsonRef::bool).map(|hidden| !hidden),
            );
            put(&mut wish.summary, value.get("summary").and_then(text));
        }
        "thinking" if value.is_object() => {
            put(&mut wish.budget_tokens, value.get("budget_tokens").and_then(JsonRef::u64));
            switch(wish, value.get("type").unwrap_or(value));
        }
        "thinking" | "enable_thinking" => switch(wish, value),
        "thinking_budget" => {
            put(&mut wish.budget_tokens, value.u64());
        }
        "include_reasoning" => {
            put(&mut wish.show_thoughts, value.bool());
        }
        "chat_template_kwargs"
            if value.members().all(|(key, _)| matches!(key, "enable_thinking" | "thinking")) =>
        {
            value.members().for_each(|(_, value)| switch(wish, value));
        }
        _ => return false,
    }
    true
}
