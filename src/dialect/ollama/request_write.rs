//! Writes chat requests from the common form.

use std::{borrow::Cow, collections::HashMap};

use crate::{
    base::json::{
        raw::RawJson,
        writer::{self, ArrayWriter, ObjectWriter},
    },
    dialect::{
        egress::{AttemptContext, EncodedRequest, TargetTraits, Thinking},
        losses::Losses,
        ollama::{images, request_read::SYNTHETIC_ID_PREFIX, schema},
    },
    ir::{
        block::{Block, BlockKind, CallKind, Media, MediaKind, MediaSource, ToolCall, ToolResult},
        extras::Extras,
        generation_settings::{Effort, ReasoningSettings, ResponseFormat},
        op::Dialect,
        request::{ChatMessage, ChatRequest, Role},
        tool::{self, FunctionTool, HostedKind, Tool, ToolChoice},
    },
};

const DIALECT: Dialect = Dialect::Ollama;
/// Separates parts of a message that must become one text.
const PART_SEPARATOR: &str = "\n\n";

pub(super) fn write_request(request: &ChatRequest, traits: &TargetTraits) -> EncodedRequest {
    let mut losses = Losses::default();
    let choice = request.tool_choice.as_ref();
    // Ollama has no tool choice, but the model cannot call a tool that the request omits.
    let tools: &[Tool] = if choice == Some(&ToolChoice::None) { &[] } else { &request.tools };
    losses
        .when(!tools.is_empty() && !matches!(choice, None | Some(ToolChoice::Auto)), "tool_choice");
    let body = writer::object(|o| {
        o.str("model", &traits.model);
        o.array("messages", |a| write_messages(a, request, &mut losses));
        if !tools.is_empty() {
            o.array("tools", |a| write_tools(a, tools, &mut losses));
        }
        o.bool("stream", traits.stream);
        write_settings(o, request, traits, &mut losses);
        for (key, value) in request.extras.iter() {
            match request.extras.get(DIALECT, key) {
                Some(_) if key.starts_with("options.") => {}
                Some(_) => {
                    o.raw(key, value);
                }
                None => losses.add(key),
            }
        }
    });
    let carry =
        AttemptContext { renamed_tools: Vec::new(), call_id_seed: traits.call_id_seed.clone() };
    EncodedRequest {
        body: body.into(),
        headers: Vec::new(),
        losses: losses.into_vec(),
        context: carry,
    }
}

fn write_settings(
    o: &mut ObjectWriter<'_>,
    request: &ChatRequest,
    traits: &TargetTraits,
    losses: &mut Losses,
) {
    let settings = &request.settings;
    match &settings.format {
        Some(ResponseFormat::Json) => {
            o.str("format", "json");
        }
        Some(ResponseFormat::Schema { schema, .. }) => {
            o.raw("format", schema);
        }
        Some(ResponseFormat::Text) | None => {}
    }
    if let Some(wish) = &settings.reasoning {
        write_think(o, wish, traits.thinking, losses);
    }
    if let Some(yes) = settings.logprobs {
        o.bool("logprobs", yes);
    }
    if let Some(count) = settings.top_logprobs {
        o.num("top_logprobs", count);
    }
    let options = writer::object(|o| {
        if let Some(limit) = settings.max_tokens {
            o.num("num_predict", limit);
        }
        o.opt_raw("temperature", settings.temperature.as_ref())
            .opt_raw("top_p", settings.top_p.as_ref())
            .opt_raw("top_k", settings.top_k.as_ref())
            .opt_raw("min_p", settings.min_p.as_ref())
            .opt_raw("frequency_penalty", settings.frequency_penalty.as_ref())
            .opt_raw("presence_penalty", settings.presence_penalty.as_ref())
            .opt_raw("repeat_penalty", settings.repetition_penalty.as_ref())
            .opt_raw("seed", settings.seed.as_ref());
        if !settings.stop.is_empty() {
            o.array("stop", |a| {
                for stop in &settings.stop {
                    a.str(stop);
                }
            });
        }
        for (key, value) in request.extras.iter() {
            if let (Some(option), Some(_)) =
                (key.strip_prefix("options."), request.extras.get(DIALECT, key))
            {
                o.raw(option, value);
            }
        }
    });
    if options != "{}" {
        o.raw_text("options", &options);
    }
    losses.when(settings.n.is_some_and(|n| n > 1), "n");
    losses.when(settings.verbosity.is_some(), "verbosity");
    losses.when(settings.service_tier.is_some(), "service_tier");
    losses.when(settings.user.is_some(), "user");
    losses.when(settings.metadata.is_some(), "metadata");
    losses.when(settings.prompt_cache_key.is_some(), "prompt_cache_key");
    losses.when(settings.parallel_tools == Some(false), "parallel_tool_calls");
}

