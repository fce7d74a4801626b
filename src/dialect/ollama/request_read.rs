//! Chat and generate requests: wire to common form.

use crate::{
    base::{
        json::{self, JsonRef},
        raw::RawJson,
    },
    dialect::{Place, ollama::image},
    ir::{
        block::{Block, BlockKind, CallKind, Reasoning, ToolCall, ToolResult},
        extras::Extras,
        fault::{ProxyError, ProxyErrorKind},
        op::Dialect,
        request::{ChatMessage, ChatRequest, Role},
        settings::{Effort, GenerationSettings, ReasoningSettings, ResponseFormat},
        tool::{FunctionTool, HostedKind, HostedTool, Tool},
    },
};

const OWN: Dialect = Dialect::Ollama;

/// How ids begin that were made for calls that came without one; the writer leaves them out again.
pub(super) const UNNAMED: &str = "call_unnamed_";

pub(super) fn read(place: Place, body: &[u8]) -> Result<ChatRequest, ProxyError> {
    let refused = |message: String| ProxyError::new(ProxyErrorKind::BadRequest, message);
    let root = json::parse(body)
        .map_err(|bad| refused(format!("invalid JSON: {}", bad.describe(body))))?;
    if !root.is_object() {
        return Err(refused(format!("expected an object, got {}", root.kind())));
    }
    let generate = place == Place::Generate;
    let mut request = ChatRequest { stream: true, ..ChatRequest::default() };
    let (mut messages, mut prompt, mut images) = (None, None, None);
    // What is blank counts as absent: official clients send empty fields for everything that was
    // not set.
    for (key, value) in root.members().filter(|(_, value)| !value.is_blank()) {
        match key {
            "model" => {}
            "stream" => request.stream = value.bool().unwrap_or(true),
            "messages" if !generate => messages = Some(value),
            "prompt" if generate => prompt = Some(value),
            "images" if generate => images = Some(value),
            "system" if generate => request.system = vec![Block::text(text(value))],
            "tools" if value.is_array() => request.tools = value.items().map(tool).collect(),
            "raw" if value.bool() == Some(false) => {}
            _ if setting(&mut request.settings, key, value) => {}
            "options" if value.is_object() => options(&mut request, value),
            _ => request.extras.push(OWN, key, RawJson::from_json(value)),
        }
    }
    if generate {
        let mut blocks: Vec<Block> =
            images.into_iter().flat_map(JsonRef::items).filter_map(image::read).collect();
        blocks.extend(prompt.map(|prompt| Block::text(text(prompt))));
        request.messages.extend((!blocks.is_empty()).then(|| ChatMessage::new(Role::User, blocks)));
    } else if let Some(list) = messages {
        if !list.is_array() {
            return Err(refused(format!("`messages` must be an array, got {}", list.kind()))
                .param("messages"));
        }
        if let Some(item) = list.items().find(|item| !item.is_object()) {
            return Err(refused(format!("`messages` must hold objects, got {}", item.kind()))
                .param("messages"));
        }
        conversation(&mut request, list);
    }
    Ok(request)
}

