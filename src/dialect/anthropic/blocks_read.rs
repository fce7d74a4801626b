//! Content blocks, of requests and of answers.

use crate::{
    base::{json::JsonRef, raw::RawJson},
    ir::{
        block::{
            Block, BlockKind, CacheBreakpoint, CallKind, Citation, Media, MediaKind, MediaSource,
            Reasoning, ReasoningSignature, SignatureKind, TextBlock, ToolCall, ToolResult,
        },
        extras::Extras,
        op::Dialect,
    },
};

/// The signature of a thinking block whose thought nobody signed: it lets clients keep the block,
/// and is taken off when it comes back. No provider would accept it.
pub const UNSIGNED: &str = "aiproxy-unsigned";

/// Where a block that is told in common terms is kept whole for its own dialect.
pub(super) const WHOLE: [&str; 2] = ["document.content", "search_result"];

const ME: Dialect = Dialect::Anthropic;

/// A message's content: text, a list of blocks, or nothing.
pub(super) fn content(json: Option<JsonRef<'_>>) -> Vec<Block> {
    let Some(json) = json else { return Vec::new() };
    if json.is_object() {
        return block(json).into_iter().collect();
    }
    match json.str() {
        Some(text) => vec![Block::text(text)],
        None => json.items().filter_map(block).collect(),
    }
}

/// A block; a bare text counts as one, other values as nothing.
pub(super) fn block(json: JsonRef<'_>) -> Option<Block> {
    if let Some(text) = json.str() {
        return Some(Block::text(text));
    }
    if !json.is_object() {
        return None;
    }
    let (kind, known): (_, &[&str]) = match json.get("type").and_then(JsonRef::str).as_deref() {
        Some("text") | None if json.get("text").is_some() => {
            (text_block(json), &["type", "text", "citations", "cache_control"])
        }
        Some("image") => match media(json, MediaKind::Image) {
            Some(media) => (BlockKind::Media(media), &["type", "source", "cache_control"]),
            None => return Some(foreign(json)),
        },
        Some("document") => return Some(document(json)),
        Some("search_result") => return Some(search_result(json)),
        Some("thinking" | "redacted_thinking") => return Some(thought(json)),
        Some("tool_use") => (call(json), &["type", "id", "name", "input", "cache_control"]),
        Some("tool_result") => {
            (result(json), &["type", "tool_use_id", "content", "is_error", "cache_control"])
        }
        _ => return Some(foreign(json)),
    };
    Some(Block {
        kind,
        signature: None,
        cache: cache(json),
        extras: Extras::from_object(ME, json, known),
    })
}

/// The prompt-cache breakpoint on an object.
pub(super) fn cache(json: JsonRef<'_>) -> Option<CacheBreakpoint> {
    json.get("cache_control").map(|mark| CacheBreakpoint { raw: RawJson::from_json(mark) })
}

/// A citation in any of its forms.
pub(super) fn citation(json: JsonRef<'_>) -> Citation {
    let url = string(json, "url")
        .or_else(|| string(json, "source").filter(|source| source.contains("://")));
    // Without its index it is one that we made of a foreign one; the provider would refuse it.
    let made =
        json.get("encrypted_index").and_then(JsonRef::str).is_some_and(|index| index.is_empty());
    Citation {
        url,
        title: string(json, "title").or_else(|| string(json, "document_title")),
        cited_text: string(json, "cited_text"),
        span: None,
        raw: (!made).then(|| (ME, RawJson::from_json(json))),
    }
}

/// The arguments of a call: the text of an object; some vendors put that text into a string.
pub(super) fn input(json: Option<JsonRef<'_>>) -> String {
    json.map_or_else(String::new, |input| {
        input.str().map_or_else(|| input.text().to_owned(), std::borrow::Cow::into_owned)
    })
}

/// The proof that a signature is; none where nobody signed.
pub(super) fn signature(value: &str) -> Option<ReasoningSignature> {
    let signed = !value.is_empty() && !value.starts_with(UNSIGNED);
    signed.then(|| ReasoningSignature {
        dialect: ME,
        kind: SignatureKind::Signature,
        value: value.to_owned(),
        id: None,
    })
}

pub(super) fn string(json: JsonRef<'_>, key: &str) -> Option<String> {
    json.get(key).and_then(JsonRef::str).map(std::borrow::Cow::into_owned)
}

