//! Reads chat and generate requests into the common form.

use crate::{
    base::json::{
        raw::RawJson,
        reader::{self, JsonRef},
    },
    dialect::{call_index::CallIndex, ingress::ChatEndpoint, ollama::images},
    ir::{
        block::{Block, BlockKind, CallKind, Reasoning, ToolCall, ToolResult},
        extras::Extras,
        fault::{ProxyError, ProxyErrorKind},
        generation_settings::{Effort, GenerationSettings, ReasoningSettings, ResponseFormat},
        op::Dialect,
        request::{ChatMessage, ChatRequest, Role},
        tool::{FunctionTool, HostedKind, HostedTool, Tool},
    },
};

const DIALECT: Dialect = Dialect::Ollama;

/// Prefix of the ids generated for calls without one; the writer removes such ids again.
pub(super) const SYNTHETIC_ID_PREFIX: &str = "call_unnamed_";

pub(super) fn read_request(place: ChatEndpoint, body: &[u8]) -> Result<ChatRequest, ProxyError> {
    let bad_request = |message: String| ProxyError::new(ProxyErrorKind::BadRequest, message);
    let root = reader::parse(body)
        .map_err(|bad| bad_request(format!("invalid JSON: {}", bad.describe(body))))?;
    if !root.is_object() {
        return Err(bad_request(format!("expected an object, got {}", root.kind())));
    }
    let generate = place == ChatEndpoint::Generate;
    let mut request = ChatRequest { stream: true, ..ChatRequest::default() };
    let (mut messages, mut prompt, mut images) = (None, None, None);
    // Blank values count as absent: official clients send empty fields for everything that was not
    // set.
    for (key, value) in root.members().filter(|(_, value)| !value.is_blank()) {
        match key {
            "model" => {}
            "stream" => request.stream = value.bool().unwrap_or(true),
            "messages" if !generate => messages = Some(value),
            "prompt" if generate => prompt = Some(value),
            "images" if generate => images = Some(value),
            "system" if generate => request.system = vec![Block::text(text_of(value))],
            "tools" if value.is_array() => request.tools = value.items().map(read_tool).collect(),
            "raw" if value.bool() == Some(false) => {}
            _ if read_setting(&mut request.settings, key, value) => {}
            "options" if value.is_object() => read_options(&mut request, value),
            _ => request.extras.push(DIALECT, key, RawJson::from_json(value)),
        }
    }
    if generate {
        let mut blocks: Vec<Block> =
            images.into_iter().flat_map(JsonRef::items).filter_map(images::read_image).collect();
        blocks.extend(prompt.map(|prompt| Block::text(text_of(prompt))));
        request.messages.extend((!blocks.is_empty()).then(|| ChatMessage::new(Role::User, blocks)));
    } else if let Some(list) = messages {
        if !list.is_array() {
            return Err(bad_request(format!("`messages` must be an array, got {}", list.kind()))
                .param("messages"));
        }
        if let Some(item) = list.items().find(|item| !item.is_object()) {
            return Err(bad_request(format!("`messages` must hold objects, got {}", item.kind()))
                .param("messages"));
        }
        read_messages(&mut request, list);
    }
    Ok(request)
}

/// Reads a setting outside the options. Returns whether the field is known and has the right type.
fn read_setting(settings: &mut GenerationSettings, key: &str, value: JsonRef<'_>) -> bool {
    match key {
        "think" => {
            let effort = value.str().and_then(|name| Effort::parse(&name));
            let enabled = value.bool().or(effort.map(|effort| effort != Effort::None));
            settings.reasoning = enabled.map(|_| ReasoningSettings {
                enabled,
                effort,
                ..ReasoningSettings::default()
            });
            enabled.is_some()
        }
        "format" if value.is_object() => {
            settings.format = Some(ResponseFormat::Schema {
                name: None,
                description: None,
                schema: RawJson::from_json(value),
                strict: None,
            });
            true
        }
        "format" if value.str().as_deref() == Some("json") => {
            settings.format = Some(ResponseFormat::Json);
            true
        }
        "logprobs" => {
            settings.logprobs = value.bool();
            settings.logprobs.is_some()
        }
        "top_logprobs" => {
            settings.top_logprobs = value.u64();
            settings.top_logprobs.is_some()
        }
        _ => false,
    }
}

/// Reads the options. Those that other dialects share become settings; the others are stored as
/// `options.…`.
fn read_options(request: &mut ChatRequest, options: JsonRef<'_>) {
    let settings = &mut request.settings;
    for (key, value) in options.members().filter(|(_, value)| value.kind() != "null") {
        let limit = value.u64().filter(|&limit| limit > 0);
        match (key, sampling_setting(settings, key)) {
            (_, Some(setting)) if value.kind() == "number" => {
                *setting = Some(RawJson::from_json(value));
            }
            ("num_predict", _) if limit.is_some() => settings.max_tokens = limit,
            // -1 means no limit, which is the default.
            ("num_predict", _) if value.i64() == Some(-1) => {}
            ("stop", _) => {
                settings.stop = value.strings();
                settings.stop.retain(|text| !text.is_empty());
            }
            _ => request.extras.push(DIALECT, &format!("options.{key}"), RawJson::from_json(value)),
        }
    }
}

/// Returns the setting that stores a numeric option.
fn sampling_setting<'s>(
    settings: &'s mut GenerationSettings,
    option: &str,
) -> Option<&'s mut Option<RawJson>> {
    Some(match option {
        "temperature" => &mut settings.temperature,
        "top_p" => &mut settings.top_p,
        "top_k" => &mut settings.top_k,
        "min_p" => &mut settings.min_p,
        "frequency_penalty" => &mut settings.frequency_penalty,
        "presence_penalty" => &mut settings.presence_penalty,
        "repeat_penalty" => &mut settings.repetition_penalty,
        "seed" => &mut settings.seed,
        _ => return None,
    })
}

