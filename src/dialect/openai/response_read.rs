//! Reads the first choice of a whole answer, in any provider's form.

use std::borrow::Cow;

use crate::{
    base::json::{raw::RawJson, reader::JsonRef},
    dialect::{
        answer_call_ids::AnswerCallIds,
        egress::AttemptContext,
        errors::read_error,
        json_body,
        openai::{parts_read, reasoning},
        usage_read,
    },
    ir::{
        block::{
            Block, BlockKind, CallKind, Citation, Media, MediaKind, MediaSource, Reasoning,
            TextBlock, ToolCall,
        },
        extras::Extras,
        fault::Fault,
        op::Dialect,
        response::{ChatResponse, Finish, FinishKind},
    },
};

const DIALECT: Dialect = Dialect::Openai;

pub(super) fn read_response(
    content_type: &str,
    body: &[u8],
    context: &AttemptContext,
) -> Result<ChatResponse, Fault> {
    let json = json_body::parse_response(content_type, body)?;
    let choices = json_body::required_list(json, "choices")?;
    let choice = choices
        .items()
        .find(|choice| choice.get("index").and_then(JsonRef::u64).unwrap_or(0) == 0)
        .or_else(|| choices.items().next());
    let mut response = ChatResponse {
        id: json.non_empty_at("id").unwrap_or_default(),
        model: json.non_empty_at("model").unwrap_or_default(),
        created: json.get("created").and_then(JsonRef::i64).filter(|&at| at > 0),
        usage: json.get("usage").and_then(usage_read::read_openai),
        service_tier: json.non_empty_at("service_tier"),
        extras: Extras::from_object(
            DIALECT,
            json,
            &["id", "object", "created", "model", "choices", "usage", "service_tier"],
        ),
        ..ChatResponse::default()
    };
    let Some(choice) = choice else { return Ok(response) };
    if !choice.is_object() {
        return Err(read_error::unexpected_shape("a choice is no choice"));
    }
    if let Some(fault) = choice_error(choice) {
        return Err(fault);
    }
    match choice.get("message").or_else(|| choice.get("delta")) {
        Some(message) if message.is_object() => {
            read_message_blocks(message, context, &mut response.blocks);
        }
        Some(_) => return Err(read_error::unexpected_shape("a message is no message")),
        None => response.blocks.extend(choice.non_empty_at("text").map(Block::text)),
    }
    let source = choice.get("message").unwrap_or(choice);
    attach_citations(&mut response.blocks, read_citations(source, json));
    response.logprobs = choice
        .member_at(&["logprobs", "content"])
        .filter(|list| list.is_array() && !list.is_blank())
        .map(RawJson::from_json);
    let called = response.blocks.iter().any(|block| matches!(block.kind, BlockKind::ToolCall(_)));
    let refused = response.blocks.iter().any(|block| matches!(block.kind, BlockKind::Refusal(_)));
    response.finish =
        read_finish(json_body::clean_name(choice.get("finish_reason")), called, refused);
    response.finish.stop_sequence = choice.non_empty_at("stop_reason");
    Ok(response)
}

/// Returns the error that a choice contains instead of an answer; some gateways put it there.
pub(super) fn choice_error(choice: JsonRef<'_>) -> Option<Fault> {
    if choice
        .get("error")
        .is_some_and(|error| matches!(error.kind(), "object" | "string") && !error.is_blank())
    {
        return Some(read_error::from_json(None, choice));
    }
    let reason = choice.get("finish_reason").and_then(JsonRef::str);
    let failed = reason.is_some_and(|reason| is_failure(&reason));
    failed.then(|| read_error::unexpected_shape("the provider ended the answer with an error"))
}

/// Returns whether a finish reason means that the provider failed. `network_error` is Z.ai's.
/// <https://docs.z.ai/api-reference/llm/chat-completion>
pub(super) fn is_failure(reason: &str) -> bool {
    matches!(reason, "error" | "network_error")
}

