//! Reads client requests.

use std::collections::HashMap;

use crate::{
    base::json::{
        raw::RawJson,
        reader::{self, JsonRef},
    },
    dialect::anthropic::{blocks_read, client_tools},
    ir::{
        block::BlockKind,
        extras::Extras,
        fault::{ProxyError, ProxyErrorKind},
        generation_settings::{Effort, GenerationSettings, ReasoningSettings, ResponseFormat},
        op::Dialect,
        request::{ChatMessage, ChatRequest, Role},
        tool::{FunctionTool, HostedKind, HostedTool, Tool, ToolChoice},
    },
};

const DIALECT: Dialect = Dialect::Anthropic;

pub(super) fn read_request(body: &[u8]) -> Result<ChatRequest, ProxyError> {
    let json = reader::parse(body).map_err(|bad| {
        ProxyError::new(ProxyErrorKind::BadRequest, format!("invalid JSON: {}", bad.describe(body)))
    })?;
    if !json.is_object() {
        return Err(invalid_field("", "expected an object"));
    }
    let known = [
        "model",
        "messages",
        "system",
        "tools",
        "tool_choice",
        "stream",
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "stop_sequences",
        "metadata",
        "service_tier",
        "thinking",
        "output_config",
        "output_format",
    ];
    let mut extras = Extras::from_object(DIALECT, json, &known);
    let mut settings = read_settings(json, &mut extras);
    let mut request = ChatRequest {
        system: blocks_read::read_content(json.get("system")),
        messages: read_messages(json)?,
        tools: json
            .get("tools")
            .into_iter()
            .flat_map(JsonRef::items)
            .filter(|tool| tool.is_object())
            .map(read_tool)
            .collect(),
        stream: json.get("stream").and_then(JsonRef::bool).unwrap_or(false),
        ..ChatRequest::default()
    };
    let leading =
        request.messages.iter().take_while(|message| message.role == Role::System).count();
    for message in request.messages.drain(..leading) {
        request.system.extend(message.blocks);
    }
    if let Some(choice) = json.get("tool_choice") {
        settings.parallel_tools =
            choice.get("disable_parallel_tool_use").and_then(JsonRef::bool).map(|no| !no);
        request.tool_choice = read_tool_choice(choice);
    }
    name_results(&mut request.messages);
    (request.settings, request.extras) = (settings, extras);
    Ok(request)
}

fn invalid_field(field: &str, what: &str) -> ProxyError {
    let message = if field.is_empty() { what.to_owned() } else { format!("{field}: {what}") };
    ProxyError::new(ProxyErrorKind::BadRequest, message).param(field.to_owned())
}

fn read_messages(json: JsonRef<'_>) -> Result<Vec<ChatMessage>, ProxyError> {
    let list = json.get("messages").ok_or_else(|| invalid_field("messages", "field required"))?;
    if !list.is_array() {
        return Err(invalid_field("messages", &format!("expected a list, got {}", list.kind())));
    }
    if list.items().next().is_none() {
        return Err(invalid_field("messages", "at least one message is required"));
    }
    list.items().enumerate().map(|(at, message)| read_message(at, message)).collect()
}

fn read_message(at: usize, json: JsonRef<'_>) -> Result<ChatMessage, ProxyError> {
    if !json.is_object() {
        return Err(invalid_field(
            &format!("messages.{at}"),
            &format!("expected an object, got {}", json.kind()),
        ));
    }
    let role = match json.get("role").and_then(JsonRef::str).as_deref() {
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("system" | "developer") => Role::System,
        _ => {
            return Err(invalid_field(
                &format!("messages.{at}.role"),
                "expected `user`, `assistant` or `system`",
            ));
        }
    };
    let content = json.get("content");
    if content.is_some_and(|content| !matches!(content.kind(), "string" | "array" | "object")) {
        return Err(invalid_field(
            &format!("messages.{at}.content"),
            "expected a text or a list of blocks",
        ));
    }
    let extras = Extras::from_object(DIALECT, json, &["role", "content"]);
    Ok(ChatMessage { extras, ..ChatMessage::new(role, blocks_read::read_content(content)) })
}

/// Adds the tool name to each result. Here results name their call only by id, but other dialects
/// need the tool's name as well.
fn name_results(messages: &mut [ChatMessage]) {
    let mut names: HashMap<String, String> = HashMap::new();
    for block in messages.iter_mut().flat_map(|message| &mut message.blocks) {
        match &mut block.kind {
            BlockKind::ToolCall(call) => {
                names.insert(call.id.clone(), call.name.clone());
            }
            BlockKind::ToolResult(result) => {
                result.name = names.get(&result.call).cloned();
            }
            _ => {}
        }
    }
}

