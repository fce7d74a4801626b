//! Writes a conversation as a generateContent request.

use crate::{
    base::json::{
        raw::RawJson,
        writer::{self, ObjectWriter},
    },
    dialect::{
        egress::{AttemptContext, EncodedRequest, TargetTraits, Thinking},
        gemini::{
            contents_write::{self, to_valid_name},
            request_read::extras_with_prefix,
            schema,
        },
        losses::Losses,
    },
    ir::{
        block::{Block, BlockKind},
        generation_settings::{Effort, GenerationSettings, ReasoningSettings, ResponseFormat},
        op::Dialect,
        request::{ChatRequest, Role},
        tool::{FunctionTool, HostedKind, HostedTool, Tool, ToolChoice},
    },
};

/// The provider's limit for stop sequences.
const MAX_STOP_SEQUENCES: usize = 5;
/// The largest thinking budget that every thinking model accepts.
const MAX_THINKING_BUDGET: u64 = 24_576;

pub(super) fn write_request(request: &ChatRequest, traits: &TargetTraits) -> EncodedRequest {
    let mut losses = Losses::default();
    let mut carry =
        AttemptContext { renamed_tools: Vec::new(), call_id_seed: traits.call_id_seed.clone() };
    let mut contents = contents_write::write_contents(&request.messages, traits, &mut losses);
    let system = write_system(request, &mut losses);
    if contents == "[]" {
        // The provider does not answer a request that has only instructions.
        contents = format!("[{}]", contents_write::USER_FILLER_TURN);
    }
    let config = write_generation_config(request, traits, &mut losses);
    let body = writer::object(|o| {
        o.raw_text("contents", &contents);
        if let Some(parts) = &system {
            o.object("systemInstruction", |o| {
                o.raw_text("parts", parts);
            });
        }
        write_tools(o, request, &mut carry, &mut losses);
        if config != "{}" {
            o.raw_text("generationConfig", &config);
        }
        write_service_tier(o, &request.settings, &mut losses);
        for (key, value) in request.extras.iter() {
            if !request.extras.is_from(Dialect::Gemini) {
                losses.add(key);
            } else if !key.starts_with("generationConfig.") && !key.starts_with("toolConfig.") {
                o.raw(key, value);
            }
        }
    });
    EncodedRequest {
        body: body.into(),
        headers: Vec::new(),
        losses: losses.into_vec(),
        context: carry,
    }
}

/// Writes all system text as parts, including text inside the conversation.
fn write_system(request: &ChatRequest, losses: &mut Losses) -> Option<String> {
    let within = request
        .messages
        .iter()
        .filter(|message| message.role == Role::System)
        .flat_map(|message| &message.blocks);
    let parts = writer::array(|a| {
        for block in request.system.iter().chain(within) {
            if block.cache.is_some() {
                losses.add("system.cache_control");
            }
            match &block.kind {
                BlockKind::Text(it) if it.text.is_empty() => {}
                BlockKind::Text(it) => {
                    a.object(|o| {
                        o.str("text", &it.text);
                    });
                }
                _ => losses.add("system.media"),
            }
            add_foreign_losses(block, "system", losses);
        }
    });
    (parts != "[]").then_some(parts)
}

fn add_foreign_losses(block: &Block, place: &str, losses: &mut Losses) {
    for (key, _) in block.extras.iter_foreign_to(Dialect::Gemini) {
        losses.add(format!("{place}.{key}"));
    }
}

