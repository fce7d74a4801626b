//! Reads the content blocks of requests and responses.

use crate::{
    base::json::{raw::RawJson, reader::JsonRef},
    dialect::anthropic::web_search,
    ir::{
        block::{
            Block, BlockKind, CacheBreakpoint, CallKind, Citation, Media, MediaKind, MediaSource,
            Reasoning, ReasoningSignature, SignatureKind, TextBlock, ToolCall, ToolResult,
        },
        extras::Extras,
        op::Dialect,
    },
};

/// The signature of a thinking block that has no signature. It lets clients retain the block and is
/// removed when the block comes back. No provider would accept it.
pub const PLACEHOLDER_SIGNATURE: &str = "aiproxy-unsigned";

/// The extras keys under which a block that was read as plain text is also stored verbatim for its
/// own dialect.
const ORIGINAL_BLOCK_KEYS: [&str; 3] = ["document.content", "search_result", ORIGINAL_NOTE];

/// The same key for blocks whose text says all that the block says.
const ORIGINAL_NOTE: &str = "original";

const DIALECT: Dialect = Dialect::Anthropic;

/// Returns the original of a block that was read as plain text.
pub(super) fn original_block(block: &Block) -> Option<&RawJson> {
    ORIGINAL_BLOCK_KEYS.iter().find_map(|key| block.extras.get(DIALECT, key))
}

/// Reads a message's content: text, a list of blocks, or nothing.
pub(super) fn read_content(json: Option<JsonRef<'_>>) -> Vec<Block> {
    let Some(json) = json else { return Vec::new() };
    if json.is_object() {
        return read_block(json).into_iter().collect();
    }
    match json.str() {
        Some(text) => vec![Block::text(text)],
        None => json.items().filter_map(read_block).collect(),
    }
}

/// Reads an answer's content. The summary that the provider made of the conversation before it
/// answered is no part of what the model says; in a request it stands for the earlier messages.
pub(super) fn read_answer(json: Option<JsonRef<'_>>) -> Vec<Block> {
    let Some(list) = json.filter(|json| json.is_array()) else { return read_content(json) };
    let is_summary = |block: JsonRef<'_>| {
        block.get("type").and_then(JsonRef::str).is_some_and(|kind| kind == "compaction")
    };
    list.items()
        .filter_map(
            |block| if is_summary(block) { Some(foreign_block(block)) } else { read_block(block) },
        )
        .collect()
}

/// Reads a block. A bare string counts as a text block; any other non-object gives `None`.
pub(super) fn read_block(json: JsonRef<'_>) -> Option<Block> {
    if let Some(text) = json.str() {
        return Some(Block::text(text));
    }
    if !json.is_object() {
        return None;
    }
    let (kind, known): (_, &[&str]) = match json.get("type").and_then(JsonRef::str).as_deref() {
        Some("text") | None if json.get("text").is_some() => {
            (read_text(json), &["type", "text", "citations", "cache_control"])
        }
        Some("image") => match read_media(json, MediaKind::Image) {
            Some(media) => (BlockKind::Media(media), &["type", "source", "cache_control"]),
            None => return Some(foreign_block(json)),
        },
        Some("document") => return Some(read_document(json)),
        Some("search_result") => return Some(read_search_result(json)),
        Some("thinking" | "redacted_thinking") => return Some(read_thinking(json)),
        Some("server_tool_use" | "web_search_tool_result") if web_search::is_made(json) => {
            return None;
        }
        // The tool that a search for tools found; its definition is among the request's tools.
        Some("tool_reference") => match json.non_empty_at("tool_name") {
            Some(name) => return Some(read_as_text(json, &format!("Found the tool `{name}`."))),
            None => return Some(foreign_block(json)),
        },
        // The summary of everything before it.
        Some("compaction") => match json.non_empty_at("content") {
            Some(summary) => return Some(read_as_text(json, &summary)),
            None => return Some(foreign_block(json)),
        },
        Some("tool_use") => {
            (read_tool_call(json), &["type", "id", "name", "input", "cache_control"])
        }
        Some("tool_result") => (
            read_tool_result(json),
            &["type", "tool_use_id", "content", "is_error", "cache_control"],
        ),
        _ => return Some(foreign_block(json)),
    };
    Some(Block {
        kind,
        signature: None,
        cache: read_cache_control(json),
        extras: Extras::from_object(DIALECT, json, known),
    })
}

/// Reads the prompt-cache breakpoint of an object.
pub(super) fn read_cache_control(json: JsonRef<'_>) -> Option<CacheBreakpoint> {
    json.get("cache_control").map(|mark| CacheBreakpoint { raw: RawJson::from_json(mark) })
}

/// Reads a citation in any of its forms.
pub(super) fn read_citation(json: JsonRef<'_>) -> Citation {
    let url = json
        .string_at("url")
        .or_else(|| json.string_at("source").filter(|source| source.contains("://")));
    // A citation with an empty index was made by aiproxy from a foreign one. The provider would
    // refuse it.
    let made =
        json.get("encrypted_index").and_then(JsonRef::str).is_some_and(|index| index.is_empty());
    Citation {
        url,
        title: json.string_at("title").or_else(|| json.string_at("document_title")),
        cited_text: json.string_at("cited_text"),
        span: None,
        raw: (!made).then(|| (DIALECT, RawJson::from_json(json))),
    }
}