/// Maps a provider's finish reason to the common form.
pub(super) fn read_finish(reply: Option<String>, called: bool, refused: bool) -> Finish {
    let kind = match reply.as_deref().map(str::to_ascii_lowercase).as_deref() {
        Some(
            "length"
            | "max_tokens"
            | "max_length"
            | "model_length"
            | "max_output_tokens"
            | "model_context_window_exceeded"
            | "insufficient_system_resource",
        ) => FinishKind::Length,
        Some(
            "content_filter" | "content_filtered" | "safety" | "sensitive" | "prohibited_content"
            | "recitation",
        ) => FinishKind::ContentFilter,
        Some("refusal") => FinishKind::Refusal,
        Some("pause_turn") => FinishKind::Pause,
        _ if called => FinishKind::ToolCalls,
        _ if refused => FinishKind::Refusal,
        _ => FinishKind::Stop,
    };
    Finish { kind, raw_reason: reply, stop_sequence: None }
}

fn read_message_blocks(message: JsonRef<'_>, context: &AttemptContext, blocks: &mut Vec<Block>) {
    let content = message.get("content");
    let parts = content
        .and_then(|content| parts_read::read_content(Some(content), 0).ok())
        .unwrap_or_default();
    let thinks = parts.iter().any(|block| matches!(block.kind, BlockKind::Reasoning(_)));
    read_reasoning(message, thinks, blocks);
    for mut block in parts {
        // A part's original form matters only if the part is sent back.
        block.extras = Extras::default();
        if !matches!(&block.kind, BlockKind::Text(TextBlock { text, .. }) | BlockKind::Reasoning(Reasoning { text, .. }) if text.is_empty())
        {
            blocks.push(block);
        }
    }
    if let Some(proof) = reasoning::read_extra_content(message)
        && let Some(block) =
            blocks.iter_mut().rfind(|block| matches!(block.kind, BlockKind::Text(_)))
    {
        block.signature = Some(proof);
    }
    blocks.extend(read_images(message).map(|media| Block::new(BlockKind::Media(media))));
    if let Some(audio) = message.get("audio") {
        blocks.extend(audio.non_empty_at("transcript").map(Block::text));
        blocks.extend(audio.non_empty_at("data").map(|data| {
            let source = MediaSource::Base64(data);
            Block::new(BlockKind::Media(Media {
                kind: MediaKind::Audio,
                source,
                mime: None,
                name: None,
                detail: None,
            }))
        }));
    }
    blocks
        .extend(message.non_empty_at("refusal").map(|words| Block::new(BlockKind::Refusal(words))));
    let mut ids = AnswerCallIds::new(&context.call_id_seed);
    for call in message.get("tool_calls").into_iter().flat_map(JsonRef::items) {
        let Some((form, inside)) = call_body(call) else { continue };
        let made = ids.assign(call.non_empty_at("id").as_deref());
        let mut block =
            Block::new(BlockKind::ToolCall(read_tool_call(made, form, inside, context)));
        block.signature = reasoning::read_extra_content(call);
        blocks.push(block);
    }
    if let Some(call) =
        message.get("function_call").filter(|call| call.non_empty_at("name").is_some())
    {
        blocks.push(Block::new(BlockKind::ToolCall(read_tool_call(
            ids.assign(None),
            CallKind::Function,
            call,
            context,
        ))));
    }
}

/// Reads reasoning from the first field that has some, and the signatures of the details.
fn read_reasoning(message: JsonRef<'_>, in_parts: bool, blocks: &mut Vec<Block>) {
    let details = message.get("reasoning_details").filter(|details| details.is_array());
    let plain = reasoning::TEXT_FIELDS
        .iter()
        .filter_map(|key| reasoning::field_text(message.get(key)?))
        .find(|text| !text.is_empty());
    let words = plain
        .map(Cow::into_owned)
        .or_else(|| details.map(reasoning::details_text))
        .filter(|_| !in_parts)
        .unwrap_or_default();
    let sealed = details.filter(|details| reasoning::has_seal(*details));
    if !words.is_empty() || sealed.is_some() {
        let mut block = Block::new(BlockKind::Reasoning(Reasoning { text: words, summary: false }));
        block.signature = sealed.map(|details| reasoning::details_signature(details.text()));
        blocks.push(block);
    }
}