/// Whether the field beside the options was one that is known, and of its type.
fn setting(settings: &mut GenerationSettings, key: &str, value: JsonRef<'_>) -> bool {
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

/// Options that other dialects know too go to the settings, all others are kept under `options.…`.
fn options(request: &mut ChatRequest, options: JsonRef<'_>) {
    let settings = &mut request.settings;
    for (key, value) in options.members().filter(|(_, value)| value.kind() != "null") {
        let most = value.u64().filter(|&most| most > 0);
        match (key, sampling(settings, key)) {
            (_, Some(place)) if value.kind() == "number" => {
                *place = Some(RawJson::from_json(value))
            }
            ("num_predict", _) if most.is_some() => settings.max_tokens = most,
            // Without limit, which is also what happens where nothing is said.
            ("num_predict", _) if value.i64() == Some(-1) => {}
            ("stop", _) => {
                let texts = value.str().into_iter().chain(value.items().filter_map(JsonRef::str));
                settings.stop = texts
                    .map(std::borrow::Cow::into_owned)
                    .filter(|text| !text.is_empty())
                    .collect();
            }
            _ => request.extras.push(OWN, &format!("options.{key}"), RawJson::from_json(value)),
        }
    }
}

/// Where a number among the options is kept.
fn sampling<'s>(
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

fn tool(tool: JsonRef<'_>) -> Tool {
    let Some(function) = tool.get("function").filter(|function| function.is_object()) else {
        return Tool::Hosted(HostedTool {
            kind: HostedKind::Other,
            dialect: OWN,
            body: RawJson::from_json(tool),
        });
    };
    Tool::Function(FunctionTool {
        name: function.get("name").map(text).unwrap_or_default(),
        description: function
            .get("description")
            .and_then(JsonRef::str)
            .map(|text| text.into_owned()),
        schema: function
            .get("parameters")
            .filter(|schema| schema.is_object())
            .map(RawJson::from_json),
        extras: Extras::from_object(OWN, function, &["name", "description", "parameters"]),
        ..FunctionTool::default()
    })
}

/// Calls that wait for their results; where ids are missing, results belong to calls by name, else
/// by order.
#[derive(Default)]
struct Waiting {
    calls: Vec<(String, String)>,
    made: u32,
}

impl Waiting {
    fn call(&mut self, id: Option<String>, name: &str) -> String {
        let id = id.unwrap_or_else(|| self.make());
        self.calls.push((id.clone(), name.to_owned()));
        id
    }

    fn result(&mut self, id: Option<String>, name: Option<&str>) -> String {
        let hit = match (&id, name) {
            (Some(id), _) => self.calls.iter().position(|(call, _)| call == id),
            (None, Some(name)) => self.calls.iter().position(|(_, called)| called == name),
            (None, None) => (!self.calls.is_empty()).then_some(0),
        };
        match hit {
            Some(at) => self.calls.remove(at).0,
            None => id.unwrap_or_else(|| self.make()),
        }
    }

    fn make(&mut self) -> String {
        self.made += 1;
        format!("{UNNAMED}{}", self.made)
    }
}

fn conversation(request: &mut ChatRequest, list: JsonRef<'_>) {
    let (mut waiting, mut after_result) = (Waiting::default(), false);
    for item in list.items() {
        let string = |key: &str| {
            item.get(key)
                .and_then(JsonRef::str)
                .map(|text| text.into_owned())
                .filter(|text| !text.is_empty())
        };
        let content = item.get("content").filter(|content| !content.is_blank()).map(text);
        let images =
            || item.get("images").into_iter().flat_map(JsonRef::items).filter_map(image::read);
        let role = string("role").unwrap_or_default().to_ascii_lowercase();
        let extras = |known: &[&str]| Extras::from_object(OWN, item, known);
        if role == "tool" {
            let name = string("tool_name").or_else(|| string("name"));
            let result = ToolResult {
                call: waiting.result(string("tool_call_id"), name.as_deref()),
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
                    .map(|call| self::call(call, &mut waiting)),
            );
        } else {
            // Pictures stand before the words that speak of them.
            blocks.extend(images());
            blocks.extend(content.map(Block::text));
        }
        let known: &[&str] = match role {
            Role::Assistant => &["role", "content", "images", "thinking", "tool_calls", "name"],
            Role::System | Role::User => &["role", "content", "images", "name"],
        };
        let message = ChatMessage { role, blocks, name: string("name"), extras: extras(known) };
        let leads =
            role == Role::System && request.system.is_empty() && request.messages.is_empty();
        if leads && message.name.is_none() && message.extras.is_empty() {
            request.system = message.blocks;
        } else {
            request.messages.push(message);
        }
    }
}

fn call(call: JsonRef<'_>, waiting: &mut Waiting) -> Block {
    let function = call.get("function").unwrap_or(call);
    let name = function.get("name").map(text).unwrap_or_default();
    let id =
        call.get("id").and_then(JsonRef::str).map(|id| id.into_owned()).filter(|id| !id.is_empty());
    let mut block = Block::new(BlockKind::ToolCall(ToolCall {
        id: waiting.call(id, &name),
        name,
        arguments: arguments(function.get("arguments")),
        form: CallKind::Function,
    }));
    block.extras = Extras::from_object(OWN, call, &["id", "type", "function", "name", "arguments"]);
    block
}

/// Arguments come as an object; some say its text.
pub(super) fn arguments(value: Option<JsonRef<'_>>) -> String {
    value
        .map(|value| {
            value.str().map_or_else(|| value.text().to_owned(), std::borrow::Cow::into_owned)
        })
        .unwrap_or_default()
}

/// A text; of a list of parts the texts of the parts, of anything else its JSON.
fn text(value: JsonRef<'_>) -> String {
    match value.kind() {
        "string" => value.str().map(std::borrow::Cow::into_owned).unwrap_or_default(),
        "array" => value
            .items()
            .filter_map(|part| part.get("text").and_then(JsonRef::str).or_else(|| part.str()))
            .collect(),
        _ => value.text().to_owned(),
    }
}
