//! Writes a whole answer as a chat completion, or as a legacy text completion.

use bytes::Bytes;

use crate::{
    base::json::{
        raw::RawJson,
        writer::{self, ArrayWriter, ObjectWriter},
    },
    dialect::{
        ingress::{ChatEndpoint, ResponseSpec},
        openai::{completions, reasoning},
    },
    ir::{
        block::{Block, BlockKind, CallKind, Citation, Media, MediaKind, MediaSource, ToolCall},
        op::Dialect,
        response::{ChatResponse, FinishKind},
        tool::custom_input,
        usage::Usage,
    },
};

const DIALECT: Dialect = Dialect::Openai;

pub(super) fn write_response(response: &ChatResponse, spec: &ResponseSpec) -> Bytes {
    let old = spec.endpoint == ChatEndpoint::Completions;
    let body = writer::object(|o| {
        o.str("id", &response_id(spec))
            .str("object", if old { "text_completion" } else { "chat.completion" });
        o.num("created", response.created.unwrap_or(spec.created)).str("model", &spec.model);
        o.array("choices", |a| {
            a.object(|o| {
                o.num("index", 0);
                if old {
                    o.str("text", &ResponseParts::from_blocks(&response.blocks).plain_text());
                    match &response.logprobs {
                        Some(tokens) => {
                            o.raw_text("logprobs", &completions::write_logprobs(tokens, &mut 0));
                        }
                        None => {
                            o.null("logprobs");
                        }
                    }
                } else {
                    write_message(&response.blocks, spec, o);
                    write_logprobs(response.logprobs.as_ref(), o);
                }
                let kind = response.finish.kind;
                o.str(
                    "finish_reason",
                    finish_reason_of_parts(
                        kind,
                        &ResponseParts::from_blocks(&response.blocks),
                        spec,
                    ),
                );
            });
        });
        o.object("usage", |o| write_usage(&response.usage.unwrap_or_default(), o));
        o.opt_str("service_tier", response.service_tier.as_deref());
        response.extras.write(DIALECT, o, |_| {});
    });
    body.into()
}

/// Returns the answer's id in this dialect's form.
pub(super) fn response_id(spec: &ResponseSpec) -> String {
    let form = if spec.endpoint == ChatEndpoint::Completions { "cmpl-" } else { "chatcmpl-" };
    format!("{form}{}", spec.request_id)
}

/// Whether the client sent `functions`, the predecessor of tools.
pub(super) fn uses_legacy_functions(spec: &ResponseSpec) -> bool {
    spec.echo.get(DIALECT, "functions").is_some()
}

/// The content of an answer, sorted by kind.
#[derive(Debug, Default)]
pub(super) struct ResponseParts<'b> {
    text: String,
    refusal: String,
    reasoning: String,
    reasoning_details: Vec<RawJson>,
    calls: Vec<&'b Block>,
    citations: Vec<(u64, u64, &'b Citation)>,
    media: Vec<&'b Media>,
}

impl<'b> ResponseParts<'b> {
    fn from_blocks(blocks: &'b [Block]) -> Self {
        let mut parts = Self::default();
        for block in blocks {
            match &block.kind {
                BlockKind::Text(text) => {
                    let from = if text.citations.is_empty() {
                        0
                    } else {
                        parts.text.chars().count() as u64
                    };
                    parts.citations.extend(
                        text.citations
                            .iter()
                            .map(|citation| (from, text.text.chars().count() as u64, citation)),
                    );
                    parts.text.push_str(&text.text);
                }
                BlockKind::Reasoning(thought) => {
                    if !parts.reasoning.is_empty() && !thought.text.is_empty() {
                        parts.reasoning.push_str("\n\n");
                    }
                    parts.reasoning.push_str(&thought.text);
                    parts.reasoning_details.extend(reasoning::to_details(block.signature.as_ref()));
                }
                BlockKind::Refusal(words) => parts.refusal.push_str(words),
                BlockKind::ToolCall(_) => parts.calls.push(block),
                BlockKind::Media(media) => parts.media.push(media),
                // This dialect has no field for a tool that the provider ran itself.
                BlockKind::Foreign { .. } | BlockKind::ToolResult(_) => {}
            }
        }
        parts
    }

    /// Returns all content that an endpoint with only text can express.
    fn plain_text(&self) -> String {
        format!("{}{}", self.text, self.refusal)
    }
}

fn write_message(blocks: &[Block], spec: &ResponseSpec, o: &mut ObjectWriter<'_>) {
    let parts = ResponseParts::from_blocks(blocks);
    o.object("message", |o| {
        o.str("role", "assistant");
        if parts.text.is_empty() && (!parts.calls.is_empty() || !parts.refusal.is_empty()) {
            o.null("content");
        } else {
            o.str("content", &parts.text);
        }
        if parts.refusal.is_empty() {
            o.null("refusal");
        } else {
            o.str("refusal", &parts.refusal);
        }
        if !parts.reasoning.is_empty() {
            o.str("reasoning_content", &parts.reasoning);
        }
        o.opt_raw("reasoning_details", reasoning::join_details(&parts.reasoning_details).as_ref());
        o.array("annotations", |a| {
            parts
                .citations
                .iter()
                .for_each(|(from, length, citation)| write_annotation(citation, *from, *length, a));
        });
        if parts.media.iter().any(|media| media.kind == MediaKind::Image) {
            let images = parts.media.iter().filter(|media| media.kind == MediaKind::Image);
            o.array("images", |a| {
                images.zip(0..).for_each(|(media, at)| write_image(media, at, a));
            });
        }
        if let Some(Media { source: MediaSource::Base64(data), .. }) =
            parts.media.iter().find(|media| media.kind == MediaKind::Audio)
        {
            o.object("audio", |o| {
                o.str("id", &format!("audio_{}", spec.request_id))
                    .str("data", data)
                    .num("expires_at", spec.created + 3600);
                o.str("transcript", &parts.text);
            });
        }
        match parts.calls.first() {
            Some(Block { kind: BlockKind::ToolCall(call), .. }) if uses_legacy_functions(spec) => {
                o.object("function_call", |o| {
                    o.str("name", &call.name)
                        .str("arguments", arguments_or_empty_object(&call.arguments));
                });
            }
            Some(_) => {
                o.array("tool_calls", |a| {
                    parts.calls.iter().for_each(|block| write_call(block, spec, a));
                });
            }
            None => {}
        }
        o.opt_raw("extra_content", super::parts_write::extra_content(blocks).as_ref());
    });
}