/// Reads images outside of the content.
pub(super) fn read_images(message: JsonRef<'_>) -> impl Iterator<Item = Media> {
    message.get("images").into_iter().flat_map(JsonRef::items).filter_map(|image| {
        let at = image.get("image_url").unwrap_or(image);
        let url = at.str().or_else(|| at.get("url")?.str())?;
        let (source, mime) = parts_read::parse_source(&url);
        Some(Media { kind: MediaKind::Image, source, mime, name: None, detail: None })
    })
}

/// Returns the kind of a call and the object that contains its name and arguments.
pub(super) fn call_body(call: JsonRef<'_>) -> Option<(CallKind, JsonRef<'_>)> {
    let function = call.get("function").map(|function| (CallKind::Function, function));
    function.or_else(|| call.get("custom").map(|custom| (CallKind::Custom, custom)))
}

/// Returns a call's arguments: a text, or (against the specification) the object itself.
pub(super) fn call_arguments<'a>(form: CallKind, inside: JsonRef<'a>) -> Option<Cow<'a, str>> {
    let value = inside.get(if form == CallKind::Custom { "input" } else { "arguments" })?;
    Some(value.str().unwrap_or_else(|| Cow::Borrowed(value.text())))
}

fn read_tool_call(
    id: String,
    form: CallKind,
    inside: JsonRef<'_>,
    context: &AttemptContext,
) -> ToolCall {
    let name = inside.get("name").and_then(JsonRef::str).unwrap_or_default();
    let arguments = call_arguments(form, inside).unwrap_or_default().into_owned();
    ToolCall { id, name: context.client_tool_name(&name).to_owned(), arguments, form }
}

/// Reads citations from the message's annotations, else from the lists that search providers add
/// next to the choices.
pub(super) fn read_citations(message: JsonRef<'_>, root: JsonRef<'_>) -> Vec<Citation> {
    let annotated: Vec<_> = message
        .get("annotations")
        .into_iter()
        .flat_map(JsonRef::items)
        .filter_map(read_annotation)
        .collect();
    if annotated.is_empty() { read_listed_citations(root) } else { annotated }
}

pub(super) fn read_annotation(one: JsonRef<'_>) -> Option<Citation> {
    let fields = one.get("url_citation")?;
    let span = fields
        .get("start_index")
        .and_then(JsonRef::u64)
        .zip(fields.get("end_index").and_then(JsonRef::u64))
        .filter(|(from, to)| to > from);
    Some(Citation {
        url: Some(fields.non_empty_at("url")?),
        title: fields.non_empty_at("title"),
        cited_text: fields.non_empty_at("content"),
        span,
        raw: Some((DIALECT, RawJson::from_json(one))),
    })
}

/// Reads `search_results`, else the plain URLs in `citations`.
pub(super) fn read_listed_citations(root: JsonRef<'_>) -> Vec<Citation> {
    let one = |source: JsonRef<'_>| {
        let url = source.string().or_else(|| source.non_empty_at("url"))?;
        Some(Citation {
            url: Some(url),
            title: source.non_empty_at("title"),
            ..Citation::default()
        })
    };
    let list = |key: &str| {
        root.get(key).into_iter().flat_map(JsonRef::items).filter_map(one).collect::<Vec<_>>()
    };
    Some(list("search_results"))
        .filter(|found| !found.is_empty())
        .unwrap_or_else(|| list("citations"))
}

fn attach_citations(blocks: &mut [Block], citations: Vec<Citation>) {
    let text = blocks.iter_mut().find_map(|block| match &mut block.kind {
        BlockKind::Text(text) => Some(text),
        _ => None,
    });
    if let Some(text) = text {
        text.citations = citations;
    }
}
