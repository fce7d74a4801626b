//! Reads items and their parts: the same in requests, answers and streams.

use crate::{
    base::{json::JsonRef, raw::RawJson, write},
    ir::{
        block::{
            Block, BlockKind, CallKind, Citation, Media, MediaKind, MediaSource, Reasoning,
            ReasoningSignature, SignatureKind, TextBlock, ToolCall,
        },
        extras::Extras,
        op::Dialect,
    },
};

pub(super) const OWN: Dialect = Dialect::Responses;
/// Note at an item's first block: the item's own fields (type, id, state).
pub(super) const ITEM: &str = "item";
/// The same at a reasoning item that is worth nothing without its encrypted content.
pub(super) const SEALED: &str = "sealed_item";
/// Note at a block that is a part of a message, unknown here.
pub(super) const PART: &str = "part";
/// Begins the names of an item's fields that stand among the extras of its first block.
pub(super) const ITEM_FIELD: &str = "item.";
/// Begins the ids of reasoning items that were made here from another dialect's reasoning.
pub(super) const MADE: &str = "rs_aip_";
/// Between the parts of a summary.
pub(super) const BREAK: &str = "\n\n";

pub(super) fn string(json: JsonRef<'_>, key: &str) -> Option<String> {
    json.get(key).and_then(JsonRef::str).map(std::borrow::Cow::into_owned)
}

pub(super) fn kind(json: JsonRef<'_>) -> String {
    string(json, "type").unwrap_or_default()
}

/// The members that are in `wanted`.
pub(super) fn only(json: JsonRef<'_>, wanted: &[&str]) -> RawJson {
    RawJson::object(|o| {
        for (key, value) in
            json.members().filter(|(key, value)| wanted.contains(key) && value.kind() != "null")
        {
            o.json(key, value);
        }
    })
}

/// Keeps an item's own fields at its first block: what it is called and how far it is as a note,
/// the rest as extras.
pub(super) fn mark(block: &mut Extras, item: JsonRef<'_>, known: &[&str]) {
    const NOTED: [&str; 5] = ["type", "role", "id", "status", "namespace"];
    block.push_dialect_only(OWN, ITEM, only(item, &NOTED));
    for (key, value) in item.members().filter(|(key, value)| {
        !known.contains(key) && !NOTED.contains(key) && value.kind() != "null"
    }) {
        block.push(OWN, &format!("{ITEM_FIELD}{key}"), RawJson::from_json(value));
    }
}

/// A part of a message's content, or of a tool's output.
pub(super) fn part(json: JsonRef<'_>) -> Block {
    let (kind, known): (BlockKind, &[&str]) = match (kind(json).as_str(), string(json, "text")) {
        ("input_text" | "output_text" | "text" | "summary_text" | "reasoning_text", Some(text)) => {
            let citations = json
                .get("annotations")
                .into_iter()
                .flat_map(JsonRef::items)
                .map(citation)
                .collect();
            (
                BlockKind::Text(TextBlock { text, citations }),
                &["type", "text", "annotations", "logprobs"],
            )
        }
        ("refusal", _) => {
            (BlockKind::Refusal(string(json, "refusal").unwrap_or_default()), &["type", "refusal"])
        }
        (
            kind @ ("input_image"
            | "image_url"
            | "computer_screenshot"
            | "input_file"
            | "input_audio"),
            _,
        ) => match media(kind, json) {
            Some(media) => (
                BlockKind::Media(media),
                &[
                    "type",
                    "image_url",
                    "file_id",
                    "file_url",
                    "file_data",
                    "filename",
                    "detail",
                    "input_audio",
                ],
            ),
            None => return foreign_part(json),
        },
        _ => return foreign_part(json),
    };
    Block { extras: Extras::from_object(OWN, json, known), ..Block::new(kind) }
}

fn foreign_part(json: JsonRef<'_>) -> Block {
    let mut block = Block::new(BlockKind::Foreign { dialect: OWN, body: RawJson::from_json(json) });
    block.extras.push_dialect_only(OWN, PART, RawJson::from(true));
    block
}

fn media(kind: &str, json: JsonRef<'_>) -> Option<Media> {
    let text = |key| string(json, key).filter(|text| !text.is_empty());
    let file = text("file_id").map(MediaSource::FileId);
    let plain = |kind, source, mime| Media {
        kind,
        source,
        mime,
        name: text("filename"),
        detail: text("detail"),
    };
    match kind {
        "input_file" => {
            let name = text("filename");
            let (source, mime) =
                match (text("file_data").map(|data| data_url(&data)), text("file_url")) {
                    (Some(told), _) => told,
                    (None, Some(url)) => (MediaSource::Url(url), None),
                    (None, None) => (file?, None),
                };
            let mime = mime.or_else(|| name.as_deref().and_then(mime_of));
            let document =
                mime.as_deref().is_some_and(|m| m == "application/pdf" || m.starts_with("text/"))
                    || mime.is_none();
            Some(plain(if document { MediaKind::Document } else { MediaKind::File }, source, mime))
        }
        "input_audio" => {
            let audio = json.get("input_audio").unwrap_or(json);
            let mime = string(audio, "format").map(|format| format!("audio/{format}"));
            Some(plain(MediaKind::Audio, MediaSource::Base64(string(audio, "data")?), mime))
        }
        _ => {
            let url = text("image_url").or_else(|| string(json.get("image_url")?, "url"));
            let (source, mime) = match url {
                Some(url) if url.starts_with("data:") => data_url(&url),
                Some(url) => (MediaSource::Url(url), None),
                None => (file?, None),
            };
            Some(plain(MediaKind::Image, source, mime))
        }
    }
}