fn write_tools(
    o: &mut ObjectWriter<'_>,
    request: &ChatRequest,
    context: &mut AttemptContext,
    losses: &mut Losses,
) {
    let functions: Vec<String> = request
        .tools
        .iter()
        .filter_map(|tool| match tool {
            Tool::Function(tool) => Some(write_function(tool, context, losses)),
            Tool::Custom(tool) => {
                for (key, _) in tool.extras.iter() {
                    losses.add(format!("tools.{key}"));
                }
                Some(write_function(&tool.as_function(), context, losses))
            }
            Tool::Hosted(_) => None,
        })
        .collect();
    let hosted: Vec<RawJson> = request
        .tools
        .iter()
        .filter_map(|tool| match tool {
            Tool::Hosted(tool) => hosted_tool(tool, !functions.is_empty(), losses),
            _ => None,
        })
        .collect();
    if !functions.is_empty() || !hosted.is_empty() {
        o.array("tools", |a| {
            if !functions.is_empty() {
                a.object(|o| {
                    o.array("functionDeclarations", |a| {
                        functions.iter().for_each(|function| {
                            a.raw_text(function);
                        });
                    });
                });
            }
            hosted.iter().for_each(|tool| {
                a.raw(tool);
            });
        });
    }
    let calling = writer::object(|o| {
        if !functions.is_empty() {
            write_choice(
                o,
                request.tool_choice.as_ref(),
                request.extras.get(Dialect::Gemini, "toolConfig.functionCallingConfig.mode"),
            );
        }
        for (key, value) in extras_with_prefix(&request.extras, "toolConfig.functionCallingConfig.")
            .filter(|(key, _)| *key != "mode")
        {
            o.raw(key, value);
        }
    });
    let config = writer::object(|o| {
        if calling != "{}" {
            o.raw_text("functionCallingConfig", &calling);
        }
        for (key, value) in extras_with_prefix(&request.extras, "toolConfig.")
            .filter(|(key, _)| !key.starts_with("functionCallingConfig."))
        {
            o.raw(key, value);
        }
    });
    if config != "{}" {
        o.raw_text("toolConfig", &config);
    }
    if request.settings.parallel_tools == Some(false) && !functions.is_empty() {
        losses.add("parallel_tool_calls");
    }
}

fn write_function(
    tool: &FunctionTool,
    context: &mut AttemptContext,
    losses: &mut Losses,
) -> String {
    let name = to_valid_name(&tool.name);
    if name != tool.name {
        context.renamed_tools.push((name.clone().into_owned(), tool.name.clone()));
    }
    if tool.strict == Some(true) {
        losses.add("tools.strict");
    }
    if tool.cache.is_some() {
        losses.add("tools.cache_control");
    }
    writer::object(|o| {
        o.str("name", &name).opt_str("description", tool.description.as_deref());
        if let Some(schema) = tool.schema.as_ref().filter(|schema| schema.json().is_object()) {
            o.raw(
                "parametersJsonSchema",
                &schema::from_json_schema(schema.json(), "tools.schema", losses),
            );
        }
        tool.extras.write(Dialect::Gemini, o, |key| losses.add(format!("tools.{key}")));
    })
}

/// Returns a provider-run tool in the provider's format. Hosted tools of other dialects are dropped
/// if the request has functions. The provider accepts both together only if the client can send the
/// provider's calls back, which clients of other dialects cannot.
fn hosted_tool(tool: &HostedTool, functions: bool, losses: &mut Losses) -> Option<RawJson> {
    if tool.dialect == Dialect::Gemini {
        return Some(tool.body.clone());
    }
    let (native_key, name) = match tool.kind {
        HostedKind::WebSearch => ("googleSearch", "tools.web_search"),
        HostedKind::CodeExecution => ("codeExecution", "tools.code_execution"),
        HostedKind::UrlContext => ("urlContext", "tools.url_context"),
        HostedKind::Other => {
            losses.add_foreign_tool(tool.body.json());
            return None;
        }
    };
    if functions {
        losses.add(name);
        return None;
    }
    for (key, _) in tool
        .body
        .json()
        .members()
        .filter(|(key, value)| !matches!(*key, "type" | "name") && !value.is_blank())
    {
        losses.add(format!("{name}.{key}"));
    }
    Some(RawJson::object(|o| {
        o.object(native_key, |_| {});
    }))
}

fn write_choice(
    o: &mut ObjectWriter<'_>,
    choice: Option<&ToolChoice>,
    native_mode: Option<&RawJson>,
) {
    let names = |o: &mut ObjectWriter<'_>, names: &[String]| {
        o.array("allowedFunctionNames", |a| {
            names.iter().for_each(|name| {
                a.str(&to_valid_name(name));
            });
        });
    };
    match choice {
        None => {}
        Some(ToolChoice::Auto) => match native_mode {
            Some(mode) => {
                o.raw("mode", mode);
            }
            None => {
                o.str("mode", "AUTO");
            }
        },
        Some(ToolChoice::None) => {
            o.str("mode", "NONE");
        }
        Some(ToolChoice::Required) => {
            o.str("mode", "ANY");
        }
        Some(ToolChoice::Named(name)) => {
            o.str("mode", "ANY");
            names(o, std::slice::from_ref(name));
        }
        Some(ToolChoice::Allowed { names: allowed, required }) => {
            // Names need a mode that respects them.
            o.str("mode", if *required { "ANY" } else { "VALIDATED" });
            names(o, allowed);
        }
    }
}

