//! Reads items and their parts, which are the same in requests, responses and streams.

use crate::{
    base::{
        data_url,
        json::{raw::RawJson, reader::JsonRef, writer},
    },
    ir::{
        block::{
            Block, BlockKind, CallKind, Citation, Media, MediaKind, MediaSource, Reasoning,
            ReasoningSignature, SignatureKind, TextBlock, ToolCall,
        },
        extras::Extras,
        op::Dialect,
    },
};

pub(super) const DIALECT: Dialect = Dialect::Responses;
/// The note on an item's first block: the item's own fields (type, id, status).
pub(super) const ITEM_NOTE: &str = "item";
/// The same note on a reasoning item that is useless without its encrypted content.
pub(super) const SEALED_ITEM_NOTE: &str = "sealed_item";
/// The note on a block that is an unknown part of a message.
pub(super) const PART_NOTE: &str = "part";
/// The prefix for an item's fields among the extras of its first block.
pub(super) const ITEM_FIELD_PREFIX: &str = "item.";
/// The prefix of ids for reasoning items that aiproxy made from another dialect's reasoning.
pub(super) const SYNTHETIC_ID_PREFIX: &str = "rs_aip_";
/// Separates the parts of a summary.
pub(super) const SUMMARY_SEPARATOR: &str = "\n\n";

pub(super) fn item_type(json: JsonRef<'_>) -> String {
    json.string_at("type").unwrap_or_default()
}

/// An object of the members that are in `wanted`.
pub(super) fn pick_members(json: JsonRef<'_>, wanted: &[&str]) -> RawJson {
    RawJson::object(|o| {
        for (key, value) in
            json.members().filter(|(key, value)| wanted.contains(key) && value.kind() != "null")
        {
            o.json(key, value);
        }
    })
}

/// Preserves an item's own fields on its first block: type, role, id, status and namespace as a
/// note, the rest as extras.
pub(super) fn note_item_fields(block: &mut Extras, item: JsonRef<'_>, known: &[&str]) {
    const NOTED: [&str; 5] = ["type", "role", "id", "status", "namespace"];
    block.push_dialect_only(DIALECT, ITEM_NOTE, pick_members(item, &NOTED));
    for (key, value) in item.members().filter(|(key, value)| {
        !known.contains(key) && !NOTED.contains(key) && value.kind() != "null"
    }) {
        block.push(DIALECT, &format!("{ITEM_FIELD_PREFIX}{key}"), RawJson::from_json(value));
    }
}