/// The arguments of a call as the text of an object. Some vendors put that text into a string.
pub(super) fn read_arguments(json: Option<JsonRef<'_>>) -> String {
    json.map_or_else(String::new, |input| input.plain_text())
}

/// Reads a signature; `None` if no provider signed the block.
pub(super) fn read_signature(value: &str) -> Option<ReasoningSignature> {
    let signed = !value.is_empty() && !value.starts_with(PLACEHOLDER_SIGNATURE);
    signed.then(|| ReasoningSignature {
        dialect: DIALECT,
        kind: SignatureKind::Signature,
        value: value.to_owned(),
        id: None,
    })
}

pub(super) fn foreign_block(json: JsonRef<'_>) -> Block {
    Block::new(BlockKind::Foreign { dialect: DIALECT, body: RawJson::from_json(json) })
}

fn read_text(json: JsonRef<'_>) -> BlockKind {
    let citations =
        json.get("citations").into_iter().flat_map(JsonRef::items).map(read_citation).collect();
    BlockKind::Text(TextBlock { text: json.string_at("text").unwrap_or_default(), citations })
}

fn read_tool_call(json: JsonRef<'_>) -> BlockKind {
    let (id, name) =
        (json.string_at("id").unwrap_or_default(), json.string_at("name").unwrap_or_default());
    BlockKind::ToolCall(ToolCall {
        id,
        name,
        arguments: read_arguments(json.get("input")),
        form: CallKind::Function,
    })
}

fn read_tool_result(json: JsonRef<'_>) -> BlockKind {
    BlockKind::ToolResult(ToolResult {
        call: json.string_at("tool_use_id").unwrap_or_default(),
        name: None,
        content: read_content(json.get("content")),
        is_error: json.get("is_error").and_then(JsonRef::bool).unwrap_or(false),
        form: CallKind::Function,
    })
}

fn read_thinking(json: JsonRef<'_>) -> Block {
    let redacted = json.string_at("data").filter(|_| json.get("thinking").is_none());
    let proof = match redacted {
        Some(value) => Some(ReasoningSignature {
            dialect: DIALECT,
            kind: SignatureKind::Redacted,
            value,
            id: None,
        }),
        None => {
            json.get("signature").and_then(JsonRef::str).and_then(|value| read_signature(&value))
        }
    };
    let text = json.string_at("thinking").unwrap_or_default();
    let extras = Extras::from_object(DIALECT, json, &["type", "thinking", "signature", "data"]);
    Block {
        signature: proof,
        extras,
        ..Block::new(BlockKind::Reasoning(Reasoning { text, summary: false }))
    }
}

/// Reads media whose source is of one of the plain kinds.
fn read_media(json: JsonRef<'_>, kind: MediaKind) -> Option<Media> {
    read_source(json).map(|(source, mime)| Media {
        kind,
        source,
        mime,
        name: json.string_at("title"),
        detail: None,
    })
}

fn read_source(json: JsonRef<'_>) -> Option<(MediaSource, Option<String>)> {
    let source = json.get("source")?;
    let mime = source.string_at("media_type");
    let read = match source.get("type").and_then(JsonRef::str).as_deref()? {
        "base64" => MediaSource::Base64(source.string_at("data")?),
        "text" => MediaSource::Text(source.string_at("data")?),
        "url" => MediaSource::Url(source.string_at("url")?),
        "file" => MediaSource::FileId(source.string_at("file_id")?),
        _ => return None,
    };
    Some((read, mime))
}

fn read_document(json: JsonRef<'_>) -> Block {
    match (read_media(json, MediaKind::Document), json.member_at(&["source", "content"])) {
        (Some(media), _) => {
            let extras =
                Extras::from_object(DIALECT, json, &["type", "source", "title", "cache_control"]);
            Block { cache: read_cache_control(json), extras, ..Block::new(BlockKind::Media(media)) }
        }
        (None, Some(blocks)) => read_as_text_document(json, blocks, ORIGINAL_BLOCK_KEYS[0]),
        (None, None) => foreign_block(json),
    }
}

fn read_search_result(json: JsonRef<'_>) -> Block {
    match json.get("content") {
        Some(blocks) => read_as_text_document(json, blocks, ORIGINAL_BLOCK_KEYS[1]),
        None => foreign_block(json),
    }
}

/// Reads a block as text, and stores the original for its own dialect.
fn read_as_text(json: JsonRef<'_>, text: &str) -> Block {
    let mut block = Block::text(text);
    block.cache = read_cache_control(json);
    block.extras.push_dialect_only(DIALECT, ORIGINAL_NOTE, RawJson::from_json(json));
    block
}

/// Reads a document made of blocks as text, and stores the original for its own dialect.
fn read_as_text_document(json: JsonRef<'_>, blocks: JsonRef<'_>, key: &str) -> Block {
    let texts: Vec<String> = read_content(Some(blocks))
        .into_iter()
        .filter_map(|block| match block.kind {
            BlockKind::Text(text) => Some(text.text),
            _ => None,
        })
        .collect();
    let name = json.string_at("title").or_else(|| json.string_at("source"));
    let mime = Some("text/plain".to_owned());
    let media = Media {
        kind: MediaKind::Document,
        source: MediaSource::Text(texts.join("\n\n")),
        mime,
        name,
        detail: None,
    };
    let mut extras = Extras::default();
    extras.push(DIALECT, key, RawJson::from_json(json));
    Block { cache: read_cache_control(json), extras, ..Block::new(BlockKind::Media(media)) }
}