fn write_generation_config(
    request: &ChatRequest,
    traits: &TargetTraits,
    losses: &mut Losses,
) -> String {
    let settings = &request.settings;
    writer::object(|o| {
        if let Some(limit) = settings.max_tokens {
            let cap = traits.max_output.filter(|most| *most < limit);
            losses.when(cap.is_some(), "max_tokens");
            o.num("maxOutputTokens", cap.unwrap_or(limit));
        }
        o.opt_raw("temperature", settings.temperature.as_ref())
            .opt_raw("topP", settings.top_p.as_ref());
        o.opt_raw("topK", settings.top_k.as_ref()).opt_raw("seed", settings.seed.as_ref());
        o.opt_raw("presencePenalty", settings.presence_penalty.as_ref());
        o.opt_raw("frequencyPenalty", settings.frequency_penalty.as_ref());
        if !settings.stop.is_empty() {
            if settings.stop.len() > MAX_STOP_SEQUENCES {
                losses.add("stop");
            }
            o.array("stopSequences", |a| {
                settings.stop.iter().take(MAX_STOP_SEQUENCES).for_each(|stop| {
                    a.str(stop);
                });
            });
        }
        if settings.logprobs == Some(true) {
            o.bool("responseLogprobs", true);
            if let Some(top) = settings.top_logprobs {
                o.num("logprobs", top);
            }
        }
        match &settings.format {
            None | Some(ResponseFormat::Text) => {}
            Some(ResponseFormat::Json) => {
                o.str("responseMimeType", "application/json");
            }
            Some(ResponseFormat::Schema { schema, .. }) => {
                o.str("responseMimeType", "application/json");
                o.raw(
                    "responseJsonSchema",
                    &schema::from_json_schema(schema.json(), "response_format.schema", losses),
                );
            }
        }
        if let Some(wish) = &settings.reasoning {
            let thinking = writer::object(|o| write_thinking(o, wish, traits, losses));
            if thinking != "{}" {
                o.raw_text("thinkingConfig", &thinking);
            }
        }
        for (key, value) in extras_with_prefix(&request.extras, "generationConfig.") {
            o.raw(key, value);
        }
        add_setting_losses(settings, losses);
    })
}

fn add_setting_losses(settings: &GenerationSettings, losses: &mut Losses) {
    for (field, lost) in [
        ("n", settings.n.is_some_and(|n| n > 1)),
        ("min_p", settings.min_p.is_some()),
        ("repetition_penalty", settings.repetition_penalty.is_some()),
        ("verbosity", settings.verbosity.is_some()),
        ("user", settings.user.is_some()),
        (
            "metadata",
            settings.metadata.as_ref().is_some_and(|metadata| !metadata.json().is_blank()),
        ),
        ("prompt_cache_key", settings.prompt_cache_key.is_some()),
    ] {
        if lost {
            losses.add(field);
        }
    }
}

fn write_thinking(
    o: &mut ObjectWriter<'_>,
    wish: &ReasoningSettings,
    traits: &TargetTraits,
    losses: &mut Losses,
) {
    let mode = traits.thinking;
    let wanted = wish.enabled != Some(false) && wish.effective_effort() != Some(Effort::None);
    match mode {
        Thinking::Unsupported
            if wanted && (wish.enabled == Some(true) || wish.effective_effort().is_some()) =>
        {
            losses.add("reasoning");
        }
        Thinking::Unsupported => {}
        Thinking::Effort => {
            let level = match wish.effective_effort() {
                None => None,
                Some(Effort::None) => {
                    // These models always think.
                    losses.add("reasoning.effort");
                    Some("LOW")
                }
                Some(Effort::Minimal) => Some("MINIMAL"),
                Some(Effort::Low) => Some("LOW"),
                Some(Effort::Medium) => Some("MEDIUM"),
                Some(Effort::High | Effort::XHigh | Effort::Max) => Some("HIGH"),
            };
            o.opt_str("thinkingLevel", level);
        }
        Thinking::Budget if wish.adaptive => {
            o.raw_text("thinkingBudget", "-1");
        }
        Thinking::Budget => {
            if let Some(tokens) = wish.effective_budget_tokens() {
                let max = traits.facts.max_budget.unwrap_or(MAX_THINKING_BUDGET);
                o.num("thinkingBudget", tokens.min(max));
            }
        }
    }
    let requested = wish.enabled == Some(true)
        || wish.effective_effort().is_some()
        || wish.adaptive
        || wish.summary.is_some();
    if mode != Thinking::Unsupported && wanted && wish.show_thoughts.unwrap_or(requested) {
        o.bool("includeThoughts", true);
    }
}