/// Models with effort levels use the level; the others treat every level as `true`.
fn write_think(
    o: &mut ObjectWriter<'_>,
    wish: &ReasoningSettings,
    thinking: Thinking,
    losses: &mut Losses,
) {
    if wish.effective_effort() == Some(Effort::None) {
        o.bool("think", false);
        return;
    }
    let requested =
        wish.enabled == Some(true) || wish.adaptive || wish.effective_effort().is_some();
    if !requested {
        return;
    }
    let level = match (thinking, wish.effort, wish.effective_effort()) {
        (Thinking::Unsupported, ..) => {
            losses.add("reasoning");
            return;
        }
        (_, Some(effort), _) | (Thinking::Effort, None, Some(effort)) => effort,
        (_, None, level) => {
            losses.when(level.is_some(), "reasoning.budget_tokens");
            o.bool("think", true);
            return;
        }
    };
    o.str(
        "think",
        match level {
            Effort::None | Effort::Minimal | Effort::Low => "low",
            Effort::Medium => "medium",
            Effort::High | Effort::XHigh | Effort::Max => "high",
        },
    );
}

fn write_tools(a: &mut ArrayWriter<'_>, tools: &[Tool], losses: &mut Losses) {
    for tool in tools {
        match tool {
            Tool::Function(tool) => write_function(a, tool, losses),
            Tool::Custom(tool) => {
                tool.extras.iter().for_each(|(key, _)| losses.add(format!("tools.{key}")));
                write_function(a, &tool.as_function(), losses);
            }
            Tool::Hosted(tool) if tool.dialect == DIALECT => {
                a.raw(&tool.body);
            }
            Tool::Hosted(tool) => losses.add(match tool.kind {
                HostedKind::WebSearch => "tools.web_search",
                HostedKind::CodeExecution => "tools.code_execution",
                HostedKind::UrlContext => "tools.url_context",
                HostedKind::Other => "tools.hosted",
            }),
        }
    }
}

fn write_function(a: &mut ArrayWriter<'_>, tool: &FunctionTool, losses: &mut Losses) {
    losses.when(tool.strict == Some(true), "tools.strict");
    losses.when(tool.cache.is_some(), "tools.cache_control");
    a.object(|o| {
        o.str("type", "function").object("function", |o| {
            o.str("name", &tool.name).opt_str("description", tool.description.as_deref());
            o.raw_text("parameters", &schema::tool_parameters(tool.schema.as_ref()));
            tool.extras.write(DIALECT, o, |key| losses.add(format!("tools.{key}")));
        });
    });
}

fn write_messages(a: &mut ArrayWriter<'_>, request: &ChatRequest, losses: &mut Losses) {
    if !request.system.is_empty() {
        losses
            .when(request.system.iter().any(|block| block.cache.is_some()), "system.cache_control");
        write_message(
            a,
            "system",
            None,
            &request.system.iter().collect::<Vec<_>>(),
            &Extras::default(),
            losses,
        );
    }
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut rest = request.messages.as_slice();
    while let Some(first) = rest.first() {
        let run = if first.role == Role::User {
            rest.iter().take_while(|message| message.role == Role::User).count()
        } else {
            1
        };
        let (now, later) = rest.split_at(run);
        rest = later;
        match first.role {
            Role::Assistant => {
                for block in &first.blocks {
                    if let BlockKind::ToolCall(call) = &block.kind {
                        names.insert(&call.id, &call.name);
                    }
                }
                write_assistant_message(a, first, losses);
            }
            Role::System => write_message(
                a,
                "system",
                first.name.as_deref(),
                &first.blocks.iter().collect::<Vec<_>>(),
                &first.extras,
                losses,
            ),
            // Results come directly after the calls, before other content of the user.
            Role::User => {
                for block in now.iter().flat_map(|message| &message.blocks) {
                    if let BlockKind::ToolResult(it) = &block.kind {
                        write_tool_result(
                            a,
                            it,
                            block,
                            names.get(it.call.as_str()).copied(),
                            losses,
                        );
                    }
                }
                for message in now {
                    let rest: Vec<&Block> = message
                        .blocks
                        .iter()
                        .filter(|block| !matches!(block.kind, BlockKind::ToolResult(_)))
                        .collect();
                    if !rest.is_empty() || message.blocks.is_empty() {
                        write_message(
                            a,
                            "user",
                            message.name.as_deref(),
                            &rest,
                            &message.extras,
                            losses,
                        );
                    }
                }
            }
        }
    }
}