fn read_settings(json: JsonRef<'_>, extras: &mut Extras) -> GenerationSettings {
    let number =
        |key: &str| json.get(key).filter(|value| value.kind() == "number").map(RawJson::from_json);
    let mut settings = GenerationSettings {
        max_tokens: json
            .get("max_tokens")
            .or_else(|| json.get("max_tokens_to_sample"))
            .and_then(JsonRef::u64),
        temperature: number("temperature"),
        top_p: number("top_p"),
        top_k: number("top_k"),
        stop: json.get("stop_sequences").map(JsonRef::strings).unwrap_or_default(),
        service_tier: json
            .string_at("service_tier")
            .map(|tier| if tier == "standard_only" { "default".to_owned() } else { tier }),
        ..GenerationSettings::default()
    };
    if let Some(metadata) = json.get("metadata") {
        settings.user = metadata.string_at("user_id");
        preserve_unknown(extras, "metadata", metadata, &["user_id"]);
    }
    let mut wish = read_thinking(json.get("thinking"), extras);
    let mut format = json.get("output_format");
    if let Some(config) = json.get("output_config") {
        let effort =
            config.get("effort").and_then(JsonRef::str).and_then(|name| Effort::parse(&name));
        if effort.is_some() {
            wish.get_or_insert_default().effort = effort;
        }
        format = config.get("format").or(format);
        preserve_unknown(
            extras,
            "output_config",
            config,
            if effort.is_some() { &["effort", "format"] } else { &["format"] },
        );
    }
    settings.reasoning = wish;
    settings.format =
        format.and_then(|format| format.get("schema")).map(|schema| ResponseFormat::Schema {
            name: None,
            description: None,
            schema: RawJson::from_json(schema),
            strict: None,
        });
    settings
}

/// Preserves the members of an object that are not in `known`, which are read elsewhere.
fn preserve_unknown(extras: &mut Extras, key: &str, json: JsonRef<'_>, known: &[&str]) {
    let rest = Extras::from_object(DIALECT, json, known);
    if !rest.is_empty() {
        let raw = RawJson::object(|o| rest.write(DIALECT, o, |_| {}));
        extras.push(DIALECT, key, raw);
    }
}

fn read_thinking(json: Option<JsonRef<'_>>, extras: &mut Extras) -> Option<ReasoningSettings> {
    let json = json?;
    let (enabled, adaptive) = match json.get("type").and_then(JsonRef::str).as_deref() {
        Some("enabled") => (true, false),
        Some("adaptive") => (true, true),
        Some("disabled") => (false, false),
        _ => {
            extras.push(DIALECT, "thinking", RawJson::from_json(json));
            return None;
        }
    };
    let show = match json.get("display").and_then(JsonRef::str).as_deref() {
        Some("summarized") => Some(true),
        Some("omitted") => Some(false),
        _ => None,
    };
    let budget = json.get("budget_tokens").and_then(JsonRef::u64);
    Some(ReasoningSettings {
        enabled: Some(enabled),
        effort: None,
        budget_tokens: budget,
        adaptive,
        show_thoughts: show,
        summary: None,
    })
}

fn read_tool_choice(json: JsonRef<'_>) -> Option<ToolChoice> {
    let kind = json.get("type").or(Some(json)).and_then(JsonRef::str)?;
    Some(match &*kind {
        "auto" => ToolChoice::Auto,
        "any" => ToolChoice::Required,
        "none" => ToolChoice::None,
        "tool" => ToolChoice::Named(json.string_at("name")?),
        _ => return None,
    })
}

fn read_tool(json: JsonRef<'_>) -> Tool {
    let kind = json.get("type").and_then(JsonRef::str);
    if let Some(kind) = kind.as_deref().filter(|kind| *kind != "custom") {
        if let Some(function) = client_tools::read(json, kind) {
            return Tool::Function(function);
        }
        let kinds = [
            ("web_search_", HostedKind::WebSearch),
            ("web_fetch_", HostedKind::UrlContext),
            ("code_execution_", HostedKind::CodeExecution),
        ];
        let kind = kinds
            .into_iter()
            .find(|(begin, _)| kind.starts_with(begin))
            .map_or(HostedKind::Other, |(_, kind)| kind);
        return Tool::Hosted(HostedTool { kind, dialect: DIALECT, body: RawJson::from_json(json) });
    }
    Tool::Function(FunctionTool {
        name: json.string_at("name").unwrap_or_default(),
        description: json.string_at("description"),
        schema: json.get("input_schema").map(RawJson::from_json),
        strict: json.get("strict").and_then(JsonRef::bool),
        namespace: None,
        cache: blocks_read::read_cache_control(json),
        extras: Extras::from_object(
            DIALECT,
            json,
            &["type", "name", "description", "input_schema", "strict", "cache_control"],
        ),
    })
}