/// Writes the service tier. Tiers that both sides have share their names, and the standard one is
/// omitted.
fn write_service_tier(
    o: &mut ObjectWriter<'_>,
    settings: &GenerationSettings,
    losses: &mut Losses,
) {
    match settings.service_tier.as_deref() {
        None | Some("auto" | "default" | "standard" | "standard_only") => {}
        Some(tier @ ("flex" | "priority")) => {
            o.str("serviceTier", tier);
        }
        Some(_) => losses.add("service_tier"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::ir::{
        block::{
            CacheBreakpoint, CallKind, Citation, Media, MediaKind, MediaSource, Reasoning,
            ReasoningSignature, SignatureKind, TextBlock, ToolCall, ToolResult,
        },
        extras::Extras,
        request::ChatMessage,
        tool::CustomTool,
    };

    fn traits(thinking: Thinking) -> TargetTraits {
        TargetTraits {
            model: "m".to_owned(),
            stream: false,
            max_output: Some(1000),
            thinking,
            max_tokens_field: "max_tokens",
            developer_role: false,
            accepts_reasoning: false,
            ask_usage: true,
            facts: Default::default(),
            call_id_seed: "s".to_owned(),
        }
    }

    fn write_json(request: &ChatRequest, thinking: Thinking) -> (Value, Vec<String>) {
        let encoded = write_request(request, &traits(thinking));
        let losses = encoded.losses.into_iter().map(|loss| loss.0.into_owned()).collect();
        (serde_json::from_slice(&encoded.body).expect("json"), losses)
    }

    fn call(id: &str, name: &str, arguments: &str) -> Block {
        let call = ToolCall {
            id: id.to_owned(),
            name: name.to_owned(),
            arguments: arguments.to_owned(),
            form: CallKind::Function,
        };
        Block::new(BlockKind::ToolCall(call))
    }

    fn media(kind: MediaKind, source: MediaSource) -> Block {
        Block::new(BlockKind::Media(Media { kind, source, mime: None, name: None, detail: None }))
    }

    fn signed(mut block: Block, dialect: Dialect, value: &str) -> Block {
        block.signature = Some(ReasoningSignature {
            dialect,
            kind: SignatureKind::Signature,
            value: value.to_owned(),
            id: None,
        });
        block
    }

    fn request_of(messages: Vec<(Role, Vec<Block>)>) -> ChatRequest {
        let messages =
            messages.into_iter().map(|(role, blocks)| ChatMessage::new(role, blocks)).collect();
        ChatRequest { messages, ..ChatRequest::default() }
    }

    /// Pains 3 and 33: signatures stay in place, foreign ones are dropped and reported as losses,
    /// and images in results are preserved.
    #[test]
    fn tool_loop_of_another_dialect_is_written() {
        let thought =
            Block::new(BlockKind::Reasoning(Reasoning { text: "hm".to_owned(), summary: false }));
        let image = media(MediaKind::Image, MediaSource::Base64("iVBORw0K".to_owned()));
        let result = ToolResult {
            call: "1".to_owned(),
            content: vec![Block::text("a"), Block::text("b"), image],
            is_error: true,
            ..ToolResult::default()
        };
        let request = request_of(vec![
            (Role::User, vec![Block::text("hi")]),
            (
                Role::Assistant,
                vec![
                    signed(thought, Dialect::Anthropic, "x"),
                    call("1", "f", ""),
                    call("2", "f", "[1]"),
                ],
            ),
            (Role::User, vec![Block::text("and?"), Block::new(BlockKind::ToolResult(result))]),
            (Role::Assistant, vec![signed(call("3", "f", "{\"a\":1.0}"), Dialect::Gemini, "own")]),
        ]);

        let (body, losses) = write_json(&request, Thinking::Effort);

        let png = json!({"inlineData": {"mimeType": "image/png", "data": "iVBORw0K"}});
        let none = |id: &str| json!({"functionResponse": {"id": id, "name": "f", "response": {"error": "no result was given for this call"}}});
        let want = json!([
            {"role": "user", "parts": [{"text": "hi"}]},
            {"role": "model", "parts": [
                {"text": "hm", "thought": true},
                {"functionCall": {"id": "1", "name": "f", "args": {}}, "thoughtSignature": "skip_thought_signature_validator"},
                {"functionCall": {"id": "2", "name": "f", "args": {"input": [1]}}},
            ]},
            {"role": "user", "parts": [
                {"functionResponse": {"id": "1", "name": "f", "response": {"error": "a\nb"}, "parts": [png]}},
                none("2"),
                {"text": "and?"},
            ]},
            {"role": "model", "parts": [{"functionCall": {"id": "3", "name": "f", "args": {"a": 1.0}}, "thoughtSignature": "own"}]},
            {"role": "user", "parts": [none("3")]},
        ]);
        assert_eq!(body["contents"], want);
        assert_eq!(losses, ["reasoning.proof"]);
        let (body, _) = write_json(&request, Thinking::Budget);
        assert_eq!(body["contents"][1]["parts"][1].get("thoughtSignature"), None);
        let beside = body["contents"][2]["parts"]
            .as_array()
            .expect("parts")
            .iter()
            .position(|part| *part == png);
        assert_eq!(beside, Some(2), "after all results");
    }

    #[test]
    fn tools_of_other_dialects_are_written() {
        let hosted = |kind, body: &str| {
            Tool::Hosted(HostedTool {
                kind,
                dialect: Dialect::Anthropic,
                body: RawJson::parse(body).expect("json"),
            })
        };
        let named = |name: &str| {
            Tool::Function(FunctionTool {
                name: name.to_owned(),
                strict: Some(true),
                ..FunctionTool::default()
            })
        };
        let search = || {
            hosted(
                HostedKind::WebSearch,
                r#"{"type":"web_search_1","name":"web_search","max_uses":3}"#,
            )
        };
        let mut request = request_of(vec![(Role::User, vec![Block::text("hi")])]);

        request.tools = vec![search(), hosted(HostedKind::Other, r#"{"type":"memory_1"}"#)];
        request.tool_choice = Some(ToolChoice::Auto);
        let (body, losses) = write_json(&request, Thinking::Budget);
        assert_eq!(
            (&body["tools"], body.get("toolConfig")),
            (&json!([{"googleSearch": {}}]), None)
        );
        assert_eq!(losses, ["tools.web_search.max_uses", "tools.memory_1"]);

        let custom = Tool::Custom(CustomTool { name: "patch".to_owned(), ..CustomTool::default() });
        request.tools = vec![search(), named("1 bad/name"), custom];
        request.tool_choice = Some(ToolChoice::Named("1 bad/name".to_owned()));
        let encoded = write_request(&request, &traits(Thinking::Budget));
        let body: Value = serde_json::from_slice(&encoded.body).expect("json");
        let sent = body["tools"][0]["functionDeclarations"][0]["name"].as_str().expect("a name");
        assert!(sent.starts_with("_1_bad_name_"), "{sent}");
        assert_eq!(encoded.context.client_tool_name(sent), "1 bad/name");
        assert_eq!(
            body["tools"][0]["functionDeclarations"][1]["parametersJsonSchema"]["required"],
            json!(["input"])
        );
        assert_eq!(
            body["toolConfig"],
            json!({"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": [sent]}})
        );
        let losses: Vec<_> = encoded.losses.iter().map(|loss| &*loss.0).collect();
        assert_eq!(losses, ["tools.strict", "tools.web_search"]);
    }

    #[test]
    fn settings_of_other_dialects_are_written_or_lost() {
        let mut request = request_of(vec![
            (Role::System, vec![Block::text("late")]),
            (Role::User, vec![Block::text("hi")]),
        ]);
        request.system = vec![Block::text("early")];
        let raw = |text: &str| RawJson::parse(text);
        request.settings = GenerationSettings {
            max_tokens: Some(5000),
            temperature: raw("0.10"),
            min_p: raw("1"),
            stop: ["a", "b", "c", "d", "e", "f"].map(str::to_owned).to_vec(),
            n: Some(2),
            logprobs: Some(true),
            top_logprobs: Some(3),
            format: Some(ResponseFormat::Schema {
                name: None,
                description: None,
                schema: raw(r#"{"type":"object","uniqueItems":true}"#).expect("json"),
                strict: None,
            }),
            reasoning: Some(ReasoningSettings {
                effort: Some(Effort::XHigh),
                ..ReasoningSettings::default()
            }),
            service_tier: Some("flex".to_owned()),
            user: Some("u".to_owned()),
            parallel_tools: Some(false),
            ..GenerationSettings::default()
        };
        request.extras = Extras::default();
        request.extras.push(Dialect::Openai, "store", RawJson::from(true));

        let (body, mut losses) = write_json(&request, Thinking::Budget);

        assert_eq!(
            body["systemInstruction"],
            json!({"parts": [{"text": "early"}, {"text": "late"}]})
        );
        assert_eq!(
            body["generationConfig"],
            json!({"maxOutputTokens": 1000, "temperature": 0.10, "stopSequences": ["a", "b", "c", "d", "e"], "responseLogprobs": true, "logprobs": 3,
                "responseMimeType": "application/json", "responseJsonSchema": {"type": "object"},
                "thinkingConfig": {"thinkingBudget": 24576, "includeThoughts": true}})
        );
        assert_eq!(body["serviceTier"], "flex");
        losses.sort();
        assert_eq!(
            losses,
            [
                "max_tokens",
                "min_p",
                "n",
                "response_format.schema.uniqueItems",
                "stop",
                "store",
                "user"
            ]
        );
        assert_eq!(
            write_json(&request, Thinking::Effort).0["generationConfig"]["thinkingConfig"]["thinkingLevel"],
            "HIGH"
        );
        assert!(write_json(&request, Thinking::Unsupported).1.contains(&"reasoning".to_owned()));
    }

    #[test]
    fn content_of_other_dialects_is_written_or_lost() {
        let mut cached = Block::text("hi");
        cached.cache = Some(CacheBreakpoint { raw: RawJson::from(true) });
        let cited = Block::new(BlockKind::Text(TextBlock {
            text: "t".to_owned(),
            citations: vec![Citation::default()],
        }));
        let foreign = Block::new(BlockKind::Foreign {
            dialect: Dialect::Anthropic,
            body: RawJson::parse(r#"{"type":"server_tool_use"}"#).expect("json"),
        });
        let request = request_of(vec![
            (
                Role::User,
                vec![
                    cached,
                    media(MediaKind::Image, MediaSource::Url("https://x/a.png?b".to_owned())),
                    media(MediaKind::Image, MediaSource::Url("https://x/a".to_owned())),
                    media(
                        MediaKind::Image,
                        MediaSource::Url("data:image/gif;base64,R0lG".to_owned()),
                    ),
                    media(MediaKind::File, MediaSource::FileId("file-1".to_owned())),
                    media(MediaKind::Document, MediaSource::Text("words".to_owned())),
                    Block::text(""),
                ],
            ),
            (
                Role::Assistant,
                vec![cited, foreign, Block::new(BlockKind::Refusal("no".to_owned()))],
            ),
        ]);

        let (body, losses) = write_json(&request, Thinking::Budget);

        let want = json!([
            {"role": "user", "parts": [
                {"text": "hi"},
                {"fileData": {"mimeType": "image/png", "fileUri": "https://x/a.png?b"}},
                {"fileData": {"fileUri": "https://x/a"}},
                {"inlineData": {"mimeType": "image/gif", "data": "R0lG"}},
                {"text": "words"},
            ]},
            {"role": "model", "parts": [{"text": "t"}, {"text": "no"}]},
        ]);
        assert_eq!(body["contents"], want);
        assert_eq!(
            losses,
            [
                "messages.cache_control",
                "messages.file_id",
                "messages.citations",
                "messages.server_tool_use"
            ]
        );
    }

    #[test]
    fn instructions_without_a_message_get_a_user_turn() {
        let request = ChatRequest { system: vec![Block::text("be")], ..ChatRequest::default() };
        let contents = json!([{"role": "user", "parts": [{"text": "Continue."}]}]);
        assert_eq!(
            write_json(&request, Thinking::Budget).0,
            json!({"contents": contents, "systemInstruction": {"parts": [{"text": "be"}]}})
        );
    }
}