/// Reads a part of a message's content or of a tool's output.
pub(super) fn read_part(json: JsonRef<'_>) -> Block {
    let (kind, known): (BlockKind, &[&str]) =
        match (item_type(json).as_str(), json.string_at("text")) {
            (
                "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text",
                Some(text),
            ) => {
                let citations = json
                    .get("annotations")
                    .into_iter()
                    .flat_map(JsonRef::items)
                    .map(read_citation)
                    .collect();
                (
                    BlockKind::Text(TextBlock { text, citations }),
                    &["type", "text", "annotations", "logprobs"],
                )
            }
            ("refusal", _) => (
                BlockKind::Refusal(json.string_at("refusal").unwrap_or_default()),
                &["type", "refusal"],
            ),
            (
                kind @ ("input_image"
                | "image_url"
                | "computer_screenshot"
                | "input_file"
                | "input_audio"),
                _,
            ) => match read_media(kind, json) {
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
    Block { extras: Extras::from_object(DIALECT, json, known), ..Block::new(kind) }
}

fn foreign_part(json: JsonRef<'_>) -> Block {
    let mut block =
        Block::new(BlockKind::Foreign { dialect: DIALECT, body: RawJson::from_json(json) });
    block.extras.push_dialect_only(DIALECT, PART_NOTE, RawJson::from(true));
    block
}

fn read_media(kind: &str, json: JsonRef<'_>) -> Option<Media> {
    let text = |key| json.non_empty_at(key);
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
                match (text("file_data").map(|data| split_data_url(&data)), text("file_url")) {
                    (Some(data), _) => data,
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
            let mime = audio.string_at("format").map(|format| format!("audio/{format}"));
            Some(plain(MediaKind::Audio, MediaSource::Base64(audio.string_at("data")?), mime))
        }
        _ => {
            let url = text("image_url").or_else(|| json.get("image_url")?.string_at("url"));
            let (source, mime) = match url {
                Some(url) if url.starts_with("data:") => split_data_url(&url),
                Some(url) => (MediaSource::Url(url), None),
                None => (file?, None),
            };
            Some(plain(MediaKind::Image, source, mime))
        }
    }
}

/// Splits a data URL; any other text counts as plain base64.
fn split_data_url(text: &str) -> (MediaSource, Option<String>) {
    match data_url::split(text) {
        Some(parts) => (MediaSource::Base64(parts.data.to_owned()), parts.mime.map(str::to_owned)),
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

pub(super) fn read_citation(json: JsonRef<'_>) -> Citation {
    let count = |key| json.get(key).and_then(JsonRef::u64);
    Citation {
        url: json.string_at("url"),
        title: json.string_at("title").or_else(|| json.string_at("filename")),
        cited_text: None,
        span: count("start_index").zip(count("end_index")),
        raw: Some((DIALECT, RawJson::from_json(json))),
    }
}

/// The text of a reasoning item: its summary, else its content. The flag says whether it is the
/// summary.
pub(super) fn reasoning_text(item: JsonRef<'_>) -> (String, bool) {
    let texts = |key| {
        item.get(key)
            .into_iter()
            .flat_map(JsonRef::items)
            .filter_map(|part| part.string_at("text"))
            .collect::<Vec<_>>()
    };
    let summary = texts("summary").join(SUMMARY_SEPARATOR);
    if !summary.is_empty() {
        return (summary, true);
    }
    let content_text = match item.get("content") {
        Some(content) if content.is_array() => texts("content").concat(),
        _ => item.string_at("content").unwrap_or_default(),
    };
    let summary = content_text.is_empty();
    (content_text, summary)
}

pub(super) fn read_signature(item: JsonRef<'_>) -> Option<ReasoningSignature> {
    let value = item.non_empty_at("encrypted_content")?;
    let id =
        item.string_at("id").filter(|id| !id.is_empty() && !id.starts_with(SYNTHETIC_ID_PREFIX));
    Some(ReasoningSignature { dialect: DIALECT, kind: SignatureKind::Encrypted, value, id })
}

/// Reads a reasoning item, and preserves the original next to the parsed fields.
pub(super) fn read_reasoning(item: JsonRef<'_>) -> Block {
    let (text, summary) = reasoning_text(item);
    let mut block = Block::new(BlockKind::Reasoning(Reasoning { text, summary }));
    block.signature = read_signature(item);
    if block.signature.is_some()
        || !item.string_at("id").is_some_and(|id| id.starts_with(SYNTHETIC_ID_PREFIX))
    {
        let rest = RawJson::object(|o| {
            for (key, value) in item
                .members()
                .filter(|(key, value)| *key != "encrypted_content" && value.kind() != "null")
            {
                o.json(key, value);
            }
        });
        block.extras.push_dialect_only(
            DIALECT,
            if block.signature.is_some() { SEALED_ITEM_NOTE } else { ITEM_NOTE },
            rest,
        );
    }
    block
}

/// Reads a call for the client; its id is empty if the item has none.
pub(super) fn read_call(item: JsonRef<'_>, form: CallKind) -> ToolCall {
    let (key, name) = (
        if form == CallKind::Custom { "input" } else { "arguments" },
        item.string_at("name").unwrap_or_default(),
    );
    let id = item.non_empty_at("call_id").or_else(|| item.string_at("id")).unwrap_or_default();
    let arguments = item.get(key).map(|value| value.plain_text());
    ToolCall { id, name, arguments: arguments.unwrap_or_default(), form }
}

/// The kind of call that this item type is.
pub(super) fn call_kind(kind: &str) -> Option<CallKind> {
    match kind {
        "function_call" => Some(CallKind::Function),
        "custom_tool_call" => Some(CallKind::Custom),
        _ => None,
    }
}

/// Reads an image that the provider generated, if it is complete.
pub(super) fn read_image(item: JsonRef<'_>) -> Option<Media> {
    let data = item.non_empty_at("result")?;
    let format = item.string_at("output_format").unwrap_or_else(|| "png".to_owned());
    Some(Media {
        kind: MediaKind::Image,
        source: MediaSource::Base64(data),
        mime: Some(format!("image/{format}")),
        name: None,
        detail: None,
    })
}

/// The name of a namespace's tool among all tools.
pub(super) fn qualified_name(namespace: &str, name: &str) -> String {
    format!("{namespace}__{name}")
}

/// Writes an object's members into another.
pub(super) fn write_members(o: &mut writer::ObjectWriter<'_>, object: &RawJson, except: &[&str]) {
    for (key, value) in object.json().members().filter(|(key, _)| !except.contains(key)) {
        o.json(key, value);
    }
}