/// Writes a message of the system or the user.
fn write_message(
    a: &mut ArrayWriter<'_>,
    role: &str,
    name: Option<&str>,
    blocks: &[&Block],
    extras: &Extras,
    losses: &mut Losses,
) {
    let (content, images) = text_and_images(blocks, PART_SEPARATOR, losses);
    losses.when(name.is_some(), "messages.name");
    a.object(|o| {
        o.str("role", role).str("content", &content);
        write_string_array(o, "images", &images);
        extras.write(DIALECT, o, |key| losses.add(format!("messages.{key}")));
    });
}

fn write_assistant_message(a: &mut ArrayWriter<'_>, message: &ChatMessage, losses: &mut Losses) {
    let mut thinking: Vec<&str> = Vec::new();
    let (mut rest, mut calls): (Vec<&Block>, Vec<(&Block, &ToolCall)>) = (Vec::new(), Vec::new());
    for block in &message.blocks {
        match &block.kind {
            BlockKind::Reasoning(it) => {
                losses.when(block.signature.is_some(), "reasoning.proof");
                if !it.text.is_empty() {
                    thinking.push(&it.text);
                }
            }
            BlockKind::ToolCall(call) => calls.push((block, call)),
            _ => rest.push(block),
        }
    }
    let (content, images) = text_and_images(&rest, "", losses);
    losses.when(message.name.is_some(), "messages.name");
    a.object(|o| {
        o.str("role", "assistant").str("content", &content);
        if !thinking.is_empty() {
            o.str("thinking", &thinking.join(PART_SEPARATOR));
        }
        write_string_array(o, "images", &images);
        if !calls.is_empty() {
            o.array("tool_calls", |a| {
                for (block, call) in calls {
                    add_block_losses(block, losses);
                    a.object(|o| {
                        if !call.id.starts_with(SYNTHETIC_ID_PREFIX) {
                            o.str("id", &call.id);
                        }
                        o.object("function", |o| {
                            o.str("name", &call.name).raw_text(
                                "arguments",
                                &arguments_object(&call.arguments, call.form),
                            );
                        });
                        block.extras.write(DIALECT, o, |key| losses.add(format!("messages.{key}")));
                    });
                }
            });
        }
        message.extras.write(DIALECT, o, |key| losses.add(format!("messages.{key}")));
    });
}

fn write_tool_result(
    a: &mut ArrayWriter<'_>,
    result: &ToolResult,
    block: &Block,
    called: Option<&str>,
    losses: &mut Losses,
) {
    let (content, images) =
        text_and_images(&result.content.iter().collect::<Vec<_>>(), PART_SEPARATOR, losses);
    losses.when(result.is_error, "messages.is_error");
    add_block_losses(block, losses);
    a.object(|o| {
        o.str("role", "tool").str("content", &content);
        write_string_array(o, "images", &images);
        o.opt_str("tool_name", result.name.as_deref().or(called));
        if !result.call.starts_with(SYNTHETIC_ID_PREFIX) {
            o.str("tool_call_id", &result.call);
        }
        block.extras.write(DIALECT, o, |key| losses.add(format!("messages.{key}")));
    });
}