fn read_tool(tool: JsonRef<'_>) -> Tool {
    let Some(function) = tool.get("function").filter(|function| function.is_object()) else {
        return Tool::Hosted(HostedTool {
            kind: HostedKind::Other,
            dialect: DIALECT,
            body: RawJson::from_json(tool),
        });
    };
    Tool::Function(FunctionTool {
        name: function.get("name").map(text_of).unwrap_or_default(),
        description: function.string_at("description"),
        schema: function
            .get("parameters")
            .filter(|schema| schema.is_object())
            .map(RawJson::from_json),
        extras: Extras::from_object(DIALECT, function, &["name", "description", "parameters"]),
        ..FunctionTool::default()
    })
}

/// Calls that wait for their results. A result without an id is matched to a call by name, else by
/// order.
#[derive(Default)]
struct OllamaPendingCalls {
    calls: CallIndex,
    synthetic_count: u32,
}

impl OllamaPendingCalls {
    fn add_call(&mut self, id: Option<String>, name: &str) -> String {
        let id = id.unwrap_or_else(|| self.synthetic_id());
        self.calls.push(&id, name);
        id
    }

    fn match_result(&mut self, id: Option<String>, name: Option<&str>) -> String {
        let hit = match (&id, name) {
            (Some(id), _) => self.calls.first_open_with_id(id),
            (None, Some(name)) => self.calls.first_open_of(name),
            (None, None) => self.calls.first_open(),
        };
        match hit {
            Some(number) => self.calls.close(number).to_owned(),
            None => id.unwrap_or_else(|| self.synthetic_id()),
        }
    }

    fn synthetic_id(&mut self) -> String {
        self.synthetic_count += 1;
        format!("{SYNTHETIC_ID_PREFIX}{}", self.synthetic_count)
    }
}

fn read_messages(request: &mut ChatRequest, list: JsonRef<'_>) {
    let (mut pending, mut after_result) = (OllamaPendingCalls::default(), false);
    for item in list.items() {
        let string = |key: &str| item.non_empty_at(key);
        let content = item.get("content").filter(|content| !content.is_blank()).map(text_of);
        let images = || {
            item.get("images").into_iter().flat_map(JsonRef::items).filter_map(images::read_image)
        };
        let role = string("role").unwrap_or_default().to_ascii_lowercase();
        let extras = |known: &[&str]| Extras::from_object(DIALECT, item, known);
        if role == "tool" {
            let name = string("tool_name").or_else(|| string("name"));
            let result = ToolResult {
                call: pending.match_result(string("tool_call_id"), name.as_deref()),
                name,
                content: content.map(Block::text).into_iter().chain(images()).collect(),
                is_error: false,
                form: CallKind::Function,
            };
            let mut block = Block::new(BlockKind::ToolResult(result));
            block.extras =
                extras(&["role", "content", "images", "tool_name", "name", "tool_call_id"]);
            match request.messages.last_mut() {
                Some(last) if after_result => last.blocks.push(block),
                _ => request.messages.push(ChatMessage::new(Role::User, vec![block])),
            }
            after_result = true;
            continue;
        }
        after_result = false;
        let role = match &*role {
            "assistant" | "model" => Role::Assistant,
            "system" | "developer" => Role::System,
            _ => Role::User,
        };
        let mut blocks = Vec::new();
        if role == Role::Assistant {
            blocks.extend(
                string("thinking").map(|text| {
                    Block::new(BlockKind::Reasoning(Reasoning { text, summary: false }))
                }),
            );
            blocks.extend(content.map(Block::text));
            blocks.extend(images());
            blocks.extend(
                item.get("tool_calls")
                    .into_iter()
                    .flat_map(JsonRef::items)
                    .map(|call| read_call(call, &mut pending)),
            );
        } else {
            // Images precede the text that refers to them.
            blocks.extend(images());
            blocks.extend(content.map(Block::text));
        }
        let known: &[&str] = match role {
            Role::Assistant => &["role", "content", "images", "thinking", "tool_calls", "name"],
            Role::System | Role::User => &["role", "content", "images", "name"],
        };
        let message = ChatMessage { role, blocks, name: string("name"), extras: extras(known) };
        let is_leading_system =
            role == Role::System && request.system.is_empty() && request.messages.is_empty();
        if is_leading_system && message.name.is_none() && message.extras.is_empty() {
            request.system = message.blocks;
        } else {
            request.messages.push(message);
        }
    }
}

fn read_call(call: JsonRef<'_>, pending: &mut OllamaPendingCalls) -> Block {
    let function = call.get("function").unwrap_or(call);
    let name = function.get("name").map(text_of).unwrap_or_default();
    let id = call.non_empty_at("id");
    let mut block = Block::new(BlockKind::ToolCall(ToolCall {
        id: pending.add_call(id, &name),
        name,
        arguments: read_arguments(function.get("arguments")),
        form: CallKind::Function,
    }));
    block.extras =
        Extras::from_object(DIALECT, call, &["id", "type", "function", "name", "arguments"]);
    block
}

/// Reads arguments, which are an object; some clients send the object as a text.
pub(super) fn read_arguments(value: Option<JsonRef<'_>>) -> String {
    value.map(|value| value.plain_text()).unwrap_or_default()
}

/// Returns a text, the joined texts of a list of parts, or the JSON of any other value.
fn text_of(value: JsonRef<'_>) -> String {
    match value.kind() {
        "string" => value.string().unwrap_or_default(),
        "array" => value
            .items()
            .filter_map(|part| part.get("text").and_then(JsonRef::str).or_else(|| part.str()))
            .collect(),
        _ => value.text().to_owned(),
    }
}
