//! Reads the settings of a chat request; messages and tools have their own files.

use crate::{
    base::json::{
        raw::RawJson,
        reader::{self, JsonRef},
    },
    dialect::{
        ingress::ChatEndpoint,
        openai::{completions, error::invalid_param, messages_read, tools_read},
    },
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        generation_settings::{Effort, GenerationSettings, ReasoningSettings, ResponseFormat},
        op::Dialect,
        request::ChatRequest,
    },
};

const DIALECT: Dialect = Dialect::Openai;

pub(super) fn read_request(endpoint: ChatEndpoint, body: &[u8]) -> Result<ChatRequest, ProxyError> {
    let json = reader::parse(body).map_err(|bad| {
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
    read_fields(json, endpoint, &mut request);
    if endpoint == ChatEndpoint::Completions {
        request.messages.push(completions::read_prompt(json)?);
        return Ok(request);
    }
    tools_read::read_tools(json, &mut request)?;
    let messages = json
        .get("messages")
        .ok_or_else(|| invalid_param("messages", "Missing required parameter: 'messages'."))?;
    messages_read::read_messages(messages, &mut request)?;
    Ok(request)
}

fn read_fields(json: JsonRef<'_>, endpoint: ChatEndpoint, request: &mut ChatRequest) {
    let mut limits = (None, None);
    for (key, value) in json.members().filter(|(_, value)| value.kind() != "null") {
        let read = match key {
            "model" | "messages" | "tools" | "tool_choice" | "functions" | "function_call"
            | "stream_options" | "web_search_options"
                if endpoint != ChatEndpoint::Completions =>
            {
                true
            }
            "model" | "prompt" | "suffix" | "stream_options"
                if endpoint == ChatEndpoint::Completions =>
            {
                true
            }
            "stream" => {
                request.stream = value.bool() == Some(true);
                true
            }
            "max_completion_tokens" => set_if_some(&mut limits.0, value.u64()),
            "max_tokens" => set_if_some(&mut limits.1, value.u64()),
            "logprobs" if endpoint == ChatEndpoint::Completions && value.u64().is_some() => {
                request.settings.logprobs = Some(true);
                set_if_some(&mut request.settings.top_logprobs, value.u64())
            }
            "response_format" => {
                let format = read_format(value);
                // Some clients add fields of their own.
                let plain = value.members().count()
                    <= if matches!(format, Some(ResponseFormat::Schema { .. })) { 2 } else { 1 };
                if format.is_some() && !plain {
                    request.extras.push_equivalent(DIALECT, key, RawJson::from_json(value));
                }
                set_if_some(&mut request.settings.format, format)
            }
            // These fields are not in the published schema, or some providers reject them. Only
            // requests that came in this dialect send them.
            "top_k" | "min_p" | "repetition_penalty" | "metadata" | "service_tier" => {
                let read = read_setting(&mut request.settings, key, value);
                if read {
                    request.extras.push_equivalent(DIALECT, key, RawJson::from_json(value));
                }
                read
            }
            "safety_identifier" => {
                request.extras.push_equivalent(DIALECT, key, RawJson::from_json(value));
                request.settings.user.is_some()
                    || set_if_some(&mut request.settings.user, value.string())
            }
            _ if read_reasoning(request.settings.reasoning.get_or_insert_default(), key, value) => {
                request.extras.push_equivalent(DIALECT, key, RawJson::from_json(value));
                true
            }
            _ => read_setting(&mut request.settings, key, value),
        };
        if !read {
            request.extras.push(DIALECT, key, RawJson::from_json(value));
        }
    }
    request.settings.max_tokens = limits.0.or(limits.1);
    if request.settings.reasoning == Some(ReasoningSettings::default()) {
        request.settings.reasoning = None;
    }
}

fn set_if_some<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    let is_present = value.is_some();
    if is_present {
        *slot = value;
    }
    is_present
}

/// Reads a setting. Returns whether the field is one and has the right type.
fn read_setting(s: &mut GenerationSettings, key: &str, value: JsonRef<'_>) -> bool {
    let number = || (value.kind() == "number").then(|| RawJson::from_json(value));
    match key {
        "temperature" => set_if_some(&mut s.temperature, number()),
        "top_p" => set_if_some(&mut s.top_p, number()),
        "top_k" => set_if_some(&mut s.top_k, number()),
        "min_p" => set_if_some(&mut s.min_p, number()),
        "frequency_penalty" => set_if_some(&mut s.frequency_penalty, number()),
        "presence_penalty" => set_if_some(&mut s.presence_penalty, number()),
        "repetition_penalty" => set_if_some(&mut s.repetition_penalty, number()),
        "seed" => set_if_some(&mut s.seed, number()),
        "n" => set_if_some(&mut s.n, value.u64()),
        "logprobs" => set_if_some(&mut s.logprobs, value.bool()),
        "top_logprobs" => set_if_some(&mut s.top_logprobs, value.u64()),
        "verbosity" => set_if_some(&mut s.verbosity, value.string()),
        "service_tier" => set_if_some(&mut s.service_tier, value.string()),
        "user" => set_if_some(&mut s.user, value.string()),
        "metadata" => {
            set_if_some(&mut s.metadata, value.is_object().then(|| RawJson::from_json(value)))
        }
        "prompt_cache_key" => set_if_some(&mut s.prompt_cache_key, value.string()),
        "parallel_tool_calls" => set_if_some(&mut s.parallel_tools, value.bool()),
        "stop" => {
            s.stop = value.strings();
            value.is_array() || !s.stop.is_empty()
        }
        _ => false,
    }
}

fn read_format(value: JsonRef<'_>) -> Option<ResponseFormat> {
    let kind = value.get("type").and_then(JsonRef::str);
    match kind.as_deref() {
        Some("text") => Some(ResponseFormat::Text),
        Some("json_object") => Some(ResponseFormat::Json),
        Some("json_schema") | None => {
            let format = value.get("json_schema").unwrap_or(value);
            let Some(schema) = format.get("schema") else {
                return kind.map(|_| ResponseFormat::Json);
            };
            Some(ResponseFormat::Schema {
                name: format.string_at("name"),
                description: format.string_at("description"),
                schema: RawJson::from_json(schema),
                strict: format.get("strict").and_then(JsonRef::bool),
            })
        }
        Some(_) => None,
    }
}

/// Reads a field about the amount of reasoning, in any form that providers of this dialect use.
/// Returns whether the field is one.
fn read_reasoning(reasoning: &mut ReasoningSettings, key: &str, value: JsonRef<'_>) -> bool {
    let effort = |value: JsonRef<'_>| value.str().and_then(|name| Effort::parse(&name));
    let switch =
        |reasoning: &mut ReasoningSettings, value: JsonRef<'_>| match value.str().as_deref() {
            Some("enabled") => reasoning.enabled = Some(true),
            Some("disabled") => reasoning.enabled = Some(false),
            Some("adaptive" | "auto") => reasoning.adaptive = true,
            _ => reasoning.enabled = value.bool().or(reasoning.enabled),
        };
    match key {
        // An unknown word (`default`) sets nothing.
        "reasoning_effort" => {
            set_if_some(&mut reasoning.effort, effort(value));
        }
        "reasoning" if value.is_object() => {
            set_if_some(&mut reasoning.effort, value.get("effort").and_then(effort));
            set_if_some(
                &mut reasoning.budget_tokens,
                value.get("max_tokens").and_then(JsonRef::u64),
            );
            set_if_some(&mut reasoning.enabled, value.get("enabled").and_then(JsonRef::bool));
            set_if_some(
                &mut reasoning.show_thoughts,
                value.get("exclude").and_then(JsonRef::bool).map(|hidden| !hidden),
            );
            set_if_some(&mut reasoning.summary, value.string_at("summary"));
        }
        "thinking" if value.is_object() => {
            set_if_some(
                &mut reasoning.budget_tokens,
                value.get("budget_tokens").and_then(JsonRef::u64),
            );
            switch(reasoning, value.get("type").unwrap_or(value));
        }
        "thinking" | "enable_thinking" => switch(reasoning, value),
        "thinking_budget" => {
            set_if_some(&mut reasoning.budget_tokens, value.u64());
        }
        "include_reasoning" => {
            set_if_some(&mut reasoning.show_thoughts, value.bool());
        }
        "chat_template_kwargs"
            if value.members().all(|(key, _)| matches!(key, "enable_thinking" | "thinking")) =>
        {
            value.members().for_each(|(_, value)| switch(reasoning, value));
        }
        _ => return false,
    }
    true
}