fn write_call(block: &Block, spec: &ResponseSpec, a: &mut ArrayWriter<'_>) {
    let BlockKind::ToolCall(call) = &block.kind else { return };
    a.object(|o| {
        o.str("id", &call.id);
        match free_text_input(call, spec) {
            Some(input) => {
                o.str("type", "custom").object("custom", |o| {
                    o.str("name", &call.name).str("input", &input);
                });
            }
            None => {
                o.str("type", "function").object("function", |o| {
                    o.str("name", &call.name)
                        .str("arguments", arguments_or_empty_object(&call.arguments));
                });
            }
        }
        o.opt_raw("extra_content", reasoning::to_extra_content(block.signature.as_ref()).as_ref());
    });
}

/// Returns the input of a call whose tool takes free text.
fn free_text_input(call: &ToolCall, spec: &ResponseSpec) -> Option<String> {
    match call.form {
        CallKind::Custom => Some(call.arguments.clone()),
        CallKind::Function => {
            spec.custom_tools.contains(&call.name).then(|| custom_input(&call.arguments))
        }
    }
}

fn arguments_or_empty_object(arguments: &str) -> &str {
    if arguments.trim().is_empty() { "{}" } else { arguments }
}

/// Writes an annotation; citations without a URL are omitted.
pub(super) fn write_annotation(
    citation: &Citation,
    from: u64,
    length: u64,
    a: &mut ArrayWriter<'_>,
) {
    if let Some((DIALECT, raw)) = &citation.raw {
        a.raw(raw);
        return;
    }
    let Some(url) = &citation.url else { return };
    let (start, end) = citation.span.unwrap_or((0, length));
    a.object(|o| {
        o.str("type", "url_citation").object("url_citation", |o| {
            o.num("start_index", from + start).num("end_index", from + end);
            o.str("title", citation.title.as_deref().unwrap_or(url)).str("url", url);
        });
    });
}

pub(super) fn write_image(media: &Media, at: u32, a: &mut ArrayWriter<'_>) {
    let url = match &media.source {
        MediaSource::Base64(data) => {
            format!("data:{};base64,{data}", media.mime.as_deref().unwrap_or("image/png"))
        }
        MediaSource::Url(url) => url.clone(),
        MediaSource::FileId(_) | MediaSource::Text(_) => return,
    };
    a.object(|o| {
        o.str("type", "image_url").num("index", at).object("image_url", |o| {
            o.str("url", &url);
        });
    });
}

pub(super) fn write_logprobs(tokens: Option<&RawJson>, o: &mut ObjectWriter<'_>) {
    match tokens {
        Some(tokens) => {
            o.object("logprobs", |o| {
                o.raw("content", tokens).null("refusal");
            });
        }
        None => {
            o.null("logprobs");
        }
    }
}

fn finish_reason_of_parts(
    kind: FinishKind,
    parts: &ResponseParts<'_>,
    spec: &ResponseSpec,
) -> &'static str {
    finish_reason(kind, !parts.refusal.is_empty(), uses_legacy_functions(spec), spec.endpoint)
}

/// Returns the name of a finish reason; `refused`: the refusal's text was already written as a
/// refusal.
pub(super) fn finish_reason(
    kind: FinishKind,
    refused: bool,
    legacy: bool,
    endpoint: ChatEndpoint,
) -> &'static str {
    match kind {
        FinishKind::Length => "length",
        FinishKind::ContentFilter => "content_filter",
        FinishKind::Refusal if !refused => "content_filter",
        FinishKind::ToolCalls if endpoint == ChatEndpoint::Completions => "stop",
        FinishKind::ToolCalls if legacy => "function_call",
        FinishKind::ToolCalls => "tool_calls",
        FinishKind::Stop | FinishKind::Pause | FinishKind::Refusal => "stop",
    }
}

/// Writes counts as this dialect sums them: input includes cached tokens, output includes reasoning
/// tokens.
pub(super) fn write_usage(usage: &Usage, o: &mut ObjectWriter<'_>) {
    let (input, output) = (usage.input_total(), usage.output_total());
    o.num("prompt_tokens", input)
        .num("completion_tokens", output)
        .num("total_tokens", input.saturating_add(output));
    o.object("prompt_tokens_details", |o| {
        o.num("cached_tokens", usage.cache_read).num("audio_tokens", usage.audio_in);
        let written = usage.cache_write_5m.saturating_add(usage.cache_write_1h);
        if written > 0 {
            o.num("cache_write_tokens", written);
        }
        if usage.image_in > 0 {
            o.num("image_tokens", usage.image_in);
        }
    });
    o.object("completion_tokens_details", |o| {
        o.num("reasoning_tokens", usage.reasoning).num("audio_tokens", usage.audio_out);
        o.num("accepted_prediction_tokens", 0).num("rejected_prediction_tokens", 0);
        if usage.image_out > 0 {
            o.num("image_tokens", usage.image_out);
        }
    });
}