pub(super) fn foreign(json: JsonRef<'_>) -> Block {
    Block::new(BlockKind::Foreign { dialect: ME, body: RawJson::from_json(json) })
}

fn text_block(json: JsonRef<'_>) -> BlockKind {
    let citations =
        json.get("citations").into_iter().flat_map(JsonRef::items).map(citation).collect();
    BlockKind::Text(TextBlock { text: string(json, "text").unwrap_or_default(), citations })
}

fn call(json: JsonRef<'_>) -> BlockKind {
    let (id, name) =
        (string(json, "id").unwrap_or_default(), string(json, "name").unwrap_or_default());
    BlockKind::ToolCall(ToolCall {
        id,
        name,
        arguments: input(json.get("input")),
        form: CallKind::Function,
    })
}

fn result(json: JsonRef<'_>) -> BlockKind {
    BlockKind::ToolResult(ToolResult {
        call: string(json, "tool_use_id").unwrap_or_default(),
        name: None,
        content: content(json.get("content")),
        is_error: json.get("is_error").and_then(JsonRef::bool).unwrap_or(false),
        form: CallKind::Function,
    })
}

fn thought(json: JsonRef<'_>) -> Block {
    let redacted = string(json, "data").filter(|_| json.get("thinking").is_none());
    let proof = match redacted {
        Some(value) => {
            Some(ReasoningSignature { dialect: ME, kind: SignatureKind::Redacted, value, id: None })
        }
        None => json.get("signature").and_then(JsonRef::str).and_then(|value| signature(&value)),
    };
    let text = string(json, "thinking").unwrap_or_default();
    let extras = Extras::from_object(ME, json, &["type", "thinking", "signature", "data"]);
    Block {
        signature: proof,
        extras,
        ..Block::new(BlockKind::Reasoning(Reasoning { text, summary: false }))
    }
}

/// Media whose source is of one of the plain kinds.
fn media(json: JsonRef<'_>, kind: MediaKind) -> Option<Media> {
    source(json).map(|(source, mime)| Media {
        kind,
        source,
        mime,
        name: string(json, "title"),
        detail: None,
    })
}

fn source(json: JsonRef<'_>) -> Option<(MediaSource, Option<String>)> {
    let source = json.get("source")?;
    let mime = string(source, "media_type");
    let read = match source.get("type").and_then(JsonRef::str).as_deref()? {
        "base64" => MediaSource::Base64(string(source, "data")?),
        "text" => MediaSource::Text(string(source, "data")?),
        "url" => MediaSource::Url(string(source, "url")?),
        "file" => MediaSource::FileId(string(source, "file_id")?),
        _ => return None,
    };
    Some((read, mime))
}

fn document(json: JsonRef<'_>) -> Block {
    match (media(json, MediaKind::Document), json.member_at(&["source", "content"])) {
        (Some(media), _) => {
            let extras =
                Extras::from_object(ME, json, &["type", "source", "title", "cache_control"]);
            Block { cache: cache(json), extras, ..Block::new(BlockKind::Media(media)) }
        }
        (None, Some(blocks)) => told_as_text(json, blocks, WHOLE[0]),
        (None, None) => foreign(json),
    }
}

fn search_result(json: JsonRef<'_>) -> Block {
    match json.get("content") {
        Some(blocks) => told_as_text(json, blocks, WHOLE[1]),
        None => foreign(json),
    }
}

/// A document made of blocks: its text for everybody, itself for its own dialect.
fn told_as_text(json: JsonRef<'_>, blocks: JsonRef<'_>, key: &str) -> Block {
    let texts: Vec<String> = content(Some(blocks))
        .into_iter()
        .filter_map(|block| match block.kind {
            BlockKind::Text(text) => Some(text.text),
            _ => None,
        })
        .collect();
    let name = string(json, "title").or_else(|| string(json, "source"));
    let mime = Some("text/plain".to_owned());
    let media = Media {
        kind: MediaKind::Document,
        source: MediaSource::Text(texts.join("\n\n")),
        mime,
        name,
        detail: None,
    };
    let mut extras = Extras::default();
    extras.push(ME, key, RawJson::from_json(json));
    Block { cache: cache(json), extras, ..Block::new(BlockKind::Media(media)) }
}