/// Returns the arguments as the object that Ollama requires; text that is not an object becomes its
/// only value.
pub(super) fn arguments_object(text: &str, form: CallKind) -> Cow<'_, str> {
    let trimmed = text.trim();
    if form == CallKind::Custom {
        return tool::custom_arguments(text).into();
    }
    if trimmed.is_empty() {
        return "{}".into();
    }
    let object = trimmed.starts_with('{') && RawJson::parse(trimmed).is_some();
    if object { trimmed.into() } else { tool::custom_arguments(text).into() }
}

fn write_string_array(o: &mut ObjectWriter<'_>, key: &str, texts: &[Cow<'_, str>]) {
    if !texts.is_empty() {
        o.array(key, |a| {
            for text in texts {
                a.str(text);
            }
        });
    }
}

fn add_block_losses(block: &Block, losses: &mut Losses) {
    losses.when(block.cache.is_some(), "messages.cache_control");
    losses.when(block.signature.is_some(), "reasoning.proof");
}

/// Returns the text and the images of a message.
fn text_and_images<'b>(
    blocks: &[&'b Block],
    gap: &str,
    losses: &mut Losses,
) -> (String, Vec<Cow<'b, str>>) {
    let (mut text, mut images) = (String::new(), Vec::new());
    for block in blocks {
        add_block_losses(block, losses);
        block.extras.iter().for_each(|(key, _)| losses.add(format!("messages.{key}")));
        let mut push_text = |words: &str| {
            if !words.is_empty() {
                if !text.is_empty() {
                    text.push_str(gap);
                }
                text.push_str(words);
            }
        };
        match &block.kind {
            BlockKind::Text(it) => {
                losses.when(!it.citations.is_empty(), "messages.citations");
                push_text(&it.text);
            }
            BlockKind::Refusal(words) => push_text(words),
            BlockKind::Media(media) => add_media(media, &mut images, &mut push_text, losses),
            BlockKind::Foreign { body, .. } => {
                let kind = body.json().get("type").and_then(|kind| kind.str());
                losses.add(kind.map_or(Cow::Borrowed("messages.foreign"), |kind| {
                    format!("messages.{kind}").into()
                }));
            }
            // The caller has already written these blocks if their position is valid.
            BlockKind::Reasoning(_) | BlockKind::ToolCall(_) | BlockKind::ToolResult(_) => {
                losses.add("messages.misplaced");
            }
        }
    }
    (text, images)
}

/// Adds images as they are and text documents as text; other media are losses.
fn add_media<'b>(
    media: &'b Media,
    images: &mut Vec<Cow<'b, str>>,
    push_text: &mut impl FnMut(&str),
    losses: &mut Losses,
) {
    losses.when(
        media.kind == MediaKind::Image && media.detail.as_deref().is_some_and(|d| d != "auto"),
        "messages.image_url.detail",
    );
    match (media.kind, &media.source) {
        (MediaKind::Image, MediaSource::Base64(data)) => {
            images.push(images::to_standard_base64(data));
        }
        (MediaKind::Image, MediaSource::Url(url)) => match images::split_data_url(url) {
            Some((_, data)) => images.push(images::to_standard_base64(data)),
            None => {
                losses.add("messages.image_url");
                push_text(&format!("[image: {url}]"));
            }
        },
        (_, MediaSource::Text(text)) => add_document(media, text, push_text),
        (MediaKind::Document | MediaKind::File, MediaSource::Base64(data))
            if media.mime.as_deref().is_some_and(is_text_mime) =>
        {
            match images::decode_base64(data).and_then(|bytes| String::from_utf8(bytes).ok()) {
                Some(text) => add_document(media, &text, push_text),
                None => losses.add("messages.document"),
            }
        }
        (MediaKind::Image, _) => losses.add("messages.image"),
        (MediaKind::Audio, _) => losses.add("messages.audio"),
        (MediaKind::Document, _) => losses.add("messages.document"),
        (MediaKind::Video, _) => losses.add("messages.video"),
        (MediaKind::File, _) => losses.add("messages.file"),
    }
}

fn add_document(media: &Media, text: &str, push_text: &mut impl FnMut(&str)) {
    match &media.name {
        Some(name) => push_text(&format!("{name}:\n{text}")),
        None => push_text(text),
    }
}

fn is_text_mime(mime: &str) -> bool {
    mime.starts_with("text/")
        || matches!(mime, "application/json" | "application/xml" | "application/yaml")
}
