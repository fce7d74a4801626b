//! Reads a generateContent request: keys in either spelling, and contents in all forms that SDK
//! users write.

use std::borrow::Cow;

use crate::{
    base::json::{
        raw::RawJson,
        reader::{self, JsonRef},
    },
    dialect::gemini::{
        field_names::{self, CALLING_MODES},
        part_read, schema_read,
    },
    ir::{
        block::Block,
        extras::Extras,
        fault::{ProxyError, ProxyErrorKind},
        generation_settings::{Effort, ReasoningSettings, ResponseFormat},
        op::Dialect,
        request::{ChatMessage, ChatRequest, Role},
        tool::{FunctionTool, HostedKind, HostedTool, Tool, ToolChoice},
    },
};

pub(super) fn read_request(body: &[u8]) -> Result<ChatRequest, ProxyError> {
    let json = reader::parse(body).map_err(|bad| {
        bad_request(format!("Invalid JSON payload received. {}", bad.describe(body)))
    })?;
    if !json.is_object() {
        return Err(bad_request(format!(
            "Invalid JSON payload received. Expected an object, got {}",
            json.kind()
        )));
    }
    let mut request = ChatRequest::default();
    let mut messages = None;
    for (key, value) in field_names::members(json) {
        match &*key {
            "contents" => messages = Some(read_contents(value)?),
            "systemInstruction" => request.system = read_system(value),
            "tools" => {
                field_names::elements(value)
                    .for_each(|value| read_tools(value, &mut request.tools));
            }
            "toolConfig" => read_tool_config(value, &mut request),
            "generationConfig" => read_generation_config(value, &mut request)?,
            "serviceTier" => {
                request.settings.service_tier = value
                    .str()
                    .map(|tier| tier.trim_start_matches("SERVICE_TIER_").to_ascii_lowercase())
                    .filter(|tier| tier != "unspecified");
            }
            // The URL path gives both.
            "model" | "stream" => {}
            key => request.extras.push(Dialect::Gemini, key, RawJson::from_json(value)),
        }
    }
    request.messages = messages.unwrap_or_default();
    if request.messages.is_empty() {
        return Err(bad_request("GenerateContentRequest.contents: contents is not specified")
            .param("contents"));
    }
    Ok(request)
}

fn bad_request(message: impl Into<String>) -> ProxyError {
    ProxyError::new(ProxyErrorKind::BadRequest, message)
}

fn invalid_value(field: &str, value: JsonRef<'_>) -> ProxyError {
    bad_request(format!("Invalid value at '{field}': {} is not what belongs here", value.kind()))
        .param(field.to_owned())
}

/// Reads a list of contents. A single content counts as a list of one; texts and parts without a
/// content count as user input.
fn read_contents(value: JsonRef<'_>) -> Result<Vec<ChatMessage>, ProxyError> {
    let mut calls = part_read::GeminiPendingCalls::default();
    let mut messages: Vec<ChatMessage> = Vec::new();
    let mut in_bare_parts = false;
    for content in field_names::elements(value) {
        let is_content = content.is_object()
            && (field_names::member(content, "parts").is_some()
                || field_names::member(content, "role").is_some());
        if is_content {
            messages.push(read_message(content, &mut calls)?);
        } else {
            let Some(block) = part_read::read_block(content, &mut calls) else {
                return Err(invalid_value("contents", content));
            };
            match messages.last_mut().filter(|_| in_bare_parts) {
                Some(last) => last.blocks.push(block),
                None => messages.push(ChatMessage::new(Role::User, vec![block])),
            }
        }
        in_bare_parts = !is_content;
    }
    Ok(messages)
}

fn read_message(
    content: JsonRef<'_>,
    calls: &mut part_read::GeminiPendingCalls,
) -> Result<ChatMessage, ProxyError> {
    let mut message = ChatMessage::new(Role::User, Vec::new());
    for (key, value) in field_names::members(content) {
        match &*key {
            "role" => {
                message.role = match value.str().as_deref() {
                    Some("model" | "assistant") => Role::Assistant,
                    Some("system") => Role::System,
                    _ => Role::User,
                }
            }
            "parts" => {
                for part in field_names::elements(value) {
                    message.blocks.push(
                        part_read::read_block(part, calls)
                            .ok_or_else(|| invalid_value("contents.parts", part))?,
                    );
                }
            }
            key => message.extras.push(Dialect::Gemini, key, RawJson::from_json(value)),
        }
    }
    Ok(message)
}

