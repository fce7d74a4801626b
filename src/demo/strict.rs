//! Refuses requests as picky current models do, in the words of the provider whose dialect is
//! spoken, so that the repair of requests can be tried without an account.

use http::StatusCode;
use serde_json::Value;

use crate::{
    demo::call::{DemoCall, DemoError},
    dialect::ChatEndpoint,
    ir::op::Dialect,
};

const CHAT_FIELDS: &[&str] = &[
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "messages",
    "metadata",
    "modalities",
    "model",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "tool_choice",
    "tools",
    "top_logprobs",
    "user",
    "verbosity",
    "web_search_options",
];

const RESPONSES_FIELDS: &[&str] = &[
    "background",
    "context_management",
    "conversation",
    "include",
    "input",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "model",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "store",
    "stream",
    "stream_options",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "truncation",
    "user",
];

const MESSAGES_FIELDS: &[&str] = &[
    "cache_control",
    "container",
    "context_management",
    "inference_geo",
    "max_tokens",
    "mcp_servers",
    "messages",
    "metadata",
    "model",
    "output_config",
    "output_format",
    "service_tier",
    "speed",
    "stop_sequences",
    "stream",
    "system",
    "thinking",
    "tool_choice",
    "tools",
];

const GEMINI_FIELDS: &[&str] = &[
    "cachedContent",
    "cached_content",
    "contents",
    "generationConfig",
    "generation_config",
    "labels",
    "model",
    "safetySettings",
    "safety_settings",
    "serviceTier",
    "store",
    "systemInstruction",
    "system_instruction",
    "toolConfig",
    "tool_config",
    "tools",
];

/// Sampling fields, which this model does not take.
const SAMPLING_FIELDS: [&str; 3] = ["temperature", "top_k", "top_p"];

/// Checks a request as a model does that takes nothing but what its provider documents, and no
/// sampling.
///
/// # Errors
///
/// The first thing that the model does not take.
pub(super) fn check(call: &DemoCall<'_>, endpoint: ChatEndpoint) -> Result<(), DemoError> {
    if endpoint != ChatEndpoint::Chat {
        return Ok(());
    }
    let Some(fields) = call.body.as_object() else { return Ok(()) };
    let value = |name: &str| fields.get(name).filter(|value| !value.is_null());
    let unknown = |known: &[&str]| {
        let is_unknown = |name: &&String| {
            !known.contains(&name.as_str()) && !SAMPLING_FIELDS.contains(&name.as_str())
        };
        fields.keys().find(is_unknown).map(|name| name.escape_debug().to_string())
    };
    let sampling = SAMPLING_FIELDS.into_iter().find(|name| value(name).is_some());
    match call.dialect {
        Dialect::Openai => {
            if value("tools").is_some() && value("reasoning_effort").is_some() {
                return refuse(
                    None,
                    "function tools with reasoning_effort are not supported for strict in \
                     /v1/chat/completions; please use /v1/responses instead"
                        .to_owned(),
                );
            }
            if value("max_tokens").is_some() {
                return refuse(
                    Some("unsupported_parameter"),
                    "Unsupported parameter: 'max_tokens' is not supported with this model. Use \
                     'max_completion_tokens' instead."
                        .to_owned(),
                );
            }
            refuse_openai(sampling, unknown(CHAT_FIELDS))
        }
        Dialect::Responses => refuse_openai(sampling, unknown(RESPONSES_FIELDS)),
        Dialect::Anthropic => match (sampling, unknown(MESSAGES_FIELDS)) {
            (Some(name), _) => refuse(None, format!("`{name}` is deprecated for this model.")),
            (None, Some(name)) => refuse(None, format!("{name}: Extra inputs are not permitted")),
            (None, None) => Ok(()),
        },
        Dialect::Gemini => match unknown(GEMINI_FIELDS) {
            Some(name) => refuse(
                None,
                format!(
                    "Invalid JSON payload received. Unknown name \"{name}\": Cannot find field."
                ),
            ),
            None if has_penalty(call.body) => {
                refuse(None, "Penalty is not enabled for this model".to_owned())
            }
            None => Ok(()),
        },
        Dialect::Ollama => match value("think").and_then(Value::as_bool) {
            Some(true) => refuse(None, "\"strict\" does not support thinking".to_owned()),
            _ => Ok(()),
        },
    }
}

fn refuse_openai(sampling: Option<&str>, unknown: Option<String>) -> Result<(), DemoError> {
    if let Some(name) = sampling {
        return refuse(
            Some("unsupported_parameter"),
            format!("Unsupported parameter: '{name}' is not supported with this model."),
        );
    }
    match unknown {
        Some(name) => refuse(Some("unknown_parameter"), format!("Unknown parameter: '{name}'.")),
        None => Ok(()),
    }
}

fn has_penalty(body: &Value) -> bool {
    let config = [&body["generationConfig"], &body["generation_config"]];
    config.iter().any(|config| {
        ["presencePenalty", "frequencyPenalty", "presence_penalty", "frequency_penalty"]
            .iter()
            .any(|name| config[*name].is_number())
    })
}

fn refuse(code: Option<&'static str>, message: String) -> Result<(), DemoError> {
    Err(DemoError { code, ..DemoError::new(StatusCode::BAD_REQUEST, message) })
}