/// A data URL taken apart; anything else counts as base64 itself.
fn data_url(text: &str) -> (MediaSource, Option<String>) {
    match text.strip_prefix("data:").and_then(|rest| rest.split_once(',')) {
        Some((head, data)) => {
            let mime = head.split(';').next().filter(|mime| !mime.is_empty()).map(str::to_owned);
            (MediaSource::Base64(data.to_owned()), mime)
        }
        None => (MediaSource::Base64(text.to_owned()), None),
    }
}

fn mime_of(name: &str) -> Option<String> {
    let ending = name.rsplit_once('.')?.1.to_ascii_lowercase();
    let mime = match ending.as_str() {
        "pdf" => "application/pdf",
        "txt" => "text/plain",
        "md" => "text/markdown",
        "csv" => "text/csv",
        "html" => "text/html",
        _ => return None,
    };
    Some(mime.to_owned())
}

pub(super) fn citation(json: JsonRef<'_>) -> Citation {
    let count = |key| json.get(key).and_then(JsonRef::u64);
    Citation {
        url: string(json, "url"),
        title: string(json, "title").or_else(|| string(json, "filename")),
        cited_text: None,
        span: count("start_index").zip(count("end_index")),
        raw: Some((OWN, RawJson::from_json(json))),
    }
}

/// The thought of a reasoning item: its summary, else its words; and whether it is the summary.
pub(super) fn thought(item: JsonRef<'_>) -> (String, bool) {
    let texts = |key| {
        item.get(key)
            .into_iter()
            .flat_map(JsonRef::items)
            .filter_map(|part| string(part, "text"))
            .collect::<Vec<_>>()
    };
    let summary = texts("summary").join(BREAK);
    if !summary.is_empty() {
        return (summary, true);
    }
    let words = match item.get("content") {
        Some(content) if content.is_array() => texts("content").concat(),
        _ => string(item, "content").unwrap_or_default(),
    };
    let summary = words.is_empty();
    (words, summary)
}

pub(super) fn proof(item: JsonRef<'_>) -> Option<ReasoningSignature> {
    let value = string(item, "encrypted_content").filter(|value| !value.is_empty())?;
    let id = string(item, "id").filter(|id| !id.is_empty() && !id.starts_with(MADE));
    Some(ReasoningSignature { dialect: OWN, kind: SignatureKind::Encrypted, value, id })
}

/// A reasoning item, kept whole beside what is understood of it.
pub(super) fn reasoning(item: JsonRef<'_>) -> Block {
    let (text, summary) = thought(item);
    let mut block = Block::new(BlockKind::Reasoning(Reasoning { text, summary }));
    block.signature = proof(item);
    if block.signature.is_some() || !string(item, "id").is_some_and(|id| id.starts_with(MADE)) {
        let rest = RawJson::object(|o| {
            for (key, value) in item
                .members()
                .filter(|(key, value)| *key != "encrypted_content" && value.kind() != "null")
            {
                o.json(key, value);
            }
        });
        block.extras.push_dialect_only(
            OWN,
            if block.signature.is_some() { SEALED } else { ITEM },
            rest,
        );
    }
    block
}

/// A call for the client; without any id where the item has none.
pub(super) fn call(item: JsonRef<'_>, form: CallKind) -> ToolCall {
    let (key, name) = (
        if form == CallKind::Custom { "input" } else { "arguments" },
        string(item, "name").unwrap_or_default(),
    );
    let id = string(item, "call_id")
        .filter(|id| !id.is_empty())
        .or_else(|| string(item, "id"))
        .unwrap_or_default();
    let arguments = item.get(key).map(|said| {
        said.str().map_or_else(|| said.text().to_owned(), std::borrow::Cow::into_owned)
    });
    ToolCall { id, name, arguments: arguments.unwrap_or_default(), form }
}

/// The form of call that an item of this type is.
pub(super) fn form(kind: &str) -> Option<CallKind> {
    match kind {
        "function_call" => Some(CallKind::Function),
        "custom_tool_call" => Some(CallKind::Custom),
        _ => None,
    }
}

/// An image that the provider made, where it is told whole.
pub(super) fn image(item: JsonRef<'_>) -> Option<Media> {
    let data = string(item, "result").filter(|data| !data.is_empty())?;
    let format = string(item, "output_format").unwrap_or_else(|| "png".to_owned());
    Some(Media {
        kind: MediaKind::Image,
        source: MediaSource::Base64(data),
        mime: Some(format!("image/{format}")),
        name: None,
        detail: None,
    })
}

/// The name that a namespace's tool has among all tools.
pub(super) fn joined(namespace: &str, name: &str) -> String {
    format!("{namespace}__{name}")
}

/// Writes an object's members into another.
pub(super) fn members(o: &mut write::ObjectWriter<'_>, object: &RawJson, except: &[&str]) {
    for (key, value) in object.json().members().filter(|(key, _)| !except.contains(key)) {
        o.json(key, value);
    }
}