/// Reads a content, its parts, or bare text.
fn read_system(value: JsonRef<'_>) -> Vec<Block> {
    let parts = field_names::member(value, "parts").unwrap_or(value);
    let text = |part: JsonRef<'_>| {
        part.str().or_else(|| field_names::string_member(part, "text")).map(Cow::into_owned)
    };
    field_names::elements(parts)
        .filter_map(text)
        .filter(|text| !text.is_empty())
        .map(Block::text)
        .collect()
}

/// Reads one tool object. Each of its members is a tool or a list of functions.
fn read_tools(value: JsonRef<'_>, tools: &mut Vec<Tool>) {
    for (key, value) in field_names::members(value) {
        if key == "functionDeclarations" {
            tools.extend(field_names::elements(value).map(read_function));
            continue;
        }
        let kind = match &*key {
            "googleSearch" | "googleSearchRetrieval" | "enterpriseWebSearch" => {
                HostedKind::WebSearch
            }
            "codeExecution" => HostedKind::CodeExecution,
            "urlContext" => HostedKind::UrlContext,
            _ => HostedKind::Other,
        };
        let body = RawJson::object(|o| {
            o.json(&key, value);
        });
        tools.push(Tool::Hosted(HostedTool { kind, dialect: Dialect::Gemini, body }));
    }
}

fn read_function(value: JsonRef<'_>) -> Tool {
    let mut tool = FunctionTool::default();
    for (key, value) in field_names::members(value) {
        match &*key {
            "name" => tool.name = value.str().unwrap_or_default().into_owned(),
            "description" => tool.description = value.string(),
            "parameters" => tool.schema = Some(schema_read::to_json_schema(value)),
            "parametersJsonSchema" => tool.schema = Some(RawJson::from_json(value)),
            key => tool.extras.push(Dialect::Gemini, key, RawJson::from_json(value)),
        }
    }
    Tool::Function(tool)
}

fn read_tool_config(value: JsonRef<'_>, request: &mut ChatRequest) {
    for (key, value) in field_names::members(value) {
        if key == "functionCallingConfig" {
            read_function_calling(value, request);
        } else {
            request.extras.push(
                Dialect::Gemini,
                &format!("toolConfig.{key}"),
                RawJson::from_json(value),
            );
        }
    }
}

fn read_function_calling(config: JsonRef<'_>, request: &mut ChatRequest) {
    let (mut mode, mut names) = (String::new(), Vec::new());
    for (key, value) in field_names::members(config) {
        match &*key {
            "mode" => {
                mode = field_names::enum_word(value, CALLING_MODES)
                    .map(|mode| mode.to_ascii_uppercase())
                    .unwrap_or_default();
            }
            "allowedFunctionNames" => {
                names = field_names::elements(value).filter_map(JsonRef::string).collect();
            }
            key => request.extras.push(
                Dialect::Gemini,
                &format!("toolConfig.functionCallingConfig.{key}"),
                RawJson::from_json(value),
            ),
        }
    }
    request.tool_choice = match (mode.as_str(), names.len()) {
        ("ANY", 0) => Some(ToolChoice::Required),
        ("ANY", 1) => names.pop().map(ToolChoice::Named),
        ("ANY", _) => Some(ToolChoice::Allowed { names, required: true }),
        ("NONE", _) => Some(ToolChoice::None),
        ("AUTO" | "VALIDATED", 0) => Some(ToolChoice::Auto),
        (_, 0) => None,
        _ => Some(ToolChoice::Allowed { names, required: false }),
    };
    if mode == "VALIDATED" && request.tool_choice == Some(ToolChoice::Auto) {
        request.extras.push(
            Dialect::Gemini,
            "toolConfig.functionCallingConfig.mode",
            RawJson::string("VALIDATED"),
        );
    }
}

