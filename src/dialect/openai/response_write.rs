//! Writes a whole answer as a chat completion, or as an old text completion.

use bytes::Bytes;

use crate::{
    base::{
        raw::RawJson,
        write::{self, ArrayWriter, ObjectWriter},
    },
    dialect::{
        Place, Shape,
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

const OWN: Dialect = Dialect::Openai;

pub(super) fn write(response: &ChatResponse, shape: &Shape) -> Bytes {
    let old = shape.place == Place::Completions;
    let body = write::object(|o| {
        o.str("id", &id(shape))
            .str("object", if old { "text_completion" } else { "chat.completion" });
        o.num("created", response.created.unwrap_or(shape.now)).str("model", &shape.model);
        o.array("choices", |a| {
            a.object(|o| {
                o.num("index", 0);
                if old {
                    o.str("text", &Said::of(&response.blocks).plain());
                    match &response.logprobs {
                        Some(tokens) => {
                            o.raw_text("logprobs", &completions::logprobs(tokens, &mut 0));
                        }
                        None => {
                            o.null("logprobs");
                        }
                    }
                } else {
                    message(&response.blocks, shape, o);
                    logprobs(response.logprobs.as_ref(), o);
                }
                let kind = response.finish.kind;
                o.str("finish_reason", finish(kind, &Said::of(&response.blocks), shape));
            });
        });
        o.object("usage", |o| usage(&response.usage.unwrap_or_default(), o));
        o.opt_str("service_tier", response.service_tier.as_deref());
        response.extras.write(OWN, o, |_| {});
    });
    body.into()
}

/// The answer's id in this dialect's form.
pub(super) fn id(shape: &Shape) -> String {
    let form = if shape.place == Place::Completions { "cmpl-" } else { "chatcmpl-" };
    format!("{form}{}", shape.id)
}

/// Whether the client asked with functions, before there were tools.
pub(super) fn legacy(shape: &Shape) -> bool {
    shape.echo.get(OWN, "functions").is_some()
}

/// The words of an answer by kind.
#[derive(Debug, Default)]
pub(super) struct Said<'b> {
    text: String,
    refusal: String,
    thought: String,
    details: Vec<RawJson>,
    calls: Vec<&'b Block>,
    citations: Vec<(u64, u64, &'b Citation)>,
    media: Vec<&'b Media>,
}

impl<'b> Said<'b> {
    fn of(blocks: &'b [Block]) -> Self {
        let mut said = Self::default();
        for block in blocks {
            match &block.kind {
                BlockKind::Text(text) => {
                    let from = if text.citations.is_empty() {
                        0
                    } else {
                        said.text.chars().count() as u64
                    };
                    said.citations.extend(
                        text.citations
                            .iter()
                            .map(|citation| (from, text.text.chars().count() as u64, citation)),
                    );
                    said.text.push_str(&text.text);
                }
                BlockKind::Reasoning(thought) => {
                    if !said.thought.is_empty() && !thought.text.is_empty() {
                        said.thought.push_str("\n\n");
                    }
                    said.thought.push_str(&thought.text);
                    said.details.extend(reasoning::as_details(block.signature.as_ref()));
                }
                BlockKind::Refusal(words) => said.refusal.push_str(words),
                BlockKind::ToolCall(_) => said.calls.push(block),
                BlockKind::Media(media) => said.media.push(media),
                // What a provider ran by itself has no place here.
                BlockKind::Foreign { .. } | BlockKind::ToolResult(_) => {}
            }
        }
        said
    }

    /// All that can be told where there is nothing but text.
    fn plain(&self) -> String {
        format!("{}{}", self.text, self.refusal)
    }
}

fn message(blocks: &[Block], shape: &Shape, o: &mut ObjectWriter<'_>) {
    let said = Said::of(blocks);
    o.object("message", |o| {
        o.str("role", "assistant");
        if said.text.is_empty() && (!said.calls.is_empty() || !said.refusal.is_empty()) {
            o.null("content");
        } else {
            o.str("content", &said.text);
        }
        if said.refusal.is_empty() {
            o.null("refusal");
        } else {
            o.str("refusal", &said.refusal);
        }
        if !said.thought.is_empty() {
            o.str("reasoning_content", &said.thought);
        }
        o.opt_raw("reasoning_details", reasoning::joined(&said.details).as_ref());
        o.array("annotations", |a| {
            said.citations
                .iter()
                .for_each(|(from, length, citation)| annotation(citation, *from, *length, a))
        });
        if said.media.iter().any(|media| media.kind == MediaKind::Image) {
            let images = said.media.iter().filter(|media| media.kind == MediaKind::Image);
            o.array("images", |a| images.zip(0..).for_each(|(media, at)| image(media, at, a)));
        }
        if let Some(Media { source: MediaSource::Base64(data), .. }) =
            said.media.iter().find(|media| media.kind == MediaKind::Audio)
        {
            o.object("audio", |o| {
                o.str("id", &format!("audio_{}", shape.id))
                    .str("data", data)
                    .num("expires_at", shape.now + 3600);
                o.str("transcript", &said.text);
            });
        }
        match said.calls.first() {
            Some(Block { kind: BlockKind::ToolCall(call), .. }) if legacy(shape) => {
                o.object("function_call", |o| {
                    o.str("name", &call.name).str("arguments", object_text(&call.arguments));
                });
            }
            Some(_) => {
                o.array("tool_calls", |a| {
                    said.calls.iter().for_each(|block| call(block, shape, a))
                });
            }
            None => {}
        }
        o.opt_raw("extra_content", super::parts_write::extra_content(blocks).as_ref());
    });
}

fn call(block: &Block, shape: &Shape, a: &mut ArrayWriter<'_>) {
    let BlockKind::ToolCall(call) = &block.kind else { return };
    a.object(|o| {
        o.str("id", &call.id);
        match free_text(call, shape) {
            Some(input) => {
                o.str("type", "custom").object("custom", |o| {
                    o.str("name", &call.name).str("input", &input);
                });
            }
            None => {
                o.str("type", "function").object("function", |o| {
                    o.str("name", &call.name).str("arguments", object_text(&call.arguments));
                });
            }
        }
        o.opt_raw("extra_content", reasoning::as_beside(block.signature.as_ref()).as_ref());
    });
}

/// The input of a call whose tool takes free text.
fn free_text(call: &ToolCall, shape: &Shape) -> Option<String> {
    match call.form {
        CallKind::Custom => Some(call.arguments.clone()),
        CallKind::Function => {
            shape.custom.contains(&call.name).then(|| custom_input(&call.arguments))
        }
    }
}

fn object_text(arguments: &str) -> &str {
    if arguments.trim().is_empty() { "{}" } else { arguments }
}

/// An annotation; sources without an address have no place.
pub(super) fn annotation(citation: &Citation, from: u64, length: u64, a: &mut ArrayWriter<'_>) {
    if let Some((OWN, raw)) = &citation.raw {
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

pub(super) fn image(media: &Media, at: u32, a: &mut ArrayWriter<'_>) {
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

pub(super) fn logprobs(tokens: Option<&RawJson>, o: &mut ObjectWriter<'_>) {
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

fn finish(kind: FinishKind, said: &Said<'_>, shape: &Shape) -> &'static str {
    finish_word(kind, !said.refusal.is_empty(), legacy(shape), shape.place)
}

/// The word for a finish; `refused` where the words of a refusal have been told as such.
pub(super) fn finish_word(
    kind: FinishKind,
    refused: bool,
    legacy: bool,
    place: Place,
) -> &'static str {
    match kind {
        FinishKind::Length => "length",
        FinishKind::ContentFilter => "content_filter",
        FinishKind::Refusal if !refused => "content_filter",
        FinishKind::ToolCalls if place == Place::Completions => "stop",
        FinishKind::ToolCalls if legacy => "function_call",
        FinishKind::ToolCalls => "tool_calls",
        FinishKind::Stop | FinishKind::Pause | FinishKind::Refusal => "stop",
    }
}

/// Counts as this dialect adds them up: what was cached is input, what was thought is output.
pub(super) fn usage(usage: &Usage, o: &mut ObjectWriter<'_>) {
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