fn read_generation_config(
    config: JsonRef<'_>,
    request: &mut ChatRequest,
) -> Result<(), ProxyError> {
    let settings = &mut request.settings;
    let (mut mime, mut response_schema) = (None, None);
    for (key, value) in field_names::members(config) {
        let number = || {
            read_number(value)
                .map(Some)
                .ok_or_else(|| invalid_value(&format!("generation_config.{key}"), value))
        };
        let count = || {
            read_count(value)
                .map(Some)
                .ok_or_else(|| invalid_value(&format!("generation_config.{key}"), value))
        };
        match &*key {
            "maxOutputTokens" => settings.max_tokens = count()?,
            "temperature" => settings.temperature = number()?,
            "topP" => settings.top_p = number()?,
            "topK" => settings.top_k = number()?,
            "presencePenalty" => settings.presence_penalty = number()?,
            "frequencyPenalty" => settings.frequency_penalty = number()?,
            "seed" => settings.seed = number()?,
            "candidateCount" => settings.n = count()?,
            "responseLogprobs" => settings.logprobs = value.bool(),
            "logprobs" => settings.top_logprobs = count()?,
            "stopSequences" => {
                settings.stop = field_names::elements(value).filter_map(JsonRef::string).collect();
            }
            "responseMimeType" => mime = value.str(),
            "responseSchema" => response_schema = Some(schema_read::to_json_schema(value)),
            "responseJsonSchema" | "_responseJsonSchema" => {
                response_schema = Some(RawJson::from_json(value));
            }
            "thinkingConfig" => settings.reasoning = Some(read_thinking(value)),
            // Text only is the default in every other dialect.
            "responseModalities"
                if field_names::elements(value)
                    .all(|it| it.str().is_some_and(|it| it.eq_ignore_ascii_case("text"))) => {}
            key => request.extras.push(
                Dialect::Gemini,
                &format!("generationConfig.{key}"),
                RawJson::from_json(value),
            ),
        }
    }
    settings.format = match (mime.as_deref(), response_schema) {
        (None | Some("application/json" | ""), Some(schema)) => {
            Some(ResponseFormat::Schema { name: None, description: None, schema, strict: None })
        }
        (Some("application/json"), None) => Some(ResponseFormat::Json),
        (Some("text/plain"), _) => Some(ResponseFormat::Text),
        (Some(""), None) | (None, None) => None,
        (Some(other), response_schema) => {
            request.extras.push(
                Dialect::Gemini,
                "generationConfig.responseMimeType",
                RawJson::string(other),
            );
            if let Some(response_schema) = response_schema {
                request.extras.push(
                    Dialect::Gemini,
                    "generationConfig.responseJsonSchema",
                    response_schema,
                );
            }
            None
        }
    };
    Ok(())
}

fn read_thinking(config: JsonRef<'_>) -> ReasoningSettings {
    // Thoughts are shown only if the client asks for them.
    let mut wish = ReasoningSettings { show_thoughts: Some(false), ..ReasoningSettings::default() };
    for (key, value) in field_names::members(config) {
        match &*key {
            "includeThoughts" => wish.show_thoughts = Some(value.bool() == Some(true)),
            "thinkingBudget" => match value.i64().or_else(|| value.str()?.parse().ok()) {
                Some(0) => wish.enabled = Some(false),
                Some(-1) => (wish.adaptive, wish.enabled) = (true, Some(true)),
                Some(budget) => {
                    (wish.budget_tokens, wish.enabled) = (u64::try_from(budget).ok(), Some(true));
                }
                None => {}
            },
            "thinkingLevel" => {
                wish.effort = value
                    .str()
                    .and_then(|level| Effort::parse(level.trim_start_matches("THINKING_LEVEL_")));
            }
            _ => {}
        }
    }
    if wish.enabled.is_none() && (wish.show_thoughts == Some(true) || wish.effort.is_some()) {
        wish.enabled = Some(true);
    }
    wish
}

/// Reads a number and preserves its text. The wire format also allows quotes around it.
fn read_number(value: JsonRef<'_>) -> Option<RawJson> {
    match value.kind() {
        "number" => Some(RawJson::from_json(value)),
        "string" => RawJson::parse(&value.str()?).filter(|raw| raw.json().kind() == "number"),
        _ => None,
    }
}

fn read_count(value: JsonRef<'_>) -> Option<u64> {
    value.u64().or_else(|| value.str()?.parse().ok())
}

/// The extras whose key begins with `prefix`, with the prefix removed.
pub(super) fn extras_with_prefix<'a>(
    extras: &'a Extras,
    prefix: &'a str,
) -> impl Iterator<Item = (&'a str, &'a RawJson)> {
    extras
        .iter()
        .filter(|_| extras.is_from(Dialect::Gemini))
        .filter_map(move |(key, value)| Some((key.strip_prefix(prefix)?, value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::block::BlockKind;

    fn read(body: &str) -> ChatRequest {
        read_request(body.as_bytes()).expect("a request")
    }

    #[test]
    fn every_form_of_contents_is_read() {
        for body in [
            r#"{"contents":"hi"}"#,
            r#"{"contents":["hi"]}"#,
            r#"{"contents":{"parts":{"text":"hi"}}}"#,
            r#"{"contents":[{"parts":[{"text":"hi"}]}]}"#,
            r#"{"contents":[{"role":"user","parts":["hi"]}]}"#,
            r#"{"contents":[{"text":"hi"}]}"#,
        ] {
            assert_eq!(
                read(body).messages,
                [ChatMessage::new(Role::User, vec![Block::text("hi")])],
                "{body}"
            );
        }
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"contents":[]}"#,
            r#"{"contents":3}"#,
            r#"{"contents":[{"parts":[1]}]}"#,
            r#"{"contents":"a","generationConfig":{"topP":[]}}"#,
        ] {
            let error = read_request(bad.as_bytes()).expect_err(bad);
            assert_eq!(error.kind, ProxyErrorKind::BadRequest);
        }
    }

    /// A Gemini side that accepts only half of the fields that its clients send.
    #[test]
    fn settings_are_read_in_both_spellings() {
        let request = read(
            r#"{"contents":"hi","system_instruction":{"parts":{"text":"be"}},"safety_settings":[1],"cachedContent":"c",
            "tool_config":{"function_calling_config":{"mode":"ANY","allowed_function_names":["f"]}},
            "tools":[{"google_search":{}},{"function_declarations":[{"name":"f","parameters_json_schema":{"type":"object"}}]}],
            "generation_config":{"max_output_tokens":5,"top_p":0.50,"stop_sequences":["a"],"response_mime_type":"application/json",
            "response_schema":{"type":"STRING"},"thinking_config":{"include_thoughts":true,"thinking_level":"LOW"},"speech_config":{},"response_modalities":["TEXT"]}}"#,
        );
        let settings = &request.settings;
        assert_eq!(request.system, [Block::text("be")]);
        assert_eq!(
            (settings.max_tokens, settings.top_p.as_ref().map(RawJson::text), &*settings.stop),
            (Some(5), Some("0.50"), &["a".to_owned()][..])
        );
        assert!(
            matches!(&settings.format, Some(ResponseFormat::Schema { schema, .. }) if schema.text() == r#"{"type":"string"}"#)
        );
        let wish = ReasoningSettings {
            enabled: Some(true),
            effort: Some(Effort::Low),
            show_thoughts: Some(true),
            ..ReasoningSettings::default()
        };
        assert_eq!(settings.reasoning, Some(wish));
        assert_eq!(request.tool_choice, Some(ToolChoice::Named("f".to_owned())));
        assert!(
            matches!(&request.tools[..], [Tool::Hosted(HostedTool { kind: HostedKind::WebSearch, .. }), Tool::Function(f)] if f.schema.is_some())
        );
        let left: Vec<_> = request.extras.iter().map(|(key, _)| key).collect();
        assert_eq!(left, ["safetySettings", "cachedContent", "generationConfig.speechConfig"]);
    }

    #[test]
    fn results_match_calls_without_ids() {
        let request = read(
            r#"{"contents":[{"role":"model","parts":[{"functionCall":{"name":"f","args":{"a":1}}},{"functionCall":{"name":"f","args":{"a":1}}}]},
            {"role":"function","parts":[{"functionResponse":{"name":"f","response":{"output":"x"}}},{"functionResponse":{"name":"f","response":{"error":"y"}}}]}]}"#,
        );
        let ids = request.messages.iter().flat_map(|m| &m.blocks).map(|block| match &block.kind {
            BlockKind::ToolCall(call) => call.id.clone(),
            BlockKind::ToolResult(result) => result.call.clone(),
            _ => String::new(),
        });
        let ids: Vec<_> = ids.collect();
        assert_eq!((&ids[0], &ids[1]), (&ids[2], &ids[3]));
        assert!(ids[0] != ids[1] && ids[0].starts_with(field_names::GENERATED_ID_PREFIX));
    }
}
